"""`make predict`: how each kind of endpoint is asked, what comes out, and what of it stays where."""

import io
import json
import random
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.client import endpoints, predict
from sagemaker_monai_aws.client.asking import Asking
from sagemaker_monai_aws.client.saving import SavingError, parts_of, save
from sagemaker_monai_aws.core.account import Account
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, REGION, killing, not_refused, run_and_kill, run_command
from tests.support.simulated import simulation

OURS = [{"Key": "project", "Value": PROJECT}, {"Key": "created-by", "Value": "sagemaker-monai"}]
ROLE = f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-hosting"
BODY = {"predictions": [{"predicted_class": "bcc", "probability": 0.75, "model_version": "1",
                         "probabilities": {"akiec": 0.25, "bcc": 0.75}}]}  # fmt: skip
INPUTS = "monai/async/{}/input/"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"picture")
    return path


@pytest.fixture
def ready(cloud):
    cloud.make_bucket()
    make_endpoint(cloud, "realtime")
    return cloud


def make_endpoint(cloud, mode, *, tags=OURS, name=None):
    sagemaker, name = cloud.client("sagemaker"), name or f"{PROJECT}-{mode}"
    container = {"Image": "image", "ModelDataUrl": f"s3://{BUCKET}/monai/models/{name}/"}
    container |= {"Mode": "MultiModel"} if mode == "multi-model" else {}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container, Tags=tags)
    size = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    size = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}} if mode == "serverless" else size
    extra = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/monai/async/{name}/output"}}}
    sagemaker.create_endpoint_config(EndpointConfigName=name, Tags=tags, **(extra if mode == "async" else {}),
                                     ProductionVariants=[{"VariantName": "a", "ModelName": name, **size}])  # fmt: skip
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)


def answers(cloud, *results, kind="endpoint-results"):
    """What moto answers next, one after the other."""
    text = json.dumps({"account_id": ACCOUNT, "region": REGION, "results": list(results)}).encode()
    request = urllib.request.Request(f"{cloud.endpoint}/moto-api/static/sagemaker/{kind}", text,
                                     {"Content-Type": "application/json"})  # fmt: skip
    urllib.request.urlopen(request).read()


def answer(body=BODY, content_type="application/json"):
    return {"Body": body if isinstance(body, str) else json.dumps(body), "ContentType": content_type}


def run(*arguments):
    return main(["predict", "--poll-s", "0", *map(str, arguments)])


def test_a_picture_has_a_row_with_every_probability(ready, picture, capsys):
    answers(ready, answer())

    assert run(picture) == 0

    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["picture", "predicted", "akiec", "bcc"]
    assert row.split() == [str(picture), "bcc", "0.250", "0.750"]


def test_a_folder_and_a_prefix_are_answered_in_order_as_json(ready, tmp_path, capsys):
    for name in ("b/2.png", "a.jpg", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    ready.put("monai/data/skin/", b"")
    ready.put("monai/data/skin/x.webp", b"x")
    ready.put("monai/data/skin-other/y.webp", b"y")
    answers(ready, *[answer({"predictions": [], "number": number}) for number in range(3)])

    assert run("--json", "--parallel", 1, tmp_path, f"s3://{BUCKET}/monai/data/skin", tmp_path / "a.jpg") == 0

    rows = json.loads(capsys.readouterr().out)
    expected = [str(tmp_path / "a.jpg"), str(tmp_path / "b/2.png"), f"s3://{BUCKET}/monai/data/skin/x.webp"]
    assert [(row["source"], row["answer"]["number"]) for row in rows] == list(zip(expected, range(3), strict=True))


def test_without_an_input_nothing_is_sent(ready, capsys):
    assert run() == 2

    assert "IMAGE=" in capsys.readouterr().err


REFUSED = [
    (["{folder}/none.jpg"], "there is no file or folder"),
    (["{folder}/a.xyz"], "the type of .xyz is not known, give --content-type"),
    (["{folder}"], "has no file of a known type"),
    (["{folder}/a.xyz", "--content-type", "image/png", "--endpoint", "gone"], "there is no endpoint 'gone'"),
    (["{folder}/a.xyz", "--content-type", "image/png", "--target", "a.tar.gz"], "leave --target out"),
    (["{folder}/a.xyz", "--content-type", "image/png", "--parallel", "0"], "--parallel is 1 to 64, got 0"),
    (["{folder}/a.xyz", "--timeout-s", "3601"], "--timeout-s is 1 to 3600, got 3601"),
    ([f"s3://{BUCKET}/monai/none"], "there is nothing at or below"),
]


def test_what_is_wrong_is_said_before_anything_is_sent(ready, tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"x")

    assert not_refused("predict", REFUSED, folder=tmp_path) == []


def test_of_several_endpoints_one_must_be_named_and_others_are_not_ours(ready, picture, capsys):
    make_endpoint(ready, "realtime", tags=[], name=f"{PROJECT}-somebody")
    answers(ready, answer())
    assert run(picture) == 0
    make_endpoint(ready, "serverless")
    assert run(picture) == 2

    assert f"ENDPOINT=: {PROJECT}-realtime, {PROJECT}-serverless\n" in capsys.readouterr().err


def test_without_an_endpoint_it_says_how_to_get_one(cloud, picture, capsys):
    assert run(picture) == 2

    assert "`make deploy` creates one" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "limit"), [("realtime", 6_291_456), ("serverless", 4 * 1024 * 1024)])
