"""Train on SageMaker (`make train`): one CreateTrainingJob, checked before it costs anything, followed to its end.

Before the job starts, hyperparameters are checked against the package's own table, data and image are looked up, and
the request is checked against the service's model. By default it runs on spot instances with checkpoints and without a
network. The same request finds the same job again, even from another terminal.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.tasks.metric_names import metric_definitions
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.calls import network_of, output_key, volume_key
from sagemaker_monai_aws.core.command import Context, pair, say
from sagemaker_monai_aws.core.create import Job, run_job
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.core.names import folder_uri, name_of, split_s3, tags
from sagemaker_monai_aws.core.places import contents, image_address, labels_of, place
from sagemaker_monai_aws.core.prices import cost_line
from sagemaker_monai_aws.core.trained import REPORT, read_output

NAME = "train"
INPUT_MODES = ("File", "FastFile")
CHECKPOINTS = "/opt/ml/checkpoints"
# Of metrics.json, those that are printed: a metrics.json has the ones of its task.
SCORES = tuple(dict.fromkeys(("accuracy", "balanced_accuracy", "auc", *(row.best_metric for row in TASKS.values()))))


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Options of a training job, which tuning and the pipeline have too."""
    add = parser.add_argument
    on_by_default: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": True}
    add("--data", nargs="+", default=[], metavar="[NAME=]S3URI",
        help="channels; without a name: training (default: PREFIX/data/training)")  # fmt: skip
    add("--hyperparameters", nargs="*", default=[], metavar="NAME=VALUE", help="as in `train --help`")
    add("--input-mode", choices=INPUT_MODES, default="File", help="how channels arrive (default: %(default)s)")
    add("--instance-type", default="ml.g4dn.xlarge", help="(default: %(default)s)")
    add("--instance-count", type=int, default=1, help="hosts (default: %(default)s)")
    add("--volume-gb", type=int, default=50, help="storage of each host (default: %(default)s)")
    add("--max-runtime-s", type=int, default=86_400,
        help="after this the job is stopped and ships its best epoch (default: %(default)s)")  # fmt: skip
    add("--spot", **on_by_default, help="use spot instances (default)")
    add("--max-wait-s", type=int, help="with spot: waiting and running together (default: twice --max-runtime-s)")
    add("--checkpoints", **on_by_default, help="keep checkpoints in S3 to resume from (default)")
    add("--warm-pool-s", type=int, default=0, help="keep instances this long for the next job, paid; needs --no-spot")
    add("--retries", type=int, default=2, help="restarts after an AWS fault, 0 to 30 (default: %(default)s)")
    add("--network-isolation", **on_by_default, help="no network in the container (default)")
    add("--output-compression", choices=("GZIP", "NONE"), default="GZIP",
        help="of the artifact in S3 (default: %(default)s)")  # fmt: skip
    add("--environment", nargs="*", default=[], type=pair, metavar="NAME=VALUE", help="of the container; no secrets")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_job_options(parser)
    add = parser.add_argument
    add("--again", action="store_true", help="start another job even if the same one has completed")
    add("--output", type=Path, default=Path("ml/jobs"), help="folder for the job's metrics.json (default: %(default)s)")
    follow.add_wait(parser)


def hyperparameters_of(given: list[str], further: Mapping[str, str] | None = None) -> dict[str, str]:
    """Hyperparameters as strings, checked against the table of `train --help`.

    Args:
        given: NAME=VALUE, NAME=VALUE ...
        further: values that are only checked with them, as a tuning job's.

    Raises:
        CommandError: with all faults.
    """
    values: dict[str, str] = {}
    for word in given:
        try:
            name, value = pair(word)
        except argparse.ArgumentTypeError as error:
            raise CommandError(f"--hyperparameters {error}") from error
        name = name.replace("-", "_")
        if name in values:
            raise CommandError(f"the hyperparameter {name} is given twice: leave one out")
        values[name] = value
    if "sagemaker_program" not in values:  # a user's script has its own hyperparameters
        try:
            TrainConfig.parse({**values, **(further or {})})
        except ConfigError as error:
            raise CommandError(str(error)) from error
    return values


def channels_of(context: Context) -> dict[str, str]:
    """Name and address of each channel."""
    account, options = context.account, context.options
    channels: dict[str, str] = {}
    for word in options.data or [place(account, options, "data", "training")]:
        name, equals, uri = word.partition("=")
        name, uri = (name, uri) if equals and not name.startswith("s3:") else ("training", word)
        if name in channels:
            raise CommandError(f"the channel {name!r} is given twice: leave one out")
        split_s3(uri)
        channels[name] = folder_uri(uri)
    return channels


