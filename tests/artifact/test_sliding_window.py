"""Windows over an image, against MONAI's inferer and against the network over the whole image."""

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from sagemaker_monai.artifact import sliding_window
from sagemaker_monai.artifact.sliding_window import (
    count_windows,
    label_map,
    mirrored,
    mirrorings,
    needed_bytes,
    starts_of,
)

CASES = [
    ((30, 41, 22), (16, 16, 8)), ((10, 41, 22), (16, 16, 8)), ((16, 16, 8), (16, 16, 8)), ((9, 5, 7), (16, 16, 8)),
    ((33, 20), (16, 32)), ((1, 1, 40), (8, 8, 8)),
]  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    convolutions = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
    return {
        dims: torch.nn.Sequential(conv(1, 4, 3, padding=1), torch.nn.ReLU(), conv(4, 3, 3, padding=1)).eval()
        for dims, conv in convolutions.items()
    }


def largest(logits):
    return logits.argmax(0).to(torch.uint8)


@pytest.mark.parametrize(("shape", "window"), CASES)
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_logits_and_labels_are_those_of_monai(shape, window, overlap, networks):
    network = networks[len(shape)]
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    logits = torch.full((3, *shape), torch.nan)

    def keep(place, values):
        assert logits[(slice(None), *place)].isnan().all(), "a block comes twice"
        logits[(slice(None), *place)] = values

    with torch.inference_mode():
        labels = label_map(network, image, window, largest, overlap=overlap, outputs=3, on_block=keep)
        inferer = SlidingWindowInferer(window, 1, overlap, "gaussian", padding_mode="constant", cval=float(image.min()))
        expected = inferer(image[None], network)[0]

    assert torch.allclose(logits, expected, atol=2e-6)
    assert np.array_equal(labels, logits.argmax(0).numpy())


@pytest.mark.parametrize(("extent", "side", "overlap", "starts"), [
    (8, 8, 0.5, [0]), (9, 8, 0.5, [0, 1]), (16, 8, 0.5, [0, 4, 8]), (17, 8, 0.5, [0, 4, 8, 9]), (3, 1, 0.9, [0, 1, 2]),
])  # fmt: skip
def test_windows_begin_evenly_and_end_at_the_edge(extent, side, overlap, starts):
    assert starts_of(extent, side, overlap) == starts
    assert count_windows((extent, 2), (side, 4), overlap) == len(starts)


@pytest.mark.parametrize("slab", [1, 100, 1 << 20])
def test_the_size_of_slabs_and_batches_changes_no_label(slab, networks, monkeypatch):
    image = torch.randn(1, 21, 34, 17, generator=torch.Generator().manual_seed(2))

    def labels():
        with torch.inference_mode():
            return label_map(networks[3], image, (8, 16, 8), largest, overlap=0.5, outputs=3)

    expected = labels()
    monkeypatch.setattr(sliding_window, "SLAB_VOXELS", slab)
    monkeypatch.setattr(sliding_window, "VOXELS_AT_ONCE", 1)

    assert np.array_equal(labels(), expected)


@pytest.mark.parametrize("axes", [(), (2,), (0, 1)])
def test_a_mirrored_network_answers_with_the_mean_over_all_mirror_images(axes, networks):
    image = torch.randn(2, 1, 6, 7, 5, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        found = mirrored(networks[3], axes)(image)
        flips = [[]]
        for axis in axes:
            flips += [[*flip, axis] for flip in flips]
        answers = []
        for flip in flips:
            turned = [axis + 2 for axis in flip]
            answer = networks[3](torch.from_numpy(np.flip(image.numpy(), turned).copy())).numpy()
            answers.append(np.flip(answer, turned))
        plain = networks[3](image)

    assert len(flips) == len(mirrorings(axes)) == 2 ** len(axes)
    assert np.allclose(found, np.mean(answers, axis=0), atol=1e-6)
    assert torch.allclose(found, plain) == (not axes)


@pytest.mark.parametrize("axes", [(), (0, 1, 2)])
def test_the_memory_of_windows_is_what_was_said(axes):
    """By what torch allocates: the most that is alive at once."""
    shape, window, outputs = (90, 40, 30), (32, 32, 16), 3
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))

    def run(windows):
        return windows[:, :1].expand(-1, outputs, *windows.shape[2:]).clone()

    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        label_map(mirrored(run, axes), image, window, largest, overlap=0.5, outputs=outputs)
    alive = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)

    counted = needed_bytes(1, shape, window, outputs, 4, is_mirrored=bool(axes))
    assert 0.4 * counted < most + np.prod(shape) <= counted
