"""Push the image to Amazon ECR and print its address by digest, which SageMaker needs (`make push`).

Only that address goes to standard output, everything else to standard error. ECR's password goes to `docker login`
through its standard input and into a Docker configuration that is thrown away: neither a command line, a log nor
~/.docker holds it.

An image is pushed only if what it was built on is named by digest: a tag of the base moves, and then nobody can say
what the image is, or build it again. `docker build` notes BASE_IMAGE in the image's label.

A tag is never moved to another image. So the tag of a working tree with uncommitted changes (`-dirty`) is refused, and
pushing the same image twice is not an error.
"""

import argparse
import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sagemaker_monai_aws.core.command import Context
from sagemaker_monai_aws.core.errors import CommandError

# SageMaker starts these. It refuses lists of images, which BuildKit creates for its attestations.
MANIFESTS = ["application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"]
LISTS = ["application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json"]
BASE_LABEL = "org.opencontainers.image.base.name"  # of the OCI Image Specification's annotations
HOW_TO_FIND_A_DIGEST = "after a pull `docker image inspect --format '{{index .RepoDigests 0}}' NAME:TAG` prints it"
# Kept of the user's Docker configuration: where the engine is, but no credentials.
KEPT_FOLDERS = ("contexts", "cli-plugins")
LEFT_OUT = ("auths", "credsStore", "credHelpers")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options beside those that all commands have."""
    parser.add_argument("--create", action="store_true", help="create the repository if there is none")


def work(context: Context) -> int:
    """Push, or print what would be done."""
    options = context.options
    if not options.image:
        raise CommandError("name the image: --image NAME:TAG, as `make push` does")
    name, tag = split_reference(options.image)
    repository = options.repository or name
    if options.dry_run:
        plan(options, repository, tag)
        return 0
    print(push(context, repository, tag))
    return 0


def split_reference(reference: str) -> tuple[str, str]:
    """Name and tag of NAME:TAG.

    Raises:
        CommandError: there is no tag, or it is none to push.
    """
    name, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag or "@" in name:
        raise CommandError(f"NAME:TAG is needed, got {reference!r}")
    if tag.endswith("-dirty"):
        raise CommandError(f"the image {reference} was built with changes that no commit has: commit them and build "
                        "again, or name it yourself with TAG=")  # fmt: skip
    return name, tag


def settings(repository: str, kms_key: str | None) -> dict[str, Any]:
    """The repository that `--create` makes: private as all of ECR's, its tags fixed, every image scanned."""
    encryption = {"encryptionType": "KMS", "kmsKey": kms_key} if kms_key else {"encryptionType": "AES256"}
    return {
        "repositoryName": repository,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": True},
        "encryptionConfiguration": encryption,
    }


def plan(options: argparse.Namespace, repository: str, tag: str) -> None:
    """Print what a run would do."""
    registry = f"ACCOUNT.dkr.ecr.{options.region or 'REGION'}.amazonaws.com"
    if options.create:
        print(f"would create, if it is not there: {json.dumps(settings(repository, options.kms_key))}")
    for step in commands(options.image, f"{registry}/{repository}:{tag}", registry):
        print(f"would run: {shlex.join(step)}")
    print(f"would print: {registry}/{repository}@sha256:...")


def commands(image: str, target: str, registry: str) -> list[list[str]]:
    """What Docker is asked to do; the login reads the password from its standard input."""
    return [
        ["docker", "login", "--username", "AWS", "--password-stdin", registry],
        ["docker", "tag", image, target],
        ["docker", "push", target],
    ]


def push(context: Context, repository: str, tag: str) -> str:
    """Push, unless the registry has it.

    Returns:
        The image's address by digest, as the registry reports it.

    Raises:
        CommandError: the image, the repository or Docker is not there, or the tag is another image's.
    """
    options = context.options
    local_id = inspect(options.image)
    ecr = context.account.client("ecr")
    ensure_repository(ecr, options, repository)
    # The token's own endpoint is the registry's address: it is right in every partition of AWS.
    [token] = ecr.get_authorization_token()["authorizationData"]
    registry = token["proxyEndpoint"].split("://", 1)[1]
    there = find(ecr, repository, tag)
    if there is None:
        context.after_interrupt = "pushed layers stay: the same command continues"
        password = base64.b64decode(token["authorizationToken"]).decode().split(":", 1)[1]
        send(commands(options.image, f"{registry}/{repository}:{tag}", registry), password)
        there = find(ecr, repository, tag)
        if there is None:
            raise CommandError(f"the registry does not know {repository}:{tag} although Docker pushed it: try again")
    elif local_id not in (there["digest"], there["config"]):
        raise CommandError(
            f"{repository}:{tag} is another image in the registry ({there['digest']}), and tags are never moved: "
            "build and push with another TAG="
        )
    else:
        print(f"push: the registry has {repository}:{tag} already", file=sys.stderr)
    if there["media_type"] not in MANIFESTS:
        raise CommandError(f"{repository}:{tag} is a list of images ({there['media_type']}), which SageMaker refuses: "
                        "build with BUILDX_NO_DEFAULT_ATTESTATIONS=1 and push with another TAG=")  # fmt: skip
    return f"{registry}/{repository}@{there['digest']}"


