"""Which entry leaves when the store is full: ranked by worth, behind a small queue, by a rule that trials choose.

**Worth.** An entry that was read `n` times and has a size is due its worth, `n ** power / size`, after it was added, on
a clock that stands at the due time of the last victim; the entry that is due first leaves. With the power 1 this is
GreedyDual-Size-Frequency (Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching
policy", HP Labs 1998), which is LFU with dynamic ageing where sizes do not count (Arlitt et al., "Evaluating content
management techniques for web proxy caches", 2000). With the power 0 it is FIFO with a second chance, close to LRU. A
power between lets the clock overtake sooner what was read often once.

**Reads move nothing.** They count `Slot.freq` up. Only when its turn to leave comes is an entry that was read since
ranked anew: the lazy promotion of CLOCK and SIEVE (Zhang et al., NSDI 2024). Worths within a factor of two share a
first-in-first-out queue, so ranking needs no heap.

**The small queue** is that of S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): new
entries have a part of the room to themselves, and those hardly read there leave soon. Keys that left are remembered
with their reads ("ghosts"), about as many as there are entries. A key that comes back after it left the small queue is
ranked at once, for it would have been read in a larger one; a key that had been ranked proves itself in the small queue
again.

**Which rule.** No fixed share is right: a tenth is good on most traces, more where keys come back after a while, none
where what is new is what is read, a hundredth where the room does not suffice for what goes round; and where nearly all
of that has room, it is best to forget keys that left, or they push each other out for ever. So small copies of the
store try the rules on a sample of the keys (`trials`), and the one that misses least is followed.
`docs/performance.md` has what this is worth, and what else was tried.
"""

from math import inf
from typing import Final, Protocol

from nearcache.near.pool import Pool, Rule
from nearcache.near.slot import Slot
from nearcache.near.trials import Trials

RULES: Final = (
    Rule(0.1, 2, 0.75),
    Rule(0.3, 2, 0.75),
    Rule(0.0, 1, 0.0),
    Rule(0.01, 1, 0.75),
    Rule(0.01, 1, 0.75, recalls=False),
)
"""Where entries count one each. The first holds until another one has proved better."""

RULES_BY_SIZE: Final = (Rule(0.0, 1, 1.0), Rule(0.1, 2, 1.0), Rule(0.01, 1, 1.0))
"""Where bytes are limited. The first is GreedyDual-Size-Frequency with remembered reads, and no small queue."""


BEGIN: Final = 1 / 16
"""Trials begin when so much of the room is taken: it shows how many entries there will be, and misses little."""


class Policy(Protocol):
    """Chooses who leaves. Its caller holds the store's lock; reads are reported through `Slot.freq` alone."""

    def insert(self, slot: Slot) -> None:
        """Take note of a new slot."""
        ...

    def replace(self, old: Slot, new: Slot) -> None:
        """Let `new` have the place and the standing of `old`, which has the same key."""
        ...

    def remove(self, slot: Slot) -> None:
        """Forget a slot that left by other means."""
        ...

    def victim(self, now: float) -> Slot | None:
        """Choose the slot that leaves, and forget it; None if there is none."""
        ...

    def left(self, key: str) -> bool:
        """Tell whether the slot of a key was a victim lately, as far as that is remembered."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class Learning:
    """A pool that goes by the rule that misses least in trials.

    `capacity` is the weight at which the store asks for victims; infinity if it never does. Inserting and removing cost
    O(1), choosing a victim O(1) amortised.
    """

    __slots__ = ("_by_size", "_capacity", "_current", "_pool", "_rules", "_start", "_trials", "_wait")

    def __init__(self, capacity: float, by_size: bool = False) -> None:
        self._capacity, self._by_size = capacity, by_size
        self._rules = RULES_BY_SIZE if by_size else RULES
        self._pool: Pool[Slot] = Pool(capacity, by_size, self._rules[0])
        self._trials: Trials | None = None
        self.clear()

    def insert(self, slot: Slot) -> None:
        """Take in a new slot."""
        self._pool.insert(slot)
        if self._pool.weight >= self._start:
            self._begin()
        trials = self._trials
        if trials and trials.draws(slot.key):
            trials.missed(slot)

    def replace(self, old: Slot, new: Slot) -> None:
        """Let `new` have the place and the reads of `old`."""
        self._pool.replace(old, new)
        if self._trials:
            self._trials.replaced(new)

    def remove(self, slot: Slot) -> None:
        """Forget a slot that left by other means; its key is not remembered."""
        if slot.home is not None:
            self._pool.remove(slot)
            if self._trials:
                self._trials.removed(slot)

    def victim(self, now: float) -> Slot | None:
        """Choose the slot that leaves, and forget it; None if there is none."""
        self._wait -= 1
        if self._wait < 0:
            self._learn()
        slot = self._pool.victim(now)
        trials = self._trials
        if trials and slot is not None:
            sample = trials.samples.get(slot.key)
            if sample is not None:
                trials.left(sample)
        return slot

    def left(self, key: str) -> bool:
        """Tell whether the slot of a key was a victim lately: about as many are remembered as there are entries."""
        return self._pool.left(key)

    def clear(self) -> None:
        """Forget everything, remembered keys too."""
        self._pool.clear()
        self._pool.follow(self._rules[0])
        if self._trials:
            self._trials.clear()
        self._trials = None
        self._start = self._capacity * BEGIN
        self._current = 0
        self._wait = 0
        """How many victims are to come before the next look."""

    def __del__(self) -> None:
        """Cut the chains, so that a dropped store is freed at once and not when the garbage collector comes."""
        self.clear()

    @property
    def learns(self) -> bool:
        """Tell whether trials go on."""
        return self._trials is not None

    def _begin(self) -> None:
        entries = max(1, round(self._pool.count * self._capacity / self._pool.weight))
        self._trials = Trials(self._rules, self._capacity, self._by_size, entries)
        self._start = inf

    def _learn(self) -> None:
        """See whether another rule has proved better."""
        if self._trials:
            self._wait = self._trials.every
            best = self._trials.best(self._current)
            if best != self._current:
                self._current = best
                self._pool.follow(self._rules[best])


def learning(entries: int | None, size: int | None) -> Learning:
    """Make the policy of a tier that may hold so many entries or bytes; None is no limit."""
    if size is not None:
        return Learning(size, by_size=True)
    return Learning(inf if entries is None else entries)
