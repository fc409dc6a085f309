"""Which entry leaves when the store is full: S3-FIFO behind a small protocol.

Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP 2023.

New entries enter a small queue that has a tenth of the room. Those read at least twice by the time they reach its end
move to the main queue; the others leave, and their keys are remembered for a while ("ghosts"). An entry whose key is
remembered enters the main queue at once. At the end of the main queue, an entry that was read since goes round again.
Reading moves nothing: it only counts `Slot.freq` up.
"""

from collections import OrderedDict
from typing import Final, Protocol

from nearcache.near.slot import MAX_FREQ, Slot

SMALL_SHARE: Final = 0.1
PROMOTE_AT: Final = 2
MAX_ROUNDS: Final = 1_000
"""Entries sent round again for one eviction; more would stall the caller while telling hot from hot."""


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

    def clear(self) -> None:
        """Forget everything."""
        ...


class Queue:
    """Slots in order of arrival, and their weight together."""

    __slots__ = ("_by_size", "_slots", "weight")

    def __init__(self, by_size: bool) -> None:
        self._by_size = by_size
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self.weight: int = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    def append(self, slot: Slot) -> None:
        """Add a slot at the end."""
        self._slots[slot.key] = slot
        self.weight += self._weigh(slot)

    def pop(self) -> Slot:
        """Take the slot that has been here longest."""
        _, slot = self._slots.popitem(last=False)
        self.weight -= self._weigh(slot)
        return slot

    def replace(self, old: Slot, new: Slot) -> None:
        """Put a slot in the place of another one with the same key."""
        self._slots[new.key] = new
        self.weight += self._weigh(new) - self._weigh(old)

    def remove(self, slot: Slot) -> None:
        """Take out a slot, if it is here."""
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            self.weight -= self._weigh(slot)

    def clear(self) -> None:
        """Take out everything."""
        self._slots.clear()
        self.weight = 0

    def _weigh(self, slot: Slot) -> int:
        return slot.size if self._by_size else 1


class Ghosts:
    """Keys that left lately, by their hash: a false match only lets one entry skip the small queue."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: OrderedDict[int, None] = OrderedDict()

    def add(self, key: str, room: int) -> None:
        """Remember a key, and at most `room` keys in all."""
        self._hashes[hash(key)] = None
        while len(self._hashes) > room:
            self._hashes.popitem(last=False)

    def take(self, key: str) -> bool:
        """Tell whether a key is remembered, and forget it."""
        known = hash(key) in self._hashes
        if known:
            del self._hashes[hash(key)]
        return known

    def clear(self) -> None:
        """Forget every key."""
        self._hashes.clear()


class S3Fifo:
    """S3-FIFO over entries that weigh one each, or (`by_size`) their size in bytes.

    `capacity` is the weight at which the store asks for victims; infinity if it never does. Inserting and removing cost
    O(1), choosing a victim O(1) amortised.
    """

    __slots__ = ("_ghosts", "_main", "_main_room", "_small", "_small_room", "_warm")

    def __init__(self, capacity: float, by_size: bool = False) -> None:
        self._small, self._main, self._ghosts = Queue(by_size), Queue(by_size), Ghosts()
        self._small_room = capacity * SMALL_SHARE
        self._main_room = capacity - self._small_room if capacity < float("inf") else capacity
        self._warm = False

    def insert(self, slot: Slot) -> None:
        """Put a new slot into the small queue; into the main queue if its key left lately or nobody had to leave."""
        filling = not self._warm and self._small.weight >= self._small_room
        queue = self._main if self._ghosts.take(slot.key) or filling else self._small
        queue.append(slot)

    def replace(self, old: Slot, new: Slot) -> None:
        """Let `new` have the place and the reads of `old`."""
        new.freq = old.freq
        queue = self._small if old.key in self._small else self._main
        queue.replace(old, new)

    def remove(self, slot: Slot) -> None:
        """Forget a slot that left by other means; its key is not remembered."""
        self._small.remove(slot)
        self._main.remove(slot)

    def victim(self, now: float) -> Slot | None:
        """Choose the slot that leaves, and forget it; None if there is none."""
        self._warm = True
        if self._main.weight <= self._main_room and (slot := self._from_small(now)):
            return slot
        return self._from_main(now)

    def clear(self) -> None:
        """Forget everything, remembered keys too."""
        for part in (self._small, self._main, self._ghosts):
            part.clear()
        self._warm = False

    def _from_small(self, now: float) -> Slot | None:
        while self._small:
            slot = self._small.pop()
            if slot.freq < PROMOTE_AT or slot.expired(now):
                self._remember(slot)
                return slot
            slot.freq = 0
            self._main.append(slot)
        return None

    def _from_main(self, now: float) -> Slot | None:
        for _ in range(MAX_ROUNDS):
            if not self._main:
                return None
            slot = self._main.pop()
            if slot.freq == 0:
                return slot
            if slot.expired(now):
                self._remember(slot)
                return slot
            slot.freq = min(slot.freq, MAX_FREQ) - 1
            self._main.append(slot)
        return self._main.pop()

    def _remember(self, slot: Slot) -> None:
        self._ghosts.add(slot.key, len(self._small) + len(self._main))
