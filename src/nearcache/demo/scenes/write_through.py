"""This process writes a city's new mayor; another one reads the city from its own memory."""

from concurrent.futures import ProcessPoolExecutor
from statistics import median
from time import monotonic, sleep
from typing import NamedTuple

from nearcache.demo import guide
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage, duration, yes_or_no

STALENESS = 1.0
"""Seconds: the default of `Cache(staleness=...)`."""

MAYORS = ("Ada", "Barbara", "Edsger", "Grace", "Leslie")
NEAR_SHARE = 0.9
"""Of its reads, so many must be served from its own memory."""

PATIENCE = 30.0


class Watched(NamedTuple):
    """What the other process saw while it waited for a new mayor."""

    seen: float
    """When it had read the new mayor, by the clock that all processes of a machine share."""
    reads: int
    near: int
    """Reads that its own memory answered."""
    queries: int


def play(stage: Stage) -> None:
    """Measure how long the other process goes on reading the old mayor."""
    (city_id,) = guide.atlas.largest(1, skip=3_000)
    pauses = [number * STALENESS / len(MAYORS) for number in range(1, len(MAYORS) + 1)]  # near copies of every age
    with processes(1) as other:
        updates = stage.track(zip(MAYORS, pauses, strict=True), "updates", len(MAYORS))
        seen = [_update(other, city_id, mayor, pause) for mayor, pause in updates]
    reads, near, queries = (sum(getattr(watched, what) for _, watched in seen) for what in ("reads", "near", "queries"))
    lags = [lag for lag, _ in seen]
    stage.report("updates", len(MAYORS))
    stage.report("its reads from its own memory", f"{near:,} of {reads:,}", near >= NEAR_SHARE * reads)
    stage.report("new mayor read after", f"{duration(median(lags))}, at most {duration(max(lags))}")
    stage.report("all within the staleness", duration(STALENESS), max(lags) <= STALENESS)
    stage.report("queries it needed", queries, queries == 0)
    agree = guide.city(city_id) == guide.atlas.city(city_id)
    stage.report("the writer reads what SQLite holds", yes_or_no(agree), agree)


def _update(other: ProcessPoolExecutor, city_id: int, mayor: str, pause: float) -> tuple[float, Watched]:
    """Write a mayor some time after the other process has begun to read; return its delay, and what it saw."""
    other.submit(guide.city, city_id).result()
    watching = other.submit(watch, city_id, mayor)
    sleep(pause)
    guide.update_mayor(city_id, mayor)
    acknowledged = monotonic()
    watched = watching.result()
    return max(0.0, watched.seen - acknowledged), watched


def watch(city_id: int, mayor: str) -> Watched:
    """Read until the new mayor is there, in the other process."""
    stats, queries, deadline = guide.cache.stats(), guide.atlas.queries, monotonic() + PATIENCE
    while guide.city(city_id).mayor != mayor:
        if monotonic() > deadline:
            raise TimeoutError(f"city {city_id} still has its old mayor after {PATIENCE:g} s")
        sleep(0.0005)
    seen, now = monotonic(), guide.cache.stats()
    reads = now.hits + now.misses - stats.hits - stats.misses
    return Watched(seen, reads, now.near_hits - stats.near_hits, guide.atlas.queries - queries)
