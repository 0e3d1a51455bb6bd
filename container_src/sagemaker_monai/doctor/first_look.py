"""What `train` checks before the first epoch: headers only, and only what makes a score wrong or a job useless.

Of photographs only the file names are looked at. Of DICOM images the first file is read, 0.7 ms of a CPU each, for at
most SAMPLE images; the whole examination is `doctor`'s.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sagemaker_monai.data.entries import DICOM_NAMES, VOLUME_NAMES, Image, image_files
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.images.signatures import is_dicom_file
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.messages.remarks import merged
from sagemaker_monai.tasks.tasks import TASKS

if TYPE_CHECKING:
    from pydicom import Dataset as Header

    from sagemaker_monai.data.datasets import Dataset, Record

_NIFTI = (".nii", ".nii.gz")
SAMPLE = 5_000  # images whose header is read
MIXED_SPACING = 1.5  # times
_PROJECTIONS = frozenset({"CR", "DX", "MG", "PX", "IO", "XA", "RF", "US", "ES", "XC", "OP", "GM", "SM", "SC", "OT"})


def first_look(dataset: "Dataset") -> list[str]:
    """Look at the headers of a data set, whose splits are drawn, before training.

    Returns:
        Lines to log, each with cause and remedy. They name nobody.

    Raises:
        DatasetError: a PatientID has images in more than one split, every class has images of one patient or series
            only, or no DICOM image can be read.
    """
    placed = [(record, split) for split in SPLITS for record in dataset.split(split) if _may_be_dicom(record.image)]
    volumes = _volume_lines([record.image for split in SPLITS for record in dataset.split(split)])
    if not placed:
        return volumes
    chosen = placed[:: -(-len(placed) // SAMPLE)]
    headers, faults = _read_headers(chosen)
    if not headers and faults:
        raise DatasetError(
            f"none of the {len(faults)} DICOM images has a header and pixels that can be read "
            f"({', '.join(f'{code} {count}' for code, count in Counter(faults).most_common())}); examine the data set "
            "with doctor"
        )
    if not headers:
        return volumes
    has_one_class = TASKS[dataset.task].form == "class"
    if has_one_class:
        _check_classes(headers)
    _check_patients(headers)
    lines = list(volumes)
    if faults:
        lines.insert(0, f"{len(faults)} DICOM images have no readable header; examine the data set with doctor")
    lines += _mixtures([header for _, _, header in headers], dataset.spatial_dims)
    if has_one_class:
        lines += _confounding(headers, dataset.labels)
    if len(chosen) < len(placed):
        lines.append(f"{len(chosen)} of {len(placed)} DICOM headers were looked at")
    return lines


def _volume_lines(images: Sequence[Image]) -> list[str]:
    """Remarks on the geometry of NIfTI files, by their headers."""
    paths = [
        path
        for image in images
        for path in ([image] if isinstance(image, Path) else image.channels)
        if path.name.lower().endswith(_NIFTI)
    ]
    if not paths:
        return []
    from sagemaker_monai.images.formats.nifti import header_remarks

    chosen = paths[:: -(-len(paths) // SAMPLE)]
    return [each.message for each in merged(told for path in chosen for told in header_remarks(path))]


def _may_be_dicom(image: Image) -> bool:
    """By name if the suffix is known, else by the first bytes; folders hold DICOM series."""
    if not isinstance(image, Path):
        return _may_be_dicom(image.channels[0])
    name = image.name.lower()
    if name.endswith(tuple(IMAGE_SUFFIXES)) or name.endswith(tuple(VOLUME_NAMES)):
        return False
    if name.endswith(tuple(DICOM_NAMES)) or image.is_dir():
        return True
    try:
        with image.open("rb") as file:
            return is_dicom_file(file.read(512))
    except OSError:
        return False


Looked = tuple["Record", str, "Header"]


def _read_headers(placed: Sequence[tuple["Record", str]]) -> tuple[list[Looked], list[str]]:
    from sagemaker_monai.doctor.quick_header import read_some
    from sagemaker_monai.images.dicom.elements import integer_of

    headers: list[Looked] = []
    faults = []
    for record, split in placed:
        files = image_files(record.image)
        try:
            header = read_some(files[0]) if files else None
        except CallerError as error:
            faults.append(error.code)
            continue
        if header is None or not (integer_of(header, "Rows") and integer_of(header, "Columns")):
            faults.append("no picture")
        else:
            headers.append((record, split, header))
    return headers, faults


def _check_classes(headers: Sequence[Looked]) -> None:
    """Refuse classes that are patients or series: folders by patient look like class folders."""
    from sagemaker_monai.doctor.examined import known_patient
    from sagemaker_monai.images.dicom.elements import text_of

    for what, name in (("patient", "PatientID"), ("series", "SeriesInstanceUID")):
        members: Mapping[int, set[str]] = defaultdict(set)
        for record, _, header in headers:
            text = text_of(header, name)
            members[record.label].add((known_patient(text) or "") if what == "patient" else text)
        owners = [next(iter(names)) for names in members.values() if len(names) == 1]
        is_each_alone = len(owners) == len(members) == len(set(owners)) and all(owners)
        if len(members) > 1 and is_each_alone and len(headers) > len(members):
            raise DatasetError(
                f"each of the {len(members)} classes has images of one {what} only ({name} of the DICOM headers), so "
                "the classes would be told apart by it: where folders are of patients, name the classes in "
                "dataset.json or a CSV file (prepare dicom_folder with a table of labels)"
            )


def _check_patients(headers: Sequence[Looked]) -> None:
    from sagemaker_monai.doctor.examined import known_patient
    from sagemaker_monai.images.dicom.elements import text_of

    sides: Mapping[str, set[str]] = defaultdict(set)
    for _, split, header in headers:
        if patient := known_patient(text_of(header, "PatientID")):
            sides[patient].add(split)
    torn = sum(len(splits) > 1 for splits in sides.values())
    if len(sides) > 1 and torn:  # some anonymisers write one ID for everybody
        raise DatasetError(
            f"{torn} of {len(sides)} patients (PatientID of the DICOM headers) have images in more than one split, "
            "which would make the scores too good: name the patient as group, or put all images of a patient into one "
            "split"
        )


def _mixtures(headers: Sequence["Header"], spatial_dims: int | None) -> list[str]:
    from sagemaker_monai.images.dicom.elements import integer_of, numbers_of, text_of, value_of
    from sagemaker_monai.images.dicom.findings import MESSAGES
    from sagemaker_monai.images.dicom.oddities import oddities_of

    lines = []
    modalities = Counter(text_of(header, "Modality") for header in headers)
    if len(modalities) > 1:
        lines.append(f"the images are of {len(modalities)} modalities; train on one, or know why not")
    widths = [spacing[1] for header in headers if (spacing := numbers_of(header, "PixelSpacing", 2)) and spacing[1] > 0]
    if widths and max(widths) > MIXED_SPACING * min(widths):
        lines.append(
            f"pixels are from {min(widths):.3g} to {max(widths):.3g} mm wide; a preset that resamples makes them equal"
        )
    odd = Counter(code for header in headers for code in oddities_of(header))
    lines += [MESSAGES[code].format(count) for code, count in odd.items()]
    bare = sum(
        value_of(header, "ImagePositionPatient") is None
        and (integer_of(header, "NumberOfFrames") or 1) == 1  # else the frames have places of their own
        and text_of(header, "Modality") not in _PROJECTIONS
        for header in headers
    )
    if bare and spatial_dims != 2:
        lines.append(f"{bare} images have no ImagePositionPatient: slices are sorted by InstanceNumber")
    return lines


def _confounding(headers: Sequence[Looked], labels: Sequence[str]) -> list[str]:
    from sagemaker_monai.doctor.confounding import find_associations, remarks_of
    from sagemaker_monai.doctor.facts import ATTRIBUTES, attributes_of

    rows = [(dict(attributes_of(header)), (labels[record.label],)) for record, _, header in headers]
    found = remarks_of(find_associations(rows, ATTRIBUTES, is_multilabel=False))
    return [each.message for each in found if each.severity == "warning"]
