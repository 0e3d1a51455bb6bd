"""The whole way on one machine (`make demo`): import, train, serve, ask, and compare the answers with the evaluation.

It runs the commands that a person would run, `prepare`, `train` and `serve`, in a /opt/ml tree below .demo/, and speaks
to the server over HTTP alone.
"""

import argparse
import csv
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from develop import served
from develop.draw_sample import draw_sample

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
# The served probabilities and the evaluation's differ by the order of float32 sums in batches of another size.
TOLERANCE = 1e-5
# Fast enough for five minutes on two cores, and with the drawn sample neither chance nor perfect.
SAMPLE_SETTINGS = {"epochs": 10, "image_size": 64, "network": "resnet18"}
DATA_SETTINGS = {"epochs": 4, "image_size": 64, "network": "resnet18"}


def parse_arguments() -> argparse.Namespace:
    """The demo's options."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a HAM10000 download; without it a synthetic sample is drawn")
    parser.add_argument("--epochs", type=int, help="default 10, with --data 4")
    parser.add_argument("--image-size", type=int, help="pixels, default 64")
    parser.add_argument("--network", help="default resnet18")
    parser.add_argument("--port", type=int, default=0, help="of the server, default a free one")
    parser.add_argument("--images", type=int, default=200, help="how many held-back pictures to post, default 200")
    parser.add_argument("--min-balanced-accuracy", type=float, default=0.0, help="fail below this, for CI")
    return parser.parse_args()


def step(text: str) -> None:
    """Announce the next step."""
    print(f"\n== {text}", flush=True)


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run one of the project's commands and stop the demo with its exit code if it fails."""
    print("$ " + shlex.join(command).replace(f"{ROOT}/", ""), flush=True)
    code = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    if code != 0:
        raise SystemExit(code)


def balanced_accuracy(rows: list[tuple[str, str]]) -> float:
    """Mean over the true classes of the share that was recognised."""
    total, right = Counter(true for true, _ in rows), Counter(true for true, predicted in rows if true == predicted)
    return sum(right[label] / total[label] for label in total) / len(total)


def main() -> int:
    """Run the demo; 0 when every step worked and the answers equal the evaluation's."""
    options = parse_arguments()
    work = ROOT / ".demo" / ("data" if options.data else "sample")
    base = work / "ml"
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()

    if options.data:
        source, settings = options.data.resolve(), DATA_SETTINGS
    else:
        source, settings = work / "dataverse", SAMPLE_SETTINGS
        step("Draw a synthetic sample in the layout of the HAM10000 download")
        draw_sample(source, lesions=450, seed=0)
    hyperparameters = {name: getattr(options, name) or value for name, value in settings.items()}

    step("Import: check, split by lesion, write dataset.json")
    channel = base / "input" / "data" / "training"
    title = [] if options.data else ["--title", "Synthetic sample, drawn by code"]
    importer = [str(BIN / "prepare"), "ham10000"]
    run([*importer, str(source), str(channel), *title], environment)

    step("Train, write the artifact, score the test split with it")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in hyperparameters.items()]
    shutil.rmtree(base / "checkpoints", ignore_errors=True)  # or a second run would find the first one's and not train
    run([str(BIN / "train"), *flags], environment)

    step("Serve the artifact and post pictures of the test split, which training never saw")
    with served.served(environment, options.port) as port:
        is_equal, reached = compare(port, channel, base / "output" / "data" / "test_predictions.csv", options.images)
    artifact = (base / "model").relative_to(ROOT)
    print(f"\nEverything stopped. {time.monotonic() - began:.0f} s in all; the artifact is in {artifact}")
    if reached < options.min_balanced_accuracy:
        raise SystemExit(f"balanced accuracy {reached:.3f} is below {options.min_balanced_accuracy}")
    return 0 if is_equal else 1


def evaluated(predictions: Path) -> list[dict[str, str]]:
    """The rows of the evaluation's table."""
    with predictions.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(port: int, channel: Path, predictions: Path, limit: int) -> tuple[bool, float]:
    """Post up to `limit` pictures of the test split and print the answers beside the evaluation's.

    Returns:
        Whether all probabilities agree, and the balanced accuracy of the answers.
    """
    every = evaluated(predictions)
    shown: Counter[str] = Counter()
    rows, worst = [], 0.0
    print(f"\n{'picture':<22}{'true class':<12}{'predicted':<12}probability")
    for expected in every[:: max(1, -(-len(every) // limit))]:
        [answer] = served.predictions(port, channel / expected["image"])
        rows.append((expected["label"], answer["predicted_class"]))
        worst = max(
            worst, *(abs(answer["probabilities"][name] - float(expected[name])) for name in answer["probabilities"])
        )
        shown[expected["label"]] += 1
        if shown[expected["label"]] <= 2:
            true, predicted, probability = *rows[-1], answer["probability"]
            print(f"{Path(expected['image']).stem:<22}{true:<12}{predicted:<12}{probability:11.3f}")
    right, reached = sum(true == predicted for true, predicted in rows), balanced_accuracy(rows)
    print(f"\n{len(rows)} pictures posted: {right} right, accuracy {right / len(rows):.3f}, balanced {reached:.3f}")
    print(f"largest difference to the evaluation's probabilities: {worst:.1e}", flush=True)
    return worst <= TOLERANCE, reached


if __name__ == "__main__":
    sys.exit(main())
