import json

import nibabel
import numpy as np
import pytest
import torch

from sagemaker_monai.errors import BundleError, UnsuitableImage
from sagemaker_monai.images.sample import Instances, Sample, Sequences
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume, NormalizeIntensity
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing
from sagemaker_monai.preprocessing.presets import preprocessing_for
from tests.support.dicom_samples import dicom_bytes, series_bytes, series_values
from tests.support.refusals import not_refused

NONE = {"kind": "none"}
WINDOW = {"kind": "window", "center": 0.5, "width": 2001}  # LINEAR: -1000 is 0, 1000 is 1
HU = series_values().astype(np.float32) - 1000  # (slices, rows, columns), 10 rows of 8 columns


def preprocessing(preset, **changes):
    arguments = {"channels": 1, "image_size": 16, "fit": "pad", **changes}
    return build_preprocessing(json.loads(json.dumps(preprocessing_for(preset, **arguments))))


def volume_of(sample, *, size=(8, 10, 6), fit="pad", orientation="LPS", spacing_mm=None, intensity=NONE, channels=1):
    return LoadVolume(channels, list(size), fit, orientation, spacing_mm, intensity).pixels(Sample(sample))


def slice_of(sample, *, size=(8, 10), fit="stretch", intensity=NONE, channels=1):
    return LoadSlice(channels, list(size), fit, intensity).pixels(Sample(sample))


def test_every_slice_and_every_series_has_an_answer_of_its_own():
    files = series_bytes() + series_bytes(series_values(4, seed=1), series="1.2.3.4")

    slices = preprocessing("ct_slice").load_each(Sample(Instances(tuple(files))))
    volumes = preprocessing("ct_volume").load_each(Sample(Instances(tuple(files))))

    assert [len(slices), len(volumes)] == [10, 2]
    assert [traits.identity.series_instance_uid for _, traits in volumes][1] == "1.2.3.4"
    assert len({traits.identity.sop_instance_uids for _, traits in slices}) == 10


def test_one_image_is_meant_where_one_is_loaded():
    files = Instances(tuple(series_bytes()))
    with pytest.raises(UnsuitableImage, match="holds 6 images; name one"):
        slice_of(files)
    with pytest.raises(UnsuitableImage, match="holds 2 images; name one"):
        volume_of(Instances(tuple(series_bytes() + series_bytes(series="1.2.3.4"))))


def test_a_volume_is_turned_and_its_values_stay():
    files = Instances(tuple(series_bytes()))

    as_stored = volume_of(files)
    ras = volume_of(files, orientation="RAS")

    assert np.array_equal(as_stored[0], HU.transpose(2, 1, 0))
    assert np.array_equal(ras[0], HU.transpose(2, 1, 0)[::-1, ::-1])


