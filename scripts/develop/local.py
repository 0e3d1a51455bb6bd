"""The image through `docker run` (`make train-local`, `serve-local`, `predict-local`, `shell`); standard library only.

It sets SageMaker's limits, so that a job that works here works there: hyperparameters are strings in a file, channels
are read-only, /dev/shm has 64 MB, training has no network and its host is called algo-1. The command is printed before
it runs; `--dry-run` only prints it.

The container runs as root, as in SageMaker: running as the caller would hide faults. A second container then gives the
output folder to the caller.
"""

import argparse
import csv
import io
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sagemaker_monai_aws.client import ask
from sagemaker_monai_aws.client.ask import LocalError

HOST = "algo-1"
SHM_SIZE = "64m"
TRAIN_STOP_S = 120  # between SageMaker's SIGTERM and its SIGKILL, for training and for serving
SERVE_STOP_S = 30


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="local", description=(__doc__ or "").partition("\n\n")[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="train | serve | predict | shell")

    train = commands.add_parser("train", help="train on folders, write the artifact to OUTPUT/model and model.tar.gz")
    train.add_argument("data", nargs="+", metavar="FOLDER | NAME=FOLDER", help="channels; without a name: training")
    train.add_argument("--hyperparameters", nargs="*", default=[], metavar="NAME=VALUE", help="as in `train --help`")
    train.add_argument("--output", type=Path, default=Path("ml"), help="folder for what comes out (default: ml)")
    train.add_argument("--checkpoints", action="store_true", help="keep OUTPUT/checkpoints and go on from them")

    serve = commands.add_parser("serve", help="serve an artifact on a port of this machine only")
    serve.add_argument("model", type=Path, help="folder of the artifact, or model.tar.gz")
    serve.add_argument("--port", type=int, default=8080, help="on 127.0.0.1 (default: %(default)s)")

    ask.add_options(commands.add_parser("predict", help="post images to a server on this machine, print the answers"))

    shell = commands.add_parser("shell", help="a shell, or one command, in the image")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="default: bash")

    for sub in (train, serve, shell):
        sub.add_argument("--image", default=os.environ.get("IMAGE") or "sagemaker-monai", help="(default: %(default)s)")
        sub.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
        sub.add_argument("--dry-run", action="store_true", help="print the command and do nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the container's exit code."""
    options = parse_arguments(argv)
    try:
        return {"train": train, "serve": serve, "predict": ask.predict, "shell": shell}[options.command](options)
    except LocalError as error:
        print(f"local: {error}", file=sys.stderr)
        return 2


def train(options: argparse.Namespace) -> int:
    """Run one training job; OUTPUT then has model, model.tar.gz, output and, if asked for, checkpoints."""
    channels = read_channels(options.data)
    hyperparameters = dict(pair(text, "--hyperparameters") for text in options.hyperparameters)
    base = options.output.resolve()
    folders = ["model", "output", *(["checkpoints"] if options.checkpoints else [])]
    name = f"train-{secrets.token_hex(4)}"
    command = [
        *docker_run(options, name, "--hostname", HOST, "--add-host", f"{HOST}:127.0.0.1", "--network", "none"),
        *mount(base / "input" / "config", "/opt/ml/input/config", readonly=True),
        *(word for channel in channels.items() for word in mount(channel[1], f"/opt/ml/input/data/{channel[0]}")),
        *(word for folder in folders for word in mount(base / folder, f"/opt/ml/{folder}", readonly=False)),
        options.image,
        "train",
    ]
    if options.dry_run:
        return show(command)
    check_docker(options.image)
    for folder in folders:
        (base / folder).mkdir(parents=True, exist_ok=True)
    write_config(base / "input" / "config", hyperparameters, list(channels))
    failure = base / "output" / "failure"
    code = run(command, name, stop_s=TRAIN_STOP_S)
    give_to_caller(options.image, [base / folder for folder in folders])
    if code == 0:
        pack(base / "model", base / "model.tar.gz")
        print(f"local: the artifact is {base / 'model'}, packed as {base / 'model.tar.gz'}", file=sys.stderr)
    elif failure.is_file():
        print(f"local: the job failed: {failure.read_text(encoding='utf-8', errors='replace')}", file=sys.stderr)
    return code


def serve(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    if not options.model.exists():
        raise LocalError(f"there is no {options.model}: name the folder of an artifact or a model.tar.gz")
    with unpacked(options.model.resolve(), dry_run=options.dry_run) as folder:
        name = f"serve-{secrets.token_hex(4)}"
        command = [
            *docker_run(options, name, "--publish", f"127.0.0.1:{options.port}:8080"),
            *mount(folder, "/opt/ml/model"),
            options.image,
            "serve",
        ]
        if options.dry_run:
            return show(command)
        check_docker(options.image)
        print(
            f"local: http://127.0.0.1:{options.port}/invocations, once it has started; Ctrl-C ends it", file=sys.stderr
        )
        return run(command, name, stop_s=SERVE_STOP_S)


def shell(options: argparse.Namespace) -> int:
    """A shell in the image, on the terminal if there is one."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    terminal = ["--tty"] if sys.stdin.isatty() else []
    command = [*docker_run(options, f"shell-{secrets.token_hex(4)}", "--interactive", *terminal), options.image]
    command += words or ["bash"]
    if options.dry_run:
        return show(command)
    check_docker(options.image)
    show(command)
    return subprocess.run(command, check=False).returncode


def docker_run(options: argparse.Namespace, name: str, *flags: str) -> list[str]:
    """`docker run` with the flags of all containers."""
    variables = [f"{key}={value}" for key, value in (pair(text, "--env") for text in options.env)]
    return [
        *("docker", "run", "--rm", "--name", name, "--shm-size", SHM_SIZE, *gpu_flags(), *flags),
        *(word for variable in variables for word in ("--env", variable)),
    ]


def gpu_flags() -> list[str]:
    """`--gpus all` if there is an NVIDIA GPU that Docker can pass on."""
    if not succeeds("nvidia-smi", "--list-gpus"):
        return []
    runtimes = subprocess.run(["docker", "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True,
                              check=False) if shutil.which("docker") else None  # fmt: skip
    if runtimes is not None and "nvidia" in runtimes.stdout:
        return ["--gpus", "all"]
    print("local: there is a GPU, but Docker cannot pass it on: install the NVIDIA Container Toolkit", file=sys.stderr)
    return []


def succeeds(*command: str) -> bool:
    """Whether the command exists and exits with 0."""
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def mount(source: Path, target: str, *, readonly: bool = True) -> list[str]:
    """A bind mount as a line of CSV, which allows any path."""
    line = io.StringIO()
    fields = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if readonly else [])]
    csv.writer(line, lineterminator="").writerow(fields)
    return ["--mount", line.getvalue()]


def pair(text: str, option: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise LocalError(f"{option} takes NAME=VALUE, got {text!r}")
    return name, value


def read_channels(arguments: Sequence[str]) -> dict[str, Path]:
    """Name and folder of every channel; a folder without a name is `training`."""
    channels: dict[str, Path] = {}
    for argument in arguments:
        is_plain = Path(argument).exists() or "=" not in argument
        name, folder = ("training", argument) if is_plain else pair(argument, "train")
        path = Path(folder)
        if name in channels:
            raise LocalError(f"the channel {name!r} is named twice: write NAME=FOLDER for every further one")
        if not path.is_dir():
            raise LocalError(f"there is no folder {folder}: name the folder of the data")
        if not any(path.iterdir()):
            raise LocalError(f"the folder {folder} is empty: name the folder of the data")
        channels[name] = path.resolve()
    return channels


def write_config(folder: Path, hyperparameters: dict[str, str], channels: list[str]) -> None:
    """The three files that SageMaker writes to /opt/ml/input/config for one host."""
    mode = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    resources = {"current_host": HOST, "hosts": [HOST], "network_interface_name": "lo"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "hyperparameters": hyperparameters,
        "inputdataconfig": dict.fromkeys(channels, mode),
        "resourceconfig": resources,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def check_docker(image: str) -> None:
    """Require a client, an engine and the image.

    Raises:
        LocalError: one of them is missing.
    """
    if shutil.which("docker") is None:
        raise LocalError("Docker is not installed: https://docs.docker.com/engine/install")
    engine = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True,
                            check=False)  # fmt: skip
    if engine.returncode != 0:
        raise LocalError(
            f"no Docker engine answers ({' '.join(engine.stderr.split())[:200]}): "
            "start Docker, or join the group docker"
        )
    if not succeeds("docker", "image", "inspect", image):
        raise LocalError(f"there is no image {image} on this machine: run `make build`, or name another with --image")


def show(command: Sequence[str]) -> int:
    """Print a command so that it can be pasted."""
    print("$ " + shlex.join(command), flush=True)
    return 0


def run(command: Sequence[str], name: str, *, stop_s: int) -> int:
    """Run a container in the foreground; Ctrl-C and SIGTERM stop it properly, a second one at once.

    Args:
        command: `docker run` with `--name`.
        name: that name.
        stop_s: how long it may take to end after it was asked to.

    Returns:
        Its exit code.
    """
    show(command)

    def ask_to_stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ask_to_stop)
    # In its own session, so that Ctrl-C reaches the container only once, from here.
    client = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    try:
        for ending in (["docker", "stop", "--time", str(stop_s), name], ["docker", "kill", name]):
            try:
                return client.wait()
            except KeyboardInterrupt:
                print(f"\nlocal: {shlex.join(ending)}", file=sys.stderr, flush=True)
                subprocess.Popen(ending, start_new_session=True, stdout=subprocess.DEVNULL)
        return client.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def give_to_caller(image: str, folders: Sequence[Path]) -> None:
    """Give the container's files to the caller, unless they are already (root, rootless Docker)."""
    user, group = os.getuid(), os.getgid()
    foreign = [folder for folder in folders if any(path.lstat().st_uid != user for path in folder.rglob("*"))]
    if user == 0 or not foreign:
        return
    mounts = [word for index, folder in enumerate(foreign) for word in mount(folder, f"/give/{index}", readonly=False)]
    command = ["docker", "run", "--rm", "--network", "none", *mounts, image, "chown", "-hR", f"{user}:{group}", "/give"]
    subprocess.run(command, check=True)


def pack(folder: Path, archive: Path) -> None:
    """Pack an artifact as SageMaker does: its files at the top of the archive."""
    part = archive.with_name(f".{archive.name}.part")
    with tarfile.open(part, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    part.replace(archive)


@contextmanager
def unpacked(model: Path, *, dry_run: bool) -> Iterator[Path]:
    """The folder of an artifact; an archive is unpacked temporarily."""
    if model.is_dir() or dry_run:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="model-") as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir(mode=0o755)  # the temporary folder itself is closed to the container's unprivileged processes
        try:
            with tarfile.open(model) as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise LocalError(f"{model} cannot be unpacked ({error}): give a folder or a sound model.tar.gz") from error
        yield folder


if __name__ == "__main__":
    sys.exit(main())
