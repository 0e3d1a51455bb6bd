"""fit(): from a decoded data set to the best epoch's weights.

Images lie in one uint8 array (`loading`, `cache`); a batch is an index into it, augmented and scaled on the device.
Validation goes the way that serving goes: the artifact's own scaling, evaluation mode, float32, softmax in float64.

All randomness of a step is seeded from (seed, epoch, step), so that a step does not depend on how training got there.
On one CPU with one number of threads, two runs are equal bit by bit; on a GPU they are with `deterministic`. So is a
run that goes on from a checkpoint, also from one that was written between two steps.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sagemaker_monai import __version__
from sagemaker_monai.augmentation import AUGMENTATIONS, augment
from sagemaker_monai.checkpoints import dump, load, read_newest, write_checkpoint
from sagemaker_monai.config import TrainConfig
from sagemaker_monai.datasets import SPLITS
from sagemaker_monai.distributed import ALONE, Processes, share_batch
from sagemaker_monai.errors import ConfigError, TrainingStopped
from sagemaker_monai.files import sha256_of
from sagemaker_monai.loading import LoadedDataset
from sagemaker_monai.networks import NETWORKS, build_network, network_def
from sagemaker_monai.optimizers import MovingAverage, build_optimizer, learning_rate_factor
from sagemaker_monai.pretrained import PretrainedReport, load_pretrained
from sagemaker_monai.progress import track
from sagemaker_monai.tasks.classification import class_probabilities
from sagemaker_monai.tasks.losses import Loss, build_loss, epoch_order
from sagemaker_monai.tasks.metrics import score
from sagemaker_monai.transforms import Preprocessing, build_preprocessing

logger = logging.getLogger(__name__)

BETTER_IF = {"balanced_accuracy": 1, "accuracy": 1, "auc": 1, "loss": -1}  # best_metric: sign of an improvement
EVALUATION_BATCH = 64
RESIDENT_SHARE = 0.25  # of free GPU memory that decoded images may take; otherwise they are sent batch by batch
STEPS_BETWEEN_CHECKS = 20  # of the loss; reading it makes a GPU wait
NOT_OF_THE_RESULT = {"num_workers", "processes_per_host"}  # hyperparameters that a job may change and go on

Row = dict[str, float]


@dataclass(frozen=True)
class FitResult:
    """What training found.

    Attributes:
        network_def: plain data of the network.
        weights: state dict of the best epoch, on the CPU; the moving average if there is one.
        history: one row of numbers an epoch, NaN where a metric does not exist.
        best_epoch: from 1; 0 when training was stopped in its first epoch, and `weights` are those of its last step.
        stopped: why training ended before the last epoch, or None.
        precision: of the arithmetic that was used.
        pretrained: what was loaded to start from, or None.
    """

    network_def: dict[str, Any]
    weights: dict[str, torch.Tensor]
    history: list[Row]
    best_epoch: int
    stopped: str | None
    precision: str
    pretrained: PretrainedReport | None


@dataclass
class _Found:
    """What training knows beside the network; with the network's state it makes a checkpoint."""

    epochs: int = 0  # done
    history: list[Row] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_value: tuple[float, float] = (float("-inf"), 0.0)
    stopped: str | None = None


