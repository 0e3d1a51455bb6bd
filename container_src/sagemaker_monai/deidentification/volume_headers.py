"""Recognises volume files that contain nothing but the image, so that they need no cleaning.

NRRD and MetaImage are text followed by values: each line must be a listed field with a valid value, and the number of
values must be exactly as stated. No comments, custom keys, other files or skipped bytes are allowed; fields that our
readers ignore are not listed. A number can be any number.

Sources: NRRD 5 (Teem); MetaIO's documentation of MetaImage; RFC 1952, 2.3 (gzip).
"""

import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sagemaker_monai.deidentification.deidentify_nifti import voxels_of
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.formats.affines import MM_PER_UNIT
from sagemaker_monai.images.formats.metaimage import TYPES
from sagemaker_monai.images.formats.nrrd import DTYPES, SPACES
from sagemaker_monai.images.signatures import GZIP_MAGIC

MOST_HEADER_BYTES = 1 << 16
_INPUT_BYTES = 1 << 16
_GZIP_HEAD = struct.Struct("<2sBBIBB")  # magic, method, flags, time, extra flags, system
_DEFLATE = 8
_ZLIB, _GZIP = 15, 31  # wbits

_WHOLE = r"[1-9]\d{0,8}"
_NUMBER = r"-?(?:(?:0|[1-9]\d{0,8})(?:\.\d{0,20})?)(?:e[+-]?\d{1,3})?"
_VECTOR = rf"(?:none|\({_NUMBER}(?:,{_NUMBER}){{1,2}}\))"


def _either(words: Any) -> str:
    return "(?:" + "|".join(map(re.escape, words)) + ")"


def _several(pattern: str) -> str:
    return f"{pattern}(?: {pattern}){{0,15}}"


_KINDS = _either(("domain", "space", "list", "vector", "point", "normal", "RGB-color", "RGBA-color", "scalar", "none"))
_NRRD_FIELDS = {
    "type": _either(DTYPES),
    "dimension": r"\d{1,2}",
    "sizes": _several(_WHOLE),
    "encoding": "raw|gzip|gz",
    "endian": "little|big",
    "kinds": _several(_KINDS),
    "space": _either(SPACES),
    "space directions": _several(_VECTOR),
    "space origin": _VECTOR,
    "space units": _several(f'"{_either(MM_PER_UNIT)}"'),
    "spacings": _several(f"(?:nan|NaN|{_NUMBER})"),
}
_TRUTH = "True|False"
_META_FIELDS = {
    "ObjectType": "Image",
    "NDims": "[234]",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": _TRUTH,
    "ElementByteOrderMSB": _TRUTH,
    "CompressedData": _TRUTH,
    "CompressedDataSize": _WHOLE,
    "CompressionLevel": r"\d",
    "TransformMatrix": _several(_NUMBER),
    "Offset": _several(_NUMBER),
    "CenterOfRotation": _several("0"),
    "AnatomicalOrientation": r"[RLAPIS]{2,3}|\?{2,4}",
    "ElementSpacing": _several(_NUMBER),
    "DimSize": _several(_WHOLE),
    "ElementNumberOfChannels": _WHOLE,
    "ElementType": _either(TYPES),
    "Modality": "MET_MOD_(?:CT|MR|NM|US|OTHER|UNKNOWN)",
    "ElementDataFile": "LOCAL",
}
_NRRD_LINE = re.compile(r"([a-z ]+): ([^\r\n]*)", re.ASCII)
_META_LINE = re.compile(r"(\w+) = ([^\r\n]*?) ?", re.ASCII)


def is_clean_nifti(path: Path) -> bool:
    """Whether `deidentify_nifti` would change at most a file's compression; False if it is broken."""
    try:
        with voxels_of(path) as (header, _, size, is_packed), path.open("rb") as file:
            if is_packed:
                return _is_clean_gzip(file, header, len(header) + size)
            return file.read(len(header)) == header and path.stat().st_size == len(header) + size
    except (OSError, CallerError):
        return False


