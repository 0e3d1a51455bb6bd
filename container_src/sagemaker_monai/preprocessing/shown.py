"""Images as a viewer shows them first, for pictures that people look at; networks get what the load halves make."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.budget import lent
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.pictures import count_bits, decode
from sagemaker_monai.images.read import each_frame_of, is_dicom_sample, kind_of
from sagemaker_monai.images.sample import Held, Instances, Sample
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Display, Frame, Window
from sagemaker_monai.preprocessing.deep_pictures import read_deep_frame, shown_deep, used_range
from sagemaker_monai.preprocessing.photograph import LoadPhotograph
from sagemaker_monai.preprocessing.preprocessing import Load
from sagemaker_monai.preprocessing.ways import ONLY_PICTURES

SHOWING_BYTES = 16  # for each pixel of a frame, while it is brought to bytes: counts as floats, and what is missing


def shown_of_each(sample: Sample, load: Load, scope: Scope | None = None) -> Iterator[NDArray[np.uint8]]:
    """Show every image of a sample that a load half loads, in its order.

    Args:
        sample: its files are not released: the load half reads them afterwards.
        load: for single images.
        scope: what the model is for.

    Yields:
        (H, W, 3) of the size of the image.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: as the load half.
    """
    if isinstance(load, LoadPhotograph):
        if is_dicom_sample(sample):
            raise UnsuitableImage(ONLY_PICTURES)
        yield np.array(decode(sample, channels=3, min_size=None, deep=load.deep))
        return
    source = sample.source
    if isinstance(source, bytes) and kind_of(source, sample.formats) == "picture":
        is_deep = count_bits(source) > 8
        yield shown_deep(read_deep_frame(sample)) if is_deep else np.array(decode(sample, channels=3, min_size=None))
        return
    for frame in each_frame_of(_kept(sample), scope=scope):
        with lent(SHOWING_BYTES * frame.values[0].size, "a picture to show"):
            yield shown_frame(frame)


def shown_frame(frame: Frame) -> NDArray[np.uint8]:
    """A frame by its header's window, without one by the range that its values use; of several channels the first."""
    if frame.values.dtype == np.uint8 and len(frame.values) == 3:
        return np.ascontiguousarray(frame.values.transpose(2, 1, 0))
    grey = replace(frame, values=frame.values[:1])
    if (display := frame.display).voi is None:
        low, high = used_range(grey)
        display = in_range(display, low, high)
    return shown_grey(grey.values, display)


def in_range(display: Display, low: float, high: float) -> Display:
    """A display without a window, with one from `low` to `high`."""
    return replace(display, voi=Window((low + high) / 2, (high - low) or 1.0, "LINEAR_EXACT"))


def shown_grey(values: np.ndarray, display: Display) -> NDArray[np.uint8]:
    """Modality values (1, W, H) by a display as (H, W, 3)."""
    from sagemaker_monai.images.dicom.display import apply_display

    return grey_bytes(apply_display(values, display))


def grey_bytes(shown: np.ndarray) -> NDArray[np.uint8]:
    """Grey (1, W, H) from 0 to 1 as (H, W, 3)."""
    grey = np.clip(np.nan_to_num(shown[0].T) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _kept(sample: Sample) -> Sample:
    """The same files, which nobody releases."""
    if not isinstance(sample.source, Instances):
        return sample
    files = tuple(each.data if isinstance(each, Held) else each for each in sample.source.files)
    return replace(sample, source=Instances(files))
