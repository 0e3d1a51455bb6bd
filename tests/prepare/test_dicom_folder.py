"""Folders of DICOM files with tables of labels: matching, series, patients on one side and not in the output."""

import csv
import gzip
import json
import shutil
import zipfile

import numpy as np
import pytest

from sagemaker_monai.deidentification.pseudonyms import pseudonym
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.images.dicom.headers import read_header, read_instance
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.prepare import dicom_images
from sagemaker_monai.prepare.dicom_folder import import_dicom_folder
from sagemaker_monai.prepare.dicom_images import Deidentification, Units
from sagemaker_monai.prepare.labels_table import LabelOptions
from sagemaker_monai.prepare.publish import Choices
from tests.images.test_dicom_media import write_dicomdir
from tests.support.identified import SALT
from tests.support.imported import content_of, put, records_of, slice_file, table
from tests.support.places import SHARED_DATA

SHARED = SHARED_DATA
EVEN = (0.5, 0.25, 0.25)


@pytest.fixture
def run(tmp_path):
    """Import `tmp_path/source` with a table of rows, or by folders."""

    def call(*rows, source=None, out="out", reading=None, units=None, private=False, salt=SALT, **choices):
        labels = table(tmp_path / "labels.csv", *rows) if rows else "folders"
        return import_dicom_folder(
            source or tmp_path / "source",
            tmp_path / out,
            labels=labels,
            reading=LabelOptions(**reading or {}),
            units=Units(**units or {}),
            choices=Choices(**{"title": "t", "fractions": EVEN} | choices),
            deidentification=Deidentification(salt=salt) if private else None,
        )

    return call


def patients(count, **values):
    """One slice of each of some patients."""
    return {f"p{n}/IM{n}": slice_file(f"P{n}", **values) for n in range(count)}


def labels(count, column="file", key="IM{}"):
    return [[column, "label"], *[[key.format(n), "ab"[n % 2]] for n in range(count)]]


def sides_of(out):
    """The side of each group, which must be one."""
    sides = {(item["group"], item["split"]) for item in records_of(out)}
    assert len(sides) == len(dict(sides))
    return dict(sides)


# --- matching


def test_files_without_suffix_in_any_depth_are_matched_by_name(tmp_path, run):
    put(tmp_path / "source", patients(8))

    report = run(*labels(8))

    assert (report.images, report.groups, report.spatial_dims) == (8, 8, 2)
    content = content_of(tmp_path / "out")
    assert (content["tensorImageSize"], content["modality"]) == ("2D", {"0": "CT"})
    assert content["labels"] == {"0": "a", "1": "b"}
    for item in records_of(tmp_path / "out"):
        number = int(item["image"].removeprefix("./images/IM").removesuffix(".dcm"))
        assert item["label"] == "ab"[number % 2]
        assert (tmp_path / "out" / item["image"]).read_bytes() == slice_file(f"P{number}")


@pytest.mark.parametrize(
    ("column", "key", "dims"),
    [
        ("SOPInstanceUID", "1.2.{sum}.1.1", 2),
        ("SeriesInstanceUID", "1.2.{sum}.1", 3),
        ("StudyInstanceUID", "1.2.{sum}", 3),
        ("PatientID", "P{n}", 3),
        ("file", "p{n}", 3),
    ],
)
def test_every_level_of_dicom_can_be_labelled(tmp_path, run, column, key, dims):
    numbers = (1,) if dims == 2 else (1, 2)
    put(tmp_path / "source", {f"p{n}/{i}.dcm": slice_file(f"P{n}", number=i) for n in range(6) for i in numbers})
    keys = [key.format(n=n, sum=sum(map(ord, f"P{n}"))) for n in range(6)]

    report = run([column, "label"], *[[name, "ab"[n % 2]] for n, name in enumerate(keys)])

    assert (report.images, report.spatial_dims, report.groups) == (6, dims, 6)
    assert list(report.counts.values()) == [{"training": 1, "validation": 1, "test": 1}] * 2


