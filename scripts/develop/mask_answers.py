"""Served label maps beside the true masks, for the demo and the real runs."""

from pathlib import Path
from typing import Any

import numpy as np

from develop import served
from sagemaker_monai.outputs.label_map_files import NIFTI_TYPE


def ask_for_mask(port: int, image: Path, target: Path) -> Any:
    """Ask for an image's label map, keep it as `target`, and open it with nibabel."""
    import nibabel

    target.write_bytes(served.ask(port, image, NIFTI_TYPE))
    return nibabel.load(target)


def dice_of(answer: Any, truth: Path, value: int) -> float:
    """Dice of a structure, 1 where it is in neither; `value` stands for it in both NIfTI files.

    Raises:
        SystemExit: the answer lies on another grid than the true mask.
    """
    import nibabel

    mask: Any = nibabel.load(truth)
    if answer.shape != mask.shape or not np.allclose(answer.affine, mask.affine, atol=1e-4):
        raise SystemExit("an answer lies on another grid than its image")
    got, wanted = (np.asarray(image.dataobj) == value for image in (answer, mask))
    return overlap(got, wanted)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two bool arrays, 1 where both are empty."""
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else 1.0
