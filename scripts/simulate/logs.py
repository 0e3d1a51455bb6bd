"""A container's log: into CloudWatch Logs line by line, and through the patterns of MetricDefinitions."""

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.errors import code_of
from simulate.world import World

LINE_BYTES = 200_000  # an event holds up to 256 KiB
BATCH_BYTES = 1_000_000  # PutLogEvents takes up to 1 MiB, 26 bytes of it for each event, and 10,000 events
BATCH_EVENTS = 10_000


@contextmanager
def may_be_there() -> Iterator[None]:
    """Pass over AWS's refusal to make what is there. Several jobs make one group at the same time, and the classes that
    a client makes for its errors, when it first needs them, are not the same in all of its threads.
    """
    try:
        yield
    except ClientError as error:
        if code_of(error) != "ResourceAlreadyExistsException":
            raise


class LogStream:
    """One stream and the file that feeds it.

    Args:
        world: the simulation.
        region: of the job.
        group: as /aws/sagemaker/TrainingJobs.
        stream: name of the stream.
        path: the file.
        metrics: MetricDefinitions.
    """

    def __init__(self, world: World, region: str, group: str, stream: str, path: Path,
                 metrics: Sequence[dict[str, str]] = ()) -> None:  # fmt: skip
        self._logs, self._place, self._path = world.client("logs", region), (group, stream), path
        self._patterns = [(each["Name"], re.compile(each["Regex"])) for each in metrics]
        self._position = 0
        self.found: dict[str, dict[str, Any]] = {}
        for create, words in (
            (self._logs.create_log_group, {"logGroupName": group}),
            (self._logs.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
        ):
            with may_be_there():
                create(**words)

    def ship(self, *, is_last: bool = False) -> None:
        """Send the lines that are new; with `is_last` also one that no line feed ends."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            text = file.read()
        whole = text if is_last else text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        lines = [line.rstrip("\r")[:LINE_BYTES] for line in whole.decode(errors="replace").split("\n")]
        now = time.time()
        batch: list[dict[str, Any]] = []
        size = 0
        for line in filter(None, lines):
            self._look_at(line, now)
            length = 4 * len(line) + 26
            if size + length > BATCH_BYTES or len(batch) == BATCH_EVENTS:
                self._put(batch)
                batch, size = [], 0
            batch.append({"timestamp": int(now * 1000), "message": line})
            size += length
        if batch:
            self._put(batch)

    def _look_at(self, line: str, now: float) -> None:
        for name, regex in self._patterns:
            for match in regex.finditer(line):
                with suppress(ValueError, IndexError):
                    value = float(match.group(1))
                    if math.isfinite(value):
                        self.found[name] = {"MetricName": name, "Value": value, "Timestamp": now}

    def _put(self, events: list[dict[str, Any]]) -> None:
        group, stream = self._place
        with suppress(ClientError):  # the group was removed: the job does not need it
            self._logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
