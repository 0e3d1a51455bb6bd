"""What the examination may find wrong: each kind with a stable code, a severity, and a text with the remedy.

An error means that the data cannot be used as they are, or that a score on them would be wrong; a warning that somebody
should look; a note is only said. Texts and examples hold no names, numbers or UIDs of anybody: examples are numbers of
files, counted from 1 in the order of their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sagemaker_monai.images.dicom.findings import Severity

MAX_EXAMPLES = 5
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Issue:
    """One kind of thing that is wrong.

    Attributes:
        code: stable: a key of `ISSUES`, or of `dicom.findings.MESSAGES` for what is odd about series.
        severity: "error", "warning" or "note".
        message: cause and remedy.
        count: how many it concerns.
        unit: what is counted: files, images, series, patients, classes, attributes.
        examples: numbers of files, the first few.
    """

    code: str
    severity: Severity
    message: str
    count: int
    unit: str
    examples: tuple[int, ...] = ()


# Code -> severity, unit, cause and remedy; {n} is the count, other braces are filled where the issue is made.
ISSUES: dict[str, tuple[Severity, str, str]] = {
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


def issue(code: str, count: int = 1, examples: Sequence[int] = (), **values: object) -> Issue:
    """Make an issue with its severity and text."""
    severity, unit, text = ISSUES[code]
    return Issue(code, severity, text.format(n=count, **values), count, unit, tuple(examples)[:MAX_EXAMPLES])


def by_severity(issues: Sequence[Issue]) -> list[Issue]:
    """The worst first, and then those that concern most."""
    return sorted(issues, key=lambda each: (SEVERITIES.index(each.severity), -each.count, each.code))
