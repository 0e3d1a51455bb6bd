import asyncio

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
