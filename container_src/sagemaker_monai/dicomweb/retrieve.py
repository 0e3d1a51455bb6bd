"""Retrieves instances of series from a DICOMweb server into a store (WADO-RS), checking each before storing it.

Source: DICOM PS3.18, 10.4.
"""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import requests
from pydicom import Dataset

from sagemaker_monai.dicomweb.faults import LostError, NotOffered
from sagemaker_monai.dicomweb.related_parts import CutOffError, media_type_of, read_parts
from sagemaker_monai.dicomweb.search import FoundSeries
from sagemaker_monai.dicomweb.stores import Journal, Store, Stored, is_uid, make_clear, new_part, remove
from sagemaker_monai.dicomweb.transport import Server
from sagemaker_monai.errors import (
    CallerError,
    ConfigError,
    DatasetError,
    PayloadTooLarge,
    UndecodableImage,
    UnsuitableImage,
)
from sagemaker_monai.images.dicom.headers import read_header, read_instance
from sagemaker_monai.images.dicom.limits import MAX_FILE_BYTES
from sagemaker_monai.storage.files import sha256_of

Transform = Callable[[Dataset, Path], Dataset]  # from an object to a file; what was written
MULTIPART = 'multipart/related; type="application/dicom"; transfer-syntax=*'
# AWS HealthImaging sends single instances, and only on this Accept header; `*` is the syntax in which it is stored.
SINGLE = "application/dicom; transfer-syntax=*"
MAX_INSTANCE_BYTES = MAX_FILE_BYTES  # the reader's limit
_OF_ONE_SERIES = (DatasetError, UndecodableImage, UnsuitableImage, PayloadTooLarge)


@dataclass(frozen=True)
class Plan:
    """What to fetch of one series.

    Attributes:
        series: the series.
        listed: SOPInstanceUIDs that the server lists.
        missing: those that are not yet stored; updated as instances arrive.
    """

    series: FoundSeries
    listed: tuple[str, ...]
    missing: set[str]


