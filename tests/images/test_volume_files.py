import gzip
import io
import os
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats import inflate
from sagemaker_monai.images.volume_files import HEAD_BYTES, VOLUME_FORMATS, read_volume_file, volume_format_of
from sagemaker_monai.images.volumes import Volume
from tests.images import test_metaimage, test_nrrd
from tests.images.test_arrays import npy, npz
from tests.support.exhaustive import exhaustive
from tests.support.odd_volumes import ODD_NIFTI, Row, oblique, ramp, read_odd_nifti

VALUES = ramp((3, 4, 5), "f4")
REFUSALS = (UndecodableImage, UnsuitableImage, PayloadTooLarge)


def nifti(version=nibabel.Nifti1Image, values=VALUES, *, code=1):
    image = version(values, oblique())
    image.set_sform(oblique(), code)
    return image.to_bytes()


def analyze_header():
    header = nibabel.AnalyzeHeader()
    header.set_data_shape((3, 4, 5))
    return header.binaryblock


# Name, format and bytes of one file of each kind.
FILES = {
    "nifti-1": ("NIFTI", nifti()),
    "nifti-1 by qform": ("NIFTI", nifti(code=0)),
    "nifti-1 gzipped": ("NIFTI", gzip.compress(nifti())),
    "nifti-2": ("NIFTI", nifti(nibabel.Nifti2Image)),
    "nifti-2 gzipped": ("NIFTI", gzip.compress(nifti(nibabel.Nifti2Image))),
    "analyze": ("ANALYZE", analyze_header()),
    "nrrd": ("NRRD", test_nrrd.by_hand()),
    "nrrd gzip": ("NRRD", test_nrrd.by_hand(gzip.compress(test_nrrd.DATA), encoding="gzip")),
    "nrrd ascii": ("NRRD", test_nrrd.by_hand(b"1 2 3 -4", encoding="ascii")),
    "metaimage": ("METAIMAGE", test_metaimage.by_hand()),
    "metaimage zlib": ("METAIMAGE", test_metaimage.by_hand(zlib.compress(test_metaimage.DATA), CompressedData="True")),
    "npy": ("NPY", npy(VALUES)),
    "npz": ("NPZ", npz(image=VALUES, spacing=np.ones(3))),
}


def test_the_content_says_what_a_file_is_whatever_its_name():
    for known, body in FILES.values():
        for name in ("", "a", "a.nii", "a.dcm", "a.npy", "a.mha"):
            assert volume_format_of(body[:HEAD_BYTES], name) == known


@pytest.mark.parametrize("kind", FILES)
def test_a_file_and_its_bytes_are_the_same_volume(tmp_path, kind):
    known, body = FILES[kind]
    (tmp_path / "file").write_bytes(body)
    if known == "ANALYZE":
        for source, refusal in ((body, UnsuitableImage), (tmp_path / "file", UndecodableImage)):
            with pytest.raises(refusal):
                read_volume_file(source)
        return
    by_path, by_bytes = read_volume_file(tmp_path / "file"), read_volume_file(body)

    assert by_path.values.ndim == 4
    assert np.array_equal(by_path.values, by_bytes.values)
    assert np.array_equal(by_path.affine, by_bytes.affine)


def test_the_name_says_what_a_file_without_a_mark_is():
    for known, row in VOLUME_FORMATS.items():
        for suffix in row.suffixes:
            assert volume_format_of(b"", f"scan{suffix.upper()}") in ("NIFTI", known)
    for head, name in ((b"", ""), (b"\x89PNG\r\n\x1a\n", "a.png"), (gzip.compress(b"text"), "a.gz"), (b"PK\3\4", "a")):
        assert volume_format_of(head, name) is None


def test_a_gzip_file_of_something_else_and_other_zips_are_no_volumes():
    buffer = io.BytesIO(npz(image=VALUES).replace(b"image.npy", b"image.txt"))
    for body in (gzip.compress(npy(VALUES)), gzip.compress(b"text"), buffer.getvalue(), b"", b"\x1f\x8b", b"text"):
        with pytest.raises(UndecodableImage, match="not a volume of the expected type"):
            read_volume_file(body)


def test_only_allowed_formats_are_read():
    body = FILES["npy"][1]

    assert read_volume_file(body, ("NPY", "JPEG")).values.shape == (1, 3, 4, 5)
    for formats in (("NIFTI",), ("JPEG",)):
        with pytest.raises(UndecodableImage, match="not a volume of the expected type"):
            read_volume_file(body, formats)


def test_what_cannot_be_opened_is_refused_without_its_path(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "folder.nii").mkdir()
    inside = [tmp_path / name for name in ("pipe.nii", "folder.nii", "missing.nii")]
    for path in (*inside, Path("/dev/zero"), Path("a\0")):
        with pytest.raises(UndecodableImage) as caught:
            read_volume_file(path)
        assert str(tmp_path) not in str(caught.value)
        assert path.name.strip("\0") not in str(caught.value).split()


def test_a_huge_file_is_refused_by_its_length(tmp_path):
    with (tmp_path / "a.nii").open("wb") as file:
        file.truncate(inflate.MAX_FILE_BYTES + 1)

    with pytest.raises(PayloadTooLarge):
        read_volume_file(tmp_path / "a.nii")


