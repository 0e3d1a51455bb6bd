"""De-identification on the way to S3: what is done to which file, what follows in names and lists, what is refused."""

import gzip
import io
import json
from argparse import Namespace

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from sagemaker_monai.deidentification.deidentify import Deidentifier
from sagemaker_monai.deidentification.phi import find_phi
from sagemaker_monai.deidentification.proof import prove_deidentified
from sagemaker_monai.deidentification.pseudonyms import mapped_uid, pseudonym
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.data import upload_privacy
from sagemaker_monai_aws.data.upload_privacy import kept_salt, plan_cleaning
from tests.support.dicom_samples import SERIES_UID, dicom_bytes, series_bytes

SALT = b"0123456789abcdef"
PATIENT = "MRN-4711"
FRAME_UID = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder of settings of this test's own, and no salt."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv(upload_privacy.SALT, raising=False)


@pytest.fixture
def salt(monkeypatch):
    monkeypatch.setenv(upload_privacy.SALT, SALT.decode())


@pytest.fixture
def folder(tmp_path):
    """Two series in folders named by their UIDs, a group that is a PatientID, and a table of both."""
    folder = tmp_path / "data"
    items = []
    for number in (1, 2):
        uid = f"{SERIES_UID}.{number}"
        (folder / "series" / uid).mkdir(parents=True)
        for place, content in enumerate(series_bytes(series=uid, PatientID=f"{PATIENT}{number}")):
            (folder / "series" / uid / f"{place}.dcm").write_bytes(content)
        items.append({"image": f"./series/{uid}/", "label": "nv", "group": f"{PATIENT}{number}", "site": "skull",
                      "source": f"from {PATIENT}{number}, {uid}"})  # fmt: skip
    content = {"labels": {"0": "nv"}, "task": "classification", "training": items, "validation": [], "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def names_of(folder):
    found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name for name in found if name != "dataset.json"] + ["dataset.json"] * (folder / "dataset.json").exists()


def plan(folder, names=None, **options):
    usual = {"deidentify": True, "salt_file": None, "burned_in": "refuse", "allow_keys": False, "dry_run": False,
             "project": "project"}  # fmt: skip
    return plan_cleaning(folder, names or names_of(folder), Namespace(**usual | options))


