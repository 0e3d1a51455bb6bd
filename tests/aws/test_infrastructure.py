"""`make infra`: the template under a linter and a small CloudFormation, and the stack made by the command in moto.

Of the stack's resources moto's CloudFormation lacks AWS::S3::BucketPolicy and AWS::CodeBuild::Project, and of a
bucket's properties all but encryption and tags. Those are given to moto's S3 and CodeBuild here, over HTTP. It also
lacks the outputs of a stack that a change set made, changes of parameters alone, and failures: botocore's Stubber has
those.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.stub import Stubber

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import Context
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.infrastructure import stack, stack_template
from sagemaker_monai_aws.infrastructure.policies import KINDS, PEOPLE, ROLES, trust
from sagemaker_monai_aws.infrastructure.policy_statements import Scope, Source
from sagemaker_monai_aws.infrastructure.stack_policies import FULL, OPTIONAL, PLAIN
from tests.aws.test_policies import SCOPES
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, REGION, environment, not_refused, run_here, survives_kills
from tests.support.permissions import allowed
from tests.support.places import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")  # what moto lacks, see above

STACK = f"{PROJECT}-infrastructure"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
BUILD = {"SourceType": "GITHUB", "SourceLocation": "https://github.com/someone/something"}
TEMPLATE = stack_template.template()


class CloudFormation:
    """What CloudFormation makes of the template's functions; AWS::NoValue takes away what has it."""

    NOTHING = object()

    def __init__(self, partition="aws", region=REGION, **parameters):
        defaults = {name: parameter["Default"] for name, parameter in TEMPLATE["Parameters"].items()}
        suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
        pseudo = {"AccountId": ACCOUNT, "Region": region, "Partition": partition, "URLSuffix": suffix}
        self.values = defaults | parameters | {f"AWS::{name}": value for name, value in pseudo.items()}
        self.values["AWS::NoValue"] = self.NOTHING
        for name, key in (("Bucket", "BucketName"), ("Repository", "RepositoryName"), ("BuildLog", "LogGroupName")):
            self.values[name] = self.resolve(TEMPLATE["Resources"][name]["Properties"][key])

    def holds(self, condition):
        return self.resolve(TEMPLATE["Conditions"][condition])

    def resolve(self, value):
        if isinstance(value, list):
            return [part for part in map(self.resolve, value) if part is not self.NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(function, given)] = value.items()
            if function in FUNCTIONS:
                return FUNCTIONS[function](self, given)
        parts = {name: self.resolve(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not self.NOTHING}

    def resources(self):
        return {
            name: resource | {"Properties": self.resolve(resource["Properties"])}
            for name, resource in TEMPLATE["Resources"].items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }


FUNCTIONS = {
    "Ref": lambda stack, name: stack.values.get(name, f"<{name}>"),
    "Condition": lambda stack, name: stack.holds(name),
    "Fn::GetAtt": lambda stack, place: f"<{'.'.join(place)}>",
    "Fn::Sub": lambda stack, text: re.sub(r"\$\{([\w:]+)\}", lambda match: stack.values[match[1]], text),
    "Fn::If": lambda stack, given: stack.resolve(given[1] if stack.holds(given[0]) else given[2]),
    "Fn::Split": lambda stack, given: stack.resolve(given[1]).split(given[0]),
    "Fn::Equals": lambda stack, given: stack.resolve(given[0]) == stack.resolve(given[1]),
    "Fn::Not": lambda stack, given: not stack.resolve(given[0]),
    "Fn::And": lambda stack, given: all(map(stack.resolve, given)),
}


def statements(resources, kind):
    """All statements that a role has, or that a person's policy has."""
    if kind in PEOPLE:
        found = resources[f"Policy{kind.capitalize()}"]["Properties"]["PolicyDocument"]["Statement"]
        listed = [
            each | {"Resource": [each["Resource"]] if isinstance(each["Resource"], str) else each["Resource"]}
            for each in found
        ]
        return [each for each in listed if not each["Resource"][0].endswith(":key/none")]
    role = f"Role{kind.capitalize()}"
    found = [policy["PolicyDocument"] for policy in resources[role]["Properties"]["Policies"]]
    found += [resource["Properties"]["PolicyDocument"] for resource in resources.values()
              if resource["Type"] == "AWS::IAM::Policy" and f"<{role}>" in resource["Properties"]["Roles"]]  # fmt: skip
    return [statement for document in found for statement in document["Statement"]]


def by_sid(listed):
    return sorted(listed, key=lambda statement: statement["Sid"])


def parameters_of(scope, source=None):
    given = {
        "KmsKeyArn": scope.kms_key or "",
        "SubnetArns": ",".join(scope.subnets),
        "SecurityGroupArns": ",".join(scope.security_groups),
    }
    locations = {"S3": "sources/monai.zip", "CODECOMMIT": "monai", "GITHUB": BUILD["SourceLocation"]}
    return given | ({"SourceType": source, "SourceLocation": locations[source]} if source else {})


@pytest.mark.parametrize("source", ["S3", "CODECOMMIT", "GITHUB"])
@pytest.mark.parametrize("case", SCOPES)
def test_the_stack_has_the_policies_that_make_iam_prints(case, source):
    scope = SCOPES[case]
    sources = tuple(found for found in scope.sources if found.kind == source)
    scope = Scope(**vars(scope) | {"sources": sources})
    resources = CloudFormation(scope.partition, scope.region, **parameters_of(scope, source)).resources()

    for kind in KINDS:
        assert by_sid(statements(resources, kind)) == by_sid(KINDS[kind](scope)["Statement"])
    for kind in ROLES:
        role = resources[f"Role{kind.capitalize()}"]["Properties"]
        assert role["RoleName"] == f"{PROJECT}-{scope.region}-{kind}"
        assert role["AssumeRolePolicyDocument"] == trust(scope, kind)


def test_what_depends_on_a_parameter_is_known_to_do_so():
    for kind in KINDS:
        plain = {statement["Sid"] for statement in KINDS[kind](PLAIN)["Statement"]}
        full = {statement["Sid"] for statement in KINDS[kind](FULL)["Statement"]}
        assert full - plain <= {sid for sids in OPTIONAL.values() for sid in sids}
        assert not plain & {sid for sids in OPTIONAL.values() for sid in sids}


def cfn_lint(path, *regions):
    command = [
        Path(sys.executable).with_name("cfn-lint"),
        "--template",
        path,
        "--include-checks",
        "I",
        "--regions",
        *regions,
    ]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.long
def test_cfn_lint_finds_nothing_in_the_printed_template(tmp_path, capsys):
    assert main(["infra", "--print"]) == 0
    (tmp_path / "template.yaml").write_text(capsys.readouterr().out)

    run = cfn_lint(tmp_path / "template.yaml", "eu-central-1", "us-gov-west-1", "cn-north-1")

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_cfn_lint_finds_nothing_in_the_template_that_is_sent(tmp_path):
    names = {"Bucket": BUCKET, "Repository": PROJECT, "BuildLog": f"/aws/codebuild/{PROJECT}-build"}
    (tmp_path / "template.json").write_text(json.dumps(stack_template.with_names(TEMPLATE, names)))

    run = cfn_lint(tmp_path / "template.json", REGION)

    # The parameters of names are there for those who deploy the printed template by hand.
    unused = "W2001 Parameter RepositoryName not used"
    left = [line for line in run.stdout.splitlines() if line and not line.startswith((unused, str(tmp_path)))]
    assert [line for line in left if not line.startswith("W8001 Condition Has")] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("resource", "change", "rule"),
    [
        ("Bucket", {"VersioningConfiguration": {"Status": "On"}}, "E3030"),
        ("Repository", {"ImageTagMutable": False}, "E3002"),
        ("RoleTraining", {"RoleName": {"Ref": "Nothing"}}, "E1020"),
        ("BuildLog", {"RetentionInDays": 91}, "E3030"),
    ],
)
def test_cfn_lint_can_fail(tmp_path, resource, change, rule):
    bad = json.loads(json.dumps(TEMPLATE))
    bad["Resources"][resource]["Properties"] |= change
    (tmp_path / "bad.json").write_text(json.dumps(bad))

    assert rule in cfn_lint(tmp_path / "bad.json", REGION).stdout


