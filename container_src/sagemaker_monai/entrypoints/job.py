"""One training job from channels to a scored artifact; knows no environment variable and no command line.

The order is: everything cheap first, then images, then training; and what is scored is the artifact on disk, read as a
server reads it, with the image files themselves and not with the cache that training used.
"""

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sagemaker_monai import __version__
from sagemaker_monai.augmentation import AUGMENTATIONS
from sagemaker_monai.bundle import add_document, write_bundle
from sagemaker_monai.config import TrainConfig
from sagemaker_monai.datasets import SPLITS, Dataset, Record, read_dataset
from sagemaker_monai.entrypoints import documents
from sagemaker_monai.files import write_text
from sagemaker_monai.images import PICTURE_FORMATS, Sample
from sagemaker_monai.loading import LoadedDataset, input_channels, load_dataset
from sagemaker_monai.networks import network_def
from sagemaker_monai.predictor import Predictor
from sagemaker_monai.pretrained import find_weights
from sagemaker_monai.progress import track
from sagemaker_monai.tasks.classification import class_probabilities
from sagemaker_monai.tasks.metrics import report
from sagemaker_monai.training import FitResult, Row, choose_precision, fit
from sagemaker_monai.transforms import build_preprocessing, photograph_preprocessing

logger = logging.getLogger(__name__)

PRETRAINED = "pretrained"
SCORING_BATCH = 64  # images decoded at once
VALIDATION_NOTE = "There is no test split: this one chose the epoch, so the figures are too good. "


