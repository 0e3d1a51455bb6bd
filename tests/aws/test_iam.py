"""`make iam`: what it prints, with an account and without."""

import argparse
import json

import pytest

from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.infrastructure import iam
from sagemaker_monai_aws.infrastructure.policies import KINDS, PEOPLE, ROLES
from sagemaker_monai_aws.infrastructure.policy_statements import Scope
from tests.support.cloud import ACCOUNT, BUCKET, REGION, not_refused, run_here
from tests.support.permissions import allowed

NOWHERE = "http://127.0.0.1:1"
WITHOUT = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
OTHER = "999999999999"


def test_one_kind_is_a_policy_document_of_this_account(cloud):
    run = run_here("iam", ["training"])

    assert run.returncode == 0, run.stderr
    policy = json.loads(run.stdout)
    assert set(policy) == {"Version", "Statement"}
    place = f"arn:aws:s3:::{BUCKET}/monai/data/a"
    assert allowed(policy, "s3:GetObject", place, s3__ResourceAccount=ACCOUNT)


def test_iam_takes_what_is_printed(cloud):
    printed = json.loads(run_here("iam", ["--trust"]).stdout)
    client = cloud.client("iam")

    assert set(printed) == set(KINDS)
    for kind in ROLES:
        client.create_role(RoleName=kind, AssumeRolePolicyDocument=json.dumps(printed[kind]["trust"]))
        client.put_role_policy(RoleName=kind, PolicyName=kind, PolicyDocument=json.dumps(printed[kind]["policy"]))
    for kind in PEOPLE:
        assert set(printed[kind]) == {"policy"}
        client.create_policy(PolicyName=kind, PolicyDocument=json.dumps(printed[kind]["policy"]))


def test_several_kinds_are_one_object_and_trust_is_printed_with_them(cloud):
    printed = json.loads(run_here("iam", ["hosting", "operator"]).stdout)

    assert list(printed) == ["hosting", "operator"]
    assert printed["hosting"]["trust"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert "trust" not in printed["operator"]


def test_with_an_account_and_a_region_nobody_is_asked_and_every_setting_arrives():
    arguments = ["training", "--account", OTHER, "--region", "cn-north-1", "--bucket", "mine", "--prefix", "/a/b/",
                 "--repository", "images", "--project", "skin", "--kms-key", "0a-1b", "--subnets", "subnet-1",
                 "--security-groups", "sg-1"]  # fmt: skip
    run = run_here("iam", arguments, NOWHERE, **WITHOUT)

    assert run.returncode == 0, run.stderr
    here = f"cn-north-1:{OTHER}"
    expected = Scope(
        account=OTHER,
        region="cn-north-1",
        bucket="mine",
        partition="aws-cn",
        dns_suffix="amazonaws.com.cn",
        project="skin",
        prefix="a/b",
        repository="images",
        kms_key=f"arn:aws-cn:kms:{here}:key/0a-1b",
        subnets=(f"arn:aws-cn:ec2:{here}:subnet/subnet-1",),
        security_groups=(f"arn:aws-cn:ec2:{here}:security-group/sg-1",),
    )
    assert json.loads(run.stdout) == KINDS["training"](expected)


@pytest.mark.parametrize(
    ("source", "kind", "location"),
    [
        ("https://github.com/someone/some-thing.git", "GITHUB", "https://github.com/someone/some-thing.git"),
        (f"https://git-codecommit.{REGION}.amazonaws.com/v1/repos/monai", "CODECOMMIT", "monai"),
        ("https://git-codecommit.cn-north-1.amazonaws.com.cn/v1/repos/monai", "CODECOMMIT", "monai"),
        ("s3://sources/a/monai.zip", "S3", "sources/a/monai.zip"),
    ],
)
def test_a_source_says_what_codebuild_calls_it(source, kind, location):
    assert iam.split_source(source) == (kind, location)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "github.com/a/b",
        "http://github.com/a/b",
        "https://github.com/a",
        "https://github.com/a/b?x=1",
        "https://user@github.com/a/b",
        "git@github.com:a/b.git",
        "s3://sources",
    ],
)
def test_anything_else_is_no_source(source):
    with pytest.raises(CommandError, match="a source is https://github"):
        iam.split_source(source)


def test_the_build_of_a_zip_in_s3_may_read_that_zip(cloud):
    policy = json.loads(run_here("iam", ["build", "--source", "s3://sources/monai.zip"]).stdout)

    assert allowed(policy, "s3:GetObject", "arn:aws:s3:::sources/monai.zip")
    assert not allowed(policy, "s3:GetObject", "arn:aws:s3:::sources/monai.zip2")


REFUSED = [
    (["admin"], "there is no kind 'admin': take some of training, prepare, hosting, batch"),
    (["--account", "12"], "an account is twelve digits, got '12'"),
    (["--kms-key", "alias/mine"], "policies need a key's ARN or id, and 'alias/mine' is an alias"),
]


def test_what_is_wrong_is_one_line_with_the_remedy(cloud):
    assert not_refused("iam", REFUSED) == []


def test_arns_are_taken_as_they_are():
    scope = Scope(account=ACCOUNT, region=REGION, bucket=BUCKET)
    elsewhere = f"arn:aws:kms:{REGION}:{OTHER}:key/0a"

    assert iam.key_arn(scope, elsewhere) == elsewhere
    assert iam.network_arns(scope, "subnet", ["subnet-1", "arn:aws:ec2:x"]) == (
        f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/subnet-1",
        "arn:aws:ec2:x",
    )


def test_the_help_names_every_kind():
    parser = argparse.ArgumentParser()
    iam.add_options(parser)

    assert all(kind in parser.format_help() for kind in KINDS)
