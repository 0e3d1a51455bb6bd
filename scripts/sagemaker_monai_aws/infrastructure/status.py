"""What this project has in the account, and what it costs by the hour (`make status`).

Endpoints cost as long as they are there, jobs as long as they run, warm pools as long as they are kept. Prices are
those on demand of the table of `make prices`; what it does not know is said to be unknown and left out of the sum.
Storage, traffic and requests are not in it.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sagemaker_monai_aws.client.endpoints import mode_of
from sagemaker_monai_aws.core import command
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.inventory import (
    JOBS,
    LISTINGS,
    Thing,
    candidates,
    executions,
    ours,
    running_jobs,
    warm_pools,
)
from sagemaker_monai_aws.core.prices import hourly

NAME = "status"
LAST = 10
# Kind of job -> where its description has instance type and number.
RESOURCES = {
    "training": ("ResourceConfig",),
    "processing": ("ProcessingResources", "ClusterConfig"),
    "transform": ("TransformResources",),
}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        kind: endpoint, training, ..., warm pool or pipeline.
        name: of it.
        status: in SageMaker's words.
        what: mode and instances, those that there are of those wanted.
        usd_per_hour: None if the table does not know the price.
        seconds: for how long a job runs or ran; None for what is no job.
    """

    kind: str
    name: str
    status: str
    what: str
    usd_per_hour: float | None = 0.0
    seconds: int | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--all", type=int, nargs="?", const=LAST, default=0, metavar="N",
                        help=f"also the last N jobs of each kind that have ended (default: {LAST})")  # fmt: skip


def total(prices: Iterable[float | None]) -> float | None:
    """The sum; None if one of them is unknown."""
    known = list(prices)
    return None if None in known else sum(price for price in known if price is not None)


def cost(region: str, instance_type: str, count: int) -> float | None:
    """USD per hour of some instances; 0 for none, even if the price is unknown."""
    price = hourly(region, instance_type)
    return 0.0 if count == 0 else None if price is None else price * count


def endpoint_row(account: Account, thing: Thing) -> Row | None:
    """An endpoint; None if it was deleted in the meantime."""
    found = account.read("sagemaker", "DescribeEndpoint", EndpointName=thing.name)
    if found is None:
        return None
    config = account.read("sagemaker", "DescribeEndpointConfig", EndpointConfigName=found["EndpointConfigName"]) or {}
    variants = {each["VariantName"]: each for each in config.get("ProductionVariants", [])}
    first: Mapping[str, Any] = next(iter(variants.values()), {})
    model = account.read("sagemaker", "DescribeModel", ModelName=first["ModelName"]) if first.get("ModelName") else None
    parts: list[str] = []
    prices: list[float | None] = []
    for now in found.get("ProductionVariants", []):
        planned = variants.get(now["VariantName"], {})
        serverless = now.get("CurrentServerlessConfig") or planned.get("ServerlessConfig")
        if serverless:
            parts.append(f"{serverless['MemorySizeInMB']} MB, paid by request")
            prices.append(0.0)
            continue
        count, wanted = now.get("CurrentInstanceCount", 0), now.get("DesiredInstanceCount", 0)
        kind = planned.get("InstanceType", "unknown type")
        parts.append(f"{count} of {wanted} x {kind}")
        prices.append(cost(account.region, kind, count))
    mode = mode_of(config, model or {}) if config else "unknown mode"
    return Row("endpoint", thing.name, found["EndpointStatus"], f"{mode}: {', '.join(parts) or 'no instances yet'}",
               total(prices))  # fmt: skip


def resources_of(kind: str, found: Mapping[str, Any]) -> tuple[str, int]:
    """Instance type and number of a job."""
    resources = found
    for member in RESOURCES[kind]:
        resources = resources.get(member, {})
    return str(resources.get("InstanceType", "unknown type")), int(resources.get("InstanceCount", 1))


def seconds_of(kind: str, found: Mapping[str, Any], now: datetime) -> int | None:
    """Seconds that a job is billed: AWS's own number where there is one, else since its start; None before it."""
    if found.get("BillableTimeInSeconds") is not None:
        return int(found["BillableTimeInSeconds"])
    word = {"training": "Training", "processing": "Processing", "transform": "Transform"}[kind]
    start = found.get(f"{word}StartTime")
    return None if start is None else max(0, int(((found.get(f"{word}EndTime") or now) - start).total_seconds()))


