"""One training job from channels to a scored artifact; knows no environment variable and no command line.

The order is: cheap checks first, then images, then training. What is scored is the artifact on disk, read the way a
server reads it, on the image files themselves and not on the cache that training used.
"""

import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sagemaker_monai import __version__
from sagemaker_monai.artifact.bundle import add_document, write_bundle
from sagemaker_monai.artifact.mask_predictor import read_predictor
from sagemaker_monai.data.case_loading import LoadedCases, load_cases
from sagemaker_monai.data.datasets import CONTENTS, SPLITS, Dataset, read_dataset
from sagemaker_monai.data.labelled import reading_of
from sagemaker_monai.data.loading import LoadedDataset, load_dataset
from sagemaker_monai.data.unpacking import unpack_channels
from sagemaker_monai.doctor.first_look import first_look
from sagemaker_monai.errors import TrainingStopped
from sagemaker_monai.evaluation import documents
from sagemaker_monai.evaluation.scoring import FIRST_EPOCH_NOTE, measure, score_files, write_scores
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.messages.item_names import current, print_numbers
from sagemaker_monai.messages.shortened import counted
from sagemaker_monai.networks.pretrained import find_weights
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.storage.files import children, write_text
from sagemaker_monai.tasks.metric_names import Row, epoch_line
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai.training.distributed import ALONE, Processes
from sagemaker_monai.training.fit import FitResult, fit, job_key
from sagemaker_monai.training.job_time import JobTime, job_time_of
from sagemaker_monai.training.plan import Plan, choose_precision, make_plan

logger = logging.getLogger(__name__)

Loaded = LoadedDataset | LoadedCases
PRETRAINED = "pretrained"
DIGESTS = "digests.json"  # beside the cache
SCORING_WHEN_STOPPED_S = 60.0  # SageMaker kills 120 s after SIGTERM, and the artifact must be written before
UNEQUAL_DATA = (
    "the hosts have different data sets: set S3DataDistributionType to FullyReplicated in every channel, as every "
    "host needs all images"
)
UNEQUAL_JOBS = (
    "the hosts have different jobs: give all of them the same hyperparameters, image, pretrained weights and "
    "readable files"
)
VALIDATION_NOTE = "There is no test split: this one chose the epoch, so the figures are too good. "


