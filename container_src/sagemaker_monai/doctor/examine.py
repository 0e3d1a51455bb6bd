"""The examination of a data set: from folders to one `Examination`, from which the reports are made.

Other processes look at each file once; everything after that compares small facts.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydicom.uid import UID

from sagemaker_monai.data.label_rules import LabelRules
from sagemaker_monai.doctor.alike import find_duplicates
from sagemaker_monai.doctor.confounding import Association, find_associations, remarks_of
from sagemaker_monai.doctor.examined import Examined, are_classes_folders, images_of
from sagemaker_monai.doctor.facts import ATTRIBUTES, FileFacts, Task, look_at
from sagemaker_monai.doctor.found_files import ARCHIVE, DICOM, PICTURE, Found, find_files
from sagemaker_monai.doctor.label_facts import Labels, read_labels
from sagemaker_monai.doctor.mask_facts import (
    MaskFacts,
    check_masks,
    given_up,
    look_at_mask,
    sizes_of,
    structures_in,
)
from sagemaker_monai.doctor.privacy import Scrubber, check_privacy
from sagemaker_monai.doctor.processes import map_isolated
from sagemaker_monai.doctor.splits import check_labels, check_leaks, count_classes, count_patients
from sagemaker_monai.doctor.stack_findings import Stacks, examine_stacks
from sagemaker_monai.images.dicom.grouping import Series
from sagemaker_monai.images.dicom.objects import IMAGES, names_of, subject_of
from sagemaker_monai.images.volume_files import VOLUME_FORMATS
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.remarks import MAX_EXAMPLES, Remark, by_severity, found, merged, remark
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, task_for

PixelChoice = Literal["auto", "all", "sample", "none"]
ALL_UP_TO = 20_000  # image files: the pixels of so many are all decoded, which takes some minutes
SAMPLE = 2_000  # image files that are decoded if there are more
PRIVACY_UP_TO = 20_000  # headers searched for PHI, 3 ms each; of more a sample
MIXED_SPACING = 1.5  # times
FAINT = 8 / 255  # of the range of all pictures: less contrast shows nothing (a guess)
MANY_VALUES = 20  # shown of a table
# Code of an error -> code of the remark, if it is not unreadable_images.
_FAULTS = {
    "Crashed": "crashed_readers",
    "UnsuitableImage": "unsupported_images",
    "PayloadTooLarge": "unsupported_images",
}


@dataclass(frozen=True)
class Options:
    """What to look at.

    Attributes:
        labels, columns, rules: see `label_facts.read_labels`.
        pixels: which files are decoded: "all", a "sample" of SAMPLE, "none"; "auto" means all up to ALL_UP_TO files.
        processes: that look at files; 0 means this one, without protection against decoders that crash.
        show_names: reports may show names of files.
    """

    labels: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: LabelRules = field(default_factory=LabelRules)
    pixels: PixelChoice = "auto"
    processes: int = 0
    show_names: bool = False


@dataclass(frozen=True)
class Examination:
    """The result. No value in it names a patient, except those that are not part of `repr`.

    Attributes:
        kinds: files by kind.
        counts: title -> value -> number of images.
        numbers: of patients, studies, series, stacks, image files, bytes.
        faults: unreadable files by the code of the error.
        pixels: the choice, and how many files were decoded.
        duplicates: copies by kind.
        labels: source, number, task, images by class and split; sizes of the structures where labels are masks.
        privacy: see `privacy.check_privacy`.
        associations: attributes that go with the label.
        remarks: what is wrong, the worst first.
        seconds: that it took.
        names: of the files, in the order of their numbers; for --show-names only.
        files, images, stacks, shown: for the contact sheet.
    """

    kinds: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, int]
    faults: Mapping[str, int]
    pixels: Mapping[str, str | int]
    duplicates: Mapping[str, int]
    labels: Mapping[str, object]
    privacy: Mapping[str, object]
    associations: tuple[Association, ...]
    remarks: tuple[Remark, ...]
    seconds: float
    names: tuple[str, ...] = field(repr=False)
    files: tuple[FileFacts, ...] = field(repr=False)
    images: tuple[Examined, ...] = field(repr=False)
    stacks: tuple[Series, ...] = field(repr=False)
    shown: Callable[[str], str] = field(repr=False)

    def count(self, severity: str) -> int:
        """How many remarks have a severity."""
        return sum(each.severity == severity for each in self.remarks)


def examine(channels: Mapping[str, Path], scratch: Path, options: Options | None = None) -> Examination:
    """Examine a data set.

    Args:
        channels: name and folder (or archive, or file) of each; a single one's name is not part of file names.
        scratch: an empty folder to unpack to; the contact sheet reads from it too.
        options: what to look at.

    Raises:
        ConfigError: there is nothing to examine, or options contradict each other.
    """
    options = options or Options()
    started = time.monotonic()
    listed = [
        each
        for name, folder in channels.items()
        for each in find_files(folder, scratch, f"{name}/" if len(channels) > 1 else "")
    ]
    files = _look(sorted(listed, key=lambda each: each.name), options)
    folders = {name: folder for name, folder in channels.items() if folder.is_dir()}
    labels = read_labels(folders, options.labels, options.columns, options.rules) if folders else Labels()
    scrubber = Scrubber(files)
    images = images_of(labels, files)
    other_folders = (
        len(labels.classes) if labels.source == "class folders" and are_classes_folders(images, files) else 0
    )
    if other_folders:
        labels = Labels()
        images = images_of(labels, files)
    looked = _look_at_masks(images, options)
    if labels.legend is not None:
        images = [
            replace(image, names=structures_in(looked[place], labels.legend)) if place in looked else image
            for place, image in enumerate(images)
        ]
    stacks = examine_stacks(files, are_volumes=_are_volumes(labels, images))
    duplicates, duplicate_remarks = find_duplicates(images, files)
    privacy, privacy_remarks = check_privacy(files, scrubber)
    associations = (
        []
        if labels.legend is not None
        else find_associations(
            [
                (dict(files[image.files[0]].attributes), image.names)
                for image in images
                if image.is_labelled and image.files
            ],
            ATTRIBUTES,
            is_multilabel=_is_multilabel(labels),
        )
    )
    associations = [replace(each, finding=scrubber.shown(each.finding)) for each in associations]
    remarks = [
        *_file_remarks(files, {position for image in images for position in image.files}),
        *_depths(files),
        *stacks.remarks,
        *duplicate_remarks,
        *check_labels(
            images, labels, files, lambda text: text if options.show_names else scrubber.shown(text),
            scrubber.sentence, show_names=options.show_names,
        ),
        *([remark("folders_are_no_classes", other_folders)] if other_folders else []),
        *_mask_remarks(images, looked, labels, scrubber),
        *check_leaks(images, files),
        *privacy_remarks,
        *remarks_of(associations),
        *(replace(each, message=scrubber.sentence(each.message)) for each in labels.remarks),
        *_mixtures(files, scrubber),
    ]  # fmt: skip
    return Examination(
        kinds=dict(Counter(facts.found.kind for facts in files).most_common()),
        counts=_counts(files, stacks, scrubber),
        numbers=_numbers(files, stacks),
        faults=dict(Counter(fault for facts in files if (fault := _fault_of(facts))).most_common()),
        pixels=_pixels(files, options),
        duplicates=duplicates,
        labels=_labels(labels, images, scrubber) | _structures(looked, labels, scrubber),
        privacy=privacy,
        associations=tuple(associations),
        remarks=tuple(by_severity(remarks)),
        seconds=time.monotonic() - started,
        names=tuple(facts.found.name for facts in files),
        files=tuple(files),
        images=tuple(images),
        stacks=stacks.stacks,
        shown=scrubber.shown,
    )


# --- files -----------------------------------------------------------------------------------------------------------


def _look(listed: Sequence[Found], options: Options) -> list[FileFacts]:
    images = [position for position, each in enumerate(listed) if _may_be_image(each)]
    headers = [position for position in images if listed[position].kind == DICOM]
    private = set(_even(headers, PRIVACY_UP_TO))
    decoded = set(_even(images, {"all": len(images), "none": 0}.get(_choice(len(images), options), SAMPLE)))
    tasks = [
        Task(each, wants_privacy=position in private, wants_pixels=position in decoded)
        for position, each in enumerate(listed)
    ]
    worked = map_isolated(look_at, tasks, _given_up, processes=options.processes)
    looked = dict(track(worked, total=len(tasks), what="examining files"))
    return [looked[position] for position in range(len(tasks))]


def _may_be_image(file: Found) -> bool:
    return not file.fault and (file.kind in (DICOM, PICTURE) or file.kind in VOLUME_FORMATS)


def _choice(images: int, options: Options) -> str:
    if options.pixels != "auto":
        return options.pixels
    return "all" if images <= ALL_UP_TO else "sample"


def _even(positions: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, evenly spread."""
    if len(positions) <= count:
        return list(positions)
    return [positions[number * len(positions) // count] for number in range(count)]


def _given_up(task: Task) -> FileFacts:
    return FileFacts(task.found, 0, fault="Crashed")


def _fault_of(facts: FileFacts) -> str:
    return facts.fault or (facts.pixels.fault if facts.pixels else "")


def _file_remarks(files: Sequence[FileFacts], of_images: Collection[int]) -> list[Remark]:
    """Remarks on single files; `of_images` are the positions of those that are not masks."""
    broken: dict[str, list[int]] = {}
    codes: dict[str, Counter[str]] = {}
    for position, facts in enumerate(files, start=1):
        fault = _fault_of(facts)
        if not fault:
            continue
        code = _FAULTS.get(fault, "unreadable_images")
        if facts.found.kind == ARCHIVE and fault != "Crashed":
            code = "unreadable_archives"
        broken.setdefault(code, []).append(position)
        codes.setdefault(code, Counter())[fault] += 1
    remarks = [
        remark(code, len(positions), positions, codes=", ".join(f"{name} {n}" for name, n in codes[code].most_common()))
        for code, positions in broken.items()
    ]
    numbered = list(enumerate(files, start=1))
    remarks += found("no_picture", [n for n, facts in numbered if facts.instance and not facts.instance.has_pixels])
    remarks += found(
        "blank_images", [n for n, facts in numbered if facts.pixels and facts.pixels.is_blank and n - 1 in of_images]
    )
    remarks += found("images_sampled", [n for n, facts in numbered if facts.is_usable and facts.pixels is None])
    for each in merged(told for facts in files for told in facts.remarks):
        places = [n for n, facts in numbered if any(told.code == each.code for told in facts.remarks)]
        remarks.append(replace(each, examples=tuple(places[:MAX_EXAMPLES])))
    if not any(facts.is_usable for facts in files):
        remarks.append(remark("no_images"))
    return remarks


def _depths(files: Sequence[FileFacts]) -> list[Remark]:
    """Remarks on pictures of more than 8 bits."""
    usable = [
        (number, facts) for number, facts in enumerate(files, 1) if facts.found.kind == PICTURE and facts.is_usable
    ]
    deep = [(number, facts) for number, facts in usable if facts.bits > 8]
    if not deep:
        return []
    remarks = []
    if others := len(usable) - len(deep):
        remarks.append(remark("mixed_bits", len(deep), [number for number, _ in deep], others=others))
    if not (known := [(number, facts.used) for number, facts in deep if facts.used is not None]):
        return remarks
    low, high = min(used[0] for _, used in known), max(used[1] for _, used in known)
    bits = " or ".join(map(str, sorted({facts.bits for _, facts in deep})))
    used_bits = _bits_for(low, high)
    remarks.append(remark("deep_pictures", len(deep), bits=bits, used=used_bits, low=low, high=high))
    faint = [number for number, used in known if used[0] < used[1] < used[0] + FAINT * (high - low)]
    return remarks + found("faint_images", faint)


def _bits_for(low: float, high: float) -> str:
    """How many bits the whole numbers of a range need; "some" for fractions."""
    if not (low.is_integer() and high.is_integer()):
        return "some"
    return str(max(1, int(max(abs(low), abs(high))).bit_length()))


def _mixtures(files: Sequence[FileFacts], scrubber: Scrubber) -> list[Remark]:
    remarks = []
    usable = [facts for facts in files if facts.is_usable]
    subjects = {n: subject_of(facts.instance) for n, facts in enumerate(files, 1) if facts.instance and facts.is_usable}
    others = [number for number, subject in subjects.items() if subject.kind not in IMAGES]
    are_all = len(others) == len(subjects)
    if others:
        kinds = names_of(subjects[number] for number in others)
        remarks.append(remark("no_plain_images" if are_all else "no_images_beside", len(others), others, kinds=kinds))
    meant = subjects if are_all else subjects.keys() - set(others)
    modalities = Counter(
        facts.instance.modality for number, facts in enumerate(files, 1) if facts.instance and number in meant
    )
    if len(modalities) > 1:
        shown = ", ".join(f"{scrubber.shown(name) or '(none)'} {count}" for name, count in modalities.most_common(5))
        remarks.append(remark("mixed_modality", len(modalities), values=shown))
    widths = [facts.spacing_mm[0] for facts in usable if facts.spacing_mm]
    if widths and max(widths) > MIXED_SPACING * min(widths):
        remarks.append(remark("mixed_spacing", len(widths), low=min(widths), high=max(widths)))
    return remarks


# --- counts ----------------------------------------------------------------------------------------------------------


def _counts(files: Sequence[FileFacts], stacks: Stacks, scrubber: Scrubber) -> dict[str, dict[str, int]]:
    instances = [facts.instance for facts in files if facts.instance]
    usable = [facts for facts in files if facts.is_usable]
    sizes = [f"{stack.slices[0].instance.columns} x {stack.slices[0].instance.rows} x {len(stack.slices)}"
             for stack in stacks.stacks]  # fmt: skip
    sizes += [" x ".join(map(str, facts.shape)) for facts in usable if not facts.instance and facts.shape[0]]
    tables: dict[str, Iterable[str]] = {
        "Modality": (instance.modality for instance in instances),
        "Manufacturer": (instance.manufacturer.strip() for instance in instances),
        "TransferSyntax": (syntax_name(instance.transfer_syntax_uid) for instance in instances),
        "PhotometricInterpretation": (instance.photometric_interpretation for instance in instances),
        "BitsStored": (str(facts.bits) for facts in usable if facts.bits),
        "Size": sizes,
        "SpacingMm": (
            "unknown" if facts.spacing_mm is None else f"{facts.spacing_mm[0]:.2f} x {facts.spacing_mm[1]:.2f}"
            for facts in usable
            if facts.found.kind != PICTURE
        ),
    }
    return {title: _top(values, scrubber, is_ours=title in _OWN_TEXTS) for title, values in tables.items()}


_OWN_TEXTS = frozenset({"Size", "SpacingMm", "BitsStored", "TransferSyntax"})  # made here, so they name nobody


def _top(values: Iterable[str], scrubber: Scrubber, *, is_ours: bool) -> dict[str, int]:
    counted = Counter[str]()
    for value, count in Counter(values).items():
        counted[(value if is_ours else scrubber.shown(value)) or "(none)"] += count
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(count for _, count in ordered[MANY_VALUES:])
    return dict(ordered[:MANY_VALUES]) | ({f"({len(ordered) - MANY_VALUES} others)": rest} if rest else {})


def syntax_name(uid: str) -> str:
    """The standard's name of a transfer syntax; unknown UIDs are not shown."""
    if not uid:
        return "(none)"
    name = UID(uid.strip(" \0")).name
    return "(not of the standard)" if name == uid.strip(" \0") or not UID(uid).is_transfer_syntax else name


def _numbers(files: Sequence[FileFacts], stacks: Stacks) -> dict[str, int]:
    instances = [facts.instance for facts in files if facts.instance]
    return {
        "files": len(files),
        "bytes": sum(facts.size_bytes for facts in files),
        "image_files": sum(facts.is_image for facts in files),
        "usable_image_files": sum(facts.is_usable for facts in files),
        "patients": count_patients(files),
        "studies": len({instance.study_instance_uid for instance in instances} - {""}),
        **stacks.counts,
    }


def _pixels(files: Sequence[FileFacts], options: Options) -> dict[str, str | int]:
    looked = [facts.pixels for facts in files if facts.pixels]
    return {
        "choice": _choice(sum(_may_be_image(facts.found) for facts in files), options),
        "decoded": sum(not pixels.fault for pixels in looked),
        "refused": sum(bool(pixels.fault) for pixels in looked),
        "not_looked_at": sum(facts.is_image and not facts.pixels for facts in files),
    }


# --- labels ----------------------------------------------------------------------------------------------------------


def _look_at_masks(images: Sequence[Examined], options: Options) -> dict[int, MaskFacts]:
    """What the masks of images show, by the place of the image; as many as images are decoded."""
    tasks = {place: image.case.mask for place, image in enumerate(images) if image.case and image.case.mask}
    if not tasks or options.pixels == "none":
        return {}
    count = len(tasks) if _choice(len(tasks), options) == "all" else SAMPLE
    chosen = _even(list(tasks), count)
    worked = map_isolated(look_at_mask, [tasks[place] for place in chosen], given_up, processes=options.processes)
    return {chosen[index]: facts for index, facts in track(worked, total=len(chosen), what="examining masks")}


def _mask_remarks(
    images: Sequence[Examined], looked: Mapping[int, MaskFacts], labels: Labels, scrubber: Scrubber
) -> list[Remark]:
    if labels.legend is None:
        return []
    pairs = [(images[place], facts) for place, facts in sorted(looked.items())]
    rest = sum(image.case is not None and image.case.mask is not None for image in images) - len(pairs)
    remarks = check_masks(pairs, labels.legend, scrubber.shown, scrubber.sentence)
    return [*remarks, *([remark("masks_sampled", rest)] if rest else [])]


def _structures(looked: Mapping[int, MaskFacts], labels: Labels, scrubber: Scrubber) -> dict[str, object]:
    """What the report says of structures; nothing unless labels are masks."""
    if labels.legend is None:
        return {}
    return {"structures": sizes_of(list(looked.values()), labels.legend, scrubber.shown)}


def _is_multilabel(labels: Labels) -> bool:
    return labels.task == task_for("findings") or any(isinstance(case.label, tuple) for case in labels.cases)


def _are_volumes(labels: Labels, images: Sequence[Examined]) -> bool | None:
    if labels.spatial_dims is not None:
        return labels.spatial_dims == 3
    labelled = [image for image in images if image.is_labelled and image.files]
    if not labelled:
        return None
    return sum(len(image.files) > 1 for image in labelled) * 2 > len(labelled)


def _labels(labels: Labels, images: Sequence[Examined], scrubber: Scrubber) -> dict[str, object]:
    labelled = [image for image in images if image.is_labelled]
    numbers = [image.case.label for image in labelled if image.case and isinstance(image.case.label, float)]
    usual = task_for("findings") if _is_multilabel(labels) else DEFAULT_TASK if labelled else "none"
    return {
        "source": labels.source or "none",
        "task": labels.task or usual,
        "labelled": len(labelled),
        "with_files": sum(bool(image.files) for image in labelled),
        "groups": len({image.group for image in labelled if image.group}),
        "splits": dict(Counter(image.split or "not given" for image in labelled)),
        "classes": count_classes(labelled, labels, scrubber.shown),
        "range": [min(numbers), max(numbers)] if numbers else [],
    }
