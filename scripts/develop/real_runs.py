"""Real data from import to answers (`make real-runs DATA=...`): what a network reaches, beside something plainer.

For each run: the importer, `train`, `serve`, every test image posted, and the answers compared with the evaluation.
Beside the network stand a baseline that needs none, made with the same split, and figures that others published. What
the baseline knows says how much a score is worth: in the CT slices the scanner's encoding goes with the label.

The data are those of `RUNS`, below one folder; anyone who has some of them can name them with --runs.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from develop import served
from develop.demo import BIN, ROOT, evaluated, step
from develop.demo import run as execute
from develop.mask_answers import ask_for_mask, check_dicom_masks, check_grids, dice_of
from develop.real_baselines import (
    Answers,
    adrenal_shape,
    atlas,
    crop_size,
    hippocampus_labels,
    hippocampus_masks,
    most_frequent_grade,
    scanner_encoding,
    soft_tissue,
    usual_place,
)

OF_MASKS = ("dice", "iou")
TOLERANCE = 1e-4  # of served answers against the evaluation's, relative to the larger of 1 and the number


@dataclass(frozen=True)
class Run:
    """A row of `RUNS`.

    Attributes:
        source: below the data folder.
        importer: arguments of `prepare` between the kind's name and the output folder; {source} is the source. Or what
            makes the data set of source and channel without `prepare`.
        settings: hyperparameters.
        quick: those that a run of some minutes changes.
        score: of metrics.json, what is compared.
        baselines: their names, and from the data set's folder and its records by split to the test split's score.
        published: what others reached, with the source.
        before: makes what the importer needs beside the source, into a folder.
    """

    source: str
    importer: tuple[str, ...] | Callable[[Path, Path], None]
    settings: Mapping[str, str | int | float]
    quick: Mapping[str, str | int | float]
    score: str
    baselines: Mapping[str, Callable[[Path, Answers], float]]
    published: str
    before: Callable[[Path, Path], None] | None = None


QUICK_MASKS: dict[str, str | int | float] = {
    "network": "unet",
    "epochs": 6,
    "network_width": 12,
    "learning_rate": 0.005,
    "ema_decay": 0.97,
}
RUNS: dict[str, Run] = {
    "ct-contrast": Run(
        "ct_contrast_dicom",
        ("dicom_folder", "{source}/dicom_dir", "--labels", "{source}/labels.csv", "--match", "file",
         "--label-column", "contrast", "--group-column", "patient_id", "--train", "0.55", "--validation", "0.15",
         "--test", "0.3"),
        {"network": "densenet121", "image_size": 64, "epochs": 16},
        {"epochs": 6},
        "auc",
        {"how bright soft tissue is (logistic regression of 7 numbers)": soft_tissue,
         "the scanner's encoding, no pixel looked at": scanner_encoding},
        "none known for this split",
    ),
    "adrenal": Run(
        "medmnist/adrenalmnist3d.npz",
        ("medmnist", "{source}"),
        {"network": "resnet10", "image_size": 28, "epochs": 12},
        {"image_size": 16, "epochs": 3},
        "auc",
        {"six sizes of the shape (logistic regression)": adrenal_shape},
        "AUC/accuracy: ResNet-18 3-D .827/.721, best .839/.754, AutoML .828/.802 (MedMNIST v2, Sci Data 10, 41, 2023)",
    ),
    "retina": Run(
        "medmnist/retinamnist.npz",
        ("medmnist", "{source}"),
        {"network": "resnet18", "image_size": 32, "epochs": 20},
        {"epochs": 4},
        "kappa",
        {"the training split's median grade": most_frequent_grade},
        "AUC/accuracy of classifiers: ResNet-18 (28) .717/.524, AutoML .750/.531 (same source)",
    ),
    "hippocampus": Run(
        "hippocampus_nifti",
        ("nifti_folder", "{source}/imagesTr", "--labels", "{made}/labels.csv", "--label-column", "volume_cm3",
         "--task", "regression",
         "--modality", "MR"),
        {"network": "resnet10", "image_size": 32, "epochs": 20, "fit": "pad"},
        {"epochs": 5},
        "mae",
        {"the size of the crop (linear regression)": crop_size},
        "none: the target is the volume of the labelled voxels in cm3",
        before=hippocampus_labels,
    ),
    "hippocampus-segmentation": Run(
        "hippocampus_nifti",
        hippocampus_masks,
        {"epochs": 30, "learning_rate": 0.003},
        QUICK_MASKS,
        "dice",
        {"the usual label at the same place of the crop": atlas},
        "Dice about .90 and .89 of its two parts on another split (nnU-Net, as the data set's notes quote it)",
    ),
    "lesions": Run(
        "ham10000",
        ("ham10000", "{source}", "--task", "segmentation"),
        {"image_size": 128, "epochs": 12, "learning_rate": 0.003},
        {"image_size": 64, "epochs": 1, "network_width": 8},
        "iou",
        {"where lesions usually are": usual_place},
        "Jaccard about .80 to .82 on the test set of ISIC 2018, task 1, another set (arXiv:1902.03368)",
    ),
}  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="make real-runs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the sources")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--quick", action="store_true", help="few epochs, for CI")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other hyperparameters")
    parser.add_argument("--at-least", nargs="+", default=[], metavar="RUN=SCORE", help="fail below; of mae: above")
    parser.add_argument("--work", type=Path, default=ROOT / ".demo" / "real", help="folder for all that is made")
    return parser.parse_args()


def run_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run; what it reached."""
    run, work = RUNS[name], options.work.absolute() / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    base, source = work / "ml", options.data.resolve() / run.source
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONUNBUFFERED": "1"}
    channel = base / "input" / "data" / "training"
    step(f"{name}: import")
    if run.before is not None:
        run.before(source, work)
    if callable(run.importer):
        run.importer(source, channel)
    else:
        arguments = [argument.format(source=source, made=work) for argument in run.importer]
        execute([str(BIN / "prepare"), *arguments, str(channel)], environment)
    step(f"{name}: train")
    began = time.monotonic()
    settings = {**run.settings, **(run.quick if options.quick else {})}
    settings |= dict(pair.split("=", 1) for pair in options.set)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    execute([str(BIN / "train"), *flags], environment)
    seconds = time.monotonic() - began
    metrics = json.loads((base / "output" / "data" / "metrics.json").read_text())
    step(f"{name}: serve and ask")
    with served.served(environment) as port:
        check = compare_masks if run.score in OF_MASKS else compare
        worst, count = check(port, channel, base / "output" / "data" / "test_predictions.csv")
        extra = EXTRA[name](port, options.data.resolve()) if name in EXTRA else []
    records = Answers.read(channel)
    interval = metrics["intervals_95"][run.score]
    return {
        "run": name,
        "settings": " ".join(f"{key}={value}" for key, value in settings.items()),
        "score": run.score,
        "reached": metrics[run.score],
        "interval": interval,
        "accuracy": metrics.get("accuracy"),
        "images": metrics["images"],
        "seconds": seconds,
        "baselines": [f"{name}: {measure(channel, records):.3f}" for name, measure in run.baselines.items()],
        "published": run.published,
        "served": f"{count} answers, largest difference to the evaluation {worst:.1e}",
        "difference": worst,
        "extra": extra,
    }


