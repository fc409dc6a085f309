"""Caches over Memcached servers that die, start again, freeze and go on."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import msgspec
import pytest

from nearcache import AsyncCache, Cache
from nearcache._core.events import EngineSize, Event
from nearcache._io.port import Flavour
from nearcache.backends.base import Ask, Backend, EngineReplaced, Fill, Item
from nearcache.backends.memcached import MemcachedBackend
from nearcache.backends.memcached.registers import COARSE, Number
from nearcache.backends.registers.base import Answer, Look, Put, Swap
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registry import BackendSpec, build
from nearcache.errors import BackendError, BackendUnavailableError, InvalidKeyError
from tests.faces import Awaited
from tests.memcached import registers
from tests.servers import MemcachedServer, RedisServer, memcached_server

NewBackend = Callable[..., MemcachedBackend]
NewFace = Callable[..., Awaited]


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Both flavours; what blocks may be awaited too."""
    chosen: Flavour = request.param
    return chosen


@pytest.fixture
async def new_backend(flavour: Flavour) -> AsyncIterator[NewBackend]:
    """Make backends over servers."""
    made = list[Backend]()

    def new(*servers: MemcachedServer, **options: Any) -> MemcachedBackend:
        spec = BackendSpec(url_of(*servers), f"t{uuid.uuid4().hex[:10]}", enveloped=False, pool_min=1, **options)
        backend = build(spec, flavour)
        assert isinstance(backend, MemcachedBackend)
        made.append(backend)
        return backend

    yield new
    for backend in made:
        await backend.close()


@pytest.fixture
async def new_face(flavour: Flavour) -> AsyncIterator[NewFace]:
    """Make caches over servers."""
    made = list[Awaited]()

    def new(*servers: MemcachedServer, **options: Any) -> Awaited:
        kind: Any = Cache if flavour == "sync" else AsyncCache
        options = {"namespace": f"t{uuid.uuid4().hex[:10]}", "near": None, "timeout": 0.5, "observers": (), **options}
        made.append(Awaited(kind(url_of(*servers), **options)))
        return made[-1]

    yield new
    for face in made:
        await face.close()


@pytest.fixture
def three() -> Iterator[list[MemcachedServer]]:
    """Three servers of this test."""
    with ExitStack() as stack:
        yield [stack.enter_context(memcached_server("-m", "16")) for _ in range(3)]


def url_of(*servers: MemcachedServer) -> str:
    return f"memcached://{','.join(server.where for server in servers)}"


# Lives


async def test_a_lease_of_another_life_of_the_server_stores_nothing(
    new_backend: NewBackend, own_memcached: MemcachedServer
):
    """The server counts from 1 again, so that the number of the lease's stub is given to another record."""
    backend = new_backend(own_memcached)
    (grant,) = await backend.leases.acquire([Ask("t:1", "token", b"", 30.0)])
    assert grant.leads
    own_memcached.kill()
    own_memcached.start()
    await new_backend(own_memcached)._registers.run(Put(backend.named("t:1"), b"new", 60.0))
    with pytest.raises(BackendUnavailableError):
        await until_lost(backend)
    assert await backend.get("t:1") == b"new"
    assert await backend.leases.fill([Fill(Item("t:1", b"old", 60.0), "token", b"")]) == [False]
    assert await backend.get("t:1") == b"new"


async def until_lost(backend: MemcachedBackend) -> None:
    """Read until the first connection is found dead, or another life is met."""
    for _ in range(100):
        await backend.get("t:0")
        await asyncio.sleep(0.01)


async def test_a_number_goes_over_connections_of_its_life_only(new_backend: NewBackend, memcached: MemcachedServer):
    backend = new_backend(memcached)
    (put,) = await backend.take(Put("t:1", b"a", 60.0))
    assert isinstance(put.number, Number)
    servers: Any = backend._registers
    history = servers._servers._nodes[0].history
    history._found = "another life"  # as if another thread had met it between the look and the sending
    swap = Swap("t:1", Answer(True, b"a", Number("another life", put.number.value), 60.0), b"b", 60.0)
    (answer,) = await backend._registers.run(swap)
    assert isinstance(answer.error, EngineReplaced)
    assert not answer.error.ambiguous
    history._found = put.number.life
    (answer,) = await backend.take(Look("t:1"))
    assert answer.raw == b"a"


