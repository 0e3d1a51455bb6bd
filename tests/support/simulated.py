"""The simulation with fake containers and short limits, and requests for it."""

import http.client
import io
import json
import sys
import tarfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from simulate.limits import Limits
from simulate.processes import ProcessRunner
from simulate.server import simulated_aws
from tests.support.models import shared_models

ROLE = "arn:aws:iam::123456789012:role/somebody"
FAKE = [sys.executable, str(Path(__file__).with_name("fake_container.py"))]
QUICK = Limits(
    job_stop_s=1, spot_wait_s=0.1, poll_s=0.02, sync_s=0.1, ping_timeout_s=0.3, ping_interval_s=0.05, startup_s=3,
    serverless_startup_s=3, serve_stop_s=0.5, invoke_s=1, bake_s=0.6, async_queue=3, batch_retries=1,
)  # fmt: skip
DONE = ("Completed", "Failed", "Stopped", "InService")


class Aws:
    """A simulation and clients for it."""

    def __init__(self, simulation, notes):
        self.simulation, self.url, self.notes = simulation, simulation.url, notes
        self.s3, self.sagemaker, self.runtime, self.logs = map(
            self.client, ("s3", "sagemaker", "sagemaker-runtime", "logs")
        )

    def client(self, name, region="eu-central-1"):
        once = Config(retries={"total_max_attempts": 1})
        return boto3.client(name, region_name=region, endpoint_url=self.url, aws_access_key_id="key",
                            aws_secret_access_key="secret", config=once)  # fmt: skip

    def bucket(self, name, **objects):
        """Create a bucket with objects; `__` in their names stands for a slash."""
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        for key, body in objects.items():
            self.put(name, key.replace("__", "/"), body)

    def put(self, bucket, key, body):
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, uri):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, bucket, prefix=""):
        found = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return [each["Key"] for each in found]

    def files(self, uri):
        """The files of an archive."""
        with tarfile.open(fileobj=io.BytesIO(self.get(uri))) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}

    def log(self, group, prefix):
        """The lines of each stream of a group."""
        streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
        names = sorted(stream["logStreamName"] for stream in streams)
        words = {"logGroupName": group, "startFromHead": True}
        return {name: [each["message"] for each in self.logs.get_log_events(logStreamName=name, **words)["events"]]
                for name in names}  # fmt: skip

    def wait(self, operation, field, *, until=DONE, seconds=30, **name):
        """Describe until a status is reached; returns the description."""
        deadline = time.monotonic() + seconds
        while True:
            found = getattr(self.sagemaker, f"describe_{operation}")(**name)
            if found[field] in until:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def raw(self, operation, request):
        """Status and body of a request that botocore would not send."""
        headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        body = request if isinstance(request, bytes) else json.dumps(request)
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def serve(self, name, *, data=None, config=None, variants=None, wait=True, deploy=True, **environment):
        """Create model, configuration and endpoint of a fake container."""
        container = {"Image": "fake", "Environment": environment, **(data or {})}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        usual = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large",
                 "InitialInstanceCount": 1}  # fmt: skip
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=variants or [usual], **(config or {})
        )
        if deploy:
            self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        if deploy and wait:
            return self.wait("endpoint", "EndpointStatus", EndpointName=name)
        return None

    def invoke(self, endpoint, body=b"hello", **options):
        return self.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, **options)


def training_request(name, behaviour, **changes):
    """The request for a job of a fake container, with output in the bucket `jobs`."""
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": "fake", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://jobs/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "Environment": {"BEHAVIOUR": behaviour},
    } | changes


def channel(name, uri, *, data_type="S3Prefix", **changes):
    source = {"S3DataType": data_type, "S3Uri": uri, **changes.pop("source", {})}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **changes}


@contextmanager
def simulation(folder, *, limits=QUICK, interrupt_after_s=None, runner=None):
    notes = []
    runner = runner or ProcessRunner({name: [*FAKE, name] for name in ("train", "serve")})
    with (
        shared_models(),
        simulated_aws(
            folder, limits=limits, runner=runner, interrupt_after_s=interrupt_after_s, note=notes.append
        ) as started,
        urllib.request.urlopen(f"{started.url}/moto-api/reset", b""),
    ):  # moto keeps one state per process
        yield Aws(started, notes)


def archive(**files):
    """A tar.gz in memory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return packed.getvalue()
