"""Request bodies: pictures, and medical images of a patient whose name begins with PATIENT."""

import base64
import io
import json
import zipfile

import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

from tests.support.compressed_frames import LOSSLESS
from tests.support.dicom_series import CT, make_series, make_slice, to_bytes
from tests.support.medical_bodies import OF_SEVERAL, OF_VOLUMES
from tests.support.medical_bodies import as_json as as_json_of_files


def picture(level, size=(32, 24)):
    """A photograph of one of the classes."""
    values = np.clip(np.random.default_rng(level).normal(level, 20, (size[1], size[0], 3)), 0, 255)
    return Image.fromarray(values.astype(np.uint8))


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.copy().save(stream, kind, **options)  # Pillow leaves settings on the image that it saves
    return stream.getvalue()


def as_npy(*images):
    stream = io.BytesIO()
    np.save(stream, np.stack([np.asarray(image).transpose(2, 1, 0) for image in images]))  # (N, C, W, H)
    return stream.getvalue()


def as_json(*bodies):
    return json.dumps({"instances": [{"image": base64.b64encode(body).decode()} for body in bodies]}).encode()


def as_zip(*bodies, name="PATIENT"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, body in enumerate(bodies):
            archive.writestr(f"{name}-{index}.png", body)
    return stream.getvalue()


def as_multipart(*bodies):
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="x"; filename="PATIENT-{index}.png"\r\n\r\n'.encode()
        + body
        + b"\r\n"
        for index, body in enumerate(bodies)
    ]
    return b"".join([*parts, b"--edge--\r\n"])


LIGHT, DARK = picture(190), picture(60)
PNG = encode(LIGHT, "PNG")
# Content type -> one or more bodies of lossless pictures, and how many pictures are in each.
SOUND = {
    "image/png": (PNG, 1),
    "image/bmp": (encode(LIGHT, "BMP"), 1),
    "image/tiff": (encode(LIGHT, "TIFF"), 1),
    "image/webp": (encode(LIGHT, "WEBP", lossless=True), 1),
    "application/x-npy": (as_npy(LIGHT, DARK), 2),
    "application/json": (as_json(PNG, encode(DARK, "PNG")), 2),
    "multipart/form-data; boundary=edge": (as_multipart(PNG, encode(DARK, "PNG")), 2),
    "application/zip": (as_zip(PNG, encode(DARK, "PNG")), 2),
}
ANIMATION = encode(LIGHT, "TIFF", save_all=True, append_images=[picture(120)])


# Medical images

_HEADER = CT | {"PatientName": "PATIENT^A", "PatientID": "PATIENT-1", "PixelRepresentation": 0}


def ct(level, shape=(8, 40, 36)):
    """Stored values (D, H, W), uint16."""
    return np.random.default_rng(level).normal(1000 + level, 60, shape).astype(np.uint16)


def series(level, syntax=ExplicitVRLittleEndian):
    """The files of a CT series, in a transfer syntax."""
    datasets = make_series(ct(level), SeriesInstanceUID=f"1.2.3.{level}", StudyInstanceUID=f"1.2.4.{level}", **_HEADER)
    for dataset, values in zip(datasets, ct(level), strict=True):
        if syntax in LOSSLESS:
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.PixelData = encapsulate([LOSSLESS[syntax](values)])
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return [to_bytes(dataset) for dataset in datasets]


SERIES = series(100)
DICOM_FILE = to_bytes(make_slice(ct(1)[0], **_HEADER))
MULTI_FRAME = to_bytes(make_slice(ct(2), **_HEADER))
# Content type -> body that a model of CT volumes answers once.
ONE_VOLUME = {name: wrap(*SERIES) for name, wrap in OF_SEVERAL.items()} | {
    name: encode_volume(ct(3).T, np.diag([1.0, 1, 2.5, 1]))
    for name, (_, encode_volume) in OF_VOLUMES.items()
    if name not in (*OF_SEVERAL, "application/x-npy")
}
# Content type -> body, and the number of answers of a model of photographs, which sees DICOM as in a viewer.
DICOM_PICTURES = {
    "application/dicom": (MULTI_FRAME, 8),
    "application/zip": (OF_SEVERAL["application/zip"](*SERIES), 8),
    "application/json": (as_json_of_files(DICOM_FILE, DICOM_FILE), 2),
}
SYNTAXES = tuple(LOSSLESS)
