"""Answers of a batch transform job beside the objects that they answer, as one table.

SageMaker joins answers with records of CSV and JSON; a picture it cannot join with anything. The table is made here
from the names of the outputs. Its cells are safe to open in a spreadsheet.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.messages.progress import track
from sagemaker_monai.storage.tables import spreadsheet_safe
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS
from sagemaker_monai_aws.client.answers import predictions
from sagemaker_monai_aws.client.endpoints import in_own_words
from sagemaker_monai_aws.client.tasks import cells, task_of
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.listing import Item, below

DOWNLOADS = 8  # at once, below the ten connections of a client
NO_OUTPUT = "no-output"
UNREADABLE = "unreadable-output"


@dataclass(frozen=True)
class Result:
    """The answer to one object: predictions, or a code."""

    source: str
    predictions: tuple[Mapping[str, Any], ...] = ()
    error: str = ""


def collect(account: Account, items: Sequence[Item], output: str, accept: str, log: Iterable[str]) -> list[Result]:
    """The answer to every object, in the order of the objects.

    Args:
        account: where they are.
        items: inputs of the job.
        output: its S3OutputPath.
        accept: type of the answers.
        log: lines of the job's log; for an object without an output they may say why.
    """
    there = {item.name: item for item in below(account, output)}
    s3 = account.client("s3")

    def one(item: Item) -> Result:
        found = there.get(f"{item.name}.out")
        if found is None:
            return Result(item.uri, error=NO_OUTPUT)
        body = s3.get_object(Bucket=found.bucket, Key=found.key)["Body"].read()
        read = predictions(accept, body)
        return Result(item.uri, error=UNREADABLE) if read is None else Result(item.uri, tuple(read))

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        results = list(track(pool.map(one, items), total=len(items), what="reading outputs"))
    missing = [item for item, result in zip(items, results, strict=True) if result.error == NO_OUTPUT]
    codes = reasons(log, missing) if missing else {}
    return [Result(result.source, result.predictions, codes.get(result.source, result.error)) for result in results]


def reasons(log: Iterable[str], items: Sequence[Item]) -> dict[str, str]:
    """What the log says of objects, by their addresses: the container's code, else the HTTP status.

    SageMaker writes several lines about an object, each `[sagemaker logs]: bucket/key: text`.
    """
    names = {name: item.uri for item in items for name in (item.key, f"{item.bucket}/{item.key}")}
    said: dict[str, list[str]] = {}
    for line in log:
        parts = line.rpartition("[sagemaker logs]: ")[2].split(": ")  # names of objects may have colons, too
        for end in range(1, len(parts)):
            uri = names.get(": ".join(parts[:end]))
            if uri is not None:
                said.setdefault(uri, []).append(": ".join(parts[end:]))
    return {uri: in_own_words(" ".join(texts)).code for uri, texts in said.items()}


def as_csv(results: Sequence[Result]) -> str:
    """A header and a row for each prediction.

    Columns: source, index (from 0, of several images in one object), those of the task (predicted_class and
    probability; predicted_classes with | between them; predicted_class, probability, grade and expected_grade; none for
    numbers), one for each label, error. Numbers have all their digits.
    """
    every = [each for result in results for each in result.predictions]
    tasks = [task_of(each) for each in every] or [TASKS[DEFAULT_TASK]]
    heads = list(dict.fromkeys(head for task in tasks if task for head in task.heads))
    labels = list(dict.fromkeys(name for each in every for name in _numbers(each)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(["source", "index", *heads, *map(spreadsheet_safe, labels), "error"])
    for result in results:
        writer.writerows(_rows(result, heads, labels))
    return text.getvalue()


def _numbers(prediction: Mapping[str, Any]) -> dict[str, float]:
    task = task_of(prediction)
    return dict(prediction[task.numbers]) if task else {}


def _rows(result: Result, heads: Sequence[str], labels: Sequence[str]) -> Iterator[list[str]]:
    source = spreadsheet_safe(result.source)
    if not result.predictions:
        yield [source, "", *[""] * (len(heads) + len(labels)), spreadsheet_safe(result.error)]
    for index, each in enumerate(result.predictions):
        task, numbers = task_of(each), _numbers(each)
        said = cells(each, task) if task else {}
        row = [_cell(said[head]) if head in said else "" for head in heads]
        yield [source, str(index), *row, *(_cell(numbers[name]) if name in numbers else "" for name in labels), ""]


def _cell(value: Any) -> str:
    return spreadsheet_safe(value) if isinstance(value, str) else repr(value)
