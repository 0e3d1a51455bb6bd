"""The odd DICOM files of the shared data, read by us and by others, for the tests and docs/formats.md."""

import csv
import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import openjpeg.utils
import pydicom
import SimpleITK
from PIL import Image, UnidentifiedImageError
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, pixel_array

from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.dicom.decoding import decode_stored
from sagemaker_monai.images.dicom.headers import read_instance
from sagemaker_monai.images.dicom.pixels import modality_values, read_frames
from tests.support.places import SHARED_DATA

ODD_DICOM = SHARED_DATA / "odd_dicom"

# Decoders that we do not use, by transfer syntax. pydicom itself unpacks native data.
_BY_PYDICOM = {  # plugins of pydicom
    "1.2.840.10008.1.2.4.50": ("gdcm",),
    "1.2.840.10008.1.2.4.51": ("gdcm",),
    "1.2.840.10008.1.2.4.57": ("gdcm",),
    "1.2.840.10008.1.2.4.70": ("gdcm",),
    "1.2.840.10008.1.2.4.80": ("gdcm", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("gdcm", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("gdcm",),
    "1.2.840.10008.1.2.4.91": ("gdcm",),
    "1.2.840.10008.1.2.4.201": (),
    "1.2.840.10008.1.2.5": ("pydicom",),
}
_J2K = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201"}
_HTJ2K = {"1.2.840.10008.1.2.4.201"}
# Files with the same picture, stored in another way.
_TWINS = {
    "rle/SC_rgb_rle_32bit.dcm": "big_endian/SC_rgb_expb_32bit.dcm",
    "segmentation_1bit/liver_rle.dcm": "segmentation_1bit/liver.dcm",
    "segmentation_1bit/liver_j2k.dcm": "segmentation_1bit/liver.dcm",
    "broken/JPEG-lossy.dcm": "jpeg_extended/JPEGExtended_1s_1f_u_16_12.dcm",
    "rle/rtdose_rle_1frame.dcm": "rtdose/rtdose_expb_1frame.dcm",
    "rtdose/rtdose_expb_1frame.dcm": "rle/rtdose_rle_1frame.dcm",
    "segmentation_1bit/liver_nonbyte_aligned_rle.dcm": "segmentation_1bit/liver_nonbyte_aligned_j2k.dcm",
    "segmentation_1bit/liver_nonbyte_aligned_j2k.dcm": "segmentation_1bit/liver_nonbyte_aligned_rle.dcm",
}
_LOSSY = "1.2.840.10008.1.2.4.50"
_LOSSY_STEPS = 2  # of 255: libjpeg and libjpeg-turbo round differently


@dataclass(frozen=True)
class Row:
    """What became of one file.

    Attributes:
        name: path under odd_dicom.
        outcome: "read" or "refused".
        code: of the refusal, "" for what is read.
        shape: of the stored values: frames, rows, columns, and 3 for colour; () when refused.
        dtype: of the stored values.
        compared_with: readers with the same values. `recorded` is pydicom with pylibjpeg, whose shape, lowest and
            highest value are in index.csv; `twin` a file with the same picture, stored in another way.
        differs_from: readers with other values.
        largest_difference: of a value, over the readers in `compared_with`.
    """

    name: str
    outcome: str
    code: str
    shape: tuple[int, ...]
    dtype: str
    compared_with: tuple[str, ...]
    differs_from: tuple[str, ...]
    largest_difference: float = 0.0


def odd_dicom_paths() -> list[Path]:
    """Every file of index.csv, then those of the media folder."""
    if not ODD_DICOM.is_dir():
        return []
    media = sorted(path for path in (ODD_DICOM / "dicomdir").rglob("*") if path.is_file())
    return [ODD_DICOM / name for name in _index()] + media


def read_odd_dicom(path: Path) -> Row:
    """Read a file, and compare its values with every other reader that can read it."""
    name = path.relative_to(ODD_DICOM).as_posix()
    try:
        dataset = read_instance(path)
        stored = decode_stored(dataset)
        read_frames(path)
    except CallerError as error:
        return Row(name, "refused", error.code, (), "", (), ())
    answers = {reader: compare(path, dataset, stored) for reader, compare in _READERS.items()}
    same = {reader: answer for reader, answer in answers.items() if answer is not None and math.isfinite(answer)}
    other = tuple(reader for reader, answer in answers.items() if answer == math.inf)
    return Row(name, "read", "", stored.shape, str(stored.dtype), tuple(same), other, max(same.values(), default=0.0))


# Each returns the largest difference of a value, infinity if the values disagree, None if the reader cannot read the
# file.


def _with_recorded(path: Path, dataset: pydicom.Dataset, stored: np.ndarray) -> float | None:
    row = _index().get(path.relative_to(ODD_DICOM).as_posix(), {})
    recorded = row.get("decoded_as", "")
    if row.get("pydicom_result") != "decodes" or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return None  # the record has palette indices
    shape, _, values = recorded.partition(")")
    lowest, _, highest = values.rpartition(" ")[2].partition("..")
    sizes = tuple(int(size) for size in shape.strip("( ").split(",") if size)
    is_same = (
        stored.reshape(sizes).shape == sizes
        and float(lowest) == float(stored.min())
        and float(highest) == float(stored.max())
    )
    return 0.0 if is_same else math.inf


def _with_pydicom(path: Path, dataset: pydicom.Dataset, stored: np.ndarray, plugin: str) -> float | None:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if plugin not in _BY_PYDICOM.get(syntax, ("pydicom",)):
        return None
    theirs = pydicom.dcmread(path, force=True)
    theirs.file_meta.TransferSyntaxUID = syntax or "1.2.840.10008.1.2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            values = pixel_array(theirs, decoding_plugin=plugin if syntax in _BY_PYDICOM else "")
        except Exception:
            return None
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
    return _agree(values.reshape(stored.shape), stored, is_lossy=syntax == _LOSSY)


def _with_openjpeg(_path: Path, dataset: pydicom.Dataset, stored: np.ndarray) -> float | None:
    if dataset.file_meta.get("TransferSyntaxUID") not in _J2K:
        return None
    return _with_frames(dataset, stored, openjpeg.utils.decode)


def _with_openjph(_path: Path, dataset: pydicom.Dataset, stored: np.ndarray) -> float | None:
    if dataset.file_meta.get("TransferSyntaxUID") not in _HTJ2K:
        return None
    return _with_frames(dataset, stored, lambda frame: imagecodecs.htj2k_decode(frame, planar=False))


def _with_frames(dataset: pydicom.Dataset, stored: np.ndarray, decode: Callable[[bytes], np.ndarray]) -> float | None:
    """Frames decoded one by one, if codestream and header agree on the sign."""
    frames = generate_frames(dataset.PixelData, number_of_frames=len(stored))
    try:
        values = np.stack([decode(frame) for frame in frames])
    except Exception:
        return None
    return _agree(values, stored, is_lossy=False) if values.dtype == stored.dtype else None


def _with_pillow(_path: Path, dataset: pydicom.Dataset, stored: np.ndarray) -> float | None:
    if dataset.file_meta.get("TransferSyntaxUID") != _LOSSY or dataset.PhotometricInterpretation == "RGB":
        return None  # without a marker Pillow takes three samples for YBR
    frames = generate_frames(dataset.PixelData, number_of_frames=len(stored))
    try:
        values = np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in frames])
    except UnidentifiedImageError:
        return None
    return _agree(values, stored, is_lossy=True)


