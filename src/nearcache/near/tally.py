"""How often each entity was read from the in-process tier."""

from collections.abc import Mapping
from typing import Final

MAX_ENTITIES: Final = 100
OTHER_ENTITIES: Final = "other"

TELL_EVERY: Final = 1_024
"""Near hits of an entity after which listeners are told."""

AFTER: Final = tuple(range(1, TELL_EVERY))
"""The number after a number of ticks; past the last one, an IndexError says that it is time to tell the listeners.
So a hit counts and checks with one look into a tuple, which is quicker than a sum and a remainder."""


class Tally:
    """Counts the hits of one entity: near ones as `ticks` up to the next telling and those before, the engine's apart.

    It is counted up without a lock. Under the global interpreter lock no count is lost, because no thread switch can
    happen between reading and writing an attribute; on a free-threaded build a few may be.
    """

    __slots__ = ("_told", "engine", "ticks")

    def __init__(self) -> None:
        self.engine: int = 0
        self.ticks: int = 0
        self._told = 0

    @property
    def hits(self) -> int:
        """How many near hits there were."""
        return self._told + self.ticks

    def turn(self) -> None:
        """Count the hit that found no tick left, and begin anew."""
        self._told, self.ticks = self._told + self.ticks + 1, 0


class Tallies:
    """The tallies of the first 99 entities, and one for all others; for any number of threads, without a lock."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, Tally] = {}

    def of(self, entity: str) -> Tally:
        """Return what counts the hits of an entity."""
        tally = self._of.get(entity)
        if tally is not None:
            return tally
        if len(self._of) >= MAX_ENTITIES - 1:
            entity = OTHER_ENTITIES
        return self._of.setdefault(entity, Tally())

    def all(self) -> Mapping[str, Tally]:
        """Return the tally of each entity."""
        return dict(self._of)
