"""Slices and volumes of any modality: from a sample to float32 values of one size, and from those to the network's
input.

A volume is reoriented, resampled, scaled in intensity, and then cropped or padded to the size at that spacing, or
stretched to it. A slice is scaled in intensity and resized like a photograph, by its pixel spacing if it is known. Each
sequence of a sample with several is processed separately, with its own header.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from sagemaker_monai.budget import lent, returned, spend_bytes
from sagemaker_monai.errors import ConfigError, UnsuitableImage
from sagemaker_monai.images.dicom.findings import Policy
from sagemaker_monai.images.dicom.wanted import ONLY, Choice
from sagemaker_monai.images.expected import Expected
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
from sagemaker_monai.preprocessing.load import Loaded, LoadImage, check_choice
from sagemaker_monai.preprocessing.needs import Needs, volume_needs
from sagemaker_monai.preprocessing.normalization import Normalize
from sagemaker_monai.preprocessing.resampling import (
    AXIS_LETTERS,
    crop_or_pad,
    grid_of_spacing,
    reorient,
    resample,
    resize,
    spacing_of,
)
from sagemaker_monai.preprocessing.ways import Way, plane_way, volume_way

POSSIBLE_CHANNELS = range(1, MAX_CHANNELS + 1)
MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100.0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow's conversion to grey

# To the size, whatever the spacing; cropped and padded around the centre; as large as it is, and `size` is that of the
# windows that the network sees.
VOLUME_FITS = ("stretch", "pad", "whole")
# How missing slices and uneven spacing of a DICOM series are handled.
UNEVEN_SLICES = {
    "refuse": Policy(),
    "resample": Policy(missing_slices="resample", uneven_spacing="resample"),
}
NON_FINITE = ("refuse", "zero")
SAME_SUV = 0.01  # allowed relative difference of the slices' factors, from rounded times


class _LoadMedical(LoadImage):
    """What slices and volumes share: intensity, and the check of channels."""

    def __init__(self, channels: int, size: Sequence[int], intensity: Mapping[str, Any]) -> None:
        super().__init__(channels, size, POSSIBLE_CHANNELS)
        self.intensity = check_intensity(intensity)
        if INTENSITIES[self.intensity["kind"]].is_display:
            self.value_range = (0.0, 1.0)

    def _check_channels(self, found: int) -> None:
        if found != self.channels:
            raise UnsuitableImage(f"this model takes images of {self.channels} channels, this one has {found}")

    def _in_its_unit(self, image: Frame | Volume) -> np.ndarray:
        """The values in the unit of the intensity: SUV, or the modality's."""
        if self.intensity["kind"] != "suv":
            return image.values
        return np.asarray(image.values, np.float32) * np.float32(_suv_factor(image.identity))


class LoadSlice(_LoadMedical):
    """The load half for 2-D images of any modality.

    Args:
        channels: 1 (grey; colours are converted), 3 (colours) or the number of sequences.
        size: [width, height] of the result in pixels.
        fit: a key of `FITS`.
        intensity: a spec of `intensity.INTENSITIES`.
    """

    def __init__(self, channels: int, size: Sequence[int], fit: str, intensity: Mapping[str, Any]) -> None:
        super().__init__(channels, size, intensity)
        check_choice("fit", fit, FITS)
        self.size: tuple[int, int] = (size[0], size[1])
        self.fit = fit

    def way(self, traits: Traits) -> Way:
        """The way from an image to what this makes of it."""
        aspect = 1.0 if traits.spacing_mm is None else traits.spacing_mm[0] / traits.spacing_mm[1]
        return plane_way(traits.size, self.fit, self.size, aspect)

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
            # Colours have a range of 0 to 255, whatever the header says.
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
            raise UnsuitableImage("the image's pixel spacing is broken: width and height differ by a factor of 1,000")
        return fit_plane(values, self.fit, self.size, aspect, fill)


