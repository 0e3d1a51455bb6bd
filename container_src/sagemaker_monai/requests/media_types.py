"""Content types and the functions that read their bodies into samples. A new input format is a row here.

`pictures.py` decodes a picture, `read.py` volumes and DICOM files; `bodies.py`, `multipart.py` and `archives.py` split
a body with several of them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sagemaker_inference import content_types

from sagemaker_monai.budget import expect_work
from sagemaker_monai.errors import MalformedRequest, PayloadTooLarge, UndecodableImage, UnsupportedMediaType
from sagemaker_monai.images.pictures import measure
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.images.several import name_picture
from sagemaker_monai.images.signatures import GZIP_MAGIC, NPY_MAGIC, ZIP_MAGICS, is_dicom_file, is_tar
from sagemaker_monai.images.suffixes import PICTURE_SUFFIXES
from sagemaker_monai.requests.archives import read_gzip_body, read_tar_body, read_zip_body
from sagemaker_monai.requests.bodies import read_json, read_npy
from sagemaker_monai.requests.multipart import read_form, read_related

MAX_REQUEST_PIXELS = 1_000_000_000  # of all pictures of a request; some 15 s of one core's decoding (a guess)

Reader = Callable[[bytes, Mapping[str, str]], list[Sample]]


@dataclass(frozen=True)
class MediaType:
    """A row of `MEDIA_TYPES`.

    Attributes:
        suffixes: lower-case file endings with the dot.
        reader: takes a body and the parameters of its content type; returns the pictures in it, in their order.
    """

    suffixes: tuple[str, ...]
    reader: Reader


def _read_one(body: bytes, _parameters: Mapping[str, str], *, file_format: str) -> list[Sample]:
    return [Sample(body, (file_format,))]


def _picture(pillow_format: str) -> MediaType:
    return MediaType(PICTURE_SUFFIXES[pillow_format], partial(_read_one, file_format=pillow_format))


def _read_dicom(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    if not is_dicom_file(body):
        raise UndecodableImage("not a DICOM file; archives and other images have their own content types")
    return [Sample(Instances((body,)))]


def _read_anything(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read a body of a generic type by its first bytes: an archive, raw values, a DICOM file or one image."""
    if body.startswith(ZIP_MAGICS):
        return read_zip_body(body, parameters)
    if body.startswith(GZIP_MAGIC):
        return read_gzip_body(body, parameters)
    if body.startswith(NPY_MAGIC):
        return read_npy(body, parameters)
    if is_dicom_file(body):
        return _read_dicom(body, parameters)
    return read_tar_body(body, parameters) if is_tar(body) else [Sample(body)]


# The type of a single picture is binding: a PNG sent as image/jpeg is refused. Inside JSON, multipart and archives only
# the bytes count, not a part's own type or a member's name; the same holds for application/gzip, which names only the
# compression, and for the two generic types at the end.
MEDIA_TYPES: dict[str, MediaType] = {
    "image/jpeg": _picture("JPEG"),
    "image/png": _picture("PNG"),
    "image/bmp": _picture("BMP"),
    "image/tiff": _picture("TIFF"),
    "image/webp": _picture("WEBP"),
    "application/dicom": MediaType((".dcm", ".dicom", ".ima"), _read_dicom),
    "application/x-nifti": MediaType((".nii",), partial(_read_one, file_format="NIFTI")),
    "application/x-nifti+gzip": MediaType((".nii.gz",), partial(_read_one, file_format="NIFTI")),
    "application/x-nrrd": MediaType((".nrrd",), partial(_read_one, file_format="NRRD")),
    "application/x-metaimage": MediaType((".mha",), partial(_read_one, file_format="METAIMAGE")),
    content_types.NPY: MediaType((".npy",), read_npy),
    content_types.JSON: MediaType((".json",), read_json),
    "multipart/form-data": MediaType((), read_form),
    "multipart/related": MediaType((), read_related),
    "application/zip": MediaType((".zip",), read_zip_body),
    "application/x-tar": MediaType((".tar",), read_tar_body),
    "application/gzip": MediaType((".tar.gz", ".tgz"), read_gzip_body),
    "application/x-gzip": MediaType((), read_gzip_body),
    "application/x-image": MediaType((), _read_anything),  # SageMaker's built-in algorithms and JumpStart
    content_types.OCTET_STREAM: MediaType((), _read_anything),  # the SageMaker SDK's default serializer
}

