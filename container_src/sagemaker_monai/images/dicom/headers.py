"""Parses one DICOM file into a pydicom dataset, within limits; pixels are not decoded.

pydicom's `dcmread` is not used: it inflates without a limit and keeps the open file in its result. The steps are the
same (PS3.10 section 7): preamble, file meta information, transfer syntax, data set.

Sequences are parsed immediately rather than on access, so that the limits apply to them too.
"""

import functools
import io
import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom import Dataset, uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset, read_sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.limits import MAX_DEPTH, MAX_FILE_BYTES, Budget, LimitedFile, inflate
from sagemaker_monai.images.sample import Held

File = Path | bytes | Held

PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # FloatPixelData, DoubleFloatPixelData, PixelData
PIXEL_GROUP = 0x7FE0
_PREAMBLE_BYTES = 128
_UNDEFINED = 0xFFFFFFFF
# Values of these groups are read as numbers and words. Explicit VR limits their length; with implicit VR, one access
# could turn 100 MB of digits into 5 GB of numbers.
_WORD_GROUPS = frozenset({0x0002, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x0040, 0x0054, 0x3004})
_MAX_WORD_BYTES = 1 << 16
_WORD_VRS = frozenset(map(str, (VR.AE, VR.AS, VR.CS, VR.DA, VR.DS, VR.DT, VR.IS, VR.LO, VR.PN, VR.SH, VR.TM, VR.UI)))
_VR_NAMES = frozenset(name.value.encode() for name in VR if len(name.value) == 2)
_MAX_FIRST_ELEMENT_BYTES = 4096  # of a file without preamble: a group length, a character set or a UID
_QUIET: Any = ("ignore", None, Warning, re.compile(r"pydicom\."), 0)  # the filter as `warnings.filters` has it
_ABOVE_ALL = logging.CRITICAL + 1


def content_of(source: File) -> bytes:
    """The bytes of a file."""
    if isinstance(source, Path):
        return source.read_bytes()
    return source.data if isinstance(source, Held) else source


def is_dicom(head: bytes) -> bool:
    """Whether a file is worth parsing as DICOM: it has the DICM prefix, or a plausible first element of group 0002 or
    0008. `head` is at least its first 132 bytes, or all of a shorter file.
    """
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x3010:
            continue
        if head[4:6] in _VR_NAMES:
            return True
        if order == "<" and struct.unpack("<L", head[4:8])[0] <= _MAX_FIRST_ELEMENT_BYTES:
            return True
    return False


def read_header(source: File) -> Dataset:
    """Read everything before the pixel data.

    Returns:
        The dataset, with `file_meta` (which may be empty). It holds no open file.

    Raises:
        UndecodableImage: not DICOM, broken, or unreadable.
        PayloadTooLarge: more than the limits of `dicom.limits`.
    """
    return _read(source, is_header_only=True)


def read_up_to_pixels(source: File) -> tuple[Dataset, int]:
    """Like `read_header`, with the offset of the pixel data, for `with_pixels`."""
    header = _read(source, is_header_only=True)
    return header, cast(Any, header).pixels_at


def with_pixels(header: Dataset, source: File, pixels_at: int) -> Dataset:
    """Like `read_instance`, given header and offset of `read_up_to_pixels`; the header's elements are shared."""
    if str(header.file_meta.get("TransferSyntaxUID", "") or "") == uid.DeflatedExplicitVRLittleEndian:
        return read_instance(source)  # the offset is one in the inflated file
    rest = _opened(source, lambda file, size_bytes: _parse_rest(file, size_bytes, header, pixels_at))
    elements = {tag: header.get_item(tag) for tag in header.keys()}  # noqa: SIM118 - iteration converts values
    whole = Dataset({**elements, **{tag: rest.get_item(tag) for tag in rest.keys()}})  # noqa: SIM118
    is_implicit, is_little = header.original_encoding
    whole.set_original_encoding(is_implicit, is_little, header.original_character_set)
    whole.file_meta = header.file_meta
    return whole


