import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from sagemaker_monai.training.affine import warp
from sagemaker_monai.training.augmentation import AUGMENTATIONS, STEPS, augment, flip
from sagemaker_monai.training.grey_augmentation import affine_matrices
from tests.support.refusals import not_refused


def photographs(count=4, channels=3, width=20, height=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, width, height), generator=generator).to(torch.uint8)


def smooth(width, height):
    """A picture that interpolation hardly changes."""
    w, h = torch.meshgrid(torch.linspace(0, 3, width), torch.linspace(0, 3, height), indexing="ij")
    return (torch.stack([torch.sin(w) * torch.cos(h), torch.cos(w + h), w * h / 9]) * 100 + 110)[None]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def matrix(angle_rad=0.0, zoom=1.0, shift=(0.0, 0.0)):
    cos, sin = math.cos(angle_rad) / zoom, math.sin(angle_rad) / zoom
    return torch.tensor([[[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]]])


@pytest.mark.parametrize("name", ["none", "light", "photo"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_preset_for_photographs_gives_floats_in_range(name, channels):
    result = augment(photographs(channels=channels), AUGMENTATIONS[name], seeded())

    assert result.dtype == torch.float32
    assert result.shape == (4, channels, 20, 14)
    assert result.min() >= 0
    assert result.max() <= 255


def test_no_steps_change_nothing():
    assert torch.equal(augment(photographs(), AUGMENTATIONS["none"], seeded()), photographs().float())


@pytest.mark.parametrize("name", ["light", "photo"])
def test_the_seed_decides_and_every_image_differs(name):
    same = photographs(1).repeat(8, 1, 1, 1)

    first = augment(same, AUGMENTATIONS[name], seeded(1))

    assert torch.equal(first, augment(same, AUGMENTATIONS[name], seeded(1)))
    assert not torch.equal(first, augment(same, AUGMENTATIONS[name], seeded(2)))
    assert len({image.numpy().tobytes() for image in first}) == 8


def test_the_input_is_left_alone():
    batch = photographs()
    augment(batch, AUGMENTATIONS["photo"], seeded())
    assert torch.equal(batch, photographs())


def test_unknown_steps_and_other_orders_are_refused():
    cases = [
        [{"step": "blur"}],
        [{"step": "zoom", "smallest": 1, "largest": 1}, {"step": "flip", "probability": 1}],
        [{"step": "flip", "probability": 1}, {"step": "flip", "probability": 1}],
    ]
    assert not_refused(cases, lambda steps: augment(photographs(), steps, seeded()), ValueError, ", ".join(STEPS)) == []

    mixed = [AUGMENTATIONS["volume"][::-1], [*AUGMENTATIONS["volume"], {"step": "flip", "probability": 1}]]
    assert not_refused(mixed, lambda steps: augment(volumes(), steps, seeded()), ValueError, "steps must be") == []
    with pytest.raises(ValueError, match="for photographs"):
        augment(volumes(), AUGMENTATIONS["photo"], seeded())


def test_a_flip_alone_is_exact():
    batch = photographs()

    result = augment(batch, [{"step": "flip", "probability": 1.0}], seeded())

    assert np.array_equal(result.numpy(), batch.numpy()[:, :, ::-1, ::-1])


def test_each_image_is_flipped_as_its_own_flags_say():
    batch = photographs()

    result = flip(batch, torch.tensor([[False, False], [True, False], [False, True], [True, True]])).numpy()

    for index, axes in enumerate([(), (1,), (2,), (1, 2)]):
        assert np.array_equal(result[index], np.flip(batch[index].numpy(), axes))


def test_flips_are_as_frequent_as_asked():
    batch = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2).repeat(2000, 1, 1, 1)

    corner = augment(batch, [{"step": "flip", "probability": 0.25}], seeded())[:, 0, 0, 0]

    shares = [(corner == value).float().mean().item() for value in range(4)]
    assert shares == pytest.approx([0.5625, 0.1875, 0.1875, 0.0625], abs=0.03)


def test_the_identity_changes_nothing():
    values = photographs().float()
    assert (warp(values, matrix().repeat(4, 1, 1)) - values).abs().max() < 0.01


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_quarter_turns_of_a_square_are_exact(quarter_turns):
    values = photographs(1, width=16, height=16).float()

    turned = warp(values, matrix(quarter_turns * math.pi / 2))

    assert (turned - torch.rot90(values, quarter_turns, (3, 2))).abs().max() < 0.01


def test_a_shift_by_whole_pixels_is_exact_and_mirrors_at_the_border():
    values = photographs(1).float()

    moved = warp(values, matrix(shift=(3.0, -2.0)))

    assert (moved[:, :, :-3, 2:] - values[:, :, 3:, :-2]).abs().max() < 0.01
    assert (moved[:, :, -3:, 2:] - values[:, :, -3:, :-2].flip(2)).abs().max() < 0.01


def test_zooming_in_and_out_again_gives_the_picture_back():
    values = smooth(40, 30)

    there = warp(values, matrix(zoom=0.5))
    back = warp(there, matrix(zoom=2.0))

    assert (back - values)[:, :, 4:-4, 4:-4].abs().max() < 2


def test_a_turn_is_no_shear_when_width_and_height_differ():
    """A disc stays a disc: its extent along both axes, in pixels, is what it was."""
    w, h = torch.meshgrid(torch.arange(60.0) - 29.5, torch.arange(40.0) - 19.5, indexing="ij")
    disc = torch.sigmoid((12 - torch.hypot(w, h)) / 1.5)[None, None] * 255  # a soft edge, so that pixels do not matter

    turned = warp(disc, matrix(0.7))

    nearby = ((w**2 + h**2) < 18**2)[None, None]  # further out, the mirrored border brings in other parts of the disc
    assert ((turned - disc) * nearby).abs().max() < 12
    assert (warp(disc, matrix(0.7) * torch.tensor([[1.2], [1.0], [1.0]])) - disc).mul(nearby).abs().max() > 40


def test_a_picture_is_rotated_before_it_is_shifted():
    """A rotation leaves the centre where it is, so a spot there moves by the shift alone."""
    spot = torch.zeros(1, 1, 33, 33)
    spot[0, 0, 16, 16] = 200
    steps = [{"step": "rotate", "max_angle_rad": math.pi}, {"step": "shift", "max_fraction": 0.2}]

    moved = augment(spot, steps, seeded())[0, 0]

    shift = (torch.rand((1, 10), generator=seeded())[0, 4:6] * 2 - 1) * 0.2 * 33
    mass = moved / moved.sum()
    where = [(mass.sum(dim=1 - axis) * (torch.arange(33) - 16)).sum() for axis in range(2)]
    assert torch.stack(where) == pytest.approx(-shift, abs=0.3)
    assert shift.abs().max() > 2


@pytest.mark.parametrize("size", [(24, 24), (20, 33), (24, 20, 16), (9, 17, 5)])
def test_warping_agrees_with_monais_affine(size):
    transforms = pytest.importorskip("monai.transforms")
    generator, dims = seeded(5), len(size)
    border, padding = ((), "reflection") if dims == 2 else (("border",), "border")
    values = torch.rand((4, 3, *size), generator=generator) * 255
    matrices = torch.eye(dims + 1).repeat(4, 1, 1)
    matrices[:, :dims, :dims] += torch.randn((4, dims, dims), generator=generator) * 0.2
    matrices[:, :dims, dims] = torch.randn((4, dims), generator=generator) * 4

    ours = warp(values, matrices, *border)

    for image, affine, expected in zip(values, matrices, ours, strict=True):
        monai = transforms.Affine(affine=affine.numpy(), mode="bilinear", padding_mode=padding, image_only=True)
        assert (torch.as_tensor(monai(image)) - expected).abs().max() < 0.005  # of 255


@pytest.mark.parametrize(
    ("step", "measure", "low", "high"),
    [
        ({"step": "rotate", "max_angle_rad": 0.5}, "angle", -0.5, 0.5),
        ({"step": "zoom", "smallest": 0.8, "largest": 1.9}, "zoom", 0.8, 1.9),
        ({"step": "shift", "max_fraction": 0.25}, "shift", -10.0, 10.0),
    ],
)
def test_geometry_fills_its_range_and_stays_inside(step, measure, low, high):
    """Two bright dots are followed; 40 x 40 pixels, dots 6 pixels to each side of the centre along W."""
    w, h = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    dots = torch.stack([torch.exp(-((w - 6) ** 2 + h**2) / 4), torch.exp(-((w + 6) ** 2 + h**2) / 4), w * 0])
    batch = (dots * 255).to(torch.uint8)[None].repeat(300, 1, 1, 1)

    moved = augment(batch, [step], seeded()).double()

    mass = moved[:, :2].sum(dim=(2, 3)).clamp_min(1e-9)
    centre_w = (moved[:, :2] * w).sum(dim=(2, 3)) / mass
    centre_h = (moved[:, :2] * h).sum(dim=(2, 3)) / mass
    across, along = centre_w[:, 0] - centre_w[:, 1], centre_h[:, 0] - centre_h[:, 1]
    found = {
        "angle": torch.atan2(along, across),
        "zoom": torch.hypot(across, along) / 12,
        "shift": centre_w.mean(dim=1),
    }[measure]
    tolerance = 0.03 * (high - low)
    assert low - tolerance <= found.min() <= low + 2 * tolerance
    assert high - 2 * tolerance <= found.max() <= high + tolerance


def colour(**changes):
    return [{"step": "colour", "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue_rad": 0.0, **changes}]


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_does_what_pillow_does_by_the_same_factor(name):
    # Away from 0 and 255, so that nothing is cut off; the factor is found from one pixel, then checked on all.
    batch = (photographs(3).float() * 0.4 + 70).to(torch.uint8)
    enhancer = getattr(ImageEnhance, "Color" if name == "saturation" else name.capitalize())

    result = augment(batch, colour(**{name: 0.3}), seeded())

    for before, after in zip(batch, result, strict=True):
        image = Image.fromarray(before.permute(2, 1, 0).numpy())
        errors = [
            (torch.from_numpy(np.array(enhancer(image).enhance(factor))).permute(2, 1, 0) - after).abs().max()
            for factor in np.arange(0.7, 1.3, 0.005)
        ]
        assert min(errors) < 2.5
    assert (result - batch).abs().max() > 10


def test_hue_turns_colours_and_leaves_grey_alone():
    grey = torch.full((5, 3, 8, 8), 120, dtype=torch.uint8)
    red = grey.clone()
    red[:, 0] = 180

    assert torch.allclose(augment(grey, colour(hue_rad=0.5), seeded()), grey.float(), atol=0.01)
    turned = augment(red, colour(hue_rad=0.5), seeded())
    assert torch.allclose(turned.sum(dim=1), red.float().sum(dim=1), atol=0.1)  # about the grey axis
    assert ((turned - red).abs().amax(dim=(1, 2, 3)) > 0.1).all()


def test_grey_pictures_get_brightness_and_contrast_only():
    batch = photographs(channels=1)

    assert torch.equal(augment(batch, colour(saturation=0.5, hue_rad=0.5), seeded()), batch.float())
    assert not torch.equal(augment(batch, colour(brightness=0.5), seeded()), batch.float())


def test_leaving_a_step_out_leaves_the_others_as_they_were():
    whole = AUGMENTATIONS["photo"]
    batch = photographs()

    without_flip = augment(flip(batch, torch.rand((4, 10), generator=seeded(3))[:, :2] < 0.5), whole[1:], seeded(3))

    assert torch.equal(augment(batch, whole, seeded(3)), without_flip)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives():
    ours = augment(photographs(), AUGMENTATIONS["photo"], seeded())

    assert (augment(photographs().cuda(), AUGMENTATIONS["photo"], seeded()).cpu() - ours).abs().max() < 0.1


def volumes(count=3, channels=1, size=(12, 10, 8), seed=0):
    return torch.randn((count, channels, *size), generator=seeded(seed)) * 200 - 400


@pytest.mark.parametrize("name", ["grey", "volume", "strong"])
@pytest.mark.parametrize("size", [(12, 10), (12, 10, 8)])
@pytest.mark.parametrize("channels", [1, 4])
def test_grey_presets_change_every_image_by_the_seed_alone_and_leave_the_input_alone(name, size, channels):
    batch = volumes(1, channels, size).repeat(5, *[1] * (len(size) + 1))

    first = augment(batch, AUGMENTATIONS[name], seeded(1))

    assert (first.dtype, first.shape) == (torch.float32, batch.shape)
    assert first.isfinite().all()
    assert torch.equal(first, augment(batch, AUGMENTATIONS[name], seeded(1)))
    assert len({image.numpy().tobytes() for image in first}) == 5
    assert torch.equal(batch[0], volumes(1, channels, size)[0])


@pytest.mark.parametrize("name", ["grey", "volume", "strong"])
def test_a_part_of_a_batch_changes_as_it_does_in_the_whole(name):
    whole = augment(volumes(5), AUGMENTATIONS[name], seeded(7))
    part = augment(volumes(5)[2:], AUGMENTATIONS[name], seeded(7), skipped=2)

    assert (part - whole[2:]).abs().max() < 1e-3  # of a deviation of 200; sums of a batch may differ in their last bit


@pytest.mark.parametrize("axes", [[0], [2], [0, 1, 2]])
def test_mirroring_is_exact_along_the_axes_that_were_asked(axes):
    changed = augment(volumes(), [{"step": "mirror", "axes": axes, "probability": 1.0}], seeded())

    assert np.array_equal(changed.numpy(), np.flip(volumes().numpy(), [axis + 2 for axis in axes]))


def test_slices_for_radiologists_are_never_mirrored_by_the_preset():
    assert "mirror" not in [step["step"] for step in AUGMENTATIONS["grey"]]


@pytest.mark.parametrize(
    ("size", "spacing_mm"), [((30, 20), None), ((30, 20, 10), None), ((30, 20, 10), (0.5, 1.0, 4.0))]
)
def test_drawn_matrices_turn_zoom_and_shift_within_their_limits(size, spacing_mm):
    """Of a known spacing, in millimetres: the matrices between voxels shear where the voxels are no cubes."""
    step = {"max_angle_rad": 0.3, "max_tilt_rad": 0.1, "smallest": 0.8, "largest": 1.25, "max_fraction": 0.1}
    step |= {} if spacing_mm is None else {"spacing_mm": list(spacing_mm)}
    dims = len(size)

    matrices = affine_matrices(step, torch.rand((500, 10), generator=seeded()), size)

    linear, shifts = matrices[:, :dims, :dims].double(), matrices[:, :dims, dims].double()
    to_mm = torch.diag(torch.tensor(spacing_mm or [1.0] * dims, dtype=torch.float64))
    linear = to_mm @ linear @ to_mm.inverse()
    zooms = torch.linalg.det(linear) ** (-1 / dims)
    turns = linear * zooms.reshape(-1, 1, 1)
    assert torch.allclose(turns @ turns.mT, torch.eye(dims).double().expand_as(turns), atol=1e-6)  # no shear
    assert (zooms >= 0.8).all()
    assert (zooms <= 1.25).all()
    assert (shifts.abs() <= torch.tensor(size) * 0.1).all()
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0]).abs()
    assert 0.28 < angles.max() < 0.32
    if dims == 3:
        # The angle between the slices' normal before and after comes from the two tilts alone.
        assert 0.09 < torch.acos(turns[:, 2, 2].clamp(max=1)).max() < 0.1 * math.sqrt(2) + 1e-3


