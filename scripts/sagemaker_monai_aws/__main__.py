"""`sagemaker-monai COMMAND`: finds the command in the table and imports only what that one needs."""

import sys
from importlib import import_module

from sagemaker_monai_aws.commands import COMMANDS

PROGRAM = "sagemaker-monai"


def usage() -> str:
    """Every command in a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([f"usage: {PROGRAM} COMMAND [--help] ...", "", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code, 2 for an unknown command."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(f"{PROGRAM}: " + (f"there is no command {name!r}" if name else "name a command"), file=sys.stderr)
        print(usage(), file=sys.stderr)
        return 2
    run = import_module("sagemaker_monai_aws.core.command").run
    return int(run(name, import_module(f"sagemaker_monai_aws.{COMMANDS[name].module}"), rest))


if __name__ == "__main__":
    sys.exit(main())
