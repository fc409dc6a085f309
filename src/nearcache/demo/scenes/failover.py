"""Behind Sentinel the primary is killed while threads and tasks read, and a writer changes what they read.

Another primary is appointed within about two seconds. Until then values come from memory or SQLite, and invalidations
wait. The new primary may not have heard of the last ones that the old one acknowledged: the cache repeats them, before
it reads anything there.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, cycle
from time import sleep
from typing import TypeVar

from nearcache import BackendError, Cache, CacheError, Queued
from nearcache.demo import guide
from nearcache.demo.atlas import City
from nearcache.demo.sentinels import Group, group, until
from nearcache.demo.stage import Stage, duration

K = TypeVar("K")

CITY = "city:{city_id}"
THREADS = 2
TASKS = 3
PAUSE = 0.005
"""Seconds between two reads of a thread or a task."""

WRITTEN = 3
ONLY_READ = 5
CALM = 10
"""How many invalidations the engine acknowledges before the primary is killed, and after that."""

STALENESS = 1.0
"""Seconds: the default of `Cache(staleness=...)`; for so long all get what one has loaded while nobody answers."""


class Town:
    """A cache in front of the atlas, those who use it until they are told to stop, and what they notice."""

    def __init__(self, cache: Cache, written: list[int], only_read: list[int]) -> None:
        self.cache = cache
        self.written = written
        self.ids: list[int] = [*written, *only_read]
        self.seen: Counter[str] = Counter()
        self.loads: Counter[int] = Counter()
        self._mayors = dict.fromkeys(self.ids, "")
        """The mayor that everybody has to know by now."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._city = cache.cached(CITY, ttl="10m")(self._load)
        self._city_aio = cache.aio.cached(CITY, ttl="10m")(self._load_aio)

    @contextmanager
    def busy(self) -> Generator[None, None, None]:
        """Let everybody read and write until the `with` block ends."""
        with ThreadPoolExecutor(THREADS + 2) as threads:
            works = [*[self._read] * THREADS, self._read_in_tasks, self._write]
            people: list[Future[None]] = [threads.submit(work) for work in works]
            try:
                yield
            finally:
                self._stop.set()
        for person in people:
            person.result()

    def acknowledged(self) -> int:
        """Return how many invalidations the engine has acknowledged at once."""
        return self.seen["invalidations"] - self.seen["queued"]

    def writes_work(self) -> bool:
        """Whether the engine takes a write."""
        try:
            self.cache.set("visits:after", 1)
        except BackendError:
            return False
        return True

    def _load(self, city_id: int) -> City:
        self._count(self.loads, city_id)
        return guide.atlas.city(city_id)

    async def _load_aio(self, city_id: int) -> City:
        return await asyncio.to_thread(self._load, city_id)

    def _read(self) -> None:
        for city_id in cycle(self.ids):
            if self._stop.is_set():
                break
            with self._judged(city_id) as got:
                got.append(self._city(city_id))
            sleep(PAUSE)

    async def _read_aio(self) -> None:
        for city_id in cycle(self.ids):
            if self._stop.is_set():
                break
            with self._judged(city_id) as got:
                got.append(await self._city_aio(city_id))
            await asyncio.sleep(PAUSE)

    def _read_in_tasks(self) -> None:
        async def side_by_side() -> None:
            await asyncio.gather(*[self._read_aio() for _ in range(TASKS)])

        asyncio.run(side_by_side())

    @contextmanager
    def _judged(self, city_id: int) -> Generator[list[City], None, None]:
        """Count a read, whether it fails, and whether what it got is older than what everybody had to know before."""
        mayor, got = self._mayors[city_id], list[City]()
        try:
            yield got
        except CacheError:
            self._count(self.seen, "errors")
        self._count(self.seen, "reads")
        self._count(self.seen, "wrong", sum(city.mayor < mayor for city in got))

    def _write(self) -> None:
        for number, city_id in zip(count(1), cycle(self.written), strict=False):
            if self._stop.wait(PAUSE):
                break
            mayor = f"number {number:06}"
            guide.atlas.update_mayor(city_id, mayor)
            told = self._city.invalidate(city_id)
            self._mayors[city_id] = mayor
            self._count(self.seen, "queued", isinstance(told, Queued))
            self._count(self.seen, "invalidations")

    def _count(self, counter: Counter[K], what: K, number: int = 1) -> None:
        with self._lock:
            counter[what] += number


def play(stage: Stage) -> None:
    """Count what readers and the writer notice."""
    ids = guide.atlas.largest(WRITTEN + ONLY_READ, skip=6_000)
    with group() as servers, Cache(servers.url, namespace="failover", observers=()) as cache:
        town = Town(cache, ids[:WRITTEN], ids[WRITTEN:])
        with town.busy():
            back_after = _kill(servers, town)
        with Cache(servers.url, namespace="failover", observers=()) as other:
            theirs = list(map(other.cached(CITY, ttl="10m")(guide.atlas.city), ids))
        _report(stage, town, back_after, cache.health().queued)
    differ = sum(value != guide.atlas.city(city_id) for value, city_id in zip(theirs, ids, strict=True))
    stage.report("wrong values elsewhere, after", f"{differ} of {len(ids)}", differ == 0)


def _kill(servers: Group, town: Town) -> float:
    """Kill the primary; return after how many seconds writes work again."""
    until(lambda: town.acknowledged() >= CALM, "invalidations are acknowledged")
    servers.servers[0].kill()
    back_after = until(town.writes_work, "writes work again")
    until(lambda: town.cache.health().queued == 0, "what was queued is repeated")
    acknowledged = town.acknowledged()
    until(lambda: town.acknowledged() >= acknowledged + CALM, "invalidations are acknowledged again")
    return back_after


def _report(stage: Stage, town: Town, back_after: float, waiting: int) -> None:
    seen = town.seen
    stage.report("from SIGKILL to the next write", duration(back_after))
    stage.report("reads", f"{seen['reads']:,} by {THREADS} threads and {TASKS} tasks")
    stage.report("errors they got", seen["errors"], seen["errors"] == 0)
    stage.report("wrong values they got", seen["wrong"], seen["wrong"] == 0)
    queued = f"{seen['queued']} of {seen['invalidations']}"
    stage.report("invalidations that were queued", queued, seen["queued"] > 0)
    stage.report("of these, not repeated", waiting, waiting == 0)
    most = max(town.loads[city_id] for city_id in town.ids[WRITTEN:])
    bound = 3 + int(back_after / STALENESS)  # at first, once a second without an engine, and when it is back
    stage.report("loads of a city left alone", f"at most {most}", most <= bound)
