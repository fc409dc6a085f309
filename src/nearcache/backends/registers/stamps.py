"""Stamps of the engine as stamps of this process, and back.

In the engine a stamp is `first + n`, where `first` names the incarnation of the namespace and is random. In the process
it is `base + n`, where `base` was the newest stamp known when the incarnation was met. So stamps only grow here,
whatever the engine has lost, and what was stored under another incarnation has the stamp 0, which is never valid.
"""

import threading
from collections import deque
from typing import Final, NamedTuple

from nearcache.backends.registers.base import Answer
from nearcache.backends.registers.records import Head
from nearcache.codecs.envelope import EPOCH, SIZE, VERSION
from nearcache.near.view import Origin, View

MOST_PAST: Final = 1_000
"""Incarnations that are remembered as over."""


class Known(NamedTuple):
    """A head, the answer that brought it, and the stamp after which those of its incarnation begin here."""

    answer: Answer
    head: Head
    base: int


class Stamps:
    """What a process knows of a namespace's head, for any number of threads."""

    def __init__(self, view: View) -> None:
        self.view: View = view
        self.known: Known | None = None
        """The newest head that was met."""
        self.learned: int = 0
        """How often something was learned; to be noted before the engine is asked."""
        self._past: deque[int] = deque(maxlen=MOST_PAST)
        self.after_fork()

    # At the door

    def outward(self, raw: bytes) -> bytes:
        """Return a record as it is stored; its epoch is 0 if another incarnation was met since it was sealed."""
        return _patched(raw, 0 if self.known is None else self.view.at_rest(int.from_bytes(raw[EPOCH])))

    def inward(self, raw: bytes) -> bytes:
        """Return a stored record as this process reads it; what is no record of the cache is left as it is."""
        if len(raw) < SIZE or raw[0] != VERSION:
            return raw
        return _patched(raw, self.view.here(int.from_bytes(raw[EPOCH])))

    # Learning

    def went_back(self, head: Head, asked: int) -> bool:
        """Tell whether the engine shows again what it had replaced by what is known here; `asked` is what was
        `learned` when it was asked.
        """
        with self._lock:
            known = self.known
            if known is None or asked != self.learned:
                return False
            if head.first == known.head.first:
                return head.last < known.head.last
            return head.first in self._past

    def learn(self, answer: Answer, head: Head, sent: float, asked: int) -> Known | None:
        """Take in the head that was asked for at `sent`.

        None if nobody can tell whether it is older than what was learned since: then it has to be asked for again.
        """
        with self._lock:
            known = self.known
            if known is not None and answer is known.answer:
                self.view.confirm(sent)
                return known
            if known is not None and head.first == known.head.first:
                return self._go_on(known, Known(answer, head, known.base), sent)
            if asked != self.learned:
                return None
            return self._begin(Known(answer, head, self.view.last), sent)

    def _go_on(self, known: Known, met: Known, sent: float) -> Known:
        head, base, view = met.head, met.base, self.view
        marks = {tag: base + stamp for tag, stamp in head.log.items()}
        if base + head.above > view.last:
            view.restart(sent, marks, base + 1, 0)
        else:
            view.learn(sent, {tag: stamp for tag, stamp in marks.items() if stamp > view.last}, base + 1)
        if (head.last, head.above) >= (known.head.last, known.head.above):
            self.known = met
            self.learned += 1
        return met

    def _begin(self, met: Known, sent: float) -> Known:
        head, base, view = met.head, met.base, self.view
        marks = {tag: base + stamp for tag, stamp in head.log.items()}
        take_in = view.restart if head.above > 1 else view.learn
        take_in(sent, marks, base + 1, 0)
        if self.known is not None:
            self._past.append(self.known.head.first)
        view.origin = Origin(head.first, base)  # last: meanwhile a value of either incarnation is invalid
        self.known = met
        self.learned += 1
        return met

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._lock = threading.RLock()


def _patched(raw: bytes, epoch: int) -> bytes:
    return raw[: EPOCH.start] + epoch.to_bytes(8) + raw[EPOCH.stop :]
