"""Host a model (`make deploy MODE=realtime|serverless|async|batch|multi-model`) and check that it predicts rightly.

Model and endpoint configuration are named after all that is in them, so a second start finds them and an endpoint with
another configuration is updated: blue/green, a part of the traffic first, and back by itself when an alarm rings. Then
autoscaling is set, and pictures of the job's test split must get the probabilities that the job wrote down. MODE=batch
makes only the model, for `make transform`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from sagemaker_monai_aws.client.asking import Asking
from sagemaker_monai_aws.client.endpoints import Endpoint
from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.command import Context, pair, say
from sagemaker_monai_aws.core.create import ensure
from sagemaker_monai_aws.core.errors import UnfinishedError
from sagemaker_monai_aws.core.places import place
from sagemaker_monai_aws.core.prices import cost_line, serverless_hourly
from sagemaker_monai_aws.hosting import scaling
from sagemaker_monai_aws.hosting.deployment_plan import Plan, make_plan, planned_calls, put_archive
from sagemaker_monai_aws.hosting.endpoint_life import find_endpoint, put_endpoint, settle
from sagemaker_monai_aws.hosting.hosting_requests import MODES, SERVERLESS_MB, VARIANT, models_folder
from sagemaker_monai_aws.hosting.smoke import fault_of, find_probes

NAME = "deploy"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a deployment."""
    add = parser.add_argument
    add("--mode", choices=MODES, default="realtime", help="(default: %(default)s)")
    add("--model", metavar="S3URI|JOB", help="model.tar.gz, a folder of an uncompressed artifact, or a training job "
        "(default: the project's newest that completed)")  # fmt: skip
    add("--endpoint", help="name, which begins with PROJECT- (default: PROJECT-MODE)")
    add("--target", metavar="NAME.tar.gz", help="multi-model: what the model is called (default: after its job)")
    add("--instance-type", default="ml.m5.large", help="(default: %(default)s)")
    add("--instance-count", type=int, default=1, help="to begin with (default: %(default)s)")
    add("--volume-gb", type=int, help="storage of each instance that has none of its own")
    add("--cuda", help="of the image, e.g. 12.4 (default: as the image in ECR says)")
    add("--inference-ami", help="of GPU instances (default: the one whose driver has the image's CUDA)")
    add("--memory-mb", type=int, choices=SERVERLESS_MB, default=6144, help="serverless (default: %(default)s)")
    add("--max-concurrency", type=int, default=4,
        help="serverless: requests at once; async: those of one instance (default: %(default)s)")  # fmt: skip
    add("--provisioned-concurrency", type=int, help="serverless: kept warm and paid for")
    add("--environment", nargs="*", default=[], type=pair, metavar="NAME=VALUE", help="of the container; no secrets")
    add("--allow-prefix", nargs="+", default=[], metavar="S3URI", help="s3://bucket/folder/ whose objects requests may "
        "name instead of holding them; the role needs leave to read them: `make iam KIND=hosting`")  # fmt: skip
    add("--capture", type=int, metavar="PERCENT", help="keep this share of requests and answers in S3 (default: none; "
        "they are patients' data)")  # fmt: skip
    add("--min-instances", type=int, help="autoscaling; async: 0 unless said otherwise")
    add("--max-instances", type=int, help="autoscaling")
    add("--scaling-target", type=float, help="load of an instance that is aimed at: requests a minute (default: 60); "
        "async: requests that wait (default: 5)")  # fmt: skip
    add("--update", choices=("canary", "all-at-once"), default="canary",
        help="how an endpoint's traffic moves (default: %(default)s)")  # fmt: skip
    add("--canary", type=int, default=10, help="percent of the instances that move first, at most 50 "
        "(default: %(default)s)")  # fmt: skip
    add("--bake-s", type=int, default=300, help="how long alarms are watched after each step (default: %(default)s)")
    add("--smoke", metavar="FILE[=CLASS]", help="image, or folder of a series, of the prediction at the end "
        "(default: of the test split)")  # fmt: skip
    add("--no-smoke", action="store_true", help="leave that prediction out")
    add("--smoke-wait-s", type=float, default=900.0,
        help="async: how long it is waited for (default: %(default)s)")  # fmt: skip
    follow.add_wait(parser)


