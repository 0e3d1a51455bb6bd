"""dataset.json: the Medical Segmentation Decathlon's layout for classes and numbers, with `group`, read and written.

An item is `{"image": NAME, "label": LABEL, "group": GROUP, ...}`. NAME is a file, a folder with the files of one DICOM
series, or a list with one of these per channel. LABEL is a class name, an object of classes and their shares (several
annotators), a list of classes (any number of findings), or a number; `task` decides if that is ambiguous.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sagemaker_monai.data.entries import IMAGE_NAMES, Entry, Layout, Metadata, images_of_names, name_parts
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import split_of
from sagemaker_monai.storage.file_names import is_fit
from sagemaker_monai.storage.files import write_text
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS

DATASET_JSON = "dataset.json"
IMPORT_REPORT = "import_report.json"  # `prepare` writes it before the first image, and dataset.json last
MAX_DATASET_JSON_BYTES = 1 << 28  # 256 MiB is a million images
MAX_SEQUENCES = 16  # channels of an image
SPATIAL_DIMS = {"2D": 2, "3D": 3}  # tensorImageSize
NO_LABEL = "nan"  # for a label that is null
ANNOTATOR_MASKS = "annotator_masks"  # number of an annotator -> the mask that the annotator drew
NOT_METADATA = frozenset({"image", "label", "group", "rois", ANNOTATOR_MASKS})


def json_object(path: Path) -> dict[str, Any]:
    """What a dataset.json holds.

    Raises:
        DatasetError: not a JSON object, or too large to be one that lists images.
    """
    if path.stat().st_size > MAX_DATASET_JSON_BYTES:
        raise DatasetError(f"dataset.json is larger than {MAX_DATASET_JSON_BYTES >> 20} MiB; it must only list images")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DatasetError(f"dataset.json is not JSON: {' '.join(str(error)[:200].split())}; write it again") from error
    if not isinstance(content, dict):
        raise DatasetError("dataset.json must be a JSON object with labels and training")
    return content


def _json_labels(content: dict[str, Any]) -> tuple[str, ...]:
    labels = content.get("labels")
    sound = isinstance(labels, dict) and all(isinstance(name, str) and name.strip() for name in labels.values())
    if not isinstance(labels, dict) or not sound or set(labels) != {str(index) for index in range(len(labels))}:
        raise DatasetError(
            'dataset.json: labels must map "0", "1", ... without gaps to class names, like {"0": "akiec", "1": "bcc"}'
        )
    ordered = tuple(labels[str(index)] for index in range(len(labels)))
    if len(set(ordered)) < len(ordered):
        raise DatasetError(f"dataset.json: labels names a class twice ({some_of(sorted(ordered))}); keep one of each")
    return ordered


def json_metadata(item: dict[str, Any], place: str) -> Metadata:
    """What an item says beside image, label and group; `place` names it in errors.

    Raises:
        DatasetError: a value that is not a text, a number or null.
    """
    metadata: Metadata = {}
    for key, value in item.items():
        if key in NOT_METADATA:
            continue
        if value is None or isinstance(value, str):
            metadata[key] = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            metadata[key] = number if math.isfinite(number) else None
        else:
            raise DatasetError(f"{place}: {key[:60]} must be a text, a number or null; correct it")
    return metadata


def listed_images(root: Path) -> set[str]:
    """The names of image files and series folders in a channel's dataset.json, whether or not they exist.

    Raises:
        DatasetError: it is not valid, or a name leads out of the channel.
    """
    _, items = _items(json_object(root / DATASET_JSON))
    names = {name: "/".join(name_parts(name)) for _, item in items for name in item["image"]}
    if outside := [name for name, inside in names.items() if not inside]:
        raise DatasetError(f"dataset.json names images outside its channel: {len(outside)} ({some_of(outside)})")
    return set(names.values())


def _items(content: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, dict[str, Any]]]]:
    """The labels, and the split and description of every image: `image` a tuple of names, `label` as a Label."""
    task = content.get("task")
    if task is not None and task not in TASKS:
        raise DatasetError(f"dataset.json: task must be one of {', '.join(TASKS)}, got {str(task)[:40]!r}")
    labels = _json_labels(content)
    if task is not None and len(labels) < TASKS[task].fewest_labels:
        raise DatasetError(f"dataset.json: labels must have at least {TASKS[task].fewest_labels} names for {task}")
    is_number = task is not None and not TASKS[task].has_classes
    items: list[tuple[str, dict[str, Any]]] = []
    for split, key in split_keys(content):
        listed = content[key]
        if not isinstance(listed, list):
            raise DatasetError(f"dataset.json: {key} must be a list of images, got {type(listed).__name__}")
        for position, item in enumerate(listed):
            place = f"dataset.json: {key}[{position}]"
            if not isinstance(item, dict):
                raise DatasetError(f'{place} must be an object like {{"image": "./images/1.jpg", "label": "nv"}}')
            if not isinstance(item.get("group", ""), str):
                raise DatasetError(f"{place}: group must be a text, like a patient or lesion id")
            label = _label(item.get("label", False), labels, place, is_number=is_number)
            items.append((split, {**item, "image": image_names(item.get("image"), place), "label": label}))
    return labels, items


def split_keys(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The splits in order, each with the key of its list of images: training, val, testing and the like.

    Raises:
        DatasetError: a split has two lists, or a key that is not a split has a list of images.
    """
    found: dict[str, str] = {}
    for key, value in content.items():
        split = split_of(key)
        if split is None:
            if _holds_images(value):
                raise DatasetError(
                    f"dataset.json: {key[:60]} holds images, but is not a split; call it training, validation or test, "
                    "or remove it"
                )
        elif split in found and value and content[found[split]]:
            raise DatasetError(f"dataset.json: {found[split]} and {key} are for one split; join them")
        elif split not in found or value:
            found[split] = key
    return [(split, found[split]) for split in SPLITS if split in found]


