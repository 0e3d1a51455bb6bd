"""A channel with a table that lists its images: `image,label[,group][,split]`, under any common column names.

A table with columns of images and labels takes precedence over class folders, and must list images of the channel.
Other tables (a data dictionary, a list of scanners) are skipped. Several tables are one data set if they are named
after its splits: train.csv, val.csv.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sagemaker_monai.data.entries import IMAGE_NAMES, Entry, Layout, Metadata, images_of_names, name_parts, visible
from sagemaker_monai.data.label_rules import Cells
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.remarks import remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import (
    SPELLINGS,
    Columns,
    find_column,
    is_missing,
    plain,
    split_column,
    split_of,
    usual_column,
    usual_columns,
)
from sagemaker_monai.storage.tables import Row, is_table, read_table, table_content

_OF_SPLITS = frozenset({"label", "labels", "data", "images", "list", "metadata", "gt", "df"})  # beside a split's name


@dataclass(frozen=True)
class _Table:
    """A table with columns of images and labels: the file's name, its rows, and what its columns are for."""

    name: str
    rows: list[Row]
    columns: Columns
    split: str | None = None


def tables_in(root: Path) -> list[Path]:
    """The files of a folder with names of tables."""
    return [path for path in visible(root) if is_table(path) and path.is_file()]


def read_table_layout(root: Path, columns: Columns, *, masks: str = "no") -> Layout | None:
    """The images in a channel's tables; None if its tables are about other things.

    `image` may be a series folder, or several sequences separated by `;`. Other columns are kept as metadata. Labels
    stay as written, and only a column called group is the group: see `labelled`.

    Args:
        root: the channel.
        columns: that are named.
        masks: "no" reads labels; "asked" reads the column of masks, which are files, as the label; "alone" does so
            unless another column is a label.

    Raises:
        DatasetError: several tables are candidates, one cannot be read, or lists missing images.
    """
    files = tables_in(root)
    contents = {file: table_content(file) for file in files}
    tables = [table for file in files if (table := _read(file, contents[file], columns, masks)) is not None]
    has_folders = any(path.is_dir() for path in visible(root))
    if not tables:
        if has_folders or masks != "no":
            return None
        if len(files) > 1:
            raise DatasetError(
                f"the channel has several tables ({some_of([file.name for file in files])}), and none has rows and "
                "columns of images and labels; keep the one that lists the images, and set image_column and "
                "label_column"
            )
        _refuse(files[0], contents[files[0]], columns)
    if len(tables) > 1:
        tables = _of_splits(tables)
    layout = _layout(root, tables)
    remarks = [remark("tables_passed_over", len(files) - len(tables))] if len(files) > len(tables) else []
    if has_folders and _are_classes(layout):
        remarks.append(
            remark("table_beside_folders", len(layout.entries), table=some_of([each.name for each in tables]))
        )
    return Layout(layout.labels, layout.entries, remarks=(*layout.remarks, *remarks), source="table")


def _read(file: Path, content: bytes, wanted: Columns, masks: str) -> _Table | None:
    """A table, or None if it has no columns of images and labels."""
    role = "label" if masks == "no" else "mask"
    rows = read_table(content, what=file.name, fits=lambda names: not _missing(names, wanted, role), sheet=wanted.sheet)
    if not rows or _missing(list(rows[0]), wanted, role):
        return None
    names = list(rows[0])
    image = find_column(names, wanted.image, file.name) if wanted.image else usual_column(names, "image", file.name)
    rest = [name for name in names if name != image]
    told = wanted.label or (
        _mask_columns(rows, rest, masks) if role == "mask" else [usual_column(rest, role, file.name)]
    )
    label = tuple(find_column(names, name, file.name) for name in told)
    if role == "mask" and not (len(label) == 1 and _name_files(rows, label[0])):
        return None
    rest = [name for name in rest if name not in label]
    split = find_column(names, wanted.split, file.name) if wanted.split else split_column(rows, rest)
    group = next(iter(usual_columns([name for name in rest if name != split], "group")), "")
    return _Table(file.name, rows, Columns(image, label, group, split))


def _refuse(file: Path, content: bytes, wanted: Columns) -> None:
    """Say why the only table does not list images."""
    rows = read_table(content, what=file.name, sheet=wanted.sheet)
    names = list(rows[0]) if rows else []
    if missing := _missing(names, wanted):
        has = f"it has {some_of(names)}: name another with image_column or label_column" if names else "it is empty"
        raise DatasetError(
            f"{file.name} has no column {some_of(missing)}; its first line must name the columns image, label; {has}"
        )
    raise DatasetError(f"{file.name} has no rows; it must list images")