def compare(port: int, channel: Path, predictions: Path) -> tuple[float, int]:
    """Post every image of the test split; the largest difference to what the evaluation said, and how many."""
    worst, rows = 0.0, evaluated(predictions)
    for expected in rows:
        [answer] = served.predictions(port, channel / expected["image"])
        for label, number in (answer.get("probabilities") or answer["values"]).items():
            wanted = float(expected[label])
            worst = max(worst, abs(number - wanted) / max(1.0, abs(wanted)))
    return worst, len(rows)


def compare_masks(port: int, channel: Path, predictions: Path) -> tuple[float, int]:
    """Ask for the mask of every image of the test split; the largest difference of a Dice, and how many images."""
    content = json.loads((channel / "dataset.json").read_text())
    masks = {item["image"].removeprefix("./"): channel / item["label"] for item in content["test"]}
    value_of = {name: int(value) for value, name in content["labels"].items()}
    worst, answers = 0.0, {}
    for row in evaluated(predictions):
        if row["image"] not in answers:
            target = predictions.parent / f"{Path(row['image']).name}-answer.nii"
            answers[row["image"]] = ask_for_mask(port, channel / row["image"], target)
        dice = dice_of(answers[row["image"]], masks[row["image"]], value_of[row["label"]])
        worst = max(worst, abs(dice - float(row["dice"])))
    return worst, len(answers)


