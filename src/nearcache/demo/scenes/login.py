"""Four processes guess one user's password, as fast as they can. A limiter lets five guesses a minute through.

All processes count together, in the engine: each try is decided and counted in one step, so that none slips through
between two of them.
"""

import os
from collections import Counter
from concurrent.futures import as_completed
from dataclasses import dataclass
from time import monotonic

from nearcache import Limiter
from nearcache.demo import guide
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage, duration

PROCESSES = 4
MOST = 5
SECONDS = 1.0
"""For which each process guesses."""

MINUTE = 60.0

USER = "ada"
PASSWORD = "opensesame-100"  # noqa: S105  # one of the first that are guessed

limiter: Limiter = guide.cache.limiter("login", f"{MOST}/minute")


@dataclass(frozen=True)
class Tries:
    """What became of the guesses of one process: how many were let through, were right, and were refused."""

    process: int
    counts: Counter[str]


def play(stage: Stage) -> None:
    """Count guesses, and what the last of them was told."""
    total: Counter[str] = Counter()
    workers: set[int] = set()
    started = monotonic()
    with processes(PROCESSES) as pool:
        guesses = [pool.submit(guess) for _ in range(PROCESSES)]
        for each in stage.track(as_completed(guesses), "processes that guess", PROCESSES):
            tries = each.result()
            workers.add(tries.process)
            total += tries.counts
    stage.report("guesses", f"{total.total():,} by {len(workers)} processes", total.total() > MOST)
    in_time = monotonic() - started < MINUTE
    stage.report("let through to the password", total["admitted"], total["admitted"] == MOST if in_time else None)
    stage.report("times that the password was found", total["found"], total["found"] == 0)
    _refused(stage)
    stage.report("somebody else may log in meanwhile", "bob", bool(limiter.hit("bob")))


def guess() -> Tries:
    """Guess in a worker process, and obey no answer."""
    counts: Counter[str] = Counter()
    until, number = monotonic() + SECONDS, 0
    while monotonic() < until:
        admitted = bool(limiter.hit(USER))
        counts["admitted" if admitted else "refused"] += 1
        counts["found"] += admitted and f"opensesame-{number}" == PASSWORD
        number += 1
    return Tries(os.getpid(), counts)


def _refused(stage: Stage) -> None:
    """Show what a web service would answer."""
    verdict = limiter.hit(USER)
    stage.quote("HTTP/1.1 429 Too Many Requests")
    for name, value in verdict.headers().items():
        stage.quote(f"{name}: {value}")
    told = not verdict and 0 < verdict.retry_after <= MINUTE
    stage.report("the next guess is allowed in", duration(verdict.retry_after), told)
