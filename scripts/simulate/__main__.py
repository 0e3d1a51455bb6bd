"""`python -m simulate`: an offline SageMaker until Ctrl-C (`serve`), or for one life of a model."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sagemaker_monai_aws.core.command import pair
from simulate.faults import JobError
from simulate.lives import LIVES, Stage, defaults_of, live, sample
from simulate.server import Simulation, simulated_aws


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    about = "AWS's APIs on loopback, with jobs and endpoints that really run on this machine."
    parser = argparse.ArgumentParser(prog="simulate", description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run until Ctrl-C; prints what to set in another terminal")
    serve.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: any free one)")
    for name in LIVES:
        life = commands.add_parser(name, help="the real commands, from an empty account to its clean-up")
        life.add_argument("--data", type=Path, help="a data set that `train` reads (default: a drawn one)")
        words = " ".join(f"{key}={value}" for key, value in defaults_of(name).items())
        life.add_argument("--hyperparameters", nargs="*", default=[], type=pair, metavar="NAME=VALUE",
                          help=f"over {words}")  # fmt: skip
    for sub in commands.choices.values():
        _add_simulation_options(sub)
    return parser.parse_args(argv)


def _add_simulation_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--back-end", choices=("docker", "venv"), default="venv",
                       help="containers, or the commands of .venv (default: %(default)s)")  # fmt: skip
    serve.add_argument("--image", help="NAME:TAG on this machine for images that are not on it")
    serve.add_argument("--folder", type=Path, default=Path(".simulate"), help="for files (default: %(default)s)")
    serve.add_argument("--interrupt-after", type=float, metavar="SECONDS",
                       help="interrupt every spot job once, after so many seconds of training")  # fmt: skip


def live_once(simulation: Simulation, options: argparse.Namespace) -> None:
    """Run one of the LIVES."""
    folder = options.folder / options.command
    data = options.data.resolve() if options.data else sample(options.command)
    hyperparameters = {**defaults_of(options.command), **dict(options.hyperparameters)}
    live(options.command, Stage(simulation, folder, data, hyperparameters, options.interrupt_after))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; SIGTERM and Ctrl-C end it, and everything that it started."""
    options = parse_arguments(argv)
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with simulated_aws(
            options.folder,
            back_end=options.back_end,
            image=options.image,
            interrupt_after_s=options.interrupt_after,
            port=getattr(options, "port", 0),
        ) as simulation:
            if options.command != "serve":
                live_once(simulation, options)
                return 0
            for name, value in simulation.environment.items():
                print(f"export {name}={value}", flush=True)
            ended.wait()
    except (JobError, OSError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
