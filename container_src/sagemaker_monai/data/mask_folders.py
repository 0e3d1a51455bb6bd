"""Folders of images with their masks and without dataset.json, for a run that was told to learn from masks.

`mask_files` tells masks from images and finds the image of each. What stands in no file is not guessed: masks of one
value besides 0 have one structure; masks of several values need names, in `labels.json` or dataset.json; and an image
with several masks, or a mask with several images, needs a line in dataset.json, unless the masks are numbered parts of
one (`7_mask.png`, `7_mask_1.png`). Folders with one file for each structure (TotalSegmentator: `s0001/ct.nii.gz`,
`s0001/segmentations/liver.nii.gz`) name them.

A folder with several images may be a patient or a class of images. Patients are many and classes few, so folders are
groups from FEWEST_FOLDERS on; below that each image is its own group, which the remark `no_groups` says.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sagemaker_monai.data.class_folders import levels
from sagemaker_monai.data.entries import (
    BETWEEN_SEQUENCES,
    SUFFIXES,
    VOLUME_NAMES,
    Aside,
    Entry,
    Image,
    Layout,
)
from sagemaker_monai.data.legends import Legend, read_legend
from sagemaker_monai.data.mask_files import owner_of, set_masks_aside
from sagemaker_monai.data.mask_layouts import FOLDERS
from sagemaker_monai.data.mask_reading import grid_of
from sagemaker_monai.data.structure_codes import codes_of
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.images.sample import Sequences
from sagemaker_monai.masks.mask import Parts
from sagemaker_monai.masks.mask_values import values_in
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.masks.structure_files import structure_of
from sagemaker_monai.messages.remarks import remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import split_of
from sagemaker_monai.storage.files import plain_files
from sagemaker_monai.tasks.tasks import task_for

LABELS_JSON = "labels.json"  # what `labels` of dataset.json says, alone
ONE_STRUCTURE = "structure"
FEWEST_FOLDERS = 10  # that are groups (a guess)
_OF_STRUCTURES = "segmentations"  # the folder that TotalSegmentator writes
_MOST_BYTES = 1 << 16  # of labels.json
_LOOKED_AT = 8  # masks that show something, to know whether there is one structure
_CHANNEL = re.compile(r"(.+)_(\d{4})")  # of nnU-Net
_PART = re.compile(r"(.*[^\W\d_])[ _.-]*\(?(\d{1,3})\)?")  # 7_mask_1, 7_mask (1), 7_mask1
_REMEDY = "name the image and the mask of each in dataset.json"


@dataclass(frozen=True)
class Pair:
    """An image with its mask."""

    image: Image
    mask: Path | Parts

    @property
    def masks(self) -> tuple[Path, ...]:
        """The files of the mask."""
        return self.mask.files if isinstance(self.mask, Parts) else (self.mask,)


def read_mask_folders(root: Path) -> Layout:
    """The layout of a channel without dataset.json whose labels are masks.

    Raises:
        DatasetError: no masks, or it is not clear which mask is of which image or what its values mean.
    """
    files = [path for path in plain_files(root) if path.name.lower().endswith(SUFFIXES)]
    folders = _folders_of_structures(files)
    doubtful: tuple[Path, ...] = ()
    if folders:
        pairs = [Pair(image, folder) for folder, image in folders.items()]
        legend = _legend_of_files(list(folders))
        rest = [path for path in files if path not in folders.values() and path.parent not in folders]
    else:
        aside = set_masks_aside(files, root)
        doubtful = aside.doubtful
        pairs, rest = _pairs_of(aside)
        legend = legend_of(root, pairs)
    entries = _entries(root, pairs)
    counts = {"images_without_mask": len(rest), "groups_by_folder": _count_groups(entries)}
    remarks = tuple(remark(code, count) for code, count in counts.items() if count)
    masks = {mask for pair in pairs for mask in pair.masks}
    images = tuple(path for path in files if path not in masks)
    return Layout(
        legend.names, entries, task=task_for("mask"), remarks=remarks, aside=Aside(images, {}, doubtful),
        source="mask folders", legend=legend, codes=codes_of(legend.names),
    )  # fmt: skip


def _folders_of_structures(files: Sequence[Path]) -> dict[Path, Path]:
    """Folders with one file for each structure, and the only volume beside each."""
    volumes: Mapping[Path, list[Path]] = defaultdict(list)
    for path in files:
        if path.name.lower().endswith(tuple(VOLUME_NAMES)):
            volumes[path.parent].append(path)
    found = {}
    for folder, inside in volumes.items():
        beside = volumes.get(folder.parent, [])
        is_named = folder.name.lower() == _OF_STRUCTURES and len(beside) == 1
        if is_named and structure_of(beside[0]) not in map(structure_of, inside):
            found[folder] = beside[0]
    return found


def _legend_of_files(folders: Sequence[Path]) -> Legend:
    """The structures that every folder has a file of, in the order of their names."""
    held = {folder: {name for path in plain_files(folder) if (name := structure_of(path))} for folder in folders}
    names = sorted(set().union(*held.values()))
    if lacking := sorted({name for own in held.values() for name in set(names) - own}):
        raise DatasetError(
            f"structures of which some cases have no file: {len(lacking)} ({some_of(lacking)}); add empty files "
            f"where a case does not have the structure, or list the structures that are wanted in dataset.json, with "
            f'"label": "s0001/{_OF_STRUCTURES}"'
        )
    return read_legend(["background", *names])


def _pairs_of(aside: Aside) -> tuple[list[Pair], list[Path]]:
    """Images with their masks, and images without one."""
    if not aside.masks:
        odd = f"; {len(aside.doubtful)} files are named like masks but show many values" if aside.doubtful else ""
        raise DatasetError(
            f"no mask was found beside the images{odd}: call them as their images, in a folder masks beside images or "
            f"with _mask at the end, or {_REMEDY}"
        )
    if orphans := [mask.name for mask, images in aside.masks.items() if not images]:
        raise DatasetError(f"masks without an image: {len(orphans)} ({some_of(orphans)}); add the images or {_REMEDY}")
    together: Mapping[tuple[Path, ...], list[Path]] = defaultdict(list)
    of_image: Mapping[Path, set[tuple[Path, ...]]] = defaultdict(set)
    for mask, images in aside.masks.items():
        together[images].append(mask)
        for image in images:
            of_image[image].add(images)
    unclear = [images for images, masks in together.items() if len(masks) > 1 and not _are_parts(masks)]
    if several := [image.name for image, of in of_image.items() if len(of) > 1 or not of.isdisjoint(unclear)]:
        raise DatasetError(
            f"images with several masks: {len(several)} ({some_of(several)}); join the structures of each to one mask "
            "of several values, and " + _REMEDY
        )
    pairs = [
        Pair(_channels(masks[0], images), Parts(tuple(sorted(masks))) if len(masks) > 1 else masks[0])
        for images, masks in together.items()
    ]
    return pairs, [image for image in aside.images if image not in of_image]


def _are_parts(masks: Sequence[Path]) -> bool:
    """Whether files are named as the parts of one mask: alike except for a number at the end."""
    told = [_PART.fullmatch(structure_of(path) or path.stem) for path in masks]
    bare = {(path.parent, match[1] if match else structure_of(path) or path.stem) for path, match in
            zip(masks, told, strict=True)}  # fmt: skip
    numbers = [int(match[2]) if match else None for match in told]
    return len(bare) == 1 and len(set(numbers)) == len(numbers)


def _channels(mask: Path, images: Sequence[Path]) -> Image:
    """The image of a mask: the only one, or nnU-Net's channels CASE_0000, CASE_0001, ... in their order."""
    if len(images) == 1:
        return images[0]
    ordered = sorted(images)
    told = [_CHANNEL.fullmatch(structure_of(path)) for path in ordered]
    if [each and (each[1], int(each[2])) for each in told] == [
        (structure_of(mask), channel) for channel in range(len(told))
    ]:
        return Sequences(tuple(ordered))
    raise DatasetError(
        f"a mask may be of several images ({mask.name}: {some_of([path.name for path in ordered])}), as channels or by "
        f"mistake; {_REMEDY}, with a list of the channels as image"
    )


