"""Several images at once: how an error names one of them, and raw values that hold more than one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from sagemaker_monai.errors import CallerError, UnsuitableImage
from sagemaker_monai.images.sample import Sample

AXES_OF_VALUES = "send (N, C, W, H), (C, W, H) or (W, H), and volumes as (N, C, W, H, D), (C, W, H, D) or (W, H, D)"


@contextmanager
def name_picture(index: int, total: int) -> Iterator[None]:
    """Put `image INDEX: ` before the message of a caller's error, when there are several pictures.

    Args:
        index: of the picture, counted from 0, in the order of the answer.
        total: number of pictures.
    """
    try:
        yield
    except CallerError as error:
        if total < 2:
            raise
        raise type(error)(f"image {index}: {error}") from error


def split_arrays(samples: Sequence[Sample], *, spatial_dims: int) -> list[Sample]:
    """Make one sample an image of raw values that hold several, which only the model's kind can say.

    Args:
        samples: of a request; other ones than raw values stay as they are.
        spatial_dims: of the model. 2: (N, C, W, H) is N images, (C, W, H) and (W, H) one. 3: (N, C, W, H, D) is N
            images, (C, W, H, D) and (W, H, D) one.

    Returns:
        As many samples as images: raw values have `spatial_dims` axes, or one more.

    Raises:
        UnsuitableImage: raw values of another number of axes.
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
