"""What torch and MONAI find in the environment when they are imported, where the user did not say otherwise."""

import os
from collections.abc import Mapping

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# Where getpass.getuser looks before it asks the system.
USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def library_defaults(env: Mapping[str, str]) -> dict[str, str]:
    """Variables to add before torch or MONAI is imported.

    OpenMP's threads spin for microseconds and then sleep. Spinning for as long as OpenMP likes, a training step of
    resnet18 with two threads took 1.5 s on two cores that others use too, so 0.8 s; on quiet cores both 0.5 s. And a
    container may run under a number that no user has (`--user 12345`), whose name `import monai` then fails to find.

    Args:
        env: what is set already, which wins.
    """
    defaults = {}
    if not any(env.get(name) for name in WAITING):
        defaults["GOMP_SPINCOUNT"] = "20000"
    if not any(env.get(name) for name in USER_NAMES):
        defaults["LOGNAME"] = f"uid{os.getuid()}"
    return defaults
