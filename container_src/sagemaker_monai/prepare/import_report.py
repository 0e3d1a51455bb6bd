"""What an import of labelled files did, for people and for import_report.json."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from sagemaker_monai import __version__
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output

MAX_REASONS = 20  # in the report
NO_CLASS = "(none)"
NOTHING_TO_DO = "nothing to do: the folder holds this import already"
Made = TypeVar("Made")


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        is_repeated: the folder held this import already, and nothing was written.
        task: a key of `tasks.TASKS`.
        spatial_dims: 2 or 3.
        images, files: in the data set.
        groups: patients, or whatever else has to stay on one side of the split.
        counts: class -> split -> images. An image with several findings counts in each; a number counts by its name.
        modalities: Modality of DICOM -> images.
        left_out: reason -> how many.
        warnings, notes: sentences without names; notes say what was done.
        studies: for each study that was not taken whole, by its number: what was taken, and what was left and why.
        identical: pairs of images with the same pixels but different groups; they stay on one side.
        examples: reason -> names of what was left out. Names may identify a patient: they go into the report only if
            nothing was de-identified.
    """

    is_repeated: bool
    task: str
    spatial_dims: int
    images: int
    files: int
    groups: int
    counts: Mapping[str, Mapping[str, int]]
    modalities: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    studies: Sequence[Mapping[str, Any]] = ()
    identical: Sequence[Sequence[str]] = ()
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def summary(self) -> str:
        """Lines for people: a table of counts, then what was noticed."""
        lines = count_lines(self.counts, max(8, *(len(label) + 2 for label in self.counts)))
        groups = f" of {self.groups} groups" if self.groups != self.images else ""
        lines.append(f"{self.images} images{groups}, {self.spatial_dims}-D, {self.task}")
        if self.modalities:
            lines.append(", ".join(f"{name or '(no modality)'}: {count}" for name, count in self.modalities.items()))
        if self.identical:
            pairs = [" = ".join(pair) for pair in self.identical]
            lines.append(f"identical images of different groups, kept on one side: {len(pairs)} ({some_of(pairs)})")
        for why, count in self.left_out.items():
            names = self.examples.get(why, ())
            lines.append(f"left out, {why}: {count}" + (f" ({some_of(names)})" if names else ""))
        lines += self.notes
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        if self.is_repeated:
            lines.append(NOTHING_TO_DO)
        return "\n".join(lines)

    def written(self, *, with_names: bool) -> dict[str, Any]:
        """What import_report.json has of it."""
        content = asdict(self)
        del content["is_repeated"], content["files"]
        content["number_of_files"] = self.files
        if not with_names:
            del content["examples"]
        return content


@dataclass(frozen=True)
class Notices:
    """What the importer noticed, for the report: names of what was left out by reason, counts, warnings, notes, and for
    each study what was taken and left."""

    left_out: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    studies: list[dict[str, object]] = field(default_factory=list)

    def leave_out(self, why: str, names: Sequence[str]) -> None:
        """Record what was left out, if anything."""
        if names:
            self.left_out[why] = list(names)
            self.counts[why] = len(names)

    def count_unlabelled(self, lines: Sequence[str]) -> None:
        """Record how many lines have no label, if any."""
        if lines:
            self.counts["lines without a label"] = len(lines)

    def leave_out_unusable(self, faults: Mapping[str, str]) -> None:
        """Record what could not be used: the names, and each reason with its count."""
        self.leave_out("cannot be used", list(faults))
        reasons = Counter(faults.values())
        self.notes.extend(f"cannot be used, {count} of them: {why}" for why, count in reasons.most_common(MAX_REASONS))


def count_lines(counts: Mapping[str, Mapping[str, int]], width: int) -> list[str]:
    """The table of classes and splits, with a first column of `width` characters."""
    rows: list[tuple[str, Sequence[str | int]]] = [("class", SPLITS)]
    rows += [(name, [row[split] for split in SPLITS]) for name, row in counts.items()]
    return [f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells) for name, cells in rows]


def digest_of_all(*parts: object) -> str:
    """A digest of everything that an import depends on: this program and `parts`, which are JSON."""
    content = json.dumps([__version__, *parts])
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()


def earlier_import(kind: type[Made], out: Path, key: str) -> Made | None:
    """The report of the same import, if the output folder still holds exactly what it wrote.

    Args:
        kind: the dataclass of the importer's reports.
        out: the output folder, after `output.check_output`.
        key: of `output.finish`.
    """
    if not output.is_up_to_date(out, key):
        return None
    earlier = output.read_report(out) or {}
    told = {**earlier, "files": earlier.get("number_of_files"), "is_repeated": True}
    return kind(**{each.name: told[each.name] for each in fields(kind) if each.name in told})  # type: ignore[arg-type]
