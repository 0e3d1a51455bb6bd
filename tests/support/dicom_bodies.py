"""Bodies of requests: small DICOM files, whose pixels nobody looks at, arrays, and zip files."""

import io
import zipfile

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, MediaStorageDirectoryStorage

from tests.support.made_dicom import made_file

SERIES = "1.2.3.4"


def dicom(number=1, *, sop_class=CTImageStorage, series=SERIES, **more):
    """A CT slice of 4 x 6 pixels; `number` is its place in the series."""
    header = {
        "SOPClassUID": sop_class, "SOPInstanceUID": f"{series}.{number}", "SeriesInstanceUID": series,
        "StudyInstanceUID": "1.2.3", "Modality": "CT", "BitsStored": 12, "HighBit": 11, "InstanceNumber": number,
        "ImagePositionPatient": [0, 0, number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1],
    }  # fmt: skip
    return made_file(np.full((1, 4, 6), number, np.uint16), **(header | more))


def without_preamble(content):
    """The same data set without preamble, prefix and group 0002."""
    buffer = io.BytesIO()
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.file_meta = FileMetaDataset()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return buffer.getvalue().removeprefix(bytes(128) + b"DICM")


PREAMBLE_LESS = without_preamble(dicom(9))
DICOMDIR = dicom(0, sop_class=MediaStorageDirectoryStorage)


def sources(samples):
    return [sample.source for sample in samples]


def npy(values, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(values), **options)
    return buffer.getvalue()


def zip_of(*members, compression=zipfile.ZIP_DEFLATED):
    """A zip file of names, or ZipInfo, and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name) if isinstance(name, str) else name
            info.compress_type = compression
            archive.writestr(info, content)
    return buffer.getvalue()