async def test_a_cache_survives_a_restart_and_forgets(new_face: NewFace, own_memcached: MemcachedServer):
    face = new_face(own_memcached)
    await face.set("users:1", "a", ttl=60)
    assert await face.get("users:1") == "a"
    own_memcached.kill()
    own_memcached.start()
    assert await face.get("users:1") is None
    await face.set("users:1", "b", ttl=60)
    assert await face.get("users:1") == "b"


MADE_UP: list[tuple[int, int, int, dict[str, int]]] = [
    (0, 0, 0, {}),
    (1, 1, 1, {}),
    *[((1 << 61) + at, (1 << 62) - 1, 1, {}) for at in range(9)],
]
"""Heads of marks as nobody stores them: of no incarnation, and of more marks than a process can count."""


async def test_marks_that_somebody_made_up_cost_loads_and_nothing_else(new_face: NewFace, memcached: MemcachedServer):
    namespace = f"t{uuid.uuid4().hex[:10]}"
    face, other = (new_face(memcached, namespace=namespace) for _ in range(2))
    somebody, connections = registers(memcached)
    for head in MADE_UP:
        (answer,) = await somebody.run(Put(head_of(namespace), msgspec.msgpack.encode(head), 60.0))
        assert answer.done
        await face.set("users:1", "a", ttl=60, tags=["t:1"])
        assert await face.get("users:1") == "a"
        await other.invalidate_tags("t:1")
        assert await other.get("users:1") is None, "what was invalidated is served"
    await connections.close()


# Servers that do not answer


async def test_what_one_server_keeps_is_missing_while_it_is_dead_and_the_others_go_on(
    new_face: NewFace, three: list[MemcachedServer]
):
    face = new_face(*three, staleness=1.0)
    keys = [f"users:{number}" for number in range(30)]
    for key in keys:
        await face.set(key, key, ttl=60)
    backend: Any = face.cache._engine.backend
    ring, named = backend._registers._ring, backend.named
    head = ring.of(backend._marks.name)
    dead = (head + 1) % 3
    three[dead].kill()
    found = {key: await face.get(key) for key in keys}
    assert {key for key in keys if found[key] is None} == {key for key in keys if ring.of(named(key)) == dead}
    three[dead].start()
    lost = next(key for key in keys if found[key] is None)
    await until_answered(face, lost)
    assert await face.get(lost) == "again"


async def test_a_dead_server_keeps_nobody_from_opening(new_backend: NewBackend, three: list[MemcachedServer]):
    backend = new_backend(*three)
    registers: Any = backend._registers
    three[(registers._ring.of(backend._marks.name) + 1) % 3].kill()
    await backend.open()
    assert backend.lacks()


@pytest.mark.alone
async def test_a_frozen_server_costs_no_more_than_a_call_and_never_serves_what_was_deleted(
    new_face: NewFace, three: list[MemcachedServer]
):
    face = new_face(*three)
    backend: Any = face.cache._engine.backend
    ring, named = backend._registers._ring, backend.named
    head = ring.of(backend._marks.name)
    frozen = (head + 1) % 3
    key = next(key for key in (f"users:{number}" for number in range(100)) if ring.of(named(key)) == frozen)
    await face.set(key, "old", ttl=60)
    three[frozen].pause()
    began = time.monotonic()
    with suppress(BackendError):
        await face.delete(key)
    assert time.monotonic() - began < 3.0
    assert await face.get(key) is None
    three[frozen].resume()
    for _ in range(50):
        assert await face.get(key) is None
        await asyncio.sleep(0.01)


