"""Medical images through the real command, with both back ends: one answer an image or series, and nothing of whose."""

import csv
import functools
import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pydicom
import pytest
from PIL import Image

from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.serving.inference import input_fn
from tests.support import cloud as aws
from tests.support.bundles import ROWS, TASKS, write_small_bundle
from tests.support.dicom_series import CT, OBLIQUE, enhanced, make_series, make_slice, to_bytes
from tests.support.exhaustive import exhaustive
from tests.support.medical_bodies import (
    OF_ONE,
    OF_SEVERAL,
    OF_VOLUMES,
    PATIENT,
    PATIENT_ID,
    SECRETS,
    SERIES_UID,
    as_json,
    as_zip,
    nifti_gz,
    shuffled,
)
from tests.support.served import Served, code_of

BACK_ENDS = ("workers", "mms")
VOLUME_TASKS = {"workers": "ordinal", "mms": "regression"}  # by the back end that serves it
BUCKET = "sagemaker-monai-images"
HEADER = CT | {"PatientName": PATIENT, "PatientID": PATIENT_ID, "SpecificCharacterSet": "ISO_IR 192"}


def stored(seed, shape=(7, 24, 20)):
    """Values (D, H, W) of a blob in noise."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    blob = 300 * np.exp(-3 * (x**2 + y**2 + z**2)) + 1000 + 90 * seed
    return (blob + np.random.default_rng(seed).normal(0, 20, shape)).astype(np.int16)


def series(seed, orientation=OBLIQUE):
    """The files of a CT in no order."""
    uids = {"SeriesInstanceUID": f"{SERIES_UID}.{seed}", "StudyInstanceUID": f"{SERIES_UID}.1.{seed}"}
    return shuffled([to_bytes(each) for each in make_series(stored(seed), orientation, **HEADER, **uids)], seed)


def single(seed, **more):
    """One CT file."""
    return to_bytes(make_slice(stored(seed)[0], SeriesInstanceUID=f"{SERIES_UID}.{seed}", **(HEADER | more)))


FIRST, SECOND = series(1), series(2)
ENHANCED = to_bytes(enhanced(stored(3)))
FRAMES = to_bytes(make_slice(stored(4), SeriesInstanceUID=SERIES_UID, **HEADER))
VOLUME = nifti_gz(stored(5).T, np.diag([0.8, 0.8, 2.5, 1]))


def start(folder, log, back_end, **variables):
    settings = {"MODEL_SERVER": back_end, "SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "4"}
    return Served(folder, log, **(settings | variables))


@pytest.fixture(scope="module", params=exhaustive(VOLUME_TASKS))
def volume_model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes") / "model"
    task = TASKS[VOLUME_TASKS[request.param]]
    write_small_bundle(folder, preset="ct_volume", channels=1, fit="pad", task=task)
    return request.param, folder


@pytest.fixture(scope="module", params=exhaustive(BACK_ENDS))
def slice_model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices") / "model"
    write_small_bundle(folder, preset="ct_slice", channels=1, fit="pad", task=TASKS["multilabel"])
    return request.param, folder


@pytest.fixture(scope="module")
def objects(moto_endpoint):
    """A bucket with a series in a folder, and the environment in which it is found."""
    variables = aws.environment(moto_endpoint)
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": aws.REGION}
    client = boto3.client("s3", endpoint_url=moto_endpoint, **keys)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
    for index, content in enumerate(FIRST):
        client.put_object(Bucket=BUCKET, Key=f"in/{PATIENT}/{index}", Body=content)
    client.put_object(Bucket=BUCKET, Key="in/two.zip", Body=as_zip(*FIRST, *SECOND))
    client.put_object(Bucket=BUCKET, Key="in/large", Body=bytes(5 << 20))
    client.put_object(Bucket=BUCKET, Key="elsewhere/1", Body=FIRST[0])
    return variables | {"ALLOWED_S3_PREFIXES": f"s3://{BUCKET}/in/", "AWS_REGION": aws.REGION}


@pytest.fixture(scope="module")
def volumes(volume_model, objects, tmp_path_factory):
    """A model of CT volumes, which may be asked about objects."""
    back_end, folder = volume_model
    yield from kept(folder, tmp_path_factory, back_end, MAX_BATCH_SIZE="4", **objects)


@pytest.fixture(scope="module")
def slices(slice_model, tmp_path_factory):
    """A multi-label model of CT slices; as many requests as wait are answered together."""
    back_end, folder = slice_model
    yield from kept(folder, tmp_path_factory, back_end, MAX_BATCH_SIZE="8")


def kept(model, tmp_path_factory, back_end, **variables):
    served = start(model, tmp_path_factory.mktemp("log") / "log", back_end, **variables)
    try:
        yield served.wait_until_healthy()
    finally:
        code = served.stop()
    log = served.log.read_text()
    assert code == 0
    assert [secret for secret in SECRETS if secret in log] == []
    assert "Traceback" not in log
    assert "Warning" not in log


def answers(response):
    status, headers, body = response
    assert (status, headers["Content-Type"]) == (200, "application/json"), body
    assert [secret for secret in SECRETS if secret in body.decode()] == []
    return json.loads(body)["predictions"]


def numbers_of(prediction):
    return prediction.get("values") or prediction["probabilities"]


def numbers(response):
    return [numbers_of(prediction) for prediction in answers(response)]


@functools.cache
def predictor_of(folder):
    return Predictor.read(folder)


def expected(model, body, content_type):
    predictions = predictor_of(model[1]).predict(input_fn(body, content_type))
    return [numbers_of(prediction.fields()) for prediction in predictions]


def agree(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_series_is_one_answer_however_it_is_sent(volumes, volume_model):
    wanted = expected(volume_model, as_zip(*FIRST), "application/zip")

    assert len(wanted) == 1
    for seed, (content_type, wrap) in enumerate(OF_SEVERAL.items()):
        agree(numbers(volumes.invoke(wrap(*shuffled(FIRST, seed)), content_type)), wanted)


def test_two_series_are_two_answers_and_uids_say_which_where_they_are_asked_for(volumes, volume_model):
    one, two = (expected(volume_model, as_zip(*each), "application/zip") for each in (FIRST, SECOND))
    body = as_zip(*shuffled(FIRST + SECOND, 3))

    status, _, text = volumes.invoke(body, "application/zip", "application/json;uids=true")
    named = {each["SeriesInstanceUID"]: each for each in json.loads(text)["predictions"]}

    assert status == 200
    assert set(named) == {f"{SERIES_UID}.1", f"{SERIES_UID}.2"}
    agree([numbers_of(named[f"{SERIES_UID}.{number}"]) for number in (1, 2)], one + two)
    uids = [str(pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID) for each in FIRST]
    assert sorted(named[f"{SERIES_UID}.1"]["SOPInstanceUIDs"]) == sorted(uids)
    assert "UID" not in str(answers(volumes.invoke(body, "application/zip", "application/json")))


@pytest.mark.parametrize("content_type", OF_ONE)
def test_an_enhanced_file_is_one_answer(volumes, content_type):
    assert len(answers(volumes.invoke(OF_ONE[content_type](ENHANCED), content_type))) == 1


@pytest.mark.parametrize("content_type", [name for name in OF_VOLUMES if name != "application/x-npy"])
def test_files_of_volumes_are_answered(volumes, volume_model, content_type):
    body = OF_VOLUMES[content_type][1](stored(5).T, np.diag([0.8, 0.8, 2.5, 1]))

    agree(numbers(volumes.invoke(body, content_type)), expected(volume_model, VOLUME, "application/x-nifti+gzip"))


@pytest.mark.parametrize("content_type", OF_ONE)
def test_a_multi_frame_file_is_one_answer_a_frame(slices, slice_model, content_type):
    wanted = expected(slice_model, FRAMES, "application/dicom")

    assert len(wanted) == 7
    agree(numbers(slices.invoke(OF_ONE[content_type](FRAMES), content_type)), wanted)


def test_a_report_is_dicom_and_several_are_parts(volumes):
    status, headers, one = volumes.invoke(as_zip(*FIRST), "application/zip", "application/dicom")
    report = pydicom.dcmread(io.BytesIO(one))
    several = volumes.invoke(as_zip(*FIRST, *SECOND), "application/zip", "application/dicom")
    in_part = volumes.invoke(as_zip(*FIRST), "application/zip", 'multipart/related; type="application/dicom"')

    assert (status, headers["Content-Type"]) == (200, "application/dicom")
    assert report.Modality == "SR"
    assert report.PatientID == PATIENT_ID  # it belongs into the patient's study
    assert len(parts(several)) == 2
    assert {pydicom.dcmread(io.BytesIO(part)).StudyInstanceUID for part in parts(several)} == {
        f"{SERIES_UID}.1.1",
        f"{SERIES_UID}.1.2",
    }
    [part] = parts(in_part)
    assert pydicom.dcmread(io.BytesIO(part)).SOPInstanceUID == report.SOPInstanceUID
    assert volumes.invoke(VOLUME, "application/x-nifti+gzip", "application/dicom")[0] == 406


def parts(response):
    status, headers, body = response
    assert status == 200
    match = re.fullmatch(r'multipart/related; type="application/dicom"; boundary=(\w+)', headers["Content-Type"])
    return [part.split(b"\r\n\r\n", 1)[1][:-2] for part in body.split(f"--{match[1]}".encode())[1:-1]]


def test_requests_that_wait_together_each_get_their_own_answers(slices, slice_model):
    bodies = [
        *((single(seed), "application/dicom") for seed in range(1, 5)),
        (FRAMES, "application/dicom"),
        (as_zip(*FIRST), "application/zip"),
        (as_json(single(6), single(7)), "application/json"),
        (b"junk", "application/dicom"),
    ] * 3
    wanted = [[] if body == b"junk" else expected(slice_model, body, content_type) for body, content_type in bodies[:8]]

    with ThreadPoolExecutor(len(bodies)) as clients:
        responses = list(clients.map(lambda request: slices.invoke(*request), bodies))

    assert [len(each) for each in wanted] == [1, 1, 1, 1, 7, 7, 2, 0]
    for response, each in zip(responses, wanted * 3, strict=True):
        if each:
            agree(numbers(response), each)
        else:
            assert (response[0], code_of(response[2])) == (400, "UndecodableImage")


def broken():
    """Name -> body, content type and status."""
    huge = pydicom.dcmread(io.BytesIO(single(1)))
    huge.Rows = huge.Columns = 65_535
    height = {each: pydicom.dcmread(io.BytesIO(each)).ImagePositionPatient[2] for each in FIRST}
    *others, top = sorted(FIRST, key=height.__getitem__)
    gapped = [content for index, content in enumerate(FIRST) if index not in (2, 3, 4)]
    without = {"PixelData": None, "Rows": None, "Columns": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}
    report = make_slice(stored(1)[0], **(HEADER | without))
    truncated = single(1)[:-200]
    return {
        "junk": (b"junk", "application/dicom", 400),
        "a header alone": (single(1)[:300], "application/dicom", 400),
        "pixels that are cut off": (truncated, "application/dicom", 400),
        "pixels of one file of a series cut off": (as_zip(*FIRST[1:], FIRST[0][:-200]), "application/zip", 400),
        "the header of one file of a series cut off": (as_zip(*FIRST[1:], FIRST[0][:400]), "application/zip", 400),
        "the header of the last slice cut off": (as_zip(*others, top[:400]), "application/zip", 400),
        "gaps": (as_zip(*gapped), "application/zip", 422),
        "a size without pixels": (to_bytes(huge), "application/dicom", 413),
        "a report": (to_bytes(report), "application/dicom", 422),
        "a picture": (as_zip(FIRST[0], png()), "application/zip", 400),
        "only a picture": (png(), "image/png", 422),
        "a broken NIfTI": (VOLUME[:-30], "application/x-nifti+gzip", 400),
        "a NIfTI named NRRD": (VOLUME, "application/x-nrrd", 400),
        "a bomb": (bomb(), "application/zip", 413),
        "raw values without geometry": (
            OF_VOLUMES["application/x-npy"][1](stored(1), None),
            "application/x-npy",
            422,
        ),
        "a body above the limit": (bytes(5 << 20), "application/zip", 413),
    }


def png():
    stream = io.BytesIO()
    Image.new("L", (20, 20)).save(stream, "PNG")
    return stream.getvalue()


def bomb():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", single(1) + bytes(30 << 20))
    return stream.getvalue()


def test_broken_images_get_a_small_refusal_without_a_name_and_the_next_is_answered(volumes):
    for name, (body, content_type, expected_status) in broken().items():
        status, headers, answer = volumes.invoke(body, content_type)

        assert status == expected_status, (name, answer)
        assert headers["Content-Type"] == "application/json"
        assert len(answer) < 700, name
        assert [
            secret for secret in (*SECRETS, "/tmp", "Traceback", ".py", "pydicom") if secret in answer.decode()
        ] == []
        assert code_of(answer)
    assert len(answers(volumes.invoke(as_zip(*FIRST), "application/zip"))) == 1


def naming(*keys, bucket=BUCKET):
    return json.dumps({"objects": [{"bucket": bucket, "key": key} for key in keys]}).encode()


def test_objects_below_the_allowed_prefix_are_what_a_body_of_them_would_be(volumes, volume_model):
    wanted = expected(volume_model, as_zip(*FIRST), "application/zip")

    agree(numbers(volumes.invoke(naming(f"in/{PATIENT}/"), "application/json")), wanted)
    agree(
        numbers(volumes.invoke(naming(*(f"in/{PATIENT}/{index}" for index in range(7))), "application/json")),
        wanted,
    )
    assert len(answers(volumes.invoke(naming("in/two.zip"), "application/json"))) == 2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (naming("elsewhere/1"), 403, "ReferenceNotAllowed"),
        (naming("in/1", bucket="another-bucket"), 403, "ReferenceNotAllowed"),
        (naming(f"in/{PATIENT}/nothing"), 424, "ObjectUnavailable"),
        (naming("in/large"), 413, "PayloadTooLarge"),
    ],
)
def test_other_objects_are_refused_without_their_names(volumes, body, status, code):
    answered, _, answer = volumes.invoke(body, "application/json")

    assert (answered, code_of(answer)) == (status, code)
    assert [secret for secret in (*SECRETS, BUCKET, "elsewhere") if secret in answer.decode()] == []


def test_without_prefixes_no_object_may_be_named(slices):
    status, _, body = slices.invoke(naming("in/1"), "application/json")

    assert (status, code_of(body)) == (403, "ReferenceNotAllowed")


ABOUT = {"series", "modality", "series_number", "volume", "passed_over", "findings"}


def ask_for_every_form(server, name):
    body, content_type = as_zip(*FIRST, *SECOND), "application/zip"
    labels = TASKS[name].labels

    predictions = answers(server.invoke(body, content_type))
    lines = [json.loads(line) for line in server.invoke(body, content_type, "application/jsonlines")[2].splitlines()]
    rows = list(csv.DictReader(io.StringIO(server.invoke(body, content_type, "text/csv")[2].decode())))
    reports = parts(server.invoke(body, content_type, "application/dicom"))

    assert len(predictions) == len(rows) == len(reports) > 1
    assert lines == predictions
    for prediction, row in zip(predictions, rows, strict=True):
        assert set(prediction) - {"thresholds"} == {*ROWS[name].heads, ROWS[name].numbers, "model_version"} | ABOUT
        assert tuple(numbers_of(prediction)) == labels
        assert {label: float(row[label]) for label in labels} == numbers_of(prediction)
        assert row["model_version"] == prediction["model_version"]
    return predictions


def test_numbers_and_grades_are_answered_in_every_form(volumes):
    name = VOLUME_TASKS[volumes.back_end]
    predictions = ask_for_every_form(volumes, name)

    if name == "regression":
        [mean], [std] = TASKS[name].mean, TASKS[name].std
        assert all(abs(prediction["values"]["age"] - mean) < 3 * std for prediction in predictions)
    else:
        for prediction in predictions:
            grades = [number * index for index, number in enumerate(prediction["probabilities"].values())]
            assert prediction["expected_grade"] == pytest.approx(sum(grades))


def test_findings_are_answered_in_every_form(slices):
    for prediction in ask_for_every_form(slices, "multilabel"):
        assert prediction["thresholds"] == {"effusion": 0.5, "nodule": 0.25, "cardiomegaly": 0.375}
        assert prediction["predicted_classes"] == [
            name for name, p in prediction["probabilities"].items() if p >= prediction["thresholds"][name]
        ]
