import gzip
import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.storage.tars import CHUNK_BYTES, archive_end, member_header, padding, read_tar
from sagemaker_monai.storage.zips import ArchiveTooLargeError, UnsafeArchiveError
from tests.support.refusals import not_refused, wrongly_refused

LONG = "images/" + "ä" * 60 + "/" + "x" * 150 + ".png"


def written(files):
    content = b"".join(member_header(name, len(body)) + body + padding(len(body)) for name, body in files.items())
    return content + archive_end(len(content))


def packed(*members):
    """An archive as the standard library writes it; a member is a TarInfo and its content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return stream.getvalue()


def member(name="a.png", **attributes):
    info = tarfile.TarInfo(name)
    vars_of = {"type": tarfile.REGTYPE, **attributes}
    for key, value in vars_of.items():
        setattr(info, key, value)
    return info


def read(content, *, max_files=10, max_bytes=1 << 20):
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    return {name: b"".join(chunks) for name, chunks in read_tar(stream, max_files=max_files, max_bytes=max_bytes)}


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\\/\0", exclude_categories=["C"]), min_size=1).filter(
            lambda name: name not in (".", "..")
        ),
        st.binary(max_size=2000),
        max_size=6,
    )
)
def test_what_is_written_is_read_again_by_us_and_by_the_standard_library(files):
    content = written(files)

    assert read(content) == files
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert {info.name: tar.extractfile(info).read() for info in tar} == files


def test_a_member_is_of_nobody_and_no_time_and_the_archive_has_whole_records():
    content = written({"images/1.png": b"x", LONG: b"y"})

    assert len(content) % 10_240 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        first, second = tar.getmembers()
    assert (first.mtime, first.uid, first.gid, first.uname, first.gname, first.mode) == (0, 0, 0, "", "", 0o644)
    assert second.name == LONG


def test_an_archive_of_common_tools_is_read_with_its_folders_and_dots():
    content = packed(
        (member("./", type=tarfile.DIRTYPE), b""),
        (member("./configs", type=tarfile.DIRTYPE), b""),
        (member("./configs/a.json"), b"{}"),
    )

    assert read(content) == {"configs/a.json": b"{}"}


def test_a_stream_that_cannot_seek_and_gives_little_at_a_time_is_enough():
    class Slow:
        def __init__(self, content):
            self._content = io.BytesIO(content)

        def read(self, size):
            return self._content.read(min(size, 100))

    assert read(Slow(written({"a": b"x" * 5000, "b": b"y"}))) == {"a": b"x" * 5000, "b": b"y"}


def test_a_file_that_is_not_used_is_passed_over():
    stream = read_tar(io.BytesIO(written({"a": b"x" * 5000, "b": b"y"})), max_files=9, max_bytes=9999)

    assert [name for name, _ in stream] == ["a", "b"]


def test_odd_members_are_refused():
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1048576"}
    sparse = (member("a", pax_headers=headers), b"1\n0\n1\n".ljust(512, b"\0") + b"x")
    rows = [
        ([(member("/etc/passwd"), b"")], "outside the folder"),
        ([(member("images/../../x"), b"")], "outside the folder"),
        ([(member("a\\..\\..\\b"), b"")], "outside the folder"),
        ([(member("a\nb"), b"")], "no usable name"),
        ([(member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")], "link, a device"),
        ([(member(type=tarfile.LNKTYPE, linkname="b"), b"")], "link, a device"),
        ([(member(type=tarfile.FIFOTYPE), b"")], "link, a device"),
        ([(member(type=tarfile.CHRTYPE), b"")], "link, a device"),
        ([(member("a/b"), b"1"), (member("./a//b"), b"2")], "twice"),
        ([sparse], "sparse"),
    ]
    good = (member("good.png"), b"x")
    assert wrongly_refused(rows, lambda members: read(packed(good, *members)), UnsafeArchiveError) == []


def test_limits_are_kept():
    content = written({"a": b"x" * 600, "b": b"x" * 600})

    assert len(read(content, max_files=2, max_bytes=1200)) == 2
    with pytest.raises(ArchiveTooLargeError, match="more than 1 members"):
        read(content, max_files=1)
    with pytest.raises(ArchiveTooLargeError, match="more than 1199 bytes"):
        read(content, max_bytes=1199)


def test_a_header_that_claims_to_be_huge_is_refused_before_it_is_read():
    class Endless:
        """Zeros after one header."""

        def __init__(self, head):
            self._head, self.given = head, 0

        def read(self, size):
            content, self._head = self._head[:size], self._head[size:]
            self.given += size
            return content.ljust(size, b"\0")

    info = member("pax", type=tarfile.XHDTYPE)
    info.size = 1 << 32
    stream = Endless(info.tobuf(tarfile.USTAR_FORMAT))

    with pytest.raises(ArchiveTooLargeError, match="header"):
        read(stream)
    assert stream.given < 2 * CHUNK_BYTES


def test_what_is_no_tar_file_or_ends_too_early_is_refused():
    others = [b"", b"x" * 3000, b"PK\x03\x04" * 300]
    assert not_refused(others, read, UnsafeArchiveError, "damaged or not a tar file") == []
    content = written({"a": b"x" * 5000})
    with gzip.open(io.BytesIO(gzip.compress(content)[:-20])) as stream:
        assert not_refused([content[:3000], stream], read, UnsafeArchiveError) == []


@settings(max_examples=50)
@given(st.data())
def test_whatever_bytes_are_changed_reading_gives_files_or_the_one_error(data):
    content = bytearray(written({"images/a": b"x" * 700, LONG: b"y" * 10}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    with suppress(UnsafeArchiveError):
        assert set(map(type, read(bytes(content)).values())) <= {bytes}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("count", [9, 3_000])
def test_a_member_of_many_headers_is_refused_without_recursion(kind, count):
    more = tarfile.TarInfo("long")
    more.size, more.type = 12, kind
    content = (b"12 path=a.pn" if kind in b"LK" else b"12 path=abc\n").ljust(512, b"\0")
    member = tarfile.TarInfo("a.png")
    member.size = 3
    data = (more.tobuf(tarfile.GNU_FORMAT) + content) * count + member.tobuf() + bytes(512) + bytes(1024)

    with pytest.raises(UnsafeArchiveError, match="headers"):
        list(read_tar(io.BytesIO(data), max_files=10, max_bytes=1_000))


def test_headers_of_a_tar_are_bounded_together():
    info = tarfile.TarInfo("member")
    info.pax_headers = {f"k{index}": "x" * 70_000 for index in range(9)}
    headers, own = info.tobuf(tarfile.PAX_FORMAT)[:-512], tarfile.TarInfo
    data = b"".join(headers + own(str(number)).tobuf(tarfile.USTAR_FORMAT) for number in range(9))

    with pytest.raises(ArchiveTooLargeError, match="headers"):
        list(read_tar(io.BytesIO(data + bytes(1024)), max_files=10, max_bytes=1_000))
