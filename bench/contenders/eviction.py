"""Reads of a full near tier of some size: what is not there is put in, and something else leaves.

Half of the reads miss, at any size: the keys are drawn from four times as many as fit, the first ones more often.
"""

import math
import random
from array import array
from collections.abc import Iterator, Mapping
from itertools import cycle

from bench.subject import Subject, peer

KEYS_OF_A_PLACE = 4
WARM = 3
"""Requests before the first block, in multiples of the capacity."""

MOST_DRAWS = 4_000_000


def ten_thousand() -> Subject:
    """10,000 entries."""
    return full(10_000)


def hundred_thousand() -> Subject:
    """100,000 entries."""
    return full(100_000)


def million() -> Subject:
    """1,000,000 entries."""
    return full(1_000_000)


def full(capacity: int) -> Subject:
    """Return a subject whose near tier is full."""
    near, missing = peer("nearcache.near.store"), peer("nearcache").MISS
    store = near.Store(near.Limit(entries=capacity))
    lookup, keep, stamp = store.lookup, store.keep, store.stamp
    keys = drawn(capacity)

    def loop(n: int) -> None:
        for _, key in zip(range(n), keys, strict=False):
            if lookup(key) is missing:
                keep(key, key, None, math.inf, 64, stamp(key))

    def counters() -> Mapping[str, float]:
        """Count each read once: in a full tier, each miss lets one entry go."""
        return {"hits and evictions": store.hits.of("users").hits + store.evictions}

    loop(WARM * capacity)
    return Subject(loop, lambda: store.entries, capacity, counters)


def drawn(capacity: int) -> Iterator[str]:
    """Draw keys without end; they come again only after more draws than a bench makes."""
    chance = random.Random(capacity)  # noqa: S311 -- the same keys in each run
    count = KEYS_OF_A_PLACE * capacity
    names = [f"users:{number}" for number in range(count)]
    places = array("I", (int(count * chance.random() ** 2) for _ in range(MOST_DRAWS)))
    return (names[place] for place in cycle(places))
