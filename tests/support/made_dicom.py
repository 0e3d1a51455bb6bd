"""Small DICOM files in every shape, for the tests of the reader."""

import io
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SERIES_UID = "1.2.826.0.1.3680043.8.498.1"
INSTANCE_UID = "1.2.826.0.1.3680043.8.498.2"


def made_dataset(stored: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A dataset with native pixel data.

    Args:
        stored: the values (F, H, W), or (F, H, W, 3) for colour.
        syntax: transfer syntax.
        **elements: by keyword, as they come after those of the pixels; one that is None is left out.
    """
    bits = 8 * stored.dtype.itemsize
    header: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "SOPInstanceUID": INSTANCE_UID, "SeriesInstanceUID": SERIES_UID,
        "Modality": "OT", "Rows": stored.shape[1], "Columns": stored.shape[2], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
    }  # fmt: skip
    if len(stored) > 1:
        header["NumberOfFrames"] = len(stored)
    if stored.ndim == 4:
        header |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    header["PixelData"] = data + b"\0" * (len(data) % 2)
    dataset = Dataset()
    for keyword, value in (header | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if bits == 8 and syntax != ImplicitVRLittleEndian else "OW"
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset


def made_file(stored: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """The same as a file."""
    return as_file(made_dataset(stored, syntax, **elements))


def as_file(dataset: Dataset) -> bytes:
    """The bytes of a file with preamble and file meta information."""
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def item(**elements: Any) -> Sequence:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


def element(tag: int, vr: str, value: bytes, *, is_long: bool = False, length: int | None = None) -> bytes:
    """An element in explicit VR little endian, optionally with a false length."""
    size = len(value) if length is None else length
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    return head + (b"\0\0" + size.to_bytes(4, "little") if is_long else size.to_bytes(2, "little")) + value
