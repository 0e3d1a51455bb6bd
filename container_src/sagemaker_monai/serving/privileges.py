"""Accounts, files and variables of the processes that decode uploads, for both back ends.

Uploads are not trusted, and decoders have had faults that ran the bytes of a picture as code. So the processes that
read pictures and weights run without privileges from their first instruction. Each has its own user id (`Lodgings`) in
the group of WORKER_USER, so that none can signal another or read its files. They see only the variables that a list
allows, cannot gain privileges through a setuid program, and leave no core file with a patient's picture in it. The
supervisor only copies bytes and stays root, so that it can end them. `lockdown` has what they give up by themselves.
"""

import asyncio
import contextlib
import ctypes
import fnmatch
import logging
import os
import pwd
import re
import resource
import secrets
import shutil
import stat
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.serving.back_end import StartError
from sagemaker_monai.serving.lockdown import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS
from sagemaker_monai.serving.temporary import temporary_folder

READ, ENTER = 4, 1  # permission bits of one class; a folder needs both
# What root needs to act for another account, as bits of the kernel's sets (linux/capability.h); Docker grants them.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}
logger = logging.getLogger(__name__)

# User ids that neither packages nor administrators assign: systemd's range for dynamic users. A container with its own
# user namespace usually has 65,536 ids.
WORKER_UIDS = range(61_184, 65_520)
NOBODY = -1  # owns no file

# Patterns (fnmatch) of the variables that the processes that decode uploads may see, and whose they are.
VARIABLES = {
    "PATH HOME TMPDIR TZ LANG LANGUAGE LC_* USER LOGNAME LNAME USERNAME LD_LIBRARY_PATH LD_PRELOAD": "the system's",
    "MALLOC_* GLIBC_TUNABLES XDG_CACHE_HOME": "the C library's, and caches",
    "PYTHON[A-Z]* VIRTUAL_ENV JAVA_HOME": "of Python and of the model server's Java",
    "OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* BLIS_* NUMEXPR_* TBB_*": "of libraries that compute on several threads",
    "TORCH* PYTORCH_* ATEN_* TRITON_* MONAI_* OV_* OPENVINO_* DNNL_* ONEDNN_*": "of what runs networks",
    "CUDA* CUDNN_* CUBLAS_* NVIDIA_* NV_*": "of GPUs",
    "AWS_REGION AWS_DEFAULT_REGION SM_MODEL_DIR SAGEMAKER_REGION SAGEMAKER_PROGRAM SAGEMAKER_SUBMIT_DIRECTORY":
        "SageMaker's",
    "SAGEMAKER_CONTAINER_LOG_LEVEL ALLOW_BUNDLE_CODE WORKER_NETWORK": "settings that our own handler reads",
}  # fmt: skip
_ALLOWED = re.compile("|".join(fnmatch.translate(name) for names in VARIABLES for name in names.split()))
# Never passed on by a pattern; WORKER_ENV can name them.
_SECRET = re.compile("TOKEN|SECRET|PASS|PWD|CREDENTIAL|KEY|AUTH")
URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


@dataclass(frozen=True)
class Account:
    """A user of the system; `is_shared` if several processes run as it."""

    name: str
    uid: int
    gid: int
    is_shared: bool = True


def find_account(name: str) -> Account | None:
    """The account to run as; None without a name, or if this process is not root.

    Raises:
        ConfigError: there is no such account, or this root lacks capabilities.
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
    """Which of CAPABILITIES are not in effect, according to the text of /proc/PID/status."""
    [effective] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")]
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


def allowed_variables(env: Mapping[str, str], also: Iterable[str] = ()) -> dict[str, str]:
    """The variables that the processes that decode uploads may see, with those that the deployer adds (WORKER_ENV)."""
    named = set(also)

    def is_allowed(name: str, value: str) -> bool:
        return bool(_ALLOWED.match(name)) and not _SECRET.search(name) and not URL_WITH_PASSWORD.search(value)

    return {name: value for name, value in env.items() if name in named or is_allowed(name, value)}


def restrict_this_process() -> None:
    """Give up what a server never needs.

    For this process and all that it starts: no program gains privileges by its setuid bit, and no core file is written.
    For this process alone: only root can read its memory and environment, which has the variables that
    `allowed_variables` removes, even if all processes run as one account (`docker run --user`).
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Not 0: the kernel hands a core to a program on the host (core_pattern with a pipe) unless the limit is exactly 1.
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


