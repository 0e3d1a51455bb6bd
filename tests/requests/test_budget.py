"""What a request may cost: counted, refused with the limit's name, and given back."""

import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest

from sagemaker_monai.budget import (
    MIB,
    UNCOUNTED_BYTES,
    Budget,
    Limits,
    check_ratio,
    lent,
    returned,
    spend_bytes,
    spend_work,
    spending,
)
from sagemaker_monai.errors import ConfigError, PayloadTooLarge


def test_without_a_request_nothing_is_counted():
    spend_bytes(1 << 60, "an image")
    spend_work(1e30, "an image")


def test_bytes_beyond_the_budget_are_refused_with_the_limit_and_the_remedy():
    with spending(Limits().budget(body_bytes=0)):
        spend_bytes(400 * MIB, "the first image")
        with pytest.raises(PayloadTooLarge, match=r"the second .* 512 MiB .* MAX_REQUEST_MEMORY_IN_MB"):
            spend_bytes(100 * MIB, "the second image")
        spend_bytes(64 * MIB, "a small one")  # what was refused is not held


def test_work_beyond_the_budget_is_refused_with_the_limit_and_the_remedy():
    with spending(Limits().budget(body_bytes=0)), pytest.raises(PayloadTooLarge, match=r" 4 s .*MAX_REQUEST_CPU_SEC"):
        spend_work(5e9, "the picture")


def test_memory_of_one_image_is_free_again_for_the_next():
    budget = Budget(memory_bytes=100, work_ns=1)
    with spending(budget):
        for _ in range(3):
            with returned():
                spend_bytes(60, "an image")
                with lent(40, "a copy"):
                    assert budget.used_bytes == 100
                spend_bytes(40, "another copy")
        spend_bytes(60, "an image")
        with pytest.raises(PayloadTooLarge), returned():
            spend_bytes(60, "an image")

        assert (budget.used_bytes, budget.most_bytes) == (60, 100)


def test_a_large_body_has_more_but_never_more_than_the_share_of_the_container():
    small, large = Limits().budget(64 * MIB), Limits().budget(524 * MIB)

    assert small.memory_bytes == 512 * MIB - UNCOUNTED_BYTES
    assert large.memory_bytes == (512 + 8 * 460) * MIB - UNCOUNTED_BYTES
    assert large.used_bytes == 524 * MIB
    assert Limits(share_bytes=600 * MIB).budget(524 * MIB).memory_bytes == 600 * MIB - UNCOUNTED_BYTES
    assert Limits(share_bytes=100 * MIB).budget(0).memory_bytes == 100 * MIB - UNCOUNTED_BYTES


def test_limits_come_from_the_environment():
    env = {"MAX_REQUEST_MEMORY_IN_MB": "1024", "MAX_REQUEST_CPU_SECONDS": " 60 ", "REQUEST_SHARE_BYTES": "5000000"}

    assert Limits.from_env(env) == Limits(1024 * MIB, 60_000_000_000, 5_000_000)
    assert Limits.from_env({"MAX_REQUEST_MEMORY_IN_MB": " "}) == Limits(512 * MIB, 4_000_000_000, None)


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "much", "63", "\N{SUPERSCRIPT TWO}00"])
def test_a_limit_that_is_none_is_refused_by_name(text):
    with pytest.raises(ConfigError, match="MAX_REQUEST_MEMORY_IN_MB"):
        Limits.from_env({"MAX_REQUEST_MEMORY_IN_MB": text})


def test_threads_count_for_the_request_that_started_them():
    budget = Budget(memory_bytes=1_000, work_ns=10_000)
    with spending(budget), ThreadPoolExecutor(4) as pool:
        contexts = [contextvars.copy_context() for _ in range(100)]
        list(pool.map(lambda context: context.run(spend_work, 100, "a slice"), contexts))

        assert budget.used_ns == 10_000


def test_a_ratio_that_no_image_has_is_refused():
    check_ratio(64 * MIB, 1, "frames")
    check_ratio(200 * MIB, MIB, "frames")
    with pytest.raises(PayloadTooLarge, match="200 times"):
        check_ratio(200 * MIB + 1, MIB, "frames")


def test_the_limits_reach_the_processes_by_their_environment():
    limits = Limits(memory_bytes=300 * MIB, work_ns=7_000_000_000, share_bytes=200 * MIB)

    assert Limits.from_env(limits.to_env()) == limits
    assert Limits.from_env(Limits(share_bytes=1).to_env()).share_bytes == 64 * MIB  # something can be answered
    assert limits.most_bytes(1) == 200 * MIB
    assert Limits().most_bytes(100 * MIB) == (512 + 8 * 36) * MIB
