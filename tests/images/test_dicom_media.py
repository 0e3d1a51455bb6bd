import gc
import gzip
import io
import os
import random
import stat
import sys
import tarfile
import zipfile
from functools import partialmethod

import pytest
from pydicom import DataElement, Dataset, FileMetaDataset
from pydicom.config import IGNORE
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom import limits, media
from sagemaker_monai.images.dicom.media import MediaLimits, find_instances, find_media
from tests.support.dicom_series import make_series, make_slice, pixels, to_bytes, write_series
from tests.support.places import SHARED_DATA

SHARED_DICOMDIR = SHARED_DATA / "odd_dicom" / "dicomdir"


@pytest.fixture(scope="module")
def files():
    return [to_bytes(dataset) for dataset in make_series(pixels((3, 4, 5)))]


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(members, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def names(media):
    return [instance.name for instance in media.instances]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_files_are_told_by_their_bytes_and_the_others_are_listed(tmp_path, files):
    (tmp_path / "a").write_bytes(files[0])
    (tmp_path / "b.txt").write_bytes(files[1])
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "c.DCM").write_bytes(files[2])
    (tmp_path / "readme.dcm").write_text("these are no slices at all, whatever the name says " * 20)
    (tmp_path / "empty").touch()

    media = find_media(tmp_path)

    assert names(media) == ["a", "b.txt", "deep/er/c.DCM"]
    assert [(other.name, other.code) for other in media.others] == [("empty", "NotDicom"), ("readme.dcm", "NotDicom")]


