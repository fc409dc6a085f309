"""Single records of a Hazelcast map, as the port of registers wants them.

A record is swapped only if its bytes are those that were read. Members count lives in whole seconds from the second in
which they begin, and forget the life of a record that is swapped, so that it is told them again. Should this process
die in between, the record lives as long as the map lets it; the header's own ages count all the same.
"""

import math
import time
import uuid
from collections.abc import Generator, Sequence
from typing import Any, Final

import msgspec

from nearcache.backends.base import NotServing
from nearcache.backends.hazelcast.feed import Feed
from nearcache.backends.hazelcast.library import FOREIGN
from nearcache.backends.hazelcast.maps import Call, Maps
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Step, Swap
from nearcache.backends.registers.locks import locks_of
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registers.names import about
from nearcache.backends.registers.sessions import sessions_in
from nearcache.errors import BackendError

COARSE: Final = 1.0
"""Seconds that a member's clock may be ahead of what it tells."""

FOR_EVER: Final = 1 << 62
"""Milliseconds since 1970 from which on a record is one that never expires."""

CLOCK_LIFE: Final = 3_600
"""Seconds that the record lives by which the time is told."""

Steps = Generator[Sequence[Call], Sequence[Any], Answer]
"""What one step of the port needs: calls that go together, again and again until the answer is there."""