class LoadVolume(_LoadMedical):
    """The load half for 3-D images of any modality.

    Args:
        channels: of the volume, or the number of sequences.
        size: [width, height, depth] of the result in voxels.
        fit: one of `VOLUME_FITS`.
        orientation: directions of the result's axes, such as "RAS"; volumes without geometry stay as they are.
        spacing_mm: of the voxels along the axes of the result; None keeps it.
        intensity: a spec of `intensity.INTENSITIES`.
        uneven_slices: a key of `UNEVEN_SLICES`, for DICOM series.
        non_finite: one of `NON_FINITE`, for volume files other than DICOM.
        modality, series_description, series: which DICOM series of a study, as in `dicom.wanted.Choice.of`.
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
        check_choice("uneven_slices", uneven_slices, UNEVEN_SLICES)
        check_choice("non_finite", non_finite, NON_FINITE)
        check_choice("fit", fit, VOLUME_FITS)
        if not isinstance(orientation, str) or not _is_orientation(orientation):
            raise ValueError(f"orientation must be three letters such as RAS or LPS, got {orientation!r}")
        if spacing_mm is not None:
            if not isinstance(spacing_mm, list | tuple) or len(spacing_mm) != 3:
                raise ValueError(f"spacing_mm must be three numbers or null, got {spacing_mm!r}")
            if not all(type(mm) in (int, float) and MIN_SPACING_MM <= mm <= MAX_SPACING_MM for mm in spacing_mm):
                raise ValueError(
                    f"spacing_mm must be numbers from {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}, got {spacing_mm!r}"
                )
        self.size: tuple[int, int, int] = (size[0], size[1], size[2])
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

    def way(self, traits: Traits) -> Way:
        """The way from an image to what this makes of it."""
        return volume_way(
            traits.size,
            traits.affine,
            orientation=self.orientation,
            spacing_mm=self.spacing_mm,
            fit=self.fit,
            size=self.size,
        )

    def needs(self, expected: Expected) -> Needs:
        """As `LoadImage.needs`."""
        if len(expected.shape) != 1 + self.spatial_dims:
            return super().needs(expected)  # refused once it is decoded
        return volume_needs(
            expected,
            orientation=self.orientation,
            spacing_mm=self.spacing_mm,
            fit=self.fit,
            size=self.size,
            intensity=self.intensity,
        )

    def pixels_of_each(self, sample: Sample, scope: Scope | None = None) -> Loaded:
        """Load every series of a sample that the model is for; as `pixels`."""
        policy = UNEVEN_SLICES[self.uneven_slices]
        if isinstance(sample.source, Sequences):
            self._check_channels(len(sample.source.channels))
            volumes = read_volume_channels(sample.source, policy=policy, non_finite=self.non_finite, choice=self.choice)
            return [(np.concatenate([self._prepare(volume) for volume in volumes]), _traits_of(volumes))]
        volumes = read_volumes_of(sample, policy=policy, non_finite=self.non_finite, choice=self.choice, scope=scope)
        loaded: Loaded = []
        while volumes:
            volume = volumes.pop(0)
            self._check_channels(len(volume.values))
            traits = _traits_of([volume])
            loaded.append((self._prepare(volume), traits))
        return loaded

    def _prepare(self, volume: Volume) -> np.ndarray:
        """The network's input; changes the volume's values in place, because there may be no memory for a copy."""
        values = volume.values
        left_out = padding_mask(values, volume.display)
        if self.intensity["kind"] == "suv":
            np.multiply(values, np.float32(_suv_factor(volume.identity)), out=values)
        if left_out is not None:  # otherwise "no pixel" would bleed into its neighbours
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
                    "this model needs the spacing of a volume, and this one has none; send DICOM, NIfTI, NRRD or "
                    "MetaImage"
                )
            if left_out is not None:
                grid = grid_of_spacing(left_out.shape[1:], spacing_of(volume.affine), self.spacing_mm)
                with lent(4 * left_out.size, "the padding of a volume to resample"):
                    shares = resize(left_out.astype(np.float32), [size for size, _ in grid], [box for _, box in grid])
                    left_out = shares >= 0.5
            volume = resample(volume, self.spacing_mm)
        values, fill = change_intensity(volume.values, self.intensity, volume.display, left_out=left_out, is_owned=True)
        if self.fit == "stretch":
            values = resize(values, self.size)
        elif self.fit == "pad":
            values = crop_or_pad(values, self.size, fill)
        if not values.flags.c_contiguous:
            spend_bytes(values.nbytes, f"{values.size} values in another order")
        return np.ascontiguousarray(values)


def _traits_of(images: Sequence[Frame] | Sequence[Volume]) -> Traits:
    """The traits of an image, mostly of its first channel."""
    first = images[0]
    spacing_mm: tuple[float, ...] | None
    affine = None
    if isinstance(first, Frame):
        spacing_mm = first.spacing_mm
    elif first.has_geometry:
        spacing_mm, affine = tuple(map(float, spacing_of(first.affine))), np.array(first.affine, np.float64)
    else:
        spacing_mm = None
    findings = tuple(dict.fromkeys(code for image in images for code in image.findings))
    return Traits(first.identity, findings, tuple(map(int, first.values.shape[1:])), spacing_mm, affine)


def _suv_factor(identity: Identity | None) -> float:
    """The factor from modality values to SUV.

    Raises:
        UnsuitableImage: the headers do not allow it, or the slices have different factors.
    """
    from pydicom import Dataset

    from sagemaker_monai.images.dicom.suv import suv_factor

    headers = [] if identity is None else [header for header in identity.headers if isinstance(header, Dataset)]
    factors = [suv_factor(header) for header in headers]
    known = [factor for factor in factors if factor is not None]
    if not known or len(known) < len(factors):
        raise UnsuitableImage(
            "SUV cannot be computed: it needs PET as DICOM, corrected for attenuation and decay, with weight, dose, "
            "half-life and times in its header; send the original files"
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


class NormalizeIntensity(Normalize):
    """The scale half for slices and volumes."""

    possible_channels = POSSIBLE_CHANNELS
