"""Drawn data sets of images with masks: balls of two kinds in noise, and discs on photographs."""

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

LABELS = {"0": "background", "1": "bright", "2": "dark"}
REGIONS = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4}  # as of brain tumours


def ball_volume(
    seed: int, shape: tuple[int, ...] = (18, 20, 16), spacing: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A volume with a bright ball and a dark one, its mask, and its affine."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) * spacing
    extents = np.array(shape) * spacing
    values = rng.normal(100, 5, shape)
    labels = np.zeros(shape, np.uint8)
    for label, (share, level) in enumerate(((0.3, 160), (0.7, 40)), start=1):
        centre = share * extents + rng.uniform(-0.05, 0.05, len(shape)) * extents
        is_inside = np.linalg.norm(grid - centre.reshape(-1, *[1] * len(shape)), axis=0) < 0.2 * extents.min()
        values[is_inside] += level - 100
        labels[is_inside] = label
    return values.astype(np.float32), labels, np.diag([spacing, spacing, spacing, 1.0])


def write_balls(root: Path, count: int = 8, splits: dict[str, int] | None = None, **changes: object) -> Path:
    """A data set of volumes in the Decathlon's layout.

    Args:
        root: the folder.
        count: of volumes.
        splits: how many of them, from the first on, each list has; all are for training unless it says.
        changes: of dataset.json.
    """
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    items = []
    for index in range(count):
        values, labels, affine = ball_volume(index, shape=(18 + index % 3, 20, 16))
        for folder, array in (("imagesTr", values), ("labelsTr", labels)):
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / f"case_{index:02}.nii.gz")
        name = f"case_{index:02}.nii.gz"
        items.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    lists, start = {}, 0
    for split, size in (splits or {"training": count}).items():
        lists[split], start = items[start : start + size], start + size
    content = {"tensorImageSize": "3D", "modality": {"0": "MRI"}, "labels": LABELS, **lists, **changes}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def write_discs(root: Path, count: int = 8, size: tuple[int, int] = (48, 40)) -> Path:
    """A data set of photographs with a reddish disc each, and masks of 0 and 255."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    items = []
    for index in range(count):
        rng = np.random.default_rng(index)
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        centre = rng.uniform(0.35, 0.65, 2) * size
        is_inside = np.hypot(x - centre[0], y - centre[1]) < 0.25 * min(size)
        pixels = rng.normal(150, 10, (size[1], size[0], 3))
        pixels[is_inside] = rng.normal((160, 70, 60), 10, (int(is_inside.sum()), 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray((is_inside * 255).astype(np.uint8)).save(root / "masks" / f"{index}.png")
        items.append({"image": f"images/{index}.png", "label": f"masks/{index}.png"})
    content = {"tensorImageSize": "2D", "labels": {"background": 0, "disc": 1}, "training": items}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def write_nested(root: Path, count: int = 6, splits: dict[str, int] | None = None, **changes: object) -> Path:
    """Volumes in nnU-Net's layout of a ball with a brighter core, in which a part is brighter still: values 1, 2, 4.

    Args:
        root: the folder.
        count: of volumes, of which the last lie in imagesTs.
        splits: how many are for training and test.
        changes: of dataset.json.
    """
    test = (splits or {}).get("test", 0)
    for index in range(count):
        rng = np.random.default_rng(index)
        shape = (20, 18 + index % 3, 16)
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
        centre = np.array(shape) * rng.uniform(0.42, 0.58, 3)
        distance = np.linalg.norm(grid - centre.reshape(3, 1, 1, 1), axis=0)
        values, labels = rng.normal(100, 5, shape), np.zeros(shape, np.uint8)
        for label, radius, level in ((1, 7, 140), (2, 5, 180), (4, 3, 220)):
            values[distance < radius] += level - values[distance < radius].mean()
            labels[distance < radius] = label
        folders = ("imagesTs", "labelsTs") if index >= count - test else ("imagesTr", "labelsTr")
        for folder, array, suffix in zip(folders, (values.astype(np.float32), labels), ("_0000", ""), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), root / folder / f"case{index}{suffix}.nii.gz")
    content = {"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz", "labels": REGIONS, "numTraining": count - test}
    (root / "dataset.json").write_text(json.dumps(content | changes))
    return root
