"""Least-privilege IAM policies as plain values: one function per kind, from a Scope to a policy document.

The same functions make what `make iam` prints and, with CloudFormation's `${...}` in the place of values, what is in
the template of `make infra`: there is one source. No action has a wildcard. A resource is `*` only for the actions in
UNSCOPED, for which AWS knows no resource.

Who may do what follows from the layout of the bucket: jobs read data and write results, only those that prepare data
write data, an endpoint reads models and writes answers, and none of them deletes an object. People who run commands
have policies too (PEOPLE); anyone who asks an asynchronous endpoint removes what was sent to it, and nothing else. Only
who runs `make infra` has none: who writes roles can give them everything, so a narrow policy would only look like one.

Names begin with the project's, and `a-*` is also how the names of a project `a-b` begin. So wherever AWS knows the tags
of a thing, the tag `project` decides too: what changes something asks for it (`tagged`), what reads or creates takes no
other project's (`not_anothers`; what is not there has no tag, and a command must be told so). A tag is given only with
the call that creates (`tag_created`), so nobody makes another project's thing their own. Logs and autoscaling's alarms
have no tags and are known by names alone: hence `make infra` begins no project whose name has a dash.

Sources: SageMaker Developer Guide, "Cross-service confused deputy prevention" (trust), "Amazon SageMaker Model
Registry" (what registering looks at), "Use Application Auto Scaling" (who creates the alarms and the linked role).
"""

from collections.abc import Callable, Iterable

from sagemaker_monai_aws.infrastructure.policy_statements import (
    PIPELINE_JOBS,
    PUSH,
    UNSCOPED,
    Document,
    Scope,
    allow,
    both,
    created,
    document,
    files,
    image,
    key,
    logs,
    named_objects,
    network,
    not_anothers,
    pass_roles,
    tag_created,
    tagged,
    unscoped,
)

# What services take on, and what is attached to people.
ROLES = ("training", "prepare", "hosting", "batch", "pipeline", "build")
PEOPLE = ("operator", "deployer", "registrar")
JOBS = ("training-job", "processing-job")
# How the names of the alarms begin that autoscaling makes for an endpoint.
TRACKING = "TargetTracking-endpoint/"
# How CodeBuild fetches a source that has an ARN.
FETCH = {"CODECOMMIT": ("codecommit:GitPull",), "S3": ("s3:GetObject", "s3:GetObjectVersion")}


def calls(verb: str, nouns: Iterable[str]) -> list[str]:
    """Actions of SageMaker."""
    return [f"sagemaker:{verb}{noun}" for noun in nouns]


def training(scope: Scope) -> Document:
    """Training, tuning and evaluation: read data and earlier results, write results and checkpoints."""
    results = ["jobs/*", "checkpoints/*", "processing/*"]
    return document(
        files(scope, read=["data/*", *results], write=results), job(scope, "TrainingJobs", "ProcessingJobs")
    )


def prepare(scope: Scope) -> Document:
    """Jobs that prepare a data set: read data and write data, no model and no result."""
    return document(files(scope, read=["data/*"], write=["data/*"]), job(scope, "ProcessingJobs"))


def job(scope: Scope, *groups: str) -> list[Document]:
    """What jobs of all kinds need beside their files."""
    names = (f"{scope.project}-", PIPELINE_JOBS)
    written = logs(scope, {f"/aws/sagemaker/{group}": names for group in groups})
    return [*image(scope), *written, *key(scope), *network(scope)]


def hosting(scope: Scope) -> Document:
    """Endpoints of all modes: read models and asynchronous input, write answers and captured requests.

    No data set, unless it is below what requests may name.
    """
    answers = ["async/*/output/*", "async/*/failure/*", "capture/*"]
    return document(
        files(scope, read=["jobs/*", "models/*", "async/*/input/*"], write=answers),
        named_objects(scope),
        image(scope),
        logs(scope, {f"/aws/sagemaker/Endpoints/{scope.project}-*": ("",)}),
        *(key(scope), network(scope)),
    )


def batch(scope: Scope) -> Document:
    """Batch transform: read models, data and manifests, write predictions."""
    return document(
        files(scope, read=["jobs/*", "models/*", "data/*", "transform/*"], write=["transform/*"]),
        named_objects(scope),
        image(scope),
        logs(scope, {"/aws/sagemaker/TransformJobs": (f"{scope.project}-",)}),
        *(key(scope), network(scope)),
    )


