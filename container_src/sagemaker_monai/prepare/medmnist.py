"""A MedMNIST file (.npz) becomes pictures or volumes in the published split.

The file has arrays `train_images`, `train_labels`, and the same for val and test. Pictures are (n, rows, columns), or
(n, rows, columns, 3) in colour, and become PNG files. Volumes are (n, slices, rows, columns), as in the authors' own
montage, and become .npy files (W, H, D) of uint8: W along the rows, H down the columns, D along the slices. The file
has no spacing, orientation or patients: each image is a group of its own. Equal images on two sides are counted but
stay, so that scores can be compared with published ones.
"""

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagemaker_monai.data.dataset_json import write_dataset_json
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images.formats.arrays import MAX_NPY_HEADER_BYTES, parse_npy_header
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.import_report import Report, digest_of_all, earlier_import
from sagemaker_monai.prepare.medmnist_sets import SETS, MedMnistSet, set_of
from sagemaker_monai.prepare.sides import count_images, missing_sides
from sagemaker_monai.storage.files import sha256_of
from sagemaker_monai.storage.zips import ArchiveLimits, UnsafeArchiveError, member_names, read_members
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS, task_for

PARTS = {"training": "train", "validation": "val", "test": "test"}
MAX_ARRAY_BYTES = 1 << 34  # of one array: all of PathMNIST at 224 x 224 is 13.5 GB
MAX_IMAGES = 1_000_000
MAX_SIDE = 1024
MAX_CLASSES = 10_000
_LIMITS = ArchiveLimits(members=64, member_bytes=MAX_ARRAY_BYTES, total_bytes=1 << 35, ratio=1032)
REFERENCE = "J. Yang et al., MedMNIST v2, Scientific Data 10, 41 (2023), doi 10.1038/s41597-022-01721-8"


@dataclass(frozen=True)
class _Part:
    """The images and labels of one side."""

    images: np.ndarray  # (n, rows, columns), (n, rows, columns, 3) or (n, slices, rows, columns)
    labels: np.ndarray  # (n, k) of whole numbers


@dataclass(frozen=True)
class MedmnistOptions:
    """How to import a file; in import_report.json.

    Attributes:
        task: a key of `tasks.TASKS`; "auto" takes the published one, or guesses by the labels.
        classes: names in the order of the numbers in the file; empty takes the published ones, or the numbers.
        title: of the data set; "" takes the file's name.
    """

    task: str = option("auto", "(default: the published one)", choices=("auto", *TASKS))
    classes: tuple[str, ...] = option(
        (),
        "names in the order of the numbers (default: the published ones)",
        read=lambda text: tuple(name.strip() for name in text.split(",")) if text else (),
        metavar="A,B,...",
    )
    title: str = option("", "what the data set is called (default: the file's name)")


DEFAULTS = MedmnistOptions()


