"""Where the engine is and how to greet it: a URL in redis-py's syntax, and the first commands on sockets to it.

redis-py reads the URL, its TLS and login options; the sockets are opened by the transport, so that one deadline covers
all addresses, TLS and the greeting, and nothing of redis-py's private state is touched. A connection object of redis-py
is built to hold the options and is never connected.
"""

import inspect
import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import RedisError

from nearcache.backends.redis import facts
from nearcache.backends.redis.errors import not_greeted, refused, unreachable
from nearcache.backends.transport.dialect import Command
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError

CLIENT_NAME: Final = "nearcache"

PRIMARY: Final = b"master"
"""What a primary says it is."""

NOT_IN_URL: Final[dict[str, str]] = {
    "timeout": "the option timeout",
    "socket_timeout": "the option timeout",
    "socket_connect_timeout": "the option timeout",
    "max_connections": "CACHE_POOL_MAX_SIZE",
    "retry_on_timeout": "nothing: only commands that are safe to repeat are repeated",
    "retry_on_error": "nothing: only commands that are safe to repeat are repeated",
    "health_check_interval": "nothing: idle connections are checked before use",
    "decode_responses": "nothing: values are decoded by the codec",
    "encoding": "nothing: values are decoded by the codec",
    "socket_read_size": "nothing",
}
"""Options that redis-py takes from a URL and this library decides itself, and what to use instead."""


TAKES_PASSWORD: Final = "ssl_password" in inspect.signature(SSLConnection).parameters
"""Whether redis-py knows of passwords of keys; older releases do not."""

FILES: Final = ("ca_certs", "ca_path", "certfile", "keyfile")
"""Options of TLS that name files, without the `ssl_` that they have in a URL."""


class Endpoint:
    """One engine address with everything needed to connect to it; no credentials in its text.

    `path` is the path of a unix socket, "" for TCP; `where` is the address for messages. With `refused` it must be that
    of a primary; that is called when another answers there.
    """

    __slots__ = ("_refused", "_settings", "host", "path", "port", "where")

    def __init__(self, url: str, refused: Callable[[], None] | None = None) -> None:
        self._settings = settings = _settings(url)
        self._refused = refused
        if isinstance(settings, UnixDomainSocketConnection):
            host, port, path = "", 0, settings.path
        else:
            host, port, path = settings.host, settings.port, ""
        self.host: str = host
        self.port: int = port
        self.path: str = path
        self.where: str = self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Endpoint({self.where})"

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings, None for a plain connection; reads the certificate files on first use."""
        if not isinstance(self._settings, SSLConnection):
            return None
        # redis-py imports ssl only if it is there, so a type checker may not know what this holds.
        options: Any = self._settings.ssl_context
        try:
            context: ssl.SSLContext = options.get()
        except (OSError, TypeError, ValueError) as error:
            named = ", ".join(f"ssl_{name}={path}" for name in FILES if (path := getattr(options, name)))
            problem = f"the TLS options for {self.where} cannot be used: {error}"
            raise ConfigError(f"url (CACHE_URL): {problem}; look at {named}") from error
        return context

    def unreachable(self, error: OSError) -> BackendError:
        """Return the error for a connection that did not come about."""
        return unreachable(self.where, error, tls=isinstance(self._settings, SSLConnection))

    def not_greeted(self, error: Exception) -> BackendError:
        """Return the error for a connection that broke, or told nonsense, before the engine had answered anything."""
        return not_greeted(self.where, error, tls=isinstance(self._settings, SSLConnection))

    def addresses(self) -> Sequence[tuple[int, str | tuple[Any, ...]]]:
        """Look the host name up (may block) and return socket families with addresses to try in order."""
        if self.path:
            return [(_unix_family(), self.path)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def tune(self, made: socket.socket) -> None:
        """Set a TCP socket's options."""
        settings = self._settings
        if isinstance(settings, UnixDomainSocketConnection):
            return
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        options = cast(dict[int, int] | None, settings.socket_keepalive_options) or {}
        if settings.socket_keepalive:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in options.items():
                made.setsockopt(socket.IPPROTO_TCP, option, value)

    def greeting(self, protocol: int | None = None) -> list[Command]:
        """Return the first commands of a connection: protocol (the URL's unless given), login, name, database, and the
        question whose data there is.
        """
        settings = self._settings
        hello = _hello(settings, int(settings.protocol) if protocol is None else protocol)
        return [*hello, *([("SELECT", str(settings.db))] if settings.db else []), ("INFO", "replication")]

    def check_greeting(self, replies: Sequence[object]) -> str:
        """Return the name of the history of the engine's data, "" if it does not tell; raises `BackendError` if it
        refused one of the other first commands.
        """
        *others, whose = replies
        for reply in others:
            if isinstance(reply, Exception):
                raise refused(reply, f"the connection to {self.where}") from reply
        if self._refused is not None and not _is_primary(others[0]):
            self._refused()
            raise BackendUnavailableError(f"{self.where} is not the primary (any more)").undone()
        return "" if isinstance(whose, Exception) else facts.read(whose).get("master_replid", "")


