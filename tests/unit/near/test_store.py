"""The near store: what it serves, for how long, and what it refuses to keep."""

import gc
import threading

import pytest

from nearcache._core.missing import MISS
from nearcache.near.stamps import MOST_PASSED
from nearcache.near.store import Limit, Store
from tests.unit.near.helpers import FAR, Clock, keep


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def near(clock):
    return Store(Limit(), clock)


@pytest.fixture
def source(clock):
    return Store(Limit(), clock, source=True)


def test_an_unknown_key_is_missing(near):
    assert near.lookup("users:1") is MISS


@pytest.mark.parametrize("value", [None, False, 0, "", ()])
def test_falsy_values_are_values(near, value):
    keep(near, "users:1", value)
    assert near.lookup("users:1") is value


def test_a_value_is_served_until_its_deadline_and_not_at_it(near, clock):
    keep(near, "users:1", deadline=clock.now + 5)
    clock.now += 4.999
    assert near.lookup("users:1") == "value"
    clock.now += 0.001
    assert near.lookup("users:1") is MISS


def test_a_copier_makes_what_readers_get(near):
    near.keep("users:1", [1], lambda state: list(state), FAR, 10, near.stamp("users:1"))
    first = near.lookup("users:1")
    first.append(2)
    assert near.lookup("users:1") == [1]


def test_a_copier_is_given_the_value_it_was_kept_with(near):
    near.keep("users:1", "old", lambda state: (state, "copied by old"), FAR, 10, near.stamp("users:1"))
    near.keep("users:1", "new", None, FAR, 10, near.stamp("users:1"))
    assert near.lookup("users:1") == "new"


def test_a_value_kept_for_one_declared_type_is_not_served_for_another(near, clock):
    schema, other = object(), object()
    near.keep("users:1", "value", None, clock.now + 5, 10, near.stamp("users:1"), schema)
    assert near.lookup_as(other, "users:1") is MISS
    assert near.lookup_as(None, "users:1") is MISS
    assert near.lookup_as(schema, "users:2") is MISS
    assert near.lookup_as(schema, "users:1") == "value"
    assert near.tallies()["users"].hits == 1
    clock.now += 5
    assert near.lookup_as(schema, "users:1") is MISS


def test_what_is_served_for_a_declared_type_is_copied_too(near):
    near.keep("users:1", [1], lambda state: list(state), FAR, 10, near.stamp("users:1"), schema=None)
    near.lookup_as(None, "users:1").append(2)
    assert near.lookup_as(None, "users:1") == [1]


def test_a_fill_that_crossed_a_change_is_refused(near):
    stamp = near.stamp("users:1")
    near.changed(("users:1",))
    assert not near.keep("users:1", "old", None, FAR, 10, stamp)
    assert near.lookup("users:1") is MISS


def test_a_fill_that_crossed_a_clear_is_refused(near):
    stamp = near.stamp("users:1")
    near.clear()
    assert not near.keep("users:1", "old", None, FAR, 10, stamp)


def test_of_two_reads_that_found_different_records_neither_is_served(near):
    one, two, three = [near.stamp("users:1") for _ in range(3)]
    assert near.keep("users:1", "newer", None, FAR, 10, one, record=7)
    assert near.lookup("users:1") == "newer"
    assert not near.keep("users:1", "older", None, FAR, 10, two, record=6)
    assert near.lookup("users:1") is MISS
    assert not near.keep("users:1", "older", None, FAR, 10, three, record=6), "it may be older than what was served"
    assert near.keep("users:1", "newer", None, FAR, 10, near.stamp("users:1"), record=7)
    assert near.keep("users:1", "newer", None, FAR, 10, near.stamp("users:1"), record=7)
    assert near.lookup("users:1") == "newer"


def test_another_record_replaces_one_that_is_past_its_deadline(near, clock):
    near.keep("users:1", "old", None, clock.now + 1, 10, near.stamp("users:1"), record=1)
    clock.now += 1
    assert near.keep("users:1", "new", None, FAR, 10, near.stamp("users:1"), record=2)
    assert near.lookup("users:1") == "new"


def test_a_change_stops_serving(near):
    keep(near, "users:1")
    near.changed(("users:1",))
    assert near.lookup("users:1") is MISS
    assert near.entries == 0
    assert near.size_bytes == 0


def test_a_written_value_is_served(near):
    stamp = near.stamp("users:1")
    assert near.wrote("users:1", "new", None, FAR, 10, stamp)
    assert near.lookup("users:1") == "new"


def test_a_write_refuses_fills_that_began_before_it(near):
    stamp = near.stamp("users:1")
    near.wrote("users:1", "new", None, FAR, 10, stamp)
    assert not near.keep("users:1", "old", None, FAR, 10, stamp)
    assert near.lookup("users:1") == "new"


