import io
import random
import stat
import struct
import zipfile

import pytest

from sagemaker_monai.storage.zips import (
    ArchiveLimits,
    ArchiveTooLargeError,
    UnsafeArchiveError,
    copy_member,
    member_names,
    read_members,
)
from tests.support.refusals import not_refused, wrongly_refused

LIMITS = ArchiveLimits(members=10, member_bytes=4_000_000, total_bytes=6_000_000, ratio=50)
NOISE = random.Random(0).randbytes(3_000_000)  # deflate cannot shrink it


def packed(*members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member in members:
            archive.writestr(*member)
    return buffer.getvalue()


def entry(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def read(data, limits=LIMITS):
    return list(read_members(io.BytesIO(data), limits=limits))


def renamed(data, old, new):
    """Change a name in both of its places behind zipfile's back."""
    assert len(old) == len(new)
    assert data.count(old) == 2
    return data.replace(old, new)


def test_members_come_in_the_archives_order_without_folders_and_litter():
    data = packed(("b/2.jpg", b"two"), ("b/", b""), ("__MACOSX/b/._2.jpg", b"x"), ("b/.DS_Store", b"x"), ("a.jpg", b""))

    assert read(data) == [("b/2.jpg", b"two"), ("a.jpg", b"")]
    assert member_names(io.BytesIO(data), limits=LIMITS) == ["b/2.jpg", "a.jpg"]


def test_a_path_is_read_as_an_open_file_is(tmp_path):
    (tmp_path / "a.zip").write_bytes(packed(("a", b"1")))

    assert list(read_members(tmp_path / "a.zip", limits=LIMITS)) == [("a", b"1")]


def test_only_wanted_members_are_inflated_and_counted():
    data = packed(("small", b"1"), ("large", NOISE))
    tight = ArchiveLimits(members=2, member_bytes=1, total_bytes=1, ratio=50)

    assert list(read_members(io.BytesIO(data), limits=tight, wanted=lambda name: name == "small")) == [("small", b"1")]


def test_one_member_is_copied_into_a_file():
    target = io.BytesIO()
    copy_member(io.BytesIO(packed(("a", b"1"), ("b", NOISE))), "b", target, limits=LIMITS)

    assert target.getvalue() == NOISE


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "/a.jpg", "C:/a.jpg", "a\\..\\..\\b.jpg", "..", "a\nb.jpg", "a\x1bb.jpg"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused_before_anything_is_read(name):
    data = packed(("good.jpg", b"1"), (name, b"2"))

    with pytest.raises(UnsafeArchiveError, match="member 2 of the archive") as caught:
        next(read_members(io.BytesIO(data), limits=LIMITS))
    assert caught.value.member == name
    assert name not in str(caught.value)


def test_members_that_no_archive_should_have_are_refused():
    kinds = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK)
    encrypted = bytearray(packed(("a.jpg", b"1")))
    encrypted[6] |= 1  # general purpose flag of the local header
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    rows = [
        (renamed(packed(("aXjpg", b"1")), b"aXjpg", b"a\0jpg"), "no usable name"),
        *((packed((entry("a.jpg", kind | 0o777), b"/etc/passwd")), "a link or a device") for kind in kinds),
        (bytes(encrypted), "encrypted"),
        (renamed(packed(("a.jpg", b"1"), ("b.jpg", b"2")), b"b.jpg", b"a.jpg"), "twice"),
        # Methods whose inflation cannot be bounded.
        (packed(("a.jpg", b"1"), compression=zipfile.ZIP_BZIP2), "unusual method"),
        (packed(("a.jpg", b"1"), compression=zipfile.ZIP_LZMA), "unusual method"),
    ]
    assert wrongly_refused(rows, read, UnsafeArchiveError) == []


def test_a_bomb_is_stopped_by_its_ratio_and_a_small_blank_file_is_not():
    with pytest.raises(ArchiveTooLargeError, match="zip bomb"):
        read(packed(("bomb", bytes(3_000_000))))
    assert read(packed(("blank", bytes(500_000)))) == [("blank", bytes(500_000))]


def test_bytes_are_counted_over_all_members():
    within = packed(("a", NOISE), ("b", NOISE))
    beyond = packed(("a", NOISE), ("b", NOISE), ("c", b"1"))

    assert sum(len(content) for _, content in read(within)) == LIMITS.total_bytes
    with pytest.raises(ArchiveTooLargeError, match="inflates to more"):
        read(beyond)


def test_limits_of_one_member_and_of_their_number_are_kept():
    with pytest.raises(ArchiveTooLargeError, match="inflates to more than 10 bytes"):
        read(packed(("a", b"x" * 11)), ArchiveLimits(1, 10, 100, 50))
    with pytest.raises(ArchiveTooLargeError, match="has 11 members, at most 10"):
        read(packed(*((str(index), b"") for index in range(11))))


def test_a_directory_of_a_million_entries_is_refused_before_it_is_parsed():
    data = packed(("a", b""))
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = 60_000
    directory = data[start:end] * count
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)

    with pytest.raises(ArchiveTooLargeError, match="directory is larger"):
        read(data[:start] + directory + tail)


def test_what_is_damaged_or_no_archive_is_refused():
    others = [b"", b"PK", b"PK\x05\x06" + b"\xff" * 18, b"\xff\xd8\xff\xe0 JPEG", NOISE[:5000]]
    assert not_refused(others, read, UnsafeArchiveError, "damaged or not a zip") == []

    data = bytearray(packed(("a", NOISE[:1000]), compression=zipfile.ZIP_STORED))
    data[500] ^= 1
    lie = packed(("a", NOISE), compression=zipfile.ZIP_STORED).replace(
        struct.pack("<I", len(NOISE)), struct.pack("<I", 10)
    )  # about its size
    assert wrongly_refused([(bytes(data), "damaged"), (lie, "")], read, UnsafeArchiveError) == []


def test_random_damage_never_raises_anything_else():
    whole = packed(("a/b.jpg", NOISE[:300]), ("c.jpg", b"text " * 100), ("d.jpg", b""))
    generator = random.Random(1)
    outcomes = set()
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(generator.choice([1, 1, 2, 5])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        try:
            outcomes.add(len(read(bytes(data))))
        except UnsafeArchiveError:
            outcomes.add("refused")
    assert {"refused", 3} <= outcomes
