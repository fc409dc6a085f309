"""Time to live: durations as people write them, classes of data, and jitter that only shortens."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from nearcache.errors import ConfigError

TTL = float | int | timedelta | str
"""Seconds, a `timedelta`, a text such as "90s" or "1h30m", or the name of a class of data such as "session"."""

LONGEST_TTL: Final = 365 * 86_400.0
"""365 days in seconds: no setting allows more."""

NEVER_JITTERED: Final = frozenset({"session"})
"""Classes whose end people notice: a session that ends early is a user logged out early."""

CLASS_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?)"
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_EXAMPLES: Final = 'seconds, a timedelta, or a text such as "90s", "5m", "1h30m", "1d" or "250ms"'


def parse_duration(value: object, what: str = "ttl") -> float:
    """Return a duration in seconds, from a number of seconds, a `timedelta` or a text such as "90s" or "1h30m".

    Units are d, h, m, s and ms, the largest first. Anything that is not a positive, finite duration raises
    `ConfigError`, which names it by `what`.
    """
    seconds = _to_seconds(value)
    if seconds is None:
        raise ConfigError(f"{what} is {described(value)}; it must be {_EXAMPLES}")
    if not 0.0 < seconds < math.inf:
        raise ConfigError(f"{what} is {described(value)}; it must be more than zero and finite")
    return seconds


def _to_seconds(value: object) -> float | None:
    if isinstance(value, str):
        return _text_to_seconds(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _to_float(value)
    return None


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _text_to_seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    amounts = zip(match.groups(default="0"), _UNITS.values(), strict=True)
    return math.fsum(float(amount) * unit for amount, unit in amounts)


def described(value: object) -> str:
    """Return how a message speaks of a wrong value: its text if that is short and harmless, else its type."""
    if isinstance(value, (str, int, float, timedelta)) or value is None:
        return _shortened(value)
    return f"of type {type(value).__name__}"


def _shortened(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python is willing to print
        return "too large a number"
    return text if len(text) <= 60 else f"{text[:60]}..."


@dataclass(frozen=True, slots=True)
class TtlRules:
    """How a cache reads its ttls: the classes of data and the longest ttl in seconds, the share jitter may take off."""

    classes: Mapping[str, float]
    maximum: float = LONGEST_TTL
    jitter: float = 0.1

    def seconds(self, ttl: TTL, what: str = "ttl") -> float:
        """Return a ttl in seconds; `ConfigError` if it is neither duration nor known class, or above the maximum."""
        name = self.class_of(ttl, what)
        seconds = parse_duration(ttl, what) if name is None else self.classes[name]
        if seconds > self.maximum:
            limit = f"at most {self.maximum:.12g} seconds are allowed (CACHE_TTL_MAX)"
            raise ConfigError(f"{what} is {described(ttl)}; {limit}")
        return seconds

    def check_kept(self, what: str, seconds: float) -> None:
        """Raise `ConfigError` if a value would be kept longer than the longest ttl."""
        if seconds > self.maximum:
            raise ConfigError(f"{what} is {seconds:.12g} s; at most {self.maximum:.12g} are allowed (CACHE_TTL_MAX)")

    def jittered(self, ttl: TTL, draw: float) -> float:
        """Return a ttl in seconds, shortened by `draw` (0 <= draw < 1) times the jitter; never for sessions."""
        seconds = self.seconds(ttl)
        return seconds if ttl in NEVER_JITTERED else seconds * (1.0 - self.jitter * draw)

    def class_of(self, ttl: TTL, what: str = "ttl") -> str | None:
        """Return the class a ttl names, None if it is a duration; `ConfigError` if no such class is known."""
        if not isinstance(ttl, str) or ttl[:1].isdigit():
            return None
        if ttl not in self.classes:
            raise ConfigError(self._unknown(ttl, what))
        return ttl

    def _unknown(self, name: str, what: str) -> str:
        known = ", ".join(sorted(self.classes))
        advice = f"; set CACHE_TTL_{name.upper()} to define it" if CLASS_NAME.fullmatch(name) else ""
        return f"{what} is {_shortened(name)}; it must be {_EXAMPLES}, or one of the classes {known}{advice}"
