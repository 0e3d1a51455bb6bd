"""What becomes of every odd file of the shared data; `python -m tests.support.formats` writes docs/formats.md's tables.

Readers with the same code count once: SimpleITK reads DICOM with GDCM. `recorded` compares no voxels, and `twin`
compares with another of our own decoders; neither counts as a reader.
"""

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pydicom

from develop.markdown import table, with_blocks
from tests.support import odd_files, odd_volumes
from tests.support.compare_series import compare_series
from tests.support.places import ROOT

DOCUMENT = ROOT / "docs" / "formats.md"
SERIES = odd_files.SHARED_DATA / "dicom_series"
FOLDERS = (odd_files.ODD_DICOM, odd_volumes.ODD_NIFTI, SERIES)
PROGRAMS = {"SimpleITK": "GDCM", "gdcm": "GDCM"}  # others use their own code
NO_PROGRAMS = frozenset({"recorded", "twin"})
SAME_AFFINE_MM = 1e-4  # smaller differences are float32 rounding


@cache
def odd_dicom_rows() -> tuple[odd_files.Row, ...]:
    """Every odd DICOM file, read."""
    return tuple(odd_files.read_odd_dicom(path) for path in odd_files.odd_dicom_paths())


@cache
def odd_nifti_rows() -> tuple[odd_volumes.Row, ...]:
    """Every odd NIfTI file, read."""
    paths = sorted(path for path in odd_volumes.ODD_NIFTI.iterdir() if path.suffix in (".nii", ".gz", ".hdr"))
    return tuple(map(odd_volumes.read_odd_nifti, paths))


def odd_counts() -> str:
    """Number of files by outcome."""
    dicom, nifti = Counter(map(_kind, odd_dicom_rows())), Counter(map(_kind, odd_nifti_rows()))
    rows = [[kind, str(dicom[kind]), str(nifti[kind])] for kind in _KINDS if dicom[kind] or nifti[kind]]
    refused = sorted(kind for kind in {*dicom, *nifti} if kind not in _KINDS)
    rows += [[kind, str(dicom[kind]), str(nifti[kind])] for kind in refused]
    rows.append(["all", str(dicom.total()), str(nifti.total())])
    return table(["", "DICOM files", "NIfTI files"], rows)


_TWO, _ONE, _ONE_AND_RECORD, _ONE_AND_TWIN, _TWIN, _NOBODY = _KINDS = (
    "read as two or more other programs read them",
    "read as one other program reads them",
    "read as one other program reads them; a second one recorded the same size, lowest and highest value",
    "read as one other program reads them, and as the same picture stored otherwise",
    "read as the same picture stored otherwise",
    "read, and compared with nothing",
)


def _kind(row: odd_files.Row | odd_volumes.Row) -> str:
    if row.outcome == "refused":
        return f"refused: `{row.code}`"
    programs = {PROGRAMS.get(name, name) for name in row.compared_with if name not in NO_PROGRAMS}
    if len(programs) >= 2:
        return _TWO
    if programs:
        found = (_ONE_AND_TWIN, "twin"), (_ONE_AND_RECORD, "recorded")
        return next((kind for kind, name in found if name in row.compared_with), _ONE)
    return _TWIN if "twin" in row.compared_with else _NOBODY


def odd_dicom_table() -> str:
    """One line a DICOM file."""
    with (odd_files.ODD_DICOM / "index.csv").open(newline="") as file:
        index = {row["file"]: row for row in csv.DictReader(file)}
    rows = []
    for row in odd_dicom_rows():
        syntax, photometric = _described(index.get(row.name), odd_files.ODD_DICOM / row.name)
        rows.append([f"`{row.name}`", syntax, photometric, *_outcome(row), _others(row)])
    return table(["file", "transfer syntax", "photometric", "outcome", "frames, rows, columns", "compared with"], rows)


def odd_nifti_table() -> str:
    """One line a NIfTI file."""
    rows = [
        [f"`{row.name}`", *_outcome(row), ", ".join(row.compared_with) + ": 0" if row.compared_with else row.message]
        for row in odd_nifti_rows()
    ]
    return table(["file", "outcome", "channels, W, H, D", "compared with: largest difference, or why not"], rows)


def series_table() -> str:
    """One line a real series."""
    rows = []
    for folder in sorted(path for path in SERIES.glob("*/*") if path.is_dir()):
        for row in compare_series(folder):
            rows.append(
                [
                    f"`{folder.relative_to(SERIES)}`",
                    row.series,
                    str(row.slices),
                    _number(row.voxels_simpleitk),
                    _number(row.voxels_dcm2niix),
                    f"below {SAME_AFFINE_MM} mm" if row.affine < SAME_AFFINE_MM else f"{row.affine:.4f} mm",
                ]
            )
    header = ["series", "what", "slices", "largest difference to SimpleITK", "to dcm2niix", "of the affines"]
    return table(header, rows)


BLOCKS = {
    "odd files": odd_counts,
    "odd DICOM files": odd_dicom_table,
    "odd NIfTI files": odd_nifti_table,
    "series": series_table,
}


def _described(listed: dict[str, str] | None, path: Path) -> tuple[str, str]:
    if listed is not None:
        return listed["transfer_syntax"] or "-", listed["photometric"] or "-"
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    return dataset.file_meta.TransferSyntaxUID.name, dataset.get("PhotometricInterpretation", "-")


def _outcome(row: odd_files.Row | odd_volumes.Row) -> tuple[str, str]:
    return ("read", _sizes(row.shape)) if row.outcome == "read" else (f"`{row.code}`", "-")


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _others(row: odd_files.Row) -> str:
    same = ", ".join(row.compared_with) + f": {_number(row.largest_difference)}" if row.compared_with else ""
    return same + "".join(f"; {name} has other values" for name in row.differs_from) or "-"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


def main() -> int:
    """Write the tables into docs/formats.md, if the data is there."""
    missing = [folder.name for folder in FOLDERS if not folder.is_dir()]
    if missing:
        print(f"the shared data is not here ({', '.join(missing)}): its tables stay as they are; set SHARED_DATA")
        return 0
    DOCUMENT.write_text(with_blocks(DOCUMENT.read_text(encoding="utf-8"), BLOCKS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
