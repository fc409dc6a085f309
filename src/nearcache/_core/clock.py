"""Time: the clock of this process, and what this process knows about the engine's clock.

Inside a process only the monotonic clock is read. Ages that cross processes are measured in the engine's own time,
which a process estimates from one exchange: it asked at `sent`, the engine answered `engine` and the answer was
there at `received` (both on the local clock). So the engine's time now lies between `engine + (now - received)` and
`engine + (now - sent)`. A value is stamped with the earliest and judged by the latest estimate: an error can only
make it expire early.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

Clock = Callable[[], float]
"""A function that returns seconds and never goes back."""

REMEASURE_AFTER = 15.0


class _Bounds(NamedTuple):
    """What to add to the local clock for the engine's, at least and at most."""

    early: float
    late: float


class EngineTime:
    """The engine's time in seconds, as bounds, from the last exchange that was observed."""

    __slots__ = ("_bounds", "_due", "clock", "simulated")

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock: Clock = clock
        self.simulated: bool = clock is not time.monotonic
        """Whether the local clock was made for tests and moves without the engine's."""
        self._bounds = _Bounds(0.0, 0.0)
        self._due = -math.inf

    @property
    def known(self) -> bool:
        """Whether the engine was asked at least once."""
        return self._due > -math.inf

    def due(self) -> bool:
        """Whether it is time to ask the engine again; with a simulated clock, only once."""
        return self.clock() > self._due

    def observe(self, sent: float, received: float, engine: float) -> None:
        """Note that the engine's time was `engine` at some moment between the local times `sent` and `received`.

        What is known already is replaced when it is due, or when the new exchange was quicker and so says more.
        """
        if self.due() or (not self.simulated and received - sent < self._bounds.late - self._bounds.early):
            self._bounds = _Bounds(engine - received, engine - sent)
            self._due = math.inf if self.simulated else received + REMEASURE_AFTER

    def earliest(self) -> float:
        """The smallest the engine's time can be now."""
        return self.clock() + self._bounds.early

    def latest(self) -> float:
        """The largest the engine's time can be now."""
        return self.clock() + self._bounds.late