def import_medmnist(source: Path, out: Path, options: MedmnistOptions = DEFAULTS) -> Report:
    """Import a file of MedMNIST.

    Args:
        source: the .npz file.
        out: folder to write `images/`, `dataset.json` and `import_report.json` to: empty, new, or with an earlier
            import, which is replaced. The same call again writes nothing.
        options: see `MedmnistOptions`.

    Raises:
        DatasetError: the file is damaged, unsafe or not of MedMNIST, or the output folder cannot be used.
        ConfigError: an option is out of range, or the classes do not fit the labels.
    """
    if options.task not in ("auto", *TASKS):
        raise ConfigError(f"task must be one of auto, {', '.join(TASKS)}, got {options.task!r}")
    if not source.is_file():
        raise DatasetError(f"there is no file {source.name}; name an .npz of MedMNIST")
    output.check_places(source, out)
    output.check_output(out)
    chosen = asdict(options)
    key = digest_of_all(source.name, sha256_of(source), chosen)
    if done := earlier_import(Report, out, key):
        return done

    parts = {split: part for split, name in PARTS.items() if (part := _read_part(source, name)) is not None}
    if "training" not in parts:
        raise DatasetError(f"{source.name} has no train_images and train_labels; it is not a file of MedMNIST")
    _check_alike(parts)
    known = SETS.get(set_of(source.name) or "")
    chosen_task, names = _meaning(parts, options.task, options.classes, known)
    labels = {split: [_label(row, chosen_task, names) for row in part.labels] for split, part in parts.items()}
    spatial_dims = 3 if _is_volume(parts["training"].images) else 2
    count = sum(len(part.images) for part in parts.values())
    width = max(4, len(str(count)))
    suffix = ".npy" if spatial_dims == 3 else ".png"
    output.begin(out, [f"{number:0{width}d}{suffix}" for number in range(1, count + 1)])
    files: dict[str, int] = {}
    sides: dict[bytes, set[str]] = defaultdict(set)
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    flat = (
        (split, image, label)
        for split, part in parts.items()
        for image, label in zip(part.images, labels[split], strict=True)
    )
    for number, (split, image, label) in enumerate(track(flat, total=count, what="writing images"), start=1):
        name = f"{number:0{width}d}{suffix}"
        content = _encoded(image, is_volume=spatial_dims == 3)
        (out / output.IMAGES / name).write_bytes(content)
        files[name] = len(content)
        sides[hashlib.sha256(image.tobytes()).digest()].add(split)
        stem = name.removesuffix(suffix)
        record = {"image": f"./{output.IMAGES}/{name}", "label": list(label) if isinstance(label, tuple) else label}
        records[split].append({**record, "group": stem})
    told = [(label, split) for split in parts for label in labels[split]]
    counts = count_images([label for label, _ in told], [side for _, side in told], task=chosen_task, classes=names)
    report = Report(
        is_repeated=False,
        task=chosen_task,
        spatial_dims=spatial_dims,
        images=count,
        files=count,
        groups=count,
        counts=counts,
        notes=[f"the published split of {source.name} is kept"],
        warnings=_warnings(parts, sides, counts),
    )
    output.remove_stale(out, files)
    write_dataset_json(
        out,
        name=options.title or source.stem,
        description="MedMNIST, the published split",
        reference=REFERENCE if known else "",
        labels=names,
        records=records,
        task=chosen_task,
        spatial_dims=spatial_dims,
        # Not CT even if it was: the 8-bit values are not HU.
        modality="RGB" if spatial_dims == 2 else "OT",
    )
    written = report.written(with_names=True)
    output.finish(out, {"importer": "medmnist", "options": chosen, **written}, key=key, files=files)
    return report


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_part(source: Path, name: str) -> _Part | None:
    """The arrays of one side, None where both are missing."""
    arrays = {}
    for what in ("images", "labels"):
        content = _read_member(source, f"{name}_{what}.npy")
        arrays[what] = None if content is None else _array(content, f"{name}_{what}")
    images, labels = arrays["images"], arrays["labels"]
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise DatasetError(f"{source.name} has only one of {name}_images and {name}_labels; download it again")
    labels = labels[:, np.newaxis] if labels.ndim == 1 else labels
    is_image = images.dtype == np.uint8 and images.ndim in (3, 4) and max(images.shape[1:], default=0) <= MAX_SIDE
    if not is_image or 0 in images.shape[1:]:
        raise DatasetError(
            f"{name}_images must be uint8 (n, rows, columns), with a fourth axis for colour or slices, each at most "
            f"{MAX_SIDE}; got {images.dtype} {images.shape}"
        )
    if labels.ndim != 2 or labels.shape[1] < 1 or labels.dtype.kind not in "biuf" or len(labels) != len(images):
        raise DatasetError(
            f"{name}_labels must be numbers with a row for each of {len(images)} images, got {labels.dtype} "
            f"{labels.shape}"
        )
    if not np.isfinite(labels).all():
        raise DatasetError(f"{name}_labels has values that are not finite; download the file again")
    return _Part(images, labels)


def _read_member(source: Path, name: str) -> bytes | None:
    try:
        if name not in member_names(source, limits=_LIMITS):
            return None
        [(_, content)] = read_members(source, limits=_LIMITS, wanted=lambda member: member == name)
    except UnsafeArchiveError as error:
        raise DatasetError(f"{source.name}: {error.reason}; download it again") from error
    return content


