"""A process of distributed training on masks, started by `test_distributed_masks`."""

import torch

from sagemaker_monai.data.case_loading import load_cases
from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.training.distributed import ALONE, Processes, connect
from sagemaker_monai.training.fit import fit
from sagemaker_monai.training.plan import make_plan

SETTINGS = {
    "epochs": 2, "network": "unet", "network_width": 4, "batch_size": 4, "patch_size": "16", "patches_per_image": 2,
    "num_workers": 1, "ema_decay": 0.5,
}  # fmt: skip


def train(root, cache_dir, processes=ALONE, checkpoint_dir=None, is_stopping=lambda: False, **changes):
    """Train on the data set in `root`."""
    config, device = TrainConfig(**(SETTINGS | changes)), torch.device("cpu")
    dataset = read_dataset({"training": root}, task=config.task, validation_fraction=0.2, test_fraction=0.0, seed=0)
    plan = make_plan(config, dataset, device)
    data = load_cases(plan.config, dataset, plan.preprocessing, cache_dir=cache_dir, digests=Digests())
    return fit(
        plan,
        data,
        device=device,
        checkpoint_dir=checkpoint_dir,
        processes=processes,
        on_epoch=lambda row: None,
        is_stopping=is_stopping,
    )


def found_by(result):
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]
    return {"weights": result.weights, "history": history, "planned": [result.epochs, *result.mirrored_axes]}


def train_as(rank, world_size, port, folder, root, changes):
    """Train as one process and save the result to a file."""
    torch.set_num_threads(1)
    store = connect("127.0.0.1", port, timeout_s=60)
    processes = Processes(rank=rank, local_rank=rank, world_size=world_size, store=store)
    processes.start(torch.device("cpu"))
    torch.save(found_by(train(root, folder / "cache", processes, **changes)), folder / f"{rank}.pt")
    processes.finish()
    torch.distributed.destroy_process_group()
