"""Settings from CACHE_* variables: what they are called, what they may be, and which look misspelt."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from nearcache._core.ttl import LONGEST_TTL, parse_duration
from nearcache._core.urls import redacted
from nearcache.errors import ConfigError

VARIABLES: Final = (
    "CACHE_ENABLED",
    "CACHE_TYPE",
    "CACHE_URL",
    "CACHE_NAMESPACE",
    "CACHE_TTL_DEFAULT",
    "CACHE_TTL_SESSION",
    "CACHE_TTL_CONFIG",
    "CACHE_TTL_MAX",
    "CACHE_POOL_MIN_SIZE",
    "CACHE_POOL_MAX_SIZE",
    "CACHE_POOL_TIMEOUT",
)

TTL_CLASSES: Final = {"default": 3_600.0, "session": 86_400.0, "config": 300.0}
"""The classes of data there always are, in seconds."""

_TTL_VARIABLE: Final = re.compile(r"CACHE_TTL_(?!MAX$)(?P<name>[A-Z][A-Z0-9_]*)")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_LIKE: Final = 0.84
"""How alike two names must be (difflib's ratio) to report one as misspelt: other libraries use the prefix too."""

_CLASS_LIKE: Final = 0.93
"""The same for the name of a class of data, of which there may be any."""

Value = TypeVar("Value")


class Settings:
    """The CACHE_* variables of an environment; an empty one counts as unset."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {name: text.strip() for name, text in environ.items() if name.startswith("CACHE_")}

    def text(self, variable: str) -> str | None:
        """Return the text of a variable, None if it is unset or empty."""
        return self._environ.get(variable) or None

    def read(self, variable: str, reader: Callable[[str], Value], may_be: str) -> Value | None:
        """Return what `reader` makes of a variable, None if unset; its `ValueError` becomes a `ConfigError`."""
        text = self.text(variable)
        if text is None:
            return None
        try:
            return reader(text)
        except ValueError:
            raise self.wrong(variable, may_be) from None

    def wrong(self, variable: str, must_be: str) -> ConfigError:
        """Return an error that names a variable, its value and what it must be."""
        text = self._environ[variable]
        # Also a variable that should hold no URL may hold one by mistake, with its password.
        shown = redacted(text) if variable == "CACHE_URL" or "://" in text or "@" in text else repr(text)
        return ConfigError(f"{variable} is {shown}; it must be {must_be}")

    def ttl_maximum(self) -> float:
        """Return the longest ttl in seconds."""
        may_be = "a number of seconds or a text such as '30d', more than zero and at most 365 days"
        return self.read("CACHE_TTL_MAX", _bounded_seconds(LONGEST_TTL), may_be) or LONGEST_TTL

    def ttl_classes(self, maximum: float) -> dict[str, float]:
        """Return the seconds of each class of data; those not set are at most the maximum."""
        may_be = (
            f"a number of seconds or a text such as '90s' or '1h', more than zero and at most {maximum:.12g} seconds"
        )
        reader = _bounded_seconds(maximum)
        classes = {name: min(seconds, maximum) for name, seconds in TTL_CLASSES.items()}
        read = {name: self.read(variable, reader, may_be) for name, variable in self._ttl_variables()}
        return classes | {name: seconds for name, seconds in read.items() if seconds is not None}

    def _ttl_variables(self) -> Iterator[tuple[str, str]]:
        for variable in self._environ:
            match = _TTL_VARIABLE.fullmatch(variable)
            if match:
                yield match["name"].lower(), variable

    def misspelt(self) -> Iterator[tuple[str, str]]:
        """Yield each variable that is set, unknown and much like a known one, with the nearest of these."""
        for variable in self._environ.keys() - set(VARIABLES):
            cutoff = _CLASS_LIKE if is_ttl_class(variable) else _LIKE
            nearest = difflib.get_close_matches(variable.upper(), VARIABLES, n=1, cutoff=cutoff)
            yield from ((variable, name) for name in nearest)


def is_ttl_class(variable: str) -> bool:
    """Return whether a variable sets the TTL of a class of data."""
    return _TTL_VARIABLE.fullmatch(variable) is not None


def boolean(text: str) -> bool:
    """Return what a text says: true, 1, yes, on; or false, 0, no, off."""
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return word in _TRUE


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds."""

    def reader(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not lowest <= int(text) <= highest:
            raise ValueError(text)
        return int(text)

    return reader


def milliseconds(text: str) -> float:
    """Return a number of milliseconds in seconds."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return parse_duration(float(text) / 1_000.0)


def _bounded_seconds(maximum: float) -> Callable[[str], float]:
    def reader(text: str) -> float:
        seconds = parse_duration(float(text) if _NUMBER.fullmatch(text) else text)
        if seconds > maximum:
            raise ValueError(text)
        return seconds

    return reader
