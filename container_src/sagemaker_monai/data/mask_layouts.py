"""Data sets whose labels are masks, as dataset.json describes them: the Decathlon's lists, and nnU-Net's raw folders.

`labels` says what the values of masks mean (`legends`). An image without a mask, as the Decathlon has them for its
test split, is not part of the data set.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sagemaker_monai.data.dataset_json import ANNOTATOR_MASKS, DATASET_JSON, SPATIAL_DIMS, image_names, json_metadata
from sagemaker_monai.data.entries import (
    BETWEEN_SEQUENCES,
    IMAGE_NAMES,
    Entry,
    Image,
    Layout,
    Metadata,
    images_of_names,
    inside_of,
    locate,
    visible,
)
from sagemaker_monai.data.label_sets import ORDER
from sagemaker_monai.data.legends import read_legend
from sagemaker_monai.data.structure_codes import codes_of
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images.sample import Sequences
from sagemaker_monai.masks.mask import Parts
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import split_of
from sagemaker_monai.storage.file_names import is_fit
from sagemaker_monai.tasks.tasks import TASKS, task_for

# nnU-Net's folders of images, each with that of its masks.
FOLDERS = {"imagesTr": ("labelsTr", "training"), "imagesTs": ("labelsTs", "test")}


def locate_masks(
    root: Path, names: Sequence[tuple[str, ...]], images: Sequence[Image], *, what: str
) -> tuple[list[tuple[Path | Parts, str]], tuple[Remark, ...]]:
    """Find the masks that a list names, each by one name or by one for each of its parts.

    Args:
        root: the channel.
        names: of the masks.
        images: that the same list names.
        what: the list, for messages.

    Returns:
        Masks with their names relative to the channel, and remarks on how they were found.

    Raises:
        DatasetError: as `entries.locate`, or a mask is an image of the list.
    """
    flat = [name for parts in names for name in parts]
    paths, remarks = locate(root, flat, what=what)
    taken = {path for image in images for path in (image.channels if isinstance(image, Sequences) else (image,))}
    if lacking := [name for name, path in zip(flat, paths, strict=True) if path in taken]:
        # A missing mask that is called as its image would be found in the image's own folder.
        raise DatasetError(
            f"{what} names masks that are not in the channel, or are images themselves: {len(lacking)} "
            f"({some_of(lacking)}); add the files or remove their lines"
        )
    found = dict(zip(flat, paths, strict=True))
    masks: list[tuple[Path | Parts, str]] = []
    for parts in names:
        files = tuple(found[name] for name in parts)
        label = BETWEEN_SEQUENCES.join(file.relative_to(root).as_posix() for file in files)
        masks.append((Parts(files) if len(files) > 1 else files[0], label))
    return masks, remarks


def is_of_masks(content: Mapping[str, Any]) -> bool:
    """Whether the labels of dataset.json are masks: it says so, it is nnU-Net's, or they are named as image files.

    Whether the files are there is asked later: masks that are missing are no classes.
    """
    task = content.get("task")
    if task is not None:
        return task in TASKS and TASKS[task].has_masks
    if _is_nnunet(content):
        return True
    labels = [item.get("label") for _, item in _listed(content) if isinstance(item, dict)]
    named = [label for label in labels if isinstance(label, str) and label.lower().endswith(tuple(IMAGE_NAMES))]
    declared = content.get("labels")
    classes = list(declared.values()) if isinstance(declared, Mapping) else declared
    is_class = isinstance(classes, list) and bool(named) and named[0] in classes
    return bool(named) and len(named) == len(labels) and not is_class


def _is_nnunet(content: Mapping[str, Any]) -> bool:
    return "file_ending" in content and not any(
        isinstance(value, list) and split_of(key) is not None for key, value in content.items()
    )


def _listed(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every item of every list that is named as a split, with that split."""
    return [
        (split, item)
        for key, value in content.items()
        if isinstance(value, list) and (split := split_of(key)) is not None
        for item in value
    ]


