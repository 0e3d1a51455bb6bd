"""SageMaker's limits of shared memory (64 MB) and CPUs; and training leaves nothing in the container."""

import json

import pytest

from tests.image.bodies import PNG
from tests.image.containers import QUICK, container, docker, job_flags, run_train, served


def test_decoding_processes_do_not_need_more_than_64_mb_of_shared_memory(channel, tmp_path):
    settings = QUICK | {"num_workers": "2", "image_size": "256", "batch_size": "64"}

    job = run_train(tmp_path, {"training": channel}, settings)

    assert job.code == 0, job.log
    assert "Warning" not in job.log


def test_training_with_a_read_only_root_writes_below_opt_ml_and_tmp_only(channel, tmp_path):
    job = run_train(tmp_path, {"training": channel}, flags=("--read-only", "--tmpfs", "/tmp"))

    assert job.code == 0, job.log


def test_training_writes_nothing_into_the_image(channel, tmp_path):
    with container("train", flags=job_flags(tmp_path, {"training": channel}, QUICK)) as job:
        assert job.wait() == 0
        changes = docker("diff", job.id).stdout.splitlines()

    written = {line.split(maxsplit=1)[1] for line in changes} - {"/tmp", "/opt", "/opt/ml"}
    assert written <= {"/tmp/torchinductor_uid0"}  # an empty folder made by torch


@pytest.mark.parametrize("back_end", ["workers", "mms"])
def test_one_cpu_is_one_worker(model, back_end):
    with served(model, flags=("--cpus", "1"), MODEL_SERVER=back_end) as server:
        parameters = json.loads(server.request("GET", "/execution-parameters")[2])
        assert server.invoke(PNG, "image/png")[0] == 200

    assert parameters["MaxConcurrentTransforms"] == 1
