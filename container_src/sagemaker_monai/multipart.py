"""Bodies in parts between boundaries: forms, and DICOM files as DICOMweb sends them.

A strict subset of the standards is read, so that a body has one meaning only.
"""

import re
from collections.abc import Mapping

from sagemaker_monai.containers import MAX_INSTANCES, gather, name_picture
from sagemaker_monai.contents import is_dicom_file
from sagemaker_monai.errors import MalformedRequest, PayloadTooLarge
from sagemaker_monai.samples import Sample

DICOM_TYPE = "application/dicom"
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)  # RFC 2046, 5.1.1
_MAX_PART_HEADER_BYTES = 8_192
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_PLAIN_ENCODINGS = frozenset({b"binary", b"8bit", b"7bit"})


def read_form(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read every part of a form as one file, with or without a file name, whatever type the part declares.

    Raises:
        MalformedRequest: no or a wrong boundary, text before the first or after the last one, a broken part header,
            a part that is encoded (base64, quoted-printable: RFC 7578, 4.7, wants them gone), or what `gather` refuses.
        PayloadTooLarge: too many parts.

    Source: RFC 2046, 5.1.1; RFC 7578.
    """
    pieces = []
    parts = _split(body, parameters)
    for index, part in enumerate(parts):
        with name_picture(index, len(parts)):
            headers, content = _take_apart(part)
            if _first_word(headers.get(b"content-disposition", b"")) != b"form-data":
                raise MalformedRequest("a part lacks `Content-Disposition: form-data`")
            pieces.append(("", content))
    return gather(pieces)


def read_related(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read DICOM files as STOW-RS sends them and WADO-RS answers with them; all of them are one sample.

    Raises:
        MalformedRequest: `type` is not application/dicom, a part is of another type or no DICOM file, its
            Content-Length is wrong, or anything that `read_form` refuses.
        PayloadTooLarge: too many parts.

    Source: DICOM PS3.18, 8.6.1.2.1 and 8.7.3.2; RFC 2387.
    """
    if parameters.get("type", "").lower() != DICOM_TYPE:
        raise MalformedRequest(f'multipart/related needs the parameter type="{DICOM_TYPE}"; no other type is read')
    pieces = []
    parts = _split(body, parameters)
    for index, part in enumerate(parts):
        with name_picture(index, len(parts)):
            headers, content = _take_apart(part)
            if _first_word(headers.get(b"content-type", b"")) != DICOM_TYPE.encode():
                raise MalformedRequest(f"a part lacks `Content-Type: {DICOM_TYPE}`")
            if not is_dicom_file(content):
                raise MalformedRequest("a part is no DICOM file")
            pieces.append(("", content))
    return gather(pieces)


def _split(body: bytes, parameters: Mapping[str, str]) -> list[bytes]:
    """The parts, each from behind its boundary to the line break before the next one."""
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedRequest("a multipart body needs a boundary of 1 to 70 allowed characters in its Content-Type")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    text = b"\r\n" + body  # so that the first delimiter looks like all others
    found = text.count(delimiter)
    if found > MAX_INSTANCES + 1:
        raise PayloadTooLarge(f"more than {MAX_INSTANCES} parts in one request; send several requests")
    before, *parts, after = text.split(delimiter) if found else (b"-", b"")
    # DICOMweb clients begin with the line break that belongs to the first boundary.
    if before not in (b"", b"\r\n") or not re.fullmatch(rb"--[ \t]*(\r\n)?", after):
        raise MalformedRequest("the body does not begin and end with the boundary of its Content-Type")
    return parts


def _take_apart(part: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """A part's header lines, in lower case, and its content."""
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
    content = part[header_end + 4 :]
    if headers.get(b"content-transfer-encoding", b"binary") not in _PLAIN_ENCODINGS:
        raise MalformedRequest("a part is encoded; send the picture's bytes as they are")
    if headers.get(b"content-length", b"%d" % len(content)) != b"%d" % len(content):
        raise MalformedRequest("a part has not the length that it says; the boundary may stand in its content")
    return headers, content


def _first_word(value: bytes) -> bytes:
    return value.split(b";")[0].strip()
