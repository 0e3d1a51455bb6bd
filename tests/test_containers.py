import base64
import io
import json
import stat
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai import containers
from sagemaker_monai.containers import MAX_IMAGES, name_picture, read_json, read_multipart, read_npy, read_zip
from sagemaker_monai.errors import (
    CallerError,
    MalformedRequest,
    PayloadTooLarge,
    UndecodableImage,
    UnsuitableImage,
    UnsupportedMediaType,
)


def sources(samples):
    return [sample.source for sample in samples]


@pytest.mark.parametrize(("total", "text"), [(1, "broken"), (2, "image 1: broken")])
def test_the_picture_is_named_when_there_are_several(total, text):
    with pytest.raises(UndecodableImage) as caught, name_picture(1, total):
        raise UndecodableImage("broken")
    assert str(caught.value) == text


# --- npy


def npy(values, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, **options)
    return buffer.getvalue()


def npy_of(header, content=b"", version=b"\x01\x00"):
    text = header.encode("latin-1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text + content


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i4", ">f8", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_npy_values_come_back_whatever_their_layout(version, dtype, order):
    values = np.asarray(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) % 2, dtype=dtype, order=order)

    first, second = sources(read_npy(npy(values, version=version), {}))

    assert np.array_equal(first, values[0])
    assert np.array_equal(second, values[1])
    assert first.dtype == values.dtype


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (7, 3, 4, 5)])
def test_npy_of_two_to_four_axes_is_one_picture_or_many(shape):
    samples = read_npy(npy(np.zeros(shape, np.uint8)), {})

    assert [source.shape for source in sources(samples)] == [shape[-3:]] * (7 if len(shape) == 4 else 1)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.zeros((1, 1, 1, 2, 2)), UnsuitableImage),
        (np.zeros(3), UnsuitableImage),
        (np.float64(1), UnsuitableImage),
        (np.zeros((0, 3, 4, 4)), MalformedRequest),
        (np.zeros((3, 0, 4)), MalformedRequest),
        (np.zeros((MAX_IMAGES + 1, 1, 1, 1), np.uint8), PayloadTooLarge),
        (np.zeros((3, 4), [("r", "u1"), ("g", "u1")]), UnsuitableImage),
        (np.zeros((3, 4), complex), UnsuitableImage),
        (np.zeros((3, 4), "U3"), UnsuitableImage),
        (np.zeros((3, 4), "M8[s]"), UnsuitableImage),
        (np.zeros((3, 4), "V3"), UnsuitableImage),
    ],
)
def test_npy_of_other_values_is_refused(values, error):
    with pytest.raises(error):
        read_npy(npy(np.asarray(values)), {})


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
    tracemalloc.start()

    with pytest.raises(MalformedRequest):
        read_npy(body, {})

    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


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
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe{\0}\0",
        '{"instances": []}'.encode("utf-16"),
        b'\xef\xbb\xbf{"instances": [{"image": "QQ=="}]}',
        b'{"instances": []}',
        b'{"instances": {}}',
        b'{"instances": [[]]}',
        b'{"instances": ["QQ=="]}',
        b'{"instances": [{}]}',
        b'{"instances": [{"image": null}]}',
        b'{"instances": [{"image": 5}]}',
        b'{"instances": [{"image": {"b64": "QQ=="}}]}',
        b'{"instances": [{"image": "QQ==", "label": 1}]}',
        b'{"instances": [{"image": "QQ=="}], "parameters": {}}',
        b'{"instances": [{"image": "QQ==", "image": "QQ=="}]}',
        b'{"instances": [], "instances": [{"image": "QQ=="}]}',
        b'{"instances": NaN}',
        b'{"instances": [-Infinity]}',
        b'{"instances": ' + b"1" * 10_000 + b"}",
        b"[" * 200_000,
        b'{"instances":' * 100_000,
        b'{"instances": [{"image": "QQ=="}]} trailing',
        b'{"instances": [{"image": "QQ=="}',
    ],
)
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


def test_data_urls_are_refused_by_name():
    with pytest.raises(MalformedRequest, match="data: URLs"):
        read_json(b'{"instances": [{"image": "data:image/png;base64,QQ=="}]}', {})


def test_json_in_another_charset_is_unsupported():
    with pytest.raises(UnsupportedMediaType):
        read_json(request(b"one"), {"charset": "latin-1"})


def test_too_many_json_instances_are_refused():
    with pytest.raises(PayloadTooLarge):
        read_json(request(*[b""] * (MAX_IMAGES + 1)), {})


def test_many_empty_json_values_are_refused_before_they_fill_the_memory():
    body = b'{"instances": [' + b"{}," * 100_000 + b"{}]}"
    tracemalloc.start()

    with pytest.raises(PayloadTooLarge):
        read_json(body, {})

    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_as_many_json_instances_as_are_allowed_are_read():
    assert len(read_json(request(*[b"x"] * MAX_IMAGES), {})) == MAX_IMAGES


# --- multipart

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

    assert sources(read_multipart(form(*pictures, head=head), {"boundary": "xyz"})) == pictures


def test_what_clients_send_around_the_boundaries_is_accepted():
    body = form(b"one").replace(b"--xyz\r\n", b"--xyz \t\r\n").removesuffix(b"\r\n")

    assert sources(read_multipart(body, {"boundary": "xyz"})) == [b"one"]


