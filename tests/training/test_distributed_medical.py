"""Several processes that train on volumes with findings."""

import multiprocessing

import pytest
import torch
from torch.distributed import TCPStore

from tests.support.medical_ranks import found_by, train, train_as

# Processes are forked from one that has imported torch, which takes seconds, and has not used it yet.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.medical_ranks"])


@pytest.mark.long
def test_two_processes_have_the_same_weights_and_thresholds_and_nearly_those_of_one(tmp_path):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = [CONTEXT.Process(target=train_as, args=(rank, 2, store.port, tmp_path)) for rank in range(2)]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(120)
        assert [process.exitcode for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))

    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert str(first["history"]) == str(second["history"])
    assert first["thresholds"] == second["thresholds"]
    # Each process normalises its half of a batch by itself, so that the loss is near that of one process, not equal.
    alone = found_by(train())
    assert first["history"][0]["train_loss"] == pytest.approx(alone["history"][0]["train_loss"], rel=0.2)


def test_two_runs_are_equal_bit_by_bit_whatever_the_state_of_the_generators():
    first = found_by(train(epochs=1, deterministic=True))
    torch.manual_seed(999)
    second = found_by(train(epochs=1, deterministic=True))

    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert (str(first["history"]), first["thresholds"]) == (str(second["history"]), second["thresholds"])
