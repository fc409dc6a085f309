"""A process that writes through a cache, or reads and judges what it gets; `test_coherence.py` starts it.

    CACHE_URL=... CACHE_NAMESPACE=... python -m tests.promises.cohering <role> <board> <staleness> <bus> [<without>]

The role is `write`, or the number of a reader, which writes to its output what it has seen. The last word is a
mechanism of the library to take away.
"""

import asyncio
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearcache import BackendError, Cache, Queued
from nearcache.backends.hazelcast.feed import Feed
from nearcache.backends.hazelcast.listener import _Mark
from nearcache.near.coherence import Coherence, Session
from tests.promises.board import KEYS, Board

THREADS, TASKS = 2, 2
BREATH = 50
"""Reads after which a reader lets the others go on for a moment."""


class Writer:
    """Writes one version after the other, and notes when each was acknowledged."""

    def __init__(self, cache: Cache, board: Board) -> None:
        self._cache = cache
        self._board = board

    def run(self) -> None:
        """Write until told to stop."""
        while not self._board.stopped:
            if not self._board.quiet:
                self._write(random.randrange(len(KEYS)))
            time.sleep(0.002)

    def _write(self, key: int) -> None:
        version, name = self._board.write(key), KEYS[key]
        try:
            acknowledged = self._tell(name, version)
        except BackendError:
            acknowledged = False
        if acknowledged:
            self._board.acknowledge(key, version, time.monotonic())
        else:  # it counts, but others may have the old value until the engine is told
            time.sleep(0.02)

    def _tell(self, name: str, version: int) -> bool:
        """Tell the engine of a version; return whether it has acknowledged that."""
        match name.partition(":")[0]:
            case "set":
                self._cache.set(name, version)
            case "delete":
                return not isinstance(self._cache.delete(name), Queued)
            case "through":
                self._cache.write_through(name, version, lambda value: value)
                return name not in self._cache._parts.core.debts
            case _:
                return not isinstance(self._cache.invalidate_tags(name), Queued)
        return True


class Readers:
    """Threads and tasks that judge what they read."""

    def __init__(self, cache: Cache, board: Board, staleness: float) -> None:
        self._cache = cache
        self._board = board
        self._staleness = staleness
        self._violations = list[str]()
        self._worst = 0.0
        self._quiet = {"near": 0, "all": 0}

    def run(self) -> dict[str, Any]:
        """Read until told to stop, and return what was seen."""
        threads = [threading.Thread(target=self._in_thread) for _ in range(THREADS)]
        threads.append(threading.Thread(target=lambda: asyncio.run(self._in_loop())))
        for thread in threads:
            thread.start()
        while not self._board.stopped:
            self._count_quiet()
        for thread in threads:
            thread.join()
        stats = self._cache.stats()
        return {
            "reads": stats.hits + stats.misses,
            "near": stats.near_hits,
            "refused": stats.near_refused,
            "quiet": self._quiet,
            "worst": self._worst,
            "lag": None if stats.lag is None else [stats.lag.median, stats.lag.p99, stats.lag.longest],
            "violations": self._violations,
        }

    def _count_quiet(self) -> None:
        """Count near hits while nobody writes, from some time after the last write."""
        time.sleep(0.3)
        if not self._board.quiet:
            return
        before = self._cache.stats()
        time.sleep(0.2)
        after = self._cache.stats()
        if self._board.quiet:
            self._quiet["near"] += after.near_hits - before.near_hits
            self._quiet["all"] += after.hits + after.misses - before.hits - before.misses

    def _in_thread(self) -> None:
        seen = [0] * len(KEYS)
        while not self._board.stopped:
            for _ in range(BREATH):
                key = random.randrange(len(KEYS))
                began, name = time.monotonic(), KEYS[key]
                if name.startswith("set"):
                    self._judge(key, began, seen, self._cache.get(name))
                else:
                    self._judge(key, began, seen, self._cache.get_or_load(name, self._loader(key), tags=(name,)))
            began = time.monotonic()
            for name, version in self._cache.get_many(KEYS[:2]).items():
                self._judge(KEYS.index(name), began, seen, version)
            time.sleep(0.001)

    async def _in_loop(self) -> None:
        await asyncio.gather(*[self._in_task() for _ in range(TASKS)])
        await self._cache.aio.aclose()

    async def _in_task(self) -> None:
        seen, cache = [0] * len(KEYS), self._cache.aio
        while not self._board.stopped:
            for _ in range(BREATH):
                key = random.randrange(len(KEYS))
                began, name = time.monotonic(), KEYS[key]
                if name.startswith("set"):
                    self._judge(key, began, seen, await cache.get(name))
                else:
                    self._judge(key, began, seen, await cache.get_or_load(name, self._aloader(key), tags=(name,)))
            await asyncio.sleep(0.001)

    def _loader(self, key: int) -> Callable[[], int]:
        return lambda: self._board.current(key)

    def _aloader(self, key: int) -> Callable[[], Any]:
        async def load() -> int:
            return self._board.current(key)

        return load

    def _judge(self, key: int, began: float, seen: list[int], version: int | None) -> None:
        """Note a read that began at `began` if it returned what it must not."""
        if version is None:
            return
        newer, at = self._board.newer(key, version)
        self._worst = max(self._worst, began - at)
        if at + self._staleness < began:
            self._violations.append(f"{KEYS[key]}: {version}, but {newer} was acknowledged {began - at:.3f} s before")
        elif newer <= seen[key] and at < began:
            self._violations.append(f"{KEYS[key]}: {version} after {seen[key]}, back in time")
        if self._board.acknowledged(key, version, began):  # else it was in the source before it counted in the cache
            seen[key] = max(seen[key], version)


