"""Create or update what the commands need in an account (`make infra`), as one CloudFormation stack.

A second start finds the first: the stack is compared with what is wanted, and no difference is success. Every change
is printed before it is made. Settings that are not given keep what the stack has, so that nobody takes away the key by
forgetting to name it; `none` takes it away. The template is in stack_template.py.
"""

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.command import Context, result, say, show_plan
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError, code_of
from sagemaker_monai_aws.core.names import digest, tags
from sagemaker_monai_aws.core.settings import COMMON
from sagemaker_monai_aws.infrastructure import iam
from sagemaker_monai_aws.infrastructure.push import HOW_TO_FIND_A_DIGEST, has_digest
from sagemaker_monai_aws.infrastructure.stack_template import as_yaml, template, with_names

NAME = "infra"
NONE = "none"
POLL_S = 5.0
COSTS = (
    "costs nothing by the hour: roles, policies and the stack are free",
    "S3 and ECR cost by what lies in them, CloudWatch by what is logged, CodeBuild while it builds, a KMS key by the "
    "month",
)
NO_CHANGE = ("didn't contain changes", "No updates are to be performed")
# Status of a stack that cannot be updated -> what to do.
STUCK = {
    "ROLLBACK_COMPLETE": "its creation failed; `aws cloudformation delete-stack --stack-name {stack}` removes what is "
    "left (buckets and repositories with something in them stay), then run this again",
    "UPDATE_ROLLBACK_FAILED": "`aws cloudformation continue-update-rollback --stack-name {stack}`, then run this again",
}
STUCK |= dict.fromkeys(("CREATE_FAILED", "ROLLBACK_FAILED", "DELETE_FAILED"), STUCK["ROLLBACK_COMPLETE"])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.add_argument("--source", help=f"what CodeBuild builds: {iam.HTTPS_OR_S3}; {NONE}: no build")
    parser.add_argument("--base-image", help="of the build, NAME@sha256:...; it pushes nothing that is built on a tag")
    parser.add_argument("--print", action="store_true", help="print the template, ask AWS nothing")


def work(context: Context) -> int:
    """Create or update the stack, or print what would be done."""
    if context.options.print:
        print(as_yaml(template()), end="")
        return 0
    stack = f"{context.options.project}-infrastructure"
    account = context.account
    there = describe(account, stack) if account.is_known else None
    if there is None:
        check_new_project(context.options.project)
    if there is not None and not account.is_dry_run:
        there = settle(context, stack)
    request = change_set(context, stack, there)
    if account.is_dry_run:
        execute = {name: request[name] for name in ("StackName", "ChangeSetName")}
        planned = {"CreateChangeSet": request, "ExecuteChangeSet": execute}
        calls = [Call("cloudformation", operation, each) for operation, each in planned.items()]
        return show_plan(context, NAME, calls, COSTS)
    context.after_interrupt = f"the stack {stack} may be incomplete: run the same command again, it goes on"
    if prepare(account, request):
        say(NAME, f"the stack {stack} is up to date, nothing was changed")
    else:
        carry_out(account, stack, request["ChangeSetName"])
    result(
        {item["OutputKey"]: item["OutputValue"] for item in describe(account, stack, is_needed=True).get("Outputs", [])}
    )
    return 0


def check_new_project(project: str) -> None:
    """Refuse a name with which another project's can begin, or that can begin as another's.

    Names are PROJECT-..., and what AWS knows no tags of (logs, autoscaling's alarms) is known by them alone. The name
    that is the default stays; a stack that is there keeps its name.

    Raises:
        CommandError: it has a dash, or is what the default begins with.
    """
    default = str(COMMON["PROJECT"].default)
    if project != default and ("-" in project or default.startswith(f"{project}-")):
        other = project.replace("-", "") if "-" in project else f"{project}1"
        raise CommandError(
            f"a new project has no dash in its name, and is not {default.partition('-')[0]!r}: the logs of a project "
            f"`a-b` are called as those of a project `a` are, so that its policies reach them; take PROJECT={other}"
        )


