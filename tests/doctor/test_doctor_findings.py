"""What the examination finds: labels, copies, leaks, series, privacy; each against a data set made to have it."""

import json

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.deidentification.identity import Identity
from sagemaker_monai.doctor.contact_sheet import choose, contact_sheet
from sagemaker_monai.doctor.examine import Options, examine, syntax_name
from sagemaker_monai.doctor.privacy import WITHHELD, Scrubber
from sagemaker_monai.doctor.thumbnails import SIDE, Picture, draw
from tests.support.dicom_series import CT, make_series, make_slice, pixels, positions_of, to_bytes, write_series
from tests.support.examined import slice_of, sound, write_dataset
from tests.support.imported import put
from tests.support.made_dicom import made_file
from tests.support.places import SHARED_DATA
from tests.support.workbooks import workbook


@pytest.fixture
def examined(tmp_path):
    """Examines a folder, or channels, in this process."""

    def run(source, **options):
        scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        return examine(source if isinstance(source, dict) else {"training": source}, scratch, Options(**options))

    return run


def found(examination, code):
    [each] = [each for each in examination.remarks if each.code == code]
    return each


def codes(examination, severity=None):
    return {each.code for each in examination.remarks if severity in (None, each.severity)}


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_without_images_and_images_without_labels_are_counted(examined, tmp_path):
    items = [*sound(10), (None, {"label": "benign"}), (None, {"label": "malignant"})]
    items.append((b"no picture", {"label": "benign", "name": "notes.txt"}))
    folder = write_dataset(tmp_path / "data", items)
    (folder / "images" / "unlisted.dcm").write_bytes(to_bytes(slice_of(99)))

    examination = examined(folder)

    assert found(examination, "labels_without_images").count == 2
    assert found(examination, "labels_without_images").severity == "error"
    assert found(examination, "images_without_labels").count == 1
    assert found(examination, "images_without_labels").examples == (12,)  # dataset.json, ten images, and this
    assert found(examination, "labelled_without_picture").count == 1
    assert found(examination, "labelled_without_picture").examples == ()  # a text is none of the examined images
    assert examination.labels["labelled"] == 13
    assert examination.labels["with_files"] == 10


def test_what_train_refuses_is_told_without_names_and_the_rest_is_still_examined(examined, tmp_path):
    folder = write_dataset(tmp_path / "data", [*sound(6), (None, {"label": "benign", "name": "Doe/John.dcm"})])

    hidden, shown = examined(folder), examined(folder, show_names=True)

    assert "dataset.json names images that are not in the channel: 1 of 7; " in found(hidden, "unsound_layout").message
    assert "(./Doe/John.dcm)" in found(shown, "unsound_layout").message
    assert hidden.numbers["usable_image_files"] == 6


def test_classes_are_counted_by_split_and_empty_or_unseen_ones_told(examined, tmp_path):
    labels = {"0": "benign", "1": "malignant", "2": "other", "3": "none"}
    items = [*sound(24), (slice_of(50), {"label": "other", "split": "test"})]

    examination = examined(write_dataset(tmp_path / "data", items, labels=labels))

    assert examination.labels["classes"] == {
        "benign": {"training": 8, "validation": 4, "test": 0, "all": 12},
        "malignant": {"training": 8, "validation": 4, "test": 0, "all": 12},
        "other": {"training": 0, "validation": 0, "test": 1, "all": 1},
        "none": {"training": 0, "validation": 0, "test": 0, "all": 0},
    }
    assert found(examination, "empty_classes").message.count("none") == 1
    assert found(examination, "class_not_in_training").severity == "error"
    assert "(other)" in found(examination, "class_not_in_training").message
    assert "12 times" in found(examination, "imbalance").message


