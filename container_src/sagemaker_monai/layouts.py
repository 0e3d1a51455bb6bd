"""The three ways in which people lay out pictures and classes: dataset.json, class folders, one CSV file.

Each becomes a list of entries; whether they make a data set to train on is decided in `datasets`. Nothing outside the
channels is read, and nothing in them is written.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images import IMAGE_SUFFIXES
from sagemaker_monai.splitting import SPLITS
from sagemaker_monai.tables import read_table, some_of

DATASET_JSON = "dataset.json"
MAX_DATASET_JSON_BYTES = 1 << 28  # 256 MiB is a million images
SPLIT_NAMES = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
PRETRAINED = "pretrained"  # the channel of weights, not of pictures
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")  # and what no file name can be made of
DRIVE = re.compile(r"[A-Za-z]:")
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
Metadata = dict[str, str | float | None]


@dataclass(frozen=True)
class Entry:
    """One picture as its layout describes it; `split` is None where the layout says nothing."""

    image: Path
    name: str
    label: str
    group: str
    split: str | None
    metadata: Metadata


@dataclass(frozen=True)
class Layout:
    """What one channel holds.

    `labels` are in model order, and may name classes without a picture; `title` is what the data set calls itself.
    """

    labels: tuple[str, ...]
    entries: list[Entry]
    title: str = ""


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden files, litter and the manifests that SageMaker writes beside data."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if not path.name.startswith(".")
            and path.name.lower() not in LITTER
            and not path.name.endswith(("-manifest", ".manifest"))
        ),
        key=lambda path: path.name,
    )


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the file that a name in a table means below the channel; none if it cannot be such a name."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or DRIVE.fullmatch(parts[0]):
        return ()
    # Not all that cannot be printed: macOS puts U+202F into names of screenshots.
    return () if CONTROL.search(name) else parts


def _inside(root: Path, real_root: str, name: str) -> Path | None:
    """The file that a name in a table means, or None if it would lead out of the channel."""
    if not (parts := _parts(name)):
        return None
    path = root.joinpath(*parts)
    return path if os.path.realpath(path).startswith(real_root + os.sep) else None


def _locate(root: Path, names: list[str], *, what: str) -> list[Path]:
    """Find the files that a table names.

    Raises:
        DatasetError: a name leads out of the channel, comes twice, or there is no such file.
    """
    real_root = os.path.realpath(root)
    paths = [_inside(root, real_root, name) for name in names]
    if outside := [name for name, path in zip(names, paths, strict=True) if path is None]:
        raise DatasetError(
            f"{what} names images outside its channel: {len(outside)} ({some_of(outside)}); "
            "use paths relative to it with /, without .. or links that lead out"
        )
    if twice := sorted(name for name, count in Counter(map(str, map(PurePosixPath, names))).items() if count > 1):
        raise DatasetError(
            f"{what} names images more than once: {len(twice)} ({some_of(twice)}); keep one line for each"
        )
    found = [path for path in paths if path is not None]
    if missing := [name for name, path in zip(names, found, strict=True) if not os.path.isfile(path)]:  # noqa: PTH113 - pathlib raises if too long
        raise DatasetError(
            f"{what} names images that are not in the channel: {len(missing)} of {len(names)} ({some_of(missing)}); "
            "add the files or remove their lines"
        )
    return found


def _json_object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_DATASET_JSON_BYTES:
        raise DatasetError(f"dataset.json is larger than {MAX_DATASET_JSON_BYTES >> 20} MiB; it must only list images")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DatasetError(f"dataset.json is not JSON: {' '.join(str(error)[:200].split())}; write it again") from error
    if not isinstance(content, dict):
        raise DatasetError("dataset.json must be a JSON object with labels and training")
    return content


def _json_labels(content: dict[str, Any]) -> tuple[str, ...]:
    labels = content.get("labels")
    sound = isinstance(labels, dict) and all(isinstance(name, str) and name.strip() for name in labels.values())
    if not isinstance(labels, dict) or not sound or set(labels) != {str(index) for index in range(len(labels))}:
        raise DatasetError(
            'dataset.json: labels must map "0", "1", ... without a gap to class names, like {"0": "akiec", "1": "bcc"}'
        )
    ordered = tuple(labels[str(index)] for index in range(len(labels)))
    if len(set(ordered)) < len(ordered):
        raise DatasetError(f"dataset.json: labels names a class twice ({some_of(sorted(ordered))}); keep one of each")
    return ordered


def _json_metadata(item: dict[str, Any], place: str) -> Metadata:
    metadata: Metadata = {}
    for key, value in item.items():
        if key in ("image", "label", "group"):
            continue
        if value is None or isinstance(value, str):
            metadata[key] = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            metadata[key] = number if math.isfinite(number) else None
        else:
            raise DatasetError(f"{place}: {key[:60]} must be a text, a number or null; correct it")
    return metadata


def listed_images(root: Path) -> set[str]:
    """The names of a channel's pictures as its dataset.json has them, whether the files are there or not.

    Raises:
        DatasetError: it is not sound, or a name leads out of the channel.
    """
    _, items = _json_items(_json_object(root / DATASET_JSON))
    names = {item["image"]: "/".join(_parts(item["image"])) for _, item in items}
    if outside := [name for name, inside in names.items() if not inside]:
        raise DatasetError(f"dataset.json names images outside its channel: {len(outside)} ({some_of(outside)})")
    return set(names.values())


def _json_items(content: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, dict[str, Any]]]]:
    """The classes, and the split and description of every picture."""
    labels = _json_labels(content)
    items: list[tuple[str, dict[str, Any]]] = []
    for split in SPLITS:
        listed = content.get(split, [])
        if not isinstance(listed, list):
            raise DatasetError(f"dataset.json: {split} must be a list of images, got {type(listed).__name__}")
        for position, item in enumerate(listed):
            place = f"dataset.json: {split}[{position}]"
            if not isinstance(item, dict):
                raise DatasetError(f'{place} must be an object like {{"image": "./images/1.jpg", "label": "nv"}}')
            index = item.get("label")
            if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(labels):
                item = {**item, "label": labels[index]}  # the Decathlon's own way to name a class
            for key in ("image", "label"):
                if not isinstance(item.get(key), str) or not item[key].strip():
                    raise DatasetError(f"{place} must have {key} as a text; correct it")
            if not isinstance(item.get("group", ""), str):
                raise DatasetError(f"{place}: group must be a text, like a patient or lesion id")
            items.append((split, item))
    return labels, items


def _read_dataset_json(root: Path) -> Layout:
    """The Medical Segmentation Decathlon layout with `group`, as `prepare` writes it."""
    content = _json_object(root / DATASET_JSON)
    labels, items = _json_items(content)
    paths = _locate(root, [item["image"] for _, item in items], what=DATASET_JSON)
    entries = []
    for (split, item), path in zip(items, paths, strict=True):
        name = path.relative_to(root).as_posix()
        metadata = _json_metadata(item, f"dataset.json: {name}")
        entries.append(Entry(path, name, item["label"], item.get("group") or name, split, metadata))
    title = content.get("name", "")
    return Layout(labels, entries, title if isinstance(title, str) and title.isprintable() else "")


def _csv_files(root: Path) -> list[Path]:
    return [path for path in _visible(root) if path.suffix.lower() == ".csv" and path.is_file()]


def _read_csv(root: Path) -> Layout:
    """One CSV file `image,label[,group][,split]`; other columns are kept as metadata."""
    tables = _csv_files(root)
    if len(tables) > 1:
        raise DatasetError(
            f"the channel has several CSV files ({some_of([path.name for path in tables])}); "
            "keep the one that lists the images"
        )
    [table] = tables
    rows = read_table(table.read_bytes(), what=table.name, required=("image", "label"))
    for number, row in enumerate(rows, start=2):
        if not row["image"] or not row["label"]:
            raise DatasetError(f"{table.name}: row {number} has no image or no label; fill it in or remove the row")
        if "split" in row and row["split"].lower() not in SPLIT_NAMES:
            raise DatasetError(
                f"{table.name}: row {number} has split {row['split'][:60]!r}; use training, validation or test"
            )
    paths = _locate(root, [row["image"] for row in rows], what=table.name)
    entries = []
    for row, path in zip(rows, paths, strict=True):
        name = path.relative_to(root).as_posix()
        split = SPLIT_NAMES[row["split"].lower()] if "split" in row else None
        extra: Metadata = {
            key: value or None for key, value in row.items() if key not in ("image", "label", "group", "split")
        }
        entries.append(Entry(path, name, row["label"], row.get("group") or name, split, extra))
    return Layout(tuple(sorted({entry.label for entry in entries})), entries)


def _class_entries(root: Path, folder: Path, split: str | None) -> Iterator[Entry]:
    """The pictures in `folder/CLASS/`."""
    for class_folder in _visible(folder):
        if not class_folder.is_dir():
            continue
        files = _visible(class_folder)
        if odd := [path.relative_to(root).as_posix() for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]:
            raise DatasetError(
                f"class folder {class_folder.name} holds what is no picture of a known type: {len(odd)} "
                f"({some_of(odd)}); remove them or convert them, accepted are {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        names = [path.relative_to(root).as_posix() for path in files]
        for name, path in zip(names, _locate(root, names, what=f"class folder {class_folder.name}"), strict=True):
            yield Entry(path, name, class_folder.name, name, split, {})


def _read_class_folders(root: Path) -> Layout:
    """`CLASS/*`, or `train/CLASS/*` with or without `val/` and `test/`. A picture is a group of its own."""
    folders = [path for path in _visible(root) if path.is_dir()]
    splits = {path: SPLIT_NAMES.get(path.name.lower()) for path in folders}
    if len(set(splits.values())) > 1 and None in splits.values():
        others = [path.name for path, split in splits.items() if split is None]
        raise DatasetError(
            f"the channel mixes split folders with others ({some_of(others)}); "
            "put every class into train/, val/ or test/"
        )
    if len(set(splits.values())) < len(folders) and None not in splits.values():
        raise DatasetError(f"two folders are for one split ({some_of([f.name for f in folders])}); join them")
    places = [(root, None)] if None in splits.values() else list(splits.items())
    loose = [
        path.relative_to(root).as_posix()
        for folder in {root: None, **dict(places)}
        for path in _visible(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
    ]
    if loose:
        raise DatasetError(
            f"images outside the class folders: {len(loose)} ({some_of(loose)}); "
            "put each into the folder of its class, or remove them"
        )
    entries = [entry for folder, split in places for entry in _class_entries(root, folder, split)]
    classes = {path.name for folder, _ in places for path in _visible(folder) if path.is_dir()}
    return Layout(tuple(sorted(classes)), entries)


# The first layout whose mark is in the channel reads it.
LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Layout]]] = {
    DATASET_JSON: (lambda root: (root / DATASET_JSON).is_file(), _read_dataset_json),
    "CSV file": (lambda root: bool(_csv_files(root)), _read_csv),
    "class folders": (lambda root: any(path.is_dir() for path in _visible(root)), _read_class_folders),
}


def _read_channel(name: str, root: Path) -> Layout:
    if not root.is_dir() or not _visible(root):
        raise DatasetError(f"channel {name} is {'empty' if root.is_dir() else 'missing'}; give it a data set")
    for is_there, read in LAYOUTS.values():
        if is_there(root):
            return read(root)
    raise DatasetError(
        f"channel {name} has no dataset.json, no class folders and no CSV file of images "
        f"(it holds {some_of([path.name for path in _visible(root)])}); "
        "prepare a downloaded archive first: python -m sagemaker_monai.prepare"
    )


def _split_channels(channels: Mapping[str, Path]) -> dict[str, str]:
    """Channel name -> the split that its name stands for."""
    named = [name for name in channels if name != PRETRAINED]
    if len(named) == 1 and named[0].lower() not in SPLIT_NAMES:
        return {named[0]: "training"}
    splits = {name: SPLIT_NAMES[name.lower()] for name in named if name.lower() in SPLIT_NAMES}
    if "training" not in splits.values():
        raise DatasetError(
            f"there is no training channel (channels: {some_of(sorted(named)) or 'none'}); name one training"
        )
    if idle := sorted(set(named) - set(splits)):
        raise DatasetError(
            f"channels that would have no effect: {some_of(idle)}; name images {', '.join(SPLITS)} and weights "
            f"{PRETRAINED}, or leave the channels out"
        )
    if len(set(splits.values())) < len(splits):
        raise DatasetError(f"two channels are for one split ({some_of(sorted(splits))}); give one of them")
    return splits


def read_channels(channels: Mapping[str, Path]) -> Layout:
    """Read the channel `training` (`train`, or the only one), and `validation` and `test` where there are some.

    Args:
        channels: name and folder of each; that of weights (`pretrained`) is passed over.

    Returns:
        Classes and pictures; with several channels a name begins with its channel's.

    Raises:
        DatasetError: a channel is missing, empty, in no known layout, of no known use, the folder of another channel,
            or names a split that another channel is for.
    """
    splits = _split_channels(channels)
    if len(splits) == 1:
        [name] = splits
        return _read_channel(name, channels[name])
    if len({os.path.realpath(channels[name]) for name in splits}) < len(splits):
        raise DatasetError(
            f"two channels are one folder ({some_of(sorted(splits))}): the model would be scored with images that it "
            "has learned from; give each its own images, or only the training channel, from which the others are drawn"
        )
    layouts = {name: _read_channel(name, channels[name]) for name in splits}
    entries = []
    for name, layout in layouts.items():
        for entry in layout.entries:
            if entry.split not in (None, splits[name]):
                raise DatasetError(
                    f"channel {name} has images for {entry.split} ({some_of([entry.name])}) beside other channels for "
                    "splits; give either one channel with all splits or one channel for each"
                )
            prefixed = f"{name}/{entry.name}"
            group = prefixed if entry.group == entry.name else entry.group
            entries.append(replace(entry, name=prefixed, group=group, split=splits[name]))
    declared = {layout.labels for layout in layouts.values()}
    labels = declared.pop() if len(declared) == 1 else tuple(sorted({label for names in declared for label in names}))
    return Layout(labels, entries)