def pipeline(scope: Scope) -> Document:
    """SageMaker Pipelines: start tagged jobs under the roles of jobs, read their results, register a model."""
    jobs = scope.named(*JOBS) + [scope.arn("sagemaker", f"{kind}/{PIPELINE_JOBS}*") for kind in JOBS]
    packages = scope.named("model-package-group") + scope.packages
    kinds = ("TrainingJob", "ProcessingJob")
    registry = ("ModelPackage", "ModelPackageGroup")
    return document(
        files(scope, read=["jobs/*", "processing/*", "pipelines/*"], write=["pipelines/*"]),
        allow("StartJobs", calls("Create", kinds), jobs, created(scope)),
        allow("FollowJobs", calls("Describe", kinds) + calls("Stop", kinds), jobs, tagged(scope)),
        allow("RegisterModels", calls("Create", registry) + calls("Describe", registry), packages, not_anothers(scope)),
        tag_created(scope, (*kinds, *registry), jobs + packages),
        allow("LookAtImage", ["ecr:BatchGetImage", "ecr:DescribeImages"], scope.repository_arn),
        *(pass_roles(scope, "training", "prepare"), key(scope, volumes=False)),
    )


def build(scope: Scope) -> Document:
    """CodeBuild running buildspec.yml: fetch the source, push the image, write its log."""
    group = scope.arn("logs", f"log-group:/aws/codebuild/{scope.build_name}")
    return document(
        [allow(f"Fetch{source.kind}", FETCH[source.kind], source.arn) for source in scope.sources if source.arn],
        unscoped("LogInToRegistry", ["ecr:GetAuthorizationToken"]),
        allow("PushImage", PUSH, scope.repository_arn),
        allow("MakeLogGroup", ["logs:CreateLogGroup"], f"{group}:*"),
        allow("WriteLog", ["logs:CreateLogStream", "logs:PutLogEvents"], f"{group}:log-stream:*"),
        key(scope, volumes=False),
    )


def operator(scope: Scope) -> Document:
    """Anyone who runs prepare-s3, push, train, tune, process, status and logs: data, images and jobs of the project.

    Together with `deployer` and `registrar` it is what all commands need. They are three because a managed policy has
    at most 6,144 characters; so who trains need not be who deploys.
    """
    kinds = ("TrainingJob", "HyperParameterTuningJob", "ProcessingJob")
    jobs = scope.begun("training-job", "hyper-parameter-tuning-job", "processing-job")
    steps = [scope.arn("sagemaker", f"{kind}/{PIPELINE_JOBS}*") for kind in JOBS]
    return document(
        files(scope, read=["*"], write=["*"]),
        unscoped("LogInToRegistry", ["ecr:GetAuthorizationToken"]),
        allow("PushImage", [*PUSH, "ecr:DescribeImages"], scope.repository_arn),
        allow("Start", calls("Create", kinds), jobs, created(scope)),
        allow("Stop", [*calls("Stop", kinds), "sagemaker:UpdateTrainingJob"], jobs, tagged(scope)),
        allow("Look", [*calls("Describe", kinds), "sagemaker:ListTrainingJobsForHyperParameterTuningJob"], jobs,
              not_anothers(scope)),
        allow("LookAtTags", ["sagemaker:ListTags"], scope.begun("*")),
        allow("LookAtSteps", calls("Describe", ("TrainingJob", "ProcessingJob")), steps, tagged(scope)),
        tag_created(scope, kinds, scope.begun("*")),
        unscoped("List", [action for action in UNSCOPED if action.startswith(("sagemaker:", "application-"))]),
        pass_roles(scope, "training", "prepare"),
        read_logs(scope, "TrainingJobs", "ProcessingJobs"),
        key(scope),
    )  # fmt: skip


def deployer(scope: Scope) -> Document:
    """Anyone who runs deploy, predict, transform and their delete too: models, endpoints and batch transform."""
    kinds = ("Model", "EndpointConfig", "Endpoint", "TransformJob")
    ours = scope.begun("model", "endpoint*", "transform-job")  # endpoint-config too
    change = [*calls("Delete", kinds[:3]), *calls("Invoke", ("Endpoint", "EndpointAsync")),
              *calls("Update", ("Endpoint", "EndpointWeightsAndCapacities")), "sagemaker:StopTransformJob"]  # fmt: skip
    return document(
        allow("Create", calls("Create", kinds), ours, created(scope)),
        allow("Change", change, ours, tagged(scope)),
        allow("Look", calls("Describe", kinds), scope.begun("*"), not_anothers(scope)),
        allow("LookAtTags", ["sagemaker:ListTags"], scope.begun("*")),
        tag_created(scope, kinds, scope.begun("*")),
        allow("RemoveAnsweredInputs", ["s3:DeleteObject"], scope.objects("async/*/input/*"),
              {"StringEquals": {"s3:ResourceAccount": scope.account}}),
        pass_roles(scope, "hosting", "batch"),
        read_logs(scope, "TransformJobs", f"Endpoints/{scope.project}-*"),
        # The image's configuration says which CUDA it has, and so which driver its instances need.
        allow("ReadImage", ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], scope.repository_arn),
        scaling(scope),
    )  # fmt: skip