def test_findings_and_numbers_are_counted_as_what_they_are(examined, tmp_path):
    items = [(slice_of(n), {"label": (["a"], ["a", "b"], [])[n % 3]}) for n in range(9)]
    several = examined(write_dataset(tmp_path / "several", items, labels={"0": "a", "1": "b"}, task="multilabel"))
    items = [(slice_of(n), {"label": 1.5 * n}) for n in range(9)]
    numbers = examined(write_dataset(tmp_path / "numbers", items, labels={"0": "age"}, task="regression"))

    assert {name: each["all"] for name, each in several.labels["classes"].items()} == {"a": 6, "b": 3}
    assert several.labels["task"] == "multilabel"
    assert numbers.labels["range"] == [0.0, 12.0]


def test_a_table_of_ones_own_is_read_by_its_columns(examined, tmp_path):
    folder = put(tmp_path / "data", {f"{n}.dcm": to_bytes(slice_of(n)) for n in range(4)})
    table = tmp_path / "answers.csv"
    table.write_text("File;Finding;Who\n0.dcm;yes;p0\n1.dcm;no;p1\n2.dcm;yes;p2\n../answers.csv;no;p3\n")

    examination = examined(folder, labels=table, columns={"image": "File", "label": "Finding", "group": "Who"})

    assert examination.labels["source"] == "table"
    assert examination.labels["groups"] == 4
    assert {name: each["all"] for name, each in examination.labels["classes"].items()} == {"no": 2, "yes": 2}
    assert found(examination, "labels_without_images").count == 1  # the one that leads out of the data set
    assert found(examination, "images_without_labels").examples == (4,)


def test_a_table_of_ones_own_may_leave_out_suffix_and_folder(examined, tmp_path):
    names = ("part1/a.dcm", "part2/b.dcm", "part1/twice.dcm", "part2/twice.dcm")
    put(tmp_path / "data", {name: to_bytes(slice_of(ord(name[6]))) for name in names})
    (tmp_path / "answers.csv").write_text("image,label\na,x\nb.dcm,y\ntwice,x\n")

    examination = examined(tmp_path / "data", labels=tmp_path / "answers.csv")

    assert examination.labels["with_files"] == 2
    assert found(examination, "labels_without_images").count == 1  # which of the two is meant nobody knows


def test_folders_called_as_their_patients_are_not_taken_for_classes(examined, tmp_path):
    put(tmp_path / "data", {f"Patient-{n:04d}/series/1": to_bytes(slice_of(n)) for n in range(3)})

    examination = examined(tmp_path / "data")

    assert found(examination, "folders_are_no_classes").count == 3
    assert examination.labels["labelled"] == 0


# --- sides of the split ----------------------------------------------------------------------------------------------


def test_groups_patients_and_series_on_two_sides_are_errors(examined, tmp_path):
    def split(first, second, group="", **elements):
        name = f"data{len(list(tmp_path.iterdir()))}"
        items = sound(12)
        for number, side in ((0, first), (1, second)):
            line = {"label": ("benign", "malignant")[number], "split": side} | ({"group": group} if group else {})
            items[number] = (slice_of(number, **elements), line)
        return codes(examined(write_dataset(tmp_path / name, items)), "error")

    assert "groups_across_splits" in split("training", "test", group="lesion")
    assert split("training", "test", PatientID="P7") == {"patients_across_splits"}
    assert split("training", "training", PatientID="P7") == set()
    assert split("training", "test", PatientID="", SeriesInstanceUID="1.2.3") == {"series_across_splits"}


def test_an_id_that_everybody_has_is_no_patient_on_two_sides(examined, tmp_path):
    items = [(slice_of(n, PatientID="P1"), item[1]) for n, item in enumerate(sound(12))]
    nobody = [(slice_of(n, PatientID="ANONYMOUS"), item[1]) for n, item in enumerate(sound(12))]

    one = examined(write_dataset(tmp_path / "one", items))
    none = examined(write_dataset(tmp_path / "none", nobody))

    assert codes(one, "error") == codes(none, "error") == set()
    assert found(one, "one_patient").severity == "warning"
    assert found(none, "no_patient").count == 12


