"""A process reads cold cities and ends; the next one comes up, with empty memory, onto the warm engine."""

import os
from dataclasses import dataclass
from time import perf_counter

from nearcache.demo import guide
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage, duration

CITIES = 60


@dataclass(frozen=True)
class Life:
    """A process id, and what that process needed."""

    process: int
    seconds: float
    queries: int


def play(stage: Stage) -> None:
    """Compare what the two need for the same cities."""
    ids = guide.atlas.largest(CITIES, skip=4_000)
    first, second = [_life(ids) for _ in stage.track(range(2), "lives of the process", 2)]
    stage.report(f"first life, {CITIES} cities", f"{duration(first.seconds)}, {first.queries} queries")
    warm = second.queries == 0 and second.process != first.process
    stage.report(f"second life, {CITIES} cities", f"{duration(second.seconds)}, {second.queries} queries", warm)


def _life(ids: list[int]) -> Life:
    with processes(1) as process:
        return process.submit(read_all, ids).result()


def read_all(ids: list[int]) -> Life:
    """Read the cities one by one, in the new process."""
    before, started = guide.atlas.queries, perf_counter()
    for city_id in ids:
        guide.city(city_id)
    return Life(os.getpid(), perf_counter() - started, guide.atlas.queries - before)
