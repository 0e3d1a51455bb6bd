"""`make prices`: what of AWS's Price List goes into the table of costs, and what stays as it was."""

import json

import pytest
from botocore.client import BaseClient
from botocore.stub import Stubber

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.infrastructure.update_prices import instances, merged, on_demand, serverless

REGION = "eu-central-1"


def product(usage, usd, unit="Hrs", family="ML Instance", **attributes):
    """A product in the form of the Price List: one offer on demand with one rate."""
    rate = {"unit": unit, "endRange": "Inf", "beginRange": "0", "rateCode": "SKU.JRTCKXETXF.6YS6EN2CT7",
            "appliesTo": [], "description": "", "pricePerUnit": {"USD": f"{usd:.10f}"}}  # fmt: skip
    return {
        "product": {"productFamily": family, "sku": "SKU", "attributes": {
            "regionCode": REGION, "servicecode": "AmazonSageMaker", "usagetype": usage, **attributes}},
        "serviceCode": "AmazonSageMaker",
        "terms": {"OnDemand": {"SKU.JRTCKXETXF": {"priceDimensions": {rate["rateCode"]: rate}, "sku": "SKU"}}},
        "version": "20260101000000",
        "publicationDate": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def instance(name, component, usd):
    return product(f"EUC1-{component}:{name}", usd, instanceName=name, component=component)


LIST = [
    instance("ml.m5.large", "Training", 0.138),
    instance("ml.m5.large", "Hosting", 0.138),
    instance("ml.g5.xlarge", "Training", 1.761),
    instance("ml.g5.xlarge", "Hosting", 1.8),
    instance("ml.g5.xlarge", "Notebook", 9.0),
    product("EUC1-Host:x", 5.0, component="Hosting"),
    product("EUC1-ServerlessInf:Mem-4GB", 0.0000937, "Seconds", "ML Serverless"),
    product("EUC1-ServerlessInf:Mem-1GB", 0.0000234, "Seconds", "ML Serverless"),
    product("EUC1-ServerlessInf-ProvisionedConcurrency:Mem-1GB", 0.9, "Seconds", "ML Serverless"),
]
TABLE = {"collected": "2025-01-01", "source": "elsewhere", "currency": "USD",
         "regions": {"us-east-1": {"instances": {"ml.m5.large": 0.115}},
                     REGION: {"instances": {"ml.old.large": 1.0}}}}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(TABLE))
    return path


@pytest.fixture
def price_list(cloud, monkeypatch):
    """The Price List answers in two pages; the requests are checked by botocore's Stubber."""
    used, client_of = [], Account.client

    def client(self, service, **settings):
        made = client_of(self, service, **settings)
        if service == "pricing" and not used:
            stubber = Stubber(made)
            words = {"ServiceCode": "AmazonSageMaker", "FormatVersion": "aws_v1",
                     "Filters": [{"Type": "TERM_MATCH", "Field": "regionCode", "Value": REGION}]}  # fmt: skip
            texts = [json.dumps(each) for each in LIST]
            first = {"FormatVersion": "aws_v1", "PriceList": texts[:4], "NextToken": "more"}
            stubber.add_response("get_products", first, words)
            stubber.add_response("get_products", {"PriceList": texts[4:]}, {**words, "NextToken": "more"})
            stubber.activate()
            used.append((stubber, made))
        return made

    monkeypatch.setattr(Account, "client", client)
    return used


def test_a_regions_prices_are_replaced_and_all_others_stay(price_list, path, capsys):
    assert main(["prices", "--table", str(path)]) == 0

    table = json.loads(path.read_text())
    assert table["regions"]["us-east-1"] == TABLE["regions"]["us-east-1"]
    assert (table["collected"], table["source"]) == ("2025-01-01", "elsewhere")
    row = table["regions"][REGION]
    assert row["instances"] == {"ml.g5.xlarge": 1.8, "ml.m5.large": 0.138}  # the most of the uses
    assert row["serverless_gb_second"] == pytest.approx(0.0000937 / 4)
    assert row["source"] == "AWS Price List API, GetProducts"
    assert "1 types have different prices by use, the table has the highest: ml.g5.xlarge" in capsys.readouterr().err
    [(stubber, client)] = price_list
    stubber.assert_no_pending_responses()
    assert client.meta.region_name == "us-east-1"  # where the Price List is


def test_a_region_without_prices_is_told_and_the_table_stays(cloud, path, capsys, monkeypatch):
    monkeypatch.setattr(BaseClient, "_make_api_call", lambda self, name, words: {"PriceList": []})

    assert main(["prices", "--table", str(path), "--region", "eu-nowhere-1"]) == 2

    assert "has no SageMaker instances in eu-nowhere-1" in capsys.readouterr().err
    assert json.loads(path.read_text()) == TABLE


def test_only_prices_by_the_hour_of_the_four_uses_are_taken():
    reserved = instance("ml.a.b", "Training", 1.0) | {"terms": {"Reserved": {}}}
    monthly = product("x", 3.0, "Mo", instanceName="ml.c.d", component="Training")

    assert instances([*LIST, reserved, monthly, instance("ml.e.f", "Hosting", 0.0)]) == {
        "ml.m5.large": {"Training": 0.138, "Hosting": 0.138},
        "ml.g5.xlarge": {"Training": 1.761, "Hosting": 1.8},
    }


def test_a_product_with_tiers_has_no_single_price():
    tiers = product("x", 1.0)
    [offer] = tiers["terms"]["OnDemand"].values()
    offer["priceDimensions"]["second"] = {"unit": "Hrs", "pricePerUnit": {"USD": "0.5"}}

    assert on_demand(tiers) is None
    assert on_demand(product("x", 0.25)) == (0.25, "Hrs")


def test_what_is_not_known_of_serverless_keeps_what_was():
    old = {"regions": {REGION: {"instances": {}, "serverless_gb_second": 0.5}}}

    assert serverless(LIST[:3]) is None
    assert merged(old, REGION, {}, None, "2026-01-01")["regions"][REGION]["serverless_gb_second"] == 0.5
    assert "serverless_gb_second" not in merged(TABLE, REGION, {}, None, "2026-01-01")["regions"][REGION]
