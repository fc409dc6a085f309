"""Verbs at their edges, in one process."""

import asyncio

import pytest

from nearcache import AsyncCache, Cache, CacheError, CodecError


def test_write_through_returns_what_it_would_cache_also_where_caching_is_turned_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CACHE_ENABLED", "false")
    cache = Cache("memory://", observers=())
    stored: list[str] = []
    assert cache.write_through("users:1", "Ada", stored.append) == "Ada"
    assert stored == ["Ada"]
    assert cache.write_through("users:1", "Ada", str.upper) == "ADA"
    assert cache.get("users:1") is None


def test_get_or_load_serves_near_values():
    cache = Cache("memory://", observers=())
    assert [cache.get_or_load("users:1", lambda: "Ada") for _ in range(3)] == ["Ada"] * 3
    stats = cache.stats()
    assert (stats.near_hits, stats.engine_hits, stats.loads) == (2, 0, 1)


async def test_get_or_load_serves_near_values_to_tasks_too():
    cache = AsyncCache("memory://", observers=())

    async def load() -> str:
        return "Ada"

    assert [await cache.get_or_load("users:1", load) for _ in range(3)] == ["Ada"] * 3
    stats = cache.stats()
    assert (stats.near_hits, stats.engine_hits, stats.loads) == (2, 0, 1)


@pytest.mark.parametrize("step", [True, 1.5, "1", None, 1 << 63, -(1 << 63) - 1])
def test_a_step_that_is_no_int_of_64_bits_is_refused_and_changes_nothing(step: int):
    cache = Cache("memory://", observers=())
    cache.incr("counters:1")
    with pytest.raises(CodecError, match="the step of 'counters:1'"):
        cache.incr("counters:1", step)
    assert cache.get("counters:1") == 1


async def test_a_load_that_refreshes_its_own_key_raises_instead_of_starting_ever_more():
    cache = AsyncCache("memory://", observers=())

    @cache.cached("users:{number}")
    async def read(number: int) -> int:
        return await read.refresh(number)

    with pytest.raises(CacheError, match="asked for 'users:1' itself"):
        await read(1)
    with pytest.raises(CacheError, match="asked for 'users:1' itself"), cache.bypass():
        await read(1)


async def test_a_leader_that_is_cancelled_before_it_starts_leaves_no_dead_flight():
    cache = AsyncCache("memory://", observers=(), hard_timeout=5)

    @cache.cached("users:{number}")
    async def read(number: int) -> int:
        return number

    here = asyncio.all_tasks()
    caller = asyncio.create_task(read(1))
    asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in asyncio.all_tasks() - here])
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(2):
        assert await read(1) == 1


def test_what_left_for_want_of_room_is_told_from_what_never_was_there():
    cache = Cache("memory://", observers=(), near=10)
    for number in range(20):
        cache.set(f"users:{number}", number)
    gone = [number for number in range(20) if cache.get(f"users:{number}") is None]
    assert len(gone) == 10
    assert cache.stats().misses_by_reason == {"evicted": 10}
    cache.get_many([f"users:{gone[0]}", "users:unknown"])
    cache.set(f"users:{gone[1]}", 1)
    cache.delete(f"users:{gone[1]}")
    assert cache.get(f"users:{gone[1]}") is None
    assert cache.stats().misses_by_reason == {"evicted": 11, "cold": 2}
    with cache.memo():
        assert [cache.get(f"users:{gone[0]}") for _ in range(2)] == [None, None]


async def test_set_many_says_what_it_takes(face):
    with pytest.raises(TypeError, match="set_many takes a mapping of keys to values, such as a dict, not a list"):
        await face.set_many(["users:1"])
