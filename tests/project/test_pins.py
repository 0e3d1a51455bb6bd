"""Every requirement is pinned, and torch has pins of its own."""

import re

import pytest

from tests.support.places import ROOT

DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("requirements*.txt"))


def pins(path):
    """Name -> (version, number of hashes) of every requirement in a file."""
    found = {}
    for block in re.split(r"\n(?=\S)", path.read_text().strip()):
        if not block.startswith("#"):
            name, version = re.match(r"([\w.-]+)==([\w.+]+)", block).groups()
            found[name] = (version, block.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_requirement_is_one_version_with_hashes(path):
    assert pins(path)
    assert all(hashes > 0 for _, hashes in pins(path).values())


def test_torch_and_cuda_are_not_among_what_an_image_adds():
    assert not [name for name in pins(DOCKER / "requirements.txt") if re.match(r"torch|nvidia|cuda|triton", name)]


def test_the_cpu_build_of_torch_is_a_pin_of_its_own_with_a_hash_for_each_platform():
    (version, hashes) = pins(DOCKER / "requirements-torch-cpu.txt")["torch"]

    assert version == pins(DOCKER / "requirements-torch.txt")["torch"][0] + "+cpu"
    assert hashes == 4  # Python 3.11 and 3.12 on x86_64 and aarch64
