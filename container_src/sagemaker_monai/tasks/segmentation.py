"""A label for each voxel: structures on a background, softmax; or a sigmoid for each of structures that overlap.

A target is a mask, an answer a label map on the image's own grid. What `answers` and `score` have of each image are
the measures of `mask_scores`, one row an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sagemaker_monai.tasks.postprocessing import LabelMap, LargestComponents, RegionMap
from sagemaker_monai.tasks.regions import Regions, is_inside, numbers_of_structures, paint
from sagemaker_monai.tasks.row import Example, Metric, TakesNothing, TaskRow

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Loss, LossOptions

TOLERANCE_MM = 2.0  # of surface Dice; about what two annotators of an organ are apart (arXiv:1809.04430)
MIRRORED_INFERER = "sagemaker_monai.artifact.monai_run.MirroredInferer"
OVERLAP = 0.5  # of the windows that the network goes over an image in
# Scores that need distances; scores that are of all images together.
OF_SURFACES = ("surface_dice", "hd95", "assd")
OF_LESIONS = ("lesion_sensitivity", "lesion_precision", "lesion_f1")


@dataclass(frozen=True)
class Structure:
    """What is said of one structure of one image.

    Attributes:
        voxels: how many.
        size: their volume in ml, or their area in the unit of the image.
        components: parts that do not touch.
        extent: length of its box along each axis of the image, in the unit of the image.
        centroid: its centre, in mm from the patient's origin (RAS), or in pixels where the image has no geometry; None
            where it is not there.
    """

    voxels: int
    size: float
    components: int
    extent: tuple[float, ...]
    centroid: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """The answer for one image.

    Attributes:
        mask: uint8 label map on the image's grid, (W, H) or (W, H, D); 0 is the background, i + 1 the i-th label, or
            the i-th part of `regions`.
        structures: what is said of each, by its label.
        unit: of sizes: "ml", "mm2" or "px".
        affine: (4, 4) of the image's grid, RAS mm; None where it has no geometry.
        regions: of structures that overlap, in the order of `structures`.
        probabilities: uint8 (K, *grid) of the labels, 255 for 1; None where they were not asked for.
        picture: a single image as it is displayed, uint8 (H, W, 3); None where it was not asked for.
    """

    mask: NDArray[np.uint8]
    structures: dict[str, Structure]
    unit: str
    affine: NDArray[np.float64] | None
    regions: Regions | None = None
    probabilities: NDArray[np.uint8] | None = None
    picture: NDArray[np.uint8] | None = None

    @property
    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the mask that make each structure."""
        return numbers_of_structures(len(self.structures), self.regions)

    def inside(self, place: int) -> NDArray[np.bool_]:
        """Where the structure is that has this place in `structures`, bool of the mask's shape."""
        return is_inside(self.mask, self.numbers[place])

    def values(self) -> NDArray[np.integer]:
        """The mask with the values that it has in files: those of the regions, which are uint16 where one is large."""
        import numpy as np

        if self.regions is None:
            return self.mask
        table = np.array([0, *self.regions.values])
        return table.astype(np.min_scalar_type(table.max()))[self.mask]

    def fields(self) -> dict[str, Any]:
        """What JSON says of it."""
        return {
            "sizes": {label: each.size for label, each in self.structures.items()},
            "unit": self.unit,
            "structures": {
                label: {
                    "voxels": each.voxels,
                    "components": each.components,
                    "extent": list(each.extent),
                    "centroid": None if each.centroid is None else list(each.centroid),
                }
                for label, each in self.structures.items()
            },
        }

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table: the size of each structure."""
        return {"unit": self.unit, **{label: each.size for label, each in self.structures.items()}}

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """Every structure with its size."""
        return [(label, "value", each.size, each.voxels > 0) for label, each in self.structures.items()]


@dataclass(frozen=True)
class Segmentation(TakesNothing):
    """See `task.Task`. Targets (N, 0) have no numbers; answers (N, 1 + K * M) are a loss and the measures of masks.

    Attributes:
        labels: of the structures.
        regions: the parts of structures that overlap, in the order of the labels; None if no two do.
        largest: numbers, in a label map, of the structures of which only the largest component counts.
    """

    labels: tuple[str, ...]
    regions: Regions | None = None
    largest: tuple[int, ...] = ()
    name: ClassVar[str] = "segmentation"

    @property
    def outputs(self) -> int:
        """One a structure, and the background unless structures overlap."""
        return len(self.labels) + (self.regions is None)

    @property
    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of a label map that make each structure."""
        return numbers_of_structures(len(self.labels), self.regions)

    @property
    def columns(self) -> int:
        """Numbers of a row of answers."""
        from sagemaker_monai.tasks.mask_scores import MEASURES

        return 1 + len(self.labels) * len(MEASURES)

    @property
    def validation_columns(self) -> int:
        """The same of a row of `measure_both`."""
        return 2 * self.columns - 1

    def target(self, label: Label) -> tuple[float, ...]:  # noqa: ARG002 - the name is part of the protocol
        """No numbers: the mask is read with the image."""
        return ()

    def training_targets(self, targets: Floats) -> np.ndarray:
        """As they are: the loss takes label maps."""
        return targets

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:  # noqa: ARG002
        """See `mask_loss`; of outputs (N, outputs, ...) and label maps (N, ...)."""
        from functools import partial

        from sagemaker_monai.tasks import mask_loss

        gamma = config.focal_gamma if config.imbalance == "focal" else 0.0
        plain: Any = mask_loss.dice_and_cross_entropy
        if self.regions is not None:
            plain = partial(mask_loss.dice_and_binary_cross_entropy, members=self.regions.members)
        loss = partial(plain, focal_gamma=gamma, label_smoothing=config.label_smoothing)
        return mask_loss.with_deep_supervision(loss)

    def summed_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> float:
        """See `mask_loss.summed_cross_entropy`."""
        from sagemaker_monai.tasks.mask_loss import summed_cross_entropy

        return summed_cross_entropy(logits, labels, None if self.regions is None else self.regions.members)

    def decide(self, outputs: torch.Tensor) -> torch.Tensor:
        """As `answers`, of outputs on the CPU that need not be finite."""
        import torch

        return outputs.argmax(dim=0).to(torch.uint8) if self.regions is None else paint(outputs, self.regions)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """The label map (...) of outputs (outputs, ...) of one image, or of a part of it; without `largest`."""
        return _decision(self.regions)(outputs)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Of each label (K, ...), float32, of finite outputs (outputs, ...); together at most 1 without regions."""
        return outputs.softmax(dim=0)[1:] if self.regions is None else outputs.sigmoid()

    def measure(
        self,
        predicted: NDArray[np.integer],
        true: NDArray[np.integer],
        spacing_mm: Sequence[float] | None,
        *,
        loss: float,
        has_surfaces: bool = True,
        affine: Floats | None = None,
    ) -> NDArray[np.float64]:
        """One row of answers: the loss, and what `mask_scores.compare_masks` measures of two label maps."""
        import numpy as np

        from sagemaker_monai.tasks.label_maps import IGNORED
        from sagemaker_monai.tasks.mask_scores import compare_masks

        measures = compare_masks(
            predicted,
            true,
            self.numbers,
            spacing_mm,
            tolerance_mm=TOLERANCE_MM,
            ignored=IGNORED,
            has_surfaces=has_surfaces,
            affine=affine,
        )
        return np.concatenate([[loss], measures.ravel()])

    def measure_both(
        self,
        predicted: NDArray[np.uint8],
        true: NDArray[np.integer],
        spacing_mm: Sequence[float],
        *,
        loss: float,
        has_surfaces: bool = True,
    ) -> NDArray[np.float64]:
        """As `measure`, and after it the measures again with only the largest component of every structure."""
        import numpy as np

        from sagemaker_monai.tasks.components import keep_largest

        row = self.measure(predicted, true, spacing_mm, loss=loss, has_surfaces=has_surfaces)
        if self.regions is not None:
            return np.concatenate([row, row[1:]])
        kept = predicted.copy()
        keep_largest(kept, range(1, len(self.labels) + 1))
        is_same = np.array_equal(kept, predicted)
        other = row if is_same else self.measure(kept, true, spacing_mm, loss=loss, has_surfaces=has_surfaces)
        return np.concatenate([row, other[1:]])

    def tuned(self, answers: Floats, targets: Floats, groups: Sequence[str]) -> Self:  # noqa: ARG002
        """With the rule of the largest component for the structures that it helps.

        That is where it raises the mean Dice by more than chance (`paired.are_gains`), and no component that is really
        there and was found is lost in any image. Structures that overlap have no such rule: a part that is taken from
        one would have to be given to another.

        Args:
            answers: rows of `measure_both`.
            targets: (N, 0).
            groups: of each image.
        """
        from sagemaker_monai.tasks.mask_scores import MEASURES
        from sagemaker_monai.tasks.paired import are_gains

        if self.regions is not None:
            return self
        plain, largest = replace(self, largest=()), replace(self, largest=tuple(range(1, len(self.labels) + 1)))
        change = largest._measures(answers) - plain._measures(answers)  # (N, K, measures)
        is_better = are_gains(change[:, :, MEASURES.index("dice")], groups)
        loses = (change[:, :, MEASURES.index("found_lesions")] < 0).any(axis=0)
        return replace(self, largest=tuple(int(index) + 1 for index in (is_better & ~loses).nonzero()[0]))

    def image_dice(self, answers: Floats) -> Floats:
        """The mean Dice of each image's structures (N, 1), of rows of `measure` or `measure_both`."""
        from sagemaker_monai.tasks.mask_scores import MEASURES

        dice: Floats = self._measures(answers)[:, :, MEASURES.index("dice")].mean(axis=1, keepdims=True)
        return dice

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        """Means over images and structures; of lesions, over all images together."""
        from sagemaker_monai.tasks import metrics

        metrics.refuse_nothing(targets)
        each = self._each(answers, metrics.once(answers))
        by_label = {label: metrics.number(value) for label, value in zip(self.labels, each["dice"][0], strict=True)}
        return {
            "loss": metrics.number(float(metrics.mean(answers[:, 0]))),
            **{name: metrics.number(metrics.mean(values)[0]) for name, values in each.items()},
            "structure_dice": by_label,
        }

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """See `metrics.report_by_label`."""
        from sagemaker_monai.tasks import metrics
        from sagemaker_monai.tasks.mask_scores import MEASURES

        scores = self.score(answers, targets)
        scores.pop("structure_dice")
        measured = self._measures(answers)
        true, predicted = (measured[:, :, MEASURES.index(name)] > 0 for name in ("true_size", "predicted_size"))
        facts = [
            {
                "images": int(true[:, index].sum()),
                "in_neither": int((~true & ~predicted)[:, index].sum()),
                "missed": int((true & ~predicted)[:, index].sum()),
                "only_predicted": int((~true & predicted)[:, index].sum()),
                "largest_component_only": index + 1 in self.largest,
            }
            for index in range(len(self.labels))
        ]
        return metrics.report_by_label(
            lambda weights: self._each(answers, weights), scores, self.labels, groups, facts=facts, seed=seed
        )

    def predictions(self, answers: torch.Tensor) -> Sequence[MaskPrediction]:  # noqa: ARG002
        """Rows of measures have no masks any more: `artifact.mask_predictor` makes predictions."""
        raise TypeError("a segmentation's predictions are made with their images")

    def postprocessing(self) -> list[dict[str, Any]]:
        """A step without numbers, or one with the regions; and the rule of the largest component, if it is kept."""
        rules = [LargestComponents(self.largest).step()] if self.largest else []
        return [_decision(self.regions).step(), *rules]

    def _measures(self, answers: Floats) -> Floats:
        """Measures (N, K, measures) of rows of `measure`, or those that ship of rows of `measure_both`."""
        from sagemaker_monai.tasks.mask_scores import MEASURES

        both = answers[:, 1:].reshape(len(answers), -1, len(self.labels), len(MEASURES))
        measured: Floats = both[:, 0]
        if both.shape[1] > 1:
            rows = [number - 1 for number in self.largest]
            measured = measured.copy()
            measured[:, rows] = both[:, 1, rows]
        return measured

    def _each(self, answers: Floats, weights: Floats) -> dict[str, Floats]:
        """Scores of every structure (R, K) under weights (R, N)."""
        from sagemaker_monai.tasks.mask_scores import image_scores, lesion_scores

        measured = self._measures(answers)
        total = weights.sum(axis=1, keepdims=True)
        means = {name: (weights @ values) / total for name, values in image_scores(measured).items()}
        return means | lesion_scores(measured, weights)