def test_the_printed_template_is_the_template(capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    main(["infra", "--print"])

    assert yaml.safe_load(capsys.readouterr().out) == TEMPLATE


def test_a_template_with_long_names_is_short_enough_to_be_sent():
    names = {"Bucket": "b" * 63, "Repository": "r" * 200, "BuildLog": "/aws/codebuild/" + "p" * 40}
    text = json.dumps(stack_template.with_names(TEMPLATE, names), separators=(",", ":"))
    model = botocore.session.get_session().get_service_model("cloudformation")
    body = model.operation_model("CreateChangeSet").input_shape.members["TemplateBody"]

    assert body.metadata["min"] <= len(text) <= 51_200  # bytes; CreateChangeSet, TemplateBody


def test_the_literal_names_are_those_that_the_template_computes():
    names = {"Bucket": BUCKET, "Repository": PROJECT, "BuildLog": f"/aws/codebuild/{PROJECT}-build"}
    computed = CloudFormation()

    assert {name: computed.values[name] for name in names} == names
    sent = stack_template.with_names(TEMPLATE, names)["Resources"]
    for name, key in (("Bucket", "BucketName"), ("Repository", "RepositoryName"), ("BuildLog", "LogGroupName")):
        assert sent[name]["Properties"] == TEMPLATE["Resources"][name]["Properties"] | {key: names[name]}


@pytest.mark.parametrize("name", ["Bucket", "Repository", "BuildLog"])
def test_what_holds_something_is_kept(name):
    resource = TEMPLATE["Resources"][name]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    kept = {name for name, resource in TEMPLATE["Resources"].items() if "DeletionPolicy" in resource}
    assert kept == {"Bucket", "Repository", "BuildLog"}


def test_everything_that_can_have_tags_has_the_commands():
    for name, resource in CloudFormation(**BUILD).resources().items():
        if resource["Type"] in ("AWS::S3::BucketPolicy", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            continue
        tags = {tag["Key"]: tag["Value"] for tag in resource["Properties"]["Tags"]}
        assert tags == {"project": PROJECT, "created-by": "sagemaker-monai"}, name


def test_without_a_source_there_is_no_build():
    types = {resource["Type"] for resource in CloudFormation().resources().values()}
    built = {resource["Type"] for resource in CloudFormation(**BUILD).resources().values()}

    assert built - types == {"AWS::CodeBuild::Project", "AWS::Logs::LogGroup"}
    assert "RoleBuild" not in CloudFormation().resources()


@pytest.mark.parametrize(
    ("secure", "version", "is_let_through"),
    [("true", "1.2", True), ("true", "1.3", True), ("false", "1.2", False), ("true", "1.1", False)],
)
def test_the_bucket_refuses_what_is_not_tls_of_today(secure, version, is_let_through):
    document = CloudFormation().resources()["BucketPolicy"]["Properties"]["PolicyDocument"]
    everybody = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    opened = document | {"Statement": [*document["Statement"], everybody]}
    facts = {"aws__SecureTransport": secure, "s3__TlsVersion": version}

    for action, resource in (("s3:GetObject", f"arn:aws:s3:::{BUCKET}/a"), ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")):
        assert allowed(opened, action, resource, **facts) == is_let_through
        assert not allowed(document, action, resource, **facts)


def test_the_build_is_what_the_head_of_the_buildspec_asks_for():
    head = (ROOT / "buildspec.yml").read_text().split("version:")[0]
    build = CloudFormation(**BUILD).resources()["Build"]["Properties"]

    assert re.findall(r"aws/codebuild/[\w.:-]+", head) == [build["Environment"]["Image"]]
    assert "privileged mode" in head
    assert build["Environment"]["PrivilegedMode"] is True
    assert build["Source"]["GitCloneDepth"] == 0  # the whole history


# The account, in moto.


def lower(value):
    """CodeBuild's API calls its members as CloudFormation does, except for the first letter."""
    if isinstance(value, dict):
        return {name[0].lower() + name[1:]: lower(part) for name, part in value.items()}
    return [lower(part) for part in value] if isinstance(value, list) else value


def test_the_command_makes_the_stack_and_the_second_start_finds_it(cloud):
    first = run_here("infra", ["--source", BUILD["SourceLocation"], "--kms-key", KEY])
    second = run_here("infra", [])

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "add Bucket, AWS::S3::Bucket" in first.stderr
    assert f"the stack {STACK} is complete" in first.stderr
    assert "nothing was changed" in second.stderr
    [stack] = cloud.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    assert {tag["Key"]: tag["Value"] for tag in stack["Tags"]} == {"project": PROJECT, "created-by": PROJECT}
    found = cloud.client("ecr").describe_repositories()["repositories"]
    [repository] = found
    assert repository["repositoryName"] == PROJECT
    assert repository["imageTagMutability"] == "IMMUTABLE"
    encryption = cloud.client("s3").get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]
    [rule] = encryption["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    iam = cloud.client("iam")
    assert {role["RoleName"] for role in iam.list_roles()["Roles"]} == {f"{PROJECT}-{REGION}-{kind}" for kind in ROLES}
    named = {policy["PolicyName"]: policy for policy in iam.list_policies(Scope="Local")["Policies"]}
    assert set(named) == {f"{PROJECT}-{REGION}-{kind}" for kind in PEOPLE}
    groups = cloud.client("logs").describe_log_groups()["logGroups"]
    assert [(group["logGroupName"], group["retentionInDays"]) for group in groups] == [
        (f"/aws/codebuild/{PROJECT}-build", 90)
    ]


def test_the_roles_in_the_account_have_the_policies_that_make_iam_prints(cloud):
    arguments = ["--subnets", "subnet-0a,subnet-0b", "--security-groups", "sg-0a", "--kms-key", KEY.rpartition("/")[2]]
    assert run_here("infra", arguments).returncode == 0
    printed = json.loads(run_here("iam", [*arguments, "--trust"]).stdout)

    iam = cloud.client("iam")
    for kind in ("training", "hosting", "batch", "pipeline"):
        name = f"{PROJECT}-{REGION}-{kind}"
        found = []
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            # moto keeps a role's own policies as Python writes them.
            found += (yaml.safe_load(document) if isinstance(document, str) else document)["Statement"]
        assert by_sid(found) == by_sid(printed[kind]["policy"]["Statement"])
        role = iam.get_role(RoleName=name)["Role"]
        assert role["AssumeRolePolicyDocument"] == printed[kind]["trust"]


@pytest.mark.parametrize(("project", "remedy"), [("my-team", "PROJECT=myteam"), ("sagemaker", "PROJECT=sagemaker1")])
def test_a_new_project_is_not_named_so_that_its_logs_are_anothers_too(capsys, project, remedy):
    words = ["--project", project, "--region", REGION, "--dry-run"]
    assert main(["infra", *words]) == 2
    assert remedy in capsys.readouterr().err
    assert main(["infra", "--project", "myteam", "--region", REGION, "--dry-run"]) == 0


def test_a_build_has_the_base_that_it_is_given_and_a_tag_is_refused(capsys):
    digest = f"registry/pytorch@sha256:{'0' * 64}"
    with_base = CloudFormation(**BUILD, BaseImage=digest).resources()["Build"]["Properties"]["Environment"]
    without = CloudFormation(**BUILD).resources()["Build"]["Properties"]["Environment"]

    assert {"Name": "BASE_IMAGE", "Type": "PLAINTEXT", "Value": digest} in with_base["EnvironmentVariables"]
    assert [each["Name"] for each in without["EnvironmentVariables"]] == ["REPOSITORY"]
    assert main(["infra", "--region", REGION, "--base-image", "registry/pytorch:2.13", "--dry-run"]) == 2
    assert "docker image inspect" in capsys.readouterr().err


def test_s3_takes_the_buckets_properties(cloud):
    s3 = cloud.client("s3")
    resources = CloudFormation().resources()
    properties = resources["Bucket"]["Properties"]
    cloud.make_bucket()
    s3.put_public_access_block(
        Bucket=BUCKET, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"]
    )
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration=properties["VersioningConfiguration"])
    s3.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=properties["OwnershipControls"])
    rules = [{**rule, "Filter": {"Prefix": ""}} for rule in properties["LifecycleConfiguration"]["Rules"]]
    for rule in rules:
        rule["ID"] = rule.pop("Id")
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(resources["BucketPolicy"]["Properties"]["PolicyDocument"]))

    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert block == dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"] == {
        "Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]
    }
    found = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]}
    assert found["unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert found["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert not any("Expiration" in rule for rule in found.values())  # nothing of today is ever removed


def test_codebuild_takes_the_projects_properties(cloud):
    properties = CloudFormation(**BUILD, KmsKeyArn=KEY).resources()["Build"]["Properties"]
    request = lower(properties) | {"serviceRole": f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-build"}
    check(Call("codebuild", "CreateProject", request))
    cloud.client("codebuild").create_project(**request)

    [made] = cloud.client("codebuild").batch_get_projects(names=[f"{PROJECT}-build"])["projects"]
    assert made["environment"]["privilegedMode"] is True
    assert made["source"]["location"] == BUILD["SourceLocation"]


def test_ecr_takes_the_repositorys_lifecycle(cloud):
    properties = CloudFormation().resources()["Repository"]["Properties"]
    assert properties["ImageScanningConfiguration"] == {"ScanOnPush": True}
    ecr = cloud.client("ecr")
    ecr.create_repository(repositoryName=PROJECT)
    ecr.put_lifecycle_policy(
        repositoryName=PROJECT, lifecyclePolicyText=properties["LifecyclePolicy"]["LifecyclePolicyText"]
    )

    text = ecr.get_lifecycle_policy(repositoryName=PROJECT)["lifecyclePolicyText"]
    assert [rule["selection"]["tagStatus"] for rule in json.loads(text)["rules"]] == ["untagged"]


def test_the_outputs_name_bucket_repository_roles_and_policies(cloud):
    cloudformation = cloud.client("cloudformation")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(TEMPLATE), Capabilities=["CAPABILITY_NAMED_IAM"])
    outputs = cloudformation.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]

    found = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    assert found["BucketName"] == BUCKET
    assert found["RepositoryUri"].endswith(f".dkr.ecr.{REGION}.amazonaws.com/{PROJECT}")
    assert found["RoleTraining"] == f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-training"
    assert found["PolicyOperator"] == f"arn:aws:iam::{ACCOUNT}:policy/{PROJECT}-{REGION}-operator"
    assert set(found) == {"BucketName", "RepositoryUri"} | {f"Policy{kind.capitalize()}" for kind in PEOPLE} | {
        f"Role{kind.capitalize()}" for kind in ROLES if kind != "build"
    }


