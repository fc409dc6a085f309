"""A process that reads through a cache what a test tells it to; `fleet.py` starts it.

    CACHE_URL=... CACHE_NAMESPACE=... python -m tests.promises.loading <name> <socket of the engine> [<without>]

The last word is a mechanism of the library to take away.
"""

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hiredis
from msgspec.structs import replace

from nearcache import Cache
from nearcache._core.outcome import Outcome
from nearcache.backends.base import Ask, Fill, Grant
from nearcache.backends.redis.leases import RedisLeases
from nearcache.backends.redis.listener import Listener
from nearcache.backends.redis.lua import script
from nearcache.backends.renewal import Renewal
from nearcache.backends.transport.dialect import Command
from tests.promises.fleet import IDLE, Source
from tests.promises.helpers import Crowd, awaited, outcome_of, waiting


class Process:
    """Reads in crowds, several at the same time."""

    def __init__(self, name: str, source: Source) -> None:
        self._name = name
        self._source = source
        self._caches: dict[float, Cache] = {}

    def serve(self) -> None:
        """Do as told until told to end, or until nobody says anything any more."""
        while (said := self._source.take(self._name, IDLE)) not in (None, "end"):
            order = json.loads(said or "")
            cache = self._cache(order.pop("hard_timeout"))
            threading.Thread(target=self._read, args=(cache,), kwargs=order, daemon=True).start()
        for cache in self._caches.values():
            cache.close()

    def _cache(self, hard_timeout: float) -> Cache:
        if hard_timeout not in self._caches:
            self._caches[hard_timeout] = Cache(observers=(), pool_min=1, pool_max=4, hard_timeout=hard_timeout)
        return self._caches[hard_timeout]

    def _read(self, cache: Cache, name: str, key: str, threads: int, tasks: int) -> None:
        """Let a crowd read; tell when all of them wait, and what they got."""
        asked = time.monotonic()
        crowd = self._crowd(cache, key, threads, tasks).start()
        while waiting(cache, key) < threads + tasks and not crowd.done:
            time.sleep(0.002)
        self._source.put(f"{name}:waits", "yes")
        got = [outcome.get() for outcome in crowd.finish()]
        self._source.put(f"{name}:got", json.dumps({"asked": asked, "got": got}))

    def _crowd(self, cache: Cache, key: str, threads: int, tasks: int) -> Crowd:
        def load() -> str:
            return self._source.load(key)

        async def aload() -> str:
            return await asyncio.to_thread(load)

        async def read() -> tuple[str, float]:
            return stamped(await awaited(lambda: cache.aio.get_or_load(key, aload)))

        crowd = Crowd().threads(threads, lambda: stamped(outcome_of(lambda: cache.get_or_load(key, load))))
        return crowd.tasks(tasks, read, loops=min(1, tasks))


def stamped(outcome: Outcome[str]) -> tuple[str, float]:
    """Return the value, or the error as a text, and the time."""
    error = outcome.error
    return (outcome.get() if error is None else f"{type(error).__name__}: {error}"), time.monotonic()


# Mechanisms to take away

listening = importlib.import_module("nearcache.backends.redis.listener")  # its package has a function of that name
_acquire, _fill, _hear = RedisLeases.acquire, RedisLeases.fill, Listener._hear


async def always_lead(leases: RedisLeases, asks: Sequence[Ask]) -> list[Grant]:
    """Ask for leases, and load whatever the answer is."""
    await _acquire(leases, asks)
    return [Grant(leads=True) for _ in asks]


async def lease_for_long(leases: RedisLeases, asks: Sequence[Ask]) -> list[Grant]:
    """Ask for leases that outlive whoever has them by far."""
    return await _acquire(leases, [replace(ask, life=60.0) for ask in asks])


async def fill_without_lease(leases: RedisLeases, fills: Sequence[Fill]) -> list[bool]:
    """Store whoever has the lease, and whatever was stored meanwhile."""
    seen = [await leases.steal(Ask(fill.item.key, fill.token, b"", 5.0)) for fill in fills]
    return await _fill(leases, [replace(fill, seen=one) for fill, one in zip(fills, seen, strict=True)])


def hear_no_messages(listener: Listener, message: hiredis.PushNotification) -> None:
    """Hear what is announced, and nothing else."""
    if message[0] != b"message":
        _hear(listener, message)


def renewing_for(milliseconds: int) -> Callable[[str, Renewal, float], Command]:
    """Return what renews leases for that long, whatever their deadline."""
    return lambda token, renewal, _: ("EVAL", script("renew").text, "1", renewal.record, token, str(milliseconds))


def take_away(mechanism: str) -> None:
    """Break the library on purpose."""
    replacements: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
        "leases": [(RedisLeases, "acquire", always_lead)],
        "the end of leases": [
            (RedisLeases, "acquire", lease_for_long),
            (listening, "_renewing", renewing_for(60_000)),
        ],
        "tokens": [(RedisLeases, "fill", fill_without_lease)],
        "messages": [(Listener, "_hear", hear_no_messages)],
        "renewals": [(Listener, "_renew", lambda *_: None)],
        "deadlines": [(listening, "_renewing", renewing_for(5_000))],
    }
    for place, name, replacement in replacements[mechanism]:
        assert hasattr(place, name), name
        setattr(place, name, replacement)


def main(name: str, address: str, without: str = "") -> None:
    """Serve until the end."""
    if without:
        take_away(without)
    Process(name, Source(Path(address), os.environ["CACHE_NAMESPACE"])).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
