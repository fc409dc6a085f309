"""Memcached servers that are killed and start again empty, or are frozen for a moment: one alone, or one of three.

Reads never fail and never bring an old value, no call takes longer than its time, and the other servers go on.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from nearcache import Queued
from nearcache._core.ring import Ring
from nearcache._engine.commands import Commands
from nearcache.backends.registers.marks import head_of
from tests.faces import Awaited
from tests.faults.calls import FLAVOURS, face
from tests.faults.source import STALENESS, away
from tests.faults.table import seen
from tests.promises.conftest import NewCache
from tests.promises.fleet import in_time
from tests.promises.helpers import broken, dice, eventually, impatient, noticed
from tests.servers import MemcachedServer, memcached_server

pytestmark = pytest.mark.alone

BUDGET = 0.1
PATIENT = 0.5
"""The same where nothing but the fault may make a call fail."""
LITTLE = 0.2
"""Seconds that a call may take on top: a machine with other things to do is not the cache's fault."""

FAULTS = ("is killed and started again", "is frozen for a moment")
PLACES = ("the only Memcached server", "a Memcached server of three", "the Memcached server of three with the tags")


@pytest.fixture(scope="module")
def three() -> Iterator[list[MemcachedServer]]:
    """Servers for the tests here, which leave them running."""
    with ExitStack() as stack:
        yield [stack.enter_context(memcached_server("-m", "16")) for _ in range(3)]


class Group:
    """Servers that a namespace is spread over, and one of them to which something happens."""

    def __init__(self, servers: Sequence[MemcachedServer], *, keeps_tags: bool) -> None:
        self.url = f"memcached://{','.join(server.where for server in servers)}"
        self.namespace = f"f{uuid.uuid4().hex[:10]}"
        self._ring = Ring([(server.host, server.port) for server in servers])
        self._number = self._ring.of(head_of(self.namespace)) if keeps_tags else self._other()
        self.victim: MemcachedServer = servers[self._number]

    def _other(self) -> int:
        return (self._ring.of(head_of(self.namespace)) + 1) % self._ring.size

    def keys(self, count: int, *, of_victim: bool) -> list[str]:
        """Return keys that the victim keeps, or the others."""
        names = (f"users:{number}" for number in itertools.count())
        mine = (key for key in names if (self._ring.of(f"{self.namespace}:{key}") == self._number) is of_victim)
        return list(itertools.islice(mine, count))

    @contextmanager
    def without(self, fault: str) -> Iterator[None]:
        """Take the victim away for the `with` block."""
        frozen = "frozen" in fault
        self.victim.pause() if frozen else self.victim.kill()
        try:
            yield
        finally:
            self.victim.resume() if frozen else self.victim.start()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", FAULTS)
def test_readers_get_the_source_while_a_server_is_away(
    three: list[MemcachedServer], new_cache: NewCache, fault: str, place: str
) -> None:
    group = Group(three if "three" in place else three[:1], keeps_tags="tags" in place)
    with seen(f"{place} {fault}, under load") as callers:
        options = {"namespace": group.namespace, "staleness": STALENESS, "timeout": BUDGET}
        caches = [new_cache(group.url, near=near, **options) for near in ("1MB", None)]
        away(group.victim, caches, fault, callers, dice())
        assert callers.read_errors == callers.wrong == 0, callers.errors


# The others


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_other_servers_keep_is_read_and_written_all_the_while(
    three: list[MemcachedServer], new_cache: NewCache, fault: str, flavour: str
) -> None:
    group = Group(three, keeps_tags=False)
    kept, lost = group.keys(10, of_victim=False), group.keys(10, of_victim=True)
    cache = face(new_cache(group.url, namespace=group.namespace, near=None, timeout=PATIENT), flavour)

    async def play() -> float:
        await cache.set_many({key: key for key in kept + lost}, ttl=60)
        late = Late()
        with group.without(fault):
            for key, other in zip(kept, lost, strict=True):
                assert await late.of(cache.get(other)) is None
                assert await late.of(cache.get(key)) == key
                await late.of(cache.set(key, key, ttl=60))
                assert await late.of(cache.get_many([other, *kept])) == {each: each for each in kept}
                assert await late.of(cache.get_or_load(other, cache.loader(lambda: "loaded"))) == "loaded"
                assert isinstance(await late.of(cache.delete_many([key, other])), Queued)
                assert await late.of(cache.add(key, key, ttl=60)), "it was deleted"
                assert isinstance(await late.of(cache.delete(other)), Queued)
        return late.most

    in_time(1, lambda: asyncio.run(play()))


class Late:
    """By how many seconds the latest of some calls was late."""

    def __init__(self) -> None:
        self.most = -PATIENT - LITTLE

    async def of(self, call: Any) -> Any:
        """Await a call."""
        began = time.monotonic()
        try:
            return await call
        finally:
            self.most = max(self.most, time.monotonic() - began - PATIENT - LITTLE)


# What waits for the server


def invalidations_wait(group: Group, new_cache: NewCache, flavour: str) -> None:
    """Invalidate what a frozen server keeps, and let it go on: who did so reads nothing old, and soon nobody does."""
    keys = group.keys(30, of_victim=True)
    options = {"namespace": group.namespace, "staleness": STALENESS, "timeout": PATIENT}
    cache, another = (new_cache(group.url, near=near, **options) for near in (None, "1MB"))
    cache.set_many(dict.fromkeys(keys, "old"), ttl=60, tags=["t:1"])

    async def change(front: Awaited) -> None:
        for key in keys[:10]:
            assert isinstance(await front.delete(key), Queued)
        assert isinstance(await front.delete_many(keys[10:]), Queued)

    async def look(front: Awaited) -> None:
        for key in keys:
            assert await front.get(key) != "old", "an old value was read"
        assert "old" not in (await front.get_many(keys)).values(), "an old value was read"

    async def play() -> None:
        front = face(cache, flavour)
        with group.without("is frozen"):
            await change(front)
            await look(front)
        await look(front)
        deadline = time.monotonic() + 10
        core = cache._parts.core
        while core.owed or core.outage is not None:
            await look(front)
            assert time.monotonic() < deadline, "it is never asked again"
        await look(front)

    asyncio.run(play())
    eventually(lambda: not any(another.get_many(keys)), "everybody finds them deleted")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("place", PLACES)
def test_what_waited_for_a_server_is_done_before_it_is_read(
    three: list[MemcachedServer], new_cache: NewCache, place: str, flavour: str
) -> None:
    group = Group(three if "three" in place else three[:1], keeps_tags="tags" in place)
    invalidations_wait(group, new_cache, flavour)


def test_where_nothing_is_repeated_old_values_are_read(three: list[MemcachedServer], new_cache: NewCache) -> None:
    async def forget(commands: Commands, _now: float) -> None:
        commands._core.debts.clear()

    group = Group(three, keeps_tags=False)
    with broken(Commands, "_pay", forget), noticed("an old value was read"), impatient():
        invalidations_wait(group, new_cache, "sync")
