"""Fit, deploy, predict, batch-transform and run a script with the SageMaker Python SDK's local mode (see test_sdk.py).

    SDK_PYTHON tests/image/sdk_local_mode.py IMAGE CHANNEL PICTURES OUT PORT

It does what a notebook does with `instance_type="local"`, with folders instead of S3 and without an AWS account. It
runs in the SDK's own Python and so imports nothing of ours. Writes OUT/answers.json.
"""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import boto3
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.serializers import IdentitySerializer

ROLE = "arn:aws:iam::123456789012:role/local"  # required, but unused in local mode
OWN_SCRIPT = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--note")
note = parser.parse_args().note
channel = pathlib.Path(os.environ["SM_CHANNEL_TRAINING"])
pathlib.Path(os.environ["SM_MODEL_DIR"], "note").write_text(f"{note} {len(list(channel.iterdir()))}")
"""
HYPERPARAMETERS = {"epochs": 1, "image_size": 32, "network": "resnet18", "num_workers": 1, "batch_size": 8}


def local_session(out: Path, port: int) -> LocalSession:
    """A session that calls no AWS service."""
    session = LocalSession(
        boto_session=boto3.Session("key", "secret", region_name="eu-central-1"),
        sagemaker_config={"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}},
    )
    (out / "containers").mkdir()
    session.config = {"local": {"local_code": True, "serving_port": port, "container_root": str(out / "containers")}}
    return session


def run_own_script(out: Path, **common: Any) -> str:
    """Run a job with its own script, which is mounted and not copied to S3.

    Returns:
        What the script wrote to its model.
    """
    source = out / "source"
    source.mkdir()
    (source / "own.py").write_text(OWN_SCRIPT)
    estimator = Estimator(
        **common,
        entry_point="own.py",
        source_dir=str(source),
        hyperparameters={"note": "ab"},
        output_path=f"file://{out}/own",
    )
    estimator.fit({"training": f"file://{out.parent}/pictures"})
    with tarfile.open(out / "own" / "model.tar.gz") as tar:
        return tar.extractfile("note").read().decode()


def main() -> None:
    """Run the steps."""
    image, *folders, port = sys.argv[1:]
    channel, pictures, out = (Path(folder).resolve() for folder in folders)
    session = local_session(out, int(port))
    common = {"image_uri": image, "role": ROLE, "instance_count": 1, "instance_type": "local"}
    common["sagemaker_session"] = session
    estimator = Estimator(**common, hyperparameters=HYPERPARAMETERS, output_path=f"file://{out}/model")
    estimator.fit({"training": f"file://{channel}"})

    predictor = estimator.deploy(
        initial_instance_count=1,
        instance_type="local",
        serializer=IdentitySerializer("image/png"),
        deserializer=JSONDeserializer(),
    )
    try:
        predictions = {path.name: predictor.predict(path.read_bytes()) for path in sorted(pictures.iterdir())}
    finally:
        predictor.delete_endpoint()

    transformer = estimator.transformer(
        instance_count=1,
        instance_type="local",
        strategy="SingleRecord",
        output_path=f"file://{out}/transformed",
        accept="application/json",
    )
    # Without `wait`, which would ask CloudWatch for the log; in local mode the call blocks anyway.
    transformer.transform(f"file://{pictures}", content_type="image/png", wait=False)

    transformed = {path.name: json.loads(path.read_text()) for path in sorted((out / "transformed").iterdir())}
    answers = {"model_data": estimator.model_data, "predictions": predictions, "transformed": transformed}
    answers["own"] = run_own_script(out, **common)
    (out / "answers.json").write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
