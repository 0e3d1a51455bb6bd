"""What the image's build installs and refuses, with packages that are only metadata."""

import json
import subprocess

import pytest
from pip._vendor.packaging.requirements import Requirement

from docker import install_packages
from tests.support.places import ROOT


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A function that adds an installed package to an empty folder on the path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr("sys.path", [str(folder)])
    monkeypatch.setattr(install_packages, "complaints", lambda: set())

    def add(name, version, *requires):
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
        (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
        return info

    return add


def unsuitable(*needed):
    return sorted({requirement.name for requirement in install_packages.unsuitable([Requirement(n) for n in needed])})


def test_a_version_of_the_base_that_suits_stays(site):
    site("numpy", "2.4.4")

    assert unsuitable("numpy>=2.0") == []
    assert unsuitable("numpy>=2.5") == ["numpy"]


def test_transitive_requirements_count_too(site):
    site("toolkit", "1.0", "server<3")
    site("server", "2.0", "urllib3>=2.6", 'only-on-windows; sys_platform == "win32"')
    site("urllib3", "2.5")

    assert unsuitable("toolkit") == ["urllib3"]


def test_an_extra_counts_only_where_it_is_asked_for(site):
    site("boto3", "1.0", 'awscrt>=0.1; extra == "crt"')

    assert unsuitable("boto3") == []
    assert unsuitable("boto3[crt]") == ["awscrt"]


def test_packages_that_need_each_other_are_no_endless_loop(site):
    site("a", "1", "b")
    site("b", "1", "a")

    assert unsuitable("a") == []


def test_pins_of_another_python_are_left_out(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text(
        "# comment\n"
        "numpy==1.0 ; python_full_version < '3.0' \\\n    --hash=sha256:aa\n"
        "numpy==2.0 ; python_full_version >= '3.0' \\\n    --hash=sha256:bb\n"
        "Zope.Event==6.2 \\\n    --hash=sha256:cc\n"
    )

    found = install_packages.read_pins([pins])

    assert list(found) == ["numpy", "zope-event"]
    assert "--hash=sha256:bb" in found["numpy"]


@pytest.mark.parametrize("name", ["torch", "triton", "nvidia-cudnn-cu13", "cuda-bindings", "torchvision"])
def test_the_build_fails_when_torch_or_cuda_changed(site, tmp_path, name):
    before = site(name, "2.13.0")
    record = tmp_path / "base.json"
    record.write_text(json.dumps(install_packages.snapshot()))
    (before / "METADATA").unlink()
    before.rmdir()
    site(name, "2.13.1")

    with pytest.raises(SystemExit, match=f"{name} changed"):
        install_packages.check(record)


def test_the_build_says_which_package_of_the_base_it_replaced(site, tmp_path, capsys):
    before = site("setuptools", "81.0.0")
    record = tmp_path / "base.json"
    record.write_text(json.dumps(install_packages.snapshot()))
    (before / "METADATA").unlink()
    before.rmdir()
    site("setuptools", "80.10.2")
    site("monai", "1.6.1")

    install_packages.check(record)

    assert capsys.readouterr().out == "setuptools: the base's 81.0.0 became 80.10.2\n"


def test_the_build_fails_on_complaints_that_the_base_did_not_have(site, tmp_path, monkeypatch):
    old, new = "a 1 requires b, which is not installed.", "c 1 has requirement d<2, but you have d 2."
    monkeypatch.setattr(install_packages, "complaints", lambda: {old})
    record = tmp_path / "base.json"
    record.write_text(json.dumps(install_packages.snapshot()))

    install_packages.check(record)
    monkeypatch.setattr(install_packages, "complaints", lambda: {old, new})
    with pytest.raises(SystemExit) as failure:
        install_packages.check(record)

    assert str(failure.value) == f"pip check:\n{new}"


def test_a_base_without_torch_needs_the_argument(site):
    options = install_packages.argparse.Namespace(torch="base", torch_index="", pins=ROOT / "docker")

    with pytest.raises(SystemExit, match="TORCH=cpu"):
        install_packages.install_torch(options)


def test_every_requirement_of_the_package_has_a_pin():
    pins = install_packages.read_pins(ROOT / "docker" / name for name in install_packages.PIN_FILES)
    needed = {requirement.name.lower() for requirement in install_packages.roots(ROOT / "pyproject.toml")}

    assert needed - set(pins) == {"torch"}


@pytest.mark.parametrize(
    ("manager", "installs"),
    [
        ("dnf", "install -q -y python3.12 python3.12-pip"),
        ("apt-get", "install -q -y --no-install-recommends python3 python3-venv"),
    ],
)
def test_a_base_without_python_gets_it_from_its_package_manager(tmp_path, manager, installs):
    tools = tmp_path / "bin"
    tools.mkdir()
    log = tmp_path / "log"
    for name, text in {
        manager: f'echo "$@" >> {log}; case "$*" in *python3*) ln -sf {tools}/made {tools}/python3;; esac',
        # An interpreter that is new enough, whose `-m venv` makes a `python`.
        "made": f'case "$*" in *venv*) ln -sf {tools}/made {tools}/python;; esac',
        "rm": "true",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    (tools / "ln").symlink_to("/bin/ln")

    subprocess.run(["/bin/sh", ROOT / "docker/base_python"], env={"PATH": str(tools)}, check=True)

    assert installs in log.read_text().splitlines()


def test_a_base_without_python_and_package_manager_is_refused_with_the_remedy(tmp_path):
    run = subprocess.run(
        ["/bin/sh", ROOT / "docker/base_python"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert run.returncode == 1
    assert "neither dnf nor apt-get is in the base image: install python3.12" in run.stderr
