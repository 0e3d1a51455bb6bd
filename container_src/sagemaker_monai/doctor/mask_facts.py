"""What the masks of a data set show: which cannot be used and why, which structures each has, and how large they are.

Masks are read as `train` reads them, with the grid of their image.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_agreement import (
    DiceAgreement,
    PairsDice,
    agreement_by_structure,
    compare_annotators,
)
from sagemaker_monai.data.mask_reading import MaskOf, grid_of, labels_on_grid
from sagemaker_monai.doctor.examined import Examined
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.messages.remarks import REMARKS, Remark, found, remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.mask_scores import voxel_size

FEW_VOXELS = 10  # of a structure
MOST_PAIRS = 100  # of annotators, those that agree least
UNREADABLE_IMAGE, UNUSABLE, UNNAMED = "image", "masks_unusable", "masks_unnamed"


@dataclass(frozen=True)
class MaskFacts:
    """What one mask shows.

    Attributes:
        voxels: of each structure, in the order of the legend; empty if the mask cannot be used.
        annotated: voxels that are not ignored.
        size: of a voxel in ml, or 1 where the image has no geometry or one slice.
        unit: "ml" or "pixels".
        findings: codes of what is odd and read all the same.
        fault: UNREADABLE_IMAGE, UNUSABLE, UNNAMED, or "".
        reason: of the fault; may quote names of structures.
        dice: of each structure, in the order of the legend, by two annotators; empty without several.
        refused: masks of annotators that cannot be compared.
    """

    voxels: tuple[int, ...] = ()
    annotated: int = 0
    size: float = 1.0
    unit: str = "pixels"
    findings: tuple[str, ...] = ()
    fault: str = ""
    reason: str = field(default="", repr=False)
    dice: tuple[PairsDice, ...] = ()
    refused: int = 0


def look_at_mask(task: MaskOf) -> MaskFacts:
    """Examine one mask; never raises, whatever is in it."""
    fault = UNREADABLE_IMAGE
    try:
        grid = grid_of(task.image, task.spatial_dims)
        fault = UNUSABLE
        labels, findings = labels_on_grid(task.mask, grid, task.legend)
    except DatasetError as error:
        return MaskFacts(fault=UNNAMED, reason=str(error))
    except CallerError as error:
        return MaskFacts(fault=fault, reason=str(error))
    except MemoryError:
        return MaskFacts(fault=fault, reason="it does not fit into the memory")
    except Exception as error:  # a fault of a reader must not end the examination of all other masks
        return MaskFacts(fault=fault, reason=type(error).__name__)
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)
    voxels = tuple(int(counts[list(numbers)].sum()) for numbers in task.legend.members)
    size, unit = 1.0, "pixels"
    if grid.affine is not None and len(grid.shape) == 3:
        size, unit = voxel_size(grid.sizes, grid.affine), "ml"
    dice, refused = compare_annotators(task, grid)
    return MaskFacts(voxels, int(labels.size - counts[IGNORED]), size, unit, findings, dice=dice, refused=refused)


def given_up(_task: MaskOf) -> MaskFacts:
    """The facts of a mask on which a process crashed or hung."""
    return MaskFacts(fault=UNUSABLE, reason="its reader crashed")


def structures_in(facts: MaskFacts, legend: Legend) -> tuple[str, ...]:
    """The names of the structures that a mask shows."""
    return tuple(name for name, count in zip(legend.names, facts.voxels, strict=False) if count)


def check_masks(
    looked: Sequence[tuple[Examined, MaskFacts]],
    legend: Legend,
    shown: Callable[[str], str],
    sentence: Callable[[str], str],
) -> list[Remark]:
    """Remarks on masks.

    Args:
        looked: images with what their masks show.
        legend: of the masks.
        shown: what may be shown of a structure's name.
        sentence: what may be shown of a reason.
    """

    def examples(images: Sequence[Examined]) -> list[int]:
        return [image.example for image in images if image.files]

    remarks = []
    for fault in (UNUSABLE, UNNAMED):
        if bad := [(image, facts.reason) for image, facts in looked if facts.fault == fault]:
            reason = sentence(bad[0][1])
            remarks.append(remark(fault, len(bad), examples([image for image, _ in bad]), reason=reason))
    usable = [(image, facts) for image, facts in looked if not facts.fault]
    if empty := [image for image, facts in usable if not any(facts.voxels)]:
        remarks.append(remark("empty_masks", len(empty), examples(empty)))
    small = [
        (image, [name for name, count in zip(legend.names, facts.voxels, strict=True) if 0 < count < FEW_VOXELS])
        for image, facts in usable
    ]
    if some := [(image, names) for image, names in small if names]:
        counted = Counter(name for _, names in some for name in names)
        structures = some_of([f"{shown(name)} {count}" for name, count in counted.most_common()])
        remarks.append(
            remark("tiny_structures", len(some), examples([image for image, _ in some]), few=FEW_VOXELS,
                   structures=structures)
        )  # fmt: skip
    remarks += _annotator_remarks(usable, legend, shown, examples)
    codes: dict[str, list[int]] = {}
    for image, facts in usable:
        for code in facts.findings:
            if code in REMARKS:
                codes.setdefault(code, []).extend(examples([image]))
    return remarks + [each for code, places in codes.items() for each in found(code, places)]


def _annotator_remarks(
    usable: Sequence[tuple[Examined, MaskFacts]],
    legend: Legend,
    shown: Callable[[str], str],
    examples: Callable[[Sequence[Examined]], list[int]],
) -> list[Remark]:
    """What is said of masks by several annotators."""
    remarks = []
    if compared := [image for image, facts in usable if facts.dice]:
        means = agreement_of([facts for _, facts in usable], legend)
        told = [f"{shown(name)} {each.dice:.2f}" for name, each in means.items()]
        remarks.append(remark("annotators_compared", len(compared), structures=some_of(told) or "nothing is drawn"))
    if lost := [image for image, facts in usable if facts.refused]:
        remarks.append(remark("annotator_masks_unusable", len(lost), examples(lost)))
    return remarks


def agreement_of(looked: Sequence[MaskFacts], legend: Legend) -> dict[str, DiceAgreement]:
    """The annotators' agreement on each structure that two of them can be compared on."""
    found = agreement_by_structure([dict(zip(legend.names, facts.dice, strict=True)) for facts in looked if facts.dice])
    return {name: found[name] for name in legend.names if name in found}


