"""Defaults for the variables that torch and MONAI read when they are imported."""

import os
from collections.abc import Mapping

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# Read by getpass.getuser before it asks the system.
USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def library_defaults(env: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to `env` before torch or MONAI is imported.

    OpenMP's threads should sleep after spinning for microseconds: on two busy cores, a training step of resnet18 with
    two threads took 1.5 s with OpenMP's default and 0.8 s with this; on idle cores both took 0.5 s. And if a container
    runs under a user id without a name (`--user 12345`), `import monai` would fail.
    """
    defaults = {}
    if not any(env.get(name) for name in WAITING):
        defaults["GOMP_SPINCOUNT"] = "20000"
    if not any(env.get(name) for name in USER_NAMES):
        defaults["LOGNAME"] = f"uid{os.getuid()}"
    return defaults
