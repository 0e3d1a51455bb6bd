"""An image's CUDA version, from its configuration in ECR; no layer is downloaded."""

import json
import re

from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.places import MANIFEST_TYPES

ADDRESS = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.[^/]+/(?P<repository>[^@:]+)@(?P<digest>sha256:[0-9a-f]{64})")
VARIABLE = "CUDA_VERSION"  # of nvidia/cuda, and so of all that is built on it
REMEDY = "say it with --cuda 12.4, name an AMI with --inference-ami, or take an instance without a GPU"


def cuda_of(account: Account, image: str) -> str:
    """The image's CUDA_VERSION, e.g. "12.4.1".

    Args:
        account: where it lies.
        image: address by digest.

    Raises:
        CommandError: ECR does not have it, or it names none.
    """
    match = ADDRESS.fullmatch(image)
    found = match and account.read("ecr", "BatchGetImage", registryId=match["account"],
                                   repositoryName=match["repository"], imageIds=[{"imageDigest": match["digest"]}],
                                   acceptedMediaTypes=MANIFEST_TYPES)  # fmt: skip
    if not match or not found or not found["images"]:
        raise CommandError(f"the CUDA version of {image} cannot be looked up in ECR: {REMEDY}")
    config = json.loads(found["images"][0]["imageManifest"])["config"]["digest"]
    place = account.client("ecr").get_download_url_for_layer(
        registryId=match["account"], repositoryName=match["repository"], layerDigest=config
    )
    values = json.loads(_fetch(place["downloadUrl"])).get("config") or {}
    variables = dict(line.partition("=")[::2] for line in values.get("Env") or [])
    version = variables.get(VARIABLE)
    if not version:
        raise CommandError(f"{image} does not state its CUDA version ({VARIABLE}): {REMEDY}")
    return str(version)


def _fetch(url: str) -> bytes:
    answer = URLLib3Session(timeout=30).send(AWSRequest(method="GET", url=url).prepare())
    if answer.status_code != 200:
        raise CommandError(f"the configuration of the image cannot be downloaded (HTTP {answer.status_code}): {REMEDY}")
    return bytes(answer.content)
