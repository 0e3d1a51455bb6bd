"""The handler that every worker process of either back end runs: a batch of requests in, one response for each.

sagemaker-inference's Transformer is not used: it applies the first request's content type to the whole batch, and one
broken request fails all of them.
"""

import importlib.util
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

from sagemaker_inference import content_types, parameters
from sagemaker_inference.errors import BaseInferenceToolkitError

from sagemaker_monai.artifact.mask_predictor import MaskPredictor
from sagemaker_monai.budget import Limits, spending
from sagemaker_monai.errors import (
    INTERNAL_ERROR,
    BundleError,
    CallerError,
    MalformedRequest,
    PayloadTooLarge,
    error_body,
    failure_line,
)
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.serving import inference
from sagemaker_monai.serving.back_end import Request, Response
from sagemaker_monai.serving.lockdown import INCOMPLETE, lock_down
from sagemaker_monai.serving.memory import first_to_end, is_out_of_memory
from sagemaker_monai.serving.mms.protocol import (
    ACCEPT_HEADER,
    ANSWER_HEADER,
    ARTIFACT_FILE,
    CONTENT_TYPE_HEADER,
    FAILURE_FILE,
    GROWTH_VARIABLE,
    TIME_HEADER,
)
from sagemaker_monai.serving.settings import log_level, visible_gpus
from sagemaker_monai.serving.time_limits import Respond
from sagemaker_monai.serving.worker import settle
from sagemaker_monai.storage.files import write_text

logger = logging.getLogger(__name__)

FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn")
JSON_TYPE = content_types.JSON
TEXT_TYPES = content_types.UTF8_TYPES  # a user's input_fn gets these as text, as in sagemaker-inference
FAILURES = tuple(status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)


class Handler:
    """A loaded model and the functions that answer with it.

    Args:
        model_dir: the artifact.
        allow_bundle_code: whether its code/inference.py may run.

    Attributes:
        working_bytes: see `worker.RequestHandler`.

    Raises:
        BundleError: the artifact is invalid, or has code that is not allowed.
        ConfigError: a limit in the environment is invalid.
    """

    def __init__(self, model_dir: Path, *, allow_bundle_code: bool) -> None:
        script = bundle_code(model_dir, allow_bundle_code=allow_bundle_code)
        self._limits = Limits.from_env(os.environ)
        self._model: Any
        self.working_bytes = 0
        if script is None:
            self._model = inference.model_fn(str(model_dir))
            if isinstance(self._model, MaskPredictor):
                self.working_bytes = self._model.rehearse()
            self._respond = self._respond_together
        else:
            self._functions = _load_functions(script)
            self._model = self._functions.model_fn(str(model_dir))
            self._respond = self._respond_one_by_one

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Answer every request, independently of the others; never raises."""
        body_bytes = sum(len(each.body) for each in requests)
        with spending(self._limits.budget(body_bytes, len(requests), self.working_bytes)):
            return self._respond(requests)

    def _respond_together(self, requests: Sequence[Request]) -> list[Response]:
        """Send the samples of all requests through the network in one pass."""
        responses: dict[int, Response] = {}
        samples: dict[int, list[Any]] = {}
        for index, request in enumerate(requests):
            try:
                extras = inference.extras_for(request.accept, self._model)  # refused before the work, not after
                samples[index] = inference.with_extras(inference.input_fn(request.body, request.content_type), extras)
            except Exception as error:
                responses[index] = _refusal(error)
        try:
            together = [sample for group in samples.values() for sample in group]
            answer = inference.predict_fn(together, self._model) if together else None
        except Exception as error:
            if len(samples) == 1:
                responses |= {index: _refusal(error) for index in samples}
            else:  # one picture is broken: ask each request alone, so that the others are answered
                responses |= {index: self.respond([requests[index]])[0] for index in samples}
            return [responses[index] for index in range(len(requests))]
        start = 0
        for index, group in samples.items():
            assert answer is not None
            part = answer.part(start, len(group))
            start += len(group)
            try:
                body, content_type = inference.output_fn(part, requests[index].accept)
                responses[index] = Response(HTTPStatus.OK, content_type, body)
            except Exception as error:
                responses[index] = _refusal(error)
        return [responses[index] for index in range(len(requests))]

    def _respond_one_by_one(self, requests: Sequence[Request]) -> list[Response]:
        """A user's functions take one request at a time."""
        responses = []
        for request in requests:
            with spending(self._limits.budget(len(request.body))):
                responses.append(self._respond_with_bundle_code(request))
        return responses

    def _respond_with_bundle_code(self, request: Request) -> Response:
        functions = self._functions
        try:
            data = self._asking(functions.input_fn(request.body, request.content_type), request.accept)
            prediction = functions.predict_fn(data, self._model)
            result = functions.output_fn(prediction, request.accept)
            body, content_type = result if isinstance(result, tuple) else (result, _plain_type(request.accept))
            if isinstance(body, str):
                body = body.encode()
            if not isinstance(body, (bytes, bytearray)):
                raise TypeError(f"output_fn gave {type(body).__name__}; bytes, str or (data, content type) are needed")
            if not isinstance(content_type, str) or not (content_type.isascii() and content_type.isprintable()):
                raise TypeError("output_fn gave a content type that is not one line of ASCII text")
            return Response(HTTPStatus.OK, content_type, bytes(body))
        except Exception as error:
            return _refusal(error)

    def _asking(self, data: Any, accept: str) -> Any:
        """Samples that ask for what our output_fn will need; anything else as it is."""
        is_ours = self._functions.output_fn is inference.output_fn and isinstance(self._model, MaskPredictor)
        if is_ours and isinstance(data, list) and all(isinstance(each, Sample) for each in data):
            return inference.with_extras(data, inference.extras_for(accept, self._model))
        return data


