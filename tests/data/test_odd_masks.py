"""Masks as data sets really have them: read right, read with a finding, or refused with the cause, and never otherwise.

`train` and `doctor` must come to the same result.
"""

import gzip
import io

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.legends import read_legend
from sagemaker_monai.data.mask_reading import MaskOf, read_case
from sagemaker_monai.doctor.mask_facts import look_at_mask
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.medical import LoadVolume
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from tests.support.mask_sets import ball_volume

IMAGE, LABELS, AFFINE = ball_volume(0, shape=(12, 10, 8))
DISC = np.zeros((20, 24), np.uint8)
DISC[4:15, 6:12] = 1
SMOOTH = np.asarray(Image.fromarray(DISC * 255).resize((12, 10), 2).resize((24, 20)))
LEGEND, OF_DISC = read_legend({"background": 0, "bright": 1, "dark": 2}), read_legend({"background": 0, "disc": 1})


def nifti(values):
    return nibabel.Nifti1Image(values, AFFINE).to_bytes()


def without_place(values):
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    return image.to_bytes()


def changed(values, place, value, dtype=np.float32):
    values = values.astype(dtype)
    values[place] = value
    return values


def scaled(slope):
    image = nibabel.Nifti1Image(LABELS, AFFINE)
    image.header.set_slope_inter(slope, 0)
    return image.to_bytes()


# Name of the file, its bytes, and the findings with which it is read as LABELS, or a part of the refusal.
VOLUMES = {
    "floating point": ("m.nii", nifti(LABELS.astype(np.float32)), ()),
    "nearly whole": ("m.nii", nifti(LABELS * 1.0004), ("mask_values_rounded",)),
    "0.5": ("m.nii", nifti(changed(LABELS, (0, 0, 0), 0.5)), "0.5 is not whole"),
    "NaN": ("m.nii", nifti(changed(LABELS, (0, 0, 0), np.nan)), "1 of 960 values are NaN or infinite"),
    "probabilities": ("m.nii", nifti((IMAGE / 400).astype(np.float32)), "is not whole: it was interpolated"),
    "negative": ("m.nii", nifti(-LABELS.astype(np.int16)), "-1 is negative"),
    "too large": ("m.nii", nifti(LABELS * np.int32(70_000)), "70000 is more than 65535"),
    "a factor in the header": ("m.nii", scaled(2.0), "values without a name (4)"),
    "a fourth axis of one": ("m.nii", nifti(LABELS[..., None]), ()),
    "five axes": ("m.nii", nifti(LABELS[..., None, None]), ()),
    "one channel a structure": (
        "m.nii",
        nifti(np.stack([LABELS == 1, LABELS == 2], -1).astype(np.uint8)),
        "2 channels",
    ),
    "packed, named as unpacked": ("m.nii", gzip.compress(nifti(LABELS)), ()),
    "unpacked, named as packed": ("m.nii.gz", nifti(LABELS), ()),
    "capital letters": ("M.NII.GZ", gzip.compress(nifti(LABELS)), ()),
    "no place in the header": ("m.nii", without_place(LABELS), ("mask_place_unproved",)),
    "cut off": ("m.nii", nifti(LABELS)[:-9], ""),
}


def png(values, mode=None, form="PNG", **options):
    stream = io.BytesIO()
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(stream, form, **options)
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def in_channels(values, count, rest=255):
    return np.dstack([values] * 3 + [np.full_like(values, rest)] * (count - 3))


WHITE = ("mask_white_is_one",)
PICTURES = {
    "0 and 1": (png(DISC), ()),
    "0 and 255": (png(DISC * 255), WHITE),
    "three equal channels": (png(in_channels(DISC, 3)), ()),
    "red": (png(in_channels(DISC * 255, 3) * np.array([1, 0, 0], np.uint8)), "(255, 0, 0)"),
    "opaque": (png(in_channels(DISC * 255, 4)), WHITE),
    "transparent": (png(np.dstack([DISC * 255] * 4)), "transparent pixels"),
    "grey and opaque": (png(DISC * 255, "LA"), WHITE),
    "16 bits": (png(DISC.astype(np.uint16)), ()),
    "white of 16 bits": (png(DISC * np.uint16(65_535)), WHITE),
    "half white": (png(DISC * 128), "values without a name (128)"),
    "smooth edges": (png(SMOOTH), "without a name"),
    "JPEG": (png(DISC * 255, form="JPEG"), "lossy file (JPEG)"),
    "lossy WebP": (png(in_channels(DISC * 255, 3), form="WEBP", quality=50), "lossy"),
    "turned by its header": (png(DISC, exif=turned(6)), "EXIF orientation"),
    "upright by its header": (png(DISC, exif=turned(1)), ()),
    "on its side": (png(np.ascontiguousarray(DISC.T)), "with the axes in another order"),
}  # fmt: skip


def agreed(image, mask, legend, load, spatial_dims):
    """What training reads of a mask, or why not; the same of doctor."""
    facts = look_at_mask(MaskOf(image, mask, legend, spatial_dims))
    try:
        case = read_case(load, Sample(image), mask, legend)
    except CallerError as error:
        said = str(error)
    else:
        said = ""
    assert facts.reason == said
    if said:
        return None, said
    assert facts.findings == case.findings
    assert facts.voxels == tuple(int((case.true == value).sum()) for value in range(1, len(legend.names) + 1))
    return case.true, case.findings


@pytest.mark.parametrize("form", VOLUMES)
def test_the_mask_of_a_volume(tmp_path, form):
    name, content, expected = VOLUMES[form]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "image.nii").write_bytes(nifti(IMAGE))
    load = LoadVolume(1, (8, 8, 8), "whole", "RAS", None, {"kind": "none"})

    true, said = agreed(tmp_path / "image.nii", tmp_path / name, LEGEND, load, 3)

    if isinstance(expected, str):
        assert true is None
        assert expected in said
    else:
        assert np.array_equal(true, LABELS)
        assert said == expected


@pytest.mark.parametrize("form", PICTURES)
def test_the_mask_of_a_picture(tmp_path, form):
    content, expected = PICTURES[form]
    (tmp_path / "mask.png").write_bytes(content)
    (tmp_path / "image.png").write_bytes(png(in_channels(DISC * 90, 3)))
    load = build_preprocessing(photograph_preprocessing(channels=3, image_size=16, fit="stretch")).load_pixels

    true, said = agreed(tmp_path / "image.png", tmp_path / "mask.png", OF_DISC, load, 2)

    if isinstance(expected, str):
        assert true is None
        assert expected in said
    else:
        assert np.array_equal(true, DISC.T)
        assert said == expected
