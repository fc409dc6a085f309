"""Where Memcached servers are, and how to greet one: what a URL says, and the first commands."""

import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.dialect import Refusal
from nearcache.backends.memcached.errors import refused
from nearcache.backends.transport.dialect import Command
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError, ConfigError

PORT: Final = 11211
"""The port of a server for which none is given."""

OLDEST: Final = (1, 6, 13)
"""The first version whose meta protocol is as it is today. Until 1.6.10 the size of a value stood elsewhere, so that
the value itself would be taken for commands; until 1.6.13 some numbers of changes were wrong.
"""

_URL: Final = re.compile(r"memcached://(?P<places>[^/?#@]+)/?(?:\?eject=(?P<eject>[^&#]*))?", re.IGNORECASE)
_PLACE: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")

Place = tuple[str, int]
"""A host and a port."""


_ANSWERS: Final = {None: False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}


def settings_of(url: str) -> tuple[list[Place], bool]:
    """Return the servers that a URL names, and whether the keys of one that does not answer go to the others.

    Raises `ConfigError` for a wrong URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigError(
            "url (CACHE_URL): it names servers, no login or path, and no option but eject: "
            "memcached://cache1:11211,cache2:11211 or memcached://cache1:11211,cache2:11211?eject=yes"
        )
    places = [_place(text) for text in match["places"].split(",")]
    if len(set(places)) < len(places):
        raise ConfigError("url (CACHE_URL): it names a server twice; name each once")
    if match["eject"] not in _ANSWERS:
        raise ConfigError(f"url (CACHE_URL): eject= is {match['eject']!r}; it may be yes or no")
    return places, _ANSWERS[match["eject"]]


def _place(text: str) -> Place:
    match = _PLACE.fullmatch(text)
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port < 65_536:
        raise ConfigError(
            "url (CACHE_URL): each server is a host and perhaps a port up to 65535, as in cache1:11211 or [::1]:11211"
        )
    return match["host"].strip("[]"), port


class Endpoint:
    """One server's address."""

    __slots__ = ("host", "path", "port", "where")

    def __init__(self, host: str, port: int) -> None:
        self.host: str = host
        self.port: int = port
        self.path: str = ""
        self.where: str = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __repr__(self) -> str:
        return f"Endpoint({self.where})"

    def tls(self) -> ssl.SSLContext | None:
        """Return None: connections are plain."""
        return None

    def unreachable(self, error: OSError) -> BackendError:
        """Return the error for a connection that did not come about."""
        if isinstance(error, TimeoutError):
            return BackendTimeoutError(f"connecting to {self.where} took too long").undone()
        reason = error.strerror or str(error) or type(error).__name__
        return BackendUnavailableError(
            f"cannot reach the engine at {self.where} ({reason}): is it running, and is url (CACHE_URL) right?"
        ).undone()

    def not_greeted(self, error: Exception) -> BackendError:
        """Return the error for a connection that broke, or told nonsense, before the engine had answered anything."""
        if isinstance(error, TimeoutError):
            return BackendTimeoutError(f"the engine at {self.where} did not greet in time").undone()
        return BackendUnavailableError(f"{self.where} does not speak as a Memcached does").undone()

    def addresses(self) -> Sequence[tuple[int, str | tuple[Any, ...]]]:
        """Look the host name up (may block) and return socket families with addresses to try in order."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def tune(self, made: socket.socket) -> None:
        """Set a TCP socket's options."""
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def greeting(self) -> list[Command]:
        """Return the first commands of a connection: the questions which server, in which life, is there, and whether
        it numbers changes.
        """
        return [dialect.stats(), dialect.stats("settings")]

    def check_greeting(self, replies: Sequence[object]) -> str:
        """Return the name of the server's life; raises `BackendError` if it is none that can be used."""
        told, settings = (self._read(reply) for reply in replies)
        if settings.get("cas_enabled") == "no":
            raise BackendError(
                f"{self.where} runs with the option -C: it does not number changes, and so neither loads nor "
                "invalidations can be guarded; start it without"
            ).undone()
        return self._life(told)

    def _read(self, reply: object) -> Mapping[str, str]:
        if isinstance(reply, Refusal):
            raise refused(str(reply), f"the connection to {self.where}").undone()
        if not isinstance(reply, Mapping):
            raise self.not_greeted(ValueError())
        return cast(Mapping[str, str], reply)

    def _life(self, told: Mapping[str, str]) -> str:
        """Return what no other life of a server is called: its process and when that began."""
        try:
            version = tuple(int(part) for part in re.findall(r"\d+", told["version"])[:3])
            life = f"{int(told['pid'])} since {int(told['time']) - int(told['uptime'])}"
        except (KeyError, ValueError):
            raise BackendError(
                f"{self.where} does not tell which process it is: is it a proxy? Name the servers themselves in "
                "url (CACHE_URL)"
            ).undone() from None
        if version < OLDEST:
            raise BackendError(
                f"{self.where} is older than Memcached 1.6.13: the meta protocol was another one"
            ).undone()
        return life
