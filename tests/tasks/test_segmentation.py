"""Scores of masks against SimpleITK and shapes whose answers are known; the loss; what is said of a mask."""

import math

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sagemaker_monai.errors import BundleError, DatasetError
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.mask_loss import dice_and_cross_entropy, with_deep_supervision
from sagemaker_monai.tasks.mask_scores import MEASURES, compare_masks
from sagemaker_monai.tasks.segmentation import ROW, Segmentation
from sagemaker_monai.tasks.tasks import read_task

TASK = Segmentation(("liver", "tumour"))


def measures(predicted, true, spacing=(1.0, 1.0, 1.0), tolerance=2.0, **options):
    """Of the only structure, by name."""
    [row] = compare_masks(np.asarray(predicted), np.asarray(true), [1], spacing, tolerance_mm=tolerance, **options)
    return dict(zip(MEASURES, row, strict=True))


def cube(start, side, shape=(20, 20, 20)):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(first, first + side) for first in start)] = 1
    return labels


def test_a_cube_moved_by_two_voxels():
    found = measures(cube((5, 5, 5), 6), cube((7, 5, 5), 6), spacing=(0.5, 1.0, 2.0))

    assert found["dice"] == pytest.approx(2 * 4 * 36 / (2 * 216))
    assert found["iou"] == pytest.approx(4 * 36 / (8 * 36))
    assert found["hd95"] == pytest.approx(1.0)  # two voxels of 0.5 mm
    assert found["true_size"] == found["predicted_size"] == pytest.approx(0.216)
    assert found["surface_dice"] == 1.0
    assert measures(cube((5, 5, 5), 6), cube((7, 5, 5), 6), spacing=(0.5, 1.0, 2.0), tolerance=0.4)["surface_dice"] < 1


