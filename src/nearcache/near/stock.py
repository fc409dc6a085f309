"""Units of limits that were consumed ahead, in the engine, and are handed out here within a short time."""

import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from nearcache._core.clock import Clock
from nearcache._core.quotas import Standing

SWEEP_AT: Final = 1_000
"""Identities from which on those without units are looked for, each time there are twice as many."""


class Batch:
    """Units that were consumed together, which may be handed out until a time; and how the limits stood then.

    They were asked for when so many `drops` had been.
    """

    __slots__ = ("at", "drops", "standings", "units", "until")

    def __init__(self, units: int, at: float, until: float, standings: Sequence[Standing], drops: int) -> None:
        self.units: int = units
        self.drops: int = drops
        self.at: float = at
        self.until: float = until
        self.standings: Sequence[Standing] = standings


Parts = Sequence[tuple[Batch, int]]
"""From which batches something was handed out, and how many units of each."""


class Taken(NamedTuple):
    """What was handed out, and how the limits stand then."""

    parts: Parts
    standings: tuple[Standing, ...]


class Stock:
    """The units of one cache, for any number of threads; times are those of the cache's clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with nothing: what there was is handed out by the parent."""
        # Re-entrant, because a finalizer or a signal handler that runs inside may use the cache too.
        self._lock = threading.RLock()
        self.drops: int = 0
        """How often units of any identity were dropped."""
        self._batches: dict[str, list[Batch]] = {}
        """Those that have units, by identity, the newest last."""
        self._scarce: dict[str, float] = {}
        self._sweep_at = SWEEP_AT

    def take(self, whose: str, cost: int, *, consume: bool = True) -> Taken | None:
        """Hand out units, all of them or None."""
        now = self._clock()
        with self._lock:
            batches = self._alive(whose, now)
            there = sum(batch.units for batch in batches)
            if there < cost:
                return None
            parts = _split(batches, cost) if consume else []
            self._keep(whose, [batch for batch in batches if batch.units])
            return Taken(parts, _standings(batches[-1], there - cost * consume, now))

    def put(self, whose: str, batch: Batch) -> tuple[Standing, ...]:
        """Add units, unless some were dropped since they were asked for; return how the limits stand."""
        now = self._clock()
        with self._lock:
            if batch.drops != self.drops:
                batch.until = -1.0
            batches = [*self._alive(whose, now), *([batch] if now < batch.until else [])]
            self._keep(whose, batches)
            self._sweep(now)
            return _standings(batch, sum(each.units for each in batches), now)

    def give_back(self, whose: str, parts: Parts) -> bool:
        """Take back what was handed out, as far as it may be handed out again; tell whether anything may."""
        now, any_ = self._clock(), False
        with self._lock:
            for batch, units in parts:
                if now < batch.until and (batch.units or batch.drops == self.drops):
                    if not batch.units:
                        self._keep(whose, [batch, *self._alive(whose, now)])
                    batch.units += units
                    any_ = True
        return any_

    def drop(self, whose: str) -> None:
        """Hand out nothing more of what there is."""
        with self._lock:
            self.drops += 1
            for batch in self._batches.pop(whose, ()):
                batch.until = -1.0

    def scarce(self, whose: str, seconds: float) -> None:
        """Note that there is no use in asking for more than is needed, for a while."""
        now = self._clock()
        with self._lock:
            self._scarce[whose] = now + seconds
            self._sweep(now)

    def is_scarce(self, whose: str) -> bool:
        """Tell whether that was noted lately."""
        return self._clock() < self._scarce.get(whose, 0.0)

    def _keep(self, whose: str, batches: list[Batch]) -> None:
        if batches:
            self._batches[whose] = batches
        else:
            self._batches.pop(whose, None)

    def _alive(self, whose: str, now: float) -> list[Batch]:
        return [batch for batch in self._batches.get(whose, ()) if now < batch.until]

    def _sweep(self, now: float) -> None:
        if len(self._batches) + len(self._scarce) >= self._sweep_at:
            self._batches = {whose: alive for whose in list(self._batches) if (alive := self._alive(whose, now))}
            self._scarce = {whose: until for whose, until in self._scarce.items() if now < until}
            self._sweep_at = max(SWEEP_AT, 2 * (len(self._batches) + len(self._scarce)))


def _split(batches: Sequence[Batch], cost: int) -> list[tuple[Batch, int]]:
    parts = list[tuple[Batch, int]]()
    for batch in batches:
        units = min(batch.units, cost)
        if units:
            batch.units -= units
            cost -= units
            parts.append((batch, units))
    return parts


def _standings(newest: Batch, there: int, now: float) -> tuple[Standing, ...]:
    return tuple(
        Standing(standing.left + there, max(0.0, standing.reset - (now - newest.at)), 0.0)
        for standing in newest.standings
    )
