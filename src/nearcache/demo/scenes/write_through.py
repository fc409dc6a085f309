"""This process writes a city's new mayor; another one, which holds the city near, must see it within a second."""

from concurrent.futures import ProcessPoolExecutor
from time import monotonic, sleep

from nearcache.demo import guide
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage, duration, yes_or_no

STALENESS = 1.0
"""Seconds: the default of `Cache(staleness=...)`."""

MAYORS = ("Ada", "Barbara", "Edsger", "Grace", "Leslie")
PATIENCE = 30.0


def play(stage: Stage) -> None:
    """Measure how long the other process goes on reading the old mayor."""
    (city_id,) = guide.atlas.largest(1, skip=3_000)
    pauses = [number * STALENESS / len(MAYORS) for number in range(len(MAYORS))]  # near copies of every age
    with processes(1) as other:
        updates = stage.track(zip(MAYORS, pauses, strict=True), "updates", len(MAYORS))
        seen = [_update(other, city_id, mayor, pause) for mayor, pause in updates]
    longest, queries = max(lag for lag, _ in seen), sum(queries for _, queries in seen)
    stage.report("updates", len(MAYORS))
    stage.report(
        "longest time it read the old value", f"{duration(longest)} of {duration(STALENESS)}", longest <= STALENESS
    )
    stage.report("queries the other process needed", queries, queries == 0)
    agree = guide.city(city_id) == guide.atlas.city(city_id)
    stage.report("the writer reads what SQLite holds", yes_or_no(agree), agree)


def _update(other: ProcessPoolExecutor, city_id: int, mayor: str, pause: float) -> tuple[float, int]:
    """Write a mayor some time after the other process has read the city; return its delay and its queries."""
    other.submit(guide.city, city_id).result()
    sleep(pause)
    watching = other.submit(watch, city_id, mayor)
    guide.update_mayor(city_id, mayor)
    acknowledged = monotonic()
    last_old, queries = watching.result()
    return max(0.0, last_old - acknowledged), queries


def watch(city_id: int, mayor: str) -> tuple[float, int]:
    """Read until the new mayor is there, in the other process.

    Return when the last read began that got the old one, by the clock that all processes of a machine share, and how
    many queries reached SQLite.
    """
    before, last_old, began = guide.atlas.queries, 0.0, monotonic()
    deadline = began + PATIENCE
    while guide.city(city_id).mayor != mayor:
        if began > deadline:
            raise TimeoutError(f"city {city_id} still has its old mayor after {PATIENCE:g} s")
        sleep(0.001)
        last_old, began = began, monotonic()
    return last_old, guide.atlas.queries - before
