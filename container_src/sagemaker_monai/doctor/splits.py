"""Whether labels can be learned and scored: images for all labels, classes in all splits, no patient in two splits."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.doctor.examined import Examined, is_there, patient_of
from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.doctor.label_facts import Labels, without_names
from sagemaker_monai.messages.remarks import Remark, found, remark
from sagemaker_monai.messages.shortened import some_of

NO_SPLIT = "not given"
FEW = 10  # images of a class
IMBALANCE = 10.0  # times

# Codes of remarks on labels that no image has, that none of training has, and that few have: classes, structures.
CODES = {
    False: ("empty_classes", "class_not_in_training", "small_classes"),
    True: ("structures_in_no_mask", "structures_not_in_training", "structures_in_few_masks"),
}

Shown = Callable[[str], str]  # a class name may be a patient's


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
    return name if shown(name) == name else f"class {number} {shown(name)}"  # classes stay distinct


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
        sentence: what may be shown of a reason that quotes the data set.
        show_names: reasons may name files.
    """

    def reason(text: str) -> str:
        return text if show_names else sentence(without_names(text))

    remarks = []
    if labels.fault:
        remarks.append(remark("unsound_layout" if labels.is_faulty else "no_labels", reason=reason(labels.fault)))
    if labels.refusal:
        remarks.append(remark("train_refuses", reason=reason(labels.refusal)))
    elif labels.lacks_test:
        remarks.append(remark("no_test_images"))
    if labels.masks:
        remarks.append(remark("labels_are_masks", sum(case.mask is not None for case in labels.cases)))
    labelled = [image for image in images if image.is_labelled]
    present = [image for image in labelled if image.case is not None and is_there(image.case)]
    if len(present) < len(labelled):
        remarks.append(remark("labels_without_images", len(labelled) - len(present)))
    owners = Counter(image.files for image in labelled if image.files)
    remarks += found("labels_twice", [own[0] + 1 for own, count in owners.items() if count > 1])
    useless = [image for image in present if not any(files[position].is_usable for position in image.files)]
    if useless:
        examples = [image.example for image in useless if image.files]  # a text file is none of the examined images
        remarks.append(remark("labelled_without_picture", len(useless), examples))
    if labels.is_table and labels.cases:
        remarks += found("images_without_labels", [image.example for image in images if not image.is_labelled])
    # Without a look at the masks nothing is known of their structures.
    is_known = labels.legend is None or any(image.names for image in labelled)
    return remarks + (_check_classes(labelled, labels, shown) if is_known else [])


def _check_classes(images: Sequence[Examined], labels: Labels, shown: Shown) -> list[Remark]:
    counts = Counter(name for image in images for name in image.names)
    if not counts:
        return []
    remarks = []
    of_none, of_no_training, of_few = CODES[labels.legend is not None]
    empty = [name for name in labels.classes if not counts[name]]
    if empty:
        remarks.append(remark(of_none, len(empty), classes=_list(empty, shown)))
    training = Counter(name for image in images if image.split == "training" for name in image.names)
    unseen = [name for name in counts if not training[name]] if training else []
    if unseen:
        remarks.append(remark(of_no_training, len(unseen), classes=_list(unseen, shown)))
    small = [name for name, count in counts.items() if count < FEW]
    if small:
        remarks.append(remark(of_few, len(small), few=FEW, classes=_list(small, shown)))
    ratio = max(counts.values()) / min(counts.values())
    if len(counts) > 1 and ratio >= IMBALANCE and labels.legend is None:
        remarks.append(remark("imbalance", len(counts), ratio=round(ratio)))
    return remarks


def _list(names: Sequence[str], shown: Shown) -> str:
    return some_of([shown(name) for name in names])


def check_leaks(images: Sequence[Examined], files: Sequence[FileFacts]) -> list[Remark]:
    """Look for patients, groups and series in several splits, or in several groups of a split yet to be drawn."""
    labelled = [image for image in images if image.is_labelled and image.files]
    remarks = found("groups_across_splits", _torn(labelled, lambda image: image.group, _split_of))
    patients = {image.patient for image in labelled} - {""}
    of_dicom = [image for image in labelled if files[image.files[0]].instance is not None]
    remarks += found("no_patient", [image.example for image in of_dicom if not image.patient])
    # One ID for all images identifies nobody, unless they really are of one patient.
    if len(patients) == 1 and len(of_dicom) > 1:
        return [*remarks, remark("one_patient")]
    by_patient = _torn(labelled, lambda image: image.patient, _split_of)
    remarks += found("patients_across_splits", by_patient) or found(
        "series_across_splits", _torn(labelled, lambda image: image.series, _split_of)
    )
    undivided = [image for image in labelled if image.split is None]
    return remarks + found("patients_in_several_groups", _torn(undivided, lambda image: image.patient, _group_of))


def _split_of(image: Examined) -> str | None:
    return image.split


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