@dataclass(frozen=True)
class _Functions:
    model_fn: Callable[[str], Any]
    input_fn: Callable[[bytes, str], Any]
    predict_fn: Callable[[Any, Any], Any]
    output_fn: Callable[[Any, str], Any]


def bundle_code(model_dir: Path, *, allow_bundle_code: bool) -> Path | None:
    """The artifact's own code/inference.py, None if it has none.

    Code that is not allowed is refused rather than ignored, because its author expects its answers.

    Raises:
        BundleError: the artifact has code, and it is not allowed.
    """
    script = model_dir / "code" / "inference.py"
    if not script.exists():
        return None
    if not allow_bundle_code:
        raise BundleError(
            "the artifact has its own code, code/inference.py: set ALLOW_BUNDLE_CODE=true to trust and run it, or "
            "deploy the artifact without it"
        )
    return script


def _load_functions(script: Path) -> _Functions:
    sys.path.insert(0, str(script.parent))  # so that it can import its neighbours, as in sagemaker-inference
    spec = importlib.util.spec_from_file_location("inference", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["inference"] = module
    spec.loader.exec_module(module)
    if hasattr(module, "transform_fn") or not any(hasattr(module, name) for name in FUNCTIONS):
        raise BundleError(f"code/inference.py must define some of {', '.join(FUNCTIONS)}, and no transform_fn")
    input_fn = _function(module, "input_fn", 2)
    output_fn = _function(module, "output_fn", 2)
    return _Functions(
        model_fn=_function(module, "model_fn", 1),
        input_fn=_with_text(input_fn) if hasattr(module, "input_fn") else input_fn,
        predict_fn=_function(module, "predict_fn", 2),
        output_fn=_with_plain_accept(output_fn) if hasattr(module, "output_fn") else output_fn,
    )


def _function(module: ModuleType, name: str, arguments: int) -> Callable[..., Any]:
    """The module's function or ours, called with `arguments` arguments; one more gets None for the server's context."""
    function: Callable[..., Any] = getattr(module, name, None) or getattr(inference, name)
    count = len(inspect.signature(function).parameters)
    if count == arguments:
        return function
    if count == arguments + 1:
        return lambda *values: function(*values, None)
    raise BundleError(f"{name} of code/inference.py takes {count} arguments, not {arguments} or {arguments + 1}")


def _with_text(function: Callable[..., Any]) -> Callable[..., Any]:
    def input_fn(body: bytes, content_type: str) -> Any:
        if content_type.partition(";")[0].strip().lower() not in TEXT_TYPES:
            return function(body, content_type)
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MalformedRequest("the body is not UTF-8") from error
        return function(text, content_type)

    return input_fn


def _with_plain_accept(function: Callable[..., Any]) -> Callable[..., Any]:
    def output_fn(prediction: Any, accept: str) -> Any:
        return function(prediction, JSON_TYPE if accept in ("", content_types.ANY) else accept)

    return output_fn


def _plain_type(accept: str) -> str:
    """The type of a body that has none: the one that was asked for, as in sagemaker-inference."""
    return JSON_TYPE if not accept or "*" in accept or "," in accept else accept


def _refusal(error: Exception) -> Response:
    if is_out_of_memory(error):  # the budgets did not foresee it, see `serving.memory.limit_growth`
        logger.error("a request ran out of memory: %s", failure_line(error))
        error = PayloadTooLarge("this request needs more memory than the server has for one; send less at once")
    if isinstance(error, CallerError):
        status, code, message = error.status, error.code, str(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("%s", failure_line(error))
    elif isinstance(error, BaseInferenceToolkitError) and error.status_code in FAILURES:
        # A user's function refused the request. The traceback that sagemaker-inference adds is not sent.
        logger.info("code/inference.py refused a request", exc_info=error)
        status, code, message = int(error.status_code), type(error).__name__, str(error.message)
    else:
        logger.error("a request could not be answered", exc_info=error)
        status, code, message = HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "the server failed to answer"
    return Response(status, JSON_TYPE, json.dumps(error_body(code, message)).encode())


_loaded: dict[str, Respond] = {}  # multi-model-server calls a function: this is its state, one model per process


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[bytes] | None:
    """multi-model-server's entry point.

    Args:
        data: None to load the model; else one entry per request, with the key "body".
        context: the model server's: has the headers from serving/mms.py, and takes statuses and types.

    Returns:
        None after loading, else one body per request.

    Raises:
        Exception: the model cannot be loaded. Without an exception the model server counts it as loaded.
    """
    if data is None:
        _log_for_java(log_level(os.environ.get(parameters.LOG_LEVEL_ENV, "")))
        folder = Path(context.system_properties["model_dir"])  # not the artifact's, see serving/mms.py
        try:
            artifact = Path(os.fsdecode((folder / ARTIFACT_FILE).read_bytes()))
            with first_to_end():
                # The connection to the model server is open by now, and no upload has been decoded yet.
                has_gpu = visible_gpus(os.environ) > 0
                if lacks := lock_down(has_network=_is_true("WORKER_NETWORK"), has_gpu=has_gpu, has_own_uid=False):
                    logger.warning(INCOMPLETE, ", ".join(lacks))
                handler = Handler(artifact, allow_bundle_code=_is_true("ALLOW_BUNDLE_CODE"))
                _loaded["model"] = Respond(handler.respond, partial(_settle, handler.working_bytes))
        except BaseException as error:  # the artifact's own code may even ask Python to exit
            write_text(folder / FAILURE_FILE, failure_line(error))
            raise
        return None
    requests = []
    times_s = []
    for index, entry in enumerate(data):
        headers = {name.lower(): value for name, value in context.get_all_request_header(index).items()}
        body = bytes(entry.get("body") or b"")
        times_s.append(float(headers[TIME_HEADER.lower()]))
        requests.append(
            Request(body, headers.get(CONTENT_TYPE_HEADER.lower(), ""), headers.get(ACCEPT_HEADER.lower(), ""))
        )
    responses = _loaded["model"](requests, max(times_s))
    for index, response in enumerate(responses):
        context.set_response_status(code=int(response.status), phrase=HTTPStatus(response.status).phrase, idx=index)
        context.set_response_content_type(index, response.content_type)
        context.set_response_header(index, ANSWER_HEADER, "1")
    return [response.body for response in responses]


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() == "true"


def _settle(working_bytes: int) -> None:
    settle(int(os.environ[GROWTH_VARIABLE]) + working_bytes, allow_bundle_code=_is_true("ALLOW_BUNDLE_CODE"))


def _log_for_java(level: str) -> None:
    """Split the log over two streams, because Java knows the level of a line by its stream.

    What Python writes to stdout, where the model server's Python puts everything, counts as information, and stderr as
    warnings. When Java closes the connection, the model is unloaded: that is not an error.
    """
    root = logging.getLogger()
    root.setLevel(level)
    root.addFilter(lambda record: not (record.exc_info and str(record.exc_info[1]) == "Frontend disconnected"))
    logging.raiseExceptions = False  # at the end nobody may be left to read the log
    outputs = [x for x in root.handlers if isinstance(x, logging.StreamHandler) and x.stream is sys.stdout]
    for output in outputs:
        output.addFilter(lambda record: record.levelno < logging.WARNING)
        errors = logging.StreamHandler()
        errors.setLevel(logging.WARNING)
        errors.setFormatter(logging.Formatter("%(levelname)s worker %(process)d: %(message)s"))
        root.addHandler(errors)
