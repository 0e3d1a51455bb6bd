"""The images of a data set as its files describe them, and how their names are located below a channel."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sagemaker_monai.data.label_rules import Cells
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.name_matching import key_parts, match_names, nearest_name
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images.sample import Sequences
from sagemaker_monai.images.suffixes import DICOM_SUFFIXES, IMAGE_SUFFIXES, VOLUME_SUFFIXES
from sagemaker_monai.masks.mask import Parts
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.file_names import is_fit_path, parts_of
from sagemaker_monai.storage.files import children, plain_files
from sagemaker_monai.tasks.label_codes import LabelCodes
from sagemaker_monai.tasks.labels import Label

DICOM_NAMES = DICOM_SUFFIXES - {""}
VOLUME_NAMES = VOLUME_SUFFIXES - {".img", ".img.gz", ".hdr.gz"}  # of a pair, the plain header is the image
HEADER_SUFFIXES = frozenset({".hdr", ".mhd", ".nhdr"})  # of volumes whose values are in other files
MAX_HEADER_BYTES = 1 << 20
IMAGE_NAMES = IMAGE_SUFFIXES | DICOM_NAMES | VOLUME_NAMES | {".zip", ".tar"}  # the last two: of one series
# Suffixes that names in tables may lack, the longest first, so that .nii.gz comes before .gz.
SUFFIXES = tuple(sorted(IMAGE_NAMES, key=lambda suffix: (-len(suffix), suffix)))
Metadata = dict[str, str | float | None]
Image = Path | Sequences  # a file, a folder with the files of one DICOM series, or one of these per channel
SOURCES = ("dataset.json", "table", "class folders", "mask folders")
BETWEEN_SEQUENCES = " + "  # in the name of an image of several sequences


@dataclass(frozen=True)
class Entry:
    """One image as its layout describes it.

    Attributes:
        label: as written, until `labelled` has read it.
        group: its own name if none is known.
        split: None if the layout has none.
        metadata: everything else, including columns that may name the patient.
        mask: the file or files with a label for each voxel, if labels are masks.
        annotator_masks: what each of several annotators drew, by number; files that may be missing.
        cells: instead of a label, if findings have a column each.
    """

    image: Image
    name: str
    label: Label
    group: str
    split: str | None
    metadata: Metadata
    cells: Cells | None = None
    mask: Path | Parts | None = None
    annotator_masks: Mapping[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Aside:
    """Files of a data set as classified by `mask_files`.

    Attributes:
        images: in the order given.
        masks: each with its images, which may be several sequences, or none if unknown.
        doubtful: images with names of masks, or listed images that look like masks.
    """

    images: tuple[Path, ...] = ()
    masks: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)
    doubtful: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What one channel holds.

    Attributes:
        labels: class names in model order, some perhaps without images; for regression, names of the numbers.
        entries: the images.
        title: name of the data set.
        task: a key of `tasks.tasks.TASKS`, or None.
        modality: DICOM's Modality, or "".
        spatial_dims: 2, 3 or None.
        remarks: on oddities that do not prevent reading.
        aside: masks beside the images, which are not among the entries.
        legend: what the values of masks mean, if labels are masks.
        codes: what structures are in the words of DICOM (`structure_codes`); those without are left out.
        source: one of SOURCES; "" if channels have different layouts.
    """

    labels: tuple[str, ...]
    entries: list[Entry]
    title: str = ""
    task: str | None = None
    modality: str = ""
    spatial_dims: int | None = None
    remarks: tuple[Remark, ...] = ()
    aside: Aside = field(default_factory=Aside)
    source: str = ""
    legend: Legend | None = None
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)


def visible(folder: Path) -> list[Path]:
    """The contents of a folder, sorted, without litter and the manifests that SageMaker writes beside data."""
    return [path for path in children(folder) if not path.name.endswith(("-manifest", ".manifest"))]


def is_image(path: Path) -> bool:
    """Whether a path is an image: a file of a known type by its name, or DICOM by its first bytes, as from a PACS.

    A folder is one if it may hold a DICOM series: it has files, and none is named like a picture.
    """
    if path.is_dir():
        files = image_files(path)
        return bool(files) and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in files)
    if path.name.lower().endswith(tuple(IMAGE_NAMES)):
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def image_files(image: Image | Parts) -> list[Path]:
    """The files of an image or mask, by name; of a folder its `files.plain_files`; a header comes before its values."""
    if isinstance(image, Sequences | Parts):
        parts = image.channels if isinstance(image, Sequences) else image.files
        return [file for part in parts for file in image_files(part)]
    if not image.is_dir():
        return [image, *_values_of(image)]
    return sorted(plain_files(image))


