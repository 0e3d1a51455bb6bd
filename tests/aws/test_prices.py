"""The table of costs: what is known, and what is said to be unknown."""

import pytest

from sagemaker_monai_aws.core import prices


@pytest.fixture(autouse=True)
def known(monkeypatch):
    regions = {
        "us-east-1": {"instances": {"ml.g5.xlarge": 1.408}, "serverless_gb_second": 0.00002},
        "eu-west-1": {"instances": {"ml.g5.xlarge": 1.5}, "collected": "2026-02-02"},
    }
    monkeypatch.setattr(prices, "table", lambda: {"collected": "2026-01-01", "regions": regions})


def test_a_price_is_of_its_region_and_type():
    assert prices.hourly("us-east-1", "ml.g5.xlarge") == 1.408
    assert prices.hourly("us-east-1", "ml.none.large") is None
    assert prices.hourly("mars-1", "ml.g5.xlarge") is None


def test_serverless_costs_by_memory_and_second():
    assert prices.serverless_hourly("us-east-1", 2048) == pytest.approx(0.144)  # 2 GB x 3,600 s x 0.00002
    assert prices.serverless_hourly("eu-west-1", 2048) is None


def test_a_line_has_the_sum_and_the_date_of_its_region():
    assert prices.cost_line("us-east-1", "ml.g5.xlarge", 2) == (
        "2 x ml.g5.xlarge: 2.816 USD an hour on demand in us-east-1 (table of 2026-01-01)"
    )
    assert prices.cost_line("eu-west-1", "ml.g5.xlarge").endswith("(table of 2026-02-02)")


def test_an_unknown_price_is_said_to_be_unknown_with_those_of_other_regions():
    line = prices.cost_line("mars-1", "ml.g5.xlarge")

    assert "price in mars-1 not in the table" in line
    assert "1.408 USD in us-east-1, 1.500 USD in eu-west-1" in line
    assert "`make prices REGION=mars-1`" in line


def test_the_table_that_is_shipped_can_be_read(monkeypatch):
    monkeypatch.undo()

    assert prices.hourly("us-east-1", "ml.g4dn.xlarge") == 0.7364
    assert prices.table()["currency"] == "USD"
