"""Train on SageMaker (`make train`): one CreateTrainingJob, checked before it costs anything, followed to its end.

Hyperparameters are checked against the package's own table, data and image are looked up, and the request against the
service's model; only then the job is started. It runs on spot instances with checkpoints, without a network, unless one
says otherwise. The same request finds the same job, whatever became of the terminal that started it.
"""

import argparse
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.tasks.metric_names import metric_definitions
from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.command import Context, pair, say
from sagemaker_monai_aws.core.create import create_job
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.core.instances import has_own_disks
from sagemaker_monai_aws.core.names import folder_uri, name_of, split_s3, tags
from sagemaker_monai_aws.core.places import contents, image_address, labels_of, place, read_object
from sagemaker_monai_aws.core.prices import cost_line

NAME = "train"
INPUT_MODES = ("File", "FastFile")
CHECKPOINTS = "/opt/ml/checkpoints"
REPORT = "metrics.json"
MOST_REPORT_BYTES = 64 * 1024 * 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a training job, which tuning and the pipeline have too."""
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="[NAME=]S3URI",
        help="channels; without a name: training (default: PREFIX/data/training)",
    )
    parser.add_argument("--hyperparameters", nargs="*", default=[], metavar="NAME=VALUE", help="as in `train --help`")
    parser.add_argument(
        "--input-mode", choices=INPUT_MODES, default="File", help="how channels arrive (default: %(default)s)"
    )
    parser.add_argument("--instance-type", default="ml.g4dn.xlarge", help="(default: %(default)s)")
    parser.add_argument("--instance-count", type=int, default=1, help="hosts (default: %(default)s)")
    parser.add_argument("--volume-gb", type=int, default=50, help="storage of each host (default: %(default)s)")
    parser.add_argument(
        "--max-runtime-s",
        type=int,
        default=86_400,
        help="then the job is stopped and ships its best epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--spot", action=argparse.BooleanOptionalAction, default=True, help="on spot instances (default)"
    )
    parser.add_argument(
        "--max-wait-s", type=int, help="with spot: for waiting and running together (default: twice --max-runtime-s)"
    )
    parser.add_argument(
        "--checkpoints", action=argparse.BooleanOptionalAction, default=True, help="in S3, to go on from (default)"
    )
    parser.add_argument(
        "--warm-pool-s", type=int, default=0, help="keep the instances so long for the next job, paid; needs --no-spot"
    )
    parser.add_argument(
        "--retries", type=int, default=2, help="new starts after a fault of AWS's, 0 to 30 (default: %(default)s)"
    )
    parser.add_argument(
        "--network-isolation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="no network in the container (default)",
    )
    parser.add_argument(
        "--output-compression",
        choices=("GZIP", "NONE"),
        default="GZIP",
        help="of the artifact in S3 (default: %(default)s)",
    )
    parser.add_argument(
        "--environment", nargs="*", default=[], type=pair, metavar="NAME=VALUE", help="of the container; no secrets"
    )


def _add_own_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--again", action="store_true", help="start another job although the same one has completed")
    parser.add_argument(
        "--output", type=Path, default=Path("ml/jobs"), help="folder for the job's metrics.json (default: %(default)s)"
    )
    follow.add_wait(parser)
    command.add_dry_run(parser)


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
    if "sagemaker_program" not in values:  # your own script has its own
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
            raise CommandError(f"the channel {name!r} is named twice")
        split_s3(uri)
        channels[name] = folder_uri(uri)
    return channels


def training_request(
    context: Context, channels: Mapping[str, str], hyperparameters: Mapping[str, str], image: str
) -> dict[str, Any]:
    """CreateTrainingJob without its name, tags and checkpoints, which depend on the name."""
    account, options = context.account, context.options
    if options.spot and options.warm_pool_s:
        raise CommandError("a warm pool cannot be of spot instances: add --no-spot, or leave --warm-pool-s out")
    if options.spot and not options.checkpoints:
        raise CommandError(
            "spot instances vanish, and without checkpoints all is lost: leave --no-checkpoints out, or add --no-spot"
        )
    key = {"KmsKeyId": options.kms_key} if options.kms_key else {}
    has_volume_key = options.kms_key and not has_own_disks(options.instance_type)
    volume = {"VolumeKmsKeyId": options.kms_key} if has_volume_key else {}
    keep = {"KeepAlivePeriodInSeconds": options.warm_pool_s} if options.warm_pool_s else {}
    wait = {"MaxWaitTimeInSeconds": options.max_wait_s or 2 * options.max_runtime_s} if options.spot else {}
    request: dict[str, Any] = {
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
            **key,
        },
        "ResourceConfig": {
            "InstanceType": options.instance_type,
            "InstanceCount": options.instance_count,
            "VolumeSizeInGB": options.volume_gb,
            **volume,
            **keep,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": options.max_runtime_s, **wait},
        "EnableNetworkIsolation": options.network_isolation,
        "EnableInterContainerTrafficEncryption": options.instance_count > 1,
        "EnableManagedSpotTraining": options.spot,
        "Environment": dict(options.environment),
        "RetryStrategy": {"MaximumRetryAttempts": options.retries},
    }
    if not options.retries:
        del request["RetryStrategy"]
    if options.subnets:
        request["VpcConfig"] = {"Subnets": options.subnets, "SecurityGroupIds": options.security_groups}
    return request


def with_name(context: Context, request: Mapping[str, Any], digested: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The whole request: name, tags, and checkpoints, which all attempts at one request have in common."""
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
    if options.dry_run:
        name = name_of(options.project, NAME, digested)
        call = Call("sagemaker", "CreateTrainingJob", with_name(context, request, digested, name))
        return command.show_plan(context, NAME, [call], costs(context))
    for line in costs(context):
        say(NAME, line)
    name, _ = create_job(context, NAME, "training", lambda name: with_name(context, request, digested, name), digested,
                         again=options.again)  # fmt: skip
    if not options.wait:
        print(name)
        return 0
    return finish(context, name)