def training_request(
    context: Context, channels: Mapping[str, str], hyperparameters: Mapping[str, str], image: str
) -> dict[str, Any]:
    """CreateTrainingJob without its name, tags and checkpoints, which depend on the name."""
    account, options = context.account, context.options
    if options.spot and options.warm_pool_s:
        raise CommandError("spot instances have no warm pool: add --no-spot, or leave --warm-pool-s out")
    if options.spot and not options.checkpoints:
        raise CommandError(
            "a spot interruption without checkpoints loses everything: leave --no-checkpoints out, or add --no-spot"
        )
    hours, most = float(hyperparameters.get("hours", "0").strip('" ')), options.max_runtime_s / 3600
    if "sagemaker_program" not in hyperparameters and hours > most:
        raise CommandError(f"hours={hours:g} is more than --max-runtime-s allows, {most:.3g} hours: raise that")
    keep = {"KeepAlivePeriodInSeconds": options.warm_pool_s} if options.warm_pool_s else {}
    wait = {"MaxWaitTimeInSeconds": options.max_wait_s or 2 * options.max_runtime_s} if options.spot else {}
    return {
        "HyperParameters": dict(hyperparameters),
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": options.input_mode,
            "MetricDefinitions": metric_definitions(*labels_of(account, channels.values())),
            "EnableSageMakerMetricsTimeSeries": True,
        },
        "RoleArn": account.role(options.role, options.project, "training"),
        "InputDataConfig": [
            {
                "ChannelName": name,
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": uri,
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
                "InputMode": options.input_mode,
            }
            for name, uri in channels.items()
        ],
        "OutputDataConfig": {
            "S3OutputPath": place(account, options, "jobs"),
            "CompressionType": options.output_compression,
            **output_key(options),
        },
        "ResourceConfig": {
            "InstanceType": options.instance_type,
            "InstanceCount": options.instance_count,
            "VolumeSizeInGB": options.volume_gb,
            **volume_key(options, options.instance_type),
            **keep,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": options.max_runtime_s, **wait},
        "EnableNetworkIsolation": options.network_isolation,
        "EnableInterContainerTrafficEncryption": options.instance_count > 1,
        "EnableManagedSpotTraining": options.spot,
        "Environment": dict(options.environment),
        **({"RetryStrategy": {"MaximumRetryAttempts": options.retries}} if options.retries else {}),
        **network_of(options),
    }


def with_name(context: Context, request: Mapping[str, Any], digested: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The whole request: name, tags, and checkpoints, which all attempts at one request share."""
    account, options = context.account, context.options
    whole = {"TrainingJobName": name, **request, "Tags": tags(options.project, options.tags)}
    if options.checkpoints:
        base = name_of(options.project, NAME, digested)
        whole["CheckpointConfig"] = {"S3Uri": place(account, options, "checkpoints", base), "LocalPath": CHECKPOINTS}
    return whole


def work(context: Context) -> int:
    """Start the job, follow it, fetch its metrics."""
    account, options = context.account, context.options
    hyperparameters = hyperparameters_of(options.hyperparameters)
    channels = channels_of(context)
    image = image_address(account, options)
    request = training_request(context, channels, hyperparameters, image)
    # Other data at the same address are another job.
    digested = {"request": request, "data": {name: contents(account, uri).digest for name, uri in channels.items()}}
    job = Job(NAME, "training", NAME, lambda name: with_name(context, request, digested, name), digested,
              costs(context))  # fmt: skip
    return run_job(context, job, lambda name: finish(context, name))


def costs(context: Context) -> list[str]:
    """What the job costs by the hour, and at most."""
    account, options = context.account, context.options
    line = cost_line(account.region, options.instance_type, options.instance_count)
    spot = "; spot instances cost less, the saving is printed at the end" if options.spot else ""
    return [line + spot, f"the job is stopped after {options.max_runtime_s / 3600:.1f} hours at the latest"]


def finish(context: Context, name: str) -> int:
    """Follow a training job and print its result; 0 if it completed."""
    account, options = context.account, context.options
    found = follow.follow(context, NAME, "training", name)
    say(NAME, follow.billed(found, account.region))
    status = found["TrainingJobStatus"]
    artifact = found.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if status != "Completed" and not (status == "Stopped" and artifact):
        reason = found.get("FailureReason", "AWS gives no reason")
        resumed = ", from its last checkpoint" if options.checkpoints else ""
        raise UnfinishedError(f"{name} {status.lower()}: {reason}; the same command starts it again{resumed}")
    answer: dict[str, Any] = {"TrainingJobName": name, "S3ModelArtifacts": artifact}
    text = read_output(account, found, REPORT)
    if text is not None:
        answer["metrics"] = keep_report(text, options.output / name, ("split", *SCORES))
    command.result(answer)
    return 0


def keep_report(text: bytes, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Write a job's metrics.json into a folder of this machine; those of its scores that a command prints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_bytes(text)
    say(NAME, f"the full report is {folder / REPORT}")
    metrics = json.loads(text)
    return {name: metrics[name] for name in names if name in metrics}
