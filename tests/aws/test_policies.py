"""The policies: a linter's opinion, a simulation of what each kind can and cannot do, and the buildspec's list."""

import ast
import itertools
import json
import re
import subprocess
import sys

import botocore.session
import pytest

from sagemaker_monai_aws.infrastructure.policies import KINDS, PEOPLE, ROLES, trust
from sagemaker_monai_aws.infrastructure.policy_statements import PUSH, UNSCOPED, Scope, Source
from tests.support.permissions import allowed
from tests.support.places import ROOT

ACCOUNT = "123456789012"
REGIONS = {"aws": "eu-central-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1"}
PARTITIONS = list(REGIONS)
# What the linter's stricter rules say about calls that cannot be left out. Which roles can be passed, and on whose
# behalf the key is granted, is tested below.
ACCEPTED = {
    "CREDENTIALS_EXPOSURE": {"ecr:getauthorizationtoken"},
    "PERMISSIONS_MANAGEMENT_ACTIONS": {
        "iam:passrole",
        "iam:createservicelinkedrole",
        "kms:creategrant",
        "ec2:createnetworkinterfacepermission",
    },
}
LINT = """
import json, sys, warnings
warnings.simplefilter("ignore")  # it still imports pkg_resources
import parliament
findings = {}
for name, policy in json.load(sys.stdin).items():
    found = parliament.analyze_policy_string(json.dumps(policy), include_community_auditors=True).findings
    findings[name] = [[f.issue, f.location.get("actions"), str(f.detail)] for f in found]
json.dump(findings, sys.stdout, default=str)
"""


def scope_of(partition="aws", *, key=False, vpc=False, **other):
    region = REGIONS[partition]
    scope = Scope(account=ACCOUNT, region=region, bucket=f"sagemaker-monai-{ACCOUNT}-{region}", partition=partition,
                  dns_suffix="amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com")  # fmt: skip
    more = {}
    if key:
        more["kms_key"] = scope.arn("kms", "key/11111111-2222-3333-4444-555555555555")
    if vpc:
        more["subnets"] = (scope.arn("ec2", "subnet/subnet-0a"), scope.arn("ec2", "subnet/subnet-0b"))
        more["security_groups"] = (scope.arn("ec2", "security-group/sg-0a"),)
    sources = (Source("S3", f"arn:{partition}:s3:::sources/monai.zip"), Source("GITHUB"),
               Source("CODECOMMIT", scope.arn("codecommit", "monai")))  # fmt: skip
    return Scope(**vars(scope) | more | {"sources": sources} | other)


NAMED = (("scans", "ct/"), ("all-scans", ""))  # buckets and beginnings of keys that requests may name
SCOPES = {
    f"{partition}{'-key' * key}{'-vpc' * vpc}": scope_of(partition, key=key, vpc=vpc)
    for partition, key, vpc in itertools.product(PARTITIONS, (False, True), (False, True))
}


