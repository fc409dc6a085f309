"""A thread that reads what is announced in the ring of a namespace, so that near values can be served without asking.

Every third of the staleness it asks where the ring ends, reads up to there, and asks for the marks of the namespace:
the answers prove that whatever was acknowledged before was heard. With each question the entry that was read last is
read again. If another one is there, entries were lost or overwritten, and everything near is forgotten.
"""

import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, NamedTuple

from nearcache._core.weak import weakly
from nearcache._io.blocking import drive
from nearcache.backends.base import NotServing
from nearcache.backends.hazelcast.blocking import BlockingMaps, Later
from nearcache.backends.hazelcast.feed import MARKS, Entry, Feed
from nearcache.backends.hazelcast.maps import Call
from nearcache.backends.listening import Life, Listening
from nearcache.backends.registers.names import about
from nearcache.backends.registry import BackendSpec
from nearcache.errors import BackendError
from nearcache.near.announced import Announced

BEATS: Final = 3
"""Proofs within the staleness."""

SHORTEST_BEAT: Final = 0.01
"""Seconds between two proofs at least."""

AT_ONCE: Final = 900
"""Entries that are read with one call; members refuse a thousand."""


class Speaker(NamedTuple):
    """What speaks to the members over a client that blocks: it repeats the invalidations that they have not
    acknowledged, and asks for the marks.
    """

    settle: Callable[[], Coroutine[Any, Any, None]]
    ask: Callable[[], Coroutine[Any, Any, Any]]


class HazelcastListener(Listening):
    """Hears what others change; the same for both flavours."""

    def __init__(
        self, maps: BlockingMaps, feed: Feed, spec: BackendSpec, speaker: Callable[[BlockingMaps], Speaker]
    ) -> None:
        super().__init__(spec.coherence)
        self._maps = maps
        self._feed = feed
        self._clock = spec.time.clock
        self._timeout = spec.timeout
        self._speaker = speaker
        self._announced = Announced(spec.coherence, spec.time.clock, _ignore)
        feed.sample = self._announced.sample
        spec.coherence.seek = weakly(self.start)

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        super().after_fork()
        self._announced.reset()
        self._feed.rename()

    # In the thread

    def _listen(self, life: Life) -> None:
        maps, sent = self._maps.lent(life.ended.is_set), self._clock()
        speaker = self._speaker(maps)
        reading = _Reading(_Ring(maps, self._feed.ring, self._timeout), self._feed, self._announced)
        reading.begin()
        life.heard = True
        self._begun(life, sent)
        try:
            while not life.ended.is_set():
                due = time.monotonic() + max(SHORTEST_BEAT, self._coherence.budget / BEATS)
                self._prove(life, reading, speaker)
                self._await_news(life, reading, due)
        finally:
            self._lost(life)

    def _prove(self, life: Life, reading: "_Reading", speaker: Speaker) -> None:
        self._announced.marked, sent = False, self._clock()
        try:
            drive(speaker.ask())
        except BackendError as error:
            self._coherence.doubt(f"the engine does not tell the marks of tags: {error}")
            return
        with suppress(BackendError):  # which the cache has told of already
            drive(speaker.settle())  # not before: it takes for granted that the members answer
        reading.catch_up()
        if life.session is not None:
            self._coherence.prove(life.session, sent)
            self._announced.proven(sent)

    def _await_news(self, life: Life, reading: "_Reading", due: float) -> None:
        """Read what is announced until that time, or until marks are."""
        news = threading.Event()
        life.wake = news.set
        while not (life.ended.is_set() or self._announced.marked) and (left := due - time.monotonic()) > 0:
            reading.following().tell(news.set)
            news.wait(left)
            news.clear()
            reading.take_news()

    def _stopped(self) -> None:
        """There is nothing else to hang up."""


class _Ring:
    """The ring, for a thread that waits for its answers."""

    def __init__(self, maps: BlockingMaps, name: str, timeout: float) -> None:
        self.name: str = name
        self._maps = maps
        self._timeout = timeout

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what a method returns; raises `BackendError`."""
        (result,) = drive(self._maps.call([self._call(method, *arguments)], time.monotonic() + self._timeout))
        if isinstance(result, BackendError):
            raise result
        return result

    def later(self, method: str, *arguments: Any) -> Later:
        """Call a method that may take as long as it likes."""
        return self._maps.later(self._call(method, *arguments), time.monotonic() + self._timeout)

    def _call(self, method: str, *arguments: Any) -> Call:
        return Call(self.name, method, self.name, arguments)


class _Reading:
    """Up to where the ring was read, and what stands there."""

    def __init__(self, ring: _Ring, feed: Feed, announced: Announced) -> None:
        self._ring = ring
        self._feed = feed
        self._announced = announced
        self._at = _Mark(-1, None)
        self._asked = self._at
        self._at_once = AT_ONCE
        self._awaited: Later | None = None
        """The next entries."""

    def begin(self) -> None:
        """Go to the end of the ring. An empty one is begun, or nobody would notice if it were emptied."""
        self._at_once = min(AT_ONCE, self._ring.call("capacity"))
        end = self._ring.call("tail_sequence")
        if end < 0:
            first = self._feed.tell(())
            end = self._ring.call(first.method, *first.arguments)
        found = self._ring.call("read_many", end, 0, 1)
        if not found.size or found.get_sequence(0) != end:
            raise NotServing(
                "the ring of changes is overwritten, or lost, as soon as it is read", about(self._ring.name)
            )
        self._at = _Mark(end, found[0])

    def catch_up(self) -> None:
        """Read what was announced before now."""
        end = self._ring.call("tail_sequence")
        while self._take(self._ring.call("read_many", self._at.sequence, 0, self._at_once), self._at):
            if self._at.sequence >= end:
                return

    def following(self) -> Later:
        """Return what ends when there is a next entry."""
        if self._awaited is None:
            self._asked = self._at
            self._awaited = self._ring.later("read_many", self._at.sequence, 2, self._at_once)
        return self._awaited

    def take_news(self) -> None:
        """Take in the next entries, if they are there."""
        if self._awaited is not None and self._awaited.done:
            awaited, self._awaited = self._awaited, None
            self._take(awaited.result(), self._asked)

    def _take(self, found: Any, known: "_Mark") -> bool:
        """Take in entries that follow the one that is known; False if they do not, or if it is not there any more."""
        if not found.size or _Mark(found.get_sequence(0), found[0]) != known:
            self.begin()
            self._announced.changed_all()  # last: whatever was announced before the new beginning
            return False
        for at in range(self._at.sequence + 1 - known.sequence, found.size):
            self._at = _Mark(found.get_sequence(at), found[at])
            self._hear(self._feed.read(found[at]))
        return True

    def _hear(self, entry: Entry | None) -> None:
        if entry is None:
            self._announced.changed_all()
        elif entry.own:
            self._announced.heard(entry.keys)
        else:
            self._announced.marked = self._announced.marked or MARKS in entry.keys
            self._announced.changed([key for key in entry.keys if key != MARKS])


class _Mark(NamedTuple):
    """A place in the ring, and the entry that is there, which is like no other."""

    sequence: int
    entry: object


def _ignore() -> None:
    pass