def job_row(account: Account, thing: Thing, now: datetime) -> Row | None:
    """A job; None if it was deleted in the meantime."""
    noun = LISTINGS[thing.kind].noun
    found = account.read("sagemaker", f"Describe{noun}", **{f"{noun}Name": thing.name})
    if found is None:
        return None
    status = found.get(f"{noun}Status", thing.status)
    if thing.kind == "tuning":
        counts = found.get("TrainingJobStatusCounters", {})
        shown = ", ".join(f"{counts[key]} {key}" for key in ("InProgress", "Completed") if counts.get(key))
        return Row("tuning", thing.name, status, f"its jobs are listed by themselves{f': {shown}' if shown else ''}")
    kind, count = resources_of(thing.kind, found)
    is_running = status in LISTINGS[thing.kind].running
    spot = ", spot: less than that" if found.get("EnableManagedSpotTraining") else ""
    price = cost(account.region, kind, count if is_running else 0)
    return Row(thing.kind, thing.name, status, f"{count} x {kind}{spot}", price, seconds_of(thing.kind, found, now))


def pool_row(account: Account, thing: Thing) -> Row | None:
    """A warm pool; None if it was released."""
    found = account.read("sagemaker", "DescribeTrainingJob", TrainingJobName=thing.name) or {}
    pool = found.get("WarmPoolStatus", {})
    if pool.get("Status") != "Available":
        return None
    kind, count = resources_of("training", found)
    seconds = pool.get("ResourceRetainedBillableTimeInSeconds")
    return Row("warm pool", thing.name, "Available", f"{count} x {kind}", cost(account.region, kind, count), seconds)


def rows_of(context: Context) -> list[Row]:
    """All lines, endpoints first."""
    account, project = context.account, context.options.project
    now = datetime.now(UTC)
    rows = [endpoint_row(account, thing)
            for thing in ours(account, project, candidates(account, project, "endpoint"))]  # fmt: skip
    rows += [job_row(account, thing, now) for thing in running_jobs(account, project)]
    rows += [pool_row(account, thing) for thing in warm_pools(account, project)]
    for pipeline in ours(account, project, candidates(account, project, "pipeline")):
        rows += [Row("pipeline", pipeline.name, each["PipelineExecutionStatus"],
                     f"execution {each['PipelineExecutionArn'].rpartition('/')[2]}, its jobs cost besides", None)
                 for each in executions(account, pipeline.name)]  # fmt: skip
    if context.options.all:
        rows += [job_row(account, thing, now) for thing in _ended(account, project, context.options.all)]
    return [row for row in rows if row is not None]


def _ended(account: Account, project: str, most: int) -> list[Thing]:
    found: list[Thing] = []
    for kind in JOBS:
        things = [each for each in candidates(account, project, kind) if each.status not in LISTINGS[kind].running]
        found += list(ours(account, project, things[:most]))
    return found


def table(rows: list[Row]) -> list[str]:
    """The lines of the table, with a head."""
    cells = [("KIND", "NAME", "STATUS", "WHAT", "RAN", "USD/HOUR")]
    for row in rows:
        price = "unknown" if row.usd_per_hour is None else f"{row.usd_per_hour:.3f}"
        cells.append(
            (row.kind, row.name, row.status, row.what, "" if row.seconds is None else f"{row.seconds} s", price)
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def work(context: Context) -> int:
    """Print the table."""
    account, project = context.account, context.options.project
    rows = rows_of(context)
    known = sum(row.usd_per_hour or 0.0 for row in rows)
    unknown = sum(row.usd_per_hour is None for row in rows)
    models = len(candidates(account, project, "model"))
    if context.options.json:
        command.result({"region": account.region, "project": project, "rows": [asdict(row) for row in rows],
                        "usd_per_hour": known, "unknown_prices": unknown, "models": models})  # fmt: skip
        return 0
    if rows:
        print("\n".join(table(rows)))
    else:
        say(NAME, f"nothing of project {project!r} is running in {account.region}")
    print(f"{known:.3f} USD an hour in {account.region}"
          + (f", and {unknown} of unknown price: `make prices` fetches it" if unknown else "")
          + f"; {models} models, which cost their storage only")  # fmt: skip
    return 0
