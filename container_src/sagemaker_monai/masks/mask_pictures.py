"""Masks in pictures: PNG, BMP, TIFF, lossless WebP.

What a pixel's value is:

- single bits: 0 and 1;
- grey, also as RGB with three equal channels: the number itself. Only where a file has nothing but black and white, 0
  and 255 (65,535 of 16 bits), white is 1, which is said: so drawing programs save a mask. Where white is a value with
  a name, such as "not labelled", it stays itself;
- a palette: the index, never the colour, as the public data sets with palettes mean it. A program that saves space also
  makes palettes, in any order: greys that do not grow with their indices from black at 0 are refused, and black
  elsewhere than at 0 is said;
- colours: only by a table of colours that is given. Black is 0 unless the table says otherwise. With a table, grey and
  palettes must not contradict it.

A mask is not turned by EXIF: it is on the grid of its image, which is upright when it is read. A mask that asks to be
turned is refused, for nobody can tell whether it was drawn on the upright image.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.pictures import MASK_VALUES, decode_stored
from sagemaker_monai.images.stored_values import StoredPicture
from sagemaker_monai.masks.mask import MOST_VALUE, Grid, Mask
from sagemaker_monai.masks.mask_values import some_values, values_in, whole_values
from sagemaker_monai.masks.same_grid import on_grid

Colours = Mapping[tuple[int, int, int], int]

MOST_COLOURS = 256
_ROWS = 256  # whose colours are computed at once
_NS_A_PIXEL = 80  # to find the value of a colour


def read_picture_mask(source: Path, grid: Grid, *, colours: Colours | None, named: Collection[int] = ()) -> Mask:
    """Read a mask from a picture.

    Args:
        source: the file.
        grid: of the image.
        colours: the value of each colour (red, green, blue), 0 to 255 each.
        named: as of `read_mask`.

    Raises:
        UndecodableImage: broken.
        UnsuitableImage: lossy, transparent, colours without a value, another size than the image's.
        PayloadTooLarge: more than the limits.
    """
    picture = decode_stored(source)
    values, findings = _values_of(picture, colours, named)
    placed, unproved = on_grid(values.T, None, grid)
    return Mask(placed, {}, (*findings, *unproved))


def _values_of(picture: StoredPicture, colours: Colours | None, named: Collection[int]) -> tuple[np.ndarray, list[str]]:
    """uint16 (H, W), and findings."""
    stored = picture.values
    if picture.palette is not None:
        values, _ = whole_values(stored)
        return values, _check_palette(values, picture.palette, colours)
    if stored.ndim == 3:
        is_grey = all(bool((rows == rows[..., :1]).all()) for rows in stored)
        if colours is not None or not is_grey:
            if picture.bits > 8:
                raise UnsuitableImage(f"a mask with colours of {picture.bits} bits; save it as grey")
            return _by_colour(stored, colours), []
        stored = stored[..., 0]
    elif colours is not None and picture.bits in (1, 8):
        shown = stored.astype(np.uint8) * 255 if picture.bits == 1 else stored
        return _by_colour(np.broadcast_to(shown[..., np.newaxis], (*shown.shape, 3)), colours), []
    values, is_rounded = whole_values(stored)
    findings = ["mask_values_rounded"] if is_rounded else []
    there = values_in(values)
    white = {8: 255, 16: MOST_VALUE}.get(picture.bits)
    if there == [white] and white not in named:
        return (values != 0).astype(np.uint16), [*findings, "mask_white_is_one"]
    return values, [*findings, *(["mask_many_values"] if len(there) > MASK_VALUES else [])]


def _check_palette(values: np.ndarray, palette: np.ndarray, colours: Colours | None) -> list[str]:
    """Refuse a palette that makes the indices doubtful; findings."""
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=1))
    if used[-1] >= len(palette):
        raise UnsuitableImage(f"the mask has the index {used[-1]}, but its palette has {len(palette)} colours")
    shown = palette[used]
    is_grey = bool((shown == shown[:, :1]).all())
    is_black = shown.max(axis=1) == 0
    if is_grey and ((np.diff(shown[:, 0].astype(int)) <= 0).any() or (is_black != (used == 0)).any()):
        raise UnsuitableImage(
            "the mask's palette has greys in another order than its indices, so that nobody can tell which of them are "
            "the values; save it as grey"
        )
    known = {(0, 0, 0): 0, **colours} if colours is not None else {}
    for index, colour in zip(used.tolist(), shown.tolist(), strict=True):
        if known.get(tuple(colour), index) != index:
            raise UnsuitableImage(
                f"the mask has the index {index} for the colour {tuple(colour)}, whose value in the given table of "
                f"colours is {known[tuple(colour)]}; save it as RGB or as grey"
            )
    return ["mask_palette_order"] if (is_black & (used != 0)).any() else []


def _by_colour(rgb: np.ndarray, colours: Colours | None) -> np.ndarray:
    """uint16 (H, W) of uint8 (H, W, 3)."""
    count = rgb.shape[0] * rgb.shape[1]
    spend_work(_NS_A_PIXEL * count, f"the colours of {count} pixels")
    spend_bytes(2 * count, f"{count} values of a mask")
    known = {_key(colour): value for colour, value in {(0, 0, 0): 0, **(colours or {})}.items()}
    table_keys = np.array(sorted(known), np.uint32)
    table = np.array([known[key] for key in sorted(known)], np.uint16)
    values = np.empty(rgb.shape[:2], np.uint16)
    unknown: set[int] = set()
    for first in range(0, len(rgb), _ROWS):
        part = rgb[first : first + _ROWS].astype(np.uint32)
        keys = part[..., 0] << 16 | part[..., 1] << 8 | part[..., 2]
        places = np.minimum(np.searchsorted(table_keys, keys), len(table_keys) - 1)
        is_known = table_keys[places] == keys
        unknown |= set(np.unique(keys[~is_known]).tolist())
        if len(unknown) > MOST_COLOURS:
            raise UnsuitableImage(
                f"the mask has more than {MOST_COLOURS} colours, so it is a picture, or its edges are smoothed; save "
                "the values as grey"
            )
        values[first : first + _ROWS] = table[places]
    if unknown:
        named = some_values([(key >> 16, key >> 8 & 255, key & 255) for key in sorted(unknown)])
        given = "the given table of colours does not have" if colours is not None else "no table gives a value"
        raise UnsuitableImage(
            f"the mask has colours that {given}: {named}; give the value of each colour, or save the values as grey"
        )
    return values


def _key(colour: tuple[int, int, int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue
