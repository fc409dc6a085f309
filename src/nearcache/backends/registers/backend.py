"""One namespace of an engine without scripts, over its registers."""

import weakref
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar, cast

from nearcache._core.clock import Clock, EngineTime
from nearcache._core.fork import on_fork
from nearcache._core.limits import KINDS, Kind
from nearcache._io.port import Flavour
from nearcache.backends.base import Backend, Counters, Item, Leases, Marks, in_part
from nearcache.backends.counting import counted, patched
from nearcache.backends.limits import Limits
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Registers, Step, Swap, each_good, good
from nearcache.backends.registers.leases import RegisterLeases
from nearcache.backends.registers.limits import RegisterLimits
from nearcache.backends.registers.marks import RegisterMarks
from nearcache.backends.registers.records import BARE, record_in
from nearcache.backends.registers.sessions import RegisterSessions
from nearcache.backends.registers.stamps import Stamps
from nearcache.backends.registers.turns import Turns, turns
from nearcache.backends.registry import BackendSpec
from nearcache.backends.sessions import Sessions
from nearcache.codecs.envelope import AGES, FILL_ID
from nearcache.errors import BackendError
from nearcache.near.inbox import Inbox
from nearcache.near.view import View


class Common:
    """What the backends of both flavours share."""

    def __init__(self, view: View, patience: float) -> None:
        self.stamps: Stamps = Stamps(view)
        self.inbox: Inbox = Inbox()
        self.turns: Mapping[Flavour, Turns] = turns(patience)
        _all.add(self)

    def after_fork(self) -> None:
        """Make a forked child's copy its own."""
        self.stamps.after_fork()
        self.inbox.after_fork()
        for each in self.turns.values():
            each.after_fork()


def common_of(spec: BackendSpec) -> Common:
    """Return what the backends of both flavours share."""
    return spec.shared(Common, lambda: Common(spec.view, spec.timeout))


