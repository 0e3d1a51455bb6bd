"""Bodies that hold pictures in some wrapping: npy, JSON, multipart, zip. Nothing is decoded here, and no length, count
or size that a body claims is believed before it is checked.

JSON and multipart are read by a strict subset of their standards, so that what is read has one meaning only. What the
wrapping says about a picture (a file's name, a part's own type) is not looked at: the picture's bytes decide.
"""

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from sagemaker_monai.archives import ArchiveLimits, ArchiveTooLargeError, UnsafeArchiveError, read_members
from sagemaker_monai.errors import CallerError, MalformedRequest, PayloadTooLarge, UnsuitableImage, UnsupportedMediaType
from sagemaker_monai.samples import Sample

MAX_IMAGES = 1_000  # of one request
MAX_INFLATED_BYTES = 512 * 1024**2  # of one archive, all members together
MAX_INFLATE_RATIO = 100  # of one archive, above the first 16 MiB; pictures are compressed already
_SMALL_ARCHIVE_BYTES = 16 * 1024**2
_DEFLATE_RATIO = 1_032  # the most that a member can reach: the limit that counts is that of the whole archive


@contextmanager
def name_picture(index: int, total: int) -> Iterator[None]:
    """Put `image INDEX: ` before the message of a caller's error, when there are several pictures.

    Args:
        index: of the picture, counted from 0, in the order of the answer.
        total: number of pictures.
    """
    try:
        yield
    except CallerError as error:
        if total < 2:
            raise
        raise type(error)(f"image {index}: {error}") from error


# --- npy -------------------------------------------------------------------------------------------------------------

_NPY_MAGIC = b"\x93NUMPY"
_NPY_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}  # by format version; numpy.lib.format
_NPY_MAX_HEADER_BYTES = 1_024  # NumPy writes 118 for plain numbers
_NPY_ENTRY = r"'(descr|fortran_order|shape)'\s*:\s*('[^'\\\n]*'|True|False|\([0-9,\s]*\))\s*"
_NPY_HEADER = re.compile(rf"\{{\s*{_NPY_ENTRY},\s*{_NPY_ENTRY},\s*{_NPY_ENTRY},?\s*\}}\s*", re.ASCII)
_NPY_DTYPES = re.compile(r"[|<>](b1|[iu][1248]|f[248])", re.ASCII)
_NPY_SHAPE = re.compile(r"\(\s*(\d{1,9}\s*(,\s*\d{1,9}\s*)*,?\s*)?\)", re.ASCII)


