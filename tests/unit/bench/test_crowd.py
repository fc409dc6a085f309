"""What many readers of an expiring key tell is counted by expiry, and what is not right is found."""

import doctest
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench import crowd, judge, parent, rows
from bench.work import BRIEF, READERS, flat
from tests.unit.bench.made import Time

BEGIN = 100.0
ROUNDS = 2


def said(*loads: float, **more: Any) -> dict[str, Any]:
    """What a process says whose loads began so many seconds after the beginning."""
    reads = [(moment / 10, 0.01) for moment in range(50)]
    quiet = {"reads": reads, "wrong": 0, "oldest": BRIEF, "loads": [BEGIN + load for load in loads]}
    return quiet | more


def test_the_examples_hold() -> None:
    assert doctest.testmod(crowd).failed == 0


def test_loads_of_all_processes_are_counted_by_expiry_without_the_first() -> None:
    found = crowd.result([said(0.0, 1.1, 2.2), said(0.01, 1.12), said(1.13)], BEGIN, ROUNDS)
    assert found["loads"] == [3.0, 1.0]


def test_the_longest_wait_belongs_to_the_expiry_around_it() -> None:
    reads = [(1.0, 0.25), (2.1, 0.5), (4.0, 9.0)]
    found = crowd.result([said(0.0, 1.0, 2.0), said(reads=reads)], BEGIN, ROUNDS)
    assert found["wait"] == [0.25, 0.5]


def test_reads_near_an_expiry_are_compared_with_the_others() -> None:
    reads = [(0.0, 9.0), (0.95, 0.3), (1.5, 0.1), (2.05, 0.6)]
    found = crowd.result([said(0.0, 1.0, 2.0, reads=reads)], BEGIN, ROUNDS)
    assert (found["tail_near"], found["tail_else"]) == ([0.6], [0.1]), "the first load is no expiry"
    assert found["tail"] == [pytest.approx(6.0)]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ({"error": "KeyError: 7"}, "KeyError: 7"),
        ({"wrong": 2}, "2 of 100 answers were wrong"),
        ({"oldest": 3.0}, "a value was 3.00 s old"),
    ],
)
def test_what_is_wrong_in_one_process_is_the_result(second, problem) -> None:
    found = crowd.result([said(0.0, 1.0, 2.0), said() | second], BEGIN, ROUNDS)
    assert problem in found["error"]


def test_a_value_that_hardly_ever_expires_is_found() -> None:
    assert "1 times, not 2" in crowd.result([said(0.0, 1.0)], BEGIN, ROUNDS)["error"]


def caching(clock: Time, ttl: float) -> Callable[[int], Any]:
    kept: list[dict[str, Any]] = []

    def read(key: int) -> Any:
        if not kept or clock.now >= kept[-1]["loaded"] + ttl:
            kept.append(flat(key) | {"loaded": clock.now})
        return kept[-1]

    return read


def no_cache(clock: Time) -> Callable[[int], Any]:
    def read(key: int) -> Any:
        clock.sleep(0.05)
        return flat(key) | {"loaded": clock.now}

    return read


@pytest.fixture
def clock(monkeypatch) -> Time:
    clock = Time()
    monkeypatch.setattr(crowd, "time", clock)
    return clock


def test_a_cache_with_this_ttl_passes(clock) -> None:
    assert crowd.check(caching(clock, BRIEF), clock.sleep)["lived"] == pytest.approx(BRIEF, abs=0.1)


def test_whoever_caches_nothing_or_the_wrong_thing_or_for_ever_does_not(clock) -> None:
    with pytest.raises(ValueError, match="nothing was cached"):
        crowd.check(no_cache(clock), clock.sleep)
    with pytest.raises(ValueError, match="the answers are"):
        crowd.check(lambda _: "Ada", clock.sleep)
    with pytest.raises(ValueError, match="nothing expires"):
        crowd.check(caching(clock, 1e9), clock.sleep)
    with pytest.raises(ValueError, match="lived for"):
        crowd.check(caching(clock, BRIEF / 4), clock.sleep)


def test_threads_read_until_the_end_and_tell_of_wrong_answers() -> None:
    now = time.monotonic()
    right = flat(crowd.READ) | {"loaded": now}
    log = crowd._threads(lambda _: right, now, now + 0.1)
    assert len(log.reads) >= READERS
    assert log.wrong == 0
    assert crowd._threads(lambda _: right | {"id": 8}, now, now).wrong == READERS


def test_what_a_reader_raises_is_raised() -> None:
    def read(key: int) -> Any:
        raise KeyError(key)

    with pytest.raises(KeyError):
        crowd._threads(read, time.monotonic(), 0.0)


async def test_tasks_read_too() -> None:
    now = time.monotonic()

    async def read(key: int) -> Any:
        return flat(key) | {"loaded": now}

    log = await crowd._tasks(read, now, now)
    assert (len(log.reads) >= READERS, log.wrong) == (True, 0)


def test_counts_are_means_and_the_wait_is_the_longest() -> None:
    row = rows.find("expiry-loads")
    run = {rows.US: {"loads": [1.0, 2.0], "wait": [0.1, 0.3]}}
    assert (judge.number(row, run[rows.US]), judge.number(row, run[rows.US], "wait")) == (1.5, 0.3)
    found = judge.judge(row, [run] * 3, row.targets[0])
    assert (found.ratios, found.verdict) == ((1.5, 1.5, 1.5), "missed"), "one is wanted"


def test_commands_of_the_server_are_shared_out_to_the_calls() -> None:
    samples = parent.Samples()
    samples.add(10, 1.0, 2.0, 50.0, 130)
    assert samples.of("commands") == [13.0]
