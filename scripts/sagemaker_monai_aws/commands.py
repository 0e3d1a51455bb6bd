"""The table of commands; the parser, the help, config.env's prefixes and the tests read it. It imports none of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A row of COMMANDS.

    Attributes:
        main: module:function below this package; takes the arguments and returns the exit code.
        help: one line.
        variables: of Make, beside those that all or many share (AWS_FLAGS, HYPERPARAMETER_FLAGS); NAME! must be given.
    """

    main: str
    help: str
    variables: str = ""


COMMANDS = {
    "infra": Command("infrastructure.stack:main", "create bucket, repository, roles and build as one stack", "SOURCE"),
    "iam": Command("infrastructure.iam:main", "print least-privilege policies", "KIND"),
    "push": Command("infrastructure.push:main", "push the image to ECR, print its digest", "PUSH_OPTIONS"),
    "prepare-s3": Command("data.prepare_s3:main", "upload a data set", "DATA!"),
    "train": Command("jobs.launch_training:main", "train on SageMaker, follow the job", "DATA"),
    "tune": Command("jobs.tune:main", "search hyperparameters", "RANGES! DATA"),
    "process": Command("jobs.process:main", "prepare or evaluate as a processing job", "KIND! MODEL DATA"),
    "pipeline": Command(
        "jobs.pipeline:main", "create or update the pipeline prepare, train, evaluate, register", "DATA SOURCE"
    ),
    "register": Command("hosting.register:main", "put a model into the model registry", "MODEL"),
    "deploy": Command("hosting.deploy:main", "host a model", "MODE MODEL ENDPOINT"),
    "predict": Command("client.predict:main", "ask an endpoint", "IMAGE! ENDPOINT TARGET"),
    "transform": Command("jobs.transform:main", "batch transform", "INPUT! MODEL"),
    "status": Command(
        "infrastructure.status:main", "what this project has in the account, and what it costs by the hour"
    ),
    "logs": Command("infrastructure.logs:main", "the log of a job or an endpoint", "JOB"),
    "delete": Command("infrastructure.delete:main", "delete what costs", "ENDPOINT JOB MODEL PIPELINE"),
    "prices": Command(
        "infrastructure.update_prices:main", "ask AWS what instances cost in a region, for the table of costs"
    ),
}
