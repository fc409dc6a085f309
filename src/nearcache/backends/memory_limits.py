"""Limits of memory://: the same decisions as the scripts of an engine, for the threads and tasks of one process."""

import threading
import time
import weakref
from typing import Final

from nearcache._core.clock import EngineTime
from nearcache._core.fork import on_fork
from nearcache._core.limits import KINDS, Kind
from nearcache._core.quotas import MICROS, Consumed, consumed
from nearcache._core.ttl import LONGEST_TTL
from nearcache.backends.limits import LimitAsk, LimitGrant

SWEEP_AT: Final = 1_000
"""Records from which on those that have expired are looked for, each time there are twice as many."""


class MemoryLimits:
    """The port of limits, which both flavours share."""

    kinds: tuple[Kind, ...] = KINDS
    longest: float = LONGEST_TTL

    def __init__(self, time_of_engine: EngineTime) -> None:
        self._clock = time_of_engine.clock
        # So that windows begin when those of an engine do; a clock made for tests is its own time.
        self._offset = 0.0 if time_of_engine.simulated else time.time() - self._clock()
        self._records: dict[tuple[str, str], Consumed] = {}
        self._workers: dict[str, float] = {}
        self._sweep_at = SWEEP_AT
        self.after_fork()
        _all.add(self)

    async def hit(self, ask: LimitAsk) -> LimitGrant:
        """Consume units."""
        return self._decide(ask, consume=True)

    async def peek(self, ask: LimitAsk) -> LimitGrant:
        """Consume nothing."""
        return self._decide(ask, consume=False)

    async def refund(self, ask: LimitAsk, receipt: str) -> None:
        """Give units back."""
        with self._mutex:
            now = self._now()
            if (record := self._records.get((ask.name, ask.digest))) is not None:
                record.refund(now, ask.cost, receipt)

    async def reset(self, ask: LimitAsk) -> None:
        """Forget."""
        with self._mutex:
            self._records.pop((ask.name, ask.digest), None)

    async def beat(self, worker: str, life: float) -> int:
        """Note that a worker lives, and count."""
        with self._mutex:
            now = self._clock()
            self._workers[worker] = now
            self._workers = {each: at for each, at in self._workers.items() if at > now - life}
            return len(self._workers)

    def after_fork(self) -> None:
        """Let a forked child go on counting by itself."""
        self._mutex = threading.RLock()

    def _decide(self, ask: LimitAsk, *, consume: bool) -> LimitGrant:
        with self._mutex:
            now = self._now()
            record = self._records.get((ask.name, ask.digest)) or consumed(ask.kind, ask.quotas)
            standings = record.look(now, ask.cost)
            admitted = not any(standing.wait for standing in standings)
            if not (admitted and consume):
                return LimitGrant(admitted, "", standings)
            receipt = record.consume(now, ask.cost)
            self._records[ask.name, ask.digest] = record
            self._sweep(now)
            return LimitGrant(admitted, receipt, record.look(now, 0))

    def _now(self) -> int:
        return round((self._clock() + self._offset) * MICROS)

    def _sweep(self, now: int) -> None:
        """Forget what has expired, now and then; under the mutex."""
        if len(self._records) >= self._sweep_at:
            self._records = {key: record for key, record in self._records.items() if record.until > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._records))


_all: "weakref.WeakSet[MemoryLimits]" = weakref.WeakSet()


def _after_fork() -> None:
    for limits in list(_all):
        limits.after_fork()


on_fork(in_child=_after_fork)
