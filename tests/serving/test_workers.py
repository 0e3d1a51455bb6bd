import asyncio
import contextlib
import dataclasses
import os
import signal
import tempfile
import textwrap
from pathlib import Path

import pytest

from sagemaker_monai.errors import Overloaded, Timeout, Unavailable, WorkerDied
from sagemaker_monai.serving.back_end import Request, StartError
from sagemaker_monai.serving.settings import ServeConfig
from sagemaker_monai.serving.spool import FileBody
from sagemaker_monai.serving.workers import WorkerPool
from tests.support.served import is_running, said_before_it_is_killed, until
from tests.support.tiny_handler import HELLO, NAME, lodgings


def config(folder, **changes):
    settings = {"model_dir": folder, "workers": 1, "max_batch_size": 1, "timeout_s": 60.0, "startup_timeout_s": 60.0}
    return dataclasses.replace(ServeConfig.from_env({}), **settings | changes)


def with_pool(folder, scenario, *, warm_up=HELLO, **changes):
    """Run `scenario(pool)` and return its result; every process is gone afterwards."""

    async def run():
        pool = WorkerPool(config(folder, **changes), handler=NAME, warm_up=warm_up, lodgings=lodgings())
        try:
            await pool.start()
            return await scenario(pool)
        finally:
            await pool.stop()

    return asyncio.run(run())


async def ask(pool, text):
    return (await pool.answer(Request(text.encode(), "text/plain"))).body.decode()


def test_a_request_arrives_as_it_was_sent_at_a_worker_with_its_share_of_threads(tmp_path):
    large = "x" * 5_000_000

    async def scenario(pool):
        response = await pool.answer(Request(b"abc", "text/x; a=b", "text/y"))
        return response, await ask(pool, large), await ask(pool, "threads")

    response, answer, threads = with_pool(tmp_path, scenario, threads=3)

    assert (response.status, response.content_type, response.body) == (200, "text/y", b"ABC")
    assert answer == large.upper()
    assert threads == "3"


def test_bodies_in_files_reach_the_process_in_their_order(tmp_path):
    async def one(pool, text):
        if len(text) < 10:
            return await ask(pool, text)
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(text.encode())
            request = Request(b"", "text/plain", file=FileBody(file, len(text)))
            return (await pool.answer(request)).body.decode()

    async def scenario(pool):
        before = len(list(Path("/proc/self/fd").iterdir()))
        busy = asyncio.create_task(ask(pool, "sleep 0.3"))
        await asyncio.sleep(0.1)
        texts = ["a", "b" * 100, "c", "d" * 5_000_000, "e" * 50]
        answers = await asyncio.gather(*(one(pool, text) for text in texts))
        await busy
        pid = await ask(pool, "pid")
        files = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if int(link.name) > 2]
        return answers, [text.upper() for text in texts], len(list(Path("/proc/self/fd").iterdir())) - before, files

    answers, expected, left, files = with_pool(tmp_path, scenario, max_batch_size=8)

    assert answers == expected
    assert left == 0
    assert not [name for name in files if "(deleted)" in name]  # it keeps none


def test_answers_are_not_mixed_up(tmp_path):
    async def scenario(pool):
        return await asyncio.gather(*(ask(pool, f"request {number}") for number in range(100)))

    answers = with_pool(tmp_path, scenario, workers=2, max_batch_size=4, timeout_s=30.0)

    assert answers == [f"REQUEST {number}" for number in range(100)]


def test_a_free_worker_takes_what_waits_and_no_more_than_it_may(tmp_path):
    async def scenario(pool):
        alone = await ask(pool, "batch")
        busy = asyncio.create_task(ask(pool, "sleep 0.3"))
        await asyncio.sleep(0.1)
        return alone, await asyncio.gather(*(ask(pool, "batch") for _ in range(5))), await busy

    alone, sizes, _ = with_pool(tmp_path, scenario, max_batch_size=4)

    assert alone == "1"
    assert sizes == ["4", "4", "4", "4", "1"]


def test_a_request_that_ends_its_worker_fails_alone_and_the_next_is_answered(tmp_path):
    async def scenario(pool):
        before = await ask(pool, "pid")
        with pytest.raises(WorkerDied):
            await ask(pool, "die")
        await until(pool.is_alive)
        return before, await ask(pool, "pid")

    before, after = with_pool(tmp_path, scenario)

    assert before != after
    assert not is_running(before)


def test_of_a_batch_only_the_request_that_ends_the_worker_fails(tmp_path):
    async def scenario(pool):
        busy = asyncio.create_task(ask(pool, "sleep 0.2"))
        await asyncio.sleep(0.05)
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(b"in a file")
            of_file = pool.answer(Request(b"", "text/plain", file=FileBody(file, 9)))
            texts = (ask(pool, text) for text in ("a", "die", "b"))
            answers = await asyncio.gather(of_file, *texts, return_exceptions=True)
        await busy
        return answers

    of_file, first, second, third = with_pool(tmp_path, scenario, max_batch_size=8)

    assert (of_file.body, first, third) == (b"IN A FILE", "A", "B")
    assert isinstance(second, WorkerDied)


def test_an_idle_worker_that_is_killed_loses_no_request(tmp_path):
    async def scenario(pool):
        os.kill(int(await ask(pool, "pid")), signal.SIGKILL)
        answer = await ask(pool, "hello")
        await until(pool.is_alive)
        return answer

    assert with_pool(tmp_path, scenario) == "HELLO"


