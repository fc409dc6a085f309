"""Four processes ask for cities as people do: for a few very often, for most of them rarely (Zipf's law)."""

import os
import random
from collections import Counter
from concurrent.futures import as_completed
from itertools import accumulate

from nearcache.demo import guide
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage

PROCESSES = 4
CITIES = 300
BATCHES = 60
READS = 500
"""In each batch."""


def play(stage: Stage) -> None:
    """Measure the hit ratio of all four together."""
    ids = guide.atlas.largest(CITIES)
    workers: set[int] = set()
    sums: Counter[str] = Counter()
    with processes(PROCESSES) as pool:
        batches = [pool.submit(read, ids, seed) for seed in range(BATCHES)]
        for batch in stage.track(as_completed(batches), f"batches of {READS} reads", BATCHES):
            worker, counts = batch.result()
            workers.add(worker)
            sums.update(counts)
    _report(stage, len(workers), sums)


def read(ids: list[int], seed: int) -> tuple[int, Counter[str]]:
    """Read one batch, in a worker process; return the process id, and what the batch added to its numbers."""
    chance = random.Random(seed)  # noqa: S311  # a workload, not a secret
    weights = list(accumulate(1 / rank for rank in range(1, len(ids) + 1)))
    wanted = chance.choices(ids, cum_weights=weights, k=READS)
    before = _numbers()
    wrong = sum(guide.city(city_id).id != city_id for city_id in wanted)
    return os.getpid(), _numbers() - before + Counter(wrong=wrong)


def _numbers() -> Counter[str]:
    stats = guide.cache.stats()
    return Counter(
        hits=stats.hits,
        misses=stats.misses,
        near=stats.near_hits,
        engine=stats.engine_hits,
        queries=guide.atlas.queries,
    )


def _report(stage: Stage, workers: int, sums: Counter[str]) -> None:
    reads = sums["hits"] + sums["misses"]
    stage.report(f"reads of {CITIES} cities", f"{reads:,} in {workers} processes", reads == BATCHES * READS)
    ratio = sums["hits"] / reads
    stage.report("hit ratio", f"{ratio:.1%}", ratio > 0.9)
    stage.report("  answered near", f"{sums['near'] / reads:.1%}")
    stage.report("  answered by the engine", f"{sums['engine'] / reads:.1%}")
    stage.report("queries that reached SQLite", sums["queries"], sums["queries"] == sums["misses"])
    stage.report("wrong values", sums["wrong"], sums["wrong"] == 0)
