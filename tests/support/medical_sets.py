"""Small medical data sets of each kind, with a learnable signal in their intensities."""

import json
from pathlib import Path

import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage, SecondaryCaptureImageStorage

from tests.support.dicom_series import CT, make_series, make_slice, to_bytes, write_series

SPLIT_OF = ("training", "training", "training", "training", "validation", "test")  # of every six patients in turn
COUNT = 24


def write_dataset(folder, items, *, labels, task=None, size=None, modality=None):
    """Write dataset.json of (image, label) pairs, a patient each, distributed over the splits."""
    splits = {"training": [], "validation": [], "test": []}
    for index, (image, label) in enumerate(items):
        # Twice in a row, so that both of two classes are in every split.
        splits[SPLIT_OF[index // 2 % 6]].append({"image": image, "label": label, "group": f"patient {index}"})
    content = {"name": "made", "labels": {str(i): label for i, label in enumerate(labels)}, **splits}
    content |= {} if task is None else {"task": task}
    content |= {} if size is None else {"tensorImageSize": size}
    content |= {} if modality is None else {"modality": {"0": modality}}
    (folder / "dataset.json").write_text(json.dumps(content))


def noise(index, shape, low, high):
    return np.random.default_rng(index).integers(low, high, shape)


def patient(index):
    return {"PatientID": f"P{index}", "StudyInstanceUID": f"1.2.3.{index}", "SeriesInstanceUID": f"1.2.3.{index}.1"}


def ct_slices(folder: Path, *, count=COUNT) -> None:
    """Slices of 40 and 90 HU, stored with an intercept of -1,024."""
    (folder / "images").mkdir(parents=True)
    items = []
    for index in range(count):
        stored = noise(index, (36, 40), 0, 40) + 1024 + (index % 2) * 60
        dataset = make_slice(stored.astype(np.int16), **CT, **patient(index))
        (folder / "images" / f"{index}.dcm").write_bytes(to_bytes(dataset))
        items.append((f"./images/{index}.dcm", ("water", "blood")[index % 2]))
    write_dataset(folder, items, labels=("water", "blood"))


FINDINGS = ("bright", "dark", "striped")


def findings_of(index):
    return [name for bit, name in enumerate(FINDINGS) if index // 2 >> bit & 1]


def ct_series(folder: Path, *, count=COUNT) -> None:
    """Folders of four slices with any of three findings, named in dataset.json with a slash or without."""
    items = []
    for index in range(count):
        names = findings_of(index)
        values = noise(index, (4, 12, 14), 0, 30) + 1024 + 60 * ("bright" in names) - 80 * ("dark" in names)
        values[:, ::2] += 100 * ("striped" in names)
        write_series(folder / "series" / f"{index}", make_series(values.astype(np.int16), **CT, **patient(index)))
        items.append((f"./series/{index}" + "/" * (index % 2), names))
    write_dataset(folder, items, labels=FINDINGS, task="multilabel", size="3D", modality="CT")


GRADES = ("none", "mild", "severe")  # not in the order of the alphabet


def mr_sequences(folder: Path, *, count=COUNT) -> None:
    """T1 and T2 as NIfTI of 1 x 1 x 2 mm; their ratio is the grade."""
    folder.mkdir(parents=True)
    items = []
    for index in range(count):
        names = []
        for sequence in ("t1", "t2"):
            values = noise(index, (14, 12, 8), 50, 100).astype(np.float32)
            values[4:10, 3:9, 2:6] += 120 * (index % 3) * (sequence == "t2")
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / f"{index}_{sequence}.nii.gz")
            names.append(f"./{index}_{sequence}.nii.gz")
        items.append((names, GRADES[index % 3]))
    write_dataset(folder, items, labels=GRADES, task="ordinal", size="3D", modality="MRI")


def npy_volumes(folder: Path, *, count=COUNT, side=12) -> None:
    """Volumes with a block whose size is the label."""
    folder.mkdir(parents=True)
    items = []
    for index in range(count):
        extent = 2 + index % 6
        values = noise(index, (side, side, side), 0, 50).astype(np.int16)
        values[:extent, :extent, :extent] += 200
        np.save(folder / f"{index}.npy", values)
        items.append((f"./{index}.npy", 10.0 * extent))
    write_dataset(folder, items, labels=("volume_ml",), task="regression", size="3D")


def shared_opinions(folder: Path, *, count=12) -> None:
    """Volumes with soft labels of annotators who disagree."""
    folder.mkdir(parents=True)
    items = []
    for index in range(count):
        values = noise(index, (16, 16, 16), 0, 50).astype(np.float32)
        values[:8] += 100 * (index % 2)
        np.save(folder / f"{index}.npy", values)
        items.append((f"./{index}.npy", {"right": 3 - 2 * (index % 2), "left": 1 + index % 2}))
    write_dataset(folder, items, labels=("left", "right"), size="3D")


def xrays(folder: Path, *, count=COUNT) -> None:
    """MONOCHROME1 without geometry, with a window; two numbers."""
    folder.mkdir(parents=True)
    items = []
    for index in range(count):
        age, dose = 20.0 + 10 * (index % 5), 0.001 * (1 + index % 3)
        stored = noise(index, (44, 40), 0, 200)
        stored[:20] += round(20 * age)
        stored[20:] += round(dose * 2e5)
        dataset = make_slice(
            stored.astype(np.uint16),
            Modality="DX",
            PhotometricInterpretation="MONOCHROME1",
            PixelRepresentation=0,
            WindowCenter=800,
            WindowWidth=1600,
            ImageOrientationPatient=None,
            ImagePositionPatient=None,
            **patient(index),
        )
        (folder / f"{index}.dcm").write_bytes(to_bytes(dataset))
        items.append((f"./{index}.dcm", {"dose_mGy": dose, "age": age}))
    write_dataset(folder, items, labels=("age", "dose_mGy"), task="regression")


def coloured(stored: np.ndarray, **elements) -> Dataset:
    """An RGB file of uint8 (H, W, 3)."""
    dataset = make_slice(
        stored[..., 0].astype(np.uint8),
        SOPClassUID=SecondaryCaptureImageStorage,
        Modality="XC",
        PhotometricInterpretation="RGB",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
        PixelSpacing=None,
        **elements,
    )
    dataset.PixelData = stored.astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def colour_photographs(folder: Path, *, count=COUNT) -> None:
    """Reddish and bluish pictures as DICOM, in class folders."""
    for index in range(count):
        label = ("red", "blue")[index % 2]
        stored = noise(index, (34, 38, 3), 0, 120)
        stored[..., 2 * (index % 2)] += 100
        path = folder / label / f"{index}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(coloured(stored, **patient(index))))


def pet(stored: np.ndarray, *, weight_kg=70.0, dose_bq=350e6, **elements) -> Dataset:
    """A PET slice in Bq/ml, decayed to the injection; weight and dose are in its header unless they are None."""
    dataset = make_slice(
        stored,
        SOPClassUID=PositronEmissionTomographyImageStorage,
        Modality="PT",
        Units="BQML",
        CorrectedImage=["ATTN", "DECY"],
        DecayCorrection="ADMIN",
        PatientWeight=weight_kg,
        RescaleSlope=2,
        RescaleIntercept=0,
        **elements,
    )
    if dose_bq is not None:
        tracer = Dataset()
        tracer.RadionuclideTotalDose = dose_bq
        tracer.RadionuclideHalfLife = 6586.2
        dataset.RadiopharmaceuticalInformationSequence = [tracer]
    return dataset


def pet_slices(folder: Path, *, count=12) -> None:
    """Equal stored values that are SUV 2 or 6 by the patients' weights."""
    folder.mkdir(parents=True)
    items = []
    for index in range(count):
        stored = np.full((34, 36), 5_000, np.int16) + noise(index, (34, 36), 0, 500).astype(np.int16)
        dataset = pet(stored, weight_kg=(70.0, 210.0)[index % 2], **patient(index))
        (folder / f"{index}.dcm").write_bytes(to_bytes(dataset))
        items.append((f"./{index}.dcm", ("cold", "hot")[index % 2]))
    write_dataset(folder, items, labels=("cold", "hot"))
