"""Remarks on what is odd or wrong about data: each kind has a stable code, a severity and a text with the remedy.

Readers of layouts and tables return remarks with what they read; `prepare` and `train` print them, and `doctor` adds
its own. An error means that the data cannot be used as they are, or that scores on them would be wrong; a warning asks
somebody to look; a note only informs. Texts and examples contain no names, patient numbers or UIDs: examples are file
numbers, counted from 1 in the order of the files' names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]

MAX_EXAMPLES = 5
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Remark:
    """One kind of observation.

    Attributes:
        code: stable: a key of `REMARKS`, or of `dicom.findings.MESSAGES` for remarks on series.
        message: cause and remedy, or how something was read and what to do if that is wrong.
        count: how many files, images, series, ... (`unit`) it concerns.
        examples: the first few file numbers; only `doctor` gives any.
    """

    code: str
    severity: Severity
    message: str
    count: int
    unit: str
    examples: tuple[int, ...] = ()


# Code -> severity, unit and sentence; {n} is the count, and `remark` fills in the other fields.
REMARKS: dict[str, tuple[Severity, str, str]] = {
    "names_found_otherwise": ("note", "images", "{n} of {all} names in {what} are not spelled like their files; each "
        "was matched to the only file it can mean: {ways}"),
    "masks_passed_over": ("note", "files", "{n} files are masks, by their names, of the images beside them: they are "
        "ignored (task segmentation learns from them); if one is an image, name it in a table"),
    "masks_among_images": ("warning", "files", "{n} images are named like masks but have no image beside them, show "
        "many values or are named by a table: they are used as images; leave them out if they are masks"),
    # who is a patient
    "groups_by_column": ("note", "groups", "images with the same {column} stay on one side of the split ({n} groups); "
        "{option} names another column, or none"),
    "group_is_label": ("warning", "columns", "the column {column} says the same as the label, so it is not used for "
        "groups; name the column of patients with {option}"),
    "groups_not_nested": ("warning", "groups", "{n} values of {other} have images of several {column}; images stay "
        "together by {column} ({option} names another column)"),
    "images_without_group": ("warning", "images", "{n} images have no {column}: each counts as a separate patient"),
    "groups_alike": ("warning", "groups", "{n} values of {column} differ from another only in case, blanks, leading "
        "zeros or .0, and count as the same patient"),
    "no_groups": ("note", "images", "nothing says which images belong to one patient: in the split, each of the {n} "
        "images counts as a separate patient; if patients have several images, name the patient in a column (group, "
        "patient_id)"),
    "folds_unused": ("note", "folds", "the images have {n} folds ({folds}), which are not used because no fold was "
        "requested: fold=NUMBER uses that one for validation"),
    # what labels mean
    "missing_labels": ("warning", "images", "{n} images have no label ({written}) and are left out; {option} refuses "
        "them; to use such a name as a class, declare it (labels of dataset.json, folders, grades)"),
    "uncertain_labels": ("warning", "images", "{n} images have uncertain findings (-1, u), read as {meant}"),
    "empty_findings": ("note", "images", "{n} empty cells of findings are read as no finding"),
    "findings_are_classes": ("warning", "classes", "each image has exactly one of the {n} label columns: if they "
        "exclude each other, set {option}"),
    "labels_are_lists": ("note", "labels", "{n} labels are lists of findings, separated by | or ;: each finding is "
        "predicted separately (multilabel)"),
    "bars_in_names": ("note", "classes", "{n} class names contain | or ; ({names}) and are kept as they are; set "
        "{option} if they are lists of findings"),
    "labels_far_off": ("warning", "images", "{n} labels lie far from all others ({values}; the others are from "
        "{low:.6g} to {high:.6g}): if they stand for a missing value, set {option}"),
    "similar_labels_kept": ("warning", "classes", "{n} classes look alike ({names}) and are kept apart"),
    "similar_labels_merged": ("note", "classes", "{n} classes look alike ({names}) and are merged"),
    # tables and folders
    "tables_passed_over": ("note", "files", "{n} tables have no columns of images and labels and are ignored"),
    "table_beside_folders": ("note", "images", "labels come from {table}, which names {n} images, not from the names "
        "of the folders beside it"),
    "data_set_below": ("note", "folders", "the data set lies {n} folders below the given one"),
    "folders_passed_over": ("note", "folders", "{n} folders without an image beside the folders of splits are ignored"),
    "splits_below_classes": ("note", "folders", "the folders below the classes are named like splits and are used as "
        "splits"),
    "patients_below_classes": ("note", "groups", "the {n} folders below the classes are treated as patients: the "
        "images of each ({images} in all) stay on one side of the split"),
    "groups_by_folder": ("note", "groups", "{n} folders hold several images each, which stay on one side of the split, "
        "as those of one patient"),
    "useless_transform": ("warning", "files", "the header's {useless} is invalid, so the {used} is used"),
    "contradicting_transforms": ("warning", "files", "the header has two transforms that contradict each other, and "
        "the first is used: sform {sform}; qform {qform}"),
    "contradicting_spacing": ("warning", "files", "the header gives two spacings, and the first is used: {used} mm by "
        "its directions, {other} mm by its sizes"),
    # what is odd about masks
    "mask_place_unproved": ("note", "files", "{n} masks or their images have no geometry: only sizes were compared"),
    "mask_axes_by_convention": ("note", "files", "{n} masks are arrays with two axes of the same size; they are read "
        "as (W, H) or (W, H, D), and a transposed one would not be noticed"),
    "mask_values_rounded": ("warning", "files", "{n} masks have values that are only nearly whole; they were rounded"),
    "mask_values_scaled": ("warning", "files", "{n} masks have a factor or an offset in their header (scl_slope, "
        "scl_inter), which was applied; check that the values are those of the structures"),
    "mask_many_values": ("warning", "files", "{n} masks have very many different values, as images do, or masks with "
        "smoothed edges; check that they are masks"),
    "mask_in_parts": ("note", "files", "{n} masks are in several files of one image (mask, mask_1, ...), which "
        "were laid together"),
    "mask_white_is_one": ("note", "files", "{n} masks have black and white pixels only: white is read as 1"),
    "mask_palette_order": ("warning", "files", "{n} masks have a palette in which black is not index 0; the indices "
        "are used as they are"),
    "mask_reference_unproved": ("note", "files", "{n} DICOM masks do not name their image, or it is not DICOM: "
        "they were matched by their place only"),
    "fractional_mask": ("note", "files", "{n} masks hold fractions; voxels from the threshold on count"),
    "contours_passed_over": ("note", "files", "{n} structure sets have points, open lines or contours of fewer than "
        "three points, which have no inside and are left out"),
    "contours_repeated": ("warning", "files", "{n} structure sets have contours twice; one of each is used"),
    "contours_cross": ("warning", "files", "{n} structure sets have contours of one structure that cross or cover each "
        "other; what lies in an even number of them is read as outside"),
    "contours_clipped": ("warning", "files", "{n} structure sets have contours that leave the image; they are cut off"),
    "contours_skip_slices": ("warning", "files", "{n} structure sets have structures with slices left out between "
        "others; nothing is interpolated there"),
    "structures_without_contours": ("note", "files", "{n} structure sets list structures without any contour"),
    "structures_without_voxels": ("warning", "files", "{n} structure sets have structures too small for any voxel"),
    "mask_values_unnamed": ("warning", "files", "{n} segmentations have voxels with a value that no segment has"),
    "structures_left_out": ("note", "files", "{n} masks have structures that labels does not name; they are left out"),
    "segments_renumbered": ("note", "files", "{n} segmentations have one value for several segments, in different "
        "layers; the segments were numbered in their order"),
    "absent_structures": ("warning", "structures", "{n} structures are in the masks of only some of the {images} "
        "images ({shown}): in the others they count as absent; leave out images in which nobody looked for them"),
    # what only doctor looks for
    "no_images": ("error", "files", "there is no image of a known format; accepted are DICOM, NIfTI, NRRD, MetaImage, "
        "NumPy and pictures"),
    "unreadable_images": ("error", "files", "{n} image files are broken or contradict their header ({codes}); export "
        "them again or leave them out"),
    "unsupported_images": ("error", "files", "{n} sound files cannot be used by this program ({codes}); convert them "
        "or leave them out"),
    "crashed_readers": ("error", "files", "{n} files made a decoder crash or hang; leave them out"),
    "unreadable_archives": ("warning", "files", "{n} archives are damaged, unsafe or too large; pack them again"),
    "no_picture": ("warning", "files", "{n} DICOM files hold no picture (reports, plans, bare headers); leave them "
        "out"),
    "no_images_beside": ("warning", "files", "{n} DICOM files beside the images are not images ({kinds}): they are "
        "ignored unless requested"),
    "no_plain_images": ("warning", "files", "all {n} DICOM files are {kinds}; check whether that is intended"),
    "blank_images": ("warning", "files", "{n} images show nothing: one value in every pixel, or a few neighbouring "
        "levels; look at them"),
    "deep_pictures": ("note", "files", "{n} pictures have {bits} bits per value, of which {used} are used (values from "
        "{low:g} to {high:g}): train keeps all of them (preset deep) and shows the network the range of the training "
        "pictures; window narrows it"),
    "mixed_bits": ("error", "files", "{n} pictures have more than 8 bits per value and {others} have 8: their values "
        "are on different scales; export all of them alike"),
    "faint_images": ("warning", "files", "{n} pictures of more than 8 bits lie within a few levels of the common "
        "range: nothing will be visible in them after preprocessing; look at them"),
    "images_sampled": ("note", "files", "the pixels of {n} image files were not examined (--pixels all examines all)"),
    "duplicate_bytes": ("warning", "files", "{n} files are identical to another, byte for byte; keep one of each"),
    "duplicate_pixels": ("warning", "images", "{n} images have the same pixels as another with a different header or "
        "format; keep one of each"),
    "duplicates_across_splits": ("error", "images", "{n} images have a copy in another split: scores would be too "
        "good; keep one of each, or give copies one group"),
    "duplicates_label_conflict": ("error", "images", "{n} images have a copy with another label; decide which is "
        "right"),
    "duplicates_across_patients": ("warning", "images", "{n} images have a copy under another PatientID; either one "
        "PatientID is wrong, or the groups should be merged"),
    "near_identical": ("warning", "images", "{n} photographs look like one of another group (scaled, compressed again, "
        "turned); give them the same group"),
    "near_identical_across_splits": ("error", "images", "{n} photographs look like one in another split; give them the "
        "same group"),
    "no_labels": ("note", "files", "no labels were found that train would read ({reason}); name a table with --labels"),
    "unsound_layout": ("error", "files", "train cannot read this data set: {reason}"),
    "train_refuses": ("error", "files", "train would refuse this data set: {reason}"),
    "no_test_images": ("warning", "files", "too few images or groups to draw a test split: train needs test_fraction "
        "0"),
    "images_without_mask": ("note", "images", "{n} images have no mask and are left out"),
    "labels_are_masks": ("note", "images", "{n} labels are files: masks for segmentation"),
    "masks_unusable": ("error", "images", "{n} masks cannot be used with their images, the first because: {reason}"),
    "masks_unnamed": ("error", "images", "{n} masks have something that has no name, the first because: {reason}"),
    "masks_sampled": ("note", "images", "{n} masks were not examined (--pixels all examines all)"),
    "annotators_compared": ("note", "images", "{n} images have masks of several annotators; mean Dice of every two of "
        "them: {structures}"),
    "annotator_masks_unusable": ("warning", "images", "{n} images have masks of annotators that are missing or cannot "
        "be used; they are not compared"),
    "empty_masks": ("warning", "images", "{n} masks show nothing: right where nothing is to be found, else draw them "
        "or leave the images out"),
    "tiny_structures": ("warning", "images", "{n} masks have structures of fewer than {few} voxels ({structures}): "
        "lesions that small, or slips of the pen; look at them"),
    "structures_in_no_mask": ("warning", "structures", "in no examined mask: {classes}; train refuses structures that "
        "no training mask shows, so take them out of labels or add masks"),
    "structures_not_in_training": ("error", "structures", "in no mask of the training split: {classes}; add images "
        "that show them, or divide the images anew"),
    "structures_in_few_masks": ("note", "structures", "in fewer than {few} masks: {classes}; what is scored of them is "
        "left to chance"),
    "labels_without_images": ("error", "images", "{n} labels name images that do not exist; add the files or remove "
        "the lines"),
    "images_without_labels": ("warning", "files", "{n} image files have no label; label them or leave them out"),
    "labels_twice": ("error", "images", "{n} images are listed more than once; keep one line for each"),
    "labelled_without_picture": ("error", "images", "{n} labels name files without a usable picture"),
    "empty_classes": ("warning", "classes", "{n} declared classes have no image ({classes})"),
    "class_not_in_training": ("error", "classes", "{n} classes have no training image ({classes}); add some"),
    "small_classes": ("note", "classes", "{n} classes have fewer than {few} images ({classes}); their scores are "
        "hardly better than chance"),
    "imbalance": ("note", "classes", "the largest class has {ratio} times the images of the smallest; look at balanced "
        "scores, and weight the classes"),
    "groups_across_splits": ("error", "groups", "{n} groups have images in more than one split: scores would be too "
        "good; put all images of a group into one"),
    "patients_across_splits": ("error", "patients", "{n} patients (PatientID) have images in more than one split: "
        "scores would be too good; put all images of a patient into one, and name the patient as group"),
    "series_across_splits": ("error", "series", "{n} series (SeriesInstanceUID) have images in more than one split; "
        "put all slices of a series into one"),
    "patients_in_several_groups": ("error", "patients", "{n} patients (PatientID) have images in several groups: the "
        "split that train draws would separate them; name the patient as group"),
    "one_patient": ("warning", "patients", "all files have the same PatientID: there is one patient, or the ID was "
        "removed, and patients may be on several sides of a split unnoticed"),
    "no_patient": ("warning", "files", "{n} labelled DICOM files have no PatientID; their patients may be on several "
        "sides of a split unnoticed"),
    "folders_are_no_classes": ("note", "classes", "the {n} folders are named like patients or hold one series each, so "
        "they are not read as classes; train would read them so"),
    "confounded": ("warning", "attributes", "{attribute} predicts the label: the majority label of its values is right "
        "for {accuracy:.0%} of the images, the largest class alone for {base:.0%} (Cramer's V {v:.2f}, {images} "
        "images); a network may learn the scanner instead of the disease: collect all labels from each scanner, or "
        "score within one"),
    "associated": ("note", "attributes", "{attribute} is associated with the label (Cramer's V {v:.2f}; majority label "
        "{accuracy:.0%}, largest class {base:.0%}, {images} images)"),
    "phi_in_headers": ("warning", "files", "{n} DICOM headers hold what may identify a patient ({kinds}); de-identify "
        "before copying: prepare does"),
    "private_attributes": ("note", "files", "{n} DICOM headers have private attributes, whose meaning is unknown"),
    "burned_in_stated": ("warning", "files", "{n} pictures have text in their pixels according to their header; black "
        "it out or leave them out"),
    "burned_in_likely": ("warning", "files", "{n} pictures are of a kind that often has a name in its pixels "
        "({modalities}); look at them"),
    "phi_in_names": ("warning", "files", "{n} names of files or folders contain a name, number or date of the patient "
        "that is in their header; rename them"),
    "phi_in_volumes": ("note", "files", "{n} NIfTI or Analyze headers have free text, where converters leave names and "
        "dates beside their own version"),
    "phi_in_pictures": ("warning", "files", "{n} pictures have a place, an artist or a serial number in EXIF"),
    "mixed_modality": ("warning", "files", "the images are of {n} modalities ({values}); train on one of them unless "
        "you have a reason"),
    "mixed_spacing": ("note", "files", "pixels are from {low:.3g} to {high:.3g} mm wide; resample them (spacing) or "
        "fit them to one size"),
}  # fmt: skip


def remark(code: str, count: int = 1, examples: Sequence[int] = (), **values: object) -> Remark:
    """Make a remark; `values` are the fields of its sentence."""
    severity, unit, text = REMARKS[code]
    return Remark(code, severity, text.format(n=count, **values), count, unit, tuple(examples)[:MAX_EXAMPLES])


def found(code: str, examples: Sequence[int], **values: object) -> list[Remark]:
    """A remark that counts its examples; none without examples."""
    return [remark(code, len(examples), examples, **values)] if examples else []


def by_severity(remarks: Sequence[Remark]) -> list[Remark]:
    """Sort by severity, then by count."""
    return sorted(remarks, key=lambda each: (SEVERITIES.index(each.severity), -each.count, each.code))


def merged(remarks: Iterable[Remark]) -> list[Remark]:
    """Merge remarks of the same code into the first, which then states the total."""
    parts: dict[str, list[Remark]] = {}
    for each in remarks:
        parts.setdefault(each.code, []).append(each)
    result = []
    for first, *others in parts.values():
        count = first.count + sum(each.count for each in others)
        text = f"{first.message} (this is the first of {count} {first.unit})" if others else first.message
        result.append(replace(first, message=text, count=count))
    return result
