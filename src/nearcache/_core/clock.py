"""Time: the clock of this process, and what this process knows about the engine's clock.

Inside a process only the monotonic clock is read. Ages that cross processes are measured in the engine's own time,
which a process estimates from one exchange: it asked at `sent`, the engine answered `engine` and the answer was
there at `received` (both on the local clock). So the engine's time now lies between `engine + (now - received)` and
`engine + (now - sent)`. A value is stamped with the earliest and judged by the latest estimate: an error can only
make it expire early.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

Clock = Callable[[], float]
"""A function that returns seconds and never goes back."""

REMEASURE_AFTER = 15.0


class _Bounds(NamedTuple):
    """What to add to the local clock for the engine's, at least and at most, and when that was measured."""

    early: float
    late: float
    measured: float


class EngineTime:
    """The engine's time in seconds, as bounds, from the last exchange that was observed."""

    __slots__ = ("_bounds", "clock")

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock: Clock = clock
        self._bounds: _Bounds | None = None

    @property
    def known(self) -> bool:
        """Whether the engine was asked at least once."""
        return self._bounds is not None

    @property
    def simulated(self) -> bool:
        """Whether the local clock was made for tests and moves without the engine's."""
        return self.clock is not time.monotonic

    def due(self) -> bool:
        """Whether it is time to ask the engine again; with a simulated clock, only once."""
        if self._bounds is None:
            return True
        return not self.simulated and self.clock() - self._bounds.measured > REMEASURE_AFTER

    def observe(self, sent: float, received: float, engine: float) -> None:
        """Note that the engine's time was `engine` at some moment between the local times `sent` and `received`.

        What is known already is replaced when it is due, or when the new exchange was quicker and so says more.
        """
        known = self._bounds
        if known is None or self.due() or (not self.simulated and received - sent < known.late - known.early):
            self._bounds = _Bounds(engine - received, engine - sent, received)

    def earliest(self) -> float:
        """The smallest the engine's time can be now."""
        return self.clock() + (self._bounds.early if self._bounds else 0.0)

    def latest(self) -> float:
        """The largest the engine's time can be now."""
        return self.clock() + (self._bounds.late if self._bounds else 0.0)