def costs(context: Context) -> list[str]:
    """What the job costs by the hour, and at most."""
    account, options = context.account, context.options
    line = cost_line(account.region, options.instance_type, options.instance_count)
    spot = "; spot instances cost less, what they saved is printed at the end" if options.spot else ""
    return [line + spot, f"the job is stopped after {options.max_runtime_s / 3600:.1f} hours at the latest"]


def finish(context: Context, name: str) -> int:
    """Follow a training job and print what came of it; 0 if it completed."""
    account, options = context.account, context.options
    found = follow.follow(context, NAME, "training", name)
    say(NAME, follow.billed(found, account.region))
    status = found["TrainingJobStatus"]
    artifact = found.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if status != "Completed" and not (status == "Stopped" and artifact):
        reason = found.get("FailureReason", "AWS gives no reason")
        resumed = ", from its last checkpoint" if options.checkpoints else ""
        raise UnfinishedError(f"{name} {status.lower()}: {reason}; the same command starts it again{resumed}")
    metrics = fetch_metrics(account, found, options.output / name)
    answer: dict[str, Any] = {"TrainingJobName": name, "S3ModelArtifacts": artifact}
    if metrics is not None:
        answer["metrics"] = {
            key: metrics[key] for key in ("split", "accuracy", "balanced_accuracy", "auc") if key in metrics
        }
        say(NAME, f"the whole report is {options.output / name / REPORT}")
    command.result(answer)
    return 0


def fetch_metrics(account: Any, found: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """metrics.json of the job's output, also written to a folder; None where the job left none."""
    output = f"{found['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{found['TrainingJobName']}/output"
    if found["OutputDataConfig"].get("CompressionType") == "NONE":
        text = read_object(account, f"{output}/data/{REPORT}", most_bytes=MOST_REPORT_BYTES)
    else:
        archive = read_object(account, f"{output}/output.tar.gz", most_bytes=1 << 31)
        text = None if archive is None else member_of(archive, REPORT)
    if text is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_bytes(text)
    return dict(json.loads(text))


def member_of(archive: bytes, name: str) -> bytes | None:
    """One regular file of a tar.gz, without unpacking anything; None where it has none."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.removeprefix("./") == name and member.size <= MOST_REPORT_BYTES:
                file = tar.extractfile(member)
                return None if file is None else file.read()
    return None


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return command.run(NAME, __doc__ or "", _add_own_options, work, argv)
