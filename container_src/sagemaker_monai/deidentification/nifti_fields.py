"""The fields of NIfTI and Analyze headers that reading an image needs, and how to write each; nothing else is kept.

Only values with a defined meaning are kept; unused fields (axes beyond the last, a transform whose code is 0) get the
one value that says so. Every other byte of a header becomes 0.

Sources: nifti1.h, nifti2.h, Mayo's dbh.h; SPM keeps the origin's voxel in Analyze's `originator`.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage

MAX_OFFSET_BYTES = 16 << 20  # before the voxels; as in the readers
MOST = 1e9  # of a scale factor, an intercept and a position in mm; four letters as a float32 are nearly always larger
SAME_SPACING = 1e-3  # of a spacing; float32 and the matrices of registrations round more finely
_LEAST_SPACING, _MOST_SPACING = 1e-7, 1e7  # as `formats.affines`
_NAN32, _NAN64 = b"\0\0\xc0\x7f", b"\0\0\0\0\0\0\xf8\x7f"

_Fields = dict[str, tuple[int, str]]  # name -> offset and struct format
_NIFTI1: _Fields = {
    "dim": (40, "8h"), "intent_code": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"),
    "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"), "xyzt_units": (123, "B"),
    "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "3f"), "qoffset": (268, "3f"),
    "srow": (280, "12f"), "magic": (344, "4s"),
}  # fmt: skip
_NIFTI2: _Fields = {
    "magic": (4, "8s"), "datatype": (12, "h"), "bitpix": (14, "h"), "dim": (16, "8q"), "pixdim": (104, "8d"),
    "vox_offset": (168, "q"), "scl_slope": (176, "d"), "scl_inter": (184, "d"), "qform_code": (344, "i"),
    "sform_code": (348, "i"), "quatern": (352, "3d"), "qoffset": (376, "3d"), "srow": (400, "12d"),
    "xyzt_units": (500, "i"), "intent_code": (504, "i"),
}  # fmt: skip
_ANALYZE: _Fields = {
    "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f"),
    "scl_slope": (112, "f"), "originator": (253, "5h"),
}  # fmt: skip
# datatype -> bits per voxel. Single bits (1) are not supported.
_NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64,
               1536: 128, 1792: 128, 2048: 256, 2304: 32}  # fmt: skip
_ANALYZE_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 130: 8, 132: 16, 136: 32}
_INTENTS = frozenset({*range(2, 25), *range(1001, 1012), *range(2001, 2006)})
_CODES = range(6)  # of qform and sform
# Free texts, which `doctor` reports.
_NIFTI1_TEXTS = ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16))  # data_type, db_name, descrip, aux_file, intent
_NIFTI2_TEXTS = ((240, 80), (320, 24), (508, 16), (525, 15))  # descrip, aux_file, intent_name, unused_str
# data_type, db_name, descrip, aux_file, generated, scannum, patient_id, exp_date, exp_time, hist_un0
_ANALYZE_TEXTS = ((4, 10), (14, 18), (148, 80), (228, 24), (263, 10), (273, 10), (283, 10), (293, 10), (303, 10))


@dataclass(frozen=True)
class _Format:
    """A format: size of its header, its fields, bits by datatype, and texts (offset, length)."""

    name: str
    size: int
    fields: _Fields
    bits: dict[int, int]
    texts: tuple[tuple[int, int], ...]


_FORMATS = {
    "n+2": _Format("NIfTI", 540, _NIFTI2, _NIFTI_BITS, _NIFTI2_TEXTS),
    "n+1": _Format("NIfTI", 348, _NIFTI1, _NIFTI_BITS, _NIFTI1_TEXTS),
    "analyze": _Format("Analyze", 348, _ANALYZE, _ANALYZE_BITS, _ANALYZE_TEXTS),
}
_MAGICS = {
    b"n+1\0": ("n+1", False),
    b"ni1\0": ("n+1", True),
    b"n+2\0\r\n\x1a\n": ("n+2", False),
    b"ni2\0\r\n\x1a\n": ("n+2", True),
}


@dataclass(frozen=True)
class CleanHeader:
    """A header with only what reading the image needs.

    Attributes:
        content: the header to write, with the four bytes that say that no extension follows, if the format has them.
        size: bytes of the original header.
        start: original offset of the voxels.
        is_pair: the voxels are in another file.
    """

    content: bytes
    size: int
    start: int
    is_pair: bool
    values: dict[str, tuple[Any, ...]]
    bits: int

    @property
    def voxel_bytes(self) -> int:
        """Size of the voxels; UndecodableImage if the header has no image."""
        rank, *sizes = self.values["dim"]
        if not 1 <= rank <= 7 or any(size < 1 for size in sizes[:rank]):
            raise UndecodableImage("the header's sizes are impossible for an image; write it again")
        count: int = math.prod(sizes[:rank])
        return count * self.bits // 8


def has_free_texts(head: bytes) -> bool:
    """Whether a field for free text is filled; `head` and errors as in `clean_header`."""
    texts = _format_of(head)[0].texts
    return any(any(head[offset : offset + length]) for offset, length in texts)


def clean_header(head: bytes) -> CleanHeader:
    """Take a header apart and rewrite it.

    Args:
        head: the first 540 bytes of a file, inflated, or all of a shorter one.

    Raises:
        UndecodableImage: not a NIfTI or Analyze header, or its fields contradict each other.
        UnsuitableImage: a datatype without whole bytes, or implausible numbers.
    """
    found, order, is_pair = _format_of(head)
    read = {name: struct.unpack_from(order + code, head, at) for name, (at, code) in found.fields.items()}
    [datatype], [bits] = read["datatype"], read["bitpix"]
    if datatype not in found.bits:
        raise UnsuitableImage(f"the {found.name} header has the datatype {datatype}; write integers or floating point")
    if bits != found.bits[datatype]:
        raise UndecodableImage(f"the {found.name} header claims {bits} bits per voxel for a datatype of "
                               f"{found.bits[datatype]}")  # fmt: skip
    start = _start(read["vox_offset"][0], 0 if is_pair else found.size + 4)
    kept = {**_grid(read), **_scale(read, is_double=found.size == 540)}
    kept |= {name: read[name] for name in ("datatype", "bitpix") if name in read}
    kept["vox_offset"] = (0 if is_pair else found.size + 4,)
    if "magic" in read:
        kept |= {"magic": read["magic"], **_codes(read), **_transforms(read)}
        kept["pixdim"] = _told_spacing(kept)
    else:
        kept["originator"] = _origin(read)
    content = bytearray(found.size + 4 if "magic" in read else found.size)
    struct.pack_into(order + "i", content, 0, found.size)
    for name, values in kept.items():
        at, code = found.fields[name]
        _put(content, at, order, code, values)
    return CleanHeader(bytes(content), found.size, start, is_pair, kept, bits)


def _put(content: bytearray, at: int, order: str, code: str, values: tuple[Any, ...]) -> None:
    if code in "fd" and math.isnan(values[0]):  # a canonical NaN: its payload could hide other bytes
        nan = _NAN32 if code == "f" else _NAN64
        content[at : at + len(nan)] = nan if order == "<" else nan[::-1]
    else:
        struct.pack_into(order + code, content, at, *values)


def _format_of(head: bytes) -> tuple[_Format, str, bool]:
    """The format, the byte order for `struct`, and whether the voxels are in another file."""
    for order in "<>":
        if len(head) < 348:
            break
        [size] = struct.unpack_from(order + "i", head)
        if size == 540 and len(head) >= 540 and head[4:12] in _MAGICS:
            name, is_pair = _MAGICS[head[4:12]]
            return _FORMATS[name], order, is_pair
        if size == 348:
            name, is_pair = _MAGICS.get(head[344:348], ("analyze", True))
            return _FORMATS[name], order, is_pair
    raise UndecodableImage("not a NIfTI or Analyze header; its first number must be 348 or 540")


def _start(offset: Any, least: int) -> int:
    """The offset of the voxels; 0 in a single file means the least possible one, as other programs read it."""
    if not math.isfinite(offset) or offset != int(offset) or not (offset == 0 or least <= offset <= MAX_OFFSET_BYTES):
        raise UndecodableImage(f"the header has the voxels at an impossible offset; vox_offset must be an integer, "
                               f"{least} to {MAX_OFFSET_BYTES}")  # fmt: skip
    return max(int(offset), least)


def _grid(read: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Sizes and spacing; those of unused axes become 1, or stay 0, except the third's spacing."""
    rank, *sizes = read["dim"]
    if not 0 <= rank <= 7:
        raise UndecodableImage(f"the header claims {rank} axes; 1 to 7 are possible")
    qfac, *spacing = read["pixdim"]
    sizes = [size if axis < rank or size in (0, 1) else 1 for axis, size in enumerate(sizes)]
    spacing = [_length(size) if axis < 3 else float(size != 0) for axis, size in enumerate(spacing)]
    return {"dim": (rank, *sizes), "pixdim": (1.0 if math.isnan(qfac) else float((qfac > 0) - (qfac < 0)), *spacing)}


