"""Stored values of one DICOM file: native data unpacked, compressed frames decoded, colour as RGB.

Each decoder is called directly, one frame at a time, after the frame's own header was checked against Rows and Columns.
pydicom's `pixel_array` is not used: it tries installed plugins in its own order, its result depends on the plugin that
answered, and its JP2 box parser loops forever on a box of length 0.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames, parse_basic_offsets, parse_fragments

from sagemaker_monai.budget import check_ratio, lent, spend_bytes, spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.codestreams import Codestream, count_rle_segments, read_j2k, read_jpeg
from sagemaker_monai.images.dicom.effort import check_j2k, check_jpeg, check_jpeg_end
from sagemaker_monai.images.dicom.elements import value
from sagemaker_monai.images.dicom.headers import quiet_pydicom, refusing
from sagemaker_monai.images.dicom.native import native_reader
from sagemaker_monai.images.dicom.palettes import apply_palette
from sagemaker_monai.images.dicom.pixel_layout import Layout, layout_of

# A decoder takes a frame, the frame's header and the DICOM header, and returns integers, (H, W) or (H, W, 3).
Decode = Callable[[bytes, Codestream, Layout], np.ndarray]

_ITEM = 0xE000FFFE  # (FFFE,E000) as in the file
_SOC_SIZ = b"\xff\x4f\xff\x51"  # how a codestream of JPEG 2000 begins
_AT_ONCE = 1 << 18  # pixels whose colours are converted at once, some 20 bytes a sample
_MAX_FRAGMENTS = 4_096  # of an element, plus FRAGMENTS_OF_A_FRAME for each frame; each costs some us
FRAGMENTS_OF_A_FRAME = 64
_YBR = frozenset({"YBR_FULL", "YBR_FULL_422"})
_BROKEN = "a compressed frame of the DICOM file is broken; export it again"


@dataclass(frozen=True)
class Decoder:
    """How the frames of a transfer syntax are decoded.

    Attributes:
        decode: what does it.
        ns_a_sample, ns_a_byte: time for each value and for each byte of the codestream.
        bytes_a_sample: memory beside the result.
        makes_rgb: it returns RGB for YBR; others return the samples of the codestream.
    """

    decode: Decode
    ns_a_sample: float
    ns_a_byte: float = 0.0
    bytes_a_sample: int = 0
    makes_rgb: bool = False


def _jpeg(data: bytes, stream: Codestream, layout: Layout) -> np.ndarray:
    space = "YCBCR" if _photometric(stream, layout) in _YBR else "RGB"
    return _jpeg_as(data, stream, space)


def _jpeg_lossless(data: bytes, stream: Codestream, _layout: Layout) -> np.ndarray:
    return _jpeg_as(data, stream, "RGB")  # libjpeg converts no lossless samples


def _jpeg_as(data: bytes, stream: Codestream, space: str) -> np.ndarray:
    from imagecodecs import jpeg8_decode

    check_jpeg(data, stream)
    if stream.samples == 1:
        return jpeg8_decode(data)
    # Both are said, because libjpeg would guess from markers and knows no PhotometricInterpretation.
    return jpeg8_decode(data, colorspace=space, outcolorspace="RGB")


def _jpeg_ls(data: bytes, _stream: Codestream, _layout: Layout) -> np.ndarray:
    from imagecodecs import jpegls_decode

    check_jpeg_end(data)
    return jpegls_decode(data)


def _j2k(data: bytes, stream: Codestream, _layout: Layout) -> np.ndarray:
    from imagecodecs import jpeg2k_decode

    # Without the boxes of a JP2 file, in whose place is the DICOM header (PS3.5 8.2.4), so that no colour profile is
    # applied, and what is decoded is the codestream that was checked.
    codestream = data[data.index(_SOC_SIZ) :]
    check_j2k(codestream, stream)
    return jpeg2k_decode(codestream, numthreads=1)


def _rle(data: bytes, stream: Codestream, layout: Layout) -> np.ndarray:
    from imagecodecs import dicomrle_decode

    pixels = stream.rows * stream.columns
    count = -(-pixels // 8) if layout.bits_allocated == 1 else pixels * stream.samples
    kind = f"<u{max(layout.bits_allocated // 8, 1)}"
    values = np.frombuffer(dicomrle_decode(data, kind, out=count * int(kind[2:])), kind)
    if len(values) != count:
        raise UndecodableImage(_BROKEN)
    if layout.bits_allocated == 1:
        return np.unpackbits(values, bitorder="little")[:pixels].reshape(_shape(stream))
    planes = values.reshape(stream.samples, stream.rows, stream.columns)
    return planes[0] if stream.samples == 1 else planes.transpose(1, 2, 0)


# All of them release the GIL, so threads decode in parallel (a test checks it). Slices of 512 x 512 pixels, 16 bit (8
# for baseline), per second in one thread, from real CT, on 2 cores of an Intel Xeon:
#   JPEG 2000, HTJ2K  OpenJPEG 42 and 210
#   JPEG-LS           CharLS 210
#   JPEG              libjpeg-turbo: 1,780 baseline, 470 extended, 560 lossless
#   RLE               imagecodecs' own 2,255
# Not used: OpenJPH (htj2k_decode), twice as fast, which invents the missing part of a truncated frame; pylibjpeg-rle,
# 1,380, which panics on some broken frames; gdcm, whose C++ exceptions for broken JPEG end the process.
DECODERS: dict[str, Decoder] = {
    uid.JPEGBaseline8Bit: Decoder(_jpeg, 4, 10, 4, makes_rgb=True),
    uid.JPEGExtended12Bit: Decoder(_jpeg, 8, 10, 4, makes_rgb=True),
    uid.JPEGLossless: Decoder(_jpeg_lossless, 8, 10, 4),
    uid.JPEGLosslessSV1: Decoder(_jpeg_lossless, 8, 10, 4),
    uid.JPEGLSLossless: Decoder(_jpeg_ls, 12, 20),
    uid.JPEGLSNearLossless: Decoder(_jpeg_ls, 12, 20),
    uid.JPEG2000Lossless: Decoder(_j2k, 20, 110, 12),
    uid.JPEG2000: Decoder(_j2k, 20, 110, 12),
    uid.HTJ2KLossless: Decoder(_j2k, 20, 30, 12),
    uid.HTJ2KLosslessRPCL: Decoder(_j2k, 20, 30, 12),
    uid.HTJ2K: Decoder(_j2k, 20, 30, 12),
    uid.RLELossless: Decoder(_rle, 4, 4, 1),
}
NS_A_VALUE = 6  # of what follows for each value: its bits, its unit, float32

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})


def decode_stored(dataset: Dataset, frames: Sequence[int] | None = None) -> np.ndarray:
    """Decode stored values: what the file holds before any modality or VOI transform.

    Args:
        dataset: as of `headers.read_instance`.
        frames: frame numbers from 0, in any order; None for all.

    Returns:
        Grey: (F, H, W) of the type that BitsAllocated and PixelRepresentation define, with bits outside BitsStored
        removed. Colour: (F, H, W, 3) RGB, usually uint8 or uint16, whether the file has RGB, YBR or PALETTE COLOR.
        Single bits: uint8 0 and 1.

    Raises:
        UndecodableImage: the file is broken, or header and data contradict each other.
        UnsuitableImage: no image, or stored in an unsupported way.
        PayloadTooLarge: the values exceed the limits.
        IndexError: no such frame.
    """
    with _decoding():
        layout = layout_of(dataset)
    wanted = range(layout.frames) if frames is None else frames
    stored: np.ndarray | None = None
    for place, picture in enumerate(stored_frames(dataset, wanted, layout)):
        with _decoding():
            if stored is None:
                spend_bytes(len(wanted) * picture.nbytes, f"{len(wanted)} frames of a DICOM file")
                stored = np.empty((len(wanted), *picture.shape), picture.dtype)
            stored[place] = picture
    if stored is None:
        raise UndecodableImage(_BROKEN)
    return stored


def stored_frames(
    dataset: Dataset, frames: Sequence[int] | None = None, layout: Layout | None = None
) -> Iterator[np.ndarray]:
    """Decode like `decode_stored`, with the same errors, but yield one frame, (H, W) or (H, W, 3), at a time."""
    with _decoding():
        layout = layout or layout_of(dataset)
        wanted = range(layout.frames) if frames is None else frames
    if not all(0 <= frame < layout.frames for frame in wanted):
        raise IndexError(f"frames must be 0 to {layout.frames - 1}")
    with _decoding():
        decode = _reader_of(dataset, layout, max(wanted, default=0) + 1)
    size = layout.rows * layout.columns * layout.samples
    decoder = DECODERS.get(layout.syntax)
    # The intermediate arrays of decoding, and the float32 result.
    held = size * (4 + 3 * max(layout.bits_allocated // 8, 1) + (0 if decoder is None else decoder.bytes_a_sample))
    for frame in wanted:
        with _decoding(), lent(held, f"a frame of {layout.columns} x {layout.rows} pixels"):
            spend_work(
                size * (NS_A_VALUE + (0 if decoder is None else decoder.ns_a_sample)),
                f"frames of {layout.columns} x {layout.rows} pixels",
            )
            picture = decode(frame)
            if layout.photometric == "PALETTE COLOR" and layout.samples == 1:
                [picture] = apply_palette(dataset, picture[np.newaxis], is_little_endian=layout.is_little_endian)
        yield picture


@contextmanager
def _decoding() -> Iterator[None]:
    quiet_pydicom()
    with refusing("the pixel data of the DICOM file is broken; export it again"):
        yield


def _reader_of(dataset: Dataset, layout: Layout, count: int) -> Callable[[int], np.ndarray]:
    """The function that decodes any frame below `count`."""
    if layout.syntax in NATIVE:
        read = native_reader(layout)
        return lambda frame: _rgb(_aligned(read(frame), layout), layout.photometric, layout)
    if layout.syntax not in DECODERS:
        raise unsupported(layout)
    if layout.float_type:
        raise UndecodableImage("floating-point pixel data cannot be compressed; export the file again")
    decoder = DECODERS[layout.syntax]
    frames = compressed_frames(dataset, layout, count)

    def compressed(frame: int) -> np.ndarray:
        data = frames[frame]
        stream = _stream_of(data, layout)
        spend_work(len(data) * decoder.ns_a_byte, "compressed frames")
        values = decoder.decode(data, stream, layout)
        if values.shape != _shape(stream):
            raise UndecodableImage(_BROKEN)
        values = _signed(values, stream, layout)
        return values if decoder.makes_rgb else _rgb(values, _photometric(stream, layout), layout)

    return compressed


def compressed_frames(dataset: Dataset, layout: Layout, count: int) -> list[bytes]:
    """The first `count` compressed frames, each with its fragments joined.

    Raises:
        UndecodableImage: fewer frames than NumberOfFrames.
        PayloadTooLarge: too many fragments, or the decoded size is more than MAX_RATIO times the compressed one.
    """
    size_bytes = layout.frames * layout.rows * layout.columns * layout.samples * max(layout.bits_allocated // 8, 1)
    check_ratio(size_bytes, len(layout.data), "compressed frames")
    _check_fragments(layout)
    offsets = value(dataset, "ExtendedOffsetTable"), value(dataset, "ExtendedOffsetTableLengths")
    extended = (bytes(offsets[0]), bytes(offsets[1])) if offsets[0] and offsets[1] else None
    table = parse_basic_offsets(layout.data)
    after_table = 8 + 4 * len(table)
    fragments, _ = parse_fragments(layout.data[after_table:])
    if fragments < layout.frames:
        raise UndecodableImage(f"NumberOfFrames is {layout.frames}, but the pixel data holds {fragments}; correct it")
    frames: list[bytes] = []
    for frame in generate_frames(layout.data, number_of_frames=layout.frames, extended_offsets=extended):
        frames.append(frame)
        if len(frames) == count:
            return frames
    raise UndecodableImage(f"NumberOfFrames is {layout.frames}, but the pixel data holds {len(frames)}; correct it")


def _check_fragments(layout: Layout) -> None:
    """Refuse pixel data in far more fragments than its frames need: even an empty one costs time (PS3.5 A.4)."""
    data, most = layout.data, _MAX_FRAGMENTS + FRAGMENTS_OF_A_FRAME * layout.frames
    position = count = 0
    while position + 8 <= len(data):
        tag, length = struct.unpack_from("<LL", data, position)
        if tag != _ITEM:
            return  # the sequence's end, or what `generate_frames` refuses
        count += 1
        if count > most:
            raise PayloadTooLarge(f"pixel data in more than {most} fragments; export the file again")
        position += 8 + length
    spend_work(5_000 * count, f"pixel data in {count} fragments")


def _stream_of(data: bytes, layout: Layout) -> Codestream:
    """The frame's own header, checked against the file's."""
    if layout.syntax == uid.RLELossless:
        # A plane for each byte of a sample, and one of bytes for single bits.
        if count_rle_segments(data) != layout.samples * max(layout.bits_allocated // 8, 1):
            raise UndecodableImage(_BROKEN)
        return Codestream(layout.rows, layout.columns, layout.samples, layout.bits_allocated)
    stream = read_jpeg(data) if layout.syntax in JPEG | JPEG_LS else read_j2k(data)
    if (stream.rows, stream.columns, stream.samples) != (layout.rows, layout.columns, layout.samples):
        raise UndecodableImage(
            f"a compressed frame has {stream.columns} x {stream.rows} pixels of {stream.samples} samples, but the "
            f"header says {layout.columns} x {layout.rows} of {layout.samples}; correct it"
        )
    if not 1 <= stream.precision <= max(layout.bits_allocated, 8):
        raise UndecodableImage(
            f"a compressed frame has {stream.precision} bits, but BitsAllocated is {layout.bits_allocated}; correct it"
        )
    return stream


def _signed(values: np.ndarray, stream: Codestream, layout: Layout) -> np.ndarray:
    """Decoded values in the header's type.

    JPEG and JPEG-LS have no sign; JPEG 2000 has, and many files contradict their header. The header decides, since the
    bits are the same either way: those above the precision are filled with the sign or with zeros.
    """
    if layout.bits_allocated == 1:
        return np.asarray(values != 0, np.uint8)
    target = np.dtype(f"{'ui'[layout.is_signed]}{layout.bits_allocated // 8}")
    if layout.syntax in JPEG or layout.syntax == uid.RLELossless:
        return _aligned(values.astype(target.str.replace("i", "u")).view(target), layout, precision=stream.precision)
    wide = values.astype(target.str.replace("i", "u"))
    shift = max(target.itemsize * 8 - stream.precision, 0)
    signed: np.ndarray = (wide << shift).view(target) >> shift
    return signed


def _aligned(values: np.ndarray, layout: Layout, precision: int | None = None) -> np.ndarray:
    """Values without the bits outside BitsStored, where old files keep overlays and others leave junk."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if layout.float_type or layout.bits_allocated == 1 or layout.bits_stored == layout.bits_allocated:
        return values
    is_cell = precision is None or precision > layout.bits_stored
    stored = layout.aligned(values, None if is_cell else layout.bits_stored - 1)
    if layout.padding is None or not is_cell:
        return _padded(stored, layout)
    low, high = layout.padding
    return np.where((values >= low) & (values <= high), values, stored)


