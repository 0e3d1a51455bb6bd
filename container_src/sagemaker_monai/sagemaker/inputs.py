"""The inputs of a job: hyperparameters, channels and folders, as SageMaker or a shell sets them.

Folders are those in `SM_*` variables, else those of the /opt/ml tree, which `SAGEMAKER_BASE_DIR` moves.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_inference import parameters

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.storage.files import children

PLACES = {
    parameters.BASE_PATH_ENV: "the tree of all other places, default /opt/ml",
    "SM_HPS": "hyperparameters as a JSON object, default <base>/input/config/hyperparameters.json",
    "SM_CHANNEL_<NAME>": "folder of an input channel, default every folder in <base>/input/data",
    "SM_MODEL_DIR": "where the artifact goes, default <base>/model",
    "SM_OUTPUT_DIR": "where the failure file goes, default <base>/output",
    "SM_OUTPUT_DATA_DIR": "where metrics, history and predictions go, default <base>/output/data",
    "SM_CHECKPOINT_DIR": "where checkpoints go and are looked for, default <base>/checkpoints",
    "SM_HOSTS": "all hosts of the job as a JSON list of names, default as <base>/input/config/resourceconfig.json says",
    "SM_CURRENT_HOST": "which of them this one is, default as that file says",
    "SM_NETWORK_INTERFACE_NAME": "network interface between the hosts, default as that file says",
    "HOSTS_TIMEOUT_SECONDS": "how long the hosts of a job wait for each other at its start, default 300",
    "MASTER_PORT": "port of the first host where they meet, default 29500",
    "TMPDIR": "where decoded images are kept while training",
}
CHANNEL_PREFIX = "SM_CHANNEL_"


def without_blanks(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are not empty or blank, because compose's `${NAME}` leaves an unset variable empty.

    A byte order mark before a value, which PowerShell writes into files of variables, is removed.
    """
    return {name: text for name, value in environment.items() if (text := value.removeprefix("\ufeff")).strip()}


def base_folder(environment: Mapping[str, str]) -> Path:
    """The folder tree that SageMaker lays out."""
    return Path(without_blanks(environment).get(parameters.BASE_PATH_ENV) or "/opt/ml")


@dataclass(frozen=True)
class Places:
    """Where a job reads and writes."""

    base: Path
    model: Path
    output: Path
    output_data: Path
    checkpoints: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Places":
        """Read the places; nothing is created."""
        environment = without_blanks(environment)
        base = base_folder(environment)
        output = Path(environment.get("SM_OUTPUT_DIR") or base / "output")
        return cls(
            base=base,
            model=Path(environment.get("SM_MODEL_DIR") or base / "model"),
            output=output,
            output_data=Path(environment.get("SM_OUTPUT_DATA_DIR") or output / "data"),
            checkpoints=Path(environment.get("SM_CHECKPOINT_DIR") or base / "checkpoints"),
        )


def read_hyperparameters(argv: Sequence[str], places: Places, environment: Mapping[str, str]) -> dict[str, Any]:
    """The given hyperparameters: SM_HPS or else the file, overridden by the command line.

    Raises:
        ConfigError: not a JSON object, or an argument that is not `--name value`.
    """
    file = places.base / "input" / "config" / "hyperparameters.json"
    source, text = "SM_HPS", without_blanks(environment).get("SM_HPS")
    if text is None and file.is_file():
        source, text = file.name, file.read_text(encoding="utf-8-sig", errors="replace")
    try:
        given = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not JSON: give an object of names and values") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{source} must be a JSON object of names and values, got {type(given).__name__}")
    by_name = {str(name).replace("-", "_"): name for name in given}
    for name, value in _parse_arguments(argv):
        given.pop(by_name.get(name, name), None)
        given[name] = value
        by_name[name] = name
    return given


def _parse_arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    remaining = list(argv)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--") or argument == "--":
            raise ConfigError(f"unexpected argument {argument[:40]!r}: write --name value, see train --help")
        name, equals, value = argument.removeprefix("--").partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ConfigError(f"--{name[:40]} has no value: write --{name[:40]} value, see train --help")
            value = remaining.pop(0)
        yield name.replace("-", "_"), value


def read_channels(places: Places, environment: Mapping[str, str]) -> dict[str, Path]:
    """Name and folder of every channel.

    Raises:
        ConfigError: a channel is in Pipe mode.
    """
    _refuse_pipes(places)
    named = {
        name.removeprefix(CHANNEL_PREFIX).lower(): Path(value)
        for name, value in without_blanks(environment).items()
        if name.startswith(CHANNEL_PREFIX)
    }
    folder = places.base / "input" / "data"
    if named or not folder.is_dir():
        return named
    return {path.name: path for path in children(folder) if path.is_dir()}


def make_folders(places: Places) -> None:
    """Make the folders that a job writes to.

    Raises:
        ConfigError: one cannot be written.
    """
    for folder, variable in (
        (places.model, "SM_MODEL_DIR"),
        (places.output_data, "SM_OUTPUT_DATA_DIR"),
        (places.checkpoints, "SM_CHECKPOINT_DIR"),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"a folder cannot be written ({error.strerror}): set {variable} or SAGEMAKER_BASE_DIR to one that can"
            ) from error


def _refuse_pipes(places: Places) -> None:
    """Refuse Pipe mode, in which a channel is one stream per epoch: training reads files by name, and repeatedly."""
    file = places.base / "input" / "config" / "inputdataconfig.json"
    try:
        channels = json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file.name} is not JSON: leave it as SageMaker writes it") from error
    items = channels.items() if isinstance(channels, dict) else ()
    pipes = {name for name, value in items if isinstance(value, dict) and value.get("TrainingInputMode") == "Pipe"}
    folder = places.base / "input" / "data"
    if folder.is_dir():
        pipes |= {re.sub(r"_[0-9]+$", "", path.name) for path in folder.iterdir() if path.is_fifo()}
    if pipes:
        raise ConfigError(
            f"channels in Pipe mode: {', '.join(sorted(pipes))[:200]}; set TrainingInputMode to File or FastFile"
        )
