"""The check after a deployment: which images are sent, and which answers are expected.

A training job of ours has scored its test split and written each image's numbers (test_predictions.csv). A few of those
images are sent from the job's own channels, series of DICOM files as zips, and the endpoint must say the same; of masks
as many voxels of each structure, as far as the job wrote them down. Where the images are not available one by one
(shards) or the artifact is of no job, a grey picture or volume must get a well-formed answer with the artifact's
labels; `--smoke FILE=CLASS` sends one whose class is known.
"""

import csv
import io
import itertools
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagemaker_monai_aws.client.asking import Source
from sagemaker_monai_aws.client.content_types import DICOM, SERIES, size_of, type_of_file, type_of_name
from sagemaker_monai_aws.client.endpoints import Answer
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.instances import has_gpu
from sagemaker_monai_aws.core.listing import below, one
from sagemaker_monai_aws.core.names import folder_uri, split_s3
from sagemaker_monai_aws.core.places import read_object
from sagemaker_monai_aws.core.trained import MOST_OUTPUT_BYTES, Trained, read_output

PREDICTIONS = "test_predictions.csv"
METADATA = "configs/metadata.json"
COLUMNS = ("image", "label", "predicted")  # before those of the classes; a table of masks has no predicted
PICTURES = 3
SAME_KIND, OTHER_KIND = 1e-3, 2e-2  # of probabilities, where job and endpoint both or not both have a GPU
SUM_TOLERANCE = 1e-3
VOXELS = "answered_voxels"  # the column of a table of masks; jobs of older versions have none
FEW_VOXELS = 8  # of a structure that may differ, however small it is: those where two labels are as likely


@dataclass(frozen=True)
class Probe:
    """One input and what its answer must be.

    Attributes:
        source: the input.
        labels: the names of the labels, nothing where they are not known.
        numbers: of each label, nothing where they are not known; of masks voxels.
        predicted: class, or classes with | between them; empty where it is not known.
        tolerance: of a probability, and of other numbers as a share of them; see `FEW_VOXELS` too.
    """

    source: Source
    labels: frozenset[str] = frozenset()
    numbers: Mapping[str, float] = field(default_factory=dict)
    predicted: str = ""
    tolerance: float = SAME_KIND


@dataclass(frozen=True)
class Network:
    """The artifact's labels, input channels and size; by default a photograph's."""

    labels: frozenset[str] = frozenset()
    channels: int = 3
    size: tuple[int, ...] = (64, 64)


def find_probes(account: Account, trained: Trained, instance_type: str, asked: str | None, folder: Path) -> list[Probe]:
    """What to send.

    Args:
        account: where the job's output and data lie.
        trained: what is deployed.
        instance_type: of the endpoint, empty for a serverless one.
        asked: FILE or FILE=CLASS, on this machine; None takes the job's test split.
        folder: for a picture that is drawn.

    Raises:
        CommandError: there is no such file.
    """
    if asked:
        return [_of_file(asked, _network(account, trained).labels)]
    rows = _test_rows(account, trained.job) if trained.job else []
    probes = list(_of_rows(account, trained.job, rows, instance_type))
    if probes:
        return probes
    network = _network(account, trained)
    is_of_numbers = bool(rows) and not _is_of_masks(rows)
    labels = frozenset(rows[0]) - frozenset(COLUMNS) if is_of_numbers else network.labels
    return [Probe(_drawn(network, folder), labels)]


def _drawn(network: Network, folder: Path) -> Source:
    """A grey picture, or for networks of other images a ramp of their input size."""
    if len(network.size) == 2 and network.channels == 3:
        path = folder / "grey.png"
        Image.new("RGB", (64, 64), (128, 128, 128)).save(path)
        return Source("a grey picture", path.name, "image/png", path.stat().st_size, path)
    path = folder / "ramp.npy"
    shape = (network.channels, *network.size)
    np.save(path, np.linspace(0, 1000, math.prod(shape), dtype=np.float32).reshape(shape))
    return Source("a drawn volume" if len(network.size) == 3 else "a drawn slice", path.name, "application/x-npy",
                  path.stat().st_size, path)  # fmt: skip


def _of_file(asked: str, labels: frozenset[str]) -> Probe:
    path, predicted = Path(asked), ""
    if not path.exists() and "=" in asked:
        name, _, predicted = asked.rpartition("=")
        path = Path(name)
    content_type = SERIES if path.is_dir() else type_of_file(path) if path.is_file() else None
    if content_type is None or not size_of(path):
        raise CommandError("--smoke takes FILE or FILE=CLASS, an image or the folder of a series on this machine, got "
                           f"{asked!r}")  # fmt: skip
    return Probe(Source(path.name, path.name, content_type, size_of(path), path), labels, predicted=predicted)


