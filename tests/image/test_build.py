"""The contents of the image, and what its entry point does with a command."""

import json
import re

import pytest

from tests.image.containers import IMAGE, bind, container, docker, image_output

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "make", "cmake", "ld", "as", "javac", "rustc", "go")
MAX_ADDED_BYTES = 700_000_000


@pytest.fixture(scope="module")
def settings():
    return json.loads(docker("image", "inspect", IMAGE).stdout)[0]


def compilers(image):
    script = "for name in " + " ".join(COMPILERS) + "; do command -v $name; done; true"
    return set(image_output("sh", "-c", script, image=image).split())


def packages(image):
    """Name -> version of every Python package."""
    script = (
        "import importlib.metadata as m; "
        "print('\\n'.join(d.metadata['Name'] + ' ' + d.version for d in m.distributions()))"
    )
    lines = image_output("python", "-c", script, image=image).splitlines()
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in map(str.split, lines)}


def found(image, where, user="0"):
    """Files that `find` lists, without the mounts of the kernel and the engine."""
    prune = "( -path /proc -o -path /sys -o -path /dev ) -prune -o"
    command = ("find", "/", "-xdev", *prune.split(), *where.split(), "-print")
    flags = ("--rm", "--network", "none", "--user", user, "--entrypoint", command[0])
    return set(docker("run", *flags, image, *command[1:], check=False).stdout.split("\n")) - {""}


def test_the_labels_say_what_it_is_and_what_sagemaker_may_do(settings):
    labels = settings["Config"]["Labels"]

    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    for name in ("revision", "version", "licenses", "title"):
        assert labels[f"org.opencontainers.image.{name}"]
    assert "org.opencontainers.image.source" in labels  # empty where the checkout has no remote


def test_the_container_starts_as_root_without_a_shell_around_the_command(settings):
    assert settings["Config"]["User"] in ("", "root", "0")
    assert settings["Config"]["Entrypoint"] == ["/usr/local/bin/entrypoint"]
    assert "8080/tcp" in settings["Config"]["ExposedPorts"]


def test_the_commands_for_aws_are_not_in_it():
    assert found(IMAGE, "( -name sagemaker-monai -path */bin/* -o -name sagemaker_monai_aws )") == set()


def test_no_compiler_is_added(base_image):
    assert compilers(IMAGE) <= compilers(base_image)


@pytest.fixture(scope="module")
def base_with_torch(base_image):
    """The base, if it has torch itself."""
    if "torch" not in packages(base_image):
        pytest.skip("the base has no torch of its own")
    return base_image


def test_torch_and_all_else_of_the_base_stays(base_with_torch):
    ours, base = packages(IMAGE), packages(base_with_torch)

    assert ours["torch"] == base["torch"]
    assert sorted(set(base) - set(ours)) == []


def test_the_python_packages_agree_with_each_other():
    assert "No broken requirements found." in image_output("python", "-m", "pip", "check")


def test_less_than_700_mb_are_added(settings, base_with_torch):
    [base] = json.loads(docker("image", "inspect", base_with_torch).stdout)

    assert settings["Size"] - base["Size"] < MAX_ADDED_BYTES


@pytest.mark.parametrize(
    "where",
    [
        "-name .git",
        "-path */.cache/*",
        "-path /tmp/*",
        "-path /build/*",
        "-path /var/cache/*/archives/*.deb",
        "-path /var/lib/apt/lists/*_Packages*",
        "-path /var/cache/dnf/*.solv",
        "-name id_rsa -o -name .netrc -o -name .pypirc -o -path */.aws/credentials",
    ],
)
def test_no_cache_no_history_and_no_secret_stays_behind(where):
    assert found(IMAGE, where) == set()


def test_no_layer_was_made_with_a_secret():
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE).stdout

    assert not re.search(r"(?i)password|secret|token|AKIA[0-9A-Z]{16}|://[^/\s]*@", history)


def test_an_ordinary_user_can_change_no_file():
    writable = found(IMAGE, "-type f -writable", user="1000")

    assert {path for path in writable if not path.startswith("/tmp/")} == set()


