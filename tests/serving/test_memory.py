import asyncio
import subprocess
import sys

import pytest

from sagemaker_monai.errors import NotEnoughMemory
from sagemaker_monai.serving import memory
from sagemaker_monai.serving.memory import (
    MIB,
    OOM_SCORE,
    MemoryBudget,
    first_to_end,
    free_bytes,
    killed_processes,
    needed_bytes,
    request_share,
)

V2 = {
    "memory.max": "1000\n",
    "memory.current": "700\n",
    "memory.stat": "anon 300\nfile 400\nfile_mapped 50\nactive_file 100\ninactive_file 200\n",
}
V1 = {
    "memory/memory.limit_in_bytes": "1000\n",
    "memory/memory.usage_in_bytes": "700\n",
    "memory/memory.stat": "cache 7\ntotal_mapped_file 50\ntotal_active_file 100\ntotal_inactive_file 200\n",
}
UNLIMITED = str(2**63 - 4096)  # how version 1 says that there is no limit
FREE = 1000 - (700 - (100 + 200 - 50))  # by hand: what is left beside use without the page cache that nobody has mapped


@pytest.fixture
def kernel(tmp_path):
    """Write files as the kernel does; (control groups, meminfo)."""

    def make(files, available_kb=4):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "meminfo").write_text(f"MemTotal:  99 kB\nMemAvailable:  {available_kb} kB\nHugePages_Total: 0\n")
        return {"cgroup": tmp_path, "meminfo": tmp_path / "meminfo"}

    return make


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (V2, FREE),
        (V1, FREE),
        (V2 | {"memory.max": "max\n"}, 4096),
        (V1 | {"memory/memory.limit_in_bytes": UNLIMITED}, 4096),
        (V2 | {"memory.current": "1300\n"}, 0),
        ({"memory.max": "1000\n"}, 4096),  # the root of a machine has no statistics of use
        ({}, 4096),
    ],
)
def test_free_memory_is_what_the_container_and_the_machine_have_left(kernel, files, free):
    assert free_bytes(**kernel(files)) == free


@pytest.mark.parametrize(
    ("files", "own"),
    [
        (V2, "0::/a/b\n"),
        (V1, "7:cpu:/else\n4:memory:/a/b\n0::/\n"),
        (V1, "4:hugetlb,memory:/a/b\n"),
    ],
)
def test_the_group_of_this_process_counts_where_it_is_not_the_mount(kernel, tmp_path, files, own):
    prefix = "memory/" if "memory/memory.stat" in files else ""
    inner = {name.replace(prefix, f"{prefix}a/b/", 1): text for name, text in files.items()} if prefix else {
        f"a/b/{name}": text for name, text in files.items()
    }  # fmt: skip
    for name, text in inner.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)

    assert free_bytes(**kernel({}), own=tmp_path / "own") == FREE
    (tmp_path / "own").write_text(own.replace("/a/b", "/a/../../b"))
    assert free_bytes(**kernel({}), own=tmp_path / "own") == 4096
    (tmp_path / "own").write_text(own.replace("/a/b", "/docker/0123"))  # the host's name
    assert free_bytes(**kernel({}), own=tmp_path / "own") == 4096


def test_what_is_left_for_requests_is_shared_by_all_processes():
    free = 2_500 * MIB

    share = request_share(free, 400 * MIB, 2)

    assert 2 * (400 * MIB + share) < free
    assert share > 512 * MIB  # what a request may take by default
    assert request_share(700 * MIB, 400 * MIB, 2) == 0


def test_a_process_that_may_not_grow_is_told_so_and_lives_on():
    program = """
import numpy as np
from sagemaker_monai.serving.memory import MIB, is_out_of_memory, limit_growth
limit_growth(200 * MIB)
np.ones(100 * MIB, np.uint8)
try:
    np.ones(400 * MIB, np.uint8)
except MemoryError as error:
    assert is_out_of_memory(error)
    print("refused")
np.ones(100 * MIB, np.uint8)
print("alive")
"""

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert result.stdout.split() == ["refused", "alive"], result.stderr


def test_the_machine_may_have_less_than_the_container_may_use(kernel):
    assert free_bytes(**kernel({**V2, "memory.max": "100000\n"}, available_kb=1)) == 1024


def test_this_machine_has_free_memory():
    assert free_bytes() > 0


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"}, 2),
        ({"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}, 5),
        ({"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 0),  # kernels before 4.13
        ({}, 0),
    ],
)
def test_processes_that_the_kernel_ended_are_counted(kernel, files, count):
    assert killed_processes(cgroup=kernel(files)["cgroup"]) == count


def test_a_model_needs_more_the_larger_it_is_and_for_each_process(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(bytes(3 * MIB))
    (tmp_path / "link").symlink_to("/proc/kcore")

    one = needed_bytes(tmp_path, processes=1)

    assert one == 406 * MIB
    assert needed_bytes(tmp_path, processes=3) == 3 * one


def test_memory_that_is_lent_cannot_be_lent_again_until_it_is_given_back(monkeypatch):
    monkeypatch.setattr(memory, "SETTLE_S", 0)
    budget = MemoryBudget(lambda: 10 * MIB)

    async def main():
        async with budget.lend(6 * MIB):
            with pytest.raises(NotEnoughMemory, match="about 5 MiB and 4 MiB are free"):
                await budget.lend(5 * MIB).__aenter__()
            async with budget.lend(4 * MIB):
                pass
        async with budget.lend(10 * MIB):
            pass

    asyncio.run(main())


def test_memory_that_comes_back_a_moment_later_is_waited_for():
    free = iter([0, 0, 5 * MIB])

    async def main():
        async with MemoryBudget(lambda: next(free)).lend(5 * MIB):
            return "lent"

    assert asyncio.run(main()) == "lent"


def test_a_process_that_loads_is_the_first_to_end_and_then_one_of_all(tmp_path):
    score = tmp_path / "oom_score_adj"
    score.write_text("7\n")

    with first_to_end(score):
        assert score.read_text() == "1000"
    assert score.read_text() == "7\n"
    with first_to_end():
        assert OOM_SCORE.read_text() == "1000\n"
    assert OOM_SCORE.read_text() != "1000\n"
    with first_to_end(tmp_path / "absent"):
        assert not (tmp_path / "absent").exists()
