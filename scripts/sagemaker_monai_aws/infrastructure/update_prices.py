"""Ask AWS's Price List what instances cost in a region, and put it into the table of costs (`make prices REGION=`).

SageMaker has a price of an instance for each use (component): training, processing, batch transform and hosting. They
are the same nearly everywhere; the table has one number a type, the largest of the four, so that what a command says
before it starts something is never too little. Types whose uses differ are named here when the table is written.

Sources: AWS Price List API Reference, GetProducts (PriceList: JSON documents with product and terms); attributes of
products as the price list of AmazonSageMaker has them (component, instanceName, regionCode, usagetype). Asking needs
`pricing:GetProducts`, which no policy of `make iam` has; it costs nothing and reveals nothing about the account.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sagemaker_monai.storage.files import write_text
from sagemaker_monai_aws.core import command, prices
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.errors import CommandError

NAME = "prices"
SERVICE = "AmazonSageMaker"
COMPONENTS = ("Training", "Processing", "BatchTransform", "Hosting")
# Where the Price List itself is, by partition; it knows the prices of all regions of the partition.
ENDPOINTS = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}
INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
MEMORY = re.compile(r"(\d+)\s*GB", re.I)
SHOWN = 5
SOURCE = "AWS Price List API, GetProducts"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--table", type=Path, default=prices.TABLE, help="file to write (default: the commands' own)")


def on_demand(document: Mapping[str, Any]) -> tuple[float, str] | None:
    """USD and unit of a product on demand, None where it has no single price or none in USD."""
    dimensions = [dimension for term in document.get("terms", {}).get("OnDemand", {}).values()
                  for dimension in term.get("priceDimensions", {}).values()]  # fmt: skip
    if len(dimensions) != 1 or "USD" not in dimensions[0].get("pricePerUnit", {}):
        return None
    return float(dimensions[0]["pricePerUnit"]["USD"]), str(dimensions[0].get("unit", ""))


def instances(documents: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """USD an hour by type and component, without what is reserved or free."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for document in documents:
        attributes = document["product"].get("attributes", {})
        name, component, price = attributes.get("instanceName", ""), attributes.get("component"), on_demand(document)
        if not INSTANCE.fullmatch(name) or component not in COMPONENTS or price is None:
            continue
        usd, unit = price
        if unit.lower() in ("hrs", "hours", "hour") and usd > 0:
            found[name][component] = max(usd, found[name].get(component, 0.0))
    return dict(found)


def serverless(documents: Iterable[Mapping[str, Any]]) -> float | None:
    """USD for a second with one GB of memory, None where the list does not say it in a form that is known here."""
    found = []
    for document in documents:
        attributes, price = document["product"].get("attributes", {}), on_demand(document)
        usage = attributes.get("usagetype", "")
        is_meant = "serverlessinf" in usage.lower() and "provisioned" not in usage.lower()
        memory = MEMORY.search(usage) or MEMORY.search(attributes.get("memory", ""))
        if is_meant and memory and price is not None and price[1].lower().startswith("sec") and price[0] > 0:
            found.append(price[0] / int(memory[1]))
    return max(found, default=None)


def merged(table: Mapping[str, Any], region: str, found: Mapping[str, Mapping[str, float]],
           gb_second: float | None, today: str) -> dict[str, Any]:  # fmt: skip
    """The table with a region's prices replaced, and all others as they were.

    Args:
        table: as it was.
        region: whose prices are new.
        found: USD an hour by type and component.
        gb_second: of serverless inference; None keeps what was known.
        today: date, YYYY-MM-DD.
    """
    old = table["regions"].get(region, {})
    kept = old.get("serverless_gb_second") if gb_second is None else gb_second
    row: dict[str, Any] = {"collected": today, "source": SOURCE,
                           "instances": {name: max(found[name].values()) for name in sorted(found)}}  # fmt: skip
    if kept is not None:
        row["serverless_gb_second"] = kept
    return {**table, "regions": {**table["regions"], region: row}}


def ask(context: Context) -> list[dict[str, Any]]:
    """All products of SageMaker in the region, as the Price List has them."""
    account = context.account
    if account.partition not in ENDPOINTS:
        raise CommandError(f"the Price List of partition {account.partition} is not known: the table is unchanged")
    client = account.client("pricing", region_name=ENDPOINTS[account.partition])
    pages = client.get_paginator("get_products").paginate(
        ServiceCode=SERVICE, FormatVersion="aws_v1",
        Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": account.region}],
    )  # fmt: skip
    return [json.loads(text) for page in pages for text in page["PriceList"]]


def work(context: Context) -> int:
    """Ask, and write the table."""
    region, path = context.account.region, context.options.table
    documents = ask(context)
    found = instances(documents)
    if not found:
        raise CommandError(f"the Price List has no SageMaker instances in {region}: is the name of the region right?")
    differing = sorted(name for name, by_use in found.items() if len(set(by_use.values())) > 1)
    if differing:
        say(NAME, f"{len(differing)} types have different prices by use, the table has the highest: "
                  + ", ".join(differing[:SHOWN]))  # fmt: skip
    gb_second = serverless(documents)
    if gb_second is None:
        say(NAME, "no price of serverless inference was found: the table's old one stays")
    today = datetime.now(UTC).date().isoformat()
    table = merged(json.loads(path.read_text(encoding="utf-8")), region, found, gb_second, today)
    if context.options.dry_run:
        command.result(table["regions"][region])
        return 0
    write_text(path, json.dumps(table, indent=2) + "\n")
    say(NAME, f"{len(found)} types of {region} are in {path.name}")
    return 0
