"""redis+sentinel://: the primary of a group is where the sentinels say, who watch it and appoint another when it dies.

They are asked before each new connection, and whoever answers there must say of itself that it is a primary: a sentinel
may be behind. Connections to a primary that dies or is demoted break, and what follows goes to the new one.
"""

import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from nearcache.backends.redis.blocking import Wire, connect
from nearcache.backends.redis.connect import Endpoint
from nearcache.backends.redis.errors import good
from nearcache.backends.redis.wire import NONSENSE, pack
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError

SCHEME: Final = "redis+sentinel"

PORT: Final = 26_379

TLS: Final = "ssl_"
"""How the names of the options of TLS begin; one of them turns it on, for the sentinels too."""

EXAMPLE: Final = "redis+sentinel://h1:26379,h2:26379/mymaster/0"


class Sentinels:
    """The sentinels of one URL, asked where the primary of their group is; opens nothing before that.

    All of them together may take `timeout` seconds to answer. Raises `ConfigError` for a wrong URL.
    """

    def __init__(self, url: str, timeout: float) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:  # whose message may hold a password
            raise ConfigError(f"url (CACHE_URL): not a URL; it is written as in {EXAMPLE}") from None
        login, _, hosts = parts.netloc.rpartition("@")
        self._group, _, database = parts.path.strip("/").partition("/")
        if not (hosts and self._group):
            raise ConfigError(f"url (CACHE_URL): it names sentinels, and the group they watch, as in {EXAMPLE}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if options.get("protocol", "3") != "3":
            raise ConfigError("url (CACHE_URL): protocol=2 does not tell who is the primary; leave it out")
        own = _login(options.pop("sentinel_username", ""), options.pop("sentinel_password", ""))
        tls = {name: value for name, value in options.items() if name.startswith(TLS)}
        scheme = "rediss" if tls else "redis"
        self._around = f"{scheme}://{login}{'@' * bool(login)}", f"/{database}?{urlencode(options)}"
        self._sentinels = [
            Endpoint(f"{scheme}://{own}{_with_port(host)}?{urlencode(tls)}") for host in hosts.split(",")
        ]
        self._timeout = timeout
        Endpoint("localhost".join(self._around))  # raises for an option that is wrong

    def primary(self) -> str:
        """Return the URL of the present primary; raises `BackendError` if no sentinel tells."""
        problems: list[str] = []
        for sentinel, deadline in self._in_turn():
            try:
                host, port = _ask(sentinel, self._group, deadline)
            except BackendError as error:
                problems.append(str(error))
            else:
                self._prefer(sentinel)
                return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").join(self._around)
        raise BackendUnavailableError(
            f"no sentinel tells where the primary of {self._group!r} is: {'; '.join(problems)}"
        ).undone()

    def doubt(self) -> None:
        """Ask the others first from now on: who told of the primary last was wrong."""
        self._sentinels = [*self._sentinels[1:], self._sentinels[0]]

    def _prefer(self, first: Endpoint) -> None:
        self._sentinels = [first, *(other for other in self._sentinels if other is not first)]

    def _in_turn(self) -> Iterator[tuple[Endpoint, float]]:
        """Yield each sentinel with the time until which it may answer (monotonic), so that all have their share."""
        end, sentinels = time.monotonic() + self._timeout, self._sentinels
        for place, sentinel in enumerate(sentinels):
            now = time.monotonic()
            yield sentinel, now + max(0.0, end - now) / (len(sentinels) - place)


def _ask(sentinel: Endpoint, group: str, deadline: float) -> tuple[str, int]:
    wire, where = Wire(0), f"the sentinel at {sentinel.where}"
    try:
        connect(wire, sentinel, deadline)
        (told,) = wire.call(pack([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", group)]), 1, deadline)
    except (OSError, *NONSENSE) as error:
        if isinstance(error, BackendError):
            raise
        raise BackendUnavailableError(f"{where} does not answer ({type(error).__name__})").undone() from error
    finally:
        wire.close()
    return _address(good(told, where), where, group)


def _address(told: Any, where: str, group: str) -> tuple[str, int]:
    if told is None:
        raise BackendUnavailableError(f"{where} watches no {group!r}").undone()
    try:
        host, port = told
        return host.decode(), int(port)
    except (TypeError, ValueError, AttributeError) as error:
        raise BackendUnavailableError(f"{where} does not answer as a sentinel does").undone() from error


def _login(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""


def _with_port(host: str) -> str:
    """Add the usual port of sentinels to a host without one."""
    return host if host.rpartition(":")[2].isdecimal() else f"{host}:{PORT}"
