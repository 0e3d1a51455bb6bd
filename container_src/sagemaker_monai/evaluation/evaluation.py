"""One evaluation from an artifact and a data set to metrics; knows no environment variable and no command line."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sagemaker_monai.artifact.bundle import REMEDY, TRAIN
from sagemaker_monai.artifact.mask_predictor import read_predictor
from sagemaker_monai.artifact.opening import artifact_folder
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.datasets import SPLITS, Dataset, is_same_data, read_dataset_to_score
from sagemaker_monai.data.labelled import Reading, reading_of
from sagemaker_monai.data.unpacking import unpack_channels
from sagemaker_monai.errors import BundleError, ConfigError, DatasetError
from sagemaker_monai.evaluation import documents
from sagemaker_monai.evaluation.mask_scoring import OnMask
from sagemaker_monai.evaluation.scoring import FIRST_EPOCH_NOTE, measure, score_files, write_scores
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.messages.item_names import current
from sagemaker_monai.messages.shortened import counted, some_of
from sagemaker_monai.storage.columns import Columns
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.storage.files import write_text
from sagemaker_monai.tasks.tasks import TASKS

logger = logging.getLogger(__name__)

OF_TRAINING = ("seed", "validation_fraction", "test_fraction", "max_unreadable_fraction")
# How the data set was read; artifacts from versions without these hyperparameters were read with the defaults.
OF_READING = ("image_column", "label_column", "group_column", "split_column", "fold", "missing_labels", "missing_codes",
              "uncertain_labels", "similar_labels")  # fmt: skip
# Caveats of scores on the data set that the model was trained with.
NOTES = {
    "training": "The model has learned from these images, so the figures are too good. ",
    "validation": "This split chose the epoch, so the figures are too good. ",
    "test": "",
}
# By `is_same_data`: what the log says of the data set, and how the notes above begin.
CLAIMS = {
    True: "the data set of the model's training",
    False: "another data set than that of the model's training",
    None: "a data set that may be that of the model's training: the artifact is too old to tell by contents",
}
IF_SAME = "If this is the data set of the model's training, which so old an artifact does not tell: "


@dataclass(frozen=True)
class _Training:
    """What an artifact says about its training."""

    config: TrainConfig
    best_epoch: int
    dataset_fingerprint: str


def evaluate(
    model: Path,
    data: Path,
    *,
    split: str,
    output: Path,
    scratch: Path,
    is_stopping: Callable[[], bool],
    on_mask: OnMask | None = None,
) -> None:
    """Score an artifact and write metrics.json, evaluation.json and the predictions.

    Args:
        model: see `artifact_folder`.
        data: folder of the data set, in any layout or as shards.
        split: one of SPLITS, or "all".
        output: folder for the results; created if missing.
        scratch: folder for unpacked files.
        is_stopping: asked before every image.
        on_mask: called with each answer of a model of masks; other models are refused with it.

    Raises:
        CallerError: something that the caller can correct.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the output folder cannot be created ({error.strerror}): set another --output") from error
    (scratch / "model").mkdir()
    folder = artifact_folder(model, scratch / "model")
    predictor = read_predictor(folder, "cuda" if torch.cuda.is_available() else "cpu")
    if on_mask is not None and not TASKS[predictor.task.name].has_masks:
        raise ConfigError(f"--save-masks is for models of masks, and this one's task is {predictor.task.name}")
    training = _training_of(folder)
    channels = unpack_channels({"training": data}, scratch / "channels", is_stopping=is_stopping)
    digests = Digests(is_stopping=is_stopping)
    reading = reading_of(training.config)
    try:
        dataset = _read(channels, predictor, training.config, reading, digests)
    except DatasetError as error:
        # Another data set may have other column names than that of the training.
        if reading.columns == Columns():
            raise
        try:
            dataset = _read(channels, predictor, training.config, replace(reading, columns=Columns()), digests)
        except DatasetError:
            raise error from None
    chosen = SPLITS if split not in SPLITS else (split,)
    records = [record for name in chosen for record in dataset.split(name)]
    counts = ", ".join(f"{len(dataset.split(name))} {name}" for name in SPLITS)
    if not records:
        raise DatasetError(f"there is no {split} split (images: {counts}); choose another one with --split")
    is_same = is_same_data(dataset.fingerprint, training.dataset_fingerprint)
    logger.info(
        "scoring %s (%s) of %s; model version %s",
        counted(len(records), "image"),
        counts,
        CLAIMS[is_same],
        predictor.model_version,
    )
    unreadable: dict[str, str] = {}
    answers = score_files(
        predictor,
        records,
        what=f"scoring {counted(len(records), 'image')}",
        is_stopping=is_stopping,
        on_unreadable=lambda record, error: unreadable.update({record.name: str(error)}),
        legend=dataset.legend,
        on_mask=on_mask,
    )
    _check_unreadable(unreadable, dataset, training.config)
    records = [record for record in records if record.name not in unreadable]
    too_good = "".join(NOTES[name] for name in chosen)
    claimed = {True: too_good, False: "", None: f"{IF_SAME}{too_good}" if too_good else ""}[is_same]
    note = FIRST_EPOCH_NOTE * (training.best_epoch == 0) + claimed
    metrics = {
        **measure(predictor, records, answers, split=split, note=note, seed=training.config.seed),
        "best_epoch": training.best_epoch,
        "unreadable_images": {split: current().mask_all(list(unreadable))},
        "dataset_fingerprint": dataset.fingerprint,
    }
    write_text(output / "evaluation.json", documents.as_json(documents.model_quality(metrics)))
    write_scores(output, metrics, records, answers, predictor.task)


def _training_of(folder: Path) -> _Training:
    """Read configs/train.json, whose checksum `read_bundle` has verified."""
    try:
        content: dict[str, Any] = json.loads((folder / TRAIN).read_bytes())
        given = content["hyperparameters"]
        reading = {name: given[name] for name in OF_READING if name in given}
        config = TrainConfig.model_validate({name: given[name] for name in OF_TRAINING} | reading)
        return _Training(config, int(content["best_epoch"]), str(content["dataset_fingerprint"]))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise BundleError(f"{TRAIN} does not say how the artifact was trained; {REMEDY}") from error


def _read(
    channels: Mapping[str, Path], predictor: Predictor, config: TrainConfig, reading: Reading, digests: Digests
) -> Dataset:
    return read_dataset_to_score(
        channels,
        labels=predictor.labels,
        task=predictor.task.name,
        reading=reading,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        digests=digests,
    )


def _check_unreadable(unreadable: dict[str, str], dataset: Dataset, config: TrainConfig) -> None:
    """Be as strict as training was."""
    total = sum(len(dataset.split(name)) for name in SPLITS)
    if not unreadable:
        return
    names = some_of(list(unreadable))
    if len(unreadable) > config.max_unreadable_fraction * total:
        raise DatasetError(
            f"{len(unreadable)} of {total} images cannot be read ({names}), the first because: "
            f"{next(iter(unreadable.values()))}; that is more than the max_unreadable_fraction "
            f"{config.max_unreadable_fraction:g} of the model's training: remove or replace them"
        )
    logger.warning("%d of %d images cannot be read and are left out: %s", len(unreadable), total, names)
