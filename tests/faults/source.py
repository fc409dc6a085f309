"""A source whose values have versions, and a crowd that reads and changes it through caches.

Nobody may get a version older than the last one before it whose invalidation was acknowledged before the read began: at
once through the cache that invalidated, through another one after the staleness.
"""

import asyncio
import math
import random
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from nearcache import Cache
from tests.faults.calls import face
from tests.faults.table import Callers
from tests.integration.redis.helpers import drive
from tests.promises.helpers import Crowd, eventually, outcome_of, values
from tests.servers import Server

STALENESS = 0.3
"""What the caches promise."""

SLOW = 0.001
"""Seconds that the source takes to answer: enough for others to change what it has read."""

KEYS = [f"k:{number}" for number in range(12)]
TAGS = [f"t:{number}" for number in range(3)]

Value = tuple[int, str]
"""A version, and something that takes room."""

LASTS = 5.0
"""Seconds that a fault lasts, unless everybody is done before."""


class Source:
    """Versions of keys, and when which of them was acknowledged to be the oldest that may be served."""

    def __init__(self, callers: Callers, room: int = 100) -> None:
        self.callers = callers
        self._versions = dict.fromkeys(KEYS, 0)
        self._room = "x" * room
        self._lock = threading.Lock()
        self._acknowledged: dict[str, list[tuple[float, int, Cache]]] = defaultdict(list)
        self._doubtful = self._certain = math.inf

    def read(self, keys: Sequence[str]) -> dict[str, Value]:
        """Return values."""
        for key in keys:
            self.callers.load(key)
        return {key: (self._versions[key], self._room) for key in keys}

    def load_many(self, keys: Sequence[str]) -> dict[str, Value]:
        """Load values, blocking for a while."""
        found = self.read(keys)
        time.sleep(SLOW)
        return found

    async def aload_many(self, keys: Sequence[str]) -> dict[str, Value]:
        """Load values, awaiting for a while."""
        found = self.read(keys)
        await asyncio.sleep(SLOW)
        return found

    def change(self, keys: Sequence[str]) -> dict[str, int]:
        """Change keys, and return their new versions."""
        with self._lock:
            for key in keys:
                self._versions[key] += 1
            return {key: self._versions[key] for key in keys}

    def acknowledge(self, cache: Cache, versions: dict[str, int]) -> None:
        """Note that the engine has acknowledged, to a cache, that everything older is invalid."""
        for key, version in versions.items():
            self._acknowledged[key].append((time.monotonic(), version, cache))

    def doubt(self) -> None:
        """Note that what the engine acknowledges from now on may die with it.

        Whoever has invalidated something knows it all the same; others have to know it after `trust`.
        """
        self._doubtful = time.monotonic()

    def trust(self) -> None:
        """Note that everybody who has invalidated anything has told it to the engine that took over."""
        self._certain = time.monotonic()

    def oldest(self, cache: Cache, key: str, began: float) -> int:
        """Return the oldest version that a read through a cache may get that began then."""
        known = [
            version
            for at, version, through in self._acknowledged[key][-200:]
            if (at if through is cache else self._heard(at)) <= began
        ]
        return max(known, default=0)

    def _heard(self, at: float) -> float:
        """Return when all have to know of what was acknowledged then."""
        return (at if at < self._doubtful else max(at, self._certain)) + STALENESS