async def until_answered(face: Awaited, key: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            await face.set(key, "again", ttl=60)
        except BackendError:
            await asyncio.sleep(0.02)
            continue
        if not face.cache._engine.backend.lacks():
            return
    raise AssertionError("the server is not asked again")


async def test_a_key_that_no_server_takes_is_refused_and_keeps_nothing_else_from_being_done(
    new_face: NewFace, memcached: MemcachedServer
):
    """It is refused before it could become one whose invalidation waits, and fails, before each other call."""
    face = new_face(memcached, namespace="app")
    await face.set("t:1", 1)
    letters = "é" * 95
    for call in (face.delete(f"t:{letters}"), face.set(f"t:{letters}", 1), face.get(f"t:{letters}")):
        with pytest.raises(InvalidKeyError, match="at most 182 are allowed beside the namespace"):
            await call
    assert await face.get("t:1") == 1
    longest = f"t:{letters[:90]}"
    await face.set(longest, 2)
    assert (await face.get(longest), await face.delete(longest)) == (2, True)
    health = await face.health()
    assert health.queued == 0


async def test_who_is_no_memcached_is_told_so(new_backend: NewBackend, redis_server: RedisServer):
    class Place:
        where = f"127.0.0.1:{redis_server.port}"

    other: Any = Place()
    with pytest.raises(BackendUnavailableError, match=f"{Place.where} does not speak as a Memcached does"):
        await new_backend(other).open()


# Counters


def test_a_counter_that_is_used_all_the_time_ends_when_it_is_to(memcached: MemcachedServer):
    """Each time its record is swapped, and keeps its life."""
    ttl = 3

    def seconds(codec: Any) -> float:
        with Cache(url_of(memcached), namespace=f"t{uuid.uuid4().hex[:10]}", near=None, codec=codec) as cache:
            began, last = time.monotonic(), cache.incr("n:1", ttl=ttl)
            while (total := cache.incr("n:1", ttl=ttl)) > last:
                last = total
                assert time.monotonic() - began < 4 * ttl, "it lives for ever"
            return time.monotonic() - began

    with ThreadPoolExecutor() as threads:
        for lived in threads.map(seconds, ["msgpack", "msgpack", "json", "json"]):
            assert ttl - COARSE - 0.1 <= lived <= ttl + 0.5


# What servers say of themselves


async def test_facts_are_the_sums_of_all_servers(new_backend: NewBackend, three: list[MemcachedServer]):
    backend = new_backend(*three)
    assert backend.admin is not None
    facts = await backend.admin.facts()
    assert facts.limit_bytes == 3 * 16 << 20
    assert (facts.evictions, facts.persistent, facts.version) == (0, False, three[0].stats()["version"])
    before = facts.used_bytes
    await backend.take(*[Put(f"t:{number}", b"x" * 100_000, 60.0) for number in range(30)])
    facts = await backend.admin.facts()
    assert facts.used_bytes is not None
    assert facts.used_bytes >= (before or 0) + 3_000_000
    for turn in range(8):
        await backend.take(*[Put(f"t:{turn}:{number}", b"x" * 100_000, 60.0) for number in range(100)])
    evicted = sum(int(server.stats()["evictions"]) for server in three)
    assert (await backend.admin.facts()).evictions == evicted > 0
    three[1].kill()
    with pytest.raises(BackendUnavailableError, match="cannot reach"):
        await backend.admin.facts()


async def test_metrics_tell_the_size_of_the_engine(new_face: NewFace, memcached: MemcachedServer):
    seen = list[Event]()

    class Listener:
        def on(self, event: Event) -> None:
            seen.append(event)

    face = new_face(memcached, observers=[Listener()])
    await face.set("users:1", "x", ttl=60)
    (size,) = (event for event in seen if isinstance(event, EngineSize))
    assert (size.used_bytes or 0) > 0
    assert size.limit_bytes == int(memcached.stats()["limit_maxbytes"])
