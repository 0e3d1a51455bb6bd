"""The roles and policies of the stack: those of policies.py, with CloudFormation's variables in the place of values.

What depends on a parameter (a key, a VPC, a source) is a policy of its own with a condition, rather than a condition
inside of a list of statements: so it can be read, and what is equal in several roles stands there once.
"""

import json
from typing import Any

from sagemaker_monai_aws.core.names import CREATED_BY
from sagemaker_monai_aws.infrastructure.policies import KINDS, ROLES, trust
from sagemaker_monai_aws.infrastructure.policy_statements import Scope, Source, document

Template = dict[str, Any]

PLAIN = Scope(
    account="${AWS::AccountId}",
    region="${AWS::Region}",
    bucket="${Bucket}",
    partition="${AWS::Partition}",
    dns_suffix="${AWS::URLSuffix}",
    project="${Project}",
    prefix="${Prefix}",
    repository="${Repository}",
)
FULL = Scope(
    **vars(PLAIN)
    | {
        "kms_key": "${KmsKeyArn}",
        "subnets": ("${SubnetArns}",),
        "security_groups": ("${SecurityGroupArns}",),
        "sources": (
            Source("CODECOMMIT", PLAIN.arn("codecommit", "${SourceLocation}")),
            Source("S3", "arn:${AWS::Partition}:s3:::${SourceLocation}"),
        ),
    }
)
LISTS = ("${SubnetArns}", "${SecurityGroupArns}")
NOTHING = {"Ref": "AWS::NoValue"}
# What people may do with the key; without one, with a key that nobody has.
KEY_IF_ANY = {"Fn::If": ["HasKey", "${KmsKeyArn}", PLAIN.arn("kms", "key/none")]}
# Condition -> the statements of FULL that are there only under it; PLAIN has the others.
OPTIONAL = {
    "HasKey": ("UseKeyForObjects", "UseKeyForVolumes", "LookAtKey"),
    "HasVpc": ("CreateInterfaces", "UseInterfaces", "LookAtNetwork"),
    "IsCodeCommit": ("FetchCODECOMMIT",),
    "IsS3": ("FetchS3",),
}


def when(condition: str, value: Any, other: Any = NOTHING) -> Template:
    """A value under a condition, another one without."""
    return {"Fn::If": [condition, value, other]}


def substitute(value: Any) -> Any:
    """A value whose texts have `${...}`, in CloudFormation's functions.

    A list with one of LISTS becomes one text with commas, which is split: a list cannot be put into a list.
    """
    if isinstance(value, dict):
        return {name: substitute(part) for name, part in value.items()}
    if isinstance(value, list):
        if any(name in value for name in LISTS):
            return {"Fn::Split": [",", substitute(",".join(value))]}
        return [substitute(part) for part in value]
    if isinstance(value, str) and "${" in value:
        is_reference = value.startswith("${") and value.index("}") == len(value) - 1
        return {"Ref": value[2:-1]} if is_reference else {"Fn::Sub": value}
    return value


def resource_name(what: str, kind: str) -> str:
    """Name of a role or policy in the template."""
    return what + kind.capitalize()


def tags() -> list[Template]:
    """As the commands give them."""
    return [{"Key": "project", "Value": {"Ref": "Project"}}, {"Key": "created-by", "Value": CREATED_BY}]


def role(kind: str) -> Template:
    """An execution role; its policies are inline, so nothing else can use them."""
    properties = {
        "RoleName": substitute(FULL.role_name(kind)),
        "Description": str(KINDS[kind].__doc__).partition(":")[0],
        "AssumeRolePolicyDocument": substitute(trust(FULL, kind)),
        "Policies": [{"PolicyName": kind, "PolicyDocument": substitute(KINDS[kind](PLAIN))}],
        "Tags": tags(),
    }
    resource = {"Type": "AWS::IAM::Role", "Properties": properties}
    return {"Condition": "HasBuild", **resource} if kind == "build" else resource


def managed_policy(kind: str) -> Template:
    """A managed policy for people or groups, which the stack does not attach.

    It has no description, because another one would make it another policy, whose name is taken.
    """
    plain, full = KINDS[kind](PLAIN), KINDS[kind](FULL)
    # Written twice, with a key and without, the longest policies would make the template too long to be sent.
    listed = [each if each in plain["Statement"] else each | {"Resource": KEY_IF_ANY} for each in full["Statement"]]
    body = substitute(document(*listed))
    properties = {
        "ManagedPolicyName": substitute(FULL.role_name(kind)),
        "PolicyDocument": body,
    }
    return {"Type": "AWS::IAM::ManagedPolicy", "Properties": properties}


def optional_policies() -> dict[str, Template]:
    """What roles may do under a condition, as policies that are written into them."""
    groups: dict[tuple[str, str], list[str]] = {}
    for kind in ROLES:
        for condition, sids in OPTIONAL.items():
            parts = [statement for statement in KINDS[kind](FULL)["Statement"] if statement["Sid"] in sids]
            needed = "BuildHasKey" if (kind, condition) == ("build", "HasKey") else condition
            if parts:
                groups.setdefault((needed, json.dumps(document(parts))), []).append(kind)
    return {
        needed + "".join(kind.capitalize() for kind in kinds): {
            "Type": "AWS::IAM::Policy",
            "Condition": needed,
            "Properties": {
                "PolicyName": needed,
                "PolicyDocument": substitute(json.loads(text)),
                "Roles": [{"Ref": resource_name("Role", kind)} for kind in kinds],
            },
        }
        for (needed, text), kinds in groups.items()
    }
