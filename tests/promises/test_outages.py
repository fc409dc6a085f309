"""An engine that cannot be reached: what is queued, what is answered at once, and how often the source is asked."""

import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import MISS, AsyncCache, BackendError, BackendTimeoutError, BackendUnavailableError, Cache, Queued
from nearcache._engine import core as core_module
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache.near import view as view_module
from tests.faces import Awaited
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, eventually, impatient, noticed, recorded
from tests.proxy import Proxy, proxied
from tests.servers import RedisServer, free_port

Verb = Callable[[Awaited], Awaitable[Any]]

INVALIDATIONS: dict[str, Verb] = {
    "delete": lambda face: face.delete("a:1"),
    "delete_many": lambda face: face.delete_many(["a:1", "a:2"]),
    "invalidate_tags": lambda face: face.invalidate_tags("t:1"),
    "clear": lambda face: face.clear(),
    "invalidate": lambda face: face.awaited(function_of(face).invalidate)(1),
}


def function_of(face: Awaited) -> Any:
    """Return a decorated function whose first key is a:1."""

    def load(number: int) -> str:
        return f"loaded {number}"

    return face.cached("a:{number}")(face.loader(load))


class Line:
    """A server that can be made unreachable for those who go through the proxy, and those who do."""

    def __init__(self, server: RedisServer, proxy: Proxy) -> None:
        self.server = server
        self._proxy = proxy
        self._there = proxy.target
        self.url = f"redis://127.0.0.1:{proxy.port}/0"

    def cut(self) -> None:
        """Let nobody through: every connection breaks."""
        self._proxy.target = ("127.0.0.1", free_port())
        self._proxy.cut()

    def hang(self) -> None:
        """Lose whatever is said."""
        self._proxy.swallow()

    def mend(self) -> None:
        """Let everybody through again."""
        self._proxy.target = self._there
        self._proxy.cut()


@pytest.fixture
def line(valkey_server: RedisServer) -> Iterator[Line]:
    """A way to the server that can be cut."""
    with proxied(valkey_server.port) as proxy:
        yield Line(valkey_server, proxy)


@pytest.fixture(params=["sync", "async"])
async def made(request: pytest.FixtureRequest) -> Any:
    """Make faces of one flavour, which are closed at the end."""
    kinds: dict[str, Any] = {"sync": Cache, "async": AsyncCache}
    faces: list[Awaited] = []

    def make(url: str, **options: Any) -> Awaited:
        options.setdefault("namespace", f"o{os.urandom(5).hex()}")
        faces.append(Awaited(kinds[request.param](url, **{"pool_min": 1, "observers": (), "timeout": 0.3, **options})))
        return faces[-1]

    yield make
    for face in faces:
        await face.close()


Make = Callable[..., Awaited]
OUTAGES = {"cut": Line.cut, "hangs": Line.hang}


# What is queued


async def nothing_of_it_is_lost(line: Line, made: Make, invalidate: Verb, outage: Callable[[Line], None]) -> None:
    """Invalidate while the engine cannot be reached; it comes to pass when it can, whatever this process does then."""
    face = made(line.url)
    other = made(line.server.url, namespace=face.cache._parts.core.options.namespace, near=None, timeout=1.0)
    await face.set_many({"a:1": "old", "a:2": "old"}, tags=["t:1"])
    assert await face.get("a:1") == await other.get("a:1") == "old"
    outage(line)
    told = await invalidate(face)
    assert isinstance(told, Queued), told
    assert not told
    assert await face.get("a:1", MISS) is MISS, "a miss for who invalidated it"
    assert await other.get("a:1") == "old", "not acknowledged"
    assert (await face.health()).queued > 0
    line.mend()
    eventually(lambda: other_sees(line, face) is None, "the engine is told, although nobody calls this process")
    assert await face.get("a:1", MISS) is MISS
    eventually(lambda: face.cache._parts.core.owed == 0, "nothing waits any more")


def other_sees(line: Line, face: Awaited) -> Any:
    """Return what a process reads that knows nothing."""
    with Cache(line.server.url, namespace=face.cache._parts.core.options.namespace, observers=(), pool_min=1) as cache:
        return cache.get("a:1")


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("name", INVALIDATIONS)
async def test_an_invalidation_that_the_engine_cannot_be_told_of_is_queued(
    line: Line, made: Make, name: str, outage: str
) -> None:
    await nothing_of_it_is_lost(line, made, INVALIDATIONS[name], OUTAGES[outage])


async def test_a_queue_that_nobody_drains_is_noticed(line: Line, made: Make) -> None:
    async def nothing(_self: Commands) -> None:
        """Repeat nothing."""

    with broken(Commands, "settle", nothing), impatient(), noticed("the engine is told"):
        await nothing_of_it_is_lost(line, made, INVALIDATIONS["delete"], Line.cut)


async def test_a_forgotten_queue_is_noticed(line: Line, made: Make) -> None:
    with broken(Core, "owe", lambda core, *keys: None), noticed(), impatient():
        await nothing_of_it_is_lost(line, made, INVALIDATIONS["delete"], Line.hang)


async def test_an_engine_that_answers_and_refuses_is_no_outage(made: Make) -> None:
    face = made("memory://")
    await face.set("a:1", "old", tags=["t:1"])
    for operation, invalidate in (("delete", "delete"), ("mark", "invalidate_tags"), ("mark", "clear")):
        with recorded(face.cache) as engine:
            engine.fail(operation, times=2, error=BackendError("READONLY").undone())
            with pytest.raises(BackendError, match="READONLY"):
                await INVALIDATIONS[invalidate](face)


