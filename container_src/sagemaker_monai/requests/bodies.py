"""Bodies that are containers of images: npy and JSON, and the code that all containers share; `multipart` and
`archives` (zip, tar, gzip) have the others. Nothing is decoded here, and every length, count or size that a body claims
is checked before it is used.

JSON and multipart are read by a strict subset of their standards, so that a body has one meaning only. Only the bytes
of an image count, not what the container says about it (a part's type, a file's name).

An archive or form has either pictures and volumes, each of them one Sample, in their order; or DICOM files, which are
one Sample together, because only their headers tell which of them make one image (`dicom.series`). It cannot have both,
because then it would be unclear which answer belongs to which file.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NoReturn

import numpy as np

from sagemaker_monai.budget import spend_bytes
from sagemaker_monai.errors import (
    MalformedRequest,
    PayloadTooLarge,
    ReferenceNotAllowed,
    UndecodableImage,
    UnsuitableImage,
    UnsupportedMediaType,
)
from sagemaker_monai.images.formats.arrays import parse_npy_header
from sagemaker_monai.images.sample import Held, Instances, Sample
from sagemaker_monai.images.several import AXES_OF_VALUES, name_picture
from sagemaker_monai.images.signatures import NPY_MAGIC, is_archive, is_dicom_file, is_dicomdir

MAX_IMAGES = 1_000  # of one request
MAX_INSTANCES = 5_000  # DICOM files of one request; a cardiac CT has some 3,000
_MORE_BRACKETS = 16  # of JSON, in addition to one per picture
# Files that DICOM exports put beside the images: licences, checksums, tables, the start page of a disc.
_COMPANIONS = frozenset({".txt", ".csv", ".json", ".xml", ".html", ".htm", ".pdf", ".md", ".inf", ".md5"})
_COMPANION_NAMES = frozenset({"LICENSE", "README", "SHA256SUMS", "LOCKFILE", "VERSION"})


def check_count(count: int, limit: int | None = None) -> None:
    """Raise MalformedRequest without pictures, PayloadTooLarge with more than `limit`, by default MAX_IMAGES."""
    limit = MAX_IMAGES if limit is None else limit
    if count == 0:
        raise MalformedRequest("no picture in the body")
    if count > limit:
        raise PayloadTooLarge(f"{count} pictures in one request are more than {limit}; send several requests")


def sample_of(content: bytes) -> Sample:
    """The sample of one file in a container: a DICOM file, raw values, or a picture or volume.

    Raises:
        MalformedRequest: an archive inside the container, or a broken npy file.
        UnsuitableImage, PayloadTooLarge: as `read_npy`.
    """
    if is_dicom_file(content):
        return Sample(Instances((content,)))
    if is_archive(content):
        raise MalformedRequest("an archive inside the archive; send the pictures themselves")
    if content.startswith(NPY_MAGIC):
        [sample] = read_npy(content, {})
        return sample
    return Sample(content)


def gather(pieces: Sequence[tuple[str, bytes]]) -> list[Sample]:
    """The samples of the files in a container.

    A DICOMDIR is skipped, and so are texts and tables beside DICOM files, by the suffixes of their names.

    Args:
        pieces: name and content of each file; the name is empty if the container has none.

    Returns:
        One sample per file, in their order; or a single one for all DICOM files.

    Raises:
        MalformedRequest: no file, an archive among the files, or DICOM files and others.
        PayloadTooLarge: more than MAX_INSTANCES DICOM files or MAX_IMAGES others.

        With several files, an error of one begins with `image I: `, counted from 0.
    """
    images = [(name, content) for name, content in pieces if not is_dicomdir(content)]
    if pieces and not images:
        raise MalformedRequest("a DICOMDIR without the files that it lists; send the files")
    are_dicom = [is_dicom_file(content) for _, content in images]
    if any(are_dicom):
        for index, ((name, _), is_dicom) in enumerate(zip(images, are_dicom, strict=True)):
            if not is_dicom and not _is_companion(name):
                with name_picture(index, len(images)):
                    raise MalformedRequest("not a DICOM file, but others of the request are; send them separately")
        files = tuple(Held(content) for (_, content), is_dicom in zip(images, are_dicom, strict=True) if is_dicom)
        check_count(len(files), MAX_INSTANCES)
        return [Sample(Instances(files))]
    check_count(len(images))
    samples = []
    for index, (_, content) in enumerate(images):
        with name_picture(index, len(images)):
            samples.append(sample_of(content))
    return samples


def _is_companion(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in _COMPANIONS or path.name.upper() in _COMPANION_NAMES


# --- npy -------------------------------------------------------------------------------------------------------------


def read_npy(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    """Read raw values of 2 to 5 axes from NumPy's file format; `split_arrays` has the meaning of the axes.

    The header is parsed, not evaluated, and the values are a view of the body: nothing is unpickled, and nothing is
    allocated for a shape that the body does not fill.

    Raises:
        MalformedRequest: not an npy file, or its size does not fit its shape.
        UnsuitableImage: not bool, integer or floating point, or another number of axes.
        PayloadTooLarge: too many pictures.
    """
    try:
        header = parse_npy_header(body)
    except UndecodableImage as error:
        raise MalformedRequest(str(error)) from error
    shape = header.shape
    if len(shape) not in (2, 3, 4, 5):
        raise UnsuitableImage(f"raw values have {len(shape)} axes; {AXES_OF_VALUES}")
    check_count(min(shape, default=0) and (shape[0] if len(shape) >= 4 else 1))
    if len(body) - header.offset != math.prod(shape) * header.dtype.itemsize:
        raise MalformedRequest("the npy values do not fill the shape exactly")
    return [Sample(np.frombuffer(body, header.dtype, offset=header.offset).reshape(shape, order=header.order))]


# --- JSON ------------------------------------------------------------------------------------------------------------


def read_json(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read `{"instances": [{"image": BASE64}, ...]}`; every instance is an image by itself, also a DICOM file.

    Raises:
        ReferenceNotAllowed: it names objects in S3; if these are allowed, the gateway has replaced them by now.
        MalformedRequest: not JSON in UTF-8, a repeated or unknown key, NaN, too deep, or base64 that is not strict.
        PayloadTooLarge: too many pictures.
        UnsupportedMediaType: a charset other than UTF-8.
    """
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("JSON is read as UTF-8; leave the charset out")
    # Checked before parsing, which takes 75 bytes for each `{},`. Commas separate instances, and base64 has none.
    if body.count(b",") >= MAX_IMAGES:
        raise PayloadTooLarge(f'more than {MAX_IMAGES} pictures or values; send {{"instances": [{{"image": BASE64}}]}}')
    if body.count(b"[") + body.count(b"{") > MAX_IMAGES + _MORE_BRACKETS:
        raise MalformedRequest("the JSON is nested too deep, or has more values than pictures")
    # The text and a copy of it: while it is parsed of the whole, later of one string at a time.
    spend_bytes(2 * len(body), "the text of a JSON body")
    try:
        request = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not valid JSON in UTF-8") from error
    if isinstance(request, dict) and set(request) == {"objects"}:
        raise ReferenceNotAllowed("this endpoint takes no references to objects; its ALLOWED_S3_PREFIXES is empty")
    if not isinstance(request, dict) or set(request) != {"instances"} or not isinstance(request["instances"], list):
        raise MalformedRequest('the body must be {"instances": [{"image": BASE64}, ...]} with no other key')
    instances = request["instances"]
    check_count(len(instances))
    samples = []
    for index, instance in enumerate(instances):
        with name_picture(index, len(instances)):
            samples.append(sample_of(_decode_instance(instance)))
    return samples


def _decode_instance(instance: Any) -> bytes:
    if not isinstance(instance, dict) or set(instance) != {"image"} or not isinstance(instance["image"], str):
        raise MalformedRequest('each instance must be {"image": BASE64} with no other key')
    text = instance["image"]
    if text.startswith("data:"):
        raise MalformedRequest("data: URLs are not accepted; send the base64 text alone")
    try:
        spend_bytes(len(text) // 4 * 3, "the pictures of a JSON body")
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest("the image is not base64 (standard alphabet, padded, no line breaks)") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(keys := dict(pairs)) != len(pairs):
        raise ValueError("repeated key")
    return keys


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
