"""Docker Compose: the plugin, or the older command."""

import shutil
import subprocess


def compose_command():
    """The command that runs Compose here; empty if there is none."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []
