"""Whose turn it is: calls that change the same record again and again cross each other, and so they line up.

A call takes its steps at once. One that was crossed waits for its turn, behind the others of its process; and then for
a moment each time that another process has crossed it. Only how often steps are taken depends on turns: so nobody
waits for one longer than for an answer of the engine, before the next try.
"""

import asyncio
import random
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from nearcache._io.port import Flavour
from nearcache.backends.base import NotServing
from nearcache.backends.registers.names import about

T = TypeVar("T")

LINES: Final = 64
"""Lines to wait in; records of one line wait for each other."""

TRIES: Final = 100
"""How often steps are taken again that others have crossed; each time one of them has got through."""

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.25
"""Seconds to wait at most when another process has crossed the steps: the first time, and after many."""


class Turns(ABC):
    """The lines of one flavour; `patience` is how many seconds somebody waits in one."""

    def __init__(self, patience: float) -> None:
        self._patience = patience

    async def until_done(self, name: str, take: Callable[[bool], Awaitable[T | None]]) -> T:
        """Take steps that change a record, which return None if others have crossed them, until they are done.

        They are told whether this is their first try. Raises `NotServing` if it never comes to an end.
        """
        if (done := await take(True)) is not None:
            return done
        leave = None
        try:
            for times in range(TRIES):
                leave = leave or await self._line_up(hash(name) % LINES)
                if (done := await take(False)) is not None:
                    return done
                longest = min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(times, 16)))
                await self._pause(longest * random.random())  # noqa: S311 -- jitter is no secret
        finally:
            if leave is not None:
                leave()
        raise NotServing("others change it all the time", about(name)).undone()

    @abstractmethod
    def after_fork(self) -> None:
        """Begin with empty lines in a forked child."""

    @abstractmethod
    async def _line_up(self, line: int) -> Callable[[], object] | None:
        """Wait in a line; return what leaves it, None if it did not move up in time."""

    @abstractmethod
    async def _pause(self, seconds: float) -> None:
        """Let so much time pass."""


class BlockingTurns(Turns):
    """Lines of threads; nothing here suspends."""

    def __init__(self, patience: float) -> None:
        super().__init__(patience)
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with empty lines in a forked child."""
        # Re-entrant, because a finalizer or a signal handler that runs inside may use the cache too.
        self._lines = [threading.RLock() for _ in range(LINES)]

    async def _line_up(self, line: int) -> Callable[[], object] | None:
        lock = self._lines[line]
        return lock.release if lock.acquire(timeout=self._patience) else None

    async def _pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 -- driven by a caller that blocks


class AwaitingTurns(Turns):
    """Lines of tasks, for each event loop its own."""

    def __init__(self, patience: float) -> None:
        super().__init__(patience)
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with empty lines in a forked child."""
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Lock]] = (
            weakref.WeakKeyDictionary()
        )

    async def _line_up(self, line: int) -> Callable[[], object] | None:
        loop = asyncio.get_running_loop()
        lines = self._lines.get(loop) or self._lines.setdefault(loop, [asyncio.Lock() for _ in range(LINES)])
        try:
            async with asyncio.timeout(self._patience):
                await lines[line].acquire()
        except TimeoutError:
            return None
        return lines[line].release

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def turns(patience: float) -> Mapping[Flavour, Turns]:
    """Make the lines of both flavours."""
    return {"sync": BlockingTurns(patience), "async": AwaitingTurns(patience)}
