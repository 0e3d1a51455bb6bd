import contextlib
import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.errors import BundleError, NotAcceptable, UnsupportedMediaType
from sagemaker_monai.outputs.encoding import ENCODERS
from sagemaker_monai.serving.inference import (
    ANSWER_TYPES,
    RELATED_TYPE,
    input_fn,
    model_fn,
    negotiate,
    output_fn,
    predict_fn,
)
from tests.support.bundles import LABELS


@pytest.fixture(scope="module")
def version_and_model(small_bundle):
    return read_bundle(small_bundle).model_version, model_fn(str(small_bundle))


@pytest.fixture(scope="module")
def png():
    stream = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("application/jsonlines", "application/jsonlines"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/csv;q=0.5, application/jsonlines;q=0.8", "application/jsonlines"),
        ("text/csv, application/json", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("*/*, application/json;q=0", "application/jsonlines"),
        ("text/csv;q=0.1, */*;q=0.1, text/*;q=1", "text/csv"),
        ("image/png, text/csv ; q = 0.3", "text/csv"),
        (" , ", "application/json"),
        ("nonsense", "application/json"),
        ("application/dicom", "application/dicom"),
        ("application/json;q=0.5, application/dicom", "application/dicom"),
        ("application/json; uids=true", "application/json"),
        ('multipart/related; type="application/dicom"', "multipart/related"),
        ("multipart/related;type=application/dicom;q=0.2, text/csv;q=0.1", "multipart/related"),
        ('multipart/related; type="image/png", text/csv', "text/csv"),
        ("text/csv;q=high, application/jsonlines;q=0.1", "application/jsonlines"),
    ],
)
def test_the_answer_is_in_the_form_that_the_client_prefers(accept, chosen):
    expected = {chosen}
    if accept.startswith("*/*, application/json;q=0"):
        expected = set(ANSWER_TYPES) - {"application/json"}
    assert negotiate(accept) in expected


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/html, image/*", "application/xml;q=1"])
def test_an_accept_that_cannot_be_met_is_told_what_can_be_had(accept):
    with pytest.raises(NotAcceptable) as refusal:
        negotiate(accept)

    assert all(content_type in str(refusal.value) for content_type in ENCODERS)


@given(st.text())
def test_any_accept_is_answered_or_refused(accept):
    with contextlib.suppress(NotAcceptable):
        assert negotiate(accept) in (*ANSWER_TYPES, RELATED_TYPE)


def read_json(body):
    return json.loads(body)["predictions"]


def read_lines(body):
    return [json.loads(line) for line in body.decode().splitlines()]


def read_csv(body):
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    return [
        {
            "predicted_class": row["predicted_class"],
            "probability": float(row["probability"]),
            "probabilities": {label: float(row[label]) for label in LABELS},
            "model_version": row["model_version"],
        }
        for row in rows
    ]


READERS = {"application/json": read_json, "application/jsonlines": read_lines, "text/csv": read_csv}


@pytest.mark.parametrize("content_type", ENCODERS)
def test_every_form_says_the_same(version_and_model, png, content_type):
    version, model = version_and_model
    samples = input_fn(png, "image/png") * 2

    body, answered_type = output_fn(predict_fn(samples, model), content_type)
    expected = model.predict(samples)

    assert answered_type == content_type
    assert READERS[content_type](body) == [
        {
            "predicted_class": prediction.predicted_class,
            "probability": prediction.probability,
            "probabilities": prediction.probabilities,
            "model_version": version,
        }
        for prediction in expected
    ]


@pytest.mark.parametrize("accept", ["text/csv; header=absent", 'text/CSV;Header="absent";q=1, */*;q=0.1'])
def test_csv_without_its_header_is_the_same_rows(version_and_model, png, accept):
    answer = predict_fn(input_fn(png, "image/png") * 2, version_and_model[1])
    header, *rows = output_fn(answer, "text/csv")[0].splitlines()

    body, content_type = output_fn(answer, accept)

    assert content_type == "text/csv"
    assert header.startswith(b"predicted_class,")
    assert body.splitlines() == rows
    assert len(rows) == 2
    assert output_fn(answer, "text/csv; header=present")[0].splitlines() == [header, *rows]


def test_a_content_type_without_a_reader_is_refused(png):
    with pytest.raises(UnsupportedMediaType):
        input_fn(png, "application/x-unknown")


def test_a_folder_without_an_artifact_is_refused(tmp_path):
    with pytest.raises(BundleError):
        model_fn(str(tmp_path))
