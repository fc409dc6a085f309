"""Blocks of calls that take turns: what is timed, and what it took."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

from nearcache import CacheError

BLOCK_SECONDS: Final = 0.02
"""What a block takes at least: long enough for the clocks, short enough for many of them."""
LEAST_BLOCKS: Final = 5
HINT: Final = "is caching turned off (CACHE_ENABLED), or the engine full?"

Loop = Callable[[int], object]


class MeasureError(CacheError):
    """An answer was wrong, or calls were not what they should have been: the figures would be worth nothing."""


@dataclass(frozen=True)
class Work:
    """Something to be timed.

    `block(n)` makes n calls, always a multiple of `step`; `once()` makes one and returns the answer. `hits` is a
    counter that grows by `per_call` with each call, if there is one.
    """

    block: Loop
    once: Callable[[], object]
    expected: object
    hits: Callable[[], int] | None = None
    per_call: int = 1
    step: int = 1


class Span(NamedTuple):
    """Seconds for each call, of the median block and of the best."""

    median: float
    best: float


@dataclass(frozen=True)
class Taken:
    """Seconds for each call, one number for each block."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def of_wall(self) -> Span:
        """What the clock says."""
        return Span(median(self.wall), min(self.wall))

    @property
    def of_cpu(self) -> Span:
        """What this process's processor time says."""
        return Span(median(self.cpu), min(self.cpu))

    @property
    def per_second(self) -> float:
        """Calls in a second, in the median block."""
        return 1 / self.of_wall.median


class Stopwatch:
    """One work, how many calls a block of it has, and what its blocks took."""

    def __init__(self, work: Work) -> None:
        check(work)
        self._work = work
        self._before = work.hits() if work.hits else 0
        self._calls = 0
        self._blocks: list[tuple[float, float]] = []
        self._size = self._enough()

    def block(self) -> None:
        """Time one block."""
        wall, cpu = self._timed(self._size)
        self._blocks.append((wall / self._size, cpu / self._size))

    def finish(self) -> Taken:
        """Return what was taken; raise if the calls were not all hits, where hits are counted."""
        expected = self._calls * self._work.per_call
        counted = self._work.hits() - self._before if self._work.hits else expected
        if counted != expected:
            raise MeasureError(f"{expected} reads were {counted} hits; {HINT}")
        return Taken(tuple(wall for wall, _ in self._blocks), tuple(cpu for _, cpu in self._blocks))

    def _enough(self) -> int:
        """Find a number of calls that takes long enough; this warms up as well."""
        size = self._work.step
        while self._timed(size)[0] < BLOCK_SECONDS:
            size *= 2
        return size

    def _timed(self, size: int) -> tuple[float, float]:
        self._calls += size
        cpu, wall = time.process_time(), time.perf_counter()
        self._work.block(size)
        return time.perf_counter() - wall, time.process_time() - cpu


def check(work: Work) -> None:
    """Raise unless the answer is right, its type included."""
    answer = work.once()
    if answer != work.expected or type(answer) is not type(work.expected):
        raise MeasureError(f"the answer is {answer!r:.80}, not what was stored; {HINT}")


def in_turns(works: Sequence[Work], seconds: float) -> list[Taken]:
    """Time works for so many seconds each, in blocks that take turns so that a slow moment meets all of them."""
    watches = [Stopwatch(work) for work in works]
    for turn in turns(seconds * len(works)):
        first = turn % len(watches)
        for watch in watches[first:] + watches[:first]:
            watch.block()
    return [watch.finish() for watch in watches]


def turns(seconds: float) -> Iterator[int]:
    """Count until the time is over, and a few times at least."""
    turn, end = 0, time.perf_counter() + seconds
    while turn < LEAST_BLOCKS or time.perf_counter() < end:
        yield turn
        turn += 1