def test_intensity_follows_the_image_whatever_its_unit():
    """The same image in HU, and in thousandths of it with an offset, is changed to the same image."""
    steps = [{"step": "intensity", "brightness": 0.3, "contrast": 0.3, "gamma": 0.3}, {"step": "noise", "largest": 0.2}]
    batch = volumes()

    changed = augment(batch, steps, seeded(2))
    scaled = augment(batch / 1000 + 5, steps, seeded(2))

    assert ((scaled - 5) * 1000 - changed).abs().max() < 0.5
    assert (changed - batch).abs().mean() > 10


def test_brightness_and_noise_are_measured_in_the_images_own_deviation():
    batch = volumes(400, size=(6, 6, 6))
    std = batch.flatten(1).std(dim=1, correction=0)

    shifted = augment(batch, [{"step": "intensity", "brightness": 0.5, "contrast": 0, "gamma": 0}], seeded())
    noisy = augment(batch, [{"step": "noise", "largest": 0.5}], seeded())

    shares = (shifted - batch).flatten(1).mean(dim=1) / std
    assert -0.5 <= shares.min() < -0.48
    assert 0.48 < shares.max() <= 0.5
    amounts = (noisy - batch).flatten(1).std(dim=1) / std
    assert amounts.max() < 0.62
    assert amounts.mean() == pytest.approx(0.25, abs=0.03)


def test_a_constant_volume_stays_constant():
    changed = augment(torch.full((2, 1, 8, 8, 8), -1000.0), AUGMENTATIONS["volume"], seeded())

    assert (changed + 1000).abs().max() < 0.01
