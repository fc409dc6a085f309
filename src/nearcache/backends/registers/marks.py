"""Marks in an engine without scripts: one head record per namespace, and buckets of what it has forgotten.

The head `app~m` is only ever added, swapped, or replaced by one of another incarnation. So the marks of one incarnation
are in one order, and a mark of several tags is one step. A mark that leaves the head's log has been written to its
bucket (`app~m:17`) before. A bucket that is absent is opened in three steps: a stub is added, the head is read, and the
stub is swapped for a bucket whose floor is the head's newest stamp. No mark can have left the head between the last two
without the stub having been replaced, so none is missing above the floor.
"""

import functools
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from nearcache._core.clock import Clock
from nearcache.backends.base import GONE, NotServing
from nearcache.backends.registers.base import Add, Answer, Look, Put, Registers, Step, Swap, good
from nearcache.backends.registers.names import about
from nearcache.backends.registers.records import (
    Bucket,
    Head,
    bucket_in,
    bucket_of,
    head_in,
    new_head,
    opened,
    packed,
)
from nearcache.backends.registers.stamps import Known, Stamps
from nearcache.backends.registers.turns import Turns
from nearcache.errors import BackendError

SOFT: Final = 4_096
"""Bytes of a head beyond which every `TRIM_EVERY`th mark moves its older half to buckets, after it was acknowledged."""
TRIM_EVERY: Final = 8
HARD: Final = 16_384
"""Bytes of a head beyond which its older half has to be moved first."""
SHARE: Final = 2_048
"""Bytes of the tags that one step marks."""

TRIES: Final = 100
"""How often a step is taken again that others have crossed; each time one of them has got through."""


def head_of(namespace: str) -> str:
    """Return the name of a namespace's head."""
    return f"{namespace}~m"


