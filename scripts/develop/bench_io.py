"""Measure reading of volumes against MONAI and others: `python -m develop.bench_io [--rounds 5] [--slices 100]`.

A drawn CT of 512 x 512 x 100 voxels, its slices shuffled, stored without compression and with RLE, JPEG lossless,
JPEG-LS and JPEG 2000 (lossless); and a NIfTI volume of 192 x 192 x 128 in gzip. Every case ends with a float32 array in
modality values. All run in turn in every round; what is compared is wall time within a round, as some decode in several
threads, with the CPU time. Prints Markdown.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import openjpeg.utils
import pydicom
from pydicom import Dataset, FileMetaDataset, uid
from pydicom.encaps import encapsulate

from develop.bench_input import Case, machine, measure
from sagemaker_monai.images.dicom.series import find_instances, group_series, read_series
from sagemaker_monai.images.volume_files import read_volume_file

COLUMNS = ROWS = 512
NIFTI_SHAPE = (192, 192, 128)
NOISE_HU = 9.0  # lossless codecs then reach 2 to 3 times, as on real CT
SYNTAXES = {
    "raw": uid.ExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG lossless": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
}
OURS = "this project"
MONAI = "MONAI PydicomReader"
TARGETS = {**dict.fromkeys(SYNTAXES, 2.0), ".nii.gz": 1.0}  # times MONAI's speed

# Of the syntaxes for which pydicom has none without further packages.
_ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    uid.JPEGLosslessSV1: lambda frame: bytes(
        imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1, bitspersample=16)
    ),
    uid.JPEG2000Lossless: lambda frame: bytes(
        openjpeg.utils.encode_array(frame, bits_stored=12, photometric_interpretation=2)
    ),
}
_nibabel: Any = nibabel  # its types are incomplete
Times = Mapping[str, Sequence[Sequence[float]]]


def draw_volume(shape: tuple[int, int, int], *, seed: int = 0) -> np.ndarray:
    """Draw a body in air with organs and noise: int16 HU, (D, H, W)."""
    rng = np.random.default_rng(seed)
    depth, rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    values = np.full(shape, -1000, np.float32)
    for size, value in ((0.9, -90), (0.8, 40), (0.3, -700), (0.15, 700)):
        values[(columns / size) ** 2 + (rows / (0.75 * size)) ** 2 + (depth / 2) ** 2 < 1] = value
    values += rng.normal(0, NOISE_HU, shape).astype(np.float32)
    return values.clip(-1024, 3071).astype(np.int16)


def write_series(folder: Path, values: np.ndarray, syntax: str) -> int:
    """Write one CT file a slice, with names and InstanceNumbers in another order than the slices.

    Args:
        folder: made here.
        values: (D, H, W) HU.
        syntax: UID of a transfer syntax.

    Returns:
        The size of all files in bytes.
    """
    folder.mkdir()
    order = np.random.default_rng(1).permutation(len(values))
    series, study, frame = (uid.generate_uid() for _ in range(3))
    for index, number in enumerate(order):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = uid.CTImageStorage, uid.generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.Modality, dataset.InstanceNumber = "CT", int(number) + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-180, -180, 1.25 * index]
        dataset.PixelSpacing, dataset.SliceThickness = [0.703125, 0.703125], 1.25
        dataset.Rows, dataset.Columns = values.shape[1:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = (values[index] + 1024).astype("<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        if syntax in _ENCODERS:
            dataset.PixelData = encapsulate([_ENCODERS[syntax](dataset.pixel_array)])
            dataset["PixelData"].VR = "OB"
            dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
        elif syntax != uid.ExplicitVRLittleEndian:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    return sum(path.stat().st_size for path in folder.iterdir())


def read_ours(folder: Path) -> np.ndarray:
    """Headers, order and pixels, as training and serving read a folder: (W, H, D)."""
    [series] = group_series(find_instances(folder))
    values: np.ndarray = read_series(series).values[0]
    return values


def series_cases(folder: Path) -> dict[str, Case]:
    """Ways to read a folder with one series; the first is what the others are compared with."""
    from monai.transforms import LoadImage

    monai = LoadImage(reader="PydicomReader", image_only=True, dtype=np.float32)
    cases: dict[str, Case] = {MONAI: lambda: monai(str(folder))}
    if importlib.util.find_spec("itk") is not None:
        itk = LoadImage(reader="ITKReader", image_only=True, dtype=np.float32)
        cases["MONAI ITKReader"] = lambda: itk(str(folder))
    if importlib.util.find_spec("SimpleITK") is not None:
        cases["SimpleITK"] = lambda: _read_with_simpleitk(folder)
    cases["pydicom pixel_array, sorted by hand"] = lambda: _read_with_pydicom(folder)
    cases[OURS] = lambda: read_ours(folder)
    return cases


def _read_with_simpleitk(folder: Path) -> np.ndarray:
    import SimpleITK

    # Untyped to mypy, which may or may not find it: it is there for tests only.
    read: Any = SimpleITK
    files = read.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return np.asarray(read.GetArrayFromImage(read.ReadImage(files)), np.float32)


def _read_with_pydicom(folder: Path) -> np.ndarray:
    files = [pydicom.dcmread(path) for path in folder.iterdir()]
    files.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    slices = [
        dataset.pixel_array.astype(np.float32) * np.float32(dataset.RescaleSlope) + np.float32(dataset.RescaleIntercept)
        for dataset in files
    ]
    return np.stack(slices)


def nifti_cases(path: Path) -> dict[str, Case]:
    """Ways to read a NIfTI file."""
    from monai.transforms import LoadImage

    monai = LoadImage(reader="NibabelReader", image_only=True, dtype=np.float32)
    cases: dict[str, Case] = {
        "MONAI NibabelReader": lambda: monai(str(path)),
        "nibabel get_fdata": lambda: _nibabel.load(path).get_fdata(dtype=np.float32),
    }
    cases[OURS] = lambda: read_volume_file(path)
    return cases


def clocks() -> np.ndarray:
    """Seconds of wall and of CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def table(times: Times, *, slices: int, target: float) -> list[str]:
    """Rows of Markdown: medians, and the median of the rounds' ratios of wall time to the first case.

    Args:
        times: from `measure`.
        slices: of the volume.
        target: the lowest ratio of our case.
    """
    first = next(iter(times.values()))
    rows = ["| case | s | CPU s | slices/s | x | target |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for name, spent in times.items():
        wall, cpu = (statistics.median(round_[index] for round_ in spent) for index in (0, 1))
        ratio = statistics.median(base[0] / own[0] for base, own in zip(first, spent, strict=True))
        verdict = f"{target:g}: {'met' if ratio >= target else 'MISSED'}" if name == OURS else ""
        rows.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {slices / wall:.0f} | {ratio:.2f} | {verdict} |")
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--size", type=int, default=ROWS, help="rows and columns of a slice")
    parser.add_argument("--only", action="append", choices=[*SYNTAXES, ".nii.gz"], help="default: all")
    options = parser.parse_args(argv)
    wanted = options.only or list(TARGETS)
    print(f"{machine()}, {len(os.sched_getaffinity(0))} usable")
    with tempfile.TemporaryDirectory() as name:
        for kind, syntax in SYNTAXES.items():
            if kind not in wanted:
                continue
            values = draw_volume((options.slices, options.size, options.size))
            folder = Path(name) / kind
            ratio = values.nbytes / write_series(folder, values, syntax)
            assert np.array_equal(read_ours(folder), values.transpose(2, 1, 0))
            print(f"\nDICOM {kind}, {options.size} x {options.size} x {options.slices}, compressed {ratio:.1f} times\n")
            times = measure(series_cases(folder), rounds=options.rounds, clock=clocks)
            print("\n".join(table(times, slices=options.slices, target=TARGETS[kind])))
        if ".nii.gz" in wanted:
            path = Path(name) / "volume.nii.gz"
            drawn = draw_volume(NIFTI_SHAPE[::-1]).transpose(2, 1, 0)
            _nibabel.Nifti1Image(drawn, np.eye(4)).to_filename(path)
            print(f"\nNIfTI .nii.gz, {' x '.join(map(str, NIFTI_SHAPE))}\n")
            times = measure(nifti_cases(path), rounds=options.rounds, clock=clocks)
            print("\n".join(table(times, slices=NIFTI_SHAPE[2], target=TARGETS[".nii.gz"])))


if __name__ == "__main__":
    main()
