"""A real Orthanc with its DICOMweb plugin on loopback (Debian's `orthanc` and `orthanc-dicomweb`), for tests.

It runs as the user of the tests, with its configuration and storage in a temporary folder; the system's service is not
touched.
"""

import base64
import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support import loopback

BINARY = Path("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
IS_THERE = BINARY.exists() and PLUGIN.exists()
MISSING = "needs Debian's packages orthanc and orthanc-dicomweb"
USER, PASSWORD = "reader", "pass word:ü"


class Orthanc:
    """A running server; `root` is the address of its DICOMweb service."""

    def __init__(self, port, scheme):
        self.base = f"{scheme}://127.0.0.1:{port}"
        self.root = f"{self.base}/dicom-web"

    def ask(self, path, body=None):
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(f"{self.base}{path}", body, {"Authorization": f"Basic {token}"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    def upload(self, files):
        for file in files:
            self.ask("/instances", file.read_bytes())


@contextmanager
def running(folder, **options):
    """Start a server.

    Args:
        folder: for its configuration, log and storage.
        options: further lines of the configuration.
    """
    port = loopback.free_port()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomServerEnabled": False,
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **options,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        command = [str(BINARY), str(folder / "orthanc.json")]
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder) as process:
            try:
                server = Orthanc(port, "http")
                _wait(server, process, folder / "log")
                yield server
            finally:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
    shutil.rmtree(folder / "storage", ignore_errors=True)


def _wait(server, process, log, timeout_s=90):
    end = time.monotonic() + timeout_s
    while True:
        try:
            server.ask("/system")
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Orthanc did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return