class HazelcastRegisters:
    """The port, over four maps: the marks of the namespace, its locks, its sessions, and everything else."""

    coarse: float = COARSE
    longest: float = math.inf
    spreads: bool = False

    def __init__(self, maps: Maps, namespace: str, enveloped: bool, timeout: float, feed: Feed) -> None:
        self._maps = maps
        self._records = namespace
        self._marks = head_of(namespace)
        self._apart = (locks_of(namespace), sessions_in(namespace))
        self._clock = f"{namespace}~t"
        self._enveloped = enveloped
        self._timeout = timeout
        self._seconds = Seconds()
        self._feed = feed

    async def run(self, *steps: Step) -> list[Answer]:
        """Take steps together: one trip, two where a record is swapped, three if its life is to be kept; and one to
        announce what was changed.
        """
        async with self._maps.turn():
            return await self._run(steps)

    async def _run(self, steps: Sequence[Step]) -> list[Answer]:
        until = time.monotonic() + self._timeout
        answers = dict[int, Answer]()
        works = [self._taken(step) for step in steps]
        asked = {at: next(work) for at, work in enumerate(works)}
        while asked:
            results = iter(await self._maps.call([call for calls in asked.values() for call in calls], until))
            following = dict[int, Sequence[Call]]()
            for at, calls in asked.items():
                try:
                    following[at] = works[at].send([next(results) for _ in calls])
                except StopIteration as stop:
                    answers[at] = stop.value
                except BackendError as error:
                    answers[at] = Answer(False, error=error)
            asked = following
        return await self._announced(steps, [answers[at] for at in range(len(steps))], until)

    async def _announced(self, steps: Sequence[Step], answers: list[Answer], until: float) -> list[Answer]:
        """Announce what was changed, and return the answers; what others have not been told of has failed."""
        told = zip(steps, answers, strict=True)
        keys = {at: key for at, each in enumerate(told) if (key := self._feed.key(*each)) is not None}
        if not keys:
            return answers
        (result,) = await self._maps.call([self._feed.tell(keys.values())], until)
        if isinstance(result, BackendError):
            result.ambiguous = True
            return [Answer(False, error=result) if at in keys else answer for at, answer in enumerate(answers)]
        return answers

    async def read(self, names: Sequence[str]) -> Sequence[bytes | BackendError | None]:
        """Read the bytes of records, one trip to each member."""
        results = await self._maps.call([self._call("get", name) for name in names], time.monotonic() + self._timeout)
        return [result if isinstance(result, BackendError) else _bytes(result) for result in results]

    async def time(self) -> float:
        """Return the time of the member that keeps the record for it."""
        sent = time.monotonic()
        until = sent + self._timeout
        _good(await self._maps.call([self._stored("set", self._clock, b"\0", CLOCK_LIFE)], until))
        kept = time.monotonic()
        (view,) = _good(await self._maps.call([self._call("get_entry_view", self._clock)], until))
        if view is None:
            raise NotServing("the record by which the time is told is lost at once", about(self._clock)).undone()
        return float(self._learned(view, CLOCK_LIFE, sent, kept))

    async def default_life(self) -> float:
        """Return how many seconds a record lives whose life was not told (infinity if for ever)."""
        name, old, new = f"{self._records}:~nearcache-doctor:{uuid.uuid4().hex}", bytearray(b"\0"), bytearray(b"\1")
        calls = (
            self._call("set", name, old, CLOCK_LIFE),
            self._call("replace_if_same", name, old, new),
            self._call("get_entry_view", name),
            self._call("delete", name),
        )
        view = _good(await self._maps.call(calls, time.monotonic() + self._timeout))[2]
        return math.inf if view is None or view.expiration_time > FOR_EVER else view.ttl / 1_000

    async def ring(self) -> tuple[int, int]:
        """Announce that nothing has changed, and read that; return how many entries the ring takes, and how many more.

        Those are all of them unless entries end.
        """
        until, ring, told = time.monotonic() + self._timeout, self._feed.ring, self._feed.tell(())
        (at,) = _good(await self._maps.call([told], until))
        asked = (("read_many", (at, 0, 1)), ("capacity", ()), ("remaining_capacity", ()))
        calls = [Call(ring, method, ring, arguments) for method, arguments in asked]
        found, capacity, left = _good(await self._maps.call(calls, until))
        if not found.size or (found[0],) != told.arguments:
            raise BackendError("what was announced is not what is there", about(ring))
        return capacity, left

    async def open(self) -> None:
        """Connect ahead of the first use."""
        await self._maps.open(time.monotonic() + self._timeout)

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        await self._maps.close()

    def lacks(self) -> bool:
        """Members take over from one another: there is one engine."""
        return False

    # What steps need

    def _taken(self, step: Step) -> Steps:
        match step:
            case Look():
                return self._look(step)
            case Add():
                return self._add(step)
            case Swap():
                return self._swap(step)
            case Put():
                return self._put(step)
            case Drop():
                return self._drop(step)

    def _look(self, step: Look) -> Steps:
        if step.life:
            view: Any = _good((yield [self._call("get_entry_view", step.name)]))[0]
            answer = _seen(view and view.value)
            return msgspec.structs.replace(answer, left=self._left(view.expiration_time)) if answer.done else answer
        (found,) = _good((yield [self._call("get", step.name)]))
        answer = _seen(found)
        return step.known if step.known is not None and answer.done and step.known.raw == answer.raw else answer

    def _add(self, step: Add) -> Steps:
        add = self._stored("put_if_absent", step.name, step.raw, self._lifetime(step.ttl))
        (found,) = _good((yield [add]))
        if found is FOREIGN:  # nobody can use it
            _, found = _good((yield [self._call("delete", step.name), add]))
        if found is None:
            return Answer(True, step.raw, step.raw)
        return msgspec.structs.replace(_seen(found), done=False)

    def _put(self, step: Put) -> Steps:
        _good((yield [self._stored("set", step.name, step.raw, self._lifetime(step.ttl))]))
        return Answer(True, None, step.raw)

    def _drop(self, step: Drop) -> Steps:
        if step.seen is None:
            (found,) = _good((yield [self._call("remove", step.name)]))
            return Answer(found is not None, None if found is FOREIGN or found is None else bytes(found[:1]))
        (done,) = _good((yield [self._call("remove_if_same", step.name, bytearray(step.seen.number))]))
        return Answer(done)

    def _swap(self, step: Swap) -> Steps:
        view = self._call("get_entry_view", step.name)
        swap = self._call("replace_if_same", step.name, bytearray(step.seen.number), bytearray(step.raw))
        *views, done = _good((yield [swap] if step.ttl is not None else [view, swap]))
        if not done:
            return Answer(False)
        try:
            if step.ttl is not None:
                _good((yield [self._call("set_ttl", step.name, self._lifetime(step.ttl))]))
            elif views[0] is not None:
                yield from self._expire(step.name, views[0].expiration_time)
        except BackendError:
            pass  # it is swapped, and that is what was asked for; who knows its ages needs no life
        return Answer(True, None, step.raw)

    def _expire(self, name: str, expires: int) -> Generator[Sequence[Call], Sequence[Any], None]:
        """Have a record expire at that time: tell how long it lives, see what became of that, and tell it better."""
        if expires > FOR_EVER:
            yield [self._call("set_ttl", name, 0)]
            return
        sent, wanted = time.monotonic(), expires // 1_000
        left = max(1, wanted - math.floor(self._seconds.now()))
        _, view = _good((yield [self._call("set_ttl", name, left), self._call("get_entry_view", name)]))
        if view is None or view.ttl != left * 1_000:  # it was seen before that
            return
        if view.expiration_time != expires:
            second = self._learned(view, left, sent, time.monotonic())
            yield [self._call("set_ttl", name, max(1, wanted - second))]

    def _call(self, method: str, name: str, *arguments: Any) -> Call:
        return Call(self._table(name), method, name, (name, *arguments))

    def _table(self, name: str) -> str:
        """Return the map in which a record is."""
        if name.startswith(self._marks) or name == self._clock:
            return self._marks
        return next((table for table in self._apart if name.startswith(table)), self._records)

    def _stored(self, method: str, name: str, raw: bytes, life: int) -> Call:
        return self._call(method, name, bytearray(raw), life)

    # Time

    def _lifetime(self, ttl: float) -> int:
        """Return the whole seconds for which a record is kept; 0 is for ever.

        A record with ages of its own is kept until they are over. One without lives at most as long as was asked for,
        but a second if that is less.
        """
        if ttl == math.inf:
            return 0
        return math.ceil(ttl) + 1 if self._enveloped else max(1, math.floor(ttl))

    def _left(self, expires: int) -> float:
        """Return how many seconds a record will live at least."""
        if expires > FOR_EVER:
            return math.inf
        return max(0.0, expires / 1_000 - self._seconds.latest() - self._enveloped)

    def _learned(self, view: Any, life: int, sent: float, kept: float) -> int:
        """Return the second in which a record got its life, between two local times."""
        second: int = view.expiration_time // 1_000 - life
        self._seconds.observe(second, sent, kept)
        return second


