"""The metrics in one Prometheus registry, shared by every cache of the process.

They are one collector, so that they are registered together or not at all, and so that a scrape tells them the latest
numbers first. The shared object hangs on the registry itself: a reloaded module finds it there again.

In Prometheus' multiprocess mode nobody asks this collector: each process writes its numbers to files of its own, so
they are also brought up to date at each call to the engine and at exit. Gauges there carry a `pid`: sum those of
`tier="near"`, and take the largest of `tier="engine"`, for not every process has asked the engine.
"""

import atexit
import os
import threading
import time
import weakref
from collections import Counter as Sums
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.metrics_core import HistogramMetricFamily

from nearcache._core.fork import on_fork
from nearcache.errors import ConfigError
from nearcache.observe.labels import EntityLabels
from nearcache.observe.latency import BOUNDS, Latency
from nearcache.observe.meter import Meter

SHARED: Final = "_nearcache_families"
GAUGE_SECONDS: Final = 1.0
LATENCY: Final = ("cache_latency_seconds", "Duration of calls to the engine, and of loads.")


class Families:
    """All metrics of the library in one registry."""

    def __init__(self) -> None:
        entity, tier = ["namespace", "entity"], ["namespace", "tier"]
        self.hits: Counter = _counter("cache_hits", "Reads that were answered, by who answered.", [*entity, "tier"])
        self.misses: Counter = _counter(
            "cache_misses", "Reads that found nothing to serve, by reason.", [*entity, "reason"]
        )
        self.errors: Counter = _counter("cache_errors", "Failures, by who failed.", [*entity, "reason"])
        self.evictions: Counter = _counter("cache_evictions", "Live entries that left for want of room.", tier)
        self.size: Gauge = _gauge("cache_size_bytes", "Bytes held.", tier)
        self.limit: Gauge = _gauge("cache_limit_bytes", "Bytes that may be held.", tier)
        self.stuck: Gauge = _gauge("cache_loads_stuck", "Loads that run beyond their deadline.", ["namespace"])
        self.refused: Counter = _counter(
            "cache_near_refused", "Near values that were not served for want of proof.", ["namespace"]
        )
        self.proof: Gauge = _gauge(
            "cache_near_proof_age_seconds",
            "How old the proof is that near values are right; +Inf: changes are not announced.",
            ["namespace"],
        )
        self.spared: Counter = _counter(
            "cache_spared", "Calls that were answered at once because the engine does not answer.", ["namespace"]
        )
        self.lost: Counter = _counter("cache_locks_lost", "Locks that were lost while somebody held them here.", entity)
        self.limited: Counter = _counter("cache_limited", "Calls that limiters refused.", ["namespace", "limit"])
        self.silent: Gauge = _gauge("cache_engine_silent", "1 while the engine does not answer.", ["namespace"])
        self._histogram = Histogram(*LATENCY, ["namespace", "operation"], buckets=BOUNDS, registry=None)
        self._latencies: dict[tuple[str, str], Latency] = {}
        self._labels: dict[str, EntityLabels] = {}
        self._meters: weakref.WeakSet[Meter] = weakref.WeakSet()
        self.orphans: deque[Meter] = deque()
        self._lock = threading.RLock()
        self.multiprocess: bool = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._gauges_due = 0.0
        self._measured: set[str] = set()

    # For the registry

    def describe(self) -> Iterable[Metric]:
        """Name every metric, for the registry to notice duplicates."""
        return [metric for family in self._all() for metric in family.describe()]

    def collect(self) -> Iterable[Metric]:
        """Yield every metric with the latest numbers."""
        self.flush()
        for family in self._all():
            if family is not self._histogram or self.multiprocess:
                yield from family.collect()
        if self.multiprocess:
            return
        latency = HistogramMetricFamily(*LATENCY, labels=["namespace", "operation"])
        for labels, seconds in self._latencies.copy().items():
            latency.add_metric(labels, seconds.buckets(), seconds.sum)
        yield latency

    # For the caches

    def entities(self, namespace: str) -> EntityLabels:
        """Return the labels of a namespace's entities, which all its caches share."""
        labels = self._labels.get(namespace)
        return labels if labels is not None else self._labels.setdefault(namespace, EntityLabels())

    def took(self, namespace: str, operation: str) -> Callable[[float], object]:
        """Return what counts how many seconds an operation took.

        Multiprocess mode has only the client's own histograms.
        """
        if self.multiprocess:
            return self._histogram.labels(namespace, operation).observe
        return self._latencies.setdefault((namespace, operation), Latency()).add

    def attach(self, meter: Meter) -> None:
        """Tell of this near tier as long as the meter lives."""
        with self._lock:
            self._meters.add(meter)

    def called(self, meter: Meter) -> None:
        """Bring up to date what no scrape will ask for, after a call to the engine or many near hits; sizes at most
        once a second.
        """
        if self.orphans:  # a program that nobody scrapes must not keep their near tiers either
            self._bury()
        if self.multiprocess:
            self._tell(meter)
            if time.monotonic() >= self._gauges_due:
                self.flush()

    def flush(self) -> None:
        """Bring everything up to date."""
        self._gauges_due = time.monotonic() + GAUGE_SECONDS
        self._bury()
        with self._lock:
            meters = list(self._meters)
        for meter in meters:
            self._tell(meter)
        self._measure(meters)

    def _bury(self) -> None:
        """Tell the last numbers of caches that are gone, and let go of their near tiers."""
        with self._lock:
            while self.orphans:
                self._tell(self.orphans.popleft())

    def after_fork(self) -> None:
        """Leave to the parent what the parent has not told yet."""
        self._lock = threading.RLock()
        for meter in list(self._meters):
            meter.forget()

    def _tell(self, meter: Meter) -> None:
        labels = self.entities(meter.namespace)
        with self._lock:
            for entity, tier, new in meter.new_hits():
                self.hits.labels(meter.namespace, labels.label(entity), tier).inc(new)
            if new := meter.new_evictions():
                self.evictions.labels(meter.namespace, "near").inc(new)
            if new := meter.new_refusals():
                self.refused.labels(meter.namespace).inc(new)

    def _measure(self, meters: Iterable[Meter]) -> None:
        sizes, limits, stuck = Sums(dict.fromkeys(self._measured, 0)), Sums[str](), Sums[str]()
        ages: dict[str, float] = {}
        for meter in meters:
            sizes[meter.namespace] += meter.near.size_bytes
            limits[meter.namespace] += meter.near.limit.bytes or 0
            stuck[meter.namespace] += sum(meter.loads.stuck().values())
            if (age := meter.proofs.age()) is not None:
                ages[meter.namespace] = max(age, ages.get(meter.namespace, 0.0))
        for namespace, size in sizes.items():
            self._measured.add(namespace)
            self.size.labels(namespace, "near").set(size)
            self.stuck.labels(namespace).set(stuck[namespace])
            if limits[namespace]:
                self.limit.labels(namespace, "near").set(limits[namespace])
        for namespace, age in ages.items():
            self.proof.labels(namespace).set(age)

    def _all(self) -> "tuple[Counter | Gauge | Histogram, ...]":
        reads = self.hits, self.misses, self.errors, self.evictions, self.refused
        counters = *reads, self.spared, self.lost, self.limited
        return *counters, self.size, self.limit, self.stuck, self.proof, self.silent, self._histogram


