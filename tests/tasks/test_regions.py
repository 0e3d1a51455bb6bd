"""Structures that overlap: their loss, how they are painted into one map, and what is said and measured of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.artifact.mask_predictor import describe
from sagemaker_monai.errors import BundleError
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.mask_loss import dice_and_binary_cross_entropy, summed_cross_entropy
from sagemaker_monai.tasks.mask_scores import MEASURES
from sagemaker_monai.tasks.regions import Regions
from sagemaker_monai.tasks.segmentation import Segmentation
from sagemaker_monai.tasks.tasks import read_task

# The brain tumours of BraTS: oedema 1, necrosis 2, enhancing tumour 4 in the files.
BRAIN = Regions(((1, 2, 3), (2, 3), (3,)), (1, 2, 3), (1, 2, 4))
LABELS = ("whole tumour", "tumour core", "enhancing tumour")
TASK = Segmentation(LABELS, BRAIN)
OUTPUTS = torch.tensor(
    [[-1.0, 1.0, 1.0, 1.0, -1.0, 0.0], [-1.0, -1.0, 2.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 0.0, 1.0, -1.0, -1.0]]
)


def test_each_structure_is_painted_over_those_before_it_where_it_is_likelier_than_not():
    assert TASK.outputs == 3
    assert TASK.answers(OUTPUTS).tolist() == [0, 1, 2, 3, 2, 0]
    assert TASK.answers(OUTPUTS.reshape(3, 2, 3)).tolist() == [[0, 1, 2], [3, 2, 0]]
    with pytest.raises(BundleError, match="not finite"):
        TASK.answers(torch.full((3, 2), math.nan))


def test_the_artifact_s_task_is_read_again():
    [step] = TASK.postprocessing()

    assert step == {
        "_target_": "sagemaker_monai.tasks.RegionMap",
        "regions": [[1, 2, 3], [2, 3], [3]],
        "painted": [1, 2, 3],
        "values": [1, 2, 4],
    }
    assert read_task([step], LABELS) == TASK


@pytest.mark.parametrize("change", [
    {"regions": [[1, 2, 3], [2, 3]]}, {"regions": [[1, 2, 3], [2, 3], [2, 3]]}, {"regions": [[1, 2, 4], [2], [3]]},
    {"regions": [[1, 3, 2], [2, 3], [3]]},
    {"regions": [[1, 2, 3], [2, 3], []]}, {"regions": [[1, 2, 3], [2, 3], [3.0]]},
    {"regions": [[1, 2, 3], [2, 3], [True]]}, {"regions": [[1, 2], [2, 3], [3]]}, {"regions": [[0, 1], [2, 3], [3]]},
    {"regions": None}, {"regions": [[3], [2, 3], [1, 2, 3]], "painted": [3, 2, 1]}, {"painted": [1, 3, 3]},
    {"painted": [1, 2]}, {"painted": [2, 2, 3]}, {"painted": [1, 1, 3]}, {"values": [1, 2]}, {"values": [1, 2, 2]},
    {"values": [1, 2, 70_000]}, {"values": [0, 1, 2]}, {"values": "abc"}, {"extra": 1},
])  # fmt: skip
def test_regions_that_training_would_not_write_are_refused(change):
    with pytest.raises(BundleError, match="does not write"):
        read_task([TASK.postprocessing()[0] | change], LABELS)


def independent_loss(logits, parts, members, gamma, smoothing):
    """Voxel by voxel in float64: the mean binary cross-entropy, and soft Dice over the batch."""
    crossed, dice = [], []
    for channel, numbers in enumerate(members):
        common = total = 0.0
        for values, labels in zip(
            logits[:, channel].reshape(len(parts), -1), parts.reshape(len(parts), -1), strict=True
        ):
            for value, label in zip(values.tolist(), labels.tolist(), strict=True):
                if label == IGNORED:
                    continue
                probability, truth = 1 / (1 + math.exp(-value)), float(label in numbers)
                smooth = truth * (1 - smoothing) + smoothing / 2
                entropy = -smooth * math.log(probability) - (1 - smooth) * math.log(1 - probability)
                right = probability if truth else 1 - probability
                crossed.append(entropy * (1 - right) ** gamma)
                common, total = common + probability * truth, total + probability + truth
        dice.append((2 * common + 1e-5) / (total + 1e-5))
    return float(np.mean(crossed) + 1 - np.mean(dice))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 2.0]), st.sampled_from([0.0, 0.1]))
def test_the_loss_is_cross_entropy_and_dice_of_each_structure(seed, gamma, smoothing):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (2, 3, 3, 4)), dtype=torch.float32)
    parts = rng.choice([0, 1, 2, 3, IGNORED], (2, 3, 4)).astype(np.uint8)
    parts[0, 0, 0] = 1

    found = dice_and_binary_cross_entropy(
        logits, torch.from_numpy(parts), members=BRAIN.members, focal_gamma=gamma, label_smoothing=smoothing
    )

    assert float(found) == pytest.approx(independent_loss(logits, parts, BRAIN.members, gamma, smoothing), rel=1e-4)


def test_what_is_ignored_has_no_gradient_and_nothing_annotated_no_loss():
    logits = torch.zeros(1, 3, 1, 2, requires_grad=True)
    parts = torch.tensor([[[IGNORED, 2]]], dtype=torch.uint8)

    dice_and_binary_cross_entropy(logits, parts, members=BRAIN.members).backward()

    assert not logits.grad[..., 0].any()
    assert (logits.grad[0, :2, 0, 1] < 0).all()
    assert logits.grad[0, 2, 0, 1] > 0
    nothing = dice_and_binary_cross_entropy(logits, torch.full_like(parts, IGNORED), members=BRAIN.members)
    assert nothing.item() == 0


def test_the_loss_of_an_image_is_the_cross_entropy_without_dice():
    parts = np.array([1, 2, IGNORED, 0, 3], np.uint8)
    logits = torch.linspace(-2, 2, 15).reshape(3, 5)
    told = [np.isin(parts, numbers).astype(float) for numbers in BRAIN.members]
    likely = 1 / (1 + np.exp(-logits.double().numpy()))
    each = -(np.array(told) * np.log(likely) + (1 - np.array(told)) * np.log(1 - likely)).mean(axis=0)

    assert TASK.summed_loss(logits, torch.from_numpy(parts)) == pytest.approx(each[parts != IGNORED].sum(), rel=1e-5)
    plain = torch.tensor([[0.0, 1.0], [1.0, 3.0]])
    assert summed_cross_entropy(plain, torch.tensor([1, IGNORED])) == pytest.approx(
        math.log(1 + math.exp(-1)), rel=1e-5
    )


def test_scores_and_sizes_are_of_the_whole_of_each_structure():
    predicted = np.zeros((6, 5, 1), np.uint8)
    predicted[0, :5, 0] = (1, 1, 2, 3, 3)
    predicted[5, 4, 0] = 2
    true = np.where(predicted == 3, 2, predicted)

    rows = TASK.measure(predicted, true, (1, 1, 1), loss=0.5)[1:].reshape(3, len(MEASURES))
    traits = Traits(size=(6, 5, 1), spacing_mm=(1, 1, 2), affine=np.diag([1, 1, 2, 1]))
    prediction = describe(predicted, LABELS, traits, BRAIN)

    assert rows[:, MEASURES.index("dice")].tolist() == [1, 1, 0]  # necrosis and enhancing tumour are both core
    assert [each.voxels for each in prediction.structures.values()] == [6, 4, 2]
    assert [each.components for each in prediction.structures.values()] == [2, 2, 1]
    assert [each.size for each in prediction.structures.values()] == pytest.approx([0.012, 0.008, 0.004])
    assert prediction.structures["enhancing tumour"].centroid == pytest.approx((0, 3.5, 0))
    assert prediction.structures["whole tumour"].extent == (6, 5, 2)
    assert prediction.values()[0, :, 0].tolist() == [1, 1, 2, 4, 4]
    assert prediction.inside(1)[0, :, 0].tolist() == [False, False, True, True, True]
    assert (
        describe(np.zeros((2, 2), np.uint8), LABELS, Traits(size=(2, 2)), BRAIN).structures["tumour core"].voxels == 0
    )


def test_values_of_files_may_be_large():
    aparc = Regions(((1, 2), (2,)), (1, 2), (1_035, 17))
    prediction = describe(np.array([[0, 1, 2]], np.uint8), ("a", "b"), Traits(size=(1, 3)), aparc)

    assert prediction.values().tolist() == [[0, 1_035, 17]]
    assert prediction.values().dtype == np.uint16


def test_probabilities_are_of_each_structure_by_itself_only_where_structures_overlap():
    outputs = torch.tensor([[0.0, 3.0], [2.0, -1.0], [0.0, 0.5]])  # three channels, two voxels
    regions = Regions(((1, 2, 3), (2, 3), (3,)), (1, 2, 3), (1, 2, 3))

    apart = Segmentation(("a", "b")).probabilities(outputs).numpy()
    overlapping = Segmentation(("a", "b", "c"), regions).probabilities(outputs).numpy()

    shares = np.exp(outputs.numpy()) / np.exp(outputs.numpy()).sum(axis=0)
    assert np.allclose(apart, shares[1:])
    assert np.allclose(overlapping, 1 / (1 + np.exp(-outputs.numpy())))
