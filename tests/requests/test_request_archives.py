import gzip
import io
import stat
import tarfile
import zipfile

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.errors import CallerError, MalformedRequest, PayloadTooLarge
from sagemaker_monai.images.sample import Instances
from sagemaker_monai.requests import archives as heaps
from sagemaker_monai.requests import bodies as containers
from sagemaker_monai.requests.archives import read_gzip_body, read_tar_body, read_zip_body
from tests.support.dicom_bodies import DICOMDIR, PREAMBLE_LESS, dicom, npy, sources, zip_of
from tests.support.refusals import allocating_less_than, not_refused


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_members_come_in_the_archives_order(compression):
    body = zip_of(("b/2.jpg", b"two"), ("a.jpg", b"one"), ("b/10", b"ten"), compression=compression)

    assert sources(read_zip_body(body, {})) == [b"two", b"one", b"ten"]


def test_zip_passes_over_folders_and_what_macos_adds():
    body = zip_of(("b/", b""), ("__MACOSX/b/._1.jpg", b"x"), ("b/.DS_Store", b"x"), ("b/1.jpg", b"one"))

    assert sources(read_zip_body(body, {})) == [b"one"]


def special(name="a.jpg", mode=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (mode | 0o644) << 16
    return info


def patched(body, offset_in_entry, content):
    """Change the central directory's entry of the first member."""
    start = body.index(b"PK\x01\x02") + offset_in_entry
    return body[:start] + content + body[start + len(content) :]


ONE = zip_of(("a.jpg", b"one"))


OTHER_ZIPS = [
    b"",
    b"hello",
    b"PK\x05\x06",
    ONE[:-5],
    ONE[10:],
    zip_of(),
    zip_of(("only/", b"")),
    zip_of(("../a.jpg", b"one")),
    zip_of(("a/../../b.jpg", b"one")),
    zip_of(("/etc/a.jpg", b"one")),
    zip_of(("C:/a.jpg", b"one")),
    zip_of(("a\\..\\..\\b.jpg", b"one")),
    zip_of((special(mode=stat.S_IFLNK), b"/etc/passwd")),
    zip_of((special(mode=stat.S_IFIFO), b"")),
    zip_of((special(mode=stat.S_IFBLK), b"")),
    zip_of(("a.jpg", b"one"), ("b.jpg", b"two")).replace(b"b.jpg", b"a.jpg"),
    zip_of(("a.jpg", b"one"), compression=zipfile.ZIP_BZIP2),
    zip_of(("a.jpg", b"one"), compression=zipfile.ZIP_LZMA),
    zip_of(("a.jpg", ONE)),
    zip_of(("a.jpg", b"\x1f\x8b\x08" + bytes(20))),
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
]


def test_other_zip_is_malformed():
    assert not_refused(OTHER_ZIPS, lambda body: read_zip_body(body, {}), MalformedRequest) == []


def test_a_zip_bomb_is_stopped_while_it_inflates_and_a_small_blank_picture_passes():
    body = zip_of(("a.bmp", bytes(40_000_000)))
    with allocating_less_than(25_000_000), pytest.raises(PayloadTooLarge, match="inflates"):
        read_zip_body(body, {})
    with pytest.raises(PayloadTooLarge, match="inflates"):
        read_zip_body(zip_of(*[(f"{index}.bmp", bytes(1024**2)) for index in range(40)]), {})
    assert len(read_zip_body(zip_of(("a.bmp", bytes(10_000_000))), {})) == 1


def test_too_many_zip_members_are_refused(monkeypatch):
    monkeypatch.setattr(containers, "MAX_IMAGES", 3)
    monkeypatch.setattr(heaps, "MAX_INSTANCES", 5)

    def members(count, folder=""):
        return [(f"{folder}{index}", b"one") for index in range(count)]

    assert len(read_zip_body(zip_of(*members(3)), {})) == 3
    with pytest.raises(PayloadTooLarge, match="4 pictures"):
        read_zip_body(zip_of(*members(4)), {})
    with pytest.raises(PayloadTooLarge, match="6 members"):
        read_zip_body(zip_of(*members(6)), {})
    with pytest.raises(PayloadTooLarge, match="directory"):
        read_zip_body(zip_of(*members(3_000, "__MACOSX/")), {})


# --- what is in an archive, zip and tar alike


def tar(*members, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content) if info.isreg() else 0
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_gz(*members):
    return gzip.compress(tar(*members))


ARCHIVES = [(zip_of, read_zip_body), (tar, read_tar_body), (tar_gz, read_tar_body), (tar_gz, read_gzip_body)]
IDS = ["zip", "tar", "tar.gz as tar", "tar.gz as gzip"]
each_archive = pytest.mark.parametrize(("pack", "read"), ARCHIVES, ids=IDS)


def nifti(version=nibabel.Nifti1Image):
    return version(np.zeros((2, 3, 4), np.int16), np.eye(4)).to_bytes()


@each_archive
def test_dicom_members_are_one_sample_whatever_their_names(pack, read):
    files = [dicom(3), dicom(1), PREAMBLE_LESS, dicom(2, series="1.2.9")]

    samples = read(pack(*zip(["a/1", "IM000", "b.dcm", "c.jpg"], files, strict=True)), {})

    assert sources(samples) == [Instances(tuple(files))]


@each_archive
def test_a_dicomdir_and_texts_beside_dicom_files_are_passed_over(pack, read):
    members = [("DICOMDIR", DICOMDIR), ("LICENSE", b"free"), ("A/README.TXT", b"hello"), ("A/1", dicom(1))]

    assert sources(read(pack(*members), {})) == [Instances((dicom(1),))]


@each_archive
def test_pictures_and_volumes_are_one_sample_each_in_order(pack, read):
    values = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    contents = [b"picture", nifti(), gzip.compress(nifti(nibabel.Nifti2Image)), b"NRRD0004", npy(values)]

    *encoded, raw = sources(read(pack(*((str(index), content) for index, content in enumerate(contents))), {}))

    assert encoded == contents[:-1]
    assert np.array_equal(raw, values)


@each_archive
def test_archives_that_no_request_should_have_are_refused(pack, read):
    mixed = [[("a", dicom(1)), ("b", other)] for other in (b"picture", nifti(), b"", b"PK\x03\x04")]
    inner = [tar(("a", b"one")), gzip.compress(tar(("a", b"one"))), gzip.compress(b"x" * 999), zip_of(("a", b"one"))]
    nested = [[("a", content)] for content in inner]
    without_images = [[], [("DICOMDIR", DICOMDIR)], [("._a", b"x"), (".DS_Store", b"x")]]

    def read_members(members):
        read(pack(*members), {})

    assert not_refused(mixed, read_members, MalformedRequest, "image 1: not a DICOM file") == []
    assert not_refused(nested, read_members, MalformedRequest, "archive inside") == []
    assert not_refused(without_images, read_members, MalformedRequest) == []


@each_archive
def test_a_series_has_more_files_than_a_request_may_have_pictures(pack, read, monkeypatch):
    monkeypatch.setattr(containers, "MAX_IMAGES", 3)
    monkeypatch.setattr(containers, "MAX_INSTANCES", 5)

    [series] = sources(read(pack(*((str(index), dicom(index)) for index in range(5))), {}))

    assert len(series.files) == 5
    with pytest.raises(PayloadTooLarge, match="6 pictures"):
        read(pack(*((str(index), dicom(index)) for index in range(6))), {})


# --- tar


def special_tar(kind, **more):
    info = tarfile.TarInfo("a.dcm")
    info.type = kind
    for name, value in more.items():
        setattr(info, name, value)
    return tar((info, b""))


OTHER_TARS = [
    b"hello",
    bytes(100),
    bytes(10_240),
    tar(("a", b"one"))[:700],
    tar(("../a", b"one")),
    tar(("/etc/a", b"one")),
    tar(("a", b"one"), ("./a", b"two")),
    special_tar(tarfile.SYMTYPE, linkname="/etc/passwd"),
    special_tar(tarfile.LNKTYPE, linkname="b.dcm"),
    special_tar(tarfile.CHRTYPE),
    special_tar(tarfile.FIFOTYPE),
    special_tar(tarfile.GNUTYPE_SPARSE),
    gzip.compress(tar(("a", b"one")))[:-12],
    gzip.compress(b"hello"),
    b"\x1f\x8b" + bytes(30),
]


def test_other_tar_is_malformed():
    assert not_refused(OTHER_TARS, lambda body: read_tar_body(body, {}), MalformedRequest) == []


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read(format):
    name = "x" * (90 if format == tarfile.USTAR_FORMAT else 300)

    assert sources(read_tar_body(tar((name, b"one"), format=format), {})) == [b"one"]


def test_a_tar_bomb_is_stopped_while_it_inflates():
    body = gzip.compress(tar(*((str(index), bytes(1024**2)) for index in range(40))))
    with allocating_less_than(60_000_000), pytest.raises(PayloadTooLarge, match="inflates"):
        read_tar_body(body, {})


def test_a_tar_bomb_of_headers_is_stopped_too():
    infos = []
    for index in range(40):
        info = tarfile.TarInfo(str(index))
        info.pax_headers = {"comment": "x" * 900_000}
        infos.append((info, b""))

    with pytest.raises(PayloadTooLarge, match="headers"):
        read_tar_body(gzip.compress(tar(*infos)), {})


# --- gzip


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_gzip_of_a_nifti_volume_is_that_volume(version):
    body = gzip.compress(nifti(version))

    assert sources(read_gzip_body(body, {})) == [body]


def test_gzip_of_anything_else_is_refused():
    bodies = [b"hello", nifti(), gzip.compress(b"hello"), gzip.compress(dicom()), b"\x1f\x8b"]
    assert not_refused(bodies, lambda body: read_gzip_body(body, {}), MalformedRequest) == []


SOUND = {
    read_zip_body: [zip_of(("a.jpg", b"one"), ("b/c.jpg", b"two" * 99)), ONE, zip_of(("a", dicom()))],
    read_tar_body: [tar(("a.jpg", b"one"), ("b/c.jpg", b"two" * 99)), tar_gz(("a", dicom()))],
    read_gzip_body: [gzip.compress(nifti()), tar_gz(("a", b"one"))],
}


@pytest.mark.long
@given(data=st.data())
@settings(max_examples=400)
def test_any_archive_gives_samples_or_a_callers_error(data):
    reader = data.draw(st.sampled_from(list(SOUND)))
    body = bytearray(data.draw(st.sampled_from(SOUND[reader])))
    for _ in range(data.draw(st.integers(0, 6))):
        start = data.draw(st.integers(0, len(body)))
        body[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        samples, refusal = reader(bytes(body), {}), ""
    except CallerError as error:
        samples, refusal = [], str(error)
    assert samples or 0 < len(refusal) < 300
