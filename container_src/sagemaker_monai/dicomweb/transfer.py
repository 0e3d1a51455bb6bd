"""`dicomweb`: retrieves series from a DICOMweb server (Orthanc, AWS HealthImaging, others) to a folder or to S3.

After the search (`search`), each series is retrieved in one request (WADO-RS) and streamed part by part into a file for
each instance. What an earlier run stored is not fetched again (`stores.Journal`). The rest of a partly stored series is
fetched instance by instance, and so is every series of a server that does not offer series, such as AWS HealthImaging.

dicomweb-client is not used: its `iter_series` returns parsed datasets that would have to be encoded again, so files
would differ from the server's; it keeps each part in memory, without a limit on its size or header; it takes a
truncated body for a complete one; it discards what came before an error; it follows redirects; and its retries handle
neither Retry-After nor lost connections. `requests`, on which it is built, is used directly.
"""

import argparse
import hmac
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sagemaker_monai.deidentification.deidentify import BURNED_IN, BurnedIn, Deidentifier
from sagemaker_monai.deidentification.proved import write_deidentified
from sagemaker_monai.dicomweb.retrieve import Plan, Retrieval, Transform
from sagemaker_monai.dicomweb.search import Query, find_series, list_instances
from sagemaker_monai.dicomweb.stores import FolderStore, Journal, Store
from sagemaker_monai.dicomweb.transport import Access, Server, check_url
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.option_fields import add_options, option, options_of
from sagemaker_monai.messages.progress import track

S3 = "s3://"
PARALLEL = 4  # series at a time (a guess: acceptable for a small server, and hides the latency of a distant one)
MAX_PARALLEL = 32


def _no_s3(_uri: str, _kms_key: str | None) -> Store:
    raise ConfigError("only the command `prepare` can write to S3; name a folder")


def _no_salt() -> bytes:
    raise ConfigError("de-identification takes its salt from the environment: use the command `prepare`")


@dataclass(frozen=True)
class Outside:
    """What only `entrypoints` knows: credentials, AWS, the salt.

    Attributes:
        access: root of a service -> how to access it.
        open_s3: URI and KMS key -> a store.
        salt: of the de-identification.
    """

    access: Callable[[str], Access] = lambda _root: Access()
    open_s3: Callable[[str, str | None], Store] = _no_s3
    salt: Callable[[], bytes] = _no_salt


@dataclass(frozen=True)
class TransferOptions:
    """How series are retrieved and stored.

    Attributes:
        deidentify: None: only for S3.
        state: None: see `_default_state`.
    """

    parallel: int = option(PARALLEL, "series at a time (default: %(default)s)")
    deidentify: bool | None = option(
        None,
        "by the profile of DICOM PS3.15, with DEIDENTIFY_SALT (default: for S3 yes, for a folder no)",
        action=argparse.BooleanOptionalAction,
    )
    burned_in: BurnedIn = option(
        "refuse",
        "when de-identified, pictures that may have text about the patient in them (default: %(default)s)",
        choices=BURNED_IN,
    )
    keep_patient_characteristics: bool = option(
        False, "when de-identified, keep sex, age, size and weight", action="store_true"
    )
    kms_key: str | None = option(None, "that encrypts objects in S3 (default: as the bucket says)", metavar="ID")
    state: Path | None = option(
        None,
        "record by which a run goes on where another stopped; names original UIDs "
        "(default: retrieval.jsonl in OUT, beside it if de-identified, in the current folder for S3)",
        type=Path,
        metavar="FILE",
    )
    insecure_http: bool = option(
        False, "allow http:// to other machines: credentials and images unprotected", action="store_true"
    )


def add_transfer_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command; `outside` comes with the parser's defaults, from `entrypoints.prepare`."""
    parser.add_argument("url", metavar="URL", help="root of the DICOMweb service, e.g. https://host/dicom-web")
    parser.add_argument("out", metavar="OUT", help="folder for series/, or s3://bucket/prefix")
    add_options(parser, Query)
    add_options(parser, TransferOptions)


