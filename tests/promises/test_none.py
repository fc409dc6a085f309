"""None is a value: it is cached like any other, for a time of its own, and never taken for absence."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import MISS, Cache, Entry
from nearcache._core.ttl import TTL
from nearcache._engine.found import COLD, Found, Lack
from nearcache._engine.load import Loads
from nearcache._engine.plan import Plan
from nearcache._engine.read import Reader
from nearcache.near.store import Store
from nearcache.testing import FakeClock
from tests.promises.conftest import NewCache
from tests.promises.helpers import ROUNDS, Crowd, SlowSource, broken, eventually, noticed, values, waiting

Key = Callable[[], str]
FALSY: list[Any] = [None, False, 0, 0.0, "", b"", [], (), {}, set()]


class Counting:
    """A loader that counts its calls, in both flavours."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.loads = 0

    def load(self) -> Any:
        """Load, blocking."""
        self.loads += 1
        return self.value

    async def aload(self) -> Any:
        """Load, awaiting."""
        return self.load()


def is_a_value(cache: Cache, key: str, value: Any) -> None:
    """Load something falsy once, and find it by every verb of both faces."""
    source = Counting(value)
    for _ in range(3):
        assert cache.get_or_load(key, source.load) == value
        assert asyncio.run(cache.aio.get_or_load(key, source.aload)) == value
    assert source.loads == 1, f"{value!r} is loaded again and again"
    assert cache.get(key, MISS) == value
    assert asyncio.run(cache.aio.get(key, MISS)) == value
    assert cache.get_many([key]) == {key: value}
    assert asyncio.run(cache.aio.get_many([key])) == {key: value}
    assert cache.exists(key)
    entry = cache.get_entry(key)
    assert isinstance(entry, Entry)
    assert entry.value == value
    assert cache.ttl(key) is not MISS
    assert not cache.add(key, "something else")


@pytest.mark.parametrize("near", ["1MB", None], ids=["near", "far"])
@pytest.mark.parametrize("value", FALSY, ids=repr)
def test_falsy_values_are_values(
    any_url: str, new_cache: NewCache, fresh_key: Key, value: Any, near: str | None
) -> None:
    is_a_value(new_cache(any_url, near=near), fresh_key(), value)


def test_decorated_functions_remember_none(any_url: str, new_cache: NewCache) -> None:
    cache, calls = new_cache(any_url), list[int]()

    @cache.cached("users:{user_id}")
    def user(user_id: int) -> str | None:
        calls.append(user_id)
        return None

    for _ in range(3):
        assert user(1) is None
        assert user.many([1, 2]) == {1: None, 2: None}
    assert calls == [1, 2]


def none_reaches_a_crowd(cache: Cache, key: str) -> None:
    """Load None for threads and tasks that wait together."""
    source = SlowSource(lambda: None)
    crowd = Crowd().threads(3, lambda: cache.get_or_load(key, source.load))
    crowd.tasks(3, lambda: cache.aio.get_or_load(key, source.aload)).start()
    eventually(lambda: waiting(cache, key) == 6, "all of them wait")
    source.open()
    assert values(crowd.finish()) == [None] * 6
    assert source.loads == 1


def test_a_crowd_that_gets_none_has_loaded_once(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        none_reaches_a_crowd(cache, fresh_key())


def test_none_taken_for_absence_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    real_fetch, real_lookup = Reader.fetch, Store.lookup

    async def fetch(reader: Reader, *args: Any, **kwargs: Any) -> Found | Lack:
        found = await real_fetch(reader, *args, **kwargs)
        return COLD if isinstance(found, Found) and found.value is None else found

    def lookup(store: Store, key: str) -> Any:
        value = real_lookup(store, key)
        return MISS if value is None else value

    with broken(Reader, "fetch", fetch), broken(Store, "lookup", lookup), noticed():
        is_a_value(new_cache(url), fresh_key(), None)


# How long


def none_lives_shorter(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    """Load None and something else, and look how long each is fresh."""
    clock, key = FakeClock(), fresh_key()
    cache = new_cache(url, clock=clock, none_ttl="1m", jitter=0, staleness="1h")
    nothing, something = Counting(None), Counting("x")
    cache.get_or_load(key, nothing.load, ttl="1h")
    cache.get_or_load(f"{key}:b", something.load, ttl="1h")
    clock.advance("57s")  # an engine may tell its time in whole seconds
    cache.get_or_load(key, nothing.load, ttl="1h")
    assert nothing.loads == 1
    clock.advance("4s")
    cache.get_or_load(key, nothing.load, ttl="1h")
    cache.get_or_load(f"{key}:b", something.load, ttl="1h")
    assert (nothing.loads, something.loads) == (2, 1)


def test_none_has_a_time_of_its_own(any_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    none_lives_shorter(any_url, new_cache, fresh_key)


def test_none_kept_as_long_as_the_rest_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    def lifetime(loads: Loads, value: Any, plan: Plan) -> float:
        return 3600.0

    with broken(Loads, "_lifetime", lifetime), noticed():
        none_lives_shorter("memory://", new_cache, fresh_key)


@pytest.mark.parametrize(
    ("ttl", "none_ttl", "lives"), [("1h", None, 60.0), ("10s", None, 10.0), ("1h", "2h", 7200.0), ("1h", "5s", 5.0)]
)
def test_none_never_outlives_other_results_unless_told_to(
    any_url: str, new_cache: NewCache, ttl: TTL, none_ttl: TTL | None, lives: float
) -> None:
    cache = new_cache(any_url, jitter=0)

    @cache.cached("users:{user_id}", ttl=ttl, none_ttl=none_ttl)
    def user(user_id: int) -> str | None:
        return None

    assert user(1) is None
    left = cache.ttl("users:1")
    assert left is not MISS
    assert lives - 5 < float(left) <= lives


def test_a_none_that_is_stored_by_hand_lives_as_long_as_it_was_told_to(any_url: str, new_cache: NewCache) -> None:
    cache = new_cache(any_url, jitter=0)
    cache.set("users:1", None, ttl="1h")
    left = cache.ttl("users:1")
    assert left is not MISS
    assert 3590 < float(left) <= 3600