def files_of(cleaning, tmp_path):
    """What goes to S3: content by key."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    return {key: path.read_bytes() for key, path, _ in cleaning.files(list(cleaning.keys), temporary)}


def test_nothing_of_the_patients_is_in_what_goes_and_every_name_still_is_its_series(folder, salt, tmp_path):
    files = files_of(plan(folder), tmp_path)

    everything = b"\0".join([*map(str.encode, files), *files.values()])
    for secret in (PATIENT, "Secret", f"{SERIES_UID}.1", f"{SERIES_UID}.2"):
        assert secret.encode() not in everything
    records = json.loads(files["dataset.json"])["training"]
    for number, record in enumerate(records, start=1):
        uid, patient = mapped_uid(SALT, f"{SERIES_UID}.{number}"), pseudonym(SALT, f"{PATIENT}{number}")
        assert record == {"image": f"./series/{uid}/", "label": "nv", "group": patient, "site": "skull",
                          "source": f"from {patient}, {uid}"}  # fmt: skip
        of_series = [content for key, content in files.items() if key.startswith(f"series/{uid}/")]
        assert len(of_series) == 6
        for content in of_series:
            dataset = pydicom.dcmread(io.BytesIO(content))
            assert (dataset.SeriesInstanceUID, dataset.PatientID) == (uid, patient)
            assert find_phi(dataset) == []


def test_pixels_stay_and_every_file_is_proved_against_its_original(folder, salt, tmp_path):
    cleaning = plan(folder)
    files = files_of(cleaning, tmp_path)

    for name, key in cleaning.keys.items():
        if name.endswith(".dcm"):
            before, after = pydicom.dcmread(folder / name), pydicom.dcmread(io.BytesIO(files[key]))
            assert before.PixelData == after.PixelData
            assert prove_deidentified(before, after) == []


def test_a_second_run_makes_the_same_bytes_with_the_salt_that_the_first_one_kept(folder, tmp_path):
    first, second = plan(folder), plan(folder)

    assert files_of(first, tmp_path) == files_of(second, tmp_path)
    assert "was made and is kept" in first.lines[0]
    assert "is that in" in second.lines[0]
    path = kept_salt("project")
    assert path.is_relative_to(tmp_path / "settings")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(path.read_text().strip() in line for line in first.lines + second.lines)
    assert files_of(plan(folder, project="other"), tmp_path) != files_of(first, tmp_path)


def test_a_dry_run_makes_no_salt(folder):
    plan(folder, dry_run=True)

    assert not kept_salt("project").exists()


def test_files_that_say_they_are_de_identified_go_the_way_of_all_others(folder, salt, tmp_path):
    deidentifier = Deidentifier(b"another salt of another hospital")
    for path in folder.rglob("*.dcm"):
        pydicom.dcmwrite(path, deidentifier(pydicom.dcmread(path)), enforce_file_format=True)
    strangers = {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.rglob("*.dcm")}

    cleaning = plan(folder)
    files = files_of(cleaning, tmp_path)

    assert len([name for name in cleaning.cleans if name.endswith(".dcm")]) == 12
    assert not any(uid.encode() in content for uid in strangers for content in files.values())


def test_a_file_that_only_says_that_it_is_de_identified_is_not_believed(folder, salt):
    for path in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientIdentityRemoved = "YES"
        dataset.save_as(path)

    assert len(plan(folder).cleans) == 13  # and dataset.json


def test_pictures_with_text_in_them_are_refused_with_a_list_unless_somebody_has_looked(folder, salt):
    path = next(iter(sorted(folder.rglob("*.dcm"))))
    dataset = pydicom.dcmread(path)
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(path)

    with pytest.raises(CommandError, match="1 of 12 DICOM images may have text") as refused:
        plan(folder)
    assert SERIES_UID not in str(refused.value)
    assert plan(folder, burned_in="keep").cleans


@pytest.mark.parametrize(("key", "value"), [("remark", "Secret, seen twice"), ("reader", "for SECRET")])
def test_a_name_in_the_list_that_nothing_replaces_is_refused_by_its_column_only(folder, salt, key, value):
    content = json.loads((folder / "dataset.json").read_text())
    content["training"][0][key] = value
    (folder / "dataset.json").write_text(json.dumps(content))

    with pytest.raises(CommandError, match=rf"list of images \({key}\)") as refused:
        plan(folder)
    assert "ecret" not in str(refused.value).replace(key, "")
    assert plan(folder, allow_keys=True).cleans


@pytest.mark.parametrize("name", ["secret.dcm", "JSECRET1.dcm", "S_e_c_r_e_t.dcm"])
def test_a_name_of_a_file_that_nothing_replaces_is_refused_masked(folder, salt, name):
    path = folder / "series" / f"{SERIES_UID}.1" / "0.dcm"
    path.rename(path.with_name(name))

    with pytest.raises(CommandError, match="1 names of files") as refused:
        plan(folder)
    assert "ecret" not in str(refused.value).lower()


def test_a_csv_list_follows_but_for_its_labels(tmp_path, salt):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / f"{PATIENT}.dcm").write_bytes(dicom_bytes(np.zeros((4, 4)), PatientID=PATIENT))
    (folder / "7.dcm").write_bytes(dicom_bytes(np.ones((4, 4)), PatientID="7", number=2))
    (folder / "list.csv").write_text(f"image,label,group\n{PATIENT}.dcm,7,{PATIENT}\n7.dcm,mel,7\n")

    files = files_of(plan(folder), tmp_path)

    one, seven = pseudonym(SALT, PATIENT), pseudonym(SALT, "7")
    assert set(files) == {f"{one}.dcm", f"{seven}.dcm", "list.csv"}
    text = files["list.csv"].decode()
    assert text == f"image,label,group\n{one}.dcm,7,{one}\n{seven}.dcm,mel,{seven}\n"


def test_two_names_that_would_become_one_are_refused(tmp_path, salt):
    (tmp_path / "data/a").mkdir(parents=True)
    for name in (f"{PATIENT}.dcm", f"{PATIENT.lower()}.dcm"):
        (tmp_path / "data/a" / name).write_bytes(dicom_bytes(np.zeros((4, 4)), PatientID=PATIENT))

    with pytest.raises(CommandError, match="the same name"):
        plan(tmp_path / "data")


def test_without_de_identification_everything_goes_as_it_is_and_that_is_said(folder):
    cleaning = plan(folder, deidentify=False)

    assert cleaning.cleans == {}
    assert cleaning.lines[0].startswith("NOTHING IS DE-IDENTIFIED")


def test_texts_of_a_nifti_header_go_and_voxels_stay(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name in ("told.nii.gz", "clean.nii"):
        image = nibabel.Nifti1Image(values, np.diag([2, 3, 4, 1]))
        image.header["descrip"] = b"Jane Doe" if name.startswith("told") else b""
        nibabel.save(image, folder / name)

    cleaning = plan(folder)
    files = files_of(cleaning, tmp_path)

    assert list(cleaning.cleans) == ["told.nii.gz"]
    (tmp_path / "new.nii.gz").write_bytes(files["told.nii.gz"])
    new = nibabel.load(tmp_path / "new.nii.gz")
    assert bytes(new.header["descrip"].tobytes()).strip(b"\0") == b""
    assert np.array_equal(np.asarray(new.dataobj), values)
    assert np.array_equal(new.affine, np.diag([2, 3, 4, 1]))
    assert files_of(plan(folder), tmp_path) == files


def test_archives_and_broken_volumes_are_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(CommandError, match="archives cannot be de-identified"):
        plan(folder)
    (folder / "a.zip").unlink()
    (folder / "a.nrrd").write_bytes(b"NRRD0005\npatient:=Jane\n\n")
    with pytest.raises(CommandError, match="1 files cannot be de-identified"):
        plan(folder)


@pytest.mark.parametrize(("content", "said"), [(b"short", "at least 16 bytes"), (None, "cannot be read")])
def test_a_salt_that_cannot_be_used_is_refused(folder, tmp_path, content, said):
    path = tmp_path / "salt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(CommandError, match=said):
        plan(folder, salt_file=path)


def test_a_salt_inside_the_data_set_is_refused(folder):
    names = names_of(folder)
    (folder / "salt").write_bytes(SALT)

    with pytest.raises(CommandError, match="is inside the data set"):
        plan(folder, names=names, salt_file=folder / "salt")


def test_for_shards_all_files_are_laid_out_as_they_go(folder, salt, tmp_path):
    cleaning = plan(folder)
    staged = cleaning.staged(tmp_path / "staged")

    found = {path.relative_to(staged).as_posix(): path.read_bytes() for path in staged.rglob("*") if path.is_file()}
    assert found == files_of(plan(folder), tmp_path)


def test_dicom_goes_as_dicom_whatever_it_is_called(tmp_path, salt):
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.img", "c.nii", "d.png", "list.csv"), start=1):
        (folder / name).write_bytes(dicom_bytes(np.full((4, 4), number), PatientID=PATIENT, number=number))

    files = files_of(plan(folder, names=["a.jpg", "b.img", "c.nii", "d.png"]), tmp_path)

    assert len(files) == 4
    for content in files.values():
        assert PATIENT.encode() not in content
        assert find_phi(pydicom.dcmread(io.BytesIO(content))) == []
    files = files_of(plan(folder, names=["list.csv"]), tmp_path)
    assert PATIENT.encode() not in files["list.csv"]


@pytest.mark.parametrize("name", ["a.jpg", "a.dcm", "a.nii.gz", "a.csv"])
def test_packed_dicom_is_refused_whatever_it_is_called(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(dicom_bytes(np.zeros((4, 4)), PatientID=PATIENT)))

    with pytest.raises(CommandError, match="cannot be de-identified on the way"):
        plan(tmp_path, names=[name])


@pytest.mark.parametrize("name", ["notes.txt", "a.jpg", "a.dcm", "below/list.csv", "a.svg"])
def test_what_is_nothing_that_is_read_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"{PATIENT} was seen")

    with pytest.raises(CommandError, match="1 files cannot be de-identified") as refused:
        plan(tmp_path, names=[name])
    assert PATIENT not in str(refused.value)


def test_a_picture_under_the_name_of_a_list_goes_as_a_picture(tmp_path):
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "JPEG", comment=PATIENT.encode())
    (tmp_path / "list.csv").write_bytes(file.getvalue())

    files = files_of(plan(tmp_path, names=["list.csv"]), tmp_path)

    assert PATIENT.encode() not in files["list.csv"]
