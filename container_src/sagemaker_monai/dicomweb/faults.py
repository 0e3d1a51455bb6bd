"""Errors between a DICOMweb server and its client, and which of them are worth a retry.

Messages of requests and urllib3 are not shown: they quote URLs, which may contain a patient's name.
"""

import email.utils
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from sagemaker_monai.errors import ConfigError, DatasetError

AGAIN = {408, 425, 429, 500, 502, 503, 504}
REFUSALS = {
    401: "the server refuses the credentials (401): set DICOMWEB_TOKEN, or DICOMWEB_USER and DICOMWEB_PASSWORD",
    403: "the credentials do not allow this (403): ask the server's operator for permission to search and retrieve",
    407: "the proxy requires credentials (407): give them in HTTPS_PROXY",
}


class InterruptedRetrieval(Exception):  # noqa: N818 - not an error: that of another thread is reported
    """The retrieval was stopped because another request failed, or by Ctrl-C."""


class LostError(Exception):
    """A failure that is worth a retry: no connection, a truncated answer, a busy server.

    Attributes:
        delay_s: how long the server asks to wait, or None.
    """

    def __init__(self, why: str, delay_s: float | None = None) -> None:
        super().__init__(why)
        self.delay_s = delay_s


class NotOffered(Exception):  # noqa: N818 - another form of the request is tried
    """The server does not support this resource, method or media type.

    Attributes:
        status: HTTP's.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def check_status(response: requests.Response) -> None:
    """Refuse an unsuccessful or compressed answer with LostError, NotOffered or CallerError."""
    status = response.status_code
    if status in REFUSALS:
        raise ConfigError(REFUSALS[status])
    if status in AGAIN:
        raise LostError(f"the server is busy or failing ({status})", _retry_after(response.headers.get("Retry-After")))
    if status in (404, 405, 406, 410, 415, 501):
        raise NotOffered(status)
    if status == 400:
        raise ConfigError("the server refuses the request (400): it may not support one of the search keys or values")
    # PS3.18 has 206 for a retrieval that lacks some instances, which are then requested one by one.
    if status not in (200, 204, 206):
        raise DatasetError(f"the server answers with HTTP status {status}; ask its operator")
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise DatasetError("the server sends a compressed answer, which was not requested; ask its operator")


def _retry_after(text: str | None) -> float | None:
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


@contextmanager
def losing() -> Iterator[None]:
    """Convert errors of requests and urllib3 to ours, without their messages, which may quote the URL."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            raise ConfigError(
                "the server's TLS certificate cannot be verified: "
                "set DICOMWEB_CA_BUNDLE to a PEM file of the authority that signed it, or correct the host name"
            ) from error
        refused = "the server refuses the TLS connection: it may require a client certificate (DICOMWEB_CLIENT_CERT)"
        if any(isinstance(cause, ssl.SSLError) and "ALERT" in str(cause.reason) for cause in causes):
            raise ConfigError(refused) from error
        if any(isinstance(cause, ssl.SSLError) for cause in causes):  # sometimes the reason gets lost on the way
            raise LostError(refused) from error
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            raise ConfigError("URL is invalid; give the root of the service, such as https://host/dicom-web") from error
        raise LostError("the connection to the server failed or broke") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, which requests and urllib3 attach in several ways."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        related = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        waiting += [other for other in related if isinstance(other, BaseException)]
