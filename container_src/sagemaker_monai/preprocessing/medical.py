"""Slices and volumes of any modality: from a sample to float32 values of one size, and from those to the network's
input.

Of a volume: turned to one orientation, brought to one spacing, its intensities changed, then cut or padded to the size
at that spacing, or stretched to it. Of a slice: its intensities changed, then resized like a photograph, by the spacing
of its pixels where it is known. Each sequence of a sample with several goes this way alone, with its own header.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sagemaker_monai.budget import lent, returned
from sagemaker_monai.errors import ConfigError, UnsuitableImage
from sagemaker_monai.images.dicom.findings import Policy
from sagemaker_monai.images.dicom.wanted import ONLY, Choice
from sagemaker_monai.images.read import (
    MAX_CHANNELS,
    each_frame_of,
    read_frame_channels,
    read_volume_channels,
    read_volumes_of,
)
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Frame, Identity, Traits, Volume
from sagemaker_monai.preprocessing.fits import FITS, fit_plane
from sagemaker_monai.preprocessing.intensity import INTENSITIES, change_intensity, check_intensity, padding_mask
from sagemaker_monai.preprocessing.normalization import check_scale, standardize
from sagemaker_monai.preprocessing.resampling import (
    AXIS_LETTERS,
    crop_or_pad,
    grid_of_spacing,
    reorient,
    resample,
    resize,
    spacing_of,
)

if TYPE_CHECKING:
    import torch

MAX_SIDE = 4_096  # of the network's input
MAX_VALUES = 1 << 27  # of the network's input, all channels together: 512 MiB
MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100.0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's conversion to grey

Loaded = list[tuple[np.ndarray, Traits]]


VOLUME_FITS = ("stretch", "pad")  # to the size whatever the spacing; at the spacing, cut and padded about the centre
# What is done about missing slices and changing distances of a DICOM series, and about values that are no numbers.
UNEVEN_SLICES = {
    "refuse": Policy(),
    "resample": Policy(missing_slices="resample", uneven_spacing="resample"),
}
NON_FINITE = ("refuse", "zero")
SAME_SUV = 0.01  # by which share the factors of slices may differ, which rounding of times makes


class _LoadMedical:
    """What slices and volumes have in common: channels, size, intensity, and one image or each."""

    spatial_dims: int
    dtype = "float32"

    def __init__(self, channels: int, size: Sequence[int], intensity: Mapping[str, Any]) -> None:
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"channels must be a whole number from 1 to {MAX_CHANNELS}, got {channels!r}")
        names = ", ".join(("width", "height", "depth")[: self.spatial_dims])
        if not isinstance(size, list | tuple) or len(size) != self.spatial_dims:
            raise ValueError(f"size must be [{names}], got {size!r}")
        if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in size):
            raise ValueError(f"size must be whole numbers from 1 to {MAX_SIDE}, got {size!r}")
        if math.prod(size) * channels > MAX_VALUES:
            raise ValueError(f"size and channels make more than {MAX_VALUES} values, got {size!r}")
        self.channels = channels
        self.intensity = check_intensity(intensity)
        self.value_range: tuple[float, float] | None = (
            (0.0, 1.0) if INTENSITIES[self.intensity["kind"]].is_display else None
        )

    def pixels(self, sample: Sample) -> np.ndarray:
        """Load one image.

        Returns:
            float32 (C, W, H[, D]).

        Raises:
            UndecodableImage, UnsuitableImage, PayloadTooLarge: as `read`; UnsuitableImage also for several images,
                other channels, or what the intensity or the spacing cannot be had from.
        """
        return self.pixels_of_one(sample)[0]

    def pixels_of_one(self, sample: Sample) -> tuple[np.ndarray, Traits]:
        """Load one image with what is known of it; as `pixels`."""
        loaded = self.pixels_of_each(sample)
        if len(loaded) != 1:
            raise UnsuitableImage(f"{len(loaded)} images where one is meant; name one")
        return loaded[0]

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> Loaded:
        """Load every image of a sample that the model is for, each with what is known of it; as `pixels`."""
        raise NotImplementedError

    def __call__(self, image: Sample | str | Path) -> "torch.Tensor":
        """Load one image, or the one at a path, as a float32 tensor (C, W, H[, D]); raises as `pixels`."""
        import torch

        return torch.from_numpy(self.pixels(Sample.of(image)))

    def _check_channels(self, found: int) -> None:
        if found != self.channels:
            raise UnsuitableImage(f"this model takes images of {self.channels} channels, this one has {found}")

    def _in_its_unit(self, image: Frame | Volume) -> np.ndarray:
        """The values in the unit that the intensity is of: SUV where it says so, else the modality's."""
        if self.intensity["kind"] != "suv":
            return image.values
        return np.asarray(image.values, np.float32) * np.float32(_suv_factor(image.identity))


