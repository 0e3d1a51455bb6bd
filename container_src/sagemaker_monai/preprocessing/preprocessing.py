"""Preprocessing as data: a list of `{"_target_": ..., argument: value}`, the form that MONAI's tools read, and its two
halves as code. Random transforms are in `augmentation.py`, the specs for each kind of image in `presets.py`.

*Load* converts an image to an array of fixed size and type. It is slow and the same in every epoch, so the cache keeps
its result. *Scale* makes it the network's float32 input, on the device. Training, validation, scoring and serving all
use `Preprocessing`, so a file or body always gives the same tensor.

The callables do not inherit from `monai.transforms.Transform`: importing it takes 3 s of CPU at every start of a
server, and MONAI's tools accept any callable. torch is imported on use, because the processes that fill the cache need
only NumPy and Pillow.
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

# The only targets that artifacts may name; existing artifacts use these names, so they must not change.
TRANSFORMS: dict[str, type[Load] | type[Scale]] = {
    "sagemaker_monai.transforms.LoadPhotograph": LoadPhotograph,
    "sagemaker_monai.transforms.NormalizePhotograph": NormalizePhotograph,
    "sagemaker_monai.transforms.LoadDeepPicture": LoadDeepPicture,
    "sagemaker_monai.transforms.LoadSlice": LoadSlice,
    "sagemaker_monai.transforms.LoadVolume": LoadVolume,
    "sagemaker_monai.transforms.NormalizeIntensity": NormalizeIntensity,
}
# Each load half and its scale half.
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
        value_range: lowest and highest loaded value, None without bounds.
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
        """The load half alone, which works without torch, for the processes that fill the cache."""
        return self._load

    def load(self, sample: Sample) -> "torch.Tensor":
        """Load one image as a tensor (C, W, H[, D]) of `dtype`; raises as `LoadImage.pixels`."""
        return self._load(sample)

    def load_each(self, sample: Sample, scope: Scope | None = None) -> list[tuple["torch.Tensor", Traits]]:
        """Load every image of a sample (frame or series) as a tensor with its traits; raises as `load`.

        Args:
            sample: what was sent.
            scope: what the model is for: other DICOM objects are ignored, or refused if there is nothing else.
        """
        import torch

        return [(torch.from_numpy(values), traits) for values, traits in self._load.pixels_of_each(sample, scope)]

    def scale(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Scale loaded values, (N, C, W, H[, D]) of `dtype` or float, to the network's input on the same device."""
        return self._scale(batch, self.spatial_dims)


def build_preprocessing(spec: list[dict[str, Any]]) -> Preprocessing:
    """Build the preprocessing that an artifact describes.

    Args:
        spec: as `presets.preprocessing_for` returns it; plain data, possibly from an untrusted file.

    Raises:
        BundleError: anything but a load half and its scale half of `TRANSFORMS`, or a missing, unknown or invalid
            argument.
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
    """Build the load half that an artifact describes; raises as `build_preprocessing`."""
    load = _build_step(step)
    if not isinstance(load, Load):
        raise BundleError("preprocessing must start with a step that loads an image")
    return load


def _build_step(step: Any) -> Load | Scale:
    target = step.get("_target_") if isinstance(step, dict) else None
    if not isinstance(target, str) or target not in TRANSFORMS:
        raise BundleError(f"preprocessing must be steps of {', '.join(TRANSFORMS)} and no other target")
    arguments = {key: value for key, value in step.items() if key != "_target_"}
    parameters = inspect.signature(TRANSFORMS[target]).parameters
    # Arguments that were added later have defaults, so that artifacts from earlier versions keep their meaning.
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    if not needed <= set(arguments) <= set(parameters):
        raise BundleError(f"{target} needs exactly the arguments {', '.join(sorted(parameters))}")
    try:
        return TRANSFORMS[target](**arguments)
    except (ValueError, OverflowError) as error:  # JSON may have integers that no float can hold
        raise BundleError(f"{target}: {error}") from error