class Retrieval:
    """Fetches plans.

    Args:
        server: the source.
        store: receives the instances.
        journal: records them.
        transform: applied before storing, or None.
        stop: set to make every thread stop, when one failed.
    """

    def __init__(
        self, server: Server, store: Store, journal: Journal, transform: Transform | None, stop: threading.Event
    ) -> None:
        self._server, self._store, self._journal = server, store, journal
        self._transform, self._stop = transform, stop
        self._events: SimpleQueue[int | Future[None]] = SimpleQueue()
        self._is_series_offered = True
        self._accept = MULTIPART
        self._transforming = threading.Lock()

    def fetch(self, plans: list[Plan], parallel: int) -> Iterator[int]:
        """Fetch what is missing; yields the size in bytes of each stored instance.

        Incomplete series do not prevent fetching the others; any other error ends the retrieval.

        Raises:
            DatasetError: at the end, if series are incomplete.
            CallerError: the first other error.
        """
        make_clear(self._store.incoming)
        failures: list[CallerError] = []
        pool = ThreadPoolExecutor(parallel)
        # Instances that are not de-identified yet never touch the output folder.
        with tempfile.TemporaryDirectory() as scratch:
            incoming = Path(scratch) if self._transform else self._store.incoming
            try:
                for plan in plans:
                    pool.submit(self._fetch_series, plan, incoming).add_done_callback(self._events.put)
                running = len(plans)
                while running:
                    event = self._events.get()
                    if isinstance(event, int):
                        yield event
                        continue
                    running -= 1
                    error = event.exception()
                    if isinstance(error, _OF_ONE_SERIES):
                        failures.append(error)
                    elif error is not None:
                        raise error
            finally:
                self._stop.set()
                self._server.close()
                pool.shutdown(cancel_futures=True)
                remove(self._store.incoming)
        if failures:
            raise DatasetError(
                f"{len(failures)} of {len(plans)} series are incomplete (the state file names them); "
                f"the first: {failures[0]}"
            ) from failures[0]

    def _fetch_series(self, plan: Plan, incoming: Path) -> None:
        try:
            self._fetch_missing(plan, incoming)
            if plan.series.count not in (None, len(plan.listed)):
                raise DatasetError(
                    f"the server counts {plan.series.count} instances in a series and lists {len(plan.listed)}: "
                    "if it is still receiving them, run the command again later; otherwise have its index rebuilt"
                )
        except _OF_ONE_SERIES as error:
            self._journal.add_failure(plan.series.uid, str(error))
            raise

    def _fetch_missing(self, plan: Plan, incoming: Path) -> None:
        path = f"/studies/{plan.series.study}/series/{plan.series.uid}"
        if self._is_series_offered and len(plan.missing) == len(plan.listed) > 1:
            try:
                self._server.insist(lambda: self._receive_series(path, plan, incoming))
            except (NotOffered, ConfigError) as error:
                # AWS answers unsupported requests with 403. If the credentials are wrong, the next request fails too.
                if not isinstance(error, NotOffered) or error.status != 404:
                    self._is_series_offered = False
        for uid in [each for each in plan.listed if each in plan.missing]:
            self._fetch_instance(f"{path}/instances/{uid}", plan, uid, incoming)

    def _receive_series(self, path: str, plan: Plan, incoming: Path) -> None:
        before = len(plan.missing)
        try:
            self._receive(path, MULTIPART, plan, incoming)
        except LostError:
            if len(plan.missing) == before:
                raise
            # The rest is fetched one by one: another request for the series would transfer all of it again.

    def _fetch_instance(self, path: str, plan: Plan, uid: str, incoming: Path) -> None:
        for accept in dict.fromkeys([self._accept, SINGLE]):
            try:
                self._server.insist(partial(self._receive, path, accept, plan, incoming, only=uid))
                self._accept = accept
                break
            except NotOffered as error:
                status = error.status
            except ConfigError:
                if accept == SINGLE:
                    raise
        else:
            raise DatasetError(f"the server lists an instance that it does not send ({status}); run the command again")
        if uid in plan.missing:
            raise DatasetError("the server sends nothing for an instance that it lists; run the command again")

    def _receive(self, path: str, accept: str, plan: Plan, incoming: Path, only: str | None = None) -> None:
        with self._server.get(path, accept=accept) as response:
            if response.status_code == 204:
                return
            media_type, boundary = media_type_of(response.headers.get("Content-Type", ""))
            chunks = self._server.chunks(response)
            if media_type == "multipart/related" and boundary:
                try:
                    for part in read_parts(chunks, boundary):
                        length = part.headers.get("content-length", "")
                        self._take(part.content, length, plan, incoming, only)
                except CutOffError as error:
                    raise LostError("the server's answer is cut off") from error
            elif media_type == "application/dicom":
                if not _has_end(response):
                    raise DatasetError(
                        "the server sends an instance without a length, so truncation cannot be detected; ask its "
                        "operator"
                    )
                self._take(chunks, "", plan, incoming, only)
            else:
                raise DatasetError(
                    "the server's answer is not multipart/related or application/dicom; is URL a DICOMweb service's?"
                )

    def _take(self, content: Iterator[bytes], length: str, plan: Plan, incoming: Path, only: str | None) -> None:
        path, file = new_part(incoming)
        try:
            digest, size = hashlib.sha256(), 0
            with file:
                for chunk in content:
                    size += len(chunk)
                    if size > MAX_INSTANCE_BYTES:
                        raise PayloadTooLarge(f"the server sends an instance of more than {MAX_INSTANCE_BYTES} bytes")
                    digest.update(chunk)
                    file.write(chunk)
            if length.isdecimal() and length != str(size):
                raise DatasetError("the length of an instance differs from its header; ask the server's operator")
            uid = _checked(path, plan, only)
            if self._transform is None:
                self._put(path, plan, uid, plan.series.uid, uid, size, digest.hexdigest())
            else:
                self._put_transformed(path, plan, uid, self._transform)
        finally:
            path.unlink(missing_ok=True)
        plan.missing.remove(uid)
        self._events.put(size)

    def _put_transformed(self, original: Path, plan: Plan, uid: str, transform: Transform) -> None:
        dataset = read_instance(original)
        path, file = new_part(self._store.incoming)
        file.close()
        try:
            with self._transforming:  # transforms may keep counts
                dataset = transform(dataset, path)
            series, instance = str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)
            self._put(path, plan, uid, series, instance, path.stat().st_size, sha256_of(path))
        finally:
            path.unlink(missing_ok=True)

    def _put(self, path: Path, plan: Plan, uid: str, series: str, instance: str, size: int, sha256: str) -> None:
        stored = Stored(plan.series.uid, uid, f"series/{series}/{instance}.dcm", size, sha256)
        self._journal.add(stored)
        self._store.put(path, stored)


def _checked(path: Path, plan: Plan, only: str | None) -> str:
    """The SOPInstanceUID of a received file, if it was requested and is still missing."""
    try:
        header = read_header(path)
    except UndecodableImage as error:
        raise DatasetError("the server sent something that is not a valid DICOM file; ask its operator") from error
    uids = {keyword: header.get(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    study, series, instance = (str(uid or "").strip() for uid in uids.values())
    if (study, series) != (plan.series.study, plan.series.uid) or only not in (None, instance):
        raise DatasetError("the server sent an instance that was not requested, or of another study or series")
    if not is_uid(instance) or instance not in plan.missing:
        raise DatasetError("the server sent an instance that it does not list, or one twice; run the command again")
    return instance


def _has_end(response: requests.Response) -> bool:
    """Whether truncation of the body would be noticed."""
    headers = response.headers
    return headers.get("Content-Length", "").isdecimal() or "chunked" in headers.get("Transfer-Encoding", "").lower()
