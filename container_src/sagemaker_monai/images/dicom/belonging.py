"""Which files form a series: a volume belongs to one patient, one study, one series, one frame of reference.

A SeriesInstanceUID should identify one series, but some anonymisers give the same UID to several patients, others give
each slice its own, and some remove it. So other attributes are compared too: files of different patients or studies are
never combined, and files without a UID, or slices with a UID each, form a series if everything else agrees. Projections
(X-rays) have no position and are never combined.

Contradictions are refused: several PatientIDs in one study, slices of one patient that are studies of their own, a file
that could belong to several patients. `grouping` handles frames of reference, which only slices with a position have.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sagemaker_monai.images.dicom.findings import Finding, finding
from sagemaker_monai.images.dicom.geometry import likely_gap_mm, place_tolerance_mm, places_of
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.objects import subject_of
from sagemaker_monai.images.dicom.tells import alike

SAME_ORIENTATION = 1e-3  # of a cosine: 0.06 degree
SAME_SPACING = 1e-3  # mm
PROJECTIONS = frozenset({"CR", "DX", "IO", "MG", "PX", "RF", "RG", "RTIMAGE", "US", "XA"})
Key = tuple[Hashable, ...]


@dataclass
class Files:
    """The files of one series, and the findings about their grouping."""

    instances: list[Instance]
    findings: list[Finding] = field(default_factory=list)


def split_series(instances: Sequence[Instance]) -> list[Files]:
    """Divide files into series, in the order of their first files; an unrelated file is a series of its own."""
    by_uid: dict[str, list[Instance]] = defaultdict(list)
    nameless: list[Instance] = []
    for each in instances:
        if uid := _plain(each.series_instance_uid):
            by_uid[uid].append(each)
        else:
            nameless.append(each)
    files = [Files(group) for group in by_uid.values() if not _is_one_place(group)]
    files += _joined([group for group in by_uid.values() if _is_one_place(group)], "series_uid_per_slice")
    files += _joined([[each] for each in nameless], "missing_series_uid")
    series = [one for each in files for one in _by_identity(each)]
    order = {id(each): place for place, each in enumerate(instances)}
    return sorted(series, key=lambda files: min(order[id(each)] for each in files.instances))


# --- one UID for each slice, or none ----------------------------------------------------------------------------------


def _joined(groups: Sequence[list[Instance]], code: str) -> list[Files]:
    """Combine groups of slices that agree in everything except their SeriesInstanceUID."""
    found: dict[Hashable, list[list[Instance]]] = defaultdict(list)
    orientations = _kinds(groups, lambda plane: plane.orientation, SAME_ORIENTATION)
    spacings = _kinds(groups, lambda plane: plane.spacing, SAME_SPACING)
    for number, group in enumerate(groups):
        key = _key(group[0], orientations, spacings, is_named=code == "series_uid_per_slice")
        found[(number,) if key is None else key].append(group)
    files = []
    for several in found.values():
        whole = [each for group in several for each in group]
        if len(several) > 1 and _count_places(whole) > 1:
            files.append(Files(whole, [finding(code, len(whole))]))
        else:
            files += [Files(group, [finding(code, 1)] if code == "missing_series_uid" else []) for group in several]
    return files


def _key(
    each: Instance, orientations: dict[Hashable, int], spacings: dict[Hashable, int], *, is_named: bool
) -> Key | None:
    """What slices of one series have in common; None if too little is known, or it is not a slice."""
    subject, plane = subject_of(each), each.planes[0]
    if plane.position is None or each.number_of_frames > 1 or not each.has_pixels or subject.modality in PROJECTIONS:
        return None
    study, frame = _plain(each.study_instance_uid), _plain(each.frame_of_reference_uid)
    patient = plain_patient_id(each.patient_id)
    # Slices with a SeriesInstanceUID each are combined only if every level above and below agrees.
    if not (study and frame and each.series_number is not None) if is_named else not (study or frame or patient):
        return None
    return (
        patient, study, frame, each.study_date, each.series_number, each.series_description.casefold(),
        _plain(each.sop_class_uid), subject, each.rows, each.columns, orientations[plane.orientation],
        spacings[plane.spacing],
    )  # fmt: skip


def _kinds(
    groups: Sequence[list[Instance]], value: Callable[..., tuple[float, ...] | None], tolerance: float
) -> dict[Hashable, int]:
    found = sorted({known for group in groups for plane in group[0].planes[:1] if (known := value(plane)) is not None})
    return {None: -1, **dict(zip(found, alike(found, tolerance), strict=True))}


def _is_one_place(group: Sequence[Instance]) -> bool:
    """Whether all files are slices at the same position, so that they are not the series of a volume."""
    if any(each.number_of_frames > 1 or each.planes[0].position is None for each in group):
        return False
    same = len({(each.rows, each.columns) for each in group}) == 1
    return same and (len(group) == 1 or _count_places(group) == 1)


def _count_places(slices: Sequence[Instance]) -> int:
    planes = [each.planes[0] for each in slices]
    orientation = planes[0].orientation
    assert orientation is not None
    gap = min(likely_gap_mm(plane.spacing, plane.thickness) for plane in planes if plane.spacing is not None)
    positions = np.array([plane.position for plane in planes])
    return len(set(places_of(positions, orientation, place_tolerance_mm(gap)).tolist()))


# --- patients and studies ---------------------------------------------------------------------------------------------


def plain_patient_id(patient_id: str) -> str:
    """PatientID for comparison: without case, and with single blanks."""
    return " ".join(patient_id.replace("\0", " ").split()).casefold()


def _plain(text: str) -> str:
    return text.strip(" \0")


def _by_identity(files: Files) -> list[Files]:
    """The files of one series, divided by study and patient."""
    studies = [_plain(each.study_instance_uid) for each in files.instances]
    patients = [plain_patient_id(each.patient_id) for each in files.instances]
    if len(set(studies)) == 1 and len(set(patients)) == 1:
        return [files]
    named_studies, named_patients = set(studies) - {""}, set(patients) - {""}
    has_study, has_patient = any(studies), any(patients)
    lacking = sum(
        (has_study and not study) or (has_patient and not patient)
        for study, patient in zip(studies, patients, strict=True)
    )
    found = [*files.findings]
    if len(named_studies) <= 1 and len(named_patients) <= 1:
        return [Files(files.instances, [*found, finding("incomplete_identity", lacking)])]
    pairs = list(zip(studies, patients, strict=True))
    parts: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for each, (study, patient) in zip(files.instances, pairs, strict=True):
        parts[_filled(study, patient, pairs)].append(each)
    patients_of: dict[str, set[str]] = defaultdict(set)
    for study, patient in parts:
        patients_of[study].add(patient)
    split = []
    for (study, patient), part in parts.items():
        more = finding("shared_series_uid", len(parts))
        if len(patients_of[study]) > 1 or ("" in (study, patient) and lacking):
            more = finding("mixed_patients", max(len(named_patients), 1))
        elif _is_torn((study, patient), parts):
            more = finding("mixed_studies", len(named_studies))
        split.append(Files(part, [*found, *([finding("incomplete_identity", lacking)] if lacking else []), more]))
    return split


def _filled(study: str, patient: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Study and patient of a file; a missing one is taken from the others if they leave one possibility."""
    if not patient:
        known = {other for its, other in pairs if other and (its == study or not study)}
        patient = next(iter(known)) if len(known) == 1 else ""
    if not study:
        known = {its for its, other in pairs if its and (other == patient or not patient)}
        study = next(iter(known)) if len(known) == 1 else ""
    return study, patient


def _is_torn(key: tuple[str, str], parts: dict[tuple[str, str], list[Instance]]) -> bool:
    """Whether a single slice is a study of its own beside other slices of the same patient and series."""
    study, patient = key
    part = parts[key]
    others = [other for its, other in parts if its != study and other == patient]
    is_slice = len(part) == 1 and part[0].number_of_frames == 1 and part[0].planes[0].position is not None
    return bool(others) and is_slice
