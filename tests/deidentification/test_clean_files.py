"""A cleaned copy of a picture or volume has the same image, and nothing that was hidden beside it."""

import gzip
import io
import re
import struct
import zlib

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.deidentification.clean_files import clean_file, is_clean
from sagemaker_monai.deidentification.deidentify_nifti import deidentify_nifti
from sagemaker_monai.deidentification.picture_metadata import cleaned
from sagemaker_monai.errors import CallerError, UndecodableImage
from sagemaker_monai.images.read import read_frames_of, read_volumes_of
from sagemaker_monai.images.sample import Sample
from tests.attacks.file_places import AFFINE, GREY, PICTURES, RGB, VOLUMES, VOXELS, encoded, nifti

SECRET = b"SmithZebulon seen 28.02.1949"
IMAGES = RGB.tobytes() + GREY.tobytes() + VOXELS.tobytes(order="F")
WINDOW = 4  # bytes of a text that must not occur anywhere; the shortest fields have no more
PLACES = sorted(PICTURES.keys() | VOLUMES.keys())
# Places that readers take for part of the picture, or fail on, may be refused; everything else is read as before.
BROKEN = re.compile(r"PNG: (iCCP|fdAT|acTL|cHRM|tRNS) |TIFF: (tag 700 as 2|second page)|WebP: chunk ALPH")

# No letters in the order in which JPEG's usual tables have them.
secrets = st.builds(
    lambda text, encoding: text.encode(encoding),
    st.text(st.sampled_from("SmithZebulon 0149^öé"), min_size=10, max_size=40),
    st.sampled_from(["latin-1", "utf-8", "utf-16-le", "utf-16-be"]),
)


def unpacked(content):
    """A file, and all that any gzip or zlib stream in it inflates to."""
    parts = [content]
    for match in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]", content):
        inflater = zlib.decompressobj(31 if match[0][0] == 0x1F else 15)
        try:
            parts.append(inflater.decompress(content[match.start() :]))
        except zlib.error:
            continue
    return b"\0".join(parts)


def said_of(secret, clean):
    """Windows of a secret that occur in a copy, except those of one or two different bytes, and those of the image."""
    windows = {secret[start : start + WINDOW] for start in range(len(secret) - WINDOW + 1)}
    return [each for each in windows if len({*each}) > 2 and each in unpacked(clean) and each not in IMAGES]


def read(path, *, is_volume):
    images = (read_volumes_of if is_volume else read_frames_of)(Sample(path))
    return [(np.asarray(image.values), np.asarray(getattr(image, "affine", 0))) for image in images]


def check(place, secret, folder):
    """Clean a file with the text there; returns whether it was written."""
    suffix, make = VOLUMES.get(place) or (".jpg", PICTURES.get(place))  # of a picture the name says nothing
    source, target = folder / f"a{suffix}", folder / f"b{suffix}"
    target.unlink(missing_ok=True)
    source.write_bytes(make(secret))
    assert not is_clean(source) or make(secret) == make(b"")  # some places are not in every picture
    try:
        clean_file(source, target)
    except CallerError:
        assert not target.exists()
        assert BROKEN.match(place)
        return False
    assert said_of(secret, target.read_bytes()) == []
    assert is_clean(target)
    try:
        before = read(source, is_volume=place in VOLUMES)
    except CallerError:  # a broken part that is passed over when it is gone
        return True
    for (values, affine), (new_values, new_affine) in zip(
        before, read(target, is_volume=place in VOLUMES), strict=True
    ):
        assert values.dtype == new_values.dtype
        assert np.array_equal(values, new_values)
        np.testing.assert_allclose(affine, new_affine, rtol=1e-13, atol=1e-13)
    return True


@settings(max_examples=25)
@given(place=st.sampled_from(PLACES), secret=secrets)
def test_a_text_anywhere_beside_the_image_is_gone_and_the_image_is_the_same(tmp_path_factory, place, secret):
    check(place, secret, tmp_path_factory.getbasetemp())


@pytest.mark.attacks
@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=20)
@given(secret=secrets)
def test_a_text_at_every_place_is_gone_and_the_image_is_the_same(tmp_path_factory, place, secret):
    check(place, secret, tmp_path_factory.getbasetemp())


def test_most_places_are_cleaned_and_not_refused(tmp_path):
    written = [place for place in PLACES[::7] if check(place, SECRET, tmp_path)]

    assert len(written) > len(PLACES[::7]) - 3


