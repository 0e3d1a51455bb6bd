"""What torch and MONAI find in the environment when they are imported, where the user did not say otherwise."""

import os
from collections.abc import Mapping

# Where getpass.getuser looks before it asks the system.
USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def library_defaults(env: Mapping[str, str]) -> dict[str, str]:
    """Variables to add before torch or MONAI is imported.

    OpenMP's threads wait without spinning: on two cores that others use too, a training step of resnet18 with two
    threads took 1.0 to 1.3 s and not 3.6 to 5.6 s. And a container may run under a number that no user has
    (`--user 12345`), whose name `import monai` then fails to find.

    Args:
        env: what is set already, which wins.
    """
    defaults = {"OMP_WAIT_POLICY": "PASSIVE"}
    if not any(env.get(name) for name in USER_NAMES):
        defaults["LOGNAME"] = f"uid{os.getuid()}"
    return {name: value for name, value in defaults.items() if not env.get(name)}
