"""Values of a header as numbers, words and items of functional groups, whatever a broken file has in their place."""

import math
from collections.abc import Iterable
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence

from sagemaker_monai.errors import UndecodableImage

_MAX_VALUES = 4096  # of one element that are looked at


def value_of(dataset: Dataset, keyword: str) -> Any:
    """The converted value of an element, None when it is missing.

    Raises:
        UndecodableImage: it cannot be converted.
    """
    try:
        return dataset.get(keyword)
    except Exception as error:
        # pydicom converts a value when it is asked for, and promises no list of what a broken one raises.
        raise UndecodableImage(f"{keyword} of the DICOM header is broken; correct it") from error


def word(dataset: Dataset, keyword: str) -> str:
    """The first value of an element of text, stripped; "" when it is missing.

    Raises:
        UndecodableImage: it cannot be converted.
    """
    values = _several(value_of(dataset, keyword))
    return str(values[0]).strip() if values else ""


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of an element, () when it is missing.

    Raises:
        UndecodableImage: one is no finite number.
    """
    try:
        values = tuple(float(value) for value in _several(value_of(dataset, keyword)))
    except (TypeError, ValueError, OverflowError) as error:
        raise UndecodableImage(f"{keyword} of the DICOM header is no number; correct it") from error
    if not all(math.isfinite(value) for value in values):
        raise UndecodableImage(f"{keyword} of the DICOM header is not finite; correct it")
    return values


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of an element, None when it is missing.

    Raises:
        UndecodableImage: it is no finite number.
    """
    values = numbers(dataset, keyword)
    return values[0] if values else None


def whole_number(
    dataset: Dataset, keyword: str, *, low: int, high: int, default: int | None = None, is_lax: bool = False
) -> int:
    """Read a whole number.

    Args:
        dataset: the header.
        keyword: of the element.
        low: the lowest value that makes sense.
        high: the highest.
        default: used when the element is missing or empty; without one that is an error.
        is_lax: a value out of range counts as missing.

    Raises:
        UndecodableImage: missing, no whole number, or out of range.
    """
    values = _several(value_of(dataset, keyword))
    if not values:
        if default is None:
            raise UndecodableImage(f"the DICOM header has no {keyword}; export the file again")
        return default
    try:
        count = int(values[0])
    except (TypeError, ValueError, OverflowError) as error:
        raise UndecodableImage(f"{keyword} of the DICOM header is no whole number; correct it") from error
    if low <= count <= high:
        return count
    if is_lax and default is not None:
        return default
    raise UndecodableImage(f"{keyword} of the DICOM header must be {low} to {high}, got {count}")


def items(dataset: Dataset, keyword: str) -> Sequence | tuple[Dataset, ...]:
    """The items of a sequence, () when it is missing, empty or no sequence."""
    value = value_of(dataset, keyword)
    return value if isinstance(value, Sequence) else ()


def group_item(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """The functional group of a frame in an enhanced multi-frame file.

    Args:
        dataset: the header.
        frame: number from 0.
        keyword: of the group's sequence, such as PixelMeasuresSequence.

    Returns:
        The first item of the frame's own sequence, else of the shared one, None without both.

    Source: DICOM PS3.3 C.7.6.16.
    """
    for holder, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = items(dataset, holder)
        found = items(groups[place], keyword) if place < len(groups) else ()
        if found:
            item: Dataset = found[0]
            return item
    return None


def _several(value: Any) -> list[Any]:
    if value is None or isinstance(value, Sequence | Dataset):
        return []
    if isinstance(value, str | bytes | int | float) or not isinstance(value, Iterable):
        values = [value]
    else:
        values = [part for part, _ in zip(value, range(_MAX_VALUES), strict=False)]
    return [part for part in values if part is not None and part != "" and part != b""]
