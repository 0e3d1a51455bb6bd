"""Only the bytes of pixel data that the header and the decoder need are written, and the pixels are the same."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from sagemaker_monai.deidentification.deidentify import Deidentifier
from sagemaker_monai.deidentification.j2k_markers import cleaned_j2k
from sagemaker_monai.deidentification.pixel_data import needed_pixels
from sagemaker_monai.deidentification.pixel_proof import pixel_faults
from sagemaker_monai.deidentification.proved import write_deidentified
from sagemaker_monai.errors import CallerError, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.decoding import decode_stored
from sagemaker_monai.images.dicom.headers import read_instance
from sagemaker_monai.images.dicom.media import instance_of
from sagemaker_monai.prepare.dicom_copy import copy_instance
from tests.attacks.pixel_places import J2K_PLACES, places_of
from tests.support.compressed_frames import ENCODERS
from tests.support.identified import SALT, ct, read_back
from tests.support.made_dicom import as_file, made_dataset

rng = np.random.default_rng(3)
GREY = np.cumsum(rng.integers(-3, 4, (2, 40, 44)), axis=2).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[:, ::-1], GREY ^ 7], axis=-1)
DEEP = GREY.astype(np.uint16) << 4 | 5
CT = "1.2.840.10008.5.1.4.1.1.2"  # no kind of picture that is suspected of text


def family_of(syntax: str) -> str:
    if syntax == RLELossless:
        return "RLE"
    return "J2K" if syntax in ENCODERS and ENCODERS[syntax](GREY[0])[:2] == b"\xff\x4f" else "JPEG"


def original(syntax: str, stored: np.ndarray, **elements: object) -> Dataset:
    if syntax in ENCODERS:
        elements["PixelData"] = encapsulate([ENCODERS[syntax](frame) for frame in stored])
    return made_dataset(stored, syntax, SOPClassUID=CT, Modality="CT", ImageType=["ORIGINAL", "PRIMARY"], **elements)


SOURCES = {
    **{f"{syntax}": (syntax, DEEP[:1] if syntax == JPEGExtended12Bit else GREY[:1]) for syntax in ENCODERS},
    **{f"{syntax} deep": (syntax, DEEP) for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)},
    **{f"{syntax} colour": (syntax, COLOUR) for syntax in (RLELossless, JPEGBaseline8Bit, HTJ2KLossless)},
    "implicit": (ImplicitVRLittleEndian, DEEP),
    "explicit": (ExplicitVRLittleEndian, DEEP),
    "signed": (ExplicitVRLittleEndian, DEEP.view(np.int16)),
}
CASES = [
    (name, place)
    for name, (syntax, _) in SOURCES.items()
    for place in places_of(family_of(syntax) if syntax in ENCODERS else "")
]


def held(name: str, place: str, text: bytes, tmp_path) -> str:
    """Copy an object with a text hidden; returns "copied" or "refused"."""
    syntax, stored = SOURCES[name]
    dataset = original(syntax, stored)
    clean = read_back(dataset)
    places_of(family_of(syntax) if syntax in ENCODERS else "")[place](dataset, text)
    content = as_file(dataset)
    target = tmp_path / "out.dcm"
    target.unlink(missing_ok=True)
    try:
        before = decode_stored(read_instance(content))
        copy_instance(instance_of(content), target, Deidentifier(SALT, burned_in="keep"))
    except CallerError:
        return "refused"
    result = read_instance(target)
    assert np.array_equal(before, decode_stored(result))
    if place == "bits above BitsStored":
        # Nothing above the values, or their sign.
        cells = np.frombuffer(result.PixelData, "<i2" if stored.dtype.kind == "i" else "<u2")
        assert np.array_equal(cells, before.ravel())
    elif place == "bits below the value":
        assert not any(result.PixelData[::2])
    elif place in ("J2K: lengths of tile-parts", "JPEG: the names of components"):  # which are true or numbers then
        assert len(set(text)) < 5 or text not in result.PixelData
    else:
        assert result.PixelData == needed_pixels(clean)
    assert [element.tag for element in result if element.tag.group == 0x7FE0] == [0x7FE00010]
    assert list(pixel_faults(result)) == []
    return "copied"


MARKS = {
    **dict.fromkeys([JPEG2000Lossless, f"{RLELossless} deep", "signed"], ()),
    **dict.fromkeys([JPEGLSLossless, f"{JPEGBaseline8Bit} colour"], pytest.mark.long),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.attacks)) for name in SOURCES])
def test_nothing_hidden_beside_the_pixels_leaves(name, tmp_path):
    outcomes = {place: held(name, place, b"Smith 28.02.1949", tmp_path) for each, place in CASES if each == name}
    assert "copied" in outcomes.values(), outcomes


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(CASES), st.binary(min_size=4, max_size=60))
def test_no_bytes_leave(tmp_path_factory, case, text):
    held(*case, text, tmp_path_factory.getbasetemp())


@pytest.mark.attacks
@settings(max_examples=2_000, deadline=None)
@given(st.sampled_from(CASES), st.binary(min_size=4, max_size=120))
def test_no_bytes_leave_long(tmp_path_factory, case, text):
    held(*case, text, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("name", SOURCES)
def test_sound_pixel_data_stay_as_they_are(name):
    syntax, stored = SOURCES[name]
    dataset = read_back(original(syntax, stored))
    kept = read_back(Deidentifier(SALT, burned_in="keep")(dataset))

    assert np.array_equal(decode_stored(kept), decode_stored(dataset))
    assert kept.file_meta.TransferSyntaxUID == syntax
    if syntax not in ENCODERS:
        assert kept.PixelData == dataset.PixelData


# By hand, after PS3.5 8.1: cells of 16 bits in little endian, of which BitsStored bits end at HighBit.
@pytest.mark.parametrize(
    ("stored", "high", "is_signed", "cell", "expected"),
    [
        (12, 11, 0, 0xF123, 0x0123),
        (12, 11, 0, 0x0FFF, 0x0FFF),
        (12, 11, 1, 0x0FFF, 0xFFFF),
        (12, 11, 1, 0x5FFF, 0xFFFF),
        (12, 11, 1, 0xF7FF, 0x07FF),
        (12, 15, 0, 0x123F, 0x1230),
        (12, 15, 1, 0xF23F, 0xF230),
        (8, 11, 0, 0xFABF, 0x0AB0),
        (8, 11, 1, 0x0ABF, 0xFAB0),
        (16, 15, 0, 0xFFFF, 0xFFFF),
    ],
)
def test_bits_that_are_no_value_become_what_the_decoder_makes_of_them(stored, high, is_signed, cell, expected):
    dataset = ct(BitsStored=stored, HighBit=high, PixelRepresentation=is_signed, PixelData=struct.pack("<H", cell) * 16)
    assert needed_pixels(read_back(dataset)) == struct.pack("<H", expected) * 16
    big = ct(BitsStored=stored, HighBit=high, PixelRepresentation=is_signed, PixelData=struct.pack(">H", cell) * 16)
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert needed_pixels(read_back(big)) == struct.pack(">H", expected) * 16


def test_padding_outside_the_stored_bits_stays():
    cells = np.full(16, 0x0123, "<u2")
    cells[3], cells[4] = 63536, 0xF123
    dataset = read_back(ct(BitsStored=12, HighBit=11, PixelPaddingValue=63536, PixelData=cells.tobytes()))

    kept = np.frombuffer(needed_pixels(dataset), "<u2")

    assert kept[3] == 63536
    assert set(np.delete(kept, 3)) == {0x0123}


def shape(rows: int, columns: int, bits: int, **more: object) -> dict[str, object]:
    return {"Rows": rows, "Columns": columns, "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, **more}


def colour(photometric: str, planar: int) -> dict[str, object]:
    return {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "PlanarConfiguration": planar}


@pytest.mark.parametrize(
    ("values", "data", "expected"),
    [
        (shape(3, 3, 8), b"123456789S", b"123456789\0"),  # nine bytes, and one to fill the word
        (shape(3, 3, 1), b"\xff\xffSm", b"\xff\x01"),  # nine bits in two bytes, lowest first
        (shape(1, 3, 1, NumberOfFrames=2), b"\xffS", b"\x3f\0"),  # two frames of three bits in one byte
        (shape(2, 2, 8, **colour("YBR_FULL_422", 0)), b"12345678Sm", b"12345678"),  # half the chroma: Y Y B R
        (shape(1, 1, 8, **colour("RGB", 1)), b"RGBSmi", b"RGB\0"),  # planes of colour
        (shape(1, 2, 32), b"12345678Smith ", b"12345678"),
    ],
)
def test_native_data_are_cut_to_what_the_header_asks_for(values, data, expected):
    assert needed_pixels(read_back(ct(**values, PixelData=data))) == expected


def test_a_byte_that_fills_a_swapped_pair_is_zero():
    dataset = ct(Rows=1, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset["PixelData"] = DataElement(0x7FE00010, "OW", b"21S3mi")
    dataset = read_back(dataset)

    assert needed_pixels(dataset) == b"21\x003"
    assert decode_stored(dataset).tobytes() == b"123"


@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009])
def test_floating_point_pixels_are_cut_too(tag):
    dataset = ct(Rows=1, Columns=2)
    del dataset["PixelData"]
    size = 4 if tag == 0x7FE00008 else 8
    data = np.arange(3, dtype=f"<f{size}").tobytes()
    dataset.add_new(tag, "OF" if size == 4 else "OD", data)

    result = read_back(Deidentifier(SALT)(read_back(dataset)))

    assert result[tag].value == data[: 2 * size]


@pytest.mark.parametrize("data", [b"12", b""])
def test_too_little_is_refused(data):
    with pytest.raises(UndecodableImage):
        Deidentifier(SALT)(read_back(ct(PixelData=data)))


def test_what_no_decoder_reads_is_refused_with_its_name_and_a_remedy():
    dataset = ct(PixelData=encapsulate([b"\0\0\1\xb3Smith!"]))
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(UnsuitableImage, match=r"MPEG-4.*uncompressed"):
        Deidentifier(SALT)(read_back(dataset))


def test_offsets_are_those_of_the_frames():
    dataset = read_back(original(JPEG2000Lossless, DEEP))
    data = needed_pixels(dataset)
    table = struct.unpack("<LLLL", data[:16])
    first = struct.unpack("<LL", data[16:24])
    assert table == (0xE000FFFE, 8, 0, 8 + first[1])
    assert first[0] == 0xE000FFFE
    assert struct.unpack("<L", data[24 + first[1] : 28 + first[1]]) == (0xE000FFFE,)


def test_lengths_of_tile_parts_are_made_anew_where_there_were_any():
    dataset = read_back(original(JPEG2000Lossless, GREY[:1]))
    [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
    start = frame.index(b"\xff\x90")
    lying = frame[:start] + struct.pack(">HHBB", 0xFF55, 10, 0, 0x60) + b"Smith!" + frame[start:]
    dataset.PixelData = encapsulate([lying])

    [kept] = generate_frames(needed_pixels(dataset), number_of_frames=1)

    place = kept.index(b"\xff\x55")
    tile, length = struct.unpack(">HL", kept[place + 6 : place + 12])
    assert kept[place + 12 : place + 14] == b"\xff\x90"
    assert tile == 0
    assert kept[place + 12 + length :].rstrip(b"\0") == b"\xff\xd9"


@pytest.mark.parametrize("progression", ["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality_layers": [40, 10, 2], "irreversible": True},
        {"tile_size": (32, 48), "num_resolutions": 3},
        {"precinct_size": (32, 16), "codeblock_size": (8, 16), "num_resolutions": 4, "quality_layers": [9, 0]},
    ],
)
def test_packets_end_where_an_encoder_ended(progression, options):
    """Whatever their order, the bytes behind the last one, which the tile-part's length covers, go and no other."""
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0].repeat(3, 0)).save(buffer, "JPEG2000", no_jp2=True, progression=progression, **options)
    frame = buffer.getvalue()

    cleaned = cleaned_j2k(frame)

    assert cleaned == cleaned_j2k(J2K_PLACES["behind the packets"](frame, b"Smith 28.02.1949"))
    comment = frame.index(b"\xff\x64")
    length = int.from_bytes(frame[comment + 2 : comment + 4], "big")
    assert cleaned == frame[:comment] + frame[comment + 2 + length :]


