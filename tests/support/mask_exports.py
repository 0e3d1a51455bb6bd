"""Exports of DICOM series with their masks, as a PACS or a drawing program writes them."""

import copy
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from tests.masks.test_rtstruct import contour, in_mm, structure_set
from tests.support.dicom_series import to_bytes
from tests.support.segmentations import grid_of, segmentation, series

SHAPE = (3, 8, 6)  # slices, rows, columns
SQUARE = [(0.5, 0.5), (3.5, 0.5), (3.5, 3.5), (0.5, 3.5)]  # voxels 1 to 3 of both axes
STRIP = [(3.5, 4.5), (5.5, 4.5), (5.5, 7.5), (3.5, 7.5)]  # 4 to 5, and 5 to 7


def uid(*words: object) -> str:
    return generate_uid(entropy_srcs=[str(word) for word in words])


def patient_series(patient: str, number: int = 1, **elements):
    """The files of one series of a patient, in the order of its slices; pixels differ by patient and number."""
    known = {
        "PatientID": patient,
        "PatientName": f"Quixotic^{patient}",
        "StudyInstanceUID": uid("study", patient),
        "SeriesInstanceUID": uid("series", patient, number),
        "FrameOfReferenceUID": uid("frame", patient),
        "SeriesNumber": number,
        "SeriesDescription": "t1",
    }
    files = series(shape=SHAPE, **(known | elements))
    seed = sum(map(ord, patient)) + number
    for place, each in enumerate(files):
        each.PixelData = np.random.default_rng([seed, place]).integers(0, 999, SHAPE[1:], dtype="<i2").tobytes()
        each.SOPInstanceUID = each.file_meta.MediaStorageSOPInstanceUID = uid("slice", patient, number, place)
    return files


def squares(value: int = 1, other: int = 0) -> np.ndarray:
    """Values (D, H, W): SQUARE in the second slice, and STRIP in the third."""
    values = np.zeros(SHAPE, np.uint8)
    values[1, 1:4, 1:4] = value
    values[2, 5:8, 4:6] = other
    return values


def seg(files, values=None, labels=("liver",), **elements):
    """A SEG with elements set afterwards; highdicom shares elements with the files, so these are copied."""
    found = segmentation(copy.deepcopy(files), squares() if values is None else values, labels=labels)
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = uid("seg", files[0].SeriesInstanceUID, elements)
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


def rtstruct(files, structures=None, **elements):
    """An RTSTRUCT of names and the number of a slice with its outline."""
    grid = grid_of(files)
    drawn = {"liver": (1, SQUARE)} if structures is None else structures
    contours = [
        (name, [contour(in_mm(outline, index, grid), uid=files[index].SOPInstanceUID)])
        for name, (index, outline) in drawn.items()
    ]
    found = structure_set(contours, files)
    found.PatientID, found.PatientName = files[0].PatientID, files[0].PatientName
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


def put_export(folder: Path, **objects) -> Path:
    """Write objects, or lists of them, without suffix in folders of any name."""
    for name, found in objects.items():
        for number, each in enumerate(found if isinstance(found, list) else [found]):
            path = folder / name[-1] / f"{name}{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = to_bytes(each)
            if not path.exists() or path.read_bytes() != content:  # the same export again is not newer
                path.write_bytes(content)
    return folder
