"""A small artifact with known weights, for tests of whatever reads one."""

from pathlib import Path
from typing import Any

import torch

from sagemaker_monai.bundle import write_bundle
from sagemaker_monai.networks import build_network, network_def
from sagemaker_monai.tasks.classification import Classification
from sagemaker_monai.transforms import photograph_preprocessing

LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
IMAGE_SIZE = 32


def bundle_parts(labels: tuple[str, ...] = LABELS, channels: int = 3, fit: str = "stretch") -> dict[str, Any]:
    """What `write_bundle` wants: a resnet18 with seeded random weights."""
    torch.manual_seed(7)
    definition = network_def("resnet18", in_channels=channels, num_classes=len(labels), image_size=IMAGE_SIZE)
    return {
        "network_def": definition,
        "preprocessing": photograph_preprocessing(channels=channels, image_size=IMAGE_SIZE, fit=fit),
        "task": Classification(labels),
        "weights": build_network(definition).state_dict(),
        "train_config": {"hyperparameters": {"network": "resnet18"}},
        "provenance": {"dataset_fingerprint": "0" * 64},
    }


def write_small_bundle(folder: Path, **parts: Any) -> str:
    """Write the artifact; returns its model_version."""
    return write_bundle(folder, **bundle_parts(**parts))
