"""The engine freezes and is then killed while reads and writes are under way.

A killed engine alone would hardly be noticed: the next call starts it again within a tenth of a second. So it is
frozen first (SIGSTOP), as a dying machine is, until every call that is under way has given up; then it is killed.
Calls that come in between do not wait: it is known by then that nobody answers.
"""

import logging
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from nearcache import BackendError, Queued
from nearcache.demo import engine, guide
from nearcache.demo.atlas import City
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage, duration

READS = 8
WRITES = 4
INVALIDATIONS = 20
RECOVERY = 10.0
"""Seconds after which the demo no longer believes that the engine comes back."""


@dataclass
class Calls:
    """What was called while the engine was frozen."""

    reads: list[Future[City]]
    writes: list[Future[None]]
    update: Future[City]
    queries: int = 0
    """How many queries the reads made."""
    queued: int = 0
    """How many invalidations were queued after that."""
    spared: int = 0
    """How many of these did not even ask the engine."""


def play(stage: Stage) -> None:
    """Count what callers notice."""
    updated, *ids = guide.atlas.largest(1 + READS, skip=5_000)
    guide.city(updated)  # the engine holds the old mayor, on its disk too
    first_engine = engine.pid()
    with _listening() as lines:
        calls = _freeze_and_kill(stage, updated, ids)
        back_after = _until_writes_work()
    _report_outage(stage, calls, lines)
    stage.report("from SIGKILL to the next write", duration(back_after), engine.pid() != first_engine)
    waiting = guide.cache.health().queued
    stage.report("invalidations that still wait", waiting, waiting == 0)
    _report_values(stage, [updated, *ids], calls)


def _freeze_and_kill(stage: Stage, updated: int, ids: list[int]) -> Calls:
    """Return what was called meanwhile, and what came of it."""
    queries = guide.atlas.queries
    engine.freeze()
    try:
        calls = _calls(stage, updated, ids)
        calls.queries = guide.atlas.queries - queries - 1  # the update made one
        spared = guide.cache.stats().spared
        told = [guide.country.invalidate(f"X{number}") for number in range(INVALIDATIONS)]
        calls.queued = sum(isinstance(each, Queued) for each in told)
        calls.spared = guide.cache.stats().spared - spared
    finally:
        engine.kill()
    return calls


def _calls(stage: Stage, updated: int, ids: list[int]) -> Calls:
    with ThreadPoolExecutor(READS + WRITES + 1) as threads:
        calls = Calls(
            [threads.submit(guide.city, city_id) for city_id in ids],
            [threads.submit(guide.cache.set, f"visits:{number}", number) for number in range(WRITES)],
            threads.submit(guide.update_mayor, updated, "Ada"),
        )
        everything: list[Future[City] | Future[None]] = [*calls.reads, *calls.writes, calls.update]
        for _ in stage.track(as_completed(everything), "calls to a frozen engine", len(everything)):
            pass
    return calls


def _until_writes_work() -> float:
    """Return how many seconds it takes until the engine is there again; nobody but a caller starts it."""
    started = monotonic()
    while True:
        try:
            guide.cache.set("visits:after", 1)
        except BackendError:  # this write was under way when the engine's end became known
            if monotonic() - started > RECOVERY:
                raise
        else:
            return monotonic() - started


def _report_outage(stage: Stage, calls: Calls, lines: list[str]) -> None:
    raised = sum(isinstance(write.exception(), BackendError) for write in calls.writes)
    stage.report("writes that raised BackendError", f"{raised} of {WRITES}", raised == WRITES)
    answered = sum(read.exception() is None for read in calls.reads)
    stage.report("reads answered by SQLite instead", f"{answered} of {READS}", answered == calls.queries == READS)
    queued = calls.queued == INVALIDATIONS
    stage.report("invalidations that were queued", f"{calls.queued} of {INVALIDATIONS}", queued)
    at_once = calls.spared > INVALIDATIONS // 2  # the others looked whether it is back
    stage.report("of these, without waiting for the engine", calls.spared, at_once)
    lost = [line for line in lines if "does not answer" in line]
    stage.report("log lines about the loss", len(lost), len(lost) == 1)
    for line in lines:
        stage.quote(line)


def _report_values(stage: Stage, ids: list[int], calls: Calls) -> None:
    with processes(1) as other:
        theirs = list(other.map(guide.city, ids))
    truth = [guide.atlas.city(city_id) for city_id in ids]
    during = [calls.update.result(), *(read.result() for read in calls.reads)]
    ours = [guide.city(city_id) for city_id in ids]
    wrong = sum(value != true for values in (during, ours, theirs) for value, true in zip(values, truth, strict=True))
    stage.report("wrong values, during and after", f"{wrong} of {3 * len(truth)}", wrong == 0)


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _listening() -> Generator[list[str], None, None]:
    """Collect what nearcache logs."""
    logger, log = logging.getLogger("nearcache"), _Log()
    logger.addHandler(log)
    try:
        yield log.lines
    finally:
        logger.removeHandler(log)
