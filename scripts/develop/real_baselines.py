"""Baselines of the real runs: one number each without a network, fitted on training and scored on test."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from develop.mask_answers import overlap


@dataclass(frozen=True)
class Answers:
    """A data set's images and labels by split, as dataset.json has them."""

    images: dict[str, list[Path]]
    labels: dict[str, list[Any]]
    names: tuple[str, ...]

    @classmethod
    def read(cls, channel: Path) -> "Answers":
        """Read a data set that an importer wrote."""
        content = json.loads((channel / "dataset.json").read_text())
        return cls(
            {split: [channel / item["image"] for item in content[split]] for split in ("training", "test")},
            {split: [item["label"] for item in content[split]] for split in ("training", "test")},
            tuple(content["labels"].values()),
        )

    def indices(self, split: str) -> np.ndarray:
        """Classes from 0."""
        return np.array([self.names.index(label) for label in self.labels[split]])


def scanner_encoding(_channel: Path, data: Answers) -> float:
    """AUC of predicting the label's share in the training split by the file's encoding: sign, bits, rescale."""
    import pydicom

    def key(path: Path) -> tuple[Any, ...]:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        return header.PixelRepresentation, header.BitsStored, float(header.get("RescaleIntercept", 0))

    positives: Counter[Any] = Counter()
    totals: Counter[Any] = Counter()
    for path, label in zip(data.images["training"], data.indices("training"), strict=True):
        totals[key(path)] += 1
        positives[key(path)] += int(label)
    scores = [(positives[k] + 1) / (totals[k] + 2) for k in map(key, data.images["test"])]
    return float(roc_auc_score(data.indices("test"), scores))


def soft_tissue(_channel: Path, data: Answers) -> float:
    """AUC of a logistic regression on soft tissue's brightness: percentiles from 0 to 400 HU, and the share above."""
    import pydicom

    def values(path: Path) -> list[float]:
        dataset = pydicom.dcmread(path)
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        hu = dataset.pixel_array.astype(np.float64) * slope + intercept
        tissue = hu[(hu > 0) & (hu < 400)]
        return [*map(float, np.percentile(tissue, (50, 75, 90, 95, 99))), (hu > 120).mean(), (hu > 200).mean()]

    rows = {split: np.array([values(path) for path in data.images[split]]) for split in ("training", "test")}
    scale = StandardScaler().fit(rows["training"])
    model = LogisticRegression(max_iter=5000).fit(scale.transform(rows["training"]), data.indices("training"))
    return float(roc_auc_score(data.indices("test"), model.predict_proba(scale.transform(rows["test"]))[:, 1]))


def adrenal_shape(_channel: Path, data: Answers) -> float:
    """AUC of a logistic regression on the logarithms of volume, three shadows, and two erosions of each shape."""

    def sizes(path: Path) -> np.ndarray:
        inside: Any = np.load(path, allow_pickle=False) > 127
        found = [float(inside.mean()), *(float(inside.any(axis=axis).mean()) for axis in range(3))]
        for _ in range(2):
            core = inside[1:-1, 1:-1, 1:-1]
            for axis in range(3):
                for step in (-1, 1):
                    core = core & np.roll(inside, step, axis)[1:-1, 1:-1, 1:-1]
            inside = core
            found.append(float(inside.mean()))
        return np.log(np.asarray(found, dtype=np.float64) + 1e-4)

    rows = {split: np.stack([sizes(path) for path in data.images[split]]) for split in ("training", "test")}
    scale = StandardScaler().fit(rows["training"])
    model = LogisticRegression(C=100, max_iter=5000).fit(scale.transform(rows["training"]), data.indices("training"))
    return float(roc_auc_score(data.indices("test"), model.predict_proba(scale.transform(rows["test"]))[:, 1]))


def most_frequent_grade(_channel: Path, data: Answers) -> float:
    """Quadratically weighted kappa of always answering one grade, which is 0 by definition."""
    median = int(np.median(data.indices("training")))
    truth = data.indices("test")
    return float(np.nan_to_num(cohen_kappa_score(truth, np.full_like(truth, median), weights="quadratic")))


def crop_size(_channel: Path, data: Answers) -> float:
    """Mean absolute error of a linear regression on the three sides of the volume, without its content."""
    import nibabel

    def size(path: Path) -> list[float]:
        image: Any = nibabel.load(path)
        return [float(side) for side in image.shape[:3]]

    sides = {split: np.array([size(path) for path in data.images[split]]) for split in ("training", "test")}
    model = LinearRegression().fit(sides["training"], data.labels["training"])
    return float(np.abs(model.predict(sides["test"]) - np.array(data.labels["test"])).mean())


def atlas(channel: Path, data: Answers) -> float:
    """Mean Dice of always answering the training split's most frequent label at the same place of the crop."""
    import nibabel

    def labels_of(path: Path) -> np.ndarray:
        image: Any = nibabel.load(path)
        return np.asarray(image.dataobj).astype(np.uint8)

    def resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        places = [(np.arange(new) * old) // new for new, old in zip(shape, values.shape, strict=True)]
        return values[np.ix_(*places)]

    masks = {split: [labels_of(channel / name) for name in data.labels[split]] for split in ("training", "test")}
    shape = masks["training"][0].shape
    drawn = [resized(mask, shape) for mask in masks["training"]]
    values = range(len(data.names))
    usual = np.stack([np.mean([mask == value for mask in drawn], axis=0) for value in values]).argmax(axis=0)
    found = [
        overlap(resized(usual, mask.shape) == value, mask == value) for mask in masks["test"] for value in values[1:]
    ]
    return float(np.mean(found))


def usual_place(channel: Path, data: Answers) -> float:
    """Mean IoU of always answering the pixels that are in most lesions of the training split."""
    from PIL import Image

    def is_lesion(name: str, size: tuple[int, int]) -> np.ndarray:
        with Image.open(channel / name) as mask:
            return np.asarray(mask.convert("L").resize(size, Image.Resampling.NEAREST)) > 0

    side = (64, 64)
    usual = np.mean([is_lesion(name, side) for name in data.labels["training"]], axis=0) > 0.5
    scores = []
    for name in data.labels["test"]:
        lesion = is_lesion(name, side)
        union = (usual | lesion).sum()
        scores.append((usual & lesion).sum() / union if union else 1.0)
    return float(np.mean(scores))


def hippocampus_masks(source: Path, channel: Path) -> None:
    """Copy images and masks, and write a dataset.json that says the split: of ten cases one validates and two test."""
    content = json.loads((source / "dataset.json").read_text())
    for folder in ("imagesTr", "labelsTr"):
        shutil.copytree(source / folder, channel / folder)
    items = sorted(content.pop("training"), key=lambda item: item["image"])
    places = {"training": range(3, 10), "validation": range(2, 3), "test": range(2)}
    lists = {
        split: [item for number, item in enumerate(items) if number % 10 in them] for split, them in places.items()
    }
    (channel / "dataset.json").write_text(json.dumps({**content, **lists}, indent=1))


def hippocampus_labels(source: Path, made: Path) -> None:
    """Write labels.csv: the volume of each case's labelled voxels in cm3, from its label map."""
    import nibabel

    with (made / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "volume_cm3"])
        for path in sorted((source / "labelsTr").glob("*.nii.gz")):
            image: Any = nibabel.load(path)
            voxels = int((np.asarray(image.dataobj) > 0).sum())
            cubic_mm = float(np.abs(np.linalg.det(image.affine[:3, :3])))
            writer.writerow([path.name, f"{voxels * cubic_mm / 1000:.4f}"])
