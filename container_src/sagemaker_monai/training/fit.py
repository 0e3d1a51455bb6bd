"""fit(): from a decoded data set to the best epoch's weights.

Images lie in one array (`loading`, `cache`); a batch is an index into it, augmented and scaled on the device.
Validation works like serving: the artifact's own scaling, evaluation mode, float32, answers in float64.

Two runs are equal bit by bit on one CPU with the same number of threads, and on a GPU with `deterministic`. So is a run
that resumes from a checkpoint, even from one written between two steps.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.backends import cudnn

from sagemaker_monai import __version__
from sagemaker_monai.artifact.sliding_window import mirrorings
from sagemaker_monai.data.case_loading import LoadedCases
from sagemaker_monai.data.datasets import targets_of
from sagemaker_monai.data.loading import LoadedDataset
from sagemaker_monai.errors import TrainingStopped
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.networks import NETWORKS, build_network
from sagemaker_monai.networks.pretrained import PretrainedReport, load_pretrained
from sagemaker_monai.networks.segmenters import SEGMENTERS
from sagemaker_monai.storage.files import sha256_of
from sagemaker_monai.tasks.metric_names import Row, epoch_row
from sagemaker_monai.tasks.task import Task
from sagemaker_monai.tasks.tasks import TASKS, read_task
from sagemaker_monai.training.checkpoints import dump, load, read_newest, write_checkpoint
from sagemaker_monai.training.distributed import ALONE, Processes
from sagemaker_monai.training.job_time import JobTime, plan_time
from sagemaker_monai.training.mirroring import choose_mirroring
from sagemaker_monai.training.plan import Plan
from sagemaker_monai.training.run import Run

logger = logging.getLogger(__name__)

NOT_OF_THE_RESULT = {"num_workers", "processes_per_host"}  # hyperparameters that may change when a job resumes


@dataclass(frozen=True)
class FitResult:
    """The result of training.

    Attributes:
        task: fitted to the data.
        weights: state dict of the best epoch, on the CPU; the moving average if there is one.
        history: one row of numbers per epoch, NaN where a metric is undefined.
        best_epoch: from 1; 0 if training was stopped in its first epoch, and `weights` are those of its last step.
        stopped: why training ended before the last epoch, or None.
        pretrained: what was loaded to start from, or None.
        epochs: that were planned.
        mirrored_axes: along which the network also sees an image mirrored when it answers.
    """

    task: Task
    weights: dict[str, torch.Tensor]
    history: list[Row]
    best_epoch: int
    stopped: str | None
    pretrained: PretrainedReport | None
    epochs: int
    mirrored_axes: tuple[int, ...] = ()


@dataclass
class _Found:
    """What training has found so far; together with the network's state it makes a checkpoint."""

    epochs: int = 0  # completed
    history: list[Row] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_value: tuple[float, float] = (float("-inf"), 0.0)
    postprocessing: list[dict[str, Any]] = field(default_factory=list)  # of the best epoch
    stopped: str | None = None
    planned: int = 0  # epochs; 0 before that is decided
    ends_s: float | None = None  # of the job's time, when training ends in any case
    mirrored: list[int] | None = None  # axes of answers; None before that is decided
    used_s: float = 0.0  # of the job's time, up to the checkpoint


def fit(
    plan: Plan,
    data: LoadedDataset | LoadedCases,
    *,
    device: torch.device,
    pretrained: Path | None = None,
    checkpoint_dir: Path | None = None,
    processes: Processes = ALONE,
    on_epoch: Callable[[Row], None],
    on_resume: Callable[[list[Row]], None] | None = None,
    is_stopping: Callable[[], bool],
    job_time: JobTime | None = None,
) -> FitResult:
    """Train a network and keep the epoch that is best on the validation split.

    Args:
        plan: from `plan.make_plan`.
        data: from `loading.load_dataset`.
        device: where to train.
        pretrained: a file of weights to start from.
        checkpoint_dir: of this job alone, see `job_key`; training resumes from its newest checkpoint and writes one
            after every epoch and when it is stopped. Only the first process uses it.
        processes: that train together, after `Processes.start`.
        on_epoch: called in the first process with the row of each epoch, see `FitResult.history`.
        on_resume: called once in the first process, with the rows from a checkpoint.
        is_stopping: asked before every step; once it is true in any process, the best epoch so far is the result.
        job_time: counts towards `hours`; None if the job begins with this call and nothing is scored after it.

    Raises:
        ConfigError: the pretrained weights do not fit the network, the loss is no longer finite, or no epoch fits into
            `hours`.
        TrainingStopped: stopped before the first step.
    """
    config = plan.config
    task = plan.task.fitted(targets_of(data.dataset.training, plan.task.labels))
    saved_to = checkpoint_dir if processes.is_main else None
    with _random_state(config, device):
        torch.manual_seed(config.seed)
        network = build_network(plan.network_def)
        report = None
        if pretrained is not None:
            row = SEGMENTERS[config.network] if TASKS[task.name].has_masks else NETWORKS[config.network]
            report = load_pretrained(network, pretrained, row)
            logger.info("pretrained weights: %s", report.summary())
        run = Run(plan, data, task, network, device, processes)
        found = _resume(run, read_newest(saved_to) if saved_to else None, config, processes)
        if found.history and on_resume is not None and processes.is_main:
            on_resume(found.history)
        job_time = replace(job_time or JobTime(), earlier_s=found.used_s)

        def save() -> None:
            found.used_s = job_time.used_s()
            if saved_to is not None:
                state = {"found": dict(vars(found)), "run": run.state()}
                write_checkpoint(saved_to, state, epoch=found.epochs, step=run.step)

        if not found.planned and not processes.is_any(flag=is_stopping()):
            found.planned, found.ends_s = plan_time(
                run, config, job_time, save, processes, network_runs=len(mirrorings(plan.mirrored_axes))
            )
            save()
        run.epochs = found.planned
        is_late = lambda: found.ends_s is not None and job_time.used_s() > found.ends_s  # noqa: E731
        tell = on_epoch if processes.is_main else lambda _row: None
        stopped = _train(config, task, run, found, save, tell, is_stopping, is_late)
        axes = _mirrored_axes(plan, run, found, save, lambda: processes.is_any(flag=is_stopping()))
        if not found.best:
            if not run.step:
                raise TrainingStopped("training was stopped before its first step, so there is nothing to save")
            # A stopped job still gives what it has; the artifact says that no epoch was completed.
            found.best, found.postprocessing = _copy(run.scored), task.postprocessing()
            stopped = f"{stopped}, after {run.step} of {run.steps_per_epoch} steps: never validated"
    task = read_task(found.postprocessing, task.labels)
    return FitResult(task, found.best, found.history, found.best_epoch, stopped, report, run.epochs, axes)


