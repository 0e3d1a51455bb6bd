"""The labels of Ground Truth by task type: classes, regions, and if the label has them, the annotators.

A row of `TYPES` is a task type whose labels give classes or a mask to an image. Class numbers get their names from the
class-map beside them, which must be the same for all images.

Source: Amazon SageMaker AI Developer Guide, "Labeling job output data" and "Post-annotation Lambda".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.answers import Content, Region, clean_name, read_box, read_content
from sagemaker_monai.prepare.ground_truth.mask_answers import find_mask, read_reference

MAX_ANNOTATORS = 1000  # of one image
VERIFICATION = "groundtruth/label-verification"
MASKS = "groundtruth/semantic-segmentation"
# Where Lambdas put the answer of one annotator; the first is Ground Truth's own.
CONTENT_KEYS = ("annotationData", "answerContent", "annotation", "result", "content", "answer")


@dataclass(frozen=True)
class Answer:
    """The answer of one annotator, or without annotator the job's own label."""

    annotator: str | None
    content: Content
    submitted: str = ""


def index_of(value: object) -> int:
    """A class number, which manifests write as a number or as text; a DatasetError if it is neither."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise DatasetError("a class number must be a whole number from 0; correct the manifest")
    return int(text)


class Names:
    """Class numbers with names, the same for all lines; also other classes on offer, and a count of unsound regions."""

    def __init__(self) -> None:
        self.by_index: dict[int, str] = {}
        self.offered: set[str] = set()
        self.unsound_regions = 0

    def learn(self, class_map: object) -> None:
        """Add a class-map; a DatasetError if it is not one, or contradicts an earlier one."""
        if not isinstance(class_map, Mapping):
            raise DatasetError("a class-map must map class numbers to names; correct the manifest")
        for key, value in class_map.items():
            index, name = index_of(key), clean_name(value)
            if self.by_index.setdefault(index, name) != name:
                raise DatasetError(
                    f"class {index} has two names ({some_of([self.by_index[index], name])}): the lines come from jobs "
                    "with different classes; import each job by itself or correct the class-map"
                )
        if len(set(self.by_index.values())) < len(self.by_index):
            raise DatasetError("the class-map gives one name to two class numbers; correct the manifest")

    def name(self, index: object) -> str:
        """The name of a class number; a DatasetError if it has none."""
        if (number := index_of(index)) not in self.by_index:
            raise DatasetError(f"class {number} is not in the class-map; correct the manifest")
        return self.by_index[number]

    def read(self, content: Any, path: Sequence[str]) -> Content:
        """An annotator's answer; remembers the other classes on offer."""
        if not path and (mask := find_mask(content)) is not None:
            return Content(frozenset(), mask=mask)
        read, unsound = read_content(content, path=path)
        self.unsound_regions += unsound
        self.offered |= read.offered
        return read


def read_workers(values: object, names: Names, path: Sequence[str]) -> list[Answer]:
    """The answers in the list of a consolidation request, a worker response or a Lambda's label.

    Raises:
        DatasetError: an answer is missing, is kept elsewhere, or cannot be read.
    """
    if not isinstance(values, list) or len(values) > MAX_ANNOTATORS:
        raise DatasetError(f"the answers to an image must be a list of at most {MAX_ANNOTATORS}; download it again")
    answers = []
    for value in values:
        worker = value.get("workerId") if isinstance(value, Mapping) else None
        if not isinstance(worker, str) or not worker.strip():
            raise DatasetError("an answer has no workerId; download the job's output again")
        content = next((value[key] for key in CONTENT_KEYS if key in value), None)
        if "annotationData" in value:
            content = content.get("content") if isinstance(content, Mapping) else None
        if content is None:
            raise DatasetError(
                "an answer has no content, or its content is in S3; give the folder with the job's whole output"
            )
        submitted = value.get("submissionTime")
        answers.append(Answer(worker, names.read(content, path), submitted if isinstance(submitted, str) else ""))
    return answers


