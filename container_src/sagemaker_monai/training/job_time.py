"""`hours`: how many epochs fit into the time that a job may take, decided once, from measured steps.

Before training, some steps and one validation are done for their time and taken back. So the learning rate's schedule
runs over a number of epochs that is known and kept in the checkpoint, and a resumed job ends with the same weights as
an uninterrupted one, and as a job with `epochs` of that number, bit by bit. A schedule that follows the clock could not
promise that: no two runs would be alike. A job that turns out slower than measured is ended before its time is over,
with the best epoch so far.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from sagemaker_monai.data.datasets import Record
from sagemaker_monai.errors import CallerError, ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.training.checkpoints import dump, load
from sagemaker_monai.training.distributed import Processes
from sagemaker_monai.training.plan import Plan
from sagemaker_monai.training.run import Run

logger = logging.getLogger(__name__)

PLANNED_SHARE = 0.9  # of the time for training; what is left lets a slower machine end its last epoch (a guess)
UNTIMED_STEPS, FEWEST_STEPS, MOST_STEPS = 2, 3, 50  # the first ones fill caches and choose algorithms
MOST_MEASURING, MOST_MEASURING_S = 0.02, 60.0  # of the job's time, and seconds, once the fewest steps are done
WRITING_S = 10.0  # to write the artifact and read it back
SCORING_FACTOR = 2.0  # of an image's time in validation: surfaces, predictions and intervals are in it, too (a guess)
READ = 3  # files, for the time to read one


@dataclass(frozen=True)
class JobTime:
    """The time of a job.

    Attributes:
        began: by `time.monotonic`, when this start of the job began.
        earlier_s: that earlier starts of the job took, up to their last checkpoint.
        reading_s: that it takes to read one of the images that are scored at the end.
        scored: how many these are.
    """

    began: float = field(default_factory=time.monotonic)
    earlier_s: float = 0.0
    reading_s: float = 0.0
    scored: int = 0

    def used_s(self) -> float:
        """Seconds since the job began, without those between its starts."""
        return self.earlier_s + time.monotonic() - self.began


@dataclass(frozen=True)
class Pace:
    """What takes how long, in seconds.

    Attributes:
        step_s, validation_s, saving_s: one training step, one validation, one checkpoint.
        reading_s: one of the images that are scored.
        used_s: what the job has used when this is known.
    """

    step_s: float
    validation_s: float
    saving_s: float
    reading_s: float
    used_s: float


def job_time_of(plan: Plan, scored: Sequence[Record], began: float) -> JobTime:
    """The time of a job with what follows training: reading an image is timed, if `hours` counts.

    Args:
        plan: of the job.
        scored: what the artifact is scored on.
        began: as in `JobTime`.
    """
    some = scored[:: max(1, len(scored) // READ)][:READ] if plan.config.hours else ()
    started = time.monotonic()
    for record in some:
        try:
            plan.preprocessing.load_each(Sample(record.image), None)
        except CallerError:  # it counts until it is refused, as when it is scored
            continue
    return JobTime(began, reading_s=(time.monotonic() - started) / max(1, len(some)), scored=len(scored))


def plan_time(
    run: Run,
    config: TrainConfig,
    job_time: JobTime,
    save: Callable[[], None],
    processes: Processes,
    *,
    network_runs: int = 1,
) -> tuple[int, float]:
    """Decide how many epochs are trained, and after which second of the job's time no further step is done.

    Args:
        run: before its first step, and unchanged afterwards.
        config: with `hours`.
        job_time: what is used already, and what is scored at the end.
        save: writes a checkpoint.
        processes: that train together; all get the same answer.
        network_runs: for each window of an answer, see `sliding_window.mirrorings`.

    Raises:
        ConfigError: not even one epoch fits.
    """
    pace = _measure(run, config.hours, job_time, save, processes)
    told = processes.from_first(json.dumps(asdict(pace)).encode())
    assert told is not None
    return epochs_of(
        Pace(**json.loads(told)),
        config,
        steps_per_epoch=run.steps_per_epoch,
        validated=len(run.validation_groups),
        scored=job_time.scored,
        network_runs=network_runs,
    )


def _measure(run: Run, hours: float, job_time: JobTime, save: Callable[[], None], processes: Processes) -> Pace:
    before = dump(run.state())
    limit_s = min(MOST_MEASURING_S, MOST_MEASURING * hours * 3600)
    run.rehearse(UNTIMED_STEPS)
    began, steps, is_over = time.monotonic(), 0, False
    while not is_over:
        run.rehearse(1)
        steps += 1
        is_over = steps >= FEWEST_STEPS and time.monotonic() - began > limit_s
        is_over = processes.is_any(flag=is_over or steps == MOST_STEPS)
    stepped = time.monotonic()
    run.validate()
    validated = time.monotonic()
    run.restore(load(before))
    restored = time.monotonic()
    save()
    saving_s = time.monotonic() - restored
    return Pace((stepped - began) / steps, validated - stepped, saving_s, job_time.reading_s, job_time.used_s())


def epochs_of(
    pace: Pace, config: TrainConfig, *, steps_per_epoch: int, validated: int, scored: int, network_runs: int = 1
) -> tuple[int, float]:
    """As `plan_time`, of what was measured.

    Args:
        pace: of the first process.
        config: with `hours`, and `epochs` as the most that are trained.
        steps_per_epoch: training steps.
        validated, scored: images of the validation split, and those that the artifact is scored on.
        network_runs: as of `plan_time`; with more than one, validation is done with one and with all at the end.
    """
    epoch_s = steps_per_epoch * pace.step_s + pace.validation_s + pace.saving_s
    comparing_s = pace.validation_s * (1 + network_runs) * (network_runs > 1)
    scoring_s = scored * (pace.reading_s + SCORING_FACTOR * network_runs * pace.validation_s / validated)
    reserve_s = WRITING_S + comparing_s + scoring_s
    ends_s = config.hours * 3600 - reserve_s
    fitting = int(PLANNED_SHARE * (ends_s - pace.used_s) / epoch_s)
    if fitting < 1:
        least = 1.1 * (pace.used_s + reserve_s + epoch_s / PLANNED_SHARE) / 3600
        raise ConfigError(
            f"hours={config.hours:g} is too short: {pace.used_s:.0f} s went into reading and measuring, an epoch takes "
            f"{epoch_s:.3g} s and scoring about {reserve_s:.0f} s; set hours to at least {float(f'{least:.2g}'):g}"
        )
    epochs = min(fitting, config.epochs)
    logger.info(
        "hours=%g: %d epochs of %.3g s (%d steps of %.3g s, validation %.3g s); %.0f s are kept for scoring",
        config.hours, epochs, epoch_s, steps_per_epoch, pace.step_s, pace.validation_s, reserve_s,
    )  # fmt: skip
    return epochs, ends_s
