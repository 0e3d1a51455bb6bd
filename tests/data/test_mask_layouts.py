"""Data sets of masks: the forms of labels, the Decathlon's and nnU-Net's lists, and what is refused."""

import json

import numpy as np
import pytest

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.legends import Legend, read_legend
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.tasks.label_maps import IGNORED
from tests.support.mask_sets import write_balls


def read(root, **changes):
    settings = {"validation_fraction": 0.25, "test_fraction": 0.25, "seed": 0}
    return read_dataset({"training": root}, **(settings | changes))


@pytest.mark.parametrize(("labels", "legend"), [
    ({"0": "background", "1": "liver", "2": "tumour"}, Legend((1, 2), ("liver", "tumour"))),
    ({"background": 0, "tumour": 4, "liver": 2}, Legend((2, 4), ("liver", "tumour"))),
    ({"background": 0, "liver": 1, "ignore": 2}, Legend((1,), ("liver",), ignored=2)),
    (["background", "liver"], Legend((1,), ("liver",))),
    ({"255": "lesion"}, Legend((255,), ("lesion",))),
])  # fmt: skip
def test_labels_say_what_values_mean_in_three_ways(labels, legend):
    assert read_legend(labels) == legend


@pytest.mark.parametrize(("labels", "message"), [
    (None, "must say what the values"), ({}, "must say"), ({"a": "b"}, "must say"), ({"1": 2.5}, "must say"),
    ({"0": "liver"}, "0 is the background"), ({"liver": 0, "x": 1}, "0 is the background"),
    ({"3": "background", "1": "liver"}, "it must be 0"), ({"1": "liver", "2": "liver"}, "twice"),
    ({"a": 1, "b": 1}, "twice"), ({"whole": [1, 2], "core": [2, 3]}, "regions"), ({"-1": "x"}, "must say"),
    ({"70000": "x"}, "must say"), ({"0": "background"}, "names 0 structures"), ({"1": " "}, "must say"),
    ({str(i): f"s{i}" for i in range(1, 300)}, "names 299 structures"),
])  # fmt: skip
def test_labels_that_leave_doubt_are_refused(labels, message):
    with pytest.raises(DatasetError, match=message):
        read_legend(labels)


def test_values_become_labels_and_an_unknown_one_is_named():
    legend = Legend((7, 2), ("a", "b"), ignored=9)

    assert legend.label_map(np.array([0, 2, 7, 9], np.uint16)).tolist() == [0, 2, 1, IGNORED]
    with pytest.raises(DatasetError, match=r"without a name \(5\)"):
        legend.label_map(np.array([0, 5], np.uint16))


def test_a_file_that_names_its_structures_is_read_by_the_names():
    legend = Legend((1, 2), ("liver", "Left Kidney"))
    mask = Mask(np.array([0, 1, 2, 3], np.uint16), {1: "left_kidney", 2: "spleen", 3: "Liver"})

    labels, findings = legend.labels_of(mask)

    assert labels.tolist() == [0, 2, 0, 1]
    assert findings == ("structures_left_out",)
    assert legend.labels_of(Mask(np.array([0, 1], np.uint16), mask.names))[1] == ()
    with pytest.raises(DatasetError, match="calls its structures Segment_1, and labels has liver"):
        legend.labels_of(Mask(mask.values, {1: "Segment_1"}))
    with pytest.raises(DatasetError, match="does not name"):
        legend.labels_of(Mask(np.array([0, 9], np.uint16), mask.names))


def test_pictures_of_black_and_white_may_be_named_by_either_value():
    for value in ("1", "255"):
        assert read_legend({value: "lesion"}).label_map(np.array([0, 1], np.uint16)).tolist() == [0, 1]


def test_the_decathlon_s_list_is_read_and_its_test_images_without_masks_are_counted(tmp_path):
    root = write_balls(tmp_path / "data", 6)
    content = json.loads((root / "dataset.json").read_text())
    content["test"] = ["./imagesTr/case_00.nii.gz"]
    content["training"] = content["training"][1:]
    (root / "dataset.json").write_text(json.dumps(content))

    dataset = read(root)

    assert (dataset.task, dataset.labels) == ("segmentation", ("bright", "dark"))
    assert [len(dataset.split(name)) for name in ("training", "validation", "test")] == [3, 1, 1]
    assert {record.mask.name for record in dataset.training} == {record.image.name for record in dataset.training}
    assert "images_without_mask" in {remark.code for remark in dataset.remarks}


