"""HAM10000's tables: the metadata, and a published split."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from sagemaker_monai.data.entries import Metadata
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import split_of
from sagemaker_monai.storage.tables import read_table

LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex", "localization")
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # becomes a file name
UNKNOWN = frozenset({"", "unknown", "na", "nan"})
MAX_AGE = 130


@dataclass(frozen=True)
class Row:
    """A line of the metadata."""

    image: str
    lesion: str
    label: str
    metadata: Metadata


def _age(text: str, image: str) -> float | None:
    """Years, or None if unknown."""
    if text.lower() in UNKNOWN:
        return None
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age <= MAX_AGE:
        raise DatasetError(f"metadata of {image}: age is {text[:20]!r}, must be 0 to {MAX_AGE} years or empty")
    return age


def read_metadata(content: bytes, *, what: str) -> list[Row]:
    """Read HAM10000_metadata in any of its forms.

    Args:
        content: comma or tab separated, with a header; columns beyond COLUMNS are ignored.
        what: the file's name for messages.

    Raises:
        DatasetError: a column is missing, an id is not a file name or comes twice, a class or age is impossible, or a
            lesion has two classes.
    """
    table = read_table(content, what=what, required=COLUMNS)
    rows: dict[str, Row] = {}
    classes: dict[str, set[str]] = defaultdict(set)
    unknown: set[str] = set()
    odd: list[str] = []
    twice: list[str] = []
    for cells in table:
        image, lesion, label = cells["image_id"], cells["lesion_id"], cells["dx"].lower()
        if not IMAGE_ID.fullmatch(image) or not lesion:
            odd.append(image or f"(empty, lesion {lesion})")
            continue
        if label not in LABELS:
            unknown.add(label)
        if image in rows:
            twice.append(image)
        classes[lesion].add(label)
        metadata: Metadata = {"age": _age(cells["age"], image)}
        metadata |= {name: cells[name] or None for name in ("sex", "localization")}
        rows[image] = Row(image, lesion, label, metadata)
    torn = [f"{lesion}: {' and '.join(sorted(dx))}" for lesion, dx in classes.items() if len(dx) > 1]
    faults = [
        (unknown, "unknown classes", f"dx must be one of {', '.join(LABELS)}"),
        (odd, "rows without lesion_id or with an image_id that cannot be a file name", "correct them"),
        (twice, "image ids on several rows", "keep one row for each"),
        (torn, "lesions with two classes", "give each lesion one dx"),
    ]
    for found, cause, remedy in faults:
        if found:
            raise DatasetError(f"{what}: {cause}: {len(found)} ({some_of(sorted(found))}); {remedy}")
    if not rows:
        raise DatasetError(f"{what} has no rows; download it again")
    return sorted(rows.values(), key=lambda row: row.image)


def read_split(content: bytes, *, what: str) -> dict[str, str]:
    """Read a given split, `image_id,split` and any other columns; returns image id -> one of SPLITS.

    Raises:
        DatasetError: a column is missing, a split has an unknown name, or an image is in two splits.
    """
    splits: dict[str, str] = {}
    for row in read_table(content, what=what, required=("image_id", "split")):
        image, name = row["image_id"], row["split"]
        split = split_of(name)
        if not split:
            raise DatasetError(f"{what}: {image} has split {name[:60]!r}; use train, val or test")
        if splits.setdefault(image, split) != split:
            raise DatasetError(f"{what}: {image} is in two splits; keep one line for it")
    return splits