def test_a_change_is_printed_and_made(cloud, capsys, monkeypatch):
    monkeypatch.setattr(Account, "dns_suffix", "amazonaws.com")  # botocore deprecates how it is asked
    assert main(["infra"]) == 0
    monkeypatch.setattr(stack_template, "MUTABILITY", "MUTABLE")

    assert main(["infra"]) == 0

    assert "modify Repository, AWS::ECR::Repository" in capsys.readouterr().err
    [repository] = cloud.client("ecr").describe_repositories()["repositories"]
    assert repository["imageTagMutability"] == "MUTABLE"


@pytest.mark.long
def test_a_run_that_was_killed_anywhere_is_finished_by_the_next(cloud):
    def state():
        iam = cloud.client("iam")
        [stack] = cloud.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        return (
            stack["StackStatus"],
            [bucket["Name"] for bucket in cloud.client("s3").list_buckets()["Buckets"]],
            [found["repositoryName"] for found in cloud.client("ecr").describe_repositories()["repositories"]],
            sorted(role["RoleName"] for role in iam.list_roles()["Roles"]),
            sorted(policy["PolicyName"] for policy in iam.list_policies(Scope="Local")["Policies"]),
        )

    survives_kills(cloud, "infra", [], lambda: None, state)


def test_a_new_stack_has_literal_names_and_takes_over_what_there_is(cloud):
    run = run_here("infra", ["--dry-run"])

    create, _ = json.loads(run.stdout)
    assert create["request"]["ChangeSetType"] == "CREATE"
    assert create["request"]["ImportExistingResources"] is True
    body = json.loads(create["request"]["TemplateBody"])
    assert body["Resources"]["Bucket"]["Properties"]["BucketName"] == BUCKET
    assert "costs nothing by the hour" in run.stderr