def test_the_slices_of_a_series_lie_in_the_order_of_their_places(tmp_path, run):
    numbers = [3, 1, 2]
    files = {f"p{n}/{name}.dcm": slice_file(f"P{n}", number=numbers[name]) for n in range(3) for name in range(3)}
    put(tmp_path / "source", files)

    run(*labels(3, "PatientID", "P{}"))

    for item in records_of(tmp_path / "out"):
        folder = tmp_path / "out" / item["image"]
        headers = [read_header(path) for path in sorted(folder.iterdir())]
        assert [header.InstanceNumber for header in headers] == [1, 2, 3]
        [volume] = read_volumes_of(Sample(folder))
        stored = [
            np.frombuffer(read_instance(path).PixelData, "<u2").reshape(4, 4) for path in sorted(folder.iterdir())
        ]
        assert (volume.values[0].transpose(2, 1, 0) == np.stack(stored)).all()


def test_of_a_study_the_series_with_most_slices_is_taken_and_no_localizer(tmp_path, run):
    files = {}
    for n in range(3):
        files |= {f"p{n}/big/{i}": slice_file(f"P{n}", 1, i) for i in range(1, 5)}
        files |= {f"p{n}/small/{i}": slice_file(f"P{n}", 2, i) for i in range(1, 3)}
        scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
        files |= {f"p{n}/scout/{i}": slice_file(f"P{n}", 3, i, **scout) for i in range(1, 6)}
    put(tmp_path / "source", files)
    rows = labels(3, "PatientID", "P{}")

    report = run(*rows)
    assert report.images == 3
    assert report.left_out["other series of a labelled study"] == 6
    assert all(len(list((tmp_path / "out" / item["image"]).iterdir())) == 4 for item in records_of(tmp_path / "out"))

    assert run(*rows, units={"series": "all"}).images == 6  # a localizer beside others is not an image
    uid = f"1.2.{sum(map(ord, 'P1'))}.2"
    assert run(*rows, units={"series": uid}, fractions=(1, 0, 0)).files == 2
    with pytest.raises(ConfigError, match="no labelled series has the UID"):
        run(*rows, units={"series": "1.9"})


def test_folders_are_classes_of_files_or_of_series(tmp_path, run):
    put(tmp_path / "source", {f"{'ab'[n % 2]}/{n}.dcm": slice_file(f"P{n}") for n in range(6)})
    assert run().spatial_dims == 2

    deep = {f"{'ab'[n % 2]}/{n}/{i}.dcm": slice_file(f"P{n}", number=i) for n in range(6) for i in (1, 2)}
    put(tmp_path / "deep", deep)
    report = run(source=tmp_path / "deep", out="deep-out")
    assert (report.images, report.spatial_dims) == (6, 3)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_as_good_as_a_folder(tmp_path, run, kind):
    put(tmp_path / "source", patients(8))
    run(*labels(8))
    packed = tmp_path / f"all.{kind}"
    shutil.make_archive(str(packed.with_suffix("")), kind, tmp_path / "source")

    run(*labels(8), source=packed, out="packed")

    # In the order of the archive.
    of_folder, of_archive = (
        sorted(records_of(tmp_path / out), key=lambda item: item["image"]) for out in ("out", "packed")
    )
    assert of_archive == of_folder


def test_files_in_gzip_are_matched_by_their_names(tmp_path, run):
    put(tmp_path / "source", {f"{name}.gz": gzip.compress(content) for name, content in patients(8).items()})

    assert run(*labels(8)).images == 8


def test_of_a_dicomdir_the_files_that_it_lists_are_taken(tmp_path, run):
    put(tmp_path / "medium", {f"IMAGES/IM{n}": slice_file(f"P{n}") for n in range(6)} | {"stray": slice_file("P77")})
    write_dicomdir(tmp_path / "medium" / "DICOMDIR", [["IMAGES", f"IM{n}"] for n in range(6)])
    rows = labels(6, "PatientID", "P{}")

    assert run(*rows, source=tmp_path / "medium" / "DICOMDIR").images == 6
    with pytest.raises(DatasetError, match=r"images without labels: 1 \(stray\)"):
        run(*rows, source=tmp_path / "medium", out="folder")
    (tmp_path / "medium" / "IMAGES" / "IM5").unlink()
    with pytest.raises(DatasetError, match="a DICOMDIR lists this file, which does not exist"):
        run(*rows, source=tmp_path / "medium" / "DICOMDIR", mismatch="drop")


def test_class_folders_in_an_archive_are_classes(tmp_path, run):
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for n in range(6):
            archive.writestr(f"scans/{'ab'[n % 2]}/{n}.dcm", slice_file(f"P{n}"))

    report = run(source=tmp_path / "scans.zip")

    assert (report.images, set(report.counts), report.spatial_dims) == (6, {"a", "b"}, 2)