@pytest.mark.parametrize("boundary", ["", " ", "a" * 71, "a ", 'a"', "a\r\nb", "é", "a;b"])
def test_a_boundary_outside_the_standard_is_refused(boundary):
    with pytest.raises(MalformedRequest, match="boundary"):
        read_multipart(form(b"one"), {"boundary": boundary})


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
        read_multipart(body, {"boundary": "xyz"})


def test_too_many_parts_are_refused():
    with pytest.raises(PayloadTooLarge):
        read_multipart(form(*[b""] * (MAX_IMAGES + 1)), {"boundary": "xyz"})


# --- zip


def archive(*members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            info = zipfile.ZipInfo(name) if isinstance(name, str) else name
            info.compress_type = compression
            file.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_members_come_in_the_archives_order(compression):
    body = archive(("b/2.jpg", b"two"), ("a.jpg", b"one"), ("b/10", b"ten"), compression=compression)

    assert sources(read_zip(body, {})) == [b"two", b"one", b"ten"]


def test_zip_passes_over_folders_and_what_macos_adds():
    body = archive(("b/", b""), ("__MACOSX/b/._1.jpg", b"x"), ("b/.DS_Store", b"x"), ("b/1.jpg", b"one"))

    assert sources(read_zip(body, {})) == [b"one"]


def special(name="a.jpg", mode=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (mode | 0o644) << 16
    return info


def patched(body, offset_in_entry, content):
    """Change the central directory's entry of the first member."""
    start = body.index(b"PK\x01\x02") + offset_in_entry
    return body[:start] + content + body[start + len(content) :]


ONE = archive(("a.jpg", b"one"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"PK\x05\x06",
        ONE[:-5],
        ONE[10:],
        archive(),
        archive(("only/", b"")),
        archive(("../a.jpg", b"one")),
        archive(("a/../../b.jpg", b"one")),
        archive(("/etc/a.jpg", b"one")),
        archive(("C:/a.jpg", b"one")),
        archive(("a\\b.jpg", b"one")),
        archive((special(mode=stat.S_IFLNK), b"/etc/passwd")),
        archive((special(mode=stat.S_IFIFO), b"")),
        archive((special(mode=stat.S_IFBLK), b"")),
        archive(("a.jpg", b"one"), ("b.jpg", b"two")).replace(b"b.jpg", b"a.jpg"),
        archive(("a.jpg", b"one"), compression=zipfile.ZIP_BZIP2),
        archive(("a.jpg", b"one"), compression=zipfile.ZIP_LZMA),
        archive(("a.jpg", ONE)),
        archive(("a.jpg", b"\x1f\x8b\x08" + bytes(20))),
        patched(ONE, 8, b"\x01\x00"),  # encrypted
        patched(ONE, 8, b"\x20\x00"),  # patched data
        patched(ONE, 10, b"\x63\x00"),  # compression method 99
        patched(ONE, 16, b"\0\0\0\0"),  # CRC
        patched(ONE, 20, b"\x02\0\0\0"),  # compressed size
        patched(ONE, 24, b"\xff\xff\xff\x7f"),  # size: more is claimed than is there
        patched(ONE, 24, b"\x01\0\0\0"),  # less
        patched(ONE, 24, b"\xff\xff\xff\xff"),  # zip64 without its extra field
        patched(ONE, 42, b"\xff\xff\x00\x00"),  # place of the member
        patched(ONE, 46, b"\0.jpg"),
    ],
)
def test_other_zip_is_malformed(body):
    with pytest.raises(MalformedRequest):
        read_zip(body, {})


def test_a_zip_bomb_is_stopped_while_it_inflates():
    body = archive(("a.bmp", bytes(40_000_000)))
    tracemalloc.start()

    with pytest.raises(PayloadTooLarge, match="inflates"):
        read_zip(body, {})

    assert tracemalloc.get_traced_memory()[1] < 25_000_000
    tracemalloc.stop()


def test_a_bomb_of_many_members_is_stopped_too():
    with pytest.raises(PayloadTooLarge, match="inflates"):
        read_zip(archive(*[(f"{index}.bmp", bytes(1024**2)) for index in range(40)]), {})


def test_pictures_that_compress_well_but_are_small_pass():
    assert len(read_zip(archive(("a.bmp", bytes(10_000_000))), {})) == 1


def test_too_many_zip_members_are_refused(monkeypatch):
    monkeypatch.setattr(containers, "MAX_IMAGES", 3)

    def members(count, folder=""):
        return [(f"{folder}{index}", b"one") for index in range(count)]

    assert len(read_zip(archive(*members(3)), {})) == 3
    with pytest.raises(PayloadTooLarge, match="4 members"):
        read_zip(archive(*members(4)), {})
    with pytest.raises(PayloadTooLarge, match="directory"):
        read_zip(archive(*members(3_000, "__MACOSX/")), {})


READERS = {
    read_npy: [npy(np.zeros((2, 3, 4), np.uint8)), npy(np.zeros((2, 1, 3, 4), ">f4", order="F"))],
    read_json: [request(b"one", b"two")],
    read_multipart: [form(b"one", b"two")],
    read_zip: [archive(("a.jpg", b"one"), ("b/c.jpg", b"two" * 99)), ONE],
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
        samples = reader(bytes(body), {"boundary": "xyz"})
    except CallerError as error:
        samples, refusal = [], str(error)
    else:
        refusal = ""
    assert samples or 0 < len(refusal) < 300
