"""Folders of pictures with a table of labels: the first hour with the data of a hospital."""

import json

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.entrypoints.prepare import main
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.labels_table import LabelOptions
from sagemaker_monai.prepare.picture_folder import Pictures, import_pictures
from sagemaker_monai.prepare.publish import Choices
from tests.support.imported import content_of, records_of
from tests.support.workbooks import SIX_DIGITS, cell, workbook


def picture(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)).save(path, **options)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for number in range(12):
        picture(folder / "photos" / f"{number + 100:06d}.png", number)
    return folder


def xlsx(path, rows):
    path.write_bytes(workbook({"Notes": [["who"], ["me"]], "Labels": rows}))
    return path


def spreadsheet(path):
    """Image ids that Excel took for numbers, a diagnosis, and a patient with two pictures each."""
    return xlsx(path, [["image_id", "dx", "patient_id", "age"]] + [
        [number + 100, ("nv", "mel")[number // 2 % 2], f"Meier, A{number // 2}", 40 + number] for number in range(12)
    ])  # fmt: skip


def test_a_folder_and_a_spreadsheet_become_a_data_set_that_train_takes(tmp_path, source):
    table = spreadsheet(source / "labels.xlsx")
    out = tmp_path / "out"

    report = import_pictures(source, out, labels=table, reading=LabelOptions(keep_columns=("age",)))

    assert (report.images, report.groups, report.task, report.spatial_dims) == (12, 6, "classification", 2)
    records = records_of(out)
    assert {record["label"] for record in records} == {"nv", "mel"}
    assert sorted(record["age"] for record in records) == [str(age) for age in range(40, 52)]
    sides = {}
    for record in records:
        sides.setdefault(record["group"], set()).add(record["split"])
        assert (out / record["image"]).read_bytes()
    assert all(len(each) == 1 for each in sides.values())
    assert any("12 of 12 names in the labels" in note for note in report.notes)
    for name in ("dataset.json", "import_report.json"):
        assert "Meier" not in (out / name).read_text()
        assert "000100" not in (out / name).read_text()
    dataset = read_dataset({"training": out}, validation_fraction=0.2, test_fraction=0.2, seed=0)
    assert len(dataset.training) + len(dataset.validation) + len(dataset.test) == 12


def test_pixels_belong_to_their_labels(tmp_path, source):
    rows = [["file", "label"]] + [[cell(number + 100, SIX_DIGITS), str(number)] for number in range(12)]
    out = tmp_path / "out"

    reading, choices = LabelOptions(task="classification"), Choices(fractions=(1, 0, 0))
    import_pictures(source, out, labels=xlsx(tmp_path / "l.xlsx", rows), reading=reading, choices=choices)

    for record in records_of(out):
        seen = np.asarray(Image.open(out / record["image"]))
        assert (seen == np.random.default_rng(int(record["label"])).integers(0, 255, (6, 6, 3), np.uint8)).all()


def test_the_same_call_again_writes_nothing_and_another_table_replaces(tmp_path, source):
    table, out = spreadsheet(tmp_path / "labels.xlsx"), tmp_path / "out"
    import_pictures(source, out, labels=table)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    assert import_pictures(source, out, labels=table).is_repeated
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps


def test_texts_beside_a_picture_are_cut_out_and_the_picture_stays(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for number, name in enumerate(("a.png", "b.JPG", "c.png", "d.bmp", "e.tif", "f.webp")):
        picture(source / name, number)
    exif = Image.Exif()
    exif[315] = "Doctor Quixotic"
    picture(source / "a.png", 0, exif=exif)
    picture(source / "b.JPG", 1, exif=exif, comment=b"Quixotic")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{name},{'xy'[n % 2]}\n" for n, name in enumerate("abcdef")))

    import_pictures(source, out, labels=table)

    for path in out.rglob("*"):
        assert not path.is_file() or b"Quixotic" not in path.read_bytes()
    assert sorted(path.suffix[1:] for path in (out / "images").iterdir()) == ["bmp", "jpg", "png", "png", "tif", "webp"]
    picture(source / "e.tif", 4, tiffinfo={315: "Doctor Quixotic"})
    import_pictures(source, tmp_path / "other", labels=table)
    [copy] = (tmp_path / "other" / "images").glob("*.tif")
    assert b"Quixotic" in (source / "e.tif").read_bytes()
    assert b"Quixotic" not in copy.read_bytes()
    with Image.open(source / "e.tif") as before, Image.open(copy) as after:
        assert before.tobytes() == after.tobytes()
    import_pictures(source, tmp_path / "fourth", labels=table, pictures=Pictures(is_private=False))
    names = sorted(path.name for path in (tmp_path / "fourth" / "images").iterdir())
    assert names == ["a.png", "b.jpg", "c.png", "d.bmp", "e.tif", "f.webp"]


def test_folders_by_class_with_patients_below(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for number in range(16):
        patient = source / "data" / ("nv", "mel")[number % 2] / f"p{number // 4}"
        picture(patient / f"{number}.png", number)
        Image.new("L", (6, 6), 255).save(patient / f"{number}_mask.png")

    report = import_pictures(source, out, labels="folders")

    assert (report.images, report.groups, report.left_out) == (16, 4, {"masks of images": 16})


def test_lines_without_a_label_and_pictures_without_a_line(tmp_path, source):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{n + 100},{('a', 'b', 'NA')[n % 3]}\n" for n in range(11)))

    with pytest.raises(DatasetError, match=r"images without labels: 1 \(photos/000111.png\)"):
        import_pictures(source, tmp_path / "out", labels=table)
    report = import_pictures(source, tmp_path / "out", labels=table, choices=Choices(mismatch="drop"))

    assert (report.images, report.left_out) == (8, {"images without labels": 1, "lines without a label": 3})


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("id,outcome,target\n100,a,b\n", {}, r"several columns that could be the label \(outcome, target\)"),
        ("image,label\n100,a\n0100,b\n", {}, "could be several files, or share one"),
        ("image,label\n7,a\n101,b\n", {}, "labels without images: 1 "),
        ("image,label\n100,a\n", {"sheet": "x"}, "is not a workbook and has no sheet x"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, source, rows, options, message):
    (tmp_path / "labels.csv").write_text(rows)

    with pytest.raises(DatasetError, match=message):
        import_pictures(source, tmp_path / "out", labels=tmp_path / "labels.csv", reading=LabelOptions(**options))
    assert not (tmp_path / "out").exists()


def test_both_ways_to_name_the_column_are_one_too_many(tmp_path, source):
    (tmp_path / "labels.csv").write_text("image,label\n100,a\n")
    reading = LabelOptions(match="image", image_column="image")
    with pytest.raises(ConfigError, match="--match or --image-column"):
        import_pictures(source, tmp_path / "out", labels=tmp_path / "labels.csv", reading=reading)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "1.dcm").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("image,label\n1,a\n2,b\n")

    with pytest.raises(DatasetError, match=r"has no pictures .*use prepare dicom_folder for DICOM"):
        import_pictures(tmp_path / "source", tmp_path / "out", labels=tmp_path / "labels.csv")


def test_the_command_says_what_it_did(tmp_path, source, capsys):
    table = spreadsheet(tmp_path / "labels.xlsx")

    code = main(["pictures", str(source), str(tmp_path / "out"), "--labels", str(table), "--label-column", "dx",
                 "--image-column", "image_id", "--group-column", "patient_id", "--sheet", "labels"])  # fmt: skip

    printed = capsys.readouterr().out
    assert code == 0
    assert "12 images of 6 groups, 2-D, classification" in printed
    assert "without the texts beside them" in printed
    assert json.dumps(content_of(tmp_path / "out"))
    assert main(["pictures", str(source), str(tmp_path / "out2"), "--labels", str(tmp_path / "none.xlsx")]) == 1
    assert "there is no file none.xlsx; name a table" in capsys.readouterr().err