class Reader:
    """Somebody who uses a cache for a while, and judges what comes."""

    def __init__(self, cache: Cache, flavour: str, source: Source, luck: random.Random) -> None:
        self._owner = cache
        self._cache = face(cache, flavour)
        self._source = source
        self._callers = source.callers
        self._luck = random.Random(luck.random())

    async def go(self, steps: Iterable[int], meanwhile: Callable[[int], object] = lambda step: None) -> None:
        """Do something, picked at random, in every step."""
        ways: dict[Callable[[], Awaitable[None]], int] = {
            self._read: 60,
            self._read_many: 15,
            self._look: 10,
            self._delete: 10,
            self._invalidate: 4,
            self._clear: 1,
        }
        for step in steps:
            (way,) = self._luck.choices(list(ways), list(ways.values()))
            await way()
            meanwhile(step)
            if self._cache.is_async:
                await asyncio.sleep(0)

    async def _read(self) -> None:
        key, began = self._luck.choice(KEYS), time.monotonic()
        with self._callers.read():
            self._judge(key, began, await self._cache.get_or_load(key, self._loader(key), tags=[tag_of(key)]))

    async def _read_many(self) -> None:
        tag, began = self._luck.choice(TAGS), time.monotonic()
        load = self._source.aload_many if self._cache.is_async else self._source.load_many
        with self._callers.read():
            for key, value in (await self._cache.get_or_load_many(keys_of(tag), load, tags=[tag])).items():
                self._judge(key, began, value)

    def _loader(self, key: str) -> Callable[[], Any]:
        async def load() -> Value:
            return (await self._source.aload_many([key]))[key]

        return load if self._cache.is_async else lambda: self._source.load_many([key])[key]

    async def _look(self) -> None:
        key, began = self._luck.choice(KEYS), time.monotonic()
        with self._callers.read():
            value = await self._cache.get(key)
            if value is not None:
                self._judge(key, began, value)

    async def _delete(self) -> None:
        key = self._luck.choice(KEYS)
        versions = self._source.change([key])
        await self._invalidated(versions, lambda: self._cache.delete(key))

    async def _invalidate(self) -> None:
        tag = self._luck.choice(TAGS)
        await self._invalidated(self._source.change(keys_of(tag)), lambda: self._cache.invalidate_tags(tag))

    async def _clear(self) -> None:
        await self._invalidated(self._source.change(KEYS), self._cache.clear)

    async def _invalidated(self, versions: dict[str, int], how: Callable[[], Awaitable[Any]]) -> None:
        with self._callers.write():
            answer = await how()
            # What was not acknowledged raises, or says so.
            if type(answer) in (int, bool, type(None)):
                self._source.acknowledge(self._owner, versions)

    def _judge(self, key: str, began: float, value: Value) -> None:
        self._callers.judge(value[0] >= self._source.oldest(self._owner, key, began))


def tag_of(key: str) -> str:
    """Return the tag of a key."""
    return TAGS[int(key.partition(":")[2]) % len(TAGS)]


def keys_of(tag: str) -> list[str]:
    """Return the keys of a tag."""
    return [key for key in KEYS if tag_of(key) == tag]


def crowd(
    caches: Sequence[Cache],
    source: Source,
    luck: random.Random,
    steps: int | Iterable[int],
    meanwhile: Callable[[int], object] = lambda step: None,
) -> Crowd:
    """Return threads and tasks for each cache, who take so many steps; one of them does `meanwhile` after each."""
    people, steps = Crowd(), range(steps) if isinstance(steps, int) else steps
    for place, cache in enumerate(caches):
        sync, tasks = Reader(cache, "sync", source, luck), Reader(cache, "async", source, luck)
        people.threads(1, partial(_go, sync, steps))
        people.tasks(3, partial(tasks.go, steps, _idle if place else meanwhile))
    return people


def _go(reader: Reader, steps: Iterable[int]) -> None:
    drive(reader.go(steps))


def _idle(_step: int) -> None:
    pass


def let(people: Crowd) -> None:
    """Let a crowd go to its end: nobody may meet anything but errors of the library."""
    values(people.start().finish())


def stores(cache: Cache) -> bool:
    """Tell whether a cache stores, and has no invalidation left to repeat."""
    done = outcome_of(lambda: cache.set("probe:1", "x")).error is None
    core = cache._parts.core
    return done and not core.debts and not core.view.owed


def away(server: Server, caches: Sequence[Cache], fault: str, callers: Callers, luck: random.Random) -> None:
    """Let a crowd use caches while a server goes away ("killed", or "frozen") and comes back."""
    source, frozen = Source(callers), "frozen" in fault
    let(crowd(caches, source, luck, 30))
    people = crowd(caches, source, luck, 60).start()
    server.pause() if frozen else server.kill()
    try:
        ends = time.monotonic() + LASTS
        eventually(lambda: people.done or time.monotonic() > ends, "the fault ends")
    finally:
        server.resume() if frozen else server.start()
    callers.normal_again(lambda: all(stores(cache) for cache in caches))
    values(people.finish())
    let(crowd(caches, source, luck, 30))
