"""Batch transforms of the offline SageMaker: what is asked, what is written and where, what is refused."""

import json

import pytest
from botocore.exceptions import ClientError

from simulate.faults import JobError
from simulate.filters import batches, joined, select, steps
from tests.support.simulated import ROLE, simulation

GROUP = "/aws/sagemaker/TransformJobs"
MIB = 1 << 20


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with simulation(tmp_path_factory.mktemp("simulation")) as started:
        started.bucket("data", pictures__a=b"first", pictures__deep__b=b"second", bad__a=b"good", bad__b=b"status 400",
                       worse__a=b"status 500", rows=b"1,2\n3,4\n5,6\n", large=b"x" * (2 * MIB))  # fmt: skip
        started.put("data", "pictures/", b"")
        started.put("data", "manifest", json.dumps([{"prefix": "s3://data/pictures/"}, "deep/b"]).encode())
        for name, environment in {"fake": {}, "tuned": {"PARAMETERS": '{"MaxConcurrentTransforms": 60}'}}.items():
            container = {"Image": "fake", "Environment": {"OF_MODEL": "1", **environment}}
            started.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        yield started


def job_request(name, uri, *, data_type="S3Prefix", source=None, target=None, **changes):
    place = {"S3DataSource": {"S3DataType": data_type, "S3Uri": uri}}
    return {
        "TransformJobName": name,
        "ModelName": "fake",
        "TransformInput": {"DataSource": place, "ContentType": "image/png", **(source or {})},
        "TransformOutput": {"S3OutputPath": f"s3://data/out/{name}", **(target or {})},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    } | changes


def transform(aws, name, uri, **changes):
    aws.sagemaker.create_transform_job(**job_request(name, uri, **changes))
    return aws.wait("transform_job", "TransformJobStatus", TransformJobName=name)


def output(aws, name):
    prefix = f"out/{name}/"
    return {key.removeprefix(prefix): aws.get(f"s3://data/{key}") for key in aws.keys("data", prefix)}


def test_every_object_of_a_prefix_has_its_answer_under_its_name(aws):
    job = transform(aws, "prefix", "s3://data/pictures/")

    assert job["TransformJobStatus"] == "Completed"
    assert output(aws, "prefix") == {"a.out": b"FIRST", "deep/b.out": b"SECOND"}
    assert job["TransformStartTime"] < job["TransformEndTime"]


def test_a_manifest_names_the_objects(aws):
    transform(aws, "manifest", "s3://data/manifest", data_type="ManifestFile")

    assert output(aws, "manifest") == {"deep/b.out": b"SECOND"}


def test_the_container_knows_that_it_is_a_batch(aws):
    aws.put("data", "tell/one", b"tell")
    transform(aws, "told", "s3://data/tell/", MaxPayloadInMB=3, MaxConcurrentTransforms=2, BatchStrategy="SingleRecord",
              Environment={"OF_JOB": "2"}, target={"Accept": "application/json"})  # fmt: skip

    told = json.loads(output(aws, "told")["one.out"])
    wanted = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "3", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
              "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD", "OF_MODEL": "1", "OF_JOB": "2"}  # fmt: skip
    assert {name: told["environment"].get(name) for name in wanted} == wanted
    assert told["headers"]["Content-Type"] == "image/png"
    assert told["headers"]["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("whole", {}, b"1,2\n3,4\n5,6\n"),
        ("lines", {"source": {"SplitType": "Line", "ContentType": "text/csv"}, "target": {"AssembleWith": "Line"}},
         b"1,2\n3,4\n5,6\n"),
        ("single", {"source": {"SplitType": "Line"}, "BatchStrategy": "SingleRecord"}, b"1,2\n3,4\n5,6\n"),
    ],
)  # fmt: skip
def test_lines_come_out_in_their_order(aws, name, changes, expected):
    transform(aws, name, "s3://data/rows", MaxConcurrentTransforms=2, **changes)

    assert output(aws, name) == {"rows.out": expected}


def test_csv_rows_are_filtered_joined_and_filtered_again(aws):
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    transform(aws, "joined", "s3://data/rows", source={"SplitType": "Line", "ContentType": "text/csv"},
              target={"AssembleWith": "Line", "Accept": "text/csv"}, DataProcessing=processing)  # fmt: skip

    # the model saw the second column only, and answers what it saw
    assert output(aws, "joined") == {"rows.out": b"1,2\n3,4\n5,6\n"}


