"""What `cache.transaction()` collects, sends and drops, and what is read meanwhile: both flavours, every engine."""

import asyncio
import dataclasses
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import AsyncCache, BatchError, Cache, CacheError, CodecError, Entry, InvalidKeyError, Queued
from nearcache._engine.batch import Batches
from nearcache._engine.load import Loads
from nearcache._engine.read import Reader
from nearcache._engine.transaction import TransactionBatches, TransactionLoads, TransactionReader, TransactionWriter
from nearcache._engine.write import Writer
from nearcache.errors import BackendError
from nearcache.near.slot import NEVER
from tests.faces import Awaited
from tests.promises.helpers import recorded


class RollBack(Exception):
    """Ends a block without success."""


def roll_back(error: type[BaseException] = RollBack) -> None:
    """Raise what ends a block without success."""
    raise error


@contextmanager
def caught(kind: type[BaseException]) -> Iterator[None]:
    """Demand that the block raises this."""
    with pytest.raises(kind):
        yield


async def outside(face: Awaited, key: str) -> Any:
    """Return what everybody else gets for a key: a thread has no part in the block of another."""
    if face.is_async:
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(face.cache.sync.get(key)))
        thread.start()
        await asyncio.to_thread(thread.join)
    else:
        got = []
        thread = threading.Thread(target=lambda: got.append(face.cache.get(key)))
        thread.start()
        thread.join()
    return got[0]


# Changes


async def test_changes_are_sent_when_the_block_has_succeeded(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 2, "a:3": 3})
    await face.set("t:1", 4, tags=["t"])
    async with face.transaction():
        assert await face.delete("a:1") is False
        assert await face.delete_many(["a:2", "a:9"]) == 0
        await face.invalidate_tags("t")
        await face.set("b:1", 5)
        await face.set_many({"b:2": 6, "b:3": 7})
        assert [await outside(face, key) for key in ("a:1", "a:2", "t:1", "b:1", "b:2")] == [1, 2, 4, None, None]
    assert await face.get_many(["a:1", "a:2", "a:3", "t:1", "b:1", "b:2", "b:3"]) == {
        "a:3": 3,
        "b:1": 5,
        "b:2": 6,
        "b:3": 7,
    }


@pytest.mark.parametrize("error", [RollBack, KeyboardInterrupt, asyncio.CancelledError])
async def test_changes_are_dropped_when_the_block_raises(face: Awaited, error: type[BaseException]) -> None:
    await face.set("a:1", 1, tags=["t"])
    with caught(error):
        async with face.transaction():
            await face.delete("a:1")
            await face.invalidate_tags("t")
            await face.clear()
            await face.set("b:1", 2)
            roll_back(error)
    assert await face.get("a:1") == 1
    assert await face.get("b:1") is None
    assert await face.delete("a:1") is True


async def test_clear_waits_for_the_end(face: Awaited) -> None:
    await face.set("a:1", 1)
    async with face.transaction():
        await face.clear()
        assert await face.get("a:1") is None
        assert await outside(face, "a:1") == 1
        await face.set("a:2", 2)
    assert await face.get_many(["a:1", "a:2"]) == {"a:2": 2}


async def test_the_last_change_of_a_key_wins(face: Awaited) -> None:
    await face.set_many({"a:1": 0, "a:2": 0})
    async with face.transaction():
        await face.set("a:1", 1)
        await face.set("a:1", 2)
        await face.delete("a:2")
        await face.set("a:2", 3)
        await face.set("a:3", 4)
        await face.delete("a:3")
        await face.set("a:4", 5, tags=["t"])
        await face.set("a:5", 6, tags=["u"])
        await face.invalidate_tags("t")
        await face.set("a:6", 7, tags=["t"])
        assert await face.get_many([f"a:{n}" for n in range(1, 7)]) == {"a:1": 2, "a:2": 3, "a:5": 6, "a:6": 7}
    assert await face.get_many([f"a:{n}" for n in range(1, 7)]) == {"a:1": 2, "a:2": 3, "a:5": 6, "a:6": 7}


