"""What an engine without scripts has to give: steps on single records, each of them atomic.

Two kinds of engines can give it. One counts the changes of a record and swaps it only under the number that was read
(Memcached's CAS numbers, which mean something only as long as the server lives: a swap under a number of another life
is refused). The other swaps it only if its bytes are those that were read (Hazelcast). For the second kind no bytes
may ever come back to a record that had them before, so everything that is swapped here holds something random or a
stamp that grows; records without a header are the exception, and the same bytes are the same record there.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from nearcache.backends.base import in_part
from nearcache.errors import BackendError


class Answer(msgspec.Struct, frozen=True):  # seen by the collector of garbage: an error leads back to it
    """What came of a step."""

    done: bool
    """Whether there was a record (Look, Drop), or the step stored what it was to store (Add, Swap, Put)."""
    raw: bytes | None = None
    """The record that is there (Look, Add); of a bare stub that was removed (Drop), at least the first byte."""
    number: Any = None
    """What tells this state of the record from every other, for `Swap` and `Drop`; whoever made the answer reads it."""
    left: float | None = None
    """How many seconds the record will live (infinity if it never expires), where that was asked for."""
    error: BackendError | None = None
    """Why the step failed: its node does not answer, or refuses the record. Then nothing else is told."""


class Look(msgspec.Struct, frozen=True, gc=False):
    """Read a record. If it still is in the state of the answer `known`, that very answer may be returned.

    `life` is whether the seconds are wanted that it will live.
    """

    name: str
    known: Answer | None = None
    life: bool = False


class Add(msgspec.Struct, frozen=True, gc=False):
    """Store a record for `ttl` seconds if there is none, then read what is there. These may be two atomic steps."""

    name: str
    raw: bytes
    ttl: float


class Swap(msgspec.Struct, frozen=True, gc=False):
    """Replace a record that is still in the state of the answer `seen`; a `ttl` of None keeps the life it has.

    Not done if it was changed or lost meanwhile, or if nobody can tell.
    """

    name: str
    seen: Answer
    raw: bytes
    ttl: float | None


class Put(msgspec.Struct, frozen=True, gc=False):
    """Store a record for `ttl` seconds (infinity: for ever), whatever was there."""

    name: str
    raw: bytes
    ttl: float


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Remove a record; with `seen`, only if it is still in that state."""

    name: str
    seen: Answer | None = None


Step = Look | Add | Swap | Put | Drop


class Registers(Protocol):
    """An engine's records, by their names in the engine."""

    coarse: float
    """How many seconds the engine's time may be ahead of what it tells."""
    longest: float
    """How many seconds a record lives at most, unless for ever."""

    @property
    def spreads(self) -> bool:
        """Whether there are several nodes, each of which may fail alone."""
        ...

    async def run(self, *steps: Step) -> list[Answer]:
        """Take steps, on one trip for each node, and return an answer for each; without steps, make no trip.

        The steps on one record are taken in their order. What fails on one node is told in the answers; a
        `BackendError` that is raised is about all of them.
        """
        ...

    async def read(self, names: Sequence[str]) -> Sequence[bytes | BackendError | None]:
        """Do as `run` with looks, one at least, for those who want the bytes only: hits. An error stands for what a
        node that failed keeps.
        """
        ...

    async def time(self) -> float:
        """Return the engine's time in seconds, rounded down by less than `coarse`."""
        ...

    async def open(self) -> None:
        """Connect ahead of the first use."""
        ...

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        ...

    def lacks(self) -> bool:
        """Tell whether a node does not answer."""
        ...


def good(answers: list[Answer]) -> list[Answer]:
    """Return answers; raises the error of the first that failed."""
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    return answers


def each_good(keys: Sequence[str], answers: Sequence[Answer], told: Sequence[Any]) -> None:
    """Raise an error if steps about some of these keys failed, with what was `told` about the others."""
    errors = [answer.error for answer in answers if answer.error is not None]
    if errors:
        about = zip(keys, answers, told, strict=True)
        raise in_part(errors, {key: each for key, answer, each in about if answer.error is None})
