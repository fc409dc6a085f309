"""A worker's share of quotas: what it lets through by itself, while nobody can ask how much is left of the whole.

A share is a whole number of units, rounded down, so that all shares together are no more than the limit.
"""

from collections.abc import Sequence

from nearcache._core.limits import Kind
from nearcache._core.quotas import MICROS, Consumed, Quota, Standing, consumed

Seen = tuple[int, Sequence[int]]
"""When (microseconds), and how many units were left then of each quota."""


class Share:
    """The part of one of so many `workers`, for one identity; times are in microseconds.

    Of what was consumed when the quotas were `seen` last, it counts its part as consumed then.
    """

    def __init__(self, kind: Kind, quotas: Sequence[Quota], workers: int, seen: Seen | None) -> None:
        self._parts = [(count // workers, period) for count, period in quotas]
        self._states: list[Consumed | None] = [
            consumed(kind, [(count, period)]) if count else None for count, period in self._parts
        ]
        if seen is not None:
            self._spend(seen[0], [left // workers for left in seen[1]])

    def _spend(self, at: int, left: Sequence[int]) -> None:
        for state, (count, _), still in zip(self._states, self._parts, left, strict=True):
            if state is not None and still < count:
                state.consume(at, count - max(0, still))

    @property
    def until(self) -> int:
        """When all of it is there again."""
        return max((state.until for state in self._states if state is not None), default=0)

    def look(self, now: int, units: int) -> tuple[Standing, ...]:
        """Tell how each part stands; of one that never has so many units, that it does not within its period."""
        told = zip(self._states, self._parts, strict=True)
        return tuple(_standing(state, count, period, now, units) for state, (count, period) in told)

    def consume(self, now: int, cost: int) -> None:
        """Take units of every part."""
        for state in self._states:
            if state is not None:
                state.consume(now, cost)


def _standing(state: Consumed | None, count: int, period: int, now: int, units: int) -> Standing:
    whole = period / MICROS
    if state is None:
        return Standing(0, whole, whole)
    (standing,) = state.look(now, min(units, count))
    return standing if units <= count else standing._replace(reset=whole, wait=whole)
