"""What people call files and folders is in no output but one: messages, failure files and reports number them."""

import csv
import json
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.entrypoints import doctor, prepare, train
from sagemaker_monai.messages.item_names import NAMES_FILE, ItemNames, current, masked_output, print_numbers

SENTINEL = "Smith_Zebulon_778899"
PARTS = ("smith", "zebulon", "778899")


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)


def is_silent(text):
    return not any(part in text.casefold() for part in PARTS)


def files_but_names(folder):
    return {path: path.read_bytes().decode("latin-1") for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith(NAMES_FILE)}  # fmt: skip


def names_in(path):
    with path.open(encoding="utf-8") as file:
        return dict(list(csv.reader(file))[1:])


def broken(folder):
    """Pictures that are sound, broken, empty, repeated and of another kind, all with telling names."""
    for index in range(6):
        picture(folder / SENTINEL / f"{SENTINEL} {index}.png", index % 5)
    (folder / f"{SENTINEL}_cut.png").write_bytes((folder / SENTINEL / f"{SENTINEL} 0.png").read_bytes()[:60])
    (folder / f"{SENTINEL}_empty.jpg").write_bytes(b"")
    (folder / f"{SENTINEL}_text.tif").write_text(SENTINEL)
    (folder / f"{SENTINEL}.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
    (folder / f"{SENTINEL}.nii.gz").write_bytes(b"\x1f\x8bjunk")
    (folder / f"{SENTINEL}.nrrd").write_text("NRRD0004\n")
    (folder / f"{SENTINEL}.docx").write_text("a letter")
    with zipfile.ZipFile(folder / f"{SENTINEL}.zip", "w") as archive:
        archive.writestr(f"{SENTINEL}/in_zip_{SENTINEL}.png", b"no picture")
    return folder


def table(folder, *lines, header="image,label"):
    path = folder.parent / f"{SENTINEL}.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def sound_lines(classes=("a-class", "b-class")):
    return [f"{SENTINEL}/{SENTINEL} {index}.png,{classes[index % 2]}" for index in range(6)]


TABLES = {
    "missing": [*sound_lines(), f"{SENTINEL}_not_there.png,a-class", f"{SENTINEL}_without_suffix,b-class"],
    "broken": [*sound_lines(), f"{SENTINEL}_cut.png,a-class", f"{SENTINEL}_empty.jpg,b-class"],
    "text": [*sound_lines(), f"{SENTINEL}_text.tif,b-class"],
    "twice": [*sound_lines(), f"{SENTINEL}/{SENTINEL} 0.png,b-class"],
    "odd": [*sound_lines(), f"../{SENTINEL}/x.png,a-class", f"C:\\{SENTINEL}\\y.png,b-class"],
    "nothing": [],
    "ragged": [*sound_lines(), f"{SENTINEL},{SENTINEL},{SENTINEL}"],
}
IMPORTERS = ("pictures", "dicom_folder", "nifti_folder")


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("case", TABLES)
def test_prepare_says_no_name_whatever_is_wrong(tmp_path, capfd, monkeypatch, importer, case):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "ml"))
    (tmp_path / "ml").mkdir()
    source = broken(tmp_path / SENTINEL / "source")
    labels = table(source, *TABLES[case])

    code = prepare.main([importer, str(source), str(tmp_path / "out"), "--labels", str(labels)])

    said = capfd.readouterr()
    assert is_silent(said.out + said.err), said
    for path, content in files_but_names(tmp_path / "ml").items():
        assert is_silent(content), path
    assert (code == 0) == (tmp_path / "out" / "dataset.json").exists()


def test_a_name_that_is_not_said_is_in_the_local_file(tmp_path, capfd):
    source = broken(tmp_path / "source")
    labels = table(source, *TABLES["missing"])

    prepare.main(["pictures", str(source), str(tmp_path / "out"), "--labels", str(labels)])

    said = capfd.readouterr().err
    names = names_in(tmp_path / f"out.{NAMES_FILE}")
    assert any(item in said and SENTINEL.casefold() in name for item, name in names.items())
    assert not (tmp_path / "out" / NAMES_FILE).exists()  # nothing that is uploaded


@pytest.mark.parametrize("options", [[], ["--mismatch", "drop", "--unusable", "leave-out"]])
def test_the_report_of_an_import_that_succeeds_names_nothing_that_was_left_out(tmp_path, capfd, options):
    source = broken(tmp_path / "source")
    lines = [*sound_lines(), f"{SENTINEL}_cut.png,a-class"] if options else sound_lines()
    labels = table(source, *lines)

    code = prepare.main(
        ["pictures", str(source), str(tmp_path / "out"), "--labels", str(labels), "--mismatch", "drop", *options]
    )

    said = capfd.readouterr()
    assert is_silent(said.out + said.err), said
    assert code == 0, said.err
    assert "a-class" in said.out
    report = json.loads((tmp_path / "out" / "import_report.json").read_text())
    del report["files"]  # the data set's own list, as in dataset.json
    assert is_silent(json.dumps(report)), report


def channel(tmp_path, lines, header="image,label"):
    folder = broken(tmp_path / "ml" / "input" / "data" / "training")
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def run_train(tmp_path, monkeypatch, *words):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "ml"))
    return train.main(["--epochs", "1", "--image-size", "32", "--num-workers", "1", *words])


