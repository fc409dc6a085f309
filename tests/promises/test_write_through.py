"""A write reaches its source first and the cache afterwards; whatever fails, the cache never keeps what it replaced."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import pytest

from nearcache import MISS, BackendError, BackendTimeoutError, Cache, CodecError, Queued
from nearcache._core.outcome import Outcome
from nearcache._engine.core import Core
from nearcache._engine.write import Writer
from nearcache.testing import faults
from tests.integration.redis.helpers import bulk, fake_server
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Recorder,
    SignalAt,
    at_once,
    broken,
    interrupted,
    noticed,
    outcome_of,
    recorded,
)
from tests.servers import RedisServer

Key = Callable[[], str]


class Table:
    """A source: a table with one row for each key."""

    def __init__(self, cache: Cache, key: str) -> None:
        self.cache = cache
        self.key = key
        self.row = "old"
        cache.set(key, "old")
        assert cache.get(key) == "old"

    def store(self, value: str) -> None:
        """Write the row."""
        self.row = value

    async def astore(self, value: str) -> None:
        """Write the row."""
        self.row = value

    def load(self) -> str:
        """Read the row."""
        return self.row

    def decorated(self, value: str) -> str:
        """Write the row through a decorated function."""
        entity, number = self.key.split(":")

        @self.cache.writes("{entity}:{number}")
        def write(entity: str, number: str, value: str) -> str:
            self.row = value
            return value

        return write(entity, number, value)

    async def adecorated(self, value: str) -> str:
        """Write the row through a decorated coroutine function."""
        entity, number = self.key.split(":")

        @self.cache.aio.writes("{entity}:{number}")
        async def write(entity: str, number: str, value: str) -> str:
            self.row = value
            return value

        return await write(entity, number, value)


Write = Callable[[Table], str]
WRITES: dict[str, Write] = {
    "write_through": lambda table: table.cache.write_through(table.key, "new", table.store),
    "write_through by a task": lambda table: asyncio.run(table.cache.aio.write_through(table.key, "new", table.astore)),
    "writes": lambda table: table.decorated("new"),
    "writes by a task": lambda table: asyncio.run(table.adecorated("new")),
}
write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


def other(cache: Cache, new_cache: NewCache) -> Cache:
    """Return a cache that sees what other processes see."""
    options = cache._parts.core.options
    if cache._parts.core.records is not None:
        return cache
    return new_cache(options.url, namespace=options.namespace, near=None)


@write
def test_what_was_written_is_cached(any_url: str, new_cache: NewCache, fresh_key: Key, write: Write) -> None:
    table = Table(new_cache(any_url), fresh_key())
    assert write(table) == "new"
    assert table.row == "new"
    assert other(table.cache, new_cache).get(table.key) == "new"


# The source comes first


def source_comes_first(table: Table, write: Write, new_cache: NewCache) -> None:
    """Look at the cache while the source is being written, and let the source fail."""
    seen, before = list[object](), other(table.cache, new_cache)
    with recorded(table.cache, table.cache.aio) as recorder:

        def store(value: str) -> NoReturn:
            seen.append(before.get(table.key))
            seen.append(recorder.counts["set"] + recorder.counts["delete"])
            raise ValueError("the source refuses")

        async def astore(value: str) -> NoReturn:
            store(value)

        table.store, table.astore = store, astore  # type: ignore[method-assign]  # they fail
        with pytest.raises(ValueError, match="the source refuses"):
            write(table)
    assert seen == ["old", 0], "something happened to the cache before the source was written"
    assert table.cache.get(table.key) == "old"
    assert before.get(table.key) == "old"


@pytest.mark.parametrize("name", ["write_through", "write_through by a task"])
def test_nothing_happens_to_the_cache_before_the_source_was_written(
    url: str, new_cache: NewCache, fresh_key: Key, name: str
) -> None:
    source_comes_first(Table(new_cache(url), fresh_key()), WRITES[name], new_cache)


def test_writing_the_cache_first_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    async def write_through(
        writer: Writer, io: Any, key: str, source: Any, value: Any, ttl: Any, schema: Any, tag: Any
    ) -> Outcome[Any]:
        await writer.set(key, value, ttl, ())
        outcome: Outcome[Any] = await io.user(source)
        return outcome

    with broken(Writer, "write_through", write_through), noticed():
        source_comes_first(Table(new_cache(url), fresh_key()), WRITES["write_through"], new_cache)


def fails_with(table: Table, error: BaseException) -> None:
    """Let both forms of a write fail in their source."""
    entity, number = table.key.split(":")

    @table.cache.writes("{entity}:{number}")
    def fail(entity: str, number: str) -> None:
        raise error

    assert outcome_of(lambda: fail(entity, number)).error is error
    assert outcome_of(lambda: table.cache.write_through(table.key, "new", lambda value: fail(entity, number))).error


def test_a_source_that_fails_changes_nothing(any_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    table = Table(new_cache(any_url), fresh_key())
    fails_with(table, ValueError())
    assert table.cache.get(table.key) == "old"
    assert other(table.cache, new_cache).get(table.key) == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_after_an_interrupted_source_nobody_trusts_the_cache(
    any_url: str, new_cache: NewCache, fresh_key: Key, error: BaseException
) -> None:
    """It may have been written or not."""
    table = Table(new_cache(any_url), fresh_key())
    fails_with(table, error)
    assert table.cache.get(table.key, MISS) is MISS
    assert other(table.cache, new_cache).get(table.key, MISS) is MISS


def test_the_source_may_return_what_is_cached(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, key = new_cache(url), fresh_key()
    assert cache.write_through(key, {"name": "Ada"}, lambda user: {**user, "id": "7"}) == {"name": "Ada", "id": "7"}
    assert cache.get(key) == {"name": "Ada", "id": "7"}


def test_a_decorated_write_that_returns_none_invalidates(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)
    cache.set("users:1", "old")

    @cache.writes("users:{user_id}")
    def write(user_id: int) -> None:
        """Write the source."""

    assert cache.get("users:1") == "old"
    write(1)
    assert cache.get("users:1", MISS) is MISS


def test_what_cannot_be_cached_is_written_all_the_same_and_the_old_value_goes(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    table = Table(new_cache(url), fresh_key())

    def store(value: str) -> Any:
        table.store(value)
        return lambda: 7

    with pytest.raises(CodecError, match=table.key):
        table.cache.write_through(table.key, "new", store)
    assert table.row == "new"
    assert table.cache.get(table.key, MISS) is MISS


def test_a_value_that_cannot_be_cached_is_refused_before_it_is_written(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    table = Table(new_cache(url), fresh_key())
    before = table.row
    with pytest.raises(CodecError, match=table.key):
        table.cache.write_through(table.key, lambda: 7, lambda value: table.store("new"))
    assert table.row == before


async def test_a_source_that_forgot_to_be_a_coroutine_function_was_written_all_the_same(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    cache, key = new_cache(url), fresh_key()
    cache.set(key, "old")
    stored: list[str] = []
    with pytest.raises(TypeError, match="append did not return an awaitable") as caught:
        await cache.aio.write_through(key, "hunter2", stored.append)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert stored == ["hunter2"]
    assert await cache.aio.get(key) is None


# The cache fails

PLANS: dict[str, Callable[[Recorder], None]] = {
    "down": lambda engine: engine.down(),
    "cannot be asked": lambda engine: engine.fail("steal"),
    "fails before": lambda engine: engine.fail("commit"),
    "fails afterwards": lambda engine: engine.fail("commit", done=True),
    "fails, and so does what follows": lambda engine: fail_twice(engine),
}


def fail_twice(engine: Recorder) -> None:
    """Let the write fail, and the first tries to delete."""
    engine.fail("commit")
    engine.fail("delete", 2)


def old_value_is_never_seen_again(table: Table, write: Write, plan: str, new_cache: NewCache) -> None:
    """Let the engine fail when the cache is to be written: the write succeeds, and the old value is gone."""
    cache, key = table.cache, table.key
    with recorded(cache, cache.aio) as engine:
        PLANS[plan](engine)
        assert write(table) == "new"
        assert table.row == "new"
        assert cache.get(key, MISS) is not "old"  # noqa: F632 -- MISS or the very text
        assert cache.get_or_load(key, table.load) == "new"
        engine.up()
        with suppress(BackendError):
            cache.open()
        cache.open()
        assert other(cache, new_cache).get(key, "gone") in ("new", "gone"), "others still read the old value"
        assert cache.get(key, "gone") in ("new", "gone")
    assert cache.get_or_load(key, table.load) == "new"


@write
@pytest.mark.parametrize("plan", PLANS)
def test_a_cache_that_fails_is_invalidated_as_soon_as_it_answers(
    url: str, new_cache: NewCache, fresh_key: Key, write: Write, plan: str
) -> None:
    old_value_is_never_seen_again(Table(new_cache(url), fresh_key()), write, plan, new_cache)


def test_forgotten_debts_are_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for plan in ("down", "fails before"):
        with broken(Core, "owe", lambda core, *keys: None), noticed():
            old_value_is_never_seen_again(Table(new_cache(url), fresh_key()), WRITES["write_through"], plan, new_cache)


def test_deletes_are_kept_until_the_engine_answers(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    table = Table(new_cache(url), fresh_key())
    with recorded(table.cache, table.cache.aio) as engine:
        engine.down()
        table.row = "new"
        assert isinstance(table.cache.delete(table.key), Queued)
        assert table.cache.get(table.key, MISS) is MISS
        engine.up()
        table.cache.exists("another:key")
        assert other(table.cache, new_cache).get(table.key, MISS) is MISS


def test_decorated_functions_feel_a_planned_fault(url: str, new_cache: NewCache) -> None:
    """Also those that were decorated before."""
    cache, calls = new_cache(url, near=None), list[int]()

    @cache.cached("users:{user_id}")
    def user(user_id: int) -> int:
        calls.append(user_id)
        return user_id

    user(1)
    with faults(cache) as engine:
        engine.down()
        assert user(1) == 1
    assert calls == [1, 1]


# An engine that really fails


def test_a_frozen_engine_gets_no_second_try(own_server: RedisServer, new_cache: NewCache, fresh_key: Key) -> None:
    """The first command may still arrive, however late: it is answered by a delete, and nothing is sent twice."""
    cache = new_cache(own_server.unix_url, timeout=0.1)
    for write in WRITES.values():
        table, sets = Table(cache, fresh_key()), set_calls(own_server)
        own_server.pause()
        try:
            assert at_once(partial(write, table)) == "new"
            assert cache.get(table.key, "gone") == "gone"
        finally:
            own_server.resume()
        with suppress(BackendError):
            cache.open()
        cache.open()
        assert own_server.command("EXISTS", cache.engine_key(table.key)) == 0
        assert cache.get_or_load(table.key, table.load) == "new"
        assert set_calls(own_server) - sets <= 2, "a SET was sent again"


def set_calls(server: RedisServer) -> int:
    """Return how many SET commands the server has run."""
    stats = server.info("commandstats").get("cmdstat_set", "calls=0,")
    return int(stats.removeprefix("calls=").split(",")[0])


def test_an_engine_that_is_killed_and_comes_back_has_no_old_value(
    new_cache: NewCache, fresh_key: Key, own_server: RedisServer
) -> None:
    cache = new_cache(own_server.unix_url, timeout=0.5)
    table = Table(cache, fresh_key())
    own_server.command("SAVE")
    own_server.kill()
    assert cache.write_through(table.key, "new", table.store) == "new"
    assert cache.get(table.key, "gone") == "gone"
    assert cache.get_or_load(table.key, table.load) == "new"
    own_server.start()
    assert own_server.command("EXISTS", cache.engine_key(table.key)) == 1, "the old value has come back with it"
    cache.open()
    assert own_server.command("EXISTS", cache.engine_key(table.key)) == 0
    assert cache.get_or_load(table.key, table.load) == "new"


class Wire:
    """An engine that hangs up when it gets a SET, and notes what comes."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def answer(self, command: list[bytes]) -> bytes | None:
        """Answer a command."""
        self.seen.append(command[0])
        if command[0] == b"SET":
            return None
        return {b"DEL": b":1\r\n", b"GET": bulk(b"whatever")}.get(command[0], b"+OK\r\n")


@pytest.mark.parametrize("face", ["sync", "aio"])
def test_a_set_without_an_answer_is_followed_by_a_delete_before_anything_else(new_cache: NewCache, face: str) -> None:
    wire = Wire()
    with fake_server(wire.answer) as server:
        cache = new_cache(server.url, pool_max=3)
        with pytest.raises(BackendError):
            cache.set("a:1", 1) if face == "sync" else asyncio.run(cache.aio.set("a:1", 1))
        cache.get("b:1") if face == "sync" else asyncio.run(cache.aio.get("b:1"))
        cache.close()
    lease_and_record = [b"DEL", b"DEL"]
    assert [name for name in wire.seen if name in (b"SET", b"DEL", b"GET")] == [
        b"DEL",
        b"SET",
        *lease_and_record,
        b"GET",
    ]


def test_a_set_that_was_cancelled_is_followed_by_a_delete(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)

    async def cancelled_after(turns: int, key: str) -> bool:
        await cache.aio.set(key, "old")
        task = asyncio.ensure_future(cache.aio.set(key, "new"))
        for _ in range(turns):
            await asyncio.sleep(0)
        early = not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        before = cache._parts.core.debts.get(key)
        got = await cache.aio.get(key, "gone")
        assert got == "new" if not early else got in ("old", "new", "gone")
        assert before is None or got == "gone"
        return not early

    for turns in range(200):
        if asyncio.run(cancelled_after(turns, fresh_key())):
            return
    raise AssertionError("the write never ended")


