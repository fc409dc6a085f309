"""The client library: how it is imported and set up, and what of it is not trusted. Nothing else touches its insides.

By itself it unpickles a record that says it is pickled, so that whoever may write into a map runs code in every reader.
Here it returns arrays of bytes; for a record of any other type it returns `FOREIGN`, unread.
"""

import asyncio
import logging
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from nearcache.backends.hazelcast.maps import Call, Place
from nearcache.errors import BackendError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it uses asyncore, of which Python 3.11 warns
    import hazelcast.asyncio
    from hazelcast import errors
    from hazelcast.client import HazelcastClient
    from hazelcast.config import ReconnectMode
    from hazelcast.serialization.data import Data

__all__ = ["FOREIGN", "HazelcastClient", "Opened", "close_awaiting", "errors", "open_awaiting", "open_blocking"]

AwaitingClient: Any = hazelcast.asyncio.HazelcastClient

BYTES: Final = -12
"""The type of a Java `byte[]`, which a `bytearray` becomes."""

FOREIGN: Final = object()
"""Stands for a record that is no array of bytes."""

RETRY_PAUSE: Final = 0.05
"""Seconds after which the client sends a step again that a member refused because its keys had moved."""

PATIENCE: Final = 10.0
"""Seconds after which a client that is still being opened is given up: a frozen member would hold it for ever."""

HEARTBEAT: Final = (2.0, 10.0)
"""Seconds after which a silent member is asked for a sign, and after which it is given up."""


class Opened(NamedTuple):
    """A client that is connected, and its maps and the ring by their names."""

    client: Any
    tables: Mapping[str, Any]
    made: Iterable[Any] = ()
    """Connections, those included that are still being made."""

    @property
    def running(self) -> bool:
        """Whether the client is of use; one that has lost all members, and met none again, is not."""
        running: bool = self.client.lifecycle_service.is_running()
        return running

    def begin(self, call: Call) -> Any:
        """Send a call; return what brings the result."""
        return getattr(self.tables[call.table], call.method)(*call.arguments)


class _Client(HazelcastClient):
    """One that connects when it is told to, so that it can be shut down meanwhile."""

    def _start(self) -> None:
        pass

    def connect(self) -> None:
        """Connect."""
        start: Any = super()._start
        start()


def open_blocking(place: Place, made: Callable[[Any], None]) -> Opened:
    """Connect; takes as long as it takes, unless the client that was `made` is shut down, and raises what the client
    raises.
    """
    client: Any = _Client(**_options(place))
    made(client)
    try:
        client.connect()
        reads = _guard(client)
        tables = {name: _guarded(client.get_map(name), reads) for name in place.tables}
        return Opened(client, tables | {place.ring: _guarded(client.get_ringbuffer(place.ring), reads)})
    except BaseException:
        client.shutdown()
        raise


async def open_awaiting(place: Place) -> Opened:
    """Do the same in the running event loop; if it is cancelled, nothing stays open."""
    client = AwaitingClient(**_options(place))
    made = _noted(client)
    try:
        await client._start()  # noqa: SLF001 -- what starts it in public does not give it back when cancelled
        reads = _guard(client)
        tables = {name: _guarded(await client.get_map(name), reads) for name in place.tables}
        return Opened(client, tables | {place.ring: _guarded(await client.get_ringbuffer(place.ring), reads)}, made)
    except BaseException:
        await _close(client, made)
        raise


async def close_awaiting(opened: Opened) -> None:
    """Close a client in its loop."""
    await _close(opened.client, opened.made)


async def _close(client: Any, made: Iterable[Any]) -> None:
    """Close a client, and what it forgets then: connections that it was still making."""
    await client.shutdown()
    for connection in [each for each in made if each.live]:
        if connection._connect_task is not None:  # noqa: SLF001 -- see `_noted`
            connection._connect_task.cancel()  # noqa: SLF001
        await asyncio.gather(connection._create_task, return_exceptions=True)  # noqa: SLF001
        await connection.close_connection(None, None)
    await asyncio.sleep(0)  # the turn in which the transports close their sockets


def _noted(client: Any) -> "weakref.WeakSet[Any]":
    """Return the connections of a client of asyncio, to which those are added that it makes.

    There is no other way to reach one that is not made yet.
    """
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    if (reactor := getattr(client, "_reactor", None)) is not None:
        make = reactor.connection_factory

        def making(*arguments: Any) -> Any:
            connection = make(*arguments)
            made.add(connection)
            return connection

        reactor.connection_factory = making
    return made


def _options(place: Place) -> dict[str, Any]:
    """Return how a client is set up: to say soon that it cannot, and never to succeed where it does not know."""
    _hush()
    return {
        "cluster_name": place.cluster.name,
        "cluster_members": list(place.cluster.members),
        "client_name": "nearcache",
        "connection_timeout": place.timeout,
        "cluster_connect_timeout": 0,
        "invocation_timeout": place.timeout,
        "invocation_retry_pause": RETRY_PAUSE,
        "reconnect_mode": ReconnectMode.ASYNC,
        "heartbeat_interval": HEARTBEAT[0],
        "heartbeat_timeout": HEARTBEAT[1],
        "fail_on_indeterminate_operation_state": True,
    }


def _guard(client: Any) -> Callable[[Any], Any]:
    """Keep a client from reading anything but arrays of bytes; return what reads them."""
    service = client._serialization_service  # noqa: SLF001 -- there is no other way; see below
    read, record = service.to_object, cast(Any, Data)

    def to_object(data: Any) -> Any:
        return FOREIGN if isinstance(data, record) and data.get_type() != BYTES else read(data)

    service.to_object = to_object
    return to_object


def _guarded(table: Any, reads: Callable[[Any], Any]) -> Any:
    """Return a map or a ring; raises `BackendError` if what is in it is read by anything else."""
    if getattr(table, "_to_object", None) is not reads:
        raise BackendError(
            f"hazelcast-python-client {hazelcast.__version__} cannot be kept from running what it reads; install 5.7"
        ).undone()
    return table


def _hush() -> None:
    """Keep the client from writing a traceback for every try to connect: the cache says what concerns its users."""
    logger = logging.getLogger("hazelcast")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
