"""What a reader can learn about a cached value."""

from dataclasses import dataclass
from typing import Any, Literal

Tier = Literal["near", "engine"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached value and what is known about it.

    `age` and `ttl` are seconds: since it was stored, and until it is no longer fresh. `tier` says where a `get`
    would have found it. `stale` tells whether it is served past its freshness.
    """

    value: Any
    age: float
    ttl: float
    tier: Tier
    stale: bool