def _is_clean_gzip(file: BinaryIO, start: bytes, size: int) -> bool:
    """Whether the rest is one member without name, time or comment that inflates to `size` bytes that begin so."""
    head = file.read(_GZIP_HEAD.size)
    if len(head) < _GZIP_HEAD.size:
        return False
    magic, method, flags, time, extra, system = _GZIP_HEAD.unpack(head)
    is_bare = magic == GZIP_MAGIC and (method, flags, time) == (_DEFLATE, 0, 0) and extra in (0, 2, 4)
    file.seek(-len(head), 1)
    return is_bare and (system <= 13 or system == 255) and _inflates_to(file, start, size, _GZIP)


def _inflates_to(file: BinaryIO, start: bytes, size: int, wbits: int) -> bool:
    inflater, head, count, data = zlib.decompressobj(wbits), b"", 0, b""
    while not inflater.eof and count <= size and (data := data or file.read(_INPUT_BYTES)):
        try:
            piece = inflater.decompress(data, _INPUT_BYTES << 4)
        except zlib.error:
            return False
        head += piece[: len(start) - len(head)]
        count += len(piece)
        data = inflater.unconsumed_tail
    return inflater.eof and not inflater.unused_data and not file.read(1) and head == start and count == size


def has_texts(path: Path) -> bool:
    """Whether a NRRD or MetaImage file contains anything that may be text, or is broken."""
    with path.open("rb") as file:
        head = file.read(MOST_HEADER_BYTES)
        found = _nrrd(head) if head.startswith(b"NRRD") else _meta(head)
        if found is None:
            return True
        start, size, packing = found
        file.seek(start)
        if packing == _GZIP:
            return not _is_clean_gzip(file, b"", size)
        if packing == _ZLIB:
            return not _inflates_to(file, b"", size, _ZLIB)
        return path.stat().st_size != start + size


def _fields(lines: list[str], pattern: re.Pattern[str], known: dict[str, str]) -> dict[str, str] | None:
    """Names and values; None if a line is not a listed field with a valid value, or a field occurs twice."""
    fields: dict[str, str] = {}
    for line in lines:
        match = pattern.fullmatch(line)
        name, value = (match[1], match[2]) if match else ("", "")
        if name not in known or name in fields or not re.fullmatch(known[name], value, re.ASCII):
            return None
        fields[name] = value
    return fields


def _nrrd(head: bytes) -> tuple[int, int, int] | None:
    """The offset of the values, their size, and their compression; None if there may be text."""
    ending = re.search(rb"\n\n|\r\n\r\n", head)
    if ending is None or not re.match(rb"NRRD000[1-6]\r?\n", head):
        return None
    lines = head[: ending.start()].decode("ascii", "replace").replace("\r\n", "\n").split("\n")
    fields = _fields(lines[1:], _NRRD_LINE, _NRRD_FIELDS)
    if fields is None or not {"type", "sizes", "encoding"} <= fields.keys():
        return None
    size = math.prod(map(int, fields["sizes"].split())) * np.dtype(DTYPES[fields["type"]]).itemsize
    return ending.end(), size, 0 if fields["encoding"] == "raw" else _GZIP


def _meta(head: bytes) -> tuple[int, int, int] | None:
    """Like `_nrrd`."""
    ending = re.search(rb"^ElementDataFile = LOCAL\r?\n", head, re.MULTILINE)
    if ending is None:
        return None
    lines = head[: ending.end()].decode("ascii", "replace").replace("\r\n", "\n").split("\n")
    fields = _fields(lines[:-1], _META_LINE, _META_FIELDS)
    if fields is None or not {"DimSize", "ElementType"} <= fields.keys():
        return None
    count = math.prod(map(int, fields["DimSize"].split())) * int(fields.get("ElementNumberOfChannels", "1"))
    size = count * np.dtype(TYPES[fields["ElementType"]]).itemsize
    return ending.end(), size, _ZLIB if fields.get("CompressedData") == "True" else 0