def registrar(scope: Scope) -> Document:
    """Anyone who runs register, pipeline and their delete too: the model registry, model cards and pipelines."""
    kinds = ("ModelPackageGroup", "ModelCard", "Pipeline")
    ours = [*scope.named("model-package-group", "model-card"), scope.pipeline]
    packages = scope.packages + scope.named("model-package-group")
    change = [*calls("Delete", kinds), *calls("Update", kinds[1:]), "sagemaker:StartPipelineExecution"]
    follow = ("DescribePipelineExecution", "ListPipelineExecutionSteps", "StopPipelineExecution")
    return document(
        allow("Create", calls("Create", kinds), ours, created(scope)),
        allow("Change", change, ours, tagged(scope)),
        allow("Look", [*calls("Describe", kinds), "sagemaker:ListPipelineExecutions"], ours, not_anothers(scope)),
        allow("LookAtTags", ["sagemaker:ListTags"], ours),
        tag_created(scope, kinds, ours),
        # A version has the tags of its group.
        allow("Register", ["sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage",
                           "sagemaker:ListModelPackages"], packages, not_anothers(scope)),
        allow("ChangeVersions", ["sagemaker:DeleteModelPackage", "sagemaker:UpdateModelPackage"], scope.packages,
              tagged(scope)),
        allow("FollowRuns", calls("", follow), f"{scope.pipeline}/execution/*"),
        pass_roles(scope, "pipeline"),
    )  # fmt: skip


def read_logs(scope: Scope, *groups: str) -> Document:
    """Read what jobs and endpoints have written."""
    return allow("ReadLogs", [f"logs:{name}" for name in ("DescribeLogStreams", "FilterLogEvents", "GetLogEvents")],
                 [f"{scope.arn('logs', f'log-group:/aws/sagemaker/{group}')}:*" for group in groups])  # fmt: skip


def scaling(scope: Scope) -> list[Document]:
    """Scale endpoints, and roll them back by alarms."""
    changes = ("RegisterScalableTarget", "DeregisterScalableTarget", "PutScalingPolicy", "DeleteScalingPolicy")
    targets = scope.arn("application-autoscaling", "scalable-target/*")
    service = "sagemaker.application-autoscaling.amazonaws.com"
    linked = (f"arn:{scope.partition}:iam::{scope.account}:role/aws-service-role/{service}/"
              "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")  # fmt: skip
    of_sagemaker = {"StringEquals": {"application-autoscaling:service-namespace": "sagemaker"}}
    alarms = [scope.arn("cloudwatch", f"alarm:{start}{scope.project}-*") for start in ("", TRACKING)]
    change_alarms = [f"cloudwatch:{name}" for name in ("DeleteAlarms", "DescribeAlarms", "PutMetricAlarm")]
    return [
        allow("StartScaling", [f"application-autoscaling:{changes[0]}"], targets, both(of_sagemaker, created(scope))),
        allow("TagScaling", ["application-autoscaling:TagResource"], targets, created(scope)),  # it knows no namespace
        allow("Scale", [f"application-autoscaling:{change}" for change in changes], targets,
              both(of_sagemaker, tagged(scope))),
        allow("LetItScale", ["iam:CreateServiceLinkedRole"], linked, {"StringEquals": {"iam:AWSServiceName": service}}),
        allow("Alarms", change_alarms, alarms, not_anothers(scope)),
        allow("TagAlarms", ["cloudwatch:TagResource"], alarms[0], created(scope)),
    ]  # fmt: skip


def trust(scope: Scope, kind: str) -> Document:
    """Who may take a role: the service, and only on behalf of this account's own things in this region."""
    service = "codebuild" if kind == "build" else "sagemaker"
    thing = f"project/{scope.build_name}" if kind == "build" else "*"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": scope.account},
            "ArnLike": {"aws:SourceArn": scope.arn(service, thing)},
        },
    }
    return document(statement)


KINDS: dict[str, Callable[[Scope], Document]] = {
    "training": training,
    "prepare": prepare,
    "hosting": hosting,
    "batch": batch,
    "pipeline": pipeline,
    "build": build,
    "operator": operator,
    "deployer": deployer,
    "registrar": registrar,
}
