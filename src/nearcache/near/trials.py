"""Small copies of the near tier that run other rules on a sample of the keys, to learn which rule misses least.

Waldspurger, Saemundsson, Ahmad, Park: "Cache modeling and optimization using miniature simulations", USENIX ATC 2017:
a cache of a hundredth of the size that gets a hundredth of the keys, drawn by their hash, misses about as often as the
whole.

Reads report nothing, so the copies look at the counts of the sampled slots themselves. A copy that holds a key looks
when the key's turn to leave comes, so it knows exactly what the slot would have known. A copy that does not hold a key
which is read missed it; this is noticed some time later, by a round that looks at all sampled slots `LOOKS` times while
as many entries leave as there are.
"""

from collections.abc import Sequence
from math import inf, sqrt
from typing import Final
from zlib import crc32

from nearcache.near.pool import Pool, Rule
from nearcache.near.queues import Queue
from nearcache.near.slot import Slot
from nearcache.near.tally import Tally

LARGEST: Final = 0.125
PER_ROOT: Final = 3
"""A copy has this many entries per square root of the entries of the original, but no larger part of them than that.
So the larger the original, the surer the verdict, and the lower the cost of one operation."""

LOOKS: Final = 8
MEMORY: Final = 3.0
"""Misses count half after so many times the entries left."""

LEAD: Final = 0.08
"""A rule takes over if it misses less by this part; changing the rule has a price, and small leads are chance."""

DRAWS: Final = 1_000_003
"""Results of a draw. The sample is drawn by a checksum, not by `hash`, so that it is the same in every process; the
remainder by this prime evens out what the checksums of similar keys have in common."""


NOBODY: Final = Slot("", 0, Tally())
"""Stands for the slot of a key that has none."""


class Sample:
    """A sampled key: the reads of it so far, and its places in the copies."""

    __slots__ = ("held", "key", "past", "probes", "seen", "slot")

    def __init__(self, key: str, size: int, copies: int) -> None:
        self.key: str = key
        self.slot: Slot = NOBODY
        self.held: int = 0
        """How many copies hold it."""
        self.past: int = 0
        """Reads so far, less those that `slot` counts."""
        self.seen: int = 0
        self.probes: list[Probe] = [Probe(self, size) for _ in range(copies)]

    def hold(self, slot: Slot) -> None:
        """Go on counting by another slot."""
        self.past += _reads(self.slot) - _reads(slot)
        self.slot, self.seen = slot, _reads(slot)


class Probe:
    """What a copy holds instead of a slot; its reads are those of its sample."""

    __slots__ = ("_from", "after", "before", "due", "home", "key", "reads", "sample", "size")

    def __init__(self, sample: Sample, size: int) -> None:
        self.sample: Sample = sample
        self.key: str = sample.key
        self.size: int = size
        self.reads: int = 0
        self.due: float = 0.0
        self.home: Queue[Probe] | None = None
        self.before: Probe | None = None
        self.after: Probe | None = None
        self._from = 0

    @property
    def freq(self) -> int:
        """Reads since its turn in this copy came last."""
        sample = self.sample
        return sample.past + sample.slot.reads + sample.slot.freq - self._from

    @freq.setter
    def freq(self, value: int) -> None:
        sample = self.sample
        self._from = sample.past + sample.slot.reads + sample.slot.freq - value

    def expired(self, now: float) -> bool:
        """Tell whether time is over; copies know no deadlines."""
        return now == inf


class Trials:
    """One copy per rule, and what each of them missed lately. `entries` fill the `room` of the original."""

    __slots__ = ("_below", "_by_size", "_copies", "_decay", "_misses", "_room", "every", "samples")

    def __init__(self, rules: Sequence[Rule], room: float, by_size: bool, entries: int) -> None:
        part = min(LARGEST, PER_ROOT / sqrt(entries))
        self._below = max(1, round(part * DRAWS))
        self._room = max(room * part, 1.0)
        self._copies: list[Pool[Probe]] = [Pool(self._room, by_size, rule) for rule in rules]
        self._by_size = by_size
        self._misses = [0.0] * len(rules)
        self.samples: dict[str, Sample] = {}
        self.every: int = max(1, entries // LOOKS)
        """Victims between one look at the sample and the next."""
        self._decay = 0.5 ** (self.every / (MEMORY * entries))

    def draws(self, key: str) -> bool:
        """Tell whether a key is in the sample."""
        return crc32(key.encode()) % DRAWS < self._below

    def missed(self, slot: Slot) -> None:
        """Take note of a sampled key that was asked for in vain, and of its new slot."""
        sample = self.samples.get(slot.key)
        if sample is None:
            size = slot.size if self._by_size else 1
            sample = self.samples[slot.key] = Sample(slot.key, size, len(self._copies))
        sample.past += 1
        sample.hold(slot)
        self._ask(sample, 1)

    def replaced(self, new: Slot) -> None:
        """Go on with the slot that took the place of another one with the same key and reads."""
        sample = self.samples.get(new.key)
        if sample is not None:
            sample.slot = new

    def left(self, sample: Sample) -> None:
        """Take note of a sample whose slot left as a victim."""
        self._look(sample)
        sample.hold(NOBODY)
        self._tidy(sample)

    def removed(self, slot: Slot) -> None:
        """Take note of a sampled slot that left by other means; the copies drop it too."""
        sample = self.samples.get(slot.key)
        if sample is not None:
            for copy, probe in zip(self._copies, sample.probes, strict=True):
                copy.remove(probe)
            self._forget(sample)

    def clear(self) -> None:
        """Forget everything; the trials are over."""
        for copy in self._copies:
            copy.clear()
        for sample in list(self.samples.values()):
            self._forget(sample)

    def best(self, current: int) -> int:
        """Return the number of the rule to go by; to be called every `every` victims."""
        for sample in list(self.samples.values()):
            self._look(sample)
        misses = self._misses
        least = min(misses)
        self._misses = [count * self._decay for count in misses]
        return misses.index(least) if least < misses[current] * (1 - LEAD) else current

    def _look(self, sample: Sample) -> None:
        """Let the copies that do not hold a key know of its reads since the last look."""
        fresh = _reads(sample.slot) - sample.seen
        if fresh:
            sample.seen += fresh
            self._ask(sample, fresh)

    def _ask(self, sample: Sample, times: int) -> None:
        """Count a miss for each copy that does not hold a key, and put it in as if read `times` since."""
        for number, probe in enumerate(sample.probes):
            if probe.home is None:
                self._misses[number] += 1
                if probe.size <= self._room:
                    self._put(self._copies[number], probe)
                    sample.held += 1
                    probe.freq = times - 1

    def _put(self, copy: Pool[Probe], probe: Probe) -> None:
        while copy.full(probe) and (victim := copy.victim(0.0)) is not None:
            victim.sample.held -= 1
            self._tidy(victim.sample)
        copy.insert(probe)

    def _tidy(self, sample: Sample) -> None:
        """Forget a sample that is held nowhere."""
        if not sample.held and sample.slot is NOBODY:
            self._forget(sample)

    def _forget(self, sample: Sample) -> None:
        """Forget a sample, and cut the cycle of references that would keep it until the garbage collector comes."""
        self.samples.pop(sample.key, None)
        sample.probes.clear()


def _reads(slot: Slot) -> int:
    return slot.reads + slot.freq
