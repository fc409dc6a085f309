"""Four processes book payments under a lock. One is frozen while it holds it, and writes when others have had it.

A frozen process cannot renew its lock, so that the lock goes to the next one. When it goes on, it does not know that it
was frozen. Its fencing token is older than the one that SQLite has seen by then, and its write is refused.
"""

import os
from collections import Counter
from collections.abc import Generator
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from nearcache import LockLostError
from nearcache.demo import guide
from nearcache.demo.ledger import Ledger, RefusedError
from nearcache.demo.processes import freeze, processes, thaw
from nearcache.demo.stage import Stage, duration

PROCESSES = 4
PAYMENTS = 25
"""By each process."""

LEASE = 1.0
"""Seconds for which the lock outlives a holder that does not renew it."""

PATIENCE = 30.0

ledger: Ledger = Ledger(Path(os.environ.get("CITIES", "cities.sqlite")).with_name("ledger.sqlite"))


def play(stage: Stage) -> None:
    """Count payments, and what the account makes of them."""
    ledger.make()
    did: Counter[str] = Counter()
    with processes(PROCESSES) as pool:
        turns = [pool.submit(pay, freezes=number == 0) for number in range(PROCESSES)]
        with _frozen():
            started = monotonic()
            while not did["booked"]:
                _pay(did)
            waited = monotonic() - started
        for turn in stage.track(as_completed(turns), f"processes, {PAYMENTS} payments each", PROCESSES):
            did.update(turn.result())
    booked, balance = did["booked"], ledger.balance()
    everything = booked == 1 + PROCESSES * PAYMENTS  # one by this process
    stage.report("payments that were booked", f"{booked} by {PROCESSES + 1} processes", everything)
    stage.report("balance of the account", balance, balance == booked)
    stage.report("the frozen one's lock went to the next after", duration(waited), waited < PATIENCE)
    stage.report("late writes that SQLite refused", did["refused"], did["refused"] > 0)


def pay(freezes: bool) -> Counter[str]:
    """Book payments, in a worker process; freeze during one of them if told to. What was refused is done again."""
    did: Counter[str] = Counter()
    while did["booked"] < PAYMENTS:
        _pay(did, freezes and did["booked"] >= PAYMENTS // 2 and not did["frozen"])
    return did


def _pay(did: Counter[str], freezes: bool = False) -> None:
    # The end of a block tells that others have had the lock, or may have. What was booked by then is booked.
    with suppress(LockLostError), guide.cache.lock("account:42", ttl=LEASE, wait=PATIENCE) as held:
        token = held.token
        try:
            balance = ledger.read(token)
            if freezes and ledger.may_freeze(os.getpid()):
                did["frozen"] += 1
                freeze(os.getpid())
            ledger.write(token, balance + 1)
            did["booked"] += 1
        except RefusedError:
            did["refused"] += 1


@contextmanager
def _frozen() -> Generator[None, None, None]:
    """Wait until one of the processes freezes, and let it go on when the block ends, also if it was interrupted."""
    deadline = monotonic() + PATIENCE
    try:
        while not ledger.frozen():
            if monotonic() > deadline:
                raise TimeoutError("no process froze")
            sleep(0.01)
        yield
    finally:
        if pid := ledger.freeze_no_more():
            thaw(pid)
