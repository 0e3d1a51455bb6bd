"""Which files of a folder are one case: a volume, or one file for each sequence.

Cases are found by name: `CASE_t1.nii.gz` beside `CASE_flair.nii.gz`, `CASE/t1.nii.gz`, or nnU-Net's `CASE_0000.nii.gz`.
In a folder of the Medical Segmentation Decathlon, the training images of its dataset.json are the cases. Masks
(`mask_files`) are not cases, unless the table of labels or a sequence names them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sagemaker_monai.data.dataset_json import DATASET_JSON, MAX_DATASET_JSON_BYTES, MAX_SEQUENCES
from sagemaker_monai.data.entries import Aside, name_parts
from sagemaker_monai.data.mask_files import set_masks_aside
from sagemaker_monai.data.name_matching import stem_of
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.images.volume_files import HEAD_BYTES, VOLUME_FORMATS, volume_format_of
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.files import plain_files

# The longest first, so that .nii.gz goes before .gz and .nii.
SUFFIXES = tuple(
    sorted({suffix for row in VOLUME_FORMATS.values() for suffix in row.suffixes}, key=lambda s: (-len(s), s))
)
MAX_FILES = 1_000_000
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_DATA_SUFFIXES = (".img", ".img.gz", ".raw", ".zraw", ".bin")  # of pairs, which are found by their headers


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        name: relative to the source, with slashes, without suffix and sequence. Untrusted text.
        files: one for each sequence, in their order.
        fault: why it cannot be used, or "".
    """

    name: str
    files: tuple[Path, ...]
    fault: str = ""


@dataclass(frozen=True)
class Found:
    """Cases, the names of their sequences (empty: one file a case), the Decathlon's modality, the names of other files,
    and the masks."""

    cases: list[Case]
    sequences: tuple[str, ...]
    modality: str
    others: list[str]
    aside: Aside = field(default_factory=Aside)


def find_cases(source: Path, sequences: Sequence[str] = (), named: Collection[str] = ()) -> Found:
    """Find the cases of a folder.

    Args:
        source: the folder.
        sequences: their names in the order of the channels; empty takes nnU-Net's numbers if all files have them, else
            each file is a case.
        named: files and cases in the table of labels, which are not masks.

    Raises:
        DatasetError: no folder, or no volumes in it.
        ConfigError: too many sequences, or one twice.
    """
    if not source.is_dir():
        raise DatasetError(f"{source.name} is not a folder; name one with volumes (NIfTI, NRRD, MetaImage, NPY, ...)")
    if len(set(map(str.lower, sequences))) < len(sequences) or len(sequences) > MAX_SEQUENCES:
        raise ConfigError(f"--sequences must be at most {MAX_SEQUENCES} different names")
    listed, modality = _decathlon(source)
    missing: list[Case] = []
    if listed is None:
        volumes, others = _volumes(source)
    else:
        files = {name: source / name for name in listed}
        volumes = {name: path for name, path in files.items() if path.is_file()}
        missing = [
            Case(stem_of(name, SUFFIXES), (), f"{DATASET_JSON} lists it, but the file is missing")
            for name in files
            if name not in volumes
        ]
        others = []
    if not volumes:
        raise DatasetError(f"{source.name} has no volumes ({', '.join(VOLUME_FORMATS)}); name a folder with some")
    stems = {name: stem_of(name, SUFFIXES) for name in volumes}
    if sequences:
        cases, unnamed = _by_sequence(volumes, stems, sequences)
        used = [path for case in cases for path in case.files]
        aside = set_masks_aside(list(volumes.values()), source, named=used)
        masks = {path.relative_to(source).as_posix() for path in aside.masks}
        others += [name for name in unnamed if name not in masks]
        return Found(cases + missing, tuple(sequences), modality, others, aside)
    told = list(volumes.values()) if listed is not None else _told(volumes, stems, named)
    aside = set_masks_aside(list(volumes.values()), source, named=told)
    volumes = {name: path for name, path in volumes.items() if path not in aside.masks}
    matches = {name: _CHANNEL.fullmatch(stems[name]) for name in volumes}
    if all(matches.values()):
        numbers = sorted({match[2] for match in matches.values() if match})
        cases, _ = _by_sequence(volumes, stems, numbers)
        return Found(cases + missing, tuple(numbers) if len(numbers) > 1 else (), modality, others, aside)
    return Found([Case(stems[name], (path,)) for name, path in volumes.items()] + missing, (), modality, others, aside)


