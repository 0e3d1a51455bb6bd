"""The command `doctor`: what it writes, what it never writes, and how it ends."""

import html.parser
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.entrypoints.doctor import main
from tests.support.dicom_series import make_series, pixels, to_bytes
from tests.support.examined import slice_of, sound, write_dataset
from tests.support.imported import put

PLANTED = ("Zanzibar", "Quixote", "ID-778899", "19490228", "1.2.840.99999.77", "Doolittle", "ACC4711", "20200301")


@pytest.fixture
def doctor(tmp_path, capsys, monkeypatch):
    """Runs the command, without a contact sheet by default; gives the exit code, doctor.json, and the printed text."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "no-opt-ml"))
    output = tmp_path / "out"

    def run(*arguments, processes=0, sheet=False):
        more = ["--output", str(output), "--processes", str(processes), *([] if sheet else ["--no-contact-sheet"])]
        code = main([*map(str, arguments), *more])
        file = output / "doctor.json"
        return code, json.loads(file.read_text()) if file.is_file() else None, capsys.readouterr()

    run.output = output
    return run


def codes(document, severity=None):
    return {each["code"] for each in document["findings"] if severity in (None, each["severity"])}


def test_a_sound_data_set_ends_with_0_and_leaves_three_files(doctor, tmp_path):
    folder = write_dataset(tmp_path / "data", sound())

    code, document, printed = doctor(folder, sheet=True)

    assert code == 0  # with warnings: headers name patients
    assert codes(document, "error") == set()
    assert sorted(path.name for path in doctor.output.iterdir()) == ["contact_sheet.png", "doctor.html", "doctor.json"]
    assert document["numbers"]["usable_image_files"] == 24
    assert document["numbers"]["patients"] == 24
    assert document["images"]["Modality"] == {"CR": 24}
    assert document["images"]["Size"] == {"10 x 12 x 1": 24}
    assert document["labels"]["classes"]["benign"] == {"training": 8, "validation": 4, "all": 12}
    assert printed.out.splitlines()[-1].startswith("doctor: 24 of 24 image files can be used; ")
    # The keys that `report` promises.
    assert list(document) == [
        "format", "version", "verdict", "source", "seconds", "files", "images", "numbers", "pixels", "duplicates",
        "labels", "privacy", "associations", "findings", "contact_sheet",
    ]  # fmt: skip
    assert list(document["verdict"]) == ["exit_code", "errors", "warnings", "notes"]
    assert all(
        list(each) == ["code", "severity", "message", "count", "unit", "examples"] for each in document["findings"]
    )


def test_with_strict_warnings_end_with_1_and_without_the_sheet_no_picture_stays(doctor, tmp_path):
    folder = write_dataset(tmp_path / "data", sound(6))  # its headers name patients
    doctor(folder, sheet=True)

    code, document, _ = doctor(folder, "--strict")

    assert code == document["verdict"]["exit_code"] == 1
    assert document["contact_sheet"] is None
    assert sorted(path.name for path in doctor.output.iterdir()) == ["doctor.html", "doctor.json"]
    assert b"data:image" not in (doctor.output / "doctor.html").read_bytes()


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (("Benign", "benign", "x", "x"), ["--similar-labels", "merge"]),
        (("Mild", "Severe"), ["--task", "ordinal", "--grades", "Mild,Severe"]),
        (("1.5", "-999", "2.5", "3.5"), ["--task", "regression", "--missing-codes=-999"]),
        (("0", "1", "-1", "1"), ["--uncertain-labels", "missing"]),
    ],
)
def test_labels_are_read_by_the_rules_that_training_will_be_told(doctor, tmp_path, labels, options):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        values = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    rows = [f"{number}.png,{labels[number % len(labels)]}" for number in range(12)]
    (folder / "labels.csv").write_text("image,label\n" + "\n".join(rows))

    code, document, _ = doctor(folder, *options)
    _, without, _ = doctor(folder)

    assert code == 0
    assert not codes(document) & {"unsound_layout", "labels_far_off"}
    assert (document["labels"], codes(document)) != (without["labels"], codes(without))


def test_a_patient_on_two_sides_ends_with_2(doctor, tmp_path):
    code, document, printed = doctor(write_dataset(tmp_path / "data", torn_patient()))

    assert code == 2
    assert codes(document, "error") == {"patients_across_splits"}
    assert "patients_across_splits" in printed.err.splitlines()[-1]


def torn_patient():
    items = sound(12)
    items[4] = (slice_of(4, PatientID="Patient-0000"), items[4][1])  # 0 is in training, 4 in validation
    return items


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        [],
        ["data", "--channel", "training=data"],
        ["--channel", "training"],
        ["data", "--pixels", "some"],
        ["data", "--labels", "nowhere.csv"],
        ["data", "--columns", "image"],
        ["data", "--unknown"],
        ["data", "--output", "data/out"],
        ["data", "--output", "data"],
        ["data", "--processes", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_3_and_one_line_that_says_why(tmp_path, monkeypatch, capsys, arguments):
    write_dataset(tmp_path / "data", sound(6))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "no-opt-ml"))
    for option, value in (("--output", "out"), ("--processes", "0")):
        arguments = arguments if option in arguments else [*arguments, option, value]

    assert main(arguments) == 3

    assert capsys.readouterr().err.splitlines()[-1].startswith("ConfigError: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_help_tells_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "The exit code is 0 without errors, 1 for warnings with --strict, 2 for errors" in text


def test_without_a_source_the_channels_of_the_job_are_examined(tmp_path, monkeypatch, capsys):
    base = tmp_path / "ml"
    places = [f"{name}/{label}/x.dcm" for name in ("training", "validation") for label in ("benign", "malignant")]
    put(base / "input" / "data", {place: to_bytes(slice_of(number)) for number, place in enumerate(places)})
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    monkeypatch.chdir(tmp_path)

    assert main(["--processes", "0"]) == 0

    document = json.loads((base / "processing" / "output" / "doctor.json").read_text())
    assert document["source"] == "channels"
    assert document["labels"]["splits"] == {"training": 2, "validation": 2}


def test_a_job_says_in_its_message_why_it_ended_with_2(tmp_path, monkeypatch):
    base = tmp_path / "ml"
    write_dataset(base / "processing" / "input" / "data", torn_patient())
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))

    assert main(["--processes", "0", "--no-contact-sheet"]) == 2

    assert "patients_across_splits" in (base / "output" / "message").read_text()


# --- nothing names a patient -----------------------------------------------------------------------------------------


def planted(number, **elements):
    return slice_of(
        number,
        PatientName="Zanzibar^Quixote", PatientID="ID-778899", PatientBirthDate="19490228", StudyDate="20200301",
        SeriesInstanceUID=f"1.2.840.99999.77.{number}", StudyInstanceUID="1.2.840.99999.77",
        SOPInstanceUID=f"1.2.840.99999.77.1.{number}", ReferringPhysicianName="Doolittle^John",
        AccessionNumber="ACC4711",
        Manufacturer="Scanner of Zanzibar", ManufacturerModelName="ID-778899", ConvolutionKernel="QUIXOTE",
        SeriesDescription="Zanzibar Quixote ID-778899", StationName="Doolittle", **elements,
    )  # fmt: skip


def assert_nothing_is_named(folder, printed):
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    contents |= {"stdout": printed.out.encode(), "stderr": printed.err.encode()}
    assert {"doctor.json", "doctor.html", "stdout"} <= set(contents)
    for name, content in contents.items():
        for value in PLANTED:
            assert value.lower().encode() not in content.lower(), (name, value)


def test_no_value_of_a_patient_is_in_any_output_in_a_data_set(doctor, tmp_path):
    items = [(planted(n), {"label": ("benign", "malignant")[n % 2], "group": "Quixote", "name": f"ID-778899/{n}.dcm"})
             for n in range(20)]  # fmt: skip
    items.append((None, {"label": "benign", "name": "Zanzibar Quixote/missing.dcm", "group": "Zanzibar"}))
    items.append((b"\0" * 128 + b"DICMZanzibar Quixote", {"label": "benign", "name": "Zanzibar/broken.dcm"}))
    folder = write_dataset(tmp_path / "data", items)

    code, document, printed = doctor(folder, sheet=True)

    assert code == 2
    assert {"labels_without_images", "unreadable_images", "phi_in_names", "phi_in_headers"} <= codes(document)
    assert document["privacy"]["attributes"]["PatientName"] == 20
    assert_nothing_is_named(doctor.output, printed)
    assert_only_pixels((doctor.output / "contact_sheet.png").read_bytes())


def test_no_value_of_a_patient_is_in_any_output_where_folders_and_classes_are_called_so(doctor, tmp_path):
    names = ["Zanzibar Quixote", "ID-778899", "19490228", "1.2.840.99999.77"]
    files = {f"{name}/Doolittle {number}.dcm": to_bytes(planted(number)) for number, name in enumerate(names)}

    _, _, printed = doctor(put(tmp_path / "data", files | {"Zanzibar Quixote/Quixote.txt": b"ID-778899"}), sheet=True)

    # The folder's faults are not known to be a patient's from a header alone: names are withheld all the same.
    assert_nothing_is_named(doctor.output, printed)


def test_names_are_shown_when_they_are_asked_for(doctor, tmp_path):
    folder = write_dataset(tmp_path / "data", sound(6))

    _, without, _ = doctor(folder)
    _, document, printed = doctor(folder, "--show-names")

    assert "names" not in without["files"]
    assert "images/003.dcm" in document["files"]["names"]
    assert "images/000.dcm" in printed.out
    assert "Patient-0003" not in printed.out + json.dumps(document)


def assert_only_pixels(png):
    kinds, place = [], 8
    while place < len(png):
        size, kind = struct.unpack_from(">I4s", png, place)
        kinds.append(kind)
        place += 12 + size
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


# --- the page --------------------------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_needs_nothing_else_and_escapes_what_it_quotes(doctor, tmp_path):
    evil = '<script src="http://evil.example/x.js">alert(1)</script>'
    labels = {"0": evil, "1": "<img src=x onerror=alert(1)>"}
    items = [(slice_of(n, Manufacturer='"><iframe src=//evil>'), {"label": labels[str(n % 2)]}) for n in range(6)]
    doctor(write_dataset(tmp_path / "data", items, labels=labels), sheet=True)

    page = (doctor.output / "doctor.html").read_text()
    tags = Tags()
    tags.feed(page)

    assert tags.open == []
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in tags.tags}
    assert [attrs["src"][:22] for tag, attrs in tags.tags if tag == "img"] == ["data:image/png;base64,"]
    assert not any(name.startswith("on") or name == "href" for _, attrs in tags.tags for name in attrs)
    assert "url(" not in page
    assert "@import" not in page
    assert "<img src=x onerror=alert(1)>" in tags.text  # as a text


# --- what is examined ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_is_examined_as_the_folder_that_it_was_made_of(doctor, tmp_path, kind):
    series = {str(number): to_bytes(each) for number, each in enumerate(make_series(pixels()))}
    folder = put(tmp_path / "series", series)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), kind, folder))

    _, of_folder, _ = doctor(folder, sheet=True)
    _, of_archive, _ = doctor(packed, sheet=True)

    for key in ("images", "duplicates", "privacy"):
        assert of_archive[key] == of_folder[key]
    assert of_archive["numbers"]["usable_volumes"] == of_folder["numbers"]["usable_volumes"] == 1
    assert of_archive["files"]["by_kind"] == {"DICOM": 6, "archive": 1}
    assert of_archive["contact_sheet"] == of_folder["contact_sheet"]


def test_hostile_files_never_stop_the_examination(doctor, tmp_path):
    good = to_bytes(slice_of(0))
    huge = slice_of(1)
    huge.Rows = huge.Columns = 65535
    random = np.random.default_rng(0)
    hostile = {
        "good.dcm": good, "huge.dcm": to_bytes(huge), "cut.dcm": good[: len(good) // 2],
        "noise.dcm": random.bytes(4096),
        "head.dcm": b"\0" * 128 + b"DICM" + random.bytes(4096), "empty.dcm": b"", "empty.png": b"",
        "cut.png": b"\x89PNG\r\n\x1a\n" + random.bytes(100), "cut.nii.gz": b"\x1f\x8b\x08" + random.bytes(50),
        "noise.nii": struct.pack("<i", 348) + random.bytes(344), "noise.zip": b"PK\x03\x04" + random.bytes(500),
        "noise.tar": b"\0" * 257 + b"ustar" + random.bytes(300), "noise.nrrd": b"NRRD0005\n" + random.bytes(300),
        "noise.npy": b"\x93NUMPY" + random.bytes(300), "noise.mha": b"NDims = 3\nDimSize = 99999 99999 99999\n",
        "bomb.gz": zlib.compress(b"\0" * 10_000_000, wbits=31), "dataset.json": b"[" * 100_000,
        "\udcff.dcm": good,
    }  # fmt: skip
    folder = put(tmp_path / "data", hostile)
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as zipped:
        zipped.writestr("../../outside.dcm", good)
    (folder / "evil.zip").write_bytes(evil.getvalue())
    os.mkfifo(folder / "pipe.dcm")
    (folder / "loop").symlink_to(folder)
    (folder / "link.dcm").symlink_to("/etc/passwd")

    code, document, printed = doctor(folder, sheet=True)

    assert code == 2
    assert document["numbers"]["usable_image_files"] >= 1
    assert {"unreadable_images", "unreadable_archives", "unsound_layout"} <= codes(document)
    assert "Traceback" not in printed.err
    assert not list(tmp_path.glob("**/outside.dcm"))
    assert b"root:" not in (doctor.output / "doctor.html").read_bytes()


def test_pixels_that_were_not_looked_at_are_said_to_be(doctor, tmp_path):
    folder = write_dataset(tmp_path / "data", sound(6))

    _, document, _ = doctor(folder, "--pixels", "none")

    assert document["pixels"] == {"choice": "none", "decoded": 0, "refused": 0, "not_looked_at": 6}
    assert "images_sampled" in codes(document, "note")


def test_a_picture_with_a_place_in_exif_is_told(doctor, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x013B] = "Doolittle"
    for name, more in (("a.jpg", {}), ("b.jpg", {"exif": exif})):
        values = np.random.default_rng(len(name + str(more))).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / name, **more)

    _, document, printed = doctor(folder)

    [found] = [each for each in document["findings"] if each["code"] == "phi_in_pictures"]
    assert (found["count"], found["examples"]) == (1, [2])
    assert_nothing_is_named(doctor.output, printed)


def test_a_command_with_other_processes_and_another_hash_seed_gives_the_same_report(doctor, tmp_path):
    folder, output = write_dataset(tmp_path / "data", sound(6)), tmp_path / "other"
    doctor(folder, sheet=True)

    subprocess.run(
        [sys.executable, "-m", "sagemaker_monai.entrypoints.doctor", folder, "--output", output, "--processes", "1"],
        env={**os.environ, "PYTHONHASHSEED": "1"}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip

    here, there = (json.loads((each / "doctor.json").read_text()) for each in (doctor.output, output))
    assert here | {"seconds": 0} == there | {"seconds": 0}
    for name in ("doctor.html", "contact_sheet.png"):
        assert (doctor.output / name).read_bytes() == (output / name).read_bytes()