class LoadSlice(_LoadMedical):
    """The load half for 2-D images of any modality.

    Args:
        channels: 1 (grey; colours become it), 3 (colours) or the number of sequences.
        size: [width, height] of the result in pixels.
        fit: a key of `FITS`.
        intensity: a spec of `intensity.INTENSITIES`.
    """

    spatial_dims = 2

    def __init__(self, channels: int, size: Sequence[int], fit: str, intensity: Mapping[str, Any]) -> None:
        super().__init__(channels, size, intensity)
        if not isinstance(fit, str) or fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
        self.size = (size[0], size[1])
        self.fit = fit

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> Loaded:
        """Load every frame of a sample that the model is for; as `pixels`."""
        if isinstance(sample.source, Sequences):
            self._check_channels(len(sample.source.channels))
            frames = read_frame_channels(sample.source)
            return [(np.concatenate([self._prepare(frame) for frame in frames]), _traits_of(frames))]
        loaded: Loaded = []
        for frame in each_frame_of(sample, scope=scope):
            with lent(frame.values.nbytes, f"an image of {frame.values.size} values"), returned():
                loaded.append((self._prepare_whole(frame), _traits_of([frame])))
        return loaded

    def _prepare_whole(self, frame: Frame) -> np.ndarray:
        is_colour = _is_colour(frame)
        if is_colour and self.channels == 1:
            grey = (frame.values.astype(np.float32) * LUMA.reshape(3, 1, 1)).sum(axis=0, keepdims=True)
            # A range of 0 to 255 is all that a header says of colours.
            return self._prepare(replace(frame, values=grey), is_colour=True)
        self._check_channels(len(frame.values))
        return self._prepare(frame, is_colour=is_colour)

    def _prepare(self, frame: Frame, *, is_colour: bool = False) -> np.ndarray:
        left_out = None if is_colour else padding_mask(frame.values, frame.display)
        values, fill = change_intensity(
            self._in_its_unit(frame), self.intensity, frame.display, left_out=left_out, is_colour=is_colour
        )
        aspect = frame.spacing_mm[0] / frame.spacing_mm[1] if frame.spacing_mm is not None else 1.0
        if not 1e-3 < aspect < 1e3:
            raise UnsuitableImage(
                "the image's pixel spacing is broken: a pixel is 1,000 times as wide as high, or less"
            )
        return fit_plane(values, self.fit, self.size, aspect, fill)


class LoadVolume(_LoadMedical):
    """The load half for 3-D images of any modality.

    Args:
        channels: of the volume, or the number of sequences.
        size: [width, height, depth] of the result in voxels.
        fit: one of `VOLUME_FITS`.
        orientation: where the axes of the result go, such as "RAS"; volumes without geometry are taken as they are.
        spacing_mm: distance of the voxels along the axes of the result; None leaves it.
        intensity: a spec of `intensity.INTENSITIES`.
        uneven_slices: a key of `UNEVEN_SLICES`; of DICOM series only.
        non_finite: one of `NON_FINITE`; of files of volumes other than DICOM only.
        modality, series_description, series: which DICOM series of a study, as `dicom.wanted.Choice.of`.
    """

    spatial_dims = 3

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        fit: str,
        orientation: str,
        spacing_mm: Sequence[float] | None,
        intensity: Mapping[str, Any],
        uneven_slices: str = "refuse",
        non_finite: Literal["refuse", "zero"] = "refuse",
        modality: str = "",
        series_description: str = "",
        series: str = ONLY,
    ) -> None:
        super().__init__(channels, size, intensity)
        if not isinstance(uneven_slices, str) or uneven_slices not in UNEVEN_SLICES:
            raise ValueError(f"uneven_slices must be one of {', '.join(UNEVEN_SLICES)}, got {uneven_slices!r}")
        if not isinstance(non_finite, str) or non_finite not in NON_FINITE:
            raise ValueError(f"non_finite must be one of {', '.join(NON_FINITE)}, got {non_finite!r}")
        if not isinstance(fit, str) or fit not in VOLUME_FITS:
            raise ValueError(f"fit must be one of {', '.join(VOLUME_FITS)}, got {fit!r}")
        if not isinstance(orientation, str) or not _is_orientation(orientation):
            raise ValueError(f"orientation must be three letters such as RAS or LPS, got {orientation!r}")
        if spacing_mm is not None:
            if not isinstance(spacing_mm, list | tuple) or len(spacing_mm) != 3:
                raise ValueError(f"spacing_mm must be three numbers or null, got {spacing_mm!r}")
            if not all(type(mm) in (int, float) and MIN_SPACING_MM <= mm <= MAX_SPACING_MM for mm in spacing_mm):
                raise ValueError(
                    f"spacing_mm must be numbers from {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}, got {spacing_mm!r}"
                )
        self.size = (size[0], size[1], size[2])
        self.fit = fit
        self.orientation = orientation
        self.spacing_mm = None if spacing_mm is None else tuple(float(mm) for mm in spacing_mm)
        self.uneven_slices = uneven_slices
        self.non_finite = non_finite
        if not all(isinstance(each, str) for each in (modality, series_description, series)):
            raise ValueError("modality, series_description and series must be texts")
        try:
            self.choice = Choice.of(modality, series_description, series)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> Loaded:
        """Load every series of a sample that the model is for; as `pixels`."""
        if isinstance(sample.source, Sequences):
            self._check_channels(len(sample.source.channels))
            volumes = read_volume_channels(
                sample.source,
                policy=UNEVEN_SLICES[self.uneven_slices],
                non_finite=self.non_finite,
                choice=self.choice,
            )
            return [(np.concatenate([self._prepare(volume) for volume in volumes]), _traits_of(volumes))]
        volumes = read_volumes_of(
            sample,
            policy=UNEVEN_SLICES[self.uneven_slices],
            non_finite=self.non_finite,
            choice=self.choice,
            scope=scope,
        )
        loaded: Loaded = []
        while volumes:
            volume = volumes.pop(0)
            self._check_channels(len(volume.values))
            traits = _traits_of([volume])
            loaded.append((self._prepare(volume), traits))
        return loaded

    def _prepare(self, volume: Volume) -> np.ndarray:
        """What the network gets; the volume's values are changed on the way, for there may be no room for others."""
        values = volume.values
        left_out = padding_mask(values, volume.display)
        if self.intensity["kind"] == "suv":
            np.multiply(values, np.float32(_suv_factor(volume.identity)), out=values)
        if left_out is not None:  # or what means "no pixel" would run into its neighbours
            is_none = bool(left_out.all())
            lowest = np.float32(0) if is_none else values.min(where=~left_out, initial=np.float32(np.inf))
            np.copyto(values, lowest, where=left_out)
        if volume.has_geometry:
            mask = None if left_out is None else replace(volume, values=left_out)
            volume = reorient(volume, self.orientation, is_owned=True)
            left_out = None if mask is None else reorient(mask, self.orientation, is_owned=True).values
        if self.spacing_mm is not None:
            if not volume.has_geometry:
                raise UnsuitableImage(
                    "this model takes volumes of a certain spacing, and this one has none; send DICOM, NIfTI, NRRD or "
                    "MetaImage"
                )
            if left_out is not None:
                grid = grid_of_spacing(left_out.shape[1:], spacing_of(volume.affine), self.spacing_mm)
                with lent(4 * left_out.size, "the padding of a volume to resample"):
                    shares = resize(left_out.astype(np.float32), [size for size, _ in grid], [box for _, box in grid])
                    left_out = shares >= 0.5
            volume = resample(volume, self.spacing_mm)
        values, fill = change_intensity(volume.values, self.intensity, volume.display, left_out=left_out, is_owned=True)
        fitted = resize(values, self.size) if self.fit == "stretch" else crop_or_pad(values, self.size, fill)
        return np.ascontiguousarray(fitted)


