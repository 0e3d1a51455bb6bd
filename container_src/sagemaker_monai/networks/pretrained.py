"""Pretrained weights: a state dict from elsewhere, matched by name and shape, and loaded as data only.

Files use other names for the same layers. A network's row maps our names to those of torchvision, EfficientNet-PyTorch
and the pretrained models collected by R. Cadène, which MONAI's own download uses; prefixes of wrapped networks are
removed. What was loaded and what was not is reported, because silently missing weights look like a bad learning rate.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.networks.networks import NetworkEntry
from sagemaker_monai.networks.segmenters import Segmenter
from sagemaker_monai.storage.files import children

SUFFIXES = (".pt", ".pth")
NESTED_UNDER = ("state_dict", "model_state_dict", "model", "network", "net")
WRAPPERS = ("module.", "model.", "network.", "net.", "backbone.", "encoder.", "_orig_mod.")
SMALLEST_MATCH = 0.5  # share of the backbone's tensors; below it, the weights are of another network
SHOWN_NAMES = 3


@dataclass(frozen=True)
class PretrainedReport:
    """Names of tensors: the network's that were `matched`, `missing` in the file or `mismatched` in shape, and the
    file's `unexpected` ones."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unexpected: tuple[str, ...]

    def summary(self) -> str:
        """One line with the four counts and some names."""
        parts = [f"{len(self.matched)} tensors loaded"]
        for name in ("missing", "mismatched", "unexpected"):
            names = getattr(self, name)
            if names:
                more = ", ..." if len(names) > SHOWN_NAMES else ""
                parts.append(f"{len(names)} {name} ({', '.join(names[:SHOWN_NAMES])}{more})")
        return "; ".join(parts)


def find_weights(folder: Path) -> Path:
    """Find the weights file of a channel.

    Raises:
        ConfigError: there is none, or more than one.
    """
    files = [path for path in children(folder) if path.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    if len(files) != 1:
        raise ConfigError(
            f"the channel pretrained must hold one file ending in {' or '.join(SUFFIXES)}, it has {len(files)}"
        )
    return files[0]


def load_pretrained(network: nn.Module, file: Path, row: NetworkEntry | Segmenter) -> PretrainedReport:
    """Copy weights from a file into a network.

    Args:
        network: changed in place if the file fits.
        file: a state dict, or a dictionary that contains one, as torch.save writes it; only tensors are read.
        row: of the network; its `head` keeps its own weights if the shape differs.

    Raises:
        ConfigError: the file cannot be read as data, holds values that are not finite, or matches less than half of
            the network below the head.
    """
    own = network.state_dict()
    weights = {_unwrapped(name, own): value for name, value in _read(file).items()}
    found: dict[str, torch.Tensor] = {}
    missing, mismatched, used = [], [], set()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        theirs = next((other for other in _names_elsewhere(name, row) if other in weights), None)
        if theirs is None:
            missing.append(name)
            continue
        used.add(theirs)
        value = weights[theirs]
        if value.shape != tensor.shape and value.numel() == tensor.numel():
            value = value.reshape(tensor.shape) if value.squeeze().shape == tensor.squeeze().shape else value
        if value.shape != tensor.shape:
            mismatched.append(name)
        elif not torch.isfinite(value).all():
            raise ConfigError(f"the pretrained weights hold values that are not finite in {name}: use another file")
        else:
            found[name] = value
    report = PretrainedReport(
        matched=tuple(found),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        unexpected=tuple(sorted(name for name in weights.keys() - used if not name.endswith("num_batches_tracked"))),
    )
    backbone = [name for name in own if not name.startswith(row.head) and not name.endswith("num_batches_tracked")]
    fitting = sum(not name.startswith(row.head) for name in found)
    if fitting < SMALLEST_MATCH * len(backbone):
        raise ConfigError(
            f"the pretrained weights are of another network: {fitting} of {len(backbone)} tensors below the last layer "
            f"match ({report.summary()}); set network to theirs or leave the channel out"
        )
    network.load_state_dict({**own, **found})
    return report


def _read(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file."""
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken or unsafe file; its text may quote the file
        raise ConfigError(
            f"the pretrained file {file.name} cannot be loaded as plain tensors ({type(error).__name__}): "
            "save it with torch.save(network.state_dict(), ...)"
        ) from error
    while isinstance(content, Mapping) and (
        inside := next((content[key] for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), None)
    ):
        content = inside
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise ConfigError(f"the pretrained file {file.name} holds no state dict: save network.state_dict()")
    return tensors


def _unwrapped(name: str, own: Mapping[str, torch.Tensor]) -> str:
    """Strip wrappers' prefixes from a name until it is one of the network's own, some of which start alike."""
    while name not in own and (wrapper := next((each for each in WRAPPERS if name.startswith(each)), None)):
        name = name.removeprefix(wrapper)
    return name


def _names_elsewhere(name: str, row: NetworkEntry | Segmenter) -> Iterator[str]:
    yield name
    for rules in row.other_names:
        other = name
        for pattern, replacement in rules:
            other = re.sub(pattern, replacement, other)
        if other != name:
            yield other
