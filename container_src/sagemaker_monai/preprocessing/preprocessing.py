"""Preprocessing as data: a list of `{"_target_": ..., argument: value}`, the form MONAI's own tools read, and its two
halves as code. Random transforms live in `augmentation.py`, what is written for which kind of image in `presets.py`.

*Load* makes an image an array of fixed size and type: slow, the same every epoch, so its result is what the cache
keeps. *Scale* makes it the network's float32 input, on the device. Training, validation, scoring and serving all come
through `Preprocessing`, so one file or body has one tensor.

The callables are not subclasses of `monai.transforms.Transform`: importing it takes 3 s of CPU, which every start of a
server would pay, and MONAI's tools accept any callable. torch is imported where it is used, since the processes that
fill the cache need NumPy and Pillow only.
"""

import copy
import inspect
from typing import TYPE_CHECKING, Any

from sagemaker_monai.errors import BundleError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.preprocessing.deep_pictures import LoadDeepPicture
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume, NormalizeIntensity
from sagemaker_monai.preprocessing.photograph import LoadPhotograph, NormalizePhotograph, photograph_preprocessing

if TYPE_CHECKING:
    import torch

__all__ = [
    "TRANSFORMS",
    "Load",
    "LoadDeepPicture",
    "LoadPhotograph",
    "LoadSlice",
    "LoadVolume",
    "NormalizeIntensity",
    "NormalizePhotograph",
    "Preprocessing",
    "build_load",
    "build_preprocessing",
    "photograph_preprocessing",
]

Load = LoadPhotograph | LoadSlice | LoadVolume
Scale = NormalizePhotograph | NormalizeIntensity

# Exactly these targets may stand in an artifact; artifacts out there name them, so they stay in this module's name.
TRANSFORMS: dict[str, type[Load] | type[Scale]] = {
    "sagemaker_monai.transforms.LoadPhotograph": LoadPhotograph,
    "sagemaker_monai.transforms.NormalizePhotograph": NormalizePhotograph,
    "sagemaker_monai.transforms.LoadDeepPicture": LoadDeepPicture,
    "sagemaker_monai.transforms.LoadSlice": LoadSlice,
    "sagemaker_monai.transforms.LoadVolume": LoadVolume,
    "sagemaker_monai.transforms.NormalizeIntensity": NormalizeIntensity,
}
# One load half and the scale half that goes with it.
PAIRS: dict[type[Load], type[Scale]] = {
    LoadPhotograph: NormalizePhotograph,
    LoadDeepPicture: NormalizeIntensity,
    LoadSlice: NormalizeIntensity,
    LoadVolume: NormalizeIntensity,
}


class Preprocessing:
    """Both halves, built from a spec by `build_preprocessing`.

    Attributes:
        spatial_dims: 2 or 3.
        channels: of the tensors.
        size: (width, height) in pixels, or (width, height, depth) in voxels.
        dtype: of the loaded values, "uint8" (photographs) or "float32".
        value_range: lowest and highest loaded value, None where there is no bound.
    """

    def __init__(self, spec: list[dict[str, Any]], load: Load, scale: Scale) -> None:
        self._spec = spec
        self._load = load
        self._scale = scale
        self.spatial_dims = load.spatial_dims
        self.channels = load.channels
        self.size: tuple[int, ...] = load.size
        self.dtype = load.dtype
        self.value_range = load.value_range

    @property
    def spec(self) -> list[dict[str, Any]]:
        """A copy of the data that this was built from."""
        return copy.deepcopy(self._spec)

    @property
    def load_pixels(self) -> Load:
        """The load half alone, which works without torch: for the processes that fill the cache."""
        return self._load

    def load(self, sample: Sample) -> "torch.Tensor":
        """Make one image a tensor (C, W, H[, D]) of `dtype`.

        Raises:
            UndecodableImage, UnsuitableImage, PayloadTooLarge: as `read`; UnsuitableImage also for a sample with
                several images.
        """
        return self._load(sample)

    def load_each(self, sample: Sample, scope: Scope | None = None) -> list[tuple["torch.Tensor", Traits]]:
        """Make every image of a sample (frame, or series) a tensor, with what is known of it; raises as `load`.

        Args:
            sample: what was sent.
            scope: what the model is for: DICOM objects that it is not for are passed over, or refused where there are
                no others.
        """
        import torch

        return [(torch.from_numpy(values), traits) for values, traits in self._load.pixels_of_each(sample, scope)]

    def scale(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Make loaded values, (N, C, W, H[, D]) of `dtype` or float, the network's float32 input, on the same
        device."""
        return self._scale(batch, self.spatial_dims)


def build_preprocessing(spec: list[dict[str, Any]]) -> Preprocessing:
    """Build the preprocessing that an artifact describes.

    Args:
        spec: as `presets.preprocessing_for` returns it; plain data, possibly from a file that is not trusted.

    Raises:
        BundleError: a target that is not in `TRANSFORMS`, other than a load half and its scale half, or a missing,
            unknown or wrong argument.
    """
    if not isinstance(spec, list) or len(spec) != 2:
        raise BundleError(f"preprocessing must be a list of two steps, of {', '.join(TRANSFORMS)}")
    load = build_load(spec[0])
    scale = _build_step(spec[1])
    if not isinstance(scale, PAIRS[type(load)]):
        raise BundleError(
            f"preprocessing must scale with {PAIRS[type(load)].__name__} what {type(load).__name__} loads, got "
            f"{type(scale).__name__}"
        )
    assert isinstance(scale, Scale)
    if len(scale.mean) != load.channels:
        raise BundleError(f"preprocessing loads {load.channels} channels but scales {len(scale.mean)}")
    return Preprocessing(copy.deepcopy(spec), load, scale)


def build_load(step: Any) -> Load:
    """Build the load half that an artifact describes.

    Raises:
        BundleError: as `build_preprocessing`.
    """
    load = _build_step(step)
    if not isinstance(load, Load):
        raise BundleError("preprocessing must begin with a step that loads an image")
    return load


def _build_step(step: Any) -> Load | Scale:
    target = step.get("_target_") if isinstance(step, dict) else None
    if not isinstance(target, str) or target not in TRANSFORMS:
        raise BundleError(f"preprocessing must be steps of {', '.join(TRANSFORMS)} and no other target")
    arguments = {key: value for key, value in step.items() if key != "_target_"}
    parameters = inspect.signature(TRANSFORMS[target]).parameters
    # What came later has a default, so that artifacts from before are read as what they were.
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    if not needed <= set(arguments) <= set(parameters):
        raise BundleError(f"{target} needs exactly the arguments {', '.join(sorted(parameters))}")
    try:
        return TRANSFORMS[target](**arguments)
    except (ValueError, OverflowError) as error:  # JSON has whole numbers that no float can hold
        raise BundleError(f"{target}: {error}") from error
