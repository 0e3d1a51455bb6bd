"""Networks that segment: planned levels, every row forward and backward, and what an artifact may ask for."""

import json

import pytest
import torch

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.networks.networks import build_network, network_name
from sagemaker_monai.networks.segmenters import SEGMENTERS, plan_levels, segmenter_def


def test_levels_halve_an_even_patch_together_until_four_voxels_are_left():
    levels = plan_levels((32, 64, 32), (1.0, 1.0, 1.0), 16)

    assert levels.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 1))
    assert levels.filters == (16, 32, 64, 128, 256)
    assert levels.divisors == (8, 16, 8)


def test_coarse_slices_are_neither_halved_nor_convolved_across_at_first():
    levels = plan_levels((64, 64, 8), (1.0, 1.0, 4.0), 8)

    assert levels.strides[:3] == ((1, 1, 1), (2, 2, 1), (2, 2, 1))
    assert levels.kernels[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_network_labels_every_voxel_and_learns_and_is_read_from_an_artifact(name, dims):
    if dims not in SEGMENTERS[name].dims:
        pytest.skip("for pictures only")
    levels = plan_levels((16,) * dims, (1.0,) * dims, 4)
    divisor = SEGMENTERS[name].divisors(levels)[0]
    definition = json.loads(json.dumps(segmenter_def(name, levels, in_channels=2, out_channels=3)))

    network = build_network(definition)
    side = max(16, 2 * divisor)
    outputs = network.train()(torch.randn(2, 2, *[side] * dims))
    outputs.sum().backward()

    assert network_name(definition) == name
    assert outputs.shape[-dims:] == (side,) * dims
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 2, *[side] * dims)).shape == (1, 3, *[side] * dims)
    assert any(weight.startswith(SEGMENTERS[name].head) for weight in network.state_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"out_channels": 1}, {"in_channels": True}, {"in_channels": 17}, {"spatial_dims": 4}, {"norm": "BATCH"},
        {"channels": [10**6, 2 * 10**6, 4 * 10**6]}, {"strides": [[2, 2, 3], [2, 2, 2]]}, {"strides": "x"},
        {"strides": []}, {"num_res_units": 9}, {"act": "RELU"}, {"channels": [4, 8]}, {"channels": []},
    ],
)  # fmt: skip
def test_an_artifact_cannot_ask_for_what_no_row_writes(changes):
    definition = segmenter_def("unet", plan_levels((16, 16, 16), (1, 1, 1), 4), in_channels=1, out_channels=2)

    with pytest.raises(BundleError, match="network_def is not one"):
        build_network(definition | changes)


@pytest.mark.parametrize(("name", "patch", "message"), [
    ("resnet18", (16, 16), "network must be one of dynunet, unet"),
    ("flexible-unet", (16, 16, 16), "does not segment 3-D images"),
    ("dynunet", (8, 8, 8), "patch that can be halved twice"),
])  # fmt: skip
def test_what_a_network_cannot_take_is_said(name, patch, message):
    with pytest.raises(ConfigError, match=message):
        segmenter_def(name, plan_levels(patch, (1.0,) * len(patch), 4), in_channels=1, out_channels=2)
