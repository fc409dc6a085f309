"""What an engine must do, and what it may do: a small store of bytes, and optional ports beside it.

A backend is written once, as `async def`. In the sync flavour its methods never suspend; in the async flavour they may.
It is built for one namespace and takes keys as the cache's users write them (`users:1`, already validated); how
they are named in the engine is its business. It raises only `CacheError`s, translated from the client library's at
one edge.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import msgspec

from nearcache._core.clock import EngineTime
from nearcache.errors import UnsupportedError


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


class Admin(Protocol):
    """Facts for people and metrics."""

    async def facts(self) -> Facts:
        """Ask the engine about itself."""
        ...


class Backend(ABC):
    """A store of bytes in one namespace, each record with a time to live."""

    name: ClassVar[str]
    shared: ClassVar[bool] = True
    """Whether other processes can change what is stored here."""

    time: EngineTime
    counters: Counters | None = None
    scan: Scan | None = None
    admin: Admin | None = None

    @abstractmethod
    async def open(self) -> None:
        """Connect ahead of the first use, and learn the engine's time. May be called again."""

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """Return the record, or None."""

    @abstractmethod
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the records in the order of `keys`, in one round trip per node."""

    @abstractmethod
    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Return how many seconds each record will live, None where there is none (infinity if it never expires)."""

    @abstractmethod
    async def set(self, item: Item) -> None:
        """Store a record, whatever was there."""

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
