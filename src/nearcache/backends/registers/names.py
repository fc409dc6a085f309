"""What messages call the records of engines without scripts: those of the library's own by what they are for."""

from typing import Final

_KINDS: Final = {
    "m": "what was invalidated",
    "b": "the announcement of changes",
    "t": "the engine's time",
    "k": "locks",
    "s": "sessions",
}
"""What a record is for, by what stands behind the namespace and "~"; no key of a cache has that."""


def about(name: str) -> str:
    """Return what a message says that it is about, where that is a record with this name."""
    if name.startswith("{"):  # what a limiter knows of somebody
        return name.partition(":")[2].rpartition(":")[0]
    namespace, _, kind = name.partition(":")[0].partition("~")
    return f"{_KINDS[kind]} in the namespace {namespace!r}" if kind in _KINDS else name