# What moto never answers.


@pytest.fixture
def stubbed(monkeypatch):
    """An account whose CloudFormation answers what a test says."""
    for name, value in environment("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stack, "POLL_S", 0)
    account = Account(argparse.Namespace(region=REGION, profile=None, dry_run=False))
    with Stubber(account.client("cloudformation")) as stubber:
        account.stubber = stubber
        yield account
        stubber.assert_no_pending_responses()


def stack_answer(status):
    return {"Stacks": [{"StackName": STACK, "CreationTime": 0, "StackStatus": status, "Parameters": []}]}


def event(number, name, status, reason=""):
    return {"StackId": "s", "EventId": str(number), "StackName": STACK, "Timestamp": 0, "LogicalResourceId": name,
            "ResourceType": f"AWS::{name}", "ResourceStatus": status, "ResourceStatusReason": reason}  # fmt: skip


FAILED = [  # the newest first, as CloudFormation tells it
    event(6, STACK, "ROLLBACK_COMPLETE"),
    event(5, STACK, "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [RoleBatch, Bucket]."),
    event(4, "RoleBatch", "CREATE_FAILED", "Resource creation cancelled"),
    event(3, "Bucket", "CREATE_FAILED", "the name is\ntaken."),
    event(2, "Bucket", "CREATE_IN_PROGRESS"),
    event(1, "Old", "CREATE_FAILED", "of a former time"),
]
CAUSE = "because of Bucket (AWS::Bucket): the name is taken:"


def test_a_failure_is_told_with_the_reason_of_the_first_that_failed(stubbed, capsys):
    answers = [("describe_stack_events", {"StackEvents": FAILED[5:]}), ("execute_change_set", {})]
    answers += [("describe_stacks", stack_answer(status)) for status in ("CREATE_IN_PROGRESS", "ROLLBACK_COMPLETE")]
    for method, answer in [*answers, ("describe_stack_events", {"StackEvents": FAILED})]:
        stubbed.stubber.add_response(method, answer)

    with pytest.raises(UnfinishedError) as caught:
        stack.carry_out(stubbed, STACK, "infra-0")

    assert CAUSE in str(caught.value)
    assert f"aws cloudformation delete-stack --stack-name {STACK}" in str(caught.value)
    assert "CREATE_IN_PROGRESS" in capsys.readouterr().err


def test_a_failed_update_says_that_all_is_as_before(stubbed):
    answers = [("describe_stack_events", {"StackEvents": []}), ("execute_change_set", {}),
               ("describe_stacks", stack_answer("UPDATE_ROLLBACK_COMPLETE")),
               ("describe_stack_events", {"StackEvents": [event(2, "Bucket", "UPDATE_FAILED", "no")]})]  # fmt: skip
    for method, answer in answers:
        stubbed.stubber.add_response(method, answer)

    with pytest.raises(UnfinishedError, match=r"because of Bucket \(AWS::Bucket\): no: everything is as it was before"):
        stack.carry_out(stubbed, STACK, "infra-0")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("ROLLBACK_COMPLETE", "delete-stack"),
        ("ROLLBACK_FAILED", "delete-stack"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_explained(stubbed, status, remedy):
    stubbed.stubber.add_response("describe_stacks", stack_answer(status))
    stubbed.stubber.add_response("describe_stack_events", {"StackEvents": FAILED[:5]})

    with pytest.raises(CommandError) as caught:
        stack.settle(Context(stubbed, argparse.Namespace()), STACK)

    assert f"the stack {STACK} is {status} {CAUSE}" in str(caught.value)
    assert f"aws cloudformation {remedy} --stack-name {STACK}" in str(caught.value)


def test_a_stack_that_somebody_changes_is_waited_for(stubbed, capsys):
    for status in ("CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_COMPLETE"):
        stubbed.stubber.add_response("describe_stacks", stack_answer(status))

    there = stack.settle(Context(stubbed, argparse.Namespace()), STACK)

    assert there["StackStatus"] == "CREATE_COMPLETE"
    assert "is being changed (CREATE_IN_PROGRESS): waiting for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reason", "is_same"),
    [
        (
            "The submitted information didn't contain changes. Submit different information to create a change set.",
            True,
        ),
        ("No updates are to be performed.", True),
        ("Template error: something", False),
    ],
)
def test_a_change_set_without_changes_is_no_failure(stubbed, reason, is_same):
    request = {"StackName": STACK, "ChangeSetName": "infra-0", "TemplateBody": "{}"}
    stubbed.stubber.add_client_error("describe_change_set", "ChangeSetNotFound", "ChangeSet does not exist")
    stubbed.stubber.add_response("create_change_set", {})
    stubbed.stubber.add_response("describe_change_set", {"Status": "CREATE_IN_PROGRESS"})
    for _ in range(2):
        stubbed.stubber.add_response("describe_change_set", {"Status": "FAILED", "StatusReason": reason})
    stubbed.stubber.add_response("delete_change_set", {})

    if is_same:
        assert stack.prepare(stubbed, request)
    else:
        with pytest.raises(CommandError, match="CloudFormation refuses the change: Template error: something"):
            stack.prepare(stubbed, request)