# What a careless program would write.
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data + b"\0\0",
        lambda data: data[:-1] + b"S",
        lambda data: data[:8] + data[8:].replace(b"\xff\xda", b"\xff\xfe\0\x07Smith\xff\xda", 1),
        lambda data: data + struct.pack("<LL", 0xE000FFFE, 6) + b"Smith!",
        lambda data: struct.pack("<LLL", 0xE000FFFE, 4, 77) + data[8:],
    ],
)
def test_the_proof_finds_what_is_too_much(damage):
    dataset = read_back(original(JPEGBaseline8Bit, GREY[:1]))
    dataset.PixelData = needed_pixels(dataset)
    assert list(pixel_faults(dataset)) == []

    dataset.PixelData = damage(dataset.PixelData)

    assert len(list(pixel_faults(dataset))) == 1


@pytest.mark.parametrize(
    ("stored", "high", "is_signed", "cell"),
    [(12, 11, 0, 0x1FFF), (12, 11, 1, 0x0FFF), (12, 15, 0, 0x0001), (12, 11, 1, 0x8000), (8, 11, 0, 0x1000)],
)
def test_the_proof_finds_bits_that_are_no_value(stored, high, is_signed, cell):
    dataset = ct(BitsStored=stored, HighBit=high, PixelRepresentation=is_signed, PixelData=struct.pack("<H", cell) * 16)
    assert len(list(pixel_faults(read_back(dataset)))) == 1


def test_pixels_that_would_change_are_not_written(tmp_path, monkeypatch):
    from sagemaker_monai.deidentification import deidentify

    target = tmp_path / "out.dcm"
    monkeypatch.setattr(deidentify, "needed_pixels", lambda dataset: bytes(len(dataset.PixelData)))
    with pytest.raises(UnsuitableImage, match="same pixels"):
        copy_instance(instance_of(as_file(ct())), target, Deidentifier(SALT, burned_in="keep"))
    assert not target.exists()


def test_codes_that_only_a_decoder_can_count_are_counted_wherever_an_object_is_written(tmp_path):
    dataset = original(JPEGLSLossless, GREY[:1])
    [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
    end = frame.rindex(b"\xff\xd9")
    dataset.PixelData = encapsulate([frame[:end] + b"Smith 28.02.1949" + frame[end:]])

    with pytest.raises(UndecodableImage):
        write_deidentified(read_back(dataset), tmp_path / "out.dcm", Deidentifier(SALT))
    assert not (tmp_path / "out.dcm").exists()
