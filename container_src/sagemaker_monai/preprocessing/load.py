"""What all load halves share: the checks of their arguments, and loading one image or each image of a sample."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.expected import Expected
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.preprocessing.needs import Needs, plane_needs

if TYPE_CHECKING:
    import torch

MAX_SIDE = 4_096  # of the network's input
MAX_VALUES = 1 << 27  # of the network's input, all channels together: 512 MiB

Loaded = list[tuple[np.ndarray, Traits]]


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Refuse an argument that is not one of the allowed texts with ValueError."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


class LoadImage:
    """A load half, which brings images to one size.

    Attributes:
        spatial_dims: 2 or 3.
        size: of the result, without channels.
        dtype: of the result.
        value_range: the lowest and highest value, None without bounds.
    """

    spatial_dims = 2
    size: tuple[int, ...]
    dtype = "float32"
    value_range: tuple[float, float] | None = None

    def __init__(self, channels: int, size: Sequence[int], possible_channels: Sequence[int]) -> None:
        if type(channels) is not int or channels not in possible_channels:
            raise ValueError(f"channels must be one of {', '.join(map(str, possible_channels))}, got {channels!r}")
        names = ", ".join(("width", "height", "depth")[: self.spatial_dims])
        if not isinstance(size, list | tuple) or len(size) != self.spatial_dims:
            raise ValueError(f"size must be [{names}], got {size!r}")
        if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in size):
            raise ValueError(f"size must be whole numbers from 1 to {MAX_SIDE}, got {size!r}")
        if math.prod(size) * channels > MAX_VALUES:
            raise ValueError(f"size and channels make more than {MAX_VALUES} values, got {size!r}")
        self.channels = channels

    def pixels(self, sample: Sample) -> np.ndarray:
        """Load one image.

        Returns:
            `dtype` (C, W, H[, D]).

        Raises:
            UndecodableImage, UnsuitableImage, PayloadTooLarge: as `images.read`; UnsuitableImage also for several
                images, other channels, or values that the intensity or the spacing cannot be computed from.
        """
        return self.pixels_of_one(sample)[0]

    def pixels_of_one(self, sample: Sample) -> tuple[np.ndarray, Traits]:
        """Load one image with its traits; as `pixels`."""
        loaded = self.pixels_of_each(sample)
        if len(loaded) != 1:
            raise UnsuitableImage(f"the sample holds {len(loaded)} images; name one")
        return loaded[0]

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> Loaded:
        """Load every image of a sample that the model is for, each with its traits; as `pixels`."""
        raise NotImplementedError

    def needs(self, expected: Expected) -> Needs:
        """What loading an image takes, by its header.

        Raises:
            PayloadTooLarge, UnsuitableImage: it could not be prepared.
        """
        return plane_needs(expected, (self.channels, *self.size))

    def __call__(self, image: Sample | str | Path) -> "torch.Tensor":
        """Load one image, or the one at a path, as a tensor (C, W, H[, D]); raises as `pixels`."""
        import torch

        return torch.from_numpy(self.pixels(Sample.of(image)))