def _of_rows(
    account: Account, job: Mapping[str, Any], rows: list[dict[str, str]], instance_type: str
) -> Iterator[Probe]:
    """Pictures from all over the test split, which is in the order of classes or patients."""
    channels = [each["DataSource"]["S3DataSource"]["S3Uri"] for each in job.get("InputDataConfig", [])
                if "S3DataSource" in each["DataSource"]]  # fmt: skip
    trained_on = str(job.get("ResourceConfig", {}).get("InstanceType", ""))
    is_same_kind = has_gpu(trained_on) == has_gpu(instance_type)
    tolerance = SAME_KIND if is_same_kind else OTHER_KIND
    is_of_masks = _is_of_masks(rows)
    structures = frozenset(row["label"] for row in rows)
    voxels: dict[str, dict[str, float]] = {}  # of each structure of each image
    if is_of_masks:  # a row for each structure
        for row in rows:
            voxels.setdefault(row["image"], {}).update({row["label"]: float(row[VOXELS])} if VOXELS in row else {})
        rows = list({row["image"]: row for row in rows}.values())
    for row in rows[:: max(1, -(-len(rows) // PICTURES))]:
        name = _plain(row["image"]).removeprefix("./")
        source = next(filter(None, (_stored(account, folder_uri(uri), name) for uri in channels)), None)
        if source is None:
            continue
        if is_of_masks:
            yield Probe(source, structures, voxels[row["image"]], tolerance=tolerance)
            continue
        numbers = {label: float(value) for label, value in row.items() if label not in COLUMNS}
        yield Probe(source, frozenset(numbers), numbers, row["predicted"], tolerance)


def _is_of_masks(rows: list[dict[str, str]]) -> bool:
    return bool(rows) and "predicted" not in rows[0]


def _stored(account: Account, channel: str, name: str) -> Source | None:
    """An image of a channel: an object, or the objects of a series; None for one that no request can hold."""
    found = one(account, channel + name)
    if found is None:
        items = tuple(below(account, f"{channel}{name.rstrip('/')}/"))
        size = sum(item.size_bytes for item in items)
        return Source(f"{channel}{name}", name.rstrip("/"), SERIES, size, items) if items else None
    content_type = type_of_name(name) or (None if Path(name).suffix else DICOM)
    return Source(found.uri, found.name, content_type, found.size_bytes, found) if content_type else None


def _test_rows(account: Account, job: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the job's test_predictions.csv; none if it has no such file."""
    if not {"OutputDataConfig", "TrainingJobName"} <= set(job) or not account.is_known:
        return []
    text = read_output(account, job, PREDICTIONS, most_bytes=MOST_OUTPUT_BYTES)
    return [] if text is None else list(csv.DictReader(io.StringIO(text.decode())))


def _network(account: Account, trained: Trained) -> Network:
    """The artifact's metadata, if it is one of ours; an archive is read only as far as needed."""
    if trained.is_folder:
        text = read_object(account, trained.artifact + METADATA)
    else:
        bucket, key = split_s3(trained.artifact)
        body = account.client("s3").get_object(Bucket=bucket, Key=key)["Body"]
        try:
            with body, tarfile.open(fileobj=body, mode="r|gz") as tar:
                text = next((file.read() for member in tar
                             if member.isfile() and member.name.removeprefix("./") == METADATA
                             and (file := tar.extractfile(member))), None)  # fmt: skip
        except tarfile.TarError as error:
            raise CommandError(f"{trained.artifact} is no archive: name the model.tar.gz of a training job") from error
    try:
        known = json.loads(text or "{}")["network_data_format"]
        labels = frozenset(known["outputs"]["pred"]["channel_def"].values())
    except (KeyError, TypeError, ValueError):
        return Network()
    try:
        image = known["inputs"]["image"]
        return Network(labels, int(image["num_channels"]), tuple(map(int, image["spatial_shape"])))
    except (KeyError, TypeError, ValueError):
        return Network(labels)


def fault_of(probe: Probe, answer: Answer) -> str | None:
    """What is wrong with an answer, expected and received; None if it is right."""
    if answer.code:
        return f"an answer was expected, got {answer.code}: {answer.message}"
    try:
        [prediction] = json.loads(answer.body)["predictions"]
        kind = next(name for name in KINDS if name in prediction)
        # The table of a job marks names that a spreadsheet would compute; so both are without the mark.
        field_name = kind if kind in ("values", "sizes") else "probabilities"
        got = {_plain(name): float(value) for name, value in prediction[field_name].items()}
        fault = KINDS[kind](prediction, got)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return f"one prediction with probabilities, values or sizes was expected, got {answer.body[:200]!r}"
    labels = {_plain(name) for name in probe.labels}
    if labels and set(got) != labels:
        return f"the labels {', '.join(sorted(labels))} were expected, got {', '.join(sorted(got))}"
    if fault:
        return fault
    wanted = {_plain(name): value for name, value in probe.numbers.items()}
    if kind == "sizes":
        return _fault_of_voxels(prediction, wanted, probe.tolerance)
    for name, value in wanted.items():
        within = probe.tolerance * (max(1.0, abs(value)) if kind == "values" else 1.0)
        if not abs(got[name] - value) <= within:
            return f"{name}={value:.6f} was expected within {within:g}, got {got[name]:.6f}"
    predicted = set(_predicted(prediction))
    expected = {_plain(name) for name in probe.predicted.split("|")} - {""}
    if kind == "values" or predicted == expected or not (wanted or expected):
        return None
    if wanted and IS_TIE[kind](prediction, wanted, predicted ^ expected, 2 * probe.tolerance):
        return None
    return f"the class {'|'.join(sorted(expected))!r} was expected, got {'|'.join(sorted(predicted))!r}"


def _predicted(prediction: Mapping[str, Any]) -> list[str]:
    found = prediction.get("predicted_classes", [prediction.get("predicted_class")])
    return [_plain(name) for name in found if name is not None]


Numbers = Mapping[str, float]


def _fault_of_class(prediction: Mapping[str, Any], got: Numbers) -> str | None:
    if fault := _fault_of_grade(prediction, got):
        return fault
    [predicted] = _predicted(prediction)
    if got[predicted] < max(got.values()):
        return f"the most probable class was expected, got {predicted!r} of {got}"
    return None


def _fault_of_grade(prediction: Mapping[str, Any], got: Numbers) -> str | None:
    if abs(sum(got.values()) - 1) > SUM_TOLERANCE or not all(0 <= value <= 1 for value in got.values()):
        return f"probabilities that sum to 1 were expected, got {got}"
    [predicted] = _predicted(prediction)
    return None if predicted in got else f"one of the classes was expected, got {predicted!r} of {got}"


def _fault_of_findings(prediction: Mapping[str, Any], got: Numbers) -> str | None:
    if not all(0 <= value <= 1 for value in got.values()):
        return f"probabilities were expected, got {got}"
    least = {_plain(name): float(value) for name, value in prediction["thresholds"].items()}
    above = {name for name, value in got.items() if value >= least[name]}
    predicted = set(_predicted(prediction))
    return None if predicted == above else f"those above their thresholds were expected, got {sorted(predicted)}"


def _fault_of_values(_prediction: Mapping[str, Any], got: Numbers) -> str | None:
    return None if all(map(math.isfinite, got.values())) else f"finite numbers were expected, got {got}"


def _fault_of_sizes(prediction: Mapping[str, Any], got: Numbers) -> str | None:
    if not all(math.isfinite(value) and value >= 0 for value in got.values()):
        return f"sizes from 0 were expected, got {got}"
    voxels = {_plain(name): each["voxels"] for name, each in prediction["structures"].items()}
    is_known = set(voxels) == set(got) and all((voxels[name] > 0) == (got[name] > 0) for name in got)
    return None if is_known else f"as many voxels as sizes were expected, got {voxels} of {got}"


def _fault_of_voxels(prediction: Mapping[str, Any], wanted: Numbers, tolerance: float) -> str | None:
    for name, each in prediction["structures"].items():
        value = wanted.get(_plain(name), each["voxels"])
        within = max(FEW_VOXELS, tolerance * value)
        if abs(each["voxels"] - value) > within:
            return f"{value:.0f} voxels of {name} were expected within {within:.0f}, got {each['voxels']}"
    return None


# Field that identifies the kind of a prediction -> what must hold for every image. A grade has a class, too.
KINDS: dict[str, Callable[[Mapping[str, Any], Numbers], str | None]] = {
    "values": _fault_of_values,
    "sizes": _fault_of_sizes,
    "predicted_classes": _fault_of_findings,
    "grade": _fault_of_grade,
    "predicted_class": _fault_of_class,
}


def _is_tie_of_classes(_prediction: Mapping[str, Any], wanted: Numbers, differing: set[str], within: float) -> bool:
    """Two classes that are as probable within the tolerance may change places."""
    values = [wanted.get(name, 0.0) for name in differing]
    return max(values) - min(values) <= within


def _is_tie_of_findings(prediction: Mapping[str, Any], wanted: Numbers, differing: set[str], within: float) -> bool:
    """A finding at its threshold may be there or not."""
    least = {_plain(name): value for name, value in prediction["thresholds"].items()}
    return all(abs(wanted[name] - least[name]) <= within for name in differing if name in wanted)


def _is_tie_of_grades(_prediction: Mapping[str, Any], wanted: Numbers, _differing: set[str], within: float) -> bool:
    """The median is between two grades where those below are as likely as those above."""
    below_each = itertools.accumulate(wanted.values())
    return any(abs(share - 0.5) <= within * len(wanted) for share in below_each)


IS_TIE: dict[str, Callable[[Mapping[str, Any], Numbers, set[str], float], bool]] = {
    "predicted_classes": _is_tie_of_findings,
    "grade": _is_tie_of_grades,
    "predicted_class": _is_tie_of_classes,
}


def _plain(name: str) -> str:
    return name.removeprefix("'")
