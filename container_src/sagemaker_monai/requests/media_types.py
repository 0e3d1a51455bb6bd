"""Content types: which bodies are read, by what, and how a body becomes samples. A new input format is a row here.

How one picture is decoded is in `pictures.py`, how volumes and DICOM files are in `read.py`, how a body with several
is taken apart in `bodies.py`, `multipart.py` and `archives.py`.
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
        reader: from a body and the parameters of its content type to the pictures in it, in their order.
    """

    suffixes: tuple[str, ...]
    reader: Reader


def _read_picture(body: bytes, _parameters: Mapping[str, str], *, pillow_format: str) -> list[Sample]:
    return [Sample(body, (pillow_format,))]


def _picture(pillow_format: str) -> MediaType:
    return MediaType(PICTURE_SUFFIXES[pillow_format], partial(_read_picture, pillow_format=pillow_format))


def _read_volume(body: bytes, _parameters: Mapping[str, str], *, volume_format: str) -> list[Sample]:
    return [Sample(body, (volume_format,))]


def _read_dicom(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    if not is_dicom_file(body):
        raise UndecodableImage("not a DICOM file; archives and other images have content types of their own")
    return [Sample(Instances((body,)))]


def _read_anything(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """A body whose type says nothing: an archive, raw values, a DICOM file or one image, as its bytes say."""
    if body.startswith(ZIP_MAGICS):
        return read_zip_body(body, parameters)
    if body.startswith(GZIP_MAGIC):
        return read_gzip_body(body, parameters)
    if body.startswith(NPY_MAGIC):
        return read_npy(body, parameters)
    if is_dicom_file(body):
        return _read_dicom(body, parameters)
    return read_tar_body(body, parameters) if is_tar(body) else [Sample(body)]


# The type of a single picture is binding: a PNG sent as image/jpeg is refused. Inside JSON, multipart and archives the
# bytes decide, whatever the part's own type or the member's name says; so they do in application/gzip, which names
# only the compression, and in the two types at the end, which name nothing.
MEDIA_TYPES: dict[str, MediaType] = {
    "image/jpeg": _picture("JPEG"),
    "image/png": _picture("PNG"),
    "image/bmp": _picture("BMP"),
    "image/tiff": _picture("TIFF"),
    "image/webp": _picture("WEBP"),
    "application/dicom": MediaType((".dcm", ".dicom", ".ima"), _read_dicom),
    "application/x-nifti": MediaType((".nii",), partial(_read_volume, volume_format="NIFTI")),
    "application/x-nifti+gzip": MediaType((".nii.gz",), partial(_read_volume, volume_format="NIFTI")),
    "application/x-nrrd": MediaType((".nrrd",), partial(_read_volume, volume_format="NRRD")),
    "application/x-metaimage": MediaType((".mha",), partial(_read_volume, volume_format="METAIMAGE")),
    content_types.NPY: MediaType((".npy",), read_npy),
    content_types.JSON: MediaType((".json",), read_json),
    "multipart/form-data": MediaType((), read_form),
    "multipart/related": MediaType((), read_related),
    "application/zip": MediaType((".zip",), read_zip_body),
    "application/x-tar": MediaType((".tar",), read_tar_body),
    "application/gzip": MediaType((".tar.gz", ".tgz"), read_gzip_body),
    "application/x-gzip": MediaType((), read_gzip_body),
    "application/x-image": MediaType((), _read_anything),  # SageMaker's built-in algorithms and JumpStart
    content_types.OCTET_STREAM: MediaType((), _read_anything),  # the SageMaker SDK where nobody chose a serializer
}

# Other spellings of a row's name, which are as binding.
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
    """Take a Content-Type apart and check that there is a reader for it.

    Args:
        value: the header, e.g. `multipart/form-data; boundary="a b"`; None when there is none.

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
        At least one sample, in the order of the body (archives: of their members). One of DICOM files may hold several
        images, and so may one of raw values: see `split_arrays`.

    Raises:
        UnsupportedMediaType: no reader for `content_type`.
        MalformedRequest: the body is not what `content_type` promises, or holds no picture.
        UndecodableImage: the body is no DICOM file, which `content_type` says it is.
        PayloadTooLarge: more pictures, archive members, inflated bytes or pixels together than the limits.

        An error of one picture of several begins with `image I: `, I counted from 0.
    """
    name, parameters = parse_content_type(content_type)
    if not body:
        raise MalformedRequest(f"the body is empty; send the {name} data")
    samples = MEDIA_TYPES[name].reader(body, parameters)
    # A picture of one colour compresses to nothing: a small body can be hours of decoding. Headers take 0.1 ms each.
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