async def start_process(account: Account | None, *command: str, **options: Any) -> asyncio.subprocess.Process:
    """`asyncio.create_subprocess_exec` as an account, in no group but the account's own.

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


class Lodgings:
    """The user id, home and temporary folder of each process of an account.

    Attributes:
        room: a folder that the account's group can enter; None: the processes use this process's folders.
        account: can read the files that all of them can: in the group, and owner of no file. None: this process's.
        env: the variables that all of them see.
    """

    def __init__(self, room: Path | None, account: Account | None, env: Mapping[str, str]) -> None:
        self.room = room
        self.env = dict(env)
        self._named = account
        self._uids = deque(_free_uids() if account is not None and room is not None else ())
        self.account = replace(account, uid=NOBODY) if account is not None and self._uids else account
        if account is not None and not self._uids:
            logger.warning("this system has no user ids for single processes: all run as %s", account.name)

    @contextlib.contextmanager
    def lend(self) -> Iterator[tuple[Account | None, dict[str, str]]]:
        """The account and variables of one process; its files are removed when it has ended."""
        if self.room is None or self._named is None:
            yield self._named, self.env
            return
        account = replace(self._named, uid=self._uids.popleft(), is_shared=False) if self._uids else self._named
        folder = Path(tempfile.mkdtemp(prefix="process-", dir=self.room))
        try:
            hand_over(folder, account, mode=0o710)
            for name in ("home", "tmp"):
                (folder / name).mkdir()
                hand_over(folder / name, account, mode=0o700, owner=account.uid)
            own = {"HOME": folder / "home", "TMPDIR": folder / "tmp", "USER": account.name, "LOGNAME": account.name}
            yield account, self.env | {name: str(value) for name, value in own.items()}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not account.is_shared:
                self._uids.append(account.uid)  # the id that was unused longest is lent next


def _free_uids(uid_map: Path = Path("/proc/self/uid_map")) -> list[int]:
    """Those of WORKER_UIDS that no account has; none unless this user namespace has all of WORKER_UIDS."""
    with contextlib.suppress(OSError):
        rows = [[int(word) for word in line.split()] for line in uid_map.read_text().splitlines()]
        if not any(first <= WORKER_UIDS[0] and WORKER_UIDS[-1] < first + count for first, _, count in rows):
            return []
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return [uid for uid in WORKER_UIDS if uid not in taken]


@contextlib.contextmanager
def room_for(account: Account | None, env: Mapping[str, str], also: Iterable[str] = ()) -> Iterator[Lodgings]:
    """The folders and variables of an account's processes; without an account no folder is made.

    Args:
        account: the processes' account.
        env: the variables that they would inherit.
        also: see `allowed_variables`.

    Raises:
        ConfigError: there is no temporary folder that the account can enter.
    """
    kept = allowed_variables(env, also)
    if dropped := sorted(env.keys() - kept.keys()):
        logger.info("not passed on to the processes that decode uploads (see WORKER_ENV): %s", ", ".join(dropped))
    if account is None:
        yield Lodgings(None, None, kept)
        return
    with contextlib.ExitStack() as stack:
        try:
            room = stack.enter_context(temporary_folder())
            hand_over(room, account, mode=0o710)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ConfigError(f"WORKER_USER has no temporary folder ({reason}): set TMPDIR to one with room") from error
        lodgings = Lodgings(room, account, kept)
        if not can_reach(room, lodgings.account or account, wanted=ENTER):
            raise ConfigError("TMPDIR must be a folder that the account WORKER_USER can enter")
        yield lodgings


@contextlib.contextmanager
def readable_artifact(account: Account | None, room: Path | None, model_dir: Path) -> Iterator[Path]:
    """The artifact's folder, or a temporary copy in `room` if the account cannot read every file.

    Raises:
        BundleError: the account cannot read the artifact, and no copy can be made.
    """
    if account is None or room is None or can_read(model_dir, account):
        yield model_dir
        return
    logger.info("WORKER_USER cannot read every file of the artifact: the artifact is copied for it")
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


def can_reach(folder: Path, account: Account, *, wanted: int = READ | ENTER) -> bool:
    """Whether the account may enter every folder above this one, and has the wanted permissions for it."""
    folder = folder.resolve()
    return _may(folder.stat(), account, wanted) and all(
        _may(parent.stat(), account, ENTER) for parent in folder.parents
    )


def can_read(folder: Path, account: Account) -> bool:
    """Whether the permission bits let the account read every file below; links are not followed."""
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
    """Copy a folder so that the account can read it but not write.

    Links are copied as links, so that the account follows them with its own rights: an artifact could link to a file
    that only root may read. What is neither file, folder nor link is left out.

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
            f"WORKER_USER cannot read the artifact, and it cannot be copied ({error.strerror}): let everybody read its "
            "files"
        ) from error


def read_left_file(path: Path, *, limit: int = 4096) -> str:
    """The text of a file as one line; the account that owns its folder may have replaced it by anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # follow no link, wait for no pipe
        with os.fdopen(descriptor, "rb") as stream:
            return " ".join(stream.read(limit).decode(errors="replace").split())
    except OSError as error:
        return f"the cause cannot be read ({error.strerror})"
