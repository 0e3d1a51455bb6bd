"""The patch that segmentation trains on, for images of any shape."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.segmenters import SEGMENTERS
from sagemaker_monai.training import patch_plan
from sagemaker_monai.training.patch_plan import SHORTEST_SIDE, most_voxels, plan_patch, possible_sizes
from sagemaker_monai.training.plan import make_plan
from tests.support.mask_sets import write_balls

SIDES = st.lists(st.integers(1, 700), min_size=3, max_size=3)
SPACINGS = st.lists(st.floats(0.01, 100), min_size=3, max_size=3)
NETWORKS = st.sampled_from(("unet", "dynunet", "segresnet"))


@given(SIDES, SPACINGS, NETWORKS, st.integers(SHORTEST_SIDE**3, 96**3))
def test_every_image_has_a_patch_within_the_memory_that_the_network_can_halve(shape, spacing, network, most):
    patch, levels = plan_patch([shape], spacing, network, width=16, most_voxels=most)
    divisors = SEGMENTERS[network].divisors(levels)

    assert math.prod(patch) <= most
    assert all(side % divisor == 0 for side, divisor in zip(patch, divisors, strict=True))
    assert all(side < extent + divisor for side, extent, divisor in zip(patch, shape, divisors, strict=True))


@given(SIDES, SPACINGS, NETWORKS)
def test_a_patch_that_is_asked_for_is_only_rounded_up(sides, spacing, network):
    patch, levels = plan_patch([[9, 9, 9]], spacing, network, width=16, most_voxels=1, asked=sides)

    divisors = SEGMENTERS[network].divisors(levels)
    assert patch == tuple(np.ceil(np.divide(sides, divisors)).astype(int) * divisors)


@given(st.integers(8, 1024), NETWORKS)
def test_the_nearest_image_sizes_that_a_network_takes_are_named(side, network):
    def fits(other):
        patch, _ = plan_patch([], (1.0, 1.0), network, width=16, most_voxels=1, asked=(other, other))
        return patch == (other, other)

    named = [int(size) for size in possible_sizes(side, network, 16).split(" or ")]

    assert all(8 <= size <= 1024 and fits(size) for size in named)
    assert {other for other in range(min(named), max(named) + 1) if fits(other)} == set(named)


def test_few_thick_slices_are_kept_while_the_plane_can_give_way():
    patch, _ = plan_patch([[512, 512, 20]], (0.1, 0.1, 10.0), "unet", width=16, most_voxels=96**3)

    assert patch[2] >= SHORTEST_SIDE
    assert patch[0] == patch[1] >= 192


def test_the_patch_does_not_depend_on_the_memory_that_is_free_just_now(monkeypatch):
    gib = 1 << 30
    monkeypatch.setattr(patch_plan.torch.cuda, "mem_get_info", lambda _device: next(memory))
    memory = iter([(3 * gib, 16 * gib - 1), (15 * gib, 15 * gib + 5), (1, 8 * gib)])
    cuda = torch.device("cuda")

    assert most_voxels(32, 2, cuda) == most_voxels(32, 2, cuda) == 15 * gib // (2 * 64 * 32 * 2)
    assert most_voxels(32, 2, cuda) == 8 * gib // (2 * 64 * 32 * 2)
    assert most_voxels(16, 2, torch.device("cpu")) == most_voxels(16, 2, torch.device("cpu")) <= 96**3


def test_small_volumes_get_the_network_that_learns_most_and_others_the_one_that_a_cpu_can_serve(tmp_path):
    """Volumes of 18 to 20 x 20 x 16; a patch of 8 cannot be halved twice, as dynunet needs it."""
    root = write_balls(tmp_path, 4, {"training": 3, "validation": 1})
    dataset = read_dataset({"training": root}, validation_fraction=0.2, test_fraction=0.2, seed=0)
    chosen = {}
    for patch in ("auto", "16", "8"):
        plan = make_plan(TrainConfig(patch_size=patch), dataset, torch.device("cpu"))
        chosen[patch] = plan.config.network, plan.network_def["_target_"].rpartition(".")[2]

    assert chosen == {"auto": ("dynunet", "DynUNet"), "16": ("unet", "UNet"), "8": ("unet", "UNet")}