def run(given: argparse.Namespace) -> str:
    """Retrieve what the command line asks for; returns the summary to print."""
    outside: Outside = getattr(given, "outside", None) or Outside()
    options = options_of(given, TransferOptions)
    root = check_url(given.url, is_http_allowed=options.insecure_http)
    query = options_of(given, Query)
    query.check()
    if not 1 <= options.parallel <= MAX_PARALLEL:
        raise ConfigError(f"--parallel must be from 1 to {MAX_PARALLEL}, got {options.parallel}")
    is_s3 = given.out.startswith(S3)
    is_deidentified = is_s3 if options.deidentify is None else options.deidentify
    transform, treatment = _deidentification(options, outside.salt()) if is_deidentified else (None, "")
    if options.kms_key and not is_s3:
        raise ConfigError("--kms-key is for s3:// only")
    store = outside.open_s3(given.out, options.kms_key) if is_s3 else FolderStore(Path(given.out))
    state = options.state or _default_state(given.out, is_deidentified=is_deidentified)
    journal = Journal(state, source=root, treatment=treatment)
    try:
        access = outside.access(root)
        report = retrieve(root, access, query, store, journal, transform=transform, parallel=options.parallel)
    finally:
        journal.close()
    return report.summary()


def _deidentification(options: TransferOptions, salt: bytes) -> tuple[Transform, str]:
    """The de-identification, and a digest by which a later run recognises the same one."""
    deidentifier = Deidentifier(
        salt, burned_in=options.burned_in, keep_patient_characteristics=options.keep_patient_characteristics
    )
    rules = f"journal, words vouched for:{options.burned_in}:{options.keep_patient_characteristics}"
    transform = partial(write_deidentified, deidentifier=deidentifier)
    return transform, hmac.digest(salt, rules.encode(), "sha256").hex()


def _default_state(out: str, *, is_deidentified: bool) -> Path:
    if out.startswith(S3):
        return Path(out.removeprefix(S3).strip("/").replace("/", "-") + ".retrieval.jsonl")
    folder = Path(out)
    return (
        folder.resolve().with_name(f"{folder.resolve().name}.retrieval.jsonl")
        if is_deidentified
        else folder / "retrieval.jsonl"
    )


@dataclass(frozen=True)
class Report:
    """What a retrieval did.

    Attributes:
        series: found by the search.
        instances: in these series.
        new: instances fetched by this run.
        new_bytes: their size as sent by the server.
        duration_s: of fetching.
    """

    series: int
    instances: int
    new: int
    new_bytes: int
    duration_s: float

    def summary(self) -> str:
        """One line for the user."""
        speed = self.new_bytes / 1e6 / max(self.duration_s, 1e-3)
        fetched = f"{self.new} fetched ({self.new_bytes / 1e6:.1f} MB, {speed:.1f} MB/s)" if self.new else "0 fetched"
        return (
            f"{self.series} series with {self.instances} instances: {fetched}, {self.instances - self.new} there before"
        )


def retrieve(
    root: str,
    access: Access,
    query: Query,
    store: Store,
    journal: Journal,
    *,
    transform: Transform | None = None,
    parallel: int = PARALLEL,
) -> Report:
    """Search, and fetch what is not stored yet.

    Args:
        root: of the service, from `check_url`.
        access: how to access it.
        query: what to search for.
        store: receives the instances.
        journal: records what is stored.
        transform: applied to every instance before storing, or None.
        parallel: series at a time, at least 1.

    Raises:
        CallerError: instances fetched before the error are stored, and not fetched again by the next run.
    """
    stop = threading.Event()
    server = Server(root, access, stop)
    found = find_series(server, query)
    if not found:
        raise DatasetError("the server has no series for this search; widen it, or check the values")
    plans = []
    for series in track(found, total=len(found), what="listing series"):
        listed = list_instances(server, series)
        there = {uid for uid in listed if uid in journal.stored and store.has(journal.stored[uid])}
        plans.append(Plan(series, tuple(listed), set(listed) - there))
    total = sum(len(plan.missing) for plan in plans)
    started = time.monotonic()
    retrieval = Retrieval(server, store, journal, transform, stop)
    sizes = list(track(retrieval.fetch(plans, parallel), total=total, what="retrieving instances"))
    duration_s = time.monotonic() - started
    return Report(len(plans), sum(len(plan.listed) for plan in plans), len(sizes), sum(sizes), duration_s)
