"""Draw a synthetic CT data set as DICOM: spheres and cubes in noise, one series per patient, with a table of labels.

Or an organ with a cyst, with masks: `draw_masked`.

It replaces scans that may not be shipped, for trying and testing all steps. Names, numbers and dates in the headers are
made up, so that de-identification has something to remove. All bodies have the same volume, so that neither mean nor
maximum reveals the shape; grades differ in size. The same seed draws the same voxels and UIDs.

Source: DICOM PS3.3 A.3 (CT Image IOD), as far as a reader needs it.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SIDE, SLICES = 22, 14  # voxels that are not cubes, so that spacing matters
PIXEL_MM, SLICE_MM = 1.5, 2.25
SHAPES = ("sphere", "cube")
GRADES = ("small", "medium", "large")
AIR_HU, TISSUE_HU, NOISE_HU, INTERCEPT_HU = -1000, 60, 90, -1024
TABLE = "labels.csv"
ORGAN_SHAPE = (18, 36, 36)  # slices, rows, columns
STRUCTURES = ("organ", "cyst")  # values 1 and 2 of masks
BODY_HU, ORGAN_HU, CYST_HU = 0, 110, -60
PRODUCER = "SYNTHETIC"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scan:
    """One drawn series: its label and its voxels in HU (slices, rows, columns)."""

    label: str
    values: Floats


def draw_scans(count: int, *, task: str, seed: int) -> Iterator[Scan]:
    """Scans of each label in turn: "ordinal" has spheres of three sizes, "classification" two shapes of one size."""
    generator = np.random.default_rng(seed)
    labels = GRADES if task == "ordinal" else SHAPES
    for number in range(count):
        label = labels[number % len(labels)]
        radius_mm = (4.5 + 2.5 * GRADES.index(label) if task == "ordinal" else 9.0) + generator.uniform(-0.75, 0.75)
        yield Scan(label, _draw(generator, radius_mm, is_cube=label == "cube"))


def draw_organs(count: int, *, seed: int) -> Iterator[tuple[Floats, npt.NDArray[np.uint8]]]:
    """Volumes in HU and their masks, (slices, rows, columns): an ellipsoid with a sphere in it, in a body in air."""
    generator = np.random.default_rng(seed)
    steps = (SLICE_MM, PIXEL_MM, PIXEL_MM)
    grid = np.stack(np.meshgrid(*map(np.arange, ORGAN_SHAPE), indexing="ij"), axis=-1) * steps
    size_mm = np.array(ORGAN_SHAPE) * steps
    for _ in range(count):
        centre = size_mm / 2 + generator.uniform(-3, 3, 3)
        radii = generator.uniform((11, 11, 12), (14, 15, 17))
        is_body = np.linalg.norm((grid - size_mm / 2)[..., 1:] / (0.47 * size_mm[1:]), axis=-1) < 1
        is_organ = np.linalg.norm((grid - centre) / radii, axis=-1) < 1
        is_cyst = np.linalg.norm(grid - centre - generator.uniform(-4, 4, 3), axis=-1) < generator.uniform(5, 7)
        labels = np.where(is_cyst, 2, np.where(is_organ, 1, 0)).astype(np.uint8)
        levels = np.array([BODY_HU, ORGAN_HU, CYST_HU])[labels]
        values = np.where(is_body, levels, AIR_HU) + generator.normal(0, NOISE_HU / 2, labels.shape)
        yield values.astype(np.float32), labels


def draw_masked(folder: Path, count: int, *, seed: int, as_nifti: bool = False) -> Path:
    """Write series, masks in NIfTI and dataset.json into a folder, in which `train` finds them; returns the folder.

    With `as_nifti` the volumes are NIfTI, too, and nobody has to be de-identified.
    """
    import nibabel

    affine = np.diag([-PIXEL_MM, -PIXEL_MM, SLICE_MM, 1.0])  # DICOM's x and y lead left and back, NIfTI's do not
    items = []
    (folder / "masks").mkdir(parents=True)
    for number, (values, labels) in enumerate(draw_organs(count, seed=seed)):
        image = f"scans/{number:03d}{'.nii.gz' if as_nifti else ''}"
        if as_nifti:
            (folder / "scans").mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), folder / image)
        else:
            write_scan(folder / image, Scan("", values), number, seed=seed)
        mask = f"masks/{number:03d}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0), affine), folder / mask)
        items.append({"image": image, "label": mask, "group": f"{number:03d}"})
    names = {"background": 0} | {name: value for value, name in enumerate(STRUCTURES, start=1)}
    content = {"name": "Synthetic CT, drawn by code", "modality": {"0": "CT"}, "labels": names, "training": items}
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    return folder


def _draw(generator: np.random.Generator, radius_mm: float, *, is_cube: bool) -> Floats:
    size_mm = np.array([SLICES * SLICE_MM, SIDE * PIXEL_MM, SIDE * PIXEL_MM])
    centre_mm = size_mm / 2 + generator.uniform(-4, 4, 3)
    grid = [np.arange(count) * step for count, step in ((SLICES, SLICE_MM), (SIDE, PIXEL_MM), (SIDE, PIXEL_MM))]
    offsets = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1) - centre_mm  # (slices, rows, columns, 3)
    half_mm = radius_mm * (np.pi / 6) ** (1 / 3)  # half the edge of a cube with the sphere's volume
    is_inside = np.abs(offsets).max(axis=-1) < half_mm if is_cube else np.linalg.norm(offsets, axis=-1) < radius_mm
    values = np.where(is_inside, TISSUE_HU, AIR_HU / 4) + generator.normal(0, NOISE_HU, is_inside.shape)
    drawn: Floats = values.astype(np.float32)
    return drawn


def write_scan(folder: Path, scan: Scan, number: int, *, seed: int) -> str:
    """Write a series like a scanner, one file per slice; returns its SeriesInstanceUID."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = (generate_uid(entropy_srcs=[str(seed), str(number), part]) for part in ("a", "b", "c"))
    for index, values in enumerate(scan.values):
        dataset = _header(number)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(index)])
        dataset.InstanceNumber = index + 1
        dataset.Rows, dataset.Columns = values.shape
        dataset.ImagePositionPatient = [0, 0, index * SLICE_MM]
        stored = np.rint(values - INTERCEPT_HU).clip(0, 4095).astype("<u2")
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dcmwrite(folder / f"IM{index:04d}", dataset, enforce_file_format=True)
    return str(series)


