"""What all commands for SageMaker have in common, by the table of them."""

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from PIL import Image

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.commands import COMMANDS
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import parser_of
from sagemaker_monai_aws.infrastructure import update_prices
from tests.aws.test_update_prices import LIST
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, READS, recorded, run_here
from tests.support.deployed import make_endpoint, make_training_job
from tests.support.places import ROOT
from tests.support.simulated import archive, channel

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCUMENTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
# Of the recipes' variables, what several commands have, and what is made of other variables.
PASSED_ON = {"AWS_FLAGS", "OPTIONS", "REGION", "REPOSITORY", "TAG", "HYPERPARAMETER_FLAGS"}
NOWHERE = "http://127.0.0.1:1"  # for what must not ask anybody
ASKING = {"delete", "prices", "push"}  # whose dry run needs the account, or none at all
# Operations of a dry run with `arguments`, in their order.
PLANNED = {
    "infra": "CreateChangeSet ExecuteChangeSet",
    "prepare-s3": "PutObject PutObject",
    "train": "CreateTrainingJob",
    "tune": "CreateHyperParameterTuningJob",
    "process": "CreateProcessingJob",
    "pipeline": "CreateModelPackageGroup CreatePipeline StartPipelineExecution",
    "register": "PutObject CreateModelPackageGroup CreateModelPackage",
    "deploy": "CreateModel CreateEndpointConfig PutMetricAlarm PutMetricAlarm UpdateEndpoint",
    "predict": "InvokeEndpoint",
    "transform": "CreateTransformJob",
    "delete": "DeleteEndpoint DeleteModel DeleteEndpointConfig",
}
JOB = f"{PROJECT}-train-0123456789"
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):.*## ", MAKEFILE, re.MULTILINE))


def module_of(name):
    return import_module(f"sagemaker_monai_aws.{COMMANDS[name].module}")


