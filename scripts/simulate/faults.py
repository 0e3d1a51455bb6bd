"""Errors, with SageMaker's messages."""


class ApiError(Exception):
    """A request that is refused.

    Args:
        code: AWS's name of the error.
        message: AWS's message.
        status: HTTP status.
        fields: further members of the error, as of ModelError.
    """

    def __init__(self, code: str, message: str, status: int = 400, **fields: object) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.fields = code, message, status, fields


class JobError(Exception):
    """A job or endpoint that fails; the message is its FailureReason."""


class InternalError(Exception):
    """A failure of the platform and not of the container, which RetryStrategy repeats."""


def invalid(message: str) -> ApiError:
    """A ValidationException of the control plane."""
    return ApiError("ValidationException", message)


def not_simulated(what: str) -> ApiError:
    """A request that AWS would take and this simulation does not."""
    return invalid(f"{what} is not simulated offline: leave it out, or run the request on AWS")
