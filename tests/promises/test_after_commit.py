"""What a transaction changes reaches the cache after the commit, and not at all after a rollback."""

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import Cache
from nearcache._engine.memo import MemoBatches, MemoLoads, MemoWriter
from nearcache._engine.transaction import Transaction, TransactionBatches, TransactionLoads, TransactionWriter
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Crowd,
    SignalAt,
    at_once,
    broken,
    dice,
    interrupted,
    noticed,
    values,
)

Key = Callable[[], str]
Verb = Callable[[Cache, str], Any]


class RollBack(Exception):
    """Ends a transaction of the database."""


def roll_back() -> None:
    """End a transaction of the database."""
    raise RollBack


@contextmanager
def rolled_back() -> Iterator[None]:
    """Demand that the block rolls back."""
    with pytest.raises(RollBack):
        yield


class Database:
    """Rows that others see when they are committed; the thread that changes them sees them before."""

    def __init__(self, **rows: str) -> None:
        self.rows: dict[str, str] = dict(rows)
        self._mine = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is written inside, or drop it if the block raises."""
        self._mine.rows = dict[str, str]()
        try:
            yield
            self.rows |= self._mine.rows
        finally:
            self._mine.rows = {}

    def write(self, key: str, value: str) -> None:
        """Write a row."""
        self._mine.rows[key] = value

    def read(self, key: str) -> str:
        """Read a row."""
        return getattr(self._mine, "rows", {}).get(key) or self.rows[key]


# Invalidations


async def _delete(cache: Cache, key: str) -> None:
    await cache.aio.delete(key)


INVALIDATIONS: dict[str, Verb] = {
    "delete": lambda cache, key: cache.delete(key),
    "delete_many": lambda cache, key: cache.delete_many([key]),
    "invalidate_tags": lambda cache, key: cache.invalidate_tags("rows"),
    "clear": lambda cache, key: cache.clear(),
    "invalidate of a decorated function": lambda cache, key: decorated(cache).invalidate(*key.split(":")),
    "by a task": lambda cache, key: asyncio.run(_delete(cache, key)),
}


def decorated(cache: Cache) -> Any:
    """Return a function that has the keys of this file."""

    @cache.cached("{entity}:{number}", ignore=())
    def function(entity: str, number: str) -> str:
        return "never called"

    return function


def reads_before_the_commit(cache: Cache, key: str, invalidate: Verb) -> None:
    """Have somebody load the row after it was invalidated and before it is committed, and nothing stay of that."""
    database = Database(**{key: "old"})

    def read() -> str:
        return cache.get_or_load(key, lambda: database.read(key), tags=["rows"])

    assert read() == "old"
    with cache.transaction(), database.transaction():
        database.write(key, "new")
        invalidate(cache, key)
        assert at_once(read) == "old"
        mine = read()
    assert (read(), at_once(read)) == ("new", "new"), "an old row is cached after the commit"
    assert mine == "new", "what the block changed was not read back inside"


@pytest.mark.parametrize("invalidate", INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_a_load_before_the_commit_does_not_survive_it(
    any_url: str, new_cache: NewCache, fresh_key: Key, invalidate: Verb
) -> None:
    for near in ("1MB", None):
        reads_before_the_commit(new_cache(any_url, near=near), fresh_key(), invalidate)


def nothing_is_sent_after_a_rollback(cache: Cache, key: str, invalidate: Verb) -> None:
    """Roll back, and have what is cached stay: it is right."""
    cache.set(key, "old", tags=["rows"])
    with rolled_back(), cache.transaction():
        invalidate(cache, key)
        cache.set(f"{key}:b", "never committed")
        roll_back()
    assert cache.get_many([key, f"{key}:b"]) == {key: "old"}, "the rollback reached the cache"


@pytest.mark.parametrize("invalidate", INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_a_rollback_changes_nothing(any_url: str, new_cache: NewCache, fresh_key: Key, invalidate: Verb) -> None:
    nothing_is_sent_after_a_rollback(new_cache(any_url), fresh_key(), invalidate)


# Loads

LOADS: dict[str, Callable[[Cache, str, Callable[[], str]], Any]] = {
    "get_or_load": lambda cache, key, load: cache.get_or_load(key, load),
    "get_or_load_many": lambda cache, key, load: cache.get_or_load_many([key], lambda _: {key: load()})[key],
}


def loads_inside_stay_inside(cache: Cache, key: str, how: Callable[..., Any]) -> None:
    """Load what is never committed, and have nobody else get it, while the block is open or later."""
    database = Database(**{key: "old"})

    def read() -> str:
        return str(how(cache, key, lambda: database.read(key)))

    with rolled_back(), cache.transaction(), database.transaction():
        database.write(key, "never committed")
        assert read() == "never committed"
        assert at_once(read) == "old", "a row that is not committed was handed out"
        roll_back()
    assert read() == "old", "a row that was rolled back is cached"


@pytest.mark.parametrize("how", LOADS.values(), ids=LOADS)
def test_a_load_inside_is_for_its_caller_alone(
    any_url: str, new_cache: NewCache, fresh_key: Key, how: Callable[..., Any]
) -> None:
    for near in ("1MB", None):
        loads_inside_stay_inside(new_cache(any_url, near=near), fresh_key(), how)


# In a crowd


def the_cache_follows_the_database(cache: Cache, key: str) -> None:
    """Write and roll back by turns while others read; in the end the cache holds what was committed last."""
    random, database, done = dice(), Database(**{key: "0"}), threading.Event()

    def read() -> str:
        return cache.get_or_load(key, lambda: database.read(key))

    def read_on() -> None:
        while not done.wait(0.0002):
            assert read() in committed, "a row that was rolled back was handed out"

    def write() -> None:
        try:
            for number in range(1, 40):
                try:
                    with cache.transaction(), database.transaction():
                        database.write(key, f"{number}")
                        cache.delete(key)
                        read()
                        if random.random() < 0.5:
                            roll_back()
                        committed.add(f"{number}")
                except RollBack:
                    pass
                assert read() == database.rows[key], "an old row is cached after the commit"
        finally:
            done.set()

    committed = {"0"}
    values(Crowd().threads(3, read_on).threads(1, write).start().finish())
    assert read() == database.rows[key]


def test_the_cache_follows_the_database(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for _ in range(ROUNDS // 4):
        the_cache_follows_the_database(new_cache(url), fresh_key())


# Interrupts


@interrupted
def test_an_interrupt_leaves_no_block_open_and_no_half_sent_changes(new_cache: NewCache, fresh_key: Key) -> None:
    """Wherever it comes, all changes are sent or owed, or none is: mostly the former once the block has ended."""
    cache, place, where, kept = new_cache("memory://"), 0, "anywhere", 0
    while where:
        place += 1
        key = fresh_key()
        cache.set_many({key: "old", f"{key}:b": "old"})
        cache.set(f"{key}:t", "old", tags=["rows"])
        where = SignalAt(place).run(functools.partial(_change, cache, key))
        assert cache._parts.core.transactions.now() is None, f"the block is still open after {where}"
        left = cache.get_many([key, f"{key}:b", f"{key}:t"])
        assert left == {} or len(left) == 3, f"{left} is left after {where}"
        kept += bool(left)
        assert place < 5_000
    assert place > 100
    assert kept < place / 2


def _change(cache: Cache, key: str) -> None:
    with cache.transaction():
        cache.delete_many([key, f"{key}:b"])
        cache.invalidate_tags("rows")


# Negative controls


def test_sending_at_once_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for verb in ("delete", "invalidate"):
        name = "delete" if verb == "delete" else "invalidate_tags"
        with broken(TransactionWriter, verb, getattr(MemoWriter, verb)):
            with noticed("cached after the commit"):
                reads_before_the_commit(new_cache(url), fresh_key(), INVALIDATIONS[name])
            with noticed("the rollback reached the cache"):
                nothing_is_sent_after_a_rollback(new_cache(url), fresh_key(), INVALIDATIONS[name])


def test_keeping_the_changes_after_an_error_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    real_end = Transaction.end

    async def end(transaction: Transaction, writer: Any) -> None:
        transaction._succeeded = True
        await real_end(transaction, writer)

    with broken(Transaction, "end", end), noticed("the rollback reached the cache"):
        nothing_is_sent_after_a_rollback(new_cache(url), fresh_key(), INVALIDATIONS["delete"])


def test_dropping_the_changes_after_a_commit_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    async def end(transaction: Transaction, writer: Any) -> None:
        """Do nothing."""

    with broken(Transaction, "end", end), noticed("cached after the commit"):
        reads_before_the_commit(new_cache(url), fresh_key(), INVALIDATIONS["delete"])


def test_storing_a_load_made_inside_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with broken(TransactionLoads, "get_or_load", MemoLoads.get_or_load), noticed("not committed was handed out"):
        loads_inside_stay_inside(new_cache(url), fresh_key(), LOADS["get_or_load"])
    with broken(TransactionBatches, "get_or_load", MemoBatches.get_or_load), noticed("not committed was handed out"):
        loads_inside_stay_inside(new_cache(url), fresh_key(), LOADS["get_or_load_many"])