def test_work_that_takes_too_long_is_ended_and_the_model_stays_loaded(tmp_path):
    async def scenario(pool):
        before = await ask(pool, "pid")
        with pytest.raises(Timeout, match=r"within 0\.5 s"):
            await ask(pool, "sleep 600")
        # Until the process is free again, which it would not be for ten minutes, this one is told the same.
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(Timeout):
                    return before, await ask(pool, "pid")

    before, after = with_pool(tmp_path, scenario, timeout_s=0.5)

    assert before == after


def test_a_stuck_worker_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("sagemaker_monai.serving.workers.END_GRACE_S", 0.2)

    async def scenario(pool):
        stuck = await ask(pool, "pid")
        with pytest.raises(Timeout, match=r"within 0\.5 s"):
            await ask(pool, "stuck 600")
        await until(lambda: not is_running(stuck))
        await until(pool.is_alive)
        return await ask(pool, "hello")

    assert with_pool(tmp_path, scenario, timeout_s=0.5) == "HELLO"


def test_a_request_that_waited_too_long_is_not_computed(tmp_path):
    async def scenario(pool):
        pid = await ask(pool, "pid")
        busy = asyncio.create_task(ask(pool, "sleep 0.9"))
        await asyncio.sleep(0.2)
        late = asyncio.create_task(ask(pool, "die"))
        await asyncio.sleep(0.1)
        late.cancel()
        await busy
        return pid == await ask(pool, "pid")

    assert with_pool(tmp_path, scenario)


def test_while_no_worker_lives_requests_are_refused_at_once(tmp_path):
    async def scenario(pool):
        (tmp_path / "slow").touch()  # the next start takes half a minute
        os.kill(int(await ask(pool, "pid")), signal.SIGKILL)
        await until(lambda: not pool.is_alive())
        with pytest.raises(Unavailable, match="no worker is ready"):
            await ask(pool, "hello")

    with_pool(tmp_path, scenario, timeout_s=3_600.0)


def test_those_that_wait_are_refused_when_the_last_worker_cannot_be_started_again(tmp_path):
    async def scenario(pool):
        pid = int(await ask(pool, "pid"))
        busy = asyncio.create_task(ask(pool, "sleep 600"))
        waiting = asyncio.create_task(ask(pool, "hello"))
        await asyncio.sleep(0.2)
        (tmp_path / "broken").touch()
        os.kill(pid, signal.SIGKILL)
        return await asyncio.wait_for(asyncio.gather(busy, waiting, return_exceptions=True), 90)

    died, refused = with_pool(tmp_path, scenario, timeout_s=3_600.0)

    assert isinstance(died, WorkerDied)
    assert isinstance(refused, Unavailable)


def test_those_who_have_left_take_no_place_in_the_queue(tmp_path):
    async def scenario(pool):
        busy = asyncio.create_task(ask(pool, "sleep 0.5"))
        await asyncio.sleep(0.1)
        left = [asyncio.create_task(ask(pool, "die")) for _ in range(2)]
        await asyncio.sleep(0)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return await asyncio.gather(busy, *(ask(pool, text) for text in ("a", "b")))

    assert with_pool(tmp_path, scenario, max_waiting=2)[1:] == ["A", "B"]


def test_a_full_queue_refuses_at_once(tmp_path):
    async def scenario(pool):
        tasks = [asyncio.create_task(ask(pool, "sleep 0.3"))]
        await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(ask(pool, "x")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ask(pool, "one too many")
        return await asyncio.gather(*tasks)

    assert with_pool(tmp_path, scenario, max_waiting=3)[1:] == ["X"] * 3


@pytest.mark.parametrize(
    ("flaw", "cause"),
    [("broken", "BundleError: the weights are not those that were written"), ("crashing", "signal SIGSEGV")],
)
def test_a_model_that_cannot_be_loaded_fails_the_start_with_its_cause(tmp_path, flaw, cause):
    (tmp_path / flaw).touch()

    with pytest.raises(StartError, match=cause):
        with_pool(tmp_path, lambda pool: ask(pool, "hello"))


def test_an_unsound_answer_to_the_warm_up_fails_the_start(tmp_path):
    unsound = dataclasses.replace(HELLO, request=Request(b"other", "text/plain"))

    with pytest.raises(StartError, match="got b'OTHER'"):
        with_pool(tmp_path, lambda pool: ask(pool, "hello"), warm_up=unsound)


def test_a_warm_up_without_an_answer_fails_the_start(tmp_path):
    slow = dataclasses.replace(HELLO, request=Request(b"sleep 60", "text/plain"))

    with pytest.raises(StartError, match="no answer 1 s after the start"):
        with_pool(tmp_path, lambda pool: ask(pool, "hello"), warm_up=slow, startup_timeout_s=1.0)


def test_workers_that_cannot_start_any_more_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("sagemaker_monai.serving.workers.MAX_DELAY_S", 0.01)

    async def scenario(pool):
        pid = int(await ask(pool, "pid"))
        (tmp_path / "broken").touch()
        os.kill(pid, signal.SIGKILL)
        return await asyncio.wait_for(pool.failed(), 90)

    assert "the weights are not those" in with_pool(tmp_path, scenario)


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path):
    program = textwrap.dedent(f"""
        import asyncio, pathlib
        from tests.serving.test_workers import config, ask, NAME, HELLO, lodgings, WorkerPool
        async def main():
            pool = WorkerPool(config(pathlib.Path({str(tmp_path)!r})), handler=NAME, warm_up=HELLO, lodgings=lodgings())
            await pool.start()
            print(await ask(pool, "pid"), flush=True)
            await ask(pool, "sleep 60")
        asyncio.run(main())
    """)
    [pid] = said_before_it_is_killed(program)

    asyncio.run(until(lambda: not is_running(pid)))
