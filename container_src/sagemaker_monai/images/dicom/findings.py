"""What may be odd about a series, each kind with its code, and what an option says to do about it.

A code is stable: `doctor` counts by it, and a `Policy` names it. Messages say what is wrong and what helps; they have
no UIDs, names or paths. Nothing is read here.
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
        severity: what the default policy makes of it: an error is refused, a warning used, a note is only said.
        message: cause and remedy.
        count: how many slices (or volumes) it concerns.
    """

    code: str
    severity: Severity
    message: str
    count: int


@dataclass(frozen=True)
class Policy:
    """What `read_series` does with each finding: `refuse`, use it all the same (`warn`), or `resample`.

    Attributes:
        missing_slices: `resample` fills them by linear interpolation; `warn` closes the gap up, so that distances are
            wrong there.
        uneven_spacing: `resample` interpolates onto an even grid; `warn` takes the mean distance.
        duplicate_slices: same place, same pixels; all but one are left out.
        conflicting_slices: same place, other pixels; `warn` takes the one with the lowest InstanceNumber.
        overlapping_acquisitions: same place, other pixels, the same settings and another AcquisitionNumber, in a few
            places only; the highest is taken.
        mixed_spacing: PixelSpacing differs; `warn` takes the first slice's.
        mixed_size, mixed_orientation, mixed_objects, mixed_frame_of_reference, several_volumes: the series was split
            into several stacks of slices.
        scattered_frame_of_reference: slices of one stack have a FrameOfReferenceUID of their own, or none beside
            several; `warn` takes them for one.
        shared_series_uid: the SeriesInstanceUID is that of several patients' studies, which are kept apart.
        missing_series_uid, series_uid_per_slice: put together by what else the headers say.
        incomplete_identity: some files have no PatientID or StudyInstanceUID, others one; `warn` takes them for theirs.
        guessed_volumes: split too, but by the order of InstanceNumber, because no tag tells the volumes apart.
        missing_geometry: sorted by InstanceNumber, and the volume has no geometry.
        counted_frames: the frames of a file that says where the first one lies and how far slices are apart.
        missing_order: neither geometry nor InstanceNumber; `warn` takes the order of the files.
        invalid_geometry: cosines that are no right angle, sizes that are no length; `warn` treats it as missing.
        gantry_tilt: slices are shifted evenly against each other; the affine is sheared accordingly.
        shifted_slices: shifted unevenly; `warn` takes the mean shift.
        mixed_photometric: MONOCHROME1 beside MONOCHROME2; `warn` shows all as the first.
        mixed_rescale: each slice has a rescale of its own, which is applied to it.

    Raises:
        ConfigError: an action that is unknown, or `resample` where that cannot help.
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
        """Refuse an action that a code cannot have.

        Raises:
            ConfigError: names the code and what is allowed.
        """
        for field in fields(self):
            action = getattr(self, field.name)
            allowed = ("refuse", "warn", "resample") if field.name in RESAMPLED else ("refuse", "warn")
            if action not in allowed:
                raise ConfigError(f"{field.name} must be one of {', '.join(allowed)}, got {str(action)[:40]!r}")

    def action(self, code: str) -> Action:
        """What to do about a finding; those that no option concerns depend on their kind alone."""
        action: Action = getattr(self, code, "refuse" if code in ALWAYS_REFUSED else "warn")
        return action


RESAMPLED = frozenset({"missing_slices", "uneven_spacing"})
ALWAYS_REFUSED = frozenset({"colour", "packed_slices", "ambiguous_volumes", "mixed_patients", "mixed_studies"})
NOTES = frozenset({"single_slice", "localizer", "mixed_rescale"})

# What is said of single images as much as of slices.
OF_IMAGES = frozenset({"odd_numbers", "unreadable_numbers", "zero_slope", "for_processing", "useless_window"})

# Code -> cause and remedy; {} is the count.
MESSAGES = {
    "missing_slices": "{} slices are missing within the series; export it whole, or allow resampling",
    "uneven_spacing": "the distance between slices changes at {} places; allow resampling onto an even grid",
    "duplicate_slices": "{} slices come twice with the same pixels; one of each is used",
    "conflicting_slices": "{} slices lie where another one lies and have other pixels, and nothing says which of them "
    "belong to the volume; remove those that do not, or export volumes as separate series",
    "overlapping_acquisitions": "{} slices lie where a later acquisition has one; in each place the slice of the "
    "highest AcquisitionNumber is used",
    "mixed_spacing": "{} slices have another PixelSpacing than the first; export them as a series of their own",
    "mixed_size": "the series has slices of {} sizes; each is a stack of its own",
    "mixed_orientation": "the series has slices of {} orientations; each is a stack of its own",
    "mixed_objects": "the series has {} kinds of objects (by Modality and SOP class); each is a stack of its own",
    "mixed_frame_of_reference": "the series has slices of {} frames of reference, whose places cannot be compared; "
    "each is a stack of its own",
    "scattered_frame_of_reference": "the slices name {} different FrameOfReferenceUIDs or none, so that their places "
    "cannot be compared; export the series again with one",
    "shared_series_uid": "the SeriesInstanceUID is that of {} studies or patients, which are kept apart; give each "
    "series a UID of its own",
    "mixed_patients": "files of one series name {} patients in one study, or do not say which of several they are "
    "of; correct PatientID, StudyInstanceUID and SeriesInstanceUID",
    "mixed_studies": "slices of one series and one patient name {} studies; correct StudyInstanceUID",
    "incomplete_identity": "{} files of the series have no PatientID or StudyInstanceUID, which others have; they are "
    "taken for theirs",
    "missing_series_uid": "{} files have no SeriesInstanceUID; slices are put together where patient, study, "
    "SeriesNumber and all else agree",
    "series_uid_per_slice": "{} slices have a SeriesInstanceUID each; they are put together because patient, study, "
    "SeriesNumber, frame of reference and all else agree",
    "several_volumes": "the series holds {} volumes of one place (energies, echoes, times, b-values, kernels or image "
    "types); each is a stack of its own",
    "guessed_volumes": "the series holds {} volumes of one place that no attribute tells apart; they were taken in the "
    "order of InstanceNumber, which has them one after the other",
    "ambiguous_volumes": "the series has {} slices in each place, and neither an attribute nor InstanceNumber tells "
    "which belong together; export the volumes as separate series",
    "missing_geometry": "{} slices have no ImagePositionPatient, ImageOrientationPatient or PixelSpacing; the order is "
    "that of InstanceNumber",
    "counted_frames": "{} frames have no place of their own; they are taken to follow the first along its normal at "
    "SpacingBetweenSlices",
    "packed_slices": "{} files pack the slices of a volume into one picture (a Siemens mosaic, or a volume of United "
    "Imaging); export single slices or an enhanced multi-frame file, or convert them to NIfTI, such as with dcm2niix",
    "missing_order": "{} slices have neither a position nor an InstanceNumber of their own; their order is unknown, "
    "send one file or export the series again",
    "invalid_geometry": "{} slices have an impossible position, orientation or PixelSpacing; export the series again",
    "gantry_tilt": "the gantry was tilted: slices are shifted along their plane; the affine is sheared ({} slices)",
    "shifted_slices": "{} slices are shifted sideways against the others; export the series again",
    "mixed_photometric": "{} slices have another PhotometricInterpretation than the first; export them as a series of "
    "their own",
    "mixed_rescale": "{} slices have another rescale than the first; each slice's own is applied",
    "single_slice": "the stack has {} slice only",
    "localizer": "the stack is a localizer ({} slices)",
    "colour": "{} slices are in colour, which has no place in a volume; use them as 2-D images",
    "odd_numbers": "{} images have numbers in their header that are not written as DICOM asks (decimal comma, unit, "
    "text); they were read as what alone they can mean",
    "unreadable_numbers": "{} images have a spacing, place, rescale, window or weight in their header that cannot be "
    "read as numbers; it counts as missing where it may be",
    "zero_slope": "{} images have the RescaleSlope 0, which would wipe them out; it was taken for 1",
    "for_processing": "{} images are raw data FOR PROCESSING (PresentationIntentType), which are not made to be looked "
    "at; use those FOR PRESENTATION unless that is meant",
    "useless_window": "{} images have a window or VOI LUT in their header that shows nothing of their values (broken, "
    "without width, or beside them); the next one that does is used, else they go from their lowest to their highest",
    "no_pixels": "{} files of the series have no picture (a report, a plan or a bare header)",
}


def finding(code: str, count: int) -> Finding:
    """Make a finding with its usual severity and text."""
    refused = Policy().action(code) == "refuse"
    severity: Severity = "note" if code in NOTES else "error" if refused else "warning"
    return Finding(code, severity, MESSAGES[code].format(count), count)
