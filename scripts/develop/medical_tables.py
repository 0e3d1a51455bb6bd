"""The tables of docs/medical.md: presets, windows, networks, tasks and their answers."""

from collections.abc import Callable, Sequence

import torch

from develop.markdown import table
from sagemaker_monai.networks.networks import MIN_IMAGE_SIZE, NETWORKS
from sagemaker_monai.outputs.encoding import encode_jsonlines
from sagemaker_monai.preprocessing.intensity import WINDOWS
from sagemaker_monai.preprocessing.presets import PRESETS
from sagemaker_monai.tasks.row import Example
from sagemaker_monai.tasks.task import Prediction
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai.training.preset_choice import PRESET_OF

MODEL_VERSION = "21f86b31a5a1"  # such as an artifact has


def preset_table() -> str:
    """How each kind of image is prepared."""
    chosen = {preset: f"{modality} in {dims}-D" for (dims, modality), preset in PRESET_OF.items()}
    chosen |= {
        "photo": "photographs",
        "deep": "pictures of more than 8 bits",
        "xray": "other images",
        "volume": "other volumes",
    }
    rows = [
        [
            f"`{name}`",
            chosen[name],
            f"{row.spatial_dims}-D",
            INTENSITY[row.intensity["kind"]](row.intensity) if row.intensity else "8-bit values",
            "-" if row.spatial_dims == 2 else "as it is" if row.spacing_mm is None else _millimetres(row.spacing_mm),
            f"`{row.augmentation}`",
        ]
        for name, row in PRESETS.items()
    ]
    return table(["preset", "chosen for", "input", "values", "spacing with `fit=pad`", "augmentation"], rows)


INTENSITY: dict[str, Callable[[dict[str, object]], str]] = {
    "window": lambda spec: f"window {spec['center']}/{spec['width']} HU",
    "header": lambda _: "the header's window or LUT",
    "range": lambda _: "the range of the training images (percentiles 0.1 to 99.9)",
    "suv": lambda spec: f"SUV {spec['low']} to {spec['high']}",
    "percentile": lambda spec: f"percentiles {spec['low']} to {spec['high']}",
    "zscore": lambda spec: "mean 0, deviation 1" + (", of the voxels that are not 0" if spec["nonzero"] else ""),
}


def window_table() -> str:
    """Windows by name."""
    rows = [[f"`{name}`", f"{center:g}", f"{width:g}"] for name, (center, width) in WINDOWS.items()]
    return table(["window", "centre, HU", "width, HU"], rows)


def network_table() -> str:
    """The sizes that each network takes."""
    rows = [
        [
            f"`{name}`",
            str(MIN_IMAGE_SIZE) if row.arguments(2) else "-",
            str(row.smallest_3d) if row.arguments(3) else "-",
            "yes" if row.dropout else "-",
        ]
        for name, row in NETWORKS.items()
    ]
    return table(["network", "images, from px", "volumes, from voxels a side", "`dropout`"], rows)


def task_table() -> str:
    """Loss, imbalance and scores of each task."""
    rows = [
        [
            f"`{name}`",
            row.loss,
            f"**`{row.imbalance[0]}`**" + "".join(f", `{other}`" for other in row.imbalance[1:]),
            ", ".join(f"**`{score}`**" if score == row.best_metric else f"`{score}`" for score in row.goals),
        ]
        for name, row in TASKS.items()
    ]
    return table(["task", "loss", "`imbalance`", "scores"], rows)


def answer_blocks() -> str:
    """An endpoint's answer for one image of each task, as `application/jsonlines`."""
    return "\n\n".join(f"`{name}`:\n\n```json\n{_answer(row.example())}\n```" for name, row in TASKS.items())


def _answer(example: Example) -> str:
    predictions: Sequence[Prediction] = [example.prediction] if example.prediction is not None else (
        example.task.predictions(torch.tensor([example.answer], dtype=torch.float64)))  # fmt: skip
    return encode_jsonlines(predictions, MODEL_VERSION).decode().strip()


def _millimetres(spacing: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in spacing) + " mm"
