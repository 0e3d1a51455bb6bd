"""The hyperparameter `hours`: epochs planned from measured steps, and a resumed run that keeps their number."""

import logging
import time
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.errors import ConfigError, TrainingStopped
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.training import job_time
from sagemaker_monai.training.checkpoints import read_newest
from sagemaker_monai.training.job_time import JobTime, Pace, epochs_of
from sagemaker_monai.training.plan import resolve
from tests.training import test_fit as test_training
from tests.training.test_checkpoints import equal
from tests.training.test_fit import drawn, run, stop_after

small_network = test_training.small_network
pytestmark = pytest.mark.usefixtures("small_network")

STEPS = 3  # of an epoch of 24 images in batches of 8


@pytest.fixture
def paced(monkeypatch):
    """Let really measured steps seem to take 1 s and validation 2 s; how often that was measured."""
    measured, real = [], job_time._measure
    monkeypatch.setattr(job_time, "MOST_STEPS", 3)

    def measure(*arguments):
        measured.append(real(*arguments))
        return Pace(1.0, 2.0, 0.0, 0.0, 5.0)

    monkeypatch.setattr(job_time, "_measure", measure)
    return measured


# 10 s are kept for writing and 5 used: 0.9 * 25 s make 4 epochs of 5 s.
FOUR = {"hours": 40 / 3600, "epochs": 1000}


def test_the_planned_epochs_are_trained_as_if_they_had_been_asked_for(paced, caplog):
    caplog.set_level(logging.INFO)
    planned = run(**FOUR)

    assert planned.epochs == len(planned.history) == 4
    assert equal(planned, run(epochs=4))
    assert "hours=0.0111111: 4 epochs of 5 s (3 steps of 1 s, validation 2 s); 10 s are kept for scoring" in (
        caplog.messages
    )
    assert len(paced) == 1
    assert 0 < paced[0].step_s < 30


@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 1, 3 * STEPS + 2])
def test_a_resumed_run_keeps_the_number_of_epochs_and_equals_an_uninterrupted_one(steps, paced, tmp_path):
    """The spine, with hours: the pace is measured again by nobody."""
    whole = run(**FOUR)
    run(**FOUR, checkpoint_dir=tmp_path, is_stopping=stop_after(steps + 1))  # asked once before measuring
    paced.clear()

    assert equal(run(**FOUR, checkpoint_dir=tmp_path), whole)
    assert not paced


