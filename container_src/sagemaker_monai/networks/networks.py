"""The networks that can be trained and served: one row each, from a name to plain data and from that to a module.

A network_def is what the artifact stores: `_target_` (a class or function of MONAI) and its arguments. It is built
only if a row of `NETWORKS` would have written exactly that. So imports use the row's name and never the artifact's, and
an artifact cannot ask for an unforeseen size or kind of network. MONAI, whose import takes 3 s, is imported when a
network is built and not when the table is read.

Networks for volumes are MONAI's with `spatial_dims` 3. Those with fixed strides cannot take small volumes. The residual
ones can halve it once less before their stages, so that 28 voxels do not end as 1: a row has one set of arguments for
each range of sizes. SE-ResNet and EfficientNet always halve a volume five times.

Vision transformers are left out: MONAI's needs einops as one more dependency, and without pretraining on a much larger
data set they are less accurate on some thousands of photographs (arXiv:2010.11929, section 4.3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.networks.segmenters import segmenter_name, unused_weights

if TYPE_CHECKING:
    from torch import nn

MIN_IMAGE_SIZE = 32  # every 2-D network halves the image five times
MAX_IN_CHANNELS = 16
MAX_CLASSES = 10_000
VALUES_AT_ONCE = 1 << 22  # 64 pictures of 256 x 256, or 4 volumes of 101 x 101 x 101


def images_at_once(size: Sequence[int], most: int) -> int:
    """How many images of a size to send through a network at once in inference, so that large ones fit into memory."""
    return max(1, min(most, VALUES_AT_ONCE // math.prod(size)))


@dataclass(frozen=True)
class NetworkEntry:
    """One row of `NETWORKS`.

    Attributes:
        target: class or function that makes the network.
        head: prefix of the last layer's weights.
        in_channels, num_classes, dropout: the target's names for these arguments; `dropout` is None if it has none.
        fixed: arguments that never change; None if there is no network for images.
        fixed_3d: the same for volumes, by the smallest side that they are for, of a cube with as many voxels.
        smallest_3d: shortest side of a volume that it can take.
        other_names: how published weights name the same tensors: each member is a list of patterns of our names with
            their replacements, and gives one more name to look for if it changes something.
    """

    target: str
    head: str
    in_channels: str = "in_channels"
    num_classes: str = "num_classes"
    dropout: str | None = None
    fixed: Mapping[str, Any] | None = None
    fixed_3d: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    smallest_3d: int = 32  # halved five times, as 2-D
    other_names: tuple[tuple[tuple[str, str], ...], ...] = ()

    def arguments(self, spatial_dims: int) -> list[Mapping[str, Any]]:
        """All sets of fixed arguments for images (2) or volumes (3)."""
        if spatial_dims == 3:
            return list(self.fixed_3d.values())
        return [] if self.fixed is None else [self.fixed]


def _densenet(layers: int) -> NetworkEntry:
    return NetworkEntry(
        target=f"monai.networks.nets.DenseNet{layers}",
        head="class_layers.out.",
        num_classes="out_channels",
        dropout="dropout_prob",
        fixed={"spatial_dims": 2},
        fixed_3d={0: {"spatial_dims": 3}},
        # torchvision has no `layers`; its published files also write `norm.1` for `norm1`.
        other_names=(
            ((r"(denselayer\d+)\.layers\.", r"\1."),),
            ((r"(denselayer\d+)\.layers\.(norm|conv)(\d)\.", r"\1.\2.\3."),),
            ((r"^class_layers\.out\.", "classifier."),),
        ),
    )


def _resnet(layers: int) -> NetworkEntry:
    # MONAI's defaults are made for volumes. These two arguments give the usual 2-D network of arXiv:1512.03385: a
    # quarter of the arithmetic, and torchvision's weights fit.
    common = {"bias_downsample": False, "shortcut_type": "B"}
    return NetworkEntry(
        target=f"monai.networks.nets.resnet{layers}",
        head="fc.",
        in_channels="n_input_channels",
        fixed={"spatial_dims": 2, "conv1_t_stride": 2, "bias_downsample": False},
        fixed_3d={
            # At 28 voxels the stages see 14, 7, 4 and 2. Without pooling, as in MedMNIST's published results, they see
            # 28, 14, 7 and 4, and a step takes 16 s instead of 2.9 s (resnet18, batch 16, one CPU thread).
            0: {"spatial_dims": 3, "conv1_t_size": 3, "conv1_t_stride": 1, "no_max_pool": False, **common},
            48: {"spatial_dims": 3, "conv1_t_size": 7, "conv1_t_stride": 2, "no_max_pool": False, **common},
        },
        smallest_3d=8,
    )


def _efficientnet(name: str) -> NetworkEntry:
    # MONAI's default for `pretrained` would download weights.
    return NetworkEntry(
        target="monai.networks.nets.EfficientNetBN",
        head="_fc.",
        fixed={"spatial_dims": 2, "model_name": name, "pretrained": False},
        fixed_3d={0: {"spatial_dims": 3, "model_name": name, "pretrained": False}},
        other_names=(((r"^_blocks\.\d+\.(\d+)\.", r"_blocks.\1."),),),  # EfficientNet-PyTorch numbers across stages
    )


NETWORKS: dict[str, NetworkEntry] = {
    "densenet121": _densenet(121),
    "densenet169": _densenet(169),
    "densenet201": _densenet(201),
    "resnet10": _resnet(10),
    "resnet18": _resnet(18),
    "resnet50": _resnet(50),
    "segresnet": NetworkEntry(
        target="sagemaker_monai.segresnet.SegResNetClassifier",
        head="head.",
        dropout="dropout_prob",
        fixed_3d={0: {"spatial_dims": 3, "init_filters": 16}},
        smallest_3d=16,  # halved three times, and instance normalization needs more than one voxel
    ),
    "efficientnet-b0": _efficientnet("efficientnet-b0"),
    "efficientnet-b1": _efficientnet("efficientnet-b1"),
    "efficientnet-b2": _efficientnet("efficientnet-b2"),
    "efficientnet-b3": _efficientnet("efficientnet-b3"),
    "efficientnet-b4": _efficientnet("efficientnet-b4"),
    "seresnet50": NetworkEntry(
        target="monai.networks.nets.SEResNet50",
        head="last_linear.",
        dropout="dropout_prob",
        fixed={"spatial_dims": 2},
        fixed_3d={0: {"spatial_dims": 3}},
        other_names=(
            (
                (r"(layer\d\.\d+\.conv\d)\.conv\.", r"\1."),
                (r"(layer\d\.\d+)\.conv(\d)\.adn\.N\.", r"\1.bn\2."),
                (r"\.se_layer\.fc\.0\.", ".se_module.fc1."),
                (r"\.se_layer\.fc\.2\.", ".se_module.fc2."),
                (r"\.project\.conv\.", ".downsample.0."),
                (r"\.project\.adn\.N\.", ".downsample.1."),
            ),
        ),
    ),
}


def network_def(
    name: str,
    *,
    spatial_dims: int = 2,
    in_channels: int,
    num_classes: int,
    image_size: int | Sequence[int],
    dropout: float = 0.0,
) -> dict[str, Any]:
    """Describe a network as plain data, ready for JSON.

    Args:
        name: a key of `NETWORKS`.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: colours or sequences of an image, 1 to 16.
        num_classes: outputs, 1 to 10,000.
        image_size: sides in pixels, or one for all; it only changes the network for small volumes.
        dropout: rate of the network's own dropout, 0 to below 1.

    Raises:
        ConfigError: an unknown name or an argument that the network cannot take.
    """
    if name not in NETWORKS:
        raise ConfigError(f"network must be one of {', '.join(NETWORKS)}, got {name!r}")
    entry = NETWORKS[name]
    if not entry.arguments(spatial_dims):
        able = ", ".join(key for key, value in NETWORKS.items() if value.arguments(spatial_dims))
        what = "volumes" if spatial_dims == 3 else "images"
        raise ConfigError(f"{name} does not take {what}: set network to one of {able}")
    sides = [image_size] * spatial_dims if isinstance(image_size, int) else list(image_size)
    smallest = MIN_IMAGE_SIZE if spatial_dims == 2 else entry.smallest_3d
    if min(sides) < smallest:
        which = "image_size" if spatial_dims == 2 else "image_size and image_depth"
        raise ConfigError(f"{which} must be at least {smallest} for {name}, got {min(sides)}")
    if spatial_dims == 2:
        [fixed] = entry.arguments(2)
    else:
        side = round(math.prod(sides) ** (1 / 3))
        fixed = entry.fixed_3d[max(least for least in entry.fixed_3d if least <= side)]
    return _definition(name, fixed, in_channels, num_classes, dropout)


def _definition(
    name: str, fixed: Mapping[str, Any], in_channels: int, num_classes: int, dropout: float
) -> dict[str, Any]:
    entry = NETWORKS[name]
    if not 1 <= in_channels <= MAX_IN_CHANNELS:
        raise ConfigError(f"a network takes 1 to {MAX_IN_CHANNELS} channels, got {in_channels}")
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(f"a network has 1 to {MAX_CLASSES} outputs, got {num_classes}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}")
    if dropout and entry.dropout is None:
        able = ", ".join(key for key, value in NETWORKS.items() if value.dropout)
        raise ConfigError(f"{name} has no dropout: set dropout to 0 or network to one of {able}")
    definition = {"_target_": entry.target, **fixed, entry.in_channels: in_channels, entry.num_classes: num_classes}
    if entry.dropout is not None:
        definition[entry.dropout] = float(dropout)
    return definition


def network_name(definition: object) -> str:
    """Find the row of `NETWORKS` that wrote a network_def.

    Raises:
        BundleError: none did: an unknown target, or a missing, additional or changed argument.
    """
    if not isinstance(definition, Mapping):
        raise BundleError(f"network_def must be an object with _target_, got {type(definition).__name__}")
    if (segmenter := segmenter_name(definition)) is not None:
        return segmenter
    for name, entry in NETWORKS.items():
        for fixed in (*entry.arguments(2), *entry.arguments(3)):
            try:
                rebuilt = _definition(
                    name,
                    fixed,
                    in_channels=definition[entry.in_channels],
                    num_classes=definition[entry.num_classes],
                    dropout=0.0 if entry.dropout is None else definition[entry.dropout],
                )
            except (KeyError, TypeError, ConfigError):
                continue
            # 1, 1.0 and True are equal in Python but different in JSON.
            sizes_are_integers = type(definition[entry.in_channels]) is type(definition[entry.num_classes]) is int
            types_are_equal = all(type(rebuilt[key]) is type(definition[key]) for key in rebuilt if key in definition)
            if rebuilt == definition and sizes_are_integers and types_are_equal:
                return name
    raise BundleError(
        f"this version does not write such a network_def (target {str(definition.get('_target_'))[:80]!r}): "
        "train again, or serve it with the version that wrote it"
    )


def build_network(definition: Any) -> "nn.Module":
    """Build the module of a network_def, with random weights.

    Returns:
        A module from float32 (N, C, W, H) or (N, C, W, H, D) to logits or numbers (N, K), or to logits of each voxel,
        (N, K, W, H[, D]).

    Raises:
        BundleError: `network_def` would not have written this definition.
    """
    network_name(definition)
    unused = unused_weights(definition)
    module, _, name = str(definition["_target_"]).rpartition(".")
    arguments = {key: value for key, value in definition.items() if key != "_target_"}
    network: nn.Module = getattr(import_module(module), name)(**arguments)
    for weight, parameter in network.named_parameters():
        parameter.requires_grad_(not weight.startswith(unused))
    return network