def _find_workers(value: object, depth: int = 0) -> list[Any] | None:
    """The list of annotators' answers in a Lambda's label (`annotationsFromAllWorkers`, `responses`, or one)."""
    if depth > 3:
        return None
    if isinstance(value, list):
        return value if value and all(isinstance(item, Mapping) and "workerId" in item for item in value) else None
    if isinstance(value, Mapping):
        if "workerId" in value:
            return [value]
        found = [workers for inner in value.values() if (workers := _find_workers(inner, depth + 1)) is not None]
        return found[0] if found else None
    return None


def _read_class(value: Any, metadata: Mapping[str, Any], names: Names, _path: Sequence[str]) -> list[Answer]:
    if "class-name" in metadata:
        names.learn({index_of(value): metadata["class-name"]})
    elif "class-map" in metadata:
        names.learn(metadata["class-map"])
    return [Answer(None, Content(frozenset({names.name(value)})))]


def _read_classes(value: Any, metadata: Mapping[str, Any], names: Names, _path: Sequence[str]) -> list[Answer]:
    names.learn(metadata.get("class-map", {}))
    if not isinstance(value, list):
        raise DatasetError("a multi-label value must be a list of class numbers; correct the manifest")
    return [Answer(None, Content(frozenset(map(names.name, value))))]


def _read_boxes(value: Any, metadata: Mapping[str, Any], names: Names, _path: Sequence[str]) -> list[Answer]:
    names.learn(metadata.get("class-map", {}))
    boxes = value.get("annotations") if isinstance(value, Mapping) else None
    if not isinstance(boxes, list) or not all(isinstance(box, Mapping) for box in boxes):
        raise DatasetError("a bounding-box label must have a list of annotations; correct the manifest")
    classes: set[str] = set()
    regions: list[Region] = []
    for box in boxes:
        label = names.name(box.get("class_id"))
        classes.add(label)
        if (region := read_box(box, label)) is not None:
            regions.append(region)
        else:
            names.unsound_regions += 1
    return [Answer(None, Content(frozenset(classes), tuple(regions)))]


def _read_mask(value: Any, metadata: Mapping[str, Any], _names: Names, _path: Sequence[str]) -> list[Answer]:
    return [Answer(None, Content(frozenset(), mask=read_reference(value, metadata.get("internal-color-map"))))]


def read_custom(value: Any, _metadata: Mapping[str, Any], names: Names, path: Sequence[str]) -> list[Answer]:
    """A label that a Lambda wrote: the annotators' answers if it passes them on, else its own verdict."""
    workers = _find_workers(value)
    if workers is not None:
        return read_workers(workers, names, path)
    return [Answer(None, names.read(value, path))] if value not in ({}, [], "", None) else []


LabelReader = Callable[[Any, Mapping[str, Any], Names, Sequence[str]], list[Answer]]
TYPES: dict[str, LabelReader] = {
    "groundtruth/image-classification": _read_class,
    "groundtruth/image-classification-multilabel": _read_classes,
    "groundtruth/object-detection": _read_boxes,
    MASKS: _read_mask,
    VERIFICATION: _read_class,
    "groundtruth/custom": read_custom,
}
MULTILABEL_TYPES = frozenset({"groundtruth/image-classification-multilabel", "groundtruth/object-detection"})


def type_of(metadata: Mapping[str, Any]) -> str:
    """The task type in lower case; manifests of other tools lack it, then it follows from the metadata."""
    kind = metadata.get("type")
    if isinstance(kind, str):
        return kind.lower()
    if "internal-color-map" in metadata:
        return MASKS
    if "class-name" in metadata:
        return "groundtruth/image-classification"
    if "class-map" in metadata:
        return (
            "groundtruth/object-detection" if "objects" in metadata else "groundtruth/image-classification-multilabel"
        )
    return "groundtruth/custom"
