"""What happened, as records for whoever listens: metrics, statistics, logs.

The core only emits. Hits of the near tier and of the engine, and evictions from the near tier, are not emitted one by
one: they are counted in the near store, where that costs nothing, and listeners that were given a `NearTier` read them
there.

Fields: `entity` is the first part of a key ("" where there is none), `seconds` is measured on the monotonic clock,
`error` is the name of an error's type or, where an engine was lost, its message, which never has a value or a password.
Every listener gets the same record; none may change it. (Frozen ones would take four times as long to make.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

Tier: TypeAlias = Literal["near", "engine", "stale", "flight"]
"""Who answered a read: the near store, the engine, a value past its soft age, or a load that another reader began."""

Reason: TypeAlias = Literal[
    "cold", "expired", "invalidated", "evicted", "incoherent", "undecodable", "schema", "error", "disabled"
]
"""Why a read found nothing."""

FailureKind: TypeAlias = Literal["engine", "codec", "load", "observer"]
"""Who failed."""


@dataclass(slots=True)
class Hit:
    """`count` reads were answered by a tier."""

    entity: str
    tier: Tier
    count: int = 1


@dataclass(slots=True)
class Miss:
    """`count` reads found nothing that could be served."""

    entity: str
    reason: Reason
    count: int = 1


@dataclass(slots=True)
class Command:
    """One round trip to the engine ended."""

    operation: str
    seconds: float
    failed: bool


@dataclass(slots=True)
class Load:
    """One call of a loader ended; `error` names the type of its error, or is None. No `Failure` comes beside it."""

    entity: str
    seconds: float
    error: str | None = None


@dataclass(slots=True)
class Evicted:
    """`count` live entries left the engine for want of room, as far as this process can tell."""

    tier: Literal["engine"]
    count: int = 1


@dataclass(slots=True)
class EngineSize:
    """What the engine said about itself: bytes used, and allowed; None where it does not say or there is no limit."""

    used_bytes: int | None
    limit_bytes: int | None


@dataclass(slots=True)
class Announced:
    """A change by this process was announced to it `seconds` after it was sent."""

    seconds: float


@dataclass(slots=True)
class Failure:
    """Something failed; `error` names the type of the error."""

    kind: FailureKind
    entity: str
    error: str


@dataclass(slots=True)
class EngineLost:
    """The engine stopped answering; emitted once until it is back."""

    engine: str
    error: str


@dataclass(slots=True)
class Spared:
    """A call was answered at once, without the engine, because that does not answer."""

    operation: str


@dataclass(slots=True)
class EngineBack:
    """The engine answers again."""

    engine: str


@dataclass(slots=True)
class EngineReset:
    """The engine was restarted or replaced, and may have forgotten what it acknowledged shortly before.

    Invalidations of the last minute are repeated, or everything is invalidated: then it is `cleared`.
    """

    engine: str
    cleared: bool


@dataclass(slots=True)
class EngineRefused:
    """The engine answered with an error: it is full, cannot save, or the user has no right to the command."""

    engine: str
    error: str


@dataclass(slots=True)
class LockLost:
    """A lock was lost while somebody held it here; `entity` is the first part of its name."""

    entity: str


@dataclass(slots=True)
class Limited:
    """A limiter refused a call; `limit` is the first part of its name."""

    limit: str


@dataclass(slots=True)
class QueueFull:
    """So many invalidations waited for the engine that one of everything took their place."""

    waiting: int


@dataclass(slots=True)
class SnapshotUnused:
    """The file of the near snapshot was not read, or not written; `error` says why and what to do."""

    path: str
    doing: Literal["read", "written"]
    error: str


Event: TypeAlias = (
    Hit
    | Miss
    | Command
    | Load
    | Evicted
    | EngineSize
    | Announced
    | Failure
    | EngineLost
    | Spared
    | EngineBack
    | EngineReset
    | EngineRefused
    | LockLost
    | Limited
    | QueueFull
    | SnapshotUnused
)


class Observer(Protocol):
    """Somebody who listens. `on` is called by the thread or task at work: it must be quick and thread-safe."""

    def on(self, event: Event) -> None:
        """Take note of an event."""
        ...


@runtime_checkable
class Startable(Protocol):
    """An observer that has to be started before its first event."""

    def start(self) -> object:
        """Get ready; raises `ConfigError` if that cannot be."""
        ...


@runtime_checkable
class Flushable(Protocol):
    """An observer that reads near hits in bulk, and wants to now and then."""

    def flush(self) -> object:
        """Read what was counted since."""
        ...


class Counted(Protocol):
    """Numbers of hits that only grow."""

    @property
    def hits(self) -> int:
        """How many reads the near tier answered."""
        ...

    @property
    def engine(self) -> int:
        """How many reads the engine answered."""
        ...


class Bounds(Protocol):
    """How much a near tier may hold; None is no limit."""

    @property
    def entries(self) -> int | None:
        """The largest number of entries."""
        ...

    @property
    def bytes(self) -> int | None:
        """The largest number of bytes."""
        ...


class Loads(Protocol):
    """The loads of a cache, for listeners that read how many hang."""

    def stuck(self) -> Mapping[str, int]:
        """Return how many loads of each loader are overdue."""
        ...


class NoLoads:
    """Stands for the loads of something that does not load."""

    def stuck(self) -> Mapping[str, int]:
        """Return nothing."""
        return {}


class Proofs(Protocol):
    """What is known of a near tier's coherence, for listeners that read how old the last proof is."""

    def age(self) -> float | None:
        """Return the seconds since the last proof that nothing was missed, infinity if there is none.

        None where no proof is needed.
        """
        ...


class NoProofs:
    """Stands for the coherence of something that nobody else changes."""

    def age(self) -> float | None:
        """Return that none is needed."""
        return None


class NearTier(Protocol):
    """What a near store lets listeners see. Reading it takes no lock."""

    @property
    def limit(self) -> Bounds:
        """How much it may hold."""
        ...

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""
        ...

    @property
    def entries(self) -> int:
        """How many entries it holds."""
        ...

    @property
    def evictions(self) -> int:
        """How many live entries had to leave for room."""
        ...

    @property
    def refusals(self) -> int:
        """How many values were not served only because nobody vouched for them."""
        ...

    def tallies(self) -> Mapping[str, Counted]:
        """Hits by entity."""
        ...
