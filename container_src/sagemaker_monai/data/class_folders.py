"""Folders by class: `CLASS/*`, `train/CLASS/*`, also a level too deep, and with patients below.

A folder below a class has the files of one DICOM series, or, if there are pictures or volumes in it, of one patient.
Ambiguous trees are refused: if many folders have the same few subfolders, either may be the classes or the patients.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.data.entries import IMAGE_NAMES, Entry, Layout, is_image, locate, visible
from sagemaker_monai.data.mask_files import set_masks_aside
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import split_of
from sagemaker_monai.storage.files import plain_files
from sagemaker_monai.storage.tables import is_table

MAX_DEPTH = 8  # of folders that hold one folder and nothing else


@dataclass(frozen=True)
class _Found:
    """An image, its class, the split from its folders, and the folder below its class, or ""."""

    path: Path
    label: str
    split: str | None
    below: str = ""


def read_class_folders(root: Path) -> Layout:
    """The images of folders by class. An image outside a patient's folder is its own group.

    Raises:
        DatasetError: splits mixed with classes, images outside of classes, files that are not images, or folders that
            could be classes or patients.
    """
    inner = levels(root)[-1]
    places, passed_over = _places(inner)
    _refuse_loose(root, [inner, *(place for place, _ in places)])
    classes: dict[str, None] = {}
    found: list[_Found] = []
    for place, split in places:
        for folder in visible(levels(place)[-1]):
            if folder.is_dir():
                classes[folder.name] = None
                found += _images_of(root, folder, split)
    aside = set_masks_aside([each.path for each in found], root)
    images = [each for each in found if each.path not in aside.masks]
    emptied = {each.label for each in found} - {each.label for each in images}
    told, remarks = _with_patients(images)
    if passed_over:
        remarks.append(remark("folders_passed_over", len(passed_over)))
    if inner != root:
        remarks.append(remark("data_set_below", len(inner.relative_to(root).parts)))
    names = [each.path.relative_to(root).as_posix() for each in told]
    paths, _ = locate(root, names, what="the class folders")
    entries = [
        Entry(path, name, each.label, each.below or name, each.split, {})
        for path, name, each in zip(paths, names, told, strict=True)
    ]
    labels = tuple(sorted(set(classes) - emptied))
    return Layout(labels, entries, source="class folders", remarks=tuple(remarks), aside=aside)


def levels(root: Path) -> list[Path]:
    """A folder, and the folders where its data set may really begin: each the only folder in the one before.

    The search stops at a folder of a split, one with images, or one whose only folders may be DICOM series, which is
    the only class of a set to score.
    """
    found = [root]
    for _ in range(MAX_DEPTH):
        inside = visible(found[-1])
        folders = [path for path in inside if path.is_dir()]
        if len(folders) != 1 or split_of(folders[0].name) or any(is_image(path) for path in inside if path.is_file()):
            break
        below = visible(folders[0])
        is_list = any(path.name == DATASET_JSON or is_table(path) for path in below)
        if not is_list and not any(map(_is_deeper, below)):
            break
        found.append(folders[0])
    return found


def _is_deeper(path: Path) -> bool:
    """Whether a folder contains pictures or folders, and so is not a DICOM series."""
    return path.is_dir() and (_has_pictures(path) or any(each.is_dir() for each in visible(path)))


def _has_pictures(folder: Path) -> bool:
    """Whether a folder contains files with names of images other than slices."""
    return any(file.name.lower().endswith(_NOT_SLICES) for file in plain_files(folder))


_NOT_SLICES = tuple(IMAGE_NAMES - {".dcm", ".dicom", ".dic", ".ima"})


def _places(root: Path) -> tuple[list[tuple[Path, str | None]], list[Path]]:
    """The parents of class folders, each with its split; and folders without images beside splits."""
    folders = [path for path in visible(root) if path.is_dir()]
    splits = {path: split_of(path.name) for path in folders}
    if not any(splits.values()):
        return [(root, None)], []
    empty = [path for path, split in splits.items() if split is None and not any(map(is_image, plain_files(path)))]
    if others := [path.name for path, split in splits.items() if split is None and path not in empty]:
        raise DatasetError(
            f"the channel mixes split folders with others ({some_of(others)}); "
            "put every class into train/, val/ or test/"
        )
    told = [(path, split) for path, split in splits.items() if split]
    if len({split for _, split in told}) < len(told):
        raise DatasetError(f"two folders are for one split ({some_of([path.name for path, _ in told])}); join them")
    return list(told), empty


def _refuse_loose(root: Path, folders: Sequence[Path]) -> None:
    loose = [
        path.relative_to(root).as_posix()
        for folder in dict.fromkeys(folders)
        for path in visible(folder)
        if not path.is_dir() and is_image(path)
    ]
    if loose:
        raise DatasetError(
            f"images outside the class folders: {len(loose)} ({some_of(loose)}); "
            "put each into the folder of its class, or remove them"
        )


def _images_of(root: Path, folder: Path, split: str | None) -> list[_Found]:
    """The images of a class: files, folders of a DICOM series, and the files in other folders."""
    found, odd = [], []
    for path in visible(folder):
        if path.is_dir() and _has_pictures(path):
            files = list(plain_files(path))
            odd += [file for file in files if not is_image(file)]
            found += [_Found(file, folder.name, split, path.name) for file in files]
        elif is_image(path):
            found.append(_Found(path, folder.name, split))
        elif not path.is_dir() or any(plain_files(path)):  # folders without files are ignored
            odd.append(path)
    if odd:
        names = [path.relative_to(root).as_posix() for path in odd]
        raise DatasetError(
            f"class folder {folder.name} holds files that are not images of a known type: {len(odd)} "
            f"({some_of(names)}); remove or convert them; known are DICOM, {', '.join(sorted(IMAGE_NAMES))}"
        )
    return found


def _with_patients(found: list[_Found]) -> tuple[list[_Found], list[Remark]]:
    """Interpret the folders below classes: as patients, as splits, or not at all."""
    holders = {(each.label, each.below) for each in found if each.below}
    owners = Counter(below for _, below in holders)
    if not owners:
        return found, []
    if all(split_of(below) for below in owners) and all(each.below and not each.split for each in found):
        told = [_Found(each.path, each.label, split_of(each.below)) for each in found]
        return told, [remark("splits_below_classes", len(owners))]
    if len(owners) == 1:
        return [_Found(each.path, each.label, each.split) for each in found], []
    tops = {label for label, _ in holders}
    if len(tops) >= len(owners) and min(owners.values()) > 1:
        raise DatasetError(
            f"{len(tops)} folders have the same {len(owners)} subfolders ({some_of(sorted(owners))}), so either may be "
            "the classes and the others the patients; list label and patient of each image in a table "
            "(image,label,group)"
        )
    return found, [remark("patients_below_classes", len(owners), images=sum(bool(each.below) for each in found))]
