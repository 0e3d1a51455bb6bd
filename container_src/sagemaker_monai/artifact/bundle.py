"""The model artifact on disk, a MONAI Bundle in file layout: write it, read it, and refuse it if anything is wrong.

    configs/metadata.json     versions, task, network_data_format (its channel_def binds each output to its class)
    configs/inference.json    network_def, preprocessing, inferer, postprocessing: names and numbers only; and run
    configs/train.json        hyperparameters, augmentation, data set fingerprint
    configs/checksums.json    SHA-256 of the four files that decide an answer
    models/model.pt           state_dict
    docs/                     metrics.json, README.md: what was measured, not what is computed

MONAI's tools can build and run it (`python -m monai.bundle run`, see `monai_run`). We use the layout but not MONAI's
parser, whose configurations can run code: only the targets that our own tables write are built. The checksums reveal
a changed weight, label or preprocessing number, and `model_version` is a digest of them, so metrics and answers name
exactly the artifact they came from.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sagemaker_monai.errors import BundleError
from sagemaker_monai.images.scope import Scope, read_scope, write_scope
from sagemaker_monai.networks.networks import build_network
from sagemaker_monai.preprocessing.preprocessing import Preprocessing, build_preprocessing
from sagemaker_monai.storage.files import sha256_of, write_text
from sagemaker_monai.tasks.label_codes import LabelCodes, read_codes, write_codes
from sagemaker_monai.tasks.task import Task
from sagemaker_monai.tasks.tasks import TASKS, read_task

METADATA, INFERENCE, TRAIN = "configs/metadata.json", "configs/inference.json", "configs/train.json"
CHECKSUMS, WEIGHTS, METRICS = "configs/checksums.json", "models/model.pt", "docs/metrics.json"
CHECKED_FILES = (METADATA, INFERENCE, TRAIN, WEIGHTS)
STAGING = ".writing-"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
REMEDY = "train again, or deploy the model.tar.gz exactly as training wrote it"

TRAINED_ON, CODES = "trained_on", "label_codes"  # in the provenance of configs/metadata.json
COMPOSE = "monai.transforms.Compose"
# What `python -m monai.bundle run` looks for, without expressions; artifacts from earlier versions lack it.
RUN_SECTION = {
    "bundle_root": ".",
    "image": "",
    "run": {
        "_target_": "sagemaker_monai.artifact.monai_run.run_image",
        "image": "@image",
        "bundle_root": "@bundle_root",
        "network": "@network_def",
        "preprocessing": "@preprocessing",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "labels": "@_meta_::network_data_format::outputs::pred::channel_def",
    },
}


@dataclass(frozen=True)
class Bundle:
    """A checked artifact.

    Attributes:
        labels: names in the order of the answers.
        task: from the network's outputs to answers and predictions.
        preprocessing: from an image to the network's input.
        network: in evaluation mode, on the CPU, with the artifact's weights.
        network_def: what the network was built from.
        metadata: configs/metadata.json.
        model_version: 12 hexadecimal digits, the digest of everything that decides an answer.
        scope: what it was trained on; None in artifacts from versions that did not record it.
        codes: what labels are in the words of DICOM; those without are left out.
        mirrored_axes: of the image, along which the network also sees it mirrored, see `sliding_window.mirrored`.
    """

    labels: tuple[str, ...]
    task: Task
    preprocessing: Preprocessing
    network: nn.Module
    network_def: dict[str, Any]
    metadata: dict[str, Any]
    model_version: str
    scope: Scope | None = None
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)
    mirrored_axes: tuple[int, ...] = ()


def write_bundle(
    folder: Path,
    *,
    network_def: Mapping[str, Any],
    preprocessing: list[dict[str, Any]],
    task: Task,
    weights: Mapping[str, torch.Tensor],
    train_config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    scope: Scope | None = None,
    codes: Mapping[str, LabelCodes] | None = None,
    mirrored_axes: Sequence[int] = (),
) -> str:
    """Write an artifact; an existing one stays until the new one is complete on disk.

    Args:
        folder: the model directory; created if missing. Files in it that are not the artifact's stay.
        network_def: from `networks.network_def`.
        preprocessing: from `presets.preprocessing_for`.
        task: fitted to the data.
        weights: state_dict.
        train_config: what goes into configs/train.json.
        provenance: versions and the data set's fingerprint, for configs/metadata.json.
        scope: what it was trained on.
        codes, mirrored_axes: see `Bundle`.

    Returns:
        The model_version.

    Raises:
        BundleError: the parts do not fit together; nothing is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Inside the folder, because SageMaker mounts it and a rename must not cross file systems.
    for leftover in folder.glob(f"{STAGING}*"):  # of a killed process; SageMaker would pack it
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
    try:
        (staging / "configs").mkdir()
        (staging / "models").mkdir()
        told = dict(provenance) | ({} if scope is None else {TRAINED_ON: write_scope(scope)})
        told |= {CODES: {label: write_codes(each) for label, each in codes.items()}} if codes else {}
        built = build_preprocessing(preprocessing)
        _write_json(staging / METADATA, _metadata(task, built, told))
        _write_json(
            staging / INFERENCE,
            {
                "network_def": dict(network_def),
                "preprocessing": {"_target_": COMPOSE, "transforms": preprocessing},
                "inferer": dict(TASKS[task.name].inferer(built.size, mirrored_axes)),
                "postprocessing": {"_target_": COMPOSE, "transforms": task.postprocessing()},
                **RUN_SECTION,
            },
        )
        _write_json(staging / TRAIN, train_config)
        serialized = io.BytesIO()  # torch's own file writer reports a full disk as an internal error
        torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, serialized)
        (staging / WEIGHTS).write_bytes(serialized.getbuffer())
        _write_json(staging / CHECKSUMS, {name: sha256_of(staging / name) for name in CHECKED_FILES})
        bundle = read_bundle(staging)
        for name in (*CHECKED_FILES, CHECKSUMS):
            _sync(staging / name)
        # Documents describe the artifact beside them, so those of the replaced one go first.
        shutil.rmtree(folder / "docs", ignore_errors=True)
        for name in (*CHECKED_FILES, CHECKSUMS):
            (folder / name).parent.mkdir(exist_ok=True)
            (staging / name).replace(folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return bundle.model_version


def add_document(folder: Path, name: str, text: str) -> None:
    """Put a document (`metrics.json`, `README.md`) under the artifact's docs/, replacing it in one step."""
    path = folder / "docs" / name
    path.parent.mkdir(exist_ok=True)
    write_text(path, text)


def read_bundle(folder: Path) -> Bundle:
    """Read and check an artifact.

    Raises:
        BundleError: a file or key is missing or extra, a checksum or shape differs, a target is not in our tables,
            classes and outputs disagree, or docs/metrics.json was measured on another model.
    """
    checksums = _read_json(folder, CHECKSUMS, keys=set(CHECKED_FILES))
    for name in CHECKED_FILES:
        if not (folder / name).is_file():
            raise BundleError(f"the artifact has no {name}; {REMEDY}")
        if sha256_of(folder / name) != checksums[name]:
            raise BundleError(f"{name} is not the file that training wrote (its SHA-256 differs); {REMEDY}")
    model_version = sha256_of(folder / CHECKSUMS)[:12]
    _check_metrics(folder, model_version)

    metadata = _read_json(folder, METADATA, keys=METADATA_KEYS)
    keys = {"network_def", "preprocessing", "inferer", "postprocessing", *RUN_SECTION}
    inference = _read_json(folder, INFERENCE, keys=keys, defaults=RUN_SECTION)
    preprocessing = build_preprocessing(_compose_transforms(inference["preprocessing"], "preprocessing"))
    labels, channels = _data_format(metadata)
    task = read_task(_compose_transforms(inference["postprocessing"], "postprocessing"), labels)
    axes = _mirrored_axes(inference["inferer"], preprocessing.spatial_dims)
    for name, value in {"inferer": TASKS[task.name].inferer(preprocessing.size, axes), **RUN_SECTION}.items():
        if inference[name] != value:
            raise BundleError(f"{name} in {INFERENCE} is not what this program writes; {REMEDY}")
    if channels != preprocessing.channels:
        raise BundleError(f"{METADATA} says {channels} channels, the preprocessing makes {preprocessing.channels}")
    network = build_network(inference["network_def"])
    load_weights(network, folder / WEIGHTS)
    network.eval()
    _check_outputs(network, preprocessing, task)
    return Bundle(
        labels=labels,
        task=task,
        preprocessing=preprocessing,
        network=network,
        network_def=inference["network_def"],
        metadata=metadata,
        model_version=model_version,
        scope=_scope(metadata),
        codes=_codes(metadata, labels),
        mirrored_axes=axes,
    )


METADATA_KEYS = {
    "version",
    "task",
    "description",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "network_data_format",
    "provenance",
}


def _metadata(task: Task, preprocessing: Preprocessing, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """configs/metadata.json by MONAI's schema; what the schema lacks is under `provenance`."""
    channels, size = preprocessing.channels, list(preprocessing.size)
    row = TASKS[task.name]
    words, output = row.schema
    names = "RGB" if channels == 3 else "L" if channels == 1 else [f"channel {i}" for i in range(channels)]
    return {
        "version": "0.1.0",
        "task": f"image {words}",
        "description": f"{len(size)}-D image {row.model}",
        "monai_version": provenance.get("monai_version", ""),
        "pytorch_version": provenance.get("pytorch_version", ""),
        "numpy_version": provenance.get("numpy_version", ""),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "RGB" if channels == 3 else "magnitude",
                    "num_channels": channels,
                    "spatial_shape": size,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(index): name for index, name in enumerate(names)},
                }
            },
            "outputs": {
                "pred": {
                    **output,
                    "num_channels": len(task.labels),
                    "channel_def": {str(index): label for index, label in enumerate(task.labels)},
                }
            },
        },
        "provenance": dict(provenance),
    }


