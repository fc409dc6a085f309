"""Questions to those who know where an engine is: sentinels, and the nodes of a cluster."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from nearcache.backends.redis import dialect
from nearcache.backends.redis.errors import good
from nearcache.backends.transport.dial import Endpoint
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.pool import Wire, connect
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError

T = TypeVar("T")

TLS: Final = "ssl_"
"""How the names of the options of TLS begin; one of them turns it on, for all hosts of a URL."""


class Hosts:
    """The parts of a URL that names several hosts; `port` is that of hosts without one.

    Raises `ConfigError` for what is no URL.
    """

    def __init__(self, url: str, port: int) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:  # whose message may hold a password
            raise ConfigError("url (CACHE_URL): not a URL; are brackets where no IPv6 address is?") from None
        login, at, hosts = parts.netloc.rpartition("@")
        self.names: list[str] = [_with_port(host, port) for host in hosts.split(",") if host]
        self.login: str = login + at
        self.path: str = parts.path.strip("/")
        self.options: dict[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.tls: dict[str, str] = {name: value for name, value in self.options.items() if name.startswith(TLS)}
        self.scheme: str = "rediss" if self.tls else "redis"

    def url(self, where: str, database: str = "") -> str:
        """Return the URL of a server at `where`, with the login and the options of this one."""
        return f"{self.scheme}://{self.login}{where}/{database}?{urlencode(self.options)}"


def in_turn(places: Sequence[T], seconds: float) -> Iterator[tuple[T, float]]:
    """Yield places with the time until which each may answer (monotonic), so that all have their share of `seconds`."""
    end = time.monotonic() + seconds
    for number, place in enumerate(places):
        now = time.monotonic()
        yield place, now + max(0.0, end - now) / (len(places) - number)


def ask(place: Endpoint, command: Command, deadline: float, who: str) -> Any:
    """Send one command over a connection of its own; raises `BackendError`, in which `who` is asked."""
    wire = Wire(dialect, 0)
    try:
        connect(wire, place, deadline)
        (told,) = wire.call(dialect.pack([command]), 1, deadline)
    except wire.breaks as error:
        if isinstance(error, (BackendError, ConfigError)):
            raise
        raise BackendUnavailableError(f"{who} does not answer ({type(error).__name__})").undone() from error
    finally:
        wire.close()
    return good(told, who)


def at(url: str, where: str) -> str:
    """Return the URL of another server, at `where`, with the login, the database and the options of the first."""
    parts = urlsplit(url)
    login, sign, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{sign}{where}").geturl()


def _with_port(host: str, port: int) -> str:
    return host if host.rpartition(":")[2].isdecimal() else f"{host}:{port}"


def where(host: str, port: int) -> str:
    """Return a host and a port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