def describe(account: Account, stack: str, *, is_needed: bool = False) -> Any:
    """AWS's description of the stack; None if there is none, or only the intention of one."""
    found = find(account, "DescribeStacks", StackName=stack)
    if found is None or found["Stacks"][0]["StackStatus"] in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE"):
        assert not is_needed
        return None
    return found["Stacks"][0]


def find(account: Account, operation: str, **request: str) -> Any:
    """CloudFormation's answer; None if it does not exist."""
    try:
        return account.read("cloudformation", operation, **request)
    except ClientError as error:
        # CloudFormation uses the code of a general validation error.
        if code_of(error) == "ChangeSetNotFound" or "does not exist" in str(error):
            return None
        raise


def settle(context: Context, stack: str) -> Any:
    """Wait until nobody changes the stack, who may be this command's former start; its description then.

    Raises:
        CommandError: it is in a state in which it cannot be updated.
    """
    there = describe(context.account, stack)
    if there is not None and there["StackStatus"].endswith("_IN_PROGRESS"):
        say(NAME, f"the stack {stack} is being changed ({there['StackStatus']}): waiting for it")
        there = wait(context.account, stack)
    status = there["StackStatus"] if there is not None else ""
    if status in STUCK:
        reason = first_failure(context.account, stack, "")
        raise CommandError(f"the stack {stack} is {status}{reason}: {STUCK[status].format(stack=stack)}")
    return there


def change_set(context: Context, stack: str, there: Any) -> dict[str, Any]:
    """The request that compares the stack with what is wanted.

    Args:
        context: of the command.
        stack: its name.
        there: AWS's description of it, None if there is none.
    """
    options, account = context.options, context.account
    old = {item["ParameterKey"]: item["ParameterValue"] for item in there["Parameters"]} if there else {}
    new = parameters(account, options, old)
    names = {
        "Bucket": new["BucketName"],
        "Repository": new["RepositoryName"],
        "BuildLog": f"/aws/codebuild/{options.project}-build",
    }
    body = json.dumps(with_names(template(), names), separators=(",", ":"))
    request = {
        "StackName": stack,
        "ChangeSetType": "UPDATE" if there else "CREATE",
        "TemplateBody": body,
        "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in new.items()],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Tags": tags(options.project, options.tags),
        "ImportExistingResources": True,
    }
    return request | {"ChangeSetName": f"{NAME}-{digest(request)}"}


def parameters(account: Account, options: argparse.Namespace, old: Mapping[str, str]) -> dict[str, str]:
    """The stack's parameters: what was asked for, else what it has, else the default."""
    chosen = argparse.Namespace(
        **vars(options)
        | {"account": None}
        | {name: None if getattr(options, name) == NONE else getattr(options, name) for name in ("kms_key", "source")}
        | {"subnets": [name for name in options.subnets if name != NONE]}
    )
    scope = iam.scope_of(account, chosen)
    kind, location = iam.split_source(chosen.source) if chosen.source else ("NONE", NONE)
    asked = {
        "Project": (True, scope.project),
        "BucketName": (options.bucket, scope.bucket),
        "Prefix": (True, scope.prefix),
        "RepositoryName": (options.repository, scope.repository),
        "KmsKeyArn": (options.kms_key, scope.kms_key or ""),
        "SubnetArns": (options.subnets, ",".join(scope.subnets)),
        "SecurityGroupArns": (options.subnets, ",".join(scope.security_groups if scope.subnets else ())),
        "SourceType": (options.source, kind),
        "SourceLocation": (options.source, location),
        "BaseImage": (options.base_image, options.base_image or ""),
    }
    if options.base_image and not has_digest(options.base_image):
        raise CommandError(f"--base-image is NAME@sha256:... with 64 digits, got {options.base_image!r}: "
                           f"{HOW_TO_FIND_A_DIGEST}")  # fmt: skip
    if scope.subnets and not scope.security_groups:
        raise CommandError("subnets need security groups: give SECURITY_GROUPS= too")
    return {name: value if is_given else old.get(name, value) for name, (is_given, value) in asked.items()}