def _traits_of(images: Sequence[Frame] | Sequence[Volume]) -> Traits:
    """What is known of an image, of its first channel as a rule."""
    first = images[0]
    spacing_mm: tuple[float, ...] | None
    if isinstance(first, Frame):
        spacing_mm = first.spacing_mm
    else:
        spacing_mm = tuple(map(float, spacing_of(first.affine))) if first.has_geometry else None
    findings = tuple(dict.fromkeys(code for image in images for code in image.findings))
    return Traits(first.identity, findings, tuple(map(int, first.values.shape[1:])), spacing_mm)


def _suv_factor(identity: Identity | None) -> float:
    """From modality values to SUV.

    Raises:
        UnsuitableImage: the headers do not allow it, or slices of one volume have different factors.
    """
    from pydicom import Dataset

    from sagemaker_monai.images.dicom.suv import suv_factor

    headers = [] if identity is None else [header for header in identity.headers if isinstance(header, Dataset)]
    factors = [suv_factor(header) for header in headers]
    known = [factor for factor in factors if factor is not None]
    if not known or len(known) < len(factors):
        raise UnsuitableImage(
            "SUV cannot be computed: it needs DICOM of PET that is corrected for attenuation and decay, with weight, "
            "dose, half-life and times in its header; send the original files"
        )
    if max(known) > (1 + SAME_SUV) * min(known):
        raise UnsuitableImage("slices of the series have different factors to SUV; send those of one acquisition")
    return known[0]


def _is_colour(frame: Frame) -> bool:
    return frame.values.dtype == np.uint8 and len(frame.values) == 3


def _is_orientation(axcodes: str) -> bool:
    # Each of the three pairs once.
    pairs = [next((pair for pair in AXIS_LETTERS if letter in pair), None) for letter in axcodes]
    return len(axcodes) == 3 and set(pairs) == set(AXIS_LETTERS)


class NormalizeIntensity:
    """The scale half for slices and volumes: `(values - mean) / std` for each channel, in float32 and in this order.

    Args:
        mean: one number a channel, in the unit that the load half gives.
        std: same, above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        check_scale(mean, std, counts=range(1, MAX_CHANNELS + 1), described=f"1 to {MAX_CHANNELS}")
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]

    def __call__(self, values: "torch.Tensor", spatial_dims: int | None = None) -> "torch.Tensor":
        """Scale to float32 of the same shape and device.

        Args:
            values: (C, W, H[, D]), one image as MONAI's transforms take it; or any (..., C, W, H[, D]).
            spatial_dims: axes behind the channel, needed where `values` are not one image.
        """
        return standardize(values, self.mean, self.std, spatial_dims=spatial_dims or values.ndim - 1)