def _length(size: float) -> float:
    """A spacing, or 0 if it is invalid: readers assume 1 mm, or refuse a transform that needs it."""
    return size if _LEAST_SPACING < abs(size) < _MOST_SPACING else 0.0


def _told_spacing(kept: dict[str, tuple[Any, ...]]) -> tuple[float, ...]:
    """The spacing; the matrix's if only the matrix is used and the two differ."""
    [is_turned], [is_matrix] = kept["qform_code"], kept["sform_code"]
    qfac, *spacing = kept["pixdim"]
    if not is_matrix or is_turned:
        return (qfac, *spacing)
    rows = [kept["srow"][start : start + 3] for start in (0, 4, 8)]
    lengths = [math.hypot(*column) for column in zip(*rows, strict=True)]
    return (qfac, *(_length(told) if abs(size - told) > SAME_SPACING * told else size
                    for size, told in zip(spacing[:3], lengths, strict=True)), *spacing[3:])  # fmt: skip


def _scale(read: dict[str, tuple[Any, ...]], *, is_double: bool) -> dict[str, tuple[Any, ...]]:
    """Slope and intercept. A slope that is 0 or not finite means that values are not scaled; then the intercept is
    unused. UnsuitableImage beyond MOST.
    """
    [slope] = read["scl_slope"]
    is_scaled = math.isfinite(slope) and slope != 0
    kept = {"scl_slope": (slope if is_scaled else _nothing(slope),)}
    if "scl_inter" in read:
        [intercept] = read["scl_inter"]
        if is_scaled and not math.isfinite(intercept):
            raise UndecodableImage("the NIfTI header's scl_inter is not finite; write 0")
        kept["scl_inter"] = (intercept if is_scaled else _nothing(intercept),)
    least = 1e-300 if is_double else 1e-37
    for name, (value,) in kept.items():
        if math.isfinite(value) and value != 0 and not least < abs(value) <= MOST:
            raise UnsuitableImage(f"the header's {name} is implausible; write the values themselves")
    return kept


