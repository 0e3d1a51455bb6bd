import csv
import io
import json
import shutil
import zipfile
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.datasets import SPLITS, read_dataset
from sagemaker_monai.entrypoints.prepare import main
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare import ham10000
from sagemaker_monai.prepare.ham10000 import Ham10000Options, import_ham10000
from sagemaker_monai.prepare.ham10000_tables import LABELS, read_metadata, read_split
from tests.support.imported import content_of, records_of
from tests.support.imported import put as put_bytes

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def jpeg(seed, size=(48, 36), **options):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
    return buffer.getvalue()


# 7 classes of 6 lesions; the first lesion of each class was photographed twice: 49 images.
ROWS = [
    (f"L{label}{lesion}", f"ISIC_{1000 + 100 * index + 10 * lesion + picture}", label)
    for index, label in enumerate(LABELS)
    for lesion in range(6)
    for picture in range(2 if lesion == 0 else 1)
]
IMAGES = {image: jpeg(number) for number, (_, image, _) in enumerate(ROWS)}


def metadata(rows=ROWS, header=HEADER, delimiter=","):
    lines = [header, *(f"{lesion},{image},{dx},histo,45.0,male,back" for lesion, image, dx in rows)]
    return "\n".join(line.replace(",", delimiter) for line in lines) + "\n"


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def parts(images=IMAGES):
    names = sorted(images)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    return {
        f"HAM10000_images_part_{number}.zip": zipped({f"{name}.jpg": images[name] for name in half})
        for number, half in enumerate(halves, start=1)
    }


def put(folder, files):
    files = files.items()
    return put_bytes(folder, {name: data if isinstance(data, bytes) else data.encode() for name, data in files})


def dataverse(folder, images=IMAGES, table=None):
    return put(folder, {**parts(images), "HAM10000_metadata": table or metadata()})


NOT_OURS = {
    "HAM10000_segmentations_lesion_tschandl.zip": zipped({"ISIC_1000_segmentation.png": b"mask"}),
    "ISIC2018_Task3_Test_Images.zip": b"not even a zip",
    "ISIC2018_Task3_Test_GroundTruth.csv": "image,MEL\n",
    "README.md": "read me",
    "SHA256SUMS": "0",
    "MANIFEST.TXT": "x",
}


def kaggle_files():
    half = len(IMAGES) // 2
    first, second = dict(list(IMAGES.items())[:half]), dict(list(IMAGES.items())[half:])
    return {
        **{f"HAM10000_images_part_1/{name}.jpg": data for name, data in first.items()},
        **{f"HAM10000_images_part_2/{name}.jpg": data for name, data in second.items()},
        **{f"ham10000_images_part_1/{name}.jpg": data for name, data in first.items()},
        "HAM10000_metadata.csv": metadata(),
        "hmnist_28_28_RGB.csv": "pixel0000,label\n1,2\n",
    }


def with_everything_else(folder):
    return dataverse(put(folder, NOT_OURS))


def outer_zip(folder):
    files = {**parts(), "HAM10000_metadata.tab": metadata(delimiter="\t"), **NOT_OURS}
    return put(folder, {"dataverse_files.zip": zipped(files)}) / "dataverse_files.zip"


def folder_with_the_outer_zip(folder):
    return outer_zip(folder).parent


def outer_zip_unpacked_into_a_folder(folder):
    dataverse(folder / "dataverse_files")
    return folder


def kaggle_folders(folder):
    return put(folder, kaggle_files())


def kaggle_zip(folder):
    return put(folder, {"archive.zip": zipped(kaggle_files())}) / "archive.zip"


LAYOUTS = [
    with_everything_else,
    outer_zip,
    folder_with_the_outer_zip,
    outer_zip_unpacked_into_a_folder,
    kaggle_folders,
    kaggle_zip,
]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def split_of(out):
    return {Path(item["image"]).stem: item["split"] for item in records_of(out)}