def test_of_two_crossing_writes_neither_is_served_after_the_second_ends(near):
    first, second = near.stamp("users:1"), near.stamp("users:1")
    assert near.wrote("users:1", "second", None, FAR, 10, second)
    assert not near.wrote("users:1", "first", None, FAR, 10, first)
    assert near.lookup("users:1") is MISS


def test_a_written_record_of_the_in_process_engine_is_served(source):
    stamp = source.stamp("users:1")
    source.put("users:1", b"new", FAR)
    assert source.wrote("users:1", "new", None, FAR, 3, stamp)
    assert source.lookup("users:1") == "new"


def test_of_two_crossing_puts_neither_is_served(source):
    first, second = source.stamp("users:1"), source.stamp("users:1")
    source.put("users:1", b"first", FAR)
    source.put("users:1", b"second", FAR)
    assert not source.wrote("users:1", "second", None, FAR, 3, second)
    assert not source.wrote("users:1", "first", None, FAR, 3, first)
    assert source.lookup("users:1") is MISS
    assert source.raw("users:1") == b"second"


def test_suspended_lookups_miss_until_the_last_is_resumed(near):
    keep(near, "users:1")
    near.suspend()
    near.suspend()
    near.resume()
    assert near.lookup("users:1") is MISS
    near.resume()
    assert near.lookup("users:1") == "value"


def test_an_infinite_deadline_is_suspended_too(near):
    keep(near, "users:1", deadline=float("inf"))
    near.suspend()
    assert near.lookup("users:1") is MISS


def test_records_live_until_their_time_and_not_at_it(source, clock):
    source.put("users:1", b"raw", clock.now + 5)
    clock.now += 4.999
    assert (source.raw("users:1"), source.held("users:1"), source.keys()) == (b"raw", 105.0, ["users:1"])
    clock.now = 105.0
    assert (source.held("users:1"), source.keys(), source.raw("users:1")) == (None, [], None)


def test_an_expired_record_leaves_when_it_is_met_and_is_no_eviction(source, clock):
    source.put("users:1", b"raw", clock.now + 5)
    clock.now += 5
    source.raw("users:1")
    assert (source.entries, source.size_bytes, source.expirations, source.evictions) == (0, 0, 1, 0)


def test_a_served_value_needs_its_record(source):
    assert not keep(source, "users:1")
    assert source.lookup("users:1") is MISS


def test_a_served_value_does_not_outlive_its_record(source, clock):
    source.put("users:1", b"raw", clock.now + 5)
    keep(source, "users:1", deadline=FAR)
    assert source.lookup("users:1") == "value"
    clock.now += 5
    assert source.lookup("users:1") is MISS
    assert not keep(source, "users:1")


@pytest.mark.parametrize("change", ["put", "discard", "mutate", "changed"])
def test_every_change_of_a_record_stops_serving_and_refuses_older_fills(source, change):
    source.put("users:1", b"raw", FAR)
    keep(source, "users:1", "old")
    stamp = source.stamp("users:1")
    {
        "put": lambda: source.put("users:1", b"new", FAR),
        "discard": lambda: source.discard("users:1"),
        "mutate": lambda: source.mutate("users:1", lambda _raw, held: (b"new", held)),
        "changed": lambda: source.changed(("users:1",)),
    }[change]()
    assert source.lookup("users:1") is MISS
    assert not source.keep("users:1", "old", None, FAR, 10, stamp)


def test_a_change_keeps_the_record_of_the_in_process_engine(source):
    source.put("users:1", b"raw", FAR)
    source.changed(("users:1",))
    assert source.raw("users:1") == b"raw"


def test_discard_tells_whether_there_was_a_live_record(source, clock):
    source.put("users:1", b"raw", clock.now + 5)
    source.put("users:2", b"raw", clock.now + 5)
    assert source.discard("users:1")
    assert not source.discard("users:1")
    clock.now += 5
    assert not source.discard("users:2")


def test_mutate_sees_the_live_record_and_its_time(source, clock):
    seen: list[object] = []
    source.put("users:1", b"raw", 105.0)
    source.mutate("users:1", lambda raw, held: seen.append((raw, held)))
    clock.now = 105.0
    source.mutate("users:1", lambda raw, held: seen.append((raw, held)))
    assert seen == [(b"raw", 105.0), (None, float("-inf"))]


def test_a_mutation_that_fails_changes_nothing(source):
    source.put("users:1", b"raw", FAR)
    keep(source, "users:1")

    def fail(_raw, _held):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        source.mutate("users:1", fail)
    source.mutate("users:1", lambda _raw, _held: None)
    assert (source.raw("users:1"), source.lookup("users:1")) == (b"raw", "value")


def test_keys_are_listed_by_prefix(source):
    for key in ("users:1", "users:2", "orders:1"):
        source.put(key, b"raw", FAR)
    assert sorted(source.keys("users:")) == ["users:1", "users:2"]