def test_a_patient_with_several_groups_is_an_error_when_the_split_is_yet_to_be_drawn(examined, tmp_path):
    rows = ["image,label,group"]
    (tmp_path / "data").mkdir()
    for n in range(8):
        (tmp_path / "data" / f"{n}.dcm").write_bytes(to_bytes(slice_of(n, PatientID=f"P{n // 2}")))
        rows.append(f"{n}.dcm,{'ab'[n % 2]},g{n}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))

    torn = examined(tmp_path / "data")
    (tmp_path / "data" / "labels.csv").write_text(
        "\n".join([rows[0], *(f"{n}.dcm,{'ab'[n % 2]},P{n // 2}" for n in range(8))])
    )
    whole = examined(tmp_path / "data")

    assert found(torn, "patients_in_several_groups").count == 4
    assert codes(whole, "error") == set()


# --- copies ----------------------------------------------------------------------------------------------------------


def test_copies_are_found_by_bytes_and_by_pixels_whatever_the_encoding(examined, tmp_path):
    values = np.random.default_rng(0).integers(0, 200, (12, 16)).astype(np.int16)
    signed = to_bytes(make_slice(values - 100, RescaleIntercept=100, RescaleSlope=1))
    files = {
        "a.dcm": signed,
        "b.dcm": signed,
        "c.dcm": made_file(values[None].astype(np.uint16), BitsStored=12, HighBit=11),
        "e.dcm": made_file(values[None, ::-1].astype(np.uint16)),
        "blank1.dcm": made_file(np.zeros((1, 12, 16), np.uint8)),
        "blank2.dcm": made_file(np.zeros((1, 12, 16), np.uint16)),
    }
    folder = put(tmp_path / "data", files)
    Image.fromarray(values.astype(np.uint8)).save(folder / "d.png")

    examination = examined(folder)

    assert found(examination, "duplicate_bytes").examples == (2,)
    assert found(examination, "duplicate_pixels").count == 2  # c and d; the copies by bytes count once
    assert found(examination, "blank_images").count == 2


def test_copies_across_splits_labels_and_patients_are_told_apart(examined, tmp_path):
    values = pixels((1, 12, 10), seed=5)[0]

    def pair(first, second, **elements):
        items = sound(12)
        other = {"PatientID": "Patient-0000", "SeriesInstanceUID": "1.2.3.2"} | elements
        items[0] = (make_slice(values, PatientID="Patient-0000", SeriesInstanceUID="1.2.3.1"), first)
        items[1] = (make_slice(values, **other), second)
        return codes(examined(write_dataset(tmp_path / f"data{len(list(tmp_path.iterdir()))}", items)))

    benign, malignant = {"label": "benign"}, {"label": "malignant"}
    assert not {"duplicates_across_splits", "duplicates_label_conflict", "duplicates_across_patients"} & pair(
        dict(benign), dict(benign)
    )
    assert "duplicates_label_conflict" in pair(dict(benign), dict(malignant))
    assert "duplicates_across_splits" in pair(dict(benign), benign | {"split": "test"})
    assert "duplicates_across_patients" in pair(dict(benign), dict(benign), PatientID="Patient-0001")


def test_without_pixels_only_equal_files_are_copies(examined, tmp_path):
    items = sound(6)
    items[4] = (items[0][0], items[4][1])

    examination = examined(write_dataset(tmp_path / "data", items), pixels="none")

    assert found(examination, "duplicate_bytes").count == 1
    assert "duplicates_across_splits" in codes(examination, "error")  # 0 is in training, 4 in validation


def test_photographs_that_look_alike_are_found(examined, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(3)
    for name in "ab":
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    Image.open(folder / "a.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((120, 90)).save(folder / "c.png")

    assert found(examined(folder), "near_identical").examples == (3,)


# --- series ----------------------------------------------------------------------------------------------------------


def test_series_that_cannot_be_used_are_told_by_the_code_of_the_reader(examined, tmp_path):
    places = positions_of(6)
    write_series(tmp_path / "data" / "sound", make_series(pixels()))
    gap = make_series(pixels(seed=1)[[0, 1, 2, 4, 5]], places=places[[0, 1, 2, 4, 5]], SeriesInstanceUID="1.2.3.9")
    write_series(tmp_path / "data" / "gap", gap)

    examination = examined(tmp_path / "data")

    assert {key: examination.numbers[key] for key in ("series", "volumes", "usable_volumes")} == {
        "series": 2, "volumes": 2, "usable_volumes": 1,
    }  # fmt: skip
    assert found(examination, "missing_slices").severity == "error"
    assert found(examination, "missing_slices").unit == "series"
    assert found(examination, "missing_slices").message.startswith("1 slices are missing")


def test_mixtures_of_modality_and_spacing_are_told(examined, tmp_path):
    fine, coarse = slice_of(0, PixelSpacing=[0.5, 0.5]), slice_of(1, PixelSpacing=[1.0, 1.0], **CT)

    examination = examined(put(tmp_path / "data", {"a.dcm": to_bytes(fine), "b.dcm": to_bytes(coarse)}))

    assert "(CR 1, CT 1)" in found(examination, "mixed_modality").message
    assert "from 0.5 to 1 mm" in found(examination, "mixed_spacing").message
    assert examination.counts["SpacingMm"] == {"0.50 x 0.50": 1, "1.00 x 1.00": 1}


# --- privacy ---------------------------------------------------------------------------------------------------------


def test_burned_in_text_is_told_by_modality_and_kind_of_statement(examined, tmp_path):
    kinds = [{"Modality": "US"}, {"Modality": "US", "BurnedInAnnotation": "NO"}, {"BurnedInAnnotation": "YES"}, {}]
    files = {f"{number}.dcm": to_bytes(slice_of(number, **elements)) for number, elements in enumerate(kinds)}

    examination = examined(put(tmp_path / "data", files))

    assert examination.privacy["burned_in"] == {"CR": {"stated": 1, "unknown": 1}, "US": {"likely": 2}}
    assert found(examination, "burned_in_stated").examples == (3,)
    assert found(examination, "burned_in_likely").examples == (1, 2)  # that it says NO is its own word


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("SIEMENS", True), ("melanoma", True), ("class 12", True), ("Doe", False), ("of DOE, J.", False),
        ("doe_scan", False), ("id 4711-x here", False), ("19700101", False), ("1.2.840.113619.2.5", False),
        ("1970-01-01", False), ("Doerner", True),
    ],
)  # fmt: skip
def test_texts_are_shown_unless_they_say_who(text, is_shown):
    class Facts:
        identity = Identity(names=frozenset({"Doe^J"}), numbers=frozenset({"4711-X"}))

    assert Scrubber([Facts()]).shown(text) == (text if is_shown else WITHHELD)


def test_transfer_syntaxes_are_named_and_others_not_shown():
    assert syntax_name("1.2.840.10008.1.2.1") == "Explicit VR Little Endian"
    assert syntax_name("1.2.840.113619.5.2") == "(not of the standard)"
    assert syntax_name("1.2.840.10008.5.1.4.1.1.2") == "(not of the standard)"
    assert syntax_name("") == "(none)"


# --- the sheet -------------------------------------------------------------------------------------------------------


def test_pictures_are_chosen_evenly_over_classes():
    few = [(Picture((), "DICOM", 0), "few", n) for n in range(3)]
    many = [(Picture((), "DICOM", 0), "many", n) for n in range(100)]

    chosen = choose(few + many, 13)

    assert [number for _, name, number in chosen if name == "few"] == [0, 1, 2]
    assert [number for _, name, number in chosen if name == "many"] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_the_sheet_has_a_place_for_each_picture_and_shows_the_windowed_values(examined, tmp_path):
    values = np.zeros((16, 16), np.int16)
    values[:, 8:] = 1000
    windowed = make_slice(values, WindowCenter=2000, WindowWidth=4000)
    inverted = make_slice(values, SeriesInstanceUID="1.2.3", PhotometricInterpretation="MONOCHROME1")
    folder = put(tmp_path / "data", {"a.dcm": to_bytes(windowed), "b.dcm": to_bytes(inverted)})

    drawn = [draw(Picture((folder / name,), "DICOM", 256)) for name in ("a.dcm", "b.dcm")]
    sheet, count = contact_sheet(examined(folder))

    # LINEAR (PS3.3 C.11.2.1.2.1): (x - 1999.5) / 3999 + 0.5, so 1000 is 0.25 and 0 is black.
    assert abs(int(drawn[0][64, 100, 0]) - 0.25 * 255) <= 1
    assert drawn[0][64, 20].tolist() == [0, 0, 0]
    assert drawn[1][64, 20].tolist() == [255, 255, 255]
    assert count == 2
    assert sheet.startswith(b"\x89PNG")


def test_a_volume_is_shown_by_its_middle_planes_head_up(tmp_path):
    values = np.zeros((8, 16, 16), np.int16)
    values[7] = 1000  # the uppermost slice of an axial series: its position grows to the head
    files = write_series(tmp_path / "series", make_series(values, WindowCenter=500, WindowWidth=1000))

    drawn = draw(Picture(tuple(files), "DICOM", values.size))

    half = SIDE // 2
    coronal = drawn[:half, half:]
    lit = np.flatnonzero(coronal[:, half // 2, 0] > 128)
    assert len(lit)
    assert lit.max() < half // 2  # in its upper half only
    assert not drawn[half:, half:].any()


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED_DATA / "ct_contrast_dicom").is_dir(), reason="needs the real data set")
def test_the_ct_slices_are_known_for_their_copies_and_their_scanners(examined):
    folder = SHARED_DATA / "ct_contrast_dicom"

    examination = examined(
        folder,
        labels=folder / "labels.csv",
        columns={"image": "file", "label": "contrast", "group": "patient_id"},
        pixels="none",
    )

    assert examination.numbers["patients"] == 41
    assert examination.counts["BitsStored"] == {"12": 44, "16": 26}
    assert examination.duplicates["equal_bytes"] == 2
    assert codes(examination, "error") == set()
    assert {"ManufacturerModelName", "TransferSyntaxUID"} <= {each.attribute for each in examination.associations}
    assert "confounded" in codes(examination, "warning")


@pytest.mark.skipif(not (SHARED_DATA / "dicom_series").is_dir(), reason="needs the real data set")
def test_the_mr_series_are_four_volumes_of_two_patients(examined):
    examination = examined(SHARED_DATA / "dicom_series", pixels="none")

    assert {key: examination.numbers[key] for key in ("patients", "series", "usable_volumes")} == {
        "patients": 2, "series": 4, "usable_volumes": 4,
    }  # fmt: skip
    assert examination.counts["Size"] == {"280 x 320 x 22": 2, "34 x 50 x 40": 1, "35 x 51 x 32": 1}
    assert found(examination, "phi_in_names").count == 116
    assert "PGBM" not in json.dumps([each.message for each in examination.remarks]) + str(examination.labels)


@pytest.mark.skipif(not (SHARED_DATA / "odd_dicom").is_dir(), reason="needs the real data set")
def test_of_the_odd_files_every_one_is_counted_and_those_without_a_picture_told(examined):
    examination = examined(SHARED_DATA / "odd_dicom")

    assert examination.kinds["DICOM"] == examination.privacy["headers_examined"]
    assert examination.numbers["usable_image_files"] > 100
    assert found(examination, "no_picture").count == 8
    assert "unreadable_images" in codes(examination, "error")


@pytest.mark.skipif(not (SHARED_DATA / "odd_nifti").is_dir(), reason="needs the real data set")
def test_odd_volumes_are_told_by_the_code_of_their_fault(examined):
    assert examined(SHARED_DATA / "odd_nifti").faults == {"UndecodableImage": 1, "UnsuitableImage": 1}


def test_masks_beside_images_are_counted_and_are_no_images_of_a_class(examined, tmp_path):
    for label, seed in (("a", 0), ("b", 50)):
        (tmp_path / label).mkdir()
        for number in range(6):
            values = np.random.default_rng(seed + number).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / label / f"{number}.png")
            Image.fromarray(values > 100 + seed).save(tmp_path / label / f"{number}_mask.png")
    Image.fromarray(values).save(tmp_path / "a" / "1_lesion.png")
    examination = examined(tmp_path)

    assert found(examination, "masks_passed_over").count == 12
    assert found(examination, "masks_among_images").count == 1
    assert examination.labels["labelled"] == 13