def prepare(account: Account, request: Mapping[str, Any]) -> bool:
    """Compare, and print what will be changed; whether there is nothing.

    The comparison of a start that was killed is taken up, if it was of the same request and still holds.

    Raises:
        CommandError: CloudFormation refuses the comparison.
    """
    place = {"StackName": request["StackName"], "ChangeSetName": request["ChangeSetName"]}
    found = find(account, "DescribeChangeSet", **place)
    if found is None or found.get("ExecutionStatus") != "AVAILABLE":
        if found is not None:
            account.send(Call("cloudformation", "DeleteChangeSet", place))
        found = compare(account, request)
    if found["Status"] == "FAILED":
        if find(account, "DescribeChangeSet", **place) is not None:
            account.send(Call("cloudformation", "DeleteChangeSet", place))
        reason = found.get("StatusReason", "no reason given")
        if any(text in reason for text in NO_CHANGE):
            return True
        raise CommandError(f"CloudFormation refuses the change: {' '.join(reason.split())}")
    changes = account.pages("cloudformation", "DescribeChangeSet", "Changes", **place)
    for change in (entry["ResourceChange"] for entry in changes):
        replaced = " (replaced; what it holds is kept)" if change.get("Replacement") == "True" else ""
        say(NAME, f"{change['Action'].lower()} {change['LogicalResourceId']}, {change['ResourceType']}{replaced}")
    return not changes


def compare(account: Account, request: Mapping[str, Any]) -> dict[str, Any]:
    """Let CloudFormation compare; its answer."""
    place = {"StackName": request["StackName"], "ChangeSetName": request["ChangeSetName"]}
    try:
        account.send(Call("cloudformation", "CreateChangeSet", request))
    except ClientError as error:
        if any(text in str(error) for text in NO_CHANGE):
            return {"Status": "FAILED", "StatusReason": str(error)}
        raise
    while True:
        found: dict[str, Any] = account.client("cloudformation").describe_change_set(**place)
        if found["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            return found
        time.sleep(POLL_S)


def carry_out(account: Account, stack: str, name: str) -> None:
    """Make the changes and wait for the end.

    Raises:
        UnfinishedError: something could not be made, and everything was taken back.
    """
    newest = next((event["EventId"] for event in events(account, stack)), "")
    account.send(Call("cloudformation", "ExecuteChangeSet", {"StackName": stack, "ChangeSetName": name}))
    status = wait(account, stack)["StackStatus"]
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"):
        remedy = STUCK[status].format(stack=stack) if status in STUCK else "everything is as it was before"
        raise UnfinishedError(f"the stack {stack} is {status}{first_failure(account, stack, newest)}: {remedy}")
    say(NAME, f"the stack {stack} is complete")


def wait(account: Account, stack: str) -> Any:
    """Follow the stack until nothing moves; its description then."""
    said = ""
    while True:
        found = account.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            return found
        if found["StackStatus"] != said:
            said = found["StackStatus"]
            say(NAME, f"{stack}: {said}")
        time.sleep(POLL_S)


def events(account: Account, stack: str) -> list[Any]:
    """What has happened to the stack, the newest first."""
    return account.pages("cloudformation", "DescribeStackEvents", "StackEvents", StackName=stack)


def first_failure(account: Account, stack: str, newest: str) -> str:
    """The cause of a failure: the first that failed by itself; what failed after it was cancelled because of it.

    Args:
        account: where.
        stack: its name.
        newest: the id of the last event before, so that former failures are not told again.
    """
    happened: list[Any] = []
    for event in events(account, stack):
        if event["EventId"] == newest:
            break
        happened.insert(0, event)
    for event in happened:
        reason = " ".join(event.get("ResourceStatusReason", "").split())
        if event.get("ResourceStatus", "").endswith("_FAILED") and "cancelled" not in reason:
            return f" because of {event['LogicalResourceId']} ({event['ResourceType']}): {reason.rstrip('.')}"
    return ""
