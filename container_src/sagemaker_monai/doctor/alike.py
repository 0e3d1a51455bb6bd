"""Duplicate images: equal bytes, equal pixels, and photographs that look alike.

Equal pixels are equal values in the modality's unit. So a file is also a copy if it is compressed without loss, has
another bit depth and another rescale, or was converted from DICOM to PNG.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sagemaker_monai.doctor.examined import Examined
from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.images.fingerprints import THUMBNAIL_SIDE, find_near_identical
from sagemaker_monai.messages.remarks import Remark, found
from sagemaker_monai.storage.files import sha256_of

MAX_COMPARED = 10_000  # photographs, each with each: 3 s of one core


def equal_files(files: Sequence[FileFacts]) -> list[list[int]]:
    """Positions of image files with equal bytes. Only files of equal size and equal pixels are read."""
    alike: Mapping[object, list[int]] = defaultdict(list)
    for position, facts in enumerate(files):
        if facts.is_image and facts.size_bytes:
            alike[facts.size_bytes, facts.pixels.digest if facts.pixels else b""].append(position)
    groups: Mapping[object, list[int]] = defaultdict(list)
    for key, positions in alike.items():
        for position in positions if len(positions) > 1 else ():
            try:
                groups[key, sha256_of(files[position].found.path)].append(position)
            except OSError:
                continue
    return [group for group in groups.values() if len(group) > 1]


def find_duplicates(images: Sequence[Examined], files: Sequence[FileFacts]) -> tuple[dict[str, int], list[Remark]]:
    """Find copies, above all across splits, labels and patients; returns counts for the report, and remarks."""
    of_images = {position for image in images for position in image.files}  # and not of masks, of which many are empty
    same_bytes = [[position for position in group if position in of_images] for group in equal_files(files)]
    same_bytes = [group for group in same_bytes if len(group) > 1]
    byte_copies = {position: group[0] for group in same_bytes for position in group}
    keys: Mapping[object, list[Examined]] = defaultdict(list)
    for image in images:
        if image.digest:
            keys[image.digest].append(image)
        elif image.files and all(position in byte_copies for position in image.files):
            keys[tuple(sorted(byte_copies[position] for position in image.files))].append(image)
    groups = [group for group in keys.values() if len(group) > 1]
    torn = {
        "duplicates_across_splits": _where(groups, lambda image: {image.split} - {None}),
        "duplicates_label_conflict": _where(groups, lambda image: {image.names} if image.is_labelled else set()),
        "duplicates_across_patients": _where(groups, lambda image: {image.patient} - {""}),
    }
    extra_bytes = [position for group in same_bytes for position in group[1:]]
    others = [
        image.example
        for group in groups
        for image in group[1:]
        if not all(position in byte_copies for position in image.files)
        # Equal slices of one series are a finding of that series.
        and (image.is_labelled or not image.series or image.series != group[0].series)
    ]
    apart, across = _near_identical(images, files)
    remarks = [
        *(each for code, examples in torn.items() for each in found(code, examples)),
        *found("duplicate_bytes", [position + 1 for position in extra_bytes]),
        *found("duplicate_pixels", others),
        *found("near_identical_across_splits", across),
        *found("near_identical", apart),
    ]
    counts = {"equal_bytes": len(extra_bytes), "equal_pixels": len(others), "near_identical": len(apart) + len(across)}
    return counts, remarks


def _where(groups: Iterable[Sequence[Examined]], values: Callable[[Examined], set[Any]]) -> list[int]:
    """Examples of the images in groups whose values differ."""
    torn = (group for group in groups if len(set[Any]().union(*map(values, group))) > 1)
    return [image.example for group in torn for image in group]


def _near_identical(images: Sequence[Examined], files: Sequence[FileFacts]) -> tuple[list[int], list[int]]:
    """Examples of photographs that look like another one of the same split, and of another split."""
    photographs = []
    for image in images:
        pixels = files[image.files[0]].pixels if len(image.files) == 1 else None
        if pixels is not None and pixels.thumbnail and pixels.digest:
            photographs.append((image, pixels.thumbnail))
    if not 2 <= len(photographs) <= MAX_COMPARED:
        return [], []
    side = THUMBNAIL_SIDE
    thumbnails = np.stack([np.frombuffer(data, np.uint8).reshape(side, side) for _, data in photographs])
    apart: list[int] = []
    across: list[int] = []
    for pair in find_near_identical(thumbnails.astype(np.float32)):
        first, second = photographs[pair.first][0], photographs[pair.second][0]
        if first.digest == second.digest or (first.group and first.group == second.group):
            continue
        is_across = None not in (first.split, second.split) and first.split != second.split
        (across if is_across else apart).append(second.example)
    return apart, across
