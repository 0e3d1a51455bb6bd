"""How many instances an endpoint has, and the alarms that roll an update back, as plain requests.

Real-time and multi-model endpoints follow the requests of an instance and minute. An asynchronous one follows its queue
and can have no instance at all; then there is no queue of an instance to follow, and an alarm of its own brings the
first one back.

Sources: SageMaker Developer Guide, "Autoscale an asynchronous endpoint" (metrics, step policy from zero), "Amazon
SageMaker AI metrics in Amazon CloudWatch" (names, dimensions, units), "Update endpoints that use auto scaling" (the
target is deregistered before an update and registered after it).
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.names import tags
from sagemaker_monai_aws.hosting.hosting_requests import MODES, VARIANT, update_call

DIMENSION = "sagemaker:variant:DesiredInstanceCount"
TARGETS = {"realtime": 60.0, "multi-model": 60.0, "async": 5.0}  # requests a minute, or waiting, of one instance
COOLDOWN_S = {"ScaleInCooldown": 300, "ScaleOutCooldown": 60}
LATENCY_S = {"async": 900}  # that rings the alarm, else:
USUAL_LATENCY_S = 30
ERROR_SHARE = 0.05
UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"  # of a policy in a dry run


@dataclass(frozen=True)
class Range:
    """Fewest and most instances."""

    low: int
    high: int


def range_of(options: argparse.Namespace) -> Range | None:
    """Limits of the number of instances; None if it is fixed.

    Raises:
        CommandError: the range is empty, or the mode has none.
    """
    low, high = options.min_instances, options.max_instances
    if options.mode not in TARGETS:
        if low is not None or high is not None:
            raise CommandError(f"{options.mode} has no instances to scale: leave --min-instances and --max-instances "
                               "out")  # fmt: skip
        return None
    if options.mode != "async" and low is None and high is None:
        return None
    low = low if low is not None else 0 if options.mode == "async" else options.instance_count
    high = high if high is not None else max(low, options.instance_count)
    if low < (0 if options.mode == "async" else 1) or high < max(1, low):
        zero = "" if options.mode == "async" else "; only MODE=async scales to zero"
        raise CommandError(f"--min-instances {low} and --max-instances {high} are not a valid range of instances{zero}")
    return Range(low, high)


def resource(endpoint: str) -> dict[str, str]:
    """The scalable target of an endpoint, as requests name it."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": DIMENSION,
    }


def is_registered(account: Account, endpoint: str) -> bool:
    """Whether autoscaling knows the endpoint."""
    named = resource(endpoint)
    asked = {"ServiceNamespace": named["ServiceNamespace"], "ResourceIds": [named["ResourceId"]],
             "ScalableDimension": DIMENSION}  # fmt: skip
    return bool(account.pages("application-autoscaling", "DescribeScalableTargets", "ScalableTargets", **asked))


def deregister_call(endpoint: str) -> Call:
    """DeregisterScalableTarget, which deletes the policies too."""
    return Call("application-autoscaling", "DeregisterScalableTarget", resource(endpoint))


def register_calls(options: argparse.Namespace, endpoint: str, scale: Range, *, is_new: bool) -> list[Call]:
    """RegisterScalableTarget and the policy that follows the load.

    Args:
        options: of the command.
        endpoint: name.
        scale: fewest and most instances.
        is_new: whether the target is registered for the first time; only then it takes tags.
    """
    named = resource(endpoint)
    own = {each["Key"]: each["Value"] for each in tags(options.project, options.tags)}
    target = {**named, "MinCapacity": scale.low, "MaxCapacity": scale.high, **({"Tags": own} if is_new else {})}
    if options.mode == "async":
        metric: dict[str, Any] = {
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
                "Statistic": "Average",
            }
        }
    else:
        metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
    tracking = {"TargetValue": options.scaling_target or TARGETS[options.mode], **metric, **COOLDOWN_S}
    policy = {"PolicyName": f"{endpoint}-load", **named, "PolicyType": "TargetTrackingScaling",
              "TargetTrackingScalingPolicyConfiguration": tracking}  # fmt: skip
    return [
        Call("application-autoscaling", "RegisterScalableTarget", target),
        Call("application-autoscaling", "PutScalingPolicy", policy),
    ]


