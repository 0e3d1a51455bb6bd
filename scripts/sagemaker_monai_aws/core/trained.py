"""Which artifact is meant (an address in S3, a training job, or the project's newest), and what else its job left."""

import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.create import tags_of
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.follow import describe
from sagemaker_monai_aws.core.names import is_ours, split_s3
from sagemaker_monai_aws.core.places import read_object

# Where SageMaker puts the artifact of a job: a file, or with CompressionType NONE a folder.
OUTPUT = re.compile(r".*/([a-zA-Z0-9-]{1,63})/output/model(?:\.tar\.gz|/?)")
LOOKED_AT = 200  # of the newest jobs that completed
UNKNOWN = "placeholder"  # name of the job in a dry run without credentials
REPORT = "metrics.json"
MOST_REPORT_BYTES = 64 * 1024 * 1024
MOST_OUTPUT_BYTES = 1 << 31


@dataclass(frozen=True)
class Trained:
    """An artifact.

    Attributes:
        artifact: address of model.tar.gz, or of a folder with a slash at its end.
        job: AWS's description of the training job that made it; empty if there is none.
    """

    artifact: str
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether the artifact is not compressed."""
        return self.artifact.endswith("/")

    @property
    def name(self) -> str:
        """The training job's name; empty if it is not known."""
        return str(self.job.get("TrainingJobName", ""))

    def model_data(self) -> dict[str, Any]:
        """Its members of a container, of a model or a model package."""
        if not self.is_folder:
            return {"ModelDataUrl": self.artifact}
        source = {"S3Uri": self.artifact, "S3DataType": "S3Prefix", "CompressionType": "None"}
        return {"ModelDataSource": {"S3DataSource": source}}


def find_trained(account: Account, project: str, model: str | None) -> Trained:
    """Find an artifact.

    Args:
        account: where.
        project: its newest job is taken without a `model`.
        model: an address in S3 or the name of a training job.

    Raises:
        CommandError: it does not exist, or is not finished.
    """
    if not model:
        return _of(_newest(account, project) if account.is_known else _unknown(project))
    if not model.startswith("s3:"):
        found = describe(account, "training", model) if account.is_known else _unknown(project)
        if found is None:
            raise CommandError(f"there is no training job {model!r} in {account.region}: `make status` lists them")
        return _of(found)
    split_s3(model)
    match = OUTPUT.fullmatch(model)
    job = describe(account, "training", match[1]) if match and account.is_known else None
    made = "" if job is None else _artifact_of(job)
    if job is not None and made.rstrip("/") == model.rstrip("/"):
        return _of(job)
    return Trained(model if model.endswith(".tar.gz") else model.rstrip("/") + "/")


def _of(job: Mapping[str, Any]) -> Trained:
    artifact = _artifact_of(job)
    if not artifact:
        raise CommandError(f"{job['TrainingJobName']} has no artifact, its status is {job['TrainingJobStatus']}: "
                           "name another job, or wait for it with `make logs`")  # fmt: skip
    return Trained(artifact, job)


def _artifact_of(job: Mapping[str, Any]) -> str:
    artifact = str(job.get("ModelArtifacts", {}).get("S3ModelArtifacts") or "")
    return artifact if not artifact or artifact.endswith(".tar.gz") else artifact.rstrip("/") + "/"


def _newest(account: Account, project: str) -> Mapping[str, Any]:
    listed = account.client("sagemaker").get_paginator("list_training_jobs").paginate(
        NameContains=f"{project}-", StatusEquals="Completed", SortBy="CreationTime", SortOrder="Descending",
        PaginationConfig={"MaxItems": LOOKED_AT},
    )  # fmt: skip
    for page in listed:
        for summary in page["TrainingJobSummaries"]:
            if is_ours(tags_of(account, summary["TrainingJobArn"]), project):
                found = describe(account, "training", summary["TrainingJobName"])
                if found is not None:
                    return found
    raise CommandError(f"no training job of project {project!r} has completed in {account.region}: `make train`, or "
                       "name an artifact with MODEL=s3://...")  # fmt: skip


def _unknown(project: str) -> dict[str, Any]:
    return {
        "TrainingJobName": f"{project}-train-{UNKNOWN}",
        "TrainingJobStatus": "Completed",
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://{UNKNOWN}/{project}-train-{UNKNOWN}/output/model.tar.gz"},
    }


def output_folder(job: Mapping[str, Any]) -> str:
    """Address of what a training job wrote, without a slash at its end."""
    return f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job['TrainingJobName']}/output"


def read_output(
    account: Account, job: Mapping[str, Any], name: str, *, most_bytes: int = MOST_REPORT_BYTES
) -> bytes | None:
    """A file of a training job's output data; None if the job left none.

    Args:
        account: where.
        job: AWS's description of the job.
        name: of the file.
        most_bytes: of a file that is not in an archive.

    Raises:
        CommandError: the file or the archive is too large to read.
    """
    folder = output_folder(job)
    if job["OutputDataConfig"].get("CompressionType") == "NONE":
        return read_object(account, f"{folder}/data/{name}", most_bytes=most_bytes)
    archive = read_object(account, f"{folder}/output.tar.gz", most_bytes=MOST_OUTPUT_BYTES)
    return None if archive is None else _member_of(archive, name)


def _member_of(archive: bytes, name: str) -> bytes | None:
    """One regular file of a tar.gz, without unpacking anything; None if it is not in there."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.removeprefix("./") == name and member.size <= MOST_REPORT_BYTES:
                file = tar.extractfile(member)
                return None if file is None else file.read()
    return None
