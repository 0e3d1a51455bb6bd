"""Data sets of masks without dataset.json: what is found by names, and what is not guessed."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.case_store import open_store
from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.label_rules import LabelRules
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import grid_of, labels_on_grid
from sagemaker_monai.doctor.examine import Options, examine
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.masks.mask import Parts
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.storage.digests import Digests
from tests.support.mask_sets import ball_volume, write_balls, write_discs


def read(root, **changes):
    settings = {"task": "segmentation", "validation_fraction": 0.25, "test_fraction": 0.0, "seed": 0}
    return read_dataset({"training": root}, **(settings | changes))


def pairs(dataset):
    return {
        record.image.name: record.mask.name for split in ("training", "validation", "test")
        for record in dataset.split(split)
    }  # fmt: skip


def discs(root, count=4):
    write_discs(root, count)
    (root / "dataset.json").unlink()
    return root


def balls(root, count=4):
    write_balls(root, count)
    (root / "dataset.json").unlink()
    return root


def codes(dataset):
    return {remark.code for remark in dataset.remarks}


def test_images_and_masks_of_black_and_white_are_one_structure(tmp_path):
    root = discs(tmp_path / "data", 5)
    (root / "masks" / "4.png").unlink()

    dataset = read(root)

    assert pairs(dataset) == {f"{index}.png": f"{index}.png" for index in range(4)}
    assert (dataset.task, dataset.labels, dataset.legend) == (
        "segmentation",
        ("structure",),
        Legend((1,), ("structure",)),
    )
    assert "images_without_mask" in codes(dataset)
    assert not codes(dataset) & {"masks_passed_over", "masks_among_images"}


def test_masks_stay_passed_over_unless_they_are_asked_for(tmp_path):
    root = tmp_path / "data"
    for label in ("benign", "malignant"):
        discs(root / label, 4)

    dataset = read(root, task="auto")

    assert (dataset.task, dataset.labels) == ("classification", ("benign", "malignant"))
    assert "masks_passed_over" in codes(dataset)


def test_a_structure_is_called_as_the_folder_of_its_masks(tmp_path):
    root = discs(tmp_path / "data")
    (root / "masks").rename(root / "lesion_masks")

    assert read(root).labels == ("lesion",)


def test_masks_beside_their_images_are_found_by_their_ends(tmp_path):
    for index in range(4):
        values, labels, affine = ball_volume(index)
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"CASE_{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image((labels == 1).astype(np.uint8), affine), tmp_path / f"CASE_{index}_seg.nii.gz")

    assert pairs(read(tmp_path)) == {f"CASE_{index}.nii.gz": f"CASE_{index}_seg.nii.gz" for index in range(4)}


def test_values_need_names_and_labels_json_gives_them(tmp_path):
    root = balls(tmp_path / "data")

    with pytest.raises(DatasetError, match=r"nothing says \(1, 2\): write labels.json"):
        read(root)
    (root / "labels.json").write_text(json.dumps({"0": "background", "1": "bright", "2": "dark"}))
    assert read(root).labels == ("bright", "dark")
    (root / "labels.json").write_text(json.dumps({"whole": [1, 2], "core": [2, 3]}))
    with pytest.raises(DatasetError, match=r"^labels.json has regions whole and core that overlap"):
        read(root)
    (root / "labels.json").write_text(json.dumps({"whole": [1, 2], "dark": 2, "regions_class_order": [1, 2]}))
    assert read(root).labels == ("whole", "dark")


def test_channels_of_nnunet_are_one_image_and_splits_are_kept(tmp_path):
    root = balls(tmp_path / "data")
    (root / "labels.json").write_text(json.dumps(["background", "bright", "dark"]))
    for image in sorted((root / "imagesTr").iterdir()):
        stem = image.name.removesuffix(".nii.gz")
        (root / "imagesTr" / f"{stem}_0001.nii.gz").write_bytes(image.read_bytes())
        image.rename(root / "imagesTr" / f"{stem}_0000.nii.gz")
    for folder in ("images", "labels"):
        (root / f"{folder}Ts").mkdir()
        for file in sorted((root / f"{folder}Tr").glob("case_03*")):
            file.rename(root / f"{folder}Ts" / file.name)

    dataset = read(root)

    assert [path.name for path in dataset.test[0].image.channels] == ["case_03_0000.nii.gz", "case_03_0001.nii.gz"]
    assert len(dataset.training) + len(dataset.validation) == 3


def test_what_is_not_clear_is_refused_with_the_remedy(tmp_path):
    root = discs(tmp_path / "two")
    (root / "masks" / "0_mask.png").write_bytes((root / "masks" / "0.png").read_bytes())
    with pytest.raises(DatasetError, match=r"images with several masks: 1 \(0.png\).*dataset.json"):
        read(root)

    root = discs(tmp_path / "orphan")
    (root / "images" / "0.png").unlink()
    with pytest.raises(DatasetError, match=r"masks without an image: 1 \(0.png\)"):
        read(root)

    root = discs(tmp_path / "none")
    for mask in (root / "masks").iterdir():
        mask.unlink()
    with pytest.raises(DatasetError, match="no mask was found beside the images"):
        read(root)

    root = discs(tmp_path / "empty")
    for mask in (root / "masks").iterdir():
        Image.new("L", (48, 40)).save(mask)
    with pytest.raises(DatasetError, match="no mask shows anything"):
        read(root)


def test_folders_of_images_are_groups_if_they_are_many(tmp_path):
    source = discs(tmp_path / "source", 4)
    for patient in range(12):
        for folder in ("images", "masks"):
            place = tmp_path / "many" / folder / f"patient{patient}"
            place.mkdir(parents=True)
            for index in range(2):
                (place / f"{index}.png").write_bytes((source / folder / f"{index}.png").read_bytes())

    dataset = read(tmp_path / "many")

    sides = [{record.group for record in dataset.split(split)} for split in ("training", "validation")]
    assert len(sides[0]) + len(sides[1]) == len(sides[0] | sides[1]) == 12
    assert "groups_by_folder" in codes(dataset)


# --- one file a structure


@pytest.fixture
def total(tmp_path):
    """Cases as TotalSegmentator has them."""
    root = tmp_path / "total"
    for index in range(4):
        folder = root / f"s{index:04}" / "segmentations"
        folder.mkdir(parents=True)
        values, labels, affine = ball_volume(index)
        nibabel.save(nibabel.Nifti1Image(values, affine), folder.parent / "ct.nii.gz")
        for value, name in enumerate(("spleen", "aorta"), start=1):
            mask = (labels == value).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}.nii.gz")
    return root


def test_one_file_a_structure_is_joined_to_one_mask(total):
    dataset = read(total)

    assert dataset.labels == ("aorta", "spleen")
    assert len(dataset.training) + len(dataset.validation) == 4
    record = dataset.training[0]
    labels, findings = labels_on_grid(record.mask, grid_of(record.image, None), dataset.legend)
    _, drawn, _ = ball_volume(int(record.name[1:5]))
    assert np.array_equal(labels, np.array([0, 2, 1])[drawn])
    assert findings == ()


def test_structures_that_overlap_are_refused_by_their_names(total, tmp_path):
    whole = nibabel.Nifti1Image(np.ones((18, 20, 16), np.uint8), np.diag([1.0, 1, 1, 1]))
    nibabel.save(whole, total / "s0000" / "segmentations" / "aorta.nii.gz")
    (tmp_path / "scratch").mkdir()

    examination = examine({"training": total}, tmp_path / "scratch", Options(rules=LabelRules(task="segmentation")))

    [unusable] = [each for each in examination.remarks if each.code == "masks_unusable"]
    assert unusable.count == 1
    assert [each.count for each in examination.remarks if each.code == "labels_are_masks"] == [4]
    assert "overlap, and one map cannot hold both: aorta and spleen" in unusable.message
    assert examination.labels["structures"]["spleen"]["masks"] == 3


def test_a_case_without_the_file_of_a_structure_is_refused(total):
    (total / "s0002" / "segmentations" / "spleen.nii.gz").unlink()

    with pytest.raises(DatasetError, match=r"some cases have no file: 1 \(spleen\)"):
        read(total)


def test_dataset_json_chooses_among_the_files_of_structures(total):
    items = [
        {"image": f"{case}/ct.nii.gz", "label": f"{case}/segmentations"}
        for case in sorted(p.name for p in total.iterdir())
    ]
    content = {"task": "segmentation", "labels": ["background", "spleen"], "training": items}
    (total / "dataset.json").write_text(json.dumps(content))

    dataset = read(total)

    record = dataset.training[0]
    labels, findings = labels_on_grid(record.mask, grid_of(record.image, None), dataset.legend)
    _, drawn, _ = ball_volume(int(record.name[1:5]))
    assert np.array_equal(labels, drawn == 1)
    assert findings == ("structures_left_out",)


# --- masks in parts


def parts_of_lesions(root, *, is_covering=False):
    """Four pictures as BUSI has them, the first with two lesions: columns 2 to 9 and 20 to 27 of the rows 4 to 11."""
    root.mkdir()
    for number in range(1, 5):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 48), np.uint8)).save(
            root / f"benign ({number}).png"
        )
        first = np.zeros((40, 48), np.uint8)
        first[4:12, 2:10] = 255
        Image.fromarray(first).save(root / f"benign ({number})_mask.png")
    second = np.zeros((40, 48), np.uint8)
    second[4:12, slice(4, 12) if is_covering else slice(20, 28)] = 255
    Image.fromarray(second).save(root / "benign (1)_mask_1.png")
    return root


def test_numbered_masks_of_an_image_are_laid_together_and_it_is_said(tmp_path):
    root = parts_of_lesions(tmp_path / "busi")

    dataset = read(root)

    records = {record.image.name: record for split in ("training", "validation") for record in dataset.split(split)}
    assert len(records) == 4
    record = records["benign (1).png"]
    labels, findings = labels_on_grid(record.mask, grid_of(record.image, None), dataset.legend)
    expected = np.zeros((48, 40), np.uint8)
    expected[2:10, 4:12] = expected[20:28, 4:12] = 1
    assert np.array_equal(labels, expected)
    assert findings == ("mask_white_is_one", "mask_in_parts")
    single = records["benign (2).png"]
    assert labels_on_grid(single.mask, grid_of(single.image, None), dataset.legend)[1] == ("mask_white_is_one",)


def test_masks_of_an_image_that_cover_each_other_are_not_laid_together(tmp_path):
    root = parts_of_lesions(tmp_path / "two", is_covering=True)
    (tmp_path / "scratch").mkdir()

    examination = examine({"training": root}, tmp_path / "scratch", Options(rules=LabelRules(task="segmentation")))

    [unusable] = [each for each in examination.remarks if each.code == "masks_unusable"]
    assert (unusable.count, "48 of 64 voxels of the smaller one" in unusable.message) == (1, True)


@pytest.mark.parametrize(
    "name", ["other_masks/benign (1)_mask.png", "benign (1)_mask_old.png", "benign (1)_mask_0001_2.png"]
)
def test_masks_that_are_not_numbered_alike_stay_refused(tmp_path, name):
    root = parts_of_lesions(tmp_path / "odd")
    (root / name).parent.mkdir(exist_ok=True)
    (root / "benign (1)_mask_1.png").rename(root / name)

    with pytest.raises(DatasetError, match=r"images with several masks: 1 \(benign \(1\).png\)"):
        read(root)


def test_parts_of_a_mask_are_prepared_and_known_again_by_their_grouping(tmp_path):
    root = parts_of_lesions(tmp_path / "busi")
    dataset = read(root)
    record = next(r for r in dataset.training + dataset.validation if isinstance(r.mask, Parts))
    preprocessing = build_preprocessing(photograph_preprocessing(channels=1, image_size=48, fit="stretch"))
    stores = [
        open_store(
            [Sample(record.image)] * 2, masks, dataset.legend, preprocessing, cache_dir=tmp_path / "cache",
            workers=1, what="reading", digests=Digests(),
        )
        for masks in ([record.mask, record.mask.files[0]], [record.mask.files[0], record.mask])
    ]  # fmt: skip

    [[two, one], swapped] = [[case.counts[0] for case in store.cases] for store in stores]
    assert (two, swapped) == (2 * one, [one, two])
