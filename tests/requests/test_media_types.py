import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.errors import (
    CallerError,
    MalformedRequest,
    PayloadTooLarge,
    UndecodableImage,
    UnsupportedMediaType,
)
from sagemaker_monai.images.pictures import decode
from sagemaker_monai.images.sample import Instances
from sagemaker_monai.images.suffixes import DICOM_SUFFIXES, IMAGE_SUFFIXES, VOLUME_SUFFIXES
from sagemaker_monai.images.volume_files import VOLUME_FORMATS
from sagemaker_monai.requests.media_types import MEDIA_TYPES, parse_content_type, read_request
from tests.support.dicom_bodies import dicom, npy, zip_of
from tests.support.refusals import not_refused

PILLOW_FORMATS = {f"image/{name}": name.upper() for name in ("jpeg", "png", "bmp", "tiff", "webp")}


def picture(content_type, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, PILLOW_FORMATS[content_type])
    return buffer.getvalue()


def tar(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PNG = picture("image/png")
NIFTI = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4)).to_bytes()
NIFTI_GZ = gzip.compress(NIFTI)

# The header of every content type, a sound body, and what the one sample in it holds.
BODIES = {
    **{name: (name, picture(name), picture(name)) for name in PILLOW_FORMATS},
    "application/dicom": ("application/dicom", dicom(), Instances((dicom(),))),
    "application/x-nifti": ("application/x-nifti", NIFTI, NIFTI),
    "application/x-nifti+gzip": ("application/x-nifti+gzip", NIFTI_GZ, NIFTI_GZ),
    "application/x-nrrd": ("application/x-nrrd", b"NRRD0004", b"NRRD0004"),
    "application/x-metaimage": ("application/x-metaimage", b"ObjectType = Image", b"ObjectType = Image"),
    "application/x-npy": ("application/x-npy", npy(np.zeros((3, 20, 12), np.uint8)), None),
    "application/json": (
        "application/json", json.dumps({"instances": [{"image": base64.b64encode(PNG).decode()}]}).encode(), PNG,
    ),
    "multipart/form-data": (
        "multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\n" + PNG + b"\r\n--b--", PNG,
    ),
    "multipart/related": (
        'multipart/related; type="application/dicom"; boundary=b',
        b"--b\r\nContent-Type: application/dicom\r\n\r\n" + dicom() + b"\r\n--b--",
        Instances((dicom(),)),
    ),
    "application/zip": ("application/zip", zip_of(("a.png", PNG)), PNG),
    "application/x-tar": ("application/x-tar", tar("a.png", PNG), PNG),
    "application/gzip": ("application/gzip", gzip.compress(tar("a", dicom())), Instances((dicom(),))),
    "application/x-gzip": ("application/x-gzip", gzip.compress(tar("a.png", PNG)), PNG),
    "application/x-image": ("application/x-image", PNG, PNG),
    "application/octet-stream": ("application/octet-stream", dicom(), Instances((dicom(),))),
}  # fmt: skip


def body_of(content_type):
    """A sound body of every content type, and the header to send it with."""
    header, body, _ = BODIES[content_type]
    return body, header


@pytest.mark.parametrize("content_type", MEDIA_TYPES)
def test_a_sound_body_of_every_type_is_one_sample(content_type):
    [sample] = read_request(*body_of(content_type))

    if content_type == "application/x-npy":
        assert np.array_equal(sample.source, np.zeros((3, 20, 12)))
    else:
        assert sample.source == BODIES[content_type][2]


@pytest.mark.parametrize("content_type", [name for name, (_, _, source) in BODIES.items() if source in (PNG, None)])
def test_pictures_can_be_decoded_whatever_they_were_wrapped_in(content_type):
    [sample] = read_request(*body_of(content_type))

    assert decode(sample, channels=3, min_size=None).size == (20, 12)


@pytest.mark.parametrize("content_type", PILLOW_FORMATS)
@pytest.mark.parametrize("other", PILLOW_FORMATS)
def test_a_picture_must_be_of_the_type_it_is_sent_as(content_type, other):
    [sample] = read_request(picture(other), content_type)

    if other == content_type:
        assert decode(sample, channels=3, min_size=None).mode == "RGB"
    else:
        with pytest.raises(UndecodableImage):
            decode(sample, channels=3, min_size=None)


@pytest.mark.parametrize("generic", ["application/x-image", "application/octet-stream"])
@pytest.mark.parametrize(
    "content_type", [name for name in BODIES if not name.startswith(("multipart/", "application/json"))]
)
def test_of_a_type_that_says_nothing_the_bytes_decide(generic, content_type):
    _, body, source = BODIES[content_type]

    [sample] = read_request(body, generic)

    assert source is None or sample.source == source


def test_what_is_no_image_is_refused_under_a_type_that_says_nothing():
    def decode_all(body):
        for sample in read_request(body, "application/octet-stream"):
            decode(sample, channels=3, min_size=None)

    bodies = [b"no image", b"PK\x03\x04 no zip", b"\x1f\x8b no gzip", b"\x93NUMPY no array"]
    assert not_refused(bodies, decode_all, (MalformedRequest, UndecodableImage)) == []


