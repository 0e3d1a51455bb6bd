"""`make tune`: what is searched, what is refused before it costs anything, and what is said of the best job."""

import json
import sys

import pytest
from botocore.stub import Stubber

from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.jobs import tune
from simulate.processes import ProcessRunner
from tests.support.cloud import BUCKET, PROJECT, not_refused, run_command, survives_deaths
from tests.support.simulated import simulation

RANGES = ["--ranges", "learning_rate=1e-4:1e-2:log", "batch_size=16:64", "network=resnet18,densenet121"]


@pytest.fixture
def ready(cloud):
    """An account with data and an image."""
    cloud.fill()
    return cloud


def search(*arguments):
    return main(["tune", "--poll-s", "0", *arguments])


def requested(capsys, *arguments):
    assert search("--dry-run", *arguments) == 0
    [call] = json.loads(capsys.readouterr().out)
    assert (call["service"], call["operation"]) == ("sagemaker", "CreateHyperParameterTuningJob")
    return call["request"]


def only_job(cloud):
    sagemaker = cloud.client("sagemaker")
    [summary] = sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"]
    name = summary["HyperParameterTuningJobName"]
    return sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def test_ranges_become_what_the_type_of_the_hyperparameter_says(ready, capsys):
    request = requested(capsys, *RANGES, "--hyperparameters", "epochs=3", "image_size=64", "--seed", "7")

    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    assert config["ParameterRanges"] == {
        "ContinuousParameterRanges": [
            {"Name": "learning_rate", "MinValue": "1e-4", "MaxValue": "1e-2", "ScalingType": "Logarithmic"}
        ],
        "IntegerParameterRanges": [{"Name": "batch_size", "MinValue": "16", "MaxValue": "64", "ScalingType": "Auto"}],
        "CategoricalParameterRanges": [{"Name": "network", "Values": ["resnet18", "densenet121"]}],
    }
    assert config["Strategy"] == "Bayesian"
    assert config["RandomSeed"] == 7
    assert config["TrainingJobEarlyStoppingType"] == "Off"
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 2}
    assert definition["StaticHyperParameters"] == {"epochs": "3", "image_size": "64"}
    assert definition["EnableManagedSpotTraining"] is True
    assert definition["RetryStrategy"] == {"MaximumRetryAttempts": 2}
    assert definition["CheckpointConfig"]["S3Uri"].startswith(f"s3://{BUCKET}/monai/checkpoints/{PROJECT}-tune-")
    assert {"Key": "project", "Value": PROJECT} in request["Tags"]


@pytest.mark.parametrize(("task", "usual", "other", "kind"), [
    ("classification", "best_epoch_balanced_accuracy", "validation_loss", "Minimize"),
    ("multilabel", "best_epoch_auc", "best_epoch_f1", "Maximize"),
    ("ordinal", "best_epoch_kappa", "validation_mae", "Minimize"),
    ("regression", "best_epoch_mae", "best_epoch_r2", "Maximize"),
    ("segmentation", "best_epoch_dice", "best_epoch_hd95", "Minimize"),
])  # fmt: skip
def test_the_objective_is_the_tasks_own_is_looked_for_in_the_log_and_has_its_direction(
    ready, capsys, task, usual, other, kind
):
    content = {"task": task, "labels": {"0": "background", "1": "b"}}
    ready.put("monai/data/training/dataset.json", json.dumps(content).encode())

    for objective, direction, words in ((usual, "Minimize" if usual.endswith("mae") else "Maximize", []),
                                        (other, kind, ["--objective", other])):  # fmt: skip
        request = requested(capsys, *RANGES, *words)
        defined = request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
        assert objective in [definition["Name"] for definition in defined]
        assert request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"] == {
            "MetricName": objective, "Type": direction,
        }  # fmt: skip


def test_a_score_that_the_task_has_not_is_refused(ready, capsys):
    ready.put("monai/data/training/dataset.json", b'{"task": "multilabel", "labels": {"0": "a"}}')

    assert search(*RANGES, "--objective", "best_epoch_balanced_accuracy") == 2

    assert "multilabel has no best_epoch_balanced_accuracy: its scores are loss" in capsys.readouterr().err


