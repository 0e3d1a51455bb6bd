"""Parsing one DICOM file: every encoding, and no bytes that take more than their due."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom import limits
from sagemaker_monai.images.dicom.headers import PIXEL_TAGS, is_dicom, read_header, read_instance
from sagemaker_monai.images.dicom.pixels import read_frames
from tests.support.exhaustive import exhaustive
from tests.support.made_dicom import as_file, element, item, made_dataset, made_file
from tests.support.odd_files import ODD_DICOM, odd_dicom_paths
from tests.support.refusals import allocating_less_than, not_refused, wrongly_refused

GREY = np.arange(6, dtype=np.uint16).reshape(1, 2, 3)
PREAMBLE = b"\0" * 128 + b"DICM"
META = element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
needs_odd_files = pytest.mark.skipif(not ODD_DICOM.is_dir(), reason="the shared data is not here")


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_encoding_has_the_elements_that_pydicom_reads(syntax):
    data = made_file(GREY, syntax, PatientName="A^B", ReferencedImageSequence=item(ReferencedSOPInstanceUID="1.2"))
    expected = pydicom.dcmread(io.BytesIO(data))

    dataset = read_instance(data)

    assert dataset == pydicom.Dataset(expected)
    assert dataset.file_meta == expected.file_meta
    assert dataset.original_encoding == (syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_preamble_and_meta_information_is_read(syntax):
    data = made_file(GREY, syntax)
    meta_bytes = struct.unpack("<L", data[140:144])[0]
    bare = data[144 + meta_bytes :]

    assert is_dicom(bare)
    assert read_frames(bare)[0].values.tolist() == GREY.astype(float).transpose(0, 2, 1).tolist()


def test_a_file_without_preamble_but_with_meta_information_is_read():
    bare = made_file(GREY)[132:]

    assert is_dicom(bare)
    assert read_instance(bare).Rows == 2


def test_other_files_are_no_dicom():
    starts = [
        b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"\x1f\x8b\x08\0",
        struct.pack("<L", 348) + b"\0" * 200, b"NRRD0004", b"\x93NUMPY\x01\0", b"BM\x08\0\0\0", b"II*\0", b"\0" * 200,
        b'{"image": 1}' + b" " * 200, b"\x08\0\x05\0" + b"\xff\xff\xff\x7f",
    ]  # fmt: skip
    heads = [b"", b"\x08", *(start + b"\0" * 200 for start in starts)]

    assert [head for head in heads if is_dicom(head)] == []
    assert not_refused(heads, read_header, UndecodableImage, "not a DICOM file") == []


def test_a_header_holds_no_pixels_and_no_open_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(made_file(GREY))

    header = read_header(path)

    assert not [tag for tag in PIXEL_TAGS if tag in header]
    assert header.Columns == 3
    assert str(tmp_path) not in repr(vars(header))


def test_a_header_is_read_without_the_pixels_behind_it(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(made_file(np.zeros((1, 4096, 4096), np.uint16)))
    with allocating_less_than(1_000_000):
        read_header(path)


def test_a_missing_file_is_named_by_its_error_only(tmp_path):
    with pytest.raises(UndecodableImage, match=r"^the file cannot be read \(FileNotFoundError\)$"):
        read_header(tmp_path / "Miller^Anna.dcm")


def test_a_deflated_bomb_is_refused_before_it_is_inflated(monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 2_000_000)
    monkeypatch.setattr(limits.inflate, "__defaults__", (2_000_000,))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(element(0x00080005, "CS", b"") + b"\0" * 20_000_000) + packer.flush()
    data = PREAMBLE + element(0x00020010, "UI", b"1.2.840.10008.1.2.1.99") + packed
    assert len(data) < 100_000
    with allocating_less_than(8_000_000), pytest.raises(PayloadTooLarge, match="inflates to more"):
        read_header(data)


@pytest.mark.parametrize("cut", [1, 100, -1])
def test_a_deflated_file_that_is_cut_off_or_broken_is_refused(cut):
    data = made_file(GREY, DeflatedExplicitVRLittleEndian)
    start = len(data) - 60
    broken = data[:start] if cut < 0 else data[:start] + bytes([data[start] ^ 0xFF] * cut)

    with pytest.raises(UndecodableImage):
        read_instance(broken)


def test_a_length_of_four_gigabytes_allocates_nothing(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(PREAMBLE + META + element(0x00081111, "OB", b"ab", is_long=True, length=0xFFFFFFF0))
    with allocating_less_than(1_000_000):
        for source in (path, path.read_bytes()):
            with pytest.raises(UndecodableImage, match="cut off"):
                read_header(source)


@pytest.mark.parametrize("is_undefined", [True, False])
@pytest.mark.parametrize("depth", [30, 20_000])
def test_sequences_nested_without_end_are_refused(depth, is_undefined):
    start = element(0x00081115, "SQ", b"", is_long=True, length=0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    value = b""
    if is_undefined:
        value = start * depth
    else:
        for _ in range(min(depth, 300)):
            inner = b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little") + value
            value = element(0x00081115, "SQ", inner, is_long=True)

    with pytest.raises(UndecodableImage):
        read_header(PREAMBLE + META + value)


@pytest.mark.long
@pytest.mark.parametrize("length", [0xFFFFFFFF, None])
def test_a_million_empty_items_are_refused_quickly(length):
    value = b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000
    started = time.monotonic()

    with pytest.raises(PayloadTooLarge):
        read_header(PREAMBLE + META + element(0x00081115, "SQ", value, is_long=True, length=length))

    assert time.monotonic() - started < 60


def test_headers_beyond_the_limits_are_refused(monkeypatch):
    monkeypatch.setattr(limits.Budget.__init__, "__defaults__", (2_000, 100, 1 << 20, None))
    many = b"".join(element(0x00091000 + index, "CS", b"") for index in range(3_000))
    long = element(0x00091010, "OB", bytes(2 << 20), is_long=True)

    rows = [(PREAMBLE + META + many, "too many elements"), (PREAMBLE + META + long, "larger than")]
    assert wrongly_refused(rows, read_header, PayloadTooLarge) == []


def test_a_number_of_a_hundred_thousand_digits_is_refused():
    head = struct.pack("<HHL", 0x0028, 0x0030, 1_000_000) + b"1\\" * 500_000
    data = struct.pack("<HHL", 0x0008, 0x0060, 2) + b"CT" + head

    with pytest.raises(UndecodableImage, match="longer than"):
        read_header(data)


def test_messages_of_refusals_quote_nothing_of_the_file():
    dataset = made_dataset(GREY, PatientName="Secret^Name", PatientID="SECRET")
    data = as_file(dataset).replace(struct.pack("<H", 2) + b"\0", struct.pack("<H", 9) + b"\0")
    messages = " ".join(_refusal(data[:cut]) for cut in range(140, len(data), 7))

    assert "DICOM" in messages
    assert "secret" not in messages.lower()
    assert "1.2.8" not in messages


@needs_odd_files
@pytest.mark.parametrize("name", ["rle/SC_rgb_rle.dcm", "jpeg_ls/CT1_JLSN.dcm", "mono_explicit/MR_small.dcm"])
def test_a_file_that_is_cut_off_is_broken_and_not_without_image(name):
    data = (ODD_DICOM / name).read_bytes()

    for cut in (len(data) - 1_200, len(data) * 3 // 4):
        with pytest.raises(UndecodableImage):
            read_frames(data[:cut])


@needs_odd_files
@pytest.mark.parametrize(("seed", "count"), exhaustive([(6, 150), (5, 500)]))
def test_mutated_files_are_read_or_refused_and_never_anything_else(seed, count):
    rng = random.Random(seed)
    files = [path.read_bytes() for path in odd_dicom_paths() if path.stat().st_size < 60_000]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(count):
        started = time.monotonic()
        message = _refusal(_mutated(rng, rng.choice(files)))
        outcomes["refused" if message else "read"] += 1
        assert len(message) < 250
        assert time.monotonic() - started < 30

    assert min(outcomes.values()) > count // 10


def _refusal(data: bytes) -> str:
    """What a file is refused with, "" for one that is read; anything else that is raised fails the test."""
    try:
        read_frames(data)
    except (UndecodableImage, UnsuitableImage, PayloadTooLarge) as error:
        return str(error)
    return ""


def _mutated(rng: random.Random, data: bytes) -> bytes:
    part = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 10])):
        place = rng.randrange(len(part) if rng.random() < 0.5 else min(len(part), 3_000))
        change = rng.random()
        if change < 0.6:
            part[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif change < 0.7:
            del part[place : place + rng.randrange(1, 50)]
        elif change < 0.8:
            part[place:place] = part[: rng.randrange(1, 50)]
        elif change < 0.9:
            part[place : place + 4] = b"\xff\xff\xff\xff"
        else:
            part = part[: max(place, 200)]
    return bytes(part)
