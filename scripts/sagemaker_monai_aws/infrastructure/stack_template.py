"""The CloudFormation template of `make infra`: bucket, repository, roles, policies for people, and the build.

The policies are those that `make iam` prints: see stack_policies.py.

What holds data (bucket, images, the build's log) stays when the stack is deleted, and a new stack takes it over:
CloudFormation does that for resources with a literal name only, hence `with_names`. The bucket's policy is not kept,
because an existing one would stop the new stack.

Sources: CloudFormation Template Reference; CloudFormation User Guide, "Import AWS resources into a CloudFormation
stack automatically".
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from sagemaker_monai_aws.infrastructure.policies import PEOPLE, ROLES
from sagemaker_monai_aws.infrastructure.stack_policies import (
    FULL,
    NOTHING,
    Template,
    managed_policy,
    optional_policies,
    resource_name,
    role,
    substitute,
    tags,
    when,
)

CODECOMMIT_ADDRESS = "https://git-codecommit.${AWS::Region}.${AWS::URLSuffix}/v1/repos/${SourceLocation}"
MUTABILITY = "IMMUTABLE"
OLD_VERSIONS_DAYS = 90
UNTAGGED_DAYS = 30
UNFINISHED_DAYS = 7
LOG_DAYS = 90  # one of those that CloudWatch offers
BUILD_MINUTES = 120  # a guess: pulling the base, building, testing, pushing
BUILD_IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
BUILD_SIZE = "BUILD_GENERAL1_LARGE"  # 8 vCPUs; the smaller one has less memory than the head of buildspec.yml asks for

PARAMETERS: dict[str, dict[str, Any]] = {
    "Project": {
        "Default": "sagemaker-monai",
        "AllowedPattern": "[a-z][a-z0-9-]{0,30}[a-z0-9]",
        "Description": "What names begin with, and value of the tag project",
    },
    "BucketName": {"Default": "", "Description": "Bucket; empty: PROJECT-ACCOUNT-REGION"},
    "Prefix": {
        "Default": "monai",
        "AllowedPattern": "[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*",
        "Description": "Folder in the bucket; roles see nothing else of it",
    },
    "RepositoryName": {"Default": "", "Description": "Repository in ECR; empty: PROJECT"},
    "KmsKeyArn": {
        "Default": "",
        "AllowedPattern": "(arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?",
        "Description": "Key for bucket, repository, volumes and build log, or empty; a repository cannot be given "
        "another one later, and the key's policy must let logs.REGION.amazonaws.com use it if there is a build",
    },
    "SubnetArns": {"Default": "", "Description": "ARNs of the subnets that jobs may run in, with commas, or empty"},
    "SecurityGroupArns": {"Default": "", "Description": "ARNs of their security groups, with commas"},
    "SourceType": {
        "Default": "NONE",
        "AllowedValues": ["NONE", "GITHUB", "CODECOMMIT", "S3"],
        "Description": "Where CodeBuild finds the project; NONE: there is no build",
    },
    "SourceLocation": {
        "Default": "none",
        "Description": "GITHUB: https address; CODECOMMIT: a repository's name in this region; S3: bucket/key of a zip",
    },
    "BaseImage": {
        "Default": "",
        "AllowedPattern": "([^@]+@sha256:[0-9a-f]{64})?",
        "Description": "What the build builds on, by digest; empty: BASE_IMAGE is given when a build is started",
    },
}


def template() -> Template:
    """The template, for any account, region and partition."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Bucket, repository, roles and build of a project with MONAI models on SageMaker",
        "Parameters": {name: {"Type": "String"} | parameter for name, parameter in PARAMETERS.items()},
        "Conditions": {
            "HasBucketName": _is_not("BucketName", ""),
            "HasRepositoryName": _is_not("RepositoryName", ""),
            "HasKey": _is_not("KmsKeyArn", ""),
            "HasVpc": _is_not("SubnetArns", ""),
            "HasBuild": _is_not("SourceType", "NONE"),
            "HasBaseImage": _is_not("BaseImage", ""),
            "BuildHasKey": {"Fn::And": [{"Condition": "HasBuild"}, {"Condition": "HasKey"}]},
            "IsCodeCommit": {"Fn::Equals": [{"Ref": "SourceType"}, "CODECOMMIT"]},
            "IsS3": {"Fn::Equals": [{"Ref": "SourceType"}, "S3"]},
        },
        "Resources": {
            "Bucket": bucket(),
            "BucketPolicy": bucket_policy(),
            "Repository": repository(),
            **{resource_name("Role", kind): role(kind) for kind in ROLES},
            **optional_policies(),
            **{resource_name("Policy", kind): managed_policy(kind) for kind in PEOPLE},
            "BuildLog": build_log(),
            "Build": build_project(),
        },
        "Outputs": outputs(),
    }


def with_names(body: Template, names: Mapping[str, str]) -> Template:
    """The template with literal names of what is kept, so that a new stack takes over what an old one has left.

    Args:
        body: of `template`.
        names: of Bucket, Repository and BuildLog.
    """
    properties = {"Bucket": "BucketName", "Repository": "RepositoryName", "BuildLog": "LogGroupName"}
    resources = dict(body["Resources"])
    for resource, name in names.items():
        given = resources[resource]["Properties"] | {properties[resource]: name}
        resources[resource] = resources[resource] | {"Properties": given}
    return body | {"Resources": resources}


def as_yaml(body: Template) -> str:
    """The template for people to read; JSON, which CloudFormation takes too, has no anchors to refer to."""
    return yaml.safe_dump(json.loads(json.dumps(body)), sort_keys=False, width=118)


def _is_not(parameter: str, value: str) -> Template:
    return {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, value]}]}


