"""Photographs and other 8-bit pictures: from a sample to uint8 values of one size, and from those to the network's
float32. DICOM counts as the picture that a viewer shows first.

The targets that artifacts name stand in `transforms`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.pictures import DEEP, Deep, decode, is_deep
from sagemaker_monai.images.read import each_frame_of, is_dicom_sample
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Frame, Traits
from sagemaker_monai.preprocessing.fits import FITS, fit_picture
from sagemaker_monai.preprocessing.intensity import show
from sagemaker_monai.preprocessing.normalization import check_scale, standardize

if TYPE_CHECKING:
    import torch

MAX_SIDE = 4_096  # pixels; of the network's input, not of the picture

# Mean and standard deviation of ImageNet, the usual choice and what published weights expect; the grey ones are the
# means of the three. Values: the PyTorch model zoo's documentation.
_IMAGENET = {
    1: ([0.449], [0.226]),
    3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


class LoadPhotograph:
    """The load half: decode, turn upright, bring to one size.

    Args:
        channels: 1 (grey) or 3 (RGB).
        size: [width, height] of the result in pixels.
        fit: a key of `FITS`: how a picture of another aspect fills the size.
        deep: of pictures of more than 8 bits, one of `pictures.DEEP`; artifacts from before take the high byte.
    """

    spatial_dims = 2
    dtype = "uint8"
    value_range: tuple[float, float] | None = (0.0, 255.0)

    def __init__(self, channels: int, size: Sequence[int], fit: str, deep: Deep = "high_byte") -> None:
        if type(channels) is not int or channels not in _IMAGENET:
            raise ValueError(f"channels must be 1 or 3, got {channels!r}")
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise ValueError(f"size must be [width, height], got {size!r}")
        if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in size):
            raise ValueError(f"size must be two whole numbers from 1 to {MAX_SIDE}, got {size!r}")
        if not isinstance(fit, str) or fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
        if not isinstance(deep, str) or deep not in DEEP:
            raise ValueError(f"deep must be one of {', '.join(DEEP)}, got {deep!r}")
        self.channels = channels
        self.size = (size[0], size[1])
        self.fit = fit
        self.deep: Deep = deep

    def pixels(self, sample: Sample) -> np.ndarray:
        """Load one picture.

        Returns:
            uint8 (C, W, H).

        Raises:
            UndecodableImage, UnsuitableImage, PayloadTooLarge: as `pictures.decode` and, for DICOM,
                `read.each_frame_of`; UnsuitableImage also for several frames.
        """
        return self.pixels_of_one(sample)[0]

    def pixels_of_one(self, sample: Sample) -> tuple[np.ndarray, Traits]:
        """Load one picture with what is known of it; as `pixels`."""
        loaded = self.pixels_of_each(sample)
        if len(loaded) != 1:
            raise UnsuitableImage(f"the DICOM file has {len(loaded)} frames; name one image")
        return loaded[0]

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> list[tuple[np.ndarray, Traits]]:
        """Load every frame of a DICOM file or series that the model is for, or the one picture; raises as `pixels`.

        Returns:
            At least one uint8 (C, W, H), each with what is known of it (nothing of what is not DICOM).
        """
        if not is_dicom_sample(sample):
            pixels = self._pixels(sample)
            is_cut = self.deep == "high_byte" and is_deep(sample)
            return [(pixels, Traits(findings=("high_byte",) if is_cut else ()))]
        return [
            (self._pixels(_as_picture(frame)), Traits(frame.identity, frame.findings))
            for frame in each_frame_of(sample, scope=scope)
        ]

    def _pixels(self, sample: Sample) -> np.ndarray:
        image = decode(
            sample,
            channels=self.channels,
            min_size=self.size,
            is_fitted_inside=self.fit == "pad",
            deep=self.deep,
        )
        rows = np.asarray(fit_picture(image, self.fit, self.size))  # (H, W) or (H, W, C)
        return np.ascontiguousarray(rows.reshape(*rows.shape[:2], self.channels).transpose(2, 1, 0))

    def __call__(self, image: Sample | str | Path) -> "torch.Tensor":
        """Load one picture, or the one at a path, as a uint8 tensor (C, W, H); raises as `pixels`."""
        import torch

        return torch.from_numpy(self.pixels(Sample.of(image)))


def _as_picture(frame: Frame) -> Sample:
    is_colour = frame.values.dtype == np.uint8 and len(frame.values) == 3
    return Sample(frame.values if is_colour else show(frame.values, frame.display))


class NormalizePhotograph:
    """The scale half: `(values / 255 - mean) / std` for each channel, in float32 and in this order of operations.

    Each value is computed alone, so that one picture, the same in a batch, and its values as float give the same bits.

    Args:
        mean: one number a channel, in units of the full range 0 to 1.
        std: same, above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        check_scale(mean, std, counts=tuple(_IMAGENET), described="1 or 3")
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]

    def __call__(self, values: "torch.Tensor", spatial_dims: int = 2) -> "torch.Tensor":
        """Scale uint8 or float values from 0 to 255, (..., C, W, H), to float32 of the same shape and device."""
        return standardize(values, self.mean, self.std, spatial_dims=spatial_dims, unit=255.0)


def photograph_preprocessing(*, channels: int, image_size: int, fit: str) -> list[dict[str, Any]]:
    """The preset for photographs, as the artifact stores it.

    Args:
        channels: 1 or 3.
        image_size: width and height of the network's input in pixels.
        fit: a key of `FITS`.
    """
    mean, std = _IMAGENET[channels]
    return [
        {
            "_target_": "sagemaker_monai.transforms.LoadPhotograph",
            "channels": channels,
            "size": [image_size, image_size],
            "fit": fit,
            "deep": "refuse",
        },
        {"_target_": "sagemaker_monai.transforms.NormalizePhotograph", "mean": list(mean), "std": list(std)},
    ]
