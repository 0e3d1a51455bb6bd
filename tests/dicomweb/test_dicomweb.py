"""Series from a DICOMweb server: found, fetched as they are, and after a break only what is missing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from sagemaker_monai.errors import ConfigError, DatasetError
from tests.support import orthanc
from tests.support.fake_dicomweb import digests, run
from tests.support.loopback import Handler, listening
from tests.support.loopback import request as loopback_request
from tests.support.places import SHARED_DATA

SERIES = SHARED_DATA / "dicom_series"
CREDENTIALS = {"DICOMWEB_USER": orthanc.USER, "DICOMWEB_PASSWORD": orthanc.PASSWORD}
needs_orthanc = pytest.mark.skipif(not orthanc.IS_THERE, reason=orthanc.MISSING)
needs_data = pytest.mark.skipif(not SERIES.is_dir(), reason="needs the real data (SHARED_DATA)")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An Orthanc with the shared series in it."""
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as server:
        server.upload(sorted(SERIES.rglob("*.dcm")))
        yield server


@needs_orthanc
@needs_data
def test_what_orthanc_sends_is_byte_for_byte_what_it_was_given(archive, tmp_path):
    summary = run(archive.root, tmp_path / "out", environment=CREDENTIALS)

    assert digests(tmp_path / "out") == digests(SERIES)
    assert summary.startswith("4 series with 116 instances: 116 fetched (")
    for file in (tmp_path / "out").rglob("*.dcm"):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        assert file.relative_to(tmp_path / "out") == Path(
            "series", header.SeriesInstanceUID, f"{header.SOPInstanceUID}.dcm"
        )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"series", "retrieval.jsonl"}


@needs_orthanc
@needs_data
@pytest.mark.parametrize(
    ("options", "instances"),
    [
        (["--patient-id=PGBM-002"], 32),
        (["--patient-id=PGBM-00?", "--modality=MR", "--limit=4"], 116),
        (["--query=SeriesDescription=HippoCrop"], 72),
        (["--query=0008103E=T1post"], 22),
        (["--patient-id=PGBM-002", "--patient-id=PGBM-003", "--query=SeriesDescription=HippoCrop"], 72),
    ],
)
def test_orthanc_is_searched_by_what_the_options_say(archive, tmp_path, options, instances):
    run(archive.root, tmp_path / "out", *options, environment=CREDENTIALS)

    assert len(digests(tmp_path / "out")) == instances


@needs_orthanc
@needs_data
def test_a_study_a_series_and_dates_choose_series_of_orthanc(archive, tmp_path):
    chosen = pydicom.dcmread(next((SERIES / "PGBM-003").glob("*FLAIR*/*.dcm")), stop_before_pixels=True)
    by_uid = ["--study", chosen.StudyInstanceUID, "--series", chosen.SeriesInstanceUID]
    run(archive.root, tmp_path / "uid", *by_uid, environment=CREDENTIALS)
    assert len(digests(tmp_path / "uid")) == 22

    date = chosen.StudyDate
    run(archive.root, tmp_path / "date", *by_uid, "--study-date", f"{date}-{date}", environment=CREDENTIALS)
    assert digests(tmp_path / "date") == digests(tmp_path / "uid")
    with pytest.raises(DatasetError, match="no series for this search"):
        run(archive.root, tmp_path / "none", *by_uid, "--study-date", "18500101-18991231", environment=CREDENTIALS)


@needs_orthanc
@needs_data
@pytest.mark.parametrize(
    "environment", [{}, CREDENTIALS | {"DICOMWEB_PASSWORD": "guessed-secret"}, {"DICOMWEB_TOKEN": "t0ken"}]
)
def test_wrong_credentials_are_said_to_be_that_and_are_not_shown(archive, tmp_path, environment):
    with pytest.raises(ConfigError, match=r"refuses the credentials \(401\): set DICOMWEB_TOKEN, or") as caught:
        run(archive.root, tmp_path / "out", environment=environment)

    assert not any(secret in repr(caught.value) for secret in environment.values())