def test_labels_of_patients_with_single_pictures_are_labels_of_pictures(tmp_path, run):
    files = {f"{n}-{view}": slice_file(f"P{n}", series=view, Modality="DX") for n in range(6) for view in (1, 2)}
    put(tmp_path / "source", files)

    report = run(*labels(6, "PatientID", "P{}"))

    assert (report.images, report.groups, report.spatial_dims, report.modalities) == (12, 6, 2, {"DX": 12})
    with pytest.raises(ConfigError, match="choose --unit series"):
        run(*labels(6, "PatientID", "P{}"), units={"series": "all"})


def test_series_without_geometry_and_mixed_modalities_are_said(tmp_path, run):
    bare = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    files = {f"p{n}/{i}": slice_file(f"P{n}", number=i, **(bare if n == 0 else {})) for n in range(6) for i in (1, 2)}
    files |= {f"p{n}/{i}": slice_file(f"P{n}", number=i, Modality="MR") for n in (1, 2) for i in (1, 2)}
    put(tmp_path / "source", files)

    report = run(*labels(6, "PatientID", "P{}"))

    assert "1 series have the finding missing_geometry" in report.warnings
    assert any("2 modalities are mixed" in text for text in report.warnings)
    assert content_of(tmp_path / "out")["modality"] == {"0": "CT"}


def test_labels_without_images_and_images_without_labels_are_refused_or_dropped(tmp_path, run):
    put(tmp_path / "source", patients(8))
    rows = [*labels(7), ["IM77", "a"]]

    with pytest.raises(
        DatasetError,
        match=r"labels without images: 1 \(IM77; the nearest name is p7/IM7\); images without labels: 1 \(p7/IM7\)",
    ):
        run(*rows)
    assert not (tmp_path / "out").exists()
    report = run(*rows, mismatch="drop")
    assert report.images == 7
    assert report.left_out == {"labels without images": 1, "images without labels": 1}


def test_a_patient_without_images_is_told_by_the_row_and_not_by_the_id(tmp_path, run):
    put(tmp_path / "source", patients(4))
    with pytest.raises(DatasetError, match=r"labels without images: 1 \(row 6\)") as caught:
        run(*labels(4, "PatientID", "P{}"), ["Quixotic-99", "a"], units={"unit": "instance"})
    assert "Quixotic" not in str(caught.value)


def test_slices_of_one_series_with_different_labels_are_refused(tmp_path, run):
    put(tmp_path / "source", {f"{i}.dcm": slice_file("P1", number=i) for i in (1, 2)})
    with pytest.raises(DatasetError, match="different labels; label series"):
        run(["file", "label"], ["1", "a"], ["2", "b"], units={"unit": "series"})


# --- patients and sides


def test_all_images_of_a_patient_are_on_one_side(tmp_path, run):
    files = {f"{n}-{i}.dcm": slice_file(f"P{n}", series=i, number=i) for n in range(10) for i in (1, 2)}
    put(tmp_path / "source", files)

    run(["file", "label"], *[[f"{n}-{i}", "ab"[n % 2]] for n in range(10) for i in (1, 2)])

    assert len(sides_of(tmp_path / "out")) == 10


def test_groups_and_split_depend_neither_on_the_order_of_files_nor_on_the_salt(tmp_path, run):
    put(tmp_path / "source", patients(9))
    put(tmp_path / "other", {f"{9 - n}/IM{n}": slice_file(f"P{n}") for n in range(9)})
    run(*labels(9))
    run(*labels(9), source=tmp_path / "other", out="other-out")

    def told(out):
        return {(item["image"], item["group"], item["split"]) for item in records_of(tmp_path / out)}

    assert told("out") == told("other-out")
    assert {group for _, group, _ in told("out")} == {f"patient-{n}" for n in range(1, 10)}

    run(*labels(9), out="one", private=True)
    run(*labels(9), out="two", private=True, salt=b"another salt of 32 bytes........")
    one, two = records_of(tmp_path / "one"), records_of(tmp_path / "two")
    assert [(item["image"], item["split"]) for item in one] == [(item["image"], item["split"]) for item in two]
    assert not {item["group"] for item in one} & {item["group"] for item in two}


