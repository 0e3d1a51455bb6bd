"""The way of a CT volume on one machine (`make demo-volume`): draw series, de-identify, train, serve, ask, report.

It runs the commands that a person would run, as `make demo` does, below .demo/volumes. A series is asked about as a zip
of its files, and its probabilities must be those that the evaluation wrote down; of one there is a report, too.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from develop import served
from develop.demo import BIN, ROOT, TOLERANCE, evaluated, run, step
from develop.draw_volumes import GRADES, draw_volumes
from sagemaker_monai_aws.client.content_types import DICOM

# Enough that a small network learns something; the whole takes less than a minute on two cores.
SETTINGS = {"epochs": 10, "image_size": 22, "image_depth": 14, "network": "resnet10", "batch_size": 8}
SALT = "of drawn data, and so no secret"


def parse_arguments() -> argparse.Namespace:
    """The demo's options."""
    parser = argparse.ArgumentParser(prog="make demo-volume", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=("ordinal", "classification"), default="ordinal",
                        help="three sizes; or spheres and cubes, which take longer (default: %(default)s)")  # fmt: skip
    parser.add_argument("--scans", type=int, default=40, help="series that are drawn (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"], help="(default: %(default)s)")
    parser.add_argument("--network", default=SETTINGS["network"], help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="of the server, default a free one")
    parser.add_argument("--min-accuracy", type=float, default=0.0, help="fail below this, for CI")
    return parser.parse_args()


def main() -> int:
    """Run the demo; 0 when every step worked and the answers equal the evaluation's."""
    options = parse_arguments()
    base = ROOT / ".demo" / "volumes"
    shutil.rmtree(base, ignore_errors=True)
    source, ml = base / "source", base / "ml"
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(ml), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()

    step("Draw CT series of patients who do not exist, as DICOM")
    table = draw_volumes(source, options.scans, task=options.task, seed=0)
    print(f"{options.scans} series in {source.relative_to(ROOT)}/scans, their labels in {table.name}")

    step("Import: group by patient, de-identify, split, write dataset.json")
    channel = ml / "input" / "data" / "training"
    grades = ["--task", "ordinal", "--grades", ",".join(GRADES)] if options.task == "ordinal" else []
    importer = [str(BIN / "prepare"), "dicom_folder"]
    secret = base / "salt"
    secret.write_text(SALT)
    words = ["--labels", str(table), "--salt-file", str(secret), "--title", "Synthetic CT, drawn by code", *grades]
    run([*importer, str(source / "scans"), str(channel), *words], environment)

    step("Train a 3-D network, write the artifact, score the test split with it")
    settings: dict[str, Any] = SETTINGS | {"epochs": options.epochs, "network": options.network}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    run([str(BIN / "train"), *flags], environment)

    step("Serve the artifact and post the series of the test split, each as a zip")
    with served.served(environment, options.port) as port:
        worst, accuracy = compare(port, channel, ml / "output" / "data" / "test_predictions.csv")
        report(port, channel, ml / "output" / "data" / "test_predictions.csv", base / "report.dcm")
    print(f"\nEverything stopped. {time.monotonic() - began:.0f} s in all; the artifact is in "
          f"{(ml / 'model').relative_to(ROOT)}")  # fmt: skip
    if accuracy < options.min_accuracy:
        raise SystemExit(f"accuracy {accuracy:.3f} is below {options.min_accuracy}")
    return 0 if worst <= TOLERANCE else 1


def compare(port: int, channel: Path, predictions: Path) -> tuple[float, float]:
    """Print the answers beside the evaluation's; the largest difference, and the accuracy."""
    worst, right = 0.0, 0
    rows = evaluated(predictions)
    print(f"\n{'series':<18}{'true class':<12}{'predicted':<12}probability")
    for row in rows:
        [answer] = served.predictions(port, channel / row["image"])
        numbers = answer["probabilities"]
        worst = max(worst, *(abs(numbers[name] - float(row[name])) for name in numbers))
        right += answer["predicted_class"] == row["label"]
        print(f"{row['image']:<18}{row['label']:<12}{answer['predicted_class']:<12}{answer['probability']:11.3f}")
    print(f"\n{len(rows)} series posted: {right} right, accuracy {right / len(rows):.3f}")
    print(f"largest difference to the evaluation's probabilities: {worst:.1e}", flush=True)
    return worst, right / len(rows)


def report(port: int, channel: Path, predictions: Path, target: Path) -> None:
    """Ask for a structured report about the first series, keep it, and print what it says."""
    from pydicom import dcmread

    folder = channel / evaluated(predictions)[0]["image"]
    target.write_bytes(served.ask(port, folder, DICOM))
    dataset = dcmread(target)
    print(f"\nreport about {folder.name}, in {target.relative_to(ROOT)}: {dataset.SOPClassUID.name}")
    for depth, item in _items(dataset, 0):
        print(f"  {'  ' * depth}{item}")


def _items(dataset: Any, depth: int) -> Any:
    """Measurements and findings of a report with their depth."""
    for item in dataset.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            yield depth, f"{name}: {measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeMeaning}"
        elif item.ValueType == "CODE" and name in ("Finding", "Finding category"):
            yield depth, f"{name}: {item.ConceptCodeSequence[0].CodeMeaning}"
        yield from _items(item, depth + 1)


if __name__ == "__main__":
    sys.exit(main())
