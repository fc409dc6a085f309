"""What the in-process tier holds for one key, and how often an entity was read from it."""

from collections.abc import Callable
from typing import Final

Copier = Callable[[object], object]
"""Makes a fresh, independent and equal value from the kept state."""

NEVER: Final = float("-inf")
"""A deadline that has always passed."""

MAX_FREQ: Final = 3
"""Reads beyond this many tell the eviction policy nothing new (S3-FIFO keeps two bits)."""


class Tally:
    """Counts the near hits of one entity.

    It is counted up without a lock. Under the global interpreter lock no count is lost, because no thread switch can
    happen between reading and writing an attribute; on a free-threaded build a few may be.
    """

    __slots__ = ("hits",)

    def __init__(self) -> None:
        self.hits: int = 0


class Slot:
    """One key's place in the store.

    Readers take no lock, so what a slot holds never changes once it can be found: a new value is a new slot. Only
    `deadline` may be lowered, and `freq` is a hint.

    Times are seconds on the store's clock. `deadline`: the value is served until then. `held`: the raw record lives
    until then. `size` is in bytes and includes the key and the bookkeeping.
    """

    __slots__ = ("copy", "deadline", "freq", "held", "key", "raw", "schema", "size", "tally", "value")

    def __init__(self, key: str, size: int, tally: Tally) -> None:
        self.key: str = key
        self.size: int = size
        self.tally: Tally = tally
        self.freq: int = 0
        self.value: object = None
        self.copy: Copier | None = None
        self.schema: object = None
        self.deadline: float = NEVER
        self.raw: bytes | None = None
        self.held: float = NEVER

    def serve(self, value: object, copy: Copier | None, deadline: float, schema: object) -> None:
        """Set what readers get, and the declared type it was made for; only before the slot can be found."""
        self.value, self.copy, self.deadline, self.schema = value, copy, deadline, schema

    def hold(self, raw: bytes, held: float) -> None:
        """Set the raw record; only before the slot can be found."""
        self.raw, self.held = raw, held

    def expired(self, now: float) -> bool:
        """Tell whether nothing in this slot is of use any more."""
        return max(self.deadline, self.held) <= now
