"""The near store holds no more than it may."""

import gc
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from nearcache import Cache
from nearcache._core.missing import MISS
from nearcache.near.store import ENTRY_OVERHEAD, Limit, Store
from tests.unit.near.helpers import FAR, Clock, keep


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source(clock):
    return Store(Limit(), clock, source=True)


def test_entries_are_bounded_and_evictions_counted():
    store = Store(Limit(entries=2), Clock())
    for key in ("users:1", "orders:1", "orders:2"):
        keep(store, key)
    assert (store.entries, store.evictions) == (2, 1)


def test_sizes_count_key_value_record_and_bookkeeping(source):
    source.put("users:1", b"x" * 50, FAR)
    assert source.size_bytes == ENTRY_OVERHEAD + 7 + 50
    keep(source, "users:1", size=30)
    assert source.size_bytes == ENTRY_OVERHEAD + 7 + 50 + 30
    source.put("users:1", b"x", FAR)
    assert source.size_bytes == ENTRY_OVERHEAD + 7 + 1


def test_bytes_are_bounded():
    store = Store(Limit(bytes=10 * (ENTRY_OVERHEAD + 107)), Clock())
    for number in range(30):
        assert keep(store, f"users:{number % 10}{number}", size=100 - len(str(number % 10)))
        assert store.size_bytes <= 10 * (ENTRY_OVERHEAD + 107)
    assert store.entries >= 9


def test_a_value_larger_than_the_limit_is_not_kept():
    store = Store(Limit(bytes=5_000), Clock())
    keep(store, "users:1")
    assert not keep(store, "users:2", size=5_000)
    assert (store.lookup("users:1"), store.lookup("users:2"), store.evictions) == ("value", MISS, 0)


def test_a_served_form_that_does_not_fit_leaves_the_record():
    store = Store(Limit(bytes=5_000), Clock(), source=True)
    store.put("users:1", b"raw", FAR)
    assert not keep(store, "users:1", size=5_000)
    assert store.raw("users:1") == b"raw"


def test_a_record_larger_than_the_limit_replaces_the_old_one_by_nothing():
    store = Store(Limit(bytes=5_000), Clock(), source=True)
    store.put("users:1", b"old", FAR)
    store.put("users:1", b"x" * 5_000, FAR)
    assert (store.raw("users:1"), store.size_bytes, store.evictions) == (None, 0, 1)


def test_a_record_that_grows_makes_room_and_stays():
    store = Store(Limit(bytes=3_000), Clock(), source=True)
    for key in ("users:1", "users:2", "users:3"):
        store.put(key, b"x" * 100, FAR)
    store.put("users:1", b"x" * 2_000, FAR)
    assert store.raw("users:1") == b"x" * 2_000
    assert store.size_bytes <= 3_000


@pytest.mark.parametrize("limit", [Limit(entries=0), Limit(bytes=0)])
def test_a_store_without_room_keeps_nothing(limit):
    store = Store(limit, Clock(), source=True)
    store.put("users:1", b"raw", FAR)
    assert (store.raw("users:1"), store.entries, store.size_bytes) == (None, 0, 0)
    assert not keep(Store(limit, Clock()), "users:1")


def test_both_limits_hold():
    store = Store(Limit(entries=3, bytes=4 * (ENTRY_OVERHEAD + 20)), Clock())
    for number in range(9):
        keep(store, f"users:{number}")
        assert store.entries <= 3
    keep(store, "users:big", size=2 * ENTRY_OVERHEAD)
    assert store.size_bytes <= 4 * (ENTRY_OVERHEAD + 20)


def test_an_entry_that_expired_before_it_had_to_leave_is_no_eviction(clock):
    store = Store(Limit(entries=1), clock)
    keep(store, "users:1", deadline=clock.now + 5)
    clock.now += 5
    keep(store, "users:2")
    assert (store.evictions, store.expirations) == (0, 1)


SHAPES: dict[str, Callable[[int], object]] = {
    "numbers": lambda n: n,
    "texts": lambda n: f"{n:0100}",
    "rows": lambda n: {"id": n, "name": f"{n:026}", "email": f"{n:027}", "score": n * 1.5, "known": True},
    "lists of texts": lambda n: [f"{n}-{each}" for each in range(1_000)],
    "large dicts": lambda n: {str(each): n * 1_000 + each for each in range(1_000)},
    "tuples of numbers": lambda n: tuple(range(n * 1_000, n * 1_000 + 1_000)),
    "sets": lambda n: set(range(n * 1_000, n * 1_000 + 1_000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_a_limit_in_bytes_holds_for_what_the_process_really_takes(make: Callable[[int], object]):
    small = sys.getsizeof(make(1)) < 1_000
    limit = 2_000_000 if small else 4_000_000
    cache = Cache("memory://", near=f"{limit}B", observers=())
    cache.set("warm:1", 1)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(6_000 if small else 300):
            cache.set(f"shapes:{n}", make(n))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.stats().near_bytes == pytest.approx(limit, rel=0.05)
    assert held == pytest.approx(limit, rel=0.12)
