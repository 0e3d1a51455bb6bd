"""What policies are made of: the Scope they are for, and statements that several kinds have.

Which kind may do what is in policies.py.

Sources: SageMaker Developer Guide, "How to use SageMaker AI execution roles" (calls of each kind of job); Service
Authorization Reference (resources and condition keys of each action); SageMaker Developer Guide, "Logging with
CloudWatch" (names of groups and streams).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

# Action -> why its resource is `*`.
UNSCOPED = {
    "application-autoscaling:DescribeScalableTargets": "lists",
    "application-autoscaling:DescribeScalingPolicies": "lists",
    "cloudwatch:PutMetricData": "metrics have no ARN; the namespace is a condition",
    "ec2:DescribeDhcpOptions": "lists",
    "ec2:DescribeNetworkInterfaces": "lists",
    "ec2:DescribeSecurityGroups": "lists",
    "ec2:DescribeSubnets": "lists",
    "ec2:DescribeVpcs": "lists",
    "ecr:GetAuthorizationToken": "the token is the registry's, not a repository's",
    "sagemaker:ListEndpointConfigs": "lists",
    "sagemaker:ListEndpoints": "lists",
    "sagemaker:ListHyperParameterTuningJobs": "lists",
    "sagemaker:ListModelCards": "lists",
    "sagemaker:ListModelPackageGroups": "lists",
    "sagemaker:ListModels": "lists",
    "sagemaker:ListMonitoringSchedules": "lists",
    "sagemaker:ListPipelines": "lists",
    "sagemaker:ListProcessingJobs": "lists",
    "sagemaker:ListTrainingJobs": "lists",
    "sagemaker:ListTransformJobs": "lists",
}
# What buildspec.yml needs of ECR, as its header says; anyone who pushes by hand needs the same.
PUSH = (
    "ecr:DescribeRepositories",
    "ecr:CreateRepository",
    "ecr:BatchGetImage",
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
)
PULL = ("ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer")
# SageMaker Pipelines calls its jobs pipelines-EXECUTION-STEP-... and gives them the tags of the step.
PIPELINE_JOBS = "pipelines-"


@dataclass(frozen=True)
class Source:
    """Where CodeBuild finds the project.

    Attributes:
        kind: GITHUB, CODECOMMIT or S3.
        arn: of the CodeCommit repository or of the object in S3; of no use for GITHUB.
    """

    kind: str
    arn: str = ""


@dataclass(frozen=True)
class Scope:
    """What the policies are for.

    Attributes:
        account: twelve digits.
        region: the only one in which anything is allowed.
        bucket: name.
        partition: aws, aws-cn, aws-us-gov, ...
        dns_suffix: of the services' addresses in the partition.
        project: what names begin with, and value of the tag `project`.
        prefix: folder of the bucket, without slashes around it.
        repository: name in ECR.
        kms_key: ARN of the key that encrypts bucket and volumes, if there is one.
        subnets: ARNs, if jobs run in a VPC.
        security_groups: ARNs, if jobs run in a VPC.
        sources: of the build; more than one only in the template, which chooses.
        named_by_requests: bucket and beginning of the keys of objects that requests may name (`deploy --allow-prefix`).
    """

    account: str
    region: str
    bucket: str
    partition: str = "aws"
    dns_suffix: str = "amazonaws.com"
    project: str = "sagemaker-monai"
    prefix: str = "monai"
    repository: str = "sagemaker-monai"
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    named_by_requests: tuple[tuple[str, str], ...] = ()

    def arn(self, service: str, resource: str) -> str:
        """ARN of something in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    @property
    def bucket_arn(self) -> str:
        """ARN of the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}"

    def objects(self, pattern: str) -> str:
        """ARN of objects below the prefix."""
        return f"{self.bucket_arn}/{self.prefix}/{pattern}"

    @property
    def repository_arn(self) -> str:
        """ARN of the repository in ECR."""
        return self.arn("ecr", f"repository/{self.repository}")

    def role_name(self, kind: str) -> str:
        """Name of an execution role; at most 64 characters for a project of 32."""
        return f"{self.project}-{self.region}-{kind}"

    def role_arn(self, kind: str) -> str:
        """ARN of an execution role."""
        return f"arn:{self.partition}:iam::{self.account}:role/{self.role_name(kind)}"

    @property
    def build_name(self) -> str:
        """Name of the CodeBuild project, and of its log group behind /aws/codebuild/."""
        return f"{self.project}-build"

    def named(self, *types: str) -> list[str]:
        """ARNs of what in SageMaker has the project's name, or begins with it and a dash, by the type in the ARN."""
        ends = ("", "-*")
        return [self.arn("sagemaker", f"{kind}/{self.project}{end}") for kind in types for end in ends]

    def begun(self, *types: str) -> list[str]:
        """The same for what never has the project's name alone."""
        return [self.arn("sagemaker", f"{kind}/{self.project}-*") for kind in types]

    @property
    def pipeline(self) -> str:
        """ARN of the pipeline, which has the project's name alone."""
        return self.arn("sagemaker", f"pipeline/{self.project}")

    @property
    def packages(self) -> list[str]:
        """ARNs of the versions of the project's models in the registry."""
        return [self.arn("sagemaker", f"model-package/{self.project}{end}") for end in ("/*", "-*")]