def test_clear_drops_everything(source):
    source.put("users:1", b"raw", FAR)
    keep(source, "users:1")
    source.clear()
    assert (source.entries, source.size_bytes, source.raw("users:1"), source.lookup("users:1")) == (0, 0, None, MISS)


def test_hits_are_tallied_by_entity_and_misses_are_not(near, clock):
    keep(near, "users:1", deadline=clock.now + 5)
    keep(near, "orders:1")
    near.lookup("users:1")
    near.lookup("users:1")
    near.lookup("users:2")
    clock.now += 5
    near.lookup("users:1")
    assert {entity: tally.hits for entity, tally in near.tallies().items()} == {"users": 2, "orders": 0}


def test_tallies_outlive_the_entries(near):
    keep(near, "users:1")
    near.lookup("users:1")
    near.clear()
    assert near.tallies()["users"].hits == 1


def test_at_most_a_hundred_entities_are_told_apart(near):
    for number in range(300):
        keep(near, f"entity{number}:1")
        near.lookup(f"entity{number}:1")
    tallies = near.tallies()
    assert len(tallies) == 100
    assert tallies["other"].hits == 201


def test_a_forked_child_keeps_what_was_whole(near):
    keep(near, "users:1")
    near.after_fork()
    assert near.lookup("users:1") == "value"
    assert keep(near, "users:2")


def test_a_forked_child_starts_empty_when_the_parent_was_in_the_middle_of_a_change(source):
    inside, leave = threading.Event(), threading.Event()
    source.put("users:1", b"raw", FAR)

    def change(_raw: bytes | None, _held: float) -> None:
        inside.set()
        leave.wait(10)

    changing = threading.Thread(target=source.mutate, args=("users:2", change))
    changing.start()
    assert inside.wait(10)
    parents_lock = source._lock
    source.after_fork()
    assert (source.entries, source.size_bytes, source.raw("users:1")) == (0, 0, None)
    source.put("users:1", b"new", FAR)
    assert source.raw("users:1") == b"new"
    assert source._lock is not parents_lock
    leave.set()
    changing.join(10)


def test_a_finalizer_that_runs_inside_may_use_the_store(near):
    class Meddler:
        def __del__(self) -> None:
            near.changed(("users:2",))

    keep(near, "users:1", Meddler())
    keep(near, "users:2")
    near.changed(("users:1",))
    assert near.lookup("users:2") is MISS


def test_every_read_of_a_record_counts_for_who_stays():
    store = Store(Limit(), Clock(), source=True)
    store.put("users:1", b"raw", FAR)
    before = store._slots["users:1"].freq
    for _ in range(100):
        store.raw("users:1")
    assert store._slots["users:1"].freq == before + 100


def test_a_cleared_store_leaves_nothing_to_the_garbage_collector():
    gc.disable()
    gc.freeze()  # what is there already, from whatever test
    try:
        store = Store(Limit(entries=100), Clock())
        for number in range(300):
            keep(store, f"users:{number}")
        store.clear()
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


def test_what_somebody_got_elsewhere_refuses_fills_that_began_before(near):
    keep(near, "users:1")
    first, other = near.stamp("users:1"), near.stamp("users:2")
    near.passed("users:1")
    assert near.lookup("users:1") is MISS
    assert not near.keep("users:1", "older", None, FAR, 10, first, record=1)
    assert near.keep("users:2", "value", None, FAR, 10, other, record=1), "others are not concerned"
    assert near.keep("users:1", "value", None, FAR, 10, near.stamp("users:1"), record=1)


def test_a_read_whose_value_is_not_kept_refuses_older_ones(near):
    first = near.stamp("users:1")
    near.changed(("users:1",))
    second = near.stamp("users:1")
    assert not near.keep("users:1", "newest", None, FAR, 10, first, record=2)
    assert not near.keep("users:1", "older", None, FAR, 10, second, record=1)


def test_the_same_record_stays_whatever_crossed_its_second_read(near):
    stamp = near.stamp("users:1")
    near.changed(("users:1",))
    assert near.keep("users:1", "value", None, FAR, 10, near.stamp("users:1"), record=1)
    assert not near.keep("users:1", "value", None, FAR, 10, stamp, record=1)
    assert near.lookup("users:1") == "value"


def test_however_many_keys_are_passed_by_stamps_only_grow(near):
    keys = [f"users:{number}" for number in range(3 * MOST_PASSED)]
    before = {key: near.stamp(key) for key in keys}
    for key in keys:
        for _ in range(3):
            near.passed(key)
        assert near.stamp(key) > before[key]
        before[key] = near.stamp(key)
    assert all(near.stamp(key) >= stamp for key, stamp in before.items())
    assert not near.keep(keys[0], "value", None, FAR, 10, 0, record=1)
