"""What a locked process cannot do any more, tried from inside one; and the filters, interpreted."""

import itertools
import json
import os
import subprocess
import sys
import textwrap

import pytest

from sagemaker_monai.serving import lockdown
from sagemaker_monai.serving import system_calls as calls

# linux/audit.h, written down again.
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
MACHINES = list(AUDIT)


def verdict(program, number, *arguments, arch):
    """Run a classic BPF program as the kernel would: linux/filter.h."""
    words = {0: number, 4: arch}
    for index, argument in enumerate((*arguments, 0, 0, 0, 0, 0, 0)[:6]):
        words |= {16 + 8 * index: argument & 0xFFFFFFFF, 20 + 8 * index: argument >> 32 & 0xFFFFFFFF}
    position, accumulator = 0, 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x20:
            accumulator = words[operand]
        elif code == 0x06:
            return operand
        else:
            test = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            position += if_true if test else if_false


@pytest.fixture(params=MACHINES)
def machine(request):
    return request.param


def asks(machine, *, has_network=False, has_gpu=False, program=None):
    program = program or lockdown.usual_filter(has_network=has_network, has_gpu=has_gpu, machine=machine, pid=77)
    return lambda number, *arguments: verdict(program, number, *arguments, arch=AUDIT[machine])


def number(name, machine):
    groups = [value for value in vars(calls).values() if isinstance(value, str) and "\n" in value and "," in value]
    [found] = {calls.numbers(group, machine).get(name) for group in groups[1:]} - {None}  # the first is the docstring
    return found


def test_every_number_that_no_group_names_is_refused(machine):
    ask = asks(machine)
    groups = (calls.FILES, calls.WAITING, calls.MEMORY, calls.THREADS, calls.SIGNALS, calls.OPEN_SOCKETS)
    named = {each for group in (*groups, calls.PROCESSES) for each in calls.numbers(group, machine).values()}
    conditional = set(calls.numbers(calls.CONDITIONAL, machine).values())

    for each in set(range(700)) - conditional:
        expected = ALLOW if each in named else EPERM if each <= calls.HIGHEST else ENOSYS
        assert ask(each) == expected, each


# x86-64's numbers of what must never pass, from its man pages' tables and not from ours.
DANGEROUS = {
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "tkill": 200, "pidfd_open": 434,
    "pidfd_getfd": 438, "pidfd_send_signal": 424, "kcmp": 312, "process_madvise": 440, "socket": 41, "connect": 42,
    "bind": 49, "mount": 165, "unshare": 272, "setns": 308, "bpf": 321, "perf_event_open": 298, "keyctl": 250,
    "add_key": 248, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "init_module": 175,
    "finit_module": 313, "kexec_load": 246, "chroot": 161, "pivot_root": 155, "setuid": 105, "open_by_handle_at": 304,
    "shmget": 29, "msgget": 68, "mq_open": 240, "setpriority": 141, "sched_setscheduler": 144, "move_pages": 279,
}  # fmt: skip


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_reaches_other_processes_the_network_or_the_kernel_is_refused(name):
    assert asks("x86_64")(DANGEROUS[name]) == EPERM
    assert asks("x86_64")(DANGEROUS[name] | 0x40000000) == EPERM  # by x32's numbers


def test_another_calling_convention_ends_the_process(machine):
    for program in (lockdown.usual_filter(has_network=True, machine=machine, pid=1), lockdown.process_filter(machine)):
        assert verdict(program, 0, arch=0x40000003) == KILL  # i386
        assert verdict(program, 0, arch=AUDIT[MACHINES[machine == MACHINES[0]]]) == KILL


@pytest.mark.parametrize("name", ["kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"])
def test_signals_go_to_the_process_itself_only(machine, name):
    ask = asks(machine)

    assert ask(number(name, machine), 77, 9) == ALLOW
    for other in (0, 1, 76, 78, -1 & 0xFFFFFFFF, 77 << 32):
        assert ask(number(name, machine), other, 9) == EPERM


def test_arguments_decide_about_the_others(machine):
    ask = asks(machine)

    assert ask(number("prlimit64", machine), 0) == ask(number("prlimit64", machine), 77) == ALLOW
    assert ask(number("prlimit64", machine), 78) == EPERM
    assert ask(number("fcntl", machine), 3, 2) == ALLOW  # F_SETFD
    assert {ask(number("fcntl", machine), 3, command) for command in (8, 10, 15)} == {EPERM}
    assert ask(number("ioctl", machine), 3, 0x5401) == ALLOW  # TCGETS
    assert {ask(number("ioctl", machine), 3, request) for request in (0x8901, 0x8902, 0x5412)} == {EPERM}
    assert ask(number("prctl", machine), 15) == ALLOW  # PR_SET_NAME
    assert {ask(number("prctl", machine), option) for option in (4, 35, 0x59616D61)} == {EPERM}
    assert ask(number("socketpair", machine), 1) == ALLOW
    assert {ask(number("socketpair", machine), family) for family in (2, 10, 16, 30)} == {EPERM}
    thread = 0x3D0F00  # what pthread_create asks for
    assert ask(number("clone", machine), thread) == ask(number("clone", machine), 0x11) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(number("clone", machine), thread | flag) == EPERM
    assert ask(number("clone3", machine)) == ENOSYS


