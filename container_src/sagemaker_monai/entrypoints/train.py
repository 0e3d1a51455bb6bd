"""`train`: runs a training job, which writes an artifact and a report, or one line in the failure file.

One process on one host trains here; `launch` starts several, and `own_script` handles a job with its own script. In the
image the training toolkit calls `run_in_toolkit`; everywhere else `main` is the command itself.
"""

import errno
import logging
import os
import shutil
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagemaker_monai.errors import CallerError, ConfigError, failure_line
from sagemaker_monai.hyperparameters import TrainConfig, hyperparameter_rows
from sagemaker_monai.messages.item_names import NAMES_FILE, current, masked_output
from sagemaker_monai.sagemaker import own_script
from sagemaker_monai.sagemaker.cluster import Cluster, read_cluster, read_limits, wait_for_hosts
from sagemaker_monai.sagemaker.environment import library_defaults
from sagemaker_monai.sagemaker.inputs import PLACES, Places, make_folders, read_channels, read_hyperparameters
from sagemaker_monai.sagemaker.launch import ProcessesError, run_processes
from sagemaker_monai.sagemaker.stopping import stop_on_signal

if TYPE_CHECKING:
    from sagemaker_monai.training.distributed import Processes

# Faults of a disk or folder, not of the program.
FAULTS_OF_PLACES = frozenset({errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS})
OTHER_PLACES = (
    "make room or give access, or set SM_MODEL_DIR, SM_OUTPUT_DIR, SM_OUTPUT_DATA_DIR, SM_CHECKPOINT_DIR or TMPDIR to "
    "another place"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The checked inputs of a job."""

    config: TrainConfig
    channels: dict[str, Path]
    places: Places


def main(argv: Sequence[str] | None = None) -> int:
    """Run one training job.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code: 0 when the artifact is complete, 1 with the cause in the failure file; the toolkit's for a job
        with its own script.
    """
    failure, has_own_script = _run(list(sys.argv[1:] if argv is None else argv))
    if has_own_script:
        return own_script.hand_over(os.environ)
    return 0 if failure is None else 1


def run_in_toolkit() -> None:
    """The function that SAGEMAKER_TRAINING_MODULE names in the image.

    The toolkit ignores its return value and counts SystemExit as success; only its own ClientError makes it exit with 1
    and keep our line in the failure file.
    """
    from sagemaker_training.errors import ClientError

    failure, has_own_script = _run([])
    if has_own_script:
        own_script.run_inside()
    sys.stdout.flush()
    if failure is not None:
        raise ClientError(failure)


def _run(argv: list[str]) -> tuple[str | None, bool]:
    """Run a job; the failure line or None, and whether the job has its own script, which the caller must run."""
    if "--help" in argv or "-h" in argv:
        print(help_text(shutil.get_terminal_size().columns))
        return None, False
    places = Places.from_environment(os.environ)
    # Signals are handled until the failure is written, which a second one must not prevent.
    with masked_output(), stop_on_signal() as stopping:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
        try:
            (places.output / "failure").unlink(missing_ok=True)
            given = read_hyperparameters(argv, places, os.environ)
            cluster = read_cluster(places.base, os.environ)
            if own_script.program(given, os.environ):
                own_script.require_toolkit()
                timeout_s, _ = read_limits(os.environ)
                # The toolkit would wait for them for ever.
                wait_for_hosts(cluster.hosts, timeout_s=timeout_s, is_stopping=stopping.is_set)
                return None, True
            _train(argv, cluster, stopping.is_set)
        except CallerError as error:
            return _report_failure(failure_line(error), places), False
        except ProcessesError as error:
            return _report_failure(str(error), places), False
        except Exception as error:
            traceback.print_exc()
            return _report_failure(failure_line(explained(error)), places), False
    return None, False


def _report_failure(line: str, places: Places) -> str:
    print(line, file=sys.stderr, flush=True)
    try:
        places.output.mkdir(parents=True, exist_ok=True)
        (places.output / "failure").write_text(line, encoding="utf-8")
    except OSError as fault:
        print(f"the failure file cannot be written ({fault.strerror}); see SM_OUTPUT_DIR", file=sys.stderr, flush=True)
    return line


def explained(error: Exception, remedy: str = OTHER_PLACES) -> Exception:
    """A ConfigError for what the caller can change: too little GPU memory, a full or closed disk; else the error."""
    if type(error).__name__ == "OutOfMemoryError":
        return ConfigError("the GPU has too little memory: lower batch_size or image_size, or use a larger GPU")
    if isinstance(error, OSError) and error.errno in FAULTS_OF_PLACES:
        return ConfigError(f"a file cannot be read or written ({error.strerror}): {remedy}")
    return error


def help_text(width: int) -> str:
    """Usage, hyperparameters with their defaults, and environment variables, wrapped to the width of a terminal."""
    lines = ["usage: train [--name value | --name=value] ...", "", "hyperparameters:"]
    for name, values, default, text in hyperparameter_rows():
        lines.append(f"  --{name.replace('_', '-')} (default {default})")
        lines += textwrap.wrap(
            f"{text}: {values}", max(40, width - 6), initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    lines += ["", "environment:"]
    for name, text in PLACES.items():
        lines.append(f"  {name}")
        lines += textwrap.wrap(text, max(40, width - 6), initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def prepare_job(argv: Sequence[str]) -> Job:
    """Read and check the inputs of the job, and set the variables that libraries read when they are imported.

    Raises:
        ConfigError: with all faults of the hyperparameters, or the first other fault.
    """
    places = Places.from_environment(os.environ)
    config = TrainConfig.parse(read_hyperparameters(argv, places, os.environ))
    make_folders(places)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    os.environ.update(library_defaults(os.environ))
    return Job(config, read_channels(places, os.environ), places)


def run_prepared_job(
    job: Job, *, cache_dir: Path, processes: "Processes | None" = None, is_stopping: Callable[[], bool]
) -> None:
    """Run a job in this process, alone or as one of `processes`."""
    # Imported late: this takes seconds, and a wrong hyperparameter should be refused at once.
    from sagemaker_monai.training.distributed import ALONE
    from sagemaker_monai.training.job import run_job

    current().add(*job.channels.values())
    if processes is None or processes.is_main:
        current().file = job.places.output_data / NAMES_FILE
    run_job(
        job.config,
        job.channels,
        model_dir=job.places.model,
        output_data_dir=job.places.output_data,
        cache_dir=cache_dir,
        checkpoint_dir=job.places.checkpoints,
        processes=processes or ALONE,
        is_stopping=is_stopping,
    )


def _train(argv: Sequence[str], cluster: Cluster, is_stopping: Callable[[], bool]) -> None:
    job = prepare_job(argv)
    per_host = _processes_per_host(job.config)
    if per_host == 1 and len(cluster.hosts) == 1:
        with tempfile.TemporaryDirectory(prefix="sagemaker-monai-") as cache:
            run_prepared_job(job, cache_dir=Path(cache), is_stopping=is_stopping)
        return
    timeout_s, port = read_limits(os.environ)
    wait_for_hosts(cluster.hosts, timeout_s=timeout_s, is_stopping=is_stopping)
    run_processes(
        cluster,
        argv,
        per_host=per_host,
        port=port,
        timeout_s=timeout_s,
        environment=os.environ,
        is_stopping=is_stopping,
    )


def _processes_per_host(config: TrainConfig) -> int:
    """The hyperparameter, else one per GPU.

    Raises:
        ConfigError: it is more than the GPUs, if there are any.
    """
    import torch

    gpus = torch.cuda.device_count()
    if gpus and config.processes_per_host > gpus:
        raise ConfigError(
            f"processes_per_host {config.processes_per_host} is more than the {gpus} GPUs of this host: leave it out"
        )
    return config.processes_per_host or max(1, gpus)


if __name__ == "__main__":
    sys.exit(main())