def _with_simpleitk(path: Path, dataset: pydicom.Dataset, stored: np.ndarray) -> float | None:
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except RuntimeError:
        return None
    if values.size != stored.size:
        return math.inf
    ours = stored
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        ours = stored >> 8  # SimpleITK's palettes have 8 bits
    elif dataset.BitsAllocated == 1:
        ours = stored * 255
    elif dataset.PhotometricInterpretation == "MONOCHROME1":
        ours = 2**dataset.BitsStored - 1 - stored  # SimpleITK inverts on reading, before it rescales
    if stored.ndim == 3 and not {"ModalityLUTSequence", "DoseGridScaling"} & set(dataset.dir()):
        ours = modality_values(dataset, ours)  # SimpleITK applies neither of those
    return _agree(values.reshape(ours.shape), ours, is_lossy=False)


def _with_twin(path: Path, _dataset: pydicom.Dataset, stored: np.ndarray) -> float | None:
    twin = _TWINS.get(path.relative_to(ODD_DICOM).as_posix())
    if not twin:
        return None
    return 0.0 if np.array_equal(decode_stored(read_instance(ODD_DICOM / twin)), stored) else math.inf


def _agree(theirs: np.ndarray, ours: np.ndarray, *, is_lossy: bool) -> float:
    # One reader may compute in float32, another in float64.
    allowed = _LOSSY_STEPS if is_lossy else 1e-6 * np.abs(ours.astype(float))
    difference = np.abs(theirs.astype(float) - ours.astype(float))
    return float(difference.max()) if (difference <= allowed).all() else math.inf


_READERS: dict[str, Callable[[Path, pydicom.Dataset, np.ndarray], float | None]] = {
    "recorded": _with_recorded,
    "pydicom": partial(_with_pydicom, plugin="pydicom"),
    "gdcm": partial(_with_pydicom, plugin="gdcm"),
    "pyjpegls": partial(_with_pydicom, plugin="pyjpegls"),
    "openjpeg": _with_openjpeg,
    "openjph": _with_openjph,
    "Pillow": _with_pillow,
    "SimpleITK": _with_simpleitk,
    "twin": _with_twin,
}


def _index() -> dict[str, dict[str, str]]:
    with (ODD_DICOM / "index.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
