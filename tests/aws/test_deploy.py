"""`make deploy`: the requests of each mode, what is refused, updates, kills, and the prediction that must be right."""

import io
import json
import shutil
import sys
import tarfile
import urllib.request
from types import SimpleNamespace

import botocore.session
import pytest
from botocore.stub import Stubber
from PIL import Image

from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.images.sample import Sample
from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.client.asking import Source
from sagemaker_monai_aws.client.endpoints import Answer
from sagemaker_monai_aws.core import calls, instances
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.trained import Trained
from sagemaker_monai_aws.hosting import deploy, hosting_requests, image_cuda, scaling
from sagemaker_monai_aws.hosting.smoke import Probe, fault_of, find_probes
from simulate.limits import Limits
from simulate.processes import BIN, ProcessRunner
from tests.support import loopback
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, REGION, environment, not_refused, survives_deaths
from tests.support.simulated import channel, simulation, training_request

JOB = f"{PROJECT}-train-0123456789"
ARTIFACT = f"monai/jobs/{JOB}/output/model.tar.gz"
TAGS = [{"Key": "project", "Value": PROJECT}, {"Key": "created-by", "Value": "sagemaker-monai"}]
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{PROJECT}@sha256:{'a' * 64}"
ENDPOINT = f"{PROJECT}-realtime"
CSV = "image,label,predicted,dark,light\nimages/a.png,dark,dark,0.75,0.25\nimages/b.png,light,light,0.1,0.9\n"


def archive(**files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_csv", ".csv").replace("_json", ".json"))
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


METADATA = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "a", "1": "b"}}}}}
MODEL = archive(configs__metadata_json=json.dumps(METADATA))
OUTPUT = archive(test_predictions_csv=CSV)


