"""Readers and writers in every order of their steps: no value that is older than an acknowledged change is ever served.

Over a shared engine each actor has a cache object of its own, as a process has. `memory://` belongs to one process, so
its actors share one object.
"""

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nearcache import AsyncCache, Cache
from nearcache._engine.write import Writer
from nearcache.backends.base import Fill
from nearcache.backends.memory import Ledger
from nearcache.backends.redis import backend as redis_backend
from nearcache.backends.redis import lua
from nearcache.near.view import View
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, dice, noticed
from tests.promises.schedules import Schedule, evict, here, now, stepwise
from tests.servers import VERSIONS, RedisServer, packaged_program, redis_server

Key = Callable[[], str]
SAMPLES = 60
STALENESS = 1e-9
"""Seconds: every read asks for the marks, so that an invalidation is seen as soon as it was acknowledged."""


class Source:
    """A source with one row, whose version grows; and what was acknowledged and read when."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.version = 1
        self.acknowledged: list[tuple[int, int]] = [(0, 1)]
        self.reads: list[tuple[int, int]] = []

    async def load(self) -> int:
        """Read the row."""
        await here("load")
        version = self.version
        await here("loaded")
        return version

    async def read(self, cache: AsyncCache) -> None:
        """Read through the cache."""
        began = now()
        got = await cache.get_or_load(self.key, self.load, tags=["static", "result:{result.real}"])
        self.reads.append((began, got))

    def check(self) -> None:
        """Compare each read with what had been acknowledged before it began."""
        for began, got in self.reads:
            newest = max(version for step, version in self.acknowledged if step <= began)
            assert got >= newest, f"a reader got version {got}, when {newest} had been acknowledged before it asked"


Change = Callable[[Source, AsyncCache], Awaitable[Any]]


async def _invalidate(source: Source, cache: AsyncCache) -> None:
    await cache.invalidate_tags(*[f"result:{version}" for version in range(1, source.version)])


async def _refresh(source: Source, cache: AsyncCache) -> None:
    @cache.cached("{entity}:{number}")
    async def load(entity: str, number: str) -> int:
        return await source.load()

    await load.refresh(*source.key.split(":"))


CHANGES: dict[str, Change] = {
    "delete": lambda source, cache: cache.delete(source.key),
    "set": lambda source, cache: cache.set(source.key, source.version, tags=["static"]),
    "static tag": lambda source, cache: cache.invalidate_tags("static"),
    "tag of the result": _invalidate,
    "clear": lambda source, cache: cache.clear(),
    "refresh": _refresh,
}


async def write(source: Source, cache: AsyncCache, change: Change) -> None:
    """Write the source, then tell the cache."""
    await here("write")
    source.version += 1
    version = source.version
    await change(source, cache)
    source.acknowledged.append((now(), version))


class World:
    """The caches of the actors, over one engine."""

    def __init__(self, new_cache: NewCache, url: str, server: RedisServer | None, *, shared: bool = False) -> None:
        first = new_cache(url, near=None, staleness=STALENESS)
        self.shared = shared or server is not None
        self.server = server
        self.namespace = first._parts.core.options.namespace
        others = [first] * 3
        if self.shared:
            others = [new_cache(url, near=None, staleness=STALENESS, namespace=self.namespace) for _ in range(3)]
        self.caches: list[Cache] = [first, *others]

    async def play(self, choices: list[int], key: str, actors: list[Any], settle: bool = True) -> Schedule:
        """Run one schedule; afterwards a reader that begins now must find what is newest."""
        schedule, source = Schedule(choices), Source(key)
        for place, work in enumerate(actors):
            cache = self.caches[place].aio
            schedule.add(f"{place}", functools.partial(work, source, cache))
        outcomes = await schedule.run()
        trace = " ".join(schedule.trace)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert not errors, f"{errors[0]!r} after {trace}"
        try:
            source.check()
            if settle:
                last = await self.caches[-1].aio.get_or_load(key, lambda: _value(source))
                assert last == source.version, f"version {last} is left, and the source has {source.version}"
        except AssertionError as error:
            raise AssertionError(f"{error}: {trace}") from None
        return schedule

    def every(self, fresh_key: Key, actors: list[Any], most: int | None = None, settle: bool = True) -> int:
        """Run every schedule, or so many of them by luck; return how many."""
        return asyncio.run(self._every(fresh_key, actors, most, settle))

    async def _every(self, fresh_key: Key, actors: list[Any], most: int | None, settle: bool) -> int:
        luck = dice()
        for cache in self.caches:
            await cache.aio.open()
        with stepwise(*{id(cache): cache.aio for cache in self.caches}.values()):
            choices: list[int] | None = []
            played = 0
            while choices is not None and (most is None or played < most):
                lucky = [luck.randrange(6) for _ in range(40)] if most is not None else choices
                schedule = await self.play(lucky, fresh_key(), actors, settle)
                choices = schedule.following() if most is None else choices
                played += 1
        for cache in self.caches:
            await cache.aio.aclose()
        return played


async def _value(source: Source) -> int:
    return source.version


def reader(source: Source, cache: AsyncCache) -> Awaitable[None]:
    """An actor that reads."""
    return source.read(cache)


def writer(change: Change) -> Callable[[Source, AsyncCache], Awaitable[None]]:
    """An actor that writes."""
    return lambda source, cache: write(source, cache, change)


@pytest.fixture(params=["memory", "valkey", "redis", "cluster"])
def world(request: pytest.FixtureRequest, new_cache: NewCache) -> World:
    """Caches over each engine."""
    if request.param == "memory":
        return World(new_cache, "memory://", None)
    if request.param == "cluster":
        return World(new_cache, request.getfixturevalue("cluster").url, None, shared=True)
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    return World(new_cache, server.unix_url, server)


@pytest.fixture
def shared_world(new_cache: NewCache, valkey_server: RedisServer) -> World:
    """Caches over one shared engine."""
    return World(new_cache, valkey_server.unix_url, valkey_server)


# No faults


@pytest.mark.parametrize("name", CHANGES)
def test_a_reader_and_a_writer_in_every_order(world: World, fresh_key: Key, name: str) -> None:
    assert world.every(fresh_key, [reader, writer(CHANGES[name])]) > 15


@pytest.mark.parametrize("name", CHANGES)
def test_two_readers_and_a_writer(world: World, fresh_key: Key, name: str) -> None:
    world.every(fresh_key, [reader, writer(CHANGES[name]), reader], SAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_two_readers_and_a_writer_in_many_orders(world: World, fresh_key: Key, name: str) -> None:
    world.every(fresh_key, [reader, writer(CHANGES[name]), reader], 400)


def test_two_writers_of_different_kinds_and_a_reader(world: World, fresh_key: Key) -> None:
    names = list(CHANGES)
    for one, other in itertools.pairwise(names):
        if {one, other}.isdisjoint({"set", "refresh"}):  # these are last-writer-wins
            world.every(fresh_key, [reader, writer(CHANGES[one]), writer(CHANGES[other])], 20)


# Write-throughs


async def write_through(source: Source, cache: AsyncCache) -> None:
    """Write the source, then the cache."""

    async def store(_: int) -> int:
        await here("store")
        source.version += 1
        return source.version

    await cache.write_through(source.key, 0, store)


def write_throughs_leave_the_newest_or_nothing(world: World, fresh_key: Key, most: int | None) -> int:
    """Let two write through, and one read."""
    return world.every(fresh_key, [write_through, write_through, reader], most)


def test_two_write_throughs_leave_the_newest_or_nothing(world: World, fresh_key: Key) -> None:
    assert world.every(fresh_key, [write_through, write_through]) >= 20
    write_throughs_leave_the_newest_or_nothing(world, fresh_key, SAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_two_write_throughs_and_a_reader_in_many_orders(world: World, fresh_key: Key) -> None:
    write_throughs_leave_the_newest_or_nothing(world, fresh_key, 1000)


def test_storing_and_then_setting_is_noticed(world: World, fresh_key: Key) -> None:
    async def write_through(writer: Writer, io: Any, key: str, source: Any, value: Any, *rest: Any) -> Any:
        outcome = await io.user(source)
        await writer.set(key, outcome.get(), "default", ())
        return outcome

    with broken(Writer, "write_through", write_through), noticed("is left"):
        world.every(fresh_key, [_write_through, _write_through])


_write_through = write_through


# Records that are lost in the middle


def losing(world: World, record: str) -> Callable[[Source, AsyncCache], Awaitable[None]]:
    """An actor that makes the engine lose a record."""
    server, namespace = world.server, world.namespace
    assert server is not None

    async def lose(source: Source, cache: AsyncCache) -> None:
        names = {
            "lease": [f"{{{namespace}:{source.key}}}~l"],
            "value": [f"{namespace}:{source.key}"],
            "marks": [f"{{{namespace}}}~m"],
        }
        doomed = names.get(record) or [name for each in names.values() for name in each]

        async def delete() -> None:
            server.command("DEL", *doomed)

        await evict(delete)

    return lose


@pytest.mark.parametrize("record", ["lease", "value", "marks", "all"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_lost_record_costs_loads_and_no_old_values(
    shared_world: World, fresh_key: Key, name: str, record: str
) -> None:
    shared_world.every(fresh_key, [reader, writer(CHANGES[name]), losing(shared_world, record)], SAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("record", ["lease", "value", "marks", "all"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_lost_record_in_many_orders(shared_world: World, fresh_key: Key, name: str, record: str) -> None:
    shared_world.every(fresh_key, [reader, writer(CHANGES[name]), losing(shared_world, record)], 500)


@pytest.mark.parametrize("durable", [True, False])
def test_a_restart_of_the_engine_costs_loads_and_no_old_values(
    own_server: RedisServer, new_cache: NewCache, fresh_key: Key, durable: bool
) -> None:
    own_server.stop()
    own_server.options = ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
    own_server.start()
    invalidations: list[Callable[[Cache, str], Any]] = [
        lambda cache, key: cache.delete(key),
        lambda cache, key: cache.invalidate_tags("static"),
        lambda cache, key: cache.clear(),
    ]
    for invalidate in invalidations:
        cache, key = new_cache(own_server.unix_url, near=None, timeout=5), fresh_key()
        other = new_cache(own_server.unix_url, near=None, timeout=5, namespace=cache._parts.core.options.namespace)
        assert cache.get_or_load(key, lambda: "old", tags=["static"]) == "old"
        invalidate(cache, key)
        own_server.kill()
        own_server.start()
        for each in (cache, other):
            assert each.get(key) is None
        assert other.get_or_load(key, lambda: "new", tags=["static"]) == "new"


# Other versions


@pytest.mark.soak
@pytest.mark.parametrize("package", VERSIONS)
def test_other_versions_keep_everything_too(new_cache: NewCache, fresh_key: Key, package: str) -> None:
    """Redis 6.2, which is the oldest that works, and 8."""
    with redis_server("redis", program=packaged_program(package)) as server:
        world = World(new_cache, server.unix_url, server)
        for change in CHANGES.values():
            world.every(fresh_key, [reader, writer(change)])
            world.every(fresh_key, [reader, writer(change), reader], 300)
            for record in ("lease", "value", "marks", "all"):
                world.every(fresh_key, [reader, writer(change), losing(world, record)], 100)
        write_throughs_leave_the_newest_or_nothing(world, fresh_key, 300)
        for cache in world.caches:
            cache.close()


# Mechanisms that are taken away


def test_plain_gets_and_sets_are_noticed(world: World, fresh_key: Key) -> None:
    async def plain(source: Source, cache: AsyncCache) -> None:
        began = now()
        got = await cache.get(source.key)
        if got is None:
            got = await source.load()
            await cache.set(source.key, got)
        source.reads.append((began, got))

    with noticed("is left"):
        world.every(fresh_key, [plain, writer(CHANGES["delete"])])


def test_a_store_that_looks_at_no_token_is_noticed(shared_world: World, fresh_key: Key) -> None:
    real = lua.script

    def script(name: str) -> lua.Script:
        found = real(name)
        return found if name != "fill" else lua.made(found.text.replace("if holder ~= token then", "if false then"))

    with broken(redis_backend, "script", script), noticed("is left"):
        shared_world.every(fresh_key, [reader, writer(CHANGES["delete"])])


def test_a_store_in_memory_that_looks_at_no_token_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    async def fill(ledger: Ledger, fills: list[Fill]) -> list[bool]:
        for each in fills:
            ledger._leases.pop(each.item.key, None)
            ledger._store.put(each.item.key, each.item.raw, ledger._clock() + 60)
        return [True] * len(fills)

    with broken(Ledger, "fill", fill), noticed("is left"):
        World(new_cache, "memory://", None).every(fresh_key, [reader, writer(CHANGES["delete"])])


def test_an_epoch_that_is_taken_after_the_load_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    real = Writer.seal

    def seal(writer: Writer, draft: Any, epoch: int) -> Any:
        return real(writer, draft, writer._core.view.last)

    with broken(Writer, "seal", seal), noticed("is left"):
        World(new_cache, "memory://", None).every(fresh_key, [reader, writer(CHANGES["clear"])])


def test_absent_marks_that_mean_never_are_noticed(shared_world: World, fresh_key: Key) -> None:
    real = View.holds

    def holds(view: View, epoch: int, tags: Any) -> bool:
        view.clear = 0  # what is not in the record was never invalidated
        return real(view, epoch, tags)

    with broken(View, "holds", holds), noticed():
        shared_world.every(fresh_key, [reader, writer(CHANGES["static tag"]), losing(shared_world, "marks")])
