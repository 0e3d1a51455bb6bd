"""Nobody of one project can change, tag or read what belongs to another whose name begins or ends alike.

Every action that any policy of a project lists is tried on every kind of thing that another project has, with the tags
that it has and with every tag that the caller could ask for; IAM's decision is tests/support/permissions.py's.
"""

import functools
import itertools

import pytest

from sagemaker_monai_aws.infrastructure.policies import KINDS
from sagemaker_monai_aws.infrastructure.policy_statements import Scope
from tests.support.permissions import allowed, matches

ACCOUNT, REGION = "123456789012", "eu-central-1"
# Whose names meet: one begins with the other and a dash, or with the other, or ends with it, or has its kind of name.
PROJECTS = ("aaa-b", "aaab", "aaa-train")
PAIRS = [pair for other in PROJECTS for pair in (("aaa", other), (other, "aaa"))]
# What is let through all the same: it reads, and AWS knows no tag of the thing, or a command must see whose it is.
BY_NAME_ALONE = {
    "logs:DescribeLogStreams",
    "logs:FilterLogEvents",
    "logs:GetLogEvents",
    "sagemaker:ListTags",
}
# The service writes the logs of jobs and endpoints with the roles, into groups whose names it makes.
WRITTEN_BY_ROLES = {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"}
SAGEMAKER = ("training-job", "processing-job", "hyper-parameter-tuning-job", "transform-job", "model", "endpoint",
             "endpoint-config", "model-package-group", "model-card", "experiment", "experiment-trial",
             "experiment-trial-component", "notebook-instance", "monitoring-schedule", "pipeline")  # fmt: skip


def scope_of(project):
    return Scope(account=ACCOUNT, region=REGION, bucket=f"{project}-{ACCOUNT}-{REGION}", project=project,
                 repository=project)  # fmt: skip


def belongings(project):
    """ARN -> whether AWS knows tags of it, of what the commands make and of what people may have made beside them."""
    here = f"{REGION}:{ACCOUNT}"
    names = [f"{project}-{end}" for end in ("train-0a1b2c3d4e", "realtime", "x")]
    things = {f"arn:aws:sagemaker:{here}:{kind}/{name}": True for kind in SAGEMAKER for name in [project, *names]}
    things |= {f"arn:aws:sagemaker:{here}:model-package/{name}/3": True for name in [project, *names]}
    things[f"arn:aws:sagemaker:{here}:pipeline/{project}/execution/0a1b2c"] = False
    things |= {f"arn:aws:sagemaker:{here}:training-job/pipelines-0a1b-Train-xyz": True}
    things |= {f"arn:aws:cloudwatch:{here}:alarm:{name}-latency": True for name in names}
    things[f"arn:aws:application-autoscaling:{here}:scalable-target/0ec5a7"] = True
    bucket = f"arn:aws:s3:::{project}-{ACCOUNT}-{REGION}"
    keys = (
        "data/training/a",
        "jobs/x/output/model.tar.gz",
        "checkpoints/x/1.pt",
        "models/e/m.tar.gz",
        "async/e/input/1",
        "async/e/output/1",
        "transform/x/a",
        "capture/e/1",
        "processing/x/1",
        "pipelines/x",
    )
    things |= {bucket: False} | {f"{bucket}/monai/{key}": False for key in keys}
    things[f"arn:aws:ecr:{here}:repository/{project}"] = True
    things |= {f"arn:aws:iam::{ACCOUNT}:role/{project}-{REGION}-{kind}": False for kind in KINDS}
    things[f"arn:aws:codebuild:{here}:project/{project}-build"] = True
    groups = [f"/aws/sagemaker/Endpoints/{project}-realtime", f"/aws/codebuild/{project}-build"]
    streams = [f"/aws/sagemaker/{group}:log-stream:{project}-train-0a/algo-1-1" for group in
               ("TrainingJobs", "ProcessingJobs", "TransformJobs")]  # fmt: skip
    things |= {f"arn:aws:logs:{here}:log-group:{place}:log-stream:i": False for place in groups}
    return things | {f"arn:aws:logs:{here}:log-group:{place}": False for place in streams}


def contexts(owner, caller, *, is_tagged):
    """The context of a request: the resource's own tag, and any tag that the caller passes."""
    own = {"aws:ResourceTag/project": owner, "sagemaker:ResourceTag/project": owner} if is_tagged else {}
    base = {
        "s3:ResourceAccount": ACCOUNT,
        "s3:prefix": "monai/data/training/",
        "iam:PassedToService": "sagemaker.amazonaws.com",
        "application-autoscaling:service-namespace": "sagemaker",
        "kms:ViaService": f"s3.{REGION}.amazonaws.com",
    }
    asked = [{}, *({"aws:RequestTag/project": tag, "aws:TagKeys": "project"} for tag in (caller, owner))]
    by = [{}, *({"sagemaker:TaggingAction": f"Create{noun}"} for noun in ("TrainingJob", "ModelPackage"))]
    return [base | own | tags | making for tags, making in itertools.product(asked, by)]


@functools.cache
def let_through(caller, owner, kind):
    policy = KINDS[kind](scope_of(caller))
    found = set()
    for thing, is_tagged in belongings(owner).items():
        # Only what is about the thing at all is asked with every context.
        about = [each for each in policy["Statement"] if any(matches(pattern, thing) for pattern in each["Resource"])
                 and each["Resource"] != ["*"]]  # fmt: skip
        service = f"{thing.split(':')[2]}:"
        for action in {each for statement in about for each in statement["Action"] if each.startswith(service)}:
            if "/execution/" in thing and "Pipeline" not in action:
                continue  # no other action is about executions, which have no tags
            if any(allowed({"Statement": about}, action, thing, **context)
                   for context in contexts(owner, caller, is_tagged=is_tagged)):  # fmt: skip
                found.add((action, thing))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_one_project_is_anothers(kind):
    for caller, owner in PAIRS:
        named = BY_NAME_ALONE | WRITTEN_BY_ROLES
        assert {pair for pair in let_through(caller, owner, kind) if pair[0] not in named} == set(), (caller, owner)


def test_the_trial_can_fail():
    """Without the conditions, or with names alone, the trial finds what it is for."""
    policy = KINDS["deployer"](scope_of("aaa"))
    bare = {"Statement": [{key: value for key, value in each.items() if key != "Condition"}
                          for each in policy["Statement"]]}  # fmt: skip
    thing = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/aaa-b-realtime"
    context = contexts("aaa-b", "aaa", is_tagged=True)[0]

    assert allowed(bare, "sagemaker:DeleteEndpoint", thing, **context)
    assert not allowed(policy, "sagemaker:DeleteEndpoint", thing, **context)


@pytest.mark.parametrize("kind", ["operator", "deployer", "registrar", "pipeline"])
def test_a_tag_is_given_only_with_the_call_that_creates(kind):
    policy = KINDS[kind](scope_of("aaa"))
    name = "model-package-group/aaa-x" if kind == "registrar" else "training-job/aaa-x"
    thing = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{name}"
    noun = "ModelPackageGroup" if kind == "registrar" else "TransformJob" if kind == "deployer" else "TrainingJob"
    asked = {"aws:RequestTag/project": "aaa"}

    assert allowed(policy, "sagemaker:AddTags", thing, **asked, **{"sagemaker:TaggingAction": f"Create{noun}"})
    for own in ({}, {"aws:ResourceTag/project": "aaa"}, {"aws:ResourceTag/project": "aaa-b"}):
        assert not allowed(policy, "sagemaker:AddTags", thing, **asked, **own)
    assert not any("DeleteTags" in action for each in policy["Statement"] for action in each["Action"])