# Other names of the rows, which are binding too.
ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/tif": "image/tiff",
    "image/x-ms-bmp": "image/bmp",
    "application/x-zip-compressed": "application/zip",
}

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_MEDIA_TYPE = re.compile(rf"\s*({_NAME}/{_NAME})\s*((?:;.*)?)", re.DOTALL)
_PARAMETER = re.compile(rf";[ \t]*(?:({_NAME})=(?:({_NAME})|\"((?:[^\"\\\r\n]|\\[^\r\n])*)\")[ \t]*)?")
MAX_CONTENT_TYPE_CHARS = 1_000


def parse_content_type(value: str | None) -> tuple[str, dict[str, str]]:
    """Parse a Content-Type header, such as `multipart/form-data; boundary="a b"`; None if it is missing.

    Returns:
        The type, a key of `MEDIA_TYPES`, and its parameters by lower-case name.

    Raises:
        UnsupportedMediaType: missing, malformed, or without a reader.

    Source: RFC 9110, 8.3.1 and 5.6.6.
    """
    accepted = ", ".join(MEDIA_TYPES)
    if not value:
        raise UnsupportedMediaType(f"the Content-Type is missing; accepted are {accepted}")
    match = _MEDIA_TYPE.fullmatch(value) if len(value) <= MAX_CONTENT_TYPE_CHARS else None
    if match is None:
        raise UnsupportedMediaType(f"the Content-Type is malformed; accepted are {accepted}")
    name, rest = match[1].lower(), match[2]
    name = ALIASES.get(name, name)
    parameters: dict[str, str] = {}
    position = 0
    while position < len(rest):
        parameter = _PARAMETER.match(rest, position)
        if parameter is None or (parameter[1] is not None and parameter[1].lower() in parameters):
            raise UnsupportedMediaType("the Content-Type has a malformed or repeated parameter")
        position = parameter.end()
        if parameter[1] is not None:
            quoted = parameter[3]
            parameters[parameter[1].lower()] = (
                parameter[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            )
    if name not in MEDIA_TYPES:
        raise UnsupportedMediaType(f"no reader for {name}; accepted are {accepted}")
    return name, parameters


def read_request(body: bytes, content_type: str) -> list[Sample]:
    """Find the images in a request's body, without decoding them.

    Args:
        body: the whole body.
        content_type: the Content-Type header.

    Returns:
        At least one sample, in the order of the body (archives: of their members). A sample of DICOM files or raw
        values may have several images, see `split_arrays`.

    Raises:
        UnsupportedMediaType: no reader for `content_type`.
        MalformedRequest: the body does not fit `content_type`, or has no picture.
        UndecodableImage: the body is not the DICOM file that `content_type` says.
        PayloadTooLarge: too many pictures, archive members, inflated bytes or pixels.

        With several pictures, an error of one begins with `image I: `, counted from 0.
    """
    name, parameters = parse_content_type(content_type)
    if not body:
        raise MalformedRequest(f"the body is empty; send the {name} data")
    samples = MEDIA_TYPES[name].reader(body, parameters)
    # A picture of one colour compresses to almost nothing: a small body can take hours to decode, a header 0.1 ms.
    encoded = [sample.source for sample in samples if isinstance(sample.source, bytes)]
    if len(encoded) > 1:
        pixels, work_ns = 0, 0.0
        for index, each in enumerate(encoded):
            with name_picture(index, len(encoded)):
                more_pixels, more_ns = measure(each)
            pixels, work_ns = pixels + more_pixels, work_ns + more_ns
        if pixels > MAX_REQUEST_PIXELS:
            raise PayloadTooLarge(
                f"the pictures have more than {MAX_REQUEST_PIXELS} pixels together; send several requests"
            )
        expect_work(work_ns, f"{len(encoded)} pictures of {pixels} pixels together")
    return samples
