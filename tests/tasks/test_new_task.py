"""A task that is one file and its row in the table is trained, served, evaluated and examined like the others."""

import csv
import io
import json
import re

import pytest
from pydicom import dcmread

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.entrypoints import doctor, evaluate, train
from sagemaker_monai.serving.inference import input_fn, model_fn, output_fn, predict_fn
from sagemaker_monai.tasks.metric_names import metric_definitions
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai_aws.client.tasks import cells, task_of
from sagemaker_monai_aws.jobs.pipeline_definition import Threshold
from sagemaker_monai_aws.jobs.tune import objective_of
from tests.support.medical_sets import ct_slices
from tests.support.toy_task import ROW

LABELS = ("water", "blood")


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, ROW.name, ROW)
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory, registered):
    """The folder of a training, and what it printed; the data set names the task."""
    base = tmp_path_factory.mktemp("job")
    channel = base / "input" / "data" / "training"
    ct_slices(channel)
    content = json.loads((channel / "dataset.json").read_text())
    (channel / "dataset.json").write_text(json.dumps(content | {"task": ROW.name}))
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        patch.setattr("sys.stdout", printed)
        arguments = {"epochs": 2, "image_size": 32, "batch_size": 8, "num_workers": 1, "network": "resnet10"}
        assert train.main([f"--{name}={value}" for name, value in arguments.items()]) == 0
    return base, printed.getvalue()


def test_it_is_trained_and_its_artifact_speaks_of_it(job):
    base, _ = job
    bundle = read_bundle(base / "model")
    card = (base / "model" / "docs" / "README.md").read_text()
    config = json.loads((base / "model" / "configs" / "train.json").read_text())["hyperparameters"]

    assert bundle.task == ROW.build(LABELS)
    assert bundle.metadata["task"] == "image detection of one thing"
    assert bundle.metadata["description"] == "2-D image detector"
    assert (config["imbalance"], config["best_metric"]) == ("none", "brier")
    assert "A detector of a thing by 2 states" in card
    assert "| state | images | Brier score |" in card
    assert ROW.caution in card


def test_the_definitions_of_a_job_find_every_number_that_it_prints(job):
    _, printed = job

    assert "validation_recall_blood=" in printed
    for definition in metric_definitions(LABELS, ROW.name):
        found = re.findall(definition["Regex"], printed, re.MULTILINE)
        assert len(found) == (1 if definition["Name"].startswith("test_") else 2), definition["Name"]
    assert objective_of(None, ROW.name) == {"Type": "Minimize", "MetricName": "best_epoch_brier"}


def test_it_is_served_in_every_form(job):
    base, _ = job
    model = model_fn(str(base / "model"))
    body = (base / "input" / "data" / "training" / "images" / "0.dcm").read_bytes()
    answer = predict_fn(input_fn(body, "application/dicom"), model)

    [prediction] = json.loads(output_fn(answer, "application/json")[0])["predictions"]
    [row] = csv.DictReader(io.StringIO(output_fn(answer, "text/csv")[0].decode()))
    report = dcmread(io.BytesIO(output_fn(answer, "application/dicom")[0]))

    assert set(prediction["chances"]) == set(LABELS)
    assert row["is_there"] == str(prediction["is_there"])
    assert {label: float(row[label]) for label in LABELS} == prediction["chances"]
    assert "Probability of blood" in str(report)
    assert task_of(prediction) is ROW
    assert cells(prediction, ROW) == {"is_there": prediction["is_there"]}


def test_it_is_evaluated_and_a_pipeline_finds_its_score(job, tmp_path):
    base, _ = job
    data = base / "input" / "data" / "training"

    assert evaluate.main(["--model", str(base / "model"), "--data", str(data), "--output", str(tmp_path)]) == 0

    trained = json.loads((base / "output" / "data" / "metrics.json").read_text())
    assert json.loads((tmp_path / "metrics.json").read_text())["brier"] == trained["brier"]
    found = json.loads((tmp_path / "evaluation.json").read_text())
    for name in Threshold(ROW.name, "brier", 0.25).path.split("."):
        found = found[name]
    assert found == trained["brier"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "test_predictions.csv").read_text())))
    assert {row["label"] for row in rows} == set(LABELS)
    assert {row["predicted"] for row in rows} <= {"True", "False"}


def test_doctor_looks_at_it(job, tmp_path, capsys):
    base, _ = job

    doctor.main([str(base / "input" / "data" / "training"), "--output", str(tmp_path)])

    assert json.loads((tmp_path / "doctor.json").read_text())["labels"]["task"] == ROW.name