def ask_series_for_masks(port: int, data: Path) -> list[str]:
    """The same series as `ask_with_series`; sizes, and their masks as DICOM objects read by others."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in sorted((data / "dicom_series").glob("*/*HCropVolume")):
            [answer] = served.predictions(port, folder)
            sizes = ", ".join(f"{name} {size:.2f} {answer['unit']}" for name, size in answer["sizes"].items())
            read = check_dicom_masks(port, folder, Path(scratch) / "answer")
            lines.append(f"MR series {folder.parent.name}/{folder.name}: {sizes}; {read}")
        volume = min((data / "hippocampus_nifti" / "imagesTr").glob("*.nii.gz"))
        lines.append(f"{volume.name}: {check_grids(port, volume, Path(scratch) / 'grids.nii')}")
    return lines


def ask_with_series(port: int, data: Path) -> list[str]:
    """A model of MR volumes is asked about series of the same kind from a scanner, in JSON and as a report."""
    lines = []
    for folder in sorted((data / "dicom_series").glob("*/*HCropVolume")):
        [answer] = served.predictions(port, folder)
        report = served.ask(port, folder, "application/dicom")
        if report[128:132] != b"DICM":
            raise SystemExit("the report is not DICOM")
        numbers = ", ".join(f"{key} {value:.2f}" for key, value in answer["values"].items())
        lines.append(f"MR series {folder.parent.name}/{folder.name}: {numbers}; report of {len(report)} bytes")
    return lines


EXTRA: dict[str, Callable[[int, Path], list[str]]] = {
    "hippocampus": ask_with_series,
    "hippocampus-segmentation": ask_series_for_masks,
}


def main() -> int:
    """Do the runs and print a table; 0 when all served answers agree and no score is below its limit."""
    options = parse_arguments()
    limits = {name: float(value) for name, value in (pair.split("=") for pair in options.at_least)}
    results = [run_one(name, options) for name in options.runs]
    faults = []
    for result in results:
        low, high = result["interval"] or (math.nan, math.nan)
        accuracy = "" if result["accuracy"] is None else f", accuracy {result['accuracy']:.3f}"
        print(f"\n{result['run']} ({result['settings']}; {result['images']} test images; {result['seconds']:.0f} s)")
        print(f"  {result['score']}: {result['reached']:.3f} (95 % {low:.3f} to {high:.3f}){accuracy}")
        for line in result["baselines"]:
            print(f"  baseline, {line}")
        print(f"  published: {result['published']}")
        for line in (f"served: {result['served']}", *result["extra"]):
            print(f"  {line}")
        if result["difference"] > TOLERANCE:
            faults.append(f"{result['run']}: served answers differ from the evaluation's")
        sign = -1 if result["score"] == "mae" else 1
        limit = limits.get(result["run"], -math.inf * sign)
        if sign * np.nan_to_num(result["reached"], nan=-math.inf * sign) < sign * limit:
            faults.append(f"{result['run']}: {result['score']} {result['reached']:.3f} misses {limit}")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