async def test_an_inner_block_joins_the_outer_one(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 2})
    async with face.transaction():
        async with face.transaction():
            await face.delete("a:1")
        assert await outside(face, "a:1") == 1
        assert await face.get("a:1") is None
        await face.delete("a:2")
    assert await face.get_many(["a:1", "a:2"]) == {}


async def test_an_inner_block_that_raises_drops_its_own_changes_only(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 2})
    async with face.transaction():
        await face.delete("a:1")
        await face.set("b:1", "outer", tags=["t"])
        with caught(RollBack):
            async with face.transaction():
                await face.delete("a:2")
                await face.set("b:1", "inner")
                assert await face.get("b:1") == "inner"
                await face.invalidate_tags("t")
                roll_back()
        assert await face.get("b:1") == "outer"
        assert await face.get("a:2") == 2
    assert await face.get_many(["a:1", "a:2", "b:1"]) == {"a:2": 2, "b:1": "outer"}


async def test_everything_is_dropped_when_the_outer_block_raises(face: Awaited) -> None:
    await face.set("a:1", 1)
    with caught(RollBack):
        async with face.transaction():
            async with face.transaction():
                await face.delete("a:1")
            roll_back()
    assert await face.get("a:1") == 1


async def test_an_invalidation_in_an_inner_block_beats_what_the_outer_holds(face: Awaited) -> None:
    async with face.transaction():
        await face.set("a:1", 1, tags=["t"])
        await face.set("a:2", 2)
        async with face.transaction():
            await face.invalidate_tags("t")
            assert await face.get("a:1") is None
            assert await face.get("a:2") == 2
        assert await face.get("a:1") is None
    assert await face.get_many(["a:1", "a:2"]) == {"a:2": 2}


async def test_what_is_wrong_raises_at_once(face: Awaited) -> None:
    async with face.transaction():
        for wrong in (face.delete("no key"), face.set("no key", 1), face.invalidate_tags("no tag"), face.get("")):
            with pytest.raises(InvalidKeyError):
                await wrong
        with pytest.raises(CodecError):
            await face.set("a:1", object())


async def test_add_touch_and_incr_act_at_once(face: Awaited) -> None:
    with caught(RollBack):
        async with face.transaction():
            assert await face.add("a:1", 1) is True
            assert await face.incr("n:1") == 1
            assert await face.touch("a:1", "1m") is True
            roll_back()
    assert await face.get("a:1") == 1
    assert await face.incr("n:1") == 2


async def test_one_batch_and_one_mark_are_sent(face: Awaited) -> None:
    await face.get("warm:1")
    with recorded(face.cache) as recorder:
        async with face.transaction():
            for n in range(5):
                await face.delete(f"a:{n}")
                await face.invalidate_tags(f"t:{n}")
            assert not recorder.counts
        sent = {name: recorder.counts[name] for name in ("delete", "mark", "set", "set_many")}
        assert sent == {"delete": 1, "mark": 1, "set": 0, "set_many": 0}
        async with face.transaction():
            pass
        assert recorder.counts["delete"] == 1


# Reading


async def test_cached_values_are_served_inside(face: Awaited) -> None:
    await face.set_many({"a:1": [1], "a:2": 2})
    async with face.transaction():
        assert await face.get("a:1") == [1]
        assert await face.get_many(["a:1", "a:2"]) == {"a:1": [1], "a:2": 2}
        assert await face.get_or_load("a:1", face.loader(lambda: "loaded")) == [1]
        await face.delete("a:2")
        assert await face.get("a:1") == [1]
        await face.invalidate_tags("t")
        assert await face.get("a:1") is None


