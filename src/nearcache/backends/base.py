"""What an engine must do, and what it may do: a small store of bytes, and optional ports beside it.

A backend is written once, as `async def`. In the sync flavour its methods never suspend; in the async flavour they may.
It is built for one namespace and takes keys as the cache's users write them (`users:1`, already validated); how
they are named in the engine is its business. It raises only `CacheError`s, translated from the client library's at
one edge.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeVar

import msgspec

from nearcache._core.clock import EngineTime
from nearcache.backends.limits import Limits
from nearcache.backends.locks import Locks
from nearcache.backends.sessions import Sessions
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError, UnsupportedError
from nearcache.near.inbox import Mail
from nearcache.near.view import View


class EngineReplaced(BackendUnavailableError):
    """Another engine answers, or another history of its data, and nothing was sent to it yet: it may have forgotten
    what it has to be told first.
    """


class LostConnection(BackendUnavailableError):
    """A kept connection turned out dead, soon and before any reply came: repeatable commands may go again, once."""


class NoConnection(BackendTimeoutError):
    """No connection became free in time, so that the engine was not asked."""


class NotServing(BackendUnavailableError):
    """The engine answered that it cannot serve yet."""


GONE: Final = (BackendTimeoutError, BackendUnavailableError)
"""Errors of an engine that cannot be reached, or cannot serve; any other is a refusal."""

UNTOLD: Final = (LostConnection, NoConnection, EngineReplaced)
"""Errors that say nothing of whether the engine answers."""


def is_silence(error: BaseException) -> bool:
    """Tell whether this error means that the engine does not answer."""
    return isinstance(error, GONE) and not isinstance(error, (NotServing, *UNTOLD))


def failing(error: BaseException, keys: Iterable[str]) -> list[str]:
    """Return which keys of a batch an error is about."""
    answered = error.answered if isinstance(error, BackendError) else ()
    return [key for key in keys if key not in answered]


def in_part(errors: Sequence[BackendError], answered: Mapping[str, Any]) -> BackendError:
    """Build the error for a batch some keys of which failed, with what was `answered` about the others.

    It is the error of an engine that does not answer, if there is one, else the first.
    """
    first = next(filter(is_silence, errors), errors[0])
    error = type(first)(*first.args)
    error.why, error.ambiguous, error.answered = first.why, any(each.ambiguous for each in errors), answered
    error.__cause__ = first
    return error


class Item(msgspec.Struct, frozen=True, gc=False):
    """One record to store: its bytes live `ttl` seconds."""

    key: str
    raw: bytes
    ttl: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine says about itself; None where it does not say."""

    used_bytes: int | None
    limit_bytes: int | None
    evictions: int | None
    policy: str | None
    persistent: bool | None
    version: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one thing, and what to do if it does not work, or should not be as it is.

    `works` is None for what is not used, or cannot be told.
    """

    name: str
    works: bool | None
    found: str
    advice: str = ""


BACK_OFF: Final = "!"
"""The holder of a lease that nobody may have for a while, because the last load failed."""


def identity_of(fill_id: bytes) -> bytes:
    """Return the `identity` of a record with a header."""
    return b"i" + fill_id


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request for the lease of a key: it names who asks, and the record that the asker has judged and cannot use.

    `token` is the name of the lease, another one for each load. `seen` is the `identity` of that record, b"" if there
    was none. `life` is how many seconds the lease lives unless it is renewed.
    """

    key: str
    token: str
    seen: bytes
    life: float


class Grant(msgspec.Struct, frozen=True, gc=False):
    """The answer to an `Ask`: the lease, or a record stored meanwhile, or how long to wait for somebody else's lease.

    `raw` is the record. `left` is in seconds: how long that lease lives, or, over an engine that does not tell of its
    end, when to ask again. `holder` is the token of the lease that is waited for.
    """

    leads: bool = False
    raw: bytes | None = None
    left: float = 0.0
    holder: str = ""


class Fill(msgspec.Struct, frozen=True, gc=False):
    """A record to store if the lease `token` still stands and nobody else has replaced the record that was `seen`.

    `replaces` is whether that record may still be fresh, so that others must know that it was replaced.
    """

    item: Item
    token: str
    seen: bytes
    replaces: bool = False


class Leases(Protocol):
    """The right to load a key and store the result, for one loader at a time among all processes.

    A lease is revoked by every write and every deletion of its key, in the same step as the record changes. So a store
    under a lease never puts back what was read before the change. A lease that was lost, for whatever reason, refuses.
    """

    life: float
    """Seconds after which a lease that is not renewed ends."""

    def identity(self, raw: bytes | None) -> bytes:
        """Return what tells a record from every other of its key, b"" for none."""
        ...

    async def acquire(self, asks: Sequence[Ask]) -> list[Grant]:
        """Ask for leases, and for the marks of the namespace, in one round trip per node."""
        ...

    async def steal(self, ask: Ask) -> bytes:
        """Take the lease from whoever has it; return the identity of the present record."""
        ...

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Store loaded records and end their leases; ask for the marks; tell which records were accepted."""
        ...

    async def commit(self, item: Item, token: str) -> bool:
        """Store a record under a lease; without the lease remove the record and any lease, so that nobody stores."""
        ...

    async def release(self, key: str, token: str, outcome: str, back_off: float = 0.0) -> None:
        """End a lease without storing, and tell those who wait; `outcome` is "retry" or "fail:" and an error's type.

        For `back_off` seconds nobody gets the lease: whoever asks is told that `BACK_OFF` holds it.
        """
        ...

    def hold(self, key: str, token: str, until: float) -> None:
        """Renew a lease from now on, at most until the time `until` (monotonic)."""
        ...

    def let_go(self, token: str) -> None:
        """Renew a lease no longer."""
        ...

    def expect(self, key: str) -> Mail:
        """Begin to listen for the end of a key's lease; to be called before the lease is asked for."""
        ...