def _told(volumes: dict[str, Path], stems: dict[str, str], named: Collection[str]) -> list[Path]:
    """The volumes that a table names: by the whole name, or by a last part that begins no other name."""
    meant = {stem_of(name, SUFFIXES) for name in named}
    last = {name: stem.rpartition("/")[2] for name, stem in stems.items()}
    return [
        path
        for name, path in volumes.items()
        if stems[name] in meant
        or (last[name] in meant and sum(other.startswith(last[name]) for other in last.values()) == 1)
    ]


def modality_of(name: str) -> str:
    """DICOM's Modality as dataset.json writes it in words; "" for others."""
    return {"MRI": "MR", "CT": "CT", "MR": "MR"}.get(name.strip().upper(), "")


def _decathlon(source: Path) -> tuple[list[str] | None, str]:
    """The training images of a dataset.json (None without one), and its modality."""
    path = source / DATASET_JSON
    if not path.is_file():
        return None, ""
    if path.stat().st_size > MAX_DATASET_JSON_BYTES:
        raise DatasetError(
            f"{DATASET_JSON} is larger than {MAX_DATASET_JSON_BYTES >> 20} MiB; it must only list images"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{DATASET_JSON} in the source is not JSON; correct or remove it") from error
    content = content if isinstance(content, dict) else {}
    modality = content.get("modality")
    names = list(modality.values()) if isinstance(modality, dict) else []
    first = names[0] if names and isinstance(names[0], str) and len(names[0]) <= 16 else ""
    told = modality_of(first)
    training = content.get("training")
    if not isinstance(training, list) or not training:
        return None, told
    images = [item.get("image") if isinstance(item, dict) else None for item in training]
    parts = [name_parts(image) if isinstance(image, str) else () for image in images]
    if not all(parts):
        raise DatasetError(f"{DATASET_JSON} in the source lists images without a name, or outside of it; correct it")
    return list(dict.fromkeys("/".join(each) for each in parts)), told


def _volumes(source: Path) -> tuple[dict[str, Path], list[str]]:
    """The volumes below a folder by their names, sorted, and the names of other files."""
    volumes, others = {}, []
    for count, path in enumerate(plain_files(source), start=1):
        if count > MAX_FILES:
            raise DatasetError(f"the folder has more than {MAX_FILES} files; name a smaller one")
        if path.name.lower().endswith(_DATA_SUFFIXES):
            continue
        name = path.relative_to(source).as_posix()
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if volume_format_of(head, path.name) is None:
            others.append(name)
        else:
            volumes[name] = path
    return volumes, others


def _by_sequence(
    volumes: dict[str, Path], stems: dict[str, str], sequences: Sequence[str]
) -> tuple[list[Case], list[str]]:
    """Cases with a file for each sequence, and the files without a sequence."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    unnamed = []
    for name, path in volumes.items():
        folder, _, stem = stems[name].rpartition("/")
        for sequence in sorted(sequences, key=lambda each: -len(each)):  # t1ce before ce
            lower = sequence.lower()
            if stem.lower() == lower and folder:
                found[folder][sequence].append(path)
                break
            if stem.lower().endswith((f"_{lower}", f"-{lower}")):
                case = stem[: -len(sequence) - 1]
                found[f"{folder}/{case}" if folder else case][sequence].append(path)
                break
        else:
            unnamed.append(name)
    if not found:
        raise DatasetError(
            f"no file is named after a sequence ({some_of(list(sequences))}): CASE_SEQUENCE or CASE/SEQUENCE; the "
            f"files are {some_of(list(volumes))}"
        )
    cases = []
    for case, files in found.items():
        lacking = [sequence for sequence in sequences if sequence not in files]
        twice = [sequence for sequence in sequences if len(files.get(sequence, ())) > 1]
        fault = f"lacks the sequence {some_of(lacking)}" if lacking else ""
        fault = f"has several files of {some_of(twice)}" if twice else fault
        cases.append(Case(case, () if fault else tuple(files[sequence][0] for sequence in sequences), fault))
    return cases, unnamed
