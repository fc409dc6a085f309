"""What becomes of the changes that others announce: they are passed on to the near tier."""

from collections.abc import Callable, Collection
from typing import Final

from nearcache._core.clock import Clock
from nearcache.near.coherence import Coherence

LOST: Final = 30.0
"""Seconds after which a change that was not announced was none: its command failed."""


class Announced:
    """What was announced: passed on to the near tier; and how long this process's own changes took to be announced.

    `stir` lets everybody look again who waits for a lease.
    """

    def __init__(self, coherence: Coherence, clock: Clock, stir: Callable[[], None]) -> None:
        self._coherence = coherence
        self._stir = stir
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin anew: nothing was announced yet."""
        self.marked: bool = False
        """Whether a mark was announced that nobody has asked for yet."""
        self._sampling = False
        """Whether the next change by this process is to be sampled."""
        self._sampled: tuple[str, float] | None = None
        """A key that this process changed, which will be announced, and when that was sent."""

    def sample(self, key: str) -> None:
        """Measure how long it takes until a change of a key, which is about to be sent, is announced.

        Once per proof, so that what is announced is hardly ever an earlier change of the same key.
        """
        if self._sampling:
            self._sampling, self._sampled = False, (key, self._clock())

    def proven(self, sent: float) -> None:
        """Note that everything was heard that was announced before `sent`."""
        self._sampling = self._sampled is None or sent - self._sampled[1] > LOST

    def heard(self, keys: Collection[str]) -> None:
        """Note that changes of these keys were announced which the near tier need not be told of."""
        if (sampled := self._sampled) is not None and sampled[0] in keys:
            self._sampled = None
            self._coherence.lagged(self._clock() - sampled[1])

    def changed(self, keys: Collection[str]) -> None:
        """Note that somebody has changed these keys."""
        self.heard(keys)
        self._coherence.changed(keys)

    def changed_all(self) -> None:
        """Note that anything may have changed, marks too."""
        self._coherence.changed_all()
        self.marked = True
        self._stir()  # the list of those who wait may be gone as well