def families_in(registry: CollectorRegistry) -> Families:
    """Return the metrics of this registry, made at the first call.

    Raises `ConfigError` if other code has registered one of the names.
    """
    with _making:
        shared: Families | None = getattr(registry, SHARED, None)
        return shared if shared is not None else _make(registry)


_making = threading.Lock()


def _make(registry: CollectorRegistry) -> Families:
    families = Families()
    try:
        registry.register(families)
    except ValueError as error:
        raise ConfigError(
            f"other code has registered Prometheus metrics that nearcache needs ({error}): "
            "rename those, or turn nearcache's off with Cache(observers=())"
        ) from error
    setattr(registry, SHARED, families)
    on_fork(in_child=families.after_fork)
    _flush_at_exit(families)
    return families


def _flush_at_exit(families: Families) -> None:
    atexit.register(families.flush)
    if families.multiprocess:
        # Processes that `multiprocessing` forked end without atexit: they call their own finalizers, and forget the
        # parent's when they begin.
        from multiprocessing import util

        util.Finalize(None, families.flush, exitpriority=0)
        util.register_after_fork(families, lambda mine: util.Finalize(None, mine.flush, exitpriority=0))


def _counter(name: str, text: str, labels: list[str]) -> Counter:
    return Counter(name, text, labels, registry=None)


def _gauge(name: str, text: str, labels: list[str]) -> Gauge:
    return Gauge(name, text, labels, registry=None, multiprocess_mode="liveall")