def test_names_fit_into_the_32_characters_of_tuning_jobs(ready, capsys):
    request = requested(capsys, *RANGES, "--project", "seventeen-letters", "--repository", PROJECT, "--bucket", BUCKET)
    assert len(request["HyperParameterTuningJobName"]) <= 32

    assert search("--dry-run", *RANGES, "--project", "a-project-with-a-long-name", "--repository", PROJECT,
                  "--bucket", BUCKET) == 2  # fmt: skip
    assert "PROJECT may have 18" in capsys.readouterr().err


def test_hyperband_knows_the_epochs_and_grid_counts_its_points(ready, capsys):
    hyperband = requested(capsys, *RANGES, "--strategy", "Hyperband", "--hyperparameters", "epochs=9")
    grid = requested(capsys, "--strategy", "Grid", "--ranges", "network=resnet18,resnet50", "batch_size=8,16,32")

    assert hyperband["HyperParameterTuningJobConfig"]["StrategyConfig"] == {
        "HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}
    }
    assert grid["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 2 * 3


def test_the_cost_at_most_is_jobs_times_hours(ready, capsys):
    assert search("--dry-run", *RANGES, "--max-jobs", "20", "--max-runtime-s", "5400") == 0

    assert "at most 20 jobs x 1.5 hours x 1 x ml.g4dn.xlarge" in capsys.readouterr().err


REFUSED = [
    (["--ranges", "learning_rate=1e-4:100"], "learning_rate must be a number above 0 to 10, got 100"),
    (["--ranges", "network=resnet18,vgg"], "network must be one of"),
    (["--ranges", "batch_size=1.5:8"], "batch_size must be a whole number"),
    (["--ranges", "momentum=0.5:0.9", "optimizer=sgd,adamw"], "momentum has an effect only with optimizer=sgd"),
    (["--ranges", "validation_fraction=0.1:0.5", "test_fraction=0.1:0.5"], "must leave something to train on"),
    ([*RANGES, "--hyperparameters", "batch_size=8"], "batch_size cannot be fixed and searched"),
    (["--ranges", "epochs=1:2", "epochs=3:4"], "two --ranges"),
    ([*RANGES, "--strategy", "Grid"], "Grid takes choices"),
    (["--ranges", "network=resnet18,resnet50", "--strategy", "Grid", "--max-jobs", "3"], "tries all 2"),
    ([*RANGES, "--strategy", "Hyperband", "--early-stopping"], "leave --early-stopping out"),
    ([*RANGES, "--strategy", "Hyperband", "--hyperparameters", "hours=2"], "Hyperband counts epochs: leave hours out"),
    ([*RANGES, "--parallel", "11"], "--parallel must be from 1 to the 10"),
    ([*RANGES, "--data", f"s3://{BUCKET}/monai/data/nothing"], "there is nothing below"),
]


def test_what_is_wrong_is_said_before_it_costs_anything(ready):
    assert not_refused("tune", REFUSED) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", "takes NAME=LOW:HIGH"),
        ("rate=1:2", "unknown hyperparameter 'rate'"),
        ("network=1:2", "network is not a number"),
        ("epochs=9:3", "LOW below HIGH"),
        ("epochs=a:3", "takes numbers"),
        ("dropout=0:0.5:log", "needs LOW above 0"),
        ("dropout=0:0.5:cubic", "linear, log or reverse-log"),
        ("epochs=1:9:reverse-log", "needs fractions"),
        ("network=resnet18", "two or more different choices"),
        ("network=resnet18,resnet18", "two or more different choices"),
    ],
)
def test_a_range_that_is_none_is_refused(text, message):
    with pytest.raises(tune.argparse.ArgumentTypeError, match=message):
        tune.parse_range(text)


@pytest.mark.parametrize("name", TrainConfig.model_fields)
def test_every_hyperparameter_can_be_given_as_choices(name):
    assert tune.parse_range(f"{name}=1,2").as_request() == {"Name": name, "Values": ["1", "2"]}


