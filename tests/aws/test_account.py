"""An account: a dry run cannot write, partitions have their own addresses, and what is missing is said in one line."""

import argparse

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from sagemaker_monai_aws.core.account import UNKNOWN_ACCOUNT, Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.errors import explain, is_missing
from tests.support.cloud import ACCOUNT, BUCKET, REGION


def account(*, dry_run=False, region=None, profile=None):
    return Account(argparse.Namespace(dry_run=dry_run, region=region, profile=profile))


def refusal(code, message="why", operation="CreateModel"):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("service", "operation", "words"),
    [
        ("s3", "create_bucket", {"Bucket": "b"}),
        ("s3", "put_object", {"Bucket": "b", "Key": "k"}),
        ("sagemaker", "create_model", {"ModelName": "m"}),
        ("sagemaker", "stop_training_job", {"TrainingJobName": "j"}),
        ("sagemaker", "delete_endpoint", {"EndpointName": "e"}),
        ("application-autoscaling", "deregister_scalable_target",
         {"ServiceNamespace": "sagemaker", "ResourceId": "r", "ScalableDimension": "d"}),
        ("ecr", "put_image", {"repositoryName": "r", "imageManifest": "{}"}),
    ],
)  # fmt: skip
def test_a_dry_run_cannot_write(cloud, service, operation, words):
    with pytest.raises(AssertionError, match="a dry run must not call"):
        getattr(account(dry_run=True).client(service), operation)(**words)


def test_a_dry_run_reads(cloud):
    cloud.make_bucket()

    assert account(dry_run=True).client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert account(dry_run=True).number == ACCOUNT


def test_otherwise_what_is_sent_is_checked_and_arrives(cloud):
    where = {"LocationConstraint": REGION}
    account().send(Call("s3", "CreateBucket", {"Bucket": "some-bucket", "CreateBucketConfiguration": where}))

    assert [each["Name"] for each in cloud.client("s3").list_buckets()["Buckets"]] == ["some-bucket"]


def test_only_a_dry_run_does_without_credentials(cloud, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    assert account(dry_run=True).number == UNKNOWN_ACCOUNT
    assert not account(dry_run=True).is_known
    with pytest.raises(NoCredentialsError):
        _ = account().number


def test_a_region_is_asked_for_or_found(cloud, monkeypatch):
    assert account().region == REGION
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert account().region == "eu-west-1"
    assert account(region="eu-north-1").region == "eu-north-1"
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(NoRegionError):
        _ = account().region


@pytest.mark.parametrize(
    ("region", "partition", "suffix"),
    [
        ("eu-central-1", "aws", "amazonaws.com"),
        ("cn-north-1", "aws-cn", "amazonaws.com.cn"),
        ("us-gov-west-1", "aws-us-gov", "amazonaws.com"),
    ],
)
def test_a_partition_has_its_own_arns_and_addresses(cloud, region, partition, suffix):
    there = account(region=region)

    assert (there.partition, there.dns_suffix) == (partition, suffix)
    assert there.role(None, "p", "training") == f"arn:{partition}:iam::{ACCOUNT}:role/p-{region}-training"
    assert there.role("mine", "p", "training") == f"arn:{partition}:iam::{ACCOUNT}:role/mine"
    assert there.role("arn:aws:iam::1:role/x", "p", "training") == "arn:aws:iam::1:role/x"


def test_what_is_not_there_is_none_and_what_is_refused_is_an_error(cloud):
    assert account().read("sagemaker", "DescribeEndpoint", EndpointName="nothing") is None
    assert account().read("ecr", "DescribeRepositories", repositoryNames=["nothing"]) is None


def test_lists_come_whole(cloud):
    cloud.make_bucket()
    for number in range(5):
        cloud.put(f"k{number}")

    found = account().pages("s3", "ListObjectsV2", "Contents", Bucket=BUCKET, PaginationConfig={"PageSize": 2})

    assert [each["Key"] for each in found] == ["k0", "k1", "k2", "k3", "k4"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoRegionError(), "give REGION=, set AWS_REGION"),
        (NoCredentialsError(), "no AWS credentials are found: log in"),
        (ProfileNotFound(profile="x"), "`aws configure list-profiles`"),
        (EndpointConnectionError(endpoint_url="https://x"), "is the region right"),
        (refusal("AccessDeniedException"), "AWS refuses CreateModel (AccessDeniedException): why; `make iam`"),
        (refusal("ExpiredToken"), "log in"),
        (refusal("ResourceLimitExceeded"), "Service Quotas"),
        (refusal("Strange", "first\n second"), "(Strange): first second"),
    ],
)
def test_an_error_is_one_line_with_the_remedy(error, message):
    assert message in explain(error)
    assert "\n" not in explain(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal("ValidationException", 'Could not find model "x".'), True),
        (refusal("ValidationException", "Requested resource not found."), True),
        (refusal("ValidationException", "1 validation error detected"), False),
        (refusal("ResourceNotFound"), True),
        (refusal("404"), True),
        (refusal("AccessDenied", "not found"), False),
    ],
)
def test_missing_is_told_from_refused(error, expected):
    assert is_missing(error) is expected
