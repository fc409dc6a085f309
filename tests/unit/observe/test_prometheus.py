"""Metrics in one process: names, types, labels, and who may share them."""

import gc
import importlib
import math
import threading
from collections.abc import Callable
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from nearcache._core.events import (
    Command,
    EngineBack,
    EngineLost,
    EngineSize,
    Evicted,
    Failure,
    Hit,
    Limited,
    Load,
    LockLost,
    Miss,
    Spared,
)
from nearcache.errors import ConfigError
from nearcache.near.store import Limit, Store
from nearcache.observe import families, prometheus
from nearcache.observe.latency import BOUNDS
from nearcache.observe.prometheus import Prometheus
from tests.unit.near.helpers import frequent_switches
from tests.unit.observe.helpers import FakeNear


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def near():
    return FakeNear()


@pytest.fixture
def listener(near, registry):
    return Prometheus("app", near, registry)


def value(registry: CollectorRegistry, name: str, namespace: str = "app", **labels: str) -> float | None:
    return registry.get_sample_value(name, {"namespace": namespace, **labels})


def test_the_names_and_types_are_those_announced(listener, registry):
    listener.start()
    assert {(family.name, family.type) for family in registry.collect()} == {
        ("cache_hits", "counter"),
        ("cache_misses", "counter"),
        ("cache_errors", "counter"),
        ("cache_evictions", "counter"),
        ("cache_size_bytes", "gauge"),
        ("cache_limit_bytes", "gauge"),
        ("cache_loads_stuck", "gauge"),
        ("cache_near_refused", "counter"),
        ("cache_near_proof_age_seconds", "gauge"),
        ("cache_latency_seconds", "histogram"),
        ("cache_spared", "counter"),
        ("cache_engine_silent", "gauge"),
        ("cache_locks_lost", "counter"),
        ("cache_limited", "counter"),
    }


def test_the_page_has_the_full_names(listener, near, registry):
    near.hit("users")
    near.evictions = 1
    for event in (
        Hit("users", "engine"),
        Miss("users", "cold"),
        Failure("codec", "users", "E"),
        Command("get", 0.1, False),
    ):
        listener.on(event)
    page = generate_latest(registry).decode()
    for name in (
        'cache_hits_total{entity="users",namespace="app",tier="near"} 1.0',
        'cache_misses_total{entity="users",namespace="app",reason="cold"} 1.0',
        'cache_errors_total{entity="users",namespace="app",reason="codec"} 1.0',
        'cache_evictions_total{namespace="app",tier="near"} 1.0',
        'cache_size_bytes{namespace="app",tier="near"} 0.0',
        'cache_limit_bytes{namespace="app",tier="near"} 1000.0',
        'cache_latency_seconds_count{namespace="app",operation="get"} 1.0',
    ):
        assert name in page


@pytest.mark.parametrize(("age", "shown"), [(None, None), (0.25, 0.25), (math.inf, math.inf)])
def test_the_age_of_the_proof_is_infinite_while_there_is_none(
    near: FakeNear, registry: CollectorRegistry, age: float | None, shown: float | None
) -> None:
    class Proofs:
        def age(self) -> float | None:
            return age

    listener = Prometheus("app", near, registry, proofs=Proofs())
    listener.start()
    assert value(registry, "cache_near_proof_age_seconds") == shown


def test_near_hits_and_evictions_show_at_the_scrape_without_any_event(listener, near, registry):
    listener.start()
    near.hit("users", 3)
    near.evictions = 2
    assert value(registry, "cache_hits_total", entity="users", tier="near") == 3
    near.hit("users", 4)
    assert value(registry, "cache_hits_total", entity="users", tier="near") == 7
    assert value(registry, "cache_evictions_total", tier="near") == 2


def test_a_scrape_of_one_name_is_up_to_date_too(listener, near, registry):
    listener.start()
    near.hit("users", 3)
    page = generate_latest(registry.restricted_registry(["cache_hits_total"])).decode()
    assert 'tier="near"} 3.0' in page


