"""One engine that does not do what it should: it is silent, slow to a standstill, cut off in the middle, or killed.

Readers never get an error and never a wrong value, and no call takes longer than its time.
"""

import asyncio
import itertools
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.transport import pool
from tests.faults.calls import FLAVOURS, READS, WRITES, face
from tests.faults.source import STALENESS, away
from tests.faults.table import Callers, seen
from tests.integration.redis.helpers import bulk, dripping, fake_server
from tests.promises.conftest import NewCache
from tests.promises.fleet import in_time
from tests.promises.helpers import Crowd, broken, dice, eventually, noticed, outcome_of, values
from tests.proxy import Proxy, proxied
from tests.servers import RedisServer, Server

pytestmark = pytest.mark.alone

BUDGET = 0.1
LITTLE = 0.2
"""Seconds that a call may take on top: a machine with other things to do is not the cache's fault."""

COMMANDS = {"write_through": 2}
"""How many commands a verb sends although the one before was not answered: that of a write whose source was written."""

FAULTS: dict[str, Callable[[Proxy], None]] = {
    "accepts and never answers": Proxy.swallow,
    "sends a byte a second": lambda proxy: setattr(proxy, "drip", 1.0),
    "sends half a reply and hangs up": Proxy.halve,
}


ENGINES = {"valkey_server": ("the engine", "redis"), "memcached": ("a Memcached server", "memcached")}
"""What tables call the engine of a fixture, and the scheme of its URL."""


async def call_everything(cache: Cache, flavour: str, callers: Callers) -> float:
    """Call every verb once, and return by how much the latest was late."""
    front, late = face(cache, flavour), [0.0]
    for name, call in {**READS, **WRITES}.items():
        began = time.monotonic()
        with callers.read() if name in READS else callers.write():
            answer = await call(front)
            callers.judge(name != "get" or answer in (None, "set", "loaded"))
        late.append(time.monotonic() - began - COMMANDS.get(name, 1) * BUDGET - LITTLE)
    return max(late)


async def meet(cache: Cache, flavour: str, proxy: Proxy, fault: Callable[[Proxy], None], callers: Callers) -> float:
    """Use a cache before, during and after the fault."""
    front = face(cache, flavour)
    await front.set_many({"a:1": "set", "a:2": "set"})
    assert await front.get("a:1") == "set"
    fault(proxy)
    try:
        late = await call_everything(cache, flavour, callers)
    finally:
        proxy.cut()
    callers.normal_again(lambda: outcome_of(lambda: cache.set("b:1", "new")).error is None)
    assert await front.get("b:1") == "new"
    return late


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_ends_in_its_time_and_reads_have_no_errors(
    request: pytest.FixtureRequest, new_cache: NewCache, fault: str, engine: str
) -> None:
    server: Server = request.getfixturevalue(engine)
    name, scheme = ENGINES[engine]
    with proxied(server.port) as proxy, seen(f"{name} {fault}") as callers:
        for flavour in FLAVOURS:
            cache = new_cache(f"{scheme}://127.0.0.1:{proxy.port}", near=None, timeout=BUDGET)

            def play(cache: Cache = cache, flavour: str = flavour) -> float:
                return asyncio.run(meet(cache, flavour, proxy, FAULTS[fault], callers))

            in_time(1, play)
            cache.close()
        assert callers.read_errors == callers.wrong == 0, callers.errors
        assert callers.write_errors > 0, "nothing was broken"


def test_a_deadline_that_begins_anew_with_every_byte_is_noticed(new_cache: NewCache) -> None:
    def patient(sock: socket.socket, deadline: float) -> None:
        sock.settimeout(BUDGET)

    with fake_server(lambda command: bulk(b"x" * 40), dripping) as server:
        cache = new_cache(server.url, near=None, timeout=BUDGET)

        def play() -> float:
            began = time.monotonic()
            cache.get("a:1")
            return time.monotonic() - began - BUDGET - LITTLE

        in_time(1, play)
        with broken(pool, "_allow", patient), noticed("late"):
            in_time(1, play)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_second_try_has_no_second_budget(new_cache: NewCache, flavour: str) -> None:
    """A kept connection that is silent for a while and then breaks leaves no time for another one that is silent."""
    budget, asked = 4 * BUDGET, itertools.count()

    def hang_up_late(connection: socket.socket, data: bytes) -> None:
        match next(asked) % 3:
            case 0:
                connection.sendall(data)
            case 1:
                time.sleep(0.9 * budget)  # the server's: it ends the connection late
                connection.shutdown(socket.SHUT_RDWR)
            case _:
                pass  # and says nothing on the next

    with fake_server(lambda command: bulk(b"x"), hang_up_late) as server:
        cache = new_cache(server.url, near=None, timeout=budget)

        async def twice() -> float:
            front = face(cache, flavour)
            await front.get("a:1")
            began = time.monotonic()
            await front.get("a:1")
            return time.monotonic() - began - budget - LITTLE

        in_time(1, lambda: asyncio.run(twice()))


# Under load


@pytest.mark.parametrize("fault", ["is frozen for a moment", "is killed and started again"])
def test_readers_get_the_source_while_the_engine_is_away(
    own_server: RedisServer, new_cache: NewCache, fault: str
) -> None:
    with seen(f"the engine {fault}, under load") as callers:
        luck = dice()
        options = {"namespace": f"away{luck.randrange(10**9)}", "staleness": STALENESS, "timeout": BUDGET}
        caches = [new_cache(own_server.unix_url, near=near, **options) for near in ("1MB", None)]
        away(own_server, caches, fault, callers, luck)
        assert callers.read_errors == callers.wrong == 0, callers.errors


def test_with_all_connections_in_use_readers_load_and_writers_are_told(
    own_server: RedisServer, new_cache: NewCache
) -> None:
    cache = new_cache(own_server.unix_url, near=None, pool_max=2, pool_timeout=BUDGET, timeout=3.0)
    cache.set("a:1", "set")
    with seen("all connections are in use") as callers:
        own_server.pause()
        try:
            busy = Crowd().threads(2, lambda: outcome_of(lambda: cache.exists("a:1"))).start()
            eventually(lambda: in_use(cache) == 2, "both are in use")
            for _ in range(3):
                with callers.read():
                    callers.judge(cache.get_or_load("a:1", partial(load, callers)) == "loaded")
                with callers.write():
                    cache.set("a:2", "set")
        finally:
            own_server.resume()
        values(busy.finish())
        callers.normal_again(lambda: cache.get("a:1") == "set")
        assert callers.read_errors == callers.wrong == 0, callers.errors
        assert callers.write_errors == 3
        assert all("CACHE_POOL_TIMEOUT" in error for error in callers.errors)


def load(callers: Callers) -> str:
    callers.load("a:1")
    return "loaded"


def in_use(cache: Cache) -> int:
    """Return how many connections of the pool are taken."""
    pool: Any = cache._engine.backend._link._pool  # type: ignore[attr-defined]  # of a Redis backend
    return len(pool) - len(pool._idle)