def _holds_images(value: Any, depth: int = 3) -> bool:
    """Whether a value is or contains a list of images."""
    if depth == 0 or not isinstance(value, list | dict):
        return False
    if isinstance(value, dict):
        return any(_holds_images(each, depth - 1) for each in value.values())
    names = [each.get("image") if isinstance(each, dict) else each for each in value]
    is_list = any(isinstance(name, str) and name.lower().endswith(tuple(IMAGE_NAMES)) for name in names)
    return (
        is_list
        or any(isinstance(each, dict) and "image" in each for each in value)
        or any(_holds_images(each, depth - 1) for each in value)
    )


def image_names(value: Any, place: str) -> tuple[str, ...]:
    """The files of an item's image, one a channel.

    Raises:
        DatasetError: not a text, or a list of some.
    """
    names = value if isinstance(value, list) else [value]
    if not 1 <= len(names) <= MAX_SEQUENCES or not all(isinstance(name, str) and name.strip() for name in names):
        raise DatasetError(f"{place} must have image as a text, or as a list of one to {MAX_SEQUENCES}; correct it")
    return tuple(names)


def _label(value: Any, labels: Sequence[str], place: str, *, is_number: bool) -> Label:
    """A label in one of its forms, which the task interprets."""
    if isinstance(value, str) and value.strip():
        return value
    if value is None or value != value:  # NaN, as pandas writes it
        return NO_LABEL
    if isinstance(value, int | float) and not isinstance(value, bool) and is_number and abs(value) < math.inf:
        return float(value)
    if type(value) is int and 0 <= value < len(labels):
        return labels[value]  # the Decathlon's own way to name a class
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if isinstance(value, dict) and all(
        isinstance(share, int | float) and not isinstance(share, bool) and abs(share) < math.inf
        for share in value.values()
    ):
        return {name: float(share) for name, share in value.items()}
    raise DatasetError(
        f"{place} must have label as a text, a list of classes, an object of classes and shares, or, if task is "
        "regression, a number; correct it"
    )


def read_dataset_json(root: Path, content: dict[str, Any]) -> Layout:
    """The layout of a channel with dataset.json.

    Raises:
        DatasetError: it is not valid, or names files that are missing or outside the channel.
    """
    labels, items = _items(content)
    images, remarks = images_of_names(root, [item["image"] for _, item in items], what=DATASET_JSON)
    entries = []
    for (split, item), (image, name) in zip(items, images, strict=True):
        metadata = json_metadata(item, f"dataset.json: {name}")
        entries.append(Entry(image, name, item["label"], item.get("group") or name, split, metadata))
    title, modality = content.get("name", ""), content.get("modality")
    first = modality.get("0") if isinstance(modality, dict) else None
    return Layout(
        labels,
        entries,
        title=title if isinstance(title, str) and is_fit(title) else "",
        task=content.get("task"),
        modality=first if isinstance(first, str) else "",
        spatial_dims=SPATIAL_DIMS.get(str(content.get("tensorImageSize"))),
        remarks=remarks,
        source=DATASET_JSON,
    )


def write_dataset_json(
    folder: Path,
    *,
    name: str,
    description: str,
    labels: Sequence[str],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    task: str = DEFAULT_TASK,
    spatial_dims: int = 2,
    modality: str = "RGB",
    codes: Mapping[str, Any] = MappingProxyType({}),
    reference: str = "",
    licence: str = "",
) -> None:
    """Write `dataset.json` in the Medical Segmentation Decathlon layout, atomically.

    Args:
        folder: root of the data set.
        name, description, reference, licence: for people.
        labels: class names in the order of the model's outputs, grades in their order, or names of numbers.
        records: split -> one mapping per image: `image`, `label`, `group`, and metadata, see the module.
        task: a key of `tasks.tasks.TASKS`.
        spatial_dims: 2 or 3.
        modality: DICOM's Modality, or "RGB" for photographs.
        codes: what structures are in the words of DICOM, by their names.
    """
    content = {
        "name": name,
        "description": description,
        "reference": reference,
        "licence": licence,
        "tensorImageSize": f"{spatial_dims}D",
        "modality": {"0": modality},
        **({} if task == DEFAULT_TASK else {"task": task}),
        "labels": {str(index): label for index, label in enumerate(labels)},
        **({"codes": dict(codes)} if codes else {}),
        "numTraining": len(records.get("training", ())),
        "numValidation": len(records.get("validation", ())),
        "numTest": len(records.get("test", ())),
    }
    head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
    lists = [  # one line per image, so that people and diff can read it
        f' "{split}": [\n'
        + ",\n".join(
            f"  {json.dumps(dict(item), ensure_ascii=False, allow_nan=False)}" for item in records.get(split, ())
        )
        + "\n ]"
        for split in SPLITS
    ]
    write_text(folder / DATASET_JSON, ",\n".join([head, *lists]) + "\n}\n")
