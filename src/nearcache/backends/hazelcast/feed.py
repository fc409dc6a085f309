"""Changes announced in a ring, by whoever makes them, after the members have acknowledged them.

An entry is the name of who has made changes, a number that makes it another than all others, and the keys. Changes of
values are announced, and of the marks of the namespace; not that somebody loads.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from nearcache.backends.hazelcast.maps import Call
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Step, Swap
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registers.records import BARE, CARRIES

MARKS: Final = ""
"""Stands for the marks of the namespace among the keys."""


class Entry(NamedTuple):
    """What an entry says."""

    own: bool
    """Whether the one who reads it has made the changes."""
    keys: Sequence[str]


class Feed:
    """Makes entries, and reads them."""

    def __init__(self, namespace: str) -> None:
        self.ring: str = ring_of(namespace)
        self._prefix = f"{namespace}:"
        self._head = head_of(namespace)
        self.sample: Callable[[str], None] = _ignore
        """Called with a key whose change is about to be announced."""
        self.rename()

    def rename(self) -> None:
        """Take another name, so that what was said under the old one is somebody else's."""
        self._name = os.urandom(8).hex()
        self._numbers = itertools.count()

    def key(self, step: Step, answer: Answer) -> str | None:
        """Return the key whose value a step has changed, or may have; None if it has changed none."""
        if answer.error is not None or not _changes(step, answer):
            return None
        if step.name.startswith(self._prefix):
            return step.name.removeprefix(self._prefix)
        return MARKS if step.name == self._head else None

    def tell(self, keys: Iterable[str]) -> Call:
        """Return the call that announces changes of these keys."""
        told = list(dict.fromkeys(keys))
        for key in told[:1]:
            self.sample(key)
        entry = " ".join((self._name, str(next(self._numbers)), *told))
        return Call(self.ring, "add", self.ring, (bytearray(entry.encode()),))

    def read(self, item: object) -> Entry | None:
        """Return what an entry says; None if it is none that this library has made."""
        if not isinstance(item, bytearray):
            return None
        try:
            name, _, *keys = item.decode().split(" ")
        except ValueError:
            return None
        return Entry(name == self._name, keys)


def ring_of(namespace: str) -> str:
    """Return the name of a namespace's ring."""
    return f"{namespace}~b"


def _ignore(_key: str) -> None:
    pass


def _changes(step: Step, answer: Answer) -> bool:
    match step:
        case Look():
            return False
        case Put() | Drop(seen=None):
            return True
        case Add(raw=raw) | Swap(raw=raw):
            return answer.done and raw[:1] not in (BARE, CARRIES)
        case Drop(seen=seen):
            return answer.done and (seen is None or seen.number[:1] != BARE)
