import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.containers import MAX_IMAGES, MAX_INSTANCES
from sagemaker_monai.errors import CallerError, MalformedRequest, PayloadTooLarge
from sagemaker_monai.multipart import read_form, read_related
from sagemaker_monai.samples import Instances
from tests.dicom_bodies import DICOMDIR, PREAMBLE_LESS, dicom


def sources(samples):
    return [sample.source for sample in samples]


FORM = b'Content-Disposition: form-data; name="image"; filename="a.jpg"'


def form(*parts, head=FORM, boundary=b"xyz"):
    body = b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + part + b"\r\n" for part in parts)
    return body + b"--" + boundary + b"--\r\n"


@pytest.mark.parametrize(
    "head",
    [
        FORM,
        FORM + b"\r\nContent-Type: application/octet-stream",
        b"content-disposition:form-data;name=x\r\nContent-Transfer-Encoding: Binary",
        b"Content-Type: text/html\r\nContent-Disposition: form-data",
    ],
)
def test_every_part_is_a_picture_byte_by_byte(head):
    pictures = [b"one", b"", b"\r\n\r\n--xy\r\n--\r", bytes(range(256))]

    assert sources(read_form(form(*pictures, head=head), {"boundary": "xyz"})) == pictures


def test_what_clients_send_around_the_boundaries_is_accepted():
    body = form(b"one").replace(b"--xyz\r\n", b"--xyz \t\r\n").removesuffix(b"\r\n")

    assert sources(read_form(body, {"boundary": "xyz"})) == [b"one"]


@pytest.mark.parametrize("boundary", ["", " ", "a" * 71, "a ", 'a"', "a\r\nb", "é", "a;b"])
def test_a_boundary_outside_the_standard_is_refused(boundary):
    with pytest.raises(MalformedRequest, match="boundary"):
        read_form(form(b"one"), {"boundary": boundary})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--xyz--",
        b"--xyz",
        b"hello",
        form(b"one", boundary=b"other"),
        b"preamble\r\n" + form(b"one"),
        form(b"one") + b"epilogue",
        form(b"one") + form(b"two"),
        form(b"one").removesuffix(b"--\r\n"),
        form(b"one").replace(b"\r\n", b"\n"),
        form(b"one", head=b"X: y"),
        form(b"one", head=b""),
        form(b"one", head=b"Content-Disposition: attachment"),
        form(b"one", head=FORM + b"\r\n" + FORM),
        form(b"one", head=FORM + b"\r\n folded"),
        form(b"one", head=FORM + b"\r\nno colon"),
        form(b"one", head=FORM + b"\r\nContent-Transfer-Encoding: base64"),
        form(b"one", head=FORM + b"\r\nContent-Transfer-Encoding: quoted-printable"),
        form(b"one", head=FORM + b"\r\nX: " + b"y" * 10_000),
        form(b"one\r\n--xyzzy\r\ntwo"),
        b"--xyz\r\n" + FORM + b"\r\none\r\n--xyz--\r\n",
    ],
)
def test_other_multipart_is_malformed(body):
    with pytest.raises(MalformedRequest):
        read_form(body, {"boundary": "xyz"})


def test_too_many_parts_are_refused():
    with pytest.raises(PayloadTooLarge):
        read_form(form(*[b""] * (MAX_IMAGES + 1)), {"boundary": "xyz"})


def test_the_dicom_parts_of_a_form_are_one_sample():
    files = (dicom(2), dicom(1), PREAMBLE_LESS)

    assert sources(read_form(form(*files), {"boundary": "xyz"})) == [Instances(files)]


def test_a_form_of_dicom_files_and_pictures_is_refused():
    with pytest.raises(MalformedRequest, match=r"image 1: .*send them apart"):
        read_form(form(dicom(1), b"picture"), {"boundary": "xyz"})


# --- DICOMweb

TYPE = {"boundary": "xyz", "type": "application/dicom"}
DICOM_HEAD = b"Content-Type: application/dicom"


@pytest.mark.parametrize(
    "head",
    [
        DICOM_HEAD,
        b"content-type:Application/DICOM; transfer-syntax=1.2.840.10008.1.2.1",
        DICOM_HEAD + b"\r\nMIME-Version: 1.0\r\nContent-Location: /studies/1.2.3",
    ],
)
def test_all_parts_of_dicomweb_are_one_sample(head):
    files = (dicom(2), dicom(1), PREAMBLE_LESS)

    assert sources(read_related(form(*files, head=head), TYPE)) == [Instances(files)]


def test_what_dicomweb_client_sends_is_read():
    from dicomweb_client.web import DICOMwebClient

    files = [dicom(number) for number in range(3)]
    content_type = 'multipart/related; type="application/dicom"; boundary="0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"'
    body = DICOMwebClient._encode_multipart_message(files, content_type)

    parameters = {"type": "application/dicom", "boundary": "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"}
    assert sources(read_related(body, parameters)) == [Instances(tuple(files))]


@pytest.mark.parametrize("kind", [None, "", "application/dicom+json", "image/jpeg", "application/octet-stream"])
def test_related_parts_of_another_type_are_refused(kind):
    parameters = {"boundary": "xyz"} | ({} if kind is None else {"type": kind})
    with pytest.raises(MalformedRequest, match="application/dicom"):
        read_related(form(dicom(), head=DICOM_HEAD), parameters)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        form(dicom(), head=b"Content-Type: image/jpeg"),
        form(dicom(), head=b"X: y"),
        form(dicom(), head=FORM),
        form(b"picture", head=DICOM_HEAD),
        form(dicom(), b"", head=DICOM_HEAD),
        form(DICOMDIR, head=DICOM_HEAD),
        form(dicom(), head=DICOM_HEAD + b"\r\nContent-Length: 7"),
        form(dicom(), head=DICOM_HEAD + b"\r\nContent-Transfer-Encoding: base64"),
        b"preamble" + form(dicom(), head=DICOM_HEAD),
        b"\r\n\r\n" + form(dicom(), head=DICOM_HEAD),
    ],
)
def test_other_related_parts_are_malformed(body):
    with pytest.raises(MalformedRequest):
        read_related(body, TYPE)


def test_a_series_has_more_files_than_a_request_may_have_pictures():
    file = dicom()

    [series] = sources(read_related(form(*[file] * (MAX_IMAGES + 1), head=DICOM_HEAD), TYPE))
    assert len(series.files) == MAX_IMAGES + 1
    with pytest.raises(PayloadTooLarge):
        read_related(form(*[file] * (MAX_INSTANCES + 1), head=DICOM_HEAD), TYPE)


@given(data=st.data())
@settings(max_examples=200)
def test_any_parts_give_samples_or_a_callers_error(data):
    reader, sound = data.draw(
        st.sampled_from([(read_form, form(b"one", b"two")), (read_related, form(dicom(), head=DICOM_HEAD))])
    )
    body = bytearray(sound)
    for _ in range(data.draw(st.integers(0, 6))):
        start = data.draw(st.integers(0, len(body)))
        body[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        samples, refusal = reader(bytes(body), TYPE), ""
    except CallerError as error:
        samples, refusal = [], str(error)
    assert samples or 0 < len(refusal) < 300
