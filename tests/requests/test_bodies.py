import base64
import json
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.errors import (
    CallerError,
    MalformedRequest,
    PayloadTooLarge,
    UndecodableImage,
    UnsuitableImage,
    UnsupportedMediaType,
)
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.images.several import name_picture, split_arrays
from sagemaker_monai.requests.bodies import MAX_IMAGES, read_json, read_npy
from tests.support.dicom_bodies import PREAMBLE_LESS, dicom, npy, sources
from tests.support.refusals import allocating_less_than, not_refused, wrongly_refused


@pytest.mark.parametrize(("total", "text"), [(1, "broken"), (2, "image 1: broken")])
def test_the_picture_is_named_when_there_are_several(total, text):
    with pytest.raises(UndecodableImage) as caught, name_picture(1, total):
        raise UndecodableImage("broken")
    assert str(caught.value) == text


# --- npy


def npy_of(header, content=b"", version=b"\x01\x00"):
    text = header.encode("latin-1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text + content


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i4", ">f8", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_npy_values_come_back_whatever_their_layout(version, dtype, order):
    values = np.asarray(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) % 2, dtype=dtype, order=order)

    first, second = sources(split_arrays(read_npy(npy(values, version=version), {}), spatial_dims=2))

    assert np.array_equal(first, values[0])
    assert np.array_equal(second, values[1])
    assert first.dtype == values.dtype


@pytest.mark.parametrize(
    ("spatial_dims", "shape", "images"),
    [
        (2, (4, 5), [(4, 5)]),
        (2, (3, 4, 5), [(3, 4, 5)]),
        (2, (7, 3, 4, 5), [(3, 4, 5)] * 7),
        (3, (4, 5, 6), [(4, 5, 6)]),
        (3, (3, 4, 5, 6), [(3, 4, 5, 6)]),
        (3, (7, 3, 4, 5, 6), [(3, 4, 5, 6)] * 7),
    ],
)
def test_what_the_axes_of_raw_values_are_depends_on_the_model(spatial_dims, shape, images):
    samples = split_arrays(read_npy(npy(np.zeros(shape, np.uint8)), {}), spatial_dims=spatial_dims)

    assert [source.shape for source in sources(samples)] == images


@pytest.mark.parametrize(("spatial_dims", "shape"), [(2, (1, 1, 1, 2, 2)), (3, (2, 2))])
def test_raw_values_of_the_other_kind_of_model_are_unsuitable(spatial_dims, shape):
    with pytest.raises(UnsuitableImage, match=f"for a model of {spatial_dims}-D images"):
        split_arrays(read_npy(npy(np.zeros(shape)), {}), spatial_dims=spatial_dims)


def test_other_samples_than_raw_values_are_not_split():
    samples = [Sample(b"picture"), Sample(Instances((b"dicom",)))]

    assert split_arrays(samples, spatial_dims=3) == samples


def test_npy_of_other_values_is_refused():
    refused = {
        UnsuitableImage: [np.zeros((1, 1, 1, 1, 2, 2)), np.zeros(3), np.float64(1)]
        + [np.zeros((3, 4), dtype) for dtype in ([("r", "u1"), ("g", "u1")], complex, "U3", "M8[s]", "V3")],
        MalformedRequest: [np.zeros((0, 3, 4, 4)), np.zeros((3, 0, 4))],
        PayloadTooLarge: [np.zeros((MAX_IMAGES + 1, 1, 1, 1), np.uint8)],
    }
    for error, cases in refused.items():
        assert not_refused(cases, lambda values: read_npy(npy(np.asarray(values)), {}), error) == []


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_npy_never_unpickles():
    body = npy(np.array([[Bomb()]], dtype=object), allow_pickle=True)

    with pytest.raises(UnsuitableImage, match="objects"):
        read_npy(body, {})


@pytest.mark.parametrize("shape", ["(999999999, 999999999)", "(999, 3, 99999, 99999)", "(99999999999999999999, 2)"])
def test_npy_with_a_huge_claim_allocates_nothing(shape):
    body = npy_of(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n", bytes(64))
    with allocating_less_than(1_000_000), pytest.raises(MalformedRequest):
        read_npy(body, {})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x04\x00",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x80\x04\x95" + bytes(50),  # a pickle
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }", b"123"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }", b"12345"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), 'x': 1}", b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': False}", b"1234"),
        npy_of("{'descr': '|u1', 'descr': '|u1', 'shape': (2, 2)}", b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 2)}", b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (2, -2)}", b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': '(2, 2)'}", b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (,)}", b"1234"),
        npy_of("__import__('os').getcwd()", b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2)}" + " " * 2000, b"1234"),
        npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (2" + " " * 900 + "x)}", b"1234", b"\x02\x00"),
    ],
)
def test_malformed_npy_is_refused_at_once(body):
    started = time.perf_counter()
    with pytest.raises(MalformedRequest):
        read_npy(body, {})
    assert time.perf_counter() - started < 1


