"""One function over many files in other processes, so that no file can end the examination.

Decoders are C libraries that read hostile bytes: one may crash or hang. Then each file in work is tried again in a
process of its own with a time limit; a file that fails again is given up. Threads would gain nothing, because parsing
headers holds the interpreter.

A DICOM file of 512 x 512 takes 8 ms of a CPU, half of them for its header, and the processes take 1.5 s to start. On 2
busy cores 1,400 such files took 23 s in this process and 18 to 20 s in others.
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 8
STALL_S = 600.0  # in which no chunk of all processes ends
ALONE_S = 120.0  # for one file


def count_processes() -> int:
    """One for each CPU that this process may use."""
    return len(os.sched_getaffinity(0))


def map_isolated(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    given_up: Callable[[Item], Result],
    *,
    processes: int,
    stall_s: float = STALL_S,
    alone_s: float = ALONE_S,
) -> Iterator[tuple[int, Result]]:
    """Apply a function to each item.

    Args:
        function: at the top of a module, so that other processes find it; raises nothing.
        items: picklable.
        given_up: the result for an item on which a process crashed or hung.
        processes: how many; 0 means this process, without protection.
        stall_s: the processes are killed after so many seconds without a result.
        alone_s: time limit of an item that is tried again alone.

    Yields:
        The index of each item and its result, in any order.
    """
    if processes == 0:
        for index, item in enumerate(items):
            yield index, function(item)
        return
    waiting = [list(range(start, min(start + CHUNK, len(items)))) for start in range(0, len(items), CHUNK)]
    waiting.reverse()
    while waiting:
        suspects = yield from _run(function, items, waiting, processes, stall_s)
        for index in suspects:
            yield index, _alone(function, items[index], given_up, alone_s)


def _pool(processes: int) -> ProcessPoolExecutor:
    # Not fork: progress bars and decoders have threads, and a forked process may inherit their locks locked.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sagemaker_monai.doctor.facts", "sagemaker_monai.doctor.thumbnails"])
    return ProcessPoolExecutor(processes, mp_context=context)


def _run(
    function: Callable[[Item], Result], items: Sequence[Item], waiting: list[list[int]], processes: int, stall_s: float
) -> Generator[tuple[int, Result], None, list[int]]:
    """Work through `waiting` until it is empty or a process dies or hangs; returns the items in work at that time."""
    pool = _pool(processes)
    running: dict[Future[list[Result]], list[int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes + 1:
                future = pool.submit(_apply, function, [items[index] for index in waiting[-1]])
                running[future] = waiting.pop()  # only now: `submit` fails on a broken pool
            done, _ = wait(running, timeout=stall_s, return_when=FIRST_COMPLETED)
            if not done:
                return [index for chunk in running.values() for index in chunk]
            for future in done:
                results = future.result()
                yield from zip(running.pop(future), results, strict=True)
    except BrokenProcessPool:
        return [index for chunk in running.values() for index in chunk]
    finally:
        _kill(pool)
    return []


def _apply(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _alone(
    function: Callable[[Item], Result], item: Item, given_up: Callable[[Item], Result], limit_s: float
) -> Result:
    pool = _pool(1)
    try:
        return pool.submit(function, item).result(limit_s)
    except (BrokenProcessPool, TimeoutError):
        return given_up(item)
    finally:
        _kill(pool)


def _kill(pool: ProcessPoolExecutor) -> None:
    """Kill the processes; `shutdown` alone would wait for one that hangs."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
