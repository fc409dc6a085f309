"""URLs of engines: which kinds there are, and what of a URL may be shown to people."""

import re
from typing import Final

KINDS: Final = {
    "memory": "memory",
    "embedded": "embedded",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "redis+sentinel": "redis",
    "redis+cluster": "redis",
    "memcached": "memcached",
    "hazelcast": "hazelcast",
}
"""The kind of engine behind each scheme."""

DEFAULT_URLS: Final = {
    "memory": "memory://",
    "embedded": "embedded://",
    "redis": "redis://localhost:6379/0",
    "valkey": "redis://localhost:6379/0",
    "memcached": "memcached://localhost:11211",
    "hazelcast": "hazelcast://localhost:5701/dev",
}
"""What a kind of engine means without a URL."""

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*)(?::[0-9]{1,5})?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*")
_HIDDEN: Final = "***"


def scheme_of(url: str) -> str | None:
    """Return the scheme in lower case, None if the text is no URL."""
    match = _URL.fullmatch(url)
    return match["scheme"].lower() if match else None


def without_login(url: str) -> str:
    """Return a URL without user and password."""
    match = _URL.fullmatch(url)
    return url if match is None else f"{match['scheme']}://{match['authority'].rpartition('@')[2]}{match['rest']}"


def redacted(url: str) -> str:
    """Return the scheme, host and port of a URL, and nothing else; "***" for what may hold a password."""
    match = _URL.fullmatch(url)
    if match is None:
        return url if _HOSTS.fullmatch(url) else _HIDDEN
    return f"{match['scheme']}://{_shown_hosts(match['authority'], match['rest'])}"


def _shown_hosts(authority: str, rest: str) -> str:
    hosts = authority.rpartition("@")[2]
    # An "@" further on is the end of a password that holds "/", "?" or "#": then its beginning stands before them.
    return hosts if "@" not in rest and _HOSTS.fullmatch(hosts) else _HIDDEN
