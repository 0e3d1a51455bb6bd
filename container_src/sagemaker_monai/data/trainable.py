"""What training requires of a data set, checked before anything is decoded, without torch.

`train` refuses data sets by these rules, and `doctor` predicts that it would.
"""

from collections import defaultdict
from collections.abc import Sequence

from sagemaker_monai.data.entries import Entry, Layout
from sagemaker_monai.data.label_rules import names_of
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.file_names import is_fit
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS

MAX_LABEL_LENGTH = 100
FEWEST_TRAINING = 2  # images: BatchNorm needs two values


def refusal_of(layout: Layout) -> str:
    """Why `train` with its defaults would refuse a layout whose labels and groups are read, or ""."""
    if not layout.entries:
        return "the data set has no images; add some to its training split"
    task = layout.task or DEFAULT_TASK
    try:
        check_names(layout.labels, task)
        check_groups(layout.entries)
    except DatasetError as error:
        return str(error)
    pool = [entry for entry in layout.entries if entry.split in (None, "training")]
    seen = {name for entry in pool for name in names_of(entry.label)}
    if TASKS[task].has_classes and (unseen := sorted(set(layout.labels) - seen)):
        return f"classes without a training image: {len(unseen)} of {len(layout.labels)} ({some_of(unseen)})"
    if _lacks(layout, {"validation"}):
        return f"{len(pool)} images of {len({e.group for e in pool})} groups are too few for training and validation"
    return ""


def lacks_test_images(layout: Layout) -> bool:
    """Whether `train` refuses a data set unless test_fraction is 0, because no image would be left for testing."""
    return _lacks(layout, {"validation", "test"})


def _lacks(layout: Layout, splits: set[str]) -> bool:
    """Whether training has too few images or groups for the splits that have to be drawn from it."""
    drawn = splits - {entry.split for entry in layout.entries if entry.split}
    pool = [entry for entry in layout.entries if entry.split in (None, "training")]
    return len({entry.group for entry in pool}) < 1 + len(drawn) or len(pool) < FEWEST_TRAINING + len(drawn)


def check_names(labels: Sequence[str], task: str) -> None:
    """Raise a DatasetError if labels cannot name a model's answers."""
    if odd := [label for label in labels if len(label) > MAX_LABEL_LENGTH or not is_fit(label)]:
        raise DatasetError(
            f"class names longer than {MAX_LABEL_LENGTH} characters or with control characters: {len(odd)} "
            f"({some_of([ascii(label) for label in odd])}); rename them"
        )
    if len(labels) < TASKS[task].fewest_labels:
        raise DatasetError(f"the data set has only one class ({some_of(labels)}); it needs at least two")


def check_groups(entries: Sequence[Entry]) -> None:
    """Raise a DatasetError if a group is in several splits."""
    sides: dict[str, set[str | None]] = defaultdict(set)
    for entry in entries:
        sides[entry.group].add(entry.split)
    if torn := sorted(group for group, splits in sides.items() if len(splits) > 1):
        raise DatasetError(
            f"groups with images in more than one split: {len(torn)} ({some_of(torn)}); put all images of a group into "
            "one split, or remove the split to have one drawn"
        )
