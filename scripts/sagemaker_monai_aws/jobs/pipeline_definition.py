"""The definition of the pipeline: prepare, train, evaluate, and register what is good enough.

The requests in its steps are those of the other commands, checked as if they were sent, with references in the place of
what is known only when the pipeline runs.

Sources: the pipeline definition's JSON schema, version 2020-12-01
(https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/); SageMaker Developer
Guide, "Pass data between steps" (property files and JsonGet).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import Context
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.names import folder_uri, tags
from sagemaker_monai_aws.core.places import image_address, labels_of, place
from sagemaker_monai_aws.hosting import register
from sagemaker_monai_aws.jobs import launch_training, process
from sagemaker_monai_aws.jobs.launch_training import CHECKPOINTS, hyperparameters_of, training_request

VERSION = "2020-12-01"
REPORT = "EvaluationReport"  # property file
COMPARED = {"Maximize": "GreaterThanOrEqualTo", "Minimize": "LessThanOrEqualTo"}
EXECUTION = {"Get": "Execution.PipelineExecutionId"}
ARTIFACT = {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}


def parameter(name: str) -> dict[str, str]:
    """What stands for a parameter's value."""
    return {"Get": f"Parameters.{name}"}


def join(*parts: Any) -> dict[str, Any]:
    """Parts of an address with slashes between them, put together when the pipeline runs."""
    return {"Std:Join": {"On": "/", "Values": list(parts)}}


def output_of(step: str, kind: str) -> dict[str, str]:
    """The address of what a processing step has written."""
    name = process.OUTPUTS[kind]
    return {"Get": f"Steps.{step}.ProcessingOutputConfig.Outputs['{name}'].S3Output.S3Uri"}


@dataclass(frozen=True)
class Threshold:
    """The score that decides whether a model is registered.

    Attributes:
        task: of the models.
        score: a score of the task.
        value: from which, or up to which where less is better, a model is good enough.
    """

    task: str
    score: str
    value: float

    @property
    def goal(self) -> str:
        """What is better: Maximize or Minimize."""
        return TASKS[self.task].goals[self.score]

    @property
    def parameter(self) -> str:
        """Name of the pipeline's parameter, such as MinBalancedAccuracy."""
        return ("Min" if self.goal == "Maximize" else "Max") + self.score.title().replace("_", "")

    @property
    def path(self) -> str:
        """Where in evaluation.json the score is."""
        return f"{TASKS[self.task].quality_group}.{self.score}.value"


def threshold_of(context: Context, data: str) -> Threshold:
    """What was asked for, of the task of the data set.

    Args:
        context: of the command.
        data: address of the channel; its dataset.json says the task unless one says otherwise.

    Raises:
        CommandError: the task has no such score, or nothing was asked for and nothing is usual.
    """
    options = context.options
    task = options.task or (DEFAULT_TASK if options.source else labels_of(context.account, [data])[1])
    row, least = TASKS[task], options.min_balanced_accuracy
    if options.register_if is None and least is None:
        if row.good_enough is None:
            raise CommandError(f"the data set's task is {task}: say when a model is good enough, --register-if "
                               f"{row.best_metric}=NUMBER")  # fmt: skip
        score, value = row.best_metric, row.good_enough
    elif options.register_if is None:
        score, value = "balanced_accuracy", least
        if not 0 <= value <= 1:
            raise CommandError(f"--min-balanced-accuracy is from 0 to 1, got {value:g}")
    elif least is not None:
        raise CommandError("--min-balanced-accuracy is a --register-if, too: leave one out")
    else:
        score, text = options.register_if
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise CommandError(f"--register-if takes SCORE=NUMBER, got {score}={text}")
    if score not in row.goals:
        raise CommandError(f"{task} has no {score}: --register-if takes one of {', '.join(row.goals)}")
    return Threshold(task, score, value)


def define(context: Context) -> dict[str, Any]:
    """The pipeline's definition.

    Raises:
        CommandError: a request that AWS would refuse, or a setting that fits to nothing.
    """
    account, options = context.account, context.options
    hyperparameters = hyperparameters_of(options.hyperparameters)
    data = data_of(context)
    threshold = threshold_of(context, data)
    image = image_address(account, options)
    parameters: dict[str, Any] = {
        **({"SourceUri": folder_uri(options.source)} if options.source else {"DataUri": data}),
        "TrainingInstanceType": options.instance_type,
        "ProcessingInstanceType": options.processing_instance_type,
        threshold.parameter: threshold.value,
        **hyperparameters,
    }
    prepared = output_of("Prepare", "prepare") if options.source else parameter("DataUri")
    steps = [_train(context, data, prepared, hyperparameters, image), _evaluate(context, data, prepared, image)]
    if options.source:
        steps.insert(0, _prepare(context, image))
    return {
        "Version": VERSION,
        "Metadata": {},
        "Parameters": [
            {"Name": name, "Type": "Float" if isinstance(value, float) else "String", "DefaultValue": value}
            for name, value in parameters.items()
        ],
        "Steps": [*steps, _condition(context, image, threshold)],
    }


