"""Where an engine is, and sockets to it: one deadline covers all addresses and TLS."""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from nearcache.backends.transport.dialect import Command
from nearcache.errors import BackendError


class Endpoint(Protocol):
    """One engine address with everything needed to connect to it; no credentials in its text.

    `path` is the path of a unix socket, "" for TCP; `where` is the address for messages.
    """

    host: str
    port: int
    path: str
    where: str

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings, None for a plain connection."""
        ...

    def unreachable(self, error: OSError) -> BackendError:
        """Return the error for a connection that did not come about."""
        ...

    def not_greeted(self, error: Exception) -> BackendError:
        """Return the error for a connection that broke, or told nonsense, before the engine had answered anything."""
        ...

    def addresses(self) -> Sequence[tuple[int, str | tuple[Any, ...]]]:
        """Look the host name up (may block) and return socket families with addresses to try in order."""
        ...

    def tune(self, made: socket.socket) -> None:
        """Set a TCP socket's options."""
        ...

    def greeting(self) -> list[Command]:
        """Return the first commands of a connection."""
        ...

    def check_greeting(self, replies: Sequence[object]) -> str:
        """Return the name of the history of the engine's data, "" if it does not tell; raises `BackendError` if it
        refused one of the first commands.
        """
        ...


Endpoint_co = TypeVar("Endpoint_co", bound=Endpoint, covariant=True)


class Route(Generic[Endpoint_co]):
    """The way to the engine's present address: a URL, or a function that is asked for it before each new connection.

    The function is called in a thread that may block; with `starts` it may start the engine, which takes as long as it
    takes. `read` makes an endpoint of a URL.
    """

    __slots__ = ("_address", "_known", "_read", "starts")

    def __init__(
        self, address: str | Callable[[], str], read: Callable[[str], Endpoint_co], *, starts: bool = False
    ) -> None:
        self.starts: bool = starts
        self._address = address
        self._read = read
        self._known = (address, read(address)) if isinstance(address, str) else None

    @property
    def fixed(self) -> bool:
        """Whether the address never changes, so that asking for it does not block."""
        return isinstance(self._address, str)

    def endpoint(self) -> Endpoint_co:
        """Return where to connect to now."""
        url = self._address if isinstance(self._address, str) else self._address()
        known = self._known
        if known is None or known[0] != url:
            known = self._known = (url, self._read(url))
        return known[1]


def dial(endpoint: Endpoint, deadline: float) -> socket.socket:
    """Open a blocking socket to the endpoint, TLS included, before `deadline` (on the monotonic clock)."""
    context = endpoint.tls()
    try:
        plain = _reach(endpoint, deadline)
        return plain if context is None else _secure(context, endpoint.host, plain, deadline)
    except OSError as error:
        raise endpoint.unreachable(error) from error


def time_left(deadline: float) -> float:
    """Return the seconds until `deadline` on the monotonic clock; raise `TimeoutError` if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reach(endpoint: Endpoint, deadline: float) -> socket.socket:
    problem: OSError | None = None
    for family, address in endpoint.addresses():
        try:
            return _connected(endpoint, socket.socket(family, socket.SOCK_STREAM), address, deadline)
        except OSError as error:
            problem = error
    raise problem or OSError("the host name has no address")


def _connected(
    endpoint: Endpoint, made: socket.socket, address: str | tuple[Any, ...], deadline: float
) -> socket.socket:
    try:
        endpoint.tune(made)
        made.settimeout(time_left(deadline))
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _secure(context: ssl.SSLContext, host: str, plain: socket.socket, deadline: float) -> socket.socket:
    try:
        plain.settimeout(time_left(deadline))
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
