"""Measure the training input against MONAI's usual pipelines: `python -m develop.bench_input [--size 64] [--rounds 5]`.

Drawn JPEGs of 600x450 pixels, batches of 32, one thread. All cases run in turn in every round, and what is compared is
CPU time within a round, because cores that others use change their speed from minute to minute. Prints Markdown.
"""

import argparse
import io
import math
import os
import platform
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from sagemaker_monai.data.cache import load_images
from sagemaker_monai.images.pictures import decode
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.preprocessing import Preprocessing, build_preprocessing, photograph_preprocessing
from sagemaker_monai.training.augmentation import augment

JPEG_SIZE = (600, 450)
BATCH_SIZE = 32
STEPS: list[dict[str, Any]] = [
    {"step": "flip", "probability": 0.5},
    {"step": "rotate", "max_angle_rad": math.pi},
    {"step": "zoom", "smallest": 0.8, "largest": 1.25},
]

FIRST = "MONAI per sample, from files"
CACHED_MONAI = "MONAI CacheDataset, track_meta off"
FROM_FILES = "this project, from files"
CACHED = "this project, cached"
FULL_DECODE = "Pillow, full decode and resize"
BARE_DECODE = "Pillow, reduced decode alone"
CACHE_BUILD = "this project, load half"

# Lowest ratio to the first case of the table, by network input size in pixels.
TARGETS = {
    64: {FROM_FILES: 10.0, CACHED: 100.0, CACHE_BUILD: 1.8},
    224: {FROM_FILES: 6.0, CACHED: 15.0, CACHE_BUILD: 1.8},
}

Case = Callable[[], object]


