"""Whether labels can be learned and scored: images for labels, classes in splits, nobody on two sides."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.doctor.examined import Examined, is_there, patient_of
from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.doctor.label_facts import Labels, without_names
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.messages.shortened import some_of

NO_SPLIT = "not given"
FEW = 10  # images of a class
IMBALANCE = 10.0  # times

Shown = Callable[[str], str]  # of a class name that may be a patient's


def count_classes(images: Sequence[Examined], labels: Labels, shown: Shown) -> dict[str, dict[str, int]]:
    """Images of each class in each split, and in all; classes in the model's order."""
    counted = Counter((name, image.split or NO_SPLIT) for image in images for name in image.names)
    splits = [split for split in (*SPLITS, NO_SPLIT) if any(key[1] == split for key in counted)]
    names = list(dict.fromkeys([*labels.classes, *(name for name, _ in sorted(counted))]))
    return {
        _title(name, number, shown): {split: counted[name, split] for split in splits}
        | {"all": sum(counted[name, split] for split in splits)}
        for number, name in enumerate(names, start=1)
    }


def _title(name: str, number: int, shown: Shown) -> str:
    return name if shown(name) == name else f"class {number} {shown(name)}"  # which stays one of its own


def check_labels(
    images: Sequence[Examined],
    labels: Labels,
    files: Sequence[FileFacts],
    shown: Shown,
    sentence: Shown,
    *,
    show_names: bool,
) -> list[Remark]:
    """Compare labels with images, and count classes.

    Args:
        images, labels, files: what was found.
        shown: what may be shown of a class name.
        sentence: of a reason that quotes parts of the data set.
        show_names: reasons may name files.
    """
    remarks = []
    if labels.fault:
        reason = labels.fault if show_names else sentence(without_names(labels.fault))
        remarks.append(remark("unsound_layout" if labels.is_faulty else "no_labels", reason=reason))
    if labels.refusal:
        remarks.append(
            remark("train_refuses", reason=labels.refusal if show_names else sentence(without_names(labels.refusal)))
        )
    elif labels.lacks_test:
        remarks.append(remark("no_test_images"))
    if labels.masks:
        remarks.append(remark("labels_are_masks", len(labels.masks)))
    labelled = [image for image in images if image.is_labelled]
    present = [image for image in labelled if image.case is not None and is_there(image.case)]
    if len(present) < len(labelled):
        remarks.append(remark("labels_without_images", len(labelled) - len(present)))
    twice = [files_ for files_, count in Counter(image.files for image in labelled if image.files).items() if count > 1]
    if twice:
        remarks.append(remark("labels_twice", len(twice), [each[0] + 1 for each in twice]))
    useless = [image.example for image in present if not _is_usable(image, files)]
    if useless:
        remarks.append(remark("labelled_without_picture", len(useless), useless))
    alone = [image.example for image in images if not image.is_labelled]
    if alone and labels.is_table and labels.cases:
        remarks.append(remark("images_without_labels", len(alone), alone))
    return remarks + _check_classes(labelled, labels, shown)


def _is_usable(image: Examined, files: Sequence[FileFacts]) -> bool:
    return any(files[position].is_usable for position in image.files)


def _check_classes(images: Sequence[Examined], labels: Labels, shown: Shown) -> list[Remark]:
    counts = Counter(name for image in images for name in image.names)
    if not counts:
        return []
    remarks = []
    empty = [name for name in labels.classes if not counts[name]]
    if empty:
        remarks.append(remark("empty_classes", len(empty), classes=_list(empty, shown)))
    training = Counter(name for image in images if image.split == "training" for name in image.names)
    unseen = [name for name in counts if not training[name]] if training else []
    if unseen:
        remarks.append(remark("class_not_in_training", len(unseen), classes=_list(unseen, shown)))
    small = [name for name, count in counts.items() if count < FEW]
    if small:
        remarks.append(remark("small_classes", len(small), few=FEW, classes=_list(small, shown)))
    ratio = max(counts.values()) / min(counts.values())
    if len(counts) > 1 and ratio >= IMBALANCE:
        remarks.append(remark("imbalance", len(counts), ratio=round(ratio)))
    return remarks


def _list(names: Sequence[str], shown: Shown) -> str:
    return some_of([shown(name) for name in names])


def check_leaks(images: Sequence[Examined], files: Sequence[FileFacts]) -> list[Remark]:
    """Look for patients, groups and series on several sides of the split, or about to be torn apart by it."""
    labelled = [image for image in images if image.is_labelled and image.files]
    remarks = []
    if torn := _torn(labelled, lambda image: image.group, lambda image: image.split):
        remarks.append(remark("groups_across_splits", len(torn), torn))
    patients = {image.patient for image in labelled} - {""}
    of_dicom = [image for image in labelled if files[image.files[0]].instance is not None]
    unknown = [image.example for image in of_dicom if not image.patient]
    if unknown:
        remarks.append(remark("no_patient", len(unknown), unknown))
    # A single ID for all says nothing; of few images it may be right.
    if len(patients) == 1 and len(of_dicom) > 1:
        return [*remarks, remark("one_patient")]
    if torn := _torn(labelled, lambda image: image.patient, lambda image: image.split):
        remarks.append(remark("patients_across_splits", len(torn), torn))
    elif torn := _torn(labelled, lambda image: image.series, lambda image: image.split):
        remarks.append(remark("series_across_splits", len(torn), torn))
    undivided = [image for image in labelled if image.split is None]
    if undivided and (torn := _torn(undivided, lambda image: image.patient, _group_of)):
        remarks.append(remark("patients_in_several_groups", len(torn), torn))
    return remarks


def _group_of(image: Examined) -> str:
    return f"group {image.group}" if image.group else f"image {image.example}"


def _torn(
    images: Sequence[Examined], key: Callable[[Examined], str], side: Callable[[Examined], str | None]
) -> list[int]:
    """An example of each key that is on several sides."""
    sides: Mapping[str, dict[str, int]] = defaultdict(dict)
    for image in images:
        if (value := key(image)) and (place := side(image)) is not None:
            sides[value].setdefault(place, image.example)
    return [min(places.values()) for places in sides.values() if len(places) > 1]


def count_patients(files: Sequence[FileFacts]) -> int:
    """How many patients the headers tell apart."""
    return len({patient for facts in files if (patient := patient_of(facts))})