def run_job(
    config: TrainConfig,
    channels: Mapping[str, Path],
    *,
    model_dir: Path,
    output_data_dir: Path,
    cache_dir: Path,
    checkpoint_dir: Path,
    processes: Processes = ALONE,
    is_stopping: Callable[[], bool],
) -> None:
    """Read, train, write the artifact, score it, report.

    Args:
        config: hyperparameters.
        channels: name and folder of every input channel, as files or shards; `pretrained` holds weights to start from.
        model_dir: where the artifact goes; an existing one stays until the new one is complete.
        output_data_dir: where metrics.json, history.csv, predictions and TensorBoard files go.
        cache_dir: for unpacked shards and decoded images, shared by all processes of a host.
        checkpoint_dir: each job makes its own folder for checkpoints in it.
        processes: that train together; only the first one writes.
        is_stopping: asked often; once it is true, the job saves what it has.

    Raises:
        CallerError: something that the caller can correct.
    """
    began = time.monotonic()
    device = torch.device("cuda", processes.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    choose_precision(config, device)  # for its check, before anything is read
    pretrained = find_weights(channels[PRETRAINED]) if PRETRAINED in channels else None
    dataset, digests = _read(config, channels, cache_dir, processes, is_stopping)
    plan = make_plan(config, dataset, device)
    processes.wait_for_own_host("images", is_stopping)
    load = load_cases if TASKS[dataset.task].has_masks else load_dataset
    data: Loaded = load(
        plan.config, dataset, plan.preprocessing, cache_dir=cache_dir, digests=digests, is_stopping=is_stopping
    )
    processes.host_is_ready("images")
    key = job_key(plan.config, data, plan.preprocessing.spec, pretrained)
    processes.agree(key, otherwise=UNEQUAL_JOBS, is_stopping=is_stopping)
    processes.start(device)
    if processes.is_main and (others := [path for path in checkpoint_dir.glob("*/") if path.name != key]):
        logger.info("checkpoints of %d other jobs (other hyperparameters or data) are left alone", len(others))
    job_time = job_time_of(plan, data.dataset.split(_scored_split(data.dataset)), began)
    result = _fit(
        plan, data, device, pretrained, output_data_dir, checkpoint_dir / key, processes, is_stopping, job_time
    )
    if not processes.is_main:
        return
    plan = replace(plan, config=plan.config.model_copy(update={"epochs": result.epochs}))
    provenance = _write(plan, data, result, device, model_dir)
    try:
        _report(plan.config, data, result, provenance, device, model_dir, output_data_dir, _time_limit(is_stopping))
    except TrainingStopped as error:  # the artifact, which matters most, is complete
        logger.warning("%s: the artifact is complete but has no metrics; start the job again to score it", error)


def _read(
    config: TrainConfig,
    channels: Mapping[str, Path],
    cache_dir: Path,
    processes: Processes,
    is_stopping: Callable[[], bool],
) -> tuple[Dataset, Digests]:
    """Read and check the data set, which must be the same on every host; it and the digests of its files."""
    processes.wait_for_own_host("channels", is_stopping)
    channels = unpack_channels(channels, cache_dir / "channels", is_stopping=is_stopping)
    processes.host_is_ready("channels")
    images = {name: folder for name, folder in channels.items() if name != PRETRAINED}
    processes.wait_for_own_host("digests", is_stopping)
    cache_dir.mkdir(parents=True, exist_ok=True)
    digests = Digests(cache_dir / DIGESTS, is_stopping=is_stopping)
    dataset = read_dataset(
        images,
        task=config.task,
        reading=reading_of(config),
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        digests=digests,
    )
    digests.save()
    processes.host_is_ready("digests")
    processes.agree(dataset.fingerprint, otherwise=UNEQUAL_DATA, is_stopping=is_stopping)
    logger.info("%s", _summary(dataset))
    remarks = [remark.message for remark in dataset.remarks]
    for line in [*remarks, *first_look(dataset)] if processes.is_main else ():
        logger.warning("%s", line)
    return dataset, digests


def _scored_split(dataset: Dataset) -> str:
    """The split that the artifact is scored on."""
    return "test" if dataset.test else "validation"


def _write(plan: Plan, data: Loaded, result: FitResult, device: torch.device, model_dir: Path) -> dict[str, Any]:
    """Write the artifact and return its provenance.

    Raises:
        TrainingStopped: no epoch was completed, and the folder has an artifact already, which stays.
    """
    logger.info(
        "best epoch: %d of %d%s", result.best_epoch, plan.config.epochs, f" ({result.stopped})" * bool(result.stopped)
    )
    if result.best_epoch == 0 and children(model_dir):
        raise TrainingStopped(
            "training was stopped in its first epoch, and the artifact that is already there is kept: start the job "
            "again to resume from its checkpoint"
        )
    provenance = _provenance(plan, data.dataset, device)
    write_bundle(
        model_dir,
        network_def=plan.network_def,
        preprocessing=plan.preprocessing.spec,
        task=result.task,
        weights=result.weights,
        train_config=_train_config(plan, data, result),
        provenance=provenance,
        scope=data.scope,
        mirrored_axes=result.mirrored_axes,
        codes=data.dataset.codes,
    )
    return provenance


def _time_limit(is_stopping: Callable[[], bool]) -> Callable[[], bool]:
    """A function that says whether the time for scoring is over; the clock starts when the job is asked to stop."""
    noticed: list[float] = []

    def is_over() -> bool:
        if not noticed and is_stopping():
            noticed.append(time.monotonic())
        return bool(noticed) and time.monotonic() - noticed[0] > SCORING_WHEN_STOPPED_S

    return is_over


def _fit(
    plan: Plan,
    data: Loaded,
    device: torch.device,
    pretrained: Path | None,
    output_data_dir: Path,
    checkpoint_dir: Path,
    processes: Processes,
    is_stopping: Callable[[], bool],
    job_time: JobTime,
) -> FitResult:
    """Train, with a line of metrics per epoch and TensorBoard files."""
    labels, task = data.dataset.labels, data.dataset.task
    folder = output_data_dir / "tensorboard"
    tensorboard = documents.tensorboard_writer(folder, labels, task) if processes.is_main else None
    rows: list[Row] = []

    def keep(new: Sequence[Row]) -> None:
        rows.extend(new)
        write_text(output_data_dir / "history.csv", documents.history_csv(rows, labels, task))
        if tensorboard is not None:
            for row in new:
                tensorboard[0](row)

    def on_epoch(row: Row) -> None:
        print_numbers(epoch_line(row, labels, task))
        keep([row])

    try:
        return fit(
            plan,
            data,
            device=device,
            pretrained=pretrained,
            checkpoint_dir=checkpoint_dir,
            processes=processes,
            on_epoch=on_epoch,
            on_resume=keep,
            is_stopping=is_stopping,
            job_time=job_time,
        )
    finally:
        if tensorboard is not None:
            tensorboard[1]()


def _report(
    config: TrainConfig,
    data: Loaded,
    result: FitResult,
    provenance: Mapping[str, Any],
    device: torch.device,
    model_dir: Path,
    output_data_dir: Path,
    is_out_of_time: Callable[[], bool],
) -> None:
    """Score the artifact in `model_dir`; write metrics, model card and the predictions for every scored image."""
    split = _scored_split(data.dataset)
    records = data.dataset.split(split)
    predictor = read_predictor(model_dir, device.type)
    answers = score_files(
        predictor, records, what=f"scoring the {split} split", is_stopping=is_out_of_time, legend=data.dataset.legend
    )
    note = FIRST_EPOCH_NOTE * (result.best_epoch == 0) + VALIDATION_NOTE * (split == "validation")
    metrics = {
        **measure(predictor, records, answers, split=split, note=note, seed=config.seed),
        "best_epoch": result.best_epoch,
        "unreadable_images": {name: current().mask_all(names) for name, names in data.unreadable.items()},
        "dataset_fingerprint": data.dataset.fingerprint,
    }
    add_document(model_dir, "metrics.json", documents.as_json(metrics))
    card = documents.model_card(data.dataset, metrics, config.model_dump(), provenance)
    add_document(model_dir, "README.md", card)
    write_scores(output_data_dir, metrics, records, answers, predictor.task)


def _summary(dataset: Dataset) -> str:
    counts = ", ".join(f"{len(dataset.split(split))} {split}" for split in SPLITS)
    row = TASKS[dataset.task]
    noun = "structure" if row.has_masks else "class" if row.has_classes else "number"
    order = f" (from low to high: {' < '.join(dataset.labels)[:200]})" * row.has_order
    fingerprint = dataset.fingerprint[: len(CONTENTS) + 12]
    return f"{dataset.task}, {counted(len(dataset.labels), noun)}{order}, images: {counts}; fingerprint {fingerprint}"


def _train_config(plan: Plan, data: Loaded, result: FitResult) -> dict[str, Any]:
    """What goes into configs/train.json."""
    return {
        "hyperparameters": plan.config.model_dump(),
        "augmentation": plan.augmentation,
        "mirrored_axes": list(result.mirrored_axes),
        "dataset_fingerprint": data.dataset.fingerprint,
        "images": {split: len(data.dataset.split(split)) for split in SPLITS},
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "precision": plan.precision,
        "pretrained": None if result.pretrained is None else result.pretrained.summary(),
    }


def _provenance(plan: Plan, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    import monai

    return {
        "package_version": __version__,
        "python_version": platform.python_version(),
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": plan.precision,
        "dataset_fingerprint": dataset.fingerprint,
        "input_size": list(plan.preprocessing.size),
    }
