"""The invalidations of the last minute: an engine that is restarted or replaced may have forgotten them."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from nearcache._core.clock import Clock

REMEMBERED: Final = 60.0
"""Seconds for which an invalidation is remembered: a replica that lags by more has other troubles."""

MOST: Final = 10_000
"""Keys that are remembered; of more, the newest are."""


class Recent:
    """Keys that this process has invalidated, for any number of threads; O(1) for each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._full_until = float("-inf")
        self.after_fork()

    def note(self, keys: Iterable[str]) -> None:
        """Remember keys that were just invalidated."""
        now = self._clock()
        with self._lock:
            for key in keys:
                self._noted[key] = now
                self._noted.move_to_end(key)
            self._forget(now)

    def all(self) -> tuple[list[str], bool]:
        """Return the keys of the last minute, and whether these are all, or the newest of too many to remember."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            return list(self._noted), now >= self._full_until

    def _forget(self, now: float) -> None:
        while (oldest := self._oldest()) is not None:
            if len(self._noted) > MOST:
                self._full_until = oldest + REMEMBERED
            elif now < oldest + REMEMBERED:
                return
            self._noted.popitem(last=False)

    def _oldest(self) -> float | None:
        """Return when the first of the keys was noted. A signal handler may note another one meanwhile."""
        while True:
            with suppress(RuntimeError):
                return next(iter(self._noted.values()), None)

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._lock = threading.RLock()
