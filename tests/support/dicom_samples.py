"""Small DICOM files and series whose values are known."""

import io

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES_UID = "1.2.826.0.1.3680043.8.498.1"


def dicom_bytes(stored, *, number=1, z_mm=0.0, series=SERIES_UID, spacing=(1.0, 1.0), preamble=True, **elements):
    """One CT file: `stored` is (rows, columns), (rows, columns, 3) or (frames, rows, columns); rescaled by -1000."""
    stored = np.asarray(stored)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, generate_uid(entropy_srcs=["study"])
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "patient", "Name^Secret"
    dataset.InstanceNumber = number
    is_colour = stored.ndim == 3 and stored.shape[2] == 3
    dataset.Rows, dataset.Columns = stored.shape[-2:] if not is_colour else stored.shape[:2]
    if stored.ndim == 3 and not is_colour:
        dataset.NumberOfFrames = len(stored)
    bits = 8 if is_colour else 16
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    else:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1000
        dataset.PixelSpacing = list(spacing)  # between rows, between columns
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, z_mm]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.PixelData = stored.astype(np.uint8 if is_colour else "<u2").tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue() if preamble else buffer.getvalue()[132:]


def series_values(slices=6, rows=10, columns=8, seed=0):
    """Stored values (slices, rows, columns)."""
    return np.random.default_rng(seed).integers(0, 2000, (slices, rows, columns))


def series_bytes(values=None, **options):
    """The files of a series, 2.5 mm apart, out of order."""
    values = series_values() if values is None else values
    files = [dicom_bytes(plane, number=50 - k, z_mm=2.5 * k, **options) for k, plane in enumerate(values)]
    return files[::2] + files[1::2]