def kept(resource: Template) -> Template:
    """Left alone when the stack is deleted or the resource replaced; removed only if its creation is rolled back."""
    return resource | {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}


def bucket() -> Template:
    """Private, encrypted, and every object's old versions are kept for some time."""
    encryption = when("HasKey", {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Ref": "KmsKeyArn"}},
                     {"SSEAlgorithm": "AES256"})  # fmt: skip
    rules = [
        {
            "Id": "unfinished-uploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
        },
        {
            "Id": "old-versions",
            "Status": "Enabled",
            "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_VERSIONS_DAYS},
        },
    ]
    blocks = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    name = when("HasBucketName", {"Ref": "BucketName"}, {"Fn::Sub": "${Project}-${AWS::AccountId}-${AWS::Region}"})
    properties = {
        "BucketName": name,
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"BucketKeyEnabled": when("HasKey", True), "ServerSideEncryptionByDefault": encryption}
            ]
        },
        "PublicAccessBlockConfiguration": dict.fromkeys(blocks, True),
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "VersioningConfiguration": {"Status": "Enabled"},
        "LifecycleConfiguration": {"Rules": rules},
        "Tags": tags(),
    }
    return kept({"Type": "AWS::S3::Bucket", "Properties": properties})


def bucket_policy() -> Template:
    """No request without TLS 1.2, no matter who makes it. A denial of everything is the one place for a wildcard."""
    refuse = {"Effect": "Deny", "Principal": "*", "Action": "s3:*",
              "Resource": substitute([FULL.bucket_arn, f"{FULL.bucket_arn}/*"])}  # fmt: skip
    statements = [
        {"Sid": "OnlyTls", **refuse, "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        {"Sid": "OnlyTls12", **refuse, "Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}}},
    ]
    document = {"Version": "2012-10-17", "Statement": statements}
    return {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": document}}


def repository() -> Template:
    """As `make push` wants it: tags are never moved, every image is scanned."""
    rule = {
        "rulePriority": 1,
        "description": "images without a tag",
        "selection": {
            "tagStatus": "untagged",
            "countType": "sinceImagePushed",
            "countUnit": "days",
            "countNumber": UNTAGGED_DAYS,
        },
        "action": {"type": "expire"},
    }
    properties = {
        "RepositoryName": when("HasRepositoryName", {"Ref": "RepositoryName"}, {"Ref": "Project"}),
        "ImageTagMutability": MUTABILITY,
        "ImageScanningConfiguration": {"ScanOnPush": True},
        "EncryptionConfiguration": when(
            "HasKey", {"EncryptionType": "KMS", "KmsKey": {"Ref": "KmsKeyArn"}}, {"EncryptionType": "AES256"}
        ),
        "LifecyclePolicy": {"LifecyclePolicyText": json.dumps({"rules": [rule]})},
        "Tags": tags(),
    }
    return kept({"Type": "AWS::ECR::Repository", "Properties": properties})


def build_log() -> Template:
    """Made here rather than by CodeBuild, which would keep it without end and without the key."""
    properties = {
        "LogGroupName": substitute(f"/aws/codebuild/{FULL.build_name}"),
        "RetentionInDays": LOG_DAYS,
        "KmsKeyId": when("HasKey", {"Ref": "KmsKeyArn"}),
        "Tags": tags(),
    }
    return kept({"Type": "AWS::Logs::LogGroup", "Condition": "HasBuild", "Properties": properties})


def build_project() -> Template:
    """Runs buildspec.yml as its head asks: Docker in privileged mode, the whole history, the role `build`."""
    base = {"Name": "BASE_IMAGE", "Type": "PLAINTEXT", "Value": {"Ref": "BaseImage"}}
    variables = [
        {"Name": "REPOSITORY", "Type": "PLAINTEXT", "Value": {"Ref": "Repository"}},
        when("HasBaseImage", base),
    ]
    properties = {
        "Name": substitute(FULL.build_name),
        "ServiceRole": {"Fn::GetAtt": [resource_name("Role", "build"), "Arn"]},
        "Artifacts": {"Type": "NO_ARTIFACTS"},
        "Environment": {
            "Type": "LINUX_CONTAINER",
            "ComputeType": BUILD_SIZE,
            "Image": BUILD_IMAGE,
            "PrivilegedMode": True,
            "EnvironmentVariables": variables,
        },
        "Source": {
            "Type": {"Ref": "SourceType"},
            "Location": when("IsCodeCommit", substitute(CODECOMMIT_ADDRESS), {"Ref": "SourceLocation"}),
            "GitCloneDepth": when("IsS3", NOTHING, 0),
        },
        "LogsConfig": {"CloudWatchLogs": {"Status": "ENABLED", "GroupName": {"Ref": "BuildLog"}}},
        "EncryptionKey": when("HasKey", {"Ref": "KmsKeyArn"}),
        "TimeoutInMinutes": BUILD_MINUTES,
        "Tags": tags(),
    }
    return {"Type": "AWS::CodeBuild::Project", "Condition": "HasBuild", "Properties": properties}


def outputs() -> Template:
    """The stack's outputs."""
    values: Template = {
        "BucketName": {"Value": {"Ref": "Bucket"}},
        "RepositoryUri": {"Value": {"Fn::GetAtt": ["Repository", "RepositoryUri"]}},
    }
    for kind in ROLES:
        name = resource_name("Role", kind)
        values[name] = {"Value": {"Fn::GetAtt": [name, "Arn"]}} | ({"Condition": "HasBuild"} if kind == "build" else {})
    for kind in PEOPLE:
        values[resource_name("Policy", kind)] = {"Value": {"Ref": resource_name("Policy", kind)}}
    values["BuildProject"] = {"Value": {"Ref": "Build"}, "Condition": "HasBuild"}
    return values