def draw_jpegs(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Draw photographs with the size, detail and file size of HAM10000's originals: about 85 kB each."""
    rng = np.random.default_rng(seed)
    width, height = JPEG_SIZE
    paths = []
    for index in range(count):
        shapes = Image.fromarray(rng.integers(60, 230, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize(JPEG_SIZE, Image.Resampling.BICUBIC))
        noisy = (smooth + rng.normal(0, 9, (height, width, 3))).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"drawn_{index}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=90)
    return paths


def input_cases(paths: Sequence[Path], size: int, folder: Path) -> dict[str, Case]:
    """The ways from files or a cache to augmented float batches; each call goes through all pictures once.

    Args:
        paths: the JPEGs.
        size: width and height of the network's input in pixels.
        folder: for our cache.
    """
    both = build_preprocessing(photograph_preprocessing(channels=3, image_size=size, fit="stretch"))
    pixels = load_images(
        [Sample(path) for path in paths], both, cache_dir=folder, workers=1, what="building the cache"
    ).pixels
    generator = torch.Generator().manual_seed(0)
    return {
        **_monai_cases(paths, size),
        FROM_FILES: lambda: [
            _augmented(both, torch.stack([both.load(Sample(path)) for path in part]), generator)
            for part in _batches(paths)
        ],
        CACHED: lambda: [
            _augmented(both, torch.from_numpy(pixels[part]), generator) for part in _batches(np.arange(len(paths)))
        ],
    }


def _augmented(both: Preprocessing, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return both.scale(augment(batch, STEPS, generator))


def _batches(items: Any) -> list[Any]:
    return [items[start : start + BATCH_SIZE] for start in range(0, len(items), BATCH_SIZE)]


def _monai_cases(paths: Sequence[Path], size: int) -> dict[str, Case]:
    from monai import transforms
    from monai.data import CacheDataset

    turns = [
        transforms.RandRotate(range_x=math.pi, prob=0.5, keep_size=True),
        transforms.RandFlip(spatial_axis=0, prob=0.5),
        transforms.RandZoom(min_zoom=0.8, max_zoom=1.25, prob=0.5),
    ]
    with warnings.catch_warnings():  # of a decoder of DICOM that is not installed, and photographs do not need it
        warnings.filterwarnings("ignore", message="NvImgCodec")
        load = transforms.LoadImage(image_only=True)
    read = [
        load,
        transforms.EnsureChannelFirst(channel_dim=-1),
        transforms.ScaleIntensity(),
    ]
    resize = transforms.Resize((size, size))
    per_sample = transforms.Compose([*read, *turns, resize]).set_random_state(0)

    def cached() -> CacheDataset:
        steps = transforms.Compose([*read, resize, *turns]).set_random_state(0)
        return CacheDataset([str(path) for path in paths], steps, progress=False, num_workers=0)

    dataset = _without_meta(cached)
    return {
        FIRST: lambda: [torch.stack([per_sample(str(path)) for path in part]) for part in _batches(paths)],
        CACHED_MONAI: lambda: _without_meta(
            lambda: [torch.stack([dataset[index] for index in part]) for part in _batches(range(len(paths)))]
        ),
    }


def _without_meta(run: Callable[[], Any]) -> Any:
    from monai.data import set_track_meta

    set_track_meta(False)  # global in MONAI
    try:
        return run()
    finally:
        set_track_meta(True)


def build_cases(paths: Sequence[Path], size: int) -> dict[str, Case]:
    """The load half against a full decode, and against the reduced decode without which it cannot do.

    Args:
        paths: the JPEGs.
        size: width and height of the network's input in pixels.
    """
    load = build_preprocessing(photograph_preprocessing(channels=3, image_size=size, fit="stretch")).load_pixels

    def full_decode(path: Path) -> np.ndarray:
        with Image.open(io.BytesIO(path.read_bytes()), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))

    def each(read: Callable[[Path], object]) -> Case:
        return lambda: [read(path) for path in paths]

    return {
        FULL_DECODE: each(full_decode),
        BARE_DECODE: each(lambda path: decode(Sample(path), channels=3, min_size=(size, size))),
        CACHE_BUILD: each(lambda path: load.pixels(Sample(path))),
    }


def measure(
    cases: Mapping[str, Case], *, rounds: int, clock: Callable[[], Any] = time.process_time
) -> dict[str, list[Any]]:
    """Run all cases in turn, once to warm up and then `rounds` times.

    Returns:
        Seconds of each round by the clock, CPU time if not stated otherwise, by case.
    """
    seconds: dict[str, list[Any]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, run in cases.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return {name: spent[1:] for name, spent in seconds.items()}


def table(seconds: Mapping[str, Sequence[float]], *, images: int, targets: Mapping[str, float]) -> list[str]:
    """Rows of Markdown: the median speed, and the median of the rounds' ratios to the first case.

    Args:
        seconds: from `measure`.
        images: how many each case went through.
        targets: lowest ratio by case.
    """
    first = next(iter(seconds.values()))
    rows = ["| case | images/s | x | target |", "| --- | ---: | ---: | ---: |"]
    for name, spent in seconds.items():
        ratio = statistics.median(base / own for base, own in zip(first, spent, strict=True))
        target = targets.get(name)
        verdict = "" if target is None else f"{target:g}: {'met' if ratio >= target else 'MISSED'}"
        rows.append(f"| {name} | {images / statistics.median(spent):.0f} | {ratio:.2f} | {verdict} |")
    return rows


def machine() -> str:
    """CPU, what matters of its instruction sets, its load and the versions, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1] if model else platform.processor() or "unknown CPU"
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    return (
        f"{name} ({' '.join(flags) or 'no AVX2'}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"{torch.get_num_threads()} thread, torch {torch.__version__}, Pillow {PIL.__version__}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append", help="network input in pixels; default 64 and 224")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw_jpegs(folder, options.images)
        for size in options.size or [64, 224]:
            for title, cases in (
                ("input", input_cases(paths, size, folder / "cache")),
                ("cache build", build_cases(paths, size)),
            ):
                seconds = measure(cases, rounds=options.rounds)
                rows = table(seconds, images=len(paths), targets=TARGETS.get(size, {}))
                print(f"\n### {title}, {size} px\n", *rows, sep="\n", flush=True)


if __name__ == "__main__":
    main()