# Interrupts


def interrupted_write_leaves_nothing_old(table: Table, place: int) -> str:
    """Interrupt the write at some place; if the source was written, the old value is gone."""
    where = str(at_once(lambda: SignalAt(place).run(lambda: WRITES["write_through"](table))))
    if table.row == "new":
        got = table.cache.get(table.key, "gone")
        assert got in ("new", "gone"), f"interrupted at {where}, the old value stays"
    return where


@interrupted
def test_an_interrupt_at_any_place_after_the_source_was_written_leaves_no_old_value(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    cache = new_cache(url)
    for place in range(1, 2000):
        if not interrupted_write_leaves_nothing_old(Table(cache, fresh_key()), place):
            assert place > 50
            return
    raise AssertionError("the write never ended")


async def cancelled_write_leaves_nothing_old(table: Table, turns: int) -> bool:
    """Cancel the write after so many turns of the loop; tell whether it had ended before."""
    task = asyncio.ensure_future(table.cache.aio.write_through(table.key, "new", table.astore))
    for _ in range(turns):
        await asyncio.sleep(0)
    early = not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    if table.row == "new":
        assert await table.cache.aio.get(table.key, "gone") in ("new", "gone")
    return not early


def test_a_cancelled_write_leaves_no_old_value(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for turns in range(200):
        if asyncio.run(cancelled_write_leaves_nothing_old(Table(cache, fresh_key()), turns)):
            return
    raise AssertionError("the write never ended")


# One writer, readers that fill


def written_value_wins(cache: Cache, table: Table) -> None:
    """Read and fill in the middle of the write: what was read from the source before it is not kept."""

    def store(value: str) -> None:
        row = table.row
        cache.delete(table.key)
        assert cache.get_or_load(table.key, lambda: row) == "old"
        table.row = value

    cache.write_through(table.key, "new", store)
    assert cache.get(table.key) in ("new", None), "somebody wrote in between, and nobody knows who was the last"


def test_what_was_filled_while_the_source_was_written_is_replaced(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        table = Table(cache, fresh_key())
        written_value_wins(cache, table)
        assert other(cache, new_cache).get(table.key) in ("new", None)


def test_errors_say_what_timed_out(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.unix_url, timeout=0.05)
    cache.set("a:1", 1)
    own_server.pause()
    try:
        with pytest.raises(BackendTimeoutError, match=r"a:1.*0\.05"):
            cache.set("a:1", 2)
    finally:
        own_server.resume()


def test_a_write_through_that_lost_its_lease_leaves_nothing_near(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    """What a reader has kept near between the two writes to the source and the refused commits is old."""
    cache, key = new_cache(valkey_url), fresh_key()
    other = new_cache(valkey_url, namespace=cache._parts.core.options.namespace)
    cache.set(key, "old")
    cache._parts.core.near.changed((key,))

    def store(_: str) -> None:
        other.write_through(key, "newer", lambda value: None)  # which takes the lease away, and stores
        other.set(key, "old")  # stands for the record from before, which the loser finds and removes

    def read(operation: str) -> None:
        if operation == "commit":
            assert cache.get(key) == "old"

    with recorded(cache) as recorder:
        recorder.before = read
        cache.write_through(key, "new", store)
    assert cache.get(key) is None