def test_a_structure_that_is_missed_counts_as_far_as_the_image_is_long():
    nothing, something = np.zeros((3, 4, 12), np.uint8), np.zeros((3, 4, 12), np.uint8)
    something[1, 1, 1] = 1

    for found in (measures(nothing, something), measures(something, nothing)):
        assert (found["dice"], found["iou"], found["surface_dice"]) == (0, 0, 0)
        assert found["hd95"] == found["assd"] == pytest.approx(13.0)
    empty = measures(nothing, nothing)
    assert (empty["dice"], empty["iou"], empty["surface_dice"], empty["hd95"], empty["assd"]) == (1, 1, 1, 0, 0)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_a_tilted_gantry_changes_volumes_and_distances(seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(rng.uniform(0.5, 3, 3))
    affine[1, 2] = rng.uniform(-2, 2)  # each slice is shifted along the one before
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    predicted, true = (ndimage.binary_dilation(rng.random((7, 6, 5)) < 0.02, iterations=1) for _ in range(2))
    assume(predicted.any() and true.any())

    found = measures(predicted, true, spacing=spacing, affine=affine, tolerance=1.5)
    surfaces = []
    for mask in (predicted, true):
        inner = np.pad(mask, 1)
        inside = np.all([np.roll(inner, step, axis) for axis in range(3) for step in (-1, 1)], axis=0)
        surfaces.append(np.argwhere(mask & ~inside[1:-1, 1:-1, 1:-1]) @ affine[:3, :3].T)
    apart = np.linalg.norm(surfaces[0][:, None] - surfaces[1], axis=2)
    nearest = apart.min(axis=1), apart.min(axis=0)

    assert found["true_size"] == pytest.approx(true.sum() * affine[0, 0] * affine[1, 1] * affine[2, 2] / 1000)
    assert found["hd95"] == pytest.approx(max(np.percentile(each, 95) for each in nearest))
    assert found["assd"] == pytest.approx(np.concatenate(nearest).mean())
    assert found["surface_dice"] == pytest.approx((np.concatenate(nearest) <= 1.5).mean())
    missed = measures(np.zeros_like(true), true, spacing=spacing, affine=affine)["hd95"]
    corners = np.array(list(np.ndindex(2, 2, 2))) * true.shape @ affine[:3, :3].T
    assert missed == pytest.approx(max(np.linalg.norm(one - other) for one in corners for other in corners))


def test_a_turned_grid_has_the_distances_of_its_spacings():
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag([0.5, 1, 2])

    turned = measures(cube((5, 5, 5), 6), cube((7, 6, 5), 6), spacing=(0.5, 1, 2), affine=affine)

    assert turned == pytest.approx(measures(cube((5, 5, 5), 6), cube((7, 6, 5), 6), spacing=(0.5, 1, 2)))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_overlap_and_mean_distance_are_those_of_simpleitk(seed):
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(0.4, 3.0, 3))
    masks = [np.zeros((9, 11, 7), np.uint8) for _ in range(2)]
    for mask in masks:
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(0, 5, 3)
            mask[tuple(slice(a, a + b) for a, b in zip(start, rng.integers(1, 5, 3), strict=True))] = 1
    images = []
    for mask in masks:
        image = SimpleITK.GetImageFromArray(mask.transpose(2, 1, 0))
        image.SetSpacing(spacing)
        images.append(image)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    surfaces = []
    for own, other in ((images[0], images[1]), (images[1], images[0])):
        padded = SimpleITK.ConstantPad(own, (1, 1, 1), (1, 1, 1), 0)  # else the image's edge is no surface
        surface = SimpleITK.Crop(SimpleITK.LabelContour(padded, False), (1, 1, 1), (1, 1, 1))
        other_surface = SimpleITK.Crop(
            SimpleITK.LabelContour(SimpleITK.ConstantPad(other, (1, 1, 1), (1, 1, 1), 0), False), (1, 1, 1), (1, 1, 1)
        )
        distances = SimpleITK.Abs(
            SimpleITK.SignedMaurerDistanceMap(other_surface, squaredDistance=False, useImageSpacing=True)
        )
        on_other = SimpleITK.GetArrayFromImage(other_surface) > 0
        values = np.where(on_other, 0, SimpleITK.GetArrayFromImage(distances))
        surfaces.append(values[SimpleITK.GetArrayFromImage(surface) > 0])

    found = measures(*masks, spacing=spacing)

    assert found["dice"] == pytest.approx(overlap.GetDiceCoefficient())
    assert found["iou"] == pytest.approx(overlap.GetJaccardCoefficient())
    assert found["assd"] == pytest.approx(np.concatenate(surfaces).mean(), abs=1e-4)
    assert found["hd95"] == pytest.approx(max(np.percentile(each, 95) for each in surfaces), abs=1e-4)


def test_voxels_that_nobody_annotated_count_for_neither():
    true, predicted = cube((2, 2, 2), 4), cube((2, 2, 2), 4)
    predicted[15:18, 2:6, 2:6] = 1
    true[15:18] = IGNORED

    found = measures(predicted, true, ignored=IGNORED)

    assert (found["dice"], found["hd95"], found["predicted_lesions"]) == (1, 0, 1)
    assert (found["predicted_size"], found["answered_voxels"]) == (0.064, 64 + 3 * 4 * 4)


def test_sizes_of_an_image_of_unknown_spacing_are_in_voxels():
    assert measures(cube((2, 2, 2), 4), cube((2, 2, 2), 4), spacing=None)["true_size"] == 64


def test_lesions_are_found_right_missed_and_invented():
    true, predicted = np.zeros((30, 10), np.uint8), np.zeros((30, 10), np.uint8)
    true[1:3, 1:3] = true[10:12, 1:3] = true[20:22, 1:3] = 1
    predicted[2:4, 1:3] = predicted[5:7, 6:8] = 1
    true[22, 3] = 1  # touches by a corner: of the third

    found = measures(predicted, true, spacing=(1.0, 1.0))

    assert [found[name] for name in MEASURES[7:11]] == [3, 1, 2, 1]


