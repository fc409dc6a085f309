"""The near store under many threads: no torn value, no stale fill, no bound exceeded, no count lost."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache._core.missing import MISS
from nearcache.near.store import ENTRY_OVERHEAD, Limit, Store
from tests.unit.near.helpers import FAR, frequent_switches

KEYS = [f"users:{number}" for number in range(40)]
ROUNDS = 1_500


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    with frequent_switches():
        yield


def together(*jobs: Callable[[], None]) -> None:
    """Run the jobs at the same time, and raise the first error of any."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            start.wait(10)
            job()
        except BaseException as error:  # raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
        assert not thread.is_alive()
    for error in errors:
        raise error


def consistent(store: Store) -> bool:
    """Tell whether what the store says it holds is what it holds."""
    slots = store._slots.values()
    return store.size_bytes == sum(slot.size for slot in slots) and store.entries == len(slots)


def test_a_value_is_never_copied_by_another_values_copier():
    store = Store(Limit(entries=20), lambda: 0.0)

    def copier(mark: int) -> Callable[[object], object]:
        return lambda state: (mark, state)

    def write() -> None:
        for number in range(ROUNDS):
            key = random.choice(KEYS)
            store.keep(key, number, copier(number), FAR, 10, store.stamp(key))

    def read() -> None:
        for _ in range(4 * ROUNDS):
            found: Any = store.lookup(random.choice(KEYS))
            assert found is MISS or found[0] == found[1]

    together(write, write, read, read)


def test_a_value_is_never_served_for_another_declared_type():
    store = Store(Limit(), lambda: 0.0)
    schemas = [object(), object()]

    def write() -> None:
        for number in range(ROUNDS):
            schema = schemas[number % 2]
            store.keep("users:1", schema, None, FAR, 10, store.stamp("users:1"), schema)

    def read() -> None:
        for number in range(4 * ROUNDS):
            schema = schemas[number % 2]
            assert store.lookup_as(schema, "users:1") in (MISS, schema)

    together(write, write, read, read)


def test_no_reader_that_starts_after_an_acknowledged_write_gets_an_older_value():
    store = Store(Limit(entries=30), lambda: 0.0)
    engine = dict.fromkeys(KEYS, 0)
    acknowledged = dict.fromkeys(KEYS, 0)

    def write() -> None:
        for number in range(1, ROUNDS):
            key = random.choice(KEYS)
            engine[key] = number
            store.changed((key,))
            acknowledged[key] = number

    def read() -> None:
        for _ in range(4 * ROUNDS):
            key = random.choice(KEYS)
            least = acknowledged[key]
            found: Any = store.lookup(key)
            if found is MISS:
                stamp = store.stamp(key)
                found = engine[key]
                store.keep(key, found, None, FAR, 10, stamp)
            assert found >= least

    together(write, read, read, read)


def test_crossing_writers_leave_the_engines_value_or_none():
    store = Store(Limit(), lambda: 0.0)
    engine: dict[str, int] = {}

    def write(first: int) -> Callable[[], None]:
        def job() -> None:
            for number in range(first, ROUNDS * 3, 3):
                key = KEYS[number % 3]
                stamp = store.stamp(key)
                engine[key] = number
                store.wrote(key, number, None, FAR, 10, stamp)

        return job

    together(write(0), write(1), write(2), write(0))
    assert all(store.lookup(key) in (MISS, engine[key]) for key in KEYS[:3])


def test_bounds_hold_at_every_moment():
    most = 20 * (ENTRY_OVERHEAD + 60)
    store = Store(Limit(entries=25, bytes=most), lambda: 0.0)
    done = threading.Event()

    def write() -> None:
        for _ in range(ROUNDS):
            key = random.choice(KEYS)
            store.keep(key, key, None, FAR, random.randrange(3 * ENTRY_OVERHEAD), store.stamp(key))
            if random.random() < 0.1:
                store.changed((key,))
        done.set()

    def watch() -> None:
        while not done.is_set():
            assert store.size_bytes <= most
            assert store.entries <= 25

    together(write, write, watch)
    assert consistent(store)


def test_everything_at_once_leaves_the_store_consistent():
    store = Store(Limit(entries=25), lambda: 0.0, source=True)
    actions: list[Callable[[str], object]] = [
        lambda key: store.put(key, b"raw", FAR),
        lambda key: store.keep(key, key, None, FAR, 10, store.stamp(key)),
        store.lookup,
        store.raw,
        store.discard,
        store.changed,
        lambda key: store.mutate(key, lambda raw, _held: (b"more" + (raw or b""), FAR)),
        lambda _key: store.keys("users:"),
        lambda key: store.clear() if key == KEYS[0] else None,
    ]

    def work() -> None:
        for _ in range(ROUNDS):
            random.choice(actions)(random.choice(KEYS))

    together(work, work, work, work)
    assert consistent(store)
    assert set(store.keys()) == {key for key in KEYS if store.raw(key) is not None}


def test_mutations_of_one_record_are_atomic():
    store = Store(Limit(), lambda: 0.0, source=True)

    def count() -> None:
        for _ in range(ROUNDS):
            store.mutate("users:1", lambda raw, _held: (str(int(raw or b"0") + 1).encode(), FAR))

    together(count, count, count)
    assert store.raw("users:1") == str(3 * ROUNDS).encode()


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="counts need the interpreter lock")
def test_no_near_hit_is_lost():
    store = Store(Limit(), lambda: 0.0)
    store.keep("users:1", "value", None, FAR, 10, store.stamp("users:1"))

    def read() -> None:
        for _ in range(4 * ROUNDS):
            store.lookup("users:1")

    together(read, read, read, read)
    assert store.tallies()["users"].hits == 16 * ROUNDS
