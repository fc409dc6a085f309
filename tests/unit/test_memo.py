"""One view per request: what a block with `cache.memo()` reads again, and what it reads anew."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import AsyncCache, Cache
from nearcache._engine.memo import MOST
from nearcache.near.slot import NEVER
from tests.faces import Awaited
from tests.promises.helpers import recorded


@dataclasses.dataclass
class User:
    """A value that can be changed."""

    name: str


def changed_elsewhere(face: Awaited, change: Callable[[Cache], object]) -> None:
    """Have a thread that is in no block change something."""
    cache = face.cache.sync if face.is_async else face.cache
    thread = threading.Thread(target=change, args=(cache,))
    thread.start()
    thread.join()


async def test_what_was_read_once_is_read_again(face: Awaited) -> None:
    @face.cache.cached("f:{n}")
    @face.loader
    def function(n: int) -> list[int]:
        return [n]

    call, peek = face.awaited(function), face.awaited(function.peek)
    await face.set_many({"a:1": [1], "a:2": 2, "a:3": None})
    with face.cache.memo():
        first = [await face.get("a:1"), await face.get_many(["a:2", "a:3"]), await call(1), await call(2)]
        assert first == [[1], {"a:2": 2, "a:3": None}, [1], [2]]
        keys = ["a:1", "a:2", "a:3", "f:1", "f:2"]
        changed_elsewhere(face, lambda cache: cache.set_many(dict.fromkeys(keys, "new")))
        with recorded(face.cache) as recorder:
            assert await face.get("a:1") == [1]
            assert await face.get("a:3", "absent") is None
            assert await face.get_many(["a:1", "a:2", "a:3"]) == {"a:1": [1], "a:2": 2, "a:3": None}
            assert await face.get_or_load("a:2", face.loader(lambda: "loaded")) == 2
            load_many = face.loader(lambda keys: dict.fromkeys(keys, "many"))
            assert await face.get_or_load_many(["a:1", "a:2"], load_many) == {"a:1": [1], "a:2": 2}
            assert await call(1) == [1]
            assert await peek(2) == [2]
            assert await face.awaited(function.many)([1, 2]) == {1: [1], 2: [2]}
        assert not recorder.counts
    assert set((await face.get_many(keys)).values()) == {"new"}


async def test_every_way_to_read_is_remembered(face: Awaited) -> None:
    load_many = face.loader(lambda keys: {key: ["many"] for key in keys})
    await face.set("a:4", [4])
    with face.cache.memo():
        assert await face.get_or_load("a:1", face.loader(lambda: [1])) == [1]
        assert await face.get_or_load_many(["a:2", "a:3"], load_many) == {"a:2": ["many"], "a:3": ["many"]}
        assert await face.get("a:4", type=list[int]) == [4]
        changed_elsewhere(face, lambda cache: cache.clear())
        assert await face.get_many(["a:1", "a:2", "a:3", "a:4"]) == {
            "a:1": [1],
            "a:2": ["many"],
            "a:3": ["many"],
            "a:4": [4],
        }
    assert await face.get_many(["a:1", "a:2", "a:3", "a:4"]) == {}


async def test_every_reader_gets_a_value_of_its_own(face: Awaited) -> None:
    @face.cache.cached("users:{n}", returns=User)
    @face.loader
    def user(n: int) -> User:
        return User("Ada")

    call = face.awaited(user)
    await face.set("a:1", {"deep": [1]})
    await call(2)
    with face.cache.memo():
        for _ in range(3):
            value = await face.get("a:1")
            assert value == {"deep": [1]}
            value["deep"].append(2)
            for n in (1, 2):
                ada = await call(n)
                assert ada == User("Ada")
                ada.name = "Eve"


async def test_absence_is_part_of_the_view_of_gets_alone(face: Awaited) -> None:
    with face.cache.memo():
        assert await face.get("a:1", "absent") == "absent"
        assert await face.get_many(["a:1", "a:2"]) == {}
        changed_elsewhere(face, lambda cache: cache.set_many({"a:1": 1, "a:2": 2}))
        assert await face.get("a:1", "absent") == "absent"
        assert await face.get_many(["a:1", "a:2"]) == {}
        assert await face.get_or_load("a:1", face.loader(lambda: "loaded")) == 1
        assert await face.get("a:1") == 1
    assert await face.get_many(["a:1", "a:2"]) == {"a:1": 1, "a:2": 2}


WRITES: dict[str, Callable[[Awaited], Any]] = {
    "set": lambda face: face.set("n:1", 2),
    "set_many": lambda face: face.set_many({"n:1": 2}),
    "incr": lambda face: face.incr("n:1"),
    "write_through": lambda face: face.write_through("n:1", 2, face.loader(lambda value: None)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_own_writes_are_read_back(face: Awaited, write: Callable[[Awaited], Any]) -> None:
    await face.incr("n:1")
    with face.cache.memo():
        assert await face.get("n:1") == 1
        await write(face)
        assert await face.get("n:1") == 2


async def test_an_add_is_read_back(face: Awaited) -> None:
    with face.cache.memo():
        assert await face.get("n:1") is None
        assert await face.add("n:1", 1)
        assert await face.get("n:1") == 1


DROPS: dict[str, Callable[[Awaited], Any]] = {
    "delete": lambda face: face.delete("a:1"),
    "delete_many": lambda face: face.delete_many(key for key in ["a:1"]),
    "invalidate_tags": lambda face: face.invalidate_tags("t"),
    "clear": lambda face: face.clear(),
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
async def test_own_invalidations_are_read_back(face: Awaited, drop: Callable[[Awaited], Any]) -> None:
    await face.set("a:1", 1, tags=["t"])
    with face.cache.memo():
        assert await face.get("a:1") == 1
        await drop(face)
        assert await face.get("a:1") is None
        assert await face.get_or_load("a:1", face.loader(lambda: 2)) == 2


async def test_a_refresh_replaces_what_was_seen(face: Awaited) -> None:
    numbers = iter(range(9))

    @face.cache.cached("f:{n}")
    @face.loader
    def function(n: int) -> int:
        return next(numbers)

    call, refresh = face.awaited(function), face.awaited(function.refresh)
    with face.cache.memo():
        assert [await call(1), await refresh(1), await call(1)] == [0, 1, 1]
        with face.cache.bypass():
            assert [await call(1), await call(1)] == [2, 3]
        assert await call(1) == 3
        with face.cache.disabled():
            assert await call(1) == 4
        assert await call(1) == 3


async def test_two_types_of_one_key_are_two_views(face: Awaited) -> None:
    await face.set("a:1", [1])
    with face.cache.memo():
        assert await face.get("a:1", type=str) is None
        assert await face.get("a:1", type=list[int]) == [1]
        assert await face.get("a:1") == [1]
        assert await face.get("a:1", type=str) is None


async def test_inner_blocks_share_the_outermost(face: Awaited) -> None:
    await face.set("a:1", 1)
    with face.cache.memo():
        with face.cache.memo():
            assert await face.get("a:1") == 1
        changed_elsewhere(face, lambda cache: cache.set("a:1", 2))
        with face.cache.memo():
            assert await face.get("a:1") == 1
        assert await face.get("a:1") == 1
    assert await face.get("a:1") == 2
    assert face.cache._parts.core.near.until != NEVER


async def test_the_oldest_of_many_leave_first(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 1})
    with face.cache.memo():
        await face.get("a:1")
        await face.get("a:2")
        await face.get_many([f"b:{n}" for n in range(MOST - 1)])
        changed_elsewhere(face, lambda cache: cache.set_many({"a:1": 2, "a:2": 2}))
        assert await face.get("a:2") == 1
        assert await face.get("a:1") == 2


async def test_others_are_not_touched(face: Awaited) -> None:
    await face.set("a:1", 1)
    with face.cache.memo():
        await face.get("a:1")
        got: list[Any] = []
        changed_elsewhere(face, lambda cache: cache.set("a:1", 2))
        changed_elsewhere(face, lambda cache: got.append(cache.get("a:1")))
        assert got == [2]


async def test_hits_of_the_memo_are_counted_as_near_ones(face: Awaited) -> None:
    await face.set("a:1", 1)
    with face.cache.memo():
        await face.get("a:1")
        before = face.cache.stats().hits
        await face.get("a:1")
        assert face.cache.stats().hits == before + 1


async def test_a_transaction_inside_keeps_its_changes_apart(face: Awaited) -> None:
    await face.set_many({"a:1": 1, "a:2": 2})
    with face.cache.memo():
        assert await face.get_many(["a:1", "a:3"]) == {"a:1": 1}
        async with face.transaction():
            assert await face.get_or_load("b:1", face.loader(lambda: "not committed")) == "not committed"
            load_many = face.loader(lambda keys: dict.fromkeys(keys, "not committed"))
            await face.get_or_load_many(["b:2"], load_many)
            await face.delete("a:1")
            await face.set("a:3", 3)
            assert await face.get_many(["a:1", "a:2", "a:3"]) == {"a:2": 2, "a:3": 3}
            changed_elsewhere(face, lambda cache: cache.set("a:2", "new"))
            assert await face.get("a:2") == 2
        assert await face.get_many(["a:1", "a:2", "a:3", "b:1", "b:2"]) == {"a:2": 2, "a:3": 3}


async def test_a_fork_goes_on_with_the_view(face: Awaited) -> None:
    await face.set("a:1", 1)
    with face.cache.memo():
        await face.get("a:1")
        face.cache._parts.core.after_fork()
        changed_elsewhere(face, lambda cache: cache.set("a:1", 2))
        assert await face.get("a:1") == 1
    assert await face.get("a:1") == 2
    assert face.cache._parts.core.near.until != NEVER


# Tasks


async def test_tasks_share_the_block_they_were_started_in() -> None:
    cache = AsyncCache("memory://", observers=())
    await cache.set("a:1", 1)
    with cache.memo():
        assert await asyncio.create_task(cache.get("a:1")) == 1
        await asyncio.to_thread(lambda: None)
        changed_elsewhere(Awaited(cache), lambda sync: sync.set("a:1", 2))
        both: Any = await asyncio.gather(cache.get("a:1"), cache.get("a:1"))
        assert both == [1, 1]


async def test_a_task_that_outlives_the_block_has_no_view_any_more() -> None:
    cache, ended = AsyncCache("memory://", observers=()), asyncio.Event()
    await cache.set("a:1", 1)

    async def work() -> list[int]:
        first = await cache.get("a:1")
        await ended.wait()
        return [first, await cache.get("a:1")]

    with cache.memo():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    await cache.set("a:1", 2)
    ended.set()
    assert await task == [1, 2]


async def test_a_load_that_was_joined_is_remembered_too() -> None:
    cache, go = AsyncCache("memory://", observers=()), asyncio.Event()

    async def load() -> list[int]:
        await go.wait()
        return [1]

    async def request() -> list[Any]:
        with cache.memo():
            first = await cache.get_or_load("a:1", load)
            first.append(9)
            changed_elsewhere(Awaited(cache), lambda sync: sync.set("a:1", [2]))
            return [first, await cache.get_or_load("a:1", load), await cache.get("a:1")]

    tasks = [asyncio.create_task(request()) for _ in range(3)]
    await asyncio.sleep(0.01)
    go.set()
    assert await asyncio.gather(*tasks) == [[[1, 9], [1], [1]]] * 3


async def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    """A task of the request reads the old value while another one deletes the key."""
    cache, read, go = AsyncCache("memory://", observers=(), near=None), asyncio.Event(), asyncio.Event()

    async def load() -> str:
        read.set()
        await go.wait()
        return "old"

    with cache.memo():
        task = asyncio.create_task(cache.get_or_load("a:1", load))
        await read.wait()
        await cache.delete("a:1")
        go.set()
        assert await task == "old"
        assert await cache.get("a:1") is None