class Seconds:
    """What is known of a clock that only tells whole seconds: by many of them, much less than a second."""

    def __init__(self) -> None:
        guess = time.time() - time.monotonic()  # better than nothing, until something is known
        self._ahead: tuple[float, float] = (guess, guess)

    def observe(self, second: int, sent: float, received: float) -> None:
        """Note that it told this second between two local times."""
        early, late = self._ahead
        narrowed = max(early, second - received), min(late, second + 1 - sent)
        self._ahead = narrowed if narrowed[0] < narrowed[1] else (second - received, second + 1 - sent)

    def now(self) -> float:
        """Return what time it most likely is there."""
        return time.monotonic() + sum(self._ahead) / 2

    def latest(self) -> float:
        """Return what time it may be there at most."""
        return time.monotonic() + self._ahead[1]


def _seen(found: Any) -> Answer:
    raw = _bytes(found)
    return Answer(False) if raw is None else Answer(True, raw, raw)


def _bytes(found: Any) -> bytes | None:
    """Return the bytes of what is there; what is not of this library is nothing."""
    return None if found is None or found is FOREIGN else bytes(found)


def _good(results: Sequence[Any]) -> Sequence[Any]:
    """Return results; raises the first error among them."""
    for result in results:
        if isinstance(result, BackendError):
            raise result
    return results