def _nothing(value: float) -> float:
    return math.nan if math.isnan(value) else 0.0


def _codes(read: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    kept: dict[str, tuple[Any, ...]] = {"xyzt_units": (read["xyzt_units"][0] & 0x3F,)}
    for name in ("qform_code", "sform_code"):
        [code] = read[name]
        kept[name] = (code if code in _CODES else int(code > 0),)
    [intent] = read["intent_code"]
    # Our readers only check for an intent. 1,007 is a vector, which other programs assume for unknown intents.
    kept["intent_code"] = (intent if intent in _INTENTS or not intent else 1007,)
    return kept


def _transforms(read: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Quaternion and matrix if their codes are set, else zeros; UnsuitableImage for implausible numbers."""
    kept: dict[str, tuple[Any, ...]] = {}
    for code, names in {"qform_code": ("quatern", "qoffset"), "sform_code": ("srow",)}.items():
        for name in names:
            is_used = read[code][0] > 0
            if is_used and not all(abs(value) <= MOST for value in read[name]):
                raise UnsuitableImage(f"the NIfTI header's {code[:5]} has implausible numbers; write a valid one")
            kept[name] = read[name] if is_used else (0.0,) * len(read[name])
    return kept


def _origin(read: dict[str, tuple[Any, ...]]) -> tuple[int, ...]:
    """SPM's origin, if it is a voxel of the image, counted from 1, and its numbers cannot be letters."""
    rank, *sizes = read["dim"]
    places = read["originator"]
    is_sound = rank >= 3 and places[3:] == (0, 0) and all(
        0 <= place <= min(size, 0x1FFF) for place, size in zip(places[:3], sizes, strict=False)
    )  # fmt: skip
    return places if is_sound else (0,) * 5