# --- what train would do with the labels


def photographs(folder, rows, header="image,label"):
    folder.mkdir()
    for row in rows:
        (folder / row.split(",")[0]).write_bytes(b"x")
    (folder / "labels.csv").write_text("\n".join([header, *rows, ""]))
    return folder


def codes_of(examination):
    return {each.code: each for each in examination.remarks}


def test_labels_are_read_as_train_reads_them(examined, tmp_path):
    rows = [f"{n}.png,{'ab'[n % 2]},p{n % 4}" for n in range(12)] + ["12.png,nan,p1"]

    found = codes_of(examined(photographs(tmp_path / "data", rows, "image,label,patient_id")))

    assert found["missing_labels"].severity == "warning"
    assert "patient_id stay on one side" in found["groups_by_column"].message
    assert not {"train_refuses", "unsound_layout"} & set(found)


@pytest.mark.parametrize(
    ("rows", "code", "reason"),
    [
        ([f"{n}.png,{20 + n}.5" for n in range(9)], "unsound_layout", "task=regression"),
        ([f"{n}.png,{('Benign', 'benign', 'x')[n % 3]}" for n in range(9)], "unsound_layout", "look alike"),
        ([f"{n}.png,a" for n in range(9)], "train_refuses", "only one class"),
        (["1.png,a", "2.png,b"], "train_refuses", "too few for training and validation"),
        (["1.png,a", "2.png,b", "3.png,b"], "no_test_images", "test_fraction 0"),
    ],
)
def test_what_train_refuses_is_not_called_sound(examined, tmp_path, rows, code, reason):
    found = codes_of(examined(photographs(tmp_path / "data", rows)))

    assert reason in found[code].message


