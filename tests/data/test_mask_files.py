"""Masks beside images: by name, neighbour and pixels, in all layouts; what is only called so stays an image."""

import json

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.data.mask_files import images_with_masks, set_masks_aside
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images.pictures import has_few_values


def noise(seed=0, mode="L"):
    values = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def blob(seed=0, mode="1"):
    values = np.zeros((24, 24), np.uint8)
    values[5 : 12 + seed % 8, 4:15] = 255
    return Image.fromarray(values).convert(mode)


def put(root, *names):
    """Files by their names: with * a mask, of a volume a file that nobody opens, else a picture."""
    paths = []
    for seed, name in enumerate(names):
        path = root / name.rstrip("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".gz", ".nii", ".mha", ".dcm"):
            path.write_bytes(b"volume")
        else:
            (blob(seed, "L" if path.suffix == ".jpg" else "1") if name.endswith("*") else noise(seed)).save(path)
        paths.append(path)
    return paths


def split(root, *names):
    """(masks with their images, doubtful), by their names."""
    aside = set_masks_aside(put(root, *names), root)
    shown = {mask: [image.relative_to(root).as_posix() for image in images] for mask, images in aside.masks.items()}
    masks = {mask.relative_to(root).as_posix(): images for mask, images in shown.items()}
    assert set(aside.images).isdisjoint(aside.masks)
    return masks, [path.relative_to(root).as_posix() for path in aside.doubtful]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("benign (1).png", "benign (1)_mask.png"),
        ("benign (1).png", "benign (1)_mask_1.png*"),
        ("1.jpg", "1_mask.png"),
        ("1.png", "1_MASK.PNG"),
        ("1.png", "1mask.png"),
        ("1.png", "1-seg.png"),
        ("IMG_12.png", "IMG_12 Segmentation.png"),
        ("imgA.png", "imgAMask.png"),
        ("x_7.tif", "x_7_GT.tif"),
        ("x.png", "x_ground_truth.png"),
        ("x.png", "xGroundTruth.bmp"),
        ("x.png", "mask_x.png"),
        ("image_003.png", "mask_3.png"),
        ("image1.png", "label1.png*"),
        ("1.png", "1_lesion.png*"),
        ("1.png", "1_lungmask.jpg*"),
        ("images/1.png", "masks/1.png*"),
        ("Images/1.png", "Ground Truth/1.png*"),
        ("img/a/1.png", "annotations/a/1.png*"),
        ("a/1.png", "a/masks/1.png*"),
        ("a/1.png", "masks/1.png*"),
        ("ct.nii.gz", "segmentation.nii.gz"),
        ("case1/imaging.nii.gz", "case1/segmentation.nii.gz"),
        ("volume-10.nii", "segmentation-10.nii"),
        ("a_001.nii.gz", "a_001-label.nii.gz"),
        ("BraTS_001_t1.nii.gz", "BraTS_001_seg.nii.gz"),
        ("imagesTr/liver_0_0000.nii.gz", "labelsTr/liver_0.nii.gz"),
        ("s1/ct.nii.gz", "s1/segmentations/ct.nii.gz*"),
        ("1.dcm", "1_mask.dcm"),
    ],
)
def test_a_mask_is_known_by_its_name_and_the_image_beside_it(tmp_path, image, mask, monkeypatch):
    monkeypatch.setattr(
        "sagemaker_monai.data.mask_files._has_few_values", lambda path: f"{path.name}*" == mask.split("/")[-1]
    )

    assert split(tmp_path, image, mask) == ({mask.rstrip("*"): [image]}, [])


@pytest.mark.parametrize(
    "names",
    [
        ("label1/1.png", "label1/2.png", "label2/3.png"),
        ("a/label1.png", "a/label2.png"),
        ("a/mask_of_zorro.png", "a/2.png"),
        ("with_mask/1.png", "without_mask/1.png"),
        ("healthy/1.png", "tumor/1.png", "lesion/1.png"),
        ("seg/1.png", "nonseg/2.png"),
        ("a/segovia.png", "a/maskulin.png", "a/gtx.png"),
    ],
)
def test_what_is_only_called_so_is_an_image(tmp_path, names):
    assert split(tmp_path, *names) == ({}, [])


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (("clean/1.png", "mask/1.png"), "mask/1.png"),  # a class, or masks in grey
        (("a/1.png", "a/1_lesion.png"), "a/1_lesion.png"),  # a picture of the lesion?
        (("a/1.png", "a/9_mask.png*"), "a/9_mask.png"),  # whose?
    ],
)
def test_what_leaves_doubt_is_an_image_and_said(tmp_path, names, doubtful):
    assert split(tmp_path, *names) == ({}, [doubtful])


