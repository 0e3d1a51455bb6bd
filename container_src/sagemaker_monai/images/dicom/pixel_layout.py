"""How the pixels of one DICOM file lie in its data: the Image Pixel module, checked before anything is allocated."""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset, uid

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.elements import meta_of, number, whole_number, word
from sagemaker_monai.images.volumes import check_voxels

# Element, and the type of value when it is not that of PixelRepresentation and BitsAllocated.
_PIXEL_ELEMENTS = {0x7FE00010: "", 0x7FE00008: "f4", 0x7FE00009: "f8"}
_PADDING = ("PixelPaddingValue", "FloatPixelPaddingValue", "DoubleFloatPixelPaddingValue")
_INTEGER_BITS = (1, 8, 16, 32, 64)
_KINDS = {  # Modality of a file without pixels -> what the message calls it
    "SR": "a structured report",
    "KO": "a key object note",
    "PR": "a presentation state",
    "RTPLAN": "a radiotherapy plan",
    "RTSTRUCT": "a set of radiotherapy contours",
    "RTRECORD": "a radiotherapy record",
    "REG": "a registration",
    "ECG": "a waveform",
    "EPS": "a waveform",
    "HD": "a waveform",
    "DOC": "a document",
    "PLAN": "a plan",
    "M3D": "a surface model",
}


@dataclass(frozen=True)
class Bits:
    """How one sample is stored in its cell.

    Attributes:
        bits_allocated, bits_stored: of the cell and of the value.
        high_bit: the place of the value's most significant bit, from 0.
        is_signed: PixelRepresentation 1.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool

    def aligned(self, cells: np.ndarray, high_bit: int | None = None) -> np.ndarray:
        """Stored values of cells: bits outside the value (old overlays, or junk) are removed, and those above it are
        filled with its sign.
        """
        high = self.high_bit if high_bit is None else high_bit
        values: np.ndarray = (cells << self.bits_allocated - high - 1) >> self.bits_allocated - self.bits_stored
        return values

    @property
    def cell_type(self) -> str:
        """numpy's name of the type of a cell of 8 bits or more."""
        return f"{'ui'[self.is_signed]}{max(self.bits_allocated // 8, 1)}"

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and highest value that the stored bits can hold."""
        top = 1 << self.bits_stored
        return (-top // 2, top // 2 - 1) if self.is_signed else (0, top - 1)


@dataclass(frozen=True)
class Layout(Bits):
    """The Image Pixel module, with defaults filled in.

    Attributes:
        rows, columns, samples, frames: sizes; samples is 1 or 3.
        float_type: "f4" or "f8" for FloatPixelData and DoubleFloatPixelData, "" for integers.
        photometric: PhotometricInterpretation; MONOCHROME2 or RGB when it is missing.
        is_planar: PlanarConfiguration 1: all red samples of a frame, then all green ones, then all blue ones.
        syntax: TransferSyntaxUID.
        is_little_endian: byte order of native data.
        is_word: the data's VR is OW.
        data: the element's value, encoded.
        padding: as `padding_of`, where it lies outside what the stored bits can hold, else None.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    float_type: str
    photometric: str
    is_planar: bool
    syntax: str
    is_little_endian: bool
    is_word: bool
    data: bytes
    padding: tuple[float, float] | None


def layout_of(dataset: Dataset, *, are_frames_apart: bool = False) -> Layout:
    """Read and check the Image Pixel module.

    Args:
        dataset: as of `headers.read_instance`.
        are_frames_apart: the frames are no one image: `volumes.MAX_VOXELS` is for each of them.

    Raises:
        UnsuitableImage: no image, or an unsupported kind (four samples, bit depths that are not whole bytes).
        UndecodableImage: values that contradict each other or are not numbers.
        PayloadTooLarge: more values than `volumes.MAX_VOXELS`.
    """
    tag = pixel_tag_of(dataset)
    if tag is None:
        raise UnsuitableImage(f"the DICOM file holds no image{_instead(dataset)}; send one with pixel data")
    # `dataset[tag]` may guess the VR and fail.
    element = dataset.get_item(tag)
    data = element.value if element is not None else None
    if not isinstance(data, bytes | bytearray) or not data:
        raise UndecodableImage("the pixel data of the DICOM file is empty; export it again")
    float_type = _PIXEL_ELEMENTS[tag]
    allocated = whole_number(dataset, "BitsAllocated", low=1, high=64)
    if float_type:
        allocated = 8 * int(float_type[1:])
    if allocated not in _INTEGER_BITS:
        raise UnsuitableImage(f"BitsAllocated {allocated} is not supported; use 1, 8, 16, 32 or 64")
    bits = Bits(allocated, allocated, allocated - 1, is_signed=False) if float_type else bits_of(dataset)
    samples = whole_number(dataset, "SamplesPerPixel", low=1, high=4, default=1)
    if samples not in (1, 3):
        raise UnsuitableImage(f"{samples} samples per pixel are not supported; send grey, palette, RGB or YBR images")
    rows = whole_number(dataset, "Rows", low=1, high=65_535)
    columns = whole_number(dataset, "Columns", low=1, high=65_535)
    frames = whole_number(dataset, "NumberOfFrames", low=0, high=1 << 31, default=1) or 1
    check_voxels(1 if are_frames_apart else frames, rows, columns, samples)
    syntax = _syntax(dataset)
    default_photometric = "RGB" if samples == 3 else "MONOCHROME2"
    return Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        frames=frames,
        bits_allocated=bits.bits_allocated,
        bits_stored=bits.bits_stored,
        high_bit=bits.high_bit,
        is_signed=bits.is_signed,
        float_type=float_type,
        photometric=word(dataset, "PhotometricInterpretation") or default_photometric,
        is_planar=whole_number(dataset, "PlanarConfiguration", low=0, high=1, default=0) == 1,
        syntax=syntax,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
        is_word=getattr(element, "VR", None) == "OW",
        data=bytes(data),
        padding=None if float_type or samples > 1 else _padding_outside(dataset, bits),
    )