async def test_what_was_set_is_read_back_by_every_verb(face: Awaited) -> None:
    await face.set("a:1", "old")
    value = [1]
    async with face.transaction():
        await face.set("a:1", value, ttl=100)
        value.append(2)
        (await face.get("a:1")).append(3)
        assert await face.get("a:1") == [1]
        assert await face.get("a:1", type=list[int]) == [1]
        assert await face.get("a:1", type=str) is None
        assert await face.get_many(["a:1"]) == {"a:1": [1]}
        assert await face.get_or_load("a:1", face.loader(lambda: "loaded")) == [1]
        assert await face.exists("a:1")
        assert 80 < await face.ttl("a:1") <= 100
        entry = await face.get_entry("a:1")
        assert isinstance(entry, Entry)
        assert entry.value == [1]
    assert await face.get("a:1") == [1]
    assert await outside(face, "a:1") == [1]


async def test_what_was_deleted_is_absent_for_every_verb(face: Awaited) -> None:
    await face.set("a:1", "old")
    async with face.transaction():
        await face.delete("a:1")
        assert await face.get("a:1", "absent") == "absent"
        assert await face.get_many(["a:1"]) == {}
        assert not await face.exists("a:1")
        assert not await face.get_entry("a:1")
        assert not await face.ttl("a:1")
        assert await face.get_or_load("a:1", face.loader(lambda: "loaded")) == "loaded"


async def test_a_block_of_another_cache_is_none_of_this(face: Awaited) -> None:
    await face.set("a:1", 1)
    with Cache("memory://", observers=()) as other, other.transaction():
        assert await face.delete("a:1") is True


# Loads


async def test_loads_inside_are_returned_and_not_stored(face: Awaited) -> None:
    @face.cache.cached("f:{n}")
    @face.loader
    def function(n: int) -> int:
        return n

    @face.cache.cached("g:{n}", soft_timeout=1, hard_timeout=2, stale="1m", fail_safe="1m")
    @face.loader
    def apart(n: int) -> int:
        return threading.get_ident()

    load_many = face.loader(lambda keys: dict.fromkeys(keys, "many"))
    await face.get("warm:1")
    with recorded(face.cache) as recorder:
        async with face.transaction():
            assert await face.get_or_load("a:1", face.loader(lambda: "loaded")) == "loaded"
            assert await face.awaited(function)(1) == 1
            assert await face.awaited(function.refresh)(2) == 2
            assert await face.awaited(apart)(1) == threading.get_ident()
            assert await face.awaited(apart.refresh)(2) == threading.get_ident()
            assert await face.awaited(function.many)([3, 4]) == {3: 3, 4: 4}
            assert await face.get_or_load_many(["a:2", "a:3"], load_many) == {"a:2": "many", "a:3": "many"}
            with face.cache.bypass():
                assert await face.awaited(function)(5) == 5
                assert await face.get_or_load_many(["a:4"], load_many) == {"a:4": "many"}
        assert set(recorder.counts) <= {"get", "get_many", "ask", "remaining", "prepare"}, "leases or stores"
    keys = [f"a:{n}" for n in range(1, 5)] + [f"{entity}:{n}" for entity in "fg" for n in range(1, 6)]
    assert await face.get_many(keys) == {}


async def test_errors_of_loads_inside_are_the_callers(face: Awaited) -> None:
    def fail(*_: Any) -> None:
        roll_back()

    async with face.transaction():
        with pytest.raises(RollBack):
            await face.get_or_load("a:1", face.loader(fail))
        with pytest.raises(BatchError):
            await face.get_or_load_many(["a:1"], face.loader(fail))
        with pytest.raises(TypeError):
            await face.get_or_load("a:1", "no function")


async def test_a_load_inside_does_not_join_one_outside() -> None:
    cache, begun, go = AsyncCache("memory://", observers=()), asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go.wait()
        return "outside"

    async def fast() -> str:
        return "inside"

    async with asyncio.TaskGroup() as group:
        outside = group.create_task(cache.get_or_load("a:1", slow))
        await begun.wait()
        async with cache.transaction():
            assert await cache.get_or_load("a:1", fast) == "inside"
        go.set()
    assert outside.result() == "outside"
    assert await cache.get("a:1") == "outside"