def test_hidden_files_and_litter_are_passed_over_without_a_word(tmp_path, files):
    for name in (".hidden", "._a", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(files[0])
    for folder in (".git", "__MACOSX"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(files[0])

    media = find_media(tmp_path)

    assert (media.instances, media.others) == ([], [])


def test_links_that_lead_out_are_not_followed(tmp_path, files):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret").write_bytes(files[0])
    (inside / "own").write_bytes(files[1])
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    (inside / "again").symlink_to(inside / "own")
    (inside / "nowhere").symlink_to(inside / "gone")
    (inside / "loop").symlink_to(inside)

    assert len(find_instances(inside)) == 1


def test_a_folder_that_is_a_link_itself_is_read(tmp_path, files):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(files[0])
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert len(find_instances(tmp_path / "link")) == 1


def test_a_pipe_is_not_waited_for(tmp_path, files):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_bytes(files[0])

    assert len(find_instances(tmp_path)) == 1


def test_a_file_is_found_however_deep_it_lies(tmp_path, files):
    place = tmp_path.joinpath(*["d"] * 60)
    place.mkdir(parents=True)
    (place / "b").write_bytes(files[0])
    (tmp_path / "a").write_bytes(files[1])

    assert names(find_media(tmp_path)) == ["a", "/".join(["d"] * 60) + "/b"]


def test_too_many_files_are_refused(tmp_path, files):
    for number in range(5):
        (tmp_path / str(number)).write_bytes(files[0])

    assert len(find_media(tmp_path, limits=MediaLimits(files=5)).instances) == 5
    with pytest.raises(PayloadTooLarge):
        find_media(tmp_path, limits=MediaLimits(files=4))


def test_a_broken_dicom_file_is_listed_with_its_code(tmp_path, files):
    (tmp_path / "a").write_bytes(files[0])
    (tmp_path / "b").write_bytes(files[1][:300])

    media = find_media(tmp_path)

    assert names(media) == ["a"]
    assert [(other.name, other.code) for other in media.others] == [("b", "UndecodableImage")]


def test_a_file_that_may_not_be_read_is_listed(tmp_path, files):
    path = tmp_path / "a"
    path.write_bytes(files[0])
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")

    assert [other.code for other in find_media(tmp_path).others] == ["UndecodableImage"]
    path.chmod(stat.S_IRWXU)


def test_one_file_is_found_by_its_path(tmp_path, files):
    (tmp_path / "a").write_bytes(files[0])

    [instance] = find_instances(tmp_path / "a")

    assert (instance.source, instance.name) == (tmp_path / "a", "a")


def test_an_instance_has_the_values_of_its_header(tmp_path):
    dataset = make_slice(pixels()[0], BurnedInAnnotation="NO", AcquisitionNumber=3, InstanceNumber=8)

    [instance] = find_instances([to_bytes(dataset)])

    assert (instance.sop_instance_uid, instance.series_instance_uid) == (
        dataset.SOPInstanceUID,
        dataset.SeriesInstanceUID,
    )
    assert (instance.study_instance_uid, instance.patient_id) == (dataset.StudyInstanceUID, "P1")
    assert (instance.modality, instance.manufacturer, instance.series_description) == ("MR", "Test", "phantom")
    assert (instance.rows, instance.columns, instance.number_of_frames) == (7, 5, 1)
    assert (instance.instance_number, instance.acquisition_number) == (8, 3)
    assert instance.transfer_syntax_uid == ExplicitVRLittleEndian
    assert instance.image_type == ("ORIGINAL", "PRIMARY", "M")
    assert instance.burned_in_annotation == "NO"
    assert "P1" not in repr(instance)  # a log line must not name the patient


# --- archives --------------------------------------------------------------------------------------------------------

PACKERS = {"zip": zipped, "tar": tarred, "tar.gz": lambda members: gzip.compress(tarred(members))}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("is_path", [True, False])
def test_archives_are_read_as_folders_are(tmp_path, files, kind, is_path):
    members = {"s/1": files[0], "s/2": files[1], "s/notes.txt": b"text", "__MACOSX/s/1": files[2], "s/.x": files[2]}
    body = PACKERS[kind](members)
    path = tmp_path / "upload"
    path.write_bytes(body)

    media = find_media(path if is_path else [body])

    assert [name.split("/", 1)[1] for name in names(media)] == ["s/1", "s/2"]
    assert [other.code for other in media.others] == ["NotDicom"]
    assert [instance.source for instance in media.instances] == files[:2]


def test_one_file_in_gzip_is_read(tmp_path, files):
    assert [instance.source for instance in find_instances([gzip.compress(files[0])])] == files[:1]


def test_archives_in_a_folder_are_opened_one_level_deep(tmp_path, files):
    (tmp_path / "a.zip").write_bytes(zipped({"1": files[0], "inner.zip": zipped({"2": files[1]})}))
    (tmp_path / "b").write_bytes(files[2])

    media = find_media(tmp_path)

    assert names(media) == ["a.zip/1", "b"]
    assert [(other.name, other.code) for other in media.others] == [("a.zip/inner.zip", "NotDicom")]


@pytest.mark.parametrize("kind", PACKERS)
def test_a_damaged_archive_is_refused_by_itself_and_listed_in_a_folder(tmp_path, files, kind):
    body = PACKERS[kind]({"1": files[0], "2": random.Random(0).randbytes(4000)})[:3000]
    (tmp_path / "broken").write_bytes(body)
    (tmp_path / "sound").write_bytes(files[1])

    with pytest.raises(UndecodableImage):
        find_media([body])
    media = find_media(tmp_path)
    assert "sound" in names(media)
    assert [(other.name, other.code) for other in media.others] == [("broken", "UndecodableImage")]


@pytest.mark.parametrize("kind", PACKERS)
def test_members_that_would_leave_the_folder_are_refused(files, kind):
    with pytest.raises(UndecodableImage, match="outside the folder"):
        find_media([PACKERS[kind]({"../../etc/passwd": files[0]})])


@pytest.mark.parametrize("kind", [*PACKERS, "gz"])
def test_archives_inflate_to_their_limit_only(kind):
    zeros = bytes(1 << 21)
    body = gzip.compress(zeros) if kind == "gz" else PACKERS[kind]({"bomb": zeros})

    with pytest.raises(PayloadTooLarge):
        find_media([body], limits=MediaLimits(archive_bytes=1 << 20))


@pytest.mark.parametrize("kind", PACKERS)
def test_archives_with_too_many_members_are_refused(kind):
    body = PACKERS[kind]({str(number): b"x" for number in range(20)})

    with pytest.raises(PayloadTooLarge):
        find_media([body], limits=MediaLimits(files=10))


def test_too_many_files_in_memory_are_refused(files):
    with pytest.raises(PayloadTooLarge):
        find_media(files, limits=MediaLimits(files=2))


def test_bytes_are_named_by_their_number(files):
    media = find_media([files[0], b"no image", files[1]])

    assert names(media) == ["1", "3"]
    assert [(other.name, other.code) for other in media.others] == [("2", "NotDicom")]


# --- media with a DICOMDIR -------------------------------------------------------------------------------------------


def write_dicomdir(path, references):
    records = []
    for reference in references:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.add(DataElement(0x00041500, "CS", reference, validation_mode=IGNORE))
        records.append(record)
    dataset = Dataset()
    dataset.FileSetID = "TEST"
    dataset.DirectoryRecordSequence = records
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def medium(tmp_path, files):
    (tmp_path / "images" / "s1").mkdir(parents=True)
    (tmp_path / "images" / "s1" / "i0001").write_bytes(files[0])
    (tmp_path / "images" / "s1" / "I0002").write_bytes(files[1])
    (tmp_path / "stray").write_bytes(files[2])
    references = [["IMAGES", "S1", "I0001"], ["IMAGES", "S1", "I0002"], ["IMAGES", "S1", "I0003"], ["..", "OUT"]]
    write_dicomdir(tmp_path / "DICOMDIR", references)
    return tmp_path


@pytest.mark.parametrize("keep_headers", [True, False])
def test_a_dicomdir_that_is_named_gives_the_files_that_it_lists(medium, keep_headers):
    media = find_media(medium / "DICOMDIR", keep_headers=keep_headers)

    assert names(media) == ["images/s1/I0002", "images/s1/i0001"]
    assert [(other.name, other.code) for other in media.others] == [("images/s1/i0003", "MissingFile")]


def test_a_folder_with_a_dicomdir_gives_all_its_files_and_reports_those_that_are_missing(medium):
    media = find_media(medium)

    assert names(media) == ["stray", "images/s1/I0002", "images/s1/i0001"]
    assert [(other.name, other.code) for other in media.others] == [("images/s1/i0003", "MissingFile")]


def test_a_dicomdir_in_an_archive_is_no_image(medium, files):
    body = zipped({"DICOMDIR": (medium / "DICOMDIR").read_bytes(), "IMAGES/1": files[0]})

    media = find_media([body])

    assert (len(media.instances), media.others) == (1, [])


def test_a_broken_dicomdir_is_listed(tmp_path, files):
    write_series(tmp_path, make_series(pixels((2, 4, 5))))
    (tmp_path / "DICOMDIR").write_bytes(files[0][:200])

    media = find_media(tmp_path)

    assert len(media.instances) == 2
    assert [other.name for other in media.others] == ["DICOMDIR"]


@pytest.mark.skipif(not SHARED_DICOMDIR.is_dir(), reason="no shared data")
def test_a_real_medium_has_the_files_that_pydicom_finds_in_it():
    import pydicom

    listed = pydicom.dcmread(SHARED_DICOMDIR / "DICOMDIR").DirectoryRecordSequence
    expected = {"/".join(record.ReferencedFileID) for record in listed if "ReferencedFileID" in record}

    media = find_media(SHARED_DICOMDIR / "DICOMDIR")

    assert set(names(media)) == {name for name in expected if (SHARED_DICOMDIR / name).is_file()}
    assert {other.name.upper() for other in media.others} == {
        name for name in expected if not (SHARED_DICOMDIR / name).is_file()
    }
    assert len(find_media(SHARED_DICOMDIR).instances) == 31


ELEMENTS = (1 << 20) // 8


@pytest.fixture
def few_reads(monkeypatch):
    """Files of more than 1,000 elements exceed the limit."""
    monkeypatch.setattr(limits.Budget, "__init__", partialmethod(limits.Budget.__init__, reads=1_000))


def too_many_elements(extra=0):
    """A file of elements that are zeros."""
    return bytes(128) + b"DICM" + bytes(8 * (ELEMENTS + extra))


@pytest.mark.usefixtures("few_reads")
def test_a_file_that_is_refused_is_released_at_once():
    """Nothing of it waits for the garbage collector: the error's traceback does not hold it."""
    content = too_many_elements()
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(content)
        found = find_media([content])
        codes, after = [other.code for other in found.others], sys.getrefcount(content)
    finally:
        gc.enable()

    assert (found.instances, codes) == ([], ["PayloadTooLarge"])
    assert after == before


@pytest.mark.usefixtures("few_reads")
def test_an_archive_of_many_such_files_is_refused_after_the_first_ones(monkeypatch):
    looked_at, read = [], media.instance_of
    monkeypatch.setattr(media, "instance_of", lambda source, name: looked_at.append(name) or read(source, name))
    body = zipped({f"{index}.dcm": os.urandom(1) + too_many_elements(index)[1:] for index in range(9)})

    with pytest.raises(PayloadTooLarge, match="more than 2 DICOM files are too large"):
        find_media([body])

    assert len(looked_at) == 3