def fill(cloud):
    """A job of the project that completed, with its data, output and artifact."""
    cloud.make_bucket()
    cloud.put(ARTIFACT, MODEL)
    cloud.put(ARTIFACT.replace("model.tar", "output.tar"), OUTPUT)
    for name in ("a", "b"):
        cloud.put(f"monai/data/training/images/{name}.png", name.encode())
    data = channel("training", f"s3://{BUCKET}/monai/data/training/")
    cloud.client("sagemaker").create_training_job(
        TrainingJobName=JOB, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r", Tags=TAGS, InputDataConfig=[data],
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/monai/jobs"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )  # fmt: skip


@pytest.fixture
def ready(cloud):
    fill(cloud)
    return cloud


def run(*arguments):
    return main(["deploy", "--poll-s", "0", *arguments])


def requested(capsys, *arguments):
    """Operation and request of each call of a dry run."""
    assert run("--dry-run", *arguments) == 0
    return [(each["operation"], each["request"]) for each in json.loads(capsys.readouterr().out)]


def variant_of(planned):
    return dict(planned)["CreateEndpointConfig"]["ProductionVariants"][0]


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def answers(cloud, *bodies):
    """What the endpoint says, one after the other."""
    results = [{"Body": body, "ContentType": "application/json", "InvokedProductionVariant": "AllTraffic",
                "CustomAttributes": ""} for body in bodies]  # fmt: skip
    body = json.dumps({"region": REGION, "results": results}).encode()
    address = f"{cloud.endpoint}/moto-api/static/sagemaker/endpoint-results"
    urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"})).read()


def prediction(**probabilities):
    predicted = max(probabilities, key=probabilities.get)
    return json.dumps({"predictions": [{"predicted_class": predicted, "probabilities": probabilities}]})


# Requests


def test_the_newest_job_is_hosted_with_its_image_without_a_network(ready, capsys):
    planned = requested(capsys)

    assert [name for name, _ in planned] == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    model = dict(planned)["CreateModel"]
    assert model["PrimaryContainer"] == {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{ARTIFACT}",
                                         "Environment": {"MAX_ANSWER_IN_MB": "6"}}  # fmt: skip
    assert model["EnableNetworkIsolation"] is True
    assert model["ExecutionRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-hosting"
    assert variant_of(planned) == {
        "VariantName": "AllTraffic", "ModelName": model["ModelName"], "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large", "ModelDataDownloadTimeoutInSeconds": 120,
        "ContainerStartupHealthCheckTimeoutInSeconds": 300,
    }  # fmt: skip
    assert dict(planned)["CreateEndpoint"]["EndpointName"] == ENDPOINT
    assert all(request["Tags"] == TAGS for _, request in planned)


def test_a_serverless_endpoint_has_memory_and_neither_instances_nor_isolation(ready, capsys):
    planned = requested(capsys, "--mode", "serverless", "--memory-mb", "4096", "--provisioned-concurrency", "2",
                        "--kms-key", "key")  # fmt: skip

    assert dict(planned)["CreateModel"]["EnableNetworkIsolation"] is False
    assert dict(planned)["CreateModel"]["PrimaryContainer"]["Environment"] == {"MAX_ANSWER_IN_MB": "4"}
    assert variant_of(planned) == {
        "VariantName": "AllTraffic", "ModelName": dict(planned)["CreateModel"]["ModelName"],
        "ServerlessConfig": {"MemorySizeInMB": 4096, "MaxConcurrency": 4, "ProvisionedConcurrency": 2},
    }  # fmt: skip
    assert "KmsKeyId" not in dict(planned)["CreateEndpointConfig"]
    assert len(planned) == 3


def test_an_asynchronous_endpoint_writes_encrypted_below_the_layout_and_scales_to_zero_and_back(ready, capsys):
    planned = requested(capsys, "--mode", "async", "--kms-key", "key", "--max-instances", "3")

    output = f"s3://{BUCKET}/monai/async/{PROJECT}-async"
    assert dict(planned)["CreateEndpointConfig"]["AsyncInferenceConfig"] == {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
        "OutputConfig": {"S3OutputPath": f"{output}/output", "S3FailurePath": f"{output}/failure", "KmsKeyId": "key"},
    }
    environment = dict(planned)["CreateModel"]["PrimaryContainer"]["Environment"]
    assert environment == {"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "3600"}
    (_, target), (_, follow), (_, step), (_, alarm) = planned[3:]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3)
    metric = follow["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert step["StepScalingPolicyConfiguration"]["StepAdjustments"] == [
        {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}
    ]
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["AlarmActions"][0].endswith(step["PolicyName"])


def test_batch_makes_a_model_only_and_under_its_own_role(ready, capsys):
    [(name, model)] = requested(capsys, "--mode", "batch", "--subnets", "subnet-1", "--security-groups", "sg-1")

    assert name == "CreateModel"
    assert model["ExecutionRoleArn"].endswith(f"{REGION}-batch")
    assert model["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}


def test_a_multi_model_endpoint_has_a_folder_to_which_the_archive_is_copied(ready, capsys):
    planned = requested(capsys, "--mode", "multi-model", "--min-instances", "1", "--max-instances", "2")

    folder = f"monai/models/{PROJECT}-multi-model/"
    assert planned[0] == ("CopyObject", {"Bucket": BUCKET, "Key": f"{folder}{JOB}.tar.gz",
                                         "CopySource": f"{BUCKET}/{ARTIFACT}"})  # fmt: skip
    model = dict(planned)["CreateModel"]
    assert model["PrimaryContainer"] == {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{folder}",
                                         "Mode": "MultiModel", "Environment": {"MAX_ANSWER_IN_MB": "6"}}  # fmt: skip
    assert model["EnableNetworkIsolation"] is True
    assert "ModelDataDownloadTimeoutInSeconds" not in variant_of(planned)
    metric = planned[-1][1]["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]
    assert metric == {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}


def test_a_folder_is_hosted_uncompressed_where_aws_takes_it(ready, capsys):
    ready.put("monai/plain/model/weights", b"x")
    folder = f"s3://{BUCKET}/monai/plain/model/"
    image = ("--image", IMAGE)

    planned = requested(capsys, "--model", folder, *image)
    assert dict(planned)["CreateModel"]["PrimaryContainer"]["ModelDataSource"] == {
        "S3DataSource": {"S3Uri": folder, "S3DataType": "S3Prefix", "CompressionType": "None"}
    }
    for mode in ("serverless", "batch", "multi-model"):
        assert "needs a compressed artifact" in refused(capsys, "--model", folder, "--mode", mode, *image)


def test_capture_is_off_unless_asked_and_then_encrypted(ready, capsys):
    config = dict(requested(capsys, "--capture", "20", "--kms-key", "key", "--volume-gb", "30"))["CreateEndpointConfig"]

    assert config["DataCaptureConfig"] == {
        "EnableCapture": True, "InitialSamplingPercentage": 20, "KmsKeyId": "key",
        "DestinationS3Uri": f"s3://{BUCKET}/monai/capture/{ENDPOINT}",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }  # fmt: skip
    assert config["KmsKeyId"] == "key"
    assert config["ProductionVariants"][0]["VolumeSizeInGB"] == 30


REFUSED = [
    (["--model", f"s3://{BUCKET}/none.tar.gz", "--image", IMAGE], "there is no s3://"),
    (["--model", "nobody"], "no training job 'nobody'"),
    (["--endpoint", "theirs"], f"begins with {PROJECT}-"),
    (["--min-instances", "0", "--max-instances", "1"], "only MODE=async scales to zero"),
    (["--mode", "serverless", "--max-instances", "1"], "no instances to scale"),
    (["--mode", "serverless", "--subnets", "subnet-1"], "cannot be in a VPC"),
    (["--mode", "serverless", "--capture", "5"], "data capture is not for serverless"),
    (["--mode", "serverless", "--provisioned-concurrency", "5"], "at most --max-concurrency (4)"),
    (["--capture", "101"], "--capture is 1 to 100"),
    (["--instance-count", "0"], "at least 1"),
    (["--instance-type", "ml.g5.xlarge", "--cuda", "12.4", "--volume-gb", "9"], "storage of a fixed size"),
    (["--instance-type", "ml.g5.xlarge", "--cuda", "14.0"], "no AMI of SageMaker is known"),
    (["--instance-type", "ml.g5.xlarge"], "cannot be looked up in ECR: say it with --cuda"),
    (["--mode", "multi-model", "--target", "a/b.tar.gz"], "--target is NAME.tar.gz"),
    (["--instance-type", "ml.none.large"], "InstanceType"),
]


def test_what_cannot_be_is_refused_before_anything_is_created(ready):
    assert not_refused("deploy", REFUSED) == []


# Tables


@pytest.mark.parametrize(("cuda", "driver"), [("11.8", "535"), ("12.2.0", "535"), ("12.4", "550"), ("12.6", "580"),
                                              ("13.0.1", "580"), ("13.2", "580")])  # fmt: skip
def test_the_ami_has_a_driver_for_the_images_cuda_as_botocore_documents_it(cuda, driver):
    ami = hosting_requests.ami_for(cuda)

    service = botocore.session.get_session().get_service_model("sagemaker")
    text = service.shape_for("ProductionVariant").members["InferenceAmiVersion"].documentation
    documented = text[text.index(f"{ami}<") :]
    documented = documented[documented.index("NVIDIA driver version: ") :]
    assert documented.startswith(f"NVIDIA driver version: {driver}")
    version = documented.split("CUDA version: ")[1].split("<")[0]
    if cuda != "13.2":  # newer than the driver's own, within its major version
        assert [int(part) for part in version.split(".")] >= [int(part) for part in cuda.split(".")[:2]]


def test_every_ami_is_one_that_aws_has():
    known = calls.model_of("sagemaker").shape_for("ProductionVariantInferenceAmiVersion").enum
    assert set(hosting_requests.AMIS.values()) <= set(known)


@pytest.mark.parametrize(("instance", "is_local"), [
    ("ml.g4dn.xlarge", True), ("ml.g5.xlarge", True), ("ml.g6e.xlarge", True), ("ml.m5d.large", True),
    ("ml.p4d.24xlarge", True), ("ml.p5.48xlarge", True), ("ml.c6gd.large", True), ("ml.m5.large", False),
    ("ml.c5.xlarge", False), ("ml.p3.2xlarge", False), ("ml.inf2.xlarge", False), ("ml.r6i.large", False),
])  # fmt: skip
def test_types_with_disks_of_their_own_are_known(instance, is_local):
    assert instances.has_own_disks(instance) is is_local


@pytest.mark.parametrize(("mib", "fetch", "start"), [(0, 120, 300), (1000, 220, 350), (100_000, 3600, 3600)])
def test_time_outs_grow_with_the_artifact_within_awss_limits(mib, fetch, start):
    found = hosting_requests.timeouts(mib << 20)
    assert found == {
        "ModelDataDownloadTimeoutInSeconds": fetch,
        "ContainerStartupHealthCheckTimeoutInSeconds": start,
    }


class Layer(loopback.Handler):
    def get(self):
        self.answer(200, json.dumps(self.server.config).encode())


@pytest.mark.parametrize(("variables", "said"), [(["PATH=/bin", "CUDA_VERSION=12.4.1"], "12.4.1"), ([], None)])
def test_the_images_cuda_is_read_from_its_configuration(ready, variables, said):
    ecr = ready.client("ecr")
    manifest = {"config": {"digest": "sha256:" + "c" * 64}}
    account = SimpleNamespace(client=lambda _: ecr, read=lambda _service, _operation, **words:
                              ecr.batch_get_image(**words))  # fmt: skip
    with loopback.listening(Layer, config={"config": {"Env": variables}}) as server, Stubber(ecr) as stub:
        digest = {"imageDigest": "sha256:" + "a" * 64}
        layer = {"registryId": ACCOUNT, "repositoryName": PROJECT, "layerDigest": "sha256:" + "c" * 64}
        place = {"downloadUrl": f"http://127.0.0.1:{server.server_port}/layer"}
        stub.add_response("batch_get_image", {"images": [{"imageManifest": json.dumps(manifest)}]},
                          {"registryId": ACCOUNT, "repositoryName": PROJECT, "imageIds": [digest],
                           "acceptedMediaTypes": image_cuda.MANIFEST_TYPES})  # fmt: skip
        stub.add_response("get_download_url_for_layer", place, layer)
        if said:
            assert image_cuda.cuda_of(account, IMAGE) == said
        else:
            with pytest.raises(image_cuda.CommandError, match="does not state its CUDA version"):
                image_cuda.cuda_of(account, IMAGE)


# Against moto


def test_it_is_deployed_scaled_and_asked_and_a_second_start_finds_it(ready, capsys):
    answers(ready, prediction(dark=0.7502, light=0.2498), prediction(dark=0.1, light=0.9))

    assert run("--max-instances", "3") == 0
    printed = capsys.readouterr()
    first = json.loads(printed.out)
    assert first["EndpointName"] == ENDPOINT
    assert printed.err.count("as the job's evaluation did") == 2
    target = ready.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert [(each["MinCapacity"], each["MaxCapacity"]) for each in target["ScalableTargets"]] == [(1, 3)]

    assert run("--max-instances", "3") == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(ready.client("sagemaker").list_models()["Models"]) == 1
    assert run() == 0  # and without a range there is no autoscaling any more
    target = ready.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert target["ScalableTargets"] == []


def test_a_wrong_answer_is_a_failure_that_says_what_was_expected_and_what_stays(ready, capsys):
    answers(ready, prediction(dark=0.6, light=0.4))

    assert run() == 1
    said = capsys.readouterr().err
    assert "dark=0.750000 was expected within 0.001, got 0.600000" in said
    assert f"`make delete ENDPOINT={ENDPOINT}`" in said


def test_an_artifact_of_no_job_must_answer_with_its_own_classes(ready, capsys, tmp_path):
    ready.put("other/model.tar.gz", MODEL)
    (tmp_path / "x.png").write_bytes(b"a picture")  # moto takes no bytes that are no text
    words = ["--model", f"s3://{BUCKET}/other/model.tar.gz", "--image", IMAGE, "--smoke", f"{tmp_path / 'x.png'}=b"]
    answers(ready, prediction(a=0.4, b=0.6))
    assert run(*words) == 0

    (tmp_path / "x.png").write_bytes(b"another")
    answers(ready, prediction(b=0.6, c=0.4))
    assert run(*words, "--endpoint", f"{PROJECT}-other") == 1
    assert "the labels a, b were expected, got b, c" in capsys.readouterr().err


def test_an_endpoint_of_others_stays_as_it_is(ready, capsys):
    sagemaker = ready.client("sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="c")

    assert "was not made by these commands" in refused(capsys)
    assert sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"] == "c"
    assert len(sagemaker.list_models()["Models"]) == 1


def test_archives_of_a_multi_model_endpoint_are_added_and_never_replaced(ready, capsys):
    words = ["--mode", "multi-model", "--no-smoke", "--target", "one.tar.gz"]
    place = f"monai/models/{PROJECT}-multi-model/one.tar.gz"
    assert run(*words) == 0
    assert ready.get(place) == ready.get(ARTIFACT)
    assert run(*words) == 0

    ready.put(ARTIFACT, b"another model")
    assert "give this one another --target" in refused(capsys, *words)
    assert run(*words[:-1], "two.tar.gz") == 0
    assert len(ready.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]) == 1


def state_of(cloud):
    sagemaker = cloud.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    targets = cloud.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    return (
        endpoint["EndpointConfigName"],
        [model["ModelName"] for model in sagemaker.list_models()["Models"]],
        [config["EndpointConfigName"] for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]],
        [(each["MinCapacity"], each["MaxCapacity"]) for each in targets["ScalableTargets"]],
        sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"],
    )


@pytest.mark.long
def test_a_deployment_that_is_killed_anywhere_and_repeated_leaves_what_one_leaves(cloud):
    words = ["--poll-s", "0", "--max-instances", "2", "--model", JOB, "--no-smoke"]  # a prediction changes nothing
    assert survives_deaths(cloud, "deploy", words, lambda: fill(cloud), lambda: state_of(cloud)) >= 20


# Answers

SENT = Source("a.png", "a.png", "image/png", 1, None)
KNOWN = Probe(SENT, frozenset({"dark", "light"}), {"dark": 0.5004, "light": 0.4996}, "dark", 1e-3)


@pytest.mark.parametrize(("body", "said"), [
    (prediction(dark=0.5001, light=0.4999), None),
    (prediction(dark=0.4999, light=0.5001), None),  # a tie within the tolerance
    (prediction(dark=0.502, light=0.498), "dark=0.500400 was expected"),
    (prediction(dark=0.5004, light=0.4), "sum to 1"),
    (prediction(dark=0.5, grey=0.5), "the labels dark, light were expected"),
    (json.dumps({"predictions": [{"predicted_class": "light", "probabilities": {"dark": 0.5004, "light": 0.4996}}]}),
     "the most probable class was expected"),
    ("[]", "one prediction"), ("<html>", "one prediction"), (json.dumps({"predictions": []}), "one prediction"),
])  # fmt: skip
def test_an_answer_is_right_only_with_the_classes_and_probabilities_of_the_evaluation(body, said):
    fault = fault_of(KNOWN, Answer("application/json", body.encode()))
    assert fault is None if said is None else said in fault


def test_a_refusal_is_no_answer_and_a_known_class_must_come():
    assert "UndecodableImage" in fault_of(KNOWN, Answer(code="UndecodableImage", message="no"))
    known = Probe(SENT, predicted="light")
    assert "'light' was expected" in fault_of(known, Answer("", prediction(dark=0.9, light=0.1).encode()))
    assert fault_of(known, Answer("", prediction(dark=0.1, light=0.9).encode())) is None


# Updates


def options(*words):
    parser = deploy.argparse.ArgumentParser()
    deploy.add_options(parser)
    return parser.parse_args(list(words))


@pytest.mark.parametrize(("words", "kind"), [
    (["--instance-count", "4", "--canary", "25"], "CANARY"),
    (["--instance-count", "4", "--update", "all-at-once"], "ALL_AT_ONCE"),
    ([], "ALL_AT_ONCE"),  # one instance has no half
])  # fmt: skip
def test_an_update_moves_a_part_first_and_rolls_back_by_alarms(words, kind):
    call = hosting_requests.update_call(options(*words), ENDPOINT, "new", ["one", "two"], keep_count=False)

    calls.check(call)
    deployment = call.request["DeploymentConfig"]
    routing = deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == kind
    assert routing.get("CanarySize") == ({"Type": "CAPACITY_PERCENT", "Value": 25} if kind == "CANARY" else None)
    assert deployment["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "one"}, {"AlarmName": "two"}]}


def test_alarms_are_of_server_errors_and_latency_and_tagged():
    words = options()
    words.project, words.tags = PROJECT, {}
    errors, slow = scaling.rollback_alarms(words, ENDPOINT)

    for call in (errors, slow):
        calls.check(call)
        assert call.request["Tags"] == TAGS
        assert call.request["AlarmName"].startswith(f"{ENDPOINT}-")
    assert (errors.request["MetricName"], errors.request["Threshold"]) == ("Invocation5XXErrors", 0.05)
    assert (slow.request["MetricName"], slow.request["Threshold"]) == ("ModelLatency", 30_000_000)


# The offline SageMaker, with the real server

PACK = "import shutil, sys; shutil.copytree(sys.argv[1], '.', dirs_exist_ok=True)"


@pytest.mark.long
def test_a_real_server_answers_as_the_job_wrote_and_an_update_that_does_not_is_found_out(
    tmp_path, small_bundle, monkeypatch, capsys
):
    def pack(digits):
        """What training would leave; `digits` is the first class's probability in its table."""
        row = [digits, *(f"{expected[name]}" for name in names[1:])]
        folder = tmp_path / "made" / "output" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        text = f"image,label,predicted,{','.join(names)}\na.png,nv,{best},{','.join(row)}\n"
        (folder / "test_predictions.csv").write_text(text)

    def job(aws, name):
        aws.sagemaker.create_training_job(**training_request(
            name, "", Tags=TAGS, InputDataConfig=[channel("training", f"s3://{BUCKET}/data/")],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/jobs"},
            AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"}))  # fmt: skip
        found = aws.wait("training_job", "TrainingJobStatus", TrainingJobName=name)
        assert found["TrainingJobStatus"] == "Completed", found

    picture = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(picture, "PNG")
    [answer] = Predictor.read(small_bundle).predict([Sample(picture.getvalue())])
    expected, best = answer.probabilities, answer.predicted_class
    names = list(expected)
    shutil.copytree(small_bundle, tmp_path / "made" / "model")
    pack(f"{expected[names[0]]}")
    programs = {"train": [sys.executable, "-c", PACK, str(tmp_path / "made")], "serve": [str(BIN / "serve")]}
    words = ["--poll-s", "0.1", "--environment", "SAGEMAKER_MODEL_SERVER_WORKERS=1"]
    limits = Limits(sync_s=0.2, poll_s=0.02, ping_interval_s=0.05, bake_s=0.1)
    with simulation(tmp_path / "aws", limits=limits, runner=ProcessRunner(programs)) as aws:
        for name, value in environment(aws.url).items():
            monkeypatch.setenv(name, value)
        aws.bucket(BUCKET)
        aws.put(BUCKET, "data/a.png", picture.getvalue())
        job(aws, f"{PROJECT}-train-right")
        assert main(["deploy", *words]) == 0
        said = capsys.readouterr()
        assert "a.png as the job's evaluation did" in said.err
        first = json.loads(said.out)["EndpointConfigName"]

        pack(f"{expected[names[0]] + 0.1}")
        job(aws, f"{PROJECT}-train-wrong")
        assert main(["deploy", *words, "--model", f"{PROJECT}-train-wrong"]) == 1
        said = capsys.readouterr().err
        assert f"{names[0]}={expected[names[0]] + 0.1:.6f} was expected" in said
        assert f"--endpoint-config-name {first}` goes back" in said


def test_an_update_moves_to_the_new_fleet_scales_again_and_goes_back_when_an_alarm_rings(tmp_path, monkeypatch, capsys):
    with simulation(tmp_path) as aws:
        for name, value in environment(aws.url).items():
            monkeypatch.setenv(name, value)
        aws.bucket(BUCKET)
        aws.sagemaker.create_training_job(**training_request(JOB, "report", Tags=TAGS, OutputDataConfig={
            "S3OutputPath": f"s3://{BUCKET}/jobs"}))  # fmt: skip
        aws.wait("training_job", "TrainingJobStatus", TrainingJobName=JOB)
        words = ["--poll-s", "0.05", "--no-smoke", "--image", IMAGE, "--max-instances", "4", "--model", JOB]
        assert main(["deploy", *words]) == 0
        capsys.readouterr()

        assert main(["deploy", *words, "--instance-count", "2", "--canary", "30"]) == 0
        new = json.loads(capsys.readouterr().out)["EndpointConfigName"]
        found = aws.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        assert found["EndpointConfigName"] == new
        routing = found["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
        assert routing["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": 30}
        targets = aws.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
        assert [(each["MinCapacity"], each["MaxCapacity"]) for each in targets["ScalableTargets"]] == [(2, 4)]
        cloudwatch = aws.client("cloudwatch")
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix=ENDPOINT)["MetricAlarms"]
        assert sorted(each["AlarmName"] for each in alarms) == [f"{ENDPOINT}-5xx", f"{ENDPOINT}-latency"]

        usual = scaling.update_calls

        def ring(*words):
            """The alarm rings as soon as the update begins; putting it again would have silenced it."""
            *before, update = usual(*words)
            state = {"AlarmName": f"{ENDPOINT}-5xx", "StateValue": "ALARM", "StateReason": "a test"}
            return [*before, calls.Call("cloudwatch", "SetAlarmState", state), update]

        monkeypatch.setattr(scaling, "update_calls", ring)
        assert main(["deploy", *words, "--instance-count", "3"]) == 1
        assert f"was rolled back to {new}" in capsys.readouterr().err


def test_objects_that_requests_may_name_need_a_network_and_stand_in_the_containers_environment(ready, capsys):
    words = ("--allow-prefix", "s3://scans/ct/", "s3://other/")

    model = dict(requested(capsys, *words))["CreateModel"]

    assert model["PrimaryContainer"]["Environment"] == {
        "MAX_ANSWER_IN_MB": "6", "ALLOWED_S3_PREFIXES": "s3://scans/ct/ s3://other/",
    }  # fmt: skip
    assert model["EnableNetworkIsolation"] is False
    assert "must be addresses that end in a slash" in refused(capsys, "--allow-prefix", "s3://scans/ct")
    both = (*words, "--environment", "ALLOWED_S3_PREFIXES=s3://a-bucket/")
    assert "leave one out" in refused(capsys, *both)


VALUES = Probe(SENT, frozenset({"mm", "ml"}), {"mm": 12.0, "ml": -250.0}, "12.0", 1e-3)
FOUND = Probe(SENT, frozenset({"a", "b"}), {"a": 0.9, "b": 0.4995}, "a", 1e-3)
MASKED = Probe(SENT, frozenset({"liver", "cyst"}))
COUNTED = Probe(SENT, frozenset({"liver", "=cyst"}), {"liver": 20_000.0, "'=cyst": 3.0}, tolerance=1e-3)
GRADED = Probe(SENT, frozenset({"0", "1"}), {"0": 0.4999, "1": 0.5001}, "1", 1e-3)


def findings(predicted, **probabilities):
    return {"predicted_classes": predicted, "probabilities": probabilities, "thresholds": {"a": 0.5, "b": 0.5}}


def grade(predicted, zero, one):
    return {"predicted_class": predicted, "probability": 1, "grade": 0, "expected_grade": 0.5,
            "probabilities": {"0": zero, "1": one}}  # fmt: skip


def masked(**structures):
    return {"sizes": {name: size for name, (size, _) in structures.items()}, "unit": "ml",
            "structures": {name: {"voxels": voxels} for name, (_, voxels) in structures.items()}}  # fmt: skip


@pytest.mark.parametrize(("probe", "answered", "said"), [
    (VALUES, {"values": {"mm": 12.01, "ml": -250.2}}, None),
    (VALUES, {"values": {"mm": 12.02, "ml": -250.0}}, "mm=12.000000 was expected within 0.012"),
    (VALUES, {"values": {"mm": float("nan"), "ml": -250.0}}, "finite numbers were expected"),
    (VALUES, {"values": {"mm": 12.0}}, "the labels ml, mm were expected"),
    (FOUND, findings(["a"], a=0.9, b=0.4995), None),
    (FOUND, findings(["a", "b"], a=0.9, b=0.5001), None),  # at its threshold within the tolerance
    (FOUND, findings(["b"], a=0.9, b=0.4995), "above their thresholds"),
    (Probe(SENT, FOUND.labels, predicted="b"), findings(["a"], a=0.9, b=0.1), "the class 'b' was expected, got 'a'"),
    (Probe(SENT, FOUND.labels), findings([], a=0.1, b=0.1), None),
    (GRADED, grade("0", 0.5001, 0.4999), None),  # the median is between the two
    (GRADED, grade("2", 0.4999, 0.5001), "one of the classes was expected"),
    (Probe(SENT, GRADED.labels, {"0": 0.3, "1": 0.7}, "1"), grade("0", 0.3, 0.7), "the class '1' was expected"),
    (GRADED, grade("1", 0.4, 0.5), "sum to 1"),
    (MASKED, masked(liver=(1.5, 1500), cyst=(0.0, 0)), None),
    (MASKED, masked(liver=(1.5, 1500)), "the labels cyst, liver were expected"),
    (MASKED, masked(liver=(-1.5, 1500), cyst=(0.0, 0)), "sizes from 0 were expected"),
    (MASKED, masked(liver=(1.5, 0), cyst=(0.0, 0)), "as many voxels as sizes"),
    (COUNTED, masked(liver=(20, 20_020), **{"=cyst": (0.0, 0)}), None),
    (COUNTED, masked(liver=(20, 20_021), **{"=cyst": (0.0, 0)}), "20000 voxels of liver were expected within 20, got"),
    (COUNTED, masked(liver=(0, 0), **{"=cyst": (0.003, 3)}), "20000 voxels of liver were expected within 20, got 0"),
    (COUNTED, masked(liver=(20, 20_000), **{"=cyst": (0.012, 12)}), "3 voxels of =cyst were expected within 8, got 12"),
    (MASKED, {"sizes": {"liver": 1.5, "cyst": 0.0}, "unit": "ml"}, "one prediction with probabilities, values or"),
])  # fmt: skip
def test_an_answer_of_another_task_is_right_only_with_the_numbers_of_the_evaluation(probe, answered, said):
    fault = fault_of(probe, Answer("application/json", json.dumps({"predictions": [answered]}).encode()))
    assert fault is None if said is None else said in fault


def test_series_of_the_test_split_are_sent_whole_from_the_jobs_channel(ready):
    rows = ["series/1,dark,dark,0.9,0.1", "x.nii.gz,dark,dark,0.8,0.2", "IM1,dark,dark,1,0"]
    table = "\n".join(["image,label,predicted,dark,light", *rows])
    ready.put("jobs/j/output/output.tar.gz", archive(test_predictions_csv=table))
    for name in ("series/1/a.dcm", "series/1/b.dcm", "series/10/a.dcm", "x.nii.gz", "IM1"):
        ready.put(f"data/{name}", name.encode())
    job = {"TrainingJobName": "j", "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/jobs"},
           "InputDataConfig": [{"DataSource": {"S3DataSource": {"S3Uri": f"s3://{BUCKET}/data/"}}}]}  # fmt: skip
    trained = Trained(f"s3://{BUCKET}/jobs/j/output/model.tar.gz", job)

    probes = find_probes(Account(SimpleNamespace(region=REGION, profile=None)), trained, "ml.m5.large", None, None)

    assert [probe.source.content_type for probe in probes] == [
        "application/zip", "application/x-nifti+gzip", "application/dicom"
    ]  # fmt: skip
    assert [item.key for item in probes[0].source.place] == ["data/series/1/a.dcm", "data/series/1/b.dcm"]
    assert probes[0].numbers == {"dark": 0.9, "light": 0.1}


@pytest.mark.parametrize("is_old", [False, True])
def test_images_of_a_test_split_of_masks_are_sent_once_each_with_the_voxels_of_their_structures(ready, is_old):
    rows = ["image,label,dice,answered_voxels", "a.nii,liver,0.9,7.0", "a.nii,cyst,0.1,0.0", "b.nii,liver,0.8,5.0",
            "b.nii,cyst,1.0,1.0"]  # fmt: skip
    if is_old:  # a job of a version that did not count them
        rows = [row.rpartition(",")[0] for row in rows]
    ready.put("jobs/j/output/output.tar.gz", archive(test_predictions_csv="\n".join(rows)))
    for name in ("a.nii", "b.nii"):
        ready.put(f"data/{name}", name.encode())
    job = {"TrainingJobName": "j", "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/jobs"},
           "InputDataConfig": [{"DataSource": {"S3DataSource": {"S3Uri": f"s3://{BUCKET}/data/"}}}]}  # fmt: skip
    trained = Trained(f"s3://{BUCKET}/jobs/j/output/model.tar.gz", job)

    probes = find_probes(Account(SimpleNamespace(region=REGION, profile=None)), trained, "ml.m5.large", None, None)

    assert [(probe.source.name, set(probe.labels), probe.numbers) for probe in probes] == [
        (name, {"liver", "cyst"}, {} if is_old else voxels)
        for name, voxels in (("a.nii", {"liver": 7, "cyst": 0}), ("b.nii", {"liver": 5, "cyst": 1}))
    ]