def _decision(regions: Regions | None) -> LabelMap | RegionMap:
    """The step from logits to a label map."""
    return LabelMap() if regions is None else RegionMap(regions.members, regions.painted, regions.values)


def _read(steps: Any, labels: tuple[str, ...]) -> Segmentation:
    """The task of an artifact.

    Raises:
        ValueError, KeyError, TypeError: its regions are not sound, or not as many as the labels.
    """
    if len(steps) == 2:
        told = dict(steps[1])
        if told.pop("_target_") != LargestComponents.target:
            raise ValueError("not a step of segmentation")
        task = replace(_read(steps[:1], labels), largest=LargestComponents(**told).structures)
        if task.regions is not None or max(task.largest) > len(labels):
            raise ValueError("the rule is for structures that do not overlap")
        return task
    told = dict(steps[0])
    if told.pop("_target_") == RegionMap.target:
        regions = RegionMap(**told).regions
        if len(regions.members) != len(labels):
            raise ValueError("not as many regions as labels")
        return Segmentation(labels, regions)
    return Segmentation(labels)


def _example() -> MaskPrediction:
    """Of an image of 1 mm with a small liver."""
    import numpy as np

    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1:3, 1:3, 1:3] = 1
    liver = Structure(8, 0.008, 1, (2.0, 2.0, 2.0), (1.5, 1.5, 1.5))
    return MaskPrediction(mask, {"liver": liver}, "ml", np.eye(4))


