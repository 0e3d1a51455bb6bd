import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import DistNetworkError, HashStore, TCPStore

from sagemaker_monai.errors import ConfigError, TrainingStopped
from sagemaker_monai.training import distributed
from sagemaker_monai.training import fit as training
from sagemaker_monai.training.augmentation import AUGMENTATIONS, augment
from sagemaker_monai.training.distributed import OtherProcessError, Processes, is_loss_of_another, share_batch
from tests.support.exhaustive import exhaustive
from tests.support.ranks import train_as
from tests.training.test_fit import NormFree, drawn, run, without_time


@given(st.integers(2, 300), st.integers(1, 40))
def test_the_slices_of_a_batch_are_whole_and_none_is_too_small_for_batchnorm(size, world_size):
    slices = [share_batch(size, rank=rank, world_size=world_size) for rank in range(world_size)]
    counted = [position for own in slices if own.weight for position in range(own.start, own.stop)]

    assert counted == list(range(size))
    assert all(own.stop - own.start >= 2 for own in slices)
    assert sum(own.weight for own in slices) == pytest.approx(1)
    assert all(own.weight in (0, pytest.approx((own.stop - own.start) / size)) for own in slices)


@given(st.integers(2, 40), st.integers(1, 6))
def test_an_image_changes_in_the_same_way_whichever_process_has_it(size, world_size):
    batch = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))
    whole = augment(batch, AUGMENTATIONS["photo"], torch.Generator().manual_seed(7))

    for rank in range(world_size):
        own = share_batch(size, rank=rank, world_size=world_size)
        part = augment(
            batch[own.start : own.stop],
            AUGMENTATIONS["photo"],
            torch.Generator().manual_seed(7),
            skipped=own.start,
        )
        assert torch.allclose(part, whole[own.start : own.stop], atol=1e-3)


def test_alone_nothing_is_asked_of_others():
    alone = Processes()
    values = torch.ones(3)

    alone.agree("x", otherwise="never", is_stopping=lambda: False)
    alone.average([values], 0.1)

    assert values.tolist() == [1, 1, 1]
    assert (alone.is_main, alone.is_any(flag=True), alone.is_any(flag=False)) == (True, True, False)
    assert alone.from_first(None) is None


def never():
    return False


def team(size, **places):
    """Processes that share a store, in this one."""
    store = HashStore()
    return [Processes(rank=rank, local_rank=rank, world_size=size, store=store, **places) for rank in range(size)]


def test_the_others_of_a_host_wait_until_the_first_one_has_read_the_images():
    first, second = team(2)
    order = []

    def wait():
        second.wait_for_own_host("images", never)
        order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    first.wait_for_own_host("images", never)
    thread.join(0.3)
    order.append("first")
    first.host_is_ready("images")
    thread.join()

    assert order == ["first", "second"]


@pytest.mark.parametrize(("values", "is_refused"), [(("a", "a"), False), (("a", "b"), True)])
def test_all_must_say_the_same(values, is_refused):
    def say(process, value):
        try:
            process.agree(value, otherwise="they differ", is_stopping=never)
        except ConfigError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(say, team(2), values))

    assert said == (["they differ"] * 2 if is_refused else [None] * 2)


def test_who_waits_hears_of_the_failure_of_another_and_of_a_stop():
    first, second = team(2)

    with pytest.raises(TrainingStopped):
        second.agree("x", otherwise="", is_stopping=lambda: True)
    assert first.cause_of("ConfigError: the cause", is_secondary=False) == "ConfigError: the cause"
    with pytest.raises(OtherProcessError, match=r"^ConfigError: the cause$"):
        second.finish()


def test_a_failure_that_follows_from_another_waits_for_the_cause(monkeypatch):
    first, second = team(2)

    with ThreadPoolExecutor(1) as threads:
        consequence = threads.submit(second.cause_of, "InternalError: connection closed", is_secondary=True)
        first.cause_of("DatasetError: the cause", is_secondary=False)
        assert consequence.result(60) == "DatasetError: the cause"

    monkeypatch.setattr(distributed, "CAUSE_WAIT_S", 0)
    assert team(2)[1].cause_of("InternalError: lost", is_secondary=True) == "InternalError: lost"


