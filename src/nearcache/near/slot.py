"""What the in-process tier holds for one key."""

from collections.abc import Callable
from typing import Any, Final

from nearcache.near.queues import Queue
from nearcache.near.tally import Tally

Copier = Callable[[object], object]
"""Makes a fresh, independent and equal value from the kept state."""

Change = Callable[[bytes | None, float], tuple[bytes, float] | None]
"""Gets a live record and the time until which it is held (None and minus infinity if there is none); returns both anew,
or None to leave everything as it is."""

NEVER: Final = float("-inf")
"""A deadline that has always passed."""


MANY: Final = 255
"""Reads beyond this many, since an entry's turn to leave came last, tell the eviction policy nothing new. CPython keeps
the ints up to here, so that counting makes no objects."""


class Slot:
    """One key's place in the store.

    Readers take no lock, so what a slot holds never changes once it can be found: a new value is a new slot. Only
    `deadline` may be lowered, a `schema` that was None be set by who checked the value, and `freq`, which readers count
    up, is a hint. A decorated function may remember a slot under an argument; when the slot leaves the store its
    deadline passes, so that it is of no use wherever it is still found.

    Times are seconds on the store's clock. `deadline`: the value is served until then. `held`: the raw record lives
    until then. `size` is in bytes and includes the key and the bookkeeping. `reads`, `due`, `home`, `before` and
    `after` belong to the eviction policy.
    """

    __slots__ = (
        *("copy", "deadline", "freq", "held", "key", "raw", "record", "schema", "size", "tags", "tally", "value"),
        *("after", "before", "due", "home", "reads"),
        *("_argument", "_memo"),
    )

    def __init__(self, key: str, size: int, tally: Tally) -> None:
        self.key: str = key
        self.size: int = size
        self.tally: Tally = tally
        self.freq: int = 0
        self.reads: int = 0
        self.due: float = 0.0
        self.home: Queue[Slot] | None = None
        self.before: Slot | None = None
        self.after: Slot | None = None
        self.value: object = None
        self.copy: Copier | None = None
        self.schema: object = None
        self.record: int = 0
        self.tags: tuple[str, ...] = ()
        self.deadline: float = NEVER
        self.raw: bytes | None = None
        self.held: float = NEVER
        self._memo: dict[Any, Slot] | None = None
        self._argument: object = None

    def serve(self, value: object, copy: Copier | None, deadline: float, schema: object, record: int) -> None:
        """Set what readers get, the declared type it was made for, and the number of the record it was made of; only
        before the slot can be found.
        """
        self.value, self.copy, self.deadline, self.schema, self.record = value, copy, deadline, schema, record

    def taken(self) -> object:
        """Count a hit, and return the value for one reader."""
        self.tally.turn()
        return self.own()

    def own(self) -> object:
        """Return the value for one reader."""
        return self.value if self.copy is None else self.copy(self.value)

    def hold(self, raw: bytes, held: float) -> None:
        """Set the raw record; only before the slot can be found."""
        self.raw, self.held = raw, held

    def remember(self, memo: "dict[Any, Slot]", argument: object) -> None:
        """Let a function find this slot under an argument, until it leaves or another function does so."""
        self._forget()
        self._memo, self._argument = memo, argument
        memo[argument] = self

    def retire(self) -> None:
        """Serve nothing any more: the slot has left the store."""
        self.deadline = NEVER
        self._forget()

    def _forget(self) -> None:
        if self._memo is not None and self._memo.get(self._argument) is self:
            del self._memo[self._argument]

    def expired(self, now: float) -> bool:
        """Tell whether nothing in this slot is of use any more."""
        return max(self.deadline, self.held) <= now