def test_progress_counts_jobs_and_names_the_best_so_far(ready, capsys):
    answer = {
        "HyperParameterTuningJobName": "job", "HyperParameterTuningJobArn": "arn:aws:sagemaker:r:1:tuning/job",
        "HyperParameterTuningJobConfig": {"Strategy": "Random", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
        "HyperParameterTuningJobStatus": "InProgress", "CreationTime": 0,
        "TrainingJobStatusCounters": {"Completed": 1, "InProgress": 2, "NonRetryableError": 1},
        "ObjectiveStatusCounters": {},
    }  # fmt: skip
    best = {
        "TrainingJobName": "job-003-ab", "TrainingJobArn": "arn:aws:sagemaker:r:1:training-job/job-003-ab",
        "CreationTime": 0, "TrainingJobStatus": "Completed", "TunedHyperParameters": {"epochs": "4"},
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "best_epoch_auc", "Value": 0.75},
    }  # fmt: skip
    account = tune.command.Account(tune.argparse.Namespace(region=None, profile=None))
    context = tune.Context(account, tune.argparse.Namespace(poll_s=0))
    with Stubber(account.client("sagemaker")) as stub:
        stub.add_response("describe_hyper_parameter_tuning_job", answer)
        answer = answer | {"TrainingJobStatusCounters": {"Completed": 3}, "BestTrainingJob": best}
        stub.add_response("describe_hyper_parameter_tuning_job", answer)
        stub.add_response("describe_hyper_parameter_tuning_job",
                          answer | {"HyperParameterTuningJobStatus": "Completed"})  # fmt: skip
        assert tune.finish(context, "job") == 0

    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "tune: job: InProgress, 1 completed, 2 running, 0 stopped, 1 failed",
        "tune: job: InProgress, 3 completed, 0 running, 0 stopped, 0 failed, "
        "best so far best_epoch_auc 0.75 (job-003-ab)",
        "tune: job: Completed, 3 completed, 0 running, 0 stopped, 0 failed, "
        "best so far best_epoch_auc 0.75 (job-003-ab)",
        "tune: make deploy MODEL=job-003-ab",
    ]
    assert json.loads(printed.out)["objective"] == {"best_epoch_auc": 0.75}
    assert json.loads(printed.out)["TunedHyperParameters"] == {"epochs": "4"}


def test_another_seed_is_another_search(ready, capsys):
    names = {requested(capsys, *RANGES, "--seed", seed)["HyperParameterTuningJobName"] for seed in ("0", "1")}

    assert len(names) == 2


@pytest.mark.long
def test_a_search_that_is_killed_anywhere_and_repeated_leaves_one_job(cloud):
    def state():
        job = only_job(cloud)
        return {key: job[key] for key in ("HyperParameterTuningJobName", "TrainingJobDefinition")}

    arguments = ["--no-wait", "--ranges", "epochs=1:3"]
    assert survives_deaths(cloud, "tune", arguments, cloud.fill, state) >= 12


TRAINER = """
import json, os, pathlib
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
given = json.loads((base / "input" / "config" / "hyperparameters.json").read_text())
print(f"epoch=1; best_epoch_auc={given['dropout']};")
(base / "model" / "given.json").write_text(json.dumps(given))
"""


def test_the_offline_sagemaker_searches_and_prints_the_job_with_the_best_objective(tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    with simulation(tmp_path / "world", runner=ProcessRunner({"train": [sys.executable, str(trainer)]})) as aws:
        aws.bucket("data-and-jobs")
        aws.put("data-and-jobs", "monai/data/training/dataset.json", b'{"labels": {}}')
        run = run_command(
            "tune",
            ["--bucket", "data-and-jobs", "--image", f"fake@sha256:{'0' * 64}", "--ranges", "dropout=0:0.5",
             "--max-jobs", "3", "--objective", "best_epoch_auc", "--poll-s", "0.1"],
            aws.url,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        best = json.loads(run.stdout)
        [summary] = aws.sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"]
        rows = aws.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=summary["HyperParameterTuningJobName"]
        )["TrainingJobSummaries"]

    tried = {row["TrainingJobName"]: float(row["TunedHyperParameters"]["dropout"]) for row in rows}
    assert len(tried) == 3
    assert best["TrainingJobName"] == max(tried, key=tried.__getitem__)
    assert best["objective"]["best_epoch_auc"] == pytest.approx(max(tried.values()))
    assert f"make deploy MODEL={best['TrainingJobName']}" in run.stderr
