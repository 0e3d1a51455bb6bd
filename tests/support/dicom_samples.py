"""Small DICOM files and series whose values are known."""

import numpy as np
from pydicom.uid import CTImageStorage, generate_uid

from tests.support.made_dicom import made_file

SERIES_UID = "1.2.826.0.1.3680043.8.498.1"


def dicom_bytes(stored, *, number=1, z_mm=0.0, series=SERIES_UID, spacing=(1.0, 1.0), preamble=True, **elements):
    """One CT file: `stored` is (rows, columns), (rows, columns, 3) or (frames, rows, columns); rescaled by -1000."""
    stored = np.asarray(stored)
    is_colour = stored.ndim == 3 and stored.shape[2] == 3
    grey = {
        "RescaleSlope": 1, "RescaleIntercept": -1000, "PixelSpacing": list(spacing),  # between rows, between columns
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, z_mm],
    }  # fmt: skip
    header = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": f"{series}.{number}", "SeriesInstanceUID": series,
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]), "Modality": "CT", "PatientID": "patient",
        "PatientName": "Name^Secret", "InstanceNumber": number, **({} if is_colour else grey),
    }  # fmt: skip
    values = stored.astype(np.uint8 if is_colour else np.uint16)
    frames = values if values.ndim == 3 and not is_colour else values[None]
    content = made_file(frames, **(header | elements))
    return content if preamble else content[132:]


def series_values(slices=6, rows=10, columns=8, seed=0):
    """Stored values (slices, rows, columns)."""
    return np.random.default_rng(seed).integers(0, 2000, (slices, rows, columns))


def series_bytes(values=None, **options):
    """The files of a series, 2.5 mm apart, out of order."""
    values = series_values() if values is None else values
    files = [dicom_bytes(plane, number=50 - k, z_mm=2.5 * k, **options) for k, plane in enumerate(values)]
    return files[::2] + files[1::2]