@pytest.fixture
def source(tmp_path):
    return dataverse(tmp_path / "source")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A plain download, and the folder that it was imported to; both only to be read."""
    folder = tmp_path_factory.mktemp("reference")
    source = dataverse(folder / "source")
    import_ham10000(source, folder / "out")
    return source, folder / "out"


@pytest.fixture
def imported(reference, out):
    """The download of `reference`, and a copy of its import in `out`."""
    shutil.copytree(reference[1], out)
    return reference[0]


# --- layouts


@pytest.mark.parametrize("make", LAYOUTS)
def test_every_form_of_the_download_gives_the_same_data_set(make, tmp_path, reference, out):
    report = import_ham10000(make(tmp_path / "made"), out)

    assert (out / "dataset.json").read_bytes() == (reference[1] / "dataset.json").read_bytes()
    assert {path.stem: path.read_bytes() for path in (out / "images").iterdir()} == IMAGES
    assert sum(sum(row.values()) for row in report.counts.values()) == len(ROWS)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("HAM10000_metadata.csv", metadata()),
        ("ham10000_METADATA.tab", metadata(delimiter="\t")),
        ("HAM10000_metadata", metadata().replace("\n", "\r\n")),
        ("HAM10000_metadata.csv", "\ufeff" + metadata()),
        (
            "HAM10000_metadata",
            "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in metadata().splitlines()),
        ),
        (
            "HAM10000_metadata.csv",
            "\n".join(f"{line},{'dataset' if line == HEADER else 'vidir_modern'}" for line in metadata().splitlines()),
        ),
        ("HAM10000_metadata", metadata([*reversed(ROWS)])),
    ],
    ids=["comma", "tab", "crlf", "bom", "quoted", "eight columns", "another order"],
)
def test_every_form_of_the_metadata_is_read(tmp_path, out, name, table):
    put(tmp_path / "source", {**parts(), name: table})
    import_ham10000(tmp_path / "source", out)

    [item] = [item for item in records_of(out) if item.pop("image") == "./images/ISIC_1510.jpg"]
    del item["split"]
    assert item == {"label": "nv", "group": "Lnv1", "age": 45.0, "sex": "male", "localization": "back"}


def test_training_reads_the_data_set_with_lesions_together_and_every_class_in_every_split(reference):
    dataset = read_dataset({"training": reference[1]}, validation_fraction=0.1, test_fraction=0.1, seed=0)

    assert dataset.labels == LABELS
    splits = split_of(reference[1])
    assert {name: len(dataset.split(name)) for name in SPLITS} == Counter(splits.values())
    sides = defaultdict(set)
    for lesion, image, _ in ROWS:
        sides[lesion].add(splits[image])
    assert all(len(found) == 1 for found in sides.values())
    assert {(label, splits[image]) for _, image, label in ROWS} == set(product(LABELS, SPLITS))


# --- metadata


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("L,I,naevus,,,,", r"unknown classes: 1 \(naevus\); dx must be one of akiec, bcc"),
        ("L,../I,nv,,,,", r"image_id that cannot be a file name: 1 \(../I\)"),
        (",I,nv,,,,", "rows without lesion_id"),
        ("L,,nv,,,,", "rows without lesion_id"),
        ("M,ISIC_1000,nv,,,,", r"image ids on several rows: 1 \(ISIC_1000\)"),
        ("Lmel0,I,nv,,,,", r"lesions with two classes: 1 \(Lmel0: mel and nv\)"),
        ("L,I,nv,,old,,", r"metadata of I: age is 'old', must be 0 to 130 years or empty"),
        ("L,I,nv,,inf,,", "age is 'inf'"),
        ("L,I,nv,,-5,,", "age is '-5'"),
    ],
)
def test_a_wrong_row_is_named(line, message):
    with pytest.raises(DatasetError, match=message):
        read_metadata((metadata() + line).encode(), what="HAM10000_metadata")


@pytest.mark.parametrize("age", ["", "unknown", "NA", "nan"])
def test_an_unknown_age_is_none_and_known_is_a_number(age):
    table = f"{HEADER}\nL,A,NV,,{age},unknown,\nL,B,nv,,85.0,female,scalp\n"
    first, second = read_metadata(table.encode(), what="m")

    assert first.metadata == {"age": None, "sex": "unknown", "localization": None}
    assert second.metadata == {"age": 85.0, "sex": "female", "localization": "scalp"}
    assert first.label == second.label == "nv"


def test_two_metadata_files_must_say_the_same(source, out):
    put(source, {"HAM10000_metadata.csv": metadata().replace("\n", "\r\n")})
    import_ham10000(source, out)

    put(source, {"HAM10000_metadata.csv": metadata().replace("45.0", "50.0")})
    with pytest.raises(DatasetError, match="metadata files differ"):
        import_ham10000(source, out)


def test_metadata_without_rows_is_refused():
    with pytest.raises(DatasetError, match="has no rows"):
        read_metadata(HEADER.encode(), what="m")


# --- images and metadata agree


def test_rows_without_image_and_images_without_row_are_refused_or_dropped(tmp_path, out):
    images = {name: data for name, data in IMAGES.items() if name not in ("ISIC_1010", "ISIC_1020")}
    source = dataverse(tmp_path / "source", images | {"EXTRA_1": jpeg(99)})

    with pytest.raises(DatasetError, match=r"images without metadata: 1 \(EXTRA_1\).*--mismatch drop"):
        import_ham10000(source, out)
    report = import_ham10000(source, out, Ham10000Options(mismatch="drop"))
    assert report.without_metadata == ["EXTRA_1"]
    assert report.without_image == ["ISIC_1010", "ISIC_1020"]
    assert "metadata without image: 2 (ISIC_1010, ISIC_1020)" in report.summary()
    assert {path.stem for path in (out / "images").iterdir()} == set(images) == set(split_of(out))


def test_rows_without_image_are_refused(tmp_path, out):
    source = dataverse(tmp_path / "source", {name: IMAGES[name] for name in list(IMAGES)[1:]})

    with pytest.raises(DatasetError, match=r"rows of the metadata without image: 1 \(ISIC_1000\)"):
        import_ham10000(source, out)
    assert not (out / "dataset.json").exists()


def test_the_same_image_twice_is_no_fault_but_two_images_of_one_name_are(source, out):
    put(source, {"HAM10000_images_part_1/ISIC_1000.jpg": IMAGES["ISIC_1000"]})
    import_ham10000(source, out)

    put(source, {"HAM10000_images_part_1/ISIC_1000.jpg": jpeg(99)})
    with pytest.raises(DatasetError, match="ISIC_1000 is there twice with different content"):
        import_ham10000(source, out)


# --- unsafe and broken files


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("../escape.jpg", jpeg(1), r"part_1.zip: member 1 .* outside the folder \('../escape.jpg'\)"),
        ("notes.txt", b"text", "part_1.zip holds notes.txt, which is not a JPEG"),
        ("ISIC_1000.jpg", b"not an image", "ISIC_1000 is not a sound JPEG"),
        ("ISIC_1000.jpg", jpeg(0)[:-300], "ISIC_1000 is not a sound JPEG"),
        ("ISIC_1000.jpg", bytes(20_000_000), "part_1.zip: a member of the archive inflates like a zip bomb"),
        ("inner.zip", zipped({"a.jpg": jpeg(1)}), "holds inner.zip, which is not a JPEG"),
    ],
)
def test_an_odd_member_of_a_part_is_refused(source, out, tmp_path, member, content, message):
    put(source, {"HAM10000_images_part_1.zip": zipped({member: content})})

    with pytest.raises(DatasetError, match=message):
        import_ham10000(source, out)
    assert not (out / "dataset.json").exists()
    assert not (tmp_path / "escape.jpg").exists()


def test_a_png_called_jpg_is_refused(source, out):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    put(source, {"HAM10000_images_part_1/ISIC_1000.jpg": buffer.getvalue()})

    with pytest.raises(DatasetError, match="ISIC_1000"):
        import_ham10000(source, out)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.md": "x"}, "has no HAM10000_metadata"),
        ({"HAM10000_metadata": metadata()}, "has no photographs"),
        ({"dataverse_files.zip": b"broken"}, "dataverse_files.zip: the archive is damaged"),
        (
            {"HAM10000_metadata": metadata(), "HAM10000_images_part_1.zip": b"broken"},
            "part_1.zip: the archive is damaged",
        ),
    ],
)
def test_what_is_no_download_is_refused(tmp_path, out, files, message):
    with pytest.raises(DatasetError, match=message):
        import_ham10000(put(tmp_path / "source", files), out)
    with pytest.raises(DatasetError, match="none is neither a folder nor a file"):
        import_ham10000(tmp_path / "none", out)


# --- given split


def given(splits):
    return "image_id,dx,split\n" + "".join(f"{image},x,{split}\n" for image, split in splits.items())


def cycle():
    """Lesions in turn to train, val, test; no lesion is torn."""
    names = ("train", "val", "test")
    return {image: names[int(lesion[-1]) % 3] for lesion, image, _ in ROWS}


def test_a_given_split_is_kept(source, out, tmp_path):
    put(tmp_path, {"split.csv": given(cycle())})
    report = import_ham10000(source, out, Ham10000Options(split_csv=tmp_path / "split.csv"))

    names = {"train": "training", "val": "validation", "test": "test"}
    assert split_of(out) == {image: names[split] for image, split in cycle().items()}
    assert report.moves == []


def test_a_lesion_on_two_sides_of_a_given_split_is_moved_or_refused(source, out, tmp_path):
    torn = cycle() | {"ISIC_1000": "test", "ISIC_1001": "train"}
    put(tmp_path, {"split.csv": given(torn)})

    with pytest.raises(DatasetError, match=r"lesions with images on two sides of the given split: 1 \(Lakiec0\)"):
        import_ham10000(source, out, Ham10000Options(split_csv=tmp_path / "split.csv", duplicates="refuse"))
    report = import_ham10000(source, out, Ham10000Options(split_csv=tmp_path / "split.csv"))
    assert report.moves == [{"image": "ISIC_1001", "group": "Lakiec0", "old": "training", "new": "test"}]
    assert "images moved to the side of their lesion: 1 (training -> test: 1)" in report.summary()
    assert split_of(out)["ISIC_1000"] == split_of(out)["ISIC_1001"] == "test"


def test_a_given_split_must_name_the_same_images_unless_they_are_dropped(source, out, tmp_path):
    splits = cycle()
    del splits["ISIC_1010"]
    put(tmp_path, {"short.csv": given(splits), "long.csv": given(cycle() | {"OTHER": "test"})})

    with pytest.raises(DatasetError, match=r"not in the given split: 1 \(ISIC_1010\)"):
        import_ham10000(source, out, Ham10000Options(split_csv=tmp_path / "short.csv"))
    with pytest.raises(DatasetError, match=r"of the given split that are not in the metadata: 1 \(OTHER\)"):
        import_ham10000(source, out, Ham10000Options(split_csv=tmp_path / "long.csv"))
    report = import_ham10000(source, out, Ham10000Options(split_csv=tmp_path / "short.csv", mismatch="drop"))
    assert report.without_split == ["ISIC_1010"]
    assert "ISIC_1010" not in split_of(out)
    assert not (out / "images/ISIC_1010.jpg").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,dx\nA,nv\n", "no column split"),
        ("image_id,split\nA,holdout\n", "A has split 'holdout'; use train, val or test"),
        ("image_id,split\nA,train\nA,test\n", "A is in two splits"),
    ],
)
def test_a_wrong_split_file_is_refused(text, message):
    with pytest.raises(DatasetError, match=message):
        read_split(text.encode(), what="split.csv")


# --- near-identical images


@pytest.fixture
def copied(tmp_path):
    """One lesion's only photograph is another's, mirrored and compressed again; and a byte-identical pair."""
    original = jpeg(99, (192, 144))
    with Image.open(io.BytesIO(original)) as picture:
        buffer = io.BytesIO()
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(buffer, "JPEG", quality=60)
    images = IMAGES | {"ISIC_1510": original, "ISIC_1520": buffer.getvalue(), "ISIC_1430": IMAGES["ISIC_1440"]}
    return dataverse(tmp_path / "copied", images)


def test_near_identical_images_of_different_lesions_share_a_group_and_a_split(copied, out):
    report = import_ham10000(copied, out)

    named = [(pair["first"], pair["second"], pair["is_byte_identical"]) for pair in report.pairs]
    assert named == [("ISIC_1430", "ISIC_1440", True), ("ISIC_1510", "ISIC_1520", False)]
    assert all(not pair["is_one_lesion"] and pair["is_one_class"] for pair in report.pairs)
    groups = {Path(item["image"]).stem: item["group"] for item in records_of(out)}
    for first, second, _ in named:
        assert split_of(out)[first] == split_of(out)[second]
        assert groups[first] == groups[second]
    assert json.loads((out / "import_report.json").read_text())["pairs"] == report.pairs
    assert "of different lesions: 2 (ISIC_1430 = ISIC_1440, ISIC_1510 = ISIC_1520)" in report.summary()


def test_near_identical_images_on_two_sides_are_moved_or_refused(copied, out, tmp_path):
    splits = dict.fromkeys(cycle(), "train") | {"ISIC_1500": "val", "ISIC_1501": "val", "ISIC_1520": "test"}
    put(tmp_path, {"split.csv": given(splits)})

    with pytest.raises(DatasetError, match=r"two sides of the split: 1 pairs \(ISIC_1510 = ISIC_1520\)"):
        import_ham10000(copied, out, Ham10000Options(split_csv=tmp_path / "split.csv", duplicates="refuse"))
    report = import_ham10000(copied, out, Ham10000Options(split_csv=tmp_path / "split.csv"))
    assert [(move["image"], move["new"]) for move in report.moves] == [("ISIC_1510", "test")]


def test_blank_images_that_are_byte_identical_are_a_pair(tmp_path, out):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(buffer, "JPEG")
    blank = buffer.getvalue()
    report = import_ham10000(dataverse(tmp_path / "s", IMAGES | {"ISIC_1010": blank, "ISIC_1120": blank}), out)

    assert [(pair["first"], pair["second"], pair["is_one_class"]) for pair in report.pairs] == [
        ("ISIC_1010", "ISIC_1120", False)
    ]


# --- shrinking


def test_images_are_shrunk_in_proportion_never_enlarged(tmp_path, out):
    images = IMAGES | {"ISIC_1000": jpeg(0, (300, 150)), "ISIC_1001": jpeg(1, (90, 301))}
    import_ham10000(dataverse(tmp_path / "s", images), out, Ham10000Options(max_side=60))

    for name, size in (("ISIC_1000", (60, 30)), ("ISIC_1001", (18, 60))):
        with Image.open(out / f"images/{name}.jpg") as picture:
            assert picture.size == size
    assert (out / "images/ISIC_1010.jpg").read_bytes() == IMAGES["ISIC_1010"]


def test_a_shrunk_image_looks_like_the_original_and_stands_upright(tmp_path, out):
    exif = Image.Exif()
    exif[0x0112] = 8  # shown turned by 90 degrees counter-clockwise
    import_ham10000(
        dataverse(tmp_path / "s", IMAGES | {"ISIC_1000": jpeg(0, (400, 200), exif=exif)}),
        out,
        Ham10000Options(max_side=80),
    )

    with Image.open(out / "images/ISIC_1000.jpg") as small, Image.open(io.BytesIO(jpeg(0, (400, 200)))) as large:
        assert small.size == (40, 80)
        assert not small.getexif()
        expected = large.transpose(Image.Transpose.ROTATE_90).resize((40, 80), Image.Resampling.BOX)
        assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 4


# --- repeating


def test_a_second_run_writes_nothing(reference, out, monkeypatch):
    source = reference[0]
    first = import_ham10000(source, out)
    before = {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*"))}
    monkeypatch.setattr(ham10000, "thumbnail", None)  # no image is opened again
    again = import_ham10000(source, out)

    assert again.is_repeated
    assert (again.counts, again.pairs, again.moves) == (first.counts, first.pairs, first.moves)
    assert {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*"))} == before
    assert "nothing to do" in again.summary()
    assert "nothing to do" not in first.summary()


def test_other_options_replace_the_import_cleanly_and_the_split_does_not_depend_on_shrinking(reference, out):
    source, fresh = reference
    import_ham10000(source, out, Ham10000Options(max_side=20))
    assert (out / "dataset.json").read_bytes() == (fresh / "dataset.json").read_bytes()
    assert contents(out) != contents(fresh)

    assert not import_ham10000(source, out).is_repeated
    assert contents(out) == contents(fresh)


def test_images_that_no_longer_belong_are_removed(imported, out, tmp_path):
    fewer = [row for row in ROWS if row[1] != "ISIC_1030"]
    images = {image: IMAGES[image] for _, image, _ in fewer}
    import_ham10000(dataverse(tmp_path / "fewer", images, metadata(fewer)), out)

    assert {path.stem for path in (out / "images").iterdir()} == set(images)


@pytest.mark.parametrize("damage", ["images/ISIC_1000.jpg", "dataset.json"])
def test_what_is_missing_or_changed_in_the_folder_is_made_again(imported, out, damage):
    before = contents(out)
    (out / damage).unlink()
    import_ham10000(imported, out)
    assert contents(out) == before

    (out / damage).write_bytes(b"changed")
    import_ham10000(imported, out)
    assert contents(out) == before


def test_an_interrupted_run_leaves_no_data_set_and_can_be_repeated(imported, reference, out, monkeypatch):
    thumbnail, calls = ham10000.thumbnail, []

    def interrupted(data):
        calls.append(data)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return thumbnail(data)

    monkeypatch.setattr(ham10000, "thumbnail", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_ham10000(imported, out, Ham10000Options(seed=1))
    assert not (out / "dataset.json").exists()
    monkeypatch.setattr(ham10000, "thumbnail", thumbnail)
    import_ham10000(imported, out)
    assert contents(out) == contents(reference[1])


def test_a_refusal_before_the_first_image_leaves_the_earlier_import_alone(imported, source, out):
    before = contents(out)
    put(source, {"HAM10000_metadata": metadata().replace("nv", "naevus")})

    with pytest.raises(DatasetError, match="unknown classes"):
        import_ham10000(source, out)
    assert contents(out) == before


@pytest.mark.parametrize("foreign", ["notes.txt", "dataset.json", "images/holiday.jpg", "import_report.json"])
def test_a_folder_with_other_peoples_files_is_refused_and_untouched(source, out, foreign):
    put(out, {foreign: "mine"})

    with pytest.raises(DatasetError, match=r"what no import wrote: 1|is not an importer's"):
        import_ham10000(source, out)
    assert contents(out) == {foreign: b"mine"}


def test_a_foreign_image_in_an_earlier_import_is_refused(imported, out):
    put(out, {"images/holiday.jpg": "mine"})

    with pytest.raises(DatasetError, match=r"what no import wrote: 1 \(images/holiday.jpg\)"):
        import_ham10000(imported, out, Ham10000Options(seed=1))
    assert (out / "images/holiday.jpg").read_bytes() == b"mine"


def test_the_output_may_not_be_a_file_or_lead_elsewhere(imported, out, tmp_path):
    put(tmp_path, {"file": "mine"})
    with pytest.raises(DatasetError, match="file is not a folder"):
        import_ham10000(imported, tmp_path / "file")

    shutil.move(out / "images", tmp_path / "elsewhere")
    (out / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"what no import wrote: 1 \(images\)"):
        import_ham10000(imported, out, Ham10000Options(seed=1))


# --- masks


def mask_png(seed, size=(48, 36), values=(0, 255)):
    pixels = np.full((size[1], size[0]), values[0], np.uint8)
    pixels[5 : 10 + seed % 20, 8 : 12 + seed % 30] = values[1]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


MASKS = {image: mask_png(number) for number, image in enumerate(IMAGES)}
MASKS_ZIP = "HAM10000_segmentations_lesion_tschandl.zip"
OF_MASKS = Ham10000Options(task="segmentation")


def masks_zip(masks=MASKS):
    folder = MASKS_ZIP.removesuffix(".zip")
    return {MASKS_ZIP: zipped({f"{folder}/{image}_segmentation.png": data for image, data in masks.items()})}


def with_masks(folder, masks=MASKS, images=IMAGES):
    return put(dataverse(folder, images), masks_zip(masks))


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_masks_become_labels_with_the_lesion_as_group(tmp_path, reference, out):
    report = import_ham10000(with_masks(tmp_path / "source"), out, OF_MASKS)

    for image, data in MASKS.items():
        assert np.array_equal(pixels_of(out / f"masks/{image}.png"), pixels_of(io.BytesIO(data)))
    assert content_of(out)["labels"] == {"0": "background", "1": "lesion"}
    [item] = [item for item in records_of(out) if item.pop("image") == "./images/ISIC_1510.jpg"]
    del item["split"]
    assert (item.pop("label"), item.pop("dx")) == ("./masks/ISIC_1510.png", "nv")
    assert item == {"group": "Lnv1", "age": 45.0, "sex": "male", "localization": "back"}
    assert split_of(out) == split_of(reference[1])  # that of the diagnoses
    dataset = read_dataset({"training": out}, validation_fraction=0.1, test_fraction=0.1, seed=0)
    assert (dataset.task, dataset.labels, len(dataset.training)) == ("segmentation", ("lesion",), report_size(report))
    assert import_ham10000(tmp_path / "source", out, OF_MASKS).is_repeated


def report_size(report):
    return sum(row["training"] for row in report.counts.values())


def test_masks_of_every_form_of_the_download_are_found(tmp_path, out):
    import_ham10000(with_masks(tmp_path / "source"), out, OF_MASKS)
    loose = {f"HAM10000_segmentations_lesion_tschandl/{image}_segmentation.png": data for image, data in MASKS.items()}
    outer = {**parts(), "HAM10000_metadata.tab": metadata(delimiter="\t"), **masks_zip()}
    sources = [
        put(dataverse(tmp_path / "loose"), loose),
        put(tmp_path / "outer", {"dataverse_files.zip": zipped(outer)}),
        put(tmp_path / "kaggle", {"archive.zip": zipped({**kaggle_files(), **loose})}),
    ]
    for number, source in enumerate(sources):
        import_ham10000(source, tmp_path / f"out{number}", OF_MASKS)
        assert contents(tmp_path / f"out{number}/masks") == contents(out / "masks")
        assert (tmp_path / f"out{number}/dataset.json").read_bytes() == (out / "dataset.json").read_bytes()


def test_a_mask_is_shrunk_as_its_photograph(tmp_path, out):
    images = IMAGES | {"ISIC_1000": jpeg(0, (300, 150))}
    masks = MASKS | {"ISIC_1000": mask_png(19, (300, 150))}
    options = Ham10000Options(task="segmentation", max_side=60)
    import_ham10000(with_masks(tmp_path / "source", masks, images), out, options)

    assert pixels_of(out / "masks/ISIC_1000.png").shape == (30, 60)
    assert set(np.unique(pixels_of(out / "masks/ISIC_1000.png"))) == {0, 255}


def test_going_back_to_diagnoses_removes_the_masks(tmp_path, reference, out):
    source = with_masks(tmp_path / "source")
    import_ham10000(source, out, OF_MASKS)
    import_ham10000(source, out)

    assert not (out / "masks").exists()
    assert (out / "dataset.json").read_bytes() == (reference[1] / "dataset.json").read_bytes()


def test_photographs_and_masks_must_agree_or_are_dropped(tmp_path, out):
    masks = {image: data for image, data in MASKS.items() if image != "ISIC_1010"} | {"OTHER": mask_png(1)}
    source = with_masks(tmp_path / "source", masks)

    with pytest.raises(DatasetError, match=r"images without mask: 1 \(ISIC_1010\).*--mismatch drop"):
        import_ham10000(source, out, OF_MASKS)
    report = import_ham10000(source, out, Ham10000Options(task="segmentation", mismatch="drop"))
    assert "left out, images without mask: 1 (ISIC_1010)" in report.summary()
    assert "left out, masks without image: 1 (OTHER)" in report.summary()
    assert "ISIC_1010" not in split_of(out)
    assert not (out / "images/ISIC_1010.jpg").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (mask_png(0, (40, 36)), "the mask of ISIC_1000 cannot be used: .*40 x 36.*48 x 36"),
        (mask_png(0, values=(0, 7)), r"the mask of ISIC_1000 has other values than 0 and 255 or 1 \(7\)"),
        (b"no picture", "the mask of ISIC_1000 cannot be used"),
    ],
)
def test_a_mask_that_is_none_of_its_photograph_is_refused(tmp_path, out, data, message):
    with pytest.raises(DatasetError, match=message):
        import_ham10000(with_masks(tmp_path / "source", MASKS | {"ISIC_1000": data}), out, OF_MASKS)
    assert not (out / "dataset.json").exists()


def test_without_masks_the_missing_file_is_named(source, out):
    with pytest.raises(DatasetError, match=r"no masks of its photographs; add HAM10000_segmentations_lesion_tschandl"):
        import_ham10000(source, out, OF_MASKS)


# --- options and command line


def test_options_out_of_range_are_refused_before_anything_is_written(source, out):
    values = {"fractions": (0.5, 0.5, 0.5), "max_side": 0, "duplicates": "keep", "mismatch": "ignore"}
    for name, value in {**values, "split_csv": Path("none.csv")}.items():
        with pytest.raises(ConfigError):
            import_ham10000(source, out, Ham10000Options(**{name: value}))
    assert not out.exists()


def test_the_command_prints_a_table_and_refuses_with_one_line(source, out, capsys):
    assert main(["ham10000", str(source), str(out), "--train", "0.5", "--validation", "0.25", "--test", "0.25"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == ["class", *SPLITS]
    total = [int(number) for number in lines[8].split()[1:]]
    assert lines[8].startswith("total")
    assert sum(total) == len(ROWS)
    assert total[0] < 0.6 * len(ROWS)

    assert main(["ham10000", str(source), str(out), "--split-csv", "x.csv", "--test", "0.2"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "ConfigError: --split-csv gives the split already; leave out --test\n"
    assert main(["ham10000", str(source / "none"), str(out)]) == 1
    assert capsys.readouterr().err.startswith("DatasetError: none is neither")


# --- the real thing


@pytest.mark.long
def test_the_real_photographs_are_imported(shared_data, tmp_path, out):
    """A tenth of the real download: every tenth lesion, and the two lesions that share a photograph."""
    folder = shared_data / "ham10000"
    table = list(csv.DictReader(io.StringIO((folder / "HAM10000_metadata").read_text())))
    lesions = set(sorted({row["lesion_id"] for row in table})[::10])
    lesions |= {row["lesion_id"] for row in table if row["image_id"] in ("ISIC_0025226", "ISIC_0030074")}
    rows = [row for row in table if row["lesion_id"] in lesions]
    wanted = {f"{row['image_id']}.jpg" for row in rows}
    source = tmp_path / "source"
    for part in (1, 2):
        with zipfile.ZipFile(folder / f"HAM10000_images_part_{part}.zip") as archive:
            members = {name: archive.read(name) for name in archive.namelist() if name in wanted}
        put(source, {f"HAM10000_images_part_{part}.zip": zipped(members)})
    with (source / "HAM10000_metadata").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(rows)
    report = import_ham10000(source, out)

    assert [(pair["first"], pair["second"]) for pair in report.pairs if not pair["is_one_lesion"]] == [
        ("ISIC_0025226", "ISIC_0030074")
    ]
    sides, splits = defaultdict(set), split_of(out)
    for row in rows:
        sides[row["lesion_id"]].add(splits[row["image_id"]])
    assert all(len(found) == 1 for found in sides.values())
    for counts in report.counts.values():
        total = sum(counts.values())
        for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
            assert abs(counts[split] - share * total) <= 6  # about the largest lesion


def test_a_full_disk_is_one_line_and_no_trace(source, out, monkeypatch, capsys):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sagemaker_monai.prepare.output.begin", fail)

    assert main(["ham10000", str(source), str(out)]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_what_is_not_ham10000_is_not_called_so(source, out):
    assert main(["ham10000", str(source), str(out), "--title", "Synthetic sample"]) == 0

    written = content_of(out)
    assert written["name"] == "Synthetic sample"
    assert "HAM10000" not in written["reference"] + written["licence"]
    assert read_dataset({"training": out}, validation_fraction=0.1, test_fraction=0.1, seed=0).title == written["name"]
