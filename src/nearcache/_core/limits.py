"""Limits as people write them: "5/minute", "100/day", "20/30s"."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from nearcache._core.ttl import LONGEST_TTL, described, parse_duration
from nearcache.errors import ConfigError

Kind = Literal["sliding", "fixed", "gcra"]
"""How a limit is counted."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

LONGEST_LOG: Final = 1_000
"""The largest count of a sliding limit, which keeps the time of every unit."""

LARGEST_COUNT: Final = 1_000_000_000

SHORTEST_PERIOD: Final = 1.0
"""Seconds."""

_PERIODS: Final = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
_LIMIT: Final = re.compile(r"([0-9]{1,15})/([a-z0-9.]+)")
_EXAMPLES: Final = 'a count and a period such as "5/minute", "100/day" or "20/30s"'


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units in a period of so many seconds; `text` is how it was written."""

    text: str
    count: int
    period: float

    @property
    def micros(self) -> int:
        """The period in microseconds."""
        return round(self.period * 1_000_000)


def parse_limits(texts: Iterable[object], kind: object) -> tuple[Kind, tuple[Limit, ...]]:
    """Return the kind and the limits of a limiter; `ConfigError` says what is wrong with them."""
    if kind not in KINDS:
        raise ConfigError(f"kind is {described(kind)}; it must be {' or '.join(map(repr, KINDS))}")
    limits = tuple(map(_parsed, texts))
    if not limits:
        raise ConfigError(f"a limiter needs at least one limit: {_EXAMPLES}")
    for at, limit in enumerate(limits):
        if any(other.period == limit.period for other in limits[:at]):
            raise ConfigError(f"{limit.text!r} is the second limit with its period; only the smaller would count")
        if kind == "sliding" and limit.count > LONGEST_LOG:
            advice = 'take kind="gcra" or kind="fixed", which count without it'
            raise ConfigError(f"{limit.text!r} keeps a log of more than {LONGEST_LOG:,} units; {advice}")
    return kind, limits


def _parsed(text: object) -> Limit:
    match = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"limit is {described(text)}; it must be {_EXAMPLES}")
    count, name = int(match[1]), match[2]
    period = _PERIODS.get(name) or parse_duration(name, f"the period of {match[0]!r}")
    if not 1 <= count <= LARGEST_COUNT:
        raise ConfigError(f"limit is {match[0]!r}; its count must be from 1 to {LARGEST_COUNT:,}")
    if not SHORTEST_PERIOD <= period <= LONGEST_TTL:
        raise ConfigError(f"limit is {match[0]!r}; its period must be from 1 second to 365 days")
    return Limit(match[0], count, period)
