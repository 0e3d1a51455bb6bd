"""Accounts, files and variables of the processes that decode uploads; tests/image proves them in the container."""

import asyncio
import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.serving import privileges
from sagemaker_monai.serving.back_end import StartError
from sagemaker_monai.serving.privileges import (
    Account,
    allowed_variables,
    can_read,
    copy_for,
    find_account,
    missing_capabilities,
    read_left_file,
    readable_artifact,
    room_for,
    start_process,
)

STRANGER = Account("stranger", 54_321, 54_322)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "model.pt").write_bytes(b"weights")
    (folder / "notes").write_text("notes")
    return folder


@pytest.fixture
def open_parents(monkeypatch):
    """pytest's folders are its own user's: as if the stranger could come as far as the artifact."""
    monkeypatch.setattr(
        privileges, "can_reach", lambda folder, account, wanted=5: privileges._may(folder.stat(), account, wanted)
    )


HIDDEN = {
    **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"), "x"),
    **dict.fromkeys(("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"), "x"),
    **dict.fromkeys(("SAGEMAKER_SOMETHING", "HF_TOKEN", "MYSQL_PWD", "DB_PASS", "GH_PAT", "PGPASSWORD"), "x"),
    **dict.fromkeys(("db_password", "whatever", "PYTHON_KEYRING_PASSWORD", "TORCH_TOKEN", "XPATH", "PATHX"), "x"),
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/1",
    "SLACK_WEBHOOK": "https://hooks.example/abc",
    "https_proxy": "http://proxy:3128",
    "TORCH_MIRROR": "https://user:word@mirror/",
}
PASSED_ON = [
    *("AWS_REGION", "AWS_DEFAULT_REGION", "SM_MODEL_DIR", "ALLOW_BUNDLE_CODE", "CUDA_VISIBLE_DEVICES"),
    *("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "LC_ALL", "TZ"),
    *("TORCHINDUCTOR_CACHE_DIR", "KMP_AFFINITY", "NVIDIA_VISIBLE_DEVICES", "LOGNAME", "JAVA_HOME"),
]


def test_only_variables_that_the_list_names_are_passed_on():
    expected = dict.fromkeys(PASSED_ON, "x")

    assert allowed_variables(HIDDEN | expected) == expected


def test_what_the_deployer_names_is_passed_on_whatever_it_is():
    assert allowed_variables({"HF_TOKEN": "x", "HF_HOME": "/h", "A": "b"}, ["HF_TOKEN", "HF_HOME", "NOT_SET"]) == {
        "HF_TOKEN": "x",
        "HF_HOME": "/h",
    }


def test_without_an_account_only_variables_are_gone(artifact):
    with (
        room_for(None, {"HOME": "/h", "AWS_ROLE_ARN": "x"}) as lodgings,
        lodgings.lend() as (account, env),
        readable_artifact(lodgings.account, lodgings.room, artifact) as it,
    ):
        assert (it, account, env) == (artifact, None, {"HOME": "/h"})


def test_who_is_not_root_or_names_nobody_runs_as_before(monkeypatch):
    assert find_account("") is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find_account("no-such-account") is None


@as_root
def test_an_unknown_account_is_refused():
    with pytest.raises(ConfigError, match=r"WORKER_USER .* got 'no-such-account'"):
        find_account("no-such-account")


def test_root_without_capabilities_is_told_which_it_needs(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(privileges, "missing_capabilities", lambda status: ["KILL"])

    with pytest.raises(ConfigError, match=r"WORKER_USER needs the capabilities KILL: .*--user"):
        find_account("nobody")


def test_capabilities_are_read_from_the_status():
    assert missing_capabilities("CapPrm:\t0\nCapEff:\t00000000a80425fb\n") == []  # Docker's
    assert missing_capabilities("CapEff:\t00000000a80425db\n") == ["KILL"]
    assert set(missing_capabilities("CapEff:\t0000000000000000\n")) == set(privileges.CAPABILITIES)


@as_root
def test_an_account_is_found_with_its_group():
    entry = pwd.getpwnam("nobody")

    assert find_account("nobody") == Account("nobody", entry.pw_uid, entry.pw_gid)


@pytest.mark.parametrize(
    ("path", "mode", "readable"),
    [
        (".", 0o755, True),
        ("models/model.pt", 0o604, True),
        ("models/model.pt", 0o600, False),
        ("models/model.pt", 0o640, False),
        ("notes", 0o600, False),
        ("models", 0o700, False),
        ("models", 0o754, False),
        (".", 0o700, False),
    ],
)
def test_permission_bits_say_whether_a_stranger_can_read(artifact, open_parents, path, mode, readable):
    (artifact / path).chmod(mode)

    assert can_read(artifact, STRANGER) == readable


def test_an_artifact_in_a_closed_folder_cannot_be_read(artifact):
    artifact.parent.chmod(0o700)

    assert not can_read(artifact, STRANGER)


def test_the_owners_and_the_groups_bits_hold_for_them(artifact, open_parents):
    status = artifact.stat()
    owner, group = Account("owner", status.st_uid, 1), Account("group", 54_321, status.st_gid)
    (artifact / "notes").chmod(0o404)

    assert can_read(artifact, owner)
    assert not can_read(artifact, group)
    (artifact / "notes").chmod(0o044)
    assert not can_read(artifact, owner)
    assert can_read(artifact, group)


@as_root
def test_a_copy_can_be_read_by_the_account_and_written_by_root_only(artifact, tmp_path):
    (artifact / "models" / "model.pt").chmod(0o600)
    before = sorted((path, path.lstat().st_mode) for path in artifact.rglob("*"))

    copy_for(STRANGER, artifact, tmp_path / "copy")

    assert (tmp_path / "copy" / "models" / "model.pt").read_bytes() == b"weights"
    for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (0, STRANGER.gid)
        assert status.st_mode & 0o777 == (0o750 if path.is_dir() else 0o640)
    assert sorted((path, path.lstat().st_mode) for path in artifact.rglob("*")) == before


@as_root
def test_root_follows_no_link_of_the_artifact(artifact, tmp_path):
    (tmp_path / "shadow").write_text("root's")
    (tmp_path / "shadow").chmod(0o600)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("root's")
    (artifact / "file").symlink_to(tmp_path / "shadow")
    (artifact / "folder").symlink_to(tmp_path / "secrets")
    (artifact / "inside").symlink_to("models/model.pt")
    os.mkfifo(artifact / "pipe")

    copy_for(STRANGER, artifact, tmp_path / "copy")

    assert (tmp_path / "copy" / "file").is_symlink()
    assert (tmp_path / "copy" / "folder").is_symlink()
    assert (tmp_path / "copy" / "inside").read_bytes() == b"weights"
    assert not (tmp_path / "copy" / "pipe").exists()
    assert (tmp_path / "shadow").stat().st_mode & 0o777 == 0o600


def test_a_copy_without_room_is_refused_with_the_remedy(artifact, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(privileges.shutil, "copyfile", fail)
    monkeypatch.setattr(privileges, "hand_over", lambda *arguments, **options: None)

    with pytest.raises(BundleError, match=r"No space left on device.*let everybody read"):
        copy_for(STRANGER, artifact, tmp_path / "copy")


@as_root
def test_each_process_has_a_number_and_rooms_of_its_own_as_long_as_it_lives(artifact, open_parents):
    (artifact / "notes").chmod(0o600)

    with room_for(STRANGER, {"HOME": "/root", "PATH": "/bin"}) as lodgings:
        with lodgings.lend() as (first, env), lodgings.lend() as (second, other):
            assert (env["USER"], env["LOGNAME"], env["PATH"]) == ("stranger", "stranger", "/bin")
            assert len({first.uid, second.uid, STRANGER.uid}) == 3
            assert first.gid == second.gid == STRANGER.gid
            for account, theirs in ((first, env), (second, other)):
                for name in ("HOME", "TMPDIR"):
                    status = Path(theirs[name]).stat()
                    assert (status.st_uid, status.st_mode & 0o777) == (account.uid, 0o700)
        assert not Path(env["HOME"]).exists()
        with lodgings.lend() as (third, _):
            assert third.uid not in (first.uid, second.uid)  # what the others may have left behind is not its own
        with readable_artifact(lodgings.account, lodgings.room, artifact) as folder:
            assert folder != artifact
            assert can_read(folder, first)
        assert not folder.exists()
    assert not lodgings.room.exists()


@as_root
def test_an_account_without_numbers_to_lend_is_everybodys(open_parents, monkeypatch):
    monkeypatch.setattr(privileges, "_free_uids", list)

    with room_for(STRANGER, {}) as lodgings, lodgings.lend() as (first, _), lodgings.lend() as (second, _):
        assert first == second == lodgings.account == STRANGER
        assert first.is_shared


@pytest.mark.parametrize(
    ("uid_map", "are_there"),
    [("0 0 4294967295", True), ("0 100000 65536", True), ("0 1000 1", False), ("0 1000 1\n1 100000 65536", True)],
)
def test_numbers_are_lent_where_this_user_namespace_has_them(tmp_path, uid_map, are_there):
    (tmp_path / "uid_map").write_text(uid_map)

    assert bool(privileges._free_uids(tmp_path / "uid_map")) == are_there


@as_root
def test_an_artifact_that_can_be_read_is_not_copied(artifact, open_parents):
    with room_for(STRANGER, {}) as it, readable_artifact(it.account, it.room, artifact) as folder:
        assert folder == artifact


@as_root
def test_an_artifact_of_the_accounts_own_is_copied_for_the_numbers_that_read_it(artifact, open_parents):
    for path in (artifact, *artifact.rglob("*")):
        os.chown(path, STRANGER.uid, 0)
        path.chmod(0o700)

    with room_for(STRANGER, {}) as it, readable_artifact(it.account, it.room, artifact) as folder:
        assert folder != artifact


def test_without_a_temporary_folder_the_account_cannot_work(monkeypatch):
    def fail(**options):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(privileges.tempfile, "mkdtemp", fail)

    with (
        pytest.raises(ConfigError, match=r"no temporary folder \(No such file or directory\): set TMPDIR"),
        room_for(STRANGER, {}),
    ):
        pass


@as_root
def test_a_temporary_folder_that_the_account_cannot_enter_is_refused(artifact, tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setattr(privileges.tempfile, "tempdir", str(tmp_path))

    with pytest.raises(ConfigError, match="TMPDIR"), room_for(STRANGER, {}):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact"]


async def output_of(account, *command):
    process = await start_process(account, *command, stdout=subprocess.PIPE, cwd="/")
    return (await process.communicate())[0].decode()


@as_root
def test_a_process_has_its_accounts_rights_and_no_groups():
    status = asyncio.run(output_of(STRANGER, "/bin/cat", "/proc/self/status"))

    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(STRANGER.uid)] * 4
    assert fields["Gid"].split() == [str(STRANGER.gid)] * 4
    assert fields["Groups"].split() == []
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0


@as_root
def test_a_program_that_the_account_may_not_run_is_a_start_error(tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)

    with pytest.raises(StartError, match=r"ConfigError: WORKER_USER.*'stranger' \(Permission denied\)"):
        asyncio.run(output_of(STRANGER, str(program)))


def test_what_a_restricted_process_starts_gains_no_rights_and_leaves_no_core():
    program = (
        "import subprocess; from sagemaker_monai.serving.privileges import restrict_this_process as r; r(); "
        "print(open('/proc/self/status').read()); "
        "subprocess.run(['cat', '/proc/self/limits', '/proc/self/status'], check=True)"
    )

    text = subprocess.run([sys.executable, "-u", "-c", program], capture_output=True, text=True, check=True).stdout

    assert text.count("NoNewPrivs:\t1") == 2
    [limits] = [line.split()[-3:-1] for line in text.splitlines() if line.startswith("Max core file size")]
    assert limits == (["0", "0"] if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else ["1", "1"])


def test_what_the_account_left_is_read_without_trust(tmp_path):
    (tmp_path / "secret").write_text("root's")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "lines").write_bytes(b"one\n\xfftwo" + b"x" * 9_000)

    assert read_left_file(tmp_path / "secret") == "root's"
    assert "root's" not in read_left_file(tmp_path / "link")
    assert read_left_file(tmp_path / "pipe") == ""
    assert read_left_file(tmp_path / "lines").startswith("one \ufffdtwo")
    assert len(read_left_file(tmp_path / "lines")) < 5_000