def _values_of(header: Path) -> list[Path]:
    """The files beside a volume's header that hold its values: the .img of a .hdr, or those that its text names."""
    suffix = header.suffix.lower()
    if suffix not in HEADER_SUFFIXES or not header.is_file():
        return []
    beside = [path for path in visible(header.parent) if path.is_file() and path != header]
    if suffix == ".hdr":
        wanted = {f"{header.stem}{ending}".lower() for ending in (".img", ".img.gz")}
        return [path for path in beside if path.name.lower() in wanted]
    with header.open("rb") as file:
        text = file.read(MAX_HEADER_BYTES).decode("latin-1")
    names = set(re.split(r"[\s=:]+", text))
    return [path for path in beside if path.name in names]


def name_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a name in a table, below the channel; empty if it cannot be such a name."""
    return parts_of(name, separators="/\\")


def inside_of(root: Path, name: str, real_root: str = "") -> Path | None:
    """The file of a name in a table, or None if it would lead out of the channel."""
    if not (parts := name_parts(name)):
        return None
    path = root.joinpath(*parts)
    return path if os.path.realpath(path).startswith((real_root or os.path.realpath(root)) + os.sep) else None


def locate(root: Path, names: Sequence[str], *, what: str) -> tuple[list[Path], tuple[Remark, ...]]:
    """Find the files and series folders that a table names, see `name_matching`, with remarks on how.

    Raises:
        DatasetError: a name leads out of the channel, is repeated or ambiguous, or its file is missing or its folder
            empty.
    """
    real_root = os.path.realpath(root)
    inside = [inside_of(root, name, real_root) for name in names]
    there = {
        name: path.relative_to(root).as_posix()
        for name, path in zip(names, inside, strict=True)
        if path is not None and _is_there(path)
    }
    if unfit := [ascii(name) for name in names if not is_fit_path(name)]:
        raise DatasetError(f"{what} names images with control characters: {len(unfit)} ({some_of(unfit)}); rename them")
    if outside := [name for name, path in zip(names, inside, strict=True) if path is None and _leads_out(root, name)]:
        raise DatasetError(
            f"{what} names images outside its channel: {len(outside)} ({some_of(outside)}); "
            "use paths relative to it with /, without .. or links that lead out"
        )
    keys = [there.get(name, name) for name in names]
    if twice := sorted(key for key, count in Counter(map(str, map(PurePosixPath, keys))).items() if count > 1):
        raise DatasetError(
            f"{what} names images more than once: {len(twice)} ({some_of(twice)}); keep one line for each"
        )
    if len(there) == len(names):
        return [root / key for key in keys], ()
    known = dict.fromkeys([*there.values(), *names_below(root)])
    matches = match_names(keys, known, suffixes=SUFFIXES, takes_folders=True)
    matches.refuse_unclear(what)
    if matches.missing:
        taken = set(matches.found.values())
        near = nearest_name(matches.missing[0], [name for name in known if name not in taken])
        shown = some_of(matches.missing) + (f"; the nearest name is {some_of([near])}" if near else "")
        raise DatasetError(
            f"{what} names images that are not in the channel: {len(matches.missing)} of {len(names)} ({shown}); "
            "add the files or remove their lines"
        )
    return [root / matches.found[key] for key in keys], matches.remarks(what)


def _leads_out(root: Path, name: str) -> bool:
    """Whether a name goes up, is invalid, or is behind a link that leads out; such names are not searched for."""
    return not name_parts("/".join(key_parts(name))) or (bool(name_parts(name)) and os.path.lexists(root / name))


def names_below(root: Path) -> list[str]:
    """The images below a channel, and the folders without pictures, which may be series."""
    names: dict[str, None] = {}
    folders: dict[str, bool] = {}
    for path in plain_files(root):
        name = path.relative_to(root).as_posix()
        names[name] = None
        is_picture = path.suffix.lower() in IMAGE_SUFFIXES
        for parent in PurePosixPath(name).parents[:-1]:
            folders[str(parent)] = folders.get(str(parent), False) or is_picture
    return [*names, *(folder for folder, has_pictures in folders.items() if not has_pictures)]


def _is_there(path: Path) -> bool:
    # os.path, because pathlib raises if a name is too long.
    return os.path.isfile(path) or (os.path.isdir(path) and bool(image_files(path)))  # noqa: PTH112, PTH113


def images_of_names(
    root: Path, names: Sequence[tuple[str, ...]], *, what: str
) -> tuple[list[tuple[Image, str]], tuple[Remark, ...]]:
    """The images that a list names, each by one name or by one per channel.

    Returns:
        Images with their names relative to the channel, and remarks on how they were found.

    Raises:
        DatasetError: as for `locate`.
    """
    flat = [name for image in names for name in image]
    paths, remarks = locate(root, flat, what=what)
    found: Mapping[str, Path] = dict(zip(flat, paths, strict=True))
    images: list[tuple[Image, str]] = []
    for image in names:
        paths = [found[name] for name in image]
        relative = BETWEEN_SEQUENCES.join(path.relative_to(root).as_posix() for path in paths)
        images.append((paths[0] if len(paths) == 1 else Sequences(tuple(paths)), relative))
    return images, remarks