def test_a_loader_inside_that_asks_for_its_own_key_is_told() -> None:
    cache = Cache("memory://", observers=())

    def load() -> int:
        return cache.get_or_load("a:1", load)

    with cache.transaction(), pytest.raises(CacheError, match="asked for 'a:1' itself"):
        load()


# Writes of the source


async def test_a_write_through_writes_at_once_and_invalidates_in_the_end(face: Awaited) -> None:
    await face.set("a:1", "old")
    source: list[str] = []
    async with face.transaction():
        assert await face.write_through("a:1", "new", face.loader(source.append)) == "new"
        assert source == ["new"]
        assert await face.get("a:1") is None
        assert await outside(face, "a:1") == "old"
    assert await face.get("a:1") is None


async def test_a_write_through_invalidates_also_when_the_block_raises(face: Awaited) -> None:
    @face.cache.writes("a:{n}")
    @face.loader
    def write(n: int) -> str:
        return "new"

    await face.set_many({"a:1": "old", "a:2": "old", "a:3": "old"})
    with caught(RollBack):
        async with face.transaction():
            with caught(RollBack):
                async with face.transaction():
                    assert await face.awaited(write)(1) == "new"
                    roll_back()
            assert await face.get("a:1") is None
            assert await face.awaited(write)(2) == "new"
            await face.set("a:2", "held")
            roll_back()
    assert await face.get_many(["a:1", "a:2", "a:3"]) == {"a:3": "old"}


async def test_a_write_through_whose_source_fails_changes_nothing(face: Awaited) -> None:
    def fail(_: str) -> None:
        roll_back()

    await face.set("a:1", "old")
    async with face.transaction():
        with pytest.raises(RollBack):
            await face.write_through("a:1", "new", face.loader(fail))
        assert await face.get("a:1") == "old"
    assert await face.get("a:1") == "old"


# Decorated functions, other blocks


async def test_decorated_functions_take_part(face: Awaited) -> None:
    @dataclasses.dataclass(frozen=True)
    class User:
        name: str

    @face.cache.cached("users:{user_id}", returns=User, tags=["user:{user_id}"])
    @face.loader
    def user(user_id: int) -> User:
        return User("loaded")

    assert await face.awaited(user)(1) == User("loaded")
    async with face.transaction():
        await face.awaited(user.set)(User("set"), 2)
        assert await face.awaited(user)(2) == User("set")
        assert await face.awaited(user.peek)(2) == User("set")
        assert await face.awaited(user)(1) == User("loaded")
        assert await face.awaited(user.invalidate)(1) is False
        assert await face.awaited(user.peek)(1) is None
    assert await face.awaited(user.peek)(1) is None
    assert await face.awaited(user.peek)(2) == User("set")


async def test_a_block_without_caching_holds_no_values(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 2})
    async with face.transaction():
        with face.cache.disabled():
            await face.set("a:1", "never")
            await face.delete("a:2")
            assert await face.get("a:1") is None
        assert await face.get("a:1") == 1
        with face.cache.bypass():
            await face.set("a:1", "bypassed")
            assert await face.get("a:1") is None
    assert await face.get_many(["a:1", "a:2"]) == {"a:1": "bypassed"}


async def test_near_hits_are_quick_again_afterwards(face: Awaited) -> None:
    async with face.transaction():
        assert face.cache._parts.core.near.until < 0
        async with face.transaction():
            pass
        assert face.cache._parts.core.near.until < 0
    assert face.cache._parts.core.near.until != NEVER


async def test_nothing_fails_where_caching_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_ENABLED", "false")
    cache = Cache("memory://", observers=())
    with cache.transaction():
        cache.set("a:1", 1)
        assert cache.delete("a:1") is False
        cache.clear()
        assert cache.get_or_load("a:1", lambda: 2) == 2
        assert cache.write_through("a:1", 3, lambda value: None) == 3