def sizes_of(looked: Sequence[MaskFacts], legend: Legend, shown: Callable[[str], str]) -> dict[str, dict[str, object]]:
    """For each structure the masks that show it, its smallest, median and largest size, its annotators' mean Dice."""
    usable = [facts for facts in looked if not facts.fault]
    table: dict[str, dict[str, object]] = {}
    agreement = agreement_of(usable, legend)
    for place, name in enumerate(legend.names):
        there = [facts for facts in usable if facts.voxels[place]]
        units = {facts.unit for facts in there}
        unit = units.pop() if len(units) == 1 else "voxels"
        sizes = [facts.voxels[place] * (facts.size if unit == "ml" else 1.0) for facts in there]
        title = name if shown(name) == name else f"structure {place + 1} {shown(name)}"
        share = float(np.mean([facts.voxels[place] / max(1, facts.annotated) for facts in there])) if there else 0.0
        table[title] = {
            "masks": len(there),
            "unit": unit,
            "size": [float(f"{value:.4g}") for value in np.quantile(sizes, (0, 0.5, 1))] if sizes else [],
            "share": round(share, 6),
        }
        if told := agreement.get(name):
            pairs = [[pair.first, pair.second, pair.images, round(pair.dice, 4)] for pair in told.pairs[:MOST_PAIRS]]
            table[title] |= {"dice": round(told.dice, 4), "compared": told.images, "pairs": pairs}
    return table
