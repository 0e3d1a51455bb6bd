"""Labels that tell sides apart, and the augmentation that then leaves the sides where they are."""

import json
import math

import torch

from sagemaker_monai.training.augmentation import AUGMENTATIONS, augment, without_swaps
from sagemaker_monai.training.named_sides import axes_with_sides
from tests.support.mask_sets import write_balls
from tests.training.test_segmentation_training import VOLUMES, run


def test_labels_that_name_a_side_are_found_in_many_spellings():
    found = {
        ("Anterior", "Posterior"): {1},
        ("kidney_left", "kidney_right", "liver"): {0},
        ("left ventricle", "myocardium"): {0},
        ("LeftLung", "RightLung"): {0},
        ("Hippocampus-L", "Hippocampus-R"): {0},
        ("linke Niere", "rechte Niere"): {0},
        ("poumon gauche", "poumon droit"): {0},
        ("Lobe supérieur", "Lobe inférieur"): {2},
        ("lung_upper_lobe_left", "lung_lower_lobe_left"): {0, 2},
        ("OS", "OD"): {0},
        ("pre", "post"): set(),
        ("lower grade glioma", "glioblastoma"): set(),
        ("upright", "leftover"): set(),
        ("A", "L", "P"): set(),
        ("L1", "L2"): set(),
        ("nv", "mel"): set(),
    }

    assert {labels: set(axes_with_sides(labels)) for labels in found} == found


def test_no_preset_carries_one_end_of_such_an_axis_to_the_other():
    volume = torch.zeros(64, 1, 12, 12, 12)
    volume[:, :, :2] = 100.0  # the end of axis 0
    kept = augment(volume, without_swaps(AUGMENTATIONS["volume"], {0}), torch.Generator().manual_seed(0))
    swapped = augment(volume, AUGMENTATIONS["volume"], torch.Generator().manual_seed(0))

    def at_far_end(batch: torch.Tensor) -> int:
        return int((batch[:, 0, -6:].mean(dim=(1, 2, 3)) > batch[:, 0, :6].mean(dim=(1, 2, 3))).sum())

    assert at_far_end(kept) == 0
    assert 16 < at_far_end(swapped) < 48


def test_photographs_keep_their_sides_too():
    picture = torch.zeros(64, 3, 16, 16)
    picture[:, :, :8, :8] = 255.0  # left above
    for axes, are_kept in (({0}, (True, False)), ({2}, (False, True)), ({1}, (True, True))):
        steps = without_swaps(AUGMENTATIONS["photo"], axes)
        changed = augment(picture, steps, torch.Generator().manual_seed(0))
        left = changed[:, 0, :8].mean(dim=(1, 2)) > changed[:, 0, 8:].mean(dim=(1, 2))
        above = changed[:, 0, :, :8].mean(dim=(1, 2)) > changed[:, 0, :, 8:].mean(dim=(1, 2))

        assert (bool(left.all()), bool(above.all())) == are_kept, axes
        assert max(step.get("max_angle_rad", 0) for step in steps) < math.radians(15)


def test_without_sides_every_preset_stays_as_it_is():
    assert all(without_swaps(steps, ()) == steps for steps in AUGMENTATIONS.values())


def test_the_artifact_says_that_a_training_did_not_mirror_across_sides(tmp_path):
    channel = tmp_path / "input" / "data" / "training"
    write_balls(channel, 4, {"training": 2, "validation": 1, "test": 1})
    content = json.loads((channel / "dataset.json").read_text())
    names = [name for name in content["labels"].values() if name != "background"]
    text = (channel / "dataset.json").read_text()
    for name, new in zip(names, ("kidney_left", "kidney_right"), strict=True):
        text = text.replace(f'"{name}"', f'"{new}"')
    (channel / "dataset.json").write_text(text)

    code, _ = run(tmp_path, **{**VOLUMES, "epochs": 1})

    assert code == 0
    steps = json.loads((tmp_path / "model" / "configs" / "train.json").read_text())["augmentation"]
    assert next(step for step in steps if step["step"] == "mirror")["axes"] == [1, 2]
