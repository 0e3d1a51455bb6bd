"""A training run: a network, its training steps and its validation.

All randomness of a step is seeded from (seed, epoch, step), so a step does not depend on how training got there, and
`Run.state` between any two steps is enough to resume.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from sagemaker_monai.artifact.sliding_window import mirrored
from sagemaker_monai.data.case_loading import LoadedCases
from sagemaker_monai.data.loading import LoadedDataset
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.progress import track
from sagemaker_monai.tasks.losses import epoch_order
from sagemaker_monai.tasks.metric_names import Row, validation_values
from sagemaker_monai.tasks.task import Floats, Task
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai.training.distributed import Processes, share_batch
from sagemaker_monai.training.feeds import feed_of
from sagemaker_monai.training.optimizers import MovingAverage, build_optimizer, learning_rate_factor
from sagemaker_monai.training.plan import Plan, check_best_metric

BETTER_IF = {"Maximize": 1, "Minimize": -1}  # sign of an improvement
STEPS_BETWEEN_CHECKS = 20  # of the loss; reading it makes a GPU wait


def split_into_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Cut an order into batches; a last batch of one image joins the one before, as BatchNorm needs two values."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def step_seed(seed: int, epoch: int, step: int) -> int:
    """A seed of 63 bits, different for every step."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{step}".encode()).digest()[:8]) >> 1


class Run:
    """A training run: the network, its optimizer and its data."""

    def __init__(
        self,
        plan: Plan,
        data: LoadedDataset | LoadedCases,
        task: Task,
        network: nn.Module,
        device: torch.device,
        processes: Processes,
    ) -> None:
        config, preprocessing, precision = plan.config, plan.preprocessing, plan.precision
        self._config = config
        self._processes = processes
        self._task = task
        self._preprocessing = preprocessing
        self._device = device
        self._autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # channels_last: a step of batch 32 at 64 px on one thread of an AMD EPYC 7003 takes 0.58 (efficientnet-b0),
        # 0.84 (densenet121) and 0.99 (resnet18) of the time that it takes otherwise.
        self._memory_format = torch.channels_last if preprocessing.spatial_dims == 2 else torch.contiguous_format
        self._network = network.to(device).to(memory_format=self._memory_format)  # type: ignore[call-overload]
        if processes.world_size > 1 and device.type == "cuda":
            self._network = nn.SyncBatchNorm.convert_sync_batchnorm(self._network)
        self._parallel = processes.wrap(self._network, device)  # the same weights
        self._statistics = [buffer for buffer in self._network.buffers() if buffer.is_floating_point()]
        self._average = MovingAverage(self._network, config.ema_decay) if config.ema_decay else None
        self._optimizer = build_optimizer(config, self._network)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._feed = feed_of(plan, data, task, device)
        check_best_metric(config, task, self._feed.validation_targets)
        self.steps_per_epoch = len(split_into_batches(self._feed.strata, config.batch_size))
        self.validation_groups = self._feed.validation_groups
        self.epochs = config.epochs  # over which the learning rate's schedule runs
        self.learning_rate = 0.0
        self.step = 0  # completed steps of the current epoch
        self._total = torch.zeros((), dtype=torch.float64, device=device)  # of their losses, each times its images

    def state(self) -> dict[str, Any]:
        """Everything that a step changes."""
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
        """Go back to a `state`."""
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
        """Train on the remaining batches of an epoch; its mean loss, or None if stopped before its end."""
        config = self._config
        generator, batches = self._batches(epoch)
        self._network.train()
        steps: Iterable[int] = range(self.step, len(batches))
        if self._processes.is_main:
            steps = track(steps, total=len(batches) - self.step, what=f"epoch {epoch} of {self.epochs}")
        for step in steps:
            # Asked before each step, so that an epoch counts once its last step is done.
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
                    f"training diverged in epoch {epoch}: the loss is not finite; lower learning_rate (now "
                    f"{config.learning_rate:g}), raise warmup_epochs, or set clip_grad_norm=1 and precision=fp32"
                )
        mean = float(self._total / len(self._feed.strata))
        self.step = 0
        self._total.zero_()
        return mean

    def rehearse(self, steps: int) -> None:
        """Do steps as the first ones will be, for their time; `restore` takes them back."""
        generator, batches = self._batches(1)
        self._network.train()
        for step in range(steps):
            generator.manual_seed(step_seed(self._config.seed, 1, step))
            float(self._step(batches[step % len(batches)], generator, 0))  # waits for a GPU

    def _batches(self, epoch: int) -> tuple[torch.Generator, list[torch.Tensor]]:
        """The batches of an epoch, and the generator that drew them."""
        config = self._config
        generator = torch.Generator().manual_seed(step_seed(config.seed, epoch, -1))
        return generator, split_into_batches(epoch_order(config, self._feed.strata, generator), config.batch_size)

    def _step(self, batch: torch.Tensor, generator: torch.Generator, step: int) -> torch.Tensor:
        """Update the weights once; the loss before the update."""
        config = self._config
        factor = learning_rate_factor(
            config, step, steps=self.epochs * self.steps_per_epoch, steps_per_epoch=self.steps_per_epoch
        )
        self.learning_rate = config.learning_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        own = share_batch(len(batch), rank=self._processes.rank, world_size=self._processes.world_size)
        inputs, targets = self._feed.batch(batch, own, generator)
        inputs = inputs.contiguous(memory_format=self._memory_format)  # (N, C, W, H[, D])
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = self._parallel(inputs)
        loss = self._feed.loss(logits, targets)
        self._optimizer.zero_grad(set_to_none=True)
        # DDP takes the plain mean of the processes' gradients, regardless of the sizes of their slices.
        self._scaler.scale(loss * (own.weight * self._processes.world_size)).backward()
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

    def answers(self, mirrored_axes: Sequence[int] = ()) -> Floats:
        """The task's answers on the validation split, of the network and its `sliding_window.mirrored` images."""
        # Not TF32, a GPU's default: validation and serving would differ by 1e-3.
        flags = torch.backends.cudnn.flags(enabled=True, deterministic=self._config.deterministic, allow_tf32=False)
        with torch.inference_mode(), flags:
            answers = self._feed.answers(mirrored(self.scored.eval(), mirrored_axes), self._processes)
        if answers is None:
            raise ConfigError(
                "training diverged: the network's outputs are not finite; lower learning_rate (now "
                f"{self._config.learning_rate:g}) or set clip_grad_norm to 1"
            )
        return answers

    def tuned(self, answers: Floats) -> Task:
        """The task with what it learns from answers on the validation split."""
        return self._task.tuned(answers, self._feed.validation_targets, self.validation_groups)

    def validate(self) -> tuple[Row, float, Task]:
        """Metrics of the validation split, best_metric with its sign set so that more is better, and the tuned task."""
        answers = self.answers()
        # Tuned first, because what is scored is what would ship after this epoch.
        tuned = self.tuned(answers)
        scores = tuned.score(answers, self._feed.validation_targets)
        metric, goals = self._config.best_metric, TASKS[self._task.name].goals
        value = scores[metric]
        assert value is not None, "check_best_metric"
        return validation_values(scores, self._task.name), BETTER_IF[goals[metric]] * value, tuned
