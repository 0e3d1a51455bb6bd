"""The life of a model in the offline SageMaker (`make simulate-train`, `-spot`, ...), by the real commands.

Each step is a command as a person would give it, in a process of its own; only AWS_ENDPOINT_URL says where AWS is. The
transcript is what a real account would show, except for numbers. What `make infra` and `make push` would have made, a
bucket and an image, is there from the start.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from develop.draw_sample import draw_sample
from develop.draw_volumes import draw_masked
from sagemaker_monai.outputs.label_map_files import NIFTI_TYPE
from sagemaker_monai_aws.client.content_types import content_of, files_below, type_of_file
from sagemaker_monai_aws.core.names import CREATED_BY, default_bucket
from simulate.faults import JobError
from simulate.server import Simulation
from simulate.world import ACCOUNT, REGION

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = CREATED_BY
PREFIX = "monai"
SAMPLE = ".simulate/sample"
MASKED = "masks"
SCANS = 10  # of the drawn sample with masks
LESIONS = 120  # of the drawn sample: enough for every class in every split
PICTURES = 8  # that are predicted
QUICK = {"epochs": "2", "image_size": "32", "network": "resnet18"}
# A job that is to be interrupted after its first epoch must not be over before its checkpoint is seen in S3.
LONGER = {**QUICK, "epochs": "8"}
OF_MASKS = {"epochs": "4", "network": "unet", "network_width": "4", "learning_rate": "0.01", "ema_decay": "0.5"}
INTERRUPTED = ("spot", "all")
CHECKPOINT_TIMEOUT_S = 600


@dataclass
class Stage:
    """Where a life takes place.

    Attributes:
        simulation: the offline SageMaker.
        folder: for files of this life.
        data: a data set.
        hyperparameters: of training.
        interrupt_after_s: of the spot job; None: when the first checkpoint is in S3.
        started: when, for the transcript.
    """

    simulation: Simulation
    folder: Path
    data: Path
    hyperparameters: Mapping[str, str]
    interrupt_after_s: float | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def bucket(self) -> str:
        """The bucket that `make infra` would have made."""
        return default_bucket(PROJECT, ACCOUNT, REGION)

    def run(self, command: str, *words: str) -> None:
        """Run a command and show it.

        Raises:
            JobError: it failed.
        """
        print(f"\n$ sagemaker-monai {command} {shlex.join(words)}".rstrip(), flush=True)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        variables |= {**self.simulation.environment, "CONFIG_ENV": os.devnull, "PYTHONPATH": str(ROOT / "scripts")}
        code = subprocess.run(
            [sys.executable, "-m", "sagemaker_monai_aws", command, *words], env=variables, check=False
        ).returncode
        if code != 0:
            raise JobError(f"sagemaker-monai {command} ended with {code}")


def prepare(stage: Stage) -> None:
    """What is there before: bucket and image; and the data set goes to S3."""
    world = stage.simulation.world
    with suppress(world.client("s3").exceptions.BucketAlreadyOwnedByYou):
        world.client("s3").create_bucket(Bucket=stage.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    ecr = world.client("ecr")
    with suppress(ecr.exceptions.RepositoryAlreadyExistsException):
        ecr.create_repository(repositoryName=PROJECT)
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "layers": [],
                "config": {"mediaType": media_type, "size": 2, "digest": "sha256:" + "0" * 64}}  # fmt: skip
    with suppress(ecr.exceptions.ImageAlreadyExistsException):
        ecr.put_image(repositoryName=PROJECT, imageTag="simulated", imageManifest=json.dumps(manifest))
    stage.run("prepare-s3", str(stage.data))


def train(stage: Stage, *options: str) -> None:
    """A training job, followed to its end."""
    words = [f"{name}={value}" for name, value in stage.hyperparameters.items()]
    where = ["--image", "simulated", "--instance-type", "ml.m5.large", "--volume-gb", "10"]
    stage.run("train", "--hyperparameters", *words, *where, "--poll-s", "0.5", "--output", str(stage.folder / "jobs"),
              *options)  # fmt: skip


def train_interrupted(stage: Stage) -> None:
    """A spot job whose instance is taken away while it trains; it goes on from its checkpoint on another."""
    world = stage.simulation.world
    if stage.interrupt_after_s is not None:
        world.interrupt_after_s = stage.interrupt_after_s
    else:
        threading.Thread(target=_interrupt_at_checkpoint, args=(stage,), daemon=True).start()
    train(stage)
    job = world.client("sagemaker").list_training_jobs()["TrainingJobSummaries"][0]["TrainingJobName"]
    found = world.client("sagemaker").describe_training_job(TrainingJobName=job)
    statuses = [each["Status"] for each in found["SecondaryStatusTransitions"]]
    print(f"\n{job}: {', '.join(statuses)}", flush=True)
    if "Interrupted" not in statuses:
        raise JobError("the job ended before it was interrupted: give it more epochs, or a smaller --interrupt-after")


def _interrupt_at_checkpoint(stage: Stage) -> None:
    world, deadline = stage.simulation.world, time.monotonic() + CHECKPOINT_TIMEOUT_S
    while time.monotonic() < deadline and not world.closing.wait(0.1):
        listed = world.client("s3").list_objects_v2(Bucket=stage.bucket, Prefix=f"{PREFIX}/checkpoints/")
        if any(item["Key"].endswith(".pt") for item in listed.get("Contents", [])):
            world.interrupt_after_s = 0
            return


def pictures(stage: Stage) -> Path:
    """A folder of some images of the data set; a series is a zip, which is one object for a batch, too."""
    folder = stage.folder / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    known = json.loads((stage.data / "dataset.json").read_text()) if (stage.data / "dataset.json").is_file() else {}
    named = [stage.data / record["image"] for record in known.get("test") or known.get("training", [])]
    found = named or [path for path in files_below(stage.data) if type_of_file(path) and path.suffix.lower() != ".json"]
    for path in found[:: max(1, len(found) // PICTURES)][:PICTURES]:
        if path.is_dir():
            (folder / f"{path.name}.zip").write_bytes(content_of(path))
        else:
            shutil.copy(path, folder)
    return folder


def hosting(mode: str, *target: str) -> Callable[[Stage], None]:
    """Deploy in a mode, ask, look what runs, delete."""

    def run(stage: Stage) -> None:
        stage.run("deploy", "--mode", mode, "--instance-type", "ml.m5.large", "--poll-s", "0.5")
        stage.run("predict", str(pictures(stage)), *target)
        stage.run("status")
        stage.run("delete", "--endpoint", f"{PROJECT}-{mode}", "--yes")

    return run


def masks(stage: Stage) -> None:
    """Deploy a model of masks, ask for sizes and for the masks themselves, delete.

    Raises:
        JobError: not every image has a mask.
    """
    shutil.rmtree(stage.folder / "masks", ignore_errors=True)
    stage.run("deploy", "--mode", "realtime", "--instance-type", "ml.m5.large", "--poll-s", "0.5")
    asked = pictures(stage)
    stage.run("predict", str(asked))
    stage.run("predict", str(asked), "--accept", NIFTI_TYPE, "--save", str(stage.folder / "masks"))
    saved, wanted = len(list((stage.folder / "masks").glob("*.nii"))), len(list(asked.iterdir()))
    if saved != wanted:
        raise JobError(f"{saved} masks were saved of {wanted} images")


def batch(stage: Stage) -> None:
    """A batch transform job over pictures in S3."""
    stage.run("deploy", "--mode", "batch")
    world = stage.simulation.world
    for path in sorted(pictures(stage).iterdir()):
        world.client("s3").upload_file(str(path), stage.bucket, f"{PREFIX}/data/pictures/{path.name}")
    stage.run("transform", "--input", f"s3://{stage.bucket}/{PREFIX}/data/pictures/", "--instance-type", "ml.m5.large",
              "--poll-s", "0.5", "--output", str(stage.folder / "transform"))  # fmt: skip


def evaluate_and_register(stage: Stage) -> None:
    """Score the artifact in a processing job, put it into the registry, and define the pipeline of all that."""
    stage.run("process", "evaluate", "--image", "simulated", "--poll-s", "0.5")
    stage.run("register")
    stage.run("pipeline", "--image", "simulated")


def clean_up(stage: Stage) -> None:
    """Delete everything that costs; nothing is left."""
    stage.run("delete", "--all", "--yes")
    stage.run("status")


# Name of a life -> its steps.
LIVES: dict[str, tuple[Callable[[Stage], None], ...]] = {
    "train": (prepare, train),
    "spot": (prepare, train_interrupted),
    "endpoint": (prepare, train, hosting("realtime"), clean_up),
    "async": (prepare, train, hosting("async"), clean_up),
    "batch": (prepare, train, batch, clean_up),
    "multi-model": (prepare, train, hosting("multi-model"), clean_up),
    MASKED: (prepare, train, evaluate_and_register, masks, clean_up),
    "all": (prepare, train_interrupted, evaluate_and_register,
            *map(hosting, ("realtime", "serverless", "async", "multi-model")), batch, clean_up),
}  # fmt: skip


def defaults_of(name: str) -> dict[str, str]:
    """The hyperparameters of a life."""
    return OF_MASKS if name == MASKED else LONGER if name in INTERRUPTED else QUICK


def sample(name: str) -> Path:
    """A drawn data set for a life, as an importer writes it; made once."""
    folder = ROOT / SAMPLE
    if name == MASKED:
        drawn = folder.with_name("sample-masks")
        return drawn if (drawn / "dataset.json").is_file() else draw_masked(drawn, SCANS, seed=0, as_nifti=True)
    if not (folder / "data" / "dataset.json").is_file():
        draw_sample(folder / "dataverse", lesions=LESIONS, seed=0)
        command = [sys.executable, "-m", "sagemaker_monai.entrypoints.prepare", "ham10000", str(folder / "dataverse")]
        title = "Synthetic sample, drawn by code"
        subprocess.run([*command, str(folder / "data"), "--title", title], check=True)
    return folder / "data"


def live(name: str, stage: Stage) -> None:
    """Run all steps of a life."""
    for step in LIVES[name]:
        step(stage)
    print(f"\nsimulate-{name}: everything worked, in {time.monotonic() - stage.started:.0f} s", flush=True)
