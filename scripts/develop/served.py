"""Run this project's `serve` on a free port, and send it requests."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sagemaker_monai_aws.client.ask import Image, post
from sagemaker_monai_aws.client.content_types import SERIES, type_of_file

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


def free_port() -> int:
    """A port that is free now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(server: "subprocess.Popen[bytes]", port: int) -> float:
    """Wait for 200 from /ping; returns the seconds that it took."""
    started = time.monotonic()
    while time.monotonic() - started < START_TIMEOUT_S:
        if server.poll() is not None:
            raise SystemExit(f"serve ended with exit code {server.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return time.monotonic() - started
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"serve did not answer /ping with 200 in {START_TIMEOUT_S} s")


@contextmanager
def served(environment: Mapping[str, str], port: int = 0) -> Iterator[int]:
    """Serve the artifact of the tree that `environment` names; yields the port of the healthy server."""
    port = port or free_port()
    print(f"$ SAGEMAKER_BIND_TO_PORT={port} serve", flush=True)
    own = {"SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_CONTAINER_LOG_LEVEL": "WARNING"}
    server = subprocess.Popen([str(BIN / "serve")], env={**os.environ, **environment, **own}, cwd=ROOT)
    try:
        print(f"/ping answered 200 after {wait_until_healthy(server, port):.1f} s", flush=True)
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOP_TIMEOUT_S)
    if code != 0:
        raise SystemExit(f"serve ended with exit code {code} after SIGTERM")


def ask(port: int, path: Path, accept: str = "application/json") -> bytes:
    """Post an image, or the folder of a DICOM series as a zip; returns the answer's body.

    Raises:
        SystemExit: any other status than 200.
    """
    content_type = (type_of_file(path) if path.is_file() else SERIES) or "application/octet-stream"
    status, _, answer = post(Image(path, path.name, content_type), port, accept)
    if status != 200:
        raise SystemExit(f"/invocations answered {status}: {answer[:500].decode(errors='replace')}")
    return answer


def predictions(port: int, path: Path) -> list[dict[str, Any]]:
    """The predictions of an image; raises as `ask`."""
    found: list[dict[str, Any]] = json.loads(ask(port, path))["predictions"]
    return found
