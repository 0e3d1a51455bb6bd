"""Stored values: every syntax, every layout of the pixels, and frames that ask for more than the header says."""

import struct
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_color_lut, convert_color_space
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.codestreams import Codestream
from sagemaker_monai.images.dicom.decoding import DECODERS, Decoder, decode_stored
from sagemaker_monai.images.dicom.headers import quiet_pydicom, read_instance
from sagemaker_monai.images.dicom.pixel_layout import layout_of
from tests.support.compressed_frames import (
    ENCODERS,
    LOSSLESS,
    as_j2k,
    as_jpeg,
    as_jpeg_lossless,
    as_jpeg_ls,
    as_rle,
    compressed,
)
from tests.support.exhaustive import exhaustive
from tests.support.made_dicom import as_file, made_dataset, made_file
from tests.support.odd_files import ODD_DICOM, odd_dicom_paths, read_odd_dicom
from tests.support.places import ROOT
from tests.support.refusals import allocating_less_than, not_refused, wrongly_refused

LARGE_BYTES = 40_000  # of an odd file that is left to the long tests
NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
rng = np.random.default_rng(3)
NEVER = Decoder(lambda *_: pytest.fail("the decoder was called"), 0)
needs_odd_files = pytest.mark.skipif(not ODD_DICOM.is_dir(), reason="the shared data is not here")

REFUSED = {
    **dict.fromkeys(
        ("broken/JPEG2000-embedded-sequence-delimiter.dcm", "broken/MR_truncated.dcm", "broken/badVR.dcm",
         "broken/nested_priv_SQ.dcm", "not_an_image/zipMR.gz"),
        "UndecodableImage",
    ),
    **dict.fromkeys(
        ("not_an_image/ExplVR_LitEndNoMeta.dcm", "not_an_image/UN_sequence.dcm", "not_an_image/empty_charset_LEI.dcm",
         "not_an_image/no_meta_group_length.dcm", "not_an_image/reportsi.dcm", "not_an_image/rtstruct.dcm",
         "not_an_image/waveform_ecg.dcm", "dicomdir/DICOMDIR"),
        "UnsuitableImage",
    ),
}  # fmt: skip
WRONG_IN_SIMPLEITK = {  # whose RLE of 32 bits is not even what it reads from the same picture without compression
    "rle/SC_rgb_rle_32bit.dcm",
    "rle/SC_rgb_rle_32bit_2frame.dcm",
}
ONE_OTHER_READER = {
    "segmentation_1bit/liver_rle.dcm",  # single bits in RLE: nobody else reads them; its twin has three readers
    "segmentation_1bit/liver_nonbyte_aligned_rle.dcm",
}


@needs_odd_files
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.long] if path.stat().st_size > LARGE_BYTES else [])
        for path in odd_dicom_paths()
    ],
    ids=lambda path: path.relative_to(ODD_DICOM).as_posix(),
)
def test_every_odd_file_is_read_as_others_read_it_or_refused_with_its_code(path):
    row = read_odd_dicom(path)

    assert row.code == REFUSED.get(row.name, "")
    if row.outcome == "read":
        assert set(row.differs_from) == ({"SimpleITK"} if row.name in WRONG_IN_SIMPLEITK else set())
        assert len(row.compared_with) >= (1 if row.name in ONE_OTHER_READER else 2)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_native_integers_keep_every_bit_and_their_sign(dtype, syntax):
    limits = np.iinfo(dtype)
    stored = rng.integers(limits.min, limits.max, (2, 3, 5), dtype, endpoint=True)

    read = decode_stored(read_instance(made_file(stored, syntax)))

    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, stored)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")])
def test_floating_point_pixels_are_read(keyword, dtype, syntax):
    stored = rng.normal(size=(2, 3, 4)).astype(dtype)
    dataset = made_dataset(np.zeros((2, 3, 4), np.uint32), syntax)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    setattr(dataset, keyword, stored.astype(stored.dtype.newbyteorder("<>"[syntax == ExplicitVRBigEndian])).tobytes())

    np.testing.assert_array_equal(decode_stored(read_instance(as_file(dataset))), stored)


def test_big_endian_bytes_in_words_are_put_in_order():
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    dataset = made_dataset(stored, ExplicitVRBigEndian)
    dataset.PixelData = stored.tobytes()[:18]
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    dataset["PixelData"].VR = "OW"

    np.testing.assert_array_equal(decode_stored(read_instance(as_file(dataset))), stored)


def test_frames_of_single_bits_may_begin_within_a_byte():
    bits = rng.integers(0, 2, (3, 3, 5), np.uint8)
    data = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset = made_dataset(bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=data)

    np.testing.assert_array_equal(decode_stored(dataset), bits)
    np.testing.assert_array_equal(decode_stored(dataset, [2, 0]), bits[[2, 0]])


@pytest.mark.parametrize("is_signed", [False, True])
def test_bits_outside_bits_stored_are_removed(is_signed):
    stored = np.array([[[0x0ABC, 0xFABC, 0x8001, 0x0801]]], np.uint16)
    dataset = made_dataset(stored, BitsStored=12, HighBit=11, PixelRepresentation=int(is_signed))

    expected = [0xABC - 0x1000, 0xABC - 0x1000, 1, 0x801 - 0x1000] if is_signed else [0xABC, 0xABC, 1, 0x801]
    assert decode_stored(dataset).ravel().tolist() == expected


def test_a_high_bit_at_the_top_is_respected():
    dataset = made_dataset(np.array([[[0xABC5, 0x0010]]], np.uint16), BitsStored=12, HighBit=15)

    assert decode_stored(dataset).ravel().tolist() == [0xABC, 0x001]


def test_planes_of_colour_become_pixels():
    stored = rng.integers(0, 256, (2, 3, 4, 3), np.uint8)
    planes = stored.transpose(0, 3, 1, 2)
    dataset = made_dataset(stored, PlanarConfiguration=1, PixelData=planes.tobytes())

    np.testing.assert_array_equal(decode_stored(dataset), stored)


def test_ybr_full_becomes_the_rgb_of_pydicom():
    ybr = rng.integers(0, 256, (1, 16, 16, 3), np.uint8)

    read = decode_stored(made_dataset(ybr, PhotometricInterpretation="YBR_FULL"))

    np.testing.assert_array_equal(read, convert_color_space(ybr, "YBR_FULL", "RGB"))


def test_halved_chroma_is_shared_by_two_pixels():
    data = bytes([10, 20, 128, 128, 200, 30, 128, 128])  # Y Y CB CR: without colour, so that R = G = B = Y
    dataset = made_dataset(np.zeros((1, 1, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422", PixelData=data)

    assert decode_stored(dataset)[0, 0].tolist() == [[10] * 3, [20] * 3, [200] * 3, [30] * 3]


def _with_palette(stored: np.ndarray, descriptor: list[int], tables: list[bytes], kind: str = "") -> object:
    dataset = made_dataset(stored, PhotometricInterpretation="PALETTE COLOR")
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
        setattr(dataset, f"{kind}{colour}PaletteColorLookupTableData", table)
    return dataset


def test_palettes_map_from_their_first_value_and_hold_at_their_ends():
    tables = [np.array([1, 2, 3 + index], "<u2") * 257 for index in range(3)]
    dataset = _with_palette(np.array([[[0, 9, 10, 11, 12, 200]]], np.uint8), [3, 10, 16], [t.tobytes() for t in tables])

    read = decode_stored(dataset)

    assert read.dtype == np.uint16
    assert (read[0, 0] // 257).tolist() == [[1] * 3, [1] * 3, [1] * 3, [2] * 3, [3, 4, 5], [3, 4, 5]]
    np.testing.assert_array_equal(read, apply_color_lut(np.array([[[0, 9, 10, 11, 12, 200]]], np.uint8), dataset))


def test_a_segmented_palette_is_that_of_pydicom():
    words = [0, 2, 100, 200, 1, 4, 1000, 0, 1, 7, 2, 2, 0, 0]  # discrete, linear, discrete; then the first two again
    data = struct.pack(f"<{len(words)}H", *words)
    stored = np.arange(13, dtype=np.uint8).reshape(1, 1, 13)
    dataset = _with_palette(stored, [13, 0, 16], [data] * 3, "Segmented")

    read = decode_stored(dataset)

    # By hand, PS3.3 C.7.9.2.
    assert read[0, 0, :, 0].tolist() == [100, 200, 400, 600, 800, 1000, 7, 100, 200, 400, 600, 800, 1000]
    np.testing.assert_array_equal(read, apply_color_lut(stored, dataset))


def test_an_indirect_segment_of_a_palette_points_to_a_byte():
    words = [0, 1, 300, 0, 2, 500, 600, 2, 1, 6, 0]  # PS3.3 C.7.9.2.3; pydicom takes the 6 for an index of entries
    data = struct.pack(f"<{len(words)}H", *words)
    dataset = _with_palette(np.arange(5, dtype=np.uint8).reshape(1, 1, 5), [5, 0, 16], [data] * 3, "Segmented")

    assert decode_stored(dataset)[0, 0, :, 1].tolist() == [300, 500, 600, 500, 600]


def test_a_segmented_palette_that_repeats_itself_without_end_is_refused():
    words = [0, 1, 5] + [2, 0xFFFF, 0, 0] * 2_000
    dataset = _with_palette(
        np.zeros((1, 1, 2), np.uint8), [0, 0, 16], [struct.pack(f"<{len(words)}H", *words)] * 3, "Segmented"
    )

    with pytest.raises(UndecodableImage, match="colour tables"):
        decode_stored(dataset)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("shape", [(3, 37, 45), (1, 36, 48, 3)])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_lossless_compression_loses_nothing(syntax, shape, dtype):
    stored = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)

    read = decode_stored(read_instance(as_file(compressed(stored, syntax))))

    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, stored)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_signed_values_are_signed_whatever_the_codestream_says(syntax):
    stored = rng.integers(-(2**15), 2**15, (1, 40, 40), np.int16)
    unsigned = made_dataset(stored, syntax, PixelData=encapsulate([ENCODERS[syntax](stored[0].view(np.uint16))]))

    np.testing.assert_array_equal(decode_stored(unsigned), stored)


def test_twelve_bits_without_a_sign_in_jpeg_2000_get_it_from_the_header():
    stored = np.resize(np.array([-2048, -1, 0, 2047], np.int16), (40, 40))
    data = as_j2k((stored & 0xFFF).astype(np.uint16), bits_stored=12)
    dataset = made_dataset(stored[None], JPEG2000Lossless, BitsStored=12, HighBit=11, PixelData=encapsulate([data]))

    np.testing.assert_array_equal(decode_stored(dataset)[0], stored)


def test_single_frames_of_a_compressed_file_are_decoded_in_the_order_asked_for():
    stored = rng.integers(0, 256, (5, 40, 40), np.uint8)

    np.testing.assert_array_equal(decode_stored(compressed(stored, JPEGLSLossless), [4, 1]), stored[[4, 1]])
    with pytest.raises(IndexError):
        decode_stored(compressed(stored, JPEGLSLossless), [5])


@pytest.mark.parametrize("parts", [1, 3])
def test_frames_in_several_fragments_are_put_together(parts):
    stored = rng.integers(0, 256, (3, 16, 16), np.uint8)
    data = encapsulate([as_rle(frame) for frame in stored], fragments_per_frame=parts)

    np.testing.assert_array_equal(decode_stored(made_dataset(stored, RLELossless, PixelData=data)), stored)


def test_extended_offset_tables_are_used():
    stored = rng.integers(0, 256, (3, 16, 16), np.uint8)
    data, offsets, lengths = encapsulate_extended([as_rle(frame) for frame in stored])
    dataset = made_dataset(
        stored, RLELossless, PixelData=data, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths
    )

    np.testing.assert_array_equal(decode_stored(read_instance(as_file(dataset))), stored)


def framed(data, syntax, side=4):
    """A dataset of one compressed frame that need not be what the header says."""
    return made_dataset(np.zeros((1, side, side), np.uint8), syntax, PixelData=encapsulate([data]))


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(monkeypatch):
    large = np.zeros((64, 64), np.uint8)
    cases = [
        framed(as_j2k(large), JPEG2000Lossless),
        framed(as_jpeg_ls(large), JPEGLSLossless),
        framed(b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0", JPEGBaseline8Bit),
    ]
    for dataset in cases:
        monkeypatch.setitem(DECODERS, dataset.file_meta.TransferSyntaxUID, NEVER)

    assert not_refused(cases, decode_stored, UndecodableImage, "but the header says 4 x 4") == []


def test_more_scans_tiles_or_layers_than_any_camera_writes_are_refused():
    scan = b"\xff\xda\0\x08\x01\x01\0\0\0\0\0"
    jpeg = b"\xff\xd8\xff\xc0\0\x0b\x08\0\x04\0\x04\x01\x01\x11\0" + scan * 100
    j2k = bytearray(as_j2k(np.zeros((200, 200), np.uint8)))
    tiled = j2k[:24] + struct.pack(">LL", 1, 1) + j2k[32:]  # XTsiz, YTsiz
    cases = [framed(jpeg, JPEGBaseline8Bit), framed(bytes(tiled), JPEG2000Lossless, side=200)]
    assert not_refused(cases, decode_stored, PayloadTooLarge) == []


PIXELS = (
    np.array([[[200, 30, 30], [30, 200, 30], [30, 30, 200], [128, 128, 128]]], np.uint8).repeat(40, 0).repeat(10, 1)
)


def _untold(jpeg: bytes) -> bytes:
    """A JPEG without all that its colour space could be told by: JFIF and Adobe segments, components named R, G, B."""
    position = 2
    while jpeg[position + 1] in (0xE0, 0xEE):
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    part = bytearray(jpeg[:2] + jpeg[position:])
    frame = next(part.index(bytes([0xFF, sof])) for sof in (0xC0, 0xC3) if bytes([0xFF, sof]) in part)
    scan = part.rindex(b"\xff\xda")
    part[frame + 10 : frame + 19 : 3] = part[scan + 5 : scan + 11 : 2] = b"\1\2\3"
    return bytes(part)


@pytest.mark.parametrize("header", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("coded", ["RGB", "YCBCR"])
def test_the_markers_of_a_jpeg_tell_its_colours_and_without_them_the_header(coded, header):
    marked = as_jpeg(PIXELS, outcolorspace=coded, subsampling="444")

    for frame, is_told in ((marked, True), (_untold(marked), coded[0] == header[0])):
        dataset = made_dataset(
            PIXELS[np.newaxis], JPEGBaseline8Bit, PhotometricInterpretation=header, PixelData=encapsulate([frame])
        )
        error = np.abs(decode_stored(dataset)[0].astype(int) - PIXELS).max()
        assert (error < 8) == is_told


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGBaseline8Bit, lambda frame: as_jpeg(frame, level=100)),
        (JPEGLosslessSV1, as_jpeg_lossless),
        (JPEGLSLossless, as_jpeg_ls),
        (RLELossless, as_rle),
        (JPEG2000Lossless, lambda frame: as_j2k(frame, photometric_interpretation=3, use_mct=False)),
    ],
)
def test_ybr_in_every_compression_becomes_rgb_once(syntax, encode):
    ybr = convert_color_space(PIXELS, "RGB", "YBR_FULL")
    frame = encode(ybr)
    if syntax in (JPEGBaseline8Bit, JPEGLosslessSV1):
        frame = _untold(frame)
    dataset = made_dataset(
        ybr[np.newaxis], syntax, PhotometricInterpretation="YBR_FULL", PixelData=encapsulate([frame])
    )

    assert np.abs(decode_stored(dataset)[0].astype(int) - PIXELS).max() <= 2


def test_what_is_decoded_of_a_jp2_file_is_the_codestream_that_was_checked():
    stored = rng.integers(0, 256, (1, 40, 40), np.uint8)
    small, large = as_j2k(stored[0]), as_j2k(np.zeros((400, 400), np.uint8))
    head = b"\0\0\0\x0cjP  \r\n\x87\n"

    def boxed(name: bytes, data: bytes) -> bytes:
        return struct.pack(">L", 8 + len(data)) + name + data

    for data in (head + boxed(b"jp2c", small), head + boxed(b"free", small) + boxed(b"jp2c", large)):
        dataset = made_dataset(stored, JPEG2000Lossless, PixelData=encapsulate([data]))
        np.testing.assert_array_equal(decode_stored(dataset), stored)


@pytest.mark.parametrize(
    ("elements", "error"),
    [
        ({"Rows": 65_535, "Columns": 65_535}, PayloadTooLarge),
        ({"NumberOfFrames": 2**31 - 1}, PayloadTooLarge),
        ({"NumberOfFrames": 5}, UndecodableImage),
        ({"NumberOfFrames": -1}, UndecodableImage),
        ({"Rows": 0}, UndecodableImage),
        ({"Rows": None}, UndecodableImage),
        ({"BitsStored": 17}, UndecodableImage),
        ({"BitsAllocated": 12}, UnsuitableImage),
        ({"BitsAllocated": 0}, UndecodableImage),
        ({"SamplesPerPixel": 4}, UnsuitableImage),
        ({"SamplesPerPixel": 9}, UndecodableImage),
        ({"PixelData": b""}, UndecodableImage),
        ({"PixelData": b"\0\0"}, UndecodableImage),
    ],
)
def test_headers_that_ask_for_more_than_there_is_are_refused(elements, error):
    dataset = made_dataset(np.zeros((1, 4, 4), np.uint16), **elements)
    with allocating_less_than(1_000_000), pytest.raises(error):
        decode_stored(dataset)


def test_files_without_frames_that_can_be_decoded_are_refused():
    fewer = compressed(np.zeros((2, 4, 4), np.uint8), RLELossless)
    fewer.NumberOfFrames = 1000
    # pydicom's parser of boxes stays at the first one, which has no length.
    endless = framed(b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0xxxx" * 4, JPEG2000Lossless)
    rows = [(fewer, "NumberOfFrames is 1000, but the pixel data holds 2"), (endless, "")]
    assert wrongly_refused(rows, decode_stored, UndecodableImage) == []

    grey = np.zeros((1, 2, 2), np.uint8)
    video = made_dataset(grey)
    video.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    rows = [
        (made_dataset(grey, PixelData=None, Modality="RTPLAN"), "no image but a radiotherapy plan"),
        (made_dataset(grey, PixelData=None, Modality="SR"), "no image but a structured report"),
        (made_dataset(grey, PixelData=None, EncapsulatedDocument=b"%PDF"), "no image but a document"),
        (made_dataset(grey, PixelData=None, Modality="MILLER"), "holds no image; send"),
        (video, r"MPEG-4 AVC/H\.264"),
    ]
    assert wrongly_refused(rows, decode_stored, UnsuitableImage) == []


@pytest.fixture
def short_turns():
    """Threads that wait for the interpreter ask for it soon."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("syntax", "repeated"),
    exhaustive(
        [
            (JPEGLSLossless, 4),
            (RLELossless, 20),
            (JPEGBaseline8Bit, 20),
            (JPEGLosslessSV1, 10),
            (JPEG2000Lossless, 1),
            (HTJ2KLossless, 4),
        ]
    ),
)
def test_other_threads_run_while_a_frame_is_decoded(syntax, repeated, short_turns):
    rows = np.cumsum(rng.integers(-9, 10, (200, 1_500)), axis=1).astype(np.uint16)
    frame = np.tile(rows, (repeated, 1))  # so that it takes 20 ms or more
    layout = layout_of(made_dataset(frame[np.newaxis], syntax))
    arguments = ENCODERS[syntax](frame), Codestream(*frame.shape, 1, 16), layout

    def decode() -> None:
        span.append(time.perf_counter())
        DECODERS[syntax].decode(*arguments)
        span.append(time.perf_counter())

    span: list[float] = []
    shares: list[float] = []
    # Two, so that chance alone does not pass; a busy machine spoils many, and a decoder that holds the interpreter all.
    while sum(share < 0.5 for share in shares) < 2 and len(shares) < 60:
        span.clear()
        moments = []
        thread = threading.Thread(target=decode)
        thread.start()
        while thread.is_alive():
            moments.append(time.perf_counter())
        started, ended = span
        inside = [moment for moment in moments if started < moment < ended]
        longest_wait = np.diff([started, *inside, ended]).max()
        shares.append(longest_wait / (ended - started))

    assert sum(share < 0.5 for share in shares) == 2, shares


@needs_odd_files
def test_a_jpeg_with_a_lost_table_is_refused_before_it_is_decoded(monkeypatch):
    data = (ODD_DICOM / "jpeg_baseline/SC_rgb_dcmtk_+eb+cy+n1.dcm").read_bytes()
    second_table = data.index(b"\xff\xdb", data.index(b"\xff\xdb") + 2)
    broken = data[: second_table + 1] + b"\0" + data[second_table + 2 :]
    monkeypatch.setitem(DECODERS, JPEGBaseline8Bit, NEVER)

    with pytest.raises(UndecodableImage, match="compressed frame"):
        decode_stored(read_instance(broken))


def test_decoders_are_loaded_when_a_frame_needs_them_by_whichever_thread_is_first(tmp_path):
    stored = rng.integers(0, 256, (1, 40, 40), np.uint8)
    path = tmp_path / "frame.dcm"
    path.write_bytes(as_file(compressed(stored, JPEGLSLossless)))
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from sagemaker_monai.images.dicom.decoding import decode_stored\n"
        "from sagemaker_monai.images.dicom.headers import quiet_pydicom, read_instance\n"
        "assert not any(name.startswith('imagecodecs') for name in sys.modules)\n"
        "dataset, sums = read_instance(Path(sys.argv[1])), []\n"
        "run = lambda: sums.append(int(decode_stored(dataset).sum()))\n"
        "threads = [threading.Thread(target=run) for _ in range(8)]\n"
        "[thread.start() for thread in threads], [thread.join() for thread in threads]\n"
        "print(sums, sorted(name for name in sys.modules if name.startswith('imagecodecs._jpeg')))\n"
    )

    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, cwd=ROOT / "container_src", capture_output=True, text=True, check=True)

    assert run.stdout.strip() == f"{[int(stored.sum())] * 8} ['imagecodecs._jpegls']"


def test_pydicom_stays_quiet_although_others_change_the_filters_and_is_quieted_no_oftener():
    quiet_pydicom()
    before = list(warnings.filters)
    quiet_pydicom()
    assert warnings.filters == before

    warnings.simplefilter("error")
    read_instance(made_file(np.zeros((1, 2, 2), np.uint8)))
    warnings.warn_explicit("a value of the file", UserWarning, "valuerep.py", 1, module="pydicom.valuerep")