def _mask_columns(rows: Sequence[Row], names: Sequence[str], masks: str) -> list[str]:
    """The columns of masks: of the first spellings of which one names files; none if another column is a label."""
    ranks = [[name for name in names if plain(name) in rank and _name_files(rows, name)] for rank in SPELLINGS["mask"]]
    if masks == "alone" and not all(_name_files(rows, name) for name in usual_columns(names, "label")):
        return []
    return next((rank for rank in ranks if rank), [])


def _name_files(rows: Sequence[Row], column: str) -> bool:
    """Whether cells of a column name files, as far as they are filled."""
    filled = [row[column] for row in rows if not is_missing(row[column])]
    return bool(filled) and all(cell.strip().lower().endswith(tuple(IMAGE_NAMES)) for cell in filled)


def _missing(names: Sequence[str], wanted: Columns, role: str = "label") -> list[str]:
    """The roles without a column, unless one is named."""
    told = {"image": bool(wanted.image), role: bool(wanted.label)}
    return [role for role, is_told in told.items() if not is_told and not usual_columns(names, role)]


def _of_splits(tables: Sequence[_Table]) -> list[_Table]:
    """Several tables, each with the split from its name."""
    splits = [_split_of_name(Path(table.name).stem) for table in tables]
    if None in splits or len(set(splits)) < len(splits):
        raise DatasetError(
            f"the channel has several tables of images and labels ({some_of([table.name for table in tables])}); keep "
            "the one that counts, or name them after their splits: train.csv, val.csv, test.csv"
        )
    return [_Table(table.name, table.rows, table.columns, split) for table, split in zip(tables, splits, strict=True)]


def _split_of_name(stem: str) -> str | None:
    words = [word for word in stem.replace("-", "_").replace(" ", "_").lower().split("_") if word not in _OF_SPLITS]
    return split_of("".join(words))


def _layout(root: Path, tables: Sequence[_Table]) -> Layout:
    lines = [(table, row) for table in tables for row in table.rows]
    for table, row in lines:
        _check(table, row)
    what = some_of([table.name for table in tables])
    names = [names_in_cell(root, row[table.columns.image]) for table, row in lines]
    images, remarks = images_of_names(root, names, what=what)
    entries = []
    for (table, row), (image, name) in zip(lines, images, strict=True):
        found = table.columns
        taken = {found.image, *found.label, found.group, found.split}
        extra: Metadata = {key: value or None for key, value in row.items() if key not in taken}
        cells = Cells({column: row[column] for column in found.label}) if len(found.label) > 1 else None
        label = "" if cells else row[found.label[0]]
        split = table.split or (split_of(row[found.split]) if found.split else None)
        entries.append(Entry(image, name, label, row.get(found.group) or name, split, extra, cells))
    return Layout(tuple(sorted({str(entry.label) for entry in entries})), entries, remarks=remarks, source="table")


def _check(table: _Table, row: Row) -> None:
    """Refuse a row without an image, or of another split."""
    if not row[table.columns.image]:
        raise DatasetError(f"{table.name}: row {row.number} has no image; fill it in or remove the row")
    if not table.columns.split:
        return
    text = row[table.columns.split]
    split = split_of(text)
    if not split:
        raise DatasetError(f"{table.name}: row {row.number} has split {text[:60]!r}; use training, validation or test")
    if table.split not in (None, split):
        raise DatasetError(f"{table.name}: row {row.number} is for {split}, the table's name says {table.split}")


def names_in_cell(root: Path, cell: str) -> tuple[str, ...]:
    """The names in a cell: one, or several separated by `;`, unless a file has that name."""
    is_one = ";" not in cell or (bool(name_parts(cell)) and (root / cell).is_file())
    return (cell,) if is_one else tuple(part.strip() for part in cell.split(";"))


def _are_classes(layout: Layout) -> bool:
    """Whether images are in folders named after their labels.

    Raises:
        DatasetError: some are in the folder of another label.
    """
    labels = {str(entry.label).strip().casefold() for entry in layout.entries}
    placed = {
        entry.name: folder.casefold()
        for entry in layout.entries
        for folder in entry.name.split("/")[:-1]
        if folder.casefold() in labels
    }
    if len(placed) < len(layout.entries) or not placed:
        return False
    other = [e.name for e in layout.entries if placed[e.name] != str(e.label).strip().casefold()]
    if other:
        raise DatasetError(
            f"the table gives {len(other)} of {len(layout.entries)} images another label than their folder "
            f"({some_of(other)}); correct one of them, or move the images out of such folders"
        )
    return True
