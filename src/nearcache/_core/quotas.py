"""Quotas of one limiter for one identity: what was consumed of them, and what that allows. Times are in microseconds.

Where the time is known between bounds only, all are told the earliest that it may be, but for a log that notes what is
consumed now: it is told the latest, so that no unit comes back too early.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from nearcache._core.limits import Kind

MICROS: Final = 1_000_000

Quota = tuple[int, int]
"""So many units in so many microseconds."""


class Standing(NamedTuple):
    """How one limit stands for an identity.

    `left` is how many units may be consumed now. In seconds: after `reset` all of them may be, if nobody consumes any;
    after `wait` those that were asked for, 0.0 if they may be now.
    """

    left: int
    reset: float
    wait: float


class Consumed(Protocol):
    """What one limiter knows of one identity."""

    @property
    def until(self) -> int:
        """When it may be forgotten, once something was consumed."""
        ...

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        """Tell how each limit stands, and when it would allow so many units."""
        ...

    def consume(self, now: int, cost: int) -> str:
        """Take units of every limit; return what a refund needs."""
        ...

    def refund(self, now: int, cost: int, receipt: str) -> None:
        """Give units back."""
        ...

    def numbers(self) -> list[int]:
        """Return what it is made of."""
        ...


def _standing(left: int, reset: int, wait: int) -> Standing:
    return Standing(left, reset / MICROS, wait / MICROS)


class _Log:
    """The time of each unit, oldest first; each hit has a time of its own, later than all before."""

    def __init__(self, quotas: Sequence[Quota], numbers: Iterable[int] = ()) -> None:
        self._quotas = quotas
        self._times = list(numbers)

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        return tuple(self._stand(now, units, *quota) for quota in self._quotas)

    def _stand(self, now: int, units: int, count: int, period: int) -> Standing:
        first = bisect_right(self._times, now - period)
        used = len(self._times) - first
        over = used + units - count
        reset = self._times[-1] + period - self._later(now) if used else 0
        wait = self._times[first + over - 1] + period - now if over > 0 else 0
        return _standing(count - used, max(reset, wait), wait)

    def consume(self, now: int, cost: int) -> str:
        now = self._later(now)
        self._times += [now] * cost
        del self._times[: -max(count for count, _ in self._quotas)]  # older ones count for no limit
        return str(now)

    def refund(self, now: int, cost: int, receipt: str) -> None:
        self._times = [each for each in self._times if each != int(receipt)]

    def numbers(self) -> list[int]:
        return self._times

    @property
    def until(self) -> int:
        return self._times[-1] + max(period for _, period in self._quotas) if self._times else 0

    def _later(self, now: int) -> int:
        return max(now, self._times[-1] + 1) if self._times else now


class _Windows:
    """Of each limit: when its window began, and how many units were consumed in it."""

    def __init__(self, quotas: Sequence[Quota], numbers: Sequence[int] = ()) -> None:
        self._quotas = quotas
        kept = numbers or [0] * (2 * len(quotas))
        self._began = list(kept[::2])
        self._used = list(kept[1::2])

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
        return " ".join(map(str, self._began))

    def refund(self, now: int, cost: int, receipt: str) -> None:
        self._turn(now)
        for at, began in enumerate(_numbers(receipt)):
            if began == self._began[at]:
                self._used[at] = max(0, self._used[at] - cost)

    def numbers(self) -> list[int]:
        return [number for pair in zip(self._began, self._used, strict=True) for number in pair]

    @property
    def until(self) -> int:
        return max(began + period for began, (_, period) in zip(self._began, self._quotas, strict=True))

    def _turn(self, now: int) -> None:
        for at, (_, period) in enumerate(self._quotas):
            if (start := now - now % period) > self._began[at]:
                self._began[at], self._used[at] = start, 0


class _Buckets:
    """How full the bucket of each limit was at a time: a unit fills it by the period, a microsecond empties it by the
    count, and it holds their product.
    """

    def __init__(self, quotas: Sequence[Quota], numbers: Sequence[int] = ()) -> None:
        self._quotas = quotas
        self._last, *self._levels = numbers or [0] * (1 + len(quotas))

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
        return " ".join(map(str, self.numbers()))

    def refund(self, now: int, cost: int, receipt: str) -> None:
        self._drain(now)
        last, *levels = _numbers(receipt)
        for at, ((count, period), level) in enumerate(zip(self._quotas, levels, strict=True)):
            left = level - (self._last - last) * count  # the bucket emptied what was in it before first
            self._levels[at] = max(0, self._levels[at] - max(0, min(left, cost * period)))

    def numbers(self) -> list[int]:
        return [self._last, *self._levels]

    @property
    def until(self) -> int:
        pairs = zip(self._quotas, self._levels, strict=True)
        return self._last + max(-(-level // count) for (count, _), level in pairs)

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


def consumed(kind: Kind, quotas: Sequence[Quota], numbers: Sequence[int] = ()) -> Consumed:
    """Return what was consumed, of the `numbers` that it is made of; without any, nothing was.

    Nothing was either if there are not as many numbers as quotas of this kind have.
    """
    expected = {"sliding": len(numbers), "fixed": 2 * len(quotas), "gcra": 1 + len(quotas)}[kind]
    return _KINDS[kind](quotas, numbers if len(numbers) == expected else ())