@pytest.mark.parametrize("change", ["bytes", "encoding"])
def test_the_same_picture_under_two_patients_is_one_group(tmp_path, run, change):
    files = patients(8)
    files["p7/IM7"] = slice_file("P7", PixelData=read_instance(files["p1/IM1"]).PixelData)
    if change == "encoding":  # the same values, stored with another offset
        stored = np.frombuffer(read_instance(files["p1/IM1"]).PixelData, "<u2") + 1024
        files["p7/IM7"] = slice_file("P7", PixelData=stored.tobytes(), RescaleIntercept="-1024", RescaleSlope="1")
    put(tmp_path / "source", files)

    report = run(*labels(8))

    assert (report.groups, report.identical) == (7, [["images/IM1.dcm", "images/IM7.dcm"]])
    items = {item["image"][-5]: item for item in records_of(tmp_path / "out")}
    assert (items["1"]["group"], items["1"]["split"]) == (items["7"]["group"], items["7"]["split"])
    with pytest.raises(DatasetError, match=r"same pixels: 1 \(p1/IM1 = p7/IM7\)"):
        run(*labels(8), duplicates="refuse")


def test_blank_slices_do_not_make_all_patients_one(tmp_path, run):
    files = {f"p{n}/{i}": slice_file(f"P{n}", number=i, fill=0 if i == 1 else None) for n in range(6) for i in (1, 2)}
    put(tmp_path / "source", files)

    assert run(*labels(6, "PatientID", "P{}")).groups == 6


def test_a_given_split_that_tears_a_patient_is_refused_before_anything_is_written(tmp_path, run):
    put(tmp_path / "source", {f"{n}-{i}": slice_file(f"P{n}", number=i) for n in range(3) for i in (1, 2)})
    rows = [[f"{n}-{i}", "ab"[n % 2], ("train", "val", "test")[n]] for n in range(3) for i in (1, 2)]
    run(["file", "label", "split"], *rows)
    assert [len(content_of(tmp_path / "out")[split]) for split in ("training", "validation", "test")] == [2, 2, 2]

    rows[1][2] = "test"
    with pytest.raises(DatasetError, match=r"has 1 of 3 groups .* on two sides, 2 images") as caught:
        run(["file", "label", "split"], *rows, out="torn")
    assert "P0" not in str(caught.value)
    assert not (tmp_path / "torn").exists()


def test_files_without_a_patient_are_grouped_by_name_then_study_and_that_is_said(tmp_path, run):
    files = {f"{n}": slice_file("", number=n, study=f"1.2.{n}", PatientName=f"Doe^{'AAB'[n % 3]}") for n in range(6)}
    put(tmp_path / "source", files)

    report = run(*labels(6, key="{}"), fractions=(0.5, 0, 0.5))

    assert report.groups == 2
    assert any("6 images have no PatientID" in text for text in report.warnings)


def test_a_folder_of_one_patient_cannot_be_split(tmp_path, run):
    put(tmp_path / "source", {f"{n}": slice_file("ANON", number=n, study=f"1.2.{n}") for n in range(4)})
    rows = labels(4, key="{}")

    with pytest.raises(DatasetError, match="all images are of one group"):
        run(*rows)
    assert run(*rows, units={"group_by": "StudyInstanceUID"}).groups == 4
    assert run(*rows, fractions=(1, 0, 0)).groups == 1


def test_a_column_of_groups_joins_patients(tmp_path, run):
    put(tmp_path / "source", patients(6))
    report = run(["file", "label", "group"], *[[f"IM{n}", "ab"[n % 2], f"family{n // 2}"] for n in range(6)])

    assert report.groups == 3
    assert "family" not in (tmp_path / "out" / "dataset.json").read_text()


# --- de-identification


def test_nothing_that_is_written_tells_a_patient(tmp_path, run):
    files = {f"Quixotic_{n}/Quixotic{n}.dcm": slice_file(f"Quixotic-{n}") for n in range(6)}
    put(tmp_path / "source", files)

    report = run(*labels(6, key="Quixotic{}"), private=True)

    for path in (tmp_path / "out").rglob("*"):
        assert "quixotic" not in path.name.lower()
        if path.is_file():
            assert b"quixotic" not in path.read_bytes().lower(), path.name
            assert SALT not in path.read_bytes()
    groups = {item["group"] for item in records_of(tmp_path / "out")}
    assert groups == {pseudonym(SALT, f"Quixotic-{n}") for n in range(6)}
    for item in records_of(tmp_path / "out"):
        header = read_header(tmp_path / "out" / item["image"])
        assert (header.PatientID, header.PatientIdentityRemoved) == (item["group"], "YES")
    assert any("each was read back" in note for note in report.notes)


