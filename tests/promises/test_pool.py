"""The pool opens what it was told to ahead, never more than its limit, and says so when nobody gives way in time."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import BackendTimeoutError, Cache
from nearcache.backends.transport.dialect import Dialect
from nearcache.backends.transport.pool import Pool, Wire
from tests.promises.conftest import NewCache
from tests.promises.helpers import ROUNDS, Crowd, broken, eventually, noticed, outcome_of, values
from tests.servers import RedisServer

pytestmark = pytest.mark.alone

Key = Callable[[], str]


def connections(server: RedisServer) -> int:
    """Return how many connections of caches the server has."""
    clients = server.command("CLIENT", "LIST").decode().splitlines()
    return sum("name=nearcache" in client for client in clients)


def accepted(server: RedisServer) -> int:
    """Return how many connections the server has accepted so far, not counting those that this function makes."""
    questions[server] += 1
    return int(server.info("stats")["total_connections_received"]) - questions[server]


questions: Counter[RedisServer] = Counter()


# Opened ahead


def opens_ahead(server: RedisServer, new_cache: NewCache) -> None:
    """Open both faces, and count."""
    cache = new_cache(server.unix_url, pool_min=4, pool_max=6)
    assert connections(server) == 0, "making a cache opens nothing"
    with cache:
        assert connections(server) == 4
        cache.open()
        assert connections(server) == 4

        async def check() -> None:
            async with cache.aio:
                assert connections(server) == 4 + 4

        asyncio.run(check())
    eventually(lambda: connections(server) == 0, "all are closed")


def test_the_minimum_is_opened_ahead(own_server: RedisServer, new_cache: NewCache) -> None:
    opens_ahead(own_server, new_cache)


def test_a_pool_that_opens_nothing_ahead_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    with broken(Pool, "reserve", lambda pool, count: None), noticed():
        opens_ahead(own_server, new_cache)


# Never more than the maximum


def stays_within_its_limit(server: RedisServer, new_cache: NewCache) -> None:
    """Let many threads ask at once, and count the connections that the server has accepted."""
    before = accepted(server)
    with new_cache(server.unix_url, near=None, pool_min=1, pool_max=3) as cache:
        cache.set("a:1", "x")
        crowd = Crowd().threads(20, lambda: [cache.get("a:1") for _ in range(20)]).start()
        assert values(crowd.finish()) == [["x"] * 20] * 20
        assert accepted(server) - before <= 3
        assert connections(server) <= 3


def test_threads_never_open_more_than_the_maximum(own_server: RedisServer, new_cache: NewCache) -> None:
    for _ in range(ROUNDS):
        stays_within_its_limit(own_server, new_cache)


def test_a_pool_without_a_limit_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    with broken(Pool, "_has_room", lambda pool: True), noticed():
        for _ in range(ROUNDS):
            stays_within_its_limit(own_server, new_cache)


def tasks_stay_within_the_limit(server: RedisServer, new_cache: NewCache) -> None:
    """Let a thousand tasks of one loop ask at once."""
    before = accepted(server)
    cache = new_cache(server.unix_url, near=None, pool_min=1, pool_max=3).aio

    async def check() -> None:
        await cache.set("a:1", "x")
        assert await asyncio.gather(*[cache.get("a:1") for _ in range(1000)]) == ["x"] * 1000
        assert connections(server) <= 3

    asyncio.run(check())
    assert accepted(server) - before <= 3


def test_tasks_never_open_more_than_the_maximum(own_server: RedisServer, new_cache: NewCache) -> None:
    for _ in range(ROUNDS):
        tasks_stay_within_the_limit(own_server, new_cache)


# Waiting for a connection


def waiting_ends(server: RedisServer, cache: Cache) -> BackendTimeoutError:
    """Keep every connection busy, and let another caller wait."""
    cache.set("a:1", 1)
    server.pause()
    busy = Crowd().threads(2, lambda: outcome_of(lambda: cache.set("a:1", 2))).start()
    try:
        eventually(lambda: in_use(cache) == 2, "both connections are in use")
        started = time.monotonic()
        error = outcome_of(lambda: cache.set("b:1", 1)).error
        waited = time.monotonic() - started
    finally:
        server.resume()
        values(busy.finish())
    assert isinstance(error, BackendTimeoutError), f"got {error!r}"
    assert "CACHE_POOL_MAX_SIZE" in str(error), f"got {error!r}"
    assert "CACHE_POOL_TIMEOUT" in str(error)
    assert 0.1 <= waited < 2.0
    return error


def in_use(cache: Cache) -> int:
    """Return how many connections of the pool are taken."""
    pool: Any = cache._engine.backend._link._pool  # type: ignore[attr-defined]  # of a Redis backend
    return len(pool) - len(pool._idle)


def test_a_caller_that_waits_too_long_is_told_what_to_change(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.unix_url, pool_max=2, pool_timeout=0.1, timeout=3.0)
    error = waiting_ends(own_server, cache)
    assert "all 2 connections" in str(error)
    assert not error.ambiguous
    assert cache._parts.core.debts == {}, "what was never sent leaves no doubt"


def test_the_variables_say_the_same(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch, new_cache: NewCache
) -> None:
    settings = {"CACHE_POOL_MIN_SIZE": "1", "CACHE_POOL_MAX_SIZE": "2", "CACHE_POOL_TIMEOUT": "100"}
    for name, value in {**settings, "CACHE_URL": own_server.unix_url}.items():
        monkeypatch.setenv(name, value)
    with Cache(observers=(), timeout=3.0) as cache:
        assert connections(own_server) == 1
        waiting_ends(own_server, cache)


def test_a_pool_that_never_gives_up_waiting_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    real = Pool.__init__

    def patient(pool: Pool, dialect: Dialect, size: int, timeout: float) -> None:
        real(pool, dialect, size, 60.0)

    with broken(Pool, "__init__", patient):
        cache = new_cache(own_server.unix_url, pool_max=2, pool_timeout=0.1, timeout=0.5)
    with noticed():
        waiting_ends(own_server, cache)


def test_reads_that_get_no_connection_are_misses(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.unix_url, near=None, pool_max=1, pool_timeout=0.05, timeout=1.0)
    cache.set("a:1", 1)
    own_server.pause()
    try:
        busy = Crowd().threads(1, lambda: outcome_of(lambda: cache.exists("a:1"))).start()
        eventually(lambda: in_use(cache) == 1, "the connection is in use")
        assert cache.get("a:1", "default") == "default"
        assert cache.get_or_load("a:1", lambda: "loaded") == "loaded"
    finally:
        own_server.resume()
        values(busy.finish())
    assert cache.get("a:1") == 1


def test_whoever_waits_is_served_in_turn(own_server: RedisServer, new_cache: NewCache) -> None:
    """With one connection for all nobody waits for ever."""
    cache = new_cache(own_server.unix_url, near=None, pool_max=1, pool_timeout=10.0)
    for _ in range(ROUNDS):
        crowd = Crowd().threads(10, lambda: [cache.incr("n:1") for _ in range(10)]).start()
        values(crowd.finish())
    assert cache.get("n:1") == ROUNDS * 100


def test_a_connection_that_was_dropped_makes_room(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.unix_url, near=None, pool_max=1, pool_timeout=0.5, timeout=0.05)
    for _ in range(3):
        own_server.pause()
        try:
            assert outcome_of(lambda: cache.exists("a:1")).error is not None
        finally:
            own_server.resume()
        assert cache.exists("a:1") is False
    assert connections(own_server) == 1
    assert isinstance(cache._engine.backend._link._pool.take(), Wire)  # type: ignore[attr-defined]  # of a Redis backend
