"""1,000 tasks and 200 threads of one process ask for one cold key, all at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from nearcache.demo import guide
from nearcache.demo.atlas import Country
from nearcache.demo.stage import Stage, duration, yes_or_no

TASKS = 1_000
THREADS = 200
COUNTRIES = ("FR", "IT", "GB")


def play(stage: Stage) -> None:
    """Count the queries that reach SQLite."""
    queries: list[int] = []
    seconds: list[float] = []
    answers: list[set[Country]] = []
    for code in stage.track(COUNTRIES, "cold countries", len(COUNTRIES)):
        before, started = guide.atlas.queries, perf_counter()
        answers.append(set(asyncio.run(_crowd(code))))
        queries.append(guide.atlas.queries - before)
        seconds.append(perf_counter() - started)
    stage.report(f"callers of each of {len(COUNTRIES)} cold keys", f"{TASKS:,} tasks, {THREADS} threads")
    stage.report("queries that reached SQLite", _listed(queries), queries == [1] * len(COUNTRIES))
    stage.report("until the last one had the answer", duration(max(seconds)))
    alike = all(len(different) == 1 for different in answers)
    stage.report("all callers got the same answer", yes_or_no(alike), alike)


async def _crowd(code: str) -> list[Country]:
    with ThreadPoolExecutor(THREADS) as threads:
        calls = [threads.submit(guide.country, code) for _ in range(THREADS)]
        tasks = [asyncio.create_task(guide.country_aio(code)) for _ in range(TASKS)]
        return await asyncio.gather(*map(asyncio.wrap_future, calls), *tasks)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
