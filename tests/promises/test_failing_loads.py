"""A load that fails harms nobody for long: its error reaches all who wait for it, an interrupt only its own caller."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import pytest

from nearcache import BatchError, Cache, CacheError, LoaderTimeoutError
from nearcache._core.outcome import Outcome
from nearcache._engine import load as loading
from nearcache._io.blocking import BlockingIo
from nearcache.backends.base import Fill
from nearcache.backends.memory import Ledger
from nearcache.near import flights
from nearcache.near.flights import Flights
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Alarm,
    Crowd,
    SignalAt,
    SlowSource,
    at_once,
    broken,
    dice,
    eventually,
    eventually_in_loop,
    impatient,
    interrupted,
    noticed,
    outcome_of,
    values,
    waiting,
)

Key = Callable[[], str]


class Unusual(BaseException):
    """An error that is none of Exception's children."""


ERRORS: list[BaseException] = [
    ValueError("no such user"),
    KeyError("id"),
    StopIteration(7),
    StopAsyncIteration(),
    TimeoutError(),
    OSError(),
]
INTERRUPTS: list[BaseException] = [
    KeyboardInterrupt(),
    SystemExit(3),
    asyncio.CancelledError(),
    GeneratorExit(),
    Unusual(),
]
IN_TASKS: list[BaseException] = [asyncio.CancelledError(), GeneratorExit(), Unusual()]
"""Interrupts that do not end the loop as a whole."""


def raising(error: BaseException) -> Callable[[], NoReturn]:
    """Make a loader that fails."""

    def fail() -> NoReturn:
        raise error

    return fail


def araising(error: BaseException) -> Callable[[], Any]:
    """Make a coroutine function that fails."""

    async def fail() -> NoReturn:
        raise error

    return fail


# Errors


@pytest.mark.parametrize("error", ERRORS + INTERRUPTS, ids=repr)
def test_the_caller_gets_the_very_error_of_the_loader(
    url: str, new_cache: NewCache, fresh_key: Key, error: BaseException
) -> None:
    cache, key = new_cache(url), fresh_key()
    assert outcome_of(lambda: cache.get_or_load(key, raising(error))).error is error
    assert cache.get(key, "nothing stored") == "nothing stored"
    assert cache.get_or_load(key, lambda: 7) == 7


@pytest.mark.parametrize("error", ERRORS[:2] + ERRORS[4:] + IN_TASKS, ids=repr)
def test_the_task_gets_the_very_error_of_the_loader(
    url: str, new_cache: NewCache, fresh_key: Key, error: BaseException
) -> None:
    cache, key = new_cache(url), fresh_key()

    async def check() -> None:
        with pytest.raises(type(error)) as raised:
            await cache.aio.get_or_load(key, araising(error))
        # A task that was cancelled tells so with an error of its own.
        assert raised.value is error or isinstance(error, asyncio.CancelledError)
        assert await cache.aio.get(key, "nothing stored") == "nothing stored"
        assert await cache.aio.get_or_load(key, raising_never) == 7

    asyncio.run(check())


async def raising_never() -> int:
    """Load."""
    return 7


def test_what_python_makes_of_stop_iteration_in_a_coroutine_is_all_that_changes(new_cache: NewCache) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(new_cache("memory://").aio.get_or_load("a:1", araising(StopIteration(7))))


def test_an_error_carried_through_coroutines_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    """Without outcomes as values, StopIteration would become another error."""

    async def user(io: BlockingIo, function: Callable[..., Any], *args: Any) -> Outcome[Any]:
        return Outcome(function(*args))

    with broken(BlockingIo, "user", user), noticed():
        test_the_caller_gets_the_very_error_of_the_loader("memory://", new_cache, fresh_key, ERRORS[2])


def an_error_reaches_all_who_wait(cache: Cache, key: str) -> None:
    """Let a crowd wait for a load that fails."""
    source = SlowSource(raising(ValueError("no such user")))
    crowd = Crowd().threads(3, lambda: cache.get_or_load(key, source.load))
    crowd.tasks(3, lambda: cache.aio.get_or_load(key, source.aload)).start()
    eventually(lambda: waiting(cache, key) == 6, "all of them wait")
    source.open()
    assert [type(outcome.error) for outcome in crowd.finish()] == [ValueError] * 6
    assert source.loads == 1
    assert cache.get_or_load(key, lambda: 7) == 7


def test_an_error_reaches_all_who_wait_and_is_not_kept(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        an_error_reaches_all_who_wait(cache, fresh_key())


def test_a_batch_tells_which_loads_failed(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)

    @cache.cached("users:{user_id}")
    def user(user_id: int) -> int:
        return 100 // user_id

    with pytest.raises(BatchError) as raised:
        user.many([0, 1, 2])
    assert raised.value.values == {1: 100, 2: 50}
    assert isinstance(raised.value.errors[0], ZeroDivisionError)
    assert user.peek(1) == 100


# Interrupts


def an_interrupt_is_nobody_elses(cache: Cache, key: str, interrupt: BaseException) -> None:
    """Let the leader be interrupted; one of those who wait takes over."""
    first, second = SlowSource(raising(interrupt)), SlowSource(lambda: "taken over")
    second.open()
    leader = Crowd().threads(1, lambda: cache.get_or_load(key, first.load)).start()
    eventually(lambda: first.loads, "the leader loads")
    crowd = Crowd().threads(3, lambda: cache.get_or_load(key, second.load))
    crowd.tasks(3, lambda: cache.aio.get_or_load(key, second.aload)).start()
    eventually(lambda: waiting(cache, key) == 7, "all of them wait")
    first.open()
    assert leader.finish()[0].error is interrupt
    assert values(crowd.finish()) == ["taken over"] * 6
    assert second.loads == 1


@pytest.mark.parametrize("interrupt", INTERRUPTS, ids=repr)
def test_those_who_wait_take_over_from_an_interrupted_leader(
    url: str, new_cache: NewCache, fresh_key: Key, interrupt: BaseException
) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        an_interrupt_is_nobody_elses(cache, fresh_key(), interrupt)


def test_an_interrupt_that_is_handed_on_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Outcome, "abandoned", False), noticed():
        an_interrupt_is_nobody_elses(new_cache("memory://"), fresh_key(), KeyboardInterrupt())


def interrupted_anywhere(cache: Cache, fresh_key: Key) -> int:
    """Interrupt a load at every place there is, and see that the next one who asks need not wait; count the places."""
    for place in range(1, 2000):
        key = fresh_key()
        where = at_once(partial(SignalAt(place).run, partial(cache.get_or_load, key, lambda: 7)))
        if not where:
            return place
        try:
            got = at_once(partial(cache.get_or_load, key, lambda: 8), within=1.0)
        except AssertionError as error:
            raise AssertionError(f"interrupted at {where}, the next one waits for a dead leader") from error
        assert got in (7, 8)
    raise AssertionError("the load never ended")


@interrupted
def test_an_interrupt_at_any_place_leaves_no_dead_leader(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    assert interrupted_anywhere(new_cache(url), fresh_key) > 50


@interrupted
def test_a_leader_that_never_lands_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Flights, "land", lambda flights, flight, outcome: None), noticed():
        interrupted_anywhere(new_cache("memory://", hard_timeout=2), fresh_key)


