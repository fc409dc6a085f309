"""Limits of memory://: the same decisions as the scripts of an engine, for the threads and tasks of one process."""

import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from nearcache._core.clock import EngineTime
from nearcache._core.fork import on_fork
from nearcache._core.limits import Kind
from nearcache.backends.limits import LimitAsk, LimitGrant, Quota, Standing

MICROS: Final = 1_000_000

SWEEP_AT: Final = 1_000
"""Records from which on those that have expired are looked for, each time there are twice as many."""


class _Record(Protocol):
    """What one limiter knows of one identity; times are in microseconds."""

    until: int
    """When it may be forgotten."""

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        """Tell how each limit stands, and when it would allow so many units."""
        ...

    def consume(self, now: int, cost: int) -> str:
        """Take units of every limit; return what a refund needs."""
        ...

    def refund(self, now: int, cost: int, receipt: str) -> None:
        """Give units back."""
        ...


def _standing(left: int, reset: int, wait: int) -> Standing:
    return Standing(left, reset / MICROS, wait / MICROS)


class _Log:
    """The time of each unit, oldest first; each hit has a time of its own, later than all before."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._quotas = quotas
        self._times: list[int] = []
        self.until: int = 0

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        return tuple(self._stand(now, units, *quota) for quota in self._quotas)

    def _stand(self, now: int, units: int, count: int, period: int) -> Standing:
        later = self._later(now)
        first = bisect_right(self._times, later - period)
        used = len(self._times) - first
        over = used + units - count
        reset = self._times[-1] + period - later if used else 0
        wait = self._times[first + over - 1] + period - now if over > 0 else 0
        return _standing(count - used, reset, wait)

    def consume(self, now: int, cost: int) -> str:
        now = self._later(now)
        self._times += [now] * cost
        del self._times[: -max(count for count, _ in self._quotas)]  # older ones count for no limit
        self.until = now + max(period for _, period in self._quotas)
        return str(now)

    def refund(self, now: int, cost: int, receipt: str) -> None:
        self._times = [each for each in self._times if each != int(receipt)]

    def _later(self, now: int) -> int:
        return max(now, self._times[-1] + 1) if self._times else now


class _Windows:
    """Of each limit: when its window began, and how many units were consumed in it."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._quotas = quotas
        self._began = [0 for _ in quotas]
        self._used = [0 for _ in quotas]
        self.until: int = 0

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        self._turn(now)
        told = zip(self._quotas, self._began, self._used, strict=True)
        return tuple(
            _standing(
                count - used, began + period - now if used else 0, began + period - now if used + units > count else 0
            )
            for (count, period), began, used in told
        )

    def consume(self, now: int, cost: int) -> str:
        self._turn(now)
        self._used = [used + cost for used in self._used]
        self.until = max(began + period for began, (_, period) in zip(self._began, self._quotas, strict=True))
        return " ".join(map(str, self._began))

    def refund(self, now: int, cost: int, receipt: str) -> None:
        self._turn(now)
        for at, began in enumerate(_numbers(receipt)):
            if began == self._began[at]:
                self._used[at] = max(0, self._used[at] - cost)

    def _turn(self, now: int) -> None:
        for at, (_, period) in enumerate(self._quotas):
            if (start := now - now % period) > self._began[at]:
                self._began[at], self._used[at] = start, 0


class _Buckets:
    """How full the bucket of each limit was at a time: a unit fills it by the period, a microsecond empties it by the
    count, and it holds their product.
    """

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._quotas = quotas
        self._last = 0
        self._levels = [0 for _ in quotas]
        self.until: int = 0

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        self._drain(now)
        return tuple(
            _standing(
                (count * period - level) // period,
                -(-level // count),
                max(0, -(-(level + (units - count) * period) // count)),
            )
            for (count, period), level in zip(self._quotas, self._levels, strict=True)
        )

    def consume(self, now: int, cost: int) -> str:
        self._drain(now)
        self._levels = [level + cost * period for (_, period), level in zip(self._quotas, self._levels, strict=True)]
        pairs = zip(self._quotas, self._levels, strict=True)
        self.until = self._last + max(-(-level // count) for (count, _), level in pairs)
        return " ".join(map(str, (self._last, *self._levels)))

    def refund(self, now: int, cost: int, receipt: str) -> None:
        self._drain(now)
        last, *levels = _numbers(receipt)
        for at, ((count, period), level) in enumerate(zip(self._quotas, levels, strict=True)):
            left = level - (self._last - last) * count  # the bucket emptied what was in it before first
            self._levels[at] = max(0, self._levels[at] - max(0, min(left, cost * period)))

    def _drain(self, now: int) -> None:
        passed = max(0, now - self._last)
        pairs = zip(self._quotas, self._levels, strict=True)
        self._levels = [max(0, level - passed * count) for (count, _), level in pairs]
        self._last += passed


def _numbers(receipt: str) -> Iterable[int]:
    return map(int, receipt.split())


_KINDS: Final[dict[Kind, type[_Log] | type[_Windows] | type[_Buckets]]] = {
    "sliding": _Log,
    "fixed": _Windows,
    "gcra": _Buckets,
}


class MemoryLimits:
    """The port of limits, which both flavours share."""

    def __init__(self, time_of_engine: EngineTime) -> None:
        self._clock = time_of_engine.clock
        # So that windows begin when those of an engine do; a clock made for tests is its own time.
        self._offset = 0.0 if time_of_engine.simulated else time.time() - self._clock()
        self._records: dict[tuple[str, str], _Record] = {}
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

    def after_fork(self) -> None:
        """Let a forked child go on counting by itself."""
        self._mutex = threading.RLock()

    def _decide(self, ask: LimitAsk, *, consume: bool) -> LimitGrant:
        with self._mutex:
            now = self._now()
            record = self._records.get((ask.name, ask.digest)) or _KINDS[ask.kind](ask.quotas)
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