def read_instance(source: File) -> Dataset:
    """Like `read_header`, with the pixel data, still encoded."""
    return _read(source, is_header_only=False)


def quiet_pydicom() -> None:
    """Keep pydicom's warnings out of the logs: they quote values of the file, which may identify a patient.

    Not undone afterwards: `catch_warnings` in several threads restores the wrong filters. Affects only pydicom's own
    modules, whose complaints are not used here. Called before each file; does nothing while the filter comes first,
    because setting it again clears caches of the whole process.
    """
    if warnings.filters[:1] != [_QUIET]:
        warnings.filterwarnings("ignore", module=r"pydicom\.")
    logger = logging.getLogger("pydicom")
    if logger.level != _ABOVE_ALL:
        logger.setLevel(_ABOVE_ALL)


@contextmanager
def refusing(message: str) -> Iterator[None]:
    """Turn whatever pydicom and the decoders raise on hostile bytes into one of our errors.

    Their exceptions are not documented: broken files raise struct.error, KeyError, NotImplementedError, RecursionError
    and more, depending on the version, and the texts may quote the file. `message` gives cause and remedy for an error
    that is not one of ours.
    """
    try:
        yield
    except (UndecodableImage, UnsuitableImage, PayloadTooLarge):
        raise
    except MemoryError as error:
        raise PayloadTooLarge("the DICOM file needs more memory than is available; send a smaller file") from error
    except Exception as error:
        raise UndecodableImage(message) from error


def _read(source: File, *, is_header_only: bool) -> Dataset:
    return _opened(source, lambda file, size_bytes: _parse(file, size_bytes, is_header_only=is_header_only))


def _opened(source: File, parse: Callable[[BinaryIO, int], Dataset]) -> Dataset:
    quiet_pydicom()
    with refusing("the DICOM file is broken: its elements cannot be parsed; export it again"):
        if isinstance(source, Held):
            source = source.data
        if not isinstance(source, Path):
            return parse(io.BytesIO(source), len(source))
        try:
            with source.open("rb") as file:
                return parse(file, source.stat().st_size)
        except OSError as error:
            if error.errno is None:  # pydicom's own, about the content
                raise
            raise UndecodableImage(f"the file cannot be read ({type(error).__name__})") from error


def _parse(file: BinaryIO, size_bytes: int, *, is_header_only: bool) -> Dataset:
    if size_bytes > MAX_FILE_BYTES:
        raise PayloadTooLarge(f"the DICOM file is larger than {MAX_FILE_BYTES} bytes; send a smaller file")
    head = file.read(_PREAMBLE_BYTES + 4)
    if not is_dicom(head):
        raise UndecodableImage("not a DICOM file: no DICM prefix and no DICOM element at its beginning")
    with _counted() as budget:
        return _parse_within(budget, file, size_bytes, head, is_header_only=is_header_only)


@contextmanager
def _counted() -> Iterator[Budget]:
    budget = Budget()
    try:
        yield budget
        budget.settle()
    except Exception:
        refusal, budget.refusal = budget.refusal, None
        if refusal is None:
            raise
        try:
            raise refusal from None
        finally:
            del refusal  # see `Budget`


def _parse_rest(file: BinaryIO, size_bytes: int, header: Dataset, pixels_at: int) -> Dataset:
    is_implicit, is_little = header.original_encoding
    assert is_implicit is not None
    assert is_little is not None
    with _counted() as budget:
        file.seek(pixels_at)
        limited = cast(BinaryIO, LimitedFile(file, size_bytes, budget))
        rest = read_dataset(limited, is_implicit, is_little)
        _check_whole(rest, limited)
        _expand(rest, budget, depth=0)
    return rest


def _check_whole(dataset: Dataset, file: BinaryIO) -> None:
    # pydicom drops an element without an end silently.
    if file.read(1) and not any(tag in dataset for tag in PIXEL_TAGS):
        raise UndecodableImage("the DICOM file is cut off within its pixel data; send the whole file")