def _settings(url: str) -> Connection | UnixDomainSocketConnection:
    try:
        options = dict(parse_url(url))
        _check_database(url)
        made = options.pop("connection_class", Connection)
        _check_options(options)
        if made is SSLConnection and TAKES_PASSWORD:
            options.setdefault("ssl_password", "")  # without any, Python asks for one on the terminal, and waits
        settings = made(**options)  # type: ignore[operator]  # a class, by redis-py's contract
    except ConfigError:
        raise
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigError(f"url (CACHE_URL): not a redis URL this library can use ({_option_in(url, error)})") from None
    if isinstance(settings, UnixDomainSocketConnection) and not settings.path:
        raise ConfigError("url (CACHE_URL): unix:// needs the absolute path of a socket, as in unix:///run/valkey.sock")
    return settings  # type: ignore[no-any-return]


def _check_database(url: str) -> None:
    """Refuse a path that redis-py would take for no database at all."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ConfigError(
            "url (CACHE_URL): behind the port stands the number of the database, as in redis://cache:6379/0"
        )


def _check_options(options: dict[str, object]) -> None:
    for name in options.keys() & NOT_IN_URL.keys():
        raise ConfigError(f"url (CACHE_URL): {name}= cannot be set in the URL; use {NOT_IN_URL[name]}")
    options.setdefault("client_name", CLIENT_NAME)
    options.setdefault("protocol", 3)


def _option_in(url: str, error: Exception) -> str:
    """Say which option is wrong, in words that cannot hold a password."""
    text = str(error)
    if text.startswith("Port "):  # what follows may be a part of the password
        return "the port must be a number up to 65535; a password's '/', '?' and '#' are written %2F, %3F and %23"
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unknown:
        plain = unknown[1].startswith("ssl_") and not url.startswith("rediss://")
        return f"it has no option {unknown[1]}{'; TLS begins with rediss://' * plain}"
    if text.startswith("Invalid SSL Certificate Requirements Flag"):
        return "ssl_cert_reqs may be required, optional or none"
    return text if "argument" in text or "Invalid value for" in text else type(error).__name__


def _unix_family() -> int:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise ConfigError(f"url (CACHE_URL): this platform ({os.name}) has no unix sockets; use redis://")
    return int(family)


def _hello(settings: Connection | UnixDomainSocketConnection, protocol: int) -> list[Command]:
    login = _login(settings)
    name = ("CLIENT", "SETNAME", settings.client_name or CLIENT_NAME)
    if protocol == 3:
        return [("HELLO", "3", *(("AUTH", *login) if login else ())), name]
    return [*([("AUTH", *login)] if login else []), name]


def _is_primary(hello: object) -> bool:
    """Tell whether an answer to HELLO comes from a primary; one that says nothing of it may be one."""
    return not isinstance(hello, dict) or cast(dict[bytes, object], hello).get(b"role", PRIMARY) == PRIMARY


def _login(settings: Connection | UnixDomainSocketConnection) -> tuple[str, ...]:
    if not (settings.username or settings.password):
        return ()
    return (settings.username or "default", settings.password or "")
