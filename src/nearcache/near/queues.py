"""What the eviction policy is made of: entries in order of when they may leave, and the keys that left lately."""

from math import frexp, inf
from typing import Any, Final, Generic, Protocol, Self, TypeVar


class Item(Protocol):
    """What is put in order. Readers count `freq` up; all else but `key` and `size` belongs to whoever orders."""

    key: str
    size: int
    reads: int
    due: float
    home: "Queue[Any] | None"
    before: Self | None
    after: Self | None

    @property
    def freq(self) -> int:
        """Reads since its turn came last; those before are `reads`."""
        ...

    @freq.setter
    def freq(self, value: int, /) -> None: ...

    def expired(self, now: float) -> bool:
        """Tell whether nothing in the item is of use any more."""
        ...


T = TypeVar("T", bound=Item)


class Queue(Generic[T]):
    """Items in order of arrival, chained through `before` and `after`; the `home` of each is its queue.

    Every move is a few stores, whatever the length. None of them calls anything, so that no signal handler and no
    finalizer, which might use the cache again, can run while a chain is open. What was taken out refers to no other
    item: it goes as soon as nobody needs it.
    """

    __slots__ = ("first", "last", "place")

    def __init__(self, place: int = 0) -> None:
        self.place: int = place
        """Its number, for whoever has several."""
        self.first: T | None = None
        self.last: T | None = None

    def append(self, item: T) -> None:
        """Add an item at the end."""
        last = self.last
        item.home = self
        item.before = last
        if last is None:
            self.first = item
        else:
            last.after = item
        self.last = item

    def remove(self, item: T) -> None:
        """Take out an item, which has to be here."""
        before, after = item.before, item.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        item.home = item.before = item.after = None

    def replace(self, old: T, new: T) -> None:
        """Put an item in the place of another one."""
        before, after = old.before, old.after
        new.home, new.before, new.after = self, before, after
        if before is None:
            self.first = new
        else:
            before.after = new
        if after is None:
            self.last = new
        else:
            after.before = new
        old.home = old.before = old.after = None

    def clear(self) -> None:
        """Take out everything, one by one: a chain would wait for the garbage collector."""
        while (item := self.first) is not None:
            self.remove(item)


class Ranks(Generic[T]):
    """Items in order of the time they are due, on a clock that runs from victim to victim.

    An item is due its worth after it was added. Worths within a factor of two share a queue, where who came first is
    taken for who is due first; so there are few queues, and the next item is the head of one of them.
    """

    __slots__ = ("_by_worth", "_dues", "_queues", "clock")

    def __init__(self) -> None:
        self.clock: float = 0.0
        self._queues: list[Queue[T]] = [Queue()]
        self._dues: list[float] = [inf]
        """When the head of each queue is due."""
        self._by_worth: dict[int, Queue[T]] = {1: self._queues[0]}

    def add(self, item: T, worth: float) -> None:
        """Put in an item."""
        magnitude = frexp(worth)[1]
        queue = self._by_worth.get(magnitude)
        if queue is None:
            queue = self._by_worth[magnitude] = Queue(len(self._queues))
            self._queues.append(queue)
            self._dues.append(inf)
        item.due = due = self.clock + worth
        queue.append(item)
        if queue.first is item:
            self._dues[queue.place] = due

    def pop(self) -> T | None:
        """Take out the item that is due first; None if there is none."""
        dues = self._dues
        queue = self._queues[dues.index(min(dues))]
        item = queue.first
        if item is not None:
            self.remove(queue, item)
        return item

    def remove(self, queue: Queue[T], item: T) -> None:
        """Take out an item of one of the queues."""
        queue.remove(item)
        head = queue.first
        self._dues[queue.place] = inf if head is None else head.due

    def clear(self) -> None:
        """Take out everything, and begin at 0."""
        for queue in self._queues:
            queue.clear()
        self._dues = [inf] * len(self._queues)
        self.clock = 0.0


GENERATION: Final = 0.75
"""Keys of a generation, as a part of what there is room for."""

NARROW: Final = (1 << 30) - 1
"""Bits of a hash that fit into the smallest of Python's integers."""


class Ghosts:
    """Keys that left lately, by their hash, each with a number: a false match only misjudges one entry.

    They are kept in two generations. When the young one is complete, the old one is forgotten: that takes less than
    half of the memory that their exact order would.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._old: dict[int, int] = {}
        self._young: dict[int, int] = {}

    def add(self, key: str, number: int, room: int) -> None:
        """Remember a key and a number that is not 0, and about `room` keys in all: half of that more or less."""
        young = self._young
        young[hash(key) & NARROW] = number
        if len(young) > room * GENERATION:
            self._old, self._young = young, {}

    def __contains__(self, key: str) -> bool:
        known = hash(key) & NARROW
        return known in self._young or known in self._old

    def take(self, key: str) -> int:
        """Return the number of a key, and forget the key; 0 if it is not remembered."""
        known = hash(key) & NARROW
        return self._young.pop(known, 0) or self._old.pop(known, 0)
