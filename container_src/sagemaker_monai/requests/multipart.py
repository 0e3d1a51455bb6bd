"""Multipart bodies: forms, and DICOM files as DICOMweb sends them.

Only a strict subset of the standards is read, so that a body has one meaning only.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

from sagemaker_monai.budget import spend_bytes
from sagemaker_monai.errors import MalformedRequest, PayloadTooLarge
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.several import name_picture
from sagemaker_monai.images.signatures import is_dicom_file
from sagemaker_monai.requests.bodies import MAX_INSTANCES, gather

DICOM_TYPE = "application/dicom"
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)  # RFC 2046, 5.1.1
_MAX_PART_HEADER_BYTES = 8_192
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_PLAIN_ENCODINGS = frozenset({b"binary", b"8bit", b"7bit"})


def read_form(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read every part of a form as a file, with or without a file name, whatever type the part declares.

    Raises:
        MalformedRequest: no or a wrong boundary, text before the first or after the last one, a broken part header,
            an encoded part (base64, quoted-printable: deprecated by RFC 7578, 4.7), or what `gather` refuses.
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
    """Read DICOM files as STOW-RS sends and WADO-RS returns them, all of them as one sample.

    Raises:
        MalformedRequest: `type` is not application/dicom, a part has another type or is not a DICOM file, its
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
                raise MalformedRequest("a part is not a DICOM file")
            pieces.append(("", content))
    return gather(pieces)


def _split(body: bytes, parameters: Mapping[str, str]) -> list[memoryview]:
    """The parts, each from the end of its boundary to the line break before the next one; nothing is copied."""
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedRequest("a multipart body needs a boundary of 1 to 70 allowed characters in its Content-Type")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    # The body may begin with the first boundary, or with a line break before it, as DICOMweb clients send it.
    places = [-2] if body.startswith(delimiter[2:]) else []
    position = len(delimiter) - 2 if places else 0
    while (place := body.find(delimiter, position)) >= 0:
        places.append(place)
        position = place + len(delimiter)
        if len(places) > MAX_INSTANCES + 1:
            raise PayloadTooLarge(f"more than {MAX_INSTANCES} parts in one request; send several requests")
    view = memoryview(body)
    if places[:1] not in ([-2], [0]) or not re.fullmatch(rb"--[ \t]*(\r\n)?", view[places[-1] + len(delimiter) :]):
        raise MalformedRequest("the body does not begin and end with the boundary of its Content-Type")
    return [view[place + len(delimiter) : following] for place, following in pairwise(places)]


def _take_apart(part: memoryview) -> tuple[dict[bytes, bytes], bytes]:
    """The header lines of a part, in lower case, and its content."""
    head = bytes(part[:_MAX_PART_HEADER_BYTES])
    line_end = head.find(b"\r\n")
    header_end = head.find(b"\r\n\r\n", max(line_end, 0))
    if line_end < 0 or head[:line_end].strip(b" \t") or header_end < 0:
        raise MalformedRequest("the header of a part has no end or is too long")
    headers: dict[bytes, bytes] = {}
    for line in head[line_end + 2 : header_end].split(b"\r\n") if header_end > line_end else ():
        match = _HEADER_LINE.fullmatch(line)
        if match is None or match[1].lower() in headers:
            raise MalformedRequest("a part has a broken or repeated header line")
        headers[match[1].lower()] = match[2].strip().lower()
    spend_bytes(len(part), "the parts of a multipart body")
    content = bytes(part[header_end + 4 :])
    if headers.get(b"content-transfer-encoding", b"binary") not in _PLAIN_ENCODINGS:
        raise MalformedRequest("a part is encoded; send the picture's bytes as they are")
    if headers.get(b"content-length", b"%d" % len(content)) != b"%d" % len(content):
        raise MalformedRequest("a part does not have its Content-Length; its content may contain the boundary")
    return headers, content


def _first_word(value: bytes) -> bytes:
    return value.split(b";")[0].strip()
