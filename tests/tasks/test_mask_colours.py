"""Structures drawn over a picture, by hand."""

import numpy as np
import pytest

from sagemaker_monai.tasks import mask_colours
from sagemaker_monai.tasks.mask_colours import colour_of, drawn_over, palette


def test_every_label_has_a_colour_and_the_first_ones_differ():
    colours = palette()

    assert colours.shape == (256, 3)
    assert colours[0].tolist() == [0, 0, 0]
    assert len({tuple(each) for each in colours[:40].tolist()}) == 40
    assert all(tuple(colours[label]) == colour_of(label) for label in range(256))


@pytest.mark.parametrize("at_once", [1, 12, 1 << 18])
def test_structures_are_half_transparent_within_their_outlines(at_once, monkeypatch):
    monkeypatch.setattr(mask_colours, "_AT_ONCE", at_once)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 3)).astype(np.uint8)
    labels = np.zeros((6, 7), np.uint8)  # (W, H)
    labels[1:6, 1:6] = 1
    labels[4:6, 3:6] = 2
    labels[0, 0] = 255  # ignored
    before = pixels.copy()

    drawn = drawn_over(pixels, labels, palette(), has_outline=True)

    assert np.array_equal(pixels, before)
    for x in range(6):
        for y in range(7):
            own = labels[x, y]
            beside = [
                labels[i, j] for i, j in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)) if 0 <= i < 6 and 0 <= j < 7
            ]
            if own in (0, 255):
                assert drawn[y, x].tolist() == pixels[y, x].tolist()
            elif any(each != own for each in beside):
                assert tuple(drawn[y, x]) == colour_of(own)
            else:
                expected = pixels[y, x] * 0.55 + np.array(colour_of(own)) * 0.45
                assert np.abs(drawn[y, x] - expected).max() < 2
    inside = drawn_over(pixels, labels, palette(), has_outline=False)
    assert np.abs(inside[1, 1] - (pixels[1, 1] * 0.55 + np.array(colour_of(1)) * 0.45)).max() < 2
