"""The output folder of an importer: only files that an import wrote are ever replaced or removed.

`import_report.json` lists all files before the first one is written. So an interrupted run can be repeated, a run with
other options replaces the earlier one, and a folder with other files is refused. dataset.json is removed before the
first image changes and written after the last one: if it is there, it is true.

Images lie in `images/`, masks in `masks/`, the files of a DICOM series in `series/NAME/`. A file's name is relative to
the output folder; one without a folder lies in `images/`.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.data.dataset_json import IMPORT_REPORT as REPORT
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.item_names import current
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.file_names import is_litter, is_litter_path
from sagemaker_monai.storage.files import sha256_of, write_text

IMAGES = "images"
SERIES = "series"
MASKS = "masks"
_PART = re.compile(r"\.(.+)\.\d+\.part")  # a file that is being written, as `files.write_text` and others name it


def _write_report(out: Path, report: Mapping[str, Any]) -> None:
    write_text(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def read_report(out: Path) -> dict[str, Any] | None:
    """The report of an earlier import into this folder, or None.

    Raises:
        DatasetError: no importer wrote the file of that name.
    """
    path = out / REPORT
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        report = None
    files = report.get("files") if isinstance(report, dict) else None
    if not isinstance(files, dict) or any(name.startswith("/") or ".." in name.split("/") for name in files):
        raise DatasetError(f"{REPORT} in the output folder is not an importer's; name another output folder")
    assert isinstance(report, dict)
    return report


def _in_folder(name: str) -> str:
    return name if "/" in name else f"{IMAGES}/{name}"


def _present(out: Path) -> Iterator[Path]:
    """The files below `images/`, `masks/` and `series/`, and links to folders."""
    for place in (IMAGES, MASKS, SERIES):
        if (out / place).is_symlink():
            yield out / place
            continue
        for parent, folders, names in os.walk(out / place):
            yield from (Path(parent, name) for name in names)
            yield from (Path(parent, name) for name in folders if Path(parent, name).is_symlink())


def _is_unfinished(path: Path, name: str, ours: Collection[str]) -> bool:
    """Whether a killed run left it of one of its files."""
    match = _PART.fullmatch(path.name)
    return match is not None and f"{name.rpartition('/')[0]}/{match[1]}" in ours and not path.is_symlink()


def check_output(out: Path) -> None:
    """Refuse a folder with files that no import wrote, except litter of operating systems.

    Raises:
        DatasetError: with some of the names.
    """
    if not out.exists():
        return
    if not out.is_dir() or out.is_symlink():
        raise DatasetError(f"{out.name} is not a folder; name another output folder")
    report = read_report(out)
    ours = {REPORT, DATASET_JSON, IMAGES, MASKS, SERIES} if report is not None else set()
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours and not is_litter(path.name))
    if report is not None:
        written = set(map(_in_folder, report["files"]))
        names = {path.relative_to(out).as_posix(): path for path in _present(out)}
        foreign += sorted(
            name
            for name, path in names.items()
            if name not in written and not is_litter_path(name) and not _is_unfinished(path, name, written)
        )
    if foreign:
        raise DatasetError(
            f"the output folder holds what no import wrote: {len(foreign)} ({some_of(foreign)}); "
            "name an empty or new folder, or move them away"
        )


def check_places(
    source: Path, out: Path, *, what: str = "source", kind: type[DatasetError | ConfigError] = DatasetError
) -> None:
    """Refuse an output folder inside the source or around it: the import would read or replace its own files.

    Args:
        source, out: the two places.
        what: what the message calls the source.
        kind: of the error.
    """
    inner, outer = source.resolve(), out.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise kind(f"the output folder and the {what} must not be in one another; name another output folder")


def is_up_to_date(out: Path, key: str) -> bool:
    """Whether the folder holds exactly the files of an import with this key, by their sizes."""
    report = read_report(out)
    if report is None or report.get("key") != key or not (out / DATASET_JSON).is_file():
        return False
    sizes = {path.relative_to(out).as_posix(): path.lstat().st_size for path in _present(out)}
    present = {name: size for name, size in sizes.items() if not is_litter_path(name)}
    written = {_in_folder(name): size for name, size in report["files"].items()}
    return present == written and sha256_of(out / DATASET_JSON) == report.get("dataset_json_sha256")


def begin(out: Path, names: Collection[str]) -> None:
    """Make the folder ready for files of these names; until `finish` it has no dataset.json."""
    out.mkdir(parents=True, exist_ok=True)
    before = (read_report(out) or {}).get("files", {})
    ours = set(map(_in_folder, {*before, *names}))
    for name in {name.rpartition("/")[0] for name in map(_in_folder, names)}:
        (out / name).mkdir(parents=True, exist_ok=True)
    _write_report(out, {"is_complete": False, "files": dict.fromkeys(sorted({*before, *names}))})
    (out / DATASET_JSON).unlink(missing_ok=True)
    for path in list(_present(out)):
        if _is_unfinished(path, path.relative_to(out).as_posix(), ours):
            path.unlink()


def remove_stale(out: Path, files: Collection[str]) -> None:
    """Remove files of an earlier import that are not in `files`, and empty folders."""
    kept = set(map(_in_folder, files))
    for name in map(_in_folder, (read_report(out) or {}).get("files", {})):
        if name not in kept:
            (out / name).unlink(missing_ok=True)
    for place in (MASKS, SERIES):
        for parent, _, _ in os.walk(out / place, topdown=False):
            with suppress(OSError):  # it is not empty
                Path(parent).rmdir()


def finish(out: Path, report: Mapping[str, Any], *, key: str, files: Mapping[str, int]) -> None:
    """Write the report, after dataset.json: with it the import counts as done.

    Args:
        out: the output folder.
        report: its other entries.
        key: equal for imports with the same result.
        files: name -> size in bytes.
    """
    digest = sha256_of(out / DATASET_JSON)
    head = {"is_complete": True, "key": key, "dataset_json_sha256": digest}
    # Names in `files` are not masked: they are those of the data set, and an interrupted import needs them.
    _write_report(out, {**head, **current().mask_all(dict(report)), "files": dict(sorted(files.items()))})