class Marks(Protocol):
    """Invalidation of tags and of a whole namespace, in time that does not depend on how much is invalidated."""

    async def mark(self, tags: Sequence[str], everything: bool) -> None:
        """Invalidate what was loaded or written before, by its tags or all of it; the view knows when this returns."""
        ...

    async def ask(self, tags: Sequence[str]) -> None:
        """Let the view learn when these tags were marked."""
        ...

    async def restore(self) -> None:
        """Give the engine back what the view knows and the engine may have forgotten."""
        ...


class Counters(Protocol):
    """Atomic counters on records whose payload is a decimal integer."""

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        """Add `by` to the record and return the sum.

        An absent record, or one whose fill id is `dead`, counts as 0 and is created from the header `fresh` with
        `ttl` seconds to live. Otherwise header and remaining life are kept, except that the fill id becomes that of
        `fresh`. A record that holds no integer, or a sum outside 64 bits, raises `CodecError` and changes nothing.
        """
        ...


class Scan(Protocol):
    """Listing of keys, for tools."""

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        """Return the next cursor ("" at the end) and some keys that start with `prefix`; the first cursor is ""."""
        ...


@dataclass(frozen=True, slots=True)
class Copied:
    """Records by key, in which no change is missing that was acknowledged before `since` (on the cache's clock)."""

    records: Mapping[str, bytes | None]
    since: float


class Replicas(Protocol):
    """Reads from servers that follow the engine, and may be behind by less than the staleness."""

    def due(self) -> bool:
        """Tell whether the caller has to `look` before it reads."""
        ...

    async def look(self) -> None:
        """Ask the engine itself how far its data is."""
        ...

    async def read(self, keys: Sequence[str]) -> Copied | None:
        """Return records; of keys that are left out, and if this is None, the engine itself has to be asked.

        Does not raise.
        """
        ...

    def meet(self, keys: Iterable[str]) -> None:
        """Note that nothing may be returned for these keys which is older than now."""
        ...

    async def close(self) -> None:
        """Give up every connection."""
        ...


class Admin(Protocol):
    """Facts for people and metrics."""

    async def facts(self) -> Facts:
        """Ask the engine about itself."""
        ...

    async def examine(self, *, forgets: bool) -> list[Check]:
        """Find out what the engine and the rights of its user offer, and what of its settings is unwise.

        `forgets` is whether caches forget everything after a reset of the engine. Nothing is left in the engine.
        """
        ...


class Backend(ABC):
    """A store of bytes in one namespace, each record with a time to live."""

    name: ClassVar[str]
    shared: ClassVar[bool] = True
    """Whether other processes can change what is stored here."""
    hears: ClassVar[bool] = True
    """Whether the engine tells who waits for a load that it has ended; if not, they ask."""

    time: EngineTime
    view: View
    leases: Leases
    marks: Marks
    counters: Counters | None = None
    locks: Locks | None = None
    sessions: Sessions | None = None
    limits: Limits | None = None
    scan: Scan | None = None
    admin: Admin | None = None
    replicas: Replicas | None = None

    @property
    def spreads(self) -> bool:
        """Whether it is several nodes, each of which may fail alone."""
        return False

    def lacks(self) -> bool:
        """Tell whether a part of the engine does not answer, and is spared calls here; the other parts go on."""
        return False

    @abstractmethod
    async def open(self) -> None:
        """Connect ahead of the first use, and learn the engine's time. May be called again."""

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """Return the record, or None; ask for the marks of the namespace beside it when that is due."""

    @abstractmethod
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the records in the order of `keys`, in one round trip per node.

        Where some of several nodes fail, this and the other methods for many keys do their work at the others and raise
        an error that tells what was `answered` there.
        """

    @abstractmethod
    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Return how many seconds each record will live, None where there is none (infinity if it never expires)."""

    @abstractmethod
    async def set(self, item: Item) -> None:
        """Store a record, whatever was there; ask for the marks. Like every write it revokes the lease of its key."""

    @abstractmethod
    async def set_many(self, items: Sequence[Item]) -> None:
        """Store records, in one round trip per node."""

    @abstractmethod
    async def add(self, item: Item, dead: bytes) -> bool:
        """Store a record only if there is none, or only one whose fill id is `dead` (b"": there must be none)."""

    @abstractmethod
    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records; return how many there were."""

    @abstractmethod
    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record `ttl` seconds from now; False if there is none, or its fill id is another.

        `ages` replaces the header's soft and hard age (8 bytes); with b"" for both, the record has no header.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Ask the engine whether it is there; raise `BackendError` if not."""

    @abstractmethod
    async def close(self) -> None:
        """Give up every connection. May be called twice; a later call of another method connects again."""


Port = TypeVar("Port")


def require(port: Port | None, backend: Backend, feature: str, engines: str) -> Port:
    """Return the port, or raise `UnsupportedError` naming the feature, this backend and the engines that have it."""
    if port is None:
        raise UnsupportedError(f"{backend.name} cannot do {feature}; engines that can: {engines}")
    return port
