"""An engine that has no more memory: it evicts leases and stamps as well as values, or refuses to store anything.

That may cost loads. It never brings back a value that was invalidated.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nearcache import BackendError, Cache
from nearcache.backends.redis import backend, lua
from nearcache.backends.redis.listener import Listener
from tests.faults.calls import FLAVOURS, face
from tests.faults.source import KEYS, STALENESS, Source, crowd, let, stores, tag_of
from tests.faults.table import Callers, seen
from tests.integration.redis.helpers import drive
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, dice, eventually, noticed, noticed_within
from tests.servers import RedisServer

pytestmark = pytest.mark.alone

ROOM = 20_000
"""Bytes of a value: a hundredth of what the engine has left at most."""

STEPS = 150


def limit(server: RedisServer, policy: str, size: int) -> None:
    """Tell the engine how much memory it may use, 0 for as much as it likes, and what to do then."""
    server.command("CONFIG", "SET", "maxmemory-policy", policy)
    server.command("CONFIG", "SET", "maxmemory", size)


def new_caches(server: RedisServer, new_cache: NewCache, number: int = 3) -> list[Cache]:
    """Make caches that are as independent as processes; the last has no near tier."""
    nears: list[Any] = ["1MB"] * (number - 1) + [None]
    options: dict[str, Any] = {
        "namespace": f"full{random.randrange(10**9)}",
        "staleness": STALENESS,
        "hard_timeout": 0.5,  # so long does a lease live that is lost
    }
    return [new_cache(server.unix_url, near=near, pool_max=4, **options) for near in nears]


def squeeze(server: RedisServer, policy: str, luck: random.Random, step: int) -> None:
    """Change the engine's limit now and then: to less than it needs, to hardly enough, to plenty."""
    if step % 10 == 0:
        used = int(server.info("memory")["used_memory"])
        limit(server, policy, luck.choice([1, used + 2 * ROOM, used + 10 * ROOM]))


def squeezed(server: RedisServer, new_cache: NewCache, policy: str, callers: Callers, steps: int = STEPS) -> Source:
    """Let a crowd use a full engine, and afterwards one that has room again: it is as if nothing had been."""
    luck, source = dice(), Source(callers, ROOM)
    caches = new_caches(server, new_cache)
    let(crowd(caches, source, luck, steps, partial(squeeze, server, policy, luck)))
    limit(server, policy, 0)
    callers.normal_again(lambda: all(stores(cache) for cache in caches))
    let(crowd(caches, source, luck, 20))
    assert callers.wrong == 0, f"{callers.wrong} values were older than an invalidation"
    return source


@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
def test_a_full_engine_never_brings_back_what_was_invalidated(
    own_server: RedisServer, new_cache: NewCache, policy: str
) -> None:
    with seen(f"the engine is full ({policy})") as callers:
        squeezed(own_server, new_cache, policy, callers)
        assert callers.read_errors == 0, callers.errors
    info = own_server.info()
    if policy == "noeviction":
        assert any("the engine is full" in error for error in callers.errors), "it was never full"
    else:
        assert int(info["evicted_keys"]) > 100, "it was never full"


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
def test_a_full_engine_never_brings_back_what_was_invalidated_for_long(
    own_server: RedisServer, new_cache: NewCache, policy: str
) -> None:
    for _ in range(4):
        squeezed(own_server, new_cache, policy, Callers(), 500)


def test_a_load_that_is_stored_without_its_lease_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    real = lua.script("fill").text
    careless = lua.made(real.replace("if holder ~= token then", "if holder and holder ~= token then"))
    assert careless.text != real

    def script(name: str) -> lua.Script:
        return careless if name == "fill" else genuine(name)

    genuine = lua.script
    with broken(backend, "script", script):
        noticed_within(10, lambda: squeezed(own_server, new_cache, "allkeys-lru", Callers(), 100))


# Marks that no room is left for


def evals(server: RedisServer) -> int:
    """Return how many scripts were sent to the engine as texts: those that give marks back among them."""
    return int(server.info("commandstats").get("cmdstat_eval", "calls=0").partition(",")[0].removeprefix("calls="))


def asks_now_and_then(server: RedisServer, new_cache: NewCache) -> None:
    """Let an engine lose the marks whenever they are given back; it must not be all that it does."""
    cache = new_cache(server.unix_url, staleness=30.0)
    cache.set("a:1", "x", tags=["t:1"])
    cache.get("a:1")
    eventually(lambda: cache.health().coherent, "changes are announced")
    limit(server, "allkeys-lru", 1)
    try:
        before = evals(server)
        eventually(lambda: evals(server) > before, "it has lost the marks")
        before = evals(server)
        for _ in range(300):
            server.command("PING")
        asked = evals(server) - before
        assert asked < 20, f"{asked} questions in the time of 300 others"
    finally:
        limit(server, "allkeys-lru", 0)


def test_marks_that_are_lost_at_once_are_not_asked_for_without_end(
    own_server: RedisServer, new_cache: NewCache
) -> None:
    asks_now_and_then(own_server, new_cache)


def test_a_listener_that_asks_without_end_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    real = Listener._ask

    def ask(listener: Listener, *arguments: Any) -> bool:
        real(listener, *arguments)
        return True

    with broken(Listener, "_ask", ask), noticed("questions"):
        asks_now_and_then(own_server, new_cache)


# One step after the other


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_a_full_engine_refuses_is_said_and_what_it_can_do_is_done(
    own_server: RedisServer, new_cache: NewCache, flavour: str
) -> None:
    cache, other = new_caches(own_server, new_cache, 2)
    front = face(cache, flavour)
    source = Source(Callers())

    async def use() -> None:
        for key in KEYS:
            await front.set(key, (0, "old"), tags=[tag_of(key)])
        limit(own_server, "noeviction", 1)

        assert await front.get(KEYS[0]) == (0, "old"), "what it has is read"
        failures = cache.stats().errors
        loaded = await front.get_or_load("cold:1", front.loader(lambda: "loaded"))
        assert loaded == "loaded"
        assert cache.stats().errors > failures, "a load that is not stored is counted"
        for refused in (front.set("cold:1", 1), front.incr("n:1"), front.add("cold:1", 1)):
            with pytest.raises(BackendError, match="the engine is full"):
                await refused
        assert await front.delete(KEYS[1]), "what is deleted needs no room"
        assert await front.get(KEYS[1]) is None
        assert other.get(KEYS[1]) is None

    async def invalidate() -> None:
        source.change(KEYS)
        with pytest.raises(BackendError, match="the engine is full"):
            await front.invalidate_tags(tag_of(KEYS[2]))
        assert await front.get(KEYS[2]) is None, "what is not acknowledged is a miss here"
        limit(own_server, "noeviction", 0)
        assert await front.get(KEYS[0]) == (0, "old")
        eventually(lambda: other.get(KEYS[2]) is None, "it is repeated, and others learn of it")

    async def both() -> None:
        await use()
        await invalidate()
        await front.close()

    run(both, flavour)


def run(work: Callable[[], Any], flavour: str) -> None:
    """Run what awaits either flavour."""
    drive(work()) if flavour == "sync" else asyncio.run(work())