@pytest.mark.parametrize(
    ("prefix", "reason", "told"), [("bad", "ClientError", "bad/b: 400 no"), ("worse", "AlgorithmError", "worse/a: 500")]
)
def test_one_refused_record_fails_the_job(aws, prefix, reason, told):
    job = transform(aws, f"job-{prefix}", f"s3://data/{prefix}/")

    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"] == f"{reason}: See job logs for more information"
    [[line]] = [lines for name, lines in aws.log(GROUP, f"job-{prefix}/").items() if name.endswith("data-log")]
    assert line.startswith(told)


def test_a_record_must_fit_into_the_payload(aws):
    job = transform(aws, "too-large", "s3://data/large", MaxPayloadInMB=1)

    assert job["FailureReason"] == "ClientError: See job logs for more information"


def test_what_the_request_leaves_open_the_container_says(aws):
    job = transform(aws, "parameters", "s3://data/pictures/", ModelName="tuned")

    assert job["FailureReason"] == ("ClientError: MaxConcurrentTransforms 60 * MaxPayloadInMB 6 must not exceed 100 MB")


def test_a_job_can_be_stopped(aws):
    for index in range(40):
        aws.put("data", f"many/{index}", b"sleep 0.3")
    aws.sagemaker.create_transform_job(**job_request("halted", "s3://data/many/"))
    while not aws.keys("data", "out/halted/"):
        pass
    aws.sagemaker.stop_transform_job(TransformJobName="halted")
    job = aws.wait("transform_job", "TransformJobStatus", TransformJobName="halted")

    assert job["TransformJobStatus"] == "Stopped"
    assert len(aws.keys("data", "out/halted/")) < 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"MaxConcurrentTransforms": 11, "MaxPayloadInMB": 10}, "must not exceed 100 MB, got 11 . 10"),
        ({"MaxConcurrentTransforms": 17}, "must not exceed 100 MB"),
        ({"source": {"SplitType": "RecordIO"}}, "not simulated offline"),
        ({"DataProcessing": {"JoinSource": "Input"}}, "DataProcessing needs ContentType text/csv"),
        ({"DataProcessing": {"InputFilter": "$..a"}, "source": {"ContentType": "application/json"}}, "cannot be read"),
        ({"DataProcessing": {"JoinSource": "Input"}, "source": {"ContentType": "text/csv"}}, "SplitType Line"),
    ],
)
def test_a_job_that_cannot_be_is_refused(aws, changes, message):
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.create_transform_job(**job_request("refused", "s3://data/pictures/", **changes))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", {"a": {"b": 1}, "c": [1, 2, 3]}),
        ("$.a.b", 1),
        ("$['a']", {"b": 1}),
        ("$['a','c']", {"a": {"b": 1}, "c": [1, 2, 3]}),
        ("$.c[1]", 2),
        ("$.c[1:]", [2, 3]),
        ("$.c[0,2:]", [1, 3]),
        ("$.c[-1]", 3),
    ],
)
def test_a_path_selects(path, expected):
    assert select(path, {"a": {"b": 1}, "c": [1, 2, 3]}) == expected


@pytest.mark.parametrize("path", ["a", "$.", "$[", "$[a]", "$..a", "$[?(@.a)]"])
def test_a_path_that_batch_transform_does_not_know_is_refused(path):
    with pytest.raises(ValueError, match=r"cannot be read|does not begin"):
        steps(path)


@pytest.mark.parametrize("path", ["$.b", "$.a.b.c", "$.c[9]"])
def test_a_path_that_does_not_fit_fails(path):
    with pytest.raises(JobError, match="does not fit"):
        select(path, {"a": {"b": 1}, "c": [1, 2, 3]})


@pytest.mark.parametrize(
    ("record", "answer", "expected"),
    [
        ({"id": 1}, [0.5], {"id": 1, "SageMakerOutput": [0.5]}),
        ([1, 2], {"p": 1}, {"SageMakerInput": [1, 2], "SageMakerOutput": {"p": 1}}),
    ],
)
def test_json_is_joined_under_sagemakers_names(record, answer, expected):
    texts = [json.dumps(value).encode() for value in (record, answer)]

    assert json.loads(joined(*texts, "application/jsonlines", is_joined=True, path="$")) == expected


def test_records_fill_a_request_up_to_the_payload():
    found = [b"aaa", b"bb", b"c", b"dddd"]

    def together(**changes):
        words = {"is_single": False, "split_type": "Line", "payload_bytes": 7} | changes
        return list(batches(found, **words))

    assert together() == [[b"aaa", b"bb"], [b"c", b"dddd"]]  # each with its line end
    assert together(is_single=True) == [[record] for record in found]
    with pytest.raises(JobError, match="5 bytes"):
        together(payload_bytes=4)
