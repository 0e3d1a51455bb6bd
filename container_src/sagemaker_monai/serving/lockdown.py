"""The rights that a process gives up before it decodes an upload, so that a fault in a decoder stays in its process.

- No other process can read its memory or trace it (not dumpable), and it cannot do so to others.
- A seccomp filter allows the system calls on a list (`system_calls`). It refuses all others with EPERM, and those newer
  than the list with ENOSYS, as libraries expect from an older kernel. Some are allowed under conditions: signals to
  itself; its own limits; threads, but after the warm-up no processes and no programs; no namespaces; open sockets and
  pairs of sockets, but no new ones; with a GPU also Unix sockets, which CUDA opens.
- A process of root keeps only the capabilities to read and write files.
- Landlock, where the kernel has it: no access to processes that it did not start, even while they start, and no signals
  to them.
- Limits on open files and on the size of a file; no core file.

One line of the log names what the kernel cannot do. Each part works without root.
"""

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterable, Sequence

from sagemaker_monai.serving import system_calls as calls

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
MAX_OPEN_FILES = 4_096
MAX_FILE_BYTES = 4 * 1024**3
MAX_PROCESSES = 4_096  # and threads, of an account that no other process has; see `privileges`
INCOMPLETE = "this system does not isolate processes as it could: it lacks %s"  # for the log

# linux/audit.h: the kernel's number for the machine's own calling convention.
_AUDIT = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_LANDLOCK_CALLS = (444, 445, 446)  # create_ruleset, add_rule, restrict_self; the same on both
_X32 = 0x4000_0000  # the bit of x86-64's other convention, whose numbers mean other calls

# linux/seccomp.h. TSYNC: all threads. SPEC_ALLOW: without a mitigation that slows the whole process down; it is meant
# for programs that keep secrets from code that they interpret.
_SET_MODE_FILTER, _TSYNC, _SPEC_ALLOW = 1, 1, 4
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
# linux/filter.h and linux/seccomp.h: opcodes, and the offsets of what a filter sees.
_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x0001_0000  # linux/sched.h
_NEW_NAMESPACE = 0x7E02_0000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET
_AF_UNIX = 1
_OWNER_COMMANDS = (8, 10, 15)  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX let the kernel signal another process
# ioctl: FIOSETOWN and SIOCSPGRP do the same; TIOCSTI and TIOCLINUX type into a terminal.
_FOREIGN_REQUESTS = (0x8901, 0x8902, 0x5412, 0x541C)
# prctl: PDEATHSIG, GET_DUMPABLE, NAME, SECCOMP, CAPBSET_READ, TIMERSLACK, NO_NEW_PRIVS, THP, VMA; not SET_DUMPABLE,
# SET_PTRACER or SET_MM.
_PROCESS_OPTIONS = (1, 2, 3, 15, 16, 21, 22, 23, 29, 30, 38, 39, 41, 42, 0x5356_4D41)

# linux/capability.h: version 3; CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH and FOWNER.
_CAPABILITY_VERSION, _FILE_CAPABILITIES = 0x2008_0522, 0b1111

Instruction = tuple[int, int, int, int]  # opcode, jump if true, jump if false, operand


def refuse(number: int = errno.EPERM) -> Instruction:
    """Fail the call with an error number."""
    return (_RETURN, 0, 0, _ERRNO | number)


PASS: Instruction = (_RETURN, 0, 0, _ALLOW)


