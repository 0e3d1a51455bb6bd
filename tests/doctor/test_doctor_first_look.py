"""What train looks at before it trains: lines to log, and the errors that make training wrong."""

import subprocess
import sys

import pytest

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.doctor.facts import attributes_of
from sagemaker_monai.doctor.first_look import first_look
from sagemaker_monai.doctor.quick_header import read_some
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.images.dicom.elements import text_of
from sagemaker_monai.images.dicom.headers import read_header
from tests.support.dicom_series import CT, make_series, pixels, to_bytes, write_series
from tests.support.examined import slice_of, sound, write_dataset
from tests.support.places import SHARED_DATA


def look(folder):
    return first_look(read_dataset({"training": folder}, validation_fraction=0.2, test_fraction=0.0, seed=0))


def test_nothing_is_said_of_a_sound_data_set(tmp_path):
    assert look(write_dataset(tmp_path / "data", sound())) == []


def test_a_patient_on_two_sides_is_refused_without_naming_him(tmp_path):
    items = sound()
    items[4] = (slice_of(4, PatientID="Patient-0000"), items[4][1])

    with pytest.raises(DatasetError, match=r"1 of 23 patients .* have images in more than one split") as refused:
        look(write_dataset(tmp_path / "data", items))

    assert "Patient-0000" not in str(refused.value)


@pytest.mark.parametrize("patient", ["", "ANONYMOUS", "P1"])
def test_an_id_that_says_nothing_is_no_reason_to_refuse(tmp_path, patient):
    items = [(slice_of(n, PatientID=patient), line) for n, (_, line) in enumerate(sound())]

    assert look(write_dataset(tmp_path / "data", items)) == []


def test_a_data_set_of_which_nothing_can_be_used_is_refused(tmp_path):
    items = [(b"\0" * 128 + b"DICM" + bytes([n + 9]) * 50, line) for n, (_, line) in enumerate(sound())]

    with pytest.raises(DatasetError, match=r"none of the 24 DICOM images .*UndecodableImage 24"):
        look(write_dataset(tmp_path / "data", items))


def test_an_attribute_that_tells_the_label_and_mixtures_are_told(tmp_path):
    def made(n):
        spacing = [1 + n % 3, 1 + n % 3]
        return slice_of(n, PixelSpacing=spacing, Manufacturer=("Acme", "Bolt")[n % 2], **(CT if n == 5 else {}))

    items = [(made(n), line) for n, (_, line) in enumerate(sound(36))]

    lines = look(write_dataset(tmp_path / "data", items))

    assert any(line.startswith("Manufacturer predicts the label: ") and "100%" in line for line in lines)
    assert any("2 modalities" in line for line in lines)
    assert any("from 1 to 3 mm" in line for line in lines)


def test_series_folders_are_looked_at_by_their_first_file(tmp_path):
    folder = tmp_path / "data"
    rows = ["image,label,group,split"]
    for n in range(8):
        bare = {"ImagePositionPatient": None, "ImageOrientationPatient": None} if n == 3 else {}
        series = make_series(pixels(seed=n), PatientID=f"P{n}", SeriesInstanceUID=f"1.2.3.{n}", **bare)
        write_series(folder / f"s{n}", series)
        rows.append(f"s{n},{'ab'[n % 2]},g{n},{'validation' if n > 5 else 'training'}")
    (folder / "labels.csv").write_text("\n".join(rows))

    assert look(folder) == ["1 images have no ImagePositionPatient: slices are sorted by InstanceNumber"]


def test_photographs_cost_no_import_of_a_dicom_reader(tmp_path):
    program = """
import sys
from pathlib import Path
from types import SimpleNamespace
from sagemaker_monai.doctor.first_look import first_look
records = [SimpleNamespace(image=Path(f"/nowhere/{n}.jpg")) for n in range(20000)]
assert first_look(SimpleNamespace(split={"training": records, "validation": [], "test": []}.get)) == []
assert not {"pydicom", "nibabel", "scipy"} & {name.split(".")[0] for name in sys.modules}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_plain_files_are_left_to_the_quick_reader(tmp_path, monkeypatch):
    monkeypatch.setattr("sagemaker_monai.doctor.quick_header.read_header", None)

    assert look(write_dataset(tmp_path / "data", sound(6))) == []


@pytest.mark.skipif(not (SHARED_DATA / "odd_dicom").is_dir(), reason="needs the real data set")
def test_the_few_elements_are_those_of_the_whole_reader():
    checked = 0
    for path in sorted(SHARED_DATA.glob("*_dicom/**/*")):
        if not path.is_file() or path.suffix in (".csv", ".md") or path.name == "SHA256SUMS":
            continue
        try:
            whole = read_header(path)
        except CallerError as error:
            with pytest.raises(type(error)):
                read_some(path)
            continue
        some = read_some(path)
        assert dict(attributes_of(some)) == dict(attributes_of(whole)), path.name
        for keyword in ("PatientID", "NumberOfFrames", "ImagePositionPatient"):
            assert text_of(some, keyword) == text_of(whole, keyword), (path.name, keyword)
        checked += 1

    assert checked > 150


def test_a_header_that_goes_on_behind_the_beginning_is_read_whole(tmp_path):
    path = tmp_path / "x.dcm"
    dataset = slice_of(0)
    dataset.private_block(0x0009, "TEST", create=True).add_new(0x01, "OB", bytes(300_000))
    path.write_bytes(to_bytes(dataset))

    assert read_some(path).Rows == 12


def test_windows_that_show_nothing_and_raw_data_are_told(tmp_path):
    odd = [{"WindowCenter": 0, "WindowWidth": 1}, {"PresentationIntentType": "FOR PROCESSING"}, {}]
    items = [(slice_of(n, **odd[n % 3]), line) for n, (_, line) in enumerate(sound())]

    lines = look(write_dataset(tmp_path / "data", items))

    assert any(line.startswith("8 images have a window") for line in lines)
    assert any(line.startswith("8 images are raw data FOR PROCESSING") for line in lines)
