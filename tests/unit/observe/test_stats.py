"""Statistics add up."""

import threading

from nearcache._core.events import Command, EngineBack, EngineSize, Evicted, Failure, Hit, Load, Miss
from nearcache.near.store import Limit, Store
from nearcache.observe.stats import EntityStats, Stats
from tests.unit.observe.helpers import FakeNear


def test_nothing_happened_yet():
    view = Stats(FakeNear()).snapshot()
    assert (view.hits, view.misses, view.hit_ratio, view.by_entity, view.misses_by_reason) == (0, 0, 0.0, {}, {})


def test_hits_are_those_of_all_tiers():
    near = FakeNear()
    stats = Stats(near)
    near.hit("users", 6)
    for event in (
        Hit("users", "engine", 2),
        Hit("orders", "stale"),
        Hit("orders", "flight"),
        Miss("users", "cold", 10),
    ):
        stats.on(event)
    view = stats.snapshot()
    assert (view.near_hits, view.engine_hits, view.stale_hits, view.flight_hits) == (6, 2, 1, 1)
    assert (view.hits, view.misses, view.hit_ratio) == (10, 10, 0.5)


def test_reads_are_told_apart_by_entity_and_misses_by_reason():
    near = FakeNear()
    stats = Stats(near)
    near.hit("users", 2)
    for event in (Hit("users", "engine"), Miss("users", "cold"), Miss("orders", "expired", 3)):
        stats.on(event)
    view = stats.snapshot()
    assert view.by_entity == {"users": EntityStats(3, 1), "orders": EntityStats(0, 3)}
    assert view.by_entity["users"].hit_ratio == 0.75
    assert view.misses_by_reason == {"cold": 1, "expired": 3}


def test_failed_loads_and_failures_are_errors():
    stats = Stats(FakeNear())
    for event in (
        Load("users", 0.1),
        Load("users", 0.1, "ValueError"),
        Failure("engine", "", "E"),
        Command("get", 0.1, True),
    ):
        stats.on(event)
    view = stats.snapshot()
    assert (view.loads, view.load_errors, view.errors, view.commands) == (2, 1, 2, 1)


def test_sizes_and_evictions_are_those_of_the_near_tier():
    near = FakeNear(Limit(entries=7, bytes=1_000), size_bytes=80, entries=3, evictions=5)
    stats = Stats(near)
    stats.on(Evicted("engine", 4))
    view = stats.snapshot()
    assert (view.near_bytes, view.near_entries, view.evictions, view.engine_evictions) == (80, 3, 5, 4)
    assert (view.near_limit_entries, view.near_limit_bytes) == (7, 1_000)


def test_entities_are_bounded():
    near = FakeNear()
    stats = Stats(near)
    for number in range(250):
        near.hit(f"entity{number}")
        stats.on(Miss(f"entity{number}", "cold"))
    view = stats.snapshot()
    assert len(view.by_entity) == 101
    assert view.by_entity["other"] == EntityStats(150, 150)
    assert view.hits == view.misses == 250


def test_events_of_no_interest_are_let_pass():
    stats = Stats(FakeNear())
    before = stats.snapshot()
    stats.on(EngineBack("redis"))
    stats.on(EngineSize(1, 2))
    assert stats.snapshot() == before


def test_no_count_is_lost_between_threads():
    stats = Stats(FakeNear())

    def work() -> None:
        for _ in range(5_000):
            stats.on(Hit("users", "engine"))
            stats.on(Miss("users", "cold"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    view = stats.snapshot()
    assert (view.hits, view.misses) == (20_000, 20_000)


def test_a_real_near_store_can_be_watched():
    store = Store(Limit(entries=1), lambda: 0.0)
    for key in ("users:1", "users:2"):
        store.keep(key, "value", None, 1.0, 10, store.stamp(key))
        store.lookup(key)
    view = Stats(store).snapshot()
    assert (view.near_hits, view.evictions, view.near_entries) == (2, 1, 1)
    assert view.near_bytes == store.size_bytes
