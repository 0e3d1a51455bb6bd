"""Install the pins into the image's Python without changing the base image's packages (a step of the Dockerfile).

    python install_packages.py --pins DIR --pyproject FILE --torch cpu|cuda|base --torch-index URL [--wheels DIR]
    python install_packages.py --pins DIR --pyproject FILE --build-wheels DIR
    python install_packages.py --check FILE

A Deep Learning Container has hundreds of packages that were tested together, torch and CUDA among them. So a package
of the base stays if its version meets all our requirements; only missing and unsuitable packages are installed, at
the pinned version, with their hash verified. Afterwards torch and the CUDA libraries must be unchanged, and `pip
check` must have no new complaints.

Only the standard library and pip's own copy of `packaging` are available at this point.
"""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

PIN_FILES = ("requirements.txt", "requirements-toolkit.txt")
TORCH_FILES = {"cpu": ("requirements-torch-cpu.txt",), "cuda": ("requirements-torch.txt", "requirements-cuda.txt")}
COMPILED = "sagemaker-training"  # published only as source with a C extension
OF_THE_BASE = re.compile(r"^(torch|torchvision|torchaudio|triton|nvidia-.*|cuda-.*)$")  # never changed


def read_pins(paths: Iterable[Path]) -> dict[str, str]:
    """Canonical package name -> its block of requirement and hashes, for this Python and platform."""
    pins: dict[str, str] = {}
    for path in paths:
        for block in re.split(r"\n(?=\S)", path.read_text().strip()):
            if block.startswith("#"):
                continue
            requirement = Requirement(block.split("\\")[0].strip())
            if requirement.marker is None or requirement.marker.evaluate():
                pins[canonicalize_name(requirement.name)] = block
    return pins


def roots(pyproject: Path) -> list[Requirement]:
    """What our package needs in the image: its dependencies and the extra `toolkit`."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["toolkit"]]


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Canonical name -> installed package; the first on the path counts, as for import."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"]:
            found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution)
    return found


def unsuitable(needed: list[Requirement]) -> Iterator[Requirement]:
    """Requirements, ours and transitive ones, that no installed package meets."""
    packages = installed()
    waiting, seen = list(needed), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        package = packages.get(name)
        if package is None or not requirement.specifier.contains(package.version, prereleases=True):
            yield requirement
        elif (name, frozenset(requirement.extras)) not in seen:
            seen.add((name, frozenset(requirement.extras)))
            for text in package.requires or []:
                further = Requirement(text)
                extras = requirement.extras or {""}
                if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                    waiting.append(further)


def pip(*arguments: str) -> None:
    """Run this Python's pip without a cache."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", *arguments[1:]]
    subprocess.run(command, check=True, env={**os.environ, **quiet})


def install(blocks: Iterable[str], *options: str) -> None:
    """Install these pins without their dependencies."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(blocks) + "\n")
        file.flush()
        pip("install", "--no-deps", "--require-hashes", *options, "-r", file.name)


def complaints() -> set[str]:
    """The lines of `pip check`."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    run = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return set(run.stdout.splitlines()) if run.returncode else set()


def snapshot() -> dict[str, object]:
    """The base's packages and complaints, for `check`."""
    versions = {name: package.version for name, package in sorted(installed().items())}
    return {"packages": versions, "complaints": sorted(complaints())}


def check(before: Path) -> None:
    """Compare the installed packages with the base's.

    Raises:
        SystemExit: torch or CUDA changed, or `pip check` has new complaints.
    """
    base = json.loads(before.read_text())
    now = {name: package.version for name, package in installed().items()}
    changed = {name: (version, now.get(name)) for name, version in base["packages"].items() if now.get(name) != version}
    for name, (old, new) in changed.items():
        print(f"{name}: the base's {old} became {new}")
    touched = [name for name in changed if OF_THE_BASE.match(name)]
    if touched:
        raise SystemExit(f"torch and CUDA are the base's and must stay: {', '.join(touched)} changed")
    if new_complaints := complaints() - set(base["complaints"]):
        raise SystemExit("pip check:\n" + "\n".join(sorted(new_complaints)))


def install_torch(options: argparse.Namespace) -> None:
    """Install torch into a base that has none."""
    if "torch" in installed():
        return
    if options.torch not in TORCH_FILES:
        raise SystemExit("the base image has no torch: give --build-arg TORCH=cpu or cuda, or choose another base")
    for name in TORCH_FILES[options.torch]:
        index = ["--extra-index-url", options.torch_index] if options.torch == "cpu" else []
        install(read_pins([options.pins / name]).values(), *index)


def install_pins(options: argparse.Namespace) -> None:
    """Install every missing pin, then replace unsuitable packages until none is left."""
    pins = read_pins(options.pins / name for name in PIN_FILES)
    needed = roots(options.pyproject)
    for wheel in sorted(options.wheels.glob("*.whl")) if options.wheels else []:
        pip("install", "--no-deps", "--no-index", str(wheel))
    # Build source archives with the pinned setuptools, not in an environment that pip fills from the index.
    install([pins["setuptools"]])
    install([block for name, block in pins.items() if name not in installed()], "--no-build-isolation")
    while wrong := {canonicalize_name(requirement.name) for requirement in unsuitable(needed)}:
        if stuck := [name for name in wrong if name not in pins or _is_pinned_version(name, pins[name])]:
            raise SystemExit(f"no pin meets what is needed of {', '.join(sorted(stuck))}: run `make lock`")
        install([pins[name] for name in sorted(wrong)], "--no-build-isolation")


def _is_pinned_version(name: str, block: str) -> bool:
    package = installed().get(name)
    return package is not None and Requirement(block.split("\\")[0].strip()).specifier.contains(package.version)


def build_wheels(options: argparse.Namespace) -> None:
    """Compile sagemaker-training, unless the base has it."""
    options.build_wheels.mkdir(parents=True, exist_ok=True)
    if COMPILED in installed():
        return
    pins = read_pins(options.pins / name for name in PIN_FILES)
    install([pins["setuptools"]])
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(pins[COMPILED] + "\n")
        file.flush()
        pip("wheel", "--no-deps", "--no-build-isolation", "--require-hashes",
            "--wheel-dir", str(options.build_wheels), "-r", file.name)  # fmt: skip


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pins", type=Path, help="folder of the requirements files")
    parser.add_argument("--pyproject", type=Path)
    parser.add_argument("--torch", choices=[*TORCH_FILES, "base"], default="base")
    parser.add_argument("--torch-index", default="")
    parser.add_argument("--wheels", type=Path, help="folder of compiled wheels")
    parser.add_argument("--build-wheels", type=Path, help="only compile, into this folder")
    parser.add_argument("--record", type=Path, help="file to record the base's packages in")
    parser.add_argument("--check", type=Path, help="only compare with that record")
    options = parser.parse_args()
    if options.check:
        check(options.check)
    elif options.build_wheels:
        build_wheels(options)
    else:
        install_torch(options)
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(json.dumps(snapshot(), indent=1))
        install_pins(options)
        check(options.record)


if __name__ == "__main__":
    main()