def photos(folder, names):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        values = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{name}.png")
    return folder


def test_one_folder_of_images_is_no_class_and_a_table_beside_it_is_told(examined, tmp_path):
    photos(tmp_path / "data" / "export", range(6))
    (tmp_path / "data" / "overview.csv").write_text("Name,Contrast given\n0.png,1\n")

    found = codes_of(examined(tmp_path / "data"))

    assert "one folder" in found["no_labels"].message
    assert found["tables_passed_over"].count == 1
    assert not [code for code, issue in found.items() if issue.severity == "error"]


def test_a_workbook_of_ones_own_is_read_by_usual_columns_and_names(examined, tmp_path):
    folder = photos(tmp_path / "photos", [f"{number + 100:06d}" for number in range(6)])
    rows = [["image_id", "dx", "patient_id"], *([n + 100, "ab"[n % 2], f"P{n // 2}"] for n in range(6))]
    (tmp_path / "labels.xlsx").write_bytes(workbook({"Notes": [["x"]], "S": rows}))

    examination = examined(folder, labels=tmp_path / "labels.xlsx")

    assert (examination.labels["with_files"], examination.labels["groups"]) == (6, 3)
    assert {each.code: each.count for each in examination.remarks} == {
        "names_found_otherwise": 6, "groups_by_column": 3, "small_classes": 2,
    }  # fmt: skip


def test_what_is_no_image_is_said_and_mixes_no_modalities(examined, tmp_path):
    mask = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"}
    beside = [(slice_of(100 + n, **mask), {"label": "benign", "group": f"m{n}"}) for n in range(2)]
    examination = examined(write_dataset(tmp_path / "data", [*sound(12), *beside]))

    assert not {"missing_geometry", "single_slice", "missing_order"} & codes(examination)  # single pictures
    message = found(examination, "no_images_beside").message
    assert message.startswith("2 DICOM files beside the images are not images (SEG (mask))")
    assert "mixed_modality" not in codes(examination)
    alone = examined(write_dataset(tmp_path / "masks", [(slice_of(n, **mask), {"label": "benign"}) for n in range(3)]))
    assert found(alone, "no_plain_images").count == 3
