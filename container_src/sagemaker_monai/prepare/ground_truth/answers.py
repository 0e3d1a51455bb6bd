"""The classes and regions in one annotator's answer, which is the JSON that a task's page sent.

Every task page has names of its own. Known are the outputs of AWS's crowd elements (image classifier, bounding box,
polygon, radio button, checkbox), a DICOM task that sends JSON inside JSON
({"disease": {"Edema": true}, "labels": "{\\"label\\": [], \\"ROI\\": {}}"}), and regions in the form of cornerstone's
tools. For other pages `--answer-path` names the place of the classes. Nothing here is trusted: text is cut to limits,
nesting is bounded, and numbers must be finite.

Source: Amazon SageMaker AI Developer Guide, "Crowd HTML Elements Reference" and "Labeling job output data".
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.file_names import is_fit

MAX_DEPTH = 16  # of nesting, JSON in JSON included; the DICOM task has 5
MAX_CLASSES = 1000  # named by one answer
MAX_REGIONS = 1000  # in one answer
MAX_POINTS = 10_000  # of one polygon
MAX_COORDINATE = 1e6  # pixels
MAX_NAME_LENGTH = 100  # characters of a class, as in datasets
NOTHING = ""  # the name of the background in a mask

# Keys of classes, the more specific first; the first one that an object has counts.
CLASS_KEYS = ("labels", "label", "disease", "diseases", "findings", "finding", "classes", "class", "categories",
              "category", "diagnosis", "annotatedResult", "boundingBoxes", "polygons")  # fmt: skip
_NO_REGIONS = frozenset({"textBox", "boundingBox", "inputImageProperties", "image_size"})  # caption boxes and sizes


@dataclass(frozen=True)
class Region:
    """A marked part of the image.

    Attributes:
        kind: "box" (two opposite corners, the upper left one first) or "polygon" (its corners in order, not closed).
        label: its class; None if the page has none.
        points: x and y in pixels of the stored image, from its upper left corner.
    """

    kind: str
    label: str | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MaskAnswer:
    """A mask that is not decoded yet.

    Attributes:
        source: the reference to the picture in S3, or the picture itself.
        names: colour (red << 16 | green << 8 | blue) -> class, NOTHING for the background.
    """

    source: str | bytes = field(repr=False)
    names: Mapping[int, str]


@dataclass(frozen=True)
class Content:
    """One answer; `offered` are the classes that could be chosen, as far as the answer has them; a mask has its own."""

    classes: frozenset[str]
    regions: tuple[Region, ...] = ()
    offered: frozenset[str] = frozenset()
    mask: MaskAnswer | None = None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str | bytes, what: str) -> Any:
    """Parse JSON from outside, without NaN and infinities.

    Raises:
        DatasetError: not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DatasetError(f"{what} is not JSON; download it again") from error


def clean_name(value: object) -> str:
    """A class name without white space around it.

    Raises:
        DatasetError: empty, too long, or with forbidden characters (see `file_names`).
    """
    name = str(value).strip()
    if not name or len(name) > MAX_NAME_LENGTH or not is_fit(name):
        raise DatasetError(
            f"a class name must have 1 to {MAX_NAME_LENGTH} characters and no control characters, got {name[:40]!a}; "
            "correct it, or name the place of the classes with --answer-path"
        )
    return name


def unwrap(value: Any) -> Any:
    """Parse JSON inside a text; other values stay."""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
            return value
        try:
            value = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return value
    return value


def _too_deep(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DatasetError(f"an answer is nested deeper than {MAX_DEPTH} levels; it is not from a labeling task")


def _is_choice(value: Any) -> bool:
    """Whether this is the state of a checkbox or radio button."""
    return isinstance(value, bool) or (isinstance(value, dict) and set(value) == {"on"} and _is_choice(value["on"]))


def _is_chosen(value: Any) -> bool:
    return _is_chosen(value["on"]) if isinstance(value, dict) else bool(value)


def _classes(value: Any, depth: int = 0) -> Content | None:
    """The classes in a value; None if it has no place for them."""
    _too_deep(depth)
    value = unwrap(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return Content(frozenset({clean_name(value)} if str(value).strip() else ()))
    if isinstance(value, list):
        if len(value) > MAX_CLASSES:
            raise DatasetError(f"an answer names more than {MAX_CLASSES} classes; it is not from a labeling task")
        return _union([_classes(element, depth + 1) for element in value])
    if not isinstance(value, dict):
        return None
    if value and all(map(_is_choice, value.values())) and len(value) <= MAX_CLASSES:
        offered = {clean_name(name): _is_chosen(chosen) for name, chosen in value.items()}
        return Content(frozenset(name for name, chosen in offered.items() if chosen), offered=frozenset(offered))
    found = [key for key in CLASS_KEYS if key in value]
    contents = [_classes(value[key], depth + 1) for key in found]
    if answered := [content for content in contents if content is not None]:
        first = next((content for content in answered if content.classes), answered[0])
        return Content(first.classes, offered=frozenset().union(*(content.offered for content in answered)))
    if len(value) == 1:  # the answer is wrapped in the name of its element or label attribute
        return _classes(next(iter(value.values())), depth + 1)
    return None


def _union(contents: Sequence[Content | None]) -> Content | None:
    """The classes of several answers together; None if one of them has none."""
    if any(content is None for content in contents):
        return None
    known = [content for content in contents if content is not None]
    return Content(
        frozenset().union(*(content.classes for content in known)),
        offered=frozenset().union(*(content.offered for content in known)),
    )


def _follow(value: Any, path: Sequence[str]) -> Any:
    """The value at a path; None if the path leads nowhere."""
    for name in path:
        value = unwrap(value)
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and len(name) < 7 and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return unwrap(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= MAX_COORDINATE else None


def _point(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, dict):
        return None
    x, y = _number(value.get("x")), _number(value.get("y"))
    return (x, y) if x is not None and y is not None else None


def make_box(first: tuple[float, float], second: tuple[float, float], label: str | None) -> Region | None:
    """The upright box with two opposite corners in any order; None without an area."""
    (left, right), (top, bottom) = sorted((first[0], second[0])), sorted((first[1], second[1]))
    return Region("box", label, ((left, top), (right, bottom))) if right > left and bottom > top else None


def read_box(value: Mapping[str, Any], label: str | None) -> Region | None:
    """A box of `left`, `top`, `width` and `height`, as Ground Truth writes it."""
    numbers = [_number(value.get(key)) for key in ("left", "top", "width", "height")]
    left, top, width, height = (number if number is not None else math.nan for number in numbers)
    if not all(map(math.isfinite, (left, top, width, height))):
        return None
    return make_box((left, top), (left + width, top + height), label)


def _polygon(values: Any, label: str | None) -> Region | None:
    if not isinstance(values, list) or not 3 <= len(values) <= MAX_POINTS:
        return None
    points = [point for value in values if (point := _point(value)) is not None]
    return Region("polygon", label, tuple(points)) if len(points) == len(values) else None


def _region(value: Mapping[str, Any], label: str | None) -> tuple[bool, Region | None]:
    """Whether an object describes a region, and the region if it is sound."""
    if {"left", "top", "width", "height"} <= set(value):
        return True, read_box(value, label)
    if "start" in value and "end" in value:  # rectangle and ellipse of cornerstone: corners of the box around it
        start, end = _point(value["start"]), _point(value["end"])
        return True, make_box(start, end, label) if start and end else None
    for key in ("vertices", "handles", "points"):  # handles: of cornerstone's freehand tool
        if isinstance(value.get(key), list) and value[key] and isinstance(value[key][0], dict) and "x" in value[key][0]:
            return True, _polygon(value[key], label)
    return False, None


def _regions(value: Any, label: str | None, found: list[Region | None], depth: int = 0) -> None:
    """Collect the regions in a value; None for each unsound one."""
    _too_deep(depth)
    value = unwrap(value)
    if len(found) > MAX_REGIONS:
        raise DatasetError(f"an answer marks more than {MAX_REGIONS} regions; it is not from a labeling task")
    if isinstance(value, list):
        for element in value:
            _regions(element, label, found, depth + 1)
    elif isinstance(value, dict):
        own = value.get("label")
        label = clean_name(own) if isinstance(own, str) and own.strip() and own.lstrip()[0] not in "[{" else label
        is_region, region = _region(value, label)
        if is_region:
            found.append(region)
            return
        for key, inner in value.items():
            if key not in _NO_REGIONS:
                _regions(inner, label, found, depth + 1)


def read_content(content: Any, *, path: Sequence[str] = ()) -> tuple[Content, int]:
    """Read one annotator's answer.

    Args:
        content: the JSON that the page sent, parsed or as text.
        path: keys and positions on the way to the classes; if empty, they are searched.

    Returns:
        The answer, and how many regions were left out as unsound (no area, not finite, too many points).

    Raises:
        DatasetError: the classes are not found, or the answer exceeds the limits.
    """
    content = unwrap(content)
    classes = _classes(_follow(content, path))
    if classes is None:
        keys = sorted(str(key) for key in content) if isinstance(content, dict) else []
        cause = "an answer has nothing at --answer-path" if path else "an answer has no known place for classes"
        raise DatasetError(
            f"{cause} (it has {some_of(keys) or 'no keys'}); name the place, like --answer-path disease or 0.label"
        )
    found: list[Region | None] = []
    _regions(content, next(iter(classes.classes)) if len(classes.classes) == 1 else None, found)
    sound = tuple(region for region in found if region is not None)
    return Content(classes.classes, sound, classes.offered), len(found) - len(sound)
