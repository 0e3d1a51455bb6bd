"""The folder an importer writes: only what it wrote itself is ever replaced or removed.

`import_report.json` names every image that is written, from before the first one is. So a run that was interrupted can
be repeated, one with other options replaces the former, and a folder with anybody else's files is refused. dataset.json
is removed before the first image changes and comes back, whole, after the last: where it is, all of it is true.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.files import sha256_of, write_text
from sagemaker_monai.layouts import DATASET_JSON
from sagemaker_monai.tables import some_of

REPORT = "import_report.json"
IMAGES = "images"


def _write_report(out: Path, report: Mapping[str, Any]) -> None:
    write_text(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def read_report(out: Path) -> dict[str, Any] | None:
    """The report of an earlier import into this folder, or None.

    Raises:
        DatasetError: there is a file of that name which no importer wrote.
    """
    path = out / REPORT
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict) or not isinstance(report.get("files"), dict):
        raise DatasetError(f"{REPORT} in the output folder is not an importer's; name another output folder")
    return report


def check_output(out: Path) -> None:
    """Refuse a folder that holds what no importer wrote; hidden files do not count.

    Raises:
        DatasetError: with some of the names.
    """
    if not out.exists():
        return
    if not out.is_dir() or out.is_symlink():
        raise DatasetError(f"{out.name} is not a folder; name another output folder")
    report = read_report(out)
    ours = {REPORT, DATASET_JSON, IMAGES} if report is not None else set()
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours and not path.name.startswith("."))
    images = out / IMAGES
    if report is not None and images.is_symlink():
        foreign.append(IMAGES)
    elif report is not None and images.is_dir():
        written = report["files"]
        foreign += sorted(f"{IMAGES}/{path.name}" for path in images.iterdir() if path.name not in written)
    if foreign:
        raise DatasetError(
            f"the output folder holds what no import wrote: {len(foreign)} ({some_of(foreign)}); "
            "name an empty or new folder, or move them away"
        )


def is_up_to_date(out: Path, key: str) -> bool:
    """Whether the folder holds exactly what an import with this key wrote, by the sizes of its files."""
    report = read_report(out)
    if report is None or report.get("key") != key or not (out / DATASET_JSON).is_file():
        return False
    present = {path.name: path.stat().st_size for path in (out / IMAGES).iterdir()} if (out / IMAGES).is_dir() else {}
    return present == report["files"] and sha256_of(out / DATASET_JSON) == report.get("dataset_json_sha256")


def begin(out: Path, names: Collection[str]) -> None:
    """Make the folder ready for images of these names; from here until `finish` there is no dataset.json in it."""
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    before = (read_report(out) or {}).get("files", {})
    _write_report(out, {"is_complete": False, "files": dict.fromkeys(sorted({*before, *names}))})
    (out / DATASET_JSON).unlink(missing_ok=True)


def remove_stale(out: Path, files: Collection[str]) -> None:
    """Remove images of an earlier import whose names are not among `files`."""
    for name in (read_report(out) or {}).get("files", {}):
        if name not in files:
            (out / IMAGES / name).unlink(missing_ok=True)


def finish(out: Path, report: Mapping[str, Any], *, key: str, files: Mapping[str, int]) -> None:
    """Write the report, after dataset.json: with it the import counts as done.

    Args:
        out: the output folder.
        report: what to say about the import.
        key: tells by equality whether another import would give the same.
        files: name and size in bytes of every image.
    """
    digest = sha256_of(out / DATASET_JSON)
    head = {"is_complete": True, "key": key, "dataset_json_sha256": digest}
    _write_report(out, {**head, **report, "files": dict(sorted(files.items()))})
