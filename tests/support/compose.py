"""Docker Compose, where it is installed: the plugin, or the older command."""

import shutil
import subprocess


def compose_command():
    """How Compose is called here; empty where it is not."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []
