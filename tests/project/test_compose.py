"""Compose accepts docker/compose.yml, and its hosts match the resource configurations."""

import json
import os
import re
import subprocess

import pytest
import yaml

from sagemaker_monai.serving.privileges import CAPABILITIES
from tests.support.compose import compose_command
from tests.support.places import ROOT

FOLDER = ROOT / "docker"
TEXT = (FOLDER / "compose.yml").read_text()


def test_every_host_is_in_the_configuration_of_each():
    hosts = re.findall(r"^    hostname: (.+)$", TEXT, re.M)

    assert len(hosts) == 2
    for host in hosts:
        resources = json.loads((FOLDER / "hosts" / f"{host}.json").read_text())
        assert resources["hosts"] == hosts
        assert resources["current_host"] == host
        assert f"./hosts/{host}.json:/opt/ml/input/config/resourceconfig.json:ro" in TEXT


def test_variables_that_one_profile_does_not_need_have_a_default():
    used = re.findall(r"^[^#]*?\$\{(\w+)(:?-)?", TEXT, re.M)

    assert {name for name, _ in used} == {
        *("IMAGE", "DATA", "OUTPUT", "MODEL", "PORT", "HYPERPARAMETERS", "MEMORY", "TMP_SIZE"),
    }
    assert all(default for _, default in used)


def test_nothing_is_published_to_other_machines():
    assert re.findall(r"^      - .*:8080$", TEXT, re.M) == ["      - 127.0.0.1:${PORT:-8080}:8080"]


def test_the_server_has_limits_and_only_the_capabilities_that_it_declares():
    service = yaml.safe_load(TEXT)["services"]["serve"]

    assert service["cap_drop"] == ["ALL"]
    assert set(service["cap_add"]) == set(CAPABILITIES)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["pids_limit"] > 0
    assert service["mem_limit"] == service["memswap_limit"]  # no swap
    assert "privileged" not in service


def test_compose_takes_the_file(tmp_path):
    command = compose_command()
    if not command:
        pytest.skip("needs Docker Compose")
    places = {"DATA": str(tmp_path), "OUTPUT": str(tmp_path), "MODEL": str(tmp_path), "IMAGE": "some:tag"}
    profiles = ("--profile", "train", "--profile", "serve")

    result = subprocess.run(
        [*command, "-f", FOLDER / "compose.yml", *profiles, "config"],
        env=os.environ | places, capture_output=True, text=True,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert "not set" not in result.stderr  # a variable without a value
    for service in ("algo-1", "algo-2", "serve"):
        assert f"\n  {service}:\n" in result.stdout
    assert result.stdout.count("image: some:tag") == 3