@settings(max_examples=30)
@given(data=st.data())
def test_a_changed_file_is_refused_or_cleaned_as_a_whole(tmp_path_factory, data):
    place = data.draw(st.sampled_from(PLACES))
    suffix, make = VOLUMES.get(place) or (".bin", PICTURES.get(place))
    content = bytearray(make(SECRET))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    source, target = folder / f"changed{suffix}", folder / f"copy{suffix}"
    source.write_bytes(content)
    try:
        clean_file(source, target)
    except CallerError:
        return

    assert said_of(SECRET, target.read_bytes()) == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_before(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[274], exif[315] = orientation, "Doctor Quixotic"
    (tmp_path / "a").write_bytes(encoded(RGB, kind, exif=exif))

    clean_file(tmp_path / "a", tmp_path / "b")

    assert b"Quixotic" not in (tmp_path / "b").read_bytes()
    [(before, _)], [(after, _)] = read(tmp_path / "a", is_volume=False), read(tmp_path / "b", is_volume=False)
    assert before.shape == ((3, 19, 27) if orientation > 4 else (3, 27, 19))
    assert np.array_equal(before, after)


def test_a_picture_whose_xmp_turns_it_is_turned_as_before(tmp_path):
    text = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6" dc:creator="Doctor Quixotic"/>'
    (tmp_path / "a").write_bytes(encoded(RGB, "JPEG", xmp=text))

    clean_file(tmp_path / "a", tmp_path / "b")

    assert b"Quixotic" not in (tmp_path / "b").read_bytes()
    with Image.open(tmp_path / "b") as image:
        assert dict(image.getexif()) == {274: 6}


@pytest.mark.parametrize("content", [b"GIF89a" + bytes(40), b"%PDF-1.4 Doctor Quixotic", b"\0\0\1\0" + bytes(60), b""])
def test_unknown_formats_are_refused(content):
    with pytest.raises(UndecodableImage, match="not a picture"):
        cleaned(content)


# --- pairs ---


def analyze(folder, *, offset=0, tail=b"", name="a"):
    """A pair with a text in every byte of the header that nothing is read by, before the voxels and behind them."""
    head = bytearray((SECRET * 13)[:348])
    head[:4] = struct.pack("<i", 348)
    head[40:56] = struct.pack("<8h", 3, 5, 4, 3, 1, 1, 1, 1)
    head[70:74] = struct.pack("<hh", 4, 16)
    head[76:108] = struct.pack("<8f", 0, 0.8, 0.9, 2.5, 0, 0, 0, 0)
    head[108:116] = struct.pack("<ff", offset, 2.0)
    (folder / f"{name}.hdr").write_bytes(head)
    before = (SECRET * (offset // len(SECRET) + 1))[:offset]
    (folder / f"{name}.img").write_bytes(before + VOXELS.tobytes(order="F") + tail)


@pytest.mark.parametrize("offset", [0, 128])
def test_a_pair_of_analyze_keeps_what_it_is_read_by(tmp_path, offset):
    analyze(tmp_path, offset=offset, tail=SECRET)

    for suffix in (".hdr", ".img"):
        assert not is_clean(tmp_path / f"a{suffix}")
        clean_file(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")

    for suffix in (".hdr", ".img"):
        content = (tmp_path / f"b{suffix}").read_bytes()
        assert said_of(SECRET, content) == []
        assert is_clean(tmp_path / f"b{suffix}")
    [(values, affine)] = read(tmp_path / "b.hdr", is_volume=True)
    assert np.array_equal(values[0], VOXELS * np.float32(2))
    np.testing.assert_allclose(np.diag(affine), [np.float32(0.8), np.float32(0.9), 2.5, 1])


def test_an_image_without_its_header_is_refused(tmp_path):
    (tmp_path / "a.img").write_bytes(SECRET + VOXELS.tobytes())

    with pytest.raises(UndecodableImage, match="header"):
        deidentify_nifti(tmp_path / "a.img", tmp_path / "b.img")
    assert not (tmp_path / "b.img").exists()


def test_an_image_that_is_a_whole_file_is_cleaned_as_one(tmp_path):
    (tmp_path / "a.img").write_bytes(nifti()[:148] + SECRET + nifti()[148 + len(SECRET) :])

    clean_file(tmp_path / "a.img", tmp_path / "b.img")

    assert said_of(SECRET, (tmp_path / "b.img").read_bytes()) == []
    assert np.array_equal(read(tmp_path / "b.img", is_volume=True)[0][0][0], VOXELS)


def test_packed_pairs_of_nifti_stay_packed_and_are_read_as_before(tmp_path):
    image = nibabel.Nifti1Pair(VOXELS, AFFINE)
    image.header["descrip"] = SECRET
    nibabel.save(image, tmp_path / "a.img.gz")
    with gzip.open(tmp_path / "a.img.gz", "ab") as file:
        file.write(SECRET)

    for suffix in (".hdr.gz", ".img.gz"):
        clean_file(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")

    for suffix in (".hdr.gz", ".img.gz"):
        assert said_of(SECRET, (tmp_path / f"b{suffix}").read_bytes()) == []
    [(values, affine)] = read(tmp_path / "b.hdr.gz", is_volume=True)
    assert np.array_equal(values[0], VOXELS)
    assert np.array_equal(affine, np.asarray(image.affine, np.float32))


@pytest.mark.parametrize("transform", ["qform", "sform"])
def test_numbers_that_are_no_place_are_refused(tmp_path, transform):
    content = nifti(sform=transform == "sform")
    at = {"qform": 268, "sform": 280 + 12}[transform]  # a place in mm
    (tmp_path / "a.nii").write_bytes(content[:at] + b"mith" + content[at + 4 :])

    with pytest.raises(CallerError, match="implausible"):
        clean_file(tmp_path / "a.nii", tmp_path / "b.nii")


def test_a_nifti_file_that_is_cut_off_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti()[:-1])
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti()[:-1]))

    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(UndecodableImage):
            clean_file(tmp_path / name, tmp_path / f"b{name}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii", "a.nii.gz"]


# --- arrays ---


def test_the_header_of_an_npy_file_is_numpys(tmp_path):
    file = io.BytesIO()
    np.save(file, VOXELS)
    content = file.getvalue()
    long = b"{'shape':   (5, 4,   3),'descr': '<i2', 'fortran_order': False}".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(long)) + long + VOXELS.tobytes())
    (tmp_path / "c.npy").write_bytes(content)

    clean_file(tmp_path / "a.npy", tmp_path / "b.npy")

    assert not is_clean(tmp_path / "a.npy")
    assert is_clean(tmp_path / "c.npy")
    assert (tmp_path / "b.npy").read_bytes() == content


def test_values_behind_those_of_the_header_are_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, VOXELS)
    (tmp_path / "a.npy").write_bytes(file.getvalue() + SECRET)

    with pytest.raises(UndecodableImage, match="do not fill"):
        clean_file(tmp_path / "a.npy", tmp_path / "b.npy")
