"""Runs a job's own script (`sagemaker_program`) through the training toolkit, as the base image does.

`train` stays process 1 and passes SIGTERM on, which the toolkit does not: a script that handles the signal gets it, and
any other script goes on until it is killed, as in the base image.
"""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from sagemaker_inference import parameters

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.sagemaker.inputs import without_blanks

TOOLKIT = "sagemaker_training"
MODULE, BASE_MODULE = "SAGEMAKER_TRAINING_MODULE", "BASE_TRAINING_MODULE"


def program(hyperparameters: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Name of the job's own script, or an empty text."""
    named = hyperparameters.get("sagemaker_program") or ""
    text = without_blanks(environment).get(parameters.USER_PROGRAM_ENV) or str(named)
    try:
        value = json.loads(text)  # the SDK gives JSON in strings
    except ValueError:
        return text.strip()
    return value.strip() if isinstance(value, str) else ""


def toolkit_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the toolkit: with the base image's training module, or none, instead of ours."""
    given = {name: value for name, value in environment.items() if name != MODULE}
    return given | ({MODULE: environment[BASE_MODULE]} if environment.get(BASE_MODULE) else {})


def require_toolkit() -> None:
    """Raise ConfigError if the toolkit is not installed."""
    if importlib.util.find_spec(TOOLKIT) is None:
        raise ConfigError(
            "sagemaker_program names a script, and running one needs sagemaker-training, which is not installed here: "
            "use the image, or leave sagemaker_program out to train with the built-in method"
        )


def hand_over(environment: Mapping[str, str]) -> int:
    """Run the toolkit, which writes the failure file; its exit code."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited, so that the toolkit outlives the signal
    command = [sys.executable, "-m", f"{TOOLKIT}.cli.train"]
    toolkit = subprocess.Popen(  # noqa: S603
        command, env=toolkit_environment(environment), start_new_session=True
    )

    def pass_on(number: int, _: object) -> None:
        print("SIGTERM: passed on to the script", file=sys.stderr, flush=True)
        os.killpg(toolkit.pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        code = toolkit.wait()
    except KeyboardInterrupt:
        os.killpg(toolkit.pid, signal.SIGINT)
        code = toolkit.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else 128 - code


def run_inside() -> None:
    """Run the script inside the toolkit that called us: by the base image's function, or else the toolkit's.

    The toolkit reports its failures, as in the base image.
    """
    from sagemaker_training import entry_point, environment

    if module := os.environ.get(BASE_MODULE):
        name, _, function = module.partition(":")
        getattr(importlib.import_module(name), function)()
        return
    job = environment.Environment()
    entry_point.run(job.module_dir, job.user_entry_point, job.to_cmd_args(), job.to_env_vars())
