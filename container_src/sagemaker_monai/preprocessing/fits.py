"""How a picture of another aspect ratio fills a size: the same for photographs (Pillow) and float32 slices."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from sagemaker_monai.preprocessing.resampling import Box, crop_or_pad, resize

Size = tuple[int, int]
Pair = tuple[float, float]


def _pad(sides: Pair, size: Size) -> tuple[Size, Pair]:
    scale = min(size[0] / sides[0], size[1] / sides[1])
    width, height = (max(1, min(most, round(side * scale))) for most, side in zip(size, sides, strict=True))
    return (width, height), (1.0, 1.0)


def _crop(sides: Pair, size: Size) -> tuple[Size, Pair]:
    scale = max(size[0] / sides[0], size[1] / sides[1])
    return size, (min(size[0] / scale / sides[0], 1.0), min(size[1] / scale / sides[1], 1.0))


# From a picture's sides, in one unit, and the size to the part of the size that is filled and the central share of each
# side that is used.
FITS: dict[str, Callable[[Pair, Size], tuple[Size, Pair]]] = {
    "stretch": lambda _sides, size: (size, (1.0, 1.0)),  # to the size, whatever the aspect ratio
    "pad": _pad,  # the whole picture, centred, with a border
    "crop": _crop,  # the largest central part with the size's aspect ratio
}


def _box(extent: int, share: float) -> Box:
    return extent / 2 - share * extent / 2, extent / 2 + share * extent / 2


def fit_picture(image: Image.Image, fit: str, size: Size) -> Image.Image:
    """Bring a picture to a size by a key of `FITS`; borders are black, as in dermatoscopes."""
    inner, shares = FITS[fit](image.size, size)
    (left, right), (top, bottom) = map(_box, image.size, shares)
    # Pillow's BILINEAR is a triangle as wide as the reduction, so it does not alias. BOX is 5 % faster at 224 px, but
    # uses source pixels whole or not at all, which is uneven for reductions below 2, and enlarges to blocks.
    image = image.resize(inner, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    if inner == size:
        return image
    canvas = Image.new(image.mode, size)
    canvas.paste(image, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def fit_plane(values: np.ndarray, fit: str, size: Size, aspect: float, fill: np.ndarray) -> np.ndarray:
    """Bring float32 (C, W, H) to contiguous (C, *size) by a key of `FITS`.

    `aspect` is a pixel's width divided by its height, `fill` (C,) the values of a border.
    """
    inner, shares = FITS[fit]((values.shape[1] * aspect, values.shape[2]), size)
    fitted = resize(values, inner, list(map(_box, values.shape[1:], shares)))
    return np.ascontiguousarray(fitted if inner == size else crop_or_pad(fitted, size, fill))
