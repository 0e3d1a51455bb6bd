"""How many images go through a network together."""

import math
from collections.abc import Sequence

VALUES_AT_ONCE = 1 << 22  # 64 pictures of 256 x 256, or 4 volumes of 101 x 101 x 101


def images_at_once(size: Sequence[int], most: int) -> int:
    """How many images go through a network at once where nothing is learned, so that large ones fit into memory."""
    return max(1, min(most, VALUES_AT_ONCE // math.prod(size)))
