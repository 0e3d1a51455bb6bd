"""Photographs and other 8-bit pictures: from a sample to uint8 values of one size, and from those to the network's
float32. DICOM is read as the picture that a viewer shows first.

`transforms` has the names under which artifacts know these classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sagemaker_monai.images.expected import Expected
from sagemaker_monai.images.pictures import DEEP, Deep, decode, is_deep
from sagemaker_monai.images.read import each_frame_of, is_dicom_sample
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Frame, Traits
from sagemaker_monai.preprocessing.fits import FITS, fit_picture
from sagemaker_monai.preprocessing.intensity import show
from sagemaker_monai.preprocessing.load import Loaded, LoadImage, check_choice
from sagemaker_monai.preprocessing.needs import Needs
from sagemaker_monai.preprocessing.normalization import Normalize
from sagemaker_monai.preprocessing.ways import Way, plane_way

# Mean and standard deviation of ImageNet, as published weights expect; grey has the means of the three channels.
# Source: the PyTorch model zoo's documentation.
_IMAGENET = {
    1: ([0.449], [0.226]),
    3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


class LoadPhotograph(LoadImage):
    """The load half: decode, turn upright, bring to one size.

    Args:
        channels: 1 (grey) or 3 (RGB).
        size: [width, height] of the result in pixels.
        fit: a key of `FITS`: how a picture of another aspect fills the size.
        deep: one of `pictures.DEEP`, for pictures of more than 8 bits; artifacts from earlier versions take the high
            byte.
    """

    dtype = "uint8"
    value_range = (0.0, 255.0)

    def __init__(self, channels: int, size: Sequence[int], fit: str, deep: Deep = "high_byte") -> None:
        super().__init__(channels, size, tuple(_IMAGENET))
        check_choice("fit", fit, FITS)
        check_choice("deep", deep, DEEP)
        self.size: tuple[int, int] = (size[0], size[1])
        self.fit = fit
        self.deep: Deep = deep

    def way(self, traits: Traits) -> Way:
        """The way from an image, whose `size` must be known, to what this makes of it."""
        return plane_way(traits.size, self.fit, self.size)

    def needs(self, expected: Expected) -> Needs:
        """As `LoadImage.needs`; what decoding holds is counted once a picture is open, by the scale of a JPEG."""
        return Needs(expected.decoding_bytes, 0, (self.channels, *self.size))

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> Loaded:
        """Load every frame of a DICOM file or series that the model is for, or the one picture; as `pixels`."""
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


def _as_picture(frame: Frame) -> Sample:
    is_colour = frame.values.dtype == np.uint8 and len(frame.values) == 3
    return Sample(frame.values if is_colour else show(frame.values, frame.display))


class NormalizePhotograph(Normalize):
    """The scale half: `(values / 255 - mean) / std`; `mean` and `std` are in units of the full range 0 to 1."""

    possible_channels = tuple(_IMAGENET)
    spatial_dims = 2
    unit = 255.0


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
