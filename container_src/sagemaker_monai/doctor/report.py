"""The report of an examination: a table for a terminal, and doctor.json for programs.

The keys of doctor.json are stable; `format` counts up when one changes its meaning:

- `format`, `version`: of this file, and of the program;
- `verdict`: `errors`, `warnings`, `notes`, and the command's `exit_code`;
- `source`: "folder", "file", "channels"; `seconds` that it took;
- `files`: `by_kind`, `unreadable` by the code of the error, and only with --show-names the `names` of file 1, 2, ...;
- `images`: how many of each `Modality`, `Manufacturer`, `TransferSyntax`, `PhotometricInterpretation`, `BitsStored`,
  `Size` (columns x rows x slices) and `SpacingMm`;
- `numbers`: files, bytes, image_files, usable_image_files, patients, studies, series, stacks, volumes, usable_volumes;
- `pixels`: the `choice`, and how many files were `decoded`, `refused` and `not_looked_at`;
- `duplicates`, `labels`, `privacy`: as `examine.Examination` describes them; where labels are masks, `labels` has
  `structures`: for each the number of `masks`, the `unit` of its `size` (smallest, median, largest where it is there),
  and its mean `share` of the image there; where several annotators drew it, the mean `dice` of every two of them, the
  images `compared`, and `pairs` (two annotators, images, Dice), those that agree least first;
- `associations`: attributes that go with the label;
- `findings`: `code`, `severity`, `message`, `count`, `unit` and `examples`, which are numbers of files;
- `contact_sheet`: `file` and `images`, or null.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sagemaker_monai import __version__
from sagemaker_monai.doctor.examine import Examination
from sagemaker_monai.messages.remarks import Remark

FORMAT = 1
OK, WARNINGS, ERRORS, NOT_EXAMINED = 0, 1, 2, 3
LABEL_WIDTH = 26
MAX_VALUES = 6  # of a line on a terminal


def exit_code(examination: Examination, *, is_strict: bool) -> int:
    """0 without findings that count, 1 for warnings with --strict, 2 for errors."""
    if examination.count("error"):
        return ERRORS
    return WARNINGS if is_strict and examination.count("warning") else OK


def as_document(
    examination: Examination, *, source: str, is_strict: bool, show_names: bool, sheet: Mapping[str, Any] | None
) -> dict[str, Any]:
    """doctor.json; the module describes it."""
    files: dict[str, Any] = {"by_kind": dict(examination.kinds), "unreadable": dict(examination.faults)}
    if show_names:
        files["names"] = list(examination.names)
    return {
        "format": FORMAT,
        "version": __version__,
        "verdict": {
            "exit_code": exit_code(examination, is_strict=is_strict),
            "errors": examination.count("error"),
            "warnings": examination.count("warning"),
            "notes": examination.count("note"),
        },
        "source": source,
        "seconds": round(examination.seconds, 2),
        "files": files,
        "images": {title: dict(values) for title, values in examination.counts.items()},
        "numbers": dict(examination.numbers),
        "pixels": dict(examination.pixels),
        "duplicates": dict(examination.duplicates),
        "labels": dict(examination.labels),
        "privacy": dict(examination.privacy),
        "associations": [
            {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(each).items()}
            for each in examination.associations
        ],
        "findings": [asdict(each) | {"examples": list(each.examples)} for each in examination.remarks],
        "contact_sheet": dict(sheet) if sheet else None,
    }


def as_json(document: Mapping[str, Any]) -> str:
    """The file's text; no NaN, which JSON does not have."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def summary(examination: Examination) -> str:
    """One line."""
    counts = ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}"
        for name in ("error", "warning", "note")
        if (count := examination.count(name))
    )
    numbers = examination.numbers
    worst = [each.code for each in examination.remarks if each.severity == "error"][:5]
    return (
        f"{numbers['usable_image_files']} of {numbers['image_files']} image files can be used; "
        f"{counts or 'no findings'}" + (f" ({', '.join(worst)})" if worst else "")
    )


