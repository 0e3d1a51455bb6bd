"""Several files of one image, each with a part of its mask, as one mask.

Data sets with several lesions in a picture often have a file for each (BUSI: `benign (100)_mask.png` and
`benign (100)_mask_1.png`). Laid together they are the mask. But files of that kind may also be what several annotators
drew of one lesion. Then they cover each other, and laying them together would be nobody's mask: they are refused.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.masks.overlaps import Overlaps, lay, refuse_overlaps

IN_PARTS = "mask_in_parts"
_MOST_IN_COMMON = 0.5  # of the smaller one of two parts (a guess: lesions that touch share their edges)


def read_parts(readers: Sequence[Callable[[], Mask]]) -> Mask:
    """Lay the parts of a mask together.

    Args:
        readers: each reads one part, all on one grid; called one after the other, so that two parts are in memory.

    Raises:
        UnsuitableImage: a part names its structures, covers another one, or gives pixels another value than it does.
        CallerError: as the readers.
    """
    whole: np.ndarray | None = None
    findings: dict[str, None] = {}
    overlaps: Overlaps = Overlaps()
    for read in readers:
        part = read()
        if part.names or part.left_out:
            raise UnsuitableImage(
                "a mask in several files that name their structures; save all of its structures in one file"
            )
        findings |= dict.fromkeys(part.findings)
        if whole is None:
            whole = part.values.copy()
            continue
        _refuse_covering(whole, part.values)
        lay(whole, part.values, overlaps)
    assert whole is not None
    other = Overlaps({pair: count for pair, count in overlaps.items() if pair[0] != pair[1]})
    refuse_overlaps(other, {value: str(value) for pair in other for value in pair})
    return Mask(whole, {}, (*findings, IN_PARTS))


def _refuse_covering(whole: np.ndarray, part: np.ndarray) -> None:
    common = int(np.count_nonzero((whole != 0) & (part != 0)))
    smaller = min(np.count_nonzero(whole), np.count_nonzero(part))
    if common > _MOST_IN_COMMON * smaller:
        raise UnsuitableImage(
            f"several masks of the image cover each other ({common} of {smaller} voxels of the smaller one), as those "
            "of several annotators do; keep one of them, or join them in a way of your own"
        )