def test_pictures_that_may_show_text_are_refused_or_left_out(tmp_path, run):
    files = patients(8)
    files["p7/IM7"] = slice_file("P7", BurnedInAnnotation="YES")
    put(tmp_path / "source", files)

    with pytest.raises(DatasetError, match=r"cannot be used: 1 \(p7/IM7\).*burned into .*--unusable leave-out"):
        run(*labels(8), private=True)
    assert not (tmp_path / "out" / "dataset.json").exists()
    report = run(*labels(8), private=True, unusable="leave-out")
    assert (report.images, report.left_out["cannot be used"]) == (7, 1)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 7
    assert run(*labels(8), out="kept").images == 8


def test_columns_of_the_table_are_written_only_when_asked_for(tmp_path, run):
    put(tmp_path / "source", patients(6))
    rows = [["file", "label", "name", "age"], *[[f"IM{n}", "ab"[n % 2], "Zebulon", 60 + n] for n in range(6)]]

    run(*rows)
    assert "Zebulon" not in (tmp_path / "out" / "dataset.json").read_text()
    run(*rows, reading={"keep_columns": ("age",)})
    assert {item["age"] for item in records_of(tmp_path / "out")} == {str(60 + n) for n in range(6)}


# --- what cannot be used


def test_a_series_with_a_gap_is_refused_or_left_out_with_the_reason(tmp_path, run):
    files = {f"p{n}/{i}": slice_file(f"P{n}", number=i) for n in range(6) for i in (1, 2, 3, 4, 5)}
    del files["p5/3"]
    put(tmp_path / "source", files)
    rows = labels(6, "PatientID", "P{}")

    with pytest.raises(DatasetError, match=r"cannot be used: 1 \(p5\); the first: 1 slices are missing"):
        run(*rows)
    report = run(*rows, unusable="leave-out")
    assert (report.images, report.left_out["cannot be used"]) == (5, 1)


def test_broken_files_and_pixels_that_cannot_be_decoded_are_found_before_training(tmp_path, run):
    files = patients(8)
    files["p6/IM6"] = slice_file("P6", PixelData=b"\0\0")
    files["p7/IM7"] = files["p7/IM7"][:450]
    put(tmp_path / "source", files | {"notes.txt": b"not DICOM"})
    rows = labels(7)

    with pytest.raises(DatasetError, match=r"cannot be used: 1 \(p7/IM7\)"):
        run(*rows)
    report = run(*rows, unusable="leave-out")
    assert (report.images, report.left_out["cannot be used"], report.left_out["no DICOM file"]) == (6, 2, 1)
    assert any("1 of them: the DICOM file has 2 bytes of pixel data" in note for note in report.notes)


def test_a_file_of_several_frames_is_a_series_and_no_single_image(tmp_path, run):
    pixels = np.random.default_rng(0).integers(0, 99, (6, 3, 4, 4), dtype="<u2")
    files = {f"{n}": slice_file(f"P{n}", NumberOfFrames=3, PixelData=pixels[n].tobytes()) for n in range(6)}
    put(tmp_path / "source", files)

    with pytest.raises(DatasetError, match="has 3 frames and is not a single image; choose --unit series"):
        run(*labels(6, key="{}"))


def test_a_folder_without_pictures_is_refused(tmp_path, run):
    put(tmp_path / "source", {"keep/.hidden": b""})
    with pytest.raises(DatasetError, match="has no DICOM files with pictures"):
        run(*labels(2))
    put(tmp_path / "source", {"a.txt": b"x"})
    with pytest.raises(DatasetError, match=r"but other files: 1 \(a.txt\)"):
        run(*labels(2))


def test_an_output_in_the_source_is_refused(tmp_path, run):
    put(tmp_path / "source", patients(2))
    with pytest.raises(DatasetError, match="must not be in one another"):
        run(*labels(2), out="source/out")


# --- repeated runs


