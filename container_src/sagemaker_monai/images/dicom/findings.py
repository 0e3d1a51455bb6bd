"""Findings about a series: their codes and messages, and the policy that says what to do about each.

Codes are stable: `doctor` counts by them, and a `Policy` names them. Messages give cause and remedy, without UIDs,
names or paths.
"""

from dataclasses import dataclass, fields
from typing import Literal

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.remarks import Severity

Action = Literal["refuse", "warn", "resample"]


@dataclass(frozen=True)
class Finding:
    """One oddity of a series.

    Attributes:
        code: a key of `MESSAGES`.
        severity: by the default policy: an error refuses the series, a warning does not, a note is only information.
        message: cause and remedy.
        count: affected slices (or volumes).
    """

    code: str
    severity: Severity
    message: str
    count: int


@dataclass(frozen=True)
class Policy:
    """What `read_series` does about each finding: `refuse` the series, use it anyway (`warn`), or `resample`.

    Attributes:
        missing_slices: `resample` interpolates them linearly; `warn` closes the gap, so distances are wrong there.
        uneven_spacing: `resample` interpolates onto an even grid; `warn` uses the mean distance.
        duplicate_slices: same place, same pixels; one of each is used.
        conflicting_slices: same place, different pixels; `warn` uses the one with the lowest InstanceNumber.
        overlapping_acquisitions: same place and settings, different pixels and AcquisitionNumber, in a few places only;
            the highest AcquisitionNumber is used.
        mixed_spacing: PixelSpacing differs; `warn` uses the first slice's.
        mixed_size, mixed_orientation, mixed_objects, mixed_frame_of_reference, several_volumes: the series was split
            into several stacks of slices.
        scattered_frame_of_reference: each slice of a stack has its own FrameOfReferenceUID, or some have none beside
            several; `warn` treats them as one.
        shared_series_uid: several patients' studies share the SeriesInstanceUID; they are kept apart.
        missing_series_uid, series_uid_per_slice: the files were combined by their other attributes.
        incomplete_identity: some files lack PatientID or StudyInstanceUID; `warn` counts them to the others.
        guessed_volumes: split by the order of InstanceNumber, because no attribute distinguishes the volumes.
        missing_geometry: sorted by InstanceNumber; the volume has no geometry.
        counted_frames: a file gives only the position of its first frame and the distance between frames.
        missing_order: neither geometry nor InstanceNumber; `warn` uses the order of the files.
        invalid_geometry: cosines that are not orthogonal, sizes that are not lengths; `warn` treats it as missing.
        gantry_tilt: slices are shifted evenly against each other; the affine is sheared accordingly.
        shifted_slices: shifted unevenly; `warn` uses the mean shift.
        mixed_photometric: MONOCHROME1 beside MONOCHROME2; `warn` shows all like the first.
        mixed_rescale: slices have different rescales; each one's own is applied.

    Raises:
        ConfigError: an unknown action, or `resample` where that cannot help.
    """

    missing_slices: Action = "refuse"
    uneven_spacing: Action = "refuse"
    duplicate_slices: Action = "warn"
    conflicting_slices: Action = "refuse"
    overlapping_acquisitions: Action = "warn"
    mixed_spacing: Action = "refuse"
    mixed_size: Action = "warn"
    mixed_orientation: Action = "warn"
    mixed_objects: Action = "warn"
    mixed_frame_of_reference: Action = "warn"
    scattered_frame_of_reference: Action = "refuse"
    shared_series_uid: Action = "warn"
    missing_series_uid: Action = "warn"
    series_uid_per_slice: Action = "warn"
    incomplete_identity: Action = "warn"
    several_volumes: Action = "warn"
    guessed_volumes: Action = "warn"
    missing_geometry: Action = "warn"
    counted_frames: Action = "warn"
    missing_order: Action = "refuse"
    invalid_geometry: Action = "refuse"
    gantry_tilt: Action = "warn"
    shifted_slices: Action = "refuse"
    mixed_photometric: Action = "refuse"
    mixed_rescale: Action = "warn"

    def __post_init__(self) -> None:
        """Refuse an action that a code cannot have."""
        for field in fields(self):
            action = getattr(self, field.name)
            allowed = ("refuse", "warn", "resample") if field.name in RESAMPLED else ("refuse", "warn")
            if action not in allowed:
                raise ConfigError(f"{field.name} must be one of {', '.join(allowed)}, got {str(action)[:40]!r}")

    def action(self, code: str) -> Action:
        """What to do about a finding; codes without an option have a fixed action."""
        action: Action = getattr(self, code, "refuse" if code in ALWAYS_REFUSED else "warn")
        return action


RESAMPLED = frozenset({"missing_slices", "uneven_spacing"})
ALWAYS_REFUSED = frozenset({"colour", "packed_slices", "ambiguous_volumes", "mixed_patients", "mixed_studies"})
NOTES = frozenset({"single_slice", "localizer", "mixed_rescale"})

# Findings that apply to single images as well as to slices.
OF_IMAGES = frozenset({"odd_numbers", "unreadable_numbers", "zero_slope", "for_processing", "useless_window"})

