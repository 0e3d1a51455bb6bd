"""Measure segmentation at full size: `python -m develop.bench_masks [--size 512] [--slices 300] [--volumes 6]`.

Peak memory above the idle process and seconds of one request with a drawn CT series, beside what was foreseen from its
headers; sizes and seconds of its answers; and peak memory of a training beside the size of its data. Each part has a
process of its own. The network runs, but its outputs are replaced by thresholds of the drawn values, so that the masks
are those of organs. Prints Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from develop.bench_input import machine
from develop.bench_io import SYNTAXES, draw_volume, write_series
from sagemaker_monai.artifact.bundle import write_bundle
from sagemaker_monai.artifact.mask_predictor import MaskPredictor, read_predictor
from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.images.sample import PROBABILITIES, Held, Instances, Sample
from sagemaker_monai.networks.networks import build_network
from sagemaker_monai.networks.segmenters import plan_levels, segmenter_def
from sagemaker_monai.preprocessing.presets import preprocessing_for
from sagemaker_monai.serving.inference import Answer, output_fn, with_extras
from sagemaker_monai.tasks.segmentation import Segmentation

MIB = 1 << 20
LABELS = ("fat", "organ", "lung", "bone")
# HU between which a voxel belongs to each of LABELS, as `draw_volume` draws them.
RANGES = ((-200, -20), (-20, 120), (-850, -500), (500, 1000))
SPACING_MM, WINDOW, WIDTH = (1.5, 1.5, 1.5), (64, 64, 64), 8
# What is asked for beside masks, and the answers of such a request.
ACCEPTS = {
    frozenset[str](): (
        "application/json", "application/x-nifti", "application/x-nifti+gzip", "application/dicom; type=binary",
        "application/dicom; type=labelmap", "application/dicom; type=rtstruct",
    ),
    frozenset({PROBABILITIES}): ("application/dicom; type=fractional",),
}  # fmt: skip
_nibabel: Any = nibabel  # its types are incomplete


@dataclass
class Spent:
    """What a block took: seconds of wall time and of this process's CPU time, and bytes above those at its start."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0


def anonymous_bytes(pids: Sequence[int]) -> int:
    """The memory of processes that is their own: no files that are mapped, which the kernel can drop."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return total


def family_of(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found.extend(map(int, path.read_text().split()))
            except OSError:
                continue
    return found


@contextmanager
def watched(pid: int | None = None) -> Iterator[Spent]:
    """Measure a block; its memory in this process or, with `pid`, in that one and its descendants."""
    spent, is_over = Spent(), threading.Event()
    own = os.getpid()

    def now() -> int:
        return anonymous_bytes([own] if pid is None else family_of(pid))

    before = now() if pid is None else 0

    def watch() -> None:
        while not is_over.wait(0.005 if pid is None else 0.1):
            spent.peak_bytes = max(spent.peak_bytes, now() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        spent.wall_s, spent.cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        spent.peak_bytes = max(spent.peak_bytes, now() - before)  # on a busy machine nothing else may have looked
        is_over.set()
        thread.join()


def write_model(folder: Path) -> None:
    """A U-Net with random weights for CT in HU."""
    torch.manual_seed(0)
    task = Segmentation(LABELS)
    definition = segmenter_def("unet", plan_levels(WINDOW, SPACING_MM, WIDTH), in_channels=1, out_channels=task.outputs)
    spec = preprocessing_for(
        "ct_volume", channels=1, image_size=WINDOW[0], fit="stretch", window="none", patch=WINDOW,
        patch_spacing_mm=SPACING_MM,
    )  # fmt: skip
    write_bundle(
        folder, network_def=definition, preprocessing=spec, task=task, weights=build_network(definition).state_dict(),
        train_config={"hyperparameters": {}}, provenance={"dataset_fingerprint": "0" * 64},
    )  # fmt: skip


def answered_by_thresholds(model: MaskPredictor) -> None:
    """Replace the outputs of a model's network, which still runs, by thresholds of the values."""
    run: Callable[[torch.Tensor], torch.Tensor] = model._logits

    def logits(windows: torch.Tensor) -> torch.Tensor:
        made = torch.zeros_like(run(windows))
        for output, (low, high) in enumerate(RANGES, start=1):
            made[:, output] = ((windows[:, 0] > low) & (windows[:, 0] < high)).float()
        made[:, 0] = 0.5
        return made

    model.__dict__["_logits"] = logits


