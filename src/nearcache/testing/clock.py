"""A clock for tests."""

from nearcache._core.ttl import parse_duration


class FakeClock:
    """A clock that stands still until you advance it; give it to a cache as `clock=`."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, duration: float | str) -> None:
        """Move on by seconds, or by a text such as "1h"."""
        self._now += parse_duration(duration, "duration")