# Code -> cause and remedy; {} is the count.
MESSAGES = {
    "missing_slices": "{} slices are missing within the series; export the complete series, or allow resampling",
    "uneven_spacing": "the distance between slices changes at {} places; allow resampling onto an even grid",
    "duplicate_slices": "{} slices occur twice with the same pixels; one of each is used",
    "conflicting_slices": "{} slices are at the same position as another one but have other pixels, and no attribute "
    "says which belong to the volume; remove those that do not, or export volumes as separate series",
    "overlapping_acquisitions": "{} slices are at the same position as one of a later acquisition; the slice with the "
    "highest AcquisitionNumber is used",
    "mixed_spacing": "{} slices have a different PixelSpacing than the first; export them as a separate series",
    "mixed_size": "the series has slices of {} sizes; each is a stack of its own",
    "mixed_orientation": "the series has slices of {} orientations; each is a stack of its own",
    "mixed_objects": "the series has {} kinds of objects (by Modality and SOP class); each is a stack of its own",
    "mixed_frame_of_reference": "the series has slices of {} frames of reference, whose positions cannot be compared; "
    "each is a stack of its own",
    "scattered_frame_of_reference": "the slices name {} different FrameOfReferenceUIDs or none, so their positions "
    "cannot be compared; export the series again with one",
    "shared_series_uid": "{} studies or patients share the SeriesInstanceUID; they are kept apart; give each series "
    "its own UID",
    "mixed_patients": "files of one series name {} patients in one study, or could belong to several; correct "
    "PatientID, StudyInstanceUID and SeriesInstanceUID",
    "mixed_studies": "slices of one series and one patient name {} studies; correct StudyInstanceUID",
    "incomplete_identity": "{} files of the series lack the PatientID or StudyInstanceUID that others have; they are "
    "counted to the same patient and study",
    "missing_series_uid": "{} files have no SeriesInstanceUID; slices are combined if patient, study, SeriesNumber and "
    "everything else agree",
    "series_uid_per_slice": "{} slices have a SeriesInstanceUID each; they are combined because patient, study, "
    "SeriesNumber, frame of reference and everything else agree",
    "several_volumes": "the series holds {} volumes at the same position (energies, echoes, times, b-values, kernels "
    "or image types); each is a stack of its own",
    "guessed_volumes": "the series holds {} volumes at the same position that no attribute distinguishes; they were "
    "split by InstanceNumber, which numbers them one after the other",
    "ambiguous_volumes": "the series has {} slices at each position, and neither an attribute nor InstanceNumber tells "
    "which belong together; export the volumes as separate series",
    "missing_geometry": "{} slices have no ImagePositionPatient, ImageOrientationPatient or PixelSpacing; they are "
    "sorted by InstanceNumber",
    "counted_frames": "{} frames have no position of their own; they are assumed to follow the first along its normal "
    "at SpacingBetweenSlices",
    "packed_slices": "{} files pack the slices of a volume into one picture (a Siemens mosaic, or a volume of United "
    "Imaging); export single slices or an enhanced multi-frame file, or convert them to NIfTI, such as with dcm2niix",
    "missing_order": "{} slices have neither a position nor an InstanceNumber of their own, so their order is unknown; "
    "send one file or export the series again",
    "invalid_geometry": "{} slices have an impossible position, orientation or PixelSpacing; export the series again",
    "gantry_tilt": "the gantry was tilted: slices are shifted along their plane; the affine is sheared ({} slices)",
    "shifted_slices": "{} slices are shifted sideways against the others; export the series again",
    "mixed_photometric": "{} slices have a different PhotometricInterpretation than the first; export them as a "
    "separate series",
    "mixed_rescale": "{} slices have a different rescale than the first; each slice's own is applied",
    "single_slice": "the stack has only {} slice",
    "localizer": "the stack is a localizer ({} slices)",
    "colour": "{} slices are in colour, which volumes do not support; use them as 2-D images",
    "odd_numbers": "{} images have numbers in their header that are not written as DICOM requires (decimal comma, "
    "unit, text); they were read with their only possible meaning",
    "unreadable_numbers": "{} images have a spacing, position, rescale, window or weight in their header that cannot "
    "be read as numbers; it counts as missing where it is optional",
    "zero_slope": "{} images have the RescaleSlope 0, which would erase them; 1 was used instead",
    "for_processing": "{} images are raw data FOR PROCESSING (PresentationIntentType), not meant for display; use "
    "those FOR PRESENTATION unless that is intended",
    "useless_window": "{} images have a window or VOI LUT in their header that shows nothing of their values (broken, "
    "without width, or outside them); the next valid one is used, or else the range of the values",
    "no_pixels": "{} files of the series have no picture (a report, a plan or a bare header)",
}


def finding(code: str, count: int) -> Finding:
    """Make a finding with its usual severity and text."""
    refused = Policy().action(code) == "refuse"
    severity: Severity = "note" if code in NOTES else "error" if refused else "warning"
    return Finding(code, severity, MESSAGES[code].format(count), count)