def _header(number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PatientName, dataset.PatientID = f"Drawn^Patient{number:03d}", f"DRAWN-{number:05d}"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19700101", "20200229", "120000"
    dataset.Modality, dataset.Manufacturer, dataset.ImageType = "CT", PRODUCER, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AccessionNumber, dataset.StudyID, dataset.SeriesNumber = f"ACC{number:06d}", "1", 1
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [PIXEL_MM, PIXEL_MM]
    dataset.SliceThickness, dataset.RescaleIntercept, dataset.RescaleSlope = SLICE_MM, INTERCEPT_HU, 1
    dataset.RescaleType, dataset.WindowCenter, dataset.WindowWidth = "HU", 0, 1000
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    return dataset


def draw_volumes(folder: Path, count: int, *, task: str, seed: int) -> Path:
    """Write series and their table into a folder; returns the table.

    Args:
        folder: made if missing; `scans` has a folder of files without suffix for each patient.
        count: number of series.
        task: "classification" or "ordinal".
        seed: of everything.
    """
    rows = []
    for number, scan in enumerate(draw_scans(count, task=task, seed=seed)):
        series = write_scan(folder / "scans" / f"{number:03d}", scan, number, seed=seed)
        rows.append((series, scan.label))
    table = folder / TABLE
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("SeriesInstanceUID", "label"), *rows])
    return table
