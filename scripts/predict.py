"""Ask an endpoint (`make predict`): pictures from files, folders or S3, answers as a table, as JSON, or in files.

How the endpoint is asked follows from its configuration: real-time, serverless, multi-model, or asynchronous. An
asynchronous input lies in S3 for as long as it is waited for and is removed when it was answered, because it is a
patient's; --keep leaves it. One input that fails leaves the others alone: it has a row with the code, and the exit code
is 1.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sagemaker_monai.progress import track
from scripts.answers import JSON_TYPES, documents, plain_type, predictions
from scripts.ask import CONTENT_TYPES, as_table
from scripts.asking import Asking, Source
from scripts.aws import command
from scripts.aws.account import Account
from scripts.aws.command import Context
from scripts.aws.errors import CommandError
from scripts.aws.listing import find
from scripts.aws.names import split_s3
from scripts.aws.places import place
from scripts.endpoints import Answer, find_endpoint, find_target
from scripts.saving import save

NAME = "predict"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a prediction."""
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="files, folders, or s3:// objects and prefixes")
    parser.add_argument("--endpoint", help="name (default: the only one of the project that is in service)")
    parser.add_argument("--target", metavar="NAME.tar.gz", help="model of a multi-model endpoint")
    parser.add_argument("--content-type", help="of all inputs (default: by the suffix of each)")
    parser.add_argument("--accept", default="application/json", help="type of the answers (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=4, help="requests at once, 1 to 64 (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write every answer into a file, whatever it is")
    parser.add_argument("--timeout-s", type=int, default=900,
                        help="asynchronous: of one invocation, 1 to 3600 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--wait-s", type=float, default=3600.0,
                        help="asynchronous: for one answer, the queue included (default: %(default)s)")  # fmt: skip
    parser.add_argument("--poll-s", type=float, default=2.0,
                        help="asynchronous: seconds between two looks for it (default: %(default)s)")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="asynchronous: leave the inputs in S3")
    command.add_dry_run(parser)


def find_sources(account: Account, inputs: list[str], content_type: str | None) -> list[Source]:
    """All inputs in the order in which they were named, each once; folders in the order of names.

    A file that is named, or lies below a prefix, must have a known suffix or a type; in a local folder what has neither
    is left out, as other files lie there, too.

    Raises:
        CommandError: nothing is found, or a type is not known.
    """
    sources: dict[str, Source] = {}
    for word in inputs:
        found = _in_s3(account, word, content_type) if word.startswith("s3:") else _here(Path(word), content_type)
        for source in found:
            sources.setdefault(source.shown, source)
    return list(sources.values())


def _type_of(name: str, asked: str | None) -> str:
    found = asked or CONTENT_TYPES.get(Path(name).suffix.lower())
    if found is None:
        raise CommandError(f"{name}: the type of {Path(name).suffix or 'a name without a suffix'} is not known, give "
                           f"--content-type; known are {', '.join(CONTENT_TYPES)}")  # fmt: skip
    return found


def _here(path: Path, asked: str | None) -> Iterator[Source]:
    if not path.is_dir():
        if not path.is_file():
            raise CommandError(f"there is no file or folder {path}")
        yield Source(str(path), path.name, _type_of(path.name, asked), path.stat().st_size, path)
        return
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if asked or file.suffix.lower() in CONTENT_TYPES]
    if not files:
        raise CommandError(f"{path} has no file of a known type ({', '.join(CONTENT_TYPES)}): give --content-type")
    for file in files:
        yield Source(str(file), file.relative_to(path).as_posix(), _type_of(file.name, asked), file.stat().st_size,
                     file)  # fmt: skip


def _in_s3(account: Account, uri: str, asked: str | None) -> Iterator[Source]:
    split_s3(uri)
    if not account.is_known:
        raise CommandError(f"{uri} cannot be listed, nobody is logged in: log in, or name files of this machine")
    for item in find(account, uri):
        yield Source(item.uri, item.name, _type_of(item.name, asked), item.size_bytes, item)


def work(context: Context) -> int:
    """Find endpoint and inputs, ask, print."""
    account, options = context.account, context.options
    if not options.inputs:
        raise CommandError("nothing was sent, name what is to be predicted: IMAGE=file, folder or s3://bucket/prefix")
    for name, low, high in (("parallel", 1, 64), ("timeout_s", 1, 3600)):
        if not low <= getattr(options, name) <= high:
            raise CommandError(f"--{name.replace('_', '-')} is {low} to {high}, got {getattr(options, name)}")
    sources = find_sources(account, options.inputs, options.content_type)
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
            context, NAME, calls, [f"{endpoint.name} is asked, nothing is created ({endpoint.mode})"]
        )
    left = f"inputs that were not answered stay at {asking.inputs}/: the same command sends them again and removes them"
    context.after_interrupt = left if endpoint.mode == "async" else "nothing is left of it"
    rows = list(track(_ask_all(asking, sources, options), total=len(sources), what=f"asking {endpoint.name}"))
    print(json.dumps([_as_json(*row) for row in rows], indent=2) if options.json else as_table(_as_rows(rows)))
    return 1 if any(answer.code for _, answer, _ in rows) else 0


Row = tuple[Source, Answer, Path | None]


def _ask_all(asking: Asking, sources: list[Source], options: argparse.Namespace) -> Iterator[Row]:
    """Several at once, yielded in the order of `sources`."""
    for service, settings in (("s3", {}), ("sagemaker-runtime", asking.client_settings)):
        asking.account.client(service, **settings)  # boto3 makes clients in one thread only

    def one(source: Source) -> Row:
        answer = asking.ask(source)
        if options.save is None or answer.code:
            return source, answer, None
        saved = save(options.save, source.name, answer.content_type, answer.body)
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
            text = f"saved as {saved}" if saved else f"{len(answer.body)} bytes, --save FOLDER writes them"
            if content is not None:
                text = json.dumps(content[0] if len(content) == 1 else content)
            kind = plain_type(answer.content_type) or "no type"
            shown.append((source.shown, {"error": {"code": kind, "message": text}}))
    return shown


def _as_json(source: Source, answer: Answer, saved: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"source": source.shown}
    if answer.code:
        return row | {"error": {"code": answer.code, "message": answer.message}}
    row["content_type"] = answer.content_type
    if saved is not None:
        row["saved"] = str(saved)
    content = documents(answer.content_type, answer.body)
    if content is not None:
        row["answer"] = content[0] if len(content) == 1 else content
    elif saved is None:
        row["size_bytes"] = len(answer.body)
    return row


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return command.run(NAME, __doc__ or "", add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main())