def request_rows(size: int, slices: int) -> list[str]:
    """One request and its answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        write_series(folder / "series", draw_volume((slices, size, size)), SYNTAXES["raw"])
        files = tuple(Held(path.read_bytes()) for path in sorted((folder / "series").iterdir()))
        loaded = read_predictor(folder / "model")
        assert isinstance(loaded, MaskPredictor)
        model = loaded
    working_bytes = model.rehearse()
    answered_by_thresholds(model)
    foreseen: list[int] = []
    foresee = model.foresee

    def told(*args: Any, **more: Any) -> int:
        foreseen.append(foresee(*args, **more))
        return foreseen[-1]

    model.__dict__["foresee"] = told
    rows = [
        f"Requests of {size} x {size} x {slices}, {sum(len(each.data) for each in files) / MIB:.0f} MiB of DICOM; the "
        f"network takes {working_bytes / MIB:.0f} MiB. Memory in MiB, of requests beside the files.",
        "",
        "| what | MiB | s | CPU s | memory | foreseen |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for extras, accepts in ACCEPTS.items():
        with spending(Budget(1 << 50, 1 << 60)), watched() as spent:
            [sample] = with_extras([Sample(Instances(files))], extras)
            answer = Answer(tuple(model.answer([sample])), "0" * 64, "drawn")
        name = f"request{' with ' if extras else ''}{', '.join(extras)}"
        rows.append(f"| {name} | | {_shown(spent)} | {foreseen[-1] / MIB:.0f} |")
        for accept in accepts:
            with watched() as spent:
                body, _ = output_fn(answer, accept)
            rows.append(f"| {accept} | {len(body) / MIB:.2f} | {_shown(spent)} | |")
    return rows


def _shown(spent: Spent) -> str:
    return f"{spent.wall_s:.1f} | {spent.cpu_s:.1f} | {spent.peak_bytes / MIB:.0f}"


def write_cases(root: Path, count: int, size: int, slices: int) -> int:
    """Volumes with masks in the Decathlon's layout; returns the bytes of the voxels, 4 and 1 each."""
    items = []
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        values = draw_volume((slices, size, size), seed=index).transpose(2, 1, 0)
        mask = np.zeros(values.shape, np.uint8)
        for label, (low, high) in enumerate(RANGES, start=1):
            mask[(values > low) & (values < high)] = label
        for folder, array in (("imagesTr", values), ("labelsTr", mask)):
            _nibabel.save(_nibabel.Nifti1Image(array, np.eye(4)), root / folder / f"{index}.nii.gz")
        items.append({"image": f"imagesTr/{index}.nii.gz", "label": f"labelsTr/{index}.nii.gz"})
    labels = {str(value): label for value, label in enumerate(("background", *LABELS))}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "training": items}))
    return count * 5 * size * size * slices


def training_rows(count: int, size: int, slices: int) -> list[str]:
    """Peak memory of a training on `count` volumes."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        data_bytes = write_cases(base / "input" / "data" / "training", count, size, slices)
        options = {"epochs": 1, "patch_size": 64, "patches_per_image": 2, "network_width": WIDTH, "num_workers": 1}
        command = [sys.executable, "-m", "sagemaker_monai.entrypoints.train"]
        job = subprocess.Popen(
            [*command, *(f"--{key}={value}" for key, value in options.items())],
            env={**os.environ, "SAGEMAKER_BASE_DIR": name}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with watched(job.pid) as spent:
            code = job.wait()
    return [
        f"Training on {count} volumes of {size} x {size} x {slices}, {data_bytes / MIB:.0f} MiB of values and labels, "
        f"patches of 64: {spent.peak_bytes / MIB:.0f} MiB at the peak, all processes together, {spent.wall_s:.0f} s"
        + ("." if code == 0 else f"; it ended with exit code {code}.")
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the request's slices")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--volumes", type=int, default=6, help="of the training, also measured with 4; 0: none")
    parser.add_argument("--training-size", type=int, default=256)
    parser.add_argument("--training-slices", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"{machine()}\n", flush=True)
    if options.slices:
        print("\n".join(request_rows(options.size, options.slices)), flush=True)
    for count in sorted({4, options.volumes}) if options.volumes else ():
        print("\n".join(["", *training_rows(count, options.training_size, options.training_slices)]), flush=True)


if __name__ == "__main__":
    main()