@pytest.mark.parametrize(("former", "is_taken_up"), [("AVAILABLE", True), ("OBSOLETE", False)])
def test_a_comparison_that_still_holds_is_taken_up_and_a_replacement_said_to_keep_what_there_is(
    stubbed, capsys, former, is_taken_up
):
    request = {"StackName": STACK, "ChangeSetName": "infra-0", "TemplateBody": "{}"}
    change = {
        "Action": "Modify",
        "LogicalResourceId": "Bucket",
        "ResourceType": "AWS::S3::Bucket",
        "Replacement": "True",
    }
    answer = {"Status": "CREATE_COMPLETE", "Changes": [{"Type": "Resource", "ResourceChange": change}]}
    stubbed.stubber.add_response("describe_change_set", answer | {"ExecutionStatus": former})
    if not is_taken_up:
        for method in ("delete_change_set", "create_change_set"):
            stubbed.stubber.add_response(method, {})
        stubbed.stubber.add_response("describe_change_set", answer)
    stubbed.stubber.add_response("describe_change_set", answer)  # its pages

    assert not stack.prepare(stubbed, request)
    assert "modify Bucket, AWS::S3::Bucket (replaced; what it holds is kept)" in capsys.readouterr().err


def parameters(old, **given):
    options = {"project": PROJECT, "bucket": None, "prefix": "monai", "repository": None, "kms_key": None,
               "subnets": [], "security_groups": [], "source": None, "base_image": None, **given}  # fmt: skip

    class Here:
        region, partition, number, dns_suffix = REGION, "aws", ACCOUNT, "amazonaws.com"

    return stack.parameters(Here(), argparse.Namespace(**options), old)