def fit(
    config: TrainConfig,
    data: LoadedDataset,
    *,
    preprocessing_spec: list[dict[str, Any]],
    device: torch.device,
    pretrained: Path | None = None,
    checkpoint_dir: Path | None = None,
    processes: Processes = ALONE,
    on_epoch: Callable[[Row], None],
    on_resume: Callable[[list[Row]], None] | None = None,
    is_stopping: Callable[[], bool],
) -> FitResult:
    """Train a classifier and keep the epoch that is best on the validation split.

    Args:
        config: hyperparameters.
        data: from `loading.load_dataset`.
        preprocessing_spec: what goes into the artifact; its scale half is used here.
        device: where to train.
        pretrained: a file of weights to start from.
        checkpoint_dir: of this job alone, see `job_key`; training goes on from the newest checkpoint in it, and
            leaves one after every epoch and when it is stopped. Only the first process uses it.
        processes: that train together; they must have met (`Processes.start`).
        on_epoch: called in the first process with the row of each epoch, see `FitResult.history`.
        on_resume: called once in the first process, with the rows that a checkpoint brought.
        is_stopping: asked before every step; once it says yes in any process, the best epoch so far is the result.

    Raises:
        ConfigError: the hyperparameters do not suit the device, the data or the pretrained weights, or the loss is
            not finite any more.
        TrainingStopped: asked to stop before the first step.
    """
    preprocessing = build_preprocessing(preprocessing_spec)
    definition = network_def(
        config.network,
        in_channels=preprocessing.channels,
        num_classes=len(data.dataset.labels),
        image_size=min(preprocessing.size),
        dropout=config.dropout,
    )
    precision = choose_precision(config, device)
    saved_to = checkpoint_dir if processes.is_main else None
    with _random_state(config, device):
        torch.manual_seed(config.seed)
        network = build_network(definition)
        report = None
        if pretrained is not None:
            report = load_pretrained(network, pretrained, head=NETWORKS[config.network].head)
            logger.info("pretrained weights: %s", report.summary())
        run = _Run(config, data, network, preprocessing, device, precision, processes)
        found = _resume(run, read_newest(saved_to) if saved_to else None, config, processes)
        if found.history and on_resume is not None and processes.is_main:
            on_resume(found.history)
        stopped = None

        def save() -> None:
            if saved_to is not None:
                state = {"found": dict(vars(found)), "run": run.state()}
                write_checkpoint(saved_to, state, epoch=found.epochs, step=run.step)

        while found.stopped is None and found.epochs < config.epochs:
            epoch = found.epochs + 1
            began = time.perf_counter()
            train_loss = run.train_epoch(epoch, is_stopping)
            if train_loss is None:
                stopped = f"asked to stop in epoch {epoch}"
                if run.step or found.epochs:
                    save()
                break
            row, metric = run.validate()
            value = (metric, -row["validation_loss"])  # of equal epochs, the one with the smaller loss
            seconds = time.perf_counter() - began
            row = {"epoch": epoch, "train_loss": train_loss, **row}
            row |= {"learning_rate": run.learning_rate, "seconds": seconds}
            found.history.append(row)
            if value > found.best_value:
                found.best_epoch, found.best_value = epoch, value
                found.best = _copy(run.scored)
            found.epochs = epoch
            if config.early_stop_patience and epoch - found.best_epoch >= config.early_stop_patience:
                found.stopped = f"no better {config.best_metric} for {config.early_stop_patience} epochs"
            if processes.is_main:
                on_epoch(row)
            save()
        if not found.best:
            if not run.step:
                raise TrainingStopped("training was stopped before its first step, so there is nothing to save")
            # Whoever stops a job gets what it has; it says of itself that no epoch ended.
            found.best = _copy(run.scored)
            stopped = f"{stopped}, after {run.step} of {run.steps_per_epoch} steps: never validated"
    return FitResult(
        definition, found.best, found.history, found.best_epoch, stopped or found.stopped, precision, report
    )


def job_key(
    config: TrainConfig, data: LoadedDataset, preprocessing_spec: list[dict[str, Any]], pretrained: Path | None
) -> str:
    """16 hexadecimal digits that are equal for jobs with the same result, so that one may go on where another ended."""
    decides = [
        __version__,
        config.model_dump(exclude=NOT_OF_THE_RESULT),
        data.dataset.fingerprint,
        data.dataset.labels,
        data.unreadable,
        preprocessing_spec,
        None if pretrained is None else sha256_of(pretrained),
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _resume(run: "_Run", state: dict[str, Any] | None, config: TrainConfig, processes: Processes) -> _Found:
    """Bring every process to the first one's checkpoint, if it has one."""
    body = processes.from_first(None if state is None else dump(state))
    if body is None:
        return _Found()
    state = load(body)
    run.restore(state["run"])
    found = _Found(**state["found"])
    if found.stopped is not None or found.epochs == config.epochs:
        logger.info("this job was trained before (%d epochs): its best epoch is written again", found.epochs)
    else:
        where = f", step {run.step + 1}" * (run.step > 0)
        logger.info("going on from epoch %d of %d%s", found.epochs + 1, config.epochs, where)
    return found


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in network.state_dict().items()}


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """The arithmetic of training on a device.

    On a CPU `auto` stays with fp32: bf16 is 3.7 times as fast where the CPU has AMX, and a third as fast where not.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision fp16 needs a GPU: set auto or fp32")
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def split_into_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Cut an order into batches; a last batch of one image joins the one before, as BatchNorm needs two values."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def step_seed(seed: int, epoch: int, step: int) -> int:
    """A seed of 63 bits that belongs to one step alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{step}".encode()).digest()[:8]) >> 1