def lint(policies):
    """Parliament's findings; in a process of its own, because importing it warns."""
    run = subprocess.run([sys.executable, "-c", LINT], input=json.dumps(policies), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def is_accepted(finding):
    issue, actions, _ = finding
    return issue in ACCEPTED and set(actions) <= ACCEPTED[issue]


def is_false_alarm(policy, finding):
    """Whether it says that resources do not fit actions which, for all that, the policy allows on such resources: the
    linter does not match a type with a `*` in it.
    """
    issue, _, detail = finding
    if issue != "RESOURCE_MISMATCH":
        return False
    tag = {"aws__ResourceTag_project": "sagemaker-monai", "aws__RequestTag_project": "sagemaker-monai"}
    [arn, *_] = [arn for each in policy["Statement"] for arn in each["Resource"] if ":sagemaker:" in arn]
    start = arn.rpartition(":")[0]
    return all(
        allowed(
            policy,
            each["action"],
            f"{start}:{each['required_format'].split(':')[5].replace('*', 'sagemaker-monai-a')}",
            **tag,
        )
        for each in ast.literal_eval(detail)
    )


@pytest.fixture(scope="module")
def policies():
    scope = scope_of(key=True)
    return {kind: make(scope) for kind, make in KINDS.items()}


def test_the_linter_finds_nothing_that_is_not_accepted():
    scopes = SCOPES | {"named": scope_of(named_by_requests=NAMED)}
    policies = {f"{case} {kind}": make(scope) for case, scope in scopes.items() for kind, make in KINDS.items()}
    findings = lint(policies)

    assert len(findings) == len(scopes) * len(KINDS)
    left = {name: [each for each in found if not is_accepted(each) and not is_false_alarm(policies[name], each)]
            for name, found in findings.items()}  # fmt: skip
    assert {name: found for name, found in left.items() if found} == {}


def test_the_linter_can_fail():
    changes = {
        "UNKNOWN_ACTION": {"Action": ["sagemaker:StartTraining"]},
        "RESOURCE_STAR": {"Action": ["s3:GetObject"], "Resource": ["*"]},
        "RESOURCE_MISMATCH": {"Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::bucket"]},
        "UNKNOWN_CONDITION_FOR_ACTION": {"Condition": {"StringEquals": {"s3:prefix": "monai/"}}},
        "PERMISSIONS_MANAGEMENT_ACTIONS": {"Action": ["iam:PutRolePolicy"],
                                           "Resource": ["arn:aws:iam::123456789012:role/r"]},
    }  # fmt: skip
    bad = {issue: KINDS["training"](scope_of()) for issue in changes}
    for issue, change in changes.items():
        bad[issue]["Statement"][1] |= change

    for issue, findings in lint(bad).items():
        assert issue in [found for found, *rest in findings if not is_accepted([found, *rest])]