async def test_the_other_flavour_takes_part() -> None:
    cache = Cache("memory://", observers=())
    cache.set("a:1", 1)
    async with cache.aio.transaction():
        cache.delete("a:1")
        await cache.aio.delete("a:2")
        assert await asyncio.to_thread(cache.get, "a:1") is None, "a copy of the context"
        assert await outside(Awaited(cache), "a:1") == 1
    assert cache.get("a:1") is None


async def test_a_task_that_outlives_the_block_acts_at_once() -> None:
    cache, ended = AsyncCache("memory://", observers=()), asyncio.Event()
    await cache.set_many({"a:1": 1, "a:2": 2})

    async def work() -> bool | Queued:
        await cache.delete("a:1")
        await ended.wait()
        return await cache.delete("a:2")

    async with cache.transaction():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    assert await cache.get_many(["a:1", "a:2"]) == {"a:2": 2}
    ended.set()
    assert await task is True


async def test_two_inner_blocks_side_by_side_keep_apart() -> None:
    cache = AsyncCache("memory://", observers=())
    await cache.set_many({"a:1": 1, "a:2": 2})

    async def drop(key: str, fail: bool) -> None:
        async with cache.transaction():
            await cache.delete(key)
            await asyncio.sleep(0)
            if fail:
                roll_back()

    async with cache.transaction():
        await asyncio.gather(drop("a:1", False), drop("a:2", True), return_exceptions=True)
    assert await cache.get_many(["a:1", "a:2"]) == {"a:2": 2}


# The end


async def test_a_failure_at_the_end_raises_and_leaves_debts(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 2})
    await face.set("a:3", 3, tags=["t"])

    def fail(operation: str) -> None:
        if operation in ("delete", "mark"):
            raise BackendError("refused")

    with recorded(face.cache) as recorder:
        recorder.before = fail
        with caught(BackendError):
            async with face.transaction():
                await face.delete_many(["a:1", "a:2"])
                await face.invalidate_tags("t")
                await face.set("b:1", 4)
        assert not await face.get_many(["a:1", "a:2", "a:3"])
    face.cache._engine.core.pay_from = 0.0
    assert await face.get_many(["a:1", "a:2", "a:3", "b:1"]) == {"b:1": 4}


async def test_a_failure_of_the_block_is_not_hidden_by_one_of_the_engine(face: Awaited) -> None:
    def fail(operation: str) -> None:
        if operation == "delete":
            raise BackendError("refused")

    await face.set("a:1", 1)
    with recorded(face.cache) as recorder:
        recorder.before = fail
        with caught(RollBack):
            async with face.transaction():
                await face.write_through("a:1", "new", face.loader(lambda value: None))
                roll_back()
    assert await face.get("a:1") is None


# Completeness

AT_ONCE: dict[type, set[str]] = {Writer: {"add", "incr", "touch"}}
"""Verbs that act as outside of a block."""

BUILT_UPON: dict[type, set[str]] = {
    Reader: {"ask_many", "dead", "examine", "exists", "fetch", "fetch_many", "get_many", "peek", "record"},
    Loads: {"ending", "follow", "give_up", "lease", "load", "load_or_wait", "put"},
    Batches: {"each"},
    Writer: {"set", "set_many"},
}
"""What calls the verbs that were replaced, or is called by no face."""


@pytest.mark.parametrize(
    ("plain", "inside"),
    [
        (Reader, TransactionReader),
        (Writer, TransactionWriter),
        (Loads, TransactionLoads),
        (Batches, TransactionBatches),
    ],
)
def test_every_verb_was_thought_of(plain: type, inside: type) -> None:
    verbs = {
        name
        for name, function in vars(plain).items()
        if inspect.iscoroutinefunction(function) and not name.startswith("_")
    }
    known = set(vars(inside)) | AT_ONCE.get(plain, set()) | BUILT_UPON.get(plain, set())
    assert verbs <= known, "what does this do inside of cache.transaction()?"
