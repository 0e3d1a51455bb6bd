"""A deployment's plan, looked up and checked before anything is created."""

import argparse
import copy
from dataclasses import dataclass

from sagemaker_monai_aws.core import follow
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.instances import has_gpu
from sagemaker_monai_aws.core.listing import encryption, one
from sagemaker_monai_aws.core.names import digest, split_s3
from sagemaker_monai_aws.core.places import Contents, contents, image_address
from sagemaker_monai_aws.core.trained import Trained, find_trained
from sagemaker_monai_aws.hosting import scaling
from sagemaker_monai_aws.hosting.hosting_requests import (
    MODES,
    ami_for,
    check_options,
    config_call,
    endpoint_call,
    model_call,
    models_folder,
)
from sagemaker_monai_aws.hosting.image_cuda import cuda_of


@dataclass(frozen=True)
class Plan:
    """What the deployment will create.

    Attributes:
        endpoint: name.
        trained: the artifact.
        model: CreateModel.
        config: CreateEndpointConfig, None in batch mode.
        target: of a multi-model endpoint, the archive's name.
    """

    endpoint: str
    trained: Trained
    model: Call
    config: Call | None
    target: str | None

    @property
    def config_name(self) -> str:
        """Name of the configuration."""
        return str(self.config.request["EndpointConfigName"]) if self.config else ""


def make_plan(context: Context) -> Plan:
    """Look everything up and check it; nothing is created.

    Raises:
        CommandError: the deployment is not possible.
    """
    account, options = context.account, context.options
    endpoint = options.endpoint or f"{options.project}-{options.mode}"
    if not endpoint.startswith(f"{options.project}-"):
        raise CommandError(f"--endpoint begins with {options.project}-, which the policies know it by; got {endpoint}")
    trained = find_trained(account, options.project, options.model)
    check_options(options, trained)
    scaling.range_of(options)
    found = artifact_contents(context, trained)
    image = image_of(context, trained)
    model = model_call(account, options, endpoint, trained, image, found)
    config = None
    if options.mode != "batch":
        config = config_call(account, options, endpoint, model.request["ModelName"], found.size_bytes,
                             ami_of(context, image))  # fmt: skip
    target = target_of(options, trained, found) if options.mode == "multi-model" else None
    later = [] if config is None else [config, endpoint_call(options, endpoint, config.request["EndpointConfigName"])]
    for call in [model, *later, *scaling.planned(account, options, endpoint)]:
        check(call)  # all of them before the first is sent
    return Plan(endpoint, trained, model, config, target)


def artifact_contents(context: Context, trained: Trained) -> Contents:
    """Size and digest of what is in S3.

    Raises:
        CommandError: there is nothing.
    """
    account = context.account
    if trained.is_folder or not account.is_known:
        return contents(account, trained.artifact)
    found = one(account, trained.artifact)
    if found is None:
        raise CommandError(f"there is no {trained.artifact}: name the S3ModelArtifacts of a training job, or the job")
    return Contents(1, found.size_bytes, digest([found.size_bytes, found.etag], 16))


def image_of(context: Context, trained: Trained) -> str:
    """Address by digest: asked for, else the one that trained, else the newest."""
    account, options = context.account, context.options
    used = str(trained.job.get("AlgorithmSpecification", {}).get("TrainingImage") or "")
    if options.image or not used:
        return image_address(account, options)
    asked = copy.copy(options)
    asked.image = used
    return image_address(account, asked)


def ami_of(context: Context, image: str) -> str | None:
    """The AMI of GPU instances, by the image's CUDA."""
    account, options = context.account, context.options
    if not MODES[options.mode].has_instances or not has_gpu(options.instance_type):
        return None
    if options.inference_ami:
        return str(options.inference_ami)
    return ami_for(options.cuda or (cuda_of(account, image) if account.is_known else "12.4"))


def target_of(options: argparse.Namespace, trained: Trained, found: Contents) -> str:
    """What an archive of a multi-model endpoint is called; another content has another name."""
    name = options.target or f"{trained.name or f'model-{found.digest[:10]}'}.tar.gz"
    if not name.endswith(".tar.gz") or "/" in name:
        raise CommandError(f"--target is NAME.tar.gz, got {name!r}")
    return str(name)


def copy_call(context: Context, plan: Plan) -> Call:
    """CopyObject of the archive to the multi-model endpoint's folder."""
    account, options = context.account, context.options
    bucket, key = split_s3(models_folder(account, options, plan.endpoint) + str(plan.target))
    origin = plan.trained.artifact.removeprefix("s3://")
    return Call("s3", "CopyObject", {"Bucket": bucket, "Key": key, "CopySource": origin})


def put_archive(context: Context, plan: Plan) -> None:
    """Copy the archive inside S3, unless it is there.

    Raises:
        CommandError: another content has the name; an instance that has it in memory would go on with the old one.
    """
    account, options = context.account, context.options
    request = copy_call(context, plan).request
    uri = f"s3://{request['Bucket']}/{request['Key']}"
    origin, there = one(account, plan.trained.artifact), one(account, uri)
    s3 = account.client("s3")
    mark = origin.etag.strip('"') if origin else ""
    if there is not None:
        known = s3.head_object(Bucket=request["Bucket"], Key=request["Key"])["Metadata"].get("origin")
        if known == mark:
            return
        raise CommandError(f"{uri} is another model, and endpoints keep models in memory: give this one another "
                           "--target")  # fmt: skip
    extra = {"Metadata": {"origin": mark}, "MetadataDirective": "REPLACE", **encryption(options.kms_key)}
    source = dict(zip(("Bucket", "Key"), split_s3(plan.trained.artifact), strict=True))
    s3.copy(source, request["Bucket"], request["Key"], ExtraArgs=extra)
    say("deploy", f"copied the model to {uri}")


def planned_calls(context: Context, plan: Plan) -> list[Call]:
    """All requests in order, as if nothing were there."""
    account, options = context.account, context.options
    calls = [copy_call(context, plan)] if plan.target else []
    calls.append(plan.model)
    if plan.config is None:
        return calls
    calls.append(plan.config)
    found = follow.describe(account, "endpoint", plan.endpoint) if account.is_known else None
    if found is None:
        calls.append(endpoint_call(options, plan.endpoint, plan.config_name))
    elif found["EndpointConfigName"] != plan.config_name:
        calls += scaling.update_calls(account, options, plan.endpoint, plan.config_name)
    return calls + scaling.planned(account, options, plan.endpoint)
