"""Ask an endpoint (`make predict`): images from files, folders or S3, answers as a table, as JSON, or in files.

A DICOM file is an image by itself, or with --series a part of one: the files of each folder, here or in S3, go as one
zip. Reports (--accept application/dicom) are saved as .dcm.

How the endpoint is asked follows from its configuration: real-time, serverless, multi-model, or asynchronous. An
asynchronous input lies in S3 for as long as it is waited for and is removed when it was answered, because it is a
patient's; --keep leaves it. One input that fails leaves the others alone: it has a row with the code, and the exit code
is 1.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from sagemaker_monai.messages.progress import track
from sagemaker_monai_aws.client.answers import JSON_TYPES, documents, plain_type, predictions
from sagemaker_monai_aws.client.ask import as_table
from sagemaker_monai_aws.client.asking import Asking, Source
from sagemaker_monai_aws.client.content_types import (
    DICOM,
    FOLDER_MARK,
    KNOWN,
    SERIES,
    files_below,
    size_of,
    type_of_file,
    type_of_name,
    with_series,
)
from sagemaker_monai_aws.client.endpoints import Answer, find_endpoint, find_target
from sagemaker_monai_aws.client.saving import SavingError, save_parts
from sagemaker_monai_aws.core import command
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.command import Context
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.listing import Item, find
from sagemaker_monai_aws.core.names import split_s3
from sagemaker_monai_aws.core.places import place

NAME = "predict"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a prediction."""
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="files, folders, or s3:// objects and prefixes")
    add("--endpoint", help="name (default: the only one of the project that is in service)")
    add("--target", metavar="NAME.tar.gz", help="model of a multi-model endpoint")
    add("--content-type", help="of all inputs (default: by the suffix of each, DICOM by its bytes)")
    add("--series", action="store_true", help="the DICOM files of each folder are one image, a series: one request")
    add("--accept", default="application/json",
        help="type of the answers; application/x-nifti: masks (default: %(default)s)")  # fmt: skip
    add("--parallel", type=int, default=4, help="requests at once, 1 to 64 (default: %(default)s)")
    add("--json", action="store_true", help="print a JSON array instead of a table")
    add("--save", type=Path, metavar="FOLDER", help="write every answer into a file")
    add("--timeout-s", type=int, default=900, help="asynchronous: of one invocation, 1 to 3600 (default: %(default)s)")
    add("--wait-s", type=float, default=3600.0,
        help="asynchronous: for one answer, the queue included (default: %(default)s)")  # fmt: skip
    add("--poll-s", type=float, default=2.0,
        help="asynchronous: seconds between two looks for it (default: %(default)s)")  # fmt: skip
    add("--keep", action="store_true", help="asynchronous: leave the inputs in S3")


def find_sources(
    account: Account, inputs: list[str], content_type: str | None, *, by_series: bool = False
) -> list[Source]:
    """All inputs in the order in which they were named, each once; folders in the order of names.

    A file that is named, or lies below a prefix, must have a known suffix, be DICOM, or have a type; in a local folder
    what has neither is left out, as other files lie there, too.

    Args:
        account: for what lies in S3.
        inputs: files, folders, s3:// objects and prefixes.
        content_type: of all; None: of each by its name, of files here by their first bytes too.
        by_series: the DICOM files of a folder are one input.

    Raises:
        CommandError: nothing is found, or a type is not known.
    """
    if by_series and content_type:
        raise CommandError("--series sends a zip: leave --content-type out")
    sources: dict[str, Source] = {}
    for word in inputs:
        if word.startswith("s3:"):
            found = _series_in_s3(account, word) if by_series else _in_s3(account, word, content_type)
        else:
            found = _here(Path(word), content_type, by_series=by_series)
        for source in found:
            sources.setdefault(source.shown, source)
    return list(sources.values())


def _known(name: str, found: str | None) -> str:
    if found is None:
        raise CommandError(f"{name}: the type of {Path(name).suffix or 'a name without a suffix'} is not known, give "
                           f"--content-type; known are {KNOWN}")  # fmt: skip
    return found


def _here(path: Path, asked: str | None, *, by_series: bool) -> Iterator[Source]:
    try:
        if path.is_dir():
            yield from _in_folder(path, asked, by_series=by_series)
        elif path.is_file():
            found = _known(path.name, asked or type_of_file(path))
            yield Source(str(path), path.name, found, path.stat().st_size, path)
        else:
            raise CommandError(f"there is no file or folder {path}")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error


def _in_folder(folder: Path, asked: str | None, *, by_series: bool) -> Iterator[Source]:
    files = files_below(folder)
    typed = with_series(files) if by_series else ((file, asked or type_of_file(file)) for file in files)
    found = [(file, content_type) for file, content_type in typed if content_type]
    if not found:
        raise CommandError(f"{folder} has no file of a known type ({KNOWN}, DICOM): give --content-type")
    for file, content_type in found:
        mark = FOLDER_MARK if file.is_dir() else ""
        name = folder.name if file == folder else file.relative_to(folder).as_posix()
        yield Source(f"{file}{mark}", name, content_type, size_of(file), file)


def _in_s3(account: Account, uri: str, asked: str | None) -> Iterator[Source]:
    for item in _listed(account, uri):
        yield Source(item.uri, item.name, _known(item.name, asked or type_of_name(item.name)), item.size_bytes, item)