@pytest.mark.parametrize("kind", KINDS)
def test_no_action_has_a_wildcard_and_no_resource_but_of_the_named_actions_is_everything(kind):
    for statement in (statement for scope in SCOPES.values() for statement in KINDS[kind](scope)["Statement"]):
        assert not any(set(action) & set("*?") for action in statement["Action"])
        if any(resource.strip("*") in ("", "arn:aws:") for resource in statement["Resource"]):
            assert statement["Resource"] == ["*"]
            assert set(statement["Action"]) <= set(UNSCOPED)


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_every_resource_is_of_this_partition_account_region_and_project(scope):
    given = [scope.bucket, scope.project, scope.kms_key, *scope.subnets, *scope.security_groups]
    given += [source.arn for source in scope.sources]
    own_names = ("pipelines-", "aws-service-role/sagemaker.", "network-interface/", "scalable-target/",
                 "/aws/sagemaker/")  # fmt: skip
    for statement in (statement for make in KINDS.values() for statement in make(scope)["Statement"]):
        for resource in set(statement["Resource"]) - {"*"}:
            _, partition, service, region, account, name = resource.split(":", 5)
            assert partition == scope.partition
            assert (region, account) in {(scope.region, ACCOUNT), ("", ACCOUNT), ("", "")}
            assert region or service in ("s3", "iam")
            assert any(part in resource for part in given if part) or any(part in name for part in own_names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_fits_where_it_goes_with_the_longest_names(kind):
    # IAM quotas: 6,144 characters for a managed policy, 10,240 for all inline policies of a role, white space apart.
    scope = scope_of("aws-us-gov", key=True, vpc=True, project="p" * 32, repository="r" * 60, prefix="x" * 40)
    text = json.dumps(KINDS[kind](scope), separators=(",", ":"))

    assert len(text) <= (6144 if kind in PEOPLE else 10240)


def test_every_kind_is_a_role_or_a_persons():
    assert set(ROLES) | set(PEOPLE) == set(KINDS)
    assert not set(ROLES) & set(PEOPLE)


def test_the_addresses_in_conditions_are_the_partitions():
    known = botocore.session.get_session().get_component("data_loader").load_data("partitions")["partitions"]
    suffixes = {partition["id"]: partition["outputs"]["dnsSuffix"] for partition in known}
    for partition in PARTITIONS:
        scope = scope_of(partition, key=True)
        [use] = [s for s in KINDS["training"](scope)["Statement"] if "kms:Decrypt" in s["Action"]]
        host = f"s3.{scope.region}.{suffixes[partition]}"
        assert use["Condition"] == {"StringEquals": {"kms:ViaService": [host]}}


BUCKET = f"arn:aws:s3:::sagemaker-monai-{ACCOUNT}-eu-central-1"
OBJECTS = {
    "data": "data/skin/a.dcm",
    "jobs": "jobs/x/output/model.tar.gz",
    "checkpoints": "checkpoints/x/1.pt",
    "models": "models/e/m.tar.gz",
    "input": "async/e/input/1",
    "output": "async/e/output/1.out",
    "failure": "async/e/failure/1",
    "transform": "transform/x/a.dcm.out",
    "capture": "capture/e/AllTraffic/1.jsonl",
    "processing": "processing/x/dataset.json",
    "pipelines": "pipelines/x.json",
}
READABLE = {
    "training": {"data", "jobs", "checkpoints", "processing"},
    "prepare": {"data"},
    "hosting": {"jobs", "models", "input"},
    "batch": {"data", "jobs", "models", "transform"},
    "pipeline": {"jobs", "processing", "pipelines"},
    "build": set(),
}
WRITABLE = {
    "training": {"jobs", "checkpoints", "processing"},
    "prepare": {"data"},
    "hosting": {"output", "failure", "capture"},
    "batch": {"transform"},
    "pipeline": {"pipelines"},
    "build": set(),
}


@pytest.mark.parametrize("kind", ROLES)
def test_a_role_reads_and_writes_its_folders_and_no_others(policies, kind):
    policy, ours = policies[kind], {"s3__ResourceAccount": ACCOUNT}
    places = {folder: f"{BUCKET}/monai/{key}" for folder, key in OBJECTS.items()}
    prefixes = {folder: "monai/" + key.rpartition("/")[0] + "/" for folder, key in OBJECTS.items()}

    assert {f for f, place in places.items() if allowed(policy, "s3:GetObject", place, **ours)} == READABLE[kind]
    assert {f for f, place in places.items() if allowed(policy, "s3:PutObject", place, **ours)} == WRITABLE[kind]
    assert {f for f, prefix in prefixes.items()
            if allowed(policy, "s3:ListBucket", BUCKET, **ours, s3__prefix=prefix)} == READABLE[kind]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_leaves_the_prefix_deletes_more_than_sent_inputs_or_uses_a_bucket_of_others(policies, kind):
    policy = policies[kind]
    ours = {"s3__ResourceAccount": ACCOUNT}
    for action in ("s3:GetObject", "s3:PutObject"):
        for place in (f"{BUCKET}/data/a.dcm", f"{BUCKET}/other/data/a.dcm", f"{BUCKET}-2/monai/data/a.dcm",
                      f"{BUCKET}/monai-2/jobs/a", "arn:aws:s3:::others/monai/data/a.dcm"):  # fmt: skip
            assert not allowed(policy, action, place, **ours)
        for key in OBJECTS.values():
            assert not allowed(policy, action, f"{BUCKET}/monai/{key}", s3__ResourceAccount="999999999999")
    assert not allowed(policy, "s3:ListBucket", BUCKET, **ours)
    for prefix in ("", "monai", "other/data/"):
        assert not allowed(policy, "s3:ListBucket", BUCKET, **ours, s3__prefix=prefix)
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutBucketPolicy", "s3:DeleteBucket"):
        for folder, key in OBJECTS.items():
            is_answered = (kind, action, folder) == ("deployer", "s3:DeleteObject", "input")
            assert allowed(policy, action, f"{BUCKET}/monai/{key}", **ours) == is_answered
        assert not allowed(policy, action, BUCKET, **ours)
        assert not allowed(policy, action, f"{BUCKET}/monai/async/e/input/1", s3__ResourceAccount="999999999999")


@pytest.mark.parametrize("kind", ["hosting", "batch"])
def test_an_endpoint_reads_what_requests_may_name_and_nothing_beside_it(kind):
    policy = KINDS[kind](scope_of(named_by_requests=NAMED))
    ours = {"s3__ResourceAccount": ACCOUNT}

    for key, may in {"scans/ct/1/a": True, "scans/mr/a": False, "scans/ct": False, "all-scans/a": True}.items():
        assert allowed(policy, "s3:GetObject", f"arn:aws:s3:::{key}", **ours) == may
        assert not allowed(policy, "s3:GetObject", f"arn:aws:s3:::{key}", s3__ResourceAccount="999999999999")
        assert not allowed(policy, "s3:PutObject", f"arn:aws:s3:::{key}", **ours)
    for bucket, prefix, may in (("scans", "ct/1/", True), ("scans", "mr/", False), ("all-scans", "x/", True)):
        place = f"arn:aws:s3:::{bucket}"
        assert allowed(policy, "s3:ListBucket", place, **ours, s3__prefix=prefix) == may


SAGEMAKER = f"arn:aws:sagemaker:eu-central-1:{ACCOUNT}:"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
PASSED = {
    "pipeline": ["training", "prepare"],
    "operator": ["training", "prepare"],
    "deployer": ["hosting", "batch"],
    "registrar": ["pipeline"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_these_roles_are_passed_and_only_to_sagemaker(policies, kind):
    names = [f"sagemaker-monai-eu-central-1-{role}" for role in ROLES]
    for name in (*names, "Administrator", "sagemaker-monai-us-east-1-training"):
        passed = {service: allowed(policies[kind], "iam:PassRole", ROLE + name, iam__PassedToService=service)
                  for service in ("sagemaker.amazonaws.com", "ec2.amazonaws.com", "lambda.amazonaws.com")}  # fmt: skip
        is_ours = name.removeprefix("sagemaker-monai-eu-central-1-") in PASSED.get(kind, [])
        assert passed == {"sagemaker.amazonaws.com": is_ours, "ec2.amazonaws.com": False, "lambda.amazonaws.com": False}
    assert not allowed(policies[kind], "iam:PassRole", ROLE + names[0])


FORBIDDEN = ("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:CreateUser", "sts:AssumeRole",
             "iam:CreatePolicyVersion", "iam:UpdateAssumeRolePolicy", "ecr:DeleteRepository", "ecr:BatchDeleteImage",
             "kms:ScheduleKeyDeletion")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_can_give_more_than_they_have_or_remove_what_is_kept(policies, kind):
    for resource in (f"{ROLE}sagemaker-monai-eu-central-1-training", ROLE + "x", "*",
                     f"arn:aws:ecr:eu-central-1:{ACCOUNT}:repository/sagemaker-monai"):  # fmt: skip
        assert [action for action in FORBIDDEN if allowed(policies[kind], action, resource)] == []


# Kind, action, type in the ARN: allowed on the project's own only with its tag, in the request or on the thing.
TAGGED = [
    ("operator", "CreateTrainingJob", "training-job", "Request"),
    ("operator", "StopTrainingJob", "training-job", "Resource"),
    ("operator", "CreateHyperParameterTuningJob", "hyper-parameter-tuning-job", "Request"),
    ("operator", "CreateProcessingJob", "processing-job", "Request"),
    ("deployer", "CreateModel", "model", "Request"),
    ("deployer", "CreateEndpoint", "endpoint", "Request"),
    ("deployer", "CreateEndpoint", "endpoint-config", "Request"),
    ("deployer", "UpdateEndpoint", "endpoint", "Resource"),
    ("deployer", "InvokeEndpoint", "endpoint", "Resource"),
    ("deployer", "InvokeEndpointAsync", "endpoint", "Resource"),
    ("deployer", "DeleteEndpoint", "endpoint", "Resource"),
    ("deployer", "DeleteEndpointConfig", "endpoint-config", "Resource"),
    ("deployer", "DeleteModel", "model", "Resource"),
    ("deployer", "CreateTransformJob", "transform-job", "Request"),
    ("registrar", "CreateModelPackageGroup", "model-package-group", "Request"),
    ("registrar", "CreatePipeline", "pipeline", "Request"),
    ("registrar", "StartPipelineExecution", "pipeline", "Resource"),
    ("registrar", "UpdateModelPackage", "model-package", "Resource"),
    ("pipeline", "CreateTrainingJob", "training-job", "Request"),
    ("pipeline", "CreateProcessingJob", "processing-job", "Request"),
]


@pytest.mark.parametrize(("kind", "action", "type_", "place"), TAGGED)
def test_only_the_projects_tagged_things_are_made_and_changed(policies, kind, action, type_, place):
    def can(name, tag):
        context = {f"aws__{place}Tag_project": tag} if tag else {}
        return allowed(policies[kind], f"sagemaker:{action}", f"{SAGEMAKER}{type_}/{name}", **context)

    own = "sagemaker-monai" if type_ == "pipeline" else "sagemaker-monai-x"
    assert can(own, "sagemaker-monai")
    assert not can(own, None)
    assert not can(own, "other")
    assert not can("other-x", "sagemaker-monai")
    assert not can("sagemaker-monai2-x", "sagemaker-monai")


def test_a_pipelines_jobs_can_be_started_by_it_and_looked_at_but_not_stopped_by_the_operator(policies):
    job = f"{SAGEMAKER}training-job/pipelines-abc-Train-xyz"
    ours = "sagemaker-monai"
    assert allowed(policies["pipeline"], "sagemaker:CreateTrainingJob", job, aws__RequestTag_project=ours)
    assert allowed(policies["operator"], "sagemaker:DescribeTrainingJob", job, aws__ResourceTag_project=ours)
    assert not allowed(policies["operator"], "sagemaker:DescribeTrainingJob", job)
    assert not allowed(policies["operator"], "sagemaker:StopTrainingJob", job, aws__ResourceTag_project=ours)
    assert not allowed(policies["pipeline"], "sagemaker:CreateEndpoint", f"{SAGEMAKER}endpoint/sagemaker-monai-x",
                       aws__RequestTag_project=ours)  # fmt: skip


LOGS = f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:/aws/"


@pytest.mark.parametrize(
    ("kind", "own", "others"),
    [
        ("training", "sagemaker/TrainingJobs:log-stream:sagemaker-monai-t/algo-1-17", "sagemaker/TransformJobs"),
        ("training", "sagemaker/ProcessingJobs:log-stream:pipelines-abc-Prepare-x/algo-1-17", "sagemaker/Endpoints/x"),
        ("hosting", "sagemaker/Endpoints/sagemaker-monai-e:log-stream:main/i-0", "sagemaker/Endpoints/other"),
        ("batch", "sagemaker/TransformJobs:log-stream:sagemaker-monai-b/i-0", "sagemaker/TrainingJobs"),
        ("build", "codebuild/sagemaker-monai-build:log-stream:0a", "codebuild/other"),
    ],
)
def test_a_role_writes_its_own_log_and_no_others(policies, kind, own, others):
    assert allowed(policies[kind], "logs:PutLogEvents", LOGS + own)
    assert allowed(policies[kind], "logs:CreateLogStream", LOGS + own)
    assert allowed(policies[kind], "logs:CreateLogGroup", LOGS + own.split("log-stream")[0] + "log-stream:")
    assert not allowed(policies[kind], "logs:PutLogEvents", f"{LOGS}{others}:log-stream:sagemaker-monai-t/1")


def test_an_endpoints_metrics_are_of_sagemakers_namespace(policies):
    for space, is_theirs in (("/aws/sagemaker/Endpoints", True), ("AWS/Billing", False)):
        assert allowed(policies["hosting"], "cloudwatch:PutMetricData", cloudwatch__namespace=space) == is_theirs


def test_the_key_serves_s3_and_grants_for_services_only(policies):
    key = scope_of(key=True).kms_key
    for kind in ("training", "hosting", "batch", "operator"):
        hosts = {service: f"{service}.eu-central-1.amazonaws.com" for service in ("s3", "secretsmanager")}
        via = {
            service: allowed(policies[kind], "kms:Decrypt", key, kms__ViaService=hosts[service]) for service in hosts
        }
        assert via == {"s3": True, "secretsmanager": False}
        assert not allowed(policies[kind], "kms:Decrypt", key)
        assert allowed(policies[kind], "kms:CreateGrant", key, kms__GrantIsForAWSResource="true")
        assert not allowed(policies[kind], "kms:CreateGrant", key, kms__GrantIsForAWSResource="false")
        assert not allowed(policies[kind], "kms:Decrypt", key.replace("1111-2222", "9999-2222"))


@pytest.mark.parametrize("kind", ["training", "hosting", "batch"])
def test_without_a_key_or_a_vpc_there_are_no_calls_for_them(kind):
    def services(scope):
        return {action.split(":")[0] for s in KINDS[kind](scope)["Statement"] for action in s["Action"]}

    assert services(scope_of()) == {"s3", "ecr", "logs", "cloudwatch"}
    assert services(scope_of(key=True, vpc=True)) == {"s3", "ecr", "logs", "cloudwatch", "kms", "ec2"}


def test_a_job_enters_the_subnets_it_was_given_and_no_others():
    scope = scope_of(vpc=True)
    policy = KINDS["training"](scope)
    interface = scope.arn("ec2", "network-interface/eni-1")
    for subnet, is_theirs in ((scope.subnets[0], True), (scope.arn("ec2", "subnet/subnet-0c"), False)):
        assert allowed(policy, "ec2:CreateNetworkInterface", subnet) == is_theirs
        for action in ("CreateNetworkInterfacePermission", "DeleteNetworkInterface"):
            assert allowed(policy, f"ec2:{action}", interface, ec2__Subnet=subnet) == is_theirs
    assert not allowed(policy, "ec2:DeleteNetworkInterface", interface)


def test_the_build_may_call_exactly_what_the_head_of_the_buildspec_says():
    head = (ROOT / "buildspec.yml").read_text().split("version:")[0]
    asked = set(re.findall(r"ecr:[A-Za-z]+", head))
    policy = KINDS["build"](scope_of())
    granted = {action for statement in policy["Statement"] for action in statement["Action"]}

    assert asked == {"ecr:GetAuthorizationToken", *PUSH}
    assert {action for action in granted if action.startswith("ecr:")} == asked


def test_the_build_fetches_the_source_it_was_given():
    policy = KINDS["build"](scope_of())
    assert allowed(policy, "s3:GetObject", "arn:aws:s3:::sources/monai.zip")
    assert not allowed(policy, "s3:GetObject", "arn:aws:s3:::sources/other.zip")
    repository = f"arn:aws:codecommit:eu-central-1:{ACCOUNT}:"
    assert allowed(policy, "codecommit:GitPull", repository + "monai")
    assert not allowed(policy, "codecommit:GitPull", repository + "other")
    assert not allowed(KINDS["build"](scope_of(sources=())), "s3:GetObject", "arn:aws:s3:::sources/monai.zip")


@pytest.mark.parametrize("kind", ROLES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_role_is_taken_by_its_service_on_behalf_of_this_account_only(kind, partition):
    scope = scope_of(partition)
    policy = trust(scope, kind)
    service, thing = (("codebuild", "project/sagemaker-monai-build") if kind == "build"
                      else ("sagemaker", "training-job/sagemaker-monai-x"))  # fmt: skip
    assert [s["Principal"] for s in policy["Statement"]] == [{"Service": f"{service}.amazonaws.com"}]

    def taken(account, region=scope.region, thing=thing):
        arn = f"arn:{partition}:{service}:{region}:{account}:{thing}"
        return allowed(policy, "sts:AssumeRole", aws__SourceAccount=account, aws__SourceArn=arn)

    assert taken(ACCOUNT)
    assert not taken("999999999999")
    assert not taken(ACCOUNT, region="us-east-2")
    assert not allowed(policy, "sts:AssumeRole")
    assert taken(ACCOUNT, thing=thing.replace("monai-build", "other")) == (kind != "build")
