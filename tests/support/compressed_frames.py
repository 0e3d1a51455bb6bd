"""Frames compressed in every transfer syntax that is decoded."""

from collections.abc import Callable

import imagecodecs
import jpeg_ls
import numpy as np
from openjpeg.utils import encode_array
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from rle.utils import encode_pixel_data

from tests.support.made_dicom import made_dataset


def as_rle(frame: np.ndarray) -> bytes:
    return encode_pixel_data(
        frame.tobytes(),
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=1 if frame.ndim == 2 else 3,
        bits_allocated=8 * frame.itemsize,
        number_of_frames=1,
        byteorder="<",
    )


def as_j2k(frame: np.ndarray, **options: object) -> bytes:
    bits = {"bits_stored": 8 * frame.itemsize, "photometric_interpretation": 2 if frame.ndim == 2 else 1}
    return encode_array(frame, **{**bits, **options})


def as_htj2k(frame: np.ndarray, **options: object) -> bytes:
    return bytes(imagecodecs.htj2k_encode(frame, resolutions=3, **options))


def as_jpeg_ls(frame: np.ndarray, error: int = 0) -> bytes:
    return bytes(jpeg_ls.encode_array(frame, lossy_error=error))


def as_jpeg(frame: np.ndarray, **options: object) -> bytes:
    """Colour stays RGB, with an Adobe marker that says so."""
    space = {} if frame.ndim == 2 else {"colorspace": "RGB", "outcolorspace": "RGB"}
    return bytes(imagecodecs.jpeg8_encode(frame, **{"level": 95, **space, **options}))


def as_jpeg_12(frame: np.ndarray) -> bytes:
    return as_jpeg(frame.astype(np.uint16) & 0xFFF, bitspersample=12)


def as_jpeg_lossless(frame: np.ndarray, predictor: int = 1) -> bytes:
    return as_jpeg(frame, lossless=True, predictor=predictor, bitspersample=8 * frame.itemsize)


LOSSLESS: dict[str, Callable[[np.ndarray], bytes]] = {
    RLELossless: as_rle,
    JPEGLossless: lambda frame: as_jpeg_lossless(frame, predictor=6),
    JPEGLosslessSV1: as_jpeg_lossless,
    JPEGLSLossless: as_jpeg_ls,
    JPEG2000Lossless: as_j2k,
    HTJ2KLossless: as_htj2k,
    HTJ2KLosslessRPCL: as_htj2k,
}
LOSSY: dict[str, Callable[[np.ndarray], bytes]] = {
    JPEGBaseline8Bit: lambda frame: as_jpeg(frame.astype(np.uint8)),
    JPEGExtended12Bit: as_jpeg_12,
    JPEGLSNearLossless: lambda frame: as_jpeg_ls(frame, error=2),
    JPEG2000: lambda frame: as_j2k(frame, compression_ratios=[4]),
    HTJ2K: lambda frame: as_htj2k(frame, level=0.001, reversible=False),
}
ENCODERS = LOSSLESS | LOSSY


def compressed(stored: np.ndarray, syntax: str, **elements: object) -> Dataset:
    """A dataset of the frames (F, H, W) or (F, H, W, 3)."""
    frames = encapsulate([ENCODERS[syntax](frame) for frame in stored])
    return made_dataset(stored, syntax, PixelData=frames, **elements)
