"""What is odd about data, or wrong with them: each kind with a stable code, a severity, and a text with the remedy.

Readers of layouts and tables put remarks beside what they read; `prepare` and `train` print them, and `doctor` shows
them with its own. An error means that the data cannot be used as they are, or that a score on them would be wrong; a
warning that somebody should look; a note is only said. Texts and examples hold no names, numbers or UIDs of anybody:
examples are numbers of files, counted from 1 in the order of their names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]

MAX_EXAMPLES = 5
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Remark:
    """One kind of thing that was noticed.

    Attributes:
        code: stable: a key of `REMARKS`, or of `dicom.findings.MESSAGES` for what is odd about series.
        severity: "error", "warning" or "note".
        message: cause and remedy, or what was read how, and what to do if that is not meant.
        count: how many it concerns.
        unit: what is counted: files, images, series, patients, classes, attributes.
        examples: numbers of files, the first few; only `doctor` numbers them.
    """

    code: str
    severity: Severity
    message: str
    count: int
    unit: str
    examples: tuple[int, ...] = ()


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
    # what only doctor looks for
    "no_images": ("error", "files", "there is no image of a known format; accepted are DICOM, NIfTI, NRRD, MetaImage, "
                  "NumPy and pictures"),
    "unreadable_images": ("error", "files", "{n} image files are broken or not as their header says ({codes}); export "
                          "them again or leave them out"),
    "unsupported_images": ("error", "files", "{n} sound files cannot be used by this program ({codes}); convert them "
                           "or leave them out"),
    "crashed_readers": ("error", "files", "{n} files made a decoder crash or hang; leave them out"),
    "unreadable_archives": ("warning", "files", "{n} archives are damaged, unsafe or too large; pack them again"),
    "no_picture": ("warning", "files", "{n} DICOM files hold no picture (reports, plans, bare headers); leave them "
                   "out"),
    "no_images_beside": ("warning", "files", "{n} DICOM files are no images ({kinds}) and lie beside some that are: "
                         "they are passed over unless they are asked for"),
    "no_plain_images": ("warning", "files", "all {n} DICOM files are {kinds}; whether that is meant cannot be told"),
    "blank_images": ("warning", "files", "{n} images show nothing: one value in every pixel, or a few "
                     "levels side by side; look at them"),
    "deep_pictures": ("note", "files", "{n} pictures have {bits} bits a value, of which {used} are used (values from "
                      "{low:g} to {high:g}): train keeps all of them (preset deep) and shows the network the range of "
                      "the training pictures; window narrows it"),
    "mixed_bits": ("error", "files", "{n} pictures have more than 8 bits a value and {others} have 8: their values are "
                   "on different scales; export all of them alike"),
    "faint_images": ("warning", "files", "{n} pictures of more than 8 bits lie within a few levels of the range of all "
                     "of them: nothing can be seen in them once they are prepared; look at them"),
    "images_sampled": ("note", "files", "the pixels of {n} image files were not looked at (--pixels all looks at all)"),
    "duplicate_bytes": ("warning", "files", "{n} files are byte for byte the same as another; keep one of each"),
    "duplicate_pixels": ("warning", "images", "{n} images have the same pixels as another under another header or "
                         "format; keep one of each"),
    "duplicates_across_splits": ("error", "images", "{n} images have a copy in another split: scores would be too "
                                 "good; keep one of each, or give copies one group"),
    "duplicates_label_conflict": ("error", "images", "{n} images have a copy with another label; decide which is "
                                  "right"),
    "duplicates_across_patients": ("warning", "images", "{n} images have a copy under another PatientID; one of the "
                                   "patients is wrong, or the groups should be one"),
    "near_identical": ("warning", "images", "{n} photographs look like another (scaled, compressed again, turned) of "
                       "another group; give them one group"),
    "near_identical_across_splits": ("error", "images", "{n} photographs look like another one in another split; give "
                                     "them one group"),
    "no_labels": ("note", "files", "no labels were found that train would read ({reason}); name a table with --labels"),
    "unsound_layout": ("error", "files", "train cannot read this data set: {reason}"),
    "train_refuses": ("error", "files", "train would refuse this data set: {reason}"),
    "no_test_images": ("warning", "files", "too few images or groups to draw a test split from: train needs "
                       "test_fraction 0"),
    "labels_are_masks": ("note", "images", "{n} labels are files: masks for segmentation, which this program does not "
                         "train"),
    "labels_without_images": ("error", "images", "{n} labels name images that are not there; add the files or remove "
                              "the lines"),
    "images_without_labels": ("warning", "files", "{n} image files have no label; label them or leave them out"),
    "labels_twice": ("error", "images", "{n} images are listed more than once; keep one line for each"),
    "labelled_without_picture": ("error", "images", "{n} labels name files without a picture that can be used"),
    "empty_classes": ("warning", "classes", "{n} declared classes have no image ({classes})"),
    "class_not_in_training": ("error", "classes", "{n} classes have no training image ({classes}); add some"),
    "small_classes": ("note", "classes", "{n} classes have fewer than {few} images ({classes}); scores on them are "
                      "hardly more than chance"),
    "imbalance": ("note", "classes", "the largest class has {ratio} times the images of the smallest; look at balanced "
                  "scores, and weight the classes"),
    "groups_across_splits": ("error", "groups", "{n} groups have images in more than one split: scores would be too "
                             "good; put all images of a group into one"),
    "patients_across_splits": ("error", "patients", "{n} patients (PatientID) have images in more than one split: "
                               "scores would be too good; put all images of a patient into one, and name the patient "
                               "as group"),
    "series_across_splits": ("error", "series", "{n} series (SeriesInstanceUID) have images in more than one split; "
                             "put all slices of a series into one"),
    "patients_in_several_groups": ("error", "patients", "{n} patients (PatientID) have images in several groups: the "
                                   "split that train draws would tear them apart; name the patient as group"),
    "one_patient": ("warning", "patients", "all files have the same PatientID: one patient, or the ID was removed; "
                    "whether patients are on several sides cannot be told"),
    "no_patient": ("warning", "files", "{n} labelled DICOM files have no PatientID; whether their patients are on "
                   "several sides cannot be told"),
    "folders_are_no_classes": ("note", "classes", "the {n} folders are called as patients, or hold one series each, so "
                               "they were not taken for classes; train would"),
    "confounded": ("warning", "attributes", "{attribute} goes with the label: the majority label of its values is "
                   "right for {accuracy:.0%} of the images, always the largest class for {base:.0%} (Cramer's V "
                   "{v:.2f}, {images} images); a network may learn the scanner and not the disease: collect all "
                   "labels from each scanner, or score within one"),
    "associated": ("note", "attributes", "{attribute} goes with the label in part (Cramer's V {v:.2f}; majority label "
                   "{accuracy:.0%}, largest class {base:.0%}, {images} images)"),
    "phi_in_headers": ("warning", "files", "{n} DICOM headers hold what may identify a patient ({kinds}); de-identify "
                       "before copying: prepare does"),
    "private_attributes": ("note", "files", "{n} DICOM headers have private attributes, of which nobody knows what "
                           "they hold"),
    "burned_in_stated": ("warning", "files", "{n} pictures have text in their pixels by their own header; black it out "
                         "or leave them out"),
    "burned_in_likely": ("warning", "files", "{n} pictures are of a kind that often has a name in its pixels "
                         "({modalities}); look at them"),
    "phi_in_names": ("warning", "files", "{n} names of files or folders hold a name, number or date of the patient by "
                     "their own header; rename them"),
    "phi_in_volumes": ("note", "files", "{n} NIfTI or Analyze headers have free texts, where converters leave "
                       "names and dates beside their own version"),
    "phi_in_pictures": ("warning", "files", "{n} pictures have a place, an artist or a serial number in EXIF"),
    "mixed_modality": ("warning", "files", "the images are of {n} modalities ({values}); train on one, or know "
                       "why not"),
    "mixed_spacing": ("note", "files", "pixels are from {low:.3g} to {high:.3g} mm wide; have them resampled "
                      "(spacing) or fitted to one size"),
}  # fmt: skip


def remark(code: str, count: int = 1, examples: Sequence[int] = (), **values: object) -> Remark:
    """Make a remark with its severity and text, and the first few of its examples."""
    severity, unit, text = REMARKS[code]
    return Remark(code, severity, text.format(n=count, **values), count, unit, tuple(examples)[:MAX_EXAMPLES])


def by_severity(remarks: Sequence[Remark]) -> list[Remark]:
    """The worst first, and then those that concern most."""
    return sorted(remarks, key=lambda each: (SEVERITIES.index(each.severity), -each.count, each.code))


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