@pytest.fixture
def ready(cloud):
    """An account in which every command finds what it needs."""
    cloud.fill()
    sagemaker = cloud.client("sagemaker")
    data = [channel("training", f"s3://{BUCKET}/monai/data/training/")]
    make_training_job(sagemaker, JOB, InputDataConfig=data, OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/jobs"})
    make_endpoint(sagemaker, f"{PROJECT}-realtime")
    cloud.put(f"jobs/{JOB}/output/model.tar.gz", b"weights")
    cloud.put(f"jobs/{JOB}/output/output.tar.gz", archive(**{"metrics.json": b'{"images": 4}'}))
    cloud.put("monai/data/pictures/1.jpg")
    return cloud


@pytest.fixture
def path(tmp_path):
    """A table of prices."""
    (tmp_path / "prices.json").write_text('{"collected": "2025-01-01", "regions": {}}')
    return tmp_path / "prices.json"


@pytest.fixture
def arguments(tmp_path, path):
    """What each command is given to find something to do."""
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.new("RGB", (1, 1)).save(tmp_path / "set" / label / "1.bmp")
    return {name: [] for name in COMMANDS} | {
        "push": ["--image", "thing:1", "--create"],
        "prepare-s3": [tmp_path / "set"],
        "train": ["--hyperparameters", "epochs=1"],
        "tune": ["--ranges", "learning_rate=1e-4:1e-2"],
        "process": ["evaluate"],
        "pipeline": ["--start", "--hyperparameters", "epochs=1"],
        "predict": [tmp_path / "set" / "a" / "1.bmp"],
        "transform": ["--input", f"s3://{BUCKET}/monai/data/pictures/"],
        "logs": [JOB],
        "delete": ["--all", "--yes"],
        "prices": ["--table", path],
    }


def state_of(cloud):
    """What of an account a command may change."""
    sagemaker = cloud.client("sagemaker")
    jobs = [sagemaker.list_training_jobs()["TrainingJobSummaries"], sagemaker.list_processing_jobs(),
            sagemaker.list_endpoints()["Endpoints"], sagemaker.list_models()["Models"]]  # fmt: skip
    return cloud.keys(), [len(each) for each in jobs], cloud.client("cloudformation").describe_stacks()["Stacks"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_target_with_its_words_and_variables(name):
    [(words, recipe)] = re.findall(rf"^{name}:.*## (.*)\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    variables = set(re.findall(r"\$\((?:if \$\(|call NEED,|call flag,--[a-z]+,)?([A-Z_]+)", recipe)) - PASSED_ON

    assert words.startswith(COMMANDS[name].help)
    assert f".venv/bin/sagemaker-monai {name} " in recipe
    assert "$(OPTIONS)" in recipe or "$(AWS_FLAGS)" in recipe
    assert variables == {variable.strip("!") for variable in COMMANDS[name].variables.split()}
    assert re.findall(r"NEED,([A-Z]+)", recipe) == re.findall(r"([A-Z]+)!", COMMANDS[name].variables)


def test_the_command_lists_its_commands_without_what_they_need(capsys):
    program = "import sys; from sagemaker_monai_aws.__main__ import main; main(['--help']); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                             env={"PYTHONPATH": str(ROOT / "scripts")}).stdout  # fmt: skip

    assert all(
        re.search(rf"^  {name} +{re.escape(row.help)}$", printed, re.MULTILINE) for name, row in COMMANDS.items()
    )
    assert not {"boto3", "numpy", "torch", "sagemaker_monai"} & set(printed.splitlines()[-1].split())
    assert main([]) == main(["trian"]) == 2
    assert "there is no command 'trian'" in capsys.readouterr().err


def test_no_command_waits_for_torch():
    modules = [row.module for row in COMMANDS.values()]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(f'sagemaker_monai_aws.{name}')\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True,
                            env={"PYTHONPATH": str(ROOT / "scripts")})  # fmt: skip

    assert not {"torch", "monai", "scipy"} & set(loaded.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_every_option_with_a_text(name):
    help_ = run_here(name, ["--help"])
    parser = parser_of(name, module_of(name))
    flags = {flag for action in parser._actions for flag in action.option_strings}

    assert (help_.returncode, help_.stderr) == (0, "")
    assert help_.stdout.startswith(f"usage: sagemaker-monai {name} ")
    assert all(action.help for action in parser._actions)
    assert all(flag in help_.stdout for flag in flags)
    assert flags >= {"--project", "--region", "--profile", "--bucket", "--prefix", "--kms-key", "--config"}
    assert ("--dry-run" in flags) is COMMANDS[name].has_dry_run


@pytest.mark.parametrize("name", COMMANDS)
def test_what_nothing_reads_is_one_line_that_names_it(name, arguments, tmp_path):
    config = tmp_path / "config.env"
    for setting, words in {
        "": ["--no-such-option"],
        "NO_SUCH_SETTING=1": [],
        f"{name.upper().replace('-', '_')}_NO_SUCH_OPTION=1": [],
        "AWS_SECRET_ACCESS_KEY=x": [],
    }.items():
        config.write_text(setting)
        with recorded() as asked:
            run = run_here(name, [*arguments[name], *words], NOWHERE, CONFIG_ENV=str(config))

        assert (run.returncode, run.stdout, asked) == (2, "", [])
        [line] = run.stderr.splitlines()
        assert line.startswith(f"{name}: ")
        assert (setting.partition("=")[0] or words[0]) in line


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_missing_or_refused_is_one_line_with_the_remedy(name, arguments, ready, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no Docker, no git

    def refuse(_self, operation, _request):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

    region = {"AWS_DEFAULT_REGION": ""}
    keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    for variables, is_refused, remedy in (
        (region, False, "no AWS region is known: give REGION="),
        (keys, False, "no AWS credentials are found: log in"),
        ({}, True, "`make iam` prints the policies that allow it"),
    ):
        with monkeypatch.context() as patch:
            if is_refused:
                patch.setattr(BaseClient, "_make_api_call", refuse)
            run = run_here(name, arguments[name], **variables)

        *before, last = run.stderr.splitlines()
        assert (run.returncode, run.stdout) == (2, "")
        assert last.startswith(f"{name}: ")
        assert ("Docker is not installed" if name == "push" else remedy) in last
        assert all(line.startswith(f"{name}: ") for line in before)  # of plans, and no traceback


@pytest.mark.parametrize("name", [name for name in COMMANDS if COMMANDS[name].has_dry_run])
def test_a_dry_run_prints_what_would_be_done_and_does_nothing(name, arguments, ready, path, monkeypatch):
    monkeypatch.setattr(update_prices, "ask", lambda _: LIST)
    before = state_of(ready), path.read_bytes()
    with recorded() as asked:
        run = run_here(name, [*arguments[name], "--dry-run"])

    assert run.returncode == 0, run.stderr
    assert [operation for _, operation, _ in asked if not operation.startswith(READS)] == []
    assert (state_of(ready), path.read_bytes()) == before
    if name == "push":
        assert run.stdout.count("would ") == 5
    elif name == "prices":
        assert set(json.loads(run.stdout)["instances"]) == {"ml.g5.xlarge", "ml.m5.large"}
    else:
        planned = json.loads(run.stdout)
        assert " ".join(each["operation"] for each in planned) == PLANNED[name]
        for each in planned:
            check(Call(**each))  # raises what AWS would refuse
        assert run.stderr.startswith(f"{name}: ")  # what it costs


@pytest.mark.parametrize("name", ["train", "tune", "process", "transform"])
def test_the_same_request_starts_one_job(name, arguments, ready):
    with recorded() as asked:
        first, second = (run_here(name, [*arguments[name], "--no-wait"]) for _ in range(2))

    assert (first.returncode, second.returncode, second.stdout) == (0, 0, first.stdout), first.stderr
    assert "it was started with the same request" in second.stderr
    assert [operation for _, operation, _ in asked if not operation.startswith(READS)] == [PLANNED[name]]


@pytest.mark.parametrize("name", sorted({name for name in COMMANDS if COMMANDS[name].has_dry_run} - ASKING))
def test_a_dry_run_without_credentials_has_placeholders_and_says_so(name, arguments, ready):
    run = run_here(name, [*arguments[name], "--dry-run"], AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert run.returncode == 0, run.stderr
    assert "no credentials: the account's number" in run.stderr
    assert ACCOUNT not in run.stdout.replace(BUCKET, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_secret_of_the_environment_is_printed_or_sent(name, arguments, ready, monkeypatch):
    monkeypatch.setattr(update_prices, "ask", lambda _: LIST)
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "DEIDENTIFY_SALT", "API_PASSWORD")
    secrets = {each: f"secret-{each}-{'0' * 32}" for each in names}
    dry = ["--dry-run"] if COMMANDS[name].has_dry_run else []
    with recorded() as asked:
        run = run_here(name, [*arguments[name], *dry], **secrets)

    assert run.returncode == 0, run.stderr
    assert "secret-" not in run.stdout + run.stderr + repr(asked)


def test_every_target_that_the_documents_name_is_there():
    blocks = re.findall(r"```\w*\n(.*?)```", DOCUMENTS, re.DOTALL)
    shown = "\n".join(blocks) + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", DOCUMENTS))
    words = re.findall(r"(?:^|\s)make ([a-z][a-z0-9 -]*)", shown)
    named = {target for line in words for target in line.split() if not target.startswith("-")}

    assert len(named) > 25
    assert named <= TARGETS
