"""What a reader gets of a value that is no longer fresh, and how often it is loaded meanwhile."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nearcache import MISS, AsyncCache, Cache, CacheError, Entry, LoaderTimeoutError, loading
from nearcache._engine import core as engine_core
from nearcache._engine import load as loads
from nearcache.backends.memory import Ledger
from nearcache.testing import FakeClock
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Crowd,
    SlowSource,
    at_once,
    broken,
    dice,
    eventually,
    noticed,
    outcome_of,
    recorded,
    unannounced,
    values,
    waiting,
)

Key = Callable[[], str]


class Source:
    """A source whose answer is a number that grows, and which fails when it is told to."""

    def __init__(self) -> None:
        self.number = 0
        self.fails = False

    def load(self) -> int:
        """Return the next number."""
        self.number += 1
        if self.fails:
            raise ConnectionError
        return self.number


def aged(new_cache: NewCache, url: str, **options: Any) -> tuple[Cache, FakeClock]:
    """Return a cache whose values live a minute, and its clock."""
    clock = FakeClock()
    return new_cache(url, clock=clock, jitter=0, ttl=60, timeout="1h", **options), clock


# Stale serving


def test_a_stale_value_is_served_while_one_reader_refreshes_it(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="10m")
    key, source, slow = fresh_key(), Source(), SlowSource(lambda: "new")
    cache.get_or_load(key, source.load)
    clock.advance(61)
    refresher = Crowd().threads(1, lambda: cache.get_or_load(key, slow.load)).start()
    eventually(lambda: slow.loads, "one refreshes")
    readers = Crowd().threads(5, lambda: cache.get_or_load(key, slow.load))
    readers.tasks(5, lambda: cache.aio.get_or_load(key, slow.aload)).start()
    assert values(readers.finish()) == [1] * 10, "nobody else waits"
    slow.open()
    assert values(refresher.finish()) == ["new"], "who refreshes has the new value"
    answer: Any = cache.get_or_load(key, source.load)
    assert answer == "new"
    assert (source.number, slow.loads) == (1, 1)
    assert cache.stats().stale_hits >= 10


def test_a_plain_get_returns_no_stale_value(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="10m", fail_safe="1h")
    key = fresh_key()
    cache.set(key, "old")
    clock.advance(61)
    assert cache.get(key) is None
    assert not cache.exists(key)
    assert cache.add(key, "added"), "a value that is kept for emergencies is not in the way"
    assert cache.get(key) == "added"


def test_past_its_stale_time_a_value_is_waited_for(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="10m")
    key, source = fresh_key(), Source()
    cache.get_or_load(key, source.load)
    clock.advance(61 + 600)
    assert cache.get_or_load(key, source.load) == 2


def test_an_invalidated_value_is_never_served_again(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="10m", fail_safe="1d")
    invalidations: list[Callable[[str], Any]] = [
        cache.delete,
        lambda key: cache.invalidate_tags("t"),
        lambda key: cache.clear(),
    ]
    for invalidate in invalidations:
        key, source = fresh_key(), Source()
        cache.get_or_load(key, source.load, tags=["t"])
        clock.advance(61)
        invalidate(key)
        source.fails = True
        with pytest.raises(ConnectionError):
            cache.get_or_load(key, source.load, tags=["t"])
        clock.advance(10)
        source.fails = False
        assert cache.get_or_load(key, source.load, tags=["t"]) == 3


def test_a_decorated_function_is_refreshed_in_the_background(url: str, new_cache: NewCache) -> None:
    cache, clock = aged(new_cache, url, stale="10m")
    slow, threads = SlowSource(lambda: "new"), list[str]()

    @cache.cached("pages:{name}")
    def page(name: str) -> str:
        threads.append(threading.current_thread().name)
        return "old" if len(threads) == 1 else str(slow.load())

    assert page("home") == "old"
    clock.advance(61)
    assert page("home") == "old", "nobody waits"
    eventually(lambda: slow.loads, "it is refreshed")
    assert page("home") == "old"
    slow.open()
    eventually(lambda: page("home") == "new", "the new value is there")
    assert threads[1] == "nearcache-load"
    assert slow.loads == 1


def test_a_decorated_coroutine_function_too(url: str, new_cache: NewCache) -> None:
    cache, clock = aged(new_cache, url, stale="10m")
    loaded = list[str]()

    @cache.aio.cached("pages:{name}")
    async def page(name: str) -> int:
        loaded.append(name)
        return len(loaded)

    async def check() -> None:
        assert await page("home") == 1
        clock.advance(61)
        assert await page("home") == 1
        while len(loaded) < 2:
            await asyncio.sleep(0)
        while await page("home") != 2:
            await asyncio.sleep(0)
        assert len(loaded) == 2

    asyncio.run(check())


def test_what_a_function_was_given_beside_its_key_may_be_closed_later(url: str, new_cache: NewCache) -> None:
    cache, clock = aged(new_cache, url, stale="10m")
    here = threading.current_thread().name
    threads = list[str]()

    @cache.cached("pages:{name}", ignore=("session",))
    def page(name: str, session: object) -> int:
        threads.append(threading.current_thread().name)
        return len(threads)

    page("home", 0)
    clock.advance(61)
    assert page("home", 0) == 2, "who notices refreshes"
    assert threads == [here, here]


def test_each_stored_value_is_replaced_by_at_most_one_load(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="10m")
    for _ in range(ROUNDS):
        key, source = fresh_key(), Source()
        cache.get_or_load(key, source.load)
        clock.advance(61)
        crowd = Crowd().threads(4, lambda: cache.get_or_load(key, source.load))  # noqa: B023 -- finished in this round
        got = values(crowd.start().finish())
        assert set(got) <= {1, 2}
        assert source.number == 2


# Early refresh


def refreshed_early(cache: Cache, clock: FakeClock, key: str, draw: float) -> bool:
    """Read a second before a value expires that took two seconds to load; tell whether it was loaded again."""
    loaded = list[int]()

    def load() -> int:
        loaded.append(1)
        return len(loaded)

    with broken(time, "perf_counter", iter([0.0, 2.0] * 1000).__next__):
        cache.get_or_load(key, load)
    clock.advance(59)
    with broken(random, "expovariate", lambda _: draw):
        cache.get_or_load(key, load)
    return len(loaded) == 2


def test_what_takes_long_to_load_is_refreshed_early_by_luck(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for near in (None, "1MB"):
        cache, clock = aged(new_cache, url, near=near)
        assert not refreshed_early(cache, clock, fresh_key(), 0.1)
        cache, clock = aged(new_cache, url, near=None)
        assert refreshed_early(cache, clock, fresh_key(), 3.0)


def test_a_value_is_served_near_while_it_is_refreshed_early(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, staleness="1d")
    key, near = fresh_key(), list[object]()

    def load() -> int:
        near.append(cache._parts.core.near.lookup(key))
        return len(near)

    with unannounced():
        with broken(time, "perf_counter", iter([0.0, 2.0] * 1000).__next__):
            cache.get_or_load(key, load)
        clock.advance(59)
        with broken(random, "expovariate", lambda _: 3.0):
            cache.get_or_load(key, load)
    assert near == [MISS, 1]


def test_early_refreshes_follow_the_cost_of_the_load() -> None:
    dice()
    drawn = sorted(engine_core.early(2.0) for _ in range(2000))
    assert 1.0 < drawn[1000] < 1.8, "half of them within cost times ln 2"


# Fail-safe


def test_a_load_that_fails_leaves_the_old_value(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, fail_safe="1h")
    key, source = fresh_key(), Source()
    cache.get_or_load(key, source.load)
    clock.advance(61)
    source.fails = True
    assert [cache.get_or_load(key, source.load) for _ in range(5)] == [1] * 5
    assert source.number == 2, "the next try waits"
    stats = cache.stats()
    assert (stats.load_errors, stats.stale_hits, stats.hits + stats.misses) == (1, 5, 6)
    clock.advance(3600)
    source.fails = False
    cache.delete(key)
    assert cache.get_or_load(key, source.load) == 3


def test_a_failed_load_is_tried_again_after_a_back_off(new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, "memory://", fail_safe="1h")
    key, source = fresh_key(), Source()
    cache.get_or_load(key, source.load)
    clock.advance(61)
    source.fails = True
    cache.get_or_load(key, source.load)
    clock.advance(loads.BACK_OFF_SECONDS)
    source.fails = False
    assert cache.get_or_load(key, source.load) == 3


def test_without_a_back_off_the_source_is_asked_each_time_and_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(loads, "BACK_OFF_SECONDS", 0.0), noticed():
        test_a_load_that_fails_leaves_the_old_value("memory://", new_cache, fresh_key)


def test_a_value_that_is_too_old_does_not_help(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="2h", fail_safe="1m")
    key, source = fresh_key(), Source()
    cache.get_or_load(key, source.load, stale=None)
    clock.advance(60 + 61)
    source.fails = True
    with pytest.raises(ConnectionError):
        cache.get_or_load(key, source.load, stale=None)


def slow_load_is_left(cache: Cache, key: str, clock: FakeClock) -> None:
    """Let a load be slower than the soft timeout: readers have the old value, and the new one is stored in the end."""
    cache.set(key, "old")
    clock.advance(61)
    slow = SlowSource(lambda: "new")
    options: Any = {"fail_safe": "1h", "soft_timeout": 0.05}
    assert at_once(lambda: cache.get_or_load(key, slow.load, **options)) == "old"
    assert at_once(lambda: cache.get_or_load(key, slow.load, **options)) == "old"
    assert slow.loads == 1, "the first one still runs"
    slow.open()
    eventually(lambda: cache.get(key) == "new", "it is stored")


def test_readers_leave_a_slow_load_for_the_old_value(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, fail_safe="1h")
    slow_load_is_left(cache, fresh_key(), clock)


def test_tasks_leave_a_slow_load_for_the_old_value(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, fail_safe="1h", soft_timeout=0.05)
    key, slow = fresh_key(), SlowSource(lambda: "new")
    cache.set(key, "old")
    clock.advance(61)

    async def check() -> None:
        for _ in range(3):
            assert await cache.aio.get_or_load(key, slow.aload) == "old"
        slow.open()
        while await cache.aio.get(key) != "new":
            await asyncio.sleep(0)
        assert (slow.loads, slow.cancelled) == (1, 0)

    at_once(lambda: asyncio.run(check()))


def test_without_an_old_value_the_soft_timeout_means_nothing(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, slow = new_cache(url, fail_safe="1h"), SlowSource()
    crowd = Crowd().threads(1, partial(cache.get_or_load, fresh_key(), slow.load, soft_timeout=0.001)).start()
    eventually(lambda: slow.loads, "it loads")
    slow.open()
    assert values(crowd.finish()) == [["a", "value"]]


# Loaders that hang


def test_a_loader_that_hangs_is_left(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, key, slow = new_cache(url), fresh_key(), SlowSource()
    with broken(loads, "WAIT_MARGIN", 0.0):
        error = outcome_of(lambda: at_once(lambda: cache.get_or_load(key, slow.load, hard_timeout=0.05))).error
    assert isinstance(error, LoaderTimeoutError)
    assert key in str(error)
    eventually(lambda: cache.health().stuck_loaders == {"SlowSource.load": 1}, "it is known")
    assert not cache.health().ok
    assert at_once(lambda: cache.get_or_load(key, lambda: "anew")) == "anew"
    slow.open()
    eventually(lambda: cache.health().ok, "it ends")
    assert cache.get(key) == "anew", "what came too late is not stored"


def test_a_coroutine_that_hangs_is_cancelled(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, key, slow = new_cache(url), fresh_key(), SlowSource()

    async def check() -> None:
        with pytest.raises(LoaderTimeoutError, match=key):
            await cache.aio.get_or_load(key, slow.aload, hard_timeout=0.05)
        assert slow.cancelled == 1

    at_once(lambda: asyncio.run(check()))


def test_a_time_out_of_the_loaders_own_is_its_own(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    async def load() -> None:
        raise TimeoutError("mine")

    async def check(cache: AsyncCache) -> None:
        with pytest.raises(TimeoutError, match="mine"):
            await cache.get_or_load(fresh_key(), load)

    asyncio.run(check(new_cache(url).aio))


def test_a_loader_that_hangs_takes_its_own_threads_only(new_cache: NewCache, fresh_key: Key) -> None:
    cache, slow = new_cache("memory://"), SlowSource()
    hanging = Crowd()
    for _ in range(30):
        hanging.threads(1, partial(cache.get_or_load, fresh_key(), slow.load, hard_timeout=30))
    hanging.start()
    eventually(lambda: slow.loads == 16, "all its threads are taken")
    assert at_once(lambda: cache.get_or_load(fresh_key(), lambda: "other", hard_timeout=30)) == "other"
    assert slow.loads == 16
    slow.open()
    assert values(hanging.finish()) == [["a", "value"]] * 30, "the others had to wait for their turn"


def test_a_loader_runs_in_its_callers_thread_unless_it_has_a_deadline(new_cache: NewCache, fresh_key: Key) -> None:
    cache, here = new_cache("memory://"), threading.current_thread().name

    def where() -> str:
        return threading.current_thread().name

    assert cache.get_or_load(fresh_key(), where) == here
    assert cache.get_or_load(fresh_key(), where, hard_timeout=30) == "nearcache-load"


# What a loader says


def test_a_loader_says_how_its_result_is_stored(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url)
    key, other, never = fresh_key(), fresh_key(), fresh_key()

    def brief() -> str:
        loading().ttl = "5s"
        return "brief"

    def tagged() -> str:
        loading().tags.add("said")
        return "tagged"

    def unwanted() -> str:
        loading().do_not_store()
        return "unwanted"

    assert cache.get_or_load(key, brief) == "brief"
    assert cache.get_or_load(other, tagged) == "tagged"
    assert cache.get_or_load(never, unwanted) == "unwanted"
    assert cache.get(never) is None
    clock.advance(6)
    assert (cache.get(key), cache.get(other)) == (None, "tagged")
    cache.invalidate_tags("said")
    assert cache.get(other) is None


def test_a_loader_keeps_what_was_not_modified(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, fail_safe="1h")
    key = fresh_key()
    assert cache.get_or_load(key, lambda: loading().stale) is None
    cache.set(key, ["old"])
    clock.advance(61)
    seen = list[Any]()

    def unchanged() -> Any:
        seen.append(loading().stale)
        return loading().not_modified()

    assert cache.get_or_load(key, unchanged) == ["old"]
    assert seen == [["old"]]
    assert cache.get(key) == ["old"], "it is fresh again"
    clock.advance(61)
    assert cache.get(key) is None


def test_what_is_not_there_cannot_be_kept(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with pytest.raises(CacheError, match="no stale value"):
        new_cache(url).get_or_load(fresh_key(), lambda: loading().not_modified())


@pytest.mark.parametrize("off", ["disabled", "bypass"])
def test_a_loader_that_runs_without_the_cache_may_say_what_it_likes(new_cache: NewCache, off: str) -> None:
    cache = new_cache("memory://")

    @cache.cached("users:{user_id}")
    def user(user_id: int) -> int:
        loading().tags.add("users")
        loading().ttl = "5s"
        return user_id

    with getattr(cache, off)():
        assert user(1) == 1
    assert user.bypass(2) == 2
    with pytest.raises(CacheError, match="no load is running"):
        at_once(loading)
    with pytest.raises(AttributeError):
        loads_misspelt(cache)


def loads_misspelt(cache: Cache) -> None:
    """Let a loader set what there is not."""

    def load() -> None:
        loading().tll = "5s"  # type: ignore[attr-defined]  # the point

    cache.get_or_load("a:1", load)


def test_options_that_are_wrong_are_named(new_cache: NewCache, fresh_key: Key) -> None:
    cache, anything = new_cache("memory://"), dict[str, Any]
    for option, value, message in (
        ("stael", "5m", "stael"),
        ("background", "no", "background"),
        ("fail_safe", "400d", "fail_safe"),
        ("soft_timeout", -1, "soft_timeout"),
    ):
        wrong = anything({option: value})
        with pytest.raises((TypeError, ValueError), match=message):
            cache.cached("users:{user_id}", **wrong)
        with pytest.raises((TypeError, ValueError), match=message):
            cache.get_or_load(fresh_key(), lambda: 1, **wrong)
    with pytest.raises(ValueError, match="stale"):
        new_cache("memory://", stale="400d")


def test_a_function_that_is_turned_off_is_not_refreshed_into_the_cache(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)

    @cache.cached("users:{user_id}")
    def user(user_id: int) -> int:
        return user_id

    with cache.disabled():
        assert user.refresh(1) == 1
    assert user.peek(1) is None


def test_an_entry_tells_that_it_is_stale(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, fail_safe="1h")
    key = fresh_key()
    cache.set(key, "old")
    clock.advance(100)
    entry = cache.get_entry(key)
    assert isinstance(entry, Entry)
    assert (entry.value, entry.stale, entry.ttl) == ("old", True, 0.0)
    assert 99 < entry.age < 102
    clock.advance(3600)
    assert cache.get_entry(key) is MISS


def test_a_touched_value_is_kept_as_long_as_before(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url)
    key, source = fresh_key(), Source()
    cache.get_or_load(key, source.load, fail_safe="1h")
    assert cache.touch(key, 120)
    clock.advance(121)
    source.fails = True
    assert cache.get_or_load(key, source.load, fail_safe="1h") == 1


# Failures elsewhere, and of refreshes


def test_who_waits_for_a_load_elsewhere_that_fails_has_the_old_value(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    one, key = new_cache(valkey_url, fail_safe="1h", near=None), fresh_key()
    two = new_cache(valkey_url, fail_safe="1h", near=None, namespace=one._parts.core.options.namespace)
    slow = SlowSource(lambda: 1 / 0)
    one.set(key, "old", ttl="10ms")
    eventually(lambda: one.get(key) is None, "it is no longer fresh")
    leader = Crowd().threads(1, lambda: one.get_or_load(key, slow.load)).start()
    eventually(lambda: slow.loads, "one loads")
    waiter = Crowd().threads(1, lambda: two.get_or_load(key, slow.load)).start()
    eventually(lambda: waiting(two, key) == 1, "two waits")
    slow.open()
    assert values(leader.finish()) == ["old"]
    assert values(waiter.finish()) == ["old"]
    assert slow.loads == 1


def no_old_value_after_a_delete_elsewhere(new_cache: NewCache, url: str, key: str, soft: float | None) -> None:
    """Let others wait with an old value for a load, here or elsewhere, while a third process deletes that value."""
    options: dict[str, Any] = {"fail_safe": "1h", "near": None, "staleness": 0.05, "hard_timeout": 20}
    here = new_cache(url, **options)
    elsewhere, third = [new_cache(url, namespace=here._parts.core.options.namespace, **options) for _ in range(2)]
    slow = SlowSource(lambda: 1 / 0)
    here.set(key, "old", ttl="10ms")
    eventually(lambda: here.get(key) is None, "it is no longer fresh")
    eventually(here._engine.backend.listener.channel, "it is told of loads elsewhere")  # type: ignore[attr-defined]
    loads = Crowd().threads(1, lambda: (here if soft else elsewhere).get_or_load(key, slow.load, soft_timeout=soft))
    loads.start()
    eventually(lambda: slow.loads, "somebody loads")
    waits = Crowd().threads(1, lambda: here.get_or_load(key, slow.load, soft_timeout=soft)).start()
    flights = here._parts.core.flights._by_key
    eventually(lambda: key in flights and flights[key].fallback, "there is an old value to fall back to")
    third.delete(key)
    time.sleep(0.06)  # others need not know before
    late = Crowd().threads(1, lambda: here.get_or_load(key, lambda: "new", soft_timeout=soft)).start()
    if soft is None:
        eventually(lambda: late.done or waiting(here, key) > 1, "the late one is under way")
        slow.open()
    assert values(late.finish()) == ["new"]
    slow.open()
    assert values(loads.finish() + waits.finish())[0] == "old"


@pytest.mark.parametrize("soft", [0.01, None], ids=["a load takes long", "a load elsewhere fails"])
def test_what_another_process_deleted_is_no_old_value_for_who_comes_later(
    valkey_url: str, new_cache: NewCache, fresh_key: Key, soft: float | None
) -> None:
    no_old_value_after_a_delete_elsewhere(new_cache, valkey_url, fresh_key(), soft)


def test_a_refresh_that_fails_is_no_concern_of_who_noticed_the_age(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    cache, clock = aged(new_cache, url, stale="1h")
    key, source = fresh_key(), Source()
    cache.get_or_load(key, source.load)
    clock.advance(61)
    source.fails = True
    assert cache.get_or_load(key, source.load) == 1
    assert source.number == 2


def test_an_invalidation_ends_the_pause_after_a_failure(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for invalidate in (lambda cache: cache.clear(), lambda cache: cache.invalidate_tags("t")):
        cache, clock = aged(new_cache, url, fail_safe="1h")
        key, source = fresh_key(), Source()
        cache.get_or_load(key, source.load, tags=["t"])
        clock.advance(61)
        source.fails = True
        assert cache.get_or_load(key, source.load, tags=["t"]) == 1
        invalidate(cache)
        clock.advance(1.1)
        source.fails = False
        assert at_once(lambda: cache.get_or_load(key, source.load, tags=["t"]), within=3.0) == 3  # noqa: B023


# In batches


def test_a_batch_serves_old_values_where_its_load_fails(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, fail_safe="1h")
    keys = [fresh_key() for _ in range(3)]
    cache.set_many(dict.fromkeys(keys[:2], "old"))
    clock.advance(61)

    def fail(_: list[str]) -> dict[str, str]:
        raise ConnectionError

    with recorded(cache) as recorder:
        assert cache.get_or_load_many(keys[:2], fail) == dict.fromkeys(keys[:2], "old")
        assert cache.get_or_load_many(keys[:2], fail) == dict.fromkeys(keys[:2], "old"), "the next try waits"
    assert recorder.counts["get_many"] == 2
    assert cache.stats().loads == 1


def test_a_batch_that_refreshes_leaves_the_others_the_old_values(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, clock = aged(new_cache, url, stale="1h", near=None)
    keys = [fresh_key() for _ in range(3)]
    cache.set_many(dict.fromkeys(keys, "old"))
    clock.advance(61)
    slow = SlowSource(lambda: dict.fromkeys(keys, "new"))
    refresher = Crowd().threads(1, lambda: cache.get_or_load_many(keys, lambda _: slow.load())).start()
    eventually(lambda: slow.loads, "one batch refreshes")
    assert cache.get_or_load(keys[0], lambda: "never") == "old"
    slow.open()
    assert values(refresher.finish()) == [dict.fromkeys(keys, "new")]
    assert cache.get_many(keys) == dict.fromkeys(keys, "new")


def test_a_lease_that_is_given_during_a_back_off_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    real = Ledger.release

    async def release(ledger: Ledger, key: str, token: str, outcome: str, back_off: float = 0.0) -> None:
        await real(ledger, key, token, outcome)

    with broken(Ledger, "release", release), noticed():
        test_a_batch_serves_old_values_where_its_load_fails("memory://", new_cache, fresh_key)
