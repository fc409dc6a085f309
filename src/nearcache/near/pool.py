"""Who leaves under one fixed rule; `policy` says why it is so."""

from dataclasses import dataclass
from typing import Final, Generic

from nearcache.near.queues import Ghosts, Queue, Ranks, T

MAX_ROUNDS: Final = 1_000
"""Items kept on for one victim; more would stall the caller while telling hot from hot."""

MAX_READS: Final = 1_000
"""Reads beyond this many make an item worth no more, so that what was hot once does leave."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a pool chooses.

    `share` is the part of the room that new items have to themselves. Those read `reads` times there move on. An item
    that was read `n` times is worth `n ** power`, divided by its size where bytes are limited. A key that comes back
    starts with its past reads, and its past place, if the rule `recalls` them.
    """

    share: float
    reads: int
    power: float
    recalls: bool = True


class Pool(Generic[T]):
    """Items that share `room`, counted one by one or (`by_size`) in bytes."""

    __slots__ = (
        "_by_size",
        "_ghosts",
        "_ranked_room",
        "_ranks",
        "_room",
        "_rule",
        "_small",
        "_small_weight",
        "_warm",
        "count",
        "weight",
    )

    def __init__(self, room: float, by_size: bool, rule: Rule) -> None:
        self.weight: int = 0
        self.count: int = 0
        self._room, self._by_size = room, by_size
        self._small: Queue[T] = Queue()
        self._small_weight = 0
        self._ranks: Ranks[T] = Ranks()
        self._ghosts = Ghosts()
        self._warm = False
        self.follow(rule)

    def follow(self, rule: Rule) -> None:
        """Choose by another rule from now on."""
        self._rule = rule
        self._ranked_room = self._room * (1 - rule.share) if rule.share else self._room

    def full(self, item: T) -> bool:
        """Tell whether an item has no room beside those that are here."""
        return self.weight + (item.size if self._by_size else 1) > self._room

    def insert(self, item: T) -> None:
        """Put in a new item: among the ranks if its key failed the small queue lately, else into the small queue.

        Before the first victim a full small queue passes items on.
        """
        past = self._ghosts.take(item.key)
        if not self._rule.recalls:
            past = 0
        item.reads, item.freq = abs(past) + 1, 0
        weight = item.size if self._by_size else 1
        self.weight += weight
        self.count += 1
        if past > 0 or not self._rule.share or not (self._warm or self._small_weight < self._room - self._ranked_room):
            self._rank(item)
            return
        self._small.append(item)
        self._small_weight += weight

    def replace(self, old: T, new: T) -> None:
        """Let `new` have the place and the reads of `old`."""
        queue = old.home
        if queue is None:
            self.insert(new)
            return
        new.freq, new.reads, new.due = old.freq, old.reads, old.due
        grown = self._weigh(new) - self._weigh(old)
        self.weight += grown
        if queue is self._small:
            self._small_weight += grown
        queue.replace(old, new)

    def remove(self, item: T) -> None:
        """Take out an item, if it is here; its key is not remembered."""
        queue = item.home
        if queue is None:
            return
        if queue is self._small:
            self._pop_small(item)
        else:
            self._ranks.remove(queue, item)
        self.weight -= self._weigh(item)
        self.count -= 1

    def victim(self, now: float) -> T | None:
        """Choose the item that leaves, and take it out; None if there is none."""
        self._warm = True
        rounds = 0
        while True:
            new = self._small.first if self.weight - self._small_weight <= self._ranked_room else None
            item = self._ranks.pop() if new is None else self._pop_small(new)
            if item is None:
                return None
            fresh = item.freq
            rounds += 1
            enough = 1 if new is None else self._rule.reads
            if fresh < enough or rounds > MAX_ROUNDS or item.expired(now):
                break
            item.reads += fresh
            item.freq = 0
            self._rank(item)
        if new is None and item.due > self._ranks.clock:
            self._ranks.clock = item.due
        self.weight -= item.size if self._by_size else 1
        self.count -= 1
        reads = item.reads + fresh
        self._ghosts.add(item.key, -reads if new is None else reads, self.count)
        return item

    def left(self, key: str) -> bool:
        """Tell whether the item of a key was a victim lately, and has not come back."""
        return key in self._ghosts

    def clear(self) -> None:
        """Take out everything, and forget the keys that left."""
        self._small.clear()
        self._ranks.clear()
        self._ghosts = Ghosts()
        self.weight = self.count = self._small_weight = 0
        self._warm = False

    def _pop_small(self, item: T) -> T:
        self._small.remove(item)
        self._small_weight -= item.size if self._by_size else 1
        return item

    def _rank(self, item: T) -> None:
        worth: float = min(MAX_READS, item.reads) ** self._rule.power
        self._ranks.add(item, worth / item.size if self._by_size else worth)

    def _weigh(self, item: T) -> int:
        return item.size if self._by_size else 1
