"""Images that are there more than once: by bytes, by pixels, and photographs that look alike.

Equal pixels are equal values in the modality's unit, so a file compressed without loss, of another bit depth with
another rescale, or converted from DICOM to PNG as it is, is a copy too.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sagemaker_monai.doctor.examined import Examined
from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.images.fingerprints import THUMBNAIL_SIDE, find_near_identical
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.storage.files import sha256_of

MAX_COMPARED = 10_000  # photographs, each with each: 3 s of one core


def equal_files(files: Sequence[FileFacts]) -> list[list[int]]:
    """Positions of image files that are byte for byte the same. Only those of one size and one picture are read."""
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
    """Find copies, and those that matter: across splits, labels, patients.

    Returns:
        Counts for the report, and what is wrong.
    """
    same_bytes = equal_files(files)
    byte_copies = {position: group[0] for group in same_bytes for position in group}
    keys: Mapping[object, list[Examined]] = defaultdict(list)
    for image in images:
        if image.digest:
            keys[image.digest].append(image)
        elif image.files and all(position in byte_copies for position in image.files):
            keys[tuple(sorted(byte_copies[position] for position in image.files))].append(image)
    groups = [group for group in keys.values() if len(group) > 1]
    found = {
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
        # Slices of one series with equal pixels are the subject of its own findings.
        and (image.is_labelled or not image.series or image.series != group[0].series)
    ]
    remarks = [remark(code, len(examples), examples) for code, examples in found.items() if examples]
    if extra_bytes:
        remarks.append(remark("duplicate_bytes", len(extra_bytes), [position + 1 for position in extra_bytes]))
    if others:
        remarks.append(remark("duplicate_pixels", len(others), others))
    near, near_remarks = _near_identical(images, files)
    counts = {"equal_bytes": len(extra_bytes), "equal_pixels": len(others)}
    return {**counts, "near_identical": near}, remarks + near_remarks


def _where(groups: Iterable[Sequence[Examined]], values: Callable[[Examined], set[Any]]) -> list[int]:
    """Examples of the images of those groups in which a value differs."""
    torn = (group for group in groups if len(set[Any]().union(*map(values, group))) > 1)
    return [image.example for group in torn for image in group]


def _near_identical(images: Sequence[Examined], files: Sequence[FileFacts]) -> tuple[int, list[Remark]]:
    photographs = []
    for image in images:
        pixels = files[image.files[0]].pixels if len(image.files) == 1 else None
        if pixels is not None and pixels.thumbnail and pixels.digest:
            photographs.append((image, pixels.thumbnail))
    if not 2 <= len(photographs) <= MAX_COMPARED:
        return 0, []
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
    remarks = [
        remark(code, len(found), found)
        for code, found in (("near_identical_across_splits", across), ("near_identical", apart))
        if found
    ]
    return len(apart) + len(across), remarks
