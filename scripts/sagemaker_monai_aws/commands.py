"""The table of commands; the parser, the help, config.env's prefixes and the tests read it. It imports none of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A row of COMMANDS.

    Attributes:
        module: below this package; has `add_options`, `work`, and a docstring that the command's help begins with.
        help: one line.
        variables: of Make, beside those that all or many share (AWS_FLAGS, HYPERPARAMETER_FLAGS); NAME! must be given.
        has_dry_run: whether it takes --dry-run; only commands that never write do without.
    """

    module: str
    help: str
    variables: str = ""
    has_dry_run: bool = True


COMMANDS = {
    "infra": Command("infrastructure.stack", "create bucket, repository, roles and build as one stack", "SOURCE"),
    "iam": Command("infrastructure.iam", "print least-privilege policies", "KIND", has_dry_run=False),
    "push": Command("infrastructure.push", "push the image to ECR, print its digest", "PUSH_OPTIONS"),
    "prepare-s3": Command("data.prepare_s3", "upload a data set", "DATA!"),
    "train": Command("jobs.launch_training", "train on SageMaker, follow the job", "DATA"),
    "tune": Command("jobs.tune", "search hyperparameters", "RANGES! DATA"),
    "process": Command("jobs.process", "prepare or evaluate as a processing job", "KIND! MODEL DATA"),
    "pipeline": Command(
        "jobs.pipeline", "create or update the pipeline prepare, train, evaluate, register", "DATA SOURCE"
    ),
    "register": Command("hosting.register", "add a model to the model registry", "MODEL"),
    "deploy": Command("hosting.deploy", "host a model", "MODE MODEL ENDPOINT"),
    "predict": Command("client.predict", "send images to an endpoint", "IMAGE! ENDPOINT TARGET"),
    "transform": Command("jobs.transform", "batch transform", "INPUT! MODEL"),
    "status": Command("infrastructure.status", "list what this project has in the account, and its cost by the hour",
                      has_dry_run=False),
    "logs": Command("infrastructure.logs", "print the log of a job or an endpoint", "JOB", has_dry_run=False),
    "delete": Command("infrastructure.delete", "delete what costs", "ENDPOINT JOB MODEL PIPELINE"),
    "prices": Command("infrastructure.update_prices", "fetch a region's instance prices from AWS"),
}  # fmt: skip
