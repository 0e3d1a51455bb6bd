"""What an import of labelled files did, for people and for import_report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.messages.shortened import some_of

NO_CLASS = "(none)"


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        is_repeated: everything was there already, nothing was written.
        task: a key of `tasks.TASKS`.
        spatial_dims: 2 or 3.
        images, files: in the data set.
        groups: patients, or what else was told to stay on one side.
        counts: class -> split -> images, with several findings in each of them; of numbers the name of the number.
        modalities: Modality of DICOM -> images.
        left_out: why -> how many.
        warnings: sentences without names.
        notes: sentences too, on what was done.
        studies: of each study of which something was left, by its number: what was taken, and what was left and why.
        identical: pairs of images with the same pixels that were different groups; kept on one side.
        examples: why -> names of what was left out. They may tell a patient: written to the report only where nothing
            was de-identified.
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
        width = max(8, *(len(label) + 2 for label in self.counts))
        lines = [f"{'class':<{width}}" + "".join(f"{split:>12}" for split in SPLITS)]
        for label, row in self.counts.items():
            lines.append(f"{label:<{width}}" + "".join(f"{row[split]:>12}" for split in SPLITS))
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
            lines.append("nothing to do: the folder holds this import already")
        return "\n".join(lines)

    def written(self, *, with_names: bool) -> dict[str, Any]:
        """What of it stands in import_report.json."""
        content = asdict(self)
        del content["is_repeated"], content["files"]
        content["number_of_files"] = self.files
        if not with_names:
            del content["examples"]
        return content


def repeated(earlier: Mapping[str, Any]) -> Report:
    """The report of an import that was done before."""
    known = {name: earlier[name] for name in Report.__dataclass_fields__ if name in earlier and name != "files"}
    return Report(is_repeated=True, files=earlier["number_of_files"], **known)
