"""From drawn CT series and masks to served masks on one machine (`make demo-segmentation`): train, serve, ask, compare.

It runs the commands that a person would run, as `make demo` does, below .demo/segmentation. Of every series of the test
split the label map is asked for as NIfTI, whose Dice must be the evaluation's, and the sizes as JSON. `answers` has the
label maps, a picture of each series with its mask, and the first answer as DICOM SEG.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from develop import served
from develop.demo import BIN, ROOT, evaluated, run, step
from develop.draw_volumes import PIXEL_MM, SLICE_MM, STRUCTURES, draw_masked
from develop.mask_answers import ask_for_mask, dice_of
from sagemaker_monai.tasks.mask_colours import drawn_over, palette
from sagemaker_monai_aws.client.content_types import DICOM

SETTINGS = {"epochs": 12, "network": "unet", "network_width": 8, "learning_rate": 0.005, "ema_decay": 0.9}
TOLERANCE = 1e-6  # of a Dice: both are of the same network on the same voxels
WINDOW_HU = (-200, 300)
ZOOM = 8  # screen pixels of a voxel


def parse_arguments() -> argparse.Namespace:
    """The demo's options."""
    parser = argparse.ArgumentParser(prog="make demo-segmentation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scans", type=int, default=40, help="series that are drawn (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"], help="(default: %(default)s)")
    parser.add_argument("--network", default=SETTINGS["network"], help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="of the server, default a free one")
    parser.add_argument("--at-least", type=float, default=0.0, help="fail below this mean Dice, for CI")
    return parser.parse_args()


def main() -> int:
    """Run the demo; 0 when every step worked and the served masks are as good as the evaluation says."""
    options = parse_arguments()
    base = ROOT / ".demo" / "segmentation"
    shutil.rmtree(base, ignore_errors=True)
    ml, answers = base / "ml", base / "answers"
    answers.mkdir(parents=True)
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(ml), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()

    step("Draw CT series of patients who do not exist, as DICOM, and their masks as NIfTI")
    channel = draw_masked(ml / "input" / "data" / "training", options.scans, seed=0)
    print(f"{options.scans} series and masks with {' and '.join(STRUCTURES)} in {channel.relative_to(ROOT)}")

    step("Train a 3-D network, write the artifact, score the test split with it")
    settings: dict[str, Any] = SETTINGS | {"epochs": options.epochs, "network": options.network}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    run([str(BIN / "train"), *flags], environment)

    step("Serve the artifact and post the series of the test split, each as a zip")
    with served.served(environment, options.port) as port:
        reached, worst = compare(port, channel, ml / "output" / "data" / "test_predictions.csv", answers)
        keep_dicom(port, channel, ml / "output" / "data" / "test_predictions.csv", answers)
    print(f"\nEverything stopped. {time.monotonic() - began:.0f} s in all; label maps and pictures are in "
          f"{answers.relative_to(ROOT)}")  # fmt: skip
    if reached < options.at_least:
        raise SystemExit(f"mean Dice {reached:.3f} is below {options.at_least}")
    return 0 if worst <= TOLERANCE else 1


def compare(port: int, channel: Path, predictions: Path, answers: Path) -> tuple[float, float]:
    """Print sizes and Dice of every series; the mean Dice, and the largest difference to the evaluation's."""
    import nibabel

    found, worst = [], 0.0
    print(f"\n{'series':<12}{'structure':<12}{'true ml':>8}{'ml':>8}{'Dice':>8}")
    for row in evaluated(predictions):
        folder, target = channel / row["image"], answers / f"{Path(row['image']).name}.nii"
        truth = channel / "masks" / f"{folder.name}.nii.gz"
        [answer] = served.predictions(port, folder)
        mask = ask_for_mask(port, folder, target)
        value = STRUCTURES.index(row["label"]) + 1
        dice = dice_of(mask, truth, value)
        true_mask: Any = nibabel.load(truth)
        voxels = int((np.asarray(true_mask.dataobj) == value).sum())
        true_ml = voxels * PIXEL_MM * PIXEL_MM * SLICE_MM / 1000
        found.append(dice)
        worst = max(worst, abs(dice - float(row["dice"])))
        size = answer["sizes"][row["label"]]
        print(f"{row['image']:<12}{row['label']:<12}{true_ml:8.2f}{size:8.2f}{dice:8.3f}")
        picture(folder, np.asarray(mask.dataobj), target.with_suffix(".png"))
    mean = float(np.mean(found))
    print(f"\nmean Dice {mean:.3f}, largest difference to the evaluation's {worst:.1e}", flush=True)
    return mean, worst


def picture(folder: Path, labels: NDArray[np.uint8], target: Path) -> None:
    """Draw the slice with most labelled voxels, (columns, rows, slices), alone and with its labels over it."""
    from pydicom import dcmread

    slices = sorted(map(dcmread, folder.iterdir()), key=lambda each: each.ImagePositionPatient[2])
    best = int((labels > 0).sum(axis=(0, 1)).argmax())
    values = slices[best].pixel_array * float(slices[best].RescaleSlope) + float(slices[best].RescaleIntercept)
    low, high = WINDOW_HU
    grey = ((values - low) / (high - low)).clip(0, 1) * 255
    plain = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    over = drawn_over(plain, labels[:, :, best], palette(), has_outline=True)
    image = Image.fromarray(np.hstack([plain, over]))
    image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST).save(target)


def keep_dicom(port: int, channel: Path, predictions: Path, answers: Path) -> None:
    """Ask for the first mask as DICOM SEG, keep it, and print what it has."""
    from pydicom import dcmread

    folder = channel / evaluated(predictions)[0]["image"]
    target = answers / f"{folder.name}.dcm"
    target.write_bytes(served.ask(port, folder, DICOM))
    made = dcmread(target)
    segments = ", ".join(f"{each.SegmentNumber} {each.SegmentLabel}" for each in made.SegmentSequence)
    print(f"the first answer as DICOM: {made.SOPClassUID.name}, {made.NumberOfFrames} frames of {segments}, "
          f"{target.stat().st_size} bytes")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
