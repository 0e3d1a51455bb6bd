"""What `make push` asks ECR (moto, on loopback) and Docker (a program that notes what it is asked) to do."""

import base64
import json
import sys
from pathlib import Path

import boto3
import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.infrastructure import push

CONFIG = "sha256:" + "c" * 64
BASE = "registry/pytorch@sha256:" + "b" * 64
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": push.MANIFESTS[0],
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": CONFIG},
    "layers": [],
}
# Notes every call as a line of JSON, and for a push gives moto the image.
DOCKER = """#!{python}
import json, os, sys
from pathlib import Path
here = Path(sys.argv[0]).parent
words = sys.argv[1:]
stdin = sys.stdin.read() if "--password-stdin" in words else ""
config = Path(os.environ.get("DOCKER_CONFIG", here))
held = sorted(os.listdir(config)) if config.exists() else []
note = {{"words": words, "stdin": stdin, "folder": str(config), "held": held}}
note["config"] = json.loads((config / "config.json").read_text()) if "config.json" in held else None
with (here / "notes").open("a") as notes:
    notes.write(json.dumps(note) + "\\n")
if words[0] == (here / "failing").read_text():
    sys.exit("no " + words[0])
if words[0] == "image":
    print(json.dumps([(here / "id").read_text(), json.loads((here / "labels").read_text())]))
if words[0] == "push":
    print("Layer pushed")
    import boto3
    repository, tag = words[1].split("/", 1)[1].split(":")
    manifest = (here / "manifest").read_text()
    boto3.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)
"""


@pytest.fixture
def ecr(cloud):
    return cloud.client("ecr")


class Docker:
    def __init__(self, folder):
        self.folder = folder
        (folder / "docker").write_text(DOCKER.format(python=sys.executable))
        (folder / "docker").chmod(0o755)
        self.set(
            labels=json.dumps({push.BASE_LABEL: BASE}), id=CONFIG, manifest=json.dumps(MANIFEST), failing="", notes=""
        )

    def set(self, **files):
        for name, text in files.items():
            (self.folder / name).write_text(text)

    @property
    def calls(self):
        return [json.loads(line) for line in (self.folder / "notes").read_text().splitlines()]

    @property
    def verbs(self):
        return [call["words"][0] for call in self.calls]


@pytest.fixture
def docker(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-config"))
    return Docker(folder)


def test_a_repository_is_created_with_fixed_tags_and_scanning_and_the_digest_is_the_last_line(ecr, docker, capfd):
    assert main(["push", "--image", "thing:1", "--create"]) == 0

    [made] = ecr.describe_repositories(repositoryNames=["thing"])["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}
    digest = ecr.describe_images(repositoryName="thing")["imageDetails"][0]["imageDigest"]
    printed = capfd.readouterr()
    assert printed.out == f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/thing@{digest}\n"
    assert "Layer pushed" in printed.err  # the progress of a long push is seen
    target = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/thing:1"
    assert [call["words"] for call in docker.calls][-2:] == [["tag", "thing:1", target], ["push", target]]


def test_the_password_goes_through_standard_input_into_a_folder_that_goes(ecr, docker, capfd):
    main(["push", "--image", "thing:1", "--create"])

    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    password = base64.b64decode(token).decode().removeprefix("AWS:")
    [login] = [call for call in docker.calls if call["words"][0] == "login"]
    assert login["stdin"] == password
    assert password not in " ".join(word for call in docker.calls for word in call["words"])
    printed = capfd.readouterr()
    assert password not in printed.out + printed.err
    assert not Path(login["folder"]).exists()


def test_dockers_configuration_is_the_users_but_for_credentials(ecr, docker, tmp_path, monkeypatch):
    users = tmp_path / "users"
    (users / "contexts").mkdir(parents=True)
    config = {"currentContext": "colima", "auths": {"r": {"auth": "c2VjcmV0"}}, "credsStore": "s", "credHelpers": {}}
    (users / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(users))

    main(["push", "--image", "thing:1", "--create"])

    pushed = docker.calls[-1]
    assert pushed["config"] == {"currentContext": "colima"}
    assert pushed["held"] == ["config.json", "contexts"]
    assert json.loads((users / "config.json").read_text()) == config


def test_a_kms_key_encrypts_the_new_repository(ecr, docker):
    main(["push", "--image", "thing:1", "--repository", "team/other", "--create", "--kms-key", "alias/mine"])

    [made] = ecr.describe_repositories(repositoryNames=["team/other"])["repositories"]
    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": "alias/mine"}


def test_the_same_image_is_not_pushed_twice(ecr, docker, capfd):
    main(["push", "--image", "thing:1", "--create"])
    first = capfd.readouterr().out

    assert main(["push", "--image", "thing:1"]) == 0

    assert capfd.readouterr().out == first
    assert docker.verbs == ["image", "login", "tag", "push", "image"]


def test_a_tag_is_never_moved(ecr, docker, capfd):
    main(["push", "--image", "thing:1", "--create"])
    docker.set(id="sha256:" + "d" * 64)

    assert main(["push", "--image", "thing:1"]) == 2

    error = capfd.readouterr().err.splitlines()[-1]
    assert "thing:1 is another image in the registry" in error
    assert "TAG=" in error
    assert docker.verbs.count("push") == 1


def test_a_list_of_images_is_not_given_to_sagemaker(ecr, docker, capfd):
    docker.set(manifest=json.dumps({"schemaVersion": 2, "mediaType": push.LISTS[1], "manifests": []}))

    assert main(["push", "--image", "thing:1", "--create"]) == 2

    printed = capfd.readouterr()
    assert printed.out == ""
    assert "BUILDX_NO_DEFAULT_ATTESTATIONS=1" in printed.err


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({push.BASE_LABEL: "registry/pytorch:2.13"}, "was built on registry/pytorch:2.13, a tag that moves"),
        ({push.BASE_LABEL: "registry/pytorch@sha256:12"}, "a tag that moves"),
        ({push.BASE_LABEL: BASE + "0"}, "a tag that moves"),
        ({}, "does not say what it was built on"),
        (None, "does not say what it was built on"),
    ],
)
def test_what_was_built_on_a_tag_is_not_pushed(ecr, docker, capfd, labels, message):
    docker.set(labels=json.dumps(labels))

    assert main(["push", "--image", "thing:1", "--create"]) == 2

    [error] = capfd.readouterr().err.splitlines()
    assert message in error
    assert "build with BASE_IMAGE=NAME@sha256:..." in error
    assert docker.verbs == ["image"]


