"""redis+sentinel://: the primary of a group is where the sentinels say, who watch it and appoint another when it dies.

They are asked before each new connection, and whoever answers there must say of itself that it is a primary: a sentinel
may be behind. Connections to a primary that dies or is demoted break, and what follows goes to the new one.
"""

from typing import Any, Final
from urllib.parse import quote, urlencode

from nearcache.backends.redis.ask import Hosts, ask, in_turn
from nearcache.backends.redis.connect import Endpoint
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError

SCHEME: Final = "redis+sentinel"

PORT: Final = 26_379

EXAMPLE: Final = "redis+sentinel://h1:26379,h2:26379/mymaster/0"

LOGIN: Final = ", and their own login with ?sentinel_username=...&sentinel_password=..."


class Sentinels:
    """The sentinels of one URL, asked where the primary of their group is; opens nothing before that.

    All of them together may take `seconds` to answer. Raises `ConfigError` for a wrong URL.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._hosts = hosts = Hosts(url, PORT)
        self._group, _, self._database = hosts.path.partition("/")
        if not (hosts.names and self._group):
            raise ConfigError(f"url (CACHE_URL): it names sentinels, and the group they watch, as in {EXAMPLE}")
        if hosts.options.get("protocol", "3") != "3":
            raise ConfigError("url (CACHE_URL): protocol=2 does not tell who is the primary; leave it out")
        login = _login(hosts.options.pop("sentinel_username", ""), hosts.options.pop("sentinel_password", ""))
        self._sentinels = [Endpoint(f"{hosts.scheme}://{login}{where}?{urlencode(hosts.tls)}") for where in hosts.names]
        self._seconds = seconds
        Endpoint(self.url("localhost"))  # raises for an option that is wrong

    def primary(self) -> str:
        """Return the URL of the present primary; raises `BackendError` if no sentinel tells."""
        problems: list[str] = []
        for sentinel, deadline in in_turn(self._sentinels, self._seconds):
            who = f"the sentinel at {sentinel.where}"
            try:
                told = ask(sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._group), deadline, who)
                host, port = _address(told, who, self._group)
            except BackendError as error:
                problems.append(str(error))
            else:
                self._prefer(sentinel)
                return self.url(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        raise BackendUnavailableError(
            f"no sentinel tells where the primary of {self._group!r} is: {'; '.join(problems)}; "
            f"url (CACHE_URL) names sentinels, and the group that they watch, as in {EXAMPLE}{LOGIN}"
        ).undone()

    def doubt(self) -> None:
        """Ask the others first from now on: who told of the primary last was wrong."""
        self._sentinels = [*self._sentinels[1:], self._sentinels[0]]

    def _prefer(self, first: Endpoint) -> None:
        self._sentinels = [first, *(other for other in self._sentinels if other is not first)]

    def url(self, where: str) -> str:
        """Return the URL of the group's server at an address."""
        return self._hosts.url(where, self._database)


def _address(told: Any, who: str, group: str) -> tuple[str, int]:
    if told is None:
        raise BackendUnavailableError(f"{who} watches no {group!r}").undone()
    try:
        host, port = told
        return host.decode(), int(port)
    except (TypeError, ValueError, AttributeError) as error:
        raise BackendUnavailableError(f"{who} does not answer as a sentinel does").undone() from error


def _login(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