def _no_strata(targets: Floats) -> NDArray[np.int64]:
    """All alike, (N,): what is in a mask is not known before it is read."""
    import numpy as np

    return np.zeros(len(targets), dtype=np.int64)


ROW = TaskRow(
    name=Segmentation.name,
    build=Segmentation,
    read=_read,
    form="mask",
    labels_are="masks",
    fewest_labels=1,
    strata=_no_strata,
    presence=None,
    imbalance=("none", "focal"),
    metrics=(
        Metric("loss", "Minimize", is_always_there=True),
        Metric("dice", "Maximize", "Dice", is_always_there=True),
        Metric("iou", "Maximize", "IoU", is_always_there=True),
        Metric("surface_dice", "Maximize", "surface Dice", is_always_there=True),
        Metric("hd95", "Minimize", "HD95", is_in_unit=True, is_always_there=True),
        Metric("assd", "Minimize", "ASSD", is_in_unit=True, is_always_there=True),
        Metric("volume_error", "Minimize", is_in_unit=True, is_always_there=True),
        *(Metric(name, "Maximize") for name in OF_LESIONS),
    ),
    best_metric="dice",
    by_label="structure_dice",
    good_enough=0.5,
    inferer=lambda size, axes: {
        "_target_": MIRRORED_INFERER if axes else "monai.inferers.SlidingWindowInferer",
        **({"mirrored_axes": list(axes)} if axes else {}),
        "roi_size": list(size),
        "sw_batch_size": 1,
        "overlap": OVERLAP,
        "mode": "gaussian",
    },
    schema=("segmentation", {"type": "image", "format": "segmentation", "dtype": "uint8", "is_patch_data": False}),
    heads=("unit",),
    numbers="sizes",
    quality_group="segmentation_metrics",
    model="segmenter",
    sentence="segmenter of images into {}",
    noun="structure",
    amounts="Images",
    caution="Its masks do not show how sure it is: `application/x-nifti; type=probabilities` does.",
    loss="cross-entropy and soft Dice",
    example=lambda: Example(Segmentation(("liver",)), ("liver.nii.gz",), (), _example()),
)