def _train(
    config: TrainConfig,
    task: Task,
    run: Run,
    found: _Found,
    save: Callable[[], None],
    tell: Callable[[Row], None],
    is_stopping: Callable[[], bool],
    is_late: Callable[[], bool],
) -> str | None:
    """Train the remaining epochs into `found`, saving after each; why it ended before the last, or None."""
    while found.stopped is None and found.epochs < run.epochs:
        epoch = found.epochs + 1
        began = time.perf_counter()
        train_loss = run.train_epoch(epoch, lambda: is_stopping() or is_late())
        if train_loss is None:
            if is_late():
                found.stopped = f"the time of hours was over in epoch {epoch} of {run.epochs}"
            if run.step or found.epochs:
                save()
            return found.stopped or f"asked to stop in epoch {epoch}"
        values, metric, tuned = run.validate()
        value = (metric, -values["validation_loss"])  # of equal epochs, the one with the smaller loss
        values |= {"epoch": epoch, "train_loss": train_loss, "learning_rate": run.learning_rate}
        values["seconds"] = time.perf_counter() - began
        if value > found.best_value:
            found.best_epoch, found.best_value = epoch, value
            found.best, found.postprocessing = _copy(run.scored), tuned.postprocessing()
        best = values if found.best_epoch == epoch else found.history[found.best_epoch - 1]
        found.history.append(epoch_row(values, best, task.labels, task.name))
        found.epochs = epoch
        if config.early_stop_patience and epoch - found.best_epoch >= config.early_stop_patience:
            found.stopped = f"no better {config.best_metric} for {config.early_stop_patience} epochs"
        tell(found.history[-1])
        save()
    return found.stopped


def _mirrored_axes(
    plan: Plan, run: Run, found: _Found, save: Callable[[], None], is_stopping: Callable[[], bool]
) -> tuple[int, ...]:
    """Along which axes answers are mirrored, chosen once after the last epoch; a stopped job has no time for it."""
    is_asked = plan.config.test_time_mirroring == "yes"
    is_trained = found.stopped is not None or found.epochs == found.planned
    if plan.mirrored_axes and found.mirrored is None and found.best and is_trained and not is_stopping():
        run.scored.load_state_dict(found.best)
        axes, task = choose_mirroring(run, plan.mirrored_axes, is_asked=is_asked)
        found.mirrored, found.postprocessing = list(axes), task.postprocessing()
        save()
    if found.mirrored is None:
        return plan.mirrored_axes if is_asked else ()
    return tuple(found.mirrored)


def job_key(
    config: TrainConfig,
    data: LoadedDataset | LoadedCases,
    preprocessing_spec: list[dict[str, Any]],
    pretrained: Path | None,
) -> str:
    """16 hexadecimal digits, equal for jobs with the same result, so that one may resume where another ended."""
    decides = [
        __version__,
        config.model_dump(exclude=NOT_OF_THE_RESULT),
        data.dataset.fingerprint,
        data.dataset.labels,
        data.dataset.task,
        data.unreadable,
        preprocessing_spec,
        None if pretrained is None else sha256_of(pretrained),
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _resume(run: Run, state: dict[str, Any] | None, config: TrainConfig, processes: Processes) -> _Found:
    """Restore every process from the first one's checkpoint, if it has one."""
    body = processes.from_first(None if state is None else dump(state))
    at_once = 0 if config.hours else config.epochs
    if body is None:
        return _Found(planned=at_once)
    state = load(body)
    run.restore(state["run"])
    found = _Found(**{"planned": at_once} | state["found"])
    if not found.planned:
        return found
    if found.stopped is not None or found.epochs == found.planned:
        logger.info("this job was already trained (%d epochs): its best epoch is written again", found.epochs)
    else:
        where = f", step {run.step + 1}" * (run.step > 0)
        logger.info("resuming from epoch %d of %d%s", found.epochs + 1, found.planned, where)
    return found


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in network.state_dict().items()}


@contextmanager
def _random_state(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Fork and restore torch's global random state; on a GPU, choose between speed and repeatability."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [device.index or 0] if device.type == "cuda" else []
    exact = config.deterministic
    with torch.random.fork_rng(devices=devices), cudnn.flags(enabled=True, benchmark=not exact, deterministic=exact):
        torch.use_deterministic_algorithms(exact)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