def test_the_order_is_orientation_spacing_intensity_size(tmp_path):
    """A ramp in mm along anterior, stored backwards along the first axis: found where the world has it."""
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None] * 2, (20, 6, 5))
    affine = np.array([[0, 1, 0, 0], [-2, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)  # w goes to posterior, 2 mm
    path = tmp_path / "ramp.nii"
    nibabel.save(nibabel.Nifti1Image(ramp, affine), path)
    spec = {"kind": "range", "low": 0, "high": 40}

    loaded = volume_of(path, size=(6, 50, 5), orientation="RAS", spacing_mm=[1, 1, 1], intensity=spec)

    line = loaded[0, 3, :, 2]
    assert (line[:5] == 0).all()  # 40 mm in 50 voxels: 5 of padding on each side
    assert (line[45:] == 0).all()
    # Voxel 5 lies 0.5 mm from the posterior edge, where a value of 38 stands for 2 mm.
    assert np.allclose(line[7:43], (38.5 - np.arange(2, 38)) / 40, atol=1e-5)


def test_a_window_comes_before_padding_which_is_black():
    padded = volume_of(Instances(tuple(series_bytes())), size=(12, 12, 12), intensity=WINDOW)

    assert padded[0, :2].max() == padded[0, :, :, :3].max() == 0
    expected = np.clip((HU.transpose(2, 1, 0) + 1000) / 2000, 0, 1)
    assert np.allclose(padded[0, 2:10, 1:11, 3:9], expected, atol=1e-6)


def test_what_means_no_pixel_bleeds_into_no_neighbour():
    stored = np.full((6, 10, 8), 1500)
    stored[:, :, :4] = 60000
    stored[:, 0, 4:] = 1000
    files = series_bytes(stored, PixelPaddingValue=60000)

    loaded = volume_of(Instances(tuple(files)), size=(8, 10, 15), spacing_mm=[1, 1, 1], intensity=WINDOW)

    assert loaded[0, :4].max() == 0
    assert np.allclose(loaded[0, 5:, 1:], 0.75, atol=1e-6)


def test_monochrome1_is_inverted_and_a_zscore_negated():
    stored = series_values()[0]
    plain, inverted = (dicom_bytes(stored, PhotometricInterpretation=name) for name in ("MONOCHROME2", "MONOCHROME1"))
    header, score = {"kind": "header"}, {"kind": "zscore", "nonzero": False}

    assert np.allclose(slice_of(inverted, intensity=header), 1 - slice_of(plain, intensity=header), atol=1e-6)
    assert np.allclose(slice_of(inverted, intensity=score), -slice_of(plain, intensity=score), atol=1e-6)


@pytest.mark.parametrize(
    ("fit", "width", "first"),
    [("pad", 16, 0), ("stretch", 32, 0), ("crop", 32, 0)],
)
def test_a_slice_keeps_the_aspect_of_its_millimetres(fit, width, first):
    """20 x 20 pixels, twice as high as wide: 20 x 40 mm, so half of the square is padding, or of the height is cut."""
    stored = np.full((20, 20), 1500)
    stored[:5] = 2000

    loaded = slice_of(dicom_bytes(stored, spacing=(2, 1)), size=(32, 32), fit=fit, intensity=WINDOW)

    present = np.flatnonzero(loaded[0, :, 16])
    assert len(present) == width
    # The bright quarter on top: whole where all of the height is there, gone where its middle half was cut out.
    bright = np.flatnonzero(loaded[0, 16] > 0.9)
    assert len(bright) == (0 if fit == "crop" else 8)


def test_colours_become_grey_for_a_model_of_one_channel():
    colours = np.random.default_rng(0).integers(0, 256, (10, 8, 3))

    grey = slice_of(dicom_bytes(colours), intensity={"kind": "header"})
    kept = slice_of(dicom_bytes(colours), intensity={"kind": "header"}, channels=3)

    assert np.allclose(grey[0].T, colours @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    assert np.allclose(kept.transpose(2, 1, 0), colours / 255, atol=1e-6)


def test_each_sequence_has_its_own_intensity(tmp_path):
    values = np.random.default_rng(0).normal(size=(8, 10, 6)).astype(np.float32)
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values * 10**index + index, np.eye(4)), paths[-1])
    score = {"kind": "zscore", "nonzero": False}

    loaded = volume_of(Sequences(tuple(paths)), channels=3, intensity=score, orientation="RAS")

    for channel in loaded:
        assert np.allclose(channel, (values - values.mean()) / values.std(), atol=1e-4)
    with pytest.raises(UnsuitableImage, match="takes images of 2 channels, this one has 3"):
        volume_of(Sequences(tuple(paths)), channels=2)


def test_other_channels_are_refused():
    with pytest.raises(UnsuitableImage, match="of 2 channels, this one has 1"):
        volume_of(np.zeros((4, 4, 4)), channels=2)
    with pytest.raises(UnsuitableImage, match="of 3 channels, this one has 1"):
        slice_of(dicom_bytes(series_values()[0]), channels=3)


def test_a_spacing_cannot_be_had_from_an_array():
    with pytest.raises(UnsuitableImage, match="needs the spacing of a volume"):
        volume_of(np.zeros((4, 4, 4)), spacing_mm=[1, 1, 1])
    assert np.array_equal(volume_of(np.ones((8, 10, 6)), orientation="SAR"), np.ones((1, 8, 10, 6)))


def test_a_photograph_model_takes_dicom_as_a_viewer_shows_it():
    colours = np.random.default_rng(0).integers(0, 256, (10, 8, 3))
    both = preprocessing("photo", image_size=10, fit="pad", channels=3)
    grey = dicom_bytes(np.array([[1000, 1500], [1500, 2000]]), WindowCenter=500.5, WindowWidth=1001)

    [(tensor, traits)] = both.load_each(Sample(dicom_bytes(colours)))
    shown = preprocessing("photo", image_size=2).load(Sample(Instances((grey,))))

    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor[:, 1:9].numpy().transpose(2, 1, 0), colours)
    assert traits.identity.sop_instance_uids
    assert shown[0].tolist() == [[0, 128], [128, 255]]
    with pytest.raises(UnsuitableImage, match="6 images"):
        both.load(Sample(Instances(tuple(series_bytes()))))
    assert len(both.load_each(Sample(Instances(tuple(series_bytes()))))) == 6


@pytest.mark.parametrize("size", [(5, 4), (5, 4, 3)])
def test_scaling_is_by_channel_and_gives_the_same_bits_alone_and_in_a_batch(size):
    batch = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    before = batch.clone()

    scaled = NormalizeIntensity([0.5, 2], [0.25, 4])(batch, len(size))

    for channel, (mean, std) in enumerate([(0.5, 0.25), (2, 4)]):
        assert torch.equal(scaled[:, channel], (batch[:, channel] - mean) / std)
    assert torch.equal(NormalizeIntensity([0.5, 2], [0.25, 4])(batch[0]), scaled[0])
    assert torch.equal(batch, before)


def changed(step, key, value):
    spec = preprocessing_for("ct_volume", channels=1, image_size=16, fit="pad")
    spec[step][key] = value
    return spec


def test_any_other_spec_is_refused():
    name = "sagemaker_monai.transforms"
    wrong = {
        (0, "channels"): [0, 17, 2, True],
        (0, "size"): [[16, 16], [16, 16, 0], [4096, 4096, 4096], [16, 16, 16.0]],
        (0, "fit"): ["crop"],
        (0, "orientation"): ["RAX", "RLS", ["R", "A", "S"], "RASL"],
        (0, "spacing_mm"): [[1, 1], [1, 1, 0], [1, 1, float("nan")], [1, 1, 10**400], 1],
        (0, "intensity"): [{"kind": "eval"}, None],
        (0, "_target_"): [f"{name}.LoadSlice", f"{name}.NormalizeIntensity", LoadVolume.__module__ + ".LoadVolume"],
        (1, "_target_"): [f"{name}.NormalizePhotograph"],
        (1, "mean"): [[]],
        (1, "std"): [[0.0], [10**400]],
    }  # fmt: skip
    specs = [changed(*place, value) for place, values in wrong.items() for value in values]
    without = preprocessing_for("ct_volume", channels=1, image_size=16, fit="pad")
    del without[0]["intensity"]

    assert not_refused([*specs, without], build_preprocessing, BundleError) == []
