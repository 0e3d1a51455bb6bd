"""Resolve pyproject.toml for every supported Python and platform into hashed pins (`make lock`).

Pins that still fit stay; `--upgrade` takes the newest of everything.

There are six files because of torch: in the image, torch and CUDA belong to the base and must not change; a virtual
environment needs the small CPU build if it is available, and the CUDA libraries only with a CUDA build.

    docker/requirements.txt             for the package, without torch and CUDA
    docker/requirements-toolkit.txt     also for the image: sagemaker-training
    docker/requirements-dev.txt         also for tests and linters
    docker/requirements-torch-cpu.txt   torch's CPU build
    docker/requirements-torch.txt       torch from PyPI, on Linux a CUDA build
    docker/requirements-cuda.txt        also for a CUDA build of torch
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TORCH = "2.13.0"
CUDA_PACKAGES = re.compile(r"^(nvidia-|cuda-|triton)")
# PyTorch publishes the CPU wheels in its own index, https://download.pytorch.org/whl/cpu, not on PyPI.
TORCH_CPU_WHEELS = {
    "cp311 x86_64": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "cp312 x86_64": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
    "cp311 aarch64": "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",
    "cp312 aarch64": "6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604",
}
HEADER = "# Written by `make lock` from pyproject.toml.\n"


def resolve(*options: str) -> dict[str, list[str]]:
    """Resolve pyproject.toml: package name -> its blocks (one per marker) of requirement and hashes."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(f"torch=={TORCH}\n")
        pins = Path(folder) / "pins.txt"  # uv keeps the versions in its output file if it can
        pins.write_text("".join(path.read_text() for path in _written_before()))
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-annotate", "--no-header", "--constraint", str(constraints), "--output-file", str(pins)]
        subprocess.run([*command, *options, "pyproject.toml"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        text = pins.read_text()
    blocks: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        blocks.setdefault(block.split("==")[0], []).append(block.rstrip() + "\n")
    return blocks


def _written_before() -> list[Path]:
    return sorted({*(ROOT / "docker").glob("requirements*.txt")} - {ROOT / "docker/requirements-torch-cpu.txt"})


def write(name: str, blocks: dict[str, list[str]]) -> None:
    """Write one file of pins."""
    path = ROOT / "docker" / name
    path.write_text(HEADER + "".join(block for name in sorted(blocks) for block in blocks[name]))
    print(f"{path.relative_to(ROOT)}: {len(blocks)} packages")


def main() -> int:
    """Write the six files."""
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    runtime = resolve(*upgrade)
    extras = {extra: resolve(*upgrade, "--extra", extra) for extra in ("dev", "toolkit")}
    for extra, blocks in extras.items():
        changed = [name for name in runtime if runtime[name] != blocks[name]]
        if changed:
            print(f"the {extra} extra changes what the package runs on: {', '.join(changed)}", file=sys.stderr)
            return 1
    extras = {extra: {name: blocks[name] for name in blocks if name not in runtime} for extra, blocks in extras.items()}
    torch = runtime.pop("torch")
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in TORCH_CPU_WHEELS.values())
    cuda = {name: runtime.pop(name) for name in list(runtime) if CUDA_PACKAGES.match(name)}
    write("requirements.txt", runtime)
    write("requirements-toolkit.txt", extras["toolkit"])
    write("requirements-dev.txt", extras["dev"])
    write("requirements-torch-cpu.txt", {"torch": [f"torch=={TORCH}+cpu{hashes}\n"]})
    write("requirements-torch.txt", {"torch": torch})
    write("requirements-cuda.txt", cuda)
    return 0


if __name__ == "__main__":
    sys.exit(main())
