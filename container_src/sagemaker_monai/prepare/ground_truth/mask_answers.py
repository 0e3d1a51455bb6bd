"""The masks of semantic segmentation jobs: pictures whose colours a map of colours names.

The output manifest names a PNG for each image, with `internal-color-map` in the metadata; an annotator's answer (the
crowd element `crowd-semantic-segmentation`) holds the PNG itself, with `labelMappings`. A colour stands for exactly one
class. Nothing is rounded to the next colour: a colour that the map does not have comes from smoothed edges or from
another job, and would become a class that nobody chose.

Source: Amazon SageMaker AI Developer Guide, "Labeling job output data" (semantic segmentation output) and
"crowd-semantic-segmentation".
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.legends import BACKGROUND, IGNORE
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.images.pictures import decode_stored
from sagemaker_monai.images.stored_values import StoredPicture
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.answers import MAX_DEPTH, NOTHING, MaskAnswer, clean_name, unwrap
from sagemaker_monai.tasks.label_maps import IGNORED

MAX_PNG_CHARACTERS = 1 << 27  # of one mask in an answer
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_WHITE = 0xFFFFFF  # of what nobody marked, where the map of an answer does not say


def read_reference(value: Any, colour_map: Any) -> MaskAnswer:
    """The mask that a manifest names.

    Raises:
        DatasetError: it names none, or the map is not one of colours, or gives one colour to several classes.
    """
    if not isinstance(value, str) or not value.strip():
        raise DatasetError("a semantic segmentation label must name the picture of a mask; correct the manifest")
    if not isinstance(colour_map, Mapping) or not colour_map:
        raise DatasetError("a semantic segmentation label has no internal-color-map; give the job's output manifest")
    rows = [(row.get("class-name"), row.get("hex-color")) if isinstance(row, Mapping) else (None, None)
            for row in colour_map.values()]  # fmt: skip
    return MaskAnswer(value.strip(), _names_of(rows))


def find_mask(content: Any, depth: int = 0) -> MaskAnswer | None:
    """The mask in an annotator's answer; None if the answer has none.

    Raises:
        DatasetError: it is not a picture in base64, or its map of colours is not sound.
    """
    content = unwrap(content)
    if depth > MAX_DEPTH:
        return None
    if isinstance(content, list):
        return next((found for inner in content if (found := find_mask(inner, depth + 1))), None)
    if not isinstance(content, Mapping):
        return None
    if not isinstance(content.get("labeledImage"), Mapping):
        return next((found for inner in content.values() if (found := find_mask(inner, depth + 1))), None)
    data, mappings = content["labeledImage"].get("pngImageData"), content.get("labelMappings")
    if not isinstance(data, str) or len(data) > MAX_PNG_CHARACTERS or not isinstance(mappings, Mapping):
        raise DatasetError("a mask in an answer has no pngImageData or no labelMappings; download it again")
    try:
        picture = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DatasetError("a mask in an answer is not base64; download it again") from error
    rows = [(name, row.get("color") if isinstance(row, Mapping) else None) for name, row in mappings.items()]
    return MaskAnswer(picture, {_WHITE: NOTHING} | _names_of(rows))


def _names_of(rows: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """The class of each colour."""
    names: dict[int, str] = {}
    for name, colour in rows:
        match = _HEX.fullmatch(colour.strip()) if isinstance(colour, str) else None
        if match is None or not isinstance(name, str):
            raise DatasetError("a map of colours must give each class a name and a colour like #2ca02c; correct it")
        told = clean_name(name)
        folded = told.lower()
        key, meant = int(match[1], 16), NOTHING if folded in BACKGROUND else IGNORE if folded == IGNORE else told
        if names.setdefault(key, meant) != meant:
            raise DatasetError(
                f"the map of colours gives {_hex(key)} to several classes "
                f"({some_of([each or 'background' for each in (names[key], meant)])}), so that nobody can tell them "
                "apart; correct it and the masks"
            )
    return names


def read_map(
    mask: MaskAnswer, source: Path | bytes, values: Mapping[str, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Decode a mask.

    Args:
        mask: of an answer.
        source: its picture.
        values: of the classes in the label map.
        size: width and height of the image.

    Returns:
        Label map (W, H): 0 for the background, IGNORED for the class `ignore`.

    Raises:
        DatasetError: it cannot be read, has another size, or colours that its map does not have.
    """
    try:
        picture = decode_stored(source, takes_clear=True)
    except CallerError as error:
        raise DatasetError(f"it cannot be read: {error}") from error
    height, width = picture.values.shape[:2]
    if (width, height) != size:
        raise DatasetError(f"it has {width} x {height} pixels, and its image {size[0]} x {size[1]}; give the original")
    colours, places = _colours_of(picture)
    meant = {NOTHING: 0, IGNORE: IGNORED, **values}
    is_clear = np.zeros((height, width), bool) if picture.is_clear is None else picture.is_clear
    used = np.bincount(places[~is_clear], minlength=len(colours)).tolist()
    if unknown := [(count, key) for key, count in zip(colours, used, strict=True) if count and key not in mask.names]:
        shown = [f"{_hex(key)} {count} times" for count, key in sorted(unknown, reverse=True)]
        raise DatasetError(
            f"it has colours that its map does not name: {len(unknown)} ({some_of(shown)}); its edges are smoothed, or "
            "it is of another job: give the picture as the job wrote it"
        )
    table = np.array([meant[mask.names[key]] if key in mask.names else 0 for key in colours], np.uint8)
    labels = np.where(is_clear, np.uint8(0), table[places])
    return np.ascontiguousarray(labels.T)


def _colours_of(picture: StoredPicture) -> tuple[list[int], NDArray[np.intp]]:
    """The colours of a picture, and the place of each pixel's colour (H, W) among them."""
    values = picture.values
    if picture.palette is not None:
        keys = _keys(picture.palette)
        if (most := int(values.max(initial=0))) >= len(keys):
            raise DatasetError(f"it has the index {most}, but its palette has {len(keys)} colours; save it again")
        return keys.tolist(), values.astype(np.intp)
    if picture.bits > 8:
        raise DatasetError(
            f"it has {picture.bits} bits a value, and colours have 8; give the picture as the job wrote it"
        )
    if values.ndim == 2:
        spread = 255 // ((1 << picture.bits) - 1)
        values = np.repeat((values.astype(np.uint8) * spread)[..., np.newaxis], 3, axis=2)
    there, places = np.unique(_keys(np.asarray(values, np.uint8)), return_inverse=True)
    return there.tolist(), places.reshape(values.shape[:2])


def _keys(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    parts = rgb.astype(np.uint32)
    return np.asarray(parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2], np.uint32)


def _hex(key: int) -> str:
    return f"#{key:06x}"
