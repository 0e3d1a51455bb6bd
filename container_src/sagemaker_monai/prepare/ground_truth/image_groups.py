"""Which images of a labeling job belong to one patient.

The DICOM header, a part of the file's name or a key of the manifest identifies the patient. Groups are numbered: their
names may be personal data, and the data set goes to S3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sagemaker_monai.data.groups import Groups, read_groups
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.manifest import Item
from sagemaker_monai.prepare.ground_truth.source_images import Image, short_name
from sagemaker_monai.prepare.matching import group_pattern


@dataclass(frozen=True)
class ImageGroups:
    """The group of each reference, the manifest's key that gave it ("" for none), and what was odd."""

    names: dict[str, str]
    key: str = ""
    remarks: tuple[Remark, ...] = ()


def group_images(items: Mapping[str, Item], images: Mapping[str, Image], group_by: str | None) -> ImageGroups:
    """Which images belong together.

    Args:
        items, images: by reference.
        group_by: a regular expression with one group, searched in the reference; or a key of the manifest's lines.
            None takes the patient of DICOM files, else a key that names a patient (`groups.read_groups`), else each
            image is a group of its own.

    Returns:
        Groups, numbered in the order of the manifest.

    Raises:
        ConfigError: not a regular expression with one group.
        DatasetError: some images have no group.
    """
    if group_by is None:
        values = {reference: image.patient for reference, image in images.items()}
        told = _told_by_key(items, images) if not any(values.values()) else Groups("", ())
        if told.column:
            values = dict(zip(images, told.values, strict=True))
        names = _numbered(values, "patient", {reference: image.name for reference, image in images.items()})
        return ImageGroups(names, told.column, told.remarks)
    if "(" in group_by:
        pattern = group_pattern(group_by)
        matches = {reference: pattern.search(reference) for reference in images}
        values = {reference: match[1] if match else None for reference, match in matches.items()}
    else:
        columns = {reference: items[reference].columns.get(group_by) for reference in images}
        values = {reference: str(value).strip() or None for reference, value in columns.items() if value is not None}
    if missing := [short_name(reference) for reference in images if not values.get(reference)]:
        raise DatasetError(
            f"--group-by gives no group for some images: {len(missing)} ({some_of(missing)}); "
            "correct it so that every image has a group"
        )
    return ImageGroups(_numbered(values, "group", {}), group_by if "(" not in group_by else "")


def _told_by_key(items: Mapping[str, Item], images: Mapping[str, Image]) -> Groups:
    """The groups by a key of the manifest's lines that names a patient."""
    keys = dict.fromkeys(key for reference in images for key in items[reference].columns)
    columns = {key: [_text(items[reference].columns.get(key, "")) for reference in images] for key in keys}
    return read_groups(columns, list(images), what="the manifest", option="--group-by")


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.17g}"


def _numbered(values: Mapping[str, str | None], what: str, own: Mapping[str, str]) -> dict[str, str]:
    numbers: dict[str, int] = {}
    groups = {}
    for reference, value in values.items():
        groups[reference] = own[reference] if not value else f"{what}-{numbers.setdefault(value, len(numbers) + 1)}"
    return groups