def test_events_are_counted(listener, registry):
    for event in (
        Hit("users", "engine", 5),
        Hit("users", "stale"),
        Miss("users", "expired", 2),
        Load("users", 0.2, "ValueError"),
        Failure("engine", "", "BackendError"),
        Evicted("engine", 9),
        LockLost("payment"),
        Limited("login"),
        EngineSize(800, 1_000),
        EngineBack("redis"),
    ):
        listener.on(event)
    assert value(registry, "cache_hits_total", entity="users", tier="engine") == 5
    assert value(registry, "cache_hits_total", entity="users", tier="stale") == 1
    assert value(registry, "cache_misses_total", entity="users", reason="expired") == 2
    assert value(registry, "cache_latency_seconds_sum", operation="load") == 0.2
    assert value(registry, "cache_errors_total", entity="users", reason="load") == 1
    assert value(registry, "cache_errors_total", entity="", reason="engine") == 1
    assert value(registry, "cache_evictions_total", tier="engine") == 9
    assert value(registry, "cache_locks_lost_total", entity="payment") == 1
    assert value(registry, "cache_limited_total", limit="login") == 1
    assert value(registry, "cache_size_bytes", tier="engine") == 800
    assert value(registry, "cache_limit_bytes", tier="engine") == 1_000


def test_what_the_engine_does_not_say_is_not_shown(listener, registry):
    listener.on(EngineSize(None, None))
    assert value(registry, "cache_size_bytes", tier="engine") is None
    assert value(registry, "cache_limit_bytes", tier="engine") is None


def test_a_near_tier_limited_by_entries_shows_no_limit_in_bytes(registry):
    near = FakeNear(Limit(entries=10), size_bytes=5)
    listener = Prometheus("app", near, registry)
    listener.flush()
    assert value(registry, "cache_size_bytes", tier="near") == 5
    assert value(registry, "cache_limit_bytes", tier="near") is None


def test_entities_are_bounded_however_they_come(listener, near, registry):
    for number in range(250):
        near.hit(f"near{number}")
        listener.on(Miss(f"far{number}", "cold"))
    samples = [sample for family in registry.collect() for sample in family.samples if "entity" in sample.labels]
    assert len({sample.labels["entity"] for sample in samples}) == 101
    assert value(registry, "cache_misses_total", entity="other", reason="cold") == 150
    assert value(registry, "cache_hits_total", entity="other", tier="near") == 250


def test_caches_share_the_metrics_of_a_registry(registry):
    first, second, other = FakeNear(size_bytes=10), FakeNear(size_bytes=20), FakeNear(size_bytes=40)
    listeners = [
        Prometheus("app", first, registry),
        Prometheus("app", second, registry),
        Prometheus("else", other, registry),
    ]
    for listener in listeners:
        listener.on(Hit("users", "engine"))
    assert value(registry, "cache_hits_total", entity="users", tier="engine") == 2
    assert value(registry, "cache_size_bytes", tier="near") == 30
    assert value(registry, "cache_limit_bytes", tier="near") == 2_000
    assert value(registry, "cache_size_bytes", "else", tier="near") == 40


def test_a_reloaded_module_joins_the_metrics_that_are_there(listener, registry):
    listener.on(Hit("users", "engine"))
    importlib.reload(families)
    reloaded = importlib.reload(prometheus)
    reloaded.Prometheus("app", FakeNear(), registry).on(Hit("users", "engine"))
    assert value(registry, "cache_hits_total", entity="users", tier="engine") == 2


def test_a_foreign_metric_of_the_same_name_is_an_error_that_says_what_to_do(listener, registry):
    Gauge("cache_size_bytes", "Somebody else's.", registry=registry)
    with pytest.raises(ConfigError, match=r"cache_size_bytes.*observers=\(\)"):
        listener.on(Hit("users", "engine"))
    assert [family.name for family in registry.collect()] == ["cache_size_bytes"]


def test_making_a_listener_registers_nothing(listener, registry):
    assert list(registry.collect()) == []


