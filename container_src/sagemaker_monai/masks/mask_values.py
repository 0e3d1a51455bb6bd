"""Numbers of a mask: whole, from 0 to 65,535, or refused with the number that is not.

Files of floating point are common and fine where their numbers are whole. A number within NEARLY of a whole one was
made by a factor and an offset in floating point (255 x 0.0039215 = 0.99998) and is read as it, which is said. One
further off comes from interpolation, where 0.3 says that the edge of a structure runs somewhere near; rounding it
would move the edge and, between structures 1 and 3, make a 2 that is nowhere.
"""

from collections.abc import Collection, Mapping

import numpy as np

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.masks.mask import MOST_VALUE

NEARLY = 1e-3
_NS_A_VALUE = 10


def whole_values(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Make uint16 of a mask's numbers.

    Args:
        values: any shape of two or more axes; bool, integers or floating point.

    Returns:
        uint16 of the same shape and order in memory, and whether a number was only nearly whole.

    Raises:
        UnsuitableImage: a number is negative, too large, no number, or not whole.
        PayloadTooLarge: no room for them.
    """
    spend_bytes(2 * values.size, f"{values.size} values of a mask")
    spend_work(_NS_A_VALUE * values.size, f"{values.size} values of a mask")
    whole = np.empty_like(values, np.uint16)
    is_rounded = False
    for place in range(values.shape[-1]):  # slice by slice: what is computed of one is small
        part = values[..., place]
        if part.dtype.kind == "f":
            rounded = np.rint(part)
            off = np.abs(part - rounded)
            if not (off <= NEARLY).all():  # also of NaN and infinity
                raise _refusal(part[~(off <= NEARLY)].flat[0], "is not whole: it was interpolated or is no mask")
            is_rounded = is_rounded or bool(off.any())
            part = rounded
        if part.dtype.kind != "b" and part.size and (part.min() < 0 or part.max() > MOST_VALUE):
            bad = part.min() if part.min() < 0 else part.max()
            raise _refusal(bad, "is negative" if bad < 0 else f"is more than {MOST_VALUE}")
        whole[..., place] = part
    return whole, is_rounded


def replace_values(values: np.ndarray, by: Mapping[int, int]) -> None:
    """Change an array of uint16 to other values; those that are not named become 0."""
    table = np.zeros(MOST_VALUE + 1, np.uint16)
    for old, new in by.items():
        table[old] = new
    for place in range(values.shape[-1]):
        values[..., place] = table[values[..., place]]


def values_in(values: np.ndarray) -> list[int]:
    """The values that occur, without 0, in their order."""
    occurs = np.zeros(MOST_VALUE + 1, bool)
    for place in range(values.shape[-1]):
        occurs[values[..., place]] = True
    return [int(value) for value in np.flatnonzero(occurs) if value]


def some_values(values: Collection[object]) -> str:
    """The first few of them, for a message."""
    shown = list(values)[:5]
    return ", ".join(map(str, shown)) + (f" and {len(values) - len(shown)} more" if len(values) > len(shown) else "")


def _refusal(value: object, why: str) -> UnsuitableImage:
    return UnsuitableImage(
        f"a mask has whole numbers from 0 to {MOST_VALUE}, and {float(str(value)):.6g} {why}; write the number of the "
        "structure in each voxel, and resample masks with nearest neighbour"
    )