# --- JSON


def request(*images):
    return json.dumps({"instances": [{"image": base64.b64encode(image).decode()} for image in images]}).encode()


def test_json_gives_the_bytes_in_order():
    assert sources(read_json(request(b"one", b"two", b""), {"charset": "UTF-8"})) == [b"one", b"two", b""]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"\xff\xfe{\0}\0", '{"instances": []}'.encode("utf-16"), b'{"instances": []}',
        b'{"instances": {}}', b'{"instances": [[]]}', b'{"instances": ["QQ=="]}', b'{"instances": [{}]}',
        b'{"instances": [{"image": null}]}', b'{"instances": [{"image": 5}]}',
        b'{"instances": [{"image": {"b64": "QQ=="}}]}', b'{"instances": [{"image": "QQ==", "label": 1}]}',
        b'{"instances": [{"image": "QQ=="}], "parameters": {}}', b'{"instances": [{"image": "QQ==", "image": "QQ=="}]}',
        b'{"instances": [], "instances": [{"image": "QQ=="}]}', b'{"instances": NaN}', b'{"instances": [-Infinity]}',
        b'{"instances": ' + b"1" * 10_000 + b"}", b"[" * 200_000, b'{"instances":' * 100_000,
        b'{"instances": [{"image": "QQ=="}]} trailing', b'{"instances": [{"image": "QQ=="}',
    ],
)  # fmt: skip
def test_other_json_is_malformed(body):
    with pytest.raises(MalformedRequest):
        read_json(body, {})


@pytest.mark.parametrize(
    "text",
    ["QQ", "Q", "QQ= =", "QQ==\n", " QQ==", "Q-Q_", "Q\u00e9==", "\ud800", "https://example.org/a.jpg", "QQ==QQ=="],
)
def test_base64_is_strict(text):
    with pytest.raises(MalformedRequest, match=r"image 1: .*base64"):
        read_json(json.dumps({"instances": [{"image": "QQ=="}, {"image": text}]}).encode(), {})


def test_other_values_in_json_are_refused_by_name():
    rows = [
        (b'{"instances": [{"image": "data:image/png;base64,QQ=="}]}', "data: URLs"),
        (request(b"PK\x03\x04" + bytes(20)), "archive inside"),
        (request(b"\x1f\x8b\x08" + bytes(20)), "archive inside"),
    ]
    assert wrongly_refused(rows, lambda body: read_json(body, {}), MalformedRequest) == []
    with pytest.raises(UnsupportedMediaType):
        read_json(request(b"one"), {"charset": "latin-1"})


def test_json_instances_are_limited_in_number():
    assert len(read_json(request(*[b"x"] * MAX_IMAGES), {})) == MAX_IMAGES
    with pytest.raises(PayloadTooLarge):
        read_json(request(*[b""] * (MAX_IMAGES + 1)), {})


def test_many_empty_json_values_are_refused_before_they_fill_the_memory():
    body = b'{"instances": [' + b"{}," * 100_000 + b"{}]}"
    with allocating_less_than(1_000_000), pytest.raises(PayloadTooLarge):
        read_json(body, {})


def test_each_dicom_file_in_json_is_an_image_by_itself():
    first, second = dicom(1), PREAMBLE_LESS

    samples = read_json(request(first, b"picture", second), {})

    assert sources(samples) == [Instances((first,)), b"picture", Instances((second,))]


def test_raw_values_in_json_are_those_of_their_npy_file():
    values = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)

    [source] = sources(read_json(request(npy(values)), {}))

    assert np.array_equal(source, values)


def test_references_to_objects_are_refused_where_nobody_resolved_them():
    with pytest.raises(CallerError, match="ALLOWED_S3_PREFIXES") as caught:
        read_json(b'{"objects": [{"bucket": "b", "key": "k"}]}', {})
    assert (caught.value.code, caught.value.status) == ("ReferenceNotAllowed", 403)


READERS = {
    read_npy: [npy(np.zeros((2, 3, 4), np.uint8)), npy(np.zeros((2, 1, 3, 4), ">f4", order="F"))],
    read_json: [request(b"one", b"two")],
}


@given(data=st.data())
@settings(max_examples=400)
def test_any_bytes_give_pictures_or_a_callers_error(data):
    reader = data.draw(st.sampled_from(list(READERS)))
    body = bytearray(data.draw(st.sampled_from(READERS[reader])))
    for _ in range(data.draw(st.integers(0, 6))):
        start = data.draw(st.integers(0, len(body)))
        body[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        samples = reader(bytes(body), {})
    except CallerError as error:
        samples, refusal = [], str(error)
    else:
        refusal = ""
    assert samples or 0 < len(refusal) < 300
