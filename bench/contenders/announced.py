"""Announcements that keys were changed, applied to a near tier that holds so many entries.

What is announced is drawn anew for each block, as texts that nobody has hashed, and put back before the next.
"""

import math
import random
import time
from collections.abc import Mapping

from bench.subject import Subject, peer

AT_ONCE = 500
"""How many keys are drawn for a block."""


def thousand() -> Subject:
    """1,000 entries."""
    return holding(1_000)


def ten_thousand() -> Subject:
    """10,000 entries."""
    return holding(10_000)


def hundred_thousand() -> Subject:
    """100,000 entries."""
    return holding(100_000)


def million() -> Subject:
    """1,000,000 entries."""
    return holding(1_000_000)


def holding(entries: int) -> Subject:
    """Return a subject whose near tier holds so many entries, of which each call drops one."""
    store = peer("nearcache.near.store").Store(peer("nearcache.near.store").Limit(entries=2 * entries))
    flights = peer("nearcache.near.flights").Flights()
    coherence = peer("nearcache.near.coherence").Coherence(store, flights, time.monotonic, 1.0, wanted=True)
    chance = random.Random(entries)  # noqa: S311 -- the same keys in each run
    announced, kept = list[str](), 0

    def keep(number: int) -> None:
        nonlocal kept
        key = f"users:{number}"
        kept += store.keep(key, number, None, math.inf, 64, store.stamp(key))

    def prepare() -> None:
        for key in announced:
            keep(int(key.partition(":")[2]))
        announced[:] = [f"users:{number}" for number in chance.sample(range(entries), AT_ONCE)]

    def loop(n: int) -> None:
        changed = coherence.changed
        for key in announced[:n]:
            changed((key,))

    def counters() -> Mapping[str, float]:
        return {"entries that were dropped": kept - store.entries}

    def once() -> tuple[int, int]:
        prepare()
        before = store.entries
        loop(AT_ONCE)
        return before, store.entries

    for number in range(entries):
        keep(number)
    return Subject(loop, once, (entries, entries - AT_ONCE), counters, prepare=prepare)
