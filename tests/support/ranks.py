"""A process of distributed training, without the command `train`."""

from pathlib import Path

import torch

from sagemaker_monai.training import fit as training
from sagemaker_monai.training.distributed import Processes, connect
from tests.training.test_fit import NormFree, SmallNetwork, drawn, run, stop_after, without_time

KINDS = {"norm free": NormFree, "norm": SmallNetwork}


def train_as(rank, world_size, port, folder, *, kind, sizes, stop=None, checkpoint_dir=None, **hyperparameters):
    """Train as one process and save the result to a file; the last process is asked to stop after `stop` steps."""
    torch.set_num_threads(1)
    training.build_network = lambda definition: KINDS[kind](definition["num_classes"])
    store = connect("127.0.0.1", port, timeout_s=60)
    processes = Processes(rank=rank, local_rank=rank, world_size=world_size, store=store)
    processes.start(torch.device("cpu"))
    is_asked = stop is not None and rank == world_size - 1
    result = run(
        drawn(sizes=sizes),
        processes=processes,
        is_stopping=stop_after(stop) if is_asked else lambda: False,
        checkpoint_dir=Path(checkpoint_dir) / str(rank) if checkpoint_dir else None,
        **hyperparameters,
    )
    found = {"weights": result.weights, "history": without_time(result.history), "stopped": result.stopped}
    torch.save(found, folder / f"{rank}.pt")
    processes.finish()
    torch.distributed.destroy_process_group()
