"""The examples of docs/sdk.md, run unchanged by the SDKs' own Pythons against an AWS on loopback."""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from sagemaker_monai.tasks.metric_names import metric_definitions
from tests.image import sdk
from tests.support import loopback
from tests.support.cloud import ACCOUNT, BUCKET, REGION, REGISTRY, Cloud, environment

ROOT = Path(__file__).resolve().parents[2]
# For each SDK: the variable that names its Python, and an import that only its example has.
EXAMPLES = {"SDK_PYTHON": "sagemaker.estimator", "SDK3_PYTHON": "sagemaker.train"}
IMAGE = f"{REGISTRY}/sagemaker-monai:1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/sagemaker-monai-{REGION}"
PICTURE = b"a picture"
ANSWER = {"predictions": [{"predicted_class": "nv"}]}
# Runs an example without the SDK's pauses of up to 30 s between polls.
START = """
import runpy, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.05))
runpy.run_path("example.py", run_name="__main__")
"""


def example(mark):
    [text] = [each for each in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sdk.md").read_text(), re.DOTALL)
              if f"from {mark} import" in each]  # fmt: skip
    return text


class Recorder(loopback.Handler):
    """Passes requests on to moto and records them, because moto's descriptions of a job mix in another job's data."""

    def pass_on(self):
        body = self.read() if "Content-Length" in self.headers else b""
        operation = self.headers.get("X-Amz-Target", "").removeprefix("SageMaker.")
        if operation:
            self.server.asked[operation] = json.loads(body)
        elif self.path.endswith("/invocations"):
            self.server.asked["InvokeEndpoint"] = body
        status, headers, content = loopback.request(*self.server.behind, self.command, self.path, body, self.headers)
        if operation.startswith("Describe"):
            # AWS omits what a model or endpoint does not have; moto answers {} or null, which SDK v3 rejects.
            said = json.loads(content)
            content = json.dumps({name: value for name, value in said.items() if value not in ({}, None)}).encode()
        self.answer(status, content, Content_Type=headers.get("Content-Type", "application/x-amz-json-1.1"))

    post = get = pass_on


def let_endpoints_answer(cloud, answer):
    """Set an answer of moto."""
    result = {"Body": json.dumps(answer), "ContentType": "application/json"}
    body = json.dumps({"account_id": ACCOUNT, "region": REGION, "results": [result]}).encode()
    headers = {"Content-Type": "application/json"}
    url = f"{cloud.endpoint}/moto-api/static/sagemaker/endpoint-results"
    urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)).read()


def make_roles(cloud):
    service = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    for kind in ("training", "hosting"):
        trust = json.dumps({"Version": "2012-10-17", "Statement": [service]})
        cloud.client("iam").create_role(RoleName=f"sagemaker-monai-{REGION}-{kind}", AssumeRolePolicyDocument=trust)


@pytest.fixture(scope="module", params=EXAMPLES)
def finished(request, moto_endpoint, tmp_path_factory):
    """An example's requests by operation, its last output, and the account that it left."""
    python = sdk.sdk_python(request.param)
    folder = tmp_path_factory.mktemp("example")
    cloud = Cloud(moto_endpoint)
    cloud.reset()
    make_roles(cloud)
    let_endpoints_answer(cloud, ANSWER)
    (folder / "lesion.jpg").write_bytes(PICTURE)
    (folder / "example.py").write_text(example(EXAMPLES[request.param]))
    host, port = moto_endpoint.removeprefix("http://").split(":")
    with loopback.listening(Recorder, behind=(host, int(port)), asked={}) as recorder:
        variables = environment("http://{}:{}".format(*recorder.server_address)) | {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT / "container_src"),
            "SAGEMAKER_VALIDATE_ROLE": "false",
        }
        run = subprocess.run([python, "-c", START], cwd=folder, env=variables, capture_output=True, text=True,
                             timeout=300)  # fmt: skip
    assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
    return recorder.asked, run.stdout.splitlines()[-1], cloud.client("sagemaker")


def test_an_example_asks_for_the_job_that_it_describes(finished):
    job = finished[0]["CreateTrainingJob"]
    assert job["AlgorithmSpecification"]["TrainingImage"] == IMAGE
    assert job["AlgorithmSpecification"]["MetricDefinitions"] == metric_definitions()
    assert job["RoleArn"] == f"{ROLE}-training"
    given = {name: value.strip('"') for name, value in job["HyperParameters"].items()}  # v2 writes strings as JSON
    assert given == {"network": "resnet18", "image_size": "224", "epochs": "30"}
    [channel] = job["InputDataConfig"]
    assert channel["ChannelName"] == "training"
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"s3://{BUCKET}/monai/data/lesions/"
    assert (job["EnableManagedSpotTraining"], job["EnableNetworkIsolation"]) == (True, True)
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 14400, "MaxWaitTimeInSeconds": 28800}
    assert job["CheckpointConfig"]["S3Uri"] == f"s3://{BUCKET}/monai/checkpoints/lesions"
    assert job["OutputDataConfig"]["S3OutputPath"] == f"s3://{BUCKET}/monai/jobs"


def test_an_example_serves_the_artifact_of_its_job(finished):
    asked, printed, _ = finished
    model = asked["CreateModel"]
    artifact = f"s3://{BUCKET}/monai/jobs/{asked['CreateTrainingJob']['TrainingJobName']}/output/model.tar.gz"
    assert model["PrimaryContainer"]["Image"] == IMAGE
    assert model["PrimaryContainer"]["ModelDataUrl"] == artifact
    assert (model["ExecutionRoleArn"], model["EnableNetworkIsolation"]) == (f"{ROLE}-hosting", True)
    assert asked["InvokeEndpoint"] == PICTURE
    assert "nv" in printed


def test_an_example_leaves_nothing_that_costs(finished):
    assert "CreateEndpoint" in finished[0]
    assert finished[2].list_endpoints()["Endpoints"] == []
    assert finished[2].list_endpoint_configs()["EndpointConfigs"] == []
    assert finished[2].list_models()["Models"] == []
