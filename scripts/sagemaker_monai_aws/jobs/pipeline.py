"""A SageMaker pipeline (`make pipeline`): prepare, train, evaluate, and register what is good enough.

The requests in its steps are those of the other commands. What may differ from one execution to the next is a
parameter: data, machines, hyperparameters, and the score from which a model is registered; what is worse ends the
execution as failed. `--print` prints the definition; nothing runs without `--start`.
What is defined stands in pipeline_definition.py.
"""

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import Context, pair, say
from sagemaker_monai_aws.core.create import UNSUCCESSFUL, require_ours
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.core.names import digest, tags
from sagemaker_monai_aws.core.places import contents
from sagemaker_monai_aws.core.prices import cost_line
from sagemaker_monai_aws.hosting import register
from sagemaker_monai_aws.jobs import launch_training, process
from sagemaker_monai_aws.jobs.launch_training import hyperparameters_of
from sagemaker_monai_aws.jobs.pipeline_definition import define

NAME = "pipeline"
ATTEMPTS = 50


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--source", metavar="S3URI", help="a download to prepare first (default: data that is ready)")
    add("--source-kind", default="ham10000", help="what the download is (default: %(default)s)")
    add("--task", choices=TASKS, help="of the data (default: as dataset.json says)")
    add("--register-if", type=pair, metavar="SCORE=NUMBER", help="score of the evaluation, and from "
        "which number, or up to which of loss, mae and rmse, a model is registered")  # fmt: skip
    add("--min-balanced-accuracy", type=float, metavar="SHARE",
        help="the same of balanced_accuracy (default for classification: 0.5)")  # fmt: skip
    add("--pipeline-role", help="role of the pipeline, name or ARN (default: the one of `make infra`)")
    add("--print", action="store_true", dest="is_printed", help="print the definition, change nothing")
    add("--start", action="store_true", help="start an execution and follow it")
    add("--parameters", nargs="*", default=[], type=pair, metavar="NAME=VALUE",
        help="of the execution, in place of the pipeline's defaults")  # fmt: skip
    add("--again", action="store_true", help="start another execution although the same has succeeded")
    launch_training.add_job_options(parser)
    process.add_machine_options(parser)
    register.add_package_options(parser)
    follow.add_wait(parser)


def work(context: Context) -> int:
    """Create or update the pipeline and, if asked, run it."""
    account, options = context.account, context.options
    definition = define(context)
    if options.is_printed:
        command.result(definition)
        return 0
    request = {
        "PipelineName": options.project,
        "PipelineDefinition": json.dumps(definition),
        "RoleArn": account.role(options.pipeline_role, options.project, "pipeline"),
    }
    create = Call("sagemaker", "CreatePipeline", {
        **request, "ClientRequestToken": digest(request, 64), "Tags": tags(options.project, options.tags),
    })  # fmt: skip
    start = start_request(context, definition)
    check(create)
    if options.dry_run:
        calls = [register.group_call(options), create]
        if options.start:
            calls.append(Call("sagemaker", "StartPipelineExecution", execution_request(options.project, start, 1)))
        return command.show_plan(context, NAME, calls, costs(context))
    register.ensure_group(context)
    context.after_interrupt = "the model package group exists; the same command continues"
    write(context, create, request)
    if not options.start:
        command.result({"PipelineName": options.project})
        say(NAME, "nothing is running yet: OPTIONS=--start starts an execution")
        return 0
    for line in costs(context):
        say(NAME, line)
    arn = begin(context, start)
    if not options.wait:
        print(arn)
        return 0
    return finish(context, arn)


def costs(context: Context) -> list[str]:
    """What an execution costs by the hour."""
    region, options = context.account.region, context.options
    return [f"training: {cost_line(region, options.instance_type, options.instance_count)}",
            f"preparing and evaluating: {cost_line(region, options.processing_instance_type)}"]  # fmt: skip


def write(context: Context, create: Call, request: Mapping[str, Any]) -> None:
    """Create the pipeline, or update it if it differs.

    Raises:
        CommandError: a pipeline of that name was not made by these commands.
    """
    account, project = context.account, context.options.project
    found = account.read("sagemaker", "DescribePipeline", PipelineName=project)
    if found is None:
        account.send(create)
        say(NAME, f"created {project}")
        return
    require_ours(account, found["PipelineArn"], project, force=False)
    same = json.loads(found["PipelineDefinition"]) == json.loads(request["PipelineDefinition"])
    if same and found["RoleArn"] == request["RoleArn"]:
        say(NAME, f"{project} is up to date")
        return
    account.send(Call("sagemaker", "UpdatePipeline", request))
    say(NAME, f"updated {project}")