def allow(
    sid: str, actions: Iterable[str], resources: str | Iterable[str], condition: Mapping[str, Any] | None = None
) -> Document:
    """One statement of a policy."""
    where = [resources] if isinstance(resources, str) else list(resources)
    statement: Document = {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": where}
    return statement | ({"Condition": dict(condition)} if condition else {})


def unscoped(sid: str, actions: Iterable[str], condition: Mapping[str, Any] | None = None) -> Document:
    """A statement on all resources, for actions of UNSCOPED only."""
    actions = sorted(actions)
    assert set(actions) <= set(UNSCOPED), sorted(set(actions) - set(UNSCOPED))
    return allow(sid, actions, "*", condition)


def document(*statements: Document | list[Document]) -> Document:
    """A policy document of statements and lists of them."""
    flat = [part for given in statements for part in (given if isinstance(given, list) else [given])]
    return {"Version": "2012-10-17", "Statement": flat}


def files(scope: Scope, read: Iterable[str], write: Iterable[str]) -> list[Document]:
    """List and read some objects below the prefix, write others.

    The account is a condition, because the name of a bucket that was deleted can be taken by others.

    Args:
        scope: of the project.
        read: patterns of keys behind the prefix, e.g. `data/*`.
        write: the same; who may write need not be able to read what there is.
    """
    ours = {"StringEquals": {"s3:ResourceAccount": scope.account}}
    read, write = sorted(read), sorted(write)
    seen = {"StringLike": {"s3:prefix": [f"{scope.prefix}/{pattern}" for pattern in read]}}
    return [
        allow("ListObjects", ["s3:ListBucket"], scope.bucket_arn, ours | seen),
        allow("ReadObjects", ["s3:GetObject"], [scope.objects(pattern) for pattern in read], ours),
        allow("WriteObjects", ["s3:AbortMultipartUpload", "s3:PutObject"], map(scope.objects, write), ours),
    ]


def image(scope: Scope) -> list[Document]:
    """Pull the image."""
    return [
        unscoped("LogInToRegistry", ["ecr:GetAuthorizationToken"]),
        allow("PullImage", PULL, scope.repository_arn),
    ]


def logs(scope: Scope, groups: Mapping[str, Iterable[str]]) -> list[Document]:
    """Write logs and metrics.

    Args:
        scope: of the project.
        groups: log group -> beginnings of the names of the streams in it; SageMaker publishes metrics under the
            group's name, without the part of one endpoint.
    """
    arns = {group: scope.arn("logs", f"log-group:{group}") for group in groups}
    streams = [f"{arns[group]}:log-stream:{start}*" for group, starts in groups.items() for start in starts]
    spaces = sorted({"/".join(group.split("/")[:4]) for group in groups})
    made = [f"{arn}:*" for arn in arns.values()]
    return [
        allow("MakeLogGroups", ["logs:CreateLogGroup", "logs:DescribeLogStreams"], made),
        allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], streams),
        unscoped("WriteMetrics", ["cloudwatch:PutMetricData"], {"StringEquals": {"cloudwatch:namespace": spaces}}),
    ]