def test_with_a_network_sockets_are_allowed_and_nothing_else(machine):
    closed, open_ = asks(machine), asks(machine, has_network=True)
    network = [*calls.numbers(calls.NETWORK, machine).values(), number("socket", machine)]

    assert {closed(each) for each in network} == {EPERM}
    assert {open_(each, 2) for each in network} == {ALLOW}
    different = {each for each in range(600) if closed(each, 1) != open_(each, 1)}
    assert different == set(network)


def test_with_a_gpu_sockets_are_of_this_machine_only(machine):
    ask = asks(machine, has_gpu=True)

    for name in ("socket", "socketpair"):
        assert ask(number(name, machine), 1) == ALLOW
        assert {ask(number(name, machine), family) for family in range(50) if family != 1} == {EPERM}


def test_the_second_filter_leaves_threads_only(machine):
    ask = asks(machine, program=lockdown.process_filter(machine))

    assert {ask(each) for each in calls.numbers(calls.PROCESSES, machine).values()} == {EPERM}
    assert ask(number("clone", machine), 0x3D0F00) == ALLOW
    assert ask(number("clone", machine), 0x11) == EPERM
    assert ask(number("read", machine)) == ALLOW


def test_no_number_stands_twice(machine):
    groups = [value for name, value in vars(calls).items() if name.isupper() and isinstance(value, str)]

    numbers = list(itertools.chain(*(calls.numbers(group, machine).values() for group in groups)))
    assert len(numbers) == len(set(numbers)) > 150
    assert max(numbers) <= calls.HIGHEST


PROBE = """
import contextlib, ctypes, fcntl, json, mmap, os, resource, socket, subprocess, sys, threading
from sagemaker_monai.serving import lockdown

other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
lacks = lockdown.lock_down(has_network=False, has_gpu=False, has_own_uid=False)
results = {"lacks": list(lacks)}

def attempt(name, action):
    try:
        action()
        results[name] = "done"
    except OSError as error:
        results[name] = type(error).__name__

def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*(ctypes.c_long(each) for each in (number, *arguments))) < 0:
        raise OSError(ctypes.get_errno(), "refused")

attempt("signal to itself", lambda: os.kill(os.getpid(), 0))
attempt("a pair of sockets", lambda: socket.socketpair())
attempt("a program before the warm-up", lambda: subprocess.run(["true"], check=True))
attempt("a signal to another", lambda: os.kill(other.pid, 0))
attempt("a signal to the parent", lambda: os.kill(os.getppid(), 0))
attempt("another's memory", lambda: open(f"/proc/{other.pid}/mem", "rb"))
attempt("another's environment", lambda: open(f"/proc/{other.pid}/environ", "rb"))
attempt("another's open files", lambda: os.readlink(f"/proc/{other.pid}/fd/0"))
attempt("a socket", lambda: socket.socket())
attempt("a socket by its file", lambda: socket.socket(socket.AF_UNIX))
attempt("limits of another", lambda: resource.prlimit(other.pid, resource.RLIMIT_CPU))
attempt("signals by an owner", lambda: fcntl.fcntl(0, 8, other.pid))
attempt("a file of 5 GiB", lambda: os.truncate(os.memfd_create("x"), 5 * 2**30))
lockdown.forbid_processes()
attempt("a program", lambda: subprocess.run(["true"], check=True))
attempt("a process", os.fork)
thread = threading.Thread(target=lambda: attempt("a socket in a thread", lambda: socket.socket()))
thread.start()
thread.join()
results["dumpable"] = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
results["open files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 4096
other.stdin.close()
other.wait()
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def tried():
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(PROBE)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_what_a_process_needs_it_can_do(tried):
    for name in ("signal to itself", "a pair of sockets", "a program before the warm-up"):
        assert tried[name] == "done"
    assert tried["dumpable"] == 0
    assert tried["open files"]
    assert tried["a file of 5 GiB"] == "OSError"


@pytest.mark.parametrize(
    "name",
    [
        *("a signal to another", "a signal to the parent", "another's memory", "another's environment"),
        *("another's open files", "a socket", "a socket by its file", "a socket in a thread"),
        *("limits of another", "signals by an owner", "a program", "a process"),
    ],
)
def test_what_it_does_not_need_it_cannot(tried, name):
    if tried["lacks"]:
        pytest.skip(f"this kernel lacks {tried['lacks']}")
    assert tried[name] == "PermissionError"


def test_a_machine_that_is_not_known_has_no_filter(monkeypatch):
    assert lockdown.usual_filter(has_network=False, machine="riscv64") == []
    assert lockdown.process_filter("riscv64") == []
    assert os.uname().machine
