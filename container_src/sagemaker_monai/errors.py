"""Every error that a caller or operator can fix: its stable code, its HTTP status, its line in the failure file.

Messages reach callers: they name the value and the remedy, never a path, a file's text or patient data.
Everything else is a bug of the program: `InternalError`, 500.
"""

from sagemaker_monai.messages.item_names import current

FAILURE_FILE_LIMIT = 1024  # characters of /opt/ml/output/failure that SageMaker shows


class CallerError(Exception):
    """A fault outside this program. `code` is stable and `status` is HTTP's; neither is translated."""

    status = 400

    @property
    def code(self) -> str:
        """The error's class name, which clients may rely on."""
        return type(self).__name__


# --- training jobs


class ConfigError(CallerError):
    """A hyperparameter, option or environment variable is wrong."""


class DatasetError(CallerError):
    """The training data cannot be used as it is."""


class TrainingStopped(CallerError):
    """The job was asked to stop before there was anything to save."""


# --- artifacts and requests


class BundleError(CallerError):
    """The model artifact is missing, unsafe or inconsistent."""

    status = 500


class MalformedRequest(CallerError):
    """The body is not what its Content-Type promises (JSON, multipart, zip or npy container)."""


class UndecodableImage(CallerError):
    """The bytes are not a sound picture of the promised type."""


class UnsuitableImage(CallerError):
    """A sound picture that this model cannot take (several frames), or that lacks the UIDs of a DICOM answer."""

    status = 422


class PayloadTooLarge(CallerError):
    """More bytes, pixels or pictures than the limits allow."""

    status = 413


class UnsupportedMediaType(CallerError):
    """No reader for this Content-Type."""

    status = 415


class NotAcceptable(CallerError):
    """None of the types in Accept can be produced."""

    status = 406


class ReferenceNotAllowed(CallerError):
    """The request names an object that the deployer did not list, or lists none at all."""

    status = 403


class ObjectUnavailable(CallerError):
    """An object that the request names is not there, or this endpoint may not read it."""

    status = 424


class NotFound(CallerError):
    """No such path."""

    status = 404


# --- models and the server


class ModelNotFound(CallerError):
    """No model of this name is loaded."""

    status = 404


class ModelAlreadyLoaded(CallerError):
    """A model of this name is loaded."""

    status = 409


class NotEnoughMemory(CallerError):
    """The container has no room for this model; SageMaker then unloads others and tries again."""

    status = 507


class MethodNotAllowed(CallerError):
    """The path has other methods."""

    status = 405


class RequestTimeout(CallerError):
    """The client sends too slowly."""

    status = 408


class Overloaded(CallerError):
    """More requests wait than can be answered in time."""

    status = 503


class Unavailable(CallerError):
    """No process can answer now: restarting, or shutting down."""

    status = 503


class Timeout(CallerError):
    """No answer within the time a request may take."""

    status = 504


class WorkerDied(CallerError):
    """The process ended while it worked on this request, which may be the cause and is not repeated."""

    status = 500


INTERNAL_ERROR = "InternalError"  # the code of everything else: a bug of the program


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """The JSON body of every refused request."""
    return {"error": {"code": code, "message": message}}


def failure_line(error: BaseException) -> str:
    """One line for the failure file: the message of a caller's error, the type and last frame of a bug.

    Returns:
        At most 1,024 characters without line breaks, all of which can be written as UTF-8.
    """
    if isinstance(error, CallerError):
        text = f"{error.code}: {error}"
    else:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = f" at {frame.tb_frame.f_code.co_qualname}:{frame.tb_lineno}" if frame is not None else ""
        text = f"{INTERNAL_ERROR}: {type(error).__name__}: {error}{place}"
    text = current().mask(" ".join(text.split()))
    text = text.encode("utf-8", "backslashreplace").decode()  # file names may not be valid Unicode
    return text if len(text) <= FAILURE_FILE_LIMIT else text[: FAILURE_FILE_LIMIT - 1] + "…"
