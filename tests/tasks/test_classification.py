import csv
import io
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sagemaker_monai.errors import BundleError
from sagemaker_monai.outputs.encoding import ENCODERS
from sagemaker_monai.tasks.classification import Classification, Prediction

LABELS = ("akiec", "nv", "mel")
TASK = Classification(LABELS)
logit_rows = hnp.arrays("float32", st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-1e4, 1e4, width=32))


@given(logit_rows)
def test_probabilities_are_the_softmax_sum_to_one_and_name_the_largest(logits):
    predictions = TASK.predictions(TASK.answers(torch.from_numpy(logits)))

    for row, prediction in zip(logits.tolist(), predictions, strict=True):
        weights = [math.exp(value - max(row)) for value in row]
        expected = [weight / math.fsum(weights) for weight in weights]
        assert list(prediction.probabilities.values()) == pytest.approx(expected, rel=1e-12, abs=1e-300)
        assert math.fsum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-15)
        assert list(prediction.probabilities) == list(LABELS)
        assert prediction.probability == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.predicted_class] == prediction.probability


def test_of_equal_probabilities_the_first_class_wins():
    assert TASK.predictions(TASK.answers(torch.zeros(1, 3)))[0].predicted_class == "akiec"


def test_half_precision_logits_become_float64_probabilities():
    assert TASK.answers(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)).dtype == torch.float64


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_an_error_and_no_answer(bad):
    with pytest.raises(BundleError, match="not finite"):
        TASK.answers(torch.tensor([[0.0, bad, 1.0]]))


def test_outputs_without_label_are_refused():
    with pytest.raises(ValueError, match="longer"):
        TASK.predictions(torch.zeros(2, 4))


PREDICTIONS = [
    Prediction("nv", 0.9, {"akiec": 0.1, "nv": 0.9}),
    Prediction("akiec", 1 - 1e-17, {"akiec": 1 - 1e-17, "nv": 1e-17}),
]


def test_json_holds_one_object_for_each_image():
    assert json.loads(ENCODERS["application/json"](PREDICTIONS, "abc123")) == {
        "predictions": [
            {
                "predicted_class": "nv",
                "probability": 0.9,
                "probabilities": {"akiec": 0.1, "nv": 0.9},
                "model_version": "abc123",
            },
            {
                "predicted_class": "akiec",
                "probability": 1.0,
                "probabilities": {"akiec": 1.0, "nv": 1e-17},
                "model_version": "abc123",
            },
        ]
    }


def test_jsonlines_are_the_same_objects_one_a_line():
    lines = ENCODERS["application/jsonlines"](PREDICTIONS, "v").decode().splitlines()

    assert [json.loads(line) for line in lines] == json.loads(ENCODERS["application/json"](PREDICTIONS, "v"))[
        "predictions"
    ]


def test_csv_has_every_class_as_a_column_with_all_digits():
    rows = list(csv.reader(io.StringIO(ENCODERS["text/csv"](PREDICTIONS, "v").decode())))

    assert rows[0] == ["predicted_class", "probability", "akiec", "nv", "model_version"]
    assert rows[1] == ["nv", "0.9", "0.1", "0.9", "v"]
    assert [float(cell) for cell in rows[2][1:4]] == [1.0, 1.0, 1e-17]


@pytest.mark.parametrize("label", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "\rx"])
def test_no_csv_cell_starts_a_formula(label):
    text = ENCODERS["text/csv"]([Prediction(label, 1.0, {label: 1.0, "b": 0.0})], "v").decode()

    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert "'" + label in cells
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)


@pytest.mark.parametrize("media_type", ENCODERS)
@given(label=st.text(min_size=1))
def test_every_encoder_writes_any_label(media_type, label):
    body = ENCODERS[media_type]([Prediction(label, 0.5, {label: 0.5, label + "2": 0.5})], "v")

    assert body.decode("utf-8")
    if media_type != "text/csv":
        first = json.loads(body.splitlines()[0])
        assert first.get("predictions", [first])[0]["predicted_class"] == label
