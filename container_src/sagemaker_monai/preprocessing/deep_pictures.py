"""Pictures of more than 8 bits, grey or in colour: from a sample to float32 values of one size, by a range that the
training images had and the artifact keeps.

Their unit is the data set's own, so pictures of 8 bits, DICOM and volumes are refused: their values
are on other scales.
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
from sagemaker_monai.preprocessing.medical import LUMA, Loaded, LoadSlice

PERCENTILES = (0.1, 99.9)  # of the values of training images, all together (a guess): a marker at the top is not obeyed
USED = (0.5, 99.5)  # percentiles of one picture between which it is shown
VALUES_OF_EACH, QUANTILES = 1 << 16, 2_001  # that are looked at of one image, evenly spread; that stand for it
COLOURS = 3


class LoadDeepPicture(LoadSlice):
    """The load half; arguments as of `LoadSlice`, with `intensity` in the pictures' own values."""

    def pixels_of_each(self, sample: Sample, _scope: Scope | None = None) -> Loaded:
        """Load the picture; as `pixels`.

        Raises:
            UnsuitableImage: also for a picture of 8 bits or fewer, DICOM or a volume.
        """
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
    """Read a picture of more than 8 bits, or raw values of a type that has more.

    Raises:
        UnsuitableImage: a picture of 8 bits or fewer, DICOM, or a volume.
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
        "PNG or TIFF of 16 bits as the training images were"
    )


def used_range(frame: Frame) -> tuple[float, float]:
    """Lowest and highest value of a picture, without the outermost of `USED`; pixels that are missing do not count."""
    left_out = padding_mask(frame.values, frame.display)
    counted = frame.values.ravel() if left_out is None else frame.values[~left_out]
    if not counted.size:
        return 0.0, 0.0
    low, high = np.percentile(counted, USED, method="nearest")
    return float(low), float(high)


def shown_deep(frame: Frame) -> np.ndarray:
    """A picture as one to look at, between the values that it uses: (H, W, 3) uint8."""
    low, high = used_range(frame)
    left_out = padding_mask(frame.values, frame.display)
    spec = {"kind": "range", "low": low, "high": high}
    shown, _ = change_intensity(
        frame.values, spec, frame.display, left_out=left_out, is_colour=len(frame.values) == COLOURS
    )
    rows = np.rint(shown * 255).astype(np.uint8).transpose(2, 1, 0)
    return np.repeat(rows, COLOURS, axis=2) if rows.shape[2] == 1 else np.ascontiguousarray(rows)


def range_of(paths: Sequence[Path]) -> tuple[float, float]:
    """The range of values of a data set: PERCENTILES of the pixels of its images, each with the same weight.

    Raises:
        DatasetError: they have one value only, or none can be read.
    """
    values = []
    for path in paths:
        try:
            frame = read_deep_frame(Sample(path))
        except CallerError:
            continue  # counted when all images are read
        left_out = padding_mask(frame.values, frame.display)
        counted = frame.values.ravel() if left_out is None else frame.values[~left_out]
        if counted.size:
            counted = counted[:: max(1, counted.size // VALUES_OF_EACH)]
            values.append(np.quantile(counted, np.linspace(0, 1, QUANTILES)))
    low, high = map(float, np.percentile(np.concatenate(values), PERCENTILES)) if values else (0.0, 0.0)
    if not high > low:
        raise DatasetError(
            f"the training pictures have one value only ({low:g}), or cannot be read; examine the data set with doctor"
        )
    return low, high
