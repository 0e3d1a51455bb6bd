"""Folders of small files with made-up patients, and tables of labels, for the tests of the importers."""

import csv
import json
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from tests.support.identified import ct
from tests.support.made_dicom import as_file


def slice_file(patient="P1", series=1, number=1, *, study=None, fill=None, **values):
    """The bytes of a CT slice of 4 x 4, whose pixels differ by patient, series and number unless `fill` is given."""
    seed = sum(ord(letter) * 7**place for place, letter in enumerate(f"{patient}/{series}/{number}")) % 65_000
    pixels = np.random.default_rng(seed).integers(0, 4000, (4, 4), dtype="<u2")
    if fill is not None:
        pixels[:] = fill
    study = study if study is not None else f"1.2.{sum(map(ord, patient or 'none'))}"
    elements = {
        "PatientID": patient,
        "PatientName": f"Quixotic^{patient}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "SOPInstanceUID": f"{study}.{series}.{number}",
        "InstanceNumber": number,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 2.0 * number],
        "PixelSpacing": [1, 1],
        "PixelData": pixels.tobytes(),
    }
    dataset = ct(**elements | values)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return as_file(dataset)


def put(folder: Path, files: dict) -> Path:
    """Write files by their relative names."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def table(path: Path, *rows) -> Path:
    """Write a CSV file of rows."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def content_of(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_text())


def records_of(out: Path) -> list:
    """All records, each with its split."""
    content = content_of(out)
    return [{**item, "split": split} for split in ("training", "validation", "test") for item in content[split]]
