"""Print least-privilege policies (`make iam`): of each kind of role and for people, for this bucket, prefix, ...

Nothing is created, and with `--account` and `--region` AWS is not contacted. It is for accounts in which another person
creates the roles; `make infra` creates a stack with the same policies.
"""

import argparse
import json
import re
from collections.abc import Iterable
from typing import Any

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.serving.references import parse_prefixes
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.command import Context
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.names import default_bucket
from sagemaker_monai_aws.infrastructure.policies import KINDS, ROLES, trust
from sagemaker_monai_aws.infrastructure.policy_statements import Scope, Source

NAME = "iam"
SOURCES = {
    r"https://github\.com/[\w.-]+/[\w.-]+": "GITHUB",
    r"https://git-codecommit\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/v1/repos/([\w.-]+)": "CODECOMMIT",
    r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+)": "S3",
}
HTTPS_OR_S3 = "https://github.com/OWNER/NAME, CodeCommit's address for cloning over HTTPS, or s3://BUCKET/KEY.zip"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--account", help="twelve digits (default: whose credentials boto3 finds)")
    parser.add_argument("--trust", action="store_true", help="print who may take the role, too")
    parser.add_argument("--allow-prefix", nargs="+", default=[], metavar="S3URI",
                        help="hosting and batch: s3://bucket/folder/, as for `make deploy`")  # fmt: skip
    parser.add_argument("--source", help=f"what CodeBuild builds: {HTTPS_OR_S3}")


def work(context: Context) -> int:
    """Print one policy document, or several by kind with the trust policies of roles."""
    options = context.options
    for kind in options.kinds:
        if kind not in KINDS:
            raise CommandError(f"there is no kind {kind!r}: take some of {', '.join(KINDS)}")
    scope = scope_of(context.account, options)
    kinds = options.kinds or list(KINDS)
    if len(kinds) == 1 and not options.trust:
        print(json.dumps(KINDS[kinds[0]](scope), indent=2))
        return 0
    print(json.dumps({kind: both(scope, kind) for kind in kinds}, indent=2))
    return 0


def both(scope: Scope, kind: str) -> dict[str, Any]:
    """Trust and policy of a role; people take on nothing and have only a policy."""
    return ({"trust": trust(scope, kind)} if kind in ROLES else {}) | {"policy": KINDS[kind](scope)}


def scope_of(account: Account, options: argparse.Namespace) -> Scope:
    """What the settings of a command are about.

    Raises:
        CommandError: a setting is not of the form that a policy can have.
    """
    number = options.account or account.number
    if not re.fullmatch(r"[0-9]{12}", number):
        raise CommandError(f"an account is twelve digits, got {number!r}")
    kind, location = split_source(options.source) if options.source else ("NONE", "")
    plain = Scope(
        account=number,
        region=account.region,
        bucket=options.bucket or default_bucket(options.project, number, account.region),
        partition=account.partition,
        dns_suffix=account.dns_suffix,
        project=options.project,
        prefix=options.prefix.strip("/"),
        repository=options.repository or options.project,
    )
    arns = {"CODECOMMIT": plain.arn("codecommit", location), "S3": f"arn:{plain.partition}:s3:::{location}"}
    return Scope(
        **vars(plain)
        | {
            "kms_key": key_arn(plain, options.kms_key) if options.kms_key else None,
            "subnets": network_arns(plain, "subnet", options.subnets),
            "security_groups": network_arns(plain, "security-group", options.security_groups),
            "named_by_requests": named_by_requests(getattr(options, "allow_prefix", [])),
            "sources": (Source(kind, arns[kind]),) if kind in arns else (),
        }
    )


def key_arn(scope: Scope, key: str) -> str:
    """ARN of a KMS key, from its ARN or id.

    Raises:
        CommandError: it is an alias, which IAM does not follow.
    """
    if "alias/" in key:
        raise CommandError(f"policies need a key's ARN or id, and {key!r} is an alias: `aws kms describe-key` shows it")
    return key if key.startswith("arn:") else scope.arn("kms", f"key/{key}")


def named_by_requests(uris: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Bucket and beginning of the keys of each folder that requests may name objects of.

    Raises:
        CommandError: one is no folder in S3.
    """
    try:
        return tuple((each.bucket, each.key_prefix) for each in parse_prefixes(" ".join(uris)))
    except ConfigError as error:
        raise CommandError(f"--allow-prefix: {error}") from error


def network_arns(scope: Scope, kind: str, names: Iterable[str]) -> tuple[str, ...]:
    """ARNs of subnets or security groups, from their ids or ARNs."""
    return tuple(name if name.startswith("arn:") else scope.arn("ec2", f"{kind}/{name}") for name in names)


def split_source(source: str) -> tuple[str, str]:
    """CodeBuild's type of a source, and what it calls its place: address, repository's name or BUCKET/KEY.

    Raises:
        CommandError: it is none that CodeBuild is set up for here.
    """
    for pattern, kind in SOURCES.items():
        match = re.fullmatch(pattern, source)
        if match:
            return kind, match[match.lastindex or 0]
    raise CommandError(f"a source is {HTTPS_OR_S3}; got {source!r}")
