"""Score an artifact on a data set: `train` does it with its own artifact at the end, `evaluate` with any.

Image files are read by the artifact's own preprocessing and answered the way a server does.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sagemaker_monai.artifact.mask_predictor import MaskPredictor
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.datasets import Record, targets_of
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.errors import CallerError, TrainingStopped
from sagemaker_monai.evaluation import documents
from sagemaker_monai.evaluation.mask_scoring import OnMask, score_masks
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.messages.item_names import print_numbers
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.networks.networks import images_at_once
from sagemaker_monai.storage.files import write_text
from sagemaker_monai.tasks.metric_names import scores_line
from sagemaker_monai.tasks.task import Task
from sagemaker_monai.tasks.tasks import TASKS

logger = logging.getLogger(__name__)

SCORING_BATCH = 64  # images decoded at once
FIRST_EPOCH_NOTE = "Training was stopped in its first epoch, so these weights were never validated. "


def score_files(
    predictor: Predictor,
    records: Sequence[Record],
    *,
    what: str,
    is_stopping: Callable[[], bool],
    on_unreadable: Callable[[Record, CallerError], None] | None = None,
    legend: Legend | None = None,
    on_mask: OnMask | None = None,
) -> np.ndarray:
    """Answer the image files of records as a server does.

    Args:
        predictor: the artifact.
        records: of the files.
        what: for progress and errors, e.g. "scoring the test split".
        is_stopping: asked before every file.
        on_unreadable: called for each file that cannot be read, which is then left out.
        legend: of the files' masks, where the task is one of masks.
        on_mask: called with each image's answer then.

    Returns:
        float64 (N, K), the task's answers in the order of the records.

    Raises:
        TrainingStopped: `is_stopping` was true.
        CallerError: a file cannot be read, and there is no `on_unreadable`.
    """
    if isinstance(predictor, MaskPredictor):
        assert legend is not None
        known = legend.among(predictor.labels, predictor.task.regions)
        return score_masks(
            predictor,
            records,
            known,
            what=what,
            is_stopping=is_stopping,
            on_unreadable=on_unreadable,
            on_mask=on_mask,
        )
    parts: list[np.ndarray] = []
    waiting: list[torch.Tensor] = []

    def score() -> None:
        if waiting:
            parts.append(predictor.task.answers(predictor.outputs(torch.stack(waiting))).numpy())
            waiting.clear()

    at_once = images_at_once(predictor.bundle.preprocessing.size, SCORING_BATCH)
    for record in track(records, total=len(records), what=what):
        if is_stopping():
            raise TrainingStopped(f"{what} was interrupted, because the job was asked to stop")
        try:
            waiting.append(predictor.load(Sample(record.image)))
        except CallerError as error:
            if on_unreadable is None:
                raise
            on_unreadable(record, error)
        if len(waiting) == at_once:
            score()
    score()
    return np.concatenate(parts) if parts else np.zeros((0, len(predictor.labels)))


def measure(
    predictor: Predictor, records: Sequence[Record], answers: np.ndarray, *, split: str, note: str, seed: int
) -> dict[str, Any]:
    """The first part of metrics.json: the artifact, what was scored, and the scores with their intervals.

    Args:
        predictor: the artifact.
        records: what was scored.
        answers: from `score_files`.
        split: name of what was scored.
        note: caveats for readers, to which undefined scores are added, and what validation chose for the answers.
        seed: of the intervals' resampling.
    """
    groups = [record.group for record in records]
    targets = targets_of(records, predictor.labels)
    if absent := absent_scores(predictor.task, targets):
        logger.warning("%s", absent.strip())
    report = predictor.task.report(answers, targets, groups, seed=seed)
    alone = [label for label, row in report["per_class"].items() if row.get("largest_component_only")]
    ways = f"Of {', '.join(alone)} only the largest component counts. " if alone else ""
    if predictor.bundle.mirrored_axes:
        ways += f"Answers are means over {2 ** len(predictor.bundle.mirrored_axes)} mirror images. "
    if ways:
        logger.info("%s", ways.strip())
    return {
        "model_version": predictor.model_version,
        "task": predictor.task.name,
        "split": split,
        "note": note + absent + ways,
        **report,
    }


def write_scores(
    folder: Path, metrics: dict[str, Any], records: Sequence[Record], answers: np.ndarray, task: Task
) -> None:
    """Write metrics.json, from `measure` with additions, and the table of predictions; print the line of scores."""
    split = metrics["split"]
    write_text(folder / "metrics.json", documents.as_json(metrics))
    write_text(folder / f"{split}_predictions.csv", documents.predictions_csv(records, answers, task))
    print_numbers(scores_line(split, metrics, task.name))


def absent_scores(task: Task, targets: np.ndarray) -> str:
    """Which scores are undefined for targets (N, T), and why, in sentences for people."""
    presence = TASKS[task.name].presence
    if TASKS[task.name].has_masks:
        return ""
    if presence is None:
        is_flat = len(targets) > 0 and bool((targets == targets[0]).all())
        return "All labels are the same number, so R2 is undefined (null). " if is_flat else ""
    is_there = presence(targets)
    missing = [label for label, column in zip(task.labels, is_there.T, strict=True) if not column.any()]
    everywhere = [label for label, column in zip(task.labels, is_there.T, strict=True) if column.all()]
    said = ""
    if missing:
        said = (
            f"{len(missing)} classes have no image here ({some_of(missing)}): their sensitivity, F1 and AUC are "
            "undefined (null), and the means are over the others. "
        )
    if everywhere:
        said += f"Every image has {some_of(everywhere)}: its specificity and AUC are undefined (null). "
    return said
