"""Shared by the tests of the image: a channel of pictures, a model that the image trained, BASE_IMAGE if known."""

import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.image import containers

CLASSES = {"dark": 60, "light": 190, "mid": 120}


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/image/" in item.nodeid:
            item.add_marker(pytest.mark.image)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        for each in containers.running:
            report.sections.append((f"log of {each.id}", each.log()[-6000:]))
    return report


@pytest.fixture(scope="session", autouse=True)
def image():
    """The reference of the image under test."""
    if not containers.IMAGE:
        pytest.fail("name the image under test: IMAGE=sagemaker-monai:TAG, or run `make test-image`", pytrace=False)
    found = subprocess.run(["docker", "image", "inspect", containers.IMAGE], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.fail(f"{found.stderr.strip()}: `make build` makes the image, and Docker must be up", pytrace=False)
    return containers.IMAGE


@pytest.fixture(scope="session")
def base_image():
    """The reference of the base, to compare with."""
    name = os.environ.get("BASE_IMAGE", "")
    if not name or subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode != 0:
        pytest.skip("needs BASE_IMAGE, the base of the image under test, on this machine")
    return name


def draw(folder, *, per_class, seed):
    """Class folders of small pictures that differ in brightness."""
    rng = np.random.default_rng(seed)
    for name, level in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            values = np.clip(rng.normal(level, 20, (24, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"PATIENT-{name}-{index}.png")


@pytest.fixture(scope="session")
def channel(tmp_path_factory):
    """72 pictures of three classes, already split."""
    folder = tmp_path_factory.mktemp("data") / "training"
    for seed, (split, per_class) in enumerate({"train": 16, "val": 4, "test": 4}.items()):
        draw(folder / split, per_class=per_class, seed=seed)
    return folder


@pytest.fixture(scope="session")
def trained(image, channel, tmp_path_factory):
    """A finished job of the image: one epoch, one host."""
    job = containers.run_train(tmp_path_factory.mktemp("job"), {"training": channel})
    assert job.code == 0, job.log
    return job


@pytest.fixture(scope="session")
def model(trained):
    """The artifact that the image trained."""
    return trained.base / "model"
