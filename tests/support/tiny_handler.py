"""A handler without a model, for tests of the server; workers import it in a tenth of a second."""

import os
import signal
import time
from pathlib import Path

from sagemaker_monai.errors import BundleError, failure_line
from sagemaker_monai.serving.back_end import Request, Response, StartError, WarmUp
from sagemaker_monai.serving.mms.protocol import (
    ACCEPT_HEADER,
    ANSWER_HEADER,
    ARTIFACT_FILE,
    CONTENT_TYPE_HEADER,
    FAILURE_FILE,
)
from sagemaker_monai.serving.privileges import Lodgings
from tests.support.places import ROOT

NAME = "tests.support.tiny_handler:Handler"


class Handler:
    """Does what the body says; files in the folder make it fail at the start."""

    working_bytes = 0

    def __init__(self, model_dir, *, allow_bundle_code):
        if (model_dir / "broken").exists():
            raise BundleError("the weights are not those that were written")
        if (model_dir / "slow").exists():
            time.sleep(30)
        if (model_dir / "crashing").exists():
            os.kill(os.getpid(), signal.SIGSEGV)

    def respond(self, requests):
        return [self._respond(request, len(requests)) for request in requests]

    def _respond(self, request, batch_size):
        command, _, value = request.body.decode().partition(" ")
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "sleep":
            time.sleep(float(value))
        if command == "stuck":  # like native code that does not return
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(float(value))
        facts = {"pid": os.getpid(), "batch": batch_size, "threads": os.environ.get("OMP_NUM_THREADS")}
        body = str(facts.get(command, request.body.decode().upper()))
        return Response(200, request.accept or request.content_type, body.encode())


loaded = {}


def handle(data, context):
    """The same for multi-model-server."""
    if data is None:
        folder = Path(context.system_properties["model_dir"])
        try:
            loaded["model"] = Handler(Path((folder / ARTIFACT_FILE).read_text()), allow_bundle_code=False)
        except BundleError as error:
            (folder / FAILURE_FILE).write_text(failure_line(error))
            raise
        return None
    headers = context.get_all_request_header(0)
    request = Request(bytes(data[0]["body"]), headers[CONTENT_TYPE_HEADER], headers[ACCEPT_HEADER])
    [response] = loaded["model"].respond([request])
    context.set_response_content_type(0, response.content_type)
    context.set_response_header(0, ANSWER_HEADER, "1")
    return [response.body]


def check_hello(response):
    if response.body != b"HELLO":
        raise StartError(f"expected HELLO, got {response.body!r}")


HELLO = WarmUp(Request(b"hello", "text/plain"), check_hello)


def lodgings():
    """For processes that must find the folder `tests`."""
    return Lodgings(None, None, {**os.environ, "PYTHONPATH": str(ROOT)})