# --- values that are not finite --------------------------------------------------------------------------------------


def broken_values(dtype):
    values = VALUES.astype(dtype)
    values[0, 0, 0], values[1, 2, 3], values[2, 3, 4] = np.nan, np.inf, -np.inf
    if np.dtype(dtype).itemsize == 8:
        values[1, 1, 1] = 1e300  # float32 cannot hold it
    return values


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("encode", [npy, lambda values: nifti(values=values), lambda values: npz(image=values)])
def test_values_that_are_not_finite_are_counted_and_refused_or_read_as_zero(dtype, encode):
    values = broken_values(dtype)
    count = 4 if dtype == "f8" else 3

    with pytest.raises(UnsuitableImage, match=f"^{count} of 60 values are NaN or infinite"):
        read_volume_file(encode(values))
    expected = np.where(np.isfinite(values) & (np.abs(values) < 1e38), values, 0).astype(np.float32)
    assert np.array_equal(read_volume_file(encode(values), non_finite="zero").values[0], expected)


def test_scaling_beyond_float32_counts_as_not_finite():
    body = bytearray(nifti(values=np.full((3, 4, 5), 2, np.int16)))
    body[112:116] = np.float32(3e38).tobytes()  # scl_slope

    with pytest.raises(UnsuitableImage, match=r"^60 of 60"):
        read_volume_file(bytes(body))


# --- hostile input ---------------------------------------------------------------------------------------------------


def read_or_refuse(body, **options):
    start = time.perf_counter()
    try:
        volume = read_volume_file(body, **options)
    except REFUSALS:
        pass
    else:
        assert isinstance(volume, Volume)
        assert volume.values.dtype == np.float32
        assert volume.values.ndim == 4
        assert np.isfinite(volume.values).all()
        assert volume.affine.shape == (4, 4)
        assert np.isfinite(volume.affine).all()
        assert np.linalg.det(volume.affine) != 0
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("kind", exhaustive(FILES))
@given(data=st.data())
@settings(max_examples=120)
def test_damaged_files_are_read_or_refused_and_nothing_else(kind, data):
    body = bytearray(FILES[kind][1])
    header = min(len(body), 560) - 1
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, header))
        content = data.draw(st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(WORDS)))
        if data.draw(st.booleans()):
            body[start : start + len(content)] = content
        else:
            body[start:start] = content
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(body))))

    read_or_refuse(bytes(body[:cut]), non_finite="zero")


WORDS = [
    *[b"0", b"-1", b"nan", b"inf", b"1e999", b"99999999999999999999", b"none", b"(", b")", b",", b":", b"=", b"%"],
    *[b"LIST", b"LOCAL", b"\n\n", b"\r\n", b" "],
    *[
        np.array(value, dtype).tobytes()
        for dtype in ("<f4", ">f4", "<f8")
        for value in (np.nan, np.inf, 0, 1e38, -1e-38)
    ],
    *[np.array(value, dtype).tobytes() for dtype in ("<i2", "<i4", "<i8") for value in (0, -1, 32767, 348, 540)],
    *[b"\0", b"\xff" * 8, b"\x80\x00"],
]


@pytest.mark.parametrize("kind", exhaustive(["nifti-1", "nifti-1 by qform", "nifti-2"]))
@given(data=st.data())
@settings(max_examples=150)
def test_every_field_of_a_nifti_header_may_be_nonsense(kind, data):
    body = FILES[kind][1]
    size = 540 if kind == "nifti-2" else 348
    header_class = nibabel.Nifti2Header if kind == "nifti-2" else nibabel.Nifti1Header
    header = header_class(body[:size], check=False)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([name for name in header if header[name].dtype.kind in "if"]))
        field = header[name]
        values = np.array(field).reshape(-1)
        limits = np.iinfo(field.dtype) if field.dtype.kind == "i" else None
        for index in range(values.size):
            if data.draw(st.booleans()):
                values[index] = data.draw(
                    st.floats(width=32) if limits is None else st.integers(int(limits.min), int(limits.max))
                )
        header[name] = values.reshape(field.shape)

    read_or_refuse(header.binaryblock + body[size:], non_finite="zero")


@pytest.mark.parametrize("kind", FILES)
@given(body=st.binary(max_size=400))
@settings(max_examples=40)
def test_rubbish_after_the_mark_is_read_or_refused(kind, body):
    read_or_refuse(FILES[kind][1][:12] + body)


# --- as a whole ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ODD_NIFTI.is_dir(), reason="needs the shared data")
def test_a_row_says_what_became_of_a_file():
    assert read_odd_nifti(ODD_NIFTI / "standard.nii.gz") == Row(
        "standard.nii.gz", "read", "", "", (1, 4, 5, 7), ("nibabel", "SimpleITK")
    )
    refused = read_odd_nifti(ODD_NIFTI / "functional.nii")
    assert (refused.outcome, refused.code, refused.shape) == ("refused", "UnsuitableImage", ())
    assert "time series" in refused.message
