"""`make transform`: the request, the table of results, and what a second or a killed start does."""

import csv
import io
import json

import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.listing import Item
from sagemaker_monai_aws.jobs import transform
from sagemaker_monai_aws.jobs.transform_input import Batch
from sagemaker_monai_aws.jobs.transform_results import Result, as_csv, reasons
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, REGION, not_refused, survives_deaths
from tests.support.simulated import ROLE, simulation

OURS = [{"Key": "project", "Value": PROJECT}, {"Key": "created-by", "Value": "sagemaker-monai"}]
PREFIX = f"s3://{BUCKET}/monai/data/skin"
MIB = 1 << 20


@pytest.fixture
def ready(cloud):
    fill(cloud)
    return cloud


def fill(cloud):
    cloud.make_bucket()
    make_model(cloud, "batch")
    for name in ("a.jpg", "deep/b.jpg"):
        cloud.put(f"monai/data/skin/{name}", name.encode())
    cloud.put("monai/data/skin-other/c.jpg", b"c")


def make_model(cloud, role, *, name=None, tags=OURS, **container):
    arn = f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-{role}"
    name = name or f"{PROJECT}-model-{role}"
    cloud.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=arn, Tags=tags,
                                           PrimaryContainer={"Image": "image", **container})  # fmt: skip


def run(*arguments):
    return main(["transform", "--poll-s", "0", *map(str, arguments)])


def calls_of(capsys, *arguments):
    assert run("--dry-run", *arguments) == 0
    return json.loads(capsys.readouterr().out)


def request_of(capsys, *arguments):
    *_, call = calls_of(capsys, *arguments)
    assert (call["service"], call["operation"]) == ("sagemaker", "CreateTransformJob")
    return call["request"]


def prediction(name, probability):
    other = {"akiec": "bcc", "bcc": "akiec"}[name]
    return {"predicted_class": name, "probability": probability, "model_version": "1",
            "probabilities": {name: probability, other: 1 - probability}}  # fmt: skip


def put_outputs(cloud, name, **outputs):
    """What the job leaves: moto runs nothing. Names have __ for / and no suffix."""
    for key, found in outputs.items():
        body = json.dumps({"predictions": found}).encode() if isinstance(found, list) else found
        cloud.put(f"monai/transform/{name}/{key.replace('__', '/')}.jpg.out", body)


def jobs(cloud):
    return [
        each["TransformJobName"] for each in cloud.client("sagemaker").list_transform_jobs()["TransformJobSummaries"]
    ]