def work(context: Context) -> int:
    """Create what is missing, wait, scale, predict."""
    account, options = context.account, context.options
    plan = make_plan(context)
    if options.dry_run:
        return command.show_plan(context, NAME, planned_calls(context, plan), costs(context))
    for line in costs(context):
        say(NAME, line)
    before = find_endpoint(context, plan) if plan.config else None
    model = plan.model.request["ModelName"]
    context.after_interrupt = f"{model} costs nothing so far: the same command continues"
    if plan.target:
        put_archive(context, plan)
    is_new = ensure(account, plan.model, "DescribeModel", ModelName=model)
    say(NAME, f"{'created' if is_new else 'found'} the model {model}")
    if plan.config is None:
        command.result({"ModelName": model, "transform": f"make transform MODEL={model}"})
        return 0
    ensure(account, plan.config, "DescribeEndpointConfig", EndpointConfigName=plan.config_name)
    former = put_endpoint(context, plan, before)
    if options.wait:
        settle(context, plan)
        if not options.no_smoke:
            predict(context, plan, former)
    else:
        say(NAME, f"not followed: the same command without --no-wait scales and checks {plan.endpoint}")
    command.result(summary(context, plan))
    return 0


def predict(context: Context, plan: Plan, former: str) -> None:
    """Send pictures whose answers are known.

    Args:
        context: of the command.
        plan: what is deployed.
        former: configuration before an update.

    Raises:
        UnfinishedError: an answer is wrong.
    """
    account, options = context.account, context.options
    models = models_folder(account, options, plan.endpoint) if plan.target else ""
    asking = Asking(
        account=account,
        endpoint=Endpoint(plan.endpoint, options.mode, models),
        accept="application/json",
        target=plan.target,
        inputs=place(account, options, "async", plan.endpoint, "input"),
        timeout_s=900,
        wait_s=options.smoke_wait_s,
        poll_s=min(2.0, options.poll_s),
        keep=False,
        kms_key=options.kms_key,
        parallel=1,
    )
    instance_type = options.instance_type if MODES[options.mode].has_instances else ""
    back = f"`aws sagemaker update-endpoint --endpoint-name {plan.endpoint} --endpoint-config-name {former}` goes back"
    with tempfile.TemporaryDirectory() as folder:
        for probe in find_probes(account, plan.trained, instance_type, options.smoke, Path(folder)):
            fault = fault_of(probe, asking.ask(probe.source))
            if fault:
                remedy = f"{back}, " if former else ""
                raise UnfinishedError(f"{plan.endpoint} answers {probe.source.shown} wrongly: {fault}. It stays and "
                                      f"costs: {remedy}`make delete ENDPOINT={plan.endpoint}` removes it")  # fmt: skip
            known = "as the job's evaluation did" if probe.numbers else "well-formed"
            say(NAME, f"{plan.endpoint} answers to {probe.source.shown} {known}")


def costs(context: Context) -> list[str]:
    """What it costs by the hour."""
    account, options = context.account, context.options
    if options.mode == "batch":
        return ["a model costs nothing; its jobs do"]
    if MODES[options.mode].has_instances:
        scale = scaling.range_of(options)
        line = cost_line(account.region, options.instance_type, options.instance_count)
        return [line + (f"; autoscaling from {scale.low} to {scale.high} instances" if scale else "")]
    price = serverless_hourly(account.region, options.memory_mb)
    known = f"{price:.3f} USD an hour" if price is not None else f"no price in the table for {account.region}"
    return [f"serverless, {options.memory_mb} MB: {known} while it computes, nothing between requests"
            + (f"; {options.provisioned_concurrency} kept warm cost by the hour" if options.provisioned_concurrency
               else "")]  # fmt: skip


def summary(context: Context, plan: Plan) -> dict[str, Any]:
    """What is printed at the end."""
    target = f" TARGET={plan.target}" if plan.target else ""
    return {
        "EndpointName": plan.endpoint,
        "VariantName": VARIANT,
        "ModelName": plan.model.request["ModelName"],
        "EndpointConfigName": plan.config_name,
        "artifact": plan.trained.artifact,
        "cost": costs(context)[0],
        "predict": f"make predict ENDPOINT={plan.endpoint}{target} IMAGE=picture.jpg",
        "delete": f"make delete ENDPOINT={plan.endpoint}",
    }