def test_a_repository_whose_tags_can_move_is_used_and_said(ecr, docker, capfd):
    ecr.create_repository(repositoryName="thing", imageTagMutability="MUTABLE")

    assert main(["push", "--image", "thing:1", "--create"]) == 0

    assert "tags of thing can be moved" in capfd.readouterr().err


def test_a_dry_run_asks_nobody_and_prints_everything(docker, capfd, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    assert main(["push", "--image", "thing:1", "--create", "--region", "eu-west-1", "--dry-run"]) == 0

    registry = "ACCOUNT.dkr.ecr.eu-west-1.amazonaws.com"
    created, *ran, printed = capfd.readouterr().out.splitlines()
    assert '"imageTagMutability": "IMMUTABLE"' in created
    assert ran == [
        f"would run: docker login --username AWS --password-stdin {registry}",
        f"would run: docker tag thing:1 {registry}/thing:1",
        f"would run: docker push {registry}/thing:1",
    ]
    assert printed == f"would print: {registry}/thing@sha256:..."
    assert docker.calls == []


@pytest.mark.parametrize(
    ("image", "failing", "message"),
    [
        ("thing", "", "NAME:TAG is needed, got 'thing'"),
        ("host:5000/thing", "", "NAME:TAG is needed"),
        ("thing@sha256:12", "", "NAME:TAG is needed"),
        ("thing:v1-3-gabc-dirty", "", "changes that no commit has: commit them"),
        ("thing:1", "image", "there is no image thing:1 here"),
        ("thing:1", "", "there is no repository 'thing' in eu-central-1: PUSH_OPTIONS=--create creates it"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_remedy(ecr, docker, capfd, image, failing, message):
    docker.set(failing=failing)

    assert main(["push", "--image", image]) == 2

    [error] = capfd.readouterr().err.splitlines()
    assert message in error
    assert "push" not in docker.verbs


@pytest.mark.parametrize(("failing", "message"), [("login", "`docker login` failed: no"), ("push", "failed, for")])
def test_dockers_own_failure_is_passed_on(ecr, docker, capfd, failing, message):
    docker.set(failing=failing)

    assert main(["push", "--image", "thing:1", "--create"]) == 2

    printed = capfd.readouterr()
    assert message in printed.err
    assert f"no {failing}" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["AWS_DEFAULT_REGION"], "no AWS region is known: give REGION="),
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "no AWS credentials are found"),
    ],
)
def test_without_an_account_one_is_told_what_is_missing(ecr, docker, capfd, monkeypatch, names, message):
    with monkeypatch.context() as patch:
        for name in names:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        assert main(["push", "--image", "thing:1"]) == 2

    [error] = capfd.readouterr().err.splitlines()
    assert message in error
