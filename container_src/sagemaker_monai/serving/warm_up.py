"""The request that a model must answer before the server reports that it is ready, and the check of the answer.

The request fits the artifact: a drawn picture for photographs, raw values for slices, a file with geometry for volumes.
It is small, because every input is resized to the network's size, and grey, because a window in HU takes no colours.
"""

import io
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sagemaker_inference import content_types

from sagemaker_monai.serving.back_end import Request, Response, StartError, WarmUp
from sagemaker_monai.serving.settings import ServeConfig

INFERENCE = "configs/inference.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_CHANNELS = 64  # of the request; more than any artifact may have
SIDE = 16  # of drawn slices and volumes


def warm_up(config: ServeConfig, model_dir: Path) -> WarmUp:
    """A request, and the check of its answer.

    The artifact's own code may need other input, so any answer then shows that the model is loaded.
    """
    has_code = config.allow_bundle_code and (model_dir / "code" / "inference.py").exists()
    return WarmUp(question(model_dir), check=(lambda _: None) if has_code else check_answer)


def question(model_dir: Path) -> Request:
    """A request that the model of a valid artifact answers; faults of an invalid one show when it is loaded."""
    try:
        file = model_dir / INFERENCE
        text = file.read_bytes() if file.stat().st_size <= MAX_CONFIG_BYTES else b""
        load = json.loads(text)["preprocessing"]["transforms"][0]
        channels = load.get("channels")
        if type(channels) is int and 0 < channels <= MAX_CHANNELS:
            content_type, draw = QUESTIONS[load["_target_"].rpartition(".")[2]]
            if "intensity" in load and load["intensity"]["kind"] == "suv":
                content_type, draw = "application/dicom", draw_pet
            return Request(draw(channels), content_type, content_types.JSON)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return Request(draw_picture(3), "image/png", content_types.JSON)


def draw_picture(_channels: int) -> bytes:
    """A grey gradient as PNG, 256 x 256; grey and RGB models take it alike."""
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "PNG")
    return stream.getvalue()


def draw_slice(channels: int) -> bytes:
    """A gradient of whole numbers as npy, (C, W, H); three channels of int16 are sequences, not colours."""
    stream = io.BytesIO()
    np.save(stream, _gradient(channels, SIDE, SIDE))
    return stream.getvalue()


def draw_volume(channels: int) -> bytes:
    """A gradient of whole numbers as NIfTI-1, W, H, D and channels, with voxels of 1 mm.

    Source: nifti1.h.
    """
    header = bytearray(352)  # 348, and four bytes for "no extension"
    struct.pack_into("<i", header, 0, 348)  # sizeof_hdr
    struct.pack_into("<8h", header, 40, 4, SIDE, SIDE, SIDE, channels, 1, 1, 1)  # dim
    struct.pack_into("<2h", header, 70, 4, 16)  # datatype: int16; bitpix
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 0, 0, 0)  # pixdim
    struct.pack_into("<2f", header, 108, 352, 1)  # vox_offset, scl_slope
    header[123] = 2  # xyzt_units: mm
    struct.pack_into("<h", header, 254, 1)  # sform_code: scanner
    struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)  # srow_x, srow_y, srow_z
    header[344:348] = b"n+1\0"
    return bytes(header) + _gradient(SIDE, SIDE, SIDE, channels).tobytes(order="F")


def draw_pet(_channels: int) -> bytes:
    """A gradient as a PET slice (Part 10) whose header allows SUV: 70 kg, 350 MBq at the time of injection."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 350e6, 6586.2  # Bq; s, of fluorine-18
    elements: dict[str, Any] = {
        "SOPClassUID": PositronEmissionTomographyImageStorage,
        "SOPInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2",
        "Modality": "PT", "Units": "BQML", "CorrectedImage": ["ATTN", "DECY"], "DecayCorrection": "ADMIN",
        "PatientWeight": 70, "RadiopharmaceuticalInformationSequence": [tracer],
        "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [4, 4], "SliceThickness": 4, "RescaleSlope": 100, "RescaleIntercept": 0,
        "Rows": SIDE, "Columns": SIDE, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
    }  # fmt: skip
    slice_ = Dataset()
    for keyword, value in elements.items():
        setattr(slice_, keyword, value)
    slice_.PixelData = _gradient(SIDE, SIDE).tobytes()
    slice_["PixelData"].VR = "OW"
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    slice_.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _gradient(*shape: int) -> np.ndarray:
    return (np.arange(math.prod(shape)) % 251).astype("<i2").reshape(shape)


# Name of the artifact's load half -> content type, and the function that makes the body for so many channels.
QUESTIONS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "LoadPhotograph": ("image/png", draw_picture),
    "LoadSlice": (content_types.NPY, draw_slice),
    "LoadDeepPicture": (content_types.NPY, draw_slice),
    "LoadVolume": ("application/x-nifti", draw_volume),
}


def check_answer(response: Response) -> None:
    """Require one valid prediction.

    Raises:
        StartError: the answer to the warm-up is anything else.
    """
    if response.status != 200:
        text = response.body.decode(errors="replace")
        raise StartError(f"BundleError: the model answers {response.status} to a drawn image: {text[:500]}")
    [prediction] = json.loads(response.body)["predictions"]
    if (fault := _fault(prediction)) is not None:
        raise StartError(f"BundleError: {fault} for a drawn image")


def _fault(prediction: Mapping[str, Any]) -> str | None:
    if "sizes" in prediction:
        are_sound = all(math.isfinite(size) and size >= 0 for size in prediction["sizes"].values())
        return None if are_sound else "a size is not a number"
    if "values" in prediction:
        return None if all(map(math.isfinite, prediction["values"].values())) else "a number is not finite"
    probabilities = prediction["probabilities"]
    if "predicted_classes" in prediction:
        are_sound = all(0 <= probability <= 1 for probability in probabilities.values())
        return None if are_sound else "a probability is not from 0 to 1"
    total = sum(probabilities.values())
    if prediction["predicted_class"] in probabilities and math.isclose(total, 1.0, abs_tol=1e-3):
        return None
    return f"the probabilities sum to {total}, not to 1,"
