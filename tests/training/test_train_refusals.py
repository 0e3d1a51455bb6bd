"""Medical data sets and hyperparameters that `train` refuses before the first epoch, in one line with the remedy."""

import json
import re
import shutil

import nibabel
import numpy as np
import pytest

from sagemaker_monai.data.datasets import SPLITS
from sagemaker_monai.entrypoints.train import main
from sagemaker_monai.training import fit as training
from tests.sagemaker.test_train_entrypoint import class_folders, failure
from tests.support import medical_sets
from tests.support.dicom_series import CT, make_series, make_slice, to_bytes, write_series
from tests.support.medical_sets import noise, patient, pet, write_dataset

VOLUME = ["--image-size=16", "--network=resnet10"]


pytestmark = pytest.mark.usefixtures("without_sagemaker")


def altered(make, change, **named):
    """What `make` makes, with its dataset.json changed in place."""

    def lay_out(folder):
        make(folder, **named)
        content = json.loads((folder / "dataset.json").read_text())
        change(content)
        (folder / "dataset.json").write_text(json.dumps(content))

    return lay_out


def labelled(value, *splits, end=None):
    """Give the images of splits a label; `end` stops before one."""

    def change(content):
        for split in splits:
            for item in content[split][:end]:
                item["label"] = value

    return change


def first_label(value):
    return labelled(value, "training", end=1)


def one_lacks_a_sequence(content):
    content["training"][3]["image"] = content["training"][3]["image"][:1]


def without_dimensions(content):
    del content["tensorImageSize"]


def one_grey_among_colours(folder):
    medical_sets.colour_photographs(folder)
    path = folder / "red" / "0.dcm"
    path.write_bytes(to_bytes(make_slice(noise(0, (34, 38), 0, 99).astype(np.int16), Modality="XC", **patient(0))))


def other_grids(folder):
    medical_sets.mr_sequences(folder)
    for index in range(24):
        values = noise(index, (14, 12, 9), 0, 99).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / f"{index}_t2.nii.gz")


def two_series_a_folder(folder):
    medical_sets.ct_series(folder)
    for index in range(24):
        values = noise(index, (4, 12, 14), 0, 99).astype(np.int16)
        other = make_series(values, **CT, **(patient(index) | {"SeriesInstanceUID": f"1.2.3.{index}.2"}))
        for number, dataset in enumerate(other):
            (folder / "series" / str(index) / f"other{number}").write_bytes(to_bytes(dataset))


def gaps(folder):
    items = []
    for index in range(12):
        values = noise(index, (6, 12, 14), 0, 99).astype(np.int16)
        series = make_series(values, **CT, **patient(index))
        del series[2 if index % 2 else 3]
        write_series(folder / f"{index}", series)
        items.append((f"./{index}", "ab"[index % 2]))
    write_dataset(folder, items, labels=("a", "b"), size="3D")


def not_finite(folder):
    folder.mkdir(parents=True)
    items = []
    for index in range(12):
        values = noise(index, (12, 12, 12), 0, 99).astype(np.float32)
        values[0, 0, 0] = np.nan
        np.save(folder / f"{index}.npy", values)
        items.append((f"./{index}.npy", "ab"[index % 2]))
    write_dataset(folder, items, labels=("a", "b"), size="3D")


def same_patient_twice(folder):
    medical_sets.ct_slices(folder)
    content = json.loads((folder / "dataset.json").read_text())
    stored = noise(99, (36, 40), 0, 99).astype(np.int16)
    for item in (content["training"][0], content["test"][0]):
        path = folder / item["image"]
        path.write_bytes(to_bytes(make_slice(stored, **CT, **(patient(77) | {"PatientID": "SECRET-77"}))))


def many_broken(folder):
    medical_sets.ct_slices(folder)
    for index in range(3):
        path = folder / "images" / f"{index}.dcm"
        path.write_bytes(path.read_bytes()[:-2000])