def table(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_defaults_read_a_prefix_with_the_newest_model_for_batches(ready, capsys):
    make_model(ready, "hosting")
    make_model(ready, "batch", name=f"{PROJECT}-model-others", tags=[])
    request = request_of(capsys, "--input", PREFIX)

    name = request["TransformJobName"]
    assert name.startswith(f"{PROJECT}-transform-")
    assert request["ModelName"] == f"{PROJECT}-model-batch"
    assert request["TransformInput"] == {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{PREFIX}/"}},
        "ContentType": "image/jpeg",
        "CompressionType": "None",
        "SplitType": "None",
    }
    assert request["TransformOutput"] == {"S3OutputPath": f"s3://{BUCKET}/monai/transform/{name}",
                                          "Accept": "application/json", "AssembleWith": "None"}  # fmt: skip
    assert request["TransformResources"] == {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1,
                                             "TransformAmiVersion": "al2-ami-sagemaker-batch-gpu-535"}  # fmt: skip
    assert request["BatchStrategy"] == "SingleRecord"
    assert "DataProcessing" not in request
    assert set(map(json.dumps, OURS)) <= set(map(json.dumps, request["Tags"]))


@pytest.mark.parametrize(
    ("instance_type", "is_encrypted", "has_ami"), [("ml.g4dn.xlarge", False, True), ("ml.m5.large", True, False)]
)
def test_the_key_encrypts_results_and_those_volumes_that_take_one(ready, capsys, instance_type, is_encrypted, has_ami):
    request = request_of(capsys, "--input", PREFIX, "--kms-key", "alias/mine", "--instance-type", instance_type)

    assert request["TransformOutput"]["KmsKeyId"] == "alias/mine"
    assert ("VolumeKmsKeyId" in request["TransformResources"]) == is_encrypted
    assert ("TransformAmiVersion" in request["TransformResources"]) == has_ami


@pytest.mark.parametrize(
    ("size_bytes", "payload_mb", "at_once", "expected"),
    [(1, None, None, (1, 8)), (MIB, None, None, (1, 8)), (MIB + 1, None, None, (2, 8)), (30 * MIB, None, None, (30, 3)),
     (100 * MIB, None, None, (100, 1)), (1, 20, None, (20, 5)), (1, 20, 2, (20, 2)), (1, None, 100, (1, 100))],
)  # fmt: skip
def test_payload_and_requests_at_once_follow_the_largest_object(size_bytes, payload_mb, at_once, expected):
    assert transform.payload_of(batch_of(size_bytes), payload_mb, at_once) == expected
    assert expected[0] * expected[1] <= 100


@pytest.mark.parametrize(
    ("size_bytes", "payload_mb", "at_once", "message"),
    [(100 * MIB + 1, None, None, "a batch takes 100 MB"), (3 * MIB, 2, None, "less than the 3"),
     (1, 101, None, "is 1 to 100"), (1, 50, 3, "at most 2"), (1, None, 0, "must be 1 to 100")],
)  # fmt: skip
def test_what_sagemaker_would_not_take_is_said_before(size_bytes, payload_mb, at_once, message):
    with pytest.raises(transform.CommandError, match=message):
        transform.payload_of(batch_of(size_bytes), payload_mb, at_once)


def batch_of(size_bytes):
    return Batch(
        (Item(BUCKET, "a.jpg", "a.jpg", 1, "e"), Item(BUCKET, "b.jpg", "b.jpg", size_bytes, "e")), "image/jpeg"
    )


def test_objects_of_several_types_are_named_and_those_of_one_are_taken_by_a_manifest(ready, capsys):
    ready.put("monai/data/skin/dataset.json", b"{}")
    assert run("--input", PREFIX) == 2
    assert "2 x image/jpeg, 1 x application/json: --content-type" in capsys.readouterr().err

    upload, call = calls_of(capsys, "--input", PREFIX, "--content-type", "image/jpeg")

    source = call["request"]["TransformInput"]["DataSource"]["S3DataSource"]
    assert source["S3DataType"] == "ManifestFile"
    assert source["S3Uri"] == f"s3://{BUCKET}/{upload['request']['Key']}"
    assert json.loads(upload["request"]["Body"]) == [{"prefix": f"{PREFIX}/"}, "a.jpg", "deep/b.jpg"]


def test_a_manifest_of_this_machine_is_uploaded_and_one_in_s3_is_read_where_it_is(ready, capsys, tmp_path):
    text = json.dumps([{"prefix": f"{PREFIX}/"}, "deep/b.jpg"])
    (tmp_path / "my.manifest").write_text(text)
    ready.put("monai/transform/their.manifest", text.encode())

    assert [call["operation"] for call in calls_of(capsys, "--input", tmp_path / "my.manifest")] == [
        "PutObject",
        "CreateTransformJob",
    ]
    [call] = calls_of(capsys, "--input", f"s3://{BUCKET}/monai/transform/their.manifest")
    assert call["request"]["TransformInput"]["DataSource"]["S3DataSource"] == {
        "S3DataType": "ManifestFile",
        "S3Uri": f"s3://{BUCKET}/monai/transform/their.manifest",
    }


REFUSED = [
    (["--input", f"{PREFIX}-none"], "there is nothing below"),
    (["--input", "{folder}"], "is a local folder"),
    (["--input", "{folder}/none"], "cannot be read"),
    (["--input", "{folder}/odd"], "is not a manifest"),
    (["--input", "{folder}/missing"], "lists 1 objects that do not exist"),
    (["--input", PREFIX, "--model", "gone"], "there is no model 'gone'"),
    (["--input", PREFIX, "--model", f"{PROJECT}-many"], "is a multi-model container"),
    (["--input", PREFIX, "--join-source"], "leave --join-source out"),
    (["--input", PREFIX, "--instance-type", "ml.q1.large"], "TransformResources.InstanceType"),
    (["--input", PREFIX, "--retries", "4"], "InvocationsMaxRetries: 4 is more than 3"),
]


def test_what_is_wrong_is_said_before_it_costs_anything(ready, tmp_path):
    make_model(ready, "hosting", name=f"{PROJECT}-many", Mode="MultiModel", ModelDataUrl=f"s3://{BUCKET}/monai/models/")
    (tmp_path / "odd").write_text('["a.jpg"]')
    (tmp_path / "missing").write_text(json.dumps([{"prefix": f"{PREFIX}/"}, "a.jpg", "gone.jpg"]))

    assert not_refused("transform", REFUSED, folder=tmp_path) == []


def test_without_a_model_it_says_how_to_make_one(cloud, capsys):
    cloud.make_bucket()
    cloud.put("monai/data/skin/a.jpg")

    assert run("--input", PREFIX) == 2

    assert "`make deploy MODE=batch`" in capsys.readouterr().err


def test_lines_are_split_assembled_and_joined_when_asked(ready, capsys):
    ready.put("monai/data/lines/a.jsonl", b"{}\n{}\n")
    request = request_of(capsys, "--input", f"s3://{BUCKET}/monai/data/lines", "--split-lines", "--join-source",
                         "--content-type", "application/jsonlines")  # fmt: skip

    assert request["TransformInput"]["SplitType"] == request["TransformOutput"]["AssembleWith"] == "Line"
    assert request["DataProcessing"] == {"JoinSource": "Input"}


def test_every_source_has_its_prediction_in_a_table_here_and_in_s3(ready, capsys, tmp_path):
    name = request_of(capsys, "--input", PREFIX)["TransformJobName"]
    put_outputs(ready, name, a=[prediction("bcc", 0.75)], deep__b=[prediction("akiec", 0.625), prediction("bcc", 1.0)])

    assert run("--input", PREFIX, "--output", tmp_path) == 0

    answer = json.loads(capsys.readouterr().out)
    assert answer["TransformJobName"] == name
    assert answer["objects"] == 2
    text = (tmp_path / name / "results.csv").read_bytes()
    assert ready.get(f"monai/transform/{name}/results.csv") == text
    assert text.decode() == (
        "source,index,predicted_class,probability,bcc,akiec,error\r\n"
        f"{PREFIX}/a.jpg,0,bcc,0.75,0.75,0.25,\r\n"
        f"{PREFIX}/deep/b.jpg,0,akiec,0.625,0.375,0.625,\r\n"
        f"{PREFIX}/deep/b.jpg,1,bcc,1.0,1.0,0.0,\r\n"
    )
    assert [path.name for path in (tmp_path / name).iterdir()] == ["results.csv"]


@pytest.mark.parametrize(("output", "code"), [(None, "no-output"), (b"<html>", "unreadable-output")])
def test_an_object_without_an_answer_has_a_code_and_the_exit_code_says_it(ready, capsys, tmp_path, output, code):
    name = request_of(capsys, "--input", PREFIX)["TransformJobName"]
    put_outputs(ready, name, a=[prediction("bcc", 0.75)], **({} if output is None else {"deep__b": output}))

    assert run("--input", PREFIX, "--output", tmp_path) == 1

    rows = table((tmp_path / name / "results.csv").read_text())
    assert [row["error"] for row in rows] == ["", code]
    assert f"1 of 2 objects have none, the first is {PREFIX}/deep/b.jpg ({code})" in capsys.readouterr().err


def test_a_table_is_safe_to_open_in_a_spreadsheet():
    result = Result("=cmd()", ({"predicted_class": "@x", "probability": 1.0, "probabilities": {"@x": 1.0}},))

    heading, row = csv.reader(io.StringIO(as_csv([result]), newline=""))

    assert heading[4] == "'@x"
    assert row[:3] == ["'=cmd()", "0", "'@x"]


def test_sagemakers_log_says_which_object_was_refused_and_why():
    items = [Item("bucket", key, key, 1, "e") for key in ("a/1.jpg", "1.jpg", "a/x: y.jpg", "a/2.jpg")]
    log = [
        "2026-01-01T00:00:00.000:[sagemaker logs]: MaxConcurrentTransforms=1, MaxPayloadInMB=6",
        "2026-01-01T00:00:00.000:[sagemaker logs]: bucket/a/1.jpg: ClientError: 400",
        "2026-01-01T00:00:00.000:[sagemaker logs]: bucket/a/1.jpg: Message:",
        '2026-01-01T00:00:00.000:[sagemaker logs]: bucket/a/1.jpg: {"error": {"code": "Undecodable", "message": "m"}}',
        "2026-01-01T00:00:00.000:[sagemaker logs]: bucket/a/x: y.jpg: AlgorithmError: 503",
    ]

    assert reasons(log, items) == {"s3://bucket/a/1.jpg": "Undecodable", "s3://bucket/a/x: y.jpg": "503"}


def test_other_objects_are_another_job(ready):
    run("--input", PREFIX, "--no-wait")
    ready.put("monai/data/skin/a.jpg", b"another")
    run("--input", PREFIX, "--no-wait")

    assert len(jobs(ready)) == 2


@pytest.mark.long
def test_a_start_that_is_killed_anywhere_and_repeated_leaves_one_job_and_its_manifest(cloud, tmp_path):
    def prepare():
        fill(cloud)
        cloud.put("monai/data/skin/dataset.json", b"{}")

    def state():
        [name] = jobs(cloud)
        return name, [(key, cloud.get(key)) for key in cloud.keys("monai/transform/")]

    arguments = ["--no-wait", "--input", PREFIX, "--content-type", "image/jpeg"]
    assert survives_deaths(cloud, "transform", arguments, prepare, state) >= 12


def test_a_job_of_the_offline_sagemaker_names_the_object_that_it_failed_at(tmp_path, monkeypatch, capsys):
    with simulation(tmp_path / "simulation") as aws:
        for name, value in aws.simulation.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CONFIG_ENV", "/nowhere")
        aws.bucket(BUCKET)
        good = json.dumps({"predictions": [prediction("bcc", 0.75)]})
        aws.put(BUCKET, "monai/data/skin/a.json", b" ")  # is answered by what the container says before
        aws.put(BUCKET, "monai/data/skin/b.json", b"status 418")
        aws.sagemaker.create_model(
            ModelName="fake", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "fake", "Environment": {"SAY": good}}
        )

        arguments = [
            "--bucket",
            BUCKET,
            "--model",
            "fake",
            "--instance-type",
            "ml.m5.large",
            "--output",
            tmp_path / "out",
        ]
        assert run("--input", PREFIX, *arguments, "--max-concurrent", "1") == 1

        [folder] = (tmp_path / "out").iterdir()
        assert [row["error"] for row in table((folder / "results.csv").read_text())] == ["", "418"]
        error = capsys.readouterr().err
        assert "ClientError: See job logs for more information" in error
        assert f"{PREFIX}/b.json (418)" in error


