"""Several processes that train on masks, and one that goes on after it was stopped."""

import multiprocessing

import pytest
import torch
from torch.distributed import TCPStore

from sagemaker_monai.training.augmentation import AUGMENTATIONS, augment_with_labels
from sagemaker_monai.training.distributed import share_batch
from tests.support.mask_ranks import found_by, train, train_as
from tests.support.mask_sets import LABELS, write_balls

# Processes are forked from one that has imported torch, which takes seconds, and has not used it yet.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.mask_ranks"])
SPLITS = {"training": 4, "validation": 3}
OVERLAPPING = {"background": 0, "both": [1, 2], "dark": 2}


def train_as_two(folder, root, **changes):
    """What each of two processes found."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = [CONTEXT.Process(target=train_as, args=(rank, 2, store.port, folder, root, changes)) for rank in range(2)]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(120)
        assert [process.exitcode for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("labels", [LABELS, OVERLAPPING])
def test_two_processes_have_the_same_weights_and_nearly_the_numbers_of_one(tmp_path, labels):
    root = write_balls(tmp_path / "data", 7, SPLITS, labels=labels)
    alone = found_by(train(root, tmp_path / "cache"))

    first, second = train_as_two(tmp_path, root)

    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert str(first["history"]) == str(second["history"])
    # Dice is of the batch that a process has, so that the loss is near that of one process, not equal.
    assert first["history"][0]["train_loss"] == pytest.approx(alone["history"][0]["train_loss"], rel=0.1)
    assert first["history"][0]["validation_loss"] == pytest.approx(alone["history"][0]["validation_loss"], rel=0.1)


@pytest.mark.long
def test_two_processes_plan_the_same_time_and_train_as_if_the_epochs_had_been_asked_for(tmp_path):
    root = write_balls(tmp_path / "data", 7, SPLITS)

    asked, _ = train_as_two(tmp_path, root, epochs=2)
    first, second = train_as_two(tmp_path, root, epochs=2, hours=1.0, test_time_mirroring="yes")

    assert first["planned"] == second["planned"] == [2, 0, 1, 2]
    for found in (first, second):
        assert all(torch.equal(asked["weights"][name], found["weights"][name]) for name in asked["weights"])
    assert str(first["history"]) == str(second["history"]) == str(asked["history"])


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_patch_changes_in_the_same_way_whichever_process_has_it(world_size):
    generator = torch.Generator().manual_seed(1)
    values, labels = torch.rand((6, 1, 8, 8, 8), generator=generator), torch.zeros((6, 8, 8, 8), dtype=torch.uint8)
    labels[:, 2:5, 3:6, 1:4] = 1
    steps = AUGMENTATIONS["volume"]
    whole = augment_with_labels(values, labels, steps, torch.Generator().manual_seed(7), skipped=0)

    for rank in range(world_size):
        own = share_batch(6, rank=rank, world_size=world_size)
        inside = slice(own.start, own.stop)
        part = augment_with_labels(
            values[inside], labels[inside], steps, torch.Generator().manual_seed(7), skipped=own.start
        )
        assert torch.allclose(part[0], whole[0][inside], atol=1e-5)
        assert torch.equal(part[1], whole[1][inside])


@pytest.mark.parametrize(("step", "labels"), [(1, LABELS), (3, LABELS), (3, OVERLAPPING)])
def test_a_stop_in_the_middle_of_an_epoch_changes_no_weight(tmp_path, step, labels):
    root = write_balls(tmp_path / "data", 7, SPLITS, labels=labels)
    asked = iter([False] * step + [True] * 1_000)
    whole = found_by(train(root, tmp_path / "cache", checkpoint_dir=tmp_path / "a"))

    train(root, tmp_path / "cache", checkpoint_dir=tmp_path / "b", is_stopping=lambda: next(asked))
    resumed = found_by(train(root, tmp_path / "cache", checkpoint_dir=tmp_path / "b"))

    assert all(torch.equal(whole["weights"][name], resumed["weights"][name]) for name in whole["weights"])
    assert str(whole["history"]) == str(resumed["history"])
