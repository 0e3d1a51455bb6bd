"""Request bodies with medical images by content type, and images to put in them."""

import base64
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.support.odd_volumes import write_simpleitk

# Must occur in no log, no refusal, and no answer except on request.
PATIENT, PATIENT_ID, SERIES_UID = "Lovelace^Ada", "MRN-1815", "1.2.826.0.1.3680043.8.498.777"
SECRETS = (PATIENT, "Lovelace", PATIENT_ID, SERIES_UID)
EDGE = "e d:g=e/1"


def as_zip(*files: bytes) -> bytes:
    """A compressed zip, like a browser's download."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, content in enumerate(files):
            archive.writestr(f"{PATIENT}/{index}", content)
    return stream.getvalue()


def as_tar(*files: bytes) -> bytes:
    """A tar, not compressed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for index, content in enumerate(files):
            member = tarfile.TarInfo(f"{PATIENT}/{index}.dcm")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def as_tar_gz(*files: bytes) -> bytes:
    """The same compressed."""
    return gzip.compress(as_tar(*files), 1)


def as_related(*files: bytes) -> bytes:
    """The format of STOW-RS requests and WADO-RS answers."""
    head = f"\r\n--{EDGE}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join([*(head + content for content in files), f"\r\n--{EDGE}--\r\n".encode()])


def as_form(*files: bytes) -> bytes:
    """A browser's form."""
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="f"; filename="{PATIENT}.dcm"\r\n\r\n'.encode()
    return b"".join([*(head + content + b"\r\n" for content in files), f"--{EDGE}--\r\n".encode()])


def as_json(*files: bytes) -> bytes:
    """Base64 in JSON; every file is a separate image."""
    return json.dumps({"instances": [{"image": base64.b64encode(content).decode()} for content in files]}).encode()


Wrap = Callable[..., bytes]

# Content type of several DICOM files -> function that makes a body of them.
OF_SEVERAL: dict[str, Wrap] = {
    "application/zip": as_zip,
    "application/x-tar": as_tar,
    "application/gzip": as_tar_gz,
    "application/x-gzip": as_tar_gz,
    f'multipart/related; type="application/dicom"; boundary="{EDGE}"': as_related,
    f'multipart/form-data; boundary="{EDGE}"': as_form,
}
# Content types of a single file, plain or wrapped.
OF_ONE: dict[str, Wrap] = {"application/dicom": lambda content: content, "application/json": as_json, **OF_SEVERAL}


def as_npy(values: np.ndarray) -> bytes:
    """The values in NumPy's format."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def shuffled(files: Sequence[bytes], seed: int) -> list[bytes]:
    """The same files in another order."""
    return [files[index] for index in np.random.default_rng(seed).permutation(len(files))]


def _by_simpleitk(suffix: str) -> Callable[[np.ndarray, np.ndarray], bytes]:
    def encode(values: np.ndarray, affine: np.ndarray) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"volume{suffix}"
            write_simpleitk(path, values, affine, compress=True)
            return path.read_bytes()

    return encode


def nifti(values: np.ndarray, affine: np.ndarray) -> bytes:
    """A NIfTI-1 file of values (W, H, D) with a patient in its texts."""
    image = nib.Nifti1Image(values, affine)
    image.header["db_name"] = PATIENT[:17].encode()
    image.header["descrip"] = PATIENT_ID.encode()
    return image.to_bytes()


def nifti_gz(values: np.ndarray, affine: np.ndarray) -> bytes:
    """The same compressed."""
    return gzip.compress(nifti(values, affine))


# Content type of a volume -> suffix in a data set, and the function that makes one of (W, H, D) and an affine.
OF_VOLUMES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], bytes]]] = {
    "application/x-nifti": (".nii", nifti),
    "application/x-nifti+gzip": (".nii.gz", nifti_gz),
    "application/gzip": (".nii.gz", nifti_gz),
    "application/x-gzip": (".nii.gz", nifti_gz),
    "application/x-nrrd": (".nrrd", _by_simpleitk(".nrrd")),
    "application/x-metaimage": (".mha", _by_simpleitk(".mha")),
    "application/x-npy": (".npy", lambda values, _: as_npy(values)),
}
