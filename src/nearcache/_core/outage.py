"""An engine that does not answer: since when, why, and who may ask it next.

The first call that gets no answer begins the outage, and from then on calls are answered at once, without the engine.
Single ones are let through to look whether it is there again: the next one at once, for the first may have been bad
luck, and then one after every pause, never two at a time. The first answer that anybody gets ends the outage.
"""

import random
from typing import Final

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
"""Seconds between two calls that are let through: doubled each time up to the longest, then shortened at random by up
to a half, so that many processes do not ask in step."""


class _Turn:
    """The right to ask, from the time `due` on, for the first who comes."""

    __slots__ = ("_taken", "due")

    def __init__(self, due: float) -> None:
        self.due: float = due
        self._taken: dict[str, list[float]] = {}

    @property
    def taken(self) -> float | None:
        """When it was taken, None if it was not."""
        at = self._taken.get("at")
        return None if at is None else at[0]

    def take(self, now: float) -> float | None:
        """Take it; None if that was so, or when somebody else took it. One step, whoever comes in between."""
        mine = [now]
        first = self._taken.setdefault("at", mine)
        return None if first is mine else first[0]


class Outage:
    """One time span without an answer; times are seconds on the clock of the cache.

    `patience` is how long a call that was let through may take; one that was never heard of again, because its thread
    was interrupted at a bad moment, is given up then.
    """

    __slots__ = ("_patience", "_pause", "_since", "_turn", "_why")

    def __init__(self, now: float, why: str, patience: float) -> None:
        self._since = now
        self._why = why
        self._patience = patience
        self._pause = 0.0
        self._turn = _Turn(now)

    def lets_through(self, now: float) -> bool:
        """Tell whether the caller may ask the engine; then it has to report by `failed` or `abandoned`."""
        turn = self._turn
        if now < turn.due:
            return False
        taken = turn.take(now)
        if taken is not None and now > taken + self._patience:
            self.abandoned(now)
        return taken is None

    def spares(self, now: float) -> bool:
        """Tell whether nobody may ask now: it is too early, or somebody does."""
        turn = self._turn
        taken = turn.taken
        return now < turn.due or (taken is not None and now <= taken + self._patience)

    def failed(self, now: float) -> None:
        """Note that the one who was let through got no answer: the next may ask after a pause."""
        self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
        self._turn = _Turn(now + self._pause * (1 - 0.5 * random.random()))  # noqa: S311 -- jitter is no secret

    def abandoned(self, now: float) -> None:
        """Note that the one who was let through learned nothing: the next may ask."""
        self._turn = _Turn(now)

    def described(self, now: float) -> str:
        """Say since when, why, and when the engine is asked next."""
        wait = self._turn.due - now
        following = f"it is asked again in {wait:.1f} s" if wait > 0 else "somebody is asking it now"
        return f"no answer for {self.lasted(now):.1f} s ({self._why}); {following}"

    def lasted(self, now: float) -> float:
        """Return for how many seconds nothing was answered."""
        return max(0.0, now - self._since)