def data_of(context: Context) -> str:
    """Address of the one channel of training."""
    options = context.options
    if options.source and options.data:
        raise CommandError("with --source the pipeline makes the data set itself: leave --data out")
    channels = launch_training.channels_of(context)
    if list(channels) != ["training"]:
        raise CommandError(f"the pipeline has one channel, training, got {', '.join(channels)}")
    return channels["training"]


def _prepare(context: Context, image: str) -> dict[str, Any]:
    options = context.options
    folder = place(context.account, options, "data", "prepared")
    arguments = process.prepare_arguments(options.source_kind, [])
    request = process.processing_request(context, "prepare", {"source": folder_uri(options.source)}, folder, arguments,
                                         image)  # fmt: skip
    check(Call("sagemaker", "CreateProcessingJob", {"ProcessingJobName": "Prepare", **request}))
    request["ProcessingInputs"][0]["S3Input"]["S3Uri"] = parameter("SourceUri")
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] = join(folder, EXECUTION)
    return _step(context, "Prepare", "Processing", _on(request))


def _train(
    context: Context, data: str, prepared: Any, hyperparameters: Mapping[str, str], image: str
) -> dict[str, Any]:
    options = context.options
    request = training_request(context, {"training": data}, hyperparameters, image)
    check(Call("sagemaker", "CreateTrainingJob", {"TrainingJobName": "Train", **request}))
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = prepared
    request["ResourceConfig"]["InstanceType"] = parameter("TrainingInstanceType")
    request["HyperParameters"] = {name: parameter(name) for name in hyperparameters}
    if options.checkpoints:
        folder = place(context.account, options, "checkpoints")
        request["CheckpointConfig"] = {"S3Uri": join(folder, EXECUTION), "LocalPath": CHECKPOINTS}
    return _step(context, "Train", "Training", request)


def _evaluate(context: Context, data: str, prepared: Any, image: str) -> dict[str, Any]:
    folder = place(context.account, context.options, "processing")
    request = process.processing_request(context, "evaluate", {"model": data, "data": data}, folder, [], image)
    check(Call("sagemaker", "CreateProcessingJob", {"ProcessingJobName": "Evaluate", **request}))
    model, images = request["ProcessingInputs"]
    model["S3Input"]["S3Uri"] = ARTIFACT
    images["S3Input"]["S3Uri"] = prepared
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] = join(folder, EXECUTION)
    file = {"PropertyFileName": REPORT, "OutputName": process.OUTPUTS["evaluate"], "FilePath": register.EVALUATION}
    return {**_step(context, "Evaluate", "Processing", _on(request)), "PropertyFiles": [file]}


def _on(request: dict[str, Any]) -> dict[str, Any]:
    request["ProcessingResources"]["ClusterConfig"]["InstanceType"] = parameter("ProcessingInstanceType")
    return request


def _step(context: Context, name: str, kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    options = context.options
    return {"Name": name, "Type": kind, "Arguments": {**request, "Tags": tags(options.project, options.tags)}}


def _condition(context: Context, image: str, threshold: Threshold) -> dict[str, Any]:
    options = context.options
    source = {"S3Uri": ARTIFACT, "S3DataType": "S3Prefix", "CompressionType": "None"}
    is_folder = options.output_compression == "NONE"
    file = {"Get": f"Steps.Evaluate.PropertyFiles.{REPORT}"}
    score = {"Std:JsonGet": {"PropertyFile": file, "Path": threshold.path}}
    has_masks = TASKS[threshold.task].has_masks
    package = register.package_request(
        options,
        model_data={"ModelDataSource": {"S3DataSource": source}} if is_folder else {"ModelDataUrl": ARTIFACT},
        image=image,
        statistics=join(output_of("Evaluate", "evaluate"), register.EVALUATION),
        card=register.model_card(None, {}, image, has_masks=has_masks),
        properties={"training_job": {"Get": "Steps.Train.TrainingJobName"}, "pipeline_execution": EXECUTION},
        has_masks=has_masks,
    )  # a version has the tags of its group, which is there before
    limit = parameter(threshold.parameter)
    side = "below" if threshold.goal == "Maximize" else "above"
    words = [f"The {threshold.score.replace('_', ' ')} is {side} ", limit, ": nothing is registered."]
    reason = {"Std:Join": {"On": "", "Values": words}}
    return {
        "Name": "IsGoodEnough",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [{"Type": COMPARED[threshold.goal], "LeftValue": score, "RightValue": limit}],
            "IfSteps": [{"Name": "Register", "Type": "RegisterModel", "Arguments": package}],
            "ElseSteps": [{"Name": "NotGoodEnough", "Type": "Fail", "Arguments": {"ErrorMessage": reason}}],
        },
    }
