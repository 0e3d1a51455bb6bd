"""Several images at once: naming one of them in an error, and splitting raw values that hold several."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from sagemaker_monai.errors import CallerError, UnsuitableImage
from sagemaker_monai.images.sample import Sample

AXES_OF_VALUES = "send (N, C, W, H), (C, W, H) or (W, H), and volumes as (N, C, W, H, D), (C, W, H, D) or (W, H, D)"


@contextmanager
def name_picture(index: int, total: int) -> Iterator[None]:
    """Prefix `image INDEX: ` to the message of a caller's error if `total` is above 1; `index` counts from 0."""
    try:
        yield
    except CallerError as error:
        if total < 2:
            raise
        raise type(error)(f"image {index}: {error}") from error


def split_arrays(samples: Sequence[Sample], *, spatial_dims: int) -> list[Sample]:
    """Split raw values that hold several images into one sample per image, as the model's kind requires.

    Args:
        samples: of a request; all but raw values stay as they are.
        spatial_dims: of the model. 2: (N, C, W, H) is N images, (C, W, H) and (W, H) one. 3: (N, C, W, H, D) is N
            images, (C, W, H, D) and (W, H, D) one.

    Returns:
        One sample per image; raw values have `spatial_dims` axes, or one more.

    Raises:
        UnsuitableImage: raw values have another number of axes.
    """
    images: list[Sample] = []
    for sample in samples:
        values = sample.source
        if not isinstance(values, np.ndarray):
            images.append(sample)
        elif not spatial_dims <= values.ndim <= spatial_dims + 2:
            raise UnsuitableImage(
                f"raw values have {values.ndim} axes, for a model of {spatial_dims}-D images; {AXES_OF_VALUES}"
            )
        elif values.ndim == spatial_dims + 2:
            images.extend(Sample(image) for image in values)
        else:
            images.append(sample)
    return images