def test_a_run_that_is_killed_while_it_measures_measures_again(paced, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(job_time, "epochs_of", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(**FOUR, checkpoint_dir=tmp_path)
    assert read_newest(tmp_path)["found"]["planned"] == 0

    assert run(**FOUR, checkpoint_dir=tmp_path).epochs == 4
    assert len(paced) == 2


def test_a_stop_before_measuring_leaves_nothing(tmp_path):
    with pytest.raises(TrainingStopped, match="before its first step"):
        run(hours=1.0, checkpoint_dir=tmp_path, is_stopping=lambda: True)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("paced")
def test_a_job_that_turns_out_slower_ends_in_time_and_is_not_trained_again(tmp_path, monkeypatch):
    clock = count()
    with monkeypatch.context() as patch:
        patch.setattr(JobTime, "used_s", lambda _self: 4.0 * next(clock))  # at each step and checkpoint 4 s later
        late = run(**FOUR, checkpoint_dir=tmp_path)

    assert late.stopped == "the time of hours was over in epoch 2 of 4"
    assert (len(late.history), late.best_epoch) == (1, 1)
    assert equal(run(**FOUR, checkpoint_dir=tmp_path), late)


@pytest.mark.usefixtures("paced")
def test_the_time_of_earlier_starts_counts(tmp_path):
    run(**FOUR, checkpoint_dir=tmp_path, is_stopping=stop_after(2))
    used_s = read_newest(tmp_path)["found"]["used_s"]
    waited = JobTime(began=time.monotonic() - 100)

    late = test_training.fit(
        test_training.make_plan(
            TrainConfig(**FOUR, batch_size=8, image_size=32), drawn().dataset, test_training.CPU,
            spec=test_training.SPEC,
        ),
        drawn(), device=test_training.CPU, checkpoint_dir=tmp_path, on_epoch=lambda _row: None,
        is_stopping=lambda: False, job_time=waited,
    )  # fmt: skip

    assert 0 < used_s < 30
    assert late.stopped == "the time of hours was over in epoch 1 of 4, after 1 of 3 steps: never validated"
    assert read_newest(tmp_path)["found"]["used_s"] > 100 + used_s


PACE = Pace(step_s=0.5, validation_s=20, saving_s=1, reading_s=0.1, used_s=60)
SIZES = {"steps_per_epoch": 78, "validated": 40, "scored": 80}


@pytest.mark.parametrize(
    ("hours", "pace", "epochs"),
    [
        # an epoch of 39 + 20 + 1 = 60 s; kept: 10 + 80 * (0.1 + 2 * 20 / 40) = 98 s
        (1, {}, 51),  # 0.9 * (3600 - 98 - 60) / 60 = 51.6
        (1, {"used_s": 1800}, 25),  # 0.9 * (3600 - 98 - 1800) / 60 = 25.5
        (1, {"reading_s": 10.0}, 39),  # 80 * 9.9 s less: 0.9 * (3442 - 792) / 60 = 39.75
        (100, {}, 200),  # epochs is the most
    ],
)
def test_epochs_are_counted_by_hand(hours, pace, epochs):
    found, ends_s = epochs_of(replace(PACE, **pace), TrainConfig(hours=hours, epochs=200), **SIZES)

    assert found == epochs
    assert ends_s == pytest.approx(hours * 3600 - 98 - 80 * (pace.get("reading_s", 0.1) - 0.1))


def test_hours_in_which_no_epoch_fits_are_refused_with_how_many_it_takes():
    with pytest.raises(
        ConfigError, match=r"an epoch takes 60 s and scoring about 98 s; set hours to at least 0.06"
    ) as (refused):
        epochs_of(PACE, TrainConfig(hours=0.05, epochs=200), **SIZES)

    enough = float(str(refused.value).split()[-1])
    assert epochs_of(PACE, TrainConfig(hours=enough, epochs=200), **SIZES)[0] >= 1


times = st.floats(1e-3, 1e4)


@given(pace=st.builds(Pace, times, times, times, times, times), hours=st.floats(0.01, 720), scored=st.integers(1, 1000))
def test_what_is_planned_fits_and_one_epoch_more_would_not_be_planned(pace, hours, scored):
    config = TrainConfig(hours=hours, epochs=10_000)
    try:
        epochs, ends_s = epochs_of(pace, config, steps_per_epoch=10, validated=5, scored=scored)
    except ConfigError:
        return
    epoch_s = 10 * pace.step_s + pace.validation_s + pace.saving_s
    assert pace.used_s + epochs * epoch_s < ends_s < hours * 3600
    assert epochs == 10_000 or pace.used_s + (epochs + 1) * epoch_s / job_time.PLANNED_SHARE >= ends_s * (1 - 1e-9)


def test_without_hours_nothing_is_measured(paced):
    assert len(run(epochs=2).history) == 2
    assert not paced


def test_epochs_are_the_most_only_where_they_are_set():
    def most(**settings):
        config = TrainConfig.parse(settings)
        resolved = resolve(config, task="classification", spatial_dims=2, is_photograph=True)
        assert resolve(resolved, task="classification", spatial_dims=2, is_photograph=True) == resolved
        assert TrainConfig.parse(resolved.model_dump()) == resolved
        return resolved.epochs

    assert [most(), most(hours=2), most(hours=2, epochs=30), most(epochs=7)] == [30, 10_000, 30, 7]