def test_a_failure_of_another_is_noticed_where_nobody_waits_for_it(monkeypatch):
    monkeypatch.setattr(distributed, "WATCH_S", 0.01)
    first, second = team(2)
    heard = Queue()

    is_done = second.watch(heard.put)
    first.cause_of("DatasetError: the cause", is_secondary=False)

    assert heard.get(timeout=60) == "DatasetError: the cause"
    is_done.set()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DistNetworkError("x"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ConfigError("gloo"), False),
        (OSError("connection closed"), False),
    ],
    ids=str,
)
def test_the_loss_of_another_is_told_from_a_failure_of_ones_own(error, expected):
    assert is_loss_of_another(error) == expected


# Processes are forked from one that has imported torch, which takes seconds, and has not used it yet.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.ranks"])
SIZES = {"training": 24, "validation": 130, "test": 0}


def run_together(folder, world_size, *, kind="norm free", **settings):
    """What each of several processes has after training together."""
    folder.mkdir(exist_ok=True)
    # The launcher of the first host has it.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    settings = {"kind": kind, "sizes": SIZES, **settings}
    started = [
        CONTEXT.Process(
            target=train_as,
            args=(rank, world_size, store.port, folder),
            kwargs={"kind": kind, "sizes": SIZES, **settings},
        )
        for rank in range(world_size)
    ]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(120)
        assert [process.exitcode for process in started] == [0] * world_size
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


def assert_equal(first, second):
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    # NaN is not equal to itself, but its text is
    assert str(first["history"]) == str(second["history"])


@pytest.mark.parametrize(
    ("world_size", "settings"),
    exhaustive(
        [
            (2, {"batch_size": 8}),
            (3, {"batch_size": 7, "ema_decay": 0.0, "imbalance": "class_weighted"}),  # 7 = 2 + 2 + 3; a last batch of 3
            (3, {"batch_size": 2, "optimizer": "sgd", "learning_rate": 0.1}),  # the third process has nothing to do
        ]
    ),
    ids=str,
)
def test_many_processes_train_the_network_that_one_trains(world_size, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "build_network", lambda definition: NormFree(definition["num_classes"]))
    alone = run(drawn(sizes=SIZES), **settings)

    results = run_together(tmp_path, world_size, **settings)

    for result in results[1:]:
        assert_equal(result, results[0])
    for name, values in alone.weights.items():
        assert torch.allclose(results[0]["weights"][name], values, rtol=1e-3, atol=1e-5), name
    for row, expected in zip(results[0]["history"], without_time(alone.history), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, nan_ok=True)


@pytest.mark.long
def test_the_statistics_of_batchnorm_are_equal_in_all_processes_and_come_from_all(tmp_path):
    """One step without augmentation: the running mean is that of the whole batch, as if one process had seen it."""
    settings = {"batch_size": 24, "epochs": 1, "augmentation": "none", "ema_decay": 0.0}

    first, second = run_together(tmp_path / "two", 2, kind="norm", **settings)
    [alone] = run_together(tmp_path / "one", 1, kind="norm", **settings)

    assert_equal(first, second)
    assert torch.allclose(first["weights"]["1.running_mean"], alone["weights"]["1.running_mean"], rtol=1e-5)


@pytest.mark.long
def test_all_stop_at_the_step_at_which_one_is_asked_to(tmp_path):
    first, second = run_together(tmp_path, 2, epochs=5, batch_size=8, stop=4)

    assert first["stopped"] == second["stopped"] == "asked to stop in epoch 2"
    assert_equal(first, second)


@pytest.mark.long
def test_processes_go_on_from_the_checkpoint_of_the_first_one(tmp_path):
    settings = {"epochs": 3, "batch_size": 8, "kind": "norm"}
    whole, _ = run_together(tmp_path / "whole", 2, **settings)

    checkpoints = tmp_path / "checkpoints"
    run_together(tmp_path / "part", 2, stop=4, checkpoint_dir=str(checkpoints), **settings)
    assert not (checkpoints / "1").exists()  # of another host, say
    first, second = run_together(tmp_path / "rest", 2, checkpoint_dir=str(checkpoints), **settings)

    assert_equal(first, whole)
    assert_equal(second, whole)
