"""Changes announced by whoever makes them: entries of a stream, for engines whose tracking cannot be had.

An entry is appended behind each change, on the same connection, so it comes after the change, and before the change is
acknowledged. Each entry names the one before. Whoever finds another one there has missed something, and forgets
everything. So do those who find that the stream ends before the entry that they read last: it was emptied, or put back.

Entries under this process's own name are passed over: whoever changed the key here has forgotten it after the engine's
answer and before the caller had it. Where the answer was not what it should be, the change may still come, later than
that. So the process takes another name then, and what was said under the old one is a stranger's.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from nearcache.backends.redis.carrier import Call
from nearcache.backends.redis.errors import refused
from nearcache.backends.redis.line import Line
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import bus_of
from nearcache.backends.transport.dialect import Command
from nearcache.errors import BackendUnavailableError
from nearcache.near.announced import Announced

NO_ENTRY: Final = b"0-0"
"""What stands for the newest entry of an empty stream."""

LATE: Final = 0.1
"""Seconds by which an engine may be late to say that nothing came: it looks ten times a second."""

REST: Final = 0.1
"""Seconds after news until more is asked for. What is written meanwhile comes with one answer, so that a listener costs
the engine as much for a thousand changes a second as for ten.
"""


class Bus:
    """Announces and hears changes in the stream of a namespace; a `Carrier`."""

    def __init__(self, namespace: str, announced: Announced) -> None:
        self._announced = announced
        self._stream = bus_of(namespace)
        self._last = NO_ENTRY
        """The entry up to which everything was heard."""
        self._resting = -math.inf
        """Until when nothing more is asked for than each proof needs."""
        self.rename()

    # Announcing, in any thread

    def rename(self) -> None:
        """Take another name, under which changes are announced from now on."""
        self._name = os.urandom(8).hex()

    def tell(self, keys: Iterable[str]) -> Call:
        """Return the call of the script that announces a change of these keys."""
        return "bus", ("1", self._stream, self._name, " ".join(keys))

    # Hearing, in the listener's thread

    def begin(self, line: Line) -> None:
        """Look where the stream ends. An empty one is begun, or nobody would notice if it were emptied."""
        newest, _ = self._good(line.execute(self._newest(), self._after("$")))
        if not newest:
            name, rest = self.tell(("",))
            self._good(line.execute(("EVAL", script(name).text, *rest)))
            (newest,) = self._good(line.execute(self._newest()))
        self._last = _end(newest)

    def questions(self) -> list[Command]:
        """Return the questions where the stream ends, and what has been added."""
        return [self._newest(), self._after(self._last)]

    def learn(self, replies: Sequence[Any]) -> None:
        """Take in the answers."""
        newest, added = self._good(replies)
        if _place(end := _end(newest)) < _place(self._last):
            self._announced.changed_all()
            self._last = end
            if end == NO_ENTRY:  # what is appended and lost before the next look would not be missed
                raise BackendUnavailableError(f"{self._stream}: the stream of changes was emptied")
        else:
            self._take(added)

    def listen(self, line: Line, until: float, enough: Callable[[], bool]) -> None:
        """Wait for entries until the time `until` (monotonic), a little less, or until it is `enough`.

        Where there is no time to let the engine wait, what was added is found by the next questions.
        """
        if until - time.monotonic() <= LATE:
            line.listen(until, enough)
        while not enough() and (left := until - LATE - time.monotonic()) > 0:
            if self._resting > time.monotonic():
                line.listen(min(self._resting, until), enough)
                continue
            block = ("BLOCK", str(math.ceil(left * 1000)))
            (added,) = self._good(line.execute(self._after(self._last, *block)))
            if not added:
                break
            self._take(added)

    def hear(self, names: list[bytes] | None) -> None:
        """Nothing is said of the engine's own accord."""

    def _newest(self) -> Command:
        return ("XREVRANGE", self._stream, "+", "-", "COUNT", "1")

    def _after(self, last: str | bytes, *options: str) -> Command:
        return ("XREAD", *options, "STREAMS", self._stream, last)

    def _take(self, added: Any) -> None:
        if not added:
            return
        last, complete, own, others = self._last, True, list[str](), list[str]()
        for entry, (_, said) in added[self._stream.encode()]:
            name, before, *words = said.decode("utf-8", "replace").split(" ")
            complete, last = complete and before.encode() == last, entry
            (own if name == self._name else others).extend(words)
        if not complete:
            self._announced.changed_all()
        self._announced.heard(own)
        if others:
            self._announced.marked = self._announced.marked or "" in others
            self._announced.changed(others)
        self._last, self._resting = last, time.monotonic() + REST

    def _good(self, replies: Sequence[Any]) -> Sequence[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                raise refused(reply, self._stream) from reply
        return replies


def _end(newest: Sequence[Any]) -> bytes:
    """Return the id of the only entry, if there is one."""
    for entry, _ in newest:
        found: bytes = entry
        return found
    return NO_ENTRY


def _place(entry: bytes) -> tuple[int, int]:
    """Return what orders entries as the engine does: milliseconds, and a number among those of one."""
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)