def _scope(metadata: dict[str, Any]) -> Scope | None:
    """What the artifact was trained on, if it says so."""
    provenance = metadata["provenance"]
    is_known = isinstance(provenance, dict) and TRAINED_ON in provenance
    return read_scope(provenance[TRAINED_ON]) if is_known else None


def _codes(metadata: dict[str, Any], labels: Sequence[str]) -> dict[str, LabelCodes]:
    """The codes of labels, if the artifact has some."""
    provenance = metadata["provenance"]
    told = provenance.get(CODES, {}) if isinstance(provenance, dict) else {}
    if not isinstance(told, dict) or not set(told) <= set(labels):
        raise BundleError(f"{METADATA} has codes of what is no label; {REMEDY}")
    try:
        return {label: read_codes(each) for label, each in told.items()}
    except ValueError as error:
        raise BundleError(f"{METADATA}: {error}; {REMEDY}") from error


def _mirrored_axes(inferer: Any, spatial_dims: int) -> tuple[int, ...]:
    """The axes that an inferer names; none if they are not axes of an image, and then it is not what we write."""
    axes = inferer.get("mirrored_axes") if isinstance(inferer, dict) else None
    if not isinstance(axes, list) or not all(type(axis) is int and 0 <= axis < spatial_dims for axis in axes):
        return ()
    return tuple(axes) if axes == sorted(set(axes)) else ()


