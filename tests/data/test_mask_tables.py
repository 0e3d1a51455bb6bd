"""Tables that name the masks of images."""

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.label_rules import LabelRules
from sagemaker_monai.data.labelled import Reading
from sagemaker_monai.data.mask_reading import grid_of, labels_on_grid
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.storage.columns import Columns
from tests.support.mask_sets import write_discs


@pytest.fixture
def root(tmp_path):
    root = write_discs(tmp_path / "data", 5)
    (root / "dataset.json").unlink()
    (root / "masks").rename(root / "truth")  # which the names of files would not tell
    return root


def write_table(root, header, rows):
    (root / "list.csv").write_text("\n".join([header, *rows]) + "\n")


def read(root, task="segmentation", **columns):
    return read_dataset(
        {"training": root}, reading=Reading(Columns(**columns), LabelRules(task=task)), task=task,
        validation_fraction=0.25, test_fraction=0.0, seed=0,
    )  # fmt: skip


def pairs(dataset):
    return {record.image.name: record.mask for split in ("training", "validation") for record in dataset.split(split)}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("image,mask", {}),
        ("Image Path,Mask Path", {}),
        ("filename,segmentation", {}),
        ("image,label", {}),
        ("image,drawn", {"label": ("drawn",)}),
    ],
)
@pytest.mark.parametrize("task", ["segmentation", "auto"])
def test_a_column_of_files_of_masks_is_read(root, header, columns, task):
    write_table(root, header, [f"images/{i}.png,truth/{i}.png" for i in range(5)])

    dataset = read(root, task, **columns)

    assert dataset.task == "segmentation"
    assert pairs(dataset) == {f"{i}.png": root / "truth" / f"{i}.png" for i in range(5)}
    record = dataset.training[0]
    labels, _ = labels_on_grid(record.mask, grid_of(record.image, None), dataset.legend)
    assert np.array_equal(labels.T > 0, np.asarray(Image.open(record.mask)) > 0)


def test_patients_splits_and_rows_without_a_mask_are_read_as_of_any_table(root):
    rows = [f"images/{i}.png,truth/{i}.png,p{i // 2},{'val' if i == 4 else 'train'},benign" for i in range(5)]
    write_table(root, "image,mask,patient_id,split,diagnosis", [*rows[:3], "images/3.png,,p1,train,benign", rows[4]])

    dataset = read(root)

    assert [record.image.name for record in dataset.validation] == ["4.png"]
    assert [record.group for record in dataset.training] == ["p0", "p0", "p1"]
    assert dataset.training[0].metadata["diagnosis"] == "benign"
    assert {(each.code, each.count) for each in dataset.remarks} >= {("images_without_mask", 1)}


def test_a_table_with_another_label_stays_one_of_classes_unless_masks_are_asked_for(root):
    rows = [f"images/{i}.png,truth/{i}.png,{'ab'[i % 2]}" for i in range(5)]
    write_table(root, "image,mask,label", rows)

    assert read(root, "auto").task == "classification"
    assert len(pairs(read(root))) == 5


def test_several_names_in_a_cell_are_parts_of_one_mask(root):
    for place, columns in enumerate((slice(0, 3), slice(10, 13))):
        part = np.zeros((40, 48), np.uint8)
        part[:, columns] = 255
        Image.fromarray(part).save(root / "truth" / f"0_{place}.png")
    write_table(
        root, "image,mask",
        ["images/0.png,truth/0_0.png;truth/0_1.png", *(f"images/{i}.png,truth/{i}.png" for i in (1, 2, 3))],
    )  # fmt: skip

    dataset = read(root)

    record = next(r for r in dataset.training + dataset.validation if r.image.name == "0.png")
    labels, findings = labels_on_grid(record.mask, grid_of(record.image, None), dataset.legend)
    assert (np.flatnonzero(labels.any(axis=1)).tolist(), findings[-1]) == ([0, 1, 2, 10, 11, 12], "mask_in_parts")


def test_tables_that_cannot_be_meant_are_refused_or_passed_over(root):
    write_table(root, "image,mask", ["images/0.png,truth/0.png", "images/1.png,lost/9.png"])
    with pytest.raises(DatasetError, match=r"column of masks names images that are not in the channel.*lost/9.png"):
        read(root)

    write_table(root, "image,mask", ["images/0.png,1 3 10 5", "images/1.png,"])  # run lengths are not files
    (root / "truth").rename(root / "masks")
    assert "tables_passed_over" in {each.code for each in read(root).remarks}