@pytest.mark.parametrize("case", TABLES)
def test_train_says_no_name_whatever_is_wrong(tmp_path, capfd, monkeypatch, caplog, case):
    channel(tmp_path, TABLES[case])
    if case == "nothing":  # as an import that did not get so far
        (tmp_path / "ml" / "input" / "data" / "training" / "labels.csv").unlink()

    code = run_train(tmp_path, monkeypatch, "--max_unreadable_fraction", "0.0")

    said = capfd.readouterr()
    assert is_silent(said.out + said.err), said
    failure = tmp_path / "ml" / "output" / "failure"
    assert code == 1
    assert is_silent(failure.read_text())
    assert len(failure.read_text()) > 40


def test_a_broken_dataset_json_says_no_name(tmp_path, capfd, monkeypatch):
    folder = broken(tmp_path / "ml" / "input" / "data" / "training")
    record = {"image": f"./{SENTINEL}_gone.png", "label": 0}
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "a", "1": "b"}, "training": [record, record]}))

    assert run_train(tmp_path, monkeypatch) == 1

    said = capfd.readouterr()
    assert is_silent(said.out + said.err + (tmp_path / "ml" / "output" / "failure").read_text()), said


# The masking itself.


@pytest.fixture
def names(tmp_path):
    for name in (f"{SENTINEL}/a.png", "Zoë Müller.dcm", "o'brien \"x\".png", "n" * 90 + SENTINEL + ".png",
                 "12345678.dcm", "0001.dcm", "x.png", "two  spaces.png"):  # fmt: skip
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = ItemNames()
    found.add(tmp_path / "data")
    return found


@pytest.mark.parametrize(
    "text",
    [
        f"no {SENTINEL}/a.png",
        f"no '{SENTINEL.lower()}'",
        f"no {SENTINEL.upper()}, or",
        "Zoe\u0308 Mu\u0308ller.dcm",
        "ZOË MÜLLER",
        repr('o\'brien "x".png'),
        f"…{('n' * 90 + SENTINEL + '.png')[-59:]}",
        ("n" * 90 + SENTINEL)[:60],
        "patient 12345678 twice",
        "two spaces.png",
        f"images/{SENTINEL}_a.dcm",
        "images/Zo_M_ller.dcm".replace("Zo_", "Zo__"),
    ],
)
def test_a_name_is_masked_however_it_is_written(names, text):
    masked = names.mask(text)
    assert masked != text
    assert not any(
        part in masked.casefold() for part in ("smith", "müller", "mu\u0308ller", "m_ller", "brien", "12345678", "nnn")
    )


@pytest.mark.parametrize(
    "text",
    [
        "100 of 1000 images cannot be read: remove or replace them",
        "image 1 of 12, 512 x 512 pixels",
        "the training split of the data set has no labels: xylophone",
        "learning rate 0.12345678, 12345678.5 s",
        "",
    ],
)
def test_what_names_nothing_stays(names, text):
    assert names.mask(text) == text


def test_classes_are_said_once_they_are_known(names):
    assert SENTINEL not in names.mask(f"class {SENTINEL}")
    names.keep([SENTINEL])
    assert names.mask(f"class {SENTINEL}") == f"class {SENTINEL}"


def test_a_class_is_said_in_every_form_of_its_name(tmp_path):
    names = ItemNames()
    (tmp_path / "green spots").mkdir()
    names.add(tmp_path)
    names.keep(["green spots"])

    assert names.mask("validation_sensitivity_green_spots=0.5") == "validation_sensitivity_green_spots=0.5"


def test_files_that_the_program_names_itself_are_said(tmp_path):
    names = ItemNames()
    for name in ("shard-00017.tar", "shards.json", "shard-17.tar"):
        (tmp_path / name).touch()
    names.add(tmp_path)

    assert names.mask("shard-00017.tar is not in shards.json") == "shard-00017.tar is not in shards.json"
    assert names.mask("shard-17.tar") != "shard-17.tar"


def test_a_line_of_numbers_is_printed_as_it_is(tmp_path, capsys):
    (tmp_path / "12345.png").touch()
    with masked_output() as names:
        names.add(tmp_path)
        print("file 12345")
        print_numbers("epoch=3; steps=12345;")

    assert capsys.readouterr().out == "file file 1\nepoch=3; steps=12345;\n"


def test_numbers_are_the_same_in_every_process(tmp_path, names):
    again = ItemNames()
    again.add(tmp_path / "data")
    assert again.mask("Zoë Müller.dcm") == names.mask("Zoë Müller.dcm")


def test_outside_of_a_command_nothing_is_masked_and_a_command_in_another_shares_its_names(tmp_path, capsys):
    assert current().mask(SENTINEL) == SENTINEL
    with masked_output() as outer, masked_output() as inner:
        assert inner is outer
        outer.hide(tmp_path / SENTINEL)
        print(f"to {SENTINEL}", file=sys.stderr)
        print(f"to {SENTINEL}")
    said = capsys.readouterr()
    assert is_silent(said.out + said.err)
    assert (said.out, said.err) == ("to the output\n", "to the output\n")


def test_who_asks_for_names_gets_them(names):
    names.show_all()
    assert names.mask(f"no {SENTINEL}/a.png") == f"no {SENTINEL}/a.png"


def test_doctor_says_no_name_unless_asked_to(tmp_path, capfd):
    source = broken(tmp_path / "source")
    labels = table(source, *TABLES["missing"])

    doctor.main([str(source), "--labels", str(labels), "--output", str(tmp_path / "report"), "--processes", "1"])

    said = capfd.readouterr()
    assert is_silent(said.out + said.err), said
    for path, content in files_but_names(tmp_path / "report").items():
        assert is_silent(content), path
