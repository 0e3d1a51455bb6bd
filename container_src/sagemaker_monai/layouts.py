"""The three ways in which people lay out images and labels: dataset.json, class folders, one CSV file.

Each becomes a list of entries; whether they make a data set to train on is decided in `datasets`. Nothing outside the
channels is read, and nothing in them is written.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sagemaker_monai.columns import Columns, find_column, split_column, split_of, usual_column
from sagemaker_monai.dataset_json import DATASET_JSON, read_dataset_json
from sagemaker_monai.entries import (
    IMAGE_NAMES,
    Entry,
    Layout,
    Metadata,
    images_of_names,
    is_image,
    locate,
    name_parts,
    visible,
)
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.label_rules import Cells
from sagemaker_monai.masks import join_asides, mask_remarks, pass_over_masks
from sagemaker_monai.splitting import SPLITS
from sagemaker_monai.tables import is_table, read_table, some_of, table_content

NO_COLUMNS = Columns()
PRETRAINED = "pretrained"  # the channel of weights, not of images


def _csv_files(root: Path) -> list[Path]:
    return [path for path in visible(root) if is_table(path) and path.is_file()]


def _read_csv(root: Path, columns: Columns) -> Layout:
    """One CSV file `image,label[,group][,split]`; other columns are kept as metadata.

    `image` may be a series folder, and name several sequences with `;` between them. Labels stay as they are written.
    """
    tables = _csv_files(root)
    if len(tables) > 1:
        raise DatasetError(
            f"the channel has several CSV files ({some_of([path.name for path in tables])}); "
            "keep the one that lists the images"
        )
    [table] = tables
    content = table_content(table)
    rows = read_table(content, what=table.name, fits=lambda names: not _roles_missing(names, columns))
    if not rows:
        read_table(content, what=table.name, required=("image", "label"))
        raise DatasetError(f"{table.name} has no rows; it must list images")
    found = _columns_of(rows, columns, table.name)
    for row in rows:
        if not row[found.image]:
            raise DatasetError(f"{table.name}: row {row.number} has no image; fill it in or remove the row")
        if found.split and not split_of(row[found.split]):
            raise DatasetError(
                f"{table.name}: row {row.number} has split {row[found.split][:60]!r}; use training, validation or test"
            )
    names = [_sequences(root, row[found.image]) for row in rows]
    images, remarks = images_of_names(root, names, what=table.name)
    taken = {found.image, *found.label, found.group, found.split}
    entries = []
    for row, (image, name) in zip(rows, images, strict=True):
        extra: Metadata = {key: value or None for key, value in row.items() if key not in taken}
        cells = Cells({column: row[column] for column in found.label}) if len(found.label) > 1 else None
        label = "" if cells else row[found.label[0]]
        split = split_of(row[found.split]) if found.split else None
        entries.append(Entry(image, name, label, row.get(found.group) or name, split, extra, cells))
    return Layout(tuple(sorted({str(entry.label) for entry in entries})), entries, remarks=remarks, source="table")


def _sequences(root: Path, cell: str) -> tuple[str, ...]:
    """The names in a cell: one, or several with `;` between them, unless a file is called so."""
    is_one = ";" not in cell or (bool(name_parts(cell)) and (root / cell).is_file())
    return (cell,) if is_one else tuple(part.strip() for part in cell.split(";"))


def _roles_missing(names: Sequence[str], wanted: Columns) -> list[str]:
    """What a table has no column for, as far as nobody named one."""
    told = {"image": bool(wanted.image), "label": bool(wanted.label)}
    return [role for role, is_told in told.items() if not is_told and not usual_column(names, role)]


def _columns_of(rows: Sequence[Mapping[str, str]], wanted: Columns, what: str) -> Columns:
    """Which columns are for what; the group is the column of that name only, see `labelled` for others."""
    names = list(rows[0])
    if missing := _roles_missing(names, wanted):
        raise DatasetError(
            f"{what} has no column {some_of(missing)}; its first line must name the columns image, label"
        )
    image = find_column(names, wanted.image or usual_column(names, "image"), what)
    label = tuple(find_column(names, name, what) for name in wanted.label or [usual_column(names, "label")])
    rest = [name for name in names if name != image and name not in label]
    split = find_column(names, wanted.split, what) if wanted.split else split_column(rows, rest)
    group = usual_column([name for name in rest if name != split], "group")
    return Columns(image, label, group, split)


def _class_entries(root: Path, folder: Path, split: str | None) -> Iterator[Entry]:
    """The images in `folder/CLASS/`: files, and folders with the files of one DICOM series each."""
    for class_folder in visible(folder):
        if not class_folder.is_dir():
            continue
        files = visible(class_folder)
        if odd := [path.relative_to(root).as_posix() for path in files if not is_image(path)]:
            raise DatasetError(
                f"class folder {class_folder.name} holds what is no image of a known type: {len(odd)} "
                f"({some_of(odd)}); remove them or convert them, accepted are DICOM, {', '.join(sorted(IMAGE_NAMES))}"
            )
        names = [path.relative_to(root).as_posix() for path in files]
        paths, _ = locate(root, names, what=f"class folder {class_folder.name}")
        for name, path in zip(names, paths, strict=True):
            yield Entry(path, name, class_folder.name, name, split, {})


def _read_class_folders(root: Path) -> Layout:
    """`CLASS/*`, or `train/CLASS/*` with or without `val/` and `test/`. An image is a group of its own."""
    folders = [path for path in visible(root) if path.is_dir()]
    splits = {path: split_of(path.name) for path in folders}
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
        for path in visible(folder)
        if not path.is_dir() and is_image(path)
    ]
    if loose:
        raise DatasetError(
            f"images outside the class folders: {len(loose)} ({some_of(loose)}); "
            "put each into the folder of its class, or remove them"
        )
    entries = [entry for folder, split in places for entry in _class_entries(root, folder, split)]
    classes = {path.name for folder, _ in places for path in visible(folder) if path.is_dir()}
    return Layout(tuple(sorted(classes)), entries, source="class folders")


# The first layout whose mark is in the channel reads it.
LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, Columns], Layout]]] = {
    DATASET_JSON: (lambda root: (root / DATASET_JSON).is_file(), lambda root, _: read_dataset_json(root)),
    "CSV file": (lambda root: bool(_csv_files(root)), _read_csv),
    "class folders": (
        lambda root: any(path.is_dir() for path in visible(root)),
        lambda root, _: _read_class_folders(root),
    ),
}


def _read_channel(name: str, root: Path, columns: Columns) -> Layout:
    if not root.is_dir() or not visible(root):
        raise DatasetError(f"channel {name} is {'empty' if root.is_dir() else 'missing'}; give it a data set")
    for is_there, read in LAYOUTS.values():
        if is_there(root):
            layout = read(root, columns)
            return pass_over_masks(layout, root, is_table=layout.source != "class folders")
    raise DatasetError(
        f"channel {name} has no dataset.json, no class folders and no CSV file of images "
        f"(it holds {some_of([path.name for path in visible(root)])}); "
        "prepare a downloaded archive first: python -m sagemaker_monai.prepare"
    )


def _split_channels(channels: Mapping[str, Path]) -> dict[str, str]:
    """Channel name -> the split that its name stands for."""
    named = [name for name in channels if name != PRETRAINED]
    if len(named) == 1 and not split_of(named[0]):
        return {named[0]: "training"}
    splits = {name: split for name in named if (split := split_of(name))}
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


def read_channels(channels: Mapping[str, Path], columns: Columns = NO_COLUMNS) -> Layout:
    """Read the channel `training` (`train`, or the only one), and `validation` and `test` where there are some.

    Args:
        channels: name and folder of each; that of weights (`pretrained`) is passed over.
        columns: of tables, that somebody named.

    Returns:
        Classes and pictures; with several channels a name begins with its channel's. What labels mean, and who is a
        patient, is read by `labelled.read_labelled`.

    Raises:
        DatasetError: a channel is missing, empty, in no known layout, of no known use, the folder of another channel,
            or names a split that another channel is for.
    """
    splits = _split_channels(channels)
    if len(splits) == 1:
        [name] = splits
        layout = _read_channel(name, channels[name], columns)
        return replace(layout, remarks=layout.remarks + mask_remarks(layout.aside))
    if len({os.path.realpath(channels[name]) for name in splits}) < len(splits):
        raise DatasetError(
            f"two channels are one folder ({some_of(sorted(splits))}): the model would be scored with images that it "
            "has learned from; give each its own images, or only the training channel, from which the others are drawn"
        )
    layouts = {name: _read_channel(name, channels[name], columns) for name in splits}
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
    said = [(layout.task, layout.modality, layout.spatial_dims) for layout in layouts.values()]
    if len(set(said)) > 1:
        raise DatasetError("the channels are of different tasks or images; correct task, modality or tensorImageSize")
    task, modality, spatial_dims = said[0]
    remarks = tuple(dict.fromkeys(remark for layout in layouts.values() for remark in layout.remarks))
    aside = join_asides([layout.aside for layout in layouts.values()])
    sources = {layout.source for layout in layouts.values()}
    return Layout(
        labels,
        entries,
        task=task,
        modality=modality,
        spatial_dims=spatial_dims,
        source=sources.pop() if len(sources) == 1 else "",
        remarks=remarks + mask_remarks(aside),
        aside=aside,
    )