def pictures_and_dicom(folder):
    class_folders(folder, number=6)
    shutil.rmtree(folder / "red")
    medical_sets.colour_photographs(folder, count=8)


def pet_without_weight(folder):
    folder.mkdir(parents=True)
    items = []
    for index in range(12):
        dataset = pet(noise(index, (34, 36), 0, 99).astype(np.int16), weight_kg=None, **patient(index))
        (folder / f"{index}.dcm").write_bytes(to_bytes(dataset))
        items.append((f"./{index}.dcm", "ab"[index % 2]))
    write_dataset(folder, items, labels=("a", "b"))


def a_class_for_each_series(folder):
    for index in range(8):
        values = noise(index, (4, 12, 14), 0, 99).astype(np.int16)
        for number, dataset in enumerate(make_series(values, **CT, **patient(index))):
            path = folder / f"patient{index}" / f"{number}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_bytes(dataset))


REFUSALS = {
    "slices with a preset for volumes": (
        medical_sets.ct_slices, ["--preset=ct_volume"],
        "ConfigError: preset ct_volume is for volumes, and these are single images: set preset to auto or one of ct_sl",
    ),
    "volumes with a preset for slices": (
        medical_sets.mr_sequences, ["--preset=mr_slice"],
        "ConfigError: preset mr_slice is for single images, and these are volumes: set preset to auto or one of ct_vol",
    ),
    "photographs with a medical preset": (
        class_folders, ["--preset=xray"], r"ConfigError: preset xray is not for photographs \(8-bit pictures\): set",
    ),
    "volumes with the preset of photographs": (
        medical_sets.npy_volumes, ["--preset=photo"],
        "ConfigError: preset photo is for single images, and these are volumes: set preset to auto or one of ct_vol",
    ),
    "pictures beside DICOM": (
        pictures_and_dicom, [], "ConfigError: .* training images are pictures and the others are medical files",
    ),
    "a colour that most do not have": (
        one_grey_among_colours, ["--color=rgb"],
        "ConfigError: color rgb needs colour images, and some are not: set color to auto or grey",
    ),
    "sequences as one grey channel": (
        medical_sets.mr_sequences, ["--color=grey"], "ConfigError: color grey needs single images, and these have 2",
    ),
    "a case without one sequence": (
        altered(medical_sets.mr_sequences, one_lacks_a_sequence), VOLUME,
        r"DatasetError: most images have 2 sequences, 1 have more or fewer \(file \d+\); name the same",
    ),
    "sequences on other grids": (
        other_grids, VOLUME, "DatasetError: 24 of 24 images .* sequence 2 lies on another voxel grid",
    ),
    "a volume that is too small for the network": (
        medical_sets.npy_volumes, ["--network=densenet121", "--image-size=28"],
        "ConfigError: image_size and image_depth must be at least 32 for densenet121, got 28",
    ),
    "a network for volumes with slices": (
        medical_sets.ct_slices, ["--network=segresnet"],
        "ConfigError: segresnet does not take images: set network to one",
    ),
    "two series in each folder": (
        two_series_a_folder, VOLUME, "DatasetError: .*hold 2 series or volumes .*in a folder of their own",
    ),
    "missing slices": (
        gaps, VOLUME, "DatasetError: none of .* 1 slices are missing within the series; .*allow resampling",
    ),
    "values that are not finite": (
        not_finite, VOLUME, r"DatasetError: none of 8 images can be read .*file.* NaN or infinite; replace them, or",
    ),
    "a label that is not in labels": (
        altered(medical_sets.ct_series, first_label(["bright", "foggy"])), VOLUME,
        r"DatasetError: classes that are not in labels: 1 \(foggy\)",
    ),
    "a grade that is not in labels": (
        altered(medical_sets.mr_sequences, first_label("fatal")), VOLUME, r"DatasetError: .*\(fatal\).*add or correct",
    ),
    "a text where a number belongs": (
        altered(medical_sets.npy_volumes, first_label("large")), VOLUME,
        r"DatasetError: labels that do not suit regression: 1 \(file \d+: regression needs a finite number\)",
    ),
    "one of two numbers": (
        altered(medical_sets.xrays, first_label({"age": 3})), [],
        "DatasetError: labels that do not suit regression: .*a number for each of age, dose_mGy",
    ),
    "a score of another task": (
        medical_sets.ct_series, [*VOLUME, "--best-metric=mae"],
        "ConfigError: best_metric mae does not suit multilabel: set it to one of auto, loss, accuracy, auc",
    ),
    "a score that the validation split does not have": (
        altered(medical_sets.ct_series, labelled([], "validation")), VOLUME,
        "ConfigError: best_metric auc is undefined on the validation split, whose 4 images all have the same class",
    ),
    "grades of which the validation split has one": (
        altered(medical_sets.mr_sequences, labelled("mild", "validation")), VOLUME,
        "ConfigError: best_metric kappa is undefined on the validation split",
    ),
    "one class only": (
        altered(medical_sets.ct_slices, labelled("water", *SPLITS)), [], r"DatasetError: classes without .*\(blood\)",
    ),
    "a sampler for findings": (
        medical_sets.ct_series, [*VOLUME, "--imbalance=balanced_sampler"],
        "ConfigError: imbalance balanced_sampler does not suit multilabel",
    ),
    "augmentation of photographs for volumes": (
        medical_sets.npy_volumes, [*VOLUME, "--augmentation=photo"],
        "ConfigError: augmentation photo does not suit 3-D",
    ),
    "a patient on two sides": (
        same_patient_twice, [], "DatasetError: 1 of 23 patients .*in more than one split.*name the patient as group",
    ),
    "too many broken files": (
        many_broken, [], r"DatasetError: 3 of 24 images cannot be read \(file \d+.*max_unreadable_fraction 0.01",
    ),
    "a window in HU for MR": (
        medical_sets.mr_sequences, [*VOLUME, "--window=bone"], "ConfigError: window bone is in HU, which preset mr_vol",
    ),
    "SUV of what is no PET": (
        medical_sets.ct_slices, ["--window=suv"], "ConfigError: window suv is for PET, which preset ct_slice is not",
    ),
    "SUV without a weight": (
        pet_without_weight, ["--window=suv"], "DatasetError: 12 of 12 images .*SUV cannot be computed: .*weight",
    ),
    "a spacing for volumes that are stretched": (
        medical_sets.mr_sequences, [*VOLUME, "--spacing-mm=1,1,1"], "ConfigError: spacing_mm needs fit=pad",
    ),
    "a spacing for arrays, which have none": (
        medical_sets.npy_volumes, [*VOLUME, "--fit=pad", "--spacing-mm=1"],
        "DatasetError: .*needs the spacing of a volume, and this one has none",
    ),
    "slices with an option of volumes": (
        medical_sets.ct_slices, ["--uneven-slices=resample"], "ConfigError: uneven_slices is for volumes only",
    ),
    "pictures with an option of volumes": (
        class_folders, ["--non-finite=zero"], "ConfigError: non_finite is for volumes only: leave it out",
    ),
    "a folder of slices for each patient as classes": (
        a_class_for_each_series, [],
        r"DatasetError: each of the 8 classes has images of one patient only \(PatientID .*name the classes in dataset",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_job_ends_before_its_first_step_with_one_line(name, tmp_path, monkeypatch, capsys):
    lay_out, arguments, expected = REFUSALS[name]

    def too_late(*_, **__):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(training.Run, "train_epoch", too_late)
    base = tmp_path / "job"
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    lay_out(base / "input" / "data" / "training")

    sized = any("image-size" in argument for argument in arguments)
    assert main(["--num-workers=1", *([] if sized else ["--image-size=32"]), *arguments]) == 1

    line = failure(base)
    assert re.match(expected, line), line
    assert str(tmp_path) not in line
    assert "SECRET" not in line
    assert "1.2.3." not in line
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert not list(base.rglob("*.pt"))