def test_an_ordinary_user_can_add_no_file_to_what_runs():
    folders = found(IMAGE, "-type d -writable", user="1000")
    where = image_output("python", "-P", "-c", "import sagemaker_monai; print(*sagemaker_monai.__path__)").strip()

    assert not any(where.startswith(folder.rstrip("/") + "/") or folder.startswith(where) for folder in folders)
    assert {folder for folder in folders if folder not in ("/tmp", "/var/tmp", "/run/lock", "/workspace")} == set()


def test_the_bill_of_materials_lists_every_python_package():
    bill = json.loads(image_output("cat", "/opt/sagemaker-monai/sbom.cdx.json"))

    assert bill["bomFormat"] == "CycloneDX"
    assert re.fullmatch(r"1\.[4-9]", bill["specVersion"])
    assert isinstance(bill["version"], int)
    components = [bill["metadata"]["component"], *bill["components"]]
    listed = {component["purl"] for component in components if "purl" in component}
    assert listed == {
        f"pkg:pypi/{name}@{version.replace('+', '%2B')}" for name, version in packages(IMAGE).items()
    }  # fmt: skip
    references = [component["bom-ref"] for component in components]
    assert len(references) == len(set(references))
    assert {reference for each in bill["dependencies"] for reference in each["dependsOn"]} <= set(references)


@pytest.mark.parametrize("command", [(), ("help",), ("--help",)])
def test_help_names_the_commands(command):
    text = docker("run", "--rm", IMAGE, *command).stdout

    assert re.findall(r"^  (\w+|\.\.\.) ", text, re.M) == [
        "train",
        "serve",
        "prepare",
        "doctor",
        "evaluate",
        "version",
        "help",
        "...",
    ]


def test_version_names_the_versions():
    text = docker("run", "--rm", IMAGE, "version").stdout
    ours = packages(IMAGE)

    for name in ("sagemaker-monai", "torch", "monai"):
        assert f"{ours[name]}" in text


@pytest.mark.parametrize("command", ["train", "serve"])
def test_help_of_a_command_is_its_own(command):
    assert "SAGEMAKER_BASE_DIR" in docker("run", "--rm", IMAGE, command, "--help").stdout


def test_any_command_runs_with_its_words_and_its_exit_code():
    result = docker("run", "--rm", IMAGE, "sh", "-c", 'echo "$1|$2"; exit 37', "sh", "a  b", "", check=False)

    assert (result.returncode, result.stdout) == (37, "a  b|\n")
    assert docker("run", "--rm", IMAGE, "no-such-command", check=False).returncode == 127


def test_any_command_is_process_1_and_hears_signals():
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('heard', flush=True), sys.exit(5)))\n"
        "print('process', os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with container("python", "-c", script) as running:
        running.wait_for("process 1")

        code, seconds = running.stop(120)

        assert code == 5
        assert seconds < 60
        assert "heard" in running.log()


# The driver library of the fake image is 580.65.06.
@pytest.mark.parametrize(
    ("driver", "is_set"),
    [
        ("535.161.08", True),
        ("580.9", True),  # older by number, not by letter
        ("580.65.06", False),
        ("580.105.08", False),
        ("1000.1", False),
        ("", False),
        (None, False),
    ],
)
def test_the_images_cuda_driver_library_is_used_only_with_an_older_driver(tmp_path, driver, is_set):
    compat = tmp_path / "compat"
    compat.mkdir()
    (compat / "libcuda.so.580.65.06").touch()
    (compat / "libcuda.so.1").symlink_to("libcuda.so.580.65.06")
    flags = bind(compat, "/usr/local/cuda/compat")
    if driver is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n[ -n '{driver}' ] && echo '{driver}' || exit 9\n")
        tool.chmod(0o755)
        flags += bind(tool, "/usr/local/bin/nvidia-smi")
    before = image_output("printenv", "LD_LIBRARY_PATH", flags=("--env", "LD_LIBRARY_PATH=/host")).strip()

    set_to = docker(
        "run", "--rm", "--env", "LD_LIBRARY_PATH=/host", *flags, IMAGE, "printenv", "LD_LIBRARY_PATH"
    ).stdout

    assert set_to.strip() == (f"/usr/local/cuda/compat:{before}" if is_set else before)
