"""The parent's side of `bench.coherence`: processes of one contender that share values, one of which writes."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bench import coherence
from bench.coherence import WorkerError

SOON = 0.05
"""Seconds from telling workers what to do until they begin."""


class Speaker(Protocol):
    """A worker that is told something, and answers."""

    def tell(self, words: str) -> None:
        """Write a line to the worker."""
        ...

    def hear(self) -> dict[str, Any]:
        """Read a line of JSON from the worker."""
        ...


def answers(told: Sequence[tuple[Speaker, str]]) -> list[dict[str, Any]]:
    """Tell each of these workers something; return what they answer when all of them are done."""
    for worker, words in told:
        worker.tell(words)
    said = [worker.hear() for worker, _ in told]
    if errors := [one["error"] for one in said if "error" in one]:
        raise WorkerError(errors[0])
    return said


class Team:
    """One process that writes, and some that read; `asked` tells how often the server was asked for a value."""

    def __init__(self, writer: Speaker, readers: Sequence[Speaker], asked: Callable[[], int]) -> None:
        self._writer = writer
        self._readers = readers
        self._asked = asked

    def check(self) -> None:
        """Raise unless all readers see what is written, and then read it without asking the server."""
        for version in range(1, coherence.FIRST):
            self.versions(version, 1)
        coherence.counting([self.block(0)])

    def versions(self, first: int, count: int, busy: int = 0) -> dict[str, Any]:
        """Have versions written; return how long it took until the first reader, which computes too, saw each."""
        begin = time.monotonic() + SOON
        last, until = first + count - 1, coherence.last_write(begin, count) + coherence.PATIENCE
        watching = [(reader, f"watch {last} {until} {busy}") for reader in self._readers]
        wrote, *saw = answers([(self._writer, f"write {first} {count} {begin}"), *watching])
        first_reader, *_ = [coherence.told(wrote["acknowledged"], one["seen"], first) for one in saw]
        return first_reader

    def block(self, rate: int) -> float | None:
        """Have all readers read for a while, while others write at some rate; return the seconds for each hit.

        None if the block does not count: a peer may ask the server now and then, as coredis does when it was idle, and
        on a machine that is busy otherwise the others may write too little.
        """
        asked, begin = self._asked(), time.monotonic() + SOON
        end = begin + coherence.BLOCK
        reading = [(reader, f"hit {begin} {end}") for reader in self._readers]
        wrote, *read = answers([(self._writer, f"disturb {begin} {end} {rate}"), *reading])
        near = coherence.near(self._asked() - asked, sum(one["hits"] for one in read))
        return coherence.per_hit(read) if near and coherence.disturbed(wrote["writes"], rate) else None