async def test_who_wants_an_error_gets_one(made: Make) -> None:
    face = made("memory://", policy={"invalidate": "closed"})
    await face.set("a:1", "old", tags=["t:1"])
    with recorded(face.cache) as engine:
        engine.down()
        for invalidate in INVALIDATIONS.values():
            with pytest.raises(BackendUnavailableError):
                await invalidate(face)
        engine.up()
    assert await face.get("a:1", MISS) is MISS, "it is repeated all the same"


async def test_the_end_of_a_transaction_queues_too(made: Make) -> None:
    face = made("memory://")
    await face.set("a:1", "old")
    with recorded(face.cache) as engine:
        engine.down()
        async with face.transaction():
            await face.delete("a:1")
        engine.up()
        assert await face.get("a:1", MISS) is MISS


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Let fewer invalidations wait."""
    with broken(core_module, "MOST_OWED", most), broken(view_module, "MOST_OWED", most):
        yield


async def the_queue_is_bounded(make: Make) -> None:
    """More invalidations than fit become one of everything; whoever else is there sees that they are made."""
    with bounded(10):
        face = make("memory://")
        await face.set_many({f"a:{number}": "old" for number in range(30)})
        with recorded(face.cache) as engine:
            engine.down()
            for number in range(25):
                assert isinstance(await face.delete(f"a:{number}"), Queued)
                assert face.cache._parts.core.owed <= 11
            engine.up()
            engine.counts.clear()
            assert await face.get_many([f"a:{number}" for number in range(25)]) == {}
            assert engine.counts["mark"] == 1, "one clear"


async def test_what_does_not_fit_into_the_queue_becomes_one_clear(made: Make) -> None:
    await the_queue_is_bounded(made)


async def test_a_queue_without_a_bound_is_noticed(made: Make) -> None:
    with broken(Core, "owe", lambda core, *keys: core.debts.update(dict.fromkeys(keys, object()))), noticed():
        await the_queue_is_bounded(made)


async def test_too_many_tags_become_one_clear(made: Make) -> None:
    with bounded(10):
        face = made("memory://")
        await face.set("a:1", "old", tags=["t:1"])
        await face.set("b:1", "old")
        with recorded(face.cache) as engine:
            engine.down()
            for number in range(25):
                assert isinstance(await face.invalidate_tags(f"t:{number}"), Queued)
                assert face.cache._parts.core.owed <= 11
            engine.up()
            assert await face.exists("another:key") is False
            assert await face.get_many(["a:1", "b:1"]) == {}


async def test_values_without_a_header_wait_one_by_one(made: Make) -> None:
    """Everything cannot be invalidated there."""
    with bounded(10):
        face = made("memory://", codec="json")
        with recorded(face.cache) as engine:
            engine.down()
            for number in range(25):
                await face.delete(f"a:{number}")
            assert face.cache._parts.core.owed == 25


async def test_a_key_waits_once_and_in_its_turn(made: Make) -> None:
    face, deleted = made("memory://"), list[str]()
    with recorded(face.cache) as engine:
        engine.down()
        for key in ("a:3", "a:1", "a:2", "a:1"):
            await face.delete(key)
        assert list(face.cache._parts.core.debts) == ["a:3", "a:1", "a:2"]
        engine.up()
        inner = face.cache._engine.backend._inner
        with broken(type(inner), "delete", noting(deleted, type(inner).delete)):
            await face.get("b:1")
    assert deleted == ["a:3", "a:1", "a:2"]


def noting(deleted: list[str], delete: Any) -> Any:
    """Return a deletion that notes what is deleted."""

    async def note(self: Any, keys: Any) -> int:
        deleted.extend(keys)
        removed: int = await delete(self, keys)
        return removed

    return note


# What reads get


async def test_reads_are_misses_unless_they_are_to_fail(made: Make) -> None:
    for policy in ({}, {"read": "open"}):
        face = made("memory://", near=None, policy=policy)
        with recorded(face.cache) as engine:
            engine.down()
            assert await face.get("a:1") is None
            assert await face.get_many(["a:1", "a:2"]) == {}
            assert await face.get_or_load("a:1", face.loader(lambda: "source")) == "source"


async def test_reads_fail_where_they_are_to(made: Make) -> None:
    face, loads = made("memory://", near=None, policy={"read": "closed"}), itertools.count()
    with recorded(face.cache) as engine:
        engine.down()
        for read in (
            lambda: face.get("a:1"),
            lambda: face.get_entry("a:1"),
            lambda: face.get_many(["a:1", "a:2"]),
            lambda: face.get_or_load("a:1", face.loader(lambda: next(loads))),
            lambda: face.get_or_load_many(["a:1", "a:2"], face.loader(lambda keys: dict.fromkeys(keys, next(loads)))),
            lambda: face.awaited(function_of(face))(1),
        ):
            with pytest.raises(BackendUnavailableError):
                await read()
        assert next(loads) == 0, "nothing is loaded"


def test_a_full_pool_queues_an_invalidation(own_server: RedisServer, new_cache: NewCache) -> None:
    """It says nothing of the engine, and the engine was not told."""
    cache = new_cache(own_server.unix_url, pool_max=1, pool_timeout=0.05, timeout=5.0)
    cache.set("a:1", "old")
    wire = cache._engine.backend._link._pool.take()  # type: ignore[attr-defined]  # the only one
    try:
        assert isinstance(cache.delete("a:1"), Queued)
        with pytest.raises(BackendTimeoutError):
            cache.set("a:2", "new")
    finally:
        cache._engine.backend._link._pool.drop(wire)  # type: ignore[attr-defined]
    assert cache.get("a:1") is None