class RegisterMarks:
    """The port of marks."""

    def __init__(self, registers: Registers, stamps: Stamps, namespace: str, clock: Clock, turns: Turns) -> None:
        self._registers = registers
        self._stamps = stamps
        self._clock = clock
        self._turns = turns
        self.name: str = head_of(namespace)

    async def mark(self, tags: Sequence[str], everything: bool) -> None:
        """Mark tags, or begin another incarnation, which makes everything before it invalid."""
        if everything:
            await self._clear()
            return
        for share in _shares(tags):
            await self._turns.until_done(self.name, functools.partial(self._mark, share))

    async def restore(self) -> None:
        """Learn what there is: whatever was lost is invalid, so that nothing has to be given back."""
        await self.refresh()

    async def ask(self, tags: Sequence[str]) -> None:
        """Let the view learn about single tags: from the head's log, and of others from their buckets.

        A bucket that cannot be had counts as marked now.
        """
        view, stamps = self._stamps.view, self._stamps
        known_from, known = view.known_from, stamps.known or await self.refresh()
        answers = {tag: known.base + known.head.log.get(tag, 0) for tag in tags}
        if known.head.above > 1:
            forgotten = [tag for tag in tags if tag not in known.head.log]
            buckets = await self._buckets(list(dict.fromkeys(map(bucket_of, forgotten))), known.head.first)
            for tag in forgotten:
                found = buckets.get(bucket_of(tag))
                answers[tag] = view.last if found is None else known.base + found[1].stamp(tag)
        view.answer(answers, 0, known_from)

    # The head

    def news(self) -> Step:
        """Return the step that asks for the head."""
        known = self._stamps.known
        return Look(self.name, None if known is None else known.answer)

    async def refresh(self) -> Known:
        """Learn from the head as it is now, and return it."""
        for _ in range(TRIES):
            sent, asked = self._clock(), self._stamps.learned
            (answer,) = await self._take(self.news())
            if held := await self._taken_in(answer, sent, asked):
                return held
        raise NotServing("it changes all the time", about(self.name))

    async def take_in(self, answer: Answer, sent: float, asked: int) -> None:
        """Learn from the answer to `news`, which was asked for at `sent`, when so much was `learned`."""
        good([answer])
        if await self._taken_in(answer, sent, asked) is None:
            await self.refresh()

    async def _taken_in(self, answer: Answer, sent: float, asked: int) -> Known | None:
        """Learn from an answer, and return the head; None if it has to be asked for again."""
        stamps = self._stamps
        if answer.raw is None:
            await self._take(Add(self.name, packed(new_head()), math.inf))
            return None
        known = stamps.known
        head = known.head if known is not None and known.answer is answer else head_in(answer.raw)
        if head is None or stamps.went_back(head, asked):
            await self._take(Swap(self.name, answer, packed(new_head()), math.inf))
            return None
        return stamps.learn(answer, head, sent, asked)

    async def _clear(self) -> None:
        head = new_head()
        raw = packed(head)
        await self._write(Put(self.name, raw, math.inf), raw, head)

    async def _write(self, step: Put | Swap, raw: bytes, head: Head) -> bool:
        """Store a head, and learn it; False if another one has been stored meanwhile."""
        sent, asked = self._clock(), self._stamps.learned
        (answer,) = await self._take(step)
        if answer.done and self._stamps.learn(Answer(True, raw, answer.number), head, sent, asked) is None:
            await self.refresh()
        return answer.done

    async def _mark(self, tags: Sequence[str], first: bool) -> bool | None:
        """Try to mark tags; None if others have crossed it, or room has been made for them, which is left to turns."""
        held = await self.refresh()
        head = held.head.marked(tags)
        raw = packed(head)
        if len(raw) > HARD and len(held.head.log) > 1:
            return None if first or await self._made_room(held) else True
        if not await self._write(Swap(self.name, held.answer, raw, math.inf), raw, head):
            return None
        if len(raw) > SOFT and head.last % TRIM_EVERY == 0:
            with suppress(BackendError):
                await self._trim(await self.refresh())
        return True

    async def _made_room(self, held: Known) -> bool:
        """Make room in the head; if a bucket cannot be had, everything is marked instead, and this is False."""
        try:
            await self._trim(held)
        except GONE:
            await self._clear()
            return False
        return True

    async def _trim(self, held: Known) -> None:
        """Move the older half of a head's log to buckets, unless others have changed it."""
        head, moved = held.head.halved()
        if moved and await self._spilled(moved, head.first):
            raw = packed(head)
            await self._write(Swap(self.name, held.answer, raw, math.inf), raw, head)

    # Buckets

    async def _spilled(self, moved: Mapping[str, int], first: int) -> bool:
        """Write marks to their buckets; False if they could not be had under this incarnation."""
        waiting = dict[int, dict[str, int]]()
        for tag, stamp in moved.items():
            waiting.setdefault(bucket_of(tag), {})[tag] = stamp
        for _ in range(TRIES):
            found = await self._buckets(list(waiting), first)
            known = self._stamps.known
            if known is not None and known.head.first != first:
                return False
            swaps = dict[int, Swap]()
            for number, (answer, bucket) in found.items():
                if (merged := bucket.merged(waiting[number])) == bucket:
                    del waiting[number]
                else:
                    swaps[number] = Swap(self._named(number), answer, packed(merged), math.inf)
            for number, answer in zip(swaps, await self._take(*swaps.values()), strict=True):
                if answer.done:
                    del waiting[number]
            if not waiting:
                return True
        raise NotServing("the engine does not keep older marks", about(self.name))

    async def _buckets(self, numbers: Sequence[int], first: int) -> dict[int, tuple[Answer, Bucket]]:
        """Return the buckets of an incarnation, as far as they are there, or could be opened."""
        found = dict[int, tuple[Answer, Bucket]]()
        answers = await self._take(*[Look(self._named(number)) for number in numbers])
        for number, answer in zip(numbers, answers, strict=True):
            if bucket := _of(answer, first):
                found[number] = (answer, bucket)
        absent = [number for number in numbers if number not in found]
        return found | await self._opened(absent, first) if absent else found

    async def _opened(self, numbers: Sequence[int], first: int) -> dict[int, tuple[Answer, Bucket]]:
        """Open buckets, and return those that are open then."""
        found = dict[int, tuple[Answer, Bucket]]()
        adds = [Add(self._named(number), _placeholder(), math.inf) for number in numbers]
        seen = dict(zip(numbers, await self._take(*adds), strict=True))
        held = await self.refresh()  # only now: whatever has left the head by now is below its newest stamp
        if held.head.first != first:
            return found
        swaps = dict[int, tuple[Bucket, Swap]]()
        for number, answer in seen.items():
            if bucket := _of(answer, first):
                found[number] = (answer, bucket)
            elif answer.raw is not None:
                bucket = opened(first, held.head.last)
                swaps[number] = (bucket, Swap(self._named(number), answer, packed(bucket), math.inf))
        answers = await self._take(*[swap for _, swap in swaps.values()])
        for (number, (bucket, _)), answer in zip(swaps.items(), answers, strict=True):
            if answer.done:
                found[number] = (answer, bucket)
        return found

    async def _take(self, *steps: Step) -> list[Answer]:
        return good(await self._registers.run(*steps))

    def _named(self, number: int) -> str:
        return f"{self.name}:{number}"


def _of(answer: Answer, first: int) -> Bucket | None:
    """Return the bucket of an incarnation that an answer brought."""
    bucket = None if answer.raw is None else bucket_in(answer.raw)
    return bucket if bucket is not None and bucket.first == first else None


def _placeholder() -> bytes:
    """Return what holds the place of a bucket that is being opened; never the same twice."""
    return b"\xc0" + os.urandom(8)


def _shares(tags: Sequence[str]) -> Iterator[list[str]]:
    """Split tags into lists that fit into a head."""
    sizes = itertools.accumulate(len(tag.encode()) + 10 for tag in tags)
    for _, share in itertools.groupby(zip(tags, sizes, strict=True), key=lambda each: each[1] // SHARE):
        yield [tag for tag, _ in share]