def test_a_picture_that_is_too_large_is_not_sent_and_leaves_the_others_alone(cloud, tmp_path, capsys, mode, limit):
    cloud.make_bucket()
    make_endpoint(cloud, mode)
    for name, size in (("a.png", limit + 1), ("b.png", limit)):
        (tmp_path / name).write_bytes(bytes(size))
    answers(cloud, answer())

    assert run("--json", tmp_path) == 1

    large, fits = json.loads(capsys.readouterr().out)
    assert large["error"]["code"] == "too-large"
    assert f"{limit + 1} bytes" in large["error"]["message"]
    assert "make deploy MODE=async" in large["error"]["message"]
    assert fits["answer"] == BODY


@pytest.mark.parametrize(
    ("content_type", "suffix"),
    [("application/json", ".json"), ("text/csv; charset=utf-8", ".csv"), ("image/png", ".png"),
     ("application/jsonlines", ".jsonl"), ("application/dicom", ".dcm"), ("application/x-nifti", ".nii"),
     ("application/x-nifti+gzip", ".nii.gz"), ("what/ever", ".bin")],
)  # fmt: skip
def test_whatever_comes_back_is_saved_with_its_suffix(ready, picture, tmp_path, capsys, content_type, suffix):
    answers(ready, answer("something", content_type))

    assert run(picture, "--save", tmp_path / "out") == 0

    [saved] = (tmp_path / "out").iterdir()
    assert saved.name == f"a.jpg{suffix}"
    assert saved.read_text() == "something"
    assert str(saved) in capsys.readouterr().out


def test_nothing_that_is_there_is_overwritten_and_the_same_is_not_written_twice(tmp_path):
    (tmp_path / "a.jpg.json").write_text("somebody's")
    first = save(tmp_path, "a.jpg", "application/json", b"1")
    again = save(tmp_path, "a.jpg", "application/json", b"1")
    other = save(tmp_path, "a.jpg", "application/json", b"2")

    assert [path.name for path in (first, again, other)] == ["a.jpg-2.json", "a.jpg-2.json", "a.jpg-3.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg-2.json", "a.jpg-3.json", "a.jpg.json"]
    assert (tmp_path / "a.jpg.json").read_text() == "somebody's"


@pytest.mark.parametrize("name", ["../a", "/a", "x/../../a"])
def test_a_name_that_leads_out_of_the_folder_is_not_saved(tmp_path, name):
    with pytest.raises(SavingError, match="outside"):
        save(tmp_path / "out", name, "text/csv", b"x")

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_table_says_how_to_keep_it(ready, picture, capsys):
    answers(ready, answer("12345", "image/png"))

    assert run(picture) == 0

    assert "image/png: 5 bytes, --save FOLDER writes them" in capsys.readouterr().out


def test_a_refusal_is_in_the_containers_own_words(cloud):
    client = Account(predict_options()).client("sagemaker-runtime")
    said = json.dumps({"error": {"code": "UndecodableImage", "message": "no picture"}})
    extra = {"OriginalStatusCode": 400, "OriginalMessage": said}
    with Stubber(client) as stub:
        stub.add_client_error("invoke_endpoint", "ModelError", "Received client error", 424, modeled_fields=extra)
        with pytest.raises(ClientError) as error:
            client.invoke_endpoint(EndpointName="e", Body=b"x")

    assert endpoints.refused(error.value) == endpoints.Answer(code="UndecodableImage", message="no picture")