def read_npy(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    """Read raw values (N, C, W, H), (C, W, H) or (W, H) from NumPy's file format.

    The header is matched, not evaluated, and the values are a view of the body: nothing is unpickled, nothing is
    allocated for a shape that the body does not fill.

    Raises:
        MalformedRequest: not an npy file, or one that is too short or too long for its shape.
        UnsuitableImage: another type than bool, integer, floating point, or another number of axes.
        PayloadTooLarge: too many pictures.
    """
    length_bytes = _NPY_LENGTH_BYTES.get(body[6:8]) if body.startswith(_NPY_MAGIC) else None
    if length_bytes is None:
        raise MalformedRequest("not an npy file of format version 1, 2 or 3")
    start = 8 + length_bytes
    end = start + int.from_bytes(body[8:start], "little")
    if end - start > _NPY_MAX_HEADER_BYTES or end > len(body):
        raise MalformedRequest("the npy header is too long or cut off")
    match = _NPY_HEADER.fullmatch(body[start:end].decode("latin-1"))
    entries = {match[i]: match[i + 1] for i in (1, 3, 5)} if match is not None else {}
    if len(entries) != 3 or entries["fortran_order"] not in ("True", "False"):
        _refuse_npy_header(body[start:end])
    dtype_name = entries["descr"].strip("'")
    if not _NPY_DTYPES.fullmatch(dtype_name):
        raise UnsuitableImage("raw values must be bool, integer or floating point; objects are not accepted")
    if not _NPY_SHAPE.fullmatch(entries["shape"]):
        raise MalformedRequest("the npy header has a malformed shape")
    shape = tuple(int(size) for size in re.findall(r"\d+", entries["shape"]))
    if len(shape) not in (2, 3, 4):
        raise UnsuitableImage(f"raw values have {len(shape)} axes; send (N, C, W, H), (C, W, H) or (W, H)")
    _check_count(min(shape, default=0) and (shape[0] if len(shape) == 4 else 1))
    dtype = np.dtype(dtype_name)
    if len(body) - end != math.prod(shape) * dtype.itemsize:
        raise MalformedRequest("the npy values do not fill the shape exactly")
    values = np.frombuffer(body, dtype, offset=end).reshape(
        shape, order="F" if entries["fortran_order"] == "True" else "C"
    )
    return [Sample(image, ()) for image in (values if values.ndim == 4 else [values])]


def _refuse_npy_header(header: bytes) -> NoReturn:
    if b"[" in header:
        raise UnsuitableImage("raw values must be plain numbers; structured types are not accepted")
    raise MalformedRequest("the npy header is malformed")


# --- JSON ------------------------------------------------------------------------------------------------------------


def read_json(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read `{"instances": [{"image": BASE64}, ...]}`.

    Raises:
        MalformedRequest: not JSON in UTF-8, a repeated or unknown key, NaN, too deep, or base64 that is not strict.
        PayloadTooLarge: too many pictures.
        UnsupportedMediaType: a charset other than UTF-8.
    """
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("JSON is read as UTF-8; leave the charset out")
    # Before parsing, which makes 75 bytes of each `{},`. Instances are separated by a comma, and base64 has none.
    if body.count(b",") >= MAX_IMAGES:
        raise PayloadTooLarge(f'more than {MAX_IMAGES} pictures or values; send {{"instances": [{{"image": BASE64}}]}}')
    try:
        request = json.loads(body.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not sound JSON in UTF-8") from error
    if not isinstance(request, dict) or set(request) != {"instances"} or not isinstance(request["instances"], list):
        raise MalformedRequest('the body must be {"instances": [{"image": BASE64}, ...]} with no other key')
    return _read_each(request["instances"], _decode_instance)


def _decode_instance(instance: Any) -> bytes:
    if not isinstance(instance, dict) or set(instance) != {"image"} or not isinstance(instance["image"], str):
        raise MalformedRequest('each instance must be {"image": BASE64} with no other key')
    text = instance["image"]
    if text.startswith("data:"):
        raise MalformedRequest("data: URLs are not accepted; send the base64 text alone")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest("the image is not base64 (standard alphabet, padded, no line breaks)") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(keys := dict(pairs)) != len(pairs):
        raise ValueError("repeated key")
    return keys


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# --- multipart -------------------------------------------------------------------------------------------------------

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)  # RFC 2046, 5.1.1
_MAX_PART_HEADER_BYTES = 8_192
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_PLAIN_ENCODINGS = frozenset({b"binary", b"8bit", b"7bit"})


def read_multipart(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read every part of a form as one picture, with or without a file name, whatever type the part declares.

    Raises:
        MalformedRequest: no or a wrong boundary, text before the first or after the last one, a broken part header,
            a part that is encoded (base64, quoted-printable: RFC 7578, 4.7, wants them gone), or no part.
        PayloadTooLarge: too many parts.

    Source: RFC 2046, 5.1.1; RFC 7578.
    """
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedRequest("multipart/form-data needs a boundary of 1 to 70 allowed characters")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    text = b"\r\n" + body  # so that the first delimiter looks like all others
    found = text.count(delimiter)
    if found > MAX_IMAGES + 1:
        raise PayloadTooLarge(f"more than {MAX_IMAGES} parts in one request; send several requests")
    before, *parts, after = text.split(delimiter) if found else (b"-", b"")
    if before or not re.fullmatch(rb"--[ \t]*(\r\n)?", after):
        raise MalformedRequest("the body does not begin and end with the boundary of its Content-Type")
    return _read_each(parts, _part_content)


def _part_content(part: bytes) -> bytes:
    line_end = part.find(b"\r\n")
    header_end = part.find(b"\r\n\r\n", line_end, max(line_end, 0) + _MAX_PART_HEADER_BYTES)
    if line_end < 0 or part[:line_end].strip(b" \t") or header_end < 0:
        raise MalformedRequest("a part has no end of its header, or too long a one")
    headers: dict[bytes, bytes] = {}
    for line in part[line_end + 2 : header_end].split(b"\r\n") if header_end > line_end else ():
        match = _HEADER_LINE.fullmatch(line)
        if match is None or match[1].lower() in headers:
            raise MalformedRequest("a part has a broken or repeated header line")
        headers[match[1].lower()] = match[2].strip().lower()
    if headers.get(b"content-disposition", b"").split(b";")[0].strip() != b"form-data":
        raise MalformedRequest("a part lacks `Content-Disposition: form-data`")
    if headers.get(b"content-transfer-encoding", b"binary") not in _PLAIN_ENCODINGS:
        raise MalformedRequest("a part is encoded; send the picture's bytes as they are")
    return part[header_end + 4 :]


# --- zip -------------------------------------------------------------------------------------------------------------

_NESTED = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")


def read_zip(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    """Read every file of an archive as one picture, in the archive's order.

    Folders and what operating systems leave behind are passed over. Members are inflated in memory and get no path.

    Raises:
        MalformedRequest: what `archives` calls unsafe, a nested archive, or no picture.
        PayloadTooLarge: too many members, or more inflated bytes than the limits, whatever the headers claim.
    """
    total_bytes = min(MAX_INFLATED_BYTES, max(_SMALL_ARCHIVE_BYTES, MAX_INFLATE_RATIO * len(body)))
    limits = ArchiveLimits(members=MAX_IMAGES, member_bytes=total_bytes, total_bytes=total_bytes, ratio=_DEFLATE_RATIO)
    try:
        members = [content for _, content in read_members(io.BytesIO(body), limits=limits)]
    except ArchiveTooLargeError as error:
        raise PayloadTooLarge(f"{error.reason}; send several requests") from error
    except UnsafeArchiveError as error:
        raise MalformedRequest(error.reason) from error
    return _read_each(members, _member_content)


def _member_content(content: bytes) -> bytes:
    if content.startswith(_NESTED):
        raise MalformedRequest("an archive inside the archive; send the pictures themselves")
    return content


# --- all -------------------------------------------------------------------------------------------------------------


def _read_each(pieces: Sequence[Any], read: Callable[[Any], bytes]) -> list[Sample]:
    """One picture of each piece, in order; errors say which piece."""
    _check_count(len(pieces))
    samples = []
    for index, piece in enumerate(pieces):
        with name_picture(index, len(pieces)):
            samples.append(Sample(read(piece)))
    return samples


def _check_count(count: int) -> None:
    if count == 0:
        raise MalformedRequest("no picture in the body")
    if count > MAX_IMAGES:
        raise PayloadTooLarge(f"{count} pictures in one request are more than {MAX_IMAGES}; send several requests")
