"""A process of distributed training on volumes with findings, started by `test_distributed_medical`."""

from pathlib import Path

import numpy as np
import torch

from sagemaker_monai.data.datasets import SPLITS, Dataset, Record
from sagemaker_monai.data.loading import LoadedDataset
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.preprocessing.presets import preprocessing_for
from sagemaker_monai.training.distributed import ALONE, Processes, connect
from sagemaker_monai.training.fit import fit
from sagemaker_monai.training.plan import make_plan

LABELS = ("across", "along", "through")
SIZES = {"training": 12, "validation": 9, "test": 0}
SETTINGS = {"image_size": 16, "network": "resnet10", "epochs": 2, "batch_size": 6}


def drawn():
    """Noise that is brighter in the half of each finding."""
    generator = np.random.default_rng(0)
    pixels, records, rows, start = [], {}, {}, 0
    for split in SPLITS:
        made = []
        for index in range(SIZES[split]):
            target = tuple(float(index >> bit & 1) for bit in range(3))
            values = generator.random((1, 16, 16, 16), np.float32) * 0.5
            for axis, is_there in enumerate(target):
                values[(slice(None), *[slice(8) if each == axis else slice(None) for each in range(3)])] += (
                    0.2 * is_there
                )
            pixels.append(values)
            made.append(Record(Path("x"), f"{split}/{index}", int(np.argmax(target)), str(index), {}, target))
        records[split] = tuple(made)
        rows[split] = np.arange(start, start + len(made))
        start += len(made)
    dataset = Dataset(LABELS, **records, fingerprint="0" * 64, task="multilabel", spatial_dims=3)
    return LoadedDataset(dataset, np.stack(pixels), rows, dict.fromkeys(SPLITS, ()))


def train(processes=ALONE, **changes):
    data, device = drawn(), torch.device("cpu")
    spec = preprocessing_for("volume", channels=1, image_size=16, fit="pad")
    return fit(
        make_plan(TrainConfig(**(SETTINGS | changes)), data.dataset, device, spec=spec),
        data,
        device=device,
        processes=processes,
        on_epoch=lambda row: None,
        is_stopping=lambda: False,
    )


def found_by(result):
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]
    return {"weights": result.weights, "history": history, "thresholds": list(result.task.thresholds)}


def train_as(rank, world_size, port, folder):
    """Train as one process and save the result to a file."""
    torch.set_num_threads(1)
    store = connect("127.0.0.1", port, timeout_s=60)
    processes = Processes(rank=rank, local_rank=rank, world_size=world_size, store=store)
    processes.start(torch.device("cpu"))
    torch.save(found_by(train(processes)), folder / f"{rank}.pt")
    processes.finish()
    torch.distributed.destroy_process_group()