def run_job(
    config: TrainConfig,
    channels: Mapping[str, Path],
    *,
    model_dir: Path,
    output_data_dir: Path,
    cache_dir: Path,
    is_stopping: Callable[[], bool],
) -> None:
    """Read, train, write the artifact, score it, report.

    Args:
        config: hyperparameters.
        channels: name and folder of every input channel; `pretrained` holds weights to start from.
        model_dir: where the artifact goes; one that is there stays until the new one is complete.
        output_data_dir: where metrics.json, history.csv, predictions and TensorBoard files go.
        cache_dir: for decoded images.
        is_stopping: asked before every step of training.

    Raises:
        CallerError: something that the caller can correct.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    choose_precision(config, device)
    pretrained = find_weights(channels[PRETRAINED]) if PRETRAINED in channels else None
    dataset = read_dataset(
        {name: folder for name, folder in channels.items() if name != PRETRAINED},
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
    )
    logger.info("%s", _summary(dataset))
    spec = photograph_preprocessing(
        channels=input_channels(config, dataset.training), image_size=config.image_size, fit=config.fit
    )
    preprocessing = build_preprocessing(spec)
    network_def(  # for its checks, before images are read
        config.network,
        in_channels=preprocessing.channels,
        num_classes=len(dataset.labels),
        image_size=config.image_size,
        dropout=config.dropout,
    )
    data = load_dataset(config, dataset, preprocessing, cache_dir=cache_dir)
    result = _fit(config, data, spec, device, pretrained, output_data_dir, is_stopping)
    logger.info(
        "best epoch: %d of %d%s", result.best_epoch, config.epochs, f" ({result.stopped})" * bool(result.stopped)
    )
    provenance = _provenance(dataset, result, device)
    write_bundle(
        model_dir,
        network_def=result.network_def,
        preprocessing=spec,
        labels=dataset.labels,
        weights=result.weights,
        train_config=_train_config(config, data, result),
        provenance=provenance,
    )
    _report(config, data, result, provenance, device, model_dir, output_data_dir)


def _fit(
    config: TrainConfig,
    data: LoadedDataset,
    spec: list[dict[str, Any]],
    device: torch.device,
    pretrained: Path | None,
    output_data_dir: Path,
    is_stopping: Callable[[], bool],
) -> FitResult:
    """Train, with a line of metrics an epoch and TensorBoard files."""
    labels = data.dataset.labels
    tensorboard = documents.tensorboard_writer(output_data_dir / "tensorboard", labels)
    rows: list[Row] = []

    def on_epoch(row: Row) -> None:
        print(documents.metrics_line(row, labels), flush=True)
        rows.append(row)
        write_text(output_data_dir / "history.csv", documents.history_csv(rows, labels))
        if tensorboard is not None:
            tensorboard[0](row)

    try:
        return fit(
            config,
            data,
            preprocessing_spec=spec,
            device=device,
            pretrained=pretrained,
            on_epoch=on_epoch,
            is_stopping=is_stopping,
        )
    finally:
        if tensorboard is not None:
            tensorboard[1]()


def _report(
    config: TrainConfig,
    data: LoadedDataset,
    result: FitResult,
    provenance: Mapping[str, Any],
    device: torch.device,
    model_dir: Path,
    output_data_dir: Path,
) -> None:
    """Score the artifact in `model_dir` and write metrics, model card and the probabilities of every scored image."""
    split = "test" if data.dataset.test else "validation"
    records = data.dataset.split(split)
    predictor = Predictor.read(model_dir, device.type)
    probabilities = score_files(predictor, records, what=f"scoring the {split} split")
    targets = np.array([record.label for record in records])
    metrics = {
        "model_version": predictor.model_version,
        "split": split,
        "note": "" if split == "test" else VALIDATION_NOTE,
        **report(probabilities, targets, [record.group for record in records], data.dataset.labels, seed=config.seed),
        "best_epoch": result.best_epoch,
        "unreadable_images": {name: list(names) for name, names in data.unreadable.items()},
        "dataset_fingerprint": data.dataset.fingerprint,
    }
    add_document(model_dir, "metrics.json", documents.as_json(metrics))
    card = documents.model_card(data.dataset, metrics, config.model_dump(), provenance)
    add_document(model_dir, "README.md", card)
    write_text(output_data_dir / "metrics.json", documents.as_json(metrics))
    write_text(
        output_data_dir / f"{split}_predictions.csv",
        documents.predictions_csv(records, probabilities, data.dataset.labels),
    )
    print(
        " ".join(
            f"{split}_{name}={float('nan') if metrics[name] is None else metrics[name]:.6g};"
            for name in ("loss", "accuracy", "balanced_accuracy", "auc")
        ),
        flush=True,
    )


def score_files(predictor: Predictor, records: Sequence[Record], *, what: str) -> np.ndarray:
    """Answer image files as a server does.

    Returns:
        float64 (N, K).
    """
    parts = []
    starts = range(0, len(records), SCORING_BATCH)
    for start in track(starts, total=len(starts), what=what):
        samples = [Sample(record.image, PICTURE_FORMATS) for record in records[start : start + SCORING_BATCH]]
        parts.append(class_probabilities(predictor.logits(predictor.load(samples))).numpy())
    return np.concatenate(parts)


def _summary(dataset: Dataset) -> str:
    counts = ", ".join(f"{len(dataset.split(split))} {split}" for split in SPLITS)
    return f"{len(dataset.labels)} classes, images: {counts}; fingerprint {dataset.fingerprint[:12]}"


def _train_config(config: TrainConfig, data: LoadedDataset, result: FitResult) -> dict[str, Any]:
    """configs/train.json."""
    return {
        "hyperparameters": config.model_dump(),
        "augmentation": AUGMENTATIONS[config.augmentation],
        "dataset_fingerprint": data.dataset.fingerprint,
        "images": {split: len(data.dataset.split(split)) for split in SPLITS},
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "precision": result.precision,
        "pretrained": None if result.pretrained is None else result.pretrained.summary(),
    }


def _provenance(dataset: Dataset, result: FitResult, device: torch.device) -> dict[str, Any]:
    import monai

    return {
        "package_version": __version__,
        "python_version": platform.python_version(),
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": result.precision,
        "dataset_fingerprint": dataset.fingerprint,
    }
