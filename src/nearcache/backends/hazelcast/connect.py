"""Where a Hazelcast cluster is: the members and the name in a URL."""

import re
from typing import Final, NamedTuple

from nearcache.errors import ConfigError

PORT: Final = 5701
"""The port of a member for which none is given."""

_URL: Final = re.compile(r"hazelcast://(?P<places>[^/?#@]+)/(?P<name>[A-Za-z0-9_.~-]+)/?", re.IGNORECASE)
_PLACE: Final = re.compile(r"(?P<host>[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")


class Cluster(NamedTuple):
    """The name of a cluster, and members of it that are asked for the others."""

    name: str
    members: tuple[str, ...]

    def described(self) -> str:
        """Name it in a message."""
        return f"the cluster {self.name!r} at {', '.join(self.members)}"


def cluster_of(url: str) -> Cluster:
    """Return the cluster that a URL names; raises `ConfigError` for a wrong one."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigError(
            "url (CACHE_URL): it names members and the cluster, and nothing else: "
            "hazelcast://host1:5701,host2:5701/dev. Members of the open-source edition have neither logins nor TLS, "
            "and refuse whoever sends a login"
        )
    return Cluster(match["name"], tuple(_place(text) for text in match["places"].split(",")))


def _place(text: str) -> str:
    match = _PLACE.fullmatch(text)
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port < 65_536:
        raise ConfigError(
            "url (CACHE_URL): each member is a host and perhaps a port up to 65535, as in host1:5701; the client "
            "library has no IPv6"
        )
    return f"{match['host']}:{port}"