def test_near_hits_of_a_cache_that_is_gone_are_not_lost(near, registry):
    Prometheus("app", near, registry).start()
    survivor = Prometheus("app", FakeNear(size_bytes=3), registry)
    survivor.start()
    near.hit("users", 5)
    near.size_bytes = 100
    gc.collect()
    assert value(registry, "cache_hits_total", entity="users", tier="near") == 5
    assert value(registry, "cache_size_bytes", tier="near") == 3


def test_the_size_of_a_namespace_whose_caches_are_gone_is_zero(near, registry):
    near.size_bytes = 100
    listener = Prometheus("app", near, registry)
    listener.start()
    assert value(registry, "cache_size_bytes", tier="near") == 100
    del listener
    gc.collect()
    assert value(registry, "cache_size_bytes", tier="near") == 0


def test_a_cache_that_is_gone_is_let_go(registry):
    store = Store(Limit(entries=1), lambda: 0.0)
    Prometheus("app", store, registry).start()
    list(registry.collect())
    assert not [holder for holder in gc.get_referrers(store) if type(holder).__name__ in {"Meter", "Prometheus"}]


def test_a_forked_child_leaves_to_its_parent_what_was_not_told_yet(listener, near, registry):
    shared = listener.start()
    near.hit("users", 5)
    near.evictions = 2
    shared.after_fork()
    near.hit("users", 1)
    assert value(registry, "cache_hits_total", entity="users", tier="near") == 1
    assert value(registry, "cache_evictions_total", tier="near") is None


def test_no_near_hit_is_told_twice_when_many_flush_at_once(registry):
    near = FakeNear()
    entities = [f"entity{number}" for number in range(20)]
    listener = Prometheus("app", near, registry)
    listener.start()

    def work(number: int) -> None:
        for _ in range(50):
            for entity in entities[number::4]:
                near.hit(entity)
            listener.flush()
            listener.on(Command("get", 0.001, failed=False))

    together(work, 4)
    told = [value(registry, "cache_hits_total", entity=entity, tier="near") for entity in entities]
    assert told == [50] * 20
    assert value(registry, "cache_latency_seconds_count", operation="get") == 200


def test_many_threads_make_the_metrics_once():
    for _ in range(20):
        registry = CollectorRegistry()
        listeners = [Prometheus("app", FakeNear(), registry) for _ in range(4)]
        together(partial(start_one, listeners), 4)
        assert len({id(listener.start()) for listener in listeners}) == 1


def start_one(listeners: list[Prometheus], number: int) -> None:
    listeners[number].start()


def together(work: Callable[[int], None], count: int) -> None:
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait(10)
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    with frequent_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


def test_latencies_are_counted_as_the_clients_own_histogram_counts_them(listener, registry):
    """Every bound, what lies between, and what lies beyond."""
    theirs = CollectorRegistry()
    histogram = Histogram("cache_latency_seconds", "", ["namespace", "operation"], buckets=BOUNDS, registry=theirs)
    for bound in BOUNDS:
        for seconds in (bound * 0.9, bound, bound * 1.1):
            listener.on(Command("get", seconds, False))
            histogram.labels("app", "get").observe(seconds)
    assert samples(registry) == samples(theirs)


def samples(registry: CollectorRegistry) -> list[tuple[str, dict[str, str], float]]:
    (family,) = (family for family in registry.collect() if family.name == "cache_latency_seconds")
    return [(each.name, each.labels, each.value) for each in family.samples if not each.name.endswith("_created")]


def test_a_silent_engine_is_told_while_it_lasts(listener, registry):
    assert value(registry, "cache_engine_silent") is None
    for event in (EngineLost("redis", "connection refused"), Spared("get"), Spared("set")):
        listener.on(event)
    assert value(registry, "cache_engine_silent") == 1.0
    assert value(registry, "cache_spared_total") == 2.0
    listener.on(EngineBack("redis"))
    assert value(registry, "cache_engine_silent") == 0.0