COMMAND = """
import argparse, os
from sagemaker_monai.sagemaker.dicomweb_access import outside
from sagemaker_monai.dicomweb import transfer as dicomweb
parser = argparse.ArgumentParser()
dicomweb.add_transfer_options(parser)
parser.set_defaults(outside=outside(os.environ))
"""


class Pass(Handler):
    """Passes requests on to Orthanc; a series' body stops after some bytes when `stop_after` says so."""

    def get(self):
        self.server.asked.append(self.path.partition("?")[0])
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "host")}
        status, answered, body = loopback_request(*self.server.behind, "GET", self.path, None, headers)
        self.send_response(status)
        self.send_header("Content-Type", answered["Content-Type"])
        self.send_header("Connection", "close")
        self.close_connection = True
        is_series = "/series/" in self.path and "/instances" not in self.path
        if not is_series or not self.server.stop_after:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])
        self.wfile.flush()
        self.server.wait(self)


def proxy(archive, **attributes):
    host, port = archive.base.removeprefix("http://").split(":")
    return listening(
        Pass, behind=(host, int(port)), asked=[], **{"stop_after": 0, "wait": lambda handler: None, **attributes}
    )


@needs_orthanc
@needs_data
def test_a_killed_run_is_continued_with_the_missing_instances_alone(archive, tmp_path):
    flair = pydicom.dcmread(next((SERIES / "PGBM-003").glob("*FLAIR*/*.dcm")), stop_before_pixels=True)
    out = tmp_path / "out"
    command = [sys.executable, "-c", f"{COMMAND}print(dicomweb.run(parser.parse_args()))"]
    # 7 of the 22 instances (183 kB each) and a part of the eighth, then silence until the client is killed.
    with proxy(archive, stop_after=7 * 183_400 + 90_000, wait=lambda handler: handler.rfile.read(1)) as server:
        root = f"http://127.0.0.1:{server.server_port}/dicom-web"
        arguments = [root, str(out), f"--series={flair.SeriesInstanceUID}"]
        with subprocess.Popen([*command, *arguments], env=os.environ | CREDENTIALS) as process:
            end = time.monotonic() + 90
            while len(list(out.rglob("series/*/*.dcm"))) < 7 and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        whole = digests(out / "series")
        assert len(whole) == 7
        server.asked.clear()
        server.stop_after = 0

        summary = run(*arguments, environment=CREDENTIALS)

        fetched = [path.rpartition("/")[2] for path in server.asked if "/instances/" in path]
    expected = digests(next((SERIES / "PGBM-003").glob("*FLAIR*")))
    assert summary.startswith("1 series with 22 instances: 15 fetched (")
    assert sorted(fetched) == sorted(set(expected) - set(whole))
    assert not any(path.endswith(flair.SeriesInstanceUID) for path in server.asked)
    assert digests(out) == expected
    assert {path.name for path in out.iterdir()} == {"series", "retrieval.jsonl"}


@needs_orthanc
@needs_data
def test_a_connection_that_breaks_within_a_series_costs_no_instance_twice(archive, tmp_path):
    flair = pydicom.dcmread(next((SERIES / "PGBM-003").glob("*FLAIR*/*.dcm")), stop_before_pixels=True)
    with proxy(archive, stop_after=3 * 183_400) as server:
        root = f"http://127.0.0.1:{server.server_port}/dicom-web"
        run(root, tmp_path / "out", f"--series={flair.SeriesInstanceUID}", environment=CREDENTIALS)

    assert digests(tmp_path / "out") == digests(next((SERIES / "PGBM-003").glob("*FLAIR*")))
    # The search, its list of instances, the series that broke, and 22 - 2 or 3 instances.
    assert sum("/instances/" in path for path in server.asked) in (19, 20)
    assert sum(path.endswith(flair.SeriesInstanceUID) for path in server.asked) == 1
