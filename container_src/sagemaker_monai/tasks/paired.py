"""Whether one of two ways to answer is better, by the same images answered both ways: what validation may choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.task import Floats

LEVEL = 0.05
EXACT_GROUPS = 12  # up to so many, all signs are tried; of more, DRAWS
DRAWS = 10_000
AT_ONCE = 1000  # choices in memory


def are_gains(differences: Floats, groups: Sequence[str]) -> NDArray[np.bool_]:
    """Which differences are above 0 by more than chance: a one-sided sign-flip test of the mean over groups.

    Were neither way better, a group's difference would be as likely with the other sign. The mean has to be above 0 and
    reached by fewer than `LEVEL` of all choices of signs. A group counts once, however many images it has, and
    one without a difference counts for nothing: with fewer than five others the answer is always no (1 / 2^4 > 0.05).

    Args:
        differences: (N, K), of N images, the second way less the first; each column is a question of its own.
        groups: of each image, N.

    Returns:
        bool (K,).

    Source: Fisher's randomisation test, The Design of Experiments (1935), chapter 3.
    """
    import numpy as np

    names, which = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), differences.shape[1]))
    np.add.at(sums, which, differences)
    means = sums / np.bincount(which, minlength=len(names))[:, None]
    observed = means.sum(axis=0)
    nearly = 1e-9 * np.abs(means).sum(axis=0)  # sums in another order differ by rounding
    reached, tried = np.zeros(differences.shape[1]), 0
    for signs in _signs(len(names)):
        reached += (signs @ means >= observed - nearly).sum(axis=0)
        tried += len(signs)
    shares: Floats = reached / max(tried, 1)
    found: NDArray[np.bool_] = (observed > 0) & (shares < LEVEL)
    return found


def _signs(count: int) -> Iterator[Floats]:
    """Choices of signs, (tries, count) at a time: all, or some drawn from a fixed seed."""
    import numpy as np

    if count <= EXACT_GROUPS:
        yield np.where(np.arange(2**count)[:, None] >> np.arange(count) & 1, -1.0, 1.0)
        return
    generator = np.random.default_rng(0)
    for _ in range(DRAWS // AT_ONCE):
        yield generator.choice((-1.0, 1.0), (AT_ONCE, count))