def _data_format(metadata: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """The class names in output order and the number of input channels."""
    try:
        data_format = metadata["network_data_format"]
        channel_def = data_format["outputs"]["pred"]["channel_def"]
        labels = tuple(channel_def[str(index)] for index in range(len(channel_def)))
        outputs = data_format["outputs"]["pred"]["num_channels"]
        channels = data_format["inputs"]["image"]["num_channels"]
    except (KeyError, TypeError) as error:
        raise BundleError(f"network_data_format in {METADATA} lacks {error}; {REMEDY}") from error
    if outputs != len(labels):
        raise BundleError(f"{METADATA} says {outputs} outputs and names {len(labels)} classes")
    if not labels or not all(isinstance(x, str) and x for x in labels) or len(set(labels)) != len(labels):
        raise BundleError(f"{METADATA} must name different classes")
    return labels, channels


def _compose_transforms(config: Any, what: str) -> list[dict[str, Any]]:
    """The steps of a `Compose`."""
    steps = config.get("transforms") if isinstance(config, dict) else None
    if not isinstance(steps, list) or config != {"_target_": COMPOSE, "transforms": steps}:
        raise BundleError(f"{what} in {INFERENCE} must be a Compose of transforms")
    return steps


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill every parameter and buffer of the network from the file, all of them or none.

    Raises:
        BundleError: the file is not a state_dict that can be loaded safely, does not fit, or has non-finite values.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken file; its text may quote the file
        raise BundleError(
            f"{WEIGHTS} is not a state_dict that can be loaded safely ({type(error).__name__})"
        ) from error
    if not isinstance(weights, dict) or not all(map(_is_plain_tensor, weights.values())):
        raise BundleError(f"{WEIGHTS} must be a state_dict of dense tensors and nothing else")
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or extra:
        raise BundleError(
            f"{WEIGHTS} does not fit network_def: {len(missing)} keys missing {missing[:3]}, "
            f"{len(extra)} keys extra {extra[:3]}"
        )
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape or weights[name].dtype != tensor.dtype:
            raise BundleError(
                f"{WEIGHTS}: {name} is {tuple(weights[name].shape)} {weights[name].dtype}, "
                f"network_def makes {tuple(tensor.shape)} {tensor.dtype}"
            )
        if tensor.is_floating_point() and not torch.isfinite(weights[name]).all():
            raise BundleError(f"{WEIGHTS}: {name} holds values that are not finite; train again")
    network.load_state_dict(weights, strict=True)


def _is_plain_tensor(value: Any) -> bool:
    """Sparse tensors cannot be checked, nor can those of the meta device, which have no values."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _check_outputs(network: nn.Module, preprocessing: Preprocessing, task: Task) -> None:
    """Send one black image through the network, which must give as many numbers as the task reads."""
    try:
        with torch.inference_mode():
            output = network(torch.zeros(1, preprocessing.channels, *preprocessing.size))
    except (RuntimeError, ValueError) as error:
        size = "x".join(map(str, preprocessing.size))
        raise BundleError(f"the network does not take the {size} images that preprocessing makes") from error
    expected = (1, task.outputs, *(preprocessing.size if TASKS[task.name].has_masks else ()))
    if output.shape != expected:
        raise BundleError(
            f"the network has {output.shape[1]} outputs and the artifact names {len(task.labels)} classes, "
            f"for which {task.name} has {task.outputs}"
        )


def _check_metrics(folder: Path, model_version: str) -> None:
    """Refuse metrics that were measured on another model."""
    if not (folder / METRICS).is_file():
        return
    metrics = _read_json(folder, METRICS)
    if metrics.get("model_version") != model_version:
        raise BundleError(f"{METRICS} was measured on another model than the one beside it; {REMEDY}")


def _read_json(
    folder: Path, name: str, *, keys: set[str] | None = None, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read a configuration file; with `keys`, it must have exactly these, counting `defaults`."""
    path = folder / name
    if not path.is_file():
        raise BundleError(f"the artifact has no {name}; {_nested_remedy(folder, name) or REMEDY}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise BundleError(f"{name} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON; {REMEDY}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{name} must be a JSON object; {REMEDY}")
    value = {**(defaults or {}), **value}
    if keys is not None and value.keys() != keys:
        missing, extra = sorted(keys - value.keys()), sorted(value.keys() - keys)
        raise BundleError(f"{name}: keys missing {missing}, keys extra {extra[:5]}; {REMEDY}")
    return value


def _nested_remedy(folder: Path, name: str) -> str:
    """What to do if an artifact lies one folder down, or is still packed; otherwise ""."""
    if inner := sorted(path.relative_to(folder).parts[0] for path in folder.glob(f"*/{name}")):
        return f"one lies in the folder {inner[0][:60]}/: pack what is in that folder, and not the folder itself"
    return "model.tar.gz is still packed: unpack it" if (folder / "model.tar.gz").is_file() else ""


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
