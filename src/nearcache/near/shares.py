"""What this process lets through by itself, for each identity of its limiters, while the engine does not answer."""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from nearcache._core.clock import Clock
from nearcache._core.limits import Kind
from nearcache._core.quotas import Quota, Standing
from nearcache._core.shares import Seen, Share

BEAT: Final = 5.0
"""Seconds after which a process that uses limiters says again that it lives."""

LIFE: Final = 3 * BEAT
"""Seconds after which one that says so no more is not counted."""

MOST_SEEN: Final = 10_000
"""Identities of which it is remembered what was left; of more, those that were met last."""

SWEEP_AT: Final = 1_000
"""Shares from which on those that are whole again are looked for, each time there are twice as many."""


class Shares:
    """The shares of one cache, for any number of threads; times of limits are in microseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._shares: dict[str, Share] = {}
        self._sweep_at = SWEEP_AT
        self.after_fork()

    def after_fork(self) -> None:
        """Begin as a worker of its own, which does not know how many there are."""
        # Re-entrant, because a finalizer or a signal handler that runs inside may use the cache too.
        self._lock = threading.RLock()
        self.worker: str = os.urandom(8).hex()
        self.workers: int = 0
        """How many workers there are, this one included; 0 if it was never told."""
        self._due = -math.inf

    def beats(self) -> bool:
        """Tell whether the caller has to say that this process lives; nobody else has then, for a while."""
        now = self._clock()
        if now < self._due:
            return False
        with self._lock:
            due = now >= self._due
            if due:
                self._due = now + BEAT
            return due

    def saw(self, whose: str, now: int, standings: Sequence[Standing]) -> None:
        """Note what is left."""
        with self._lock:
            self._seen[whose] = now, [standing.left for standing in standings]
            self._seen.move_to_end(whose)
            if len(self._seen) > MOST_SEEN:
                self._seen.popitem(last=False)

    def forget(self, whose: str) -> None:
        """Note that nobody knows any more what is left."""
        with self._lock:
            self._seen.pop(whose, None)

    def decide(
        self, whose: str, kind: Kind, quotas: Sequence[Quota], cost: int, now: int, *, consume: bool
    ) -> tuple[bool, tuple[Standing, ...]]:
        """Tell whether the share allows the cost, and consume it, all of it or nothing."""
        with self._lock:
            share = self._shares.get(whose)
            if share is None or share.until <= now:
                share = Share(kind, quotas, self.workers, self._seen.get(whose))
            standings = share.look(now, cost)
            if any(standing.wait for standing in standings):
                return False, standings
            if consume:
                share.consume(now, cost)
                self._shares[whose] = share
                self._sweep(now)
            return True, share.look(now, 0 if consume else cost)

    def _sweep(self, now: int) -> None:
        if len(self._shares) >= self._sweep_at:
            self._shares = {whose: share for whose, share in self._shares.items() if share.until > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._shares))
