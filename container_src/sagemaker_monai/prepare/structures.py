"""The structures of masks that become labels: all that the masks name, or those that are asked for.

Names are one structure if they differ only in case, blanks, _ and the like, as everywhere with masks.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.data.legends import BACKGROUND, IGNORE, Legend, read_legend
from sagemaker_monai.data.trainable import check_names
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.option_fields import option, parts_of
from sagemaker_monai.messages.remarks import remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.import_report import Notices
from sagemaker_monai.tasks.label_maps import BACKGROUND_NAME
from sagemaker_monai.tasks.tasks import task_for

HIDDEN = "(names that identify somebody)"
LEFT_OUT = "structures_left_out"  # which is said of the data set instead
ON_VERSIONS = ("refuse", "newest")


@dataclass(frozen=True)
class StructureOptions:
    """Which structures are taken, where labels are masks.

    Attributes:
        structures: names of the labels, in their order; empty takes every structure.
    """

    structures: tuple[str, ...] = option(
        (),
        "of masks, that become the labels in this order, in any case and spelling of blanks (default: all)",
        read=parts_of,
        action="append",
        metavar="A,B",
    )


@dataclass(frozen=True)
class MaskOptions(StructureOptions):
    """Which masks and structures of DICOM are taken.

    Attributes:
        description: a pattern for the texts that tell masks of one image apart.
        versions: several masks of one image that have a structure in common: one of ON_VERSIONS.
    """

    description: str = option(
        "",
        "of masks, such as *final*, in any case: of SeriesDescription, ContentLabel, StructureSetLabel, or "
        "who drew them",
        flag="--mask-description",
        metavar="PATTERN",
    )
    versions: str = option(
        ON_VERSIONS[0],
        "several masks of one image with the same structures (default: %(default)s)",
        flag="--mask-versions",
        choices=ON_VERSIONS,
    )


@dataclass(frozen=True)
class Structures:
    """The labels of a data set of masks.

    Attributes:
        names: in the order of the labels.
        left: structures that do not become labels, with the number of their masks.
        folded: how many further spellings the names have.
        has_ignored: some voxels were not annotated.
    """

    names: tuple[str, ...]
    left: Mapping[str, int]
    folded: int = 0
    has_ignored: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """As dataset.json lists them: the names of 0, 1, 2, ... in the label maps."""
        return (BACKGROUND_NAME, *self.names, *((IGNORE,) if self.has_ignored else ()))

    @property
    def legend(self) -> Legend:
        """Of the label maps."""
        return read_legend(self.labels)


def structures_of(legend: Legend, wanted: Sequence[str]) -> Structures:
    """The labels where a legend names the values of all masks.

    Args:
        legend: of the source.
        wanted: `StructureOptions.structures`.

    Raises:
        ConfigError: a structure that the legend does not have, or one that is named twice.
        DatasetError: the legend has regions, or names that cannot be labels.
    """
    if legend != Legend(legend.values, legend.names, legend.ignored):
        raise DatasetError(
            "labels has structures of several values, which are not imported; train reads the folder itself"
        )
    _check_wanted(wanted, set(map(alike_key, legend.names)), list(legend.names))
    names = tuple(wanted) or legend.names
    check_names(names, task_for("mask"))
    taken = set(map(alike_key, names))
    left = {name: 0 for name in legend.names if alike_key(name) not in taken}
    return Structures(names, left, has_ignored=legend.ignored is not None)


def _check_wanted(wanted: Sequence[str], known: Collection[str], shown: Sequence[str]) -> None:
    keys = [alike_key(name) for name in wanted]
    if len(set(keys)) < len(keys):
        raise ConfigError("--structures names a structure twice; names that differ in case or blanks are one")
    if lacking := [name for name, key in zip(wanted, keys, strict=True) if key not in known]:
        raise ConfigError(f"--structures names what no mask has: {some_of(lacking)}; the masks have {some_of(shown)}")


def choose_structures(
    held: Sequence[Sequence[str]], wanted: Sequence[str], identifying: Collection[str] = ()
) -> Structures:
    """Choose the labels.

    Args:
        held: the names in each mask; "" is not a name.
        wanted: `MaskOptions.structures`.
        identifying: names that identify somebody, which are not shown and cannot be labels.

    Raises:
        ConfigError: a structure that no mask has, or one that is named twice.
        DatasetError: masks without names, or names that cannot be labels.
    """
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for names in held:
        for name in dict.fromkeys(filter(None, names)):
            spellings[alike_key(name)][name] += 1
    shown = {key: min(found, key=lambda name: (-found[name], name)) for key, found in spellings.items()}
    counts = {shown[key]: found.total() for key, found in spellings.items()}
    hidden = set(map(alike_key, identifying))
    public: Counter[str] = Counter()
    for key, name in shown.items():
        public[HIDDEN if key in hidden else name] += counts[name]
    if not shown:
        raise DatasetError("no mask names a structure that is drawn; name them in the program that drew them")
    _check_wanted(wanted, shown, told(public))
    names = tuple(wanted) or tuple(sorted(name for name in counts if name.lower() not in BACKGROUND))
    taken = set(map(alike_key, names))
    if taken & hidden:
        raise DatasetError(
            f"{len(taken & hidden)} structures have names with what identifies a person (a name, a number, a date), "
            "and labels are not de-identified: rename them, or choose others with --structures"
        )
    left: Counter[str] = Counter()
    for key, name in shown.items():
        if key not in taken:
            left[HIDDEN if key in hidden else name] += counts[name]
    check_names(names, task_for("mask"))
    folded = sum(len(set(spellings[key]) | {name}) - 1 for key, name in zip(map(alike_key, names), names, strict=True))
    structures = Structures(names, left, folded)
    assert structures.legend.values  # refuses too many
    return structures


def told(counts: Mapping[str, int]) -> list[str]:
    """Structures with the number of their masks where it is known, the most frequent first."""
    return [f"{name} {counts[name] or ''}".rstrip() for name in sorted(counts, key=lambda name: (-counts[name], name))]


def notice_structures(
    structures: Structures, held: Sequence[Sequence[str]], findings: Mapping[str, int], notices: Notices
) -> None:
    """Record what became of masks and structures.

    Args:
        structures: the labels.
        held: the names in the masks of each image.
        findings: codes of what was odd about masks, with their number.
        notices: of the import.
    """
    notices.notes.append(f"the masks of {len(held)} images were written as label maps: voxels and their place only")
    if structures.folded:
        notices.notes.append(f"{structures.folded} other spellings of structures count as one with their label")
    if structures.left:
        notices.notes.append(f"structures that are no labels: {some_of(told(structures.left))}")
    present = Counter(key for names in held for key in set(map(alike_key, names)))
    some = {name: present[alike_key(name)] for name in structures.names if present[alike_key(name)] < len(held)}
    odd = [remark(code, count) for code, count in findings.items() if code != LEFT_OUT]
    odd += [remark("absent_structures", len(some), shown=some_of(told(some)), images=len(held))] if some else []
    for each in odd:
        (notices.warnings if each.severity == "warning" else notices.notes).append(f"{each.code}: {each.message}")