def test_the_same_call_again_writes_nothing_and_another_replaces_it(tmp_path, run):
    put(tmp_path / "source", {f"p{n}/{i}": slice_file(f"P{n}", number=i) for n in range(6) for i in (1, 2)})
    rows = labels(6, "PatientID", "P{}")
    first = run(*rows, private=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    again = run(*rows, private=True)
    assert again.is_repeated
    assert again.counts == first.counts
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert not run(*rows, private=True, salt=b"another salt of 32 bytes........").is_repeated

    run(*rows, units={"unit": "instance"})
    assert not (tmp_path / "out" / "series").exists()
    assert len(list((tmp_path / "out" / "images").iterdir())) == 12


def test_an_interrupted_run_leaves_no_dataset_json_and_can_be_repeated(tmp_path, run, monkeypatch):
    put(tmp_path / "source", patients(6))
    run(*labels(6))
    real, calls = dicom_images.copy_instance, []

    def stop(instance, target, deidentifier):
        calls.append(target)
        if len(calls) == 3:
            target.with_name(f".{target.name}.77.part").write_bytes(b"half")
            raise KeyboardInterrupt
        return real(instance, target, deidentifier)

    with monkeypatch.context() as patch:
        patch.setattr(dicom_images, "copy_instance", stop)
        with pytest.raises(KeyboardInterrupt):
            run(*labels(6), seed=1)
    assert not (tmp_path / "out" / "dataset.json").exists()

    assert run(*labels(6), seed=1).images == 6
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6


def test_files_of_others_in_the_output_are_refused_and_untouched(tmp_path, run):
    put(tmp_path / "source", {f"p{n}/{i}": slice_file(f"P{n}", number=i) for n in range(6) for i in (1, 2)})
    rows = labels(6, "PatientID", "P{}")
    run(*rows)

    for foreign in ("notes.txt", "images/other.dcm", "series/00001/mine.dcm", "series/00009/x"):
        put(tmp_path / "out", {foreign: b"mine"})
        with pytest.raises(DatasetError, match="holds what no import wrote: 1"):
            run(*rows, seed=1)
        assert (tmp_path / "out" / foreign).read_bytes() == b"mine"
        (tmp_path / "out" / foreign).unlink()


def test_a_report_that_names_files_elsewhere_removes_nothing(tmp_path, run):
    put(tmp_path / "source", patients(6))
    run(*labels(6))
    (tmp_path / "precious").write_bytes(b"x")
    report = json.loads((tmp_path / "out" / "import_report.json").read_text())
    report["files"]["images/../../precious"] = 1
    (tmp_path / "out" / "import_report.json").write_text(json.dumps(report))

    with pytest.raises(DatasetError, match="not an importer's"):
        run(*labels(6), seed=1)
    assert (tmp_path / "precious").exists()


# --- real data


@pytest.mark.skipif(not (SHARED / "ct_contrast_dicom").is_dir(), reason="shared data not present")
def test_the_ct_contrast_set_has_its_patients_on_one_side(tmp_path):
    source = SHARED / "ct_contrast_dicom"
    header, *rows = csv.reader((source / "labels.csv").read_text().splitlines())
    rows = rows[::4]

    report = import_dicom_folder(
        source, tmp_path / "out", labels=table(tmp_path / "l.csv", header, *rows),
        reading=LabelOptions(columns=("contrast",)), choices=Choices(title="t", mismatch="drop"),
        deidentification=Deidentification(salt=SALT),
    )  # fmt: skip

    patients = {row[header.index("patient_id")] for row in rows}
    assert (report.images, report.groups, report.left_out["images without labels"]) == (18, len(patients), 52)
    assert len(sides_of(tmp_path / "out")) == len(patients)
    for item in records_of(tmp_path / "out"):
        assert b"TCGA" not in (tmp_path / "out" / item["image"]).read_bytes()


@pytest.mark.skipif(not (SHARED / "dicom_series").is_dir(), reason="shared data not present")
def test_real_series_become_folders_that_are_read_as_the_originals(tmp_path):
    names = ["PGBM-002/13_HCropVolume", "PGBM-003/11-T1post-18670"]
    rows = [["file", "label"], [names[0], "crop"], ["11-T1post-18670", "whole"]]
    report = import_dicom_folder(
        SHARED / "dicom_series", tmp_path / "out", labels=table(tmp_path / "l.csv", *rows),
        choices=Choices(title="t", mismatch="drop"), deidentification=Deidentification(salt=SALT),
    )  # fmt: skip

    assert (report.images, report.groups, report.modalities) == (2, 2, {"MR": 2})

    def values(folders):
        return {read_volumes_of(Sample(folder))[0].values.tobytes() for folder in folders}

    copies = values(tmp_path / "out" / item["image"] for item in records_of(tmp_path / "out"))
    assert copies == values(SHARED / "dicom_series" / name for name in names)


# --- what an object is


def dose(patient):
    """A dose distribution beside a patient's CT, with more slices than it."""
    header = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE", "ImageType": None}
    return {f"{patient}/dose/{i}": slice_file(patient, 2, i, **header) for i in range(1, 5)}


def doses():
    return {name: content for n in range(6) for name, content in dose(f"P{n}").items()}


def studies(count=6):
    return {f"P{n}/ct/{i}": slice_file(f"P{n}", 1, i) for n in range(count) for i in range(1, 4)}


@pytest.mark.parametrize("column", ["PatientID", "SeriesInstanceUID", "folders"])
def test_no_dose_becomes_the_image_of_a_study_and_the_report_says_what_was_left(tmp_path, run, column):
    files = studies() | doses()
    rows = labels(6, "PatientID", "P{}")
    if column == "SeriesInstanceUID":
        rows = [[column, "label"], *[[f"1.2.{sum(map(ord, f'P{n}'))}.1", "ab"[n % 2]] for n in range(6)]]
    elif column == "folders":
        files = {f"{'ab'[int(name[1]) % 2]}/{name}": content for name, content in files.items()}
        rows = []
    put(tmp_path / "source", files)

    report = run(*rows)

    assert (report.images, report.modalities) == (6, {"CT": 6})
    if column == "SeriesInstanceUID":  # a dose is nothing that somebody forgot to label
        assert report.left_out["no images"] == 6
        return
    assert report.left_out["other series of a labelled study"] == 6
    assert report.studies[0] == {
        "study": 1,
        "taken": ["CT, 3 slices"],
        "left": [{"series": "RTDOSE (dose distribution), 4 slices", "why": "dose distribution"}],
    }
    assert len(report.studies) == 6
    assert "left out, 6 of them: dose distribution" in report.summary()


def test_doses_are_taken_where_they_are_asked_for_and_where_there_is_nothing_else(tmp_path, run):
    put(tmp_path / "source", studies() | doses())
    put(tmp_path / "doses", doses())
    rows = labels(6, "PatientID", "P{}")

    assert run(*rows, units={"modality": ("RTDOSE",)}).modalities == {"RTDOSE": 6}
    alone = run(*rows, source=tmp_path / "doses", out="alone")
    assert alone.modalities == {"RTDOSE": 6}
    assert "6 of 6 images are no plain ones: RTDOSE (dose distribution)" in alone.warnings


def test_a_study_with_nothing_but_a_dose_cannot_be_used_beside_ct(tmp_path, run):
    put(tmp_path / "source", studies(5) | dose("P5"))
    rows = labels(6, "PatientID", "P{}")

    with pytest.raises(DatasetError, match=r"is not an image like the others, only RTDOSE \(dose distribution\)"):
        run(*rows)
    assert run(*rows, unusable="leave-out").modalities == {"CT": 5}


def test_series_of_equal_length_are_not_chosen_by_their_uid(tmp_path, run):
    files = studies() | {f"P3/other/{i}": slice_file("P3", 2, i, SeriesDescription="Bone") for i in range(1, 4)}
    put(tmp_path / "source", files)
    rows = labels(6, "PatientID", "P{}")

    with pytest.raises(DatasetError, match="the study has 2 series with 3 slices each; choose with --modality"):
        run(*rows)
    assert run(*rows, units={"series": "all"}).images == 7
    assert not (tmp_path / "other").exists()
    with pytest.raises(DatasetError, match="the study has no series with the description asked for"):
        run(*rows, units={"description": "bone"}, out="other")
    assert run(*rows, units={"description": "bone"}, unusable="leave-out", fractions=(1, 0, 0), out="b").images == 1


def test_captures_among_x_rays_are_left_out_and_alone_they_are_images(tmp_path, run):
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "DX"}
    x_rays = {f"{n}": slice_file(f"P{n}", Modality="DX") for n in range(6)}
    captures = {f"c{n}": slice_file(f"P{n}", 2, 7, **capture) for n in range(6)}
    put(tmp_path / "source", x_rays | captures)
    put(tmp_path / "captures", captures)
    rows = labels(6, "PatientID", "P{}")

    report = run(*rows)
    assert (report.images, report.left_out["no images like the others"]) == (6, 6)
    assert run(*rows, source=tmp_path / "captures", out="c").images == 6