def test_what_is_not_given_stays_and_none_takes_it_away():
    subnet, group = (f"arn:aws:ec2:{REGION}:{ACCOUNT}:{name}" for name in ("subnet/subnet-1", "security-group/sg-1"))
    first = parameters({}, kms_key=KEY, bucket="mine", subnets=["subnet-1"], security_groups=["sg-1"],
                       source=BUILD["SourceLocation"])  # fmt: skip
    assert first == {
        "Project": PROJECT,
        "BucketName": "mine",
        "BaseImage": "",
        "Prefix": "monai",
        "RepositoryName": PROJECT,
        "KmsKeyArn": KEY,
        "SubnetArns": subnet,
        "SecurityGroupArns": group,
        **BUILD,
    }

    assert parameters(first) == first
    taken = parameters(first, kms_key="none", subnets=["none"], source="none")
    assert taken == first | {"KmsKeyArn": "", "SubnetArns": "", "SecurityGroupArns": "", "SourceType": "NONE",
                             "SourceLocation": "none"}  # fmt: skip


def test_the_parameters_are_those_of_the_template():
    assert set(parameters({})) == set(TEMPLATE["Parameters"])
    assert {name: value for name, value in parameters({}).items() if name not in ("BucketName", "RepositoryName")} == {
        name: parameter["Default"]
        for name, parameter in TEMPLATE["Parameters"].items()
        if name not in ("BucketName", "RepositoryName")
    }


REFUSED = [
    (["--subnets", "subnet-1"], "subnets need security groups: give SECURITY_GROUPS= too"),
    (["--kms-key", "alias/mine"], "'alias/mine' is an alias"),
    (["--source", "git@github.com:a/b"], "a source is https://github.com/OWNER/NAME"),
]


def test_what_is_wrong_is_one_line_with_the_remedy(cloud):
    assert not_refused("infra", REFUSED) == []


def test_sources_without_an_arn_need_no_call():
    assert KINDS["build"](Scope(**vars(PLAIN) | {"sources": (Source("GITHUB"),)})) == KINDS["build"](PLAIN)
