"""What is odd about data and was read all the same: each kind with a stable code and one sentence.

Readers of layouts and tables put remarks beside what they read; `doctor` shows them as issues, `prepare` and `train`
print them. Like issues they name nobody: counts, columns, and numbers of rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Remark:
    """One kind of thing that was noticed.

    Attributes:
        code: stable, a key of REMARKS.
        severity: "warning" where somebody should look, "note" where it is only said.
        message: what was read how, and what to do if that is not meant.
        count: how many it concerns.
        unit: what is counted.
    """

    code: str
    severity: Severity
    message: str
    count: int
    unit: str


# Code -> severity, unit and sentence; {n} is the count, other braces are filled where the remark is made.
REMARKS: dict[str, tuple[Severity, str, str]] = {
    "names_found_otherwise": ("note", "images", "{n} of {all} names in {what} are not written as their files are "
                              "called, and were found where only one can be meant: {ways}"),
    "masks_passed_over": ("note", "files", "{n} files are masks of images beside them, by their names: they are passed "
                          "over, and no images of a class; name one in a table if it is an image"),
    "masks_among_images": ("warning", "files", "{n} images are called as masks, and no image stands beside them, or "
                           "they show many values, or a table names them: they are taken for images; leave them out if "
                           "they are masks"),
    # who is a patient
    "groups_by_column": ("note", "groups", "images with the same {column} stay on one side of the split ({n} groups); "
                         "{option} names another column, or none"),
    "group_is_label": ("warning", "columns", "the column {column} says the same as the label, so it is not taken for "
                       "groups; name the column of patients with {option}"),
    "groups_not_nested": ("warning", "groups", "{n} values of {other} have images of several {column}; images stay "
                          "together by {column} ({option} names another column)"),
    "images_without_group": ("warning", "images", "{n} images have no {column}: each counts as a patient of its own"),
    "groups_alike": ("warning", "groups", "{n} values of {column} differ from another in case, blanks, leading zeros "
                     "or .0 only, and are taken for one patient"),
    "no_groups": ("note", "images", "nothing says which images are of one patient: each of the {n} images counts "
                  "as a patient of its own when the split is drawn; name the patient in a column (group, patient_id) "
                  "if somebody has several images"),
    "folds_unused": ("note", "folds", "the images are of {n} folds ({folds}), which are not used, as no fold was asked "
                     "for: fold=NUMBER takes that one for validation"),
    # what labels mean
    "missing_labels": ("warning", "images", "{n} images have no label ({written}) and are left out; {option} refuses "
                       "them; such a name is a class where it is declared (labels of dataset.json, folders, grades)"),
    "uncertain_labels": ("warning", "images", "{n} images have uncertain findings (-1, u), taken as {meant}"),
    "empty_findings": ("note", "images", "{n} empty cells of findings are read as no finding"),
    "findings_are_classes": ("warning", "classes", "each image has exactly one of the {n} label columns: if they "
                             "exclude each other, set {option}"),
    "labels_are_lists": ("note", "labels", "{n} labels are lists of findings, with | or ; between them: each is told "
                         "by itself (multilabel)"),
    "bars_in_names": ("note", "classes", "{n} class names have | or ; in them ({names}) and are taken as they are; set "
                      "{option} if they are lists of findings"),
    "labels_far_off": ("warning", "images", "{n} labels lie far from all others ({values}; the others are from "
                       "{low:.6g} to {high:.6g}): if they stand for a missing value, set {option}"),
    "similar_labels_kept": ("warning", "classes", "{n} classes look alike ({names}) and are kept apart"),
    "similar_labels_merged": ("note", "classes", "{n} classes look alike ({names}) and are taken as one"),
    # tables and folders
    "tables_passed_over": ("note", "files", "{n} tables have no columns of images and labels and are passed over"),
    "table_beside_folders": ("note", "images", "labels are those of {table}, which names {n} images, and not the names "
                             "of the folders beside it"),
    "data_set_below": ("note", "folders", "the data set lies {n} folders below the one that was given"),
    "folders_passed_over": ("note", "folders", "{n} folders without an image beside those of splits are passed over"),
    "splits_below_classes": ("note", "folders", "the folders below the classes are called as splits, and are taken for "
                             "them"),
    "patients_below_classes": ("note", "groups", "the {n} folders below the classes are taken for patients: the images "
                               "of one ({images} in all) stay on one side of the split"),
    "useless_transform": ("warning", "files", "the header's {useless} is none that can be, and the {used} was taken"),
    "contradicting_transforms": ("warning", "files", "the header has two transforms that contradict each other, and "
                                 "the first was taken: sform {sform}; qform {qform}"),
    "contradicting_spacing": ("warning", "files", "the header says its spacing twice, and the first was taken: by its "
                              "directions {used} mm, by its sizes {other} mm"),
}  # fmt: skip


def remark(code: str, count: int = 1, **values: object) -> Remark:
    """Make a remark with its sentence."""
    severity, unit, text = REMARKS[code]
    return Remark(code, severity, text.format(n=count, **values), count, unit)


def merged(remarks: Iterable[Remark]) -> list[Remark]:
    """One remark a code: the first, with the count of all, which it says."""
    parts: dict[str, list[Remark]] = {}
    for each in remarks:
        parts.setdefault(each.code, []).append(each)
    result = []
    for first, *others in parts.values():
        count = first.count + sum(each.count for each in others)
        text = f"{first.message} (in all {count} {first.unit}, of which this is the first)" if others else first.message
        result.append(replace(first, message=text, count=count))
    return result
