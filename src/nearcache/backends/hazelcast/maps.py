"""What the registers need of a cluster's maps, in either flavour."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from nearcache.backends.hazelcast.connect import Cluster


class Place(NamedTuple):
    """A cluster, the names of maps and of a ring there, and how many seconds a call may take, and wait before."""

    cluster: Cluster
    tables: tuple[str, ...]
    ring: str
    timeout: float
    patience: float


class Call(NamedTuple):
    """A method of a map or a ring, which both flavours of the client library have, and what it is about."""

    table: str
    method: str
    name: str
    arguments: tuple[Any, ...]


class Maps(Protocol):
    """A way to the maps of a cluster."""

    async def call(self, calls: Sequence[Call], until: float) -> list[Any]:
        """Make calls together and return what each returned, or its `BackendError`, by the time `until` (monotonic).

        Calls about one record reach it in their order, but for one that a member refuses for a moment, since its keys
        are moving: that is sent again behind the others.
        """
        ...

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait until so few calls are under way that each gets its answer in time, and count as one of them."""
        ...

    async def open(self, until: float) -> None:
        """Connect ahead of the first use."""
        ...

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        ...