def read_mask_layout(root: Path, content: Mapping[str, Any]) -> Layout:
    """The layout of a channel with dataset.json whose labels are masks.

    Raises:
        DatasetError: it is not sound, or names files that are not there or not in the channel.
    """
    legend = read_legend(content.get("labels"), content.get(ORDER))
    items = _nnunet_items(root, content) if _is_nnunet(content) else _json_items(content)
    whole = [item for item in items if item.mask]
    if not whole:
        raise DatasetError("dataset.json names no image with a mask; give each item image and label, two files")
    images, remarks = images_of_names(root, [item.names for item in whole], what=DATASET_JSON)
    masks, of_masks = locate_masks(
        root, [(item.mask,) for item in whole], [image for image, _ in images], what=DATASET_JSON
    )
    entries = [
        Entry(
            image, name, label, item.group or name, item.split, item.metadata, mask=mask,
            annotator_masks={
                who: path for who, file in item.annotators.items() if (path := inside_of(root, file)) is not None
            },
        )
        for (image, name), (mask, label), item in zip(images, masks, whole, strict=True)
    ]  # fmt: skip
    if missing := len(items) - len(whole):
        remarks = (*remarks, remark("images_without_mask", missing))
    names = content.get("channel_names") or content.get("modality")
    first = names.get("0") if isinstance(names, dict) else None
    title = content.get("name", "")
    return Layout(
        legend.names,
        entries,
        title=title if isinstance(title, str) and is_fit(title) else "",
        task=task_for("mask"),
        modality=first if isinstance(first, str) else "",
        spatial_dims=SPATIAL_DIMS.get(str(content.get("tensorImageSize"))),
        remarks=(*remarks, *of_masks),
        source=DATASET_JSON,
        legend=legend,
        codes=codes_of(legend.names, content.get("codes")),
    )


@dataclass(frozen=True)
class _Item:
    """An image as dataset.json names it; without a mask, `mask` is ""."""

    split: str
    names: tuple[str, ...]
    mask: str
    group: str = ""
    metadata: Metadata = field(default_factory=dict)
    annotators: Mapping[int, str] = field(default_factory=dict)


def _json_items(content: Mapping[str, Any]) -> list[_Item]:
    items = []
    for position, (split, item) in enumerate(_listed(content)):
        place = f"dataset.json: item {position} of the lists"
        if isinstance(item, str):  # the Decathlon's test split
            items.append(_Item(split, image_names(item, place), ""))
            continue
        if not isinstance(item, dict):
            raise DatasetError(f'{place} must be an object like {{"image": "./i/1.nii.gz", "label": "./l/1.nii.gz"}}')
        mask, group = item.get("label"), item.get("group", "")
        if not (mask is None or (isinstance(mask, str) and mask.strip())) or not isinstance(group, str):
            raise DatasetError(f"{place} must have label as the name of a mask, and group as a text; correct it")
        items.append(
            _Item(split, image_names(item.get("image"), place), mask or "", group, json_metadata(item, place),
                  _annotators(item.get(ANNOTATOR_MASKS), place))
        )  # fmt: skip
    return items


def _annotators(value: Any, place: str) -> dict[int, str]:
    """The file of each annotator by number."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and who.isascii() and who.isdigit() and len(who) < 7 for who, name in value.items()
    ):
        raise DatasetError(f"{place} must have {ANNOTATOR_MASKS} as an object of numbers and files; correct it")
    return {int(who): name for who, name in value.items()}


def _nnunet_items(root: Path, content: Mapping[str, Any]) -> list[_Item]:
    """The cases of imagesTr and imagesTs: `CASE_0000.ENDING`, `CASE_0001.ENDING`, ... with `labelsTr/CASE.ENDING`."""
    ending, channels = content["file_ending"], content.get("channel_names") or content.get("modality")
    if not isinstance(ending, str) or not isinstance(channels, dict) or not channels:
        raise DatasetError("dataset.json: file_ending must be a text and channel_names an object, as nnU-Net has them")
    items = []
    for folder, (masks, split) in FOLDERS.items():
        files, labelled = (
            {path.name for path in visible(root / each)} if (root / each).is_dir() else set()
            for each in (folder, masks)
        )
        told = [re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", name) for name in sorted(files)]
        cases = sorted({each[1] for each in told if each})
        if more := [each[0] for each in told if each and int(each[2]) >= len(channels)]:
            raise DatasetError(
                f"{folder} has channels that channel_names lacks: {len(more)} ({some_of(more)}); name or remove them"
            )
        if orphans := sorted(
            name for name in labelled if name.endswith(ending) and name.removesuffix(ending) not in cases
        ):
            raise DatasetError(
                f"{masks} has masks without an image in {folder}: {len(orphans)} ({some_of(orphans)}); add the images, "
                f"named like {orphans[0].removesuffix(ending)}_0000{ending}, or remove the masks"
            )
        for case in cases:
            names = [f"{case}_{channel:04}{ending}" for channel in range(len(channels))]
            if lacking := sorted(set(names) - files):
                raise DatasetError(f"{folder} lacks {some_of(lacking)} of the case {case}; add it, or remove the case")
            mask = f"{masks}/{case}{ending}" if f"{case}{ending}" in labelled else ""
            items.append(_Item(split, tuple(f"{folder}/{name}" for name in names), mask))
    return items