class _Run:
    """One training under way: the network, what changes it, and what it learns from."""

    def __init__(
        self,
        config: TrainConfig,
        data: LoadedDataset,
        network: nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        precision: str,
        processes: Processes,
    ) -> None:
        self._config = config
        self._processes = processes
        self._labels = data.dataset.labels
        self._preprocessing = preprocessing
        self._device = device
        self._autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # channels_last: a step of batch 32 at 64 px on one thread of an AMD EPYC 7003 takes 0.58 (efficientnet-b0),
        # 0.84 (densenet121) and 0.99 (resnet18) of the time that it takes otherwise.
        self._network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if processes.world_size > 1 and device.type == "cuda":
            self._network = nn.SyncBatchNorm.convert_sync_batchnorm(self._network)  # type: ignore[no-untyped-call]
        self._parallel = processes.wrap(self._network, device)  # the same weights
        self._statistics = [buffer for buffer in self._network.buffers() if buffer.is_floating_point()]
        self._average = MovingAverage(self._network, config.ema_decay) if config.ema_decay else None
        self._optimizer = build_optimizer(config, self._network)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._read = _image_reader(data.pixels, device)
        self._rows = data.rows
        self._targets = {
            split: torch.tensor([record.label for record in data.dataset.split(split)]) for split in SPLITS
        }
        if config.best_metric == "auc" and len(set(self._targets["validation"].tolist())) < 2:
            raise ConfigError(
                "best_metric auc does not exist on the validation split, which has one class only: set another, or "
                "give the split images of more classes"
            )
        counts = torch.bincount(self._targets["training"], minlength=len(self._labels))
        self._loss: Loss = build_loss(config, counts, device)
        self.steps_per_epoch = len(split_into_batches(self._targets["training"], config.batch_size))
        self.learning_rate = 0.0
        self.step = 0  # steps of the epoch under way that are done
        self._total = torch.zeros((), dtype=torch.float64, device=device)  # their losses, each times its images

    def state(self) -> dict[str, Any]:
        """All that a step changes."""
        return {
            "network": self._network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "learning_rate": self.learning_rate,
            "step": self.step,
            "total": self._total,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self._network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.learning_rate, self.step = state["learning_rate"], state["step"]
        self._total = state["total"].to(self._device)

    @property
    def scored(self) -> nn.Module:
        """The network that is validated and shipped."""
        return self._network if self._average is None else self._average.network

    def train_epoch(self, epoch: int, is_stopping: Callable[[], bool]) -> float | None:
        """Train on every batch once, or on those that are left; the mean loss, or None if asked to stop on the way."""
        config, targets = self._config, self._targets["training"]
        generator = torch.Generator().manual_seed(step_seed(config.seed, epoch, -1))
        batches = split_into_batches(epoch_order(config, targets, generator), config.batch_size)
        self._network.train()
        steps: Iterable[int] = range(self.step, len(batches))
        if self._processes.is_main:
            steps = track(steps, total=len(batches) - self.step, what=f"epoch {epoch} of {config.epochs}")
        for step in steps:
            # Asked before a step, so that an epoch whose last step is done counts.
            if self._processes.is_any(flag=is_stopping()):
                return None
            seed = step_seed(config.seed, epoch, step)
            torch.manual_seed(seed + self._processes.rank)  # dropout and dropped connections
            generator.manual_seed(seed)
            loss = self._step(batches[step], generator, (epoch - 1) * self.steps_per_epoch + step)
            self._total += loss * len(batches[step])
            self.step = step + 1
            is_last = self.step == len(batches)
            if (is_last or step % STEPS_BETWEEN_CHECKS == 0) and not torch.isfinite(self._total):
                raise ConfigError(
                    f"training diverged in epoch {epoch}: the loss is not finite; lower learning_rate "
                    f"({config.learning_rate:g} now), raise warmup_epochs, or set clip_grad_norm=1 and precision=fp32"
                )
        mean = float(self._total / len(targets))
        self.step = 0
        self._total.zero_()
        return mean

    def _step(self, batch: torch.Tensor, generator: torch.Generator, step: int) -> torch.Tensor:
        """One change of the weights; the loss before it."""
        config = self._config
        factor = learning_rate_factor(
            config, step, steps=config.epochs * self.steps_per_epoch, steps_per_epoch=self.steps_per_epoch
        )
        self.learning_rate = config.learning_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        own = share_batch(len(batch), rank=self._processes.rank, world_size=self._processes.world_size)
        batch = batch[own.start : own.stop]
        targets = self._targets["training"][batch].to(self._device)
        images = self._read(self._rows["training"][batch.numpy()])
        images = augment(images, AUGMENTATIONS[config.augmentation], generator, skipped=own.start)
        inputs = self._preprocessing.scale(images).contiguous(memory_format=torch.channels_last)  # (N, C, W, H)
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = self._parallel(inputs)
        loss = self._loss(logits, targets)
        self._optimizer.zero_grad(set_to_none=True)
        # DDP takes the mean of the processes' gradients, whatever the sizes of their slices.
        self._scaler.scale(loss * (own.weight * self._processes.world_size)).backward()  # type: ignore[no-untyped-call]
        if config.clip_grad_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._network.parameters(), config.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        loss = loss.detach()
        self._processes.average([loss, *self._statistics], own.weight)
        if self._average is not None:
            self._average.update()
        return loss

    def validate(self) -> tuple[Row, float]:
        """Metrics of the validation split, and the one that chooses, turned so that more is better."""
        rows = self._rows["validation"]
        network = self.scored.eval()
        logits = torch.zeros(len(rows), len(self._labels))
        starts = range(0, len(rows), EVALUATION_BATCH)[self._processes.rank :: self._processes.world_size]
        # Not TF32, which a GPU uses unasked: validation and serving would differ by 1e-3.
        flags = torch.backends.cudnn.flags(enabled=True, deterministic=self._config.deterministic, allow_tf32=False)
        with torch.inference_mode(), flags:
            for start in starts:
                images = self._read(rows[start : start + EVALUATION_BATCH])
                inputs = self._preprocessing.scale(images).contiguous(memory_format=torch.channels_last)
                logits[start : start + EVALUATION_BATCH] = network(inputs).float().cpu()
        logits = self._processes.add(logits)  # each fills its batches of zeros, so that all have the same to the bit
        if not torch.isfinite(logits).all():
            raise ConfigError(
                "training diverged: the network answers with values that are not finite; lower learning_rate "
                f"({self._config.learning_rate:g} now) or set clip_grad_norm to 1"
            )
        scores = score(class_probabilities(logits).numpy(), self._targets["validation"].numpy(), self._labels)
        value = scores[self._config.best_metric]
        row = {f"validation_{name}": _number(scores[name]) for name in ("loss", "accuracy", "balanced_accuracy", "auc")}
        row |= {f"validation_sensitivity_{label}": _number(rate) for label, rate in scores["sensitivity"].items()}
        return row, BETTER_IF[self._config.best_metric] * value


def _image_reader(pixels: np.ndarray, device: torch.device) -> Callable[[np.ndarray], torch.Tensor]:
    """From positions to uint8 images (N, C, W, H) on the device, which holds all of them if they fit well."""
    if device.type == "cuda" and pixels.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(np.array(pixels)).to(device)
        return lambda rows: resident[torch.from_numpy(rows).to(device)]
    return lambda rows: torch.from_numpy(pixels[rows]).to(device)


@contextmanager
def _random_state(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Seed and restore torch's global state; on a GPU, choose between speed and repeatability."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [device.index or 0] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=not config.deterministic, deterministic=config.deterministic
        ),
    ):
        torch.use_deterministic_algorithms(config.deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