class RegisterBackend(Backend):
    """A store of bytes in one namespace; an engine's own class gives it a name."""

    hears: ClassVar[bool] = False
    limit_kinds: ClassVar[tuple[Kind, ...]] = KINDS
    """The kinds of limits that the engine can keep."""

    def __init__(self, registers: Registers, spec: BackendSpec, flavour: Flavour) -> None:
        self._registers = registers
        self._clock: Clock = spec.time.clock
        self._prefix = f"{spec.namespace}:"
        self._enveloped = spec.enveloped
        common = common_of(spec)
        self._stamps = common.stamps
        self.turns: Turns = common.turns[flavour]
        self._asking = False
        self.time: EngineTime = spec.time
        self.view: View = spec.view
        self.inbox: Inbox = common.inbox
        self.leases: Leases = RegisterLeases(self, common.inbox, spec.enveloped)
        self._marks = RegisterMarks(registers, common.stamps, spec.namespace, self._clock, self.turns)
        self.marks: Marks = self._marks
        self.counters: Counters | None = self
        self.sessions: Sessions | None = RegisterSessions(self, registers, spec.namespace)
        self.limits: Limits | None = RegisterLimits(self, self.limit_kinds, registers.longest)

    @property
    def spreads(self) -> bool:
        """Whether there are several nodes, each of which may fail alone."""
        return self._registers.spreads

    def lacks(self) -> bool:
        """Tell whether a node does not answer."""
        return self._registers.lacks()

    async def open(self) -> None:
        """Connect, and learn the engine's time and marks."""
        await self._registers.open()
        await self.ping()

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        await self._registers.close()

    async def ping(self) -> None:
        """Ask the engine for its time, and for the marks."""
        await self.learn_time()
        await self.run(fresh=True)

    async def get(self, key: str) -> bytes | None:
        """Look at one record."""
        (record,) = await self._records((key,))
        if isinstance(record, BackendError):
            raise record
        return record

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Look at records on one trip."""
        if not keys:
            return []
        records = await self._records(keys)
        if errors := [record for record in records if isinstance(record, BackendError)]:
            about = zip(keys, records, strict=True)
            raise in_part(errors, {key: record for key, record in about if not isinstance(record, BackendError)})
        return cast(list[bytes | None], records)

    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Ask how many seconds records will live."""
        if not keys:
            return []
        answers = await self.run(*[Look(self.named(key), life=True) for key in keys])
        lives = [None if record_in(answer.raw) is None else answer.left for answer in answers]
        each_good(keys, answers, lives)
        return lives

    async def set(self, item: Item) -> None:
        """Store one record; whoever had its lease finds another record there than the stub."""
        await self.take(Put(self.named(item.key), self.outward(item.raw), item.ttl), fresh=True)

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store records on one trip."""
        if not items:
            return
        puts = [Put(self.named(item.key), self.outward(item.raw), item.ttl) for item in items]
        answers = await self.run(*puts, fresh=True)
        each_good([item.key for item in items], answers, [None] * len(items))

    async def add(self, item: Item, dead: bytes) -> bool:
        """Store a record where there is none, or only a dead one."""
        name, raw = self.named(item.key), self.outward(item.raw)

        async def take(first: bool) -> bool | None:
            (answer,) = await self.take(Add(name, raw, item.ttl), fresh=first)
            if answer.done:
                return True
            if answer.raw is None:
                return None
            old = record_in(answer.raw)
            if old is not None and (not dead or old[FILL_ID] != dead):
                return False
            return await self._swapped(Swap(name, answer, raw, item.ttl))

        return await self.turns.until_done(name, take)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records, and with them the leases."""
        if not keys:
            return 0
        answers = await self.run(*[Drop(self.named(key)) for key in keys])
        counts = [int(answer.done and (answer.raw or b"")[:1] != BARE) for answer in answers]
        each_good(keys, answers, counts)
        return sum(counts)

    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record a new life; whoever was about to replace it loses the lease."""
        name = self.named(key)

        async def take(_first: bool) -> bool | None:
            (answer,) = await self.take(Look(name))
            raw = record_in(answer.raw)
            if raw is None or (fill_id and raw[FILL_ID] != fill_id):
                return False
            return await self._swapped(Swap(name, answer, patched(raw, AGES, ages), ttl))

        return await self.turns.until_done(name, take)

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        """Add to an integer record; see `Counters`."""
        name, header = self.named(key), self.outward(fresh)

        async def take(first: bool) -> int | None:
            (answer,) = await self.take(Look(name), fresh=first)
            raw = record_in(answer.raw)
            if raw is not None and dead and raw[FILL_ID] == dead:
                raw = None
            total, counter = counted(key, raw, by, header)
            if answer.raw is None:
                step: Step = Add(name, counter, ttl)
            else:
                step = Swap(name, answer, counter, ttl if raw is None else None)
            return total if await self._swapped(step) else None

        return await self.turns.until_done(name, take)

    async def _swapped(self, step: Step) -> bool | None:
        """Take a step; None if others have crossed it."""
        (answer,) = await self.take(step)
        return answer.done or None

    # What leases build on

    def named(self, key: str) -> str:
        """Return the engine's name of a key."""
        return self._prefix + key

    def outward(self, raw: bytes) -> bytes:
        """Return a record as it is stored."""
        return self._stamps.outward(raw) if self._enveloped and raw else raw

    def inward(self, raw: bytes) -> bytes:
        """Return a stored record as this process reads it."""
        return self._stamps.inward(raw) if self._enveloped else raw

    async def _records(self, keys: Sequence[str]) -> list[bytes | BackendError | None]:
        prefix = self._prefix
        names = [prefix + key for key in keys]
        if self._due():
            answers = await self._run_and_learn([Look(name) for name in names])
            return [answer.error or self._read(answer.raw) for answer in answers]
        return [raw if isinstance(raw, BackendError) else self._read(raw) for raw in await self._registers.read(names)]

    def _read(self, raw: bytes | None) -> bytes | None:
        record = record_in(raw)
        return None if record is None else self.inward(record)

    async def take(self, *steps: Step, fresh: bool = False) -> list[Answer]:
        """Do as `run`; raises if a step fails."""
        return good(await self.run(*steps, fresh=fresh))

    def run(self, *steps: Step, fresh: bool = False) -> Coroutine[Any, Any, list[Answer]]:
        """Take steps together; what fails is told in the answers.

        When they are due, the marks of the namespace are asked for on the same trip, always if they have to be `fresh`.
        """
        if (fresh and not self.view.fixed) or self._due():
            return self._run_and_learn(steps)
        return self._registers.run(*steps)

    def _due(self) -> bool:
        time = self.time
        return self.view.due(self._asking) or (time.due() and not (self._asking and time.known))

    async def _run_and_learn(self, steps: Sequence[Step]) -> list[Answer]:
        asks_marks = not self.view.fixed
        self._asking = True
        try:
            if self.time.due():
                await self.learn_time()
            sent, asked = self._clock(), self._stamps.learned
            answers = await self._registers.run(*steps, *([self._marks.news()] if asks_marks else []))
        finally:
            self._asking = False
        if asks_marks:
            try:
                await self._marks.take_in(answers.pop(), sent, asked)
            except BackendError as error:
                error.ambiguous = True  # the steps were taken
                raise
        return answers

    async def learn_time(self) -> None:
        """Ask the engine for its time."""
        sent = self._clock()
        try:
            seconds = await self._registers.time()
        except BackendError as error:
            error.ambiguous = False  # no step was taken yet
            raise
        self.time.observe(sent - self._registers.coarse, self._clock(), seconds)


_all: "weakref.WeakSet[Common]" = weakref.WeakSet()


def _after_fork() -> None:
    for common in list(_all):
        common.after_fork()


on_fork(in_child=_after_fork)