def _array(content: bytes, name: str) -> np.ndarray:
    try:
        header = parse_npy_header(content[: 12 + MAX_NPY_HEADER_BYTES])  # nothing is unpickled
    except CallerError as error:
        raise DatasetError(f"{name}: {error}; download the file again") from error
    if len(content) - header.offset != math.prod(header.shape) * header.dtype.itemsize:
        raise DatasetError(f"{name}: the values do not fill the shape exactly; download the file again")
    if header.shape and header.shape[0] > MAX_IMAGES:
        raise DatasetError(f"{name} has {header.shape[0]} rows, at most {MAX_IMAGES} are read")
    return np.frombuffer(content, header.dtype, offset=header.offset).reshape(header.shape, order=header.order)


def _check_alike(parts: Mapping[str, _Part]) -> None:
    shapes = {(part.images.shape[1:], part.labels.shape[1]) for part in parts.values()}
    if len(shapes) > 1:
        raise DatasetError("train, val and test have images or labels of different shapes; download the file again")
    if not any(len(part.images) for part in parts.values()):
        raise DatasetError("the file has no images; download it again")


def _is_volume(images: np.ndarray) -> bool:
    return images.ndim == 4 and images.shape[3] != 3


# --- labels ----------------------------------------------------------------------------------------------------------


def _meaning(
    parts: Mapping[str, _Part], asked: str, classes: Sequence[str], known: MedMnistSet | None
) -> tuple[str, tuple[str, ...]]:
    """The task, and the names of the classes."""
    values = np.concatenate([part.labels for part in parts.values()])
    columns = values.shape[1]
    guess = known.task if known else task_for("findings") if columns > 1 else DEFAULT_TASK
    task = guess if asked == "auto" else asked
    form = TASKS[task].form
    if columns > 1 and form != "findings":
        raise ConfigError(f"the labels have {columns} columns, which is not {task}")
    if form == "number":
        names = tuple(classes) or ("label",)
        if len(names) != 1:
            raise ConfigError(f"{task} has one number, --classes names {len(names)}")
        return task, names
    if (values != np.floor(values)).any() or values.min() < 0:
        raise DatasetError(f"the labels are not class numbers from 0; choose --task {task_for('number')}")
    needed = columns if form == "findings" else int(values.max()) + 1
    if form == "findings" and values.max() > 1:
        raise DatasetError("the labels of findings must be 0 and 1")
    if needed > MAX_CLASSES:
        raise DatasetError(f"the labels need {needed} classes, at most {MAX_CLASSES} are made")
    names = tuple(classes) or (known.classes if known else tuple(str(number) for number in range(needed)))
    is_wrong = len(names) != needed if form == "findings" else len(names) < needed
    if is_wrong:
        raise ConfigError(f"the labels need {needed} classes, there are {len(names)} names ({some_of(names)})")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ConfigError("--classes names a class twice, or one has no name")
    if len(names) < TASKS[task].fewest_labels:
        raise DatasetError(f"{task} needs at least {TASKS[task].fewest_labels} classes, the file has {len(names)}")
    return task, names


def _label(row: np.ndarray, task: str, names: Sequence[str]) -> Label:
    if TASKS[task].form == "findings":
        return tuple(name for name, value in zip(names, row, strict=True) if value)
    return names[int(row[0])] if TASKS[task].has_classes else float(row[0])


# --- writing ---------------------------------------------------------------------------------------------------------


def _encoded(image: np.ndarray, *, is_volume: bool) -> bytes:
    buffer = io.BytesIO()
    if is_volume:
        np.save(buffer, np.ascontiguousarray(image.transpose(2, 1, 0)), allow_pickle=False)  # (W, H, D)
    else:
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _warnings(
    parts: Mapping[str, _Part], sides: Mapping[bytes, set[str]], counts: Mapping[str, Mapping[str, int]]
) -> list[str]:
    warnings = [f"the file has no {PARTS[split]}" for split in SPLITS if split not in parts]
    if torn := sum(len(seen) > 1 for seen in sides.values()):
        warnings.append(
            f"{torn} images are byte for byte on two sides of the published split, which is kept: scores are a "
            "little too good"
        )
    return [*warnings, *missing_sides(counts, (1.0, float("validation" in parts), float("test" in parts)))]
