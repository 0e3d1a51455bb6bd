"""Make .venv from the hashed pins (`make install`); standard library only, for any Python 3.11 or 3.12.

Every file's hash is verified and nothing is resolved (`--no-deps`). torch is the CPU build, from PyTorch's own index or
pip's configured one, because PyPI's Linux build needs CUDA and gigabytes more; if only that is available, its libraries
are installed too. TORCH_INDEX names a mirror; `none` takes PyPI's build.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def make_venv() -> None:
    """Create .venv with pip in it, or keep an existing one of this Python and update it."""
    settings = VENV / "pyvenv.cfg"
    version = ".".join(map(str, sys.version_info[:3]))
    same_python = settings.is_file() and f"version = {version}\n" in settings.read_text()
    if same_python and subprocess.run([VENV / "bin/python", "-c", "import pip"], check=False).returncode == 0:
        return
    if importlib.util.find_spec("ensurepip") is not None:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        return
    # Debian and Amazon Linux ship Python without ensurepip; the system's pip can fill the environment instead.
    if importlib.util.find_spec("pip") is None:
        raise SystemExit("install: this Python has neither ensurepip nor pip: install python3-venv (Debian, Ubuntu) "
                         "or python3.12-pip (Amazon Linux) and run this again")  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)], check=True)
    python = str(VENV / "bin/python")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "pip"], check=True)


def pip_install(*arguments: str) -> None:
    """Run pip inside .venv; its progress goes to the terminal."""
    command = [str(VENV / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
    subprocess.run([*command, "--quiet", "--retries", "2", "--no-deps", *arguments], check=True, cwd=ROOT)


def install_pins(name: str, *options: str) -> None:
    """Install docker/requirements{name}.txt, verifying every hash."""
    started = time.monotonic()
    pip_install("--require-hashes", *options, "-r", f"docker/requirements{name}.txt")
    print(f"install: docker/requirements{name}.txt in {time.monotonic() - started:.0f} s", flush=True)


def install_torch() -> None:
    """Install the CPU build, or PyPI's if there is none (macOS) or it is asked for.

    They are two pins: given one version with both builds' hashes, pip takes the build whose index lists hashes.
    """
    index = os.environ.get("TORCH_INDEX") or TORCH_INDEX
    if index != "none":
        try:
            install_pins("-torch-cpu", "--extra-index-url", index)
        except subprocess.CalledProcessError:
            print("install: no CPU build of torch is available: taking PyPI's", flush=True)
        else:
            return
    install_pins("-torch")
    if needs_cuda_libraries():
        install_pins("-cuda")


def site_packages() -> Path:
    """The packages' folder in .venv."""
    [site] = (VENV / "lib").glob("python3*/site-packages")
    return site


def needs_cuda_libraries() -> bool:
    """Whether the torch in .venv is a CUDA build from PyPI, whose libraries are separate packages."""
    [torch] = importlib.metadata.distributions(name="torch", path=[str(site_packages())])
    return any(line.startswith("nvidia-") for line in torch.requires or [])


def main() -> int:
    """Make or remake .venv."""
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        print(f"install: Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}; "
              "name one: make install PYTHON=python3.12", file=sys.stderr)  # fmt: skip
        return 1
    print(f"install: .venv on Python {sys.version.split()[0]}", flush=True)
    make_venv()
    install_torch()
    setuptools = next(  # builds the pins that are source archives
        line.split()[0] for line in (ROOT / "docker/requirements.txt").read_text().splitlines()
        if line.startswith("setuptools==")
    )  # fmt: skip
    pip_install(setuptools)
    install_pins("", "--no-build-isolation")
    install_pins("-dev", "--no-build-isolation")
    pip_install("--no-build-isolation", "--editable", ".")
    (site_packages() / "scripts.pth").write_text(f"{ROOT / 'scripts'}\n")  # develop and simulate are in no wheel
    subprocess.run([VENV / "bin/python", "-m", "pip", "check"], check=True)
    (VENV / "installed").touch()  # make compares its time with that of the pins
    return 0


if __name__ == "__main__":
    sys.exit(main())