def _parse_within(budget: Budget, file: BinaryIO, size_bytes: int, head: bytes, *, is_header_only: bool) -> Dataset:
    limited = cast(BinaryIO, LimitedFile(file, size_bytes, budget, is_header_only=is_header_only))
    limited.seek(_PREAMBLE_BYTES + 4 if head[_PREAMBLE_BYTES:] == b"DICM" else 0)
    meta = FileMetaDataset()
    if _next_group(limited) == 0x0002:
        meta = FileMetaDataset(
            read_dataset(limited, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 0x0002)
        )
    syntax = str(meta.get("TransferSyntaxUID", "") or "")
    is_implicit, is_little = _encoding(limited, syntax)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data = inflate(limited.read())
        limited = cast(BinaryIO, LimitedFile(io.BytesIO(data), len(data), budget, is_header_only=is_header_only))
    at_pixels = (lambda tag, _vr, _length: tag in PIXEL_TAGS) if is_header_only else None
    dataset = read_dataset(limited, is_implicit, is_little, stop_when=at_pixels)
    pixels_at = limited.tell()
    if not is_header_only:
        _check_whole(dataset, limited)
    _expand(meta, budget, depth=0)
    _expand(dataset, budget, depth=0)
    dataset.file_meta = meta
    cast(Any, dataset).pixels_at = pixels_at
    return dataset


def _next_group(file: BinaryIO) -> int | None:
    head = file.read(2)
    file.seek(-len(head), 1)
    return struct.unpack("<H", head)[0] if len(head) == 2 else None


def _encoding(file: BinaryIO, syntax: str) -> tuple[bool, bool]:
    """Whether the data set is implicit VR, and little endian; without a syntax, guessed from its first element."""
    if syntax:
        return syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    head = file.read(6)
    file.seek(-len(head), 1)
    if head[4:6] not in _VR_NAMES:
        return True, True
    return False, struct.unpack("<H", head[:2])[0] < 0x0400  # group 0008 of big endian reads as 0800


def _expand(dataset: Dataset, budget: Budget, depth: int) -> None:
    """Check every element, and parse sequences that pydicom left as bytes."""
    if depth > MAX_DEPTH:
        raise UndecodableImage(f"sequences of the DICOM file are nested more than {MAX_DEPTH} deep")
    elements: list[tuple[BaseTag, Any]] = list(dataset.items())  # pydicom's stub lacks raw elements
    for tag, element in elements:
        if isinstance(element, RawDataElement):
            vr = _vr_of(element)
            if vr != VR.SQ:
                _check_value(element, vr)
                continue
            value = element.value or b""
            items = read_sequence(
                cast(BinaryIO, LimitedFile(io.BytesIO(value), len(value), budget)),
                element.is_implicit_VR,
                element.is_little_endian,
                len(value),
                dataset.original_character_set or "iso8859",
                element.value_tell,
            )
            dataset[tag] = DataElement(tag, VR.SQ, items)
        if isinstance(element, RawDataElement) or element.VR == VR.SQ:
            for item in dataset[tag].value or ():
                _expand(item, budget, depth + 1)


def _vr_of(element: RawDataElement) -> str:
    if element.VR not in (None, VR.UN) or element.tag.is_private:
        return element.VR or VR.UN
    return _vr_of_tag(element.tag)


@functools.lru_cache(maxsize=8_192)  # more than the dictionary has; a file can name any tag
def _vr_of_tag(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return VR.UN


def _check_value(element: RawDataElement, vr: str) -> None:
    size = len(element.value or b"")
    if element.tag.group == PIXEL_GROUP:
        return  # `dicom.decoding` compares it with Rows x Columns
    if element.length not in (size, _UNDEFINED):
        raise UndecodableImage("the DICOM file is cut off within its header; send the whole file")
    if element.tag.group in _WORD_GROUPS and vr in _WORD_VRS and size > _MAX_WORD_BYTES:
        raise UndecodableImage(f"a word or number in the DICOM header is longer than {_MAX_WORD_BYTES} bytes")
