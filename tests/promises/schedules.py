"""Every order in which the steps of several readers and writers can be taken, one after the other.

An actor is a coroutine with a cache of its own, as a process would have. Before each operation of its backend, and
where it reads or writes the source, it stops until it is its turn. A schedule says whose turn it is; when the choices
that it was given are used up it goes on with the first actor that can, and notes how many there were. So all schedules
are found by running again and again, each time with the last choice that can be changed.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from nearcache import AsyncCache, Cache
from nearcache._io.aio import AsyncIo
from nearcache.backends.registers.turns import AwaitingTurns
from nearcache.near.inbox import Mail
from nearcache.testing import Faults, FaultyBackend
from tests.promises.helpers import PATIENCE, broken

TURNS = 8
"""Turns of the loop after which an actor that has not come to its next step waits for somebody else."""

BURSTS = (1, 2, 3, 5, 8, 100)

Step = Callable[[], Awaitable[Any]]
_actor: ContextVar["Actor"] = ContextVar("actor")


class Actor:
    """One coroutine under the control of a schedule."""

    def __init__(self, schedule: "Schedule", name: str, work: Step) -> None:
        self.schedule = schedule
        self.name = name
        self.work = work
        self.turn: asyncio.Future[None] | None = None
        self.waits_since: int | None = None
        self.task: asyncio.Task[Any] | None = None

    async def run(self) -> Any:
        """Begin when it is its turn."""
        _actor.set(self)
        await self.step("begin")
        return await self.work()

    async def step(self, what: str) -> None:
        """Stop until it is this actor's turn."""
        self.turn = asyncio.get_running_loop().create_future()
        await self.turn
        self.turn = None
        self.schedule.trace.append(f"{self.name}:{what}")

    async def operation(self, what: str, call: Step) -> Any:
        """Take one step of the engine."""
        await self.step(what)
        self.schedule.busy += 1
        try:
            return await call()
        finally:
            self.schedule.busy -= 1
            self.schedule.changes += what in ("fill", "release", "commit", "delete", "set", "evict")

    async def wait(self, mail: Mail) -> None:
        """Wait for somebody else's lease: until a lease may have ended, or nobody else can go on."""
        self.waits_since = self.schedule.changes
        await self.step("wait")
        self.waits_since = None


class Schedule:
    """One run of some actors; `choices` says who goes on at each step, by place among those who can."""

    def __init__(self, choices: list[int]) -> None:
        self.choices = choices
        self.widths: list[int] = []
        self.trace: list[str] = []
        self.actors: list[Actor] = []
        self.busy = 0
        self.changes = 0

    def add(self, name: str, work: Step) -> None:
        """Add an actor."""
        self.actors.append(Actor(self, name, work))

    @property
    def now(self) -> int:
        """How many steps were taken."""
        return len(self.trace)

    async def run(self) -> list[Any]:
        """Run all to their end, and return what they returned."""
        for actor in self.actors:
            actor.task = asyncio.ensure_future(actor.run())
        tasks = [actor.task for actor in self.actors if actor.task is not None]
        try:
            while True:
                await self._settle()
                ready = self._ready()
                if not ready:
                    break
                chosen = self._choose(ready)
                self.widths.append(len(ready))
                turn = ready[chosen % len(ready)].turn
                assert turn is not None
                turn.set_result(None)
            return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE))
        finally:
            for task in tasks:
                task.cancel()

    def _choose(self, ready: list[Actor]) -> int:
        place = len(self.widths)
        return self.choices[place] if place < len(self.choices) else 0

    async def _settle(self) -> None:
        quiet = 0
        while quiet < TURNS:
            await asyncio.sleep(0)
            quiet = 0 if self.busy else quiet + 1

    def _ready(self) -> list[Actor]:
        """Return who can go on: who waits for a lease only if one may have ended, or if nobody else can."""
        stopped = [actor for actor in self.actors if actor.turn is not None and not actor.turn.done()]
        ready = [actor for actor in stopped if actor.waits_since is None or actor.waits_since < self.changes]
        return ready or stopped

    def following(self) -> list[int] | None:
        """Return the choices of the next schedule, None if this was the last."""
        taken = [*self.choices, *[0] * len(self.widths)][: len(self.widths)]
        for place in reversed(range(len(taken))):
            if taken[place] + 1 < self.widths[place]:
                return [*taken[:place], taken[place] + 1]
        return None


class Lucky(Schedule):
    """A run in which an actor that is chosen by luck takes some steps, also chosen by luck, before the next one is:
    what needs one to be much slower than the others is hardly ever found when each step is somebody else's.
    """

    def __init__(self, luck: random.Random) -> None:
        super().__init__([])
        self._luck = luck
        self._name = ""
        self._left = 0

    def _choose(self, ready: list[Actor]) -> int:
        names = [actor.name for actor in ready]
        if not self._left or self._name not in names:
            self._name, self._left = self._luck.choice(names), self._luck.choice(BURSTS)
        self._left -= 1
        return names.index(self._name)


class _Steps(Faults):
    """Makes a step of each operation."""

    async def around(self, operation: str, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        actor = _actor.get(None)
        if actor is None or operation in ("ping", "open"):
            return await call(*args, **kwargs)
        return await actor.operation(operation, lambda: call(*args, **kwargs))


@contextmanager
def stepwise(*caches: AsyncCache | Cache) -> Iterator[None]:
    """Make a step of each operation of these caches' engines, and of each wait for a lease."""
    with ExitStack() as stack:
        for engine in (cache._engine for cache in caches):
            stack.enter_context(engine.replaced(FaultyBackend(engine.backend, _Steps())))
        stack.enter_context(waits())
        yield


@contextmanager
def waits() -> Iterator[None]:
    """Make a step of each wait for a lease, and of each for others that have crossed a call."""
    real = AsyncIo.wait

    async def wait(io: AsyncIo, event: Any, until: Callable[[], float]) -> bool:
        actor = _actor.get(None)
        if actor is None or not isinstance(event, Mail):
            return await real(io, event, until)
        await actor.wait(event)
        return True

    async def let_pass(_turns: AwaitingTurns, _seconds: float) -> None:
        await pause("look")

    with broken(AsyncIo, "wait", wait), broken(AwaitingTurns, "_pause", let_pass):
        yield


async def pause(what: str) -> None:
    """Make a step of a step of the engine; what is no look may end a lease."""
    actor = _actor.get(None)
    if actor is not None:
        await actor.step(what)
        actor.schedule.changes += what != "look"


async def here(what: str) -> None:
    """Make a step of what the running actor does beside the cache."""
    await _actor.get().step(what)


def now() -> int:
    """Return how many steps were taken before."""
    return _actor.get().schedule.now


async def evict(call: Step) -> None:
    """Make a step of something that changes the engine behind everybody's back."""
    await _actor.get().operation("evict", call)
