"""What the processes that decode uploads may do and see, whichever back end starts them.

A picture comes from a stranger, and decoders have had faults that ran its bytes as code. So the processes that read
pictures run as an account without rights (WORKER_USER), from their first instruction: weights too are read that way.
They find no credentials in their environment, cannot gain rights through a setuid program, and leave no core file with
a patient's picture in it. The supervisor, which only copies bytes, stays root, so that it can end them.

A limit of processes (RLIMIT_NPROC) is not set: the kernel counts an account's processes over all containers of a host.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import pwd
import re
import resource
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.serving.back_end import StartError

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
READ, ENTER = 4, 1  # permission bits of one class; a folder needs both
# What root needs to work for another account, as bits of the kernel's sets (linux/capability.h); Docker grants them.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}
logger = logging.getLogger(__name__)

# Names of variables that carry secrets, and why; upper case, as fnmatch reads them.
SECRETS = {
    "AWS_*": "keys, session tokens, roles, and the addresses and files where the SDKs find them",
    "*CREDENTIAL*": "GOOGLE_APPLICATION_CREDENTIALS and the like",
    "*SECRET*": "by name",
    "*PASSWORD*": "by name",
    "*PASSWD*": "by name",
    "*PASSPHRASE*": "by name",
    "*_TOKEN": "HF_TOKEN, GITHUB_TOKEN",
    "*_TOKEN_FILE": "a file that holds one",
    "*_KEY": "WANDB_API_KEY, private keys",
    "*CONNECTION_STRING*": "a data base's or storage's, with its key",
}
NO_SECRETS = ("AWS_REGION", "AWS_DEFAULT_REGION")
URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")  # proxies, package indexes, data bases


@dataclass(frozen=True)
class Account:
    """A user of the system."""

    name: str
    uid: int
    gid: int


def find_account(name: str) -> Account | None:
    """The account to run as; None for no name, and where this process is not root and cannot choose.

    Raises:
        ConfigError: there is no such account, or this root has not the capabilities.
    """
    if not name or os.geteuid() != 0:
        return None
    if missing := missing_capabilities(Path("/proc/self/status").read_text()):
        raise ConfigError(
            f"WORKER_USER needs the capabilities {', '.join(missing)}: grant them, or start the container as that "
            "account (docker run --user)"
        )
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"WORKER_USER must be an account of this system, got {name[:40]!r}") from None
    return Account(name, entry.pw_uid, entry.pw_gid)


def missing_capabilities(status: str) -> list[str]:
    """Which of CAPABILITIES are not in effect, by a process's /proc/PID/status."""
    [effective] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")]
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that processes may see which decode uploads."""
    return {name: value for name, value in env.items() if not _is_secret(name.upper(), value)}


def _is_secret(name: str, value: str) -> bool:
    if name in NO_SECRETS:
        return False
    return any(fnmatchcase(name, pattern) for pattern in SECRETS) or URL_WITH_PASSWORD.search(value) is not None


def restrict_this_process() -> None:
    """Give up, for this process and all that it starts, what a server never needs.

    No program gains rights by its setuid bit any more, and no core file is written. This process alone: no other one
    but root's can look into its memory or environment, which holds what `without_secrets` keeps from the others, also
    where all run as one account (`docker run --user`).
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Not 0: the kernel hands a core to a program on the host (core_pattern with a pipe) unless the limit is exactly 1.
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


async def start_process(account: Account | None, *command: str, **options: Any) -> asyncio.subprocess.Process:
    """`asyncio.create_subprocess_exec` as an account, without any group but the account's own.

    Raises:
        StartError: this is not allowed, or the account may not run the program.
    """
    if account is None:
        return await asyncio.create_subprocess_exec(*command, **options)
    try:
        return await asyncio.create_subprocess_exec(
            *command, user=account.uid, group=account.gid, extra_groups=[], **options
        )
    except PermissionError as error:
        raise StartError(
            f"ConfigError: WORKER_USER: no process can be started as {account.name!r} ({error.strerror}): it must be "
            "allowed to run Python, and the container needs the capabilities SETUID and SETGID"
        ) from error