def pixel_tag_of(dataset: Dataset) -> int | None:
    """The tag of the first pixel data element, or None."""
    return next((tag for tag in _PIXEL_ELEMENTS if tag in dataset), None)


def bits_of(dataset: Dataset) -> Bits:
    """How integer samples are stored in their cells.

    Raises:
        UndecodableImage: values that contradict each other or are not numbers.
    """
    allocated = whole_number(dataset, "BitsAllocated", low=1, high=64)
    stored = whole_number(dataset, "BitsStored", low=1, high=allocated, default=allocated)
    return Bits(
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=whole_number(dataset, "HighBit", low=stored - 1, high=allocated - 1, default=stored - 1, is_lax=True),
        is_signed=whole_number(dataset, "PixelRepresentation", low=0, high=1, default=0) == 1,
    )


def names_padding(dataset: Dataset) -> bool:
    """Whether the header has a value that means "no pixel", sound or not."""
    return any(keyword in dataset for keyword in _PADDING)


def padding_of(dataset: Dataset) -> tuple[float, float] | None:
    """The range of stored values that mean "no pixel", lowest and highest, or None.

    PixelPaddingValue is read like a pixel: its bits are those of a cell, with the pixels' sign, whatever the VR says.
    Bits outside BitsStored are removed if they are zero or the sign. Other bits there (63536 with 12 bits) cannot occur
    in a pixel, only in padding; such a value is returned as the whole cell, and `decoding` leaves such cells whole, so
    that bone is never mistaken for padding.

    Raises:
        UndecodableImage: one of the values is broken.

    Source: DICOM PS3.3 C.7.5.1.1.2.
    """
    for keyword in _PADDING:
        first = number(dataset, keyword)
        if first is None:
            continue
        last = number(dataset, keyword.replace("Value", "RangeLimit"))
        if keyword != "PixelPaddingValue":
            return min(first, first if last is None else last), max(first, first if last is None else last)
        bits = bits_of(dataset)
        start = _cell_value(first, bits)
        end = start if last is None else _cell_value(last, bits)
        lowest, highest = bits.limits
        if (lowest <= start <= highest) != (lowest <= end <= highest):
            end = start  # otherwise every pixel would lie between them
        return min(start, end), max(start, end)
    return None


def _cell_value(number: float, bits: Bits) -> int:
    """The padding value, or that of its whole cell if bits outside BitsStored belong to it."""
    value, size = int(number), bits.bits_allocated
    if bits.is_signed and size > 16 and value >= 0x8000:
        value -= 0x10000  # the VR has 16 bits, whatever the cell has
    lowest, highest = bits.limits
    if lowest <= value <= highest:
        return value
    cell = value % (1 << size)
    inside = int(bits.aligned(np.array(cell, f"u{max(size // 8, 1)}").view(bits.cell_type)))
    rest = cell >> bits.bits_stored
    is_sign = bits.is_signed and inside < 0 and rest == (1 << size - bits.bits_stored) - 1
    if bits.high_bit != bits.bits_stored - 1 or rest == 0 or is_sign:
        return inside
    return cell - (1 << size) if bits.is_signed and cell >> size - 1 else cell


def _padding_outside(dataset: Dataset, bits: Bits) -> tuple[float, float] | None:
    try:
        padding = padding_of(dataset)
    except UndecodableImage:
        return None  # `display_of` reports it
    lowest, highest = bits.limits
    return padding if padding is not None and not lowest <= padding[0] <= highest else None


def byte_order_is_little(dataset: Dataset) -> bool:
    """The byte order of words in a file's data set."""
    return _syntax(dataset) != uid.ExplicitVRBigEndian


def _syntax(dataset: Dataset) -> str:
    if syntax := word(meta_of(dataset), "TransferSyntaxUID"):
        return syntax
    is_implicit, is_little = dataset.original_encoding
    if is_little is False:
        return uid.ExplicitVRBigEndian
    return uid.ExplicitVRLittleEndian if is_implicit is False else uid.ImplicitVRLittleEndian


def _instead(dataset: Dataset) -> str:
    if "EncapsulatedDocument" in dataset:
        return " but a document"
    if "DirectoryRecordSequence" in dataset:
        return " but a directory (DICOMDIR)"
    kind = _KINDS.get(word(dataset, "Modality"))
    return f" but {kind}" if kind else ""
