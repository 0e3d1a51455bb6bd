"""The life cycle of a model in the offline SageMaker, for both back ends; every answer must match the evaluation."""

import csv
import io
import json
import re
import time

from tests.support.simulated import ROLE, channel

HYPERPARAMETERS = {
    "epochs": "10",
    "image_size": "32",
    "network": "efficientnet-b0",
    "num_workers": "1",
    "batch_size": "8",
}
METRICS = [{"Name": "test:accuracy", "Regex": r"test_accuracy=([0-9.]+)"},
           {"Name": "validation:loss", "Regex": r"validation_loss=([0-9.e-]+)"}]  # fmt: skip
GROUP = "/aws/sagemaker/TrainingJobs"
TOLERANCE = 1e-5  # float32 sums in batches of another size
BUCKET = "life"


def upload(aws, folder):
    """Upload a folder of pictures to s3://life/data."""
    aws.bucket(BUCKET)
    for path in folder.rglob("*.png"):
        aws.put(BUCKET, f"data/{path.relative_to(folder).as_posix()}", path.read_bytes())


def training_job(name, *, hosts=1, **changes):
    """A spot job without a network."""
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "HyperParameters": HYPERPARAMETERS,
        "AlgorithmSpecification": {"TrainingImage": "registry/thing@sha256:0", "TrainingInputMode": "File",
                                   "MetricDefinitions": METRICS},
        "InputDataConfig": [channel("training", f"s3://{BUCKET}/data/")],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
        "EnableManagedSpotTraining": True,
        "EnableNetworkIsolation": True,
        "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints/{name}"},
    } | changes  # fmt: skip


def wait_for_job(aws, name):
    return aws.wait("training_job", "TrainingJobStatus", seconds=240, TrainingJobName=name)


def train_with_interruption(aws, name):
    """Train on an instance that vanishes once the first checkpoint is in S3; returns the finished job."""
    aws.sagemaker.create_training_job(**training_job(name))
    deadline = time.monotonic() + 120
    while not [key for key in aws.keys(BUCKET, f"checkpoints/{name}/") if key.endswith(".pt")]:
        assert time.monotonic() < deadline, aws.log(GROUP, name)
        time.sleep(0.1)
    aws.simulation.world.interrupt_after_s = 0
    try:
        return wait_for_job(aws, name)
    finally:
        aws.simulation.world.interrupt_after_s = None


def check_that_it_went_on(aws, job):
    """Train on two instances: no epoch may be missing or come twice."""
    statuses = [each["Status"] for each in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading", "Training",
                        "Uploading", "Completed"], job.get("FailureReason")  # fmt: skip
    first, second = aws.log(GROUP, f"{job['TrainingJobName']}/").values()
    assert any(line.startswith("SIGTERM: stopping after this step") for line in first)
    [begun] = [match for line in second if (match := re.match(r"resuming from epoch (\d+) of 10", line))]
    epochs = [int(match[1]) for line in first + second if (match := re.match(r"epoch=(\d+);", line))]
    assert epochs == [*range(1, 11)]
    assert len([line for line in first if line.startswith("epoch=")]) == int(begun[1]) - 1
    metrics = {each["MetricName"]: each["Value"] for each in job["FinalMetricDataList"]}
    [loss] = [float(re.search(r"validation_loss=([0-9.e-]+)", line)[1]) for line in second if "epoch=10;" in line]
    assert metrics["validation:loss"] == loss
    assert 0 <= metrics["test:accuracy"] <= 1


def evaluation(aws, job):
    """The job's own evaluation of the test split: object name -> class -> probability."""
    place = f"s3://{BUCKET}/jobs/{job['TrainingJobName']}/output/output.tar.gz"
    rows = csv.DictReader(io.StringIO(aws.files(place)["test_predictions.csv"].decode()))
    return {row["image"].removeprefix("./"): {name: float(row[name]) for name in ("dark", "light", "mid")}
            for row in rows}  # fmt: skip


def model(aws, name, artifact, **changes):
    container = {"Image": "registry/thing@sha256:0", "ModelDataUrl": artifact, **changes}
    aws.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container,
                               EnableNetworkIsolation=True)  # fmt: skip


def deploy(aws, name, model_name, **config):
    """An endpoint in service."""
    variant = {"VariantName": "AllTraffic", "ModelName": model_name, "InstanceType": "ml.m5.large",
               "InitialInstanceCount": 1}  # fmt: skip
    aws.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    found = aws.wait("endpoint", "EndpointStatus", seconds=120, EndpointName=name)
    assert found["EndpointStatus"] == "InService", found["FailureReason"]


def delete(aws, name):
    aws.sagemaker.delete_endpoint(EndpointName=name)
    aws.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def check_answer(body, expected):
    [prediction] = json.loads(body)["predictions"]
    assert prediction["predicted_class"] == max(expected, key=expected.get)
    assert prediction["probabilities"].keys() == expected.keys()
    assert all(abs(prediction["probabilities"][name] - value) < TOLERANCE for name, value in expected.items())


def check_endpoint(aws, endpoint, expected, **words):
    """Check that every answer about the test split matches the evaluation."""
    for name, probabilities in expected.items():
        answer = aws.invoke(endpoint, aws.get(f"s3://{BUCKET}/data/{name}"), ContentType="image/png", **words)
        check_answer(answer["Body"].read(), probabilities)


def check_queue(aws, endpoint, expected):
    places = {}
    for name in expected:
        words = {"InputLocation": f"s3://{BUCKET}/data/{name}", "ContentType": "image/png"}
        answer = aws.runtime.invoke_endpoint_async(EndpointName=endpoint, **words)
        places[name] = answer["OutputLocation"]
    keys = {place.removeprefix(f"s3://{BUCKET}/") for place in places.values()}
    deadline = time.monotonic() + 90
    while not keys <= set(aws.keys(BUCKET, "async/")):
        assert time.monotonic() < deadline, aws.keys(BUCKET, "async/")
        time.sleep(0.05)
    for name, probabilities in expected.items():
        check_answer(aws.get(places[name]), probabilities)


def check_batch(aws, name, model_name, expected):
    place = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data/test/"}}
    aws.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model_name,
        MaxConcurrentTransforms=2,
        TransformInput={"DataSource": place, "ContentType": "image/png"},
        TransformOutput={"S3OutputPath": f"s3://{BUCKET}/transform/{name}", "Accept": "application/json"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    job = aws.wait("transform_job", "TransformJobStatus", seconds=120, TransformJobName=name)
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    outputs = {f"transform/{name}/{key.removeprefix('test/')}.out": value for key, value in expected.items()}
    assert sorted(aws.keys(BUCKET, f"transform/{name}/")) == sorted(outputs)
    for key, probabilities in outputs.items():
        check_answer(aws.get(f"s3://{BUCKET}/{key}"), probabilities)
