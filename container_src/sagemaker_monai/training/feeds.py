"""What a run learns from and is validated with: whole images with numbers as targets, or patches with label maps.

A feed gives batches on the device and answers on the validation split; what changes the network stands in `run`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sagemaker_monai.artifact.sliding_window import Network, label_map
from sagemaker_monai.data.case_loading import LoadedCases
from sagemaker_monai.data.datasets import targets_of
from sagemaker_monai.data.loading import LoadedDataset
from sagemaker_monai.networks.networks import images_at_once
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.segmentation import OF_SURFACES, OVERLAP, Segmentation
from sagemaker_monai.tasks.task import Floats, Loss, Task
from sagemaker_monai.training.augmentation import augment, augment_with_labels
from sagemaker_monai.training.distributed import Processes, Slice
from sagemaker_monai.training.plan import Plan

EVALUATION_BATCH = 64
RESIDENT_SHARE = 0.25  # of free GPU memory that decoded images may take; larger sets are sent batch by batch
ON_FOREGROUND = 1 / 3  # of the patches are centred on a structure (arXiv:1904.08128)


class Feed(Protocol):
    """See `ImageFeed` and `PatchFeed`.

    Attributes:
        loss: of the network's outputs and the targets of a batch.
        strata: (N,), what the order of an epoch draws from; one entry an image or patch.
        validation_targets: (N, T) of the validation split.
        validation_groups: of its images, N.
    """

    loss: Loss
    strata: torch.Tensor
    validation_targets: Floats
    validation_groups: Sequence[str]

    def batch(self, batch: torch.Tensor, own: Slice, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs of the network and their targets, on the device.

        Args:
            batch: places in `strata`, of all processes together.
            own: this process's part of them.
            generator: seeded for the step.
        """

    def answers(self, network: Network, processes: Processes) -> Floats | None:
        """The network's answers on the validation split, (N, ...); None if its outputs are not finite."""


