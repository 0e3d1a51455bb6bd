"""Multipart bodies are taken apart as they arrive, within limits."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.dicomweb import related_parts as multipart
from sagemaker_monai.dicomweb.related_parts import CutOffError, media_type_of, read_parts
from sagemaker_monai.errors import DatasetError


def contents(body, sizes=(10**9,), boundary="b"):
    def chunks():
        left, turn = body, 0
        while left:
            size = sizes[turn % len(sizes)]
            yield left[:size]
            left, turn = left[size:], turn + 1

    return [b"".join(part.content) for part in read_parts(chunks(), boundary)]


# What looks like a boundary and is none may stand in an image: without the line end before it, or cut short.
PARTS = st.lists(st.text("\r\n-ab ", max_size=30).map(str.encode).filter(lambda part: b"\r\n--b" not in b"\r\n" + part))


@given(PARTS, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_parts_are_the_same_however_the_body_is_cut_into_chunks(parts, sizes):
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts) + b"--b--"

    assert contents(body, sizes) == parts


@given(st.binary(max_size=200), st.integers(1, 7))
def test_no_body_does_anything_but_be_read_or_refused(body, size):
    for prefix in (b"", b"--b\r\n", b"--b\r\n\r\n"):
        with suppress(CutOffError, DatasetError):
            contents(prefix + body, [size])


def test_a_body_with_preamble_epilogue_and_padding_is_read():
    assert contents(b"hello\r\n--b \t\r\nX: y\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\nbye\r\n--b\r\n\r\nno") == [
        b"one",
        b"two",
    ]


def test_headers_are_given_in_lower_case():
    [part] = list(read_parts(iter([b"--b\r\nContent-Type: x/y\r\nA:b:c\r\n\r\n\r\n--b--"]), "b"))

    assert part.headers == {"content-type": "x/y", "a": "b:c"}


def test_a_part_that_nobody_reads_is_passed_over():
    parts = read_parts(iter([b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--"]), "b")
    next(parts)

    assert list(next(parts).content) == [b"two"]


@pytest.mark.parametrize("at", range(len(b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--")))
def test_a_body_that_ends_before_its_closing_boundary_is_cut_off(at):
    with pytest.raises(CutOffError):
        contents(b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--"[:at])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"x" * (multipart.MAX_PREAMBLE_BYTES + 5), "before its first part is longer than 65536"),
        (b"--b\r\nA: " + b"x" * (multipart.MAX_HEADER_BYTES + 5), "header of a part is longer than 16384"),
        (b"--b\r\n" + b"A: b\r\n" * multipart.MAX_HEADER_BYTES + b"\r\n", "header of a part is longer than 16384"),
        (b"--bx\r\n\r\none\r\n--b--", "does not end its line"),
        (b"--b\r\nno colon\r\n\r\none\r\n--b--", "no colon"),
    ],
)
def test_a_broken_body_is_refused_with_its_fault(body, message):
    with pytest.raises(DatasetError, match=message):
        contents(body + b"y" * 100, [1000])


@pytest.mark.parametrize("boundary", ["", "x" * 71, "a\r\nb", "ends with ", 'quo"te', "umläut"])
def test_a_boundary_that_the_standard_does_not_allow_is_refused(boundary):
    with pytest.raises(DatasetError, match="boundary"):
        contents(b"", boundary=boundary)


def test_memory_does_not_grow_with_a_part():
    longest = 0

    def chunks():
        yield b"--b\r\n\r\n"
        for _ in range(300):
            yield bytes(1 << 16)
        yield b"\r\n--b--"

    for part in read_parts(chunks(), "b"):
        for piece in part.content:
            longest = max(longest, len(piece))
    assert longest < 1 << 17


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ('multipart/related; type="application/dicom"; boundary=a-b', ("multipart/related", "a-b")),
        ('Multipart/Related;boundary="a b:c";type=x', ("multipart/related", "a b:c")),
        ("application/dicom", ("application/dicom", None)),
        ("multipart/related", ("multipart/related", None)),
        ("", ("text/plain", None)),
        ("multipart/related; boundary=a\r\n b", ("multipart/related", "a b")),
    ],
)
def test_media_type_and_boundary_are_taken_from_the_content_type(content_type, expected):
    assert media_type_of(content_type) == expected
