"""Reading cities that nobody has asked for yet, then the same ones again."""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import TypeVar

from nearcache.demo import guide
from nearcache.demo.stage import Stage, duration

Key = TypeVar("Key", int, str)

CITIES = 60
ROUNDS = 200


def play(stage: Stage) -> None:
    """Time reads that SQLite, the engine and the near tier answer."""
    ids = guide.atlas.largest(CITIES, skip=2_000)
    before = guide.atlas.queries
    cold = median([_timed(guide.city, city_id) for city_id in stage.track(ids, "cold reads", CITIES)])
    cold_queries = guide.atlas.queries - before
    engine = median([_timed(guide.cache.get_entry, guide.city.key(city_id)) for city_id in ids])
    near = _near(ids)
    warm_queries = guide.atlas.queries - before - cold_queries
    stage.report("cold read, from SQLite", duration(cold))
    stage.report("warm read, from the engine", f"{duration(engine)}, {cold / engine:,.0f} × faster", engine < cold)
    stage.report("warm read, near", f"{duration(near)}, {cold / near:,.0f} × faster", near < cold)
    stage.report("queries for cold and warm reads", f"{cold_queries} and {warm_queries}", warm_queries == 0)
    wrong = sum(guide.city(city_id) != guide.city.bypass(city_id) for city_id in ids[:10])
    stage.report("values that differ from SQLite's", wrong, wrong == 0)


def _timed(read: Callable[[Key], object], argument: Key) -> float:
    started = perf_counter()
    read(argument)
    return perf_counter() - started


def _near(ids: list[int]) -> float:
    """Return the mean duration of reads that this process answers from its own memory."""
    guide.city.many(ids)  # one round trip brings them all near
    started = perf_counter()
    for _ in range(ROUNDS):
        for city_id in ids:
            guide.city(city_id)
    return (perf_counter() - started) / (ROUNDS * len(ids))