def key(scope: Scope, *, volumes: bool = True) -> list[Document]:
    """Use the KMS key through S3 and, for volumes, let AWS's services use it for what they run; nothing without one."""
    if scope.kms_key is None:
        return []
    via = {"StringEquals": {"kms:ViaService": [f"s3.{scope.region}.{scope.dns_suffix}"]}}
    use = allow("UseKeyForObjects", ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"], scope.kms_key, via)
    grant = allow("UseKeyForVolumes", ["kms:CreateGrant"], scope.kms_key,
                  {"Bool": {"kms:GrantIsForAWSResource": "true"}})  # fmt: skip
    return [use, grant, allow("LookAtKey", ["kms:DescribeKey"], scope.kms_key)] if volumes else [use]


def network(scope: Scope) -> list[Document]:
    """Put a job into the subnets with the security groups, and take it out again; nothing without a VPC."""
    if not scope.subnets:
        return []
    interfaces = scope.arn("ec2", "network-interface/*")
    existing = ("ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission")  # fmt: skip
    return [
        allow("CreateInterfaces", ["ec2:CreateNetworkInterface"],
              [interfaces, *scope.subnets, *scope.security_groups]),
        allow("UseInterfaces", existing, interfaces, {"ArnEquals": {"ec2:Subnet": list(scope.subnets)}}),
        unscoped("LookAtNetwork", [action for action in UNSCOPED if action.startswith("ec2:")]),
    ]  # fmt: skip


def pass_roles(scope: Scope, *kinds: str) -> Document:
    """Give SageMaker, and nobody else, these execution roles."""
    return allow("PassRoles", ["iam:PassRole"], map(scope.role_arn, kinds),
                 {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}})  # fmt: skip


def tagged(scope: Scope, place: str = "Resource") -> Document:
    """Condition that a thing (`Resource`), or what is asked for (`Request`), has the project's tag."""
    return {"StringEquals": {f"aws:{place}Tag/project": scope.project}}


def not_anothers(scope: Scope) -> Document:
    """Condition that a thing has no other project's tag; what is not there, or not yet, has none."""
    return {"StringEqualsIfExists": {"aws:ResourceTag/project": scope.project}}


def created(scope: Scope) -> Document:
    """Condition of what creates: the project's tag is asked for, and nothing of another project is meant or used."""
    return both(tagged(scope, "Request"), not_anothers(scope))


def both(*conditions: Mapping[str, Any]) -> Document:
    """All of several conditions."""
    return {operator: {key: value for each in conditions for key, value in each.get(operator, {}).items()}
            for operator in sorted({name for each in conditions for name in each})}  # fmt: skip


def tag_created(scope: Scope, nouns: Iterable[str], resources: Iterable[str]) -> Document:
    """Tag with the call that creates, and never later: a tag decides whose a thing is."""
    by = {"StringEquals": {"sagemaker:TaggingAction": [f"Create{noun}" for noun in nouns]}}
    return allow("TagCreated", ["sagemaker:AddTags"], resources, both(by, not_anothers(scope)))


def named_objects(scope: Scope) -> list[Document]:
    """Read the objects that requests may name, in buckets of this account; nothing where they may name none."""
    ours = {"StringEquals": {"s3:ResourceAccount": scope.account}}
    arns = [f"arn:{scope.partition}:s3:::{bucket}" for bucket, _ in scope.named_by_requests]
    starts = [start for _, start in scope.named_by_requests]
    return [
        *(
            allow(f"ListNamed{index}", ["s3:ListBucket"], arn, ours | {"StringLike": {"s3:prefix": [f"{start}*"]}})
            for index, (arn, start) in enumerate(zip(arns, starts, strict=True))
        ),
        *([allow("ReadNamed", ["s3:GetObject"],
                 [f"{arn}/{start}*" for arn, start in zip(arns, starts, strict=True)], ours)] if arns else []),
    ]  # fmt: skip