def start_request(context: Context, definition: Mapping[str, Any]) -> dict[str, Any]:
    """What tells executions apart: definition, parameters, and what lies at the data's address.

    Raises:
        CommandError: a parameter that the pipeline does not have, a hyperparameter out of range, or no data.
    """
    options = context.options
    known = {entry["Name"]: entry["DefaultValue"] for entry in definition["Parameters"]}
    given = dict(options.parameters)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise CommandError(f"the pipeline has no parameter {unknown[0]!r}, it has {', '.join(known)}")
    values = {**known, **given}
    hyperparameters_of([f"{name}={values[name]}" for name in hyperparameters_of(options.hyperparameters)])
    address = values["SourceUri" if options.source else "DataUri"]
    found = contents(context.account, address).digest if options.start else ""
    parameters = [{"Name": name, "Value": value} for name, value in given.items()]
    return {"parameters": parameters, "digest": digest([definition, values, found], 16)}


def execution_request(project: str, start: Mapping[str, Any], attempt: int) -> dict[str, Any]:
    """StartPipelineExecution; the token keeps AWS from starting the same twice."""
    name = f"{project}-{start['digest']}-{attempt}"
    return {"PipelineName": project, "PipelineExecutionDisplayName": name, "ClientRequestToken": digest(name, 64),
            "PipelineParameters": start["parameters"]}  # fmt: skip


def begin(context: Context, start: Mapping[str, Any]) -> str:
    """Start an execution, or find the one that was started with the same request; its ARN."""
    account, options = context.account, context.options
    listed = account.pages("sagemaker", "ListPipelineExecutions", "PipelineExecutionSummaries",
                           PipelineName=options.project)  # fmt: skip
    known = {entry.get("PipelineExecutionDisplayName"): entry for entry in listed}
    for attempt in range(1, ATTEMPTS):
        request = execution_request(options.project, start, attempt)
        found = known.get(request["PipelineExecutionDisplayName"])
        if found is None:
            context.after_interrupt = "an execution may have started: run the same command again to find it"
            arn = str(account.send(Call("sagemaker", "StartPipelineExecution", request))["PipelineExecutionArn"])
            say(NAME, f"started {arn}")
            return arn
        status = found["PipelineExecutionStatus"]
        if status not in UNSUCCESSFUL and not (options.again and status == "Succeeded"):
            say(NAME, f"found {found['PipelineExecutionArn']} ({status}): it was started with the same request")
            return str(found["PipelineExecutionArn"])
    raise CommandError(f"{ATTEMPTS - 1} executions of this have failed: see `make logs`, then change the request")


def steps_of(account: Any, arn: str) -> dict[str, tuple[str, str]]:
    """Status and reason of a failure of each step that has begun."""
    found = account.pages("sagemaker", "ListPipelineExecutionSteps", "PipelineExecutionSteps",
                          PipelineExecutionArn=arn, SortOrder="Ascending")  # fmt: skip
    return {step["StepName"]: (step["StepStatus"], step.get("FailureReason", "")) for step in found}


def finish(context: Context, arn: str) -> int:
    """Follow an execution to its end, each step of it; 0 if it succeeded."""
    context.after_interrupt = f"{arn} continues and costs money: the same command follows it"
    row = follow.KINDS["execution"]
    seen: dict[str, str] = {}
    while True:
        status = (follow.describe(context.account, "execution", arn) or {}).get(row.status, "Unknown")
        steps = steps_of(context.account, arn)
        for name, (state, reason) in steps.items():
            if seen.get(name) != state:
                say(NAME, f"{name}: {state}" + (f": {reason}" if reason else ""))
                seen[name] = state
        if status in row.ended:
            break
        time.sleep(context.options.poll_s)
    if status != "Succeeded":
        reasons = [f"{name}: {reason}" for name, (_, reason) in steps.items() if reason]
        raise UnfinishedError(f"the execution {status.lower()}: {'; '.join(reasons) or 'AWS gives no reason'}; the "
                              "same command starts it again")  # fmt: skip
    command.result({"PipelineExecutionArn": arn, "PipelineExecutionStatus": status})
    return 0
