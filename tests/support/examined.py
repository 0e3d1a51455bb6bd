"""Small data sets for the tests of doctor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from tests.support.dicom_series import make_slice, to_bytes


def slice_of(seed: int, **elements: Any) -> Dataset:
    """One CR picture of 12 x 10 values; each seed gives other values and another patient."""
    values = np.random.default_rng(seed).integers(0, 1000, (12, 10), dtype=np.int16)
    return make_slice(
        values,
        **{
            "Modality": "CR", "PatientID": f"Patient-{seed:04d}", "PatientName": f"Name{seed:04d}",
            "SeriesInstanceUID": f"1.2.3.4.5.{seed + 1}", "StudyInstanceUID": f"1.2.3.4.6.{seed + 1}",
            "SOPInstanceUID": f"1.2.3.4.7.{seed + 1}", "ImagePositionPatient": None, "ImageOrientationPatient": None,
        } | elements,
    )  # fmt: skip


def write_dataset(folder: Path, items: Sequence[tuple[Dataset | bytes | None, dict[str, Any]]], **more: Any) -> Path:
    """A data set with dataset.json; each item is a file (None: missing) and its line, with `split` and `label`."""
    (folder / "images").mkdir(parents=True)
    lists: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    for number, (content, line) in enumerate(items):
        name = line.pop("name", f"images/{number:03d}.dcm")
        if content is not None:
            data = to_bytes(content) if isinstance(content, Dataset) else content
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        lists[line.pop("split", "training")].append({"image": f"./{name}", **line})
    labels = more.pop("labels", {"0": "benign", "1": "malignant"})
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "tensorImageSize": "2D", **lists, **more}))
    return folder


def sound(count: int = 24) -> list[tuple[Dataset | bytes | None, dict[str, Any]]]:
    """Items without faults, half of each class, a patient each."""
    return [
        (
            slice_of(number),
            {
                "label": ("benign", "malignant")[number % 2],
                "group": f"g{number}",
                "split": "training" if number % 6 < 4 else "validation",
            },
        )
        for number in range(count)
    ]