def _named(root: Path) -> Legend | None:
    """What labels.json says of the values."""
    found = [place / LABELS_JSON for place in levels(root) if (place / LABELS_JSON).is_file()]
    if not found:
        return None
    try:
        with found[0].open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{LABELS_JSON} is not JSON, or larger than {_MOST_BYTES >> 10} KiB; write it again"
        ) from error
    try:
        return read_legend(content)
    except DatasetError as error:
        raise DatasetError(str(error).replace("dataset.json: labels", LABELS_JSON)) from error


def legend_of(root: Path, pairs: Sequence[Pair]) -> Legend:
    """What the values of masks mean: what labels.json says, or one structure.

    Raises:
        DatasetError: labels.json is not sound, or the masks have values that nothing names.
    """
    return _named(root) or _one_structure(root, pairs)


def _one_structure(root: Path, pairs: Sequence[Pair]) -> Legend:
    """The legend of masks with one value besides 0, by some of them; a mask with others is refused when it is read."""
    looked, reason = 0, ""
    step = max(1, len(pairs) // _LOOKED_AT)
    spread = [pair for start in range(step) for pair in pairs[start::step]]
    for pair in spread:
        try:
            mask = read_mask(pair.mask, grid_of(pair.image, None))
        except CallerError as error:  # train says so when it reads all of them
            reason = reason or str(error)
            continue
        values = [value for value in values_in(mask.values) if value]
        if mask.names or values not in ([], [1], [255]):
            shown = some_of([mask.names.get(value, str(value)) for value in values])
            raise DatasetError(
                f"the masks have values whose meaning nothing says ({shown}): write {LABELS_JSON} like "
                '{"0": "background", "1": "liver", "2": "tumour"} beside the folders of images and masks'
            )
        looked += bool(values)
        if looked == _LOOKED_AT:
            break
    if not looked:
        why = f"none can be used, the first because: {reason}" if reason else "all are empty; examine them with doctor"
        raise DatasetError(f"no mask shows anything: {why}")
    return Legend((1,), (_name_of_structure(root, pairs),))


def _name_of_structure(root: Path, pairs: Sequence[Pair]) -> str:
    """What the only folder of all masks is called besides mask (`lesion_masks`), or ONE_STRUCTURE."""
    folders = {mask.parent for pair in pairs for mask in pair.masks}
    words = [word for word in owner_of(next(iter(folders)) / "1.png", root) if split_of(word) is None]
    return "_".join(words) if len(folders) == 1 and words else ONE_STRUCTURE


def _count_groups(entries: Sequence[Entry]) -> int:
    """How many groups of several images there are."""
    return sum(count > 1 for count in Counter(entry.group for entry in entries).values())


def _entries(root: Path, pairs: Sequence[Pair]) -> list[Entry]:
    entries = []
    for pair in pairs:
        paths = pair.image.channels if isinstance(pair.image, Sequences) else (pair.image,)
        relative = paths[0].relative_to(root)
        splits = [FOLDERS[part][1] if part in FOLDERS else split_of(part) for part in relative.parts[:-1]]
        name = BETWEEN_SEQUENCES.join(path.relative_to(root).as_posix() for path in paths)
        group = "/".join(word for word in owner_of(paths[0], root) if split_of(word) is None)
        split = next((split for split in splits if split), None)
        label = BETWEEN_SEQUENCES.join(mask.relative_to(root).as_posix() for mask in pair.masks)
        entries.append(Entry(pair.image, name, label, group, split, {}, mask=pair.mask))
    are_groups = len({entry.group for entry in entries}) >= FEWEST_FOLDERS
    named = [replace(each, group=(are_groups and each.group) or each.name) for each in entries]
    return sorted(named, key=lambda entry: entry.name)
