"""Keys of a Memcached server that does not answer: by default they wait for it, with `?eject=yes` they move."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from nearcache import AsyncCache, BackendError, Cache, Queued
from nearcache._core.ring import Ring
from nearcache.backends.memcached import dialect
from nearcache.backends.registers.marks import head_of
from tests.faces import Awaited
from tests.memcached import Connection
from tests.servers import MemcachedServer, memcached_server

BUDGET = 0.3


@pytest.fixture(scope="module")
def three() -> Iterator[list[MemcachedServer]]:
    """Servers for the tests here, which leave them running."""
    with ExitStack() as stack:
        yield [stack.enter_context(memcached_server("-m", "16")) for _ in range(3)]


class World:
    """A namespace on three servers, one of which does not keep its tags, and some keys of that."""

    def __init__(self, servers: Sequence[MemcachedServer], flavour: str, query: str) -> None:
        self.namespace = f"t{uuid.uuid4().hex[:10]}"
        ring = Ring([(server.host, server.port) for server in servers])
        number = (ring.of(head_of(self.namespace)) + 1) % len(servers)
        self.victim = servers[number]
        self.keeps: Callable[[str], bool] = lambda name: ring.of(f"{self.namespace}{name}") == number
        self.others = [server for server in servers if server is not self.victim]
        names = [f"users:{number}" for number in range(100)]
        self.keys = [key for key in names if ring.of(f"{self.namespace}:{key}") == number][:10]
        url = f"memcached://{','.join(server.where for server in servers)}{query}"
        kind: Any = Cache if flavour == "sync" else AsyncCache
        self.cache = Awaited(kind(url, namespace=self.namespace, near=None, timeout=BUDGET))

    def kept(self, *servers: MemcachedServer) -> set[str]:
        """Return the keys that servers keep."""
        found = set[str]()
        for server in servers:
            connection = Connection(server.host, server.port)
            replies = connection.call([dialect.get(f"{self.namespace}:{key}") for key in self.keys])
            found |= {key for key, reply in zip(self.keys, replies, strict=True) if reply.code == "VA"}
            connection.close()
        return found

    async def use(self) -> None:
        """Read, write and delete the keys."""
        for key in self.keys:
            with suppress(BackendError):
                await self.cache.get_or_load(key, self.cache.loader(lambda: "loaded"))
            with suppress(BackendError):
                await self.cache.set(key, "set", ttl=60)

    async def until(self, true: Callable[[], bool]) -> None:
        """Use the keys until something is true."""
        deadline = time.monotonic() + 20
        while not true():
            assert time.monotonic() < deadline, "never happened"
            await self.use()
            await asyncio.sleep(0.005)


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Both flavours; what blocks may be awaited too."""
    chosen: str = request.param
    return chosen


async def test_keys_never_move_by_themselves(three: list[MemcachedServer], flavour: str):
    world = World(three, flavour, "")
    await world.use()
    assert world.kept(world.victim) == set(world.keys)
    world.victim.kill()
    try:
        for _ in range(5):
            await world.use()
        await world.cache.get_many(world.keys)
        assert world.kept(*world.others) == set()
    finally:
        world.victim.start()
    await world.until(lambda: world.kept(world.victim) == set(world.keys))
    assert world.kept(*world.others) == set()
    await world.cache.close()


async def test_keys_may_move_and_come_back(
    three: list[MemcachedServer], flavour: str, caplog: pytest.LogCaptureFixture
):
    world = World(three, flavour, "?eject=yes")
    await world.use()
    world.victim.kill()
    try:
        await world.until(lambda: world.kept(*world.others) == set(world.keys))
        deadline = time.monotonic() + 20
        while set(await world.cache.get_many(world.keys)) != set(world.keys):  # one that looks whether it is back
            assert time.monotonic() < deadline, "they are not found where they are"
    finally:
        world.victim.start()
    await world.until(lambda: world.kept(world.victim) == set(world.keys))
    (told,) = (record.getMessage() for record in caplog.records if "eject" in record.getMessage())
    assert f"the keys of the Memcached server at {world.victim.where} go to the others until it answers" in told
    await world.cache.close()


async def test_what_was_deleted_may_come_back_with_a_server_whose_keys_had_moved(three: list[MemcachedServer]):
    """This is what `eject` costs, and why it is not the default."""
    world = World(three, "sync", "?eject=yes")
    cache, deleted = world.cache, [world.keys.pop() for _ in range(3)]
    for key in deleted:
        await cache.set(key, "old", ttl=60)
    world.victim.pause()
    try:
        await world.until(lambda: world.kept(*world.others) == set(world.keys))
        told = [await cache.delete(key) for key in deleted]
        # A call that looked whether the server is back is queued, and will be repeated there.
        away = [key for key, answer in zip(deleted, told, strict=True) if not isinstance(answer, Queued)]
        assert away, "at most one call looks in that time"
        assert not any(told), "they are at the server that is away"
        assert [await cache.get(key) for key in deleted] == [None] * 3
    finally:
        world.victim.resume()
    deadline = time.monotonic() + 20
    while [await cache.get(key) for key in away] != ["old"] * len(away):
        assert time.monotonic() < deadline, "they never came back"
    await cache.close()


async def test_sessions_stay_where_they_are(three: list[MemcachedServer]):
    """Else one that is ended while its server is away would be there again with the server."""
    world = World(three, "sync", "?eject=yes")
    sessions = world.cache.cache.sessions
    found = [sessions.create({"a": 1}) for _ in range(30)]
    mine = [session for session in found if world.keeps(f"~s:{hashlib.sha256(session.id.encode()).hexdigest()}")]
    assert 0 < len(mine) < 30
    world.victim.pause()
    try:
        await world.until(lambda: world.kept(*world.others) == set(world.keys))
        for session in found:
            if any(session is each for each in mine):
                with pytest.raises(BackendError):
                    sessions.load(session.id)
                with pytest.raises(BackendError):
                    sessions.destroy(session.id)
            else:
                assert sessions.load(session.id) == {"a": 1}
    finally:
        world.victim.resume()
    await world.until(lambda: world.kept(world.victim) == set(world.keys))
    for session in found:
        sessions.destroy(session.id)
        assert sessions.load(session.id) is None
    await world.cache.close()


async def test_without_any_server_the_keys_stay(three: list[MemcachedServer]):
    world = World(three, "sync", "?eject=yes")
    await world.use()
    for server in three:
        server.kill()
    try:
        for _ in range(5):
            assert await world.cache.get(world.keys[0]) is None
    finally:
        for server in three:
            server.start()
    await world.until(lambda: world.kept(world.victim) == set(world.keys))
    await world.cache.close()
