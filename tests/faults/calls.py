"""Calls of every verb, of either flavour, for tests of what becomes of them."""

from collections.abc import Awaitable, Callable
from typing import Any

from nearcache import Cache
from tests.faces import Awaited

Call = Callable[[Awaited], Awaitable[Any]]

FLAVOURS = ("sync", "async")


def face(cache: Cache, flavour: str) -> Awaited:
    """Return the face of a flavour, all of whose verbs are awaited."""
    return Awaited(cache if flavour == "sync" else cache.aio)


def _load(cache: Awaited) -> Callable[..., Any]:
    return cache.loader(lambda: "loaded")


def _load_many(cache: Awaited) -> Callable[..., Any]:
    return cache.loader(lambda keys: dict.fromkeys(keys, "loaded"))


def _store(cache: Awaited) -> Callable[..., Any]:
    return cache.loader(lambda value: None)


READS: dict[str, Call] = {
    "get": lambda cache: cache.get("a:1"),
    "get_many": lambda cache: cache.get_many(["a:1", "a:2"]),
    "get_entry": lambda cache: cache.get_entry("a:1"),
    "get_or_load": lambda cache: cache.get_or_load("a:1", _load(cache)),
    "get_or_load_many": lambda cache: cache.get_or_load_many(["a:1", "a:2"], _load_many(cache)),
    "health": lambda cache: cache.health(),
}
"""Calls that never raise because of an engine."""

WRITES: dict[str, Call] = {
    "set": lambda cache: cache.set("a:1", "set"),
    "set_many": lambda cache: cache.set_many({"a:1": "set", "a:2": "set"}),
    "add": lambda cache: cache.add("a:3", "set"),
    "incr": lambda cache: cache.incr("n:1"),
    "touch": lambda cache: cache.touch("a:1", 60),
    "delete": lambda cache: cache.delete("a:1"),
    "delete_many": lambda cache: cache.delete_many(["a:1", "a:2"]),
    "invalidate_tags": lambda cache: cache.invalidate_tags("t:1"),
    "clear": lambda cache: cache.clear(),
    "write_through": lambda cache: cache.write_through("a:1", "set", _store(cache)),
    "exists": lambda cache: cache.exists("a:1"),
    "ttl": lambda cache: cache.ttl("a:1"),
    "scan": lambda cache: cache.scanned(),
}
"""Calls whose answer only the engine has."""