def _series_in_s3(account: Account, uri: str) -> Iterator[Source]:
    """The DICOM objects of each folder as one input; objects without a suffix count as DICOM, for nothing is read."""
    folders: dict[str, list[Item]] = {}
    for item in _listed(account, uri):
        found = type_of_name(item.name) or (None if PurePosixPath(item.key).suffix else DICOM)
        if found == DICOM:
            folders.setdefault(item.key.rpartition("/")[0], []).append(item)
        else:
            yield Source(item.uri, item.name, _known(item.name, found), item.size_bytes, item)
    for key, items in folders.items():
        name = items[0].name.rpartition("/")[0] or key.rpartition("/")[2] or items[0].bucket
        yield Source(f"s3://{items[0].bucket}/{key}/", name, SERIES, sum(each.size_bytes for each in items),
                     tuple(items))  # fmt: skip


def _listed(account: Account, uri: str) -> list[Item]:
    split_s3(uri)
    if not account.is_known:
        raise CommandError(f"{uri} cannot be listed without credentials: log in, or name local files")
    return find(account, uri)


def work(context: Context) -> int:
    """Find endpoint and inputs, ask, print."""
    account, options = context.account, context.options
    if not options.inputs:
        raise CommandError("nothing to predict: give IMAGE=file, folder or s3://bucket/prefix")
    for name, low, high in (("parallel", 1, 64), ("timeout_s", 1, 3600)):
        if not low <= getattr(options, name) <= high:
            raise CommandError(f"--{name.replace('_', '-')} is {low} to {high}, got {getattr(options, name)}")
    sources = find_sources(account, options.inputs, options.content_type, by_series=options.series)
    endpoint = find_endpoint(account, options.project, options.endpoint)
    target = find_target(account, endpoint, options.target)
    asking = Asking(
        account=account,
        endpoint=endpoint,
        accept=options.accept,
        target=target,
        inputs=place(account, options, "async", endpoint.name, "input"),
        timeout_s=options.timeout_s,
        wait_s=options.wait_s,
        poll_s=options.poll_s,
        keep=options.keep,
        kms_key=options.kms_key,
        parallel=options.parallel,
    )
    if options.dry_run:
        calls = [asking.call(source, f"<{source.size_bytes} bytes of {source.shown}>".encode()) for source in sources]
        return command.show_plan(
            context, NAME, calls, [f"{endpoint.name} gets the images, nothing is created ({endpoint.mode})"]
        )
    left = f"inputs without an answer stay at {asking.inputs}/: the same command sends them again and removes them"
    context.after_interrupt = left if endpoint.mode == "async" else "nothing is left of it"
    rows = list(track(_ask_all(asking, sources, options), total=len(sources), what=f"asking {endpoint.name}"))
    print(json.dumps([_as_json(*row) for row in rows], indent=2) if options.json else as_table(_as_rows(rows)))
    return 1 if any(answer.code for _, answer, _ in rows) else 0


Row = tuple[Source, Answer, list[Path]]


def _ask_all(asking: Asking, sources: list[Source], options: argparse.Namespace) -> Iterator[Row]:
    """Several at once, yielded in the order of `sources`."""
    for service, settings in (("s3", {}), ("sagemaker-runtime", asking.client_settings)):
        asking.account.client(service, **settings)  # boto3 makes clients in one thread only

    def one(source: Source) -> Row:
        answer = asking.ask(source)
        if options.save is None or answer.code:
            return source, answer, []
        try:
            saved = save_parts(options.save, source.name, answer.content_type, answer.body)
        except SavingError as error:
            raise CommandError(str(error)) from error
        is_shown = plain_type(answer.content_type) in JSON_TYPES
        return source, answer if is_shown else Answer(answer.content_type), saved  # what is on disk is not kept here

    pool = ThreadPoolExecutor(asking.parallel)
    futures: list[Future[Row]] = [pool.submit(one, source) for source in sources]
    try:
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for what is under way, and not for the rest


def _as_rows(rows: list[Row]) -> list[tuple[str, dict[str, Any]]]:
    """For as_table, which has a place for predictions and for a code with a message."""
    shown: list[tuple[str, dict[str, Any]]] = []
    for source, answer, saved in rows:
        found = None if saved or answer.code else predictions(answer.content_type, answer.body)
        if answer.code:
            shown.append((source.shown, {"error": {"code": answer.code, "message": answer.message}}))
        elif found is not None:
            shown.append((source.shown, {"predictions": found}))
        else:
            content = None if saved else documents(answer.content_type, answer.body)
            places = ", ".join(map(str, saved))
            text = f"saved as {places}" if saved else f"{len(answer.body)} bytes, --save FOLDER writes them"
            if content is not None:
                text = json.dumps(content[0] if len(content) == 1 else content)
            kind = plain_type(answer.content_type) or "no type"
            shown.append((source.shown, {"error": {"code": kind, "message": text}}))
    return shown


def _as_json(source: Source, answer: Answer, saved: list[Path]) -> dict[str, Any]:
    row: dict[str, Any] = {"source": source.shown}
    if answer.code:
        return row | {"error": {"code": answer.code, "message": answer.message}}
    row["content_type"] = answer.content_type
    if saved:
        row["saved"] = str(saved[0]) if len(saved) == 1 else [str(each) for each in saved]
    content = documents(answer.content_type, answer.body)
    if content is not None:
        row["answer"] = content[0] if len(content) == 1 else content
    elif not saved:
        row["size_bytes"] = len(answer.body)
    return row
