"""Errors between a command and AWS, each in one line with the remedy."""

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

LOG_IN = "log in, for example with `aws sso login`, or set AWS_PROFILE or PROFILE="

# Error code of AWS -> what to do about it.
REMEDIES = {
    "AccessDenied": "`make iam` prints the policies that allow it",
    "AccessDeniedException": "`make iam` prints the policies that allow it",
    "UnrecognizedClientException": LOG_IN,
    "InvalidClientTokenId": LOG_IN,
    "InvalidAccessKeyId": LOG_IN,
    "SignatureDoesNotMatch": "the secret key does not belong to the access key, or this machine's clock is wrong",
    "ExpiredToken": LOG_IN,
    "ExpiredTokenException": LOG_IN,
    "RequestExpired": "this machine's clock is wrong, or log in again",
    "ResourceLimitExceeded": "ask for a higher quota in Service Quotas (Amazon SageMaker), or take another type",
    "ThrottlingException": "AWS wants fewer requests: run the same command again in a minute, it resumes",
    "NoSuchBucket": "`make infra` creates the bucket, or name another with BUCKET=",
}


class CommandError(Exception):
    """An error that the caller can correct; the message says how."""


class UnfinishedError(CommandError):
    """Something was started and did not succeed; the message says what is left and how to continue."""


def code_of(error: ClientError) -> str:
    """AWS's code of a refusal, e.g. "ValidationException"."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: ClientError) -> bool:
    """Whether AWS says that something does not exist; SageMaker says so with a ValidationException."""
    code, message = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    return code in MISSING or (
        code in ("ValidationException", "ValidationError") and re.search(MISSING_WORDS, message, re.I) is not None
    )


MISSING = frozenset((
    "404", "NoSuchKey", "NoSuchBucket", "NotFound", "NoSuchEntity", "ResourceNotFound", "ResourceNotFoundException",
    "ObjectNotFoundException", "RepositoryNotFoundException", "ImageNotFoundException", "ChangeSetNotFound",
))  # fmt: skip
MISSING_WORDS = "could not find|not found|does not exist|no scalable target|requested resource"


def explain(error: Exception) -> str:
    """One line: what is wrong and what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, NoRegionError):
        return "no AWS region is known: give REGION=, set AWS_REGION, or put REGION into config.env"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, TokenRetrievalError)):
        return f"no AWS credentials are found: {LOG_IN}"
    if isinstance(error, ProfileNotFound):
        return f"{text}: `aws configure list-profiles` lists those that there are"
    if isinstance(error, EndpointConnectionError):
        return f"AWS cannot be reached ({text}): is the region right, and is there a network?"
    if isinstance(error, ClientError):
        operation, code = error.operation_name, code_of(error)
        message = " ".join(str(error.response.get("Error", {}).get("Message", "")).split())
        remedy = REMEDIES.get(code)
        return f"AWS refuses {operation} ({code}): {message}" + (f"; {remedy}" if remedy else "")
    if isinstance(error, BotoCoreError):
        return f"AWS was not asked: {text}"
    return text