def test_a_mask_whose_image_is_missing_is_none_where_its_neighbours_are_masks(tmp_path):
    masks, doubtful = split(
        tmp_path, "a/1.png", "a/1_mask.png*", "a/2_mask.png*", "masks/3.png*", "a/3.png", "masks/4.png*"
    )

    assert masks == {"a/1_mask.png": ["a/1.png"], "a/2_mask.png": [], "masks/3.png": ["a/3.png"], "masks/4.png": []}
    assert doubtful == []


@pytest.mark.parametrize(
    ("picture", "suffix", "is_few"),
    [
        (blob(), "png", True),
        (blob(mode="L"), "jpg", True),
        (blob(mode="RGB"), "webp", True),
        (blob(mode="P"), "png", True),
        (Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) % 9), "png", True),
        (Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)), "png", False),
        (noise(), "jpg", False),
        (noise(mode="RGB"), "png", False),
        (noise(mode="P"), "png", False),
    ],
)
def test_few_values_are_what_masks_have(tmp_path, picture, suffix, is_few):
    picture.save(tmp_path / f"x.{suffix}")

    assert has_few_values(tmp_path / f"x.{suffix}") is is_few


def test_what_is_no_picture_has_no_few_values(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")

    assert not has_few_values(tmp_path / "x.png")
    assert not has_few_values(tmp_path / "there_is_none.png")


# --- layouts ---------------------------------------------------------------------------------------------------------


def read(root):
    return read_channels({"training": root})


def test_masks_in_class_folders_are_passed_over_and_kept_for_whom_needs_them(tmp_path):
    for label in ("benign", "malignant"):
        put(
            tmp_path,
            *(f"{label}/{n}.png" for n in range(4)),
            *(f"{label}/{n}_mask{end}.png*" for n in range(3) for end in ("", "_1")),
        )
    layout = read(tmp_path)

    assert sorted(entry.name for entry in layout.entries) == [
        f"{x}/{n}.png" for x in ("benign", "malignant") for n in range(4)
    ]
    assert len(layout.aside.masks) == 12
    kept = images_with_masks(layout.aside)
    assert kept[tmp_path / "benign/1.png"] == (tmp_path / "benign/1_mask.png", tmp_path / "benign/1_mask_1.png")
    assert tmp_path / "benign/3.png" not in kept


def test_a_folder_of_masks_beside_class_folders_is_no_class(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png", "masks/1.png*", "masks/2.png*")

    assert read(tmp_path).labels == ("a", "b")


def test_what_a_table_names_is_an_image(tmp_path):
    put(tmp_path, "1.png", "1_mask.png*", "2.png", "2_mask.png*", "2_mask_of_it.txt.png")
    (tmp_path / "labels.csv").write_text("image,label\n1.png,a\n1_mask.png,b\n2.png,a\n")
    layout = read(tmp_path)

    assert [entry.name for entry in layout.entries] == ["1.png", "1_mask.png", "2.png"]
    assert "2_mask.png" in {mask.name for mask in layout.aside.masks}
    assert [path.name for path in layout.aside.doubtful] == ["1_mask.png"]


def test_masks_beside_what_dataset_json_lists_are_kept(tmp_path):
    put(tmp_path, "images/1.png", "images/2.png", "masks/1.png*")
    items = [{"image": f"images/{n}.png", "label": "ab"[n - 1]} for n in (1, 2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "a", "1": "b"}, "training": items}))

    assert images_with_masks(read(tmp_path).aside) == {tmp_path / "images/1.png": (tmp_path / "masks/1.png",)}


def test_masks_and_doubts_are_remarked_once_for_all_channels(tmp_path):
    for channel in ("train", "validation"):
        for label in ("a", "b"):
            put(
                tmp_path / channel,
                *(f"{label}/{n}.png" for n in range(3)),
                f"{label}/1_mask.png*",
                f"{label}/1_roi.png",
            )
    channels = {name: tmp_path / name for name in ("train", "validation")}
    dataset = read_dataset(channels, validation_fraction=0.3, test_fraction=0, seed=0)

    assert [(each.code, each.count) for each in dataset.remarks] == [
        ("masks_passed_over", 4),
        ("masks_among_images", 4),
    ]


def test_only_masks_are_no_data_set(tmp_path):
    put(tmp_path, "masks/1.png*", "images/1.png")

    with pytest.raises(DatasetError, match="only one class"):
        read_dataset({"training": tmp_path}, validation_fraction=0.3, test_fraction=0, seed=0)
