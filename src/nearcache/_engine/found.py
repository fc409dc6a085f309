"""What a read of the engine finds: a fresh value, or why there is none, and what could stand in for it."""

import enum
from typing import Any, Final

import msgspec

from nearcache._core.outcome import Outcome
from nearcache._engine.core import early
from nearcache.codecs.codec import Record


class Absence(enum.Enum):
    """Why there is no value to serve."""

    COLD = "cold"
    EXPIRED = "expired"
    EVICTED = "evicted"
    INVALIDATED = "invalidated"
    INCOHERENT = "incoherent"
    UNDECODABLE = "undecodable"
    SCHEMA = "schema"
    ERROR = "error"
    DISABLED = "disabled"


class Found(msgspec.Struct):
    """A fresh value that the engine holds, and the record it came from."""

    value: Any
    record: Record
    age: float
    ttl: float
    due: bool = False
    """Whether whoever read it is to refresh it early."""
    behind: float | None = None
    """A replica's may lack changes of so many seconds before it was asked for; None: the engine's own."""

    def draw(self) -> None:
        """Draw whether it is `due`: the more it cost, and the nearer its end, the more likely."""
        if self.record.cost:
            self.due = self.ttl < early(self.record.cost)


class Lack(msgspec.Struct, frozen=True, gc=False):
    """Why there is no value, and what tells the record that cannot be used from every other (b"" if there is none).

    If it holds `tags`, nothing can be said before the engine was asked when they were marked.
    """

    reason: Absence
    seen: bytes = b""
    tags: tuple[str, ...] = ()
    record: Record | None = None
    """The record that is kept although it is no longer fresh."""
    past: float = 0.0
    """For how many seconds it has not been fresh."""


class Old(msgspec.Struct, frozen=True):
    """A value that is no longer fresh: it was `past` its age for so many seconds when it was `read` (monotonic).

    If it is `unvouched`, nobody knows whether it is still right: it may be served only if the load fails.
    """

    outcome: Outcome[Any]
    past: float
    read: float
    unvouched: bool = False

    def stale(self, bound: float) -> bool:
        """Tell whether it may be served before anything is loaded, where values are for `bound` seconds."""
        return not self.unvouched and self.past <= bound


COLD: Final = Lack(Absence.COLD)
EVICTED: Final = Lack(Absence.EVICTED)
FAILED: Final = Lack(Absence.ERROR)
UNVOUCHED: Final = Lack(Absence.INCOHERENT)
"""The engine failed, and nobody knows whether the value that is near is still right."""

DO_NOT_STORE: Final = (Absence.SCHEMA, Absence.ERROR, Absence.INCOHERENT)
"""A value of another release's type is left alone; an engine that just failed is not asked again by the same call."""

DEAD: Final = (Absence.EXPIRED, Absence.INVALIDATED)
"""Why a record counts as absent although it is in order."""

REPLACEABLE: Final = (*DEAD, Absence.UNDECODABLE)
"""Why a record is no reason not to add one."""