def predict_options():
    import argparse

    return argparse.Namespace(region=REGION, profile=None)


def test_what_would_be_refused_for_every_picture_ends_the_command():
    error = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "InvokeEndpoint")
    with pytest.raises(ClientError):
        endpoints.refused(error)


@pytest.mark.parametrize(
    ("text", "code"),
    [('Received client error (400) from primary with message "{"error": {"code": "Bad", "message": "m"}}". See', "Bad"),
     ("Received server error (503) from primary", "503"), ("{\"error\": broken", "failed")],
)  # fmt: skip
def test_the_code_is_found_in_sagemakers_sentence(text, code):
    assert endpoints.in_own_words(text).code == code


def test_one_of_many_models_must_be_named(cloud, picture, capsys):
    cloud.make_bucket()
    make_endpoint(cloud, "multi-model")
    for name in ("one.tar.gz", "two.tar.gz", "notes"):
        cloud.put(f"monai/models/{PROJECT}-multi-model/{name}")
    assert run(picture) == 2
    assert run(picture, "--target", "three.tar.gz") == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.endswith("there are: one.tar.gz, two.tar.gz")
    answers(cloud, answer())

    assert run(picture, "--target", "one.tar.gz") == 0

    assert run(picture, "--target", "one.tar.gz", "--dry-run") == 0
    assert '"TargetModel": "one.tar.gz"' in capsys.readouterr().out


def test_a_dry_run_shows_the_requests_without_a_picture_in_them(ready, picture, capsys):
    assert run(picture, "--dry-run") == 0

    [call] = json.loads(capsys.readouterr().out)
    assert call["operation"] == "InvokeEndpoint"
    assert call["request"] == {"EndpointName": f"{PROJECT}-realtime", "ContentType": "image/jpeg",
                               "Accept": "application/json", "Body": f"<7 bytes of {picture}>"}  # fmt: skip


def async_ready(cloud):
    cloud.make_bucket()
    make_endpoint(cloud, "async")
    answers(cloud, {"data": json.dumps(BODY)}, kind="async-endpoint-results")


@pytest.mark.parametrize("keep", [False, True])
def test_an_asynchronous_input_is_removed_when_it_was_answered_unless_it_is_kept(cloud, picture, capsys, keep):
    async_ready(cloud)

    assert run("--save", picture.parent / "out", picture, *(["--keep"] if keep else [])) == 0

    [saved] = (picture.parent / "out").iterdir()
    assert json.loads(saved.read_bytes()) == BODY
    left = cloud.keys(INPUTS.format(f"{PROJECT}-async"))
    assert len(left) == keep
    assert not any("a.jpg" in key for key in left)  # names of files can be names of patients


def test_an_asynchronous_failure_is_a_row(cloud, picture, capsys):
    cloud.make_bucket()
    make_endpoint(cloud, "async")
    said = 'Received client error (400) with message "{"error": {"code": "Odd", "message": "m"}}"'
    answers(cloud, {"data": said, "is_failure": True}, kind="async-endpoint-results")
    cloud.put("monai/data/a.png", b"in S3")

    assert run("--json", f"s3://{BUCKET}/monai/data/a.png") == 1

    [row] = json.loads(capsys.readouterr().out)
    assert row["error"] == {"code": "Odd", "message": "m"}
    assert cloud.keys(INPUTS.format(f"{PROJECT}-async")) == []
    assert cloud.keys("monai/data/") == ["monai/data/a.png"]


@pytest.mark.long
def test_inputs_of_a_run_that_was_killed_are_removed_by_the_next(cloud, picture):
    arguments, inputs = [picture, "--poll-s", "0"], INPUTS.format(f"{PROJECT}-async")
    async_ready(cloud)
    with killing(cloud) as proxy:
        assert run_command("predict", arguments, proxy.url).returncode == 0
    writes = [number for number, asked in enumerate(proxy.asked, 1) if asked.startswith("PUT ") or "async-inv" in asked]
    assert len(writes) == 2  # the upload and the invocation
    for at in writes:
        cloud.reset()
        async_ready(cloud)
        assert run_and_kill(cloud, "predict", arguments, at, is_after=True)
        assert len(cloud.keys(inputs)) == 1

        assert run_command("predict", arguments, cloud.endpoint).returncode == 0
        assert cloud.keys(inputs) == []