def from_zero_call(endpoint: str) -> Call:
    """The policy that adds an instance when there is none and something waits."""
    steps = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": 300,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    }
    return Call("application-autoscaling", "PutScalingPolicy",
                {"PolicyName": f"{endpoint}-from-zero", **resource(endpoint), "PolicyType": "StepScaling",
                 "StepScalingPolicyConfiguration": steps})  # fmt: skip


def backlog_alarm(options: argparse.Namespace, endpoint: str, policy_arn: str) -> Call:
    """The alarm that runs that policy."""
    return _alarm(options, f"{endpoint}-backlog", {
        "AlarmDescription": "Requests wait and there is no instance: adds one.",
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Average",
        "EvaluationPeriods": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [policy_arn],
    })  # fmt: skip


def rollback_alarms(options: argparse.Namespace, endpoint: str) -> list[Call]:
    """Alarms of errors of the server and of slow answers; no answers are no alarm."""
    latency_s = LATENCY_S.get(options.mode, USUAL_LATENCY_S)
    both = {
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": VARIANT}],
        "Statistic": "Average",
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    # One value a request, 1 for an error and else 0: the average is the share.
    errors = {"AlarmDescription": f"More than {ERROR_SHARE:.0%} of the requests end in an error of the server.",
              "MetricName": "Invocation5XXErrors", "Threshold": ERROR_SHARE}  # fmt: skip
    slow = {"AlarmDescription": f"The model takes more than {latency_s} s.",
            "MetricName": "ModelLatency", "Threshold": latency_s * 1e6}  # in microseconds  # fmt: skip
    return [_alarm(options, f"{endpoint}-5xx", {**both, **errors}),
            _alarm(options, f"{endpoint}-latency", {**both, **slow})]  # fmt: skip


def _alarm(options: argparse.Namespace, name: str, request: Mapping[str, Any]) -> Call:
    return Call("cloudwatch", "PutMetricAlarm", {"AlarmName": name, "Namespace": "AWS/SageMaker", "Period": 60,
                                                 **request, "Tags": tags(options.project, options.tags)})  # fmt: skip


def update_calls(account: Account, options: argparse.Namespace, endpoint: str, config: str) -> list[Call]:
    """Alarms, DeregisterScalableTarget where it is registered, and UpdateEndpoint.

    As many instances stay as autoscaling has made, unless that can be none, which a prediction would have to wake.
    """
    alarms = rollback_alarms(options, endpoint)
    names = [str(call.request["AlarmName"]) for call in alarms]
    was_scaled = MODES[options.mode].has_instances and is_registered(account, endpoint)
    scale = range_of(options)
    keep_count = was_scaled and scale is not None and scale.low > 0
    # AWS refuses to update instances that autoscaling has; they are registered again when the update is over.
    return [*alarms, *([deregister_call(endpoint)] if was_scaled else []),
            update_call(options, endpoint, config, names, keep_count=keep_count)]  # fmt: skip


def scale(account: Account, options: argparse.Namespace, endpoint: str) -> None:
    """Set the autoscaling of an endpoint in service to what the options say."""
    wanted = range_of(options)
    if not MODES[options.mode].has_instances:
        return
    was_registered = is_registered(account, endpoint)
    if wanted is None:
        if was_registered:
            account.send(deregister_call(endpoint))
        return
    for call in register_calls(options, endpoint, wanted, is_new=not was_registered):
        account.send(call)
    if wanted.low == 0:
        policy = account.send(from_zero_call(endpoint))
        account.send(backlog_alarm(options, endpoint, policy["PolicyARN"]))


def planned(account: Account, options: argparse.Namespace, endpoint: str) -> list[Call]:
    """The calls of `scale` for a dry run."""
    wanted = range_of(options)
    if wanted is None:
        return []
    calls = register_calls(options, endpoint, wanted, is_new=True)
    if wanted.low == 0:
        named = resource(endpoint)["ResourceId"]
        policy = f"arn:{account.partition}:autoscaling:{account.region}:{account.number}:scalingPolicy:{UNKNOWN_ID}"
        arn = f"{policy}:resource/sagemaker/{named}:policyName/{endpoint}-from-zero"
        calls += [from_zero_call(endpoint), backlog_alarm(options, endpoint, arn)]
    return calls
