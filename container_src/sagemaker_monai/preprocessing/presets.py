"""How each kind of image is prepared: a table of presets, and the one function that writes a preprocessing spec.

Named windows and spacings are resolved here: artifacts contain only numbers, so that a changed table never changes what
an existing model sees.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.dicom.wanted import OF_ONE, Choice
from sagemaker_monai.images.read import MAX_CHANNELS
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.intensity import INTENSITIES, WINDOWS, check_intensity
from sagemaker_monai.preprocessing.medical import MAX_SPACING_MM, MIN_SPACING_MM
from sagemaker_monai.preprocessing.photograph import photograph_preprocessing

ORIENTATION = "RAS"
_UNSET = ("", "preset")
_LIMITS = re.compile(r"(-?\d{1,6}(?:\.\d{1,6})?)/(\d{1,6}(?:\.\d{1,6})?)")
# Of values from 0 to 1: roughly those of windowed images (a guess), so that the input has mean 0 and deviation 1.
_DISPLAY_MEAN, _DISPLAY_STD = 0.5, 0.25


def _window(name: str) -> dict[str, Any]:
    center, width = WINDOWS[name]
    return {"kind": "window", "center": center, "width": width}


_HEADER = {"kind": "header"}
_PERCENTILE = {"kind": "percentile", "low": 0.5, "high": 99.5}
_SUV = {"kind": "suv", "low": 0, "high": 10}  # g/ml; higher values are tracer being excreted (a guess)
_VOLUME = "LoadVolume"
_ZSCORE = {"kind": "zscore", "nonzero": True}  # zeros are air, or the background of an extracted brain


@dataclass(frozen=True)
class Preset:
    """A row of `PRESETS`.

    Attributes:
        spatial_dims: 2 or 3.
        intensity: the default spec, which the user's window replaces; None for photographs, which have none.
        augmentation: the suitable key of `augmentation.AUGMENTATIONS`.
        spacing_mm: to which volumes are resampled if they are cropped and padded; None keeps their own.
        has_hu: values are Hounsfield units, so named windows make sense.
        has_suv: values are PET, so SUV makes sense.
        load: the load half's name in `transforms`.
    """

    spatial_dims: int
    intensity: dict[str, Any] | None
    augmentation: str
    spacing_mm: tuple[float, float, float] | None = None
    has_hu: bool = False
    has_suv: bool = False
    load: str = "LoadSlice"


# Spacings are close to those of reconstructed body CT and brain MR, so that little is lost (a guess, not tuned).
PRESETS: dict[str, Preset] = {
    "photo": Preset(2, None, "photo", load="LoadPhotograph"),
    # Grey or colour pictures of more than 8 bits; the range is that of the training images.
    "deep": Preset(2, {"kind": "range", "low": 0, "high": 65_535}, "grey", load="LoadDeepPicture"),
    "ct_slice": Preset(2, _window("soft_tissue"), "grey", has_hu=True),
    "xray": Preset(2, _HEADER, "grey"),
    "mr_slice": Preset(2, _ZSCORE, "grey"),
    "ct_volume": Preset(3, _window("soft_tissue"), "volume", spacing_mm=(1.5, 1.5, 3.0), has_hu=True, load=_VOLUME),
    "mr_volume": Preset(3, _ZSCORE, "volume", spacing_mm=(1.0, 1.0, 1.0), load=_VOLUME),
    # SUV only on request: many headers do not allow it.
    "pet_slice": Preset(2, _PERCENTILE, "grey", has_suv=True),
    "pet_volume": Preset(3, _PERCENTILE, "volume", spacing_mm=(4.0, 4.0, 4.0), has_suv=True, load=_VOLUME),
    # Plain arrays of an unknown unit: from the lowest to the highest value.
    "volume": Preset(3, {"kind": "percentile", "low": 0, "high": 100}, "volume", load=_VOLUME),
}

# Values of `window`, beside the names of WINDOWS and CENTER/WIDTH.
_NAMED_INTENSITIES: dict[str, dict[str, Any]] = {
    "header": _HEADER,
    "percentile": _PERCENTILE,
    "zscore": _ZSCORE,
    "suv": _SUV,
    "none": {"kind": "none"},
}


def preprocessing_for(
    preset: str,
    *,
    channels: int,
    image_size: int,
    image_depth: int = 0,
    fit: str,
    window: str = "",
    spacing_mm: str = "",
    uneven_slices: str = "refuse",
    non_finite: str = "refuse",
    value_range: tuple[float, float] | None = None,
    choice: Choice = OF_ONE,
    patch: Sequence[int] = (),
    patch_spacing_mm: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Write a preset as the artifact stores it.

    Args:
        preset: a key of `PRESETS`.
        channels: 1 or 3 for photographs, otherwise 1 to 16.
        image_size: width and height of the network's input in pixels.
        image_depth: slices of the network's input; 0 means `image_size`.
        fit: "stretch", "pad" or "crop"; "stretch" brings volumes to the size whatever their spacing, the others crop
            and pad them around their centre at one spacing.
        window: "" or "preset" for the preset's own; "header", "percentile", "zscore", "suv", "none", a name of
            `intensity.WINDOWS`, or CENTER/WIDTH in the modality's unit.
        spacing_mm: "" or "preset"; "none"; one number or three with commas, for volumes that are cropped and padded.
        uneven_slices: a key of `medical.UNEVEN_SLICES`, for volumes.
        non_finite: one of `medical.NON_FINITE`, for volumes.
        value_range: lowest and highest value of the training images, for preset deep.
        patch: for volumes that stay as large as they are, the sides of what the network sees; they are brought to
            `patch_spacing_mm`, and image_size, image_depth, fit and spacing_mm have no effect.
        patch_spacing_mm: for these volumes; None keeps their own.
        choice: which DICOM series of a study, for volumes.

    Raises:
        ConfigError: an unknown name, or an argument that does not fit the preset; says what is allowed.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    row = PRESETS[preset]
    if fit not in FITS:
        raise ConfigError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    if row.spatial_dims == 2:
        _refuse_set({
            "image_depth is": image_depth != 0,
            "spacing_mm is": spacing_mm not in (*_UNSET, "none"),
            "uneven_slices is": uneven_slices != "refuse",
            "non_finite is": non_finite != "refuse",
            "modality, series_description and series are": choice != OF_ONE,
        })  # fmt: skip
    if row.intensity is None:
        if channels not in (1, 3):
            raise ConfigError(f"preset {preset} has 1 or 3 channels, got {channels}; use another preset for sequences")
        if window not in _UNSET:
            raise ConfigError(f"window is for medical images only: leave it out or choose another preset than {preset}")
        return photograph_preprocessing(channels=channels, image_size=image_size, fit=fit)
    if not 1 <= channels <= MAX_CHANNELS:
        raise ConfigError(f"preset {preset} has 1 to {MAX_CHANNELS} channels, got {channels}")
    intensity = dict(row.intensity) if window in _UNSET else _intensity(preset, window, channels)
    if value_range is not None and window in _UNSET:
        try:
            intensity = check_intensity({"kind": "range", "low": value_range[0], "high": value_range[1]})
        except ValueError as error:
            raise ConfigError(f"the values of the training pictures: {error}; set window to percentile") from error
    load: dict[str, Any] = {"channels": channels, "size": [image_size, image_size], "fit": fit, "intensity": intensity}
    load["_target_"] = f"sagemaker_monai.transforms.{row.load}"
    if row.spatial_dims == 3:
        load["size"] = [image_size, image_size, image_depth or image_size]
        load["fit"] = "stretch" if fit == "stretch" else "pad"
        load["orientation"] = ORIENTATION
        load["spacing_mm"] = None if patch else _spacing(row, fit, spacing_mm)
        if patch:
            load |= {"size": list(patch), "fit": "whole"}
            load["spacing_mm"] = None if patch_spacing_mm is None else list(patch_spacing_mm)
        load["uneven_slices"] = uneven_slices
        load["non_finite"] = non_finite
        if choice != OF_ONE:  # otherwise as in artifacts from earlier versions
            load["modality"] = ",".join(choice.modality)
            load["series_description"] = choice.description
            load["series"] = choice.series
    is_display = INTENSITIES[intensity["kind"]].is_display
    mean, std = (_DISPLAY_MEAN, _DISPLAY_STD) if is_display else (0.0, 1.0)
    scale = {
        "_target_": "sagemaker_monai.transforms.NormalizeIntensity",
        "mean": [mean] * channels,
        "std": [std] * channels,
    }
    return [load, scale]


def _refuse_set(of_volumes: dict[str, bool]) -> None:
    for name, is_set in of_volumes.items():
        if is_set:
            presets = ", ".join(name for name, row in PRESETS.items() if row.spatial_dims == 3)
            raise ConfigError(f"{name} for volumes only: leave it out or set preset to one of {presets}")


def _intensity(preset: str, window: str, channels: int) -> dict[str, Any]:
    if window == "suv" and channels > 1:
        # In requests, several sequences are plain arrays, without a header to compute SUV from.
        raise ConfigError(f"window suv is for images of one channel, these have {channels}: use percentile or header")
    if window == "suv" and not PRESETS[preset].has_suv:
        able = ", ".join(name for name, row in PRESETS.items() if row.has_suv)
        raise ConfigError(f"window suv is for PET, which preset {preset} is not: use one of {able}")
    if PRESETS[preset].load == "LoadDeepPicture" and window == "header":
        return {"kind": "percentile", "low": 0, "high": 100}  # a picture's header has no window
    if window in _NAMED_INTENSITIES:
        return dict(_NAMED_INTENSITIES[window])
    if window in WINDOWS:
        if not PRESETS[preset].has_hu:
            able = ", ".join(name for name, row in PRESETS.items() if row.has_hu)
            raise ConfigError(f"window {window} is in HU, which preset {preset} does not have: use one of {able}")
        return _window(window)
    if limits := _LIMITS.fullmatch(window):
        center, width = float(limits[1]), float(limits[2])
        try:
            if PRESETS[preset].load == "LoadDeepPicture":  # also for colours, which have no window in DICOM's sense
                return check_intensity({"kind": "range", "low": center - width / 2, "high": center + width / 2})
            return check_intensity({"kind": "window", "center": center, "width": width})
        except ValueError as error:
            raise ConfigError(f"window {window}: {error}") from error
    allowed = ", ".join(("preset", *_NAMED_INTENSITIES, *WINDOWS))
    raise ConfigError(f"window must be one of {allowed}, or CENTER/WIDTH such as 40/400, got {window[:40]!r}")


def _spacing(row: Preset, fit: str, text: str) -> list[float] | None:
    if text in _UNSET:
        return None if fit == "stretch" or row.spacing_mm is None else list(row.spacing_mm)
    if text == "none":
        return None
    if fit == "stretch":
        raise ConfigError("spacing_mm needs fit=pad: stretching brings a volume to the size whatever its spacing")
    return spacing_of_text(text)


def spacing_of_text(text: str) -> list[float]:
    """Three spacings in mm, of one number or three with commas.

    Raises:
        ConfigError: something else.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(
        math.isfinite(mm) and MIN_SPACING_MM <= mm <= MAX_SPACING_MM for mm in numbers
    ):
        raise ConfigError(
            f"spacing_mm must be preset, none, or one or three numbers from {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} "
            f"such as 1.5 or 1,1,3, got {text[:40]!r}"
        )
    return numbers * 3 if len(numbers) == 1 else numbers
