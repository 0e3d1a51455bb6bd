"""DICOM series made for tests: MR slices of any orientation, with any element set or left out."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid

from tests.support.made_dicom import made_dataset

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, 0.8)  # two unit vectors at a right angle, with short decimals
ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE}

ORIGIN = (-31.5, 12.25, 100.75)
SPACING = (0.75, 0.5)  # between rows, between columns
GAP_MM = 2.5
STUDY, SERIES, FRAME = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))
SHAPE = (6, 7, 5)  # slices, rows, columns


def pixels(shape: Sequence[int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Stored values (D, H, W), int16, all different from one another."""
    values = np.random.default_rng(seed).permutation(int(np.prod(shape))) - 100
    return values.reshape(shape).astype(np.int16)


def make_slice(values: np.ndarray, **elements: Any) -> Dataset:
    """One file of stored values (H, W), or (F, H, W) for a multi-frame file; an element that is None is left out."""
    header = {
        "SOPClassUID": MRImageStorage, "SOPInstanceUID": generate_uid(), "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES, "FrameOfReferenceUID": FRAME, "Modality": "MR", "Manufacturer": "Test",
        "PatientID": "P1", "PatientName": "Test^Test", "SeriesDescription": "phantom", "SeriesNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "M"], "ImageOrientationPatient": list(AXIAL),
        "ImagePositionPatient": list(ORIGIN), "PixelSpacing": list(SPACING), "SliceThickness": GAP_MM,
    }  # fmt: skip
    frames = values if values.ndim == 3 else values[None]
    return made_dataset(frames.astype(np.int16), **(header | elements))


def positions_of(count: int, orientation: Sequence[float] = AXIAL, gap_mm: float = GAP_MM) -> np.ndarray:
    """ImagePositionPatient of slices (n, 3) that follow each other along row x column."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.asarray(ORIGIN) + np.outer(np.arange(count) * gap_mm, normal)


def make_series(
    values: np.ndarray, orientation: Sequence[float] = AXIAL, *, places: np.ndarray | None = None, **elements: Any
) -> list[Dataset]:
    """Slices of a volume (D, H, W) in order, with random InstanceNumbers."""
    places = positions_of(len(values), orientation) if places is None else places
    numbers = np.random.default_rng(1).permutation(len(values)) + 1
    files = []
    for stored, place, number in zip(values, places, numbers, strict=True):
        header = {
            "ImageOrientationPatient": list(orientation),
            "ImagePositionPatient": [float(number) for number in place],
            "InstanceNumber": int(number),
        }
        files.append(make_slice(stored, **(header | elements)))
    return files


def to_bytes(dataset: Dataset, *, has_preamble: bool = True) -> bytes:
    """The file; without preamble also without file meta information, as in old exports."""
    file = io.BytesIO()
    if has_preamble:
        dataset.save_as(file, enforce_file_format=True)
    else:
        bare = Dataset(dataset)
        bare.save_as(file, implicit_vr=True, little_endian=True)
    return file.getvalue()


def write_series(folder: Path, files: Sequence[Dataset], *, seed: int = 2) -> list[Path]:
    """Write under names in another order than that of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(files))
    paths = [folder / f"{name:04d}" for name in names]
    for path, dataset in zip(paths, files, strict=True):
        path.write_bytes(to_bytes(dataset))
    return paths


def enhanced(
    values: np.ndarray, orientation: Sequence[float] = AXIAL, *, order: Sequence[int] | None = None
) -> Dataset:
    """An enhanced MR file whose frames are the slices of a volume (D, H, W), in `order`."""
    order = range(len(values)) if order is None else order
    places = positions_of(len(values), orientation)
    dataset = make_slice(
        values[list(order)],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
    )
    measures, turn, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = list(SPACING), 2.0, GAP_MM
    turn.ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in order:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = [float(number) for number in places[index]]
        group.PlanePositionSequence = [place]
        content = Dataset()
        content.StackID, content.InStackPositionNumber = "1", int(index) + 1
        group.FrameContentSequence = [content]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


CT = {"SOPClassUID": CTImageStorage, "Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
