"""Train, serve, predict and run a script with the SageMaker Python SDK v3 on this machine (see test_sdk3.py).

    SDK3_PYTHON tests/image/sdk3_local_mode.py IMAGE CHANNEL PICTURES OUT PORT

It does what a notebook does with `Mode.LOCAL_CONTAINER`, with folders instead of S3 and without an AWS account. It
runs in the SDK's own Python and so imports nothing of ours. Writes OUT/answers.json.

ModelTrainer names no command: the image finds the job's files and trains. LocalSession serves, because ModelBuilder
asks STS for the account or IAM about the role first, and always pulls the image from a registry.
"""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import boto3
from sagemaker.core.local import LocalSession
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.model_trainer import Mode

OWN_SCRIPT = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--note")
note = parser.parse_args().note
channel = pathlib.Path(os.environ["SM_CHANNEL_TRAINING"])
pathlib.Path(os.environ["SM_MODEL_DIR"], "note").write_text(f"{note} {len(list(channel.iterdir()))}")
"""
HYPERPARAMETERS = {"epochs": 1, "image_size": 32, "network": "resnet18", "num_workers": 1, "batch_size": 8}


def train(root: Path, image: str, channel: Path, **options: Any) -> Path:
    """Run a job.

    Returns:
        The path of its artifact, which ModelTrainer logs but does not return.
    """
    root.mkdir()
    trainer = ModelTrainer(
        training_mode=Mode.LOCAL_CONTAINER,
        training_image=image,
        compute=Compute(instance_type="local_cpu", instance_count=1),
        local_container_root=str(root),
        **options,
    )
    trainer.train([InputData(channel_name="training", data_source=str(channel))])
    return root / "compressed_artifacts" / "model.tar.gz"


def read_member(artifact: Path, name: str) -> str:
    """A text file of an artifact."""
    with tarfile.open(artifact) as tar:
        return tar.extractfile(name).read().decode()


def predict(out: Path, image: str, artifact: Path, pictures: Path, port: int) -> dict[str, Any]:
    """Ask an endpoint about every picture.

    Returns:
        Its answers by the pictures' names.
    """
    session = LocalSession(
        boto_session=boto3.Session("key", "secret", region_name="eu-central-1"),
        sagemaker_config={"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}},
    )
    root = out / "containers"
    root.mkdir()
    session.config = {"local": {"serving_port": port, "container_root": str(root)}}
    client, runtime = session.sagemaker_client, session.sagemaker_runtime_client
    container = {"Image": image, "ModelDataUrl": f"file://{artifact}", "Environment": {}}
    variant = {"VariantName": "a", "ModelName": "local", "InstanceType": "local", "InitialInstanceCount": 1}
    client.create_model("local", container)
    client.create_endpoint_config("local", [variant])
    client.create_endpoint("local", "local")
    common = {"EndpointName": "local", "ContentType": "image/png", "Accept": "application/json"}
    try:
        answers = {path: runtime.invoke_endpoint(Body=path.read_bytes(), **common) for path in pictures.iterdir()}
        return {path.name: json.loads(answer["Body"].read()) for path, answer in answers.items()}
    finally:
        client.delete_endpoint("local")


def main() -> None:
    """Run the steps."""
    image, *folders, port = sys.argv[1:]
    channel, pictures, out = (Path(folder).resolve() for folder in folders)
    artifact = train(out / "train", image, channel, hyperparameters=HYPERPARAMETERS)

    source = out / "source"
    source.mkdir()
    (source / "own.py").write_text(OWN_SCRIPT)
    code = SourceCode(source_dir=str(source), entry_script="own.py")
    own = train(out / "own", image, pictures, hyperparameters={"note": "ab"}, source_code=code)

    answers = {
        "training": json.loads(read_member(artifact, "configs/train.json")),
        "predictions": predict(out, image, artifact, pictures, int(port)),
        "own": read_member(own, "note"),
    }
    (out / "answers.json").write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