def has_digest(image: str) -> bool:
    """Whether an image is named by what it is, and not by a tag that moves."""
    return re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", image) is not None


def inspect(image: str) -> str:
    """The local image's id: the digest of its configuration, or in a containerd image store of its manifest.

    Raises:
        CommandError: there is no such image, or what it was built on is not named by digest.
    """
    if shutil.which("docker") is None:
        raise CommandError("Docker is not installed: https://docs.docker.com/engine/install")
    words = ["docker", "image", "inspect", "--format", "[{{json .Id}}, {{json .Config.Labels}}]", image]
    run = subprocess.run(words, check=False, capture_output=True, text=True)
    if run.returncode != 0:
        raise CommandError(f"there is no image {image} here, or Docker does not run ({' '.join(run.stderr.split())}): "
                        "build it with the same TAG=")  # fmt: skip
    local_id, labels = json.loads(run.stdout)
    base = (labels or {}).get(BASE_LABEL, "")
    if not has_digest(base):
        was = f"was built on {base}, a tag that moves" if base else "does not say what it was built on"
        raise CommandError(
            f"{image} {was}: build with BASE_IMAGE=NAME@sha256:... and push that; {HOW_TO_FIND_A_DIGEST}"
        )
    return str(local_id)


def ensure_repository(ecr: Any, options: argparse.Namespace, repository: str) -> None:
    """Find the repository or create it; one that is there stays as it is.

    Raises:
        CommandError: there is none and none was asked for.
    """
    try:
        [found] = ecr.describe_repositories(repositoryNames=[repository])["repositories"]
    except ecr.exceptions.RepositoryNotFoundException as error:
        if not options.create:
            place = f"{repository!r} in {ecr.meta.region_name}"
            raise CommandError(f"there is no repository {place}: PUSH_OPTIONS=--create creates it") from error
        wanted = settings(repository, options.kms_key)
        print(f"push: creating {json.dumps(wanted)}", file=sys.stderr)
        ecr.create_repository(**wanted)
        return
    if found["imageTagMutability"] != "IMMUTABLE":
        print(f"push: tags of {repository} can be moved: use the digest", file=sys.stderr)


def find(ecr: Any, repository: str, tag: str) -> dict[str, str] | None:
    """Digest, media type and configuration's digest of what a tag of the repository means."""
    answer = ecr.batch_get_image(
        repositoryName=repository, imageIds=[{"imageTag": tag}], acceptedMediaTypes=[*MANIFESTS, *LISTS]
    )
    for image in answer["images"]:
        manifest = json.loads(image["imageManifest"])
        media_type = image.get("imageManifestMediaType") or manifest["mediaType"]
        config = manifest.get("config", {}).get("digest", "")
        return {"digest": image["imageId"]["imageDigest"], "media_type": media_type, "config": config}
    for failure in answer["failures"]:
        if failure["failureCode"] != "ImageNotFound":
            raise CommandError(f"the registry refuses to describe {repository}:{tag}: {failure['failureReason']}")
    return None


def send(steps: list[list[str]], password: str) -> None:
    """Log in, tag and push; Docker's progress is shown.

    Raises:
        CommandError: one of them failed.
    """
    with docker_without_credentials() as run:
        for step in steps:
            is_login = "login" in step
            print(f"$ {shlex.join(step)}", file=sys.stderr, flush=True)
            # What a login prints is of no use unless it fails: it warns of the password in the folder that is removed.
            result = run(step, input=password if is_login else None, text=True,
                         stdout=subprocess.PIPE if is_login else sys.stderr.fileno(),
                         stderr=subprocess.STDOUT if is_login else None)  # fmt: skip
            if result.returncode != 0:
                reason = f": {' '.join(result.stdout.split())}" if is_login else ", for the reason above"
                raise CommandError(f"`{shlex.join(step[:2])}` failed{reason}")


@contextmanager
def docker_without_credentials() -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """`subprocess.run` with a Docker configuration that is the user's except the credentials, removed afterwards."""
    users = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with tempfile.TemporaryDirectory(prefix="push-") as folder:
        config = json.loads((users / "config.json").read_bytes()) if (users / "config.json").exists() else {}
        kept = {name: value for name, value in config.items() if name not in LEFT_OUT}
        (Path(folder) / "config.json").write_text(json.dumps(kept))
        for name in KEPT_FOLDERS:
            if (users / name).exists():
                (Path(folder) / name).symlink_to((users / name).resolve())
        environment = os.environ | {"DOCKER_CONFIG": folder}
        yield lambda words, **options: subprocess.run(words, check=False, env=environment, **options)
