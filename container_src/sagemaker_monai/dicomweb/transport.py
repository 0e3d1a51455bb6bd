"""GET requests to one DICOMweb server: what is sent, what is trusted, and when to retry.

TLS is always verified. Redirects are followed only within the same scheme, host and port, so credentials never reach
another server, and every answer comes from the named one. Nothing is read from the environment here; `Access`, made by
`entrypoints.dicomweb_access`, contains everything.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import requests
import urllib3

from sagemaker_monai.dicomweb.faults import InterruptedRetrieval, LostError, check_status, losing
from sagemaker_monai.errors import ConfigError, DatasetError, Unavailable

ATTEMPTS = 6
FIRST_DELAY_S, MAX_DELAY_S = 1.0, 60.0
MAX_RETRY_AFTER_S = 600.0  # for a longer delay, give up
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 15.0, 60.0
# A server that sends a byte now and then never hits a timeout, so a minimum rate applies too.
PACE_S, MIN_PACE_BYTES = 60.0, 64 << 10
READ_BYTES = 1 << 20
MAX_JSON_BYTES = 64 << 20  # one page of a search
# Allowed in a query by RFC 3986: Orthanc 1.10 compares search values as they are in the URL, including escapes.
UNESCAPED = "*?/:,@"
MAX_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Access:
    """How to access a server.

    Attributes:
        sign: adds credentials to a request; None for a server without authentication.
        ca_bundle: PEM file of the authorities to trust instead of the usual ones.
        client_cert: PEM files of the client's certificate and its key, or one with both.
        proxies: by scheme, as in requests.
    """

    sign: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    client_cert: tuple[Path, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)


def check_url(url: str, *, is_http_allowed: bool) -> str:
    """The root of a DICOMweb service, without a trailing slash.

    Raises:
        ConfigError: an invalid URL, or plain HTTP to another machine without permission.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("URL is invalid; give the root of the service, such as https://host/dicom-web") from error
    if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment or not url.isprintable():
        raise ConfigError("URL must be the root of a DICOMweb service, such as https://host/dicom-web")
    if "@" in parts.netloc:
        raise ConfigError("URL contains credentials: set DICOMWEB_USER and DICOMWEB_PASSWORD instead")
    if parts.scheme == "http" and not is_http_allowed and not _is_loopback(host):
        raise ConfigError(
            "URL is plain HTTP, which anybody on the network can read and change: use https://, or add --insecure-http"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """One server, for any number of threads.

    Args:
        root: from `check_url`.
        access: how to access it.
        stop: set to stop all requests.
    """

    def __init__(self, root: str, access: Access, stop: threading.Event) -> None:
        self._root, self._access, self._stop = root, access, stop
        self._own = threading.local()  # sessions are not thread-safe
        self._open: set[requests.Response] = set()

    def close(self) -> None:
        """Make threads that wait for a body stop immediately; call it after setting `stop`."""
        for response in tuple(self._open):
            # The body may have ended meanwhile, or its connection may be closed.
            with suppress(OSError, ValueError, AttributeError, urllib3.exceptions.HTTPError):
                response.raw.shutdown()

    def get_json(self, path: str, query: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """One page of a search, which may be empty.

        Raises:
            NotOffered: the server has no such search.
            CallerError: any other failure after retries.
        """

        def ask() -> list[dict[str, Any]]:
            with self.get(path, query, accept="application/dicom+json") as response:
                if response.status_code == 204:
                    return []
                body = bytearray()
                for chunk in self.chunks(response):
                    body += chunk
                    if len(body) > MAX_JSON_BYTES:
                        raise DatasetError(f"a page of the search is larger than {MAX_JSON_BYTES} bytes; narrow it")
            return _records(bytes(body))

        return self.insist(ask)

    def insist(self, ask: Callable[[], Answer]) -> Answer:
        """Call `ask`, and again after growing delays while it raises LostError; Unavailable after too many tries."""
        tries = 0
        while True:
            try:
                return ask()
            except LostError as error:
                tries += 1
                # Random delays spread clients that were all rejected at once.
                own = min(FIRST_DELAY_S * 2 ** (tries - 1), MAX_DELAY_S) * random.uniform(0.75, 1.25)  # noqa: S311
                delay = own if error.delay_s is None else max(error.delay_s, 0.0)
                if tries >= ATTEMPTS or delay > MAX_RETRY_AFTER_S:
                    later = f"in {delay:.0f} s" if delay > MAX_RETRY_AFTER_S else "later"
                    raise Unavailable(f"{error}; run the same command {later} to continue where it stopped") from error
            if self._stop.wait(delay):
                raise InterruptedRetrieval

    @contextmanager
    def get(self, path: str, query: Sequence[tuple[str, str]] = (), *, accept: str) -> Iterator[requests.Response]:
        """Send one request, without reading the body; raises LostError, NotOffered or CallerError."""
        words = f"?{urlencode(query, quote_via=quote, safe=UNESCAPED)}" if query else ""
        url = f"{self._root}{path}{words}"
        headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "sagemaker-monai"}
        for _hop in range(MAX_REDIRECTS + 1):
            if self._stop.is_set():
                raise InterruptedRetrieval
            with losing():
                response = self._send(url, headers)
            with response, self._listed(response):  # outside `losing`: the reader has its own errors, e.g. a full disk
                if response.status_code not in REDIRECTS:
                    check_status(response)
                    yield response
                    return
                url = self._followed(url, response.headers.get("Location", ""))
        raise DatasetError(f"the server redirects more than {MAX_REDIRECTS} times; give the URL of the service itself")

    @contextmanager
    def _listed(self, response: requests.Response) -> Iterator[None]:
        self._open.add(response)
        try:
            yield
        finally:
            self._open.discard(response)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it arrives; LostError if the connection breaks or the server is too slow."""
        since, received = time.monotonic(), 0
        while True:
            if self._stop.is_set():
                raise InterruptedRetrieval
            with losing():
                chunk = response.raw.read1(READ_BYTES)
            if not chunk:
                return
            received += len(chunk)
            yield chunk
            passed = time.monotonic() - since
            if passed > PACE_S:
                if received < MIN_PACE_BYTES:
                    raise LostError("the server sends too slowly")
                since, received = time.monotonic(), 0

    def _send(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        session = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.trust_env = False  # ignore .netrc and the environment's CA bundle
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # no cookies
        request = session.prepare_request(requests.Request("GET", url, headers=dict(headers)))
        if self._access.sign is not None:
            request = self._access.sign(request)
        cert = tuple(map(str, self._access.client_cert))
        response: requests.Response = session.send(
            request,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            verify=str(self._access.ca_bundle) if self._access.ca_bundle else True,
            cert=(cert[0] if len(cert) == 1 else cert) or None,
            proxies=dict(self._access.proxies),
        )
        return response

    def _followed(self, url: str, location: str) -> str:
        new = urljoin(url, location)
        try:
            is_same = _origin(new) == _origin(self._root)
        except ValueError:
            is_same = False
        if not location or not is_same:
            raise ConfigError(
                "the server redirects to another host, port or scheme, which is not followed: "
                "if you trust the target, give its URL"
            )
        return new


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _records(body: bytes) -> list[dict[str, Any]]:
    if not body.strip():
        return []
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DatasetError("the server's answer to a search is not JSON; is URL the root of the service?") from error
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise DatasetError("the server's answer to a search is not a list of DICOM JSON; is URL the service's root?")
    return found