class ImageFeed:
    """Whole images of one size, each with its target."""

    def __init__(self, plan: Plan, data: LoadedDataset, task: Task, device: torch.device) -> None:
        self._plan, self._task, self._device = plan, task, device
        self._rows = data.rows
        self._read = _image_reader(data.pixels, device)
        records = {split: data.dataset.split(split) for split in ("training", "validation")}
        self.strata = torch.tensor([record.label for record in records["training"]])
        self.validation_targets = targets_of(records["validation"], task.labels)
        self.validation_groups: Sequence[str] = [record.group for record in records["validation"]]
        self._targets = torch.from_numpy(task.training_targets(targets_of(records["training"], task.labels)))
        self.loss = task.build_loss(plan.config, self._targets, device)

    def batch(self, batch: torch.Tensor, own: Slice, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Feed`; inputs (N, C, *size), targets as the loss takes them."""
        batch = batch[own.start : own.stop]
        targets = self._targets[batch].to(self._device)
        images = self._read(self._rows["training"][batch.numpy()])
        images = augment(images, self._plan.augmentation, generator, skipped=own.start)
        return self._plan.preprocessing.scale(images), targets

    def answers(self, network: Network, processes: Processes) -> Floats | None:
        """See `Feed`; as `Task.answers`."""
        preprocessing, rows = self._plan.preprocessing, self._rows["validation"]
        outputs = torch.zeros(len(rows), self._task.outputs)
        at_once = images_at_once(preprocessing.size, EVALUATION_BATCH)
        memory_format = torch.channels_last if preprocessing.spatial_dims == 2 else torch.contiguous_format
        for start in range(0, len(rows), at_once)[processes.rank :: processes.world_size]:
            images = self._read(rows[start : start + at_once])
            inputs = preprocessing.scale(images).contiguous(memory_format=memory_format)
            outputs[start : start + at_once] = network(inputs).float().cpu()
        # Each process fills its own batches and leaves the others 0, so the sum is bit-exact.
        outputs = processes.add(outputs)
        if not torch.isfinite(outputs).all():
            return None
        answers: Floats = self._task.answers(outputs).numpy()
        return answers


class PatchFeed:
    """Patches of images of any size, each with its label map."""

    def __init__(self, plan: Plan, data: LoadedCases, task: Segmentation, device: torch.device) -> None:
        self._plan, self._task, self._device, self._store = plan, task, device, data.store
        self._rows = data.rows
        images = len(data.rows["training"])
        self.strata = torch.zeros(images * plan.config.patches_per_image, dtype=torch.int64)
        self.validation_targets = np.zeros((len(data.rows["validation"]), 0))
        self.validation_groups: Sequence[str] = [record.group for record in data.dataset.validation]
        self.loss = task.build_loss(plan.config, torch.zeros(0), device)
        self._has_surfaces = (
            plan.config.best_metric in OF_SURFACES
        )  # else measured of the artifact only: they take time

    def batch(self, batch: torch.Tensor, own: Slice, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Feed`; inputs (N, C, *patch), label maps (N, *patch)."""
        rows = self._rows["training"][batch.numpy() % len(self._rows["training"])]
        # Drawn for the whole batch, so that a patch does not depend on which process computes it.
        draws = torch.rand((len(batch), 3 + self._plan.preprocessing.spatial_dims), generator=generator).numpy()
        size = self._plan.preprocessing.size
        patches = [
            self._store.patch(int(row), self._start(int(row), draw, size), size)
            for row, draw in zip(rows[own.start : own.stop], draws[own.start : own.stop], strict=True)
        ]
        values = torch.from_numpy(np.stack([values for values, _ in patches])).to(self._device)
        labels = torch.from_numpy(np.stack([labels for _, labels in patches])).to(self._device)
        values, labels = augment_with_labels(values, labels, self._plan.augmentation, generator, skipped=own.start)
        return self._plan.preprocessing.scale(values), labels

    def _start(self, row: int, draw: NDArray[np.float32], size: Sequence[int]) -> list[int]:
        """Where a patch begins: anywhere that it lies in the image, or about a voxel of a structure."""
        case = self._store.cases[row]
        assert case is not None
        there = [label for label, count in enumerate(case.points) if count]
        if there and draw[0] < ON_FOREGROUND:
            label = there[int(draw[1] * len(there))]
            centre = self._store.point(row, label, int(draw[2] * case.points[label]))
            wanted = [middle - side // 2 for middle, side in zip(centre, size, strict=True)]
        else:
            room = [extent - side + 1 for extent, side in zip(case.shape, size, strict=True)]
            wanted = [math.floor(share * most) if most > 0 else 0 for share, most in zip(draw[3:], room, strict=True)]
        return [
            # An image shorter than the patch lies in its middle, as when it is segmented.
            min(max(first, 0), extent - side) if extent >= side else -((side - extent) // 2)
            for first, extent, side in zip(wanted, case.shape, size, strict=True)
        ]

    def answers(self, network: Network, processes: Processes) -> Floats | None:
        """See `Feed`; as `Segmentation.measure_both`, on the prepared grid."""
        rows = self._rows["validation"]
        answers = torch.zeros(len(rows), self._task.validation_columns, dtype=torch.float64)
        for index in range(processes.rank, len(rows), processes.world_size):
            answers[index] = torch.from_numpy(self._measure(network, int(rows[index])))
        measured: Floats = processes.add(answers).numpy()
        return measured if np.isfinite(measured[:, 0]).all() else None

    def _measure(self, network: Network, row: int) -> Floats:
        image, labels = torch.from_numpy(np.array(self._store.image(row))), self._store.labels(row)
        case = self._store.cases[row]
        assert case is not None
        total, count = 0.0, 0

        def run(windows: torch.Tensor) -> torch.Tensor:
            return network(self._plan.preprocessing.scale(windows.to(self._device))).float().cpu()

        def add_loss(place: tuple[slice, ...], logits: torch.Tensor) -> None:
            nonlocal total, count
            truth = torch.from_numpy(np.array(labels[place]))
            total, count = total + self._task.summed_loss(logits, truth), count + int((truth != IGNORED).sum())

        predicted = label_map(
            run, image, self._plan.preprocessing.size, self._task.decide, overlap=OVERLAP, outputs=self._task.outputs,
            on_block=add_loss,
        )  # fmt: skip
        loss = total / max(count, 1)
        return self._task.measure_both(predicted, labels, case.spacing_mm, loss=loss, has_surfaces=self._has_surfaces)


def _image_reader(pixels: np.ndarray, device: torch.device) -> Callable[[np.ndarray], torch.Tensor]:
    """A function from positions to images (N, C, *size) on the device, which holds all images if they fit easily."""
    if device.type == "cuda" and pixels.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(np.array(pixels)).to(device)
        return lambda rows: resident[torch.from_numpy(rows).to(device)]
    return lambda rows: torch.from_numpy(pixels[rows]).to(device)


def feed_of(plan: Plan, data: LoadedDataset | LoadedCases, task: Task, device: torch.device) -> Feed:
    """The feed for what was loaded."""
    if isinstance(data, LoadedCases):
        assert isinstance(task, Segmentation)
        return PatchFeed(plan, data, task, device)
    return ImageFeed(plan, data, task, device)