def test_a_plan_without_an_account_has_placeholders(cloud, capsys, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    request = request_of(capsys, "--input", PREFIX, "--content-type", "image/png")

    assert request["ModelName"] == f"{PROJECT}-model"
    assert request["TransformInput"]["ContentType"] == "image/png"


@pytest.mark.parametrize(("prediction", "heading", "row"), [
    ({"predicted_classes": ["b", "=a"], "probabilities": {"=a": 0.5, "b": 0.75}, "thresholds": {}},
     ["predicted_classes", "'=a", "b"], ["b|=a", "0.5", "0.75"]),
    ({"predicted_class": "1", "probability": 0.75, "grade": 1, "expected_grade": 0.75, "probabilities": {"1": 0.75}},
     ["predicted_class", "probability", "grade", "expected_grade", "1"], ["1", "0.75", "1", "0.75", "0.75"]),
    ({"values": {"mm": -1.5}}, ["mm"], ["-1.5"]),
    ({"sizes": {"liver": 1.5}, "unit": "ml", "structures": {}}, ["unit", "liver"], ["ml", "1.5"]),
])  # fmt: skip
def test_a_table_of_every_task_has_the_columns_of_the_task(prediction, heading, row):
    results = [Result("s3://a", (prediction,)), Result("s3://b", error="Bad")]

    rows = list(csv.reader(io.StringIO(as_csv(results), newline="")))

    assert rows[0] == ["source", "index", *heading, "error"]
    assert rows[1] == ["s3://a", "0", *row, ""]
    assert rows[2] == ["s3://b", "", *[""] * len(heading), "Bad"]
