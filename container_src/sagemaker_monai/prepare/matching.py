"""Which files a line of a table of labels is about, and what to do where table and files do not agree."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sagemaker_monai.data.name_matching import match_names, nearest_name, stem_of
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.import_report import digest_of_all
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.storage.files import plain_files, sha256_of, state_of

ON_MISMATCH = ("refuse", "drop")
NAMED_KINDS = frozenset({"file", "case"})  # lines that name files; others may name a patient, and are never shown


def group_pattern(group_by: str) -> re.Pattern[str]:
    """The regular expression that finds the group of an image in its name.

    Raises:
        ConfigError: it is not a regular expression with one group.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError(f"--group-by is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise ConfigError(f"--group-by must have one group in parentheses, got {pattern.groups}")
    return pattern


def find_lines(
    table: LabelTable,
    names: Sequence[str],
    *,
    suffixes: Sequence[str] = (),
    dropped: Sequence[str] = (),
    takes_folders: bool = False,
) -> tuple[dict[str, Line], tuple[Remark, ...]]:
    """Match lines to names of files, folders, cases, patients or UIDs; returns name -> line, and how they were found.

    Args:
        table: of labels.
        names: that lines may mean.
        suffixes: that names have and lines may lack.
        dropped: that lines may have and names lack.
        takes_folders: a line may name the folder of a file that is alone in it.

    Raises:
        DatasetError: a line could mean several names, or two lines mean one.
    """
    keys = [stem_of(line.key, dropped) for line in table.lines]
    if twice := sorted(key for key, count in Counter(keys).items() if count > 1):
        raise DatasetError(f"names in the labels that differ only in their suffix: {len(twice)} ({some_of(twice)})")
    is_named = table.kind in NAMED_KINDS
    matches = match_names(keys, dict.fromkeys(names), suffixes=suffixes, is_path=is_named, takes_folders=takes_folders)
    if matches.unclear and not is_named:
        rows = [f"row {line.row}" for key, line in zip(keys, table.lines, strict=True) if key in matches.unclear]
        raise DatasetError(
            f"lines that could be about several {table.kind}, or share one: {len(rows)} ({some_of(rows)}); write "
            f"{table.kind} as it stands in the files"
        )
    matches.refuse_unclear("the labels")
    lines = {matches.found[key]: line for key, line in zip(keys, table.lines, strict=True) if key in matches.found}
    return lines, matches.remarks("the labels")


def find_unlabelled(
    table: LabelTable, names: Sequence[str], *, suffixes: Sequence[str] = (), dropped: Sequence[str] = ()
) -> list[str]:
    """The names that lines without a label mean."""
    keys = dict.fromkeys(stem_of(key, dropped) for key in table.unlabelled)
    found = match_names(list(keys), dict.fromkeys(names), suffixes=suffixes, is_path=table.kind in NAMED_KINDS).found
    return list(found.values())


def line_of(keys: Sequence[str], lines: Mapping[str, Line], name: str) -> Line | None:
    """The line about something that has several keys.

    Raises:
        DatasetError: its lines have different labels.
    """
    found = [lines[key] for key in dict.fromkeys(keys) if key in lines]
    if any((line.label, line.group, line.split) != (found[0].label, found[0].group, found[0].split) for line in found):
        raise DatasetError(
            f"lines of the table give the files of one series ({some_of([name])}) different labels; label series, or "
            "choose --unit instance"
        )
    return found[0] if found else None


def refuse_mismatch(table: LabelTable, unmatched: Sequence[Line], bare: Sequence[str], *, mismatch: str) -> None:
    """Refuse labels without images and images without labels, unless they are to be dropped.

    Args:
        table: of the labels; patients and UIDs are shown by the number of their row.
        unmatched: lines without an image.
        bare: names of images without a line.
        mismatch: one of ON_MISMATCH.

    Raises:
        DatasetError: with counts and some names.
    """
    if mismatch != "refuse":
        return
    faults = []
    if unmatched:
        near = nearest_name(unmatched[0].key, bare) if table.kind in NAMED_KINDS else None
        shown = some_of(shown_lines(table, unmatched)) + (f"; the nearest name is {some_of([near])}" if near else "")
        faults.append(f"labels without images: {len(unmatched)} ({shown})")
    if bare:
        faults.append(f"images without labels: {len(bare)} ({some_of(bare)})")
    if faults:
        raise DatasetError(f"{'; '.join(faults)}; complete or correct them, or leave them out with --mismatch drop")


def shown_lines(table: LabelTable, lines: Sequence[Line]) -> list[str]:
    """How messages call lines."""
    return [line.key if table.kind in NAMED_KINDS else f"row {line.row}" for line in lines]


def _stamps_of(source: Path) -> list[tuple[str, int, int, int, int]]:
    """Name and `files.state_of` of a file, or of all files in a folder, sorted: they change when a source does."""
    if not source.is_dir():
        return [(source.name, *state_of(source.stat()))]
    return sorted((path.relative_to(source).as_posix(), *state_of(path.stat())) for path in plain_files(source))


def key_of(source: Path, table: Path | None, options: Mapping[str, object]) -> str:
    """A digest of the source's files, the table, the options and the program: the same digest, the same import."""
    content = sha256_of(table) if table is not None and table.is_file() else None
    return digest_of_all(_stamps_of(source), content, {name: str(value) for name, value in sorted(options.items())})
