"""Pictures of more than 8 bits, grey or colour: from a sample to float32 values of one size, scaled by the range of the
training images, which the artifact keeps.

Their unit is that of the data set, so 8-bit pictures, DICOM and volumes, whose values have other scales, are refused.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sagemaker_monai.errors import CallerError, DatasetError, UnsuitableImage
from sagemaker_monai.images.pictures import decode_deep
from sagemaker_monai.images.read import frame_of_deep, kind_of, read_frames_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Frame, Traits
from sagemaker_monai.preprocessing.fits import fit_plane
from sagemaker_monai.preprocessing.intensity import change_intensity, padding_mask
from sagemaker_monai.preprocessing.load import Loaded
from sagemaker_monai.preprocessing.medical import LUMA, LoadSlice

PERCENTILES = (0.1, 99.9)  # of the values of all training images (a guess), so that bright markers do not count
USED = (0.5, 99.5)  # percentiles of one picture between which it is displayed
VALUES_OF_EACH, QUANTILES = 1 << 16, 2_001  # evenly spaced values read per image; quantiles that represent it
COLOURS = 3


class LoadDeepPicture(LoadSlice):
    """The load half; arguments as for `LoadSlice`, with `intensity` in the pictures' own values."""

    def pixels_of_each(self, sample: Sample, _scope: Scope | None = None) -> Loaded:
        """Load the picture; as `pixels`, and raises UnsuitableImage for 8-bit pictures, DICOM and volumes."""
        frame = read_deep_frame(sample)
        return [(self._prepare_whole(frame), Traits(findings=frame.findings))]

    def _prepare_whole(self, frame: Frame) -> np.ndarray:
        values, left_out = frame.values, padding_mask(frame.values, frame.display)
        if len(values) == COLOURS and self.channels == 1:
            values = (values * LUMA.reshape(3, 1, 1)).sum(axis=0, keepdims=True)
            left_out = None if left_out is None else left_out[:1]
        self._check_channels(len(values))
        changed, fill = change_intensity(
            values, self.intensity, frame.display, left_out=left_out, is_colour=len(values) == COLOURS
        )
        return fit_plane(changed, self.fit, self.size, 1.0, fill)


def read_deep_frame(sample: Sample) -> Frame:
    """Read a picture, or raw values, of more than 8 bits.

    Raises:
        UnsuitableImage: at most 8 bits, DICOM, or a volume.
        UndecodableImage, PayloadTooLarge: as `pictures.decode`.
    """
    source = sample.source
    if isinstance(source, np.ndarray):
        if source.dtype.itemsize < 2:
            raise UnsuitableImage(_other_scale("values of 8 bits"))
        return read_frames_of(sample)[0]
    if not isinstance(source, Path | bytes) or (kind := kind_of(source, sample.formats)) == "DICOM":
        raise UnsuitableImage(_other_scale("DICOM"))
    if kind != "picture":
        raise UnsuitableImage(_other_scale("a file of a volume"))
    if (picture := decode_deep(sample)) is None:
        raise UnsuitableImage(_other_scale("a picture of 8 bits"))
    return frame_of_deep(picture)


def _other_scale(what: str) -> str:
    return (
        f"this is {what}, and the model was trained on pictures of more than 8 bits, which have another scale; send "
        "16-bit PNG or TIFF like the training images"
    )


def _present(frame: Frame) -> np.ndarray:
    """The values of all pixels that are not missing, flat."""
    left_out = padding_mask(frame.values, frame.display)
    return frame.values.ravel() if left_out is None else frame.values[~left_out]


def used_range(frame: Frame) -> tuple[float, float]:
    """Lowest and highest value of a picture, by the percentiles `USED` of the pixels that are not missing."""
    counted = _present(frame)
    if not counted.size:
        return 0.0, 0.0
    low, high = np.percentile(counted, USED, method="nearest")
    return float(low), float(high)


def shown_deep(frame: Frame) -> np.ndarray:
    """A picture for display, scaled by its `used_range`: (H, W, 3) uint8."""
    low, high = used_range(frame)
    left_out = padding_mask(frame.values, frame.display)
    spec = {"kind": "range", "low": low, "high": high}
    shown, _ = change_intensity(
        frame.values, spec, frame.display, left_out=left_out, is_colour=len(frame.values) == COLOURS
    )
    rows = np.rint(shown * 255).astype(np.uint8).transpose(2, 1, 0)
    return np.repeat(rows, COLOURS, axis=2) if rows.shape[2] == 1 else np.ascontiguousarray(rows)


def range_of(paths: Sequence[Path]) -> tuple[float, float]:
    """The range of values of a data set: PERCENTILES of the pixels of its images, weighted equally.

    Raises:
        DatasetError: there is only one value, or no image can be read.
    """
    values = []
    for path in paths:
        try:
            frame = read_deep_frame(Sample(path))
        except CallerError:
            continue  # counted when all images are read
        counted = _present(frame)
        if counted.size:
            counted = counted[:: max(1, counted.size // VALUES_OF_EACH)]
            values.append(np.quantile(counted, np.linspace(0, 1, QUANTILES)))
    low, high = map(float, np.percentile(np.concatenate(values), PERCENTILES)) if values else (0.0, 0.0)
    if not high > low:
        raise DatasetError(
            f"the training pictures have only one value ({low:g}) or cannot be read; examine the data set with doctor"
        )
    return low, high