def _padded(stored: np.ndarray, layout: Layout) -> np.ndarray:
    """Values of a codestream of no more than BitsStored bits, with padding that lies outside them put back."""
    if layout.padding is None:
        return stored
    cell = np.array(int(layout.padding[0])).astype(stored.dtype)
    return np.where(stored == layout.aligned(cell), cell, stored)


def _photometric(stream: Codestream, layout: Layout) -> str:
    """What the decoded samples are; the codestream takes precedence over the header."""
    if stream.samples != 3 or stream.is_rgb is None:
        return layout.photometric
    return "RGB" if stream.is_rgb else "YBR_FULL"


def _rgb(values: np.ndarray, photometric: str, layout: Layout) -> np.ndarray:
    """YBR_FULL to RGB: the equations of PS3.3 C.7.6.3.1.2, solved for R, G and B."""
    if values.ndim != 3 or photometric not in _YBR:
        return values
    rgb = np.empty(values.shape, values.dtype)
    for start in range(0, len(values), step := max(1, _AT_ONCE // values.shape[1])):
        rgb[start : start + step] = _rgb_of(values[start : start + step], layout)
    return rgb


def _rgb_of(values: np.ndarray, layout: Layout) -> np.ndarray:
    top = min((1 << layout.bits_stored) - 1, np.iinfo(values.dtype).max)
    centre = (1 << layout.bits_stored) / 2
    kind: type[np.floating] = np.float32 if layout.bits_stored <= 16 else np.float64
    highest = min(kind(top), np.nextafter(kind(top + 1), kind(0)))  # 2^64 - 1 is no float
    luma = values[..., 0].astype(kind)
    blue, red = (values[..., 1 + index].astype(kind) - centre for index in (0, 1))
    rgb = np.stack(
        [
            luma + 1.402 * red,
            luma - (0.114 * 1.772 / 0.587) * blue - (0.299 * 1.402 / 0.587) * red,
            luma + 1.772 * blue,
        ],
        axis=-1,
    )
    rgb += kind(0.5)
    np.floor(rgb, out=rgb)
    return np.clip(rgb, 0, highest, out=rgb)


def _shape(stream: Codestream) -> tuple[int, ...]:
    return (stream.rows, stream.columns) if stream.samples == 1 else (stream.rows, stream.columns, stream.samples)


def unsupported(layout: Layout) -> UnsuitableImage:
    """The error for a transfer syntax that is neither native nor in DECODERS."""
    name = uid.UID(layout.syntax).name
    known = f" ({name})" if name != layout.syntax else ""  # an unregistered UID is not repeated: it may identify
    return UnsuitableImage(f"the transfer syntax is not supported{known}; export the file uncompressed")