def test_a_signal_handler_may_use_the_cache_at_any_place(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    """As finalizers may, which run wherever the last reference is dropped."""
    cache = new_cache(url)

    def use() -> None:
        key = fresh_key()
        assert cache.get_or_load(key, lambda: 1) == 1
        cache.delete(key)

    def work() -> None:
        key = fresh_key()
        assert cache.get_or_load(key, lambda: 2) == 2
        cache.set(key, 3)
        assert cache.delete(key)

    for place in range(1, 2000):
        if not at_once(partial(SignalAt(place, use).run, work)):
            assert place > 100
            return
    raise AssertionError("the work never ended")


def test_a_lock_that_its_own_thread_cannot_take_twice_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(flights, "RLock", threading.Lock), impatient(), noticed():
        test_a_signal_handler_may_use_the_cache_at_any_place("memory://", new_cache, fresh_key)


def loads_and_deletes(cache: Cache, key: str) -> None:
    """Work that a signal may interrupt."""
    for _ in range(3):
        cache.get_or_load(key, lambda: 7)
        cache.delete(key)


@pytest.mark.timeout(60, method="thread")  # the other method needs the alarm for itself
@interrupted
def test_a_signal_in_the_main_thread_leaves_the_cache_in_order(
    url: str, new_cache: NewCache, fresh_key: Key, alarm: Alarm
) -> None:
    """With real signals, at moments that nobody chose."""
    cache, luck = new_cache(url), dice()

    for _ in range(300):
        key = fresh_key()
        alarm.during(luck.uniform(1e-5, 6e-4), partial(loads_and_deletes, cache, key))
        assert at_once(partial(cache.get_or_load, key, lambda: 7)) == 7
    assert alarm.rung > 20


# A loader that asks for its own key


def asks_for_itself(cache: Cache, key: str) -> None:
    """Ask for a key inside its own load, in every way there is."""

    def inside() -> Any:
        return cache.get_or_load(key, lambda: 1)

    async def ainside() -> Any:
        return await cache.aio.get_or_load(key, raising_never)

    async def athread() -> Any:
        return await asyncio.to_thread(inside)

    ways: list[Callable[[], Any]] = [
        lambda: cache.get_or_load(key, inside),
        lambda: cache.get_or_load(key, lambda: asyncio.run(ainside())),
        lambda: asyncio.run(cache.aio.get_or_load(key, ainside)),
        lambda: asyncio.run(cache.aio.get_or_load(key, athread)),
        lambda: cache.get_or_load(key, lambda: cache.get_or_load(f"{key}:b", inside)),
    ]
    for way in ways:
        error = outcome_of(partial(at_once, way)).error
        assert type(error) is CacheError, f"got {error!r}"
        assert key in str(error)
        assert "itself" in str(error)
    assert cache.get_or_load(key, lambda: 7) == 7


def test_a_loader_that_asks_for_its_own_key_is_told_so(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    asks_for_itself(new_cache(url), fresh_key())


def test_a_loader_that_waits_for_itself_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Flights, "led_here", lambda flights, key: False), broken(loading, "WAIT_MARGIN", 0.0), noticed():
        asks_for_itself(new_cache("memory://", hard_timeout=0.1), fresh_key())


def test_what_a_loader_starts_may_ask_for_the_key_afterwards(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    """The mark of the load goes into the tasks it starts, and means nothing once the load has ended."""
    cache, key, later = new_cache(url), fresh_key(), []

    async def loader() -> int:
        later.append(asyncio.ensure_future(afterwards()))
        return 7

    async def afterwards() -> Any:
        await eventually_in_loop(lambda: waiting(cache, key) == 0, "the load has ended")
        await cache.aio.delete(key)
        return await cache.aio.get_or_load(key, raising_never)

    async def check() -> None:
        assert await cache.aio.get_or_load(key, loader) == 7
        assert await later[0] == 7

    asyncio.run(check())


def test_two_caches_do_not_take_each_others_loads_for_their_own(new_cache: NewCache) -> None:
    one, two = new_cache("memory://"), new_cache("memory://")
    assert one.get_or_load("a:1", lambda: two.get_or_load("a:1", lambda: 7)) == 7


# Every wait ends


def waits_are_bounded(cache: Cache, fresh_key: Key) -> None:
    """Let sources hang: all who wait for them are told after a while, and the next ones who ask load anew."""
    source, keys = SlowSource(), [fresh_key() for _ in range(ROUNDS)]
    leaders, followers = Crowd(), Crowd()
    for key in keys:
        leaders.threads(1, partial(cache.get_or_load, key, source.load))
    leaders.start()
    eventually(lambda: source.loads == len(keys), "all sources hang")
    for key in keys:
        followers.threads(1, partial(cache.get_or_load, key, source.load))
        followers.tasks(2, partial(cache.aio.get_or_load, key, source.aload))
    told = [outcome.error for outcome in followers.start().finish()]
    assert [type(error) for error in told] == [LoaderTimeoutError] * len(keys) * 3
    assert all("keys:" in str(error) and "hard_timeout" in str(error) for error in told)
    for key in keys:
        assert at_once(partial(cache.get_or_load, key, lambda: "anew")) == "anew"
    source.open()
    assert values(leaders.finish()) == [["a", "value"]] * len(keys)
    assert cache.get_many(keys) == dict.fromkeys(keys, "anew")


def test_nobody_waits_longer_than_the_hard_timeout(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with broken(loading, "WAIT_MARGIN", 0.02):
        waits_are_bounded(new_cache(url, hard_timeout=0.8), fresh_key)


def test_a_wait_without_an_end_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(loading, "WAIT_MARGIN", 1e6), impatient(), noticed():
        waits_are_bounded(new_cache("memory://", hard_timeout=0.3), fresh_key)


def test_a_task_that_hangs_past_its_deadline_is_cancelled(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, source, key = new_cache(url, hard_timeout=0.05), SlowSource(), fresh_key()

    async def check() -> None:
        with pytest.raises(LoaderTimeoutError):
            await cache.aio.get_or_load(key, source.aload)
        await eventually_in_loop(lambda: source.cancelled == 1, "the load is cancelled")

    with broken(loading, "WAIT_MARGIN", 0.0):
        at_once(lambda: asyncio.run(check()))


OVERDUE = 0.05
"""Seconds after which a load is overdue."""


def overdue_load_stores_nothing(cache: Cache, key: str) -> bool:
    """Let a load outlive its deadline, another one take its place, and the first one end after all.

    False if the machine stalled, so that the other one was overdue as well.
    """
    old, new = SlowSource(lambda: "old"), SlowSource(lambda: "new")
    new.open()
    crowd = Crowd().threads(1, lambda: cache.get_or_load(key, old.load)).start()
    eventually(lambda: old.loads, "the first one loads")
    until = cache._parts.core.flights._by_key[key].until
    eventually(lambda: time.monotonic() > until, "its deadline passes")
    asked = time.monotonic()
    assert cache.get_or_load(key, new.load) == "new"
    in_time = time.monotonic() - asked < OVERDUE
    old.open()
    assert values(crowd.finish()) == ["old"]
    assert not in_time or cache.get(key) == "new"
    return in_time


def test_a_load_that_outlived_its_deadline_is_not_stored(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url, hard_timeout=OVERDUE)
    good = [overdue_load_stores_nothing(cache, fresh_key()) for _ in range(ROUNDS)]
    assert good.count(True) >= ROUNDS // 4, "the machine stalled again and again"


def test_a_late_load_that_is_stored_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    async def fill(ledger: Ledger, fills: Sequence[Fill]) -> list[bool]:
        for each in fills:
            ledger._store.put(each.item.key, each.item.raw, math.inf)
        return [True for _ in fills]

    with broken(Ledger, "fill", fill), noticed():
        cache = new_cache("memory://", hard_timeout=OVERDUE)
        for _ in range(ROUNDS):
            overdue_load_stores_nothing(cache, fresh_key())


def test_two_loads_that_wait_for_each_other_are_parted(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, one, two = new_cache(url, hard_timeout=0.1), fresh_key(), fresh_key()
    together = threading.Barrier(2)

    def crossed(other: str) -> Any:
        together.wait(5)
        return cache.get_or_load(other, lambda: "alone")

    with broken(loading, "WAIT_MARGIN", 0.0):
        crowd = Crowd().threads(1, lambda: cache.get_or_load(one, lambda: crossed(two)))
        outcomes = crowd.threads(1, lambda: cache.get_or_load(two, lambda: crossed(one))).start().finish()
    assert any(isinstance(outcome.error, LoaderTimeoutError) for outcome in outcomes)


# A blocking call inside the loop of the leader


def blocks_in_the_leaders_loop(cache: Cache, key: str) -> None:
    """Call the blocking face inside the event loop whose task leads: waiting there would stop the leader for ever."""
    source = SlowSource(lambda: "by the task")

    async def check() -> None:
        task = asyncio.ensure_future(cache.aio.get_or_load(key, source.aload))
        await eventually_in_loop(lambda: source.loads, "the task leads")
        assert cache.get_or_load(key, lambda: "by itself") == "by itself"
        source.open()
        assert await task == "by the task"

    at_once(lambda: asyncio.run(check()))


def test_a_blocking_call_in_the_leaders_loop_loads_for_itself(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for _ in range(ROUNDS):
        blocks_in_the_leaders_loop(new_cache(url), fresh_key())


def test_a_loop_that_blocks_itself_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    def check() -> None:
        outcome = outcome_of(lambda: blocks_in_the_leaders_loop(new_cache("memory://", hard_timeout=0.1), fresh_key()))
        assert not isinstance(outcome.error, LoaderTimeoutError)

    with (
        broken(BlockingIo, "can_wait", lambda io, flight: True),
        broken(loading, "WAIT_MARGIN", 0.0),
        noticed(),
    ):
        check()


# Recursion


def depth_reached(cache: Cache, depth: int) -> int:
    """Compute by recursion through the cache, in a thread whose stack is empty."""

    @cache.cached("sums:{n}")
    def total(n: int) -> int:
        return n + total(n - 1) if n else 0

    return int(at_once(lambda: total(depth)))


def test_a_cached_function_may_call_itself_three_hundred_deep(url: str, new_cache: NewCache) -> None:
    assert depth_reached(new_cache(url), 300) == 300 * 301 // 2


def test_engine_frames_under_the_loader_are_noticed(new_cache: NewCache) -> None:
    async def user(io: BlockingIo, function: Callable[..., Any], *args: Any, limit: Any = None) -> Outcome[Any]:
        return outcome_of(lambda: function(*args))

    with broken(BlockingIo, "user", user), pytest.raises(RecursionError):
        depth_reached(new_cache("memory://"), 300)


def test_a_cached_coroutine_function_may_call_itself_three_hundred_deep(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url).aio

    @cache.cached("sums:{n}")
    async def total(n: int) -> int:
        return n + await total(n - 1) if n else 0

    assert asyncio.run(total(300)) == 300 * 301 // 2
