"""`make push` with the real engine and a real registry, Debian's docker-registry on loopback; ECR's API is a stand-in.

The image is tiny, because compressing gigabytes takes minutes.
"""

import base64
import io
import json
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import uuid

import boto3
import botocore
import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.infrastructure import push
from tests.support import loopback

PASSWORD = "word-of-the-test"  # in bcrypt, the only kind that the registry accepts:
HASH = "$2b$04$MPMoTCs/XhJ/Qf6N1GSpEeK1XeH7JseHfMssqYS3lV1i1qPQvswVm"
BASIC = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


def docker(*arguments, stdin=b""):
    return subprocess.run(["docker", *arguments], input=stdin, check=True, capture_output=True).stdout.decode().strip()


def get(url, **headers):
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {BASIC}", **headers})
    with urllib.request.urlopen(request) as response:
        return response.headers, response.read().decode()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Address of a registry with a password."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed (a package of Debian's)")
    folder, port = tmp_path_factory.mktemp("registry"), loopback.free_port()
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    (folder / "htpasswd").write_text(f"AWS:{HASH}\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                get(f"http://127.0.0.1:{port}/v2/")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Ecr(loopback.Handler):
    """The four ECR calls of a push, answered from the registry."""

    def post(self):
        asked = json.loads(self.read())
        answer = getattr(self, botocore.xform_name(self.headers["X-Amz-Target"].split(".")[-1]))(asked)
        text = json.dumps(answer).encode()
        self.answer(400 if "__type" in answer else 200, text, Content_Type="application/x-amz-json-1.1")

    def describe_repositories(self, asked):
        [name] = asked["repositoryNames"]
        if name not in self.server.repositories:
            return {"__type": "RepositoryNotFoundException", "message": "none"}
        return {"repositories": [self.server.repositories[name]]}

    def create_repository(self, asked):
        self.server.repositories[asked["repositoryName"]] = asked
        return {"repository": asked}

    def get_authorization_token(self, asked):
        data = {"authorizationToken": BASIC, "proxyEndpoint": f"http://{self.server.registry}"}
        return {"authorizationData": [data]}

    def batch_get_image(self, asked):
        [tag] = [image["imageTag"] for image in asked["imageIds"]]
        url = f"http://{self.server.registry}/v2/{asked['repositoryName']}/manifests/{tag}"
        try:
            headers, manifest = get(url, Accept=", ".join(asked["acceptedMediaTypes"]))
        except urllib.error.HTTPError:
            return {"images": [], "failures": [{"failureCode": "ImageNotFound", "failureReason": "none"}]}
        found = {"imageId": {"imageDigest": headers["Docker-Content-Digest"]}, "imageManifest": manifest}
        return {"images": [found], "failures": []}


@pytest.fixture
def ecr(registry, monkeypatch, tmp_path):
    with loopback.listening(Ecr, registry=registry, repositories={}) as server:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_CONFIG_FILE": "/nowhere",
            "DOCKER_CONFIG": str(tmp_path / "docker"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        yield server


@pytest.fixture
def tiny(registry):
    """A function that builds an image of one file under one name; another text gives another image."""
    name = f"push-{uuid.uuid4().hex[:8]}"

    def build(text):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("file")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        docker(
            "import",
            "--change",
            f"LABEL {push.BASE_LABEL}=scratch@sha256:{'0' * 64}",
            "-",
            f"{name}:1",
            stdin=archive.getvalue(),
        )

    build("first")
    yield name, build
    for reference in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
        if name in reference:
            docker("image", "rm", reference)


def test_what_was_pushed_can_be_pulled_by_the_digest_that_is_printed(ecr, tiny, registry, capfd, tmp_path):
    name, _ = tiny
    image = docker("image", "inspect", "--format", "{{.Id}}", f"{name}:1")

    assert main(["push", "--image", f"{name}:1", "--create"]) == 0

    printed = capfd.readouterr()
    [address] = printed.out.splitlines()
    assert address.startswith(f"{registry}/{name}@sha256:")
    assert PASSWORD not in printed.err
    assert not (tmp_path / "docker").exists()  # no credentials are left where Docker keeps them
    docker("image", "rm", f"{name}:1", f"{registry}/{name}:1")
    docker("login", "--username", "AWS", "--password-stdin", registry, stdin=PASSWORD.encode())
    docker("pull", address)
    assert docker("image", "inspect", "--format", "{{.Id}}", address) == image
    docker("image", "rm", address)


def test_a_second_push_finds_the_image_and_another_image_is_refused(ecr, tiny, capfd):
    name, build = tiny
    main(["push", "--image", f"{name}:1", "--create"])
    first = capfd.readouterr().out

    assert main(["push", "--image", f"{name}:1"]) == 0
    assert capfd.readouterr().out == first

    build("second")
    assert main(["push", "--image", f"{name}:1"]) == 2
    assert "is another image in the registry" in capfd.readouterr().err


def test_a_wrong_password_ends_it_with_the_registrys_word(ecr, tiny, capfd, monkeypatch):
    monkeypatch.setattr(Ecr, "get_authorization_token", lambda self, asked: {"authorizationData": [{
        "authorizationToken": base64.b64encode(b"AWS:wrong").decode(),
        "proxyEndpoint": f"http://{self.server.registry}"}]})  # fmt: skip

    assert main(["push", "--image", f"{tiny[0]}:1", "--create"]) == 2

    error = capfd.readouterr().err
    assert "`docker login` failed" in error
    assert "unauthorized" in error.lower()
