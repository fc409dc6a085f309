"""Metrics for Prometheus, on by default: counters are told as things happen, near hits in bulk.

A hit only counts up an integer, which reaches Prometheus at each scrape. In multiprocess mode, where a scrape asks
another process, it does so at each call to the engine, after every 1,024 near hits of an entity, and at exit: up to
1,023 near hits of an entity may show only when this process calls its engine again or ends.

    cache_hits_total{namespace, entity, tier}          tier: near, engine, stale, flight
    cache_misses_total{namespace, entity, reason}      cold, expired, invalidated, evicted, incoherent,
                                                       undecodable, schema, error, disabled
    cache_errors_total{namespace, entity, reason}      engine, codec, load, observer
    cache_evictions_total{namespace, tier}             near, engine
    cache_size_bytes{namespace, tier}                  near, engine
    cache_limit_bytes{namespace, tier}                 where there is a limit in bytes
    cache_latency_seconds{namespace, operation}        calls to the engine by operation, and operation="load";
                                                       "announcement": from a write to its own announcement
    cache_near_refused_total{namespace}                near values that were not served for want of proof
    cache_near_proof_age_seconds{namespace}            how old the proof is that near values are right;
                                                       +Inf while changes are not announced
    cache_loads_stuck{namespace}                       loads that run beyond their deadline
    cache_spared_total{namespace}                      calls answered at once because the engine does not answer
    cache_locks_lost_total{namespace, entity}          locks that were lost while somebody held them here
    cache_limited_total{namespace, limit}              calls that a limiter refused; limit: the first part of its name
    cache_engine_silent{namespace}                     1 while it does not; there since the first time that it did not

An `entity` or `limit` beyond the first 100 of a namespace is "other". `tier="engine"` evictions are those this process
has heard of: each process that asks the engine counts them, so take the largest, not the sum.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from nearcache._core.events import (
    Announced,
    Command,
    EngineBack,
    EngineLost,
    EngineSize,
    Event,
    Evicted,
    Failure,
    Hit,
    Limited,
    Load,
    Loads,
    LockLost,
    Miss,
    NearTier,
    NoLoads,
    NoProofs,
    Proofs,
    Spared,
)
from nearcache.observe.labels import EntityLabels
from nearcache.observe.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry, Counter

    from nearcache.observe.families import Families


class Prometheus:
    """Listens to one cache and tells Prometheus, in the default registry unless another is given.

    Nothing is imported or registered before the first event, or `start`.
    """

    def __init__(
        self,
        namespace: str,
        near: NearTier,
        registry: CollectorRegistry | None = None,
        loads: Loads | None = None,
        proofs: Proofs | None = None,
    ) -> None:
        self._namespace = namespace
        self._meter = Meter(namespace, near, loads or NoLoads(), proofs or NoProofs())
        self._registry = registry
        self._families: Families | None = None
        self._labels = EntityLabels()
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._took: dict[str, Callable[[float], object]] = {}

    def start(self) -> Families:
        """Register the metrics, or join those of the process; may be called again.

        Raises `ConfigError` if other code has registered one of the names.
        """
        if self._families is None:
            # Here, not above: programs that turn metrics off need not pay for the import, and the multiprocess mode is
            # chosen by an environment variable at the moment of the import.
            from prometheus_client import REGISTRY

            from nearcache.observe.families import families_in

            families = families_in(REGISTRY if self._registry is None else self._registry)
            families.attach(self._meter)
            weakref.finalize(self, families.orphans.append, self._meter).atexit = False
            self._labels = families.entities(self._namespace)
            self._families = families
        return self._families

    def on(self, event: Event) -> None:
        """Tell Prometheus of an event."""
        families = self._families or self.start()
        if type(event) is Command:  # these two come with every read, and `match` takes its time
            took = self._took.get(event.operation) or self._new_operation(families, event.operation)
            took(event.seconds)
            families.called(self._meter)
            return
        if type(event) is Hit:
            self._count(families.hits, "hits", event.entity, event.tier, event.count)
            return
        match event:
            case Miss(entity, reason, count):
                self._count(families.misses, "misses", entity, reason, count)
            case Load(entity, seconds, error):
                (self._took.get("load") or self._new_operation(families, "load"))(seconds)
                if error is not None:
                    self._count(families.errors, "errors", entity, "load", 1)
            case Announced(seconds):
                (self._took.get("announcement") or self._new_operation(families, "announcement"))(seconds)
            case Failure(kind, entity):
                self._count(families.errors, "errors", entity, kind, 1)
            case LockLost(entity):
                families.lost.labels(self._namespace, self._labels.label(entity)).inc()
            case Limited(limit):
                families.limited.labels(self._namespace, self._labels.label(limit)).inc()
            case _:
                self._about_the_engine(families, event)

    def flush(self) -> None:
        """Tell Prometheus the near hits of this moment, where no scrape will ask for them."""
        self.start().called(self._meter)

    def _new_operation(self, families: Families, operation: str) -> Callable[[float], object]:
        took = self._took[operation] = families.took(self._namespace, operation)
        return took

    def _count(self, family: Counter, name: str, entity: str, kind: str, count: int) -> None:
        label = self._labels.label(entity)
        child = self._counters.get((name, label, kind))
        if child is None:
            child = self._counters[name, label, kind] = family.labels(self._namespace, label, kind)
        child.inc(count)

    def _about_the_engine(self, families: Families, event: Event) -> None:
        match event:
            case EngineSize():
                self._engine_size(families, event)
            case Evicted(tier, count):
                families.evictions.labels(self._namespace, tier).inc(count)
            case Spared():
                families.spared.labels(self._namespace).inc()
            case EngineLost() | EngineBack():
                families.silent.labels(self._namespace).set(isinstance(event, EngineLost))
            case _:
                pass

    def _engine_size(self, families: Families, event: EngineSize) -> None:
        if event.used_bytes is not None:
            families.size.labels(self._namespace, "engine").set(event.used_bytes)
        if event.limit_bytes is not None:
            families.limit.labels(self._namespace, "engine").set(event.limit_bytes)
