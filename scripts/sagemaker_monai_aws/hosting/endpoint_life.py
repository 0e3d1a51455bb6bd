"""An endpoint's life: creation, updates, roll-backs, and its log when it fails."""

import time
from collections.abc import Mapping
from typing import Any

from sagemaker_monai_aws.core import follow
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.create import ensure, require_ours
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.hosting import scaling
from sagemaker_monai_aws.hosting.deployment_plan import Plan
from sagemaker_monai_aws.hosting.hosting_requests import endpoint_call

NAME = "deploy"
LAST_LINES = 20  # of an endpoint's log, where it failed
STARTING = ("Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting")


def find_endpoint(context: Context, plan: Plan) -> Mapping[str, Any] | None:
    """The endpoint once it has settled; None if it does not exist.

    Raises:
        CommandError: it is not ours, has failed, or is of another kind.
    """
    account, options = context.account, context.options
    found = follow.describe(account, "endpoint", plan.endpoint)
    if found is None:
        return None
    require_ours(account, found["EndpointArn"], options.project, force=False)
    if found["EndpointStatus"] in STARTING and options.wait:
        found = wait_until_settled(context, plan.endpoint)
    is_other = found["EndpointConfigName"] != plan.config_name
    if found["EndpointStatus"] in STARTING and is_other:
        raise CommandError(f"{plan.endpoint} is {found['EndpointStatus']}: wait for it, or leave --no-wait out")
    if found["EndpointStatus"] not in ("InService", *STARTING):
        reason = found.get("FailureReason", "AWS gives no reason")
        raise CommandError(f"{plan.endpoint} is {found['EndpointStatus']} ({reason}) and cannot be updated: `make "
                           f"delete ENDPOINT={plan.endpoint}`, then the same command again")  # fmt: skip
    if is_other:
        config = account.read("sagemaker", "DescribeEndpointConfig", EndpointConfigName=found["EndpointConfigName"])
        assert plan.config is not None
        if config is not None and _kind(config) != _kind(plan.config.request):
            raise CommandError(f"{plan.endpoint} is {_kind(config)} and cannot become {_kind(plan.config.request)}: "
                               "name another with --endpoint")  # fmt: skip
    return found


def _kind(config: Mapping[str, Any]) -> str:
    if config.get("AsyncInferenceConfig"):
        return "asynchronous"
    return "serverless" if config["ProductionVariants"][0].get("ServerlessConfig") else "synchronous"


def put_endpoint(context: Context, plan: Plan, before: Mapping[str, Any] | None) -> str:
    """Create or update the endpoint; the configuration that it had before, empty where it is not changed."""
    account, options = context.account, context.options
    context.after_interrupt = (
        f"{plan.endpoint} continues and costs money: the same command finds it, "
        f"`make delete ENDPOINT={plan.endpoint}` removes it"
    )
    if before is None:
        is_new = ensure(account, endpoint_call(options, plan.endpoint, plan.config_name), "DescribeEndpoint",
                        EndpointName=plan.endpoint)  # fmt: skip
        say(NAME, f"{'created' if is_new else 'found'} the endpoint {plan.endpoint}")
        return ""
    former = str(before["EndpointConfigName"])
    if former == plan.config_name:
        say(NAME, f"the endpoint {plan.endpoint} is up to date")
        return ""
    for call in scaling.update_calls(account, options, plan.endpoint, plan.config_name):
        account.send(call)
    say(NAME, f"{plan.endpoint} changes from {former} to {plan.config_name}")
    return former


def wait_until_settled(context: Context, endpoint: str) -> dict[str, Any]:
    """Wait until the endpoint has settled; AWS's description."""
    last, began = "", time.monotonic()
    while True:
        found = follow.describe(context.account, "endpoint", endpoint) or {"EndpointStatus": "deleted"}
        if found["EndpointStatus"] != last:
            last = found["EndpointStatus"]
            say(NAME, f"{endpoint}: {last} ({time.monotonic() - began:.0f} s)")
        if last not in STARTING:
            return found
        time.sleep(context.options.poll_s)


def settle(context: Context, plan: Plan) -> None:
    """Wait until the endpoint is in service with its configuration, then set autoscaling.

    Raises:
        UnfinishedError: it failed, or was rolled back.
    """
    found = wait_until_settled(context, plan.endpoint)
    reason = found.get("FailureReason", "AWS gives no reason")
    if found["EndpointStatus"] != "InService":
        for line in log_tail(context, plan.endpoint):
            say(NAME, f"log: {line}")
        raise UnfinishedError(f"{plan.endpoint} is {found['EndpointStatus']}: {reason}; `make delete "
                              f"ENDPOINT={plan.endpoint}`, then start again")  # fmt: skip
    scaling.scale(context.account, context.options, plan.endpoint)
    if found["EndpointConfigName"] != plan.config_name:
        for line in log_tail(context, plan.endpoint):
            say(NAME, f"log: {line}")
        raise UnfinishedError(f"{plan.endpoint} was rolled back to {found['EndpointConfigName']}, which serves as "
                              f"before: {reason}")  # fmt: skip


def log_tail(context: Context, endpoint: str) -> list[str]:
    """The last lines of the endpoint's newest log; none if there is no log."""
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    streams = context.account.read("logs", "DescribeLogStreams", logGroupName=group, orderBy="LastEventTime",
                                   descending=True, limit=1)  # fmt: skip
    if not streams or not streams["logStreams"]:
        return []
    events = context.account.read("logs", "GetLogEvents", logGroupName=group, limit=LAST_LINES,
                                  logStreamName=streams["logStreams"][0]["logStreamName"])  # fmt: skip
    return [each["message"].rstrip() for each in (events or {"events": []})["events"]]