def test_other_spellings_of_a_type_are_as_binding():
    [sample] = read_request(picture("image/jpeg"), "Image/JPG")
    assert decode(sample, channels=3, min_size=None).size == (20, 12)
    [sample] = read_request(PNG, "image/pjpeg")
    with pytest.raises(UndecodableImage):
        decode(sample, channels=3, min_size=None)


def test_an_empty_body_is_malformed():
    assert (
        not_refused(list(MEDIA_TYPES), lambda name: read_request(b"", body_of(name)[1]), MalformedRequest, "empty")
        == []
    )


def test_the_pixels_of_all_pictures_together_are_limited(monkeypatch):
    monkeypatch.setattr("sagemaker_monai.requests.media_types.MAX_REQUEST_PIXELS", 3 * 12 * 20)

    def request(count):
        image = base64.b64encode(picture("image/png")).decode()
        return json.dumps({"instances": [{"image": image}] * count}).encode()

    assert len(read_request(request(3), "application/json")) == 3
    with pytest.raises(PayloadTooLarge, match="pixels together"):
        read_request(request(4), "application/json")


@given(
    content_type=st.sampled_from(list(MEDIA_TYPES)),
    body=st.binary(max_size=300),
    cut=st.one_of(st.none(), st.integers(0, 400)),
)
@settings(max_examples=200)
def test_any_bytes_under_any_type_are_answered_or_refused(content_type, body, cut):
    sound, header = body_of(content_type)
    try:
        samples = read_request(body if cut is None else sound[:cut] + body, header)
        outcomes = {decode(sample, channels=3, min_size=(8, 8)).mode for sample in samples}
    except CallerError as error:
        outcomes = {error.status}

    assert outcomes
    assert outcomes <= {"RGB", 400, 413, 415, 422}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("image/png", ("image/png", {})),
        ("IMAGE/PNG", ("image/png", {})),
        (" image/png ; ", ("image/png", {})),
        ("image/png;charset=x", ("image/png", {"charset": "x"})),
        ("multipart/form-data; Boundary=aB", ("multipart/form-data", {"boundary": "aB"})),
        ('multipart/form-data; boundary="a b;c"; x=y', ("multipart/form-data", {"boundary": "a b;c", "x": "y"})),
        (r'multipart/form-data; boundary="a\"b"', ("multipart/form-data", {"boundary": 'a"b'})),
        ('application/json; charset=""', ("application/json", {"charset": ""})),
    ],
)
def test_content_types_are_taken_apart(value, expected):
    assert parse_content_type(value) == expected


def test_other_content_types_are_unsupported():
    values = [
        None, "", "png", "image/", "image/gif", "text/plain", "image/png image/jpeg", "image/png, image/jpeg",
        "image/png; charset", "image/png; a=b; A=c", 'image/png; a="b', "image/png; a=b c", "image/png\r\nX: y",
        "image/png;" + "a" * 2_000, "é/é",
    ]  # fmt: skip
    assert not_refused(values, parse_content_type, UnsupportedMediaType, "image/jpeg|parameter") == []


@pytest.mark.long
@given(st.text(max_size=60))
def test_any_content_type_is_parsed_or_unsupported(value):
    try:
        name, _ = parse_content_type(value)
    except UnsupportedMediaType:
        return
    assert name in MEDIA_TYPES


def test_training_takes_the_pictures_and_no_container():
    assert {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"} == IMAGE_SUFFIXES


def test_volumes_and_dicom_files_have_endings_of_their_own():
    assert {suffix for row in VOLUME_FORMATS.values() for suffix in row.suffixes} == VOLUME_SUFFIXES
    assert {".dcm", ".dicom", ".ima", ""} == DICOM_SUFFIXES
    assert not IMAGE_SUFFIXES & VOLUME_SUFFIXES
    assert not (IMAGE_SUFFIXES | VOLUME_SUFFIXES) & DICOM_SUFFIXES


@pytest.mark.parametrize("content_type", ["x-nifti", "x-nifti+gzip", "x-nrrd", "x-metaimage"])
def test_a_volume_must_be_of_the_type_it_is_sent_as(content_type):
    [sample] = read_request(b"anything", f"application/{content_type}")

    assert set(sample.formats) < set(VOLUME_FORMATS)
    assert len(sample.formats) == 1


PHOTOGRAPHS = ["image/jpeg", "image/png", "application/json", "multipart/form-data", "application/zip"]


def test_photographs_are_served_without_a_reader_of_dicom_or_volumes():
    bodies = [body_of(name) for name in PHOTOGRAPHS]
    code = (
        "import sys\nfrom sagemaker_monai.images.pictures import decode\n"
        "from sagemaker_monai.requests.media_types import read_request\n"
        f"for body, header in {bodies!r}:\n"
        "    [decode(sample, channels=3, min_size=None) for sample in read_request(body, header)]\n"
        "print(sorted({'pydicom', 'nibabel', 'gdcm', 'highdicom', 'scipy'} & set(sys.modules)))"
    )

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "[]"
