"""The prediction after a deployment, which must be right: what is sent, and what must come back.

A training job of ours has scored its test split and written each picture's probabilities (test_predictions.csv). A few
of those pictures are sent from the job's own channels, and the endpoint must say the same. Where the pictures cannot be
had one by one (shards) or the artifact is of no job, a grey picture must get a well-formed answer with the artifact's
classes; `--smoke FILE=CLASS` sends one whose class is known.
"""

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.ask import CONTENT_TYPES
from scripts.asking import Source
from scripts.aws.account import Account
from scripts.aws.errors import CommandError
from scripts.aws.instances import has_gpu
from scripts.aws.listing import one
from scripts.aws.names import folder_uri, split_s3
from scripts.aws.places import read_object
from scripts.aws.trained import Trained
from scripts.endpoints import Answer
from scripts.launch_training import member_of

PREDICTIONS = "test_predictions.csv"
METADATA = "configs/metadata.json"
COLUMNS = ("image", "label", "predicted")  # before those of the classes
PICTURES = 3
SAME_KIND, OTHER_KIND = 1e-3, 2e-2  # of probabilities, where job and endpoint both or not both have a GPU
SUM_TOLERANCE = 1e-3
MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class Probe:
    """One input and what its answer must be.

    Attributes:
        source: the input.
        labels: the names of the classes, nothing where they are not known.
        probabilities: of each class, nothing where they are not known.
        predicted: the class, empty where it is not known.
        tolerance: of a probability.
    """

    source: Source
    labels: frozenset[str] = frozenset()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    predicted: str = ""
    tolerance: float = SAME_KIND


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
        return [_of_file(asked, _labels(account, trained))]
    rows = _test_rows(account, trained.job) if trained.job else []
    probes = list(_of_rows(account, trained.job, rows, instance_type))
    if probes:
        return probes
    labels = frozenset(rows[0]) - frozenset(COLUMNS) if rows else _labels(account, trained)
    path = folder / "grey.png"
    Image.new("RGB", (64, 64), (128, 128, 128)).save(path)
    return [Probe(Source("a grey picture", path.name, "image/png", path.stat().st_size, path), labels)]


def _of_file(asked: str, labels: frozenset[str]) -> Probe:
    path, predicted = Path(asked), ""
    if not path.is_file() and "=" in asked:
        name, _, predicted = asked.rpartition("=")
        path = Path(name)
    if not path.is_file() or path.suffix.lower() not in CONTENT_TYPES:
        raise CommandError(f"--smoke takes FILE or FILE=CLASS, a picture on this machine, got {asked!r}")
    source = Source(path.name, path.name, CONTENT_TYPES[path.suffix.lower()], path.stat().st_size, path)
    return Probe(source, labels, predicted=predicted)


def _of_rows(
    account: Account, job: Mapping[str, Any], rows: list[dict[str, str]], instance_type: str
) -> Iterator[Probe]:
    """Pictures from all over the test split, which is in the order of classes or patients."""
    channels = [each["DataSource"]["S3DataSource"]["S3Uri"] for each in job.get("InputDataConfig", [])
                if "S3DataSource" in each["DataSource"]]  # fmt: skip
    trained_on = str(job.get("ResourceConfig", {}).get("InstanceType", ""))
    is_same_kind = has_gpu(trained_on) == has_gpu(instance_type)
    for row in rows[:: max(1, -(-len(rows) // PICTURES))]:
        name = row["image"].removeprefix("./")
        content_type = CONTENT_TYPES.get(Path(name).suffix.lower())
        found = next(filter(None, (one(account, folder_uri(uri) + name) for uri in channels)), None)
        if found is None or content_type is None:
            continue
        probabilities = {label: float(value) for label, value in row.items() if label not in COLUMNS}
        yield Probe(
            Source(found.uri, found.name, content_type, found.size_bytes, found),
            frozenset(probabilities),
            probabilities,
            row["predicted"],
            SAME_KIND if is_same_kind else OTHER_KIND,
        )


def _test_rows(account: Account, job: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the job's test_predictions.csv, nothing where it has none."""
    if not {"OutputDataConfig", "TrainingJobName"} <= set(job) or not account.is_known:
        return []
    output = f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job['TrainingJobName']}/output"
    if job["OutputDataConfig"].get("CompressionType") == "NONE":
        text = read_object(account, f"{output}/data/{PREDICTIONS}", most_bytes=MOST_BYTES)
    else:
        archive = read_object(account, f"{output}/output.tar.gz", most_bytes=MOST_BYTES)
        text = None if archive is None else member_of(archive, PREDICTIONS)
    return [] if text is None else list(csv.DictReader(io.StringIO(text.decode())))


def _labels(account: Account, trained: Trained) -> frozenset[str]:
    """Class names of an artifact, nothing where it is another model's; an archive is read as far as its metadata."""
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
        return frozenset(json.loads(text or "{}")["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    except (KeyError, TypeError, ValueError):
        return frozenset()


def fault_of(probe: Probe, answer: Answer) -> str | None:
    """What is wrong with an answer, with what was expected and what came; None if it is right."""
    if answer.code:
        return f"an answer was expected, got {answer.code}: {answer.message}"
    try:
        [prediction] = json.loads(answer.body)["predictions"]
        # The table of a job marks names that a spreadsheet would compute; so both are without the mark.
        got = {_plain(name): float(value) for name, value in prediction["probabilities"].items()}
        predicted = _plain(prediction["predicted_class"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"one prediction with probabilities was expected, got {answer.body[:200]!r}"
    labels = {_plain(name) for name in probe.labels}
    if labels and set(got) != labels:
        return f"the classes {', '.join(sorted(labels))} were expected, got {', '.join(sorted(got))}"
    if abs(sum(got.values()) - 1) > SUM_TOLERANCE or not all(0 <= value <= 1 for value in got.values()):
        return f"probabilities that sum to 1 were expected, got {got}"
    if predicted not in got or got[predicted] < max(got.values()):
        return f"the most probable class was expected, got {predicted!r} of {got}"
    wanted = {_plain(name): value for name, value in probe.probabilities.items()}
    for name, value in wanted.items():
        if abs(got[name] - value) > probe.tolerance:
            return f"{name}={value:.6f} was expected within {probe.tolerance:g}, got {got[name]:.6f}"
    expected = _plain(probe.predicted)
    # Two classes that are as probable within the tolerance may change places.
    is_tie = bool(wanted) and wanted[expected] - wanted.get(predicted, 0.0) <= 2 * probe.tolerance
    if expected and predicted != expected and not is_tie:
        return f"the class {expected!r} was expected, got {predicted!r}"
    return None


def _plain(name: str) -> str:
    return name.removeprefix("'")
