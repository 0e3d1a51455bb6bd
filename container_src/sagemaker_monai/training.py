"""fit(): from a decoded data set to the best epoch's weights.

Images lie in one uint8 array (`loading`, `cache`); a batch is an index into it, augmented and scaled on the device.
Validation goes the way that serving goes: the artifact's own scaling, evaluation mode, float32, softmax in float64.

All randomness of a step is seeded from (seed, epoch, step), so that a step does not depend on how training got there.
On one CPU with one number of threads, two runs are equal bit by bit; on a GPU they are with `deterministic`.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sagemaker_monai.augmentation import AUGMENTATIONS, augment
from sagemaker_monai.config import TrainConfig
from sagemaker_monai.datasets import SPLITS
from sagemaker_monai.errors import ConfigError, TrainingStopped
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

Row = dict[str, float]


@dataclass(frozen=True)
class FitResult:
    """What training found.

    Attributes:
        network_def: plain data of the network.
        weights: state dict of the best epoch, on the CPU; the moving average if there is one.
        history: one row of numbers an epoch, NaN where a metric does not exist.
        best_epoch: from 1.
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


def fit(
    config: TrainConfig,
    data: LoadedDataset,
    *,
    preprocessing_spec: list[dict[str, Any]],
    device: torch.device,
    pretrained: Path | None = None,
    on_epoch: Callable[[Row], None],
    is_stopping: Callable[[], bool],
) -> FitResult:
    """Train a classifier and keep the epoch that is best on the validation split.

    Args:
        config: hyperparameters.
        data: from `loading.load_dataset`.
        preprocessing_spec: what goes into the artifact; its scale half is used here.
        device: where to train.
        pretrained: a file of weights to start from.
        on_epoch: called with the row of each epoch, see `FitResult.history`.
        is_stopping: asked before every step; once it says yes, the best epoch so far is the result.

    Raises:
        ConfigError: the hyperparameters do not suit the device, the data or the pretrained weights, or the loss is
            not finite any more.
        TrainingStopped: asked to stop before the first epoch ended.
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
    with _random_state(config, device):
        torch.manual_seed(config.seed)
        network = build_network(definition)
        report = None
        if pretrained is not None:
            report = load_pretrained(network, pretrained, head=NETWORKS[config.network].head)
            logger.info("pretrained weights: %s", report.summary())
        run = _Run(config, data, network, preprocessing, device, precision)
        history: list[Row] = []
        best: dict[str, torch.Tensor] = {}
        best_epoch, best_value, stopped = 0, (float("-inf"), 0.0), None
        for epoch in range(1, config.epochs + 1):
            began = time.perf_counter()
            train_loss = run.train_epoch(epoch, is_stopping)
            if train_loss is None:
                stopped = f"asked to stop in epoch {epoch}"
                break
            row, metric = run.validate()
            value = (metric, -row["validation_loss"])  # of equal epochs, the one with the smaller loss
            seconds = time.perf_counter() - began
            row = {"epoch": epoch, "train_loss": train_loss, **row}
            row |= {"learning_rate": run.learning_rate, "seconds": seconds}
            history.append(row)
            if value > best_value:
                best_epoch, best_value = epoch, value
                best = {
                    name: tensor.detach().to("cpu", copy=True).contiguous()
                    for name, tensor in run.scored.state_dict().items()
                }
            on_epoch(row)
            if config.early_stop_patience and epoch - best_epoch >= config.early_stop_patience:
                stopped = f"no better {config.best_metric} for {config.early_stop_patience} epochs"
                break
    if not best:
        raise TrainingStopped("training was stopped before the first epoch ended, so there is nothing to save")
    return FitResult(definition, best, history, best_epoch, stopped, precision, report)


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
    ) -> None:
        self._config = config
        self._labels = data.dataset.labels
        self._preprocessing = preprocessing
        self._device = device
        self._autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # channels_last: a step of batch 32 at 64 px on one thread of an AMD EPYC 7003 takes 0.58 (efficientnet-b0),
        # 0.84 (densenet121) and 0.99 (resnet18) of the time that it takes otherwise.
        self._network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
        self._steps_per_epoch = len(split_into_batches(self._targets["training"], config.batch_size))
        self.learning_rate = 0.0

    @property
    def scored(self) -> nn.Module:
        """The network that is validated and shipped."""
        return self._network if self._average is None else self._average.network

    def train_epoch(self, epoch: int, is_stopping: Callable[[], bool]) -> float | None:
        """Train on every batch once; the mean loss, or None if asked to stop on the way."""
        config, targets = self._config, self._targets["training"]
        generator = torch.Generator().manual_seed(step_seed(config.seed, epoch, -1))
        batches = split_into_batches(epoch_order(config, targets, generator), config.batch_size)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        self._network.train()
        what = f"epoch {epoch} of {config.epochs}"
        for step, batch in enumerate(track(batches, total=len(batches), what=what)):
            if is_stopping():  # asked before a step, so that an epoch whose last step is done counts
                return None
            seed = step_seed(config.seed, epoch, step)
            torch.manual_seed(seed)  # dropout and dropped connections
            generator.manual_seed(seed)
            total += self._step(batch, targets[batch], generator, (epoch - 1) * self._steps_per_epoch + step) * len(
                batch
            )
            is_last = step == len(batches) - 1
            if (is_last or step % STEPS_BETWEEN_CHECKS == 0) and not torch.isfinite(total):
                raise ConfigError(
                    f"training diverged in epoch {epoch}: the loss is not finite; lower learning_rate "
                    f"({config.learning_rate:g} now), raise warmup_epochs, or set clip_grad_norm=1 and precision=fp32"
                )
        return float(total / len(targets))

    def _step(self, batch: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, step: int) -> torch.Tensor:
        """One change of the weights; the loss before it."""
        config = self._config
        factor = learning_rate_factor(
            config, step, steps=config.epochs * self._steps_per_epoch, steps_per_epoch=self._steps_per_epoch
        )
        self.learning_rate = config.learning_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        images = augment(
            self._read(self._rows["training"][batch.numpy()]), AUGMENTATIONS[config.augmentation], generator
        )
        inputs = self._preprocessing.scale(images).contiguous(memory_format=torch.channels_last)  # (N, C, W, H)
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = self._network(inputs)
        loss = self._loss(logits, targets.to(self._device))
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if config.clip_grad_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._network.parameters(), config.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update()
        return loss.detach()

    def validate(self) -> tuple[Row, float]:
        """Metrics of the validation split, and the one that chooses, turned so that more is better."""
        rows = self._rows["validation"]
        network = self.scored.eval()
        parts = []
        # Not TF32, which a GPU uses unasked: validation and serving would differ by 1e-3.
        flags = torch.backends.cudnn.flags(enabled=True, deterministic=self._config.deterministic, allow_tf32=False)
        with torch.inference_mode(), flags:
            for start in range(0, len(rows), EVALUATION_BATCH):
                images = self._read(rows[start : start + EVALUATION_BATCH])
                inputs = self._preprocessing.scale(images).contiguous(memory_format=torch.channels_last)
                parts.append(network(inputs).float().cpu())
        logits = torch.cat(parts)
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