def test_endpoints_of_the_offline_sagemaker_are_asked_as_aws_would_be(tmp_path, monkeypatch, capsys):
    with simulation(tmp_path / "simulation") as aws:
        for name, value in aws.simulation.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CONFIG_ENV", "/nowhere")
        aws.bucket(BUCKET)
        place = f"s3://{BUCKET}/monai/async/now"
        config = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"{place}/output",
                                                            "S3FailurePath": f"{place}/failure"}}}  # fmt: skip
        aws.serve("now", SAY="said ")
        aws.serve("later", config=config)
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        (pictures / "a.png").write_bytes(b"hello")
        (pictures / "b.png").write_bytes(b"status 418")
        common = ["--poll-s", "0.05", "--json", "--bucket", BUCKET, "--accept", "text/plain"]

        codes = {}
        for name in ("now", "later"):
            out = tmp_path / name
            assert main(["predict", str(pictures), "--endpoint", name, "--save", str(out), *common]) == 1
            good, bad = json.loads(capsys.readouterr().out)
            assert Path(good["saved"]).read_bytes().endswith(b"HELLO")
            codes[name] = bad["error"]["code"]
        assert codes == {"now": "418", "later": "418"}
        assert aws.keys(BUCKET, "monai/async/later/input/") == []


def asking_of(account):
    realtime = endpoints.Endpoint("e", "realtime")
    return Asking(account, realtime, "application/json", None, "s3://inputs", 60, 1, 0, False, None, 1)


def find(account, *inputs):
    return predict.find_sources(account, list(map(str, inputs)), None, by_series=True)


def zipped(source):
    with zipfile.ZipFile(io.BytesIO(source.place)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_dicom_files_of_a_folder_here_or_in_s3_are_one_request(ready, tmp_path):
    files = {name: bytes(128) + b"DICM" + name.encode() for name in ("IM1", "IM2", "3.dcm")}
    for name, content in files.items():
        (tmp_path / "scan").mkdir(exist_ok=True)
        (tmp_path / "scan" / name).write_bytes(content)
        ready.put(f"monai/scans/one/{name}", content)
    ready.put("monai/scans/two/IM1", b"x")
    ready.put("monai/scans/v.nii.gz", b"x")
    account = Account(SimpleNamespace(region=REGION, profile=None))
    asking = Asking(
        account, endpoints.Endpoint("e", "realtime"), "application/json", None, "", 60, 1, 0, False, None, 1
    )

    sources = predict.find_sources(account, [str(tmp_path), f"s3://{BUCKET}/monai/scans"], None, by_series=True)

    assert [(each.shown, each.name, each.content_type) for each in sources] == [
        (f"{tmp_path}/scan/", "scan", "application/zip"),
        (f"s3://{BUCKET}/monai/scans/v.nii.gz", "v.nii.gz", "application/x-nifti+gzip"),
        (f"s3://{BUCKET}/monai/scans/one/", "one", "application/zip"),
        (f"s3://{BUCKET}/monai/scans/two/", "two", "application/zip"),
    ]
    here, _, there, _ = (asking._packed(each) if each.is_series else each for each in sources)
    assert zipped(here) == zipped(there) == files
    assert here.size_bytes == len(here.place)
    assert asking.input_uri(here) == asking.input_uri(here)


def test_a_series_that_is_too_large_is_told_by_the_size_of_its_zip(tmp_path, monkeypatch):
    monkeypatch.setitem(endpoints.LIMITS, "realtime", 400)
    contents = {"zeros": bytes(10_000), "noise": random.Random(0).randbytes(10_000)}  # the first is small in a zip
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "IM1").write_bytes(bytes(128) + b"DICM" + content)
    sent = []
    account = SimpleNamespace(send=lambda call, **_: sent.append(call) or {"ContentType": "", "Body": io.BytesIO()})

    small, large = (asking_of(account).ask(each) for each in reversed(find(account, tmp_path)))

    assert (small.code, large.code) == ("", "too-large")
    assert "deploy MODE=async" in large.message
    assert [call.request["ContentType"] for call in sent] == ["application/zip"]


def test_parts_of_an_answer_are_told_by_its_boundary():
    body = b"--b\r\nContent-Type: text/csv\r\n\r\none\r\n--b\r\n\r\ntwo--b\r\n--b--\r\n"

    assert parts_of('multipart/related; boundary="b"', body) == [("text/csv", b"one"), ("", b"two--b")]
    assert parts_of("text/csv", body) == [("text/csv", body)]