def sections(examination: Examination) -> list[tuple[str, list[tuple[str, str]]]]:
    """The report as titles, each with its lines (name, content); lines without content are left out."""
    numbers, labels, privacy = examination.numbers, examination.labels, examination.privacy
    tables = [
        ("Files", [
            ("kinds", _counts(examination.kinds)),
            ("size", f"{numbers['bytes'] / 1e6:,.1f} MB"),
            ("unreadable", _counts(examination.faults)),
            ("pixels looked at", f"{examination.pixels['choice']}: {examination.pixels['decoded']} decoded, "
             f"{examination.pixels['refused']} refused, {examination.pixels['not_looked_at']} not looked at"),
        ]),
        ("Images", [(title, _counts(values)) for title, values in examination.counts.items()]),
        ("DICOM", [
            (name, f"{numbers[name]}")
            for name in ("patients", "studies", "series", "stacks", "volumes", "usable_volumes")
            if numbers["series"]
        ]),
        ("Copies", [(name.replace("_", " "), str(count)) for name, count in examination.duplicates.items()]),
        ("Labels", _label_lines(labels)),
        ("Privacy", [
            ("headers looked at", str(privacy["headers_examined"] or "")),
            ("with identifying values", str(privacy["headers_with_phi"] or "")),
            ("attributes", _counts(_mapping(privacy["attributes"]))),
            ("with private attributes", str(privacy["files_with_private_attributes"] or "")),
            *((f"text in pixels, {modality}", _counts(counts))
              for modality, counts in _mapping(privacy["burned_in"]).items()),
            ("names with a patient", str(privacy["names_with_patient"] or "")),
        ]),
        ("Attributes that go with the label", [
            (each.attribute, f"Cramer's V {each.cramers_v:.2f}, majority label {each.accuracy:.0%}, largest class "
             f"{each.base:.0%}, {each.images} images" + (f", finding {each.finding}" if each.finding else ""))
            for each in examination.associations
        ]),
    ]  # fmt: skip
    found = [(title, [(name, text) for name, text in lines if text]) for title, lines in tables]
    return [(title, lines) for title, lines in found if lines]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _counts(values: Mapping[str, Any]) -> str:
    shown = [f"{value} {count}" for value, count in list(values.items())[:MAX_VALUES]]
    rest = len(values) - MAX_VALUES
    return ", ".join(shown) + (f", and {rest} more" if rest > 0 else "")


def _label_lines(labels: Mapping[str, object]) -> list[tuple[str, str]]:
    if not labels["labelled"]:
        return []
    lines = [
        ("source", f"{labels['source']}, {labels['task']}"),
        ("labelled images", f"{labels['labelled']}, with files {labels['with_files']}"),
        ("groups", str(labels["groups"] or "")),
        ("splits", _counts(_mapping(labels["splits"]))),
    ]
    classes = _mapping(labels["classes"])
    # An image may have several structures, but has one class.
    has_masks = "structures" in labels
    total = labels["labelled"] if has_masks else sum(counts["all"] for counts in classes.values())
    for name, counts in classes.items():
        parts = ", ".join(f"{split} {count}" for split, count in counts.items() if split != "all" and len(counts) > 2)
        share = f"{counts['all'] / total:.1%}" if total else "0 %"
        lines.append((f"  {name}", f"{counts['all']} ({share})" + (f": {parts}" if parts else "")))
    for name, told in _mapping(labels.get("structures", {})).items():
        if told["size"]:
            low, median, high = (f"{value:g}" for value in told["size"])
            text = f"{median} {told['unit']} ({low} to {high}), {told['share']:.2%} of the image"
            lines.append((f"  size of {name}", text))
        if "dice" in told:
            first, second, _, lowest = told["pairs"][0]
            least = f", least of {first} and {second}: {lowest:.3f}" if len(told["pairs"]) > 1 else ""
            text = f"mean Dice {told['dice']:.3f} in {told['compared']} images{least}"
            lines.append((f"  annotators of {name}", text))
    if bounds := labels["range"]:
        lines.append(("numbers from, to", str(bounds)[1:-1]))
    return lines


def examples_of(each: Remark, names: Sequence[str]) -> str:
    """The examples of a remark by name, or by number if there are no names."""
    return ", ".join(names[number - 1] if names else f"#{number}" for number in each.examples)


def as_text(examination: Examination, *, names: Sequence[str] = ()) -> str:
    """The table for a terminal.

    Args:
        examination: what was found.
        names: of the files, to be shown as examples; by default their numbers are.
    """
    lines = []
    for title, rows in sections(examination):
        lines.append(title)
        lines += [f"  {name[:LABEL_WIDTH]:{LABEL_WIDTH}} {text}" for name, text in rows]
    lines.append("Findings")
    for each in examination.remarks:
        examples = examples_of(each, names)
        lines.append(f"  {each.severity:8} {each.code}: {each.message}" + (f" [{examples}]" if examples else ""))
    if not examination.remarks:
        lines.append("  none")
    return "\n".join(lines)
