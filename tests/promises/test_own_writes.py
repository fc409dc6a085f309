"""What a process has written it reads back, in both flavours, whatever its other threads and tasks load meanwhile."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import Cache, Entry
from nearcache._engine.core import Core
from nearcache._engine.write import Writer
from nearcache.backends.memory import Ledger
from nearcache.backends.redis import backend as redis_backend
from nearcache.backends.transport.stream import Landing
from nearcache.near.store import Store
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import (
    PATIENCE,
    ROUNDS,
    Crowd,
    SlowSource,
    at_once,
    broken,
    dice,
    eventually,
    noticed,
    recorded,
    unannounced,
    values,
)

Key = Callable[[], str]
Verb = Callable[[Cache, str], Any]


@pytest.fixture(params=["memory", "valkey", "hazelcast"])
def url(request: pytest.FixtureRequest) -> str:
    """The kinds of engines: one in this process, one that tells of changes, and one where writers announce them."""
    return url_of(request.param, request)


# Ways to write "new", and to read: by each face of the cache.


async def _set(cache: Cache, key: str) -> None:
    await cache.aio.set(key, "new")


async def _store(value: str) -> None:
    """Write the source, which is ahead of this test."""


def _decorated(cache: Cache, key: str) -> None:
    @cache.cached("{entity}:{number}")
    def function(entity: str, number: str) -> str:
        return "never called"

    function.set("new", *key.split(":"))


WRITES: dict[str, Verb] = {
    "set": lambda cache, key: cache.set(key, "new"),
    "set by a task": lambda cache, key: asyncio.run(_set(cache, key)),
    "set_many": lambda cache, key: cache.set_many({key: "new", f"{key}:b": 1}),
    "set of a decorated function": _decorated,
    "write_through": lambda cache, key: cache.write_through(key, "new", lambda value: None),
    "write_through by a task": lambda cache, key: asyncio.run(cache.aio.write_through(key, "new", _store)),
    "delete": lambda cache, key: cache.delete(key),
    "delete by a task": lambda cache, key: asyncio.run(cache.aio.delete(key)),
    "delete_many": lambda cache, key: cache.delete_many([key, f"{key}:b"]),
}
READS: dict[str, Verb] = {
    "get": lambda cache, key: cache.get(key),
    "get by a task": lambda cache, key: asyncio.run(cache.aio.get(key)),
    "get_many": lambda cache, key: cache.get_many([key]).get(key),
    "get_entry": lambda cache, key: entry.value if isinstance(entry := cache.get_entry(key), Entry) else None,
    "get_or_load": lambda cache, key: cache.get_or_load(key, lambda: "new"),
}


def is_read_back(cache: Cache, key: str) -> None:
    """Read in every way; what was there before the write must never come."""
    got = {name: read(cache, key) for name, read in READS.items()}
    assert "old" not in got.values(), f"an older value than the one written: {got}"


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_read_back_at_once_by_every_verb_of_both_faces(
    any_url: str, new_cache: NewCache, fresh_key: Key, write: Verb
) -> None:
    for near in ("1MB", None):
        cache, key = new_cache(any_url, near=near), fresh_key()
        cache.set(key, "old")
        assert asyncio.run(cache.aio.get(key)) == "old"
        write(cache, key)
        stored = cache.exists(key)
        got = [read(cache, key) for name, read in READS.items() if name != "get_or_load"]
        assert got == (["new"] * 4 if stored else [None] * 4)
        is_read_back(cache, key)


# A load that began before the write and is stored at the worst moment


class AtTheWorstMoment:
    """Does something once, right before or after this thread asks the engine for an operation."""

    def __init__(self, operation: str, do: Callable[[], Any]) -> None:
        self.operation = operation
        self.do = do
        self.done = False
        self.thread = threading.get_ident()

    def __call__(self, operation: str) -> None:
        """Look whether this is the moment."""
        if operation == self.operation and not self.done and threading.get_ident() == self.thread:
            self.done = True
            at_once(self.do)


def load_old(cache: Cache, key: str, by_a_task: bool) -> str:
    """Load what is old as soon as it has been read from the source."""

    async def aload() -> str:
        return "old"

    if by_a_task:
        return asyncio.run(cache.aio.get_or_load(key, aload))
    return cache.get_or_load(key, lambda: "old")


def write_crosses_a_store(cache: Cache, key: str, write: Verb, moment: str, by_a_task: bool) -> None:
    """Write while the result of an older load is on its way to the engine."""
    with recorded(cache, cache.aio) as recorder:
        setattr(recorder, moment, AtTheWorstMoment("fill", lambda: write(cache, key)))
        assert load_old(cache, key, by_a_task) == "old"
    is_read_back(cache, key)


@pytest.mark.parametrize("by_a_task", [False, True], ids=["thread", "task"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_beats_a_store_that_is_under_way(
    url: str, new_cache: NewCache, fresh_key: Key, write: Verb, moment: str, by_a_task: bool
) -> None:
    write_crosses_a_store(new_cache(url), fresh_key(), write, moment, by_a_task)


def reads_during_a_crossed_store(cache: Cache, key: str, write: Verb) -> None:
    """Read while the result of an older load is still on its way, after the write was acknowledged."""
    read = threading.Event()

    def write_and_let_it_be_overwritten() -> None:
        write(cache, key)
        threads.append(Crowd().threads(1, read_before_the_end).start())

    def read_before_the_end() -> None:
        eventually(lambda: overwritten.is_set(), "the older value has reached the engine")
        try:
            is_read_back(cache, key)
        finally:
            read.set()

    def hold_until_read() -> None:
        overwritten.set()
        assert read.wait(PATIENCE)

    overwritten, threads = threading.Event(), list[Crowd]()
    with recorded(cache, cache.aio) as recorder:
        recorder.before = AtTheWorstMoment("fill", write_and_let_it_be_overwritten)
        recorder.after = AtTheWorstMoment("fill", hold_until_read)
        assert load_old(cache, key, by_a_task=False) == "old"
    values(threads[0].finish())
    is_read_back(cache, key)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_read_back_while_an_older_store_is_under_way(
    url: str, new_cache: NewCache, fresh_key: Key, write: Verb
) -> None:
    reads_during_a_crossed_store(new_cache(url), fresh_key(), write)


def load_inside_a_write(cache: Cache, key: str, write: Verb) -> None:
    """Let a load begin before the write has reached the engine, and end after that, before the writer knows."""
    source = SlowSource(lambda: "old")
    crowd = Crowd().threads(1, lambda: cache.get_or_load(key, source.load))

    def begin() -> None:
        crowd.start()
        eventually(lambda: source.loads, "the load has begun")

    def end() -> None:
        source.open()
        assert values(crowd.finish()) == ["old"]

    with recorded(cache, cache.aio) as recorder:
        recorder.before, recorder.after = AtTheWorstMoment("set", begin), AtTheWorstMoment("set", end)
        write(cache, key)
    is_read_back(cache, key)


@pytest.mark.parametrize("name", ["set", "set by a task", "set of a decorated function"])
def test_a_load_inside_a_write_is_not_stored_over_it(url: str, new_cache: NewCache, fresh_key: Key, name: str) -> None:
    load_inside_a_write(new_cache(url), fresh_key(), WRITES[name])


def write_crosses_a_read(cache: Cache, key: str, write: Verb, read: Verb) -> None:
    """Write after a read has got its answer from the engine, and before it is kept near."""
    other = Cache(cache._parts.core.options.url, namespace=cache._parts.core.options.namespace, observers=())
    holder = cache if cache._parts.core.records is not None else other
    holder.set(key, "old")
    if holder is cache:
        cache._parts.core.near.changed((key,))
    with recorded(cache, cache.aio) as recorder:
        for operation in ("get", "get_many"):
            recorder.after = AtTheWorstMoment(operation, lambda: write(cache, key))
            read(cache, key)
    is_read_back(cache, key)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_read_that_crosses_a_write_is_not_kept_near(
    url: str, new_cache: NewCache, fresh_key: Key, write: Verb, read: Verb
) -> None:
    write_crosses_a_read(new_cache(url), fresh_key(), write, read)


def test_a_near_tier_that_takes_any_fill_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with unannounced(), broken(Store, "stamp", lambda *_: 0), broken(Core, "number", lambda *_: 0), noticed():
        write_crosses_a_read(new_cache(url), fresh_key(), WRITES["set"], READS["get"])


def write_beats_a_load(cache: Cache, key: str, write: Verb) -> None:
    """Write while an older load runs."""
    source = SlowSource(lambda: "old")
    crowd = Crowd().threads(1, lambda: cache.get_or_load(key, source.load)).start()
    eventually(lambda: source.loads, "the load has begun")
    write(cache, key)
    source.open()
    assert values(crowd.finish()) == ["old"]
    is_read_back(cache, key)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_load_that_began_before_a_write_is_not_stored_after_it(
    url: str, new_cache: NewCache, fresh_key: Key, write: Verb
) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        write_beats_a_load(cache, fresh_key(), write)


@pytest.mark.parametrize("by_a_task", [False, True], ids=["thread", "task"])
def test_an_add_and_a_count_beat_older_loads(url: str, new_cache: NewCache, fresh_key: Key, by_a_task: bool) -> None:
    cache = new_cache(url)
    writes: list[Verb] = [lambda cache, key: cache.add(key, "new"), lambda cache, key: cache.incr(key)]
    for write in writes:
        write_beats_a_load(cache, fresh_key(), write)
        write_crosses_a_store(cache, fresh_key(), write, "before", by_a_task)


def test_a_delete_that_leaves_the_lease_is_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for name in ("delete", "delete by a task", "delete_many"):
        with broken(redis_backend, "lease_of", lambda key: f"{key}~not-it"), noticed():
            write_beats_a_load(new_cache(valkey_url), fresh_key(), WRITES[name])
        with broken(Ledger, "revoke", lambda ledger, key: None), noticed():
            write_beats_a_load(new_cache("memory://"), fresh_key(), WRITES[name])


# At random


BREATH = 1e-4
"""Seconds in which a reader lets the others have the interpreter."""


class Numbers:
    """A source whose number only grows, its cache, and one who writes it and must read its writes back."""

    def __init__(self, cache: Cache, key: str, luck: random.Random) -> None:
        self.cache = cache
        self.key = key
        self.number = 0
        self.over = threading.Event()
        self._luck = luck

    def load(self) -> int:
        """Read the source slowly, as a database does: what is returned may be old by then."""
        number = self.number
        time.sleep(self._luck.random() * 1e-3)
        return number

    async def aload(self) -> int:
        """Read the source slowly."""
        number = self.number
        await asyncio.sleep(self._luck.random() * 1e-3)
        return number

    def read(self) -> None:
        """Read, load and fill until it is over."""
        while not self.over.is_set():
            self.cache.get_or_load(self.key, self.load)
            self.cache.get(self.key)
            time.sleep(BREATH)

    async def aread(self) -> None:
        """Read, load and fill until it is over."""
        while not self.over.is_set():
            await self.cache.aio.get_or_load(self.key, self.aload)
            await asyncio.sleep(BREATH)

    def write(self, times: int) -> None:
        """Write new numbers, and read each one back by both faces."""
        cache, key, luck = self.cache, self.key, self._luck
        try:
            with asyncio.Runner() as runner:
                for _ in range(times):
                    luck.choice((self._set, self._delete, self._write_through, lambda: runner.run(self._aset())))()
                    assert cache.get(key, self.number) == self.number
                    assert cache.get_or_load(key, self.load) == self.number
                    assert runner.run(cache.aio.get(key, self.number)) == self.number
                    assert runner.run(cache.aio.get_or_load(key, self.aload)) == self.number
        finally:
            self.over.set()

    def _set(self) -> None:
        self.number += 1
        self.cache.set(self.key, self.number)

    def _delete(self) -> None:
        self.number += 1
        self.cache.delete(self.key)

    def _write_through(self) -> None:
        self.cache.write_through(self.key, self.number + 1, self._store)

    def _store(self, number: int) -> None:
        self.number = number

    async def _aset(self) -> None:
        self.number += 1
        await self.cache.aio.set(self.key, self.number)


def numbers_only_grow(cache: Cache, key: str, luck: random.Random, times: int = 10) -> None:
    """Let one write and read back, while others read, load and fill."""
    numbers = Numbers(cache, key, luck)
    readers = Crowd().threads(3, numbers.read).tasks(3, numbers.aread, loops=1).start()
    try:
        at_once(lambda: numbers.write(times), within=60.0)
    finally:
        values(readers.finish())


def test_own_writes_are_read_back_among_readers_that_fill(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, luck = new_cache(url), dice()
    for _ in range(ROUNDS // 4):
        numbers_only_grow(cache, fresh_key(), luck)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_own_writes_are_read_back_for_long(any_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, luck = new_cache(any_url), dice()
    for _ in range(5):
        numbers_only_grow(cache, fresh_key(), luck, times=300)


def test_a_cancelled_write_never_lands_on_a_later_one(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    """So large a value that it is still on its way when the next one is written, over another connection."""
    cache, key = new_cache(valkey_url, near=None), fresh_key()

    async def round_of_two() -> None:
        await cache.aio.open()
        cache.open()
        for _ in range(5):
            first = asyncio.create_task(cache.aio.set(key, b"o" * 10_000_000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            cache.set(key, "new")
            for _ in range(20):
                assert await cache.aio.get(key) == "new"

    asyncio.run(round_of_two())


def test_a_write_that_does_not_wait_when_cancelled_is_noticed(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    with broken(Landing, "cancel", asyncio.Future.cancel), noticed():
        test_a_cancelled_write_never_lands_on_a_later_one(valkey_url, new_cache, fresh_key)


def interrupted_after_the_engines_answer(cache: Cache, key: str) -> None:
    """Interrupt a write while somebody has read and kept the old value."""
    cache.set(key, "old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with broken(Store, "wrote", interrupt), recorded(cache) as engine:
        engine.before = lambda operation: cache.get(key) if operation == "set" else None
        with pytest.raises(KeyboardInterrupt):
            cache.set(key, "new")
    assert cache.get(key) in ("new", None)


def test_an_interrupted_write_leaves_no_old_value(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    interrupted_after_the_engines_answer(new_cache(valkey_url), fresh_key())


def test_an_interrupt_that_is_not_noted_is_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with unannounced(), broken(Writer, "_failed", lambda *_: None), noticed():
        interrupted_after_the_engines_answer(new_cache(valkey_url), fresh_key())