def lock_down(*, has_network: bool, has_gpu: bool, has_own_uid: bool) -> tuple[str, ...]:
    """Give up every right but that to start processes, for good; call it before there are other threads.

    Args:
        has_network: whether connections may be opened.
        has_gpu: whether CUDA will be used, which opens Unix sockets.
        has_own_uid: whether no other process runs as this account.

    Returns:
        What the kernel cannot do, in words for the log; usually nothing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _drop_capabilities(libc)
    limits = {resource.RLIMIT_NOFILE: MAX_OPEN_FILES, resource.RLIMIT_FSIZE: MAX_FILE_BYTES}
    if has_own_uid:  # the kernel counts an account's processes in all containers of a host
        limits[resource.RLIMIT_NPROC] = MAX_PROCESSES
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    failures = {
        "Landlock": _use_landlock(libc),
        "seccomp": _install(libc, usual_filter(has_network=has_network, has_gpu=has_gpu)),
    }
    return tuple(f"{name} ({os.strerror(number)})" for name, number in failures.items() if number)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)  # effective, permitted and inheritable, twice: the low and high 32 bits
    if libc.capget(header, sets) == 0:
        effective, permitted, *_ = struct.unpack("=6I", sets.raw)
        kept = (effective & _FILE_CAPABILITIES, permitted & _FILE_CAPABILITIES, 0, 0, 0, 0)
        libc.capset(header, struct.pack("=6I", *kept))


def forbid_processes() -> None:
    """Let no thread start a process or a program any more: once the model is loaded, none has to."""
    _install(ctypes.CDLL(None, use_errno=True), process_filter())


def usual_filter(
    *, has_network: bool, has_gpu: bool = False, machine: str | None = None, pid: int | None = None
) -> list[Instruction]:
    """The filter of every process that decodes uploads; empty on an unknown machine.

    Args:
        has_network: whether connections may be opened.
        has_gpu: whether Unix sockets may.
        machine: as `os.uname().machine`; None: this one.
        pid: the process; None: this one.
    """
    machine, pid = machine or os.uname().machine, pid or os.getpid()
    if machine not in calls.MACHINES:
        return []
    groups = [calls.FILES, calls.WAITING, calls.MEMORY, calls.THREADS, calls.SIGNALS, calls.OPEN_SOCKETS]
    groups += [calls.PROCESSES, *([calls.NETWORK] if has_network or has_gpu else [])]
    allowed = [number for group in groups for number in calls.numbers(group, machine).values()]
    local = _only(0, (_AF_UNIX,))
    conditions: dict[str, list[Instruction]] = {
        "kill": _only(0, (pid,)),
        "tgkill": _only(0, (pid,)),
        "rt_sigqueueinfo": _only(0, (pid,)),
        "rt_tgsigqueueinfo": _only(0, (pid,)),
        "prlimit64": _only(0, (0, pid)),
        "fcntl": _not(1, _OWNER_COMMANDS),
        "ioctl": _not(1, _FOREIGN_REQUESTS),
        "prctl": _only(0, _PROCESS_OPTIONS),
        "socketpair": [PASS] if has_network else local,
        "socket": [PASS] if has_network else local if has_gpu else [refuse()],
        "clone": [_load(0), (_ANY_BIT, 0, 1, _NEW_NAMESPACE), refuse(), PASS],
        "clone3": [refuse(errno.ENOSYS)],  # a filter cannot read its flags in memory; libraries then use clone
    }
    numbers = calls.numbers(calls.CONDITIONAL, machine)
    assert set(numbers) <= set(conditions)
    return [
        *_beginning(machine),
        *(step for name, number in numbers.items() for step in _if_call(number, conditions[name])),
        *_allow(allowed),
        (_ABOVE, 0, 1, calls.HIGHEST),
        refuse(errno.ENOSYS),
        refuse(),
    ]


def process_filter(machine: str | None = None) -> list[Instruction]:
    """A filter in addition to the usual one: threads only."""
    machine = machine or os.uname().machine
    if machine not in calls.MACHINES:
        return []
    starting = calls.numbers(calls.PROCESSES, machine).values()
    clone = calls.numbers(calls.CONDITIONAL, machine)["clone"]
    return [
        *_beginning(machine),
        *(step for number in starting for step in _if_call(number, [refuse()])),
        *_if_call(clone, [_load(0), (_ANY_BIT, 1, 0, _CLONE_THREAD), refuse(), PASS]),
        PASS,
    ]


def _beginning(machine: str) -> list[Instruction]:
    """Allow only the machine's own calling convention, and load the number of the call."""
    own = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    return [*own, (_AT_LEAST, 0, 1, _X32), refuse()]


def _if_call(number: int, then: Sequence[Instruction]) -> list[Instruction]:
    return [(_EQUAL, 0, len(then), number), *then]


def _load(argument: int) -> Instruction:
    """The low half of an argument (little-endian): the kernel treats these arguments as int, too."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _only(argument: int, values: Sequence[int]) -> list[Instruction]:
    """Pass if an argument is one of the values."""
    return [_load(argument), *(step for value in values for step in ((_EQUAL, 0, 1, value), PASS)), refuse()]


def _not(argument: int, values: Sequence[int]) -> list[Instruction]:
    """Refuse if an argument is one of the values."""
    return [_load(argument), *(step for value in values for step in ((_EQUAL, 0, 1, value), refuse())), PASS]


def _allow(numbers: Iterable[int]) -> list[Instruction]:
    """Pass if the number is one of these, joined to ranges."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return [step for first, last in ranges for step in ((_AT_LEAST, 0, 2, first), (_ABOVE, 1, 0, last), PASS)]


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _install(libc: ctypes.CDLL, instructions: Sequence[Instruction]) -> int:
    """Install a filter for every thread; 0, or the error number."""
    if not instructions:
        return errno.ENOSYS
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    number = _SECCOMP_CALL[os.uname().machine]
    for flags in (_TSYNC | _SPEC_ALLOW, _TSYNC):  # Linux before 4.17 knows the first only
        words = (ctypes.c_long(word) for word in (number, _SET_MODE_FILTER, flags))
        if libc.syscall(*words, ctypes.byref(program)) == 0:
            return 0
    return ctypes.get_errno() or errno.EAGAIN


def _use_landlock(libc: ctypes.CDLL) -> int:
    """Enter a Landlock domain; 0, or the error number.

    A domain must forbid something: here, making device files. Every domain also forbids moving files between folders,
    which is allowed again where the kernel can (5.19). From Linux 6.12 on, signals to other processes and their
    abstract sockets are forbidden.

    Source: linux/landlock.h.
    """

    def call(number: int, *arguments: object) -> int:
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        return int(libc.syscall(ctypes.c_long(number), *words))

    create, add_rule, restrict = _LANDLOCK_CALLS
    version = call(create, None, 0, 1)
    if version < 1:
        return ctypes.get_errno()
    devices, refer = 1 << 6 | 1 << 11, 1 << 13  # LANDLOCK_ACCESS_FS_MAKE_CHAR, MAKE_BLOCK; REFER
    handled = devices | (refer if version >= 2 else 0)
    scopes = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL
    attributes = struct.pack("=3Q", handled, 0, scopes) if version >= 6 else struct.pack("=Q", handled)
    ruleset = call(create, attributes, len(attributes), 0)
    if ruleset < 0:
        return ctypes.get_errno()
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        if version >= 2 and call(add_rule, ruleset, 1, struct.pack("=Qi", refer, root), 0):
            return ctypes.get_errno()
        return 0 if call(restrict, ruleset, 0) == 0 else ctypes.get_errno()
    finally:
        os.close(root)
        os.close(ruleset)