def test_scores_are_means_over_images_and_of_lesions_over_all_together():
    true = cube((2, 2, 2), 4)
    right = TASK.measure(true, true, (1, 1, 1), loss=0.25)
    wrong = TASK.measure(np.zeros_like(true), true, (1, 1, 1), loss=0.75)
    answers, targets = np.stack([right, wrong]), np.zeros((2, 0))

    scores = TASK.score(answers, targets)
    report = TASK.report(answers, targets, ["a", "b"], seed=0)

    assert scores["loss"] == 0.5
    assert scores["structure_dice"] == {"liver": 0.5, "tumour": 1.0}
    assert scores["dice"] == 0.75
    assert scores["hd95"] == pytest.approx(math.sqrt(1200) / 4)
    assert (scores["lesion_sensitivity"], scores["lesion_precision"]) == (0.5, 1.0)
    assert set(ROW.goals) <= set(scores)
    assert {name: report[name] for name in ROW.goals} == {name: scores[name] for name in ROW.goals}
    liver, tumour = report["per_class"]["liver"], report["per_class"]["tumour"]
    assert [liver[name] for name in ("images", "in_neither", "missed", "only_predicted")] == [2, 0, 1, 0]
    assert [tumour[name] for name in ("images", "in_neither", "missed", "only_predicted")] == [0, 2, 0, 0]
    assert report["intervals_95"]["dice"] == [0.5, 1.0]


def test_nothing_to_score_is_said():
    with pytest.raises(DatasetError, match="no image to score"):
        TASK.score(np.zeros((0, TASK.columns)), np.zeros((0, 0)))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_loss_can_be_learned_from_and_passes_over_what_is_ignored(gamma):
    labels = torch.tensor([[[0, 1, 2, IGNORED], [2, 2, 0, 1]]], dtype=torch.uint8)
    outputs = torch.zeros(1, 3, 2, 4, requires_grad=True)
    first = None
    for _ in range(300):
        loss = dice_and_cross_entropy(outputs, labels, focal_gamma=gamma)
        first = loss.item() if first is None else first
        loss.backward()
        assert not outputs.grad[0, :, 0, 3].any()
        with torch.no_grad():
            outputs -= 2.0 * outputs.grad
            outputs.grad = None

    annotated = labels[0] != IGNORED
    assert loss.item() < 0.3 * first
    assert torch.equal(outputs[0].argmax(0)[annotated], labels[0][annotated].long())


def test_the_loss_of_one_voxel_is_computed_by_hand():
    outputs = torch.log(torch.tensor([0.25, 0.75])).reshape(1, 2, 1, 1)
    labels = torch.ones(1, 1, 1, dtype=torch.uint8)

    assert dice_and_cross_entropy(outputs, labels).item() == pytest.approx(
        -math.log(0.75) + 1 - 2 * 0.75 / 1.75, abs=1e-4
    )
    assert dice_and_cross_entropy(outputs, torch.full_like(labels, IGNORED)).item() == 0


def test_deeper_outputs_count_half_as_much_each():
    supervised = with_deep_supervision(lambda outputs, _labels: outputs.mean())
    outputs = torch.stack([torch.full((2, 3, 4, 4), value) for value in (1.0, 2.0, 4.0)], dim=1)

    assert supervised(outputs, torch.zeros(2, 4, 4)).item() == pytest.approx((1 + 2 / 2 + 4 / 4) / 1.75)
    assert supervised(outputs[:, 0], torch.zeros(2, 4, 4)).item() == 1


def test_the_artifact_s_task_is_read_again():
    assert read_task(TASK.postprocessing(), TASK.labels) == TASK
    assert TASK.answers(torch.tensor([[0.0, 2.0], [1.0, 2.0], [1.0, 0.0]])).tolist() == [1, 0]
    with pytest.raises(BundleError, match="not finite"):
        TASK.answers(torch.full((3, 2), math.nan))


def test_of_equal_logits_the_first_is_the_label():
    logits = torch.randint(-2, 3, (5, 40, 30), generator=torch.Generator().manual_seed(0)).float()

    labels = Segmentation(("a", "b", "c", "d")).answers(logits.clone())

    assert np.array_equal(labels.numpy(), logits.numpy().argmax(axis=0))
    assert labels.dtype == torch.uint8
