import logging
import os
import signal
import subprocess
import sys
from itertools import count

import pytest
import torch

from sagemaker_monai.errors import TrainingStopped
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.training import checkpoints
from sagemaker_monai.training.checkpoints import read_newest, write_checkpoint
from sagemaker_monai.training.fit import job_key
from tests.support.exhaustive import exhaustive
from tests.training import test_fit as test_training
from tests.training.test_fit import SPEC, drawn, run, same_weights, stop_after, with_scores, without_time

small_network = test_training.small_network
pytestmark = pytest.mark.usefixtures("small_network")

STEPS = 3  # of an epoch of 24 images in batches of 8


@pytest.fixture(scope="module")
def uninterrupted():
    """Results by hyperparameters, each computed once."""
    return {}


def equal(first, second):
    return (
        same_weights(first, second)
        and without_time(first.history) == without_time(second.history)
        and (first.best_epoch, first.stopped) == (second.best_epoch, second.stopped)
    )


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {},
        {"ema_decay": 0.0},
        {"optimizer": "sgd"},
        {"imbalance": "balanced_sampler"},
        {"precision": "bf16"},
        {"early_stop_patience": 1, "learning_rate": 1e-6},
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [STEPS, 2 * STEPS, 1, STEPS + 1, 2 * STEPS - 1], ids="after {} steps".format)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(steps, hyperparameters, uninterrupted, tmp_path):
    """The spine: interrupted at the end of an epoch (3, 6) or in the middle of one (1, 4, 5)."""
    settings = {"epochs": 4, **hyperparameters}
    key = str(hyperparameters)
    whole = uninterrupted[key] = uninterrupted.get(key) or run(**settings)

    interrupted = run(checkpoint_dir=tmp_path, is_stopping=stop_after(steps), **settings)
    assert len(interrupted.history) == steps // STEPS
    torch.manual_seed(12345)

    assert equal(run(checkpoint_dir=tmp_path, **settings), whole)


def test_a_run_that_is_interrupted_at_every_step_equals_an_uninterrupted_one(tmp_path):
    whole = run(epochs=2)

    for _ in range(2 * STEPS - 1):
        run(epochs=2, checkpoint_dir=tmp_path, is_stopping=stop_after(1))

    assert equal(run(epochs=2, checkpoint_dir=tmp_path, is_stopping=stop_after(1)), whole)


def test_a_stop_before_the_first_step_leaves_nothing(tmp_path):
    with pytest.raises(TrainingStopped, match="before its first step"):
        run(checkpoint_dir=tmp_path, is_stopping=stop_after(0))

    assert list(tmp_path.iterdir()) == []


def test_going_on_says_where_and_brings_the_earlier_rows_back(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = run(epochs=3, checkpoint_dir=tmp_path, is_stopping=stop_after(STEPS + 1))
    earlier, later = [], []

    run(epochs=3, checkpoint_dir=tmp_path, on_resume=earlier.extend, on_epoch=later.append)

    assert earlier == first.history
    assert [row["epoch"] for row in later] == [2, 3]
    assert "resuming from epoch 2 of 3, step 2" in caplog.messages


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"epochs": 5, "early_stop_patience": 1}], ids=str)
def test_a_finished_job_is_not_trained_again(settings, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    with_scores(monkeypatch, [0.9, 0.5])
    finished = run(checkpoint_dir=tmp_path, **settings)
    steps = count()

    again = run(checkpoint_dir=tmp_path, is_stopping=lambda: next(steps) < 0, **settings)

    assert next(steps) == 0
    assert equal(again, finished)
    assert "this job was already trained (2 epochs): its best epoch is written again" in caplog.messages


def test_jobs_with_another_result_have_another_key_and_others_have_not(tmp_path):
    data = drawn()
    (tmp_path / "w.pt").write_bytes(b"weights")
    key = job_key(TrainConfig(), data, SPEC, None)

    others = [
        job_key(TrainConfig(epochs=31), data, SPEC, None),
        job_key(TrainConfig(seed=1), data, SPEC, None),
        job_key(TrainConfig(), drawn(classes=2), SPEC[:1], None),
        job_key(TrainConfig(), data, SPEC, tmp_path / "w.pt"),
    ]

    assert len({key, *others}) == 5
    assert job_key(TrainConfig(num_workers=3, processes_per_host=2), data, SPEC, None) == key


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_stay(tmp_path):
    for epoch, step in [(1, 0), (2, 0), (2, 17), (3, 0)]:
        write_checkpoint(tmp_path, {"epoch": epoch}, epoch=epoch, step=step)

    assert names(tmp_path) == ["00002-0000017.pt", "00003-0000000.pt"]
    assert read_newest(tmp_path) == {"epoch": 3}


@pytest.mark.parametrize("cut", [0, 1, 64, 65, 200, -1])
def test_a_torn_newest_one_gives_way_to_the_one_before(cut, tmp_path, caplog):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, {"epoch": epoch, "weights": torch.ones(9)}, epoch=epoch, step=0)
    newest = tmp_path / "00002-0000000.pt"
    newest.write_bytes(newest.read_bytes()[:cut])

    assert read_newest(tmp_path)["epoch"] == 1
    assert "checkpoint 00002-0000000 is damaged" in caplog.text
    assert names(tmp_path) == ["00001-0000000.pt"]


def test_a_changed_byte_is_noticed(tmp_path):
    write_checkpoint(tmp_path, {"weights": torch.ones(9)}, epoch=1, step=0)
    path = tmp_path / "00001-0000000.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert read_newest(tmp_path) is None


def test_what_a_write_that_was_cut_off_left_is_removed_and_other_files_stay(tmp_path):
    write_checkpoint(tmp_path, {}, epoch=1, step=0)
    (tmp_path / ".00002-0000000.pt.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")

    read_newest(tmp_path)

    assert names(tmp_path) == ["00001-0000000.pt", "notes.txt"]


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harmed"),))

    write_checkpoint(tmp_path, {"x": Harmful()}, epoch=1, step=0)

    assert read_newest(tmp_path) is None
    assert not (tmp_path / "harmed").exists()


def test_a_full_disk_spoils_neither_the_checkpoint_before_nor_the_run(tmp_path, monkeypatch, caplog):
    whole = run(epochs=3)
    run(epochs=3, checkpoint_dir=tmp_path, is_stopping=stop_after(STEPS))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", full)
        result = run(epochs=3, checkpoint_dir=tmp_path)

    assert equal(result, whole)
    assert "the checkpoint cannot be written (No space left on device): training continues" in caplog.text
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


WRITER = """
import sys, torch
from pathlib import Path
from sagemaker_monai.training.checkpoints import write_checkpoint
for epoch in range(1, 10**6):
    write_checkpoint(Path(sys.argv[1]), {"epoch": epoch, "weights": torch.full((300_000,), epoch)}, epoch=epoch, step=0)
    print(epoch, flush=True)
"""


@pytest.mark.parametrize("delay", exhaustive(range(4)))
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(delay, tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    written = [int(writer.stdout.readline()) for _ in range(3 + delay)][-1]
    writer.send_signal(signal.SIGKILL)
    written = max([written, *map(int, writer.communicate()[0].split())])

    state = read_newest(tmp_path)

    assert state["epoch"] in (written, written + 1)
    assert torch.equal(state["weights"], torch.full((300_000,), state["epoch"]))
    assert not list(tmp_path.glob(".*"))