@contextlib.contextmanager
def room_for(account: Account | None, env: Mapping[str, str]) -> Iterator[tuple[Path | None, dict[str, str]]]:
    """What processes of an account need of the file system, for as long as they live.

    Args:
        account: None: nothing is made.
        env: what they would inherit.

    Yields:
        A folder for `readable_artifact`, None if nothing is made, and the environment without secrets.

    Raises:
        ConfigError: there is no temporary folder that the account can enter.
    """
    kept = without_secrets(env)
    if dropped := sorted(env.keys() - kept.keys()):
        logger.info("not passed on to the processes that decode uploads: %s", ", ".join(dropped))
    if account is None:
        yield None, kept
        return
    with contextlib.ExitStack() as stack:
        try:
            room = Path(tempfile.mkdtemp(prefix="serve-"))
            stack.callback(shutil.rmtree, room, ignore_errors=True)
            hand_over(room, account, mode=0o750)
            for name in ("home", "tmp"):
                (room / name).mkdir()
                hand_over(room / name, account, mode=0o700, owner=account.uid)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ConfigError(f"WORKER_USER has no temporary folder ({reason}): set TMPDIR to one with room") from error
        if not can_reach(room, account):
            raise ConfigError("TMPDIR must be a folder that the account WORKER_USER can enter")
        changes = {"HOME": room / "home", "TMPDIR": room / "tmp", "USER": account.name, "LOGNAME": account.name}
        yield room, kept | {name: str(value) for name, value in changes.items()}


@contextlib.contextmanager
def readable_artifact(account: Account | None, room: Path | None, model_dir: Path) -> Iterator[Path]:
    """The artifact's folder as the account can read it: its own, or a copy for as long as it is needed.

    Args:
        account: None: it is its own.
        room: from `room_for`.
        model_dir: the artifact; may be read-only, and is never changed.

    Raises:
        BundleError: the account cannot read the artifact, nor can a copy be made for it.
    """
    if account is None or room is None or can_read(model_dir, account):
        yield model_dir
        return
    logger.info("WORKER_USER cannot read every file of the artifact: it gets a copy of its own")
    copy = room / f"model-{secrets.token_hex(8)}"
    try:
        copy_for(account, model_dir, copy)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def hand_over(path: Path, account: Account, *, mode: int, owner: int = 0) -> None:
    """Give a file or folder to the account's group, and to `owner`, by default root."""
    os.chown(path, owner, account.gid)
    path.chmod(mode)


def can_reach(folder: Path, account: Account) -> bool:
    """Whether the account may enter every folder on the way to this one, and list it."""
    folder = folder.resolve()
    return _may(folder.stat(), account, READ | ENTER) and all(
        _may(parent.stat(), account, ENTER) for parent in folder.parents
    )


def can_read(folder: Path, account: Account) -> bool:
    """Whether the account may read every file below, by their permission bits; links are not followed."""
    if not can_reach(folder, account):
        return False
    for place, folders, files in os.walk(folder):
        for names, kind, wanted in ((folders, stat.S_ISDIR, READ | ENTER), (files, stat.S_ISREG, READ)):
            for name in names:
                status = (Path(place) / name).lstat()
                if kind(status.st_mode) and not _may(status, account, wanted):
                    return False
    return True


def _may(status: os.stat_result, account: Account, wanted: int) -> bool:
    owned_by = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return status.st_mode >> owned_by & wanted == wanted


def copy_for(account: Account, source: Path, target: Path) -> None:
    """Copy a folder so that the account can read it, and not write.

    Root follows no link here, because an artifact may hold one to a file that is nobody's business: links are copied as
    links, and read with the account's own rights. What is neither file, folder nor link is left out.

    Raises:
        BundleError: a file cannot be read, or there is no room.
    """

    def fail(error: OSError) -> None:
        raise error

    try:
        for place, folders, files in os.walk(source, onerror=fail):
            here = target / os.path.relpath(place, source)
            here.mkdir()
            hand_over(here, account, mode=0o750)
            for name in (*folders, *files):
                path = Path(place) / name
                if path.is_symlink():
                    (here / name).symlink_to(path.readlink())
                elif path.is_file():
                    shutil.copyfile(path, here / name, follow_symlinks=False)
                    hand_over(here / name, account, mode=0o640)
    except OSError as error:
        raise BundleError(
            f"WORKER_USER cannot read the artifact, and no copy can be made for it ({error.strerror}): let everybody "
            "read its files"
        ) from error


def read_left_file(path: Path, *, limit: int = 4096) -> str:
    """One line from a file in a folder of the account's, which may have put anything else in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # no link, and no wait at a pipe
        with os.fdopen(descriptor, "rb") as stream:
            return " ".join(stream.read(limit).decode(errors="replace").split())
    except OSError as error:
        return f"the cause cannot be read ({error.strerror})"
