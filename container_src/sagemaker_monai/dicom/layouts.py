"""How the pixels of one DICOM file lie in its data: the Image Pixel module, checked before anything is allocated."""

from dataclasses import dataclass

from pydicom import Dataset, uid

from sagemaker_monai.dicom.elements import whole_number, word
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.volumes import check_voxels

# Element, and the type of value when it is not that of PixelRepresentation and BitsAllocated.
_PIXEL_ELEMENTS = {0x7FE00010: "", 0x7FE00008: "f4", 0x7FE00009: "f8"}
_INTEGER_BITS = (1, 8, 16, 32, 64)
_KINDS = {  # Modality, or what is said of a file without pixels
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
class Layout:
    """The Image Pixel module, with what was missing filled in.

    Attributes:
        rows, columns, samples, frames: sizes; samples is 1 or 3.
        bits_allocated, bits_stored, high_bit: of one sample. High_bit is the place of its most significant one, from 0.
        is_signed: PixelRepresentation 1.
        float_type: "f4" or "f8" for FloatPixelData and DoubleFloatPixelData, "" for integers.
        photometric: PhotometricInterpretation; MONOCHROME2 or RGB when it is missing.
        is_planar: PlanarConfiguration 1: all red samples of a frame, then all green ones, then all blue ones.
        syntax: TransferSyntaxUID.
        is_little_endian: byte order of native data.
        is_word: the data's VR is OW.
        data: the element's value, encoded.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    float_type: str
    photometric: str
    is_planar: bool
    syntax: str
    is_little_endian: bool
    is_word: bool
    data: bytes

    @property
    def is_colour(self) -> bool:
        """The stored values are of three samples."""
        return self.samples == 3


def layout_of(dataset: Dataset) -> Layout:
    """Read and check the Image Pixel module.

    Raises:
        UnsuitableImage: no image, or of a kind that is not read (four samples, bit depths that are not whole bytes).
        UndecodableImage: values that contradict each other or are no numbers.
        PayloadTooLarge: more values than `volumes.MAX_VOXELS`.
    """
    tag = next((tag for tag in _PIXEL_ELEMENTS if tag in dataset), None)
    if tag is None:
        raise UnsuitableImage(f"the DICOM file holds no image{_instead(dataset)}; send one with pixel data")
    # Not `dataset[tag]`, which may guess at the VR and fail.
    element = dataset.get_item(tag)
    data = element.value if element is not None else None
    if not isinstance(data, bytes | bytearray) or not data:
        raise UndecodableImage("the pixel data of the DICOM file is empty; export it again")
    float_type = _PIXEL_ELEMENTS[tag]
    allocated = whole_number(dataset, "BitsAllocated", low=1, high=64)
    if float_type:
        allocated = 8 * int(float_type[1:])
    if allocated not in _INTEGER_BITS:
        raise UnsuitableImage(f"{allocated} bits allocated to a pixel are not supported; use 1, 8, 16, 32 or 64")
    stored = allocated if float_type else whole_number(dataset, "BitsStored", low=1, high=allocated, default=allocated)
    samples = whole_number(dataset, "SamplesPerPixel", low=1, high=4, default=1)
    if samples not in (1, 3):
        raise UnsuitableImage(f"{samples} samples a pixel are not supported; send grey, palette, RGB or YBR images")
    rows = whole_number(dataset, "Rows", low=1, high=65_535)
    columns = whole_number(dataset, "Columns", low=1, high=65_535)
    frames = whole_number(dataset, "NumberOfFrames", low=0, high=1 << 31, default=1) or 1
    check_voxels(frames, rows, columns, samples)
    syntax = _syntax(dataset)
    default_photometric = "RGB" if samples == 3 else "MONOCHROME2"
    return Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        frames=frames,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=whole_number(dataset, "HighBit", low=stored - 1, high=allocated - 1, default=stored - 1, is_lax=True),
        is_signed=whole_number(dataset, "PixelRepresentation", low=0, high=1, default=0) == 1,
        float_type=float_type,
        photometric=word(dataset, "PhotometricInterpretation") or default_photometric,
        is_planar=whole_number(dataset, "PlanarConfiguration", low=0, high=1, default=0) == 1,
        syntax=syntax,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
        is_word=getattr(element, "VR", None) == "OW",
        data=bytes(data),
    )


def byte_order_is_little(dataset: Dataset) -> bool:
    """The byte order of words in a file's data set."""
    return _syntax(dataset) != uid.ExplicitVRBigEndian


def _syntax(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    syntax = word(meta, "TransferSyntaxUID") if meta is not None else ""
    if syntax:
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
