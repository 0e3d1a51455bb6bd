"""Which labelled images of a DICOM import are taken, and the report of the others.

The rule within a study is `dicom.choice`'s; here it is applied to labels. A line about a study, a patient or a folder
means one series of it; a line about a series means that series; with classes as folders, every series of images counts.
Over the whole data set, objects of the common kind are images: screen captures alone are images, but a study with just
a mask beside a hundred with CT cannot be used.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.dicom.choice import choose
from sagemaker_monai.images.dicom.grouping import Series
from sagemaker_monai.images.dicom.objects import IMAGES, KINDS, NEVER_PICTURES, Subject, subject_of
from sagemaker_monai.images.dicom.wanted import ALL, MOST, Choice
from sagemaker_monai.prepare.dicom_units import Unit
from sagemaker_monai.prepare.labels_table import LabelTable, Line

AUTO = "auto"  # most slices, and all where classes are folders
REMEDY = (
    "choose with --modality, --series-description, or --series most-slices, thinnest, newest, all or a "
    "SeriesInstanceUID"
)
NAMED_FILES = frozenset({"file", "SOPInstanceUID"})  # lines that are about one file


@dataclass
class Selection:
    """What is taken of the labelled units.

    Attributes:
        taken: their places.
        left: place -> why not.
        faults: place -> why a labelled study or file has nothing to take; the place is that of one of its units.
        warnings: sentences about what was taken.
        studies: for the report, each study that was not taken whole.
    """

    taken: list[int]
    left: dict[int, str] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    studies: list[dict[str, object]] = field(default_factory=list)


def choice_of(modality: Sequence[str], description: str, series: str, *, is_folders: bool) -> Choice:
    """The choice of the options, a ConfigError if a value is wrong; "most" was once the name of `most-slices`."""
    series = {AUTO: ALL if is_folders else MOST, "most": MOST}.get(series, series)
    choice = Choice(tuple(modality), description, series)
    choice.check()
    return choice


def choose_units(
    units: Sequence[Unit], labelled: Mapping[int, Line], table: LabelTable, choice: Choice, *, is_folders: bool
) -> Selection:
    """Choose among the labelled units.

    Args:
        units: all; stacks, or single files.
        labelled: place of a unit -> its line.
        table: where lines come from.
        choice: what is asked for.
        is_folders: labels are folders, so single series are not named.

    Raises:
        ConfigError: no unit fits the choice.
    """
    is_stacks = bool(units) and units[0].series is not None
    selection = _choose_stacks(units, labelled, choice, is_folders=is_folders) if is_stacks else _choose_files(
        units, labelled, choice, is_named=not is_folders and table.kind in NAMED_FILES
    )  # fmt: skip
    if not selection.taken and choice.uids:
        raise ConfigError("no labelled series has the UID of --series; name another, most-slices or all")
    if choice.uids:
        selection.faults.clear()  # of the studies that the named series are not in
    _compare(units, selection, choice)
    selection.studies = _studies(units, labelled, selection)
    return selection


def images_without_label(units: Sequence[Unit], labelled: Mapping[int, Line]) -> tuple[list[int], dict[int, str]]:
    """The units without a line: images, which may have been forgotten, and other objects, with their kind."""
    bare = [place for place in range(len(units)) if place not in labelled]
    if not any(_subject(units[place]).kind in IMAGES for place in labelled):
        return bare, {}
    others = {place: KINDS[kind][1] for place in bare if (kind := _subject(units[place]).kind) not in IMAGES}
    return [place for place in bare if place not in others], others


def _choose_stacks(
    units: Sequence[Unit], labelled: Mapping[int, Line], choice: Choice, *, is_folders: bool
) -> Selection:
    rivals: dict[Hashable, list[int]] = defaultdict(list)
    for place, line in labelled.items():
        rivals[(line.label if is_folders else line.key), study_of(units[place])].append(place)
    selection = Selection([])
    for places in rivals.values():
        chosen = choose([_stack(units[place]) for place in places], choice, remedy=REMEDY)
        selection.taken += [places[index] for index in chosen.taken]
        selection.left.update({places[index]: why for index, why in chosen.left.items()})
        if chosen.fault:
            selection.faults[places[0]] = f"the study has {chosen.fault}"
    selection.taken.sort()
    return selection


def _choose_files(units: Sequence[Unit], labelled: Mapping[int, Line], choice: Choice, *, is_named: bool) -> Selection:
    selection = Selection(sorted(labelled))
    if choice.modality:
        wanted = {modality.strip().upper() for modality in choice.modality}
        _drop(selection, [p for p in selection.taken if _subject(units[p]).modality not in wanted], "another modality")
        if not selection.taken:
            raise ConfigError(f"no labelled image is of {', '.join(sorted(wanted))}; name another --modality")
    first = min((_rank(units[place]) for place in selection.taken), default=0)
    if not is_named:
        for place in [place for place in selection.taken if _rank(units[place]) > first]:
            _drop(selection, [place], KINDS[_subject(units[place]).kind][1])
    return selection


def _drop(selection: Selection, places: Sequence[int], why: str) -> None:
    selection.left.update(dict.fromkeys(places, why))
    selection.taken = [place for place in selection.taken if place not in selection.left]


def _compare(units: Sequence[Unit], selection: Selection, choice: Choice) -> None:
    """Add the faults of other objects among images, and warnings about images that are not plain ones."""
    first = min((_rank(units[place]) for place in selection.taken), default=0)
    counts: Counter[Subject] = Counter()
    for place in list(selection.taken):
        subject = _subject(units[place])
        is_odd = _rank(units[place]) > first and not choice.modality and not choice.uids
        if is_odd and (units[place].series is not None or subject.kind in NEVER_PICTURES):
            selection.faults[place] = f"is not an image like the others, only {subject.name}; {REMEDY}"
            selection.taken.remove(place)
        elif subject.kind != "image":
            counts[subject._replace(is_colour=False)] += 1
    for subject, count in sorted(counts.items()):
        selection.warnings.append(f"{count} of {len(selection.taken)} images are no plain ones: {subject.name}")


def _studies(units: Sequence[Unit], labelled: Mapping[int, Line], selection: Selection) -> list[dict[str, object]]:
    """Each study that was not taken whole, by its number among the labelled ones; no names or UIDs."""
    members: dict[str, list[int]] = defaultdict(list)
    for place in sorted(labelled):
        members[study_of(units[place])].append(place)
    return [
        {
            "study": number,
            "taken": [described(units[place]) for place in places if place in selection.taken],
            "left": [
                {"series": described(units[place]), "why": selection.left.get(place, selection.faults.get(place, ""))}
                for place in places
                if place not in selection.taken
            ],
        }
        for number, places in enumerate(members.values(), start=1)
        if any(place not in selection.taken for place in places)
    ]


def described(unit: Unit) -> str:
    """A unit in our own words, without values of free text."""
    first = unit.instances[0]
    number = f"series {first.series_number}: " if first.series_number is not None else ""
    slices = "" if unit.series is None else f", {len(unit.series.slices)} slices"
    return f"{number}{_subject(unit).name}{slices}"


def study_of(unit: Unit) -> str:
    """The key of a unit's study: its UID, else the patient, else the file."""
    first = unit.instances[0]
    return first.study_instance_uid.strip(" \0") or first.patient_id.strip(" \0") or unit.name


def _rank(unit: Unit) -> int:
    subject = _subject(unit)
    return 0 if subject.kind in IMAGES else subject.rank


def _subject(unit: Unit) -> Subject:
    return subject_of(unit.instances[0] if unit.series is None else unit.series.slices[0].instance)


def _stack(unit: Unit) -> Series:
    assert unit.series is not None
    return unit.series