# Mechanisms to take away


def _keep_until_the_ttl(_coherence: Coherence, _asked: float, fresh: float) -> float:
    return fresh


def _ignore(*_: object) -> None:
    pass


def _vouch_for_ever(coherence: Coherence, sent: float) -> None:
    """Trust that whatever is announced is heard."""
    coherence.proven = sent
    coherence._near.vouch(math.inf)


def _begin_and_keep(coherence: Coherence, sent: float) -> Session:
    """Go on with what was there before."""
    session = coherence._session = Session()
    coherence._prove(sent)
    return session


def _lower_the_flag(coherence: Coherence, session: Session | None, _why: str) -> None:
    """Drop everything when the connection is lost."""
    if session is not None and coherence._session is session:
        coherence._session = None
        coherence._near.clear()


def _not_different(*_: object) -> bool:
    """Find nothing different."""
    return False


def take_away(mechanism: str) -> None:
    """Break the library on purpose: keep values until their TTL, hear announcements without a proof that none was lost,
    or keep a flag that the listener lowers when its connection is lost. Over Hazelcast also: announce nothing, or
    do not compare what was read last in the ring.
    """
    replacements: dict[str, tuple[type, dict[str, Callable[..., Any]]]] = {
        "announcements": (Coherence, {"deadline": _keep_until_the_ttl, "changed": _ignore, "changed_all": _ignore}),
        "proofs": (Coherence, {"_prove": _vouch_for_ever, "begin": _begin_and_keep, "_settle": _ignore}),
        "deadlines": (Coherence, {"_prove": _vouch_for_ever, "end": _lower_the_flag}),
        "feed": (Feed, {"key": _ignore}),
        "comparison": (_Mark, {"__ne__": _not_different}),
    }
    owner, methods = replacements[mechanism]
    for name, replacement in methods.items():
        setattr(owner, name, replacement)


def main(role: str, path: str, staleness: str, bus: str, without: str = "") -> None:
    """Play a role until the board says stop."""
    if without:
        take_away(without)
    board = Board(Path(path))
    with Cache(observers=(), pool_min=1, pool_max=6, staleness=float(staleness), bus=bus, ttl=3600) as cache:
        if role == "write":
            Writer(cache, board).run()
        else:
            board.read(int(role))
            print(json.dumps(Readers(cache, board, float(staleness)).run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