def test_codes_of_dataset_json_come_with_the_data_set_and_channels_must_agree(tmp_path):
    for name, value in (("training", "10200004"), ("validation", "64033007")):
        write_balls(tmp_path / name, count=4, splits={name: 4})
        path = tmp_path / name / "dataset.json"
        content = json.loads(path.read_text())
        [label] = [label for label in content["labels"].values() if label != "background"][:1]
        category = ["SCT", "91723000", "Anatomical Structure"]
        content["codes"] = {label: {"category": category, "type": ["SCT", value, "An organ"]}}
        path.write_text(json.dumps(content))

    dataset = read(tmp_path / "training")

    assert dataset.codes[label].type.value == "10200004"
    with pytest.raises(DatasetError, match="different codes"):
        read_dataset({"training": tmp_path / "training", "validation": tmp_path / "validation"},
                     validation_fraction=0.25, test_fraction=0.0, seed=0)  # fmt: skip


def test_nnunet_s_folders_are_read_with_their_channels(tmp_path):
    root = write_balls(tmp_path / "data", 4)
    for image in sorted((root / "imagesTr").iterdir()):
        stem = image.name.removesuffix(".nii.gz")
        (root / "imagesTr" / f"{stem}_0001.nii.gz").write_bytes(image.read_bytes())
        image.rename(root / "imagesTr" / f"{stem}_0000.nii.gz")
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "bright": 1, "dark": 2},
               "numTraining": 4, "file_ending": ".nii.gz"}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))

    dataset = read(root, test_fraction=0)

    assert dataset.labels == ("bright", "dark")
    assert len(dataset.training) + len(dataset.validation) == 4
    assert [path.name[-12:] for path in dataset.training[0].image.channels] == ["_0000.nii.gz", "_0001.nii.gz"]
    for name, message in (
        ("case_02_0001", r"lacks case_02_0001\.nii\.gz of the case case_02"),
        ("case_01_0000", r"lacks case_01_0000\.nii\.gz of the case case_01"),
    ):
        kept = (root / "imagesTr" / f"{name}.nii.gz").rename(tmp_path / "kept")
        with pytest.raises(DatasetError, match=message):
            read(root)
        kept.rename(root / "imagesTr" / f"{name}.nii.gz")
    (root / "imagesTr" / "case_00_0002.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"channels that channel_names lacks: 1 \(case_00_0002"):
        read(root)
    (root / "imagesTr" / "case_00_0002.nii.gz").unlink()
    (root / "labelsTr" / "case_0.nii.gz").touch()
    with pytest.raises(
        DatasetError, match=r"masks without an image in imagesTr: 1 \(case_0\.nii\.gz\); add the .* case_0_0000"
    ):
        read(root)


@pytest.mark.parametrize("missing", ["*", "case_01*"])
def test_masks_that_are_missing_are_no_classes(tmp_path, missing):
    root = write_balls(tmp_path / "data", 4)
    for path in (root / "labelsTr").glob(missing):
        path.unlink()

    with pytest.raises(DatasetError, match=r"names masks that are not in the channel"):
        read(root)


def test_patients_named_in_a_column_stay_together(tmp_path):
    root = write_balls(tmp_path / "data", 6)
    content = json.loads((root / "dataset.json").read_text())
    for index, item in enumerate(content["training"]):
        item["patient_id"] = f"p{index // 2}"
    (root / "dataset.json").write_text(json.dumps(content))

    dataset = read(root)

    groups = [{record.group for record in dataset.split(name)} for name in ("training", "validation", "test")]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 3


def test_other_masks_are_another_data_set(tmp_path):
    root = write_balls(tmp_path / "data", 4)
    before = read(root).fingerprint
    mask = root / "labelsTr" / "case_01.nii.gz"
    mask.write_bytes((root / "labelsTr" / "case_02.nii.gz").read_bytes())

    assert read(root).fingerprint != before


def test_masks_are_for_one_task(tmp_path):
    root = write_balls(tmp_path / "data", 4)

    with pytest.raises(ConfigError, match="set task to segmentation"):
        read(root, task="classification")
    (root / "labelsTr" / "case_03.nii.gz").unlink()
    with pytest.raises(DatasetError, match="not in the channel"):
        read(root)
