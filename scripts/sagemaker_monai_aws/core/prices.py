"""What things cost by the hour, from the dated table prices.json; `make prices` asks AWS's Price List for a newer one.

The table is of one region and leaves out storage, traffic, discounts and taxes: it says which order of magnitude an
order has, before it is placed. A price that is not in the table is said to be unknown and never guessed.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("prices.json")


@cache
def table() -> dict[str, Any]:
    """The table as it is on disk."""
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def hourly(region: str, instance_type: str) -> float | None:
    """USD an hour on demand of one instance, None where the table does not say."""
    found = table()["regions"].get(region, {}).get("instances", {}).get(instance_type)
    return None if found is None else float(found)


def serverless_hourly(region: str, memory_mb: int) -> float | None:
    """USD an hour of one serverless request after the other, None where the table does not say."""
    found = table()["regions"].get(region, {}).get("serverless_gb_second")
    return None if found is None else float(found) * memory_mb / 1024 * 3600


def collected(region: str) -> str:
    """Date of a region's prices; the table's date if the region has none."""
    return str(table()["regions"].get(region, {}).get("collected", table()["collected"]))


def cost_line(region: str, instance_type: str, count: int = 1) -> str:
    """One line for people: what `count` instances cost by the hour, and where that is from."""
    price = hourly(region, instance_type)
    what = f"{count} x {instance_type}"
    if price is not None:
        return f"{what}: {price * count:.3f} USD an hour on demand in {region} (table of {collected(region)})"
    others = {name: hourly(name, instance_type) for name in table()["regions"]}
    known = [f"{value * count:.3f} USD in {name}" for name, value in others.items() if value is not None]
    where = f"; {', '.join(known)}" if known else ""
    unknown = f"price in {region} not in the table of {table()['collected']}"
    return f"{what}: {unknown}{where}; `make prices REGION={region}` asks AWS"
