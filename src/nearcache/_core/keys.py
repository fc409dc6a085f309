"""Keys: their rules, and the namespace that keeps the caches of one engine apart."""

import re
from collections.abc import Iterable
from typing import Final, cast

from nearcache._core.arguments import UNPRINTABLE, canonical
from nearcache._core.template import MAX_PARTS, Template, template
from nearcache.errors import ConfigError, InvalidKeyError

__all__ = ["MAX_BYTES", "Namespace", "Template", "canonical", "check_key", "check_name", "entity_of", "template"]

MAX_BYTES: Final = 200
"""The longest key, namespace included, in UTF-8; internal records and engines need the room above."""

MAX_BASE64: Final = 186
"""The same of a key that is not plain ASCII where the engine gets it in base64: 248 bytes, and it takes 250."""

MAX_BASE64_NAME: Final = MAX_BASE64 - 37
"""The same of the name of a limiter: its record's is 37 bytes longer."""

MAX_NAMESPACE: Final = 100
"""Characters of a namespace, which leave room for a key."""

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]+")
_UNPRINTABLE: Final = re.compile(f"[{UNPRINTABLE}]")
# Printable ASCII without ":", "{" and "}": nearly every key, decided at once.
_PLAIN: Final = re.compile(r"[!-9;-z|~]+(?::[!-9;-z|~]+){0,6}").fullmatch
_ADVICE: Final = '; to put any text into a key use cache.key("entity:{name}", name=...)'


class Namespace:
    """The first part of every key of a cache in the engine, which may get those that are not plain ASCII in base64."""

    __slots__ = ("_prefix", "_room", "_room_beyond_ascii", "_room_of_names", "name")

    def __init__(self, name: str, *, in_base64: bool = False) -> None:
        self.name: str = _namespace(name)
        self._prefix = f"{name}:"
        self._room = MAX_BYTES - len(self._prefix)
        self._room_beyond_ascii = MAX_BASE64 - len(self._prefix) if in_base64 else self._room
        self._room_of_names = MAX_BASE64_NAME - len(self._prefix) if in_base64 else self._room

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    def check(self, key: object) -> str:
        """Return a cache key (without namespace); `InvalidKeyError` says which rule it breaks, if it breaks one."""
        if type(key) is str and len(key) <= self._room and _PLAIN(key):
            return key
        return _checked(key, "key", self._room, self._room_beyond_ascii)

    def check_all(self, keys: object) -> list[str]:
        """Return cache keys, each once; `InvalidKeyError` if one breaks a rule, or if this is one str, not several."""
        if isinstance(keys, str) or not isinstance(keys, Iterable):
            raise InvalidKeyError(f"keys are a list or another iterable of str, not a {type(keys).__name__}")
        return list(dict.fromkeys([self.check(key) for key in cast(Iterable[object], keys)]))

    def check_tag(self, tag: object) -> str:
        """Return a tag; `InvalidKeyError` if it breaks a rule of keys."""
        return _checked(tag, "tag", self._room)

    def check_name(self, name: object) -> str:
        """Return the name of a lock, limiter, topic or stream; `InvalidKeyError` if it breaks a rule of keys."""
        return _checked(name, "name", self._room, self._room_of_names)

    def engine_key(self, key: str) -> str:
        """Return what the engine holds for a cache key: "app:users:1" for "users:1"."""
        return self._prefix + key


def _namespace(name: object) -> str:
    if isinstance(name, str) and _NAMESPACE.fullmatch(name) and len(name) <= MAX_NAMESPACE:
        return name
    raise ConfigError(
        f"namespace is {name!r}; it must be 1 to {MAX_NAMESPACE} characters of A-Z, a-z, 0-9, '_', '.', '-'"
    )


def check_key(key: object) -> str:
    """Return a cache key if it keeps the rules that do not depend on a namespace, else raise `InvalidKeyError`."""
    return _checked(key, "key", MAX_BYTES)


def check_name(name: object) -> str:
    """Return the name of a lock, limiter, topic or stream if it keeps the same rules, else raise `InvalidKeyError`."""
    return _checked(name, "name", MAX_BYTES)


def entity_of(key: str) -> str:
    """Return the first part of a cache key: "users" for "users:1"."""
    return key.partition(":")[0]


def _checked(key: object, noun: str, room: int, room_beyond_ascii: int | None = None) -> str:
    if not isinstance(key, str):
        raise InvalidKeyError(f"a {noun} is a str such as 'users:1', not a {type(key).__name__}")
    text = str.__str__(key)
    problem = _problem(text, room if room_beyond_ascii is None or text.isascii() else room_beyond_ascii)
    if problem is not None:
        raise InvalidKeyError(f"{noun} {_shown(text)} {problem}{_ADVICE}")
    return text


def _problem(key: str, room: int) -> str | None:
    parts = key.split(":")
    if not all(parts):
        return "has an empty part"
    if len(parts) > MAX_PARTS:
        return f"has {len(parts)} parts; at most {MAX_PARTS} are allowed"
    if "{" in key or "}" in key:
        return "holds a brace; braces are for placeholders of templates"
    if _UNPRINTABLE.search(key):
        return "holds white space, a control character or another that cannot be printed"
    return _length_problem(len(key.encode()), room)


def _length_problem(size: int, room: int) -> str | None:
    if size <= room:
        return None
    return f"has {size} bytes; at most {room} are allowed beside the namespace: shorten long arguments by {{name:hash}}"


def _shown(key: str) -> str:
    return repr(key) if len(key) <= 80 else f"{key[:80]!r}..."
