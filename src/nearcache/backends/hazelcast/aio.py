"""The awaiting way to a cluster's maps: one client for each event loop."""

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from nearcache._core.fork import on_fork
from nearcache.backends.base import NoConnection
from nearcache.backends.hazelcast.errors import failed, not_in_time
from nearcache.backends.hazelcast.library import PATIENCE, Opened, close_awaiting, open_awaiting
from nearcache.backends.hazelcast.maps import Call, Place
from nearcache.errors import BackendError

AT_ONCE: Final = 50
"""Calls of an event loop that may be under way at the same time."""


class AwaitingMaps:
    """The port, awaiting."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._reset()
        _all.add(self)

    async def call(self, calls: Sequence[Call], until: float) -> list[Any]:
        """Send all, then wait for all; what was not answered in time, or is not waited for any more, is forgotten."""
        try:
            opened = await self._home().opened(until)
        except BackendError as error:
            return [error] * len(calls)
        if len(calls) == 1:
            return [await self._only(opened, calls[0], until)]
        tasks = [asyncio.ensure_future(opened.begin(call)) for call in calls]
        try:
            await asyncio.wait(tasks, timeout=max(0.0, until - time.monotonic()))
            return [self._ended(task, call) for task, call in zip(tasks, calls, strict=True)]
        finally:
            for task in tasks:
                _give_up(task)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for one of few places: the client needs so much of the loop's time that many at once would be late."""
        turns = self._home().turns
        try:
            async with asyncio.timeout(self._place.patience):
                await turns.acquire()
        except TimeoutError:
            raise NoConnection(
                f"{AT_ONCE} calls of this event loop were under way for {self._place.patience:g} s (pool_timeout)"
            ).undone() from None
        try:
            yield
        finally:
            turns.release()

    async def open(self, until: float) -> None:
        """Connect ahead of the first use."""
        await self._home().opened(until)

    async def close(self) -> None:
        """Close the clients of all loops; a later call opens new ones."""
        with self._lock:
            homes = list(self._homes.values())
            self._homes.clear()
        for home in homes:
            await home.close()

    def after_fork(self) -> None:
        """Start empty in a forked child."""
        _abandoned.extend(self._homes.values())
        self._reset()

    def forget(self, home: "_Home") -> None:
        """Let go of the client of a loop that ended."""
        with self._lock:
            if self._homes.get(home.loop) is home:
                del self._homes[home.loop]

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._homes: dict[asyncio.AbstractEventLoop, _Home] = {}

    def _home(self) -> "_Home":
        loop = asyncio.get_running_loop()
        home = self._homes.get(loop)
        if home is None:
            home = _Home(self, self._place)
            with self._lock:
                for closed in [other for other in self._homes if other.is_closed()]:
                    del self._homes[closed]
                self._homes[loop] = home
        return home

    async def _only(self, opened: Opened, call: Call, until: float) -> Any:
        """Do one call, which needs no task of its own; return its error, if it has one."""
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                return await opened.begin(call)
        except Exception as error:  # noqa: BLE001 -- what a member answers has a type of its own
            return failed(error, call, self._place)

    def _ended(self, task: "asyncio.Future[Any]", call: Call) -> Any:
        if not task.done() or task.cancelled():
            return failed(TimeoutError(), call, self._place)
        error = task.exception()
        return task.result() if error is None else failed(error, call, self._place)


class _Home:
    """The client of one event loop, touched in that loop's thread only."""

    def __init__(self, maps: AwaitingMaps, place: Place) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._place = place
        self._opening: asyncio.Task[Opened] | None = None
        self._opened: Opened | None = None
        self.turns: asyncio.Semaphore = asyncio.Semaphore(AT_ONCE)
        self._guard = _until_the_loop_ends(weakref.ref(maps), self)
        # Starting an asynchronous generator registers it with the loop; it does not suspend before its `yield`.
        with contextlib.suppress(StopIteration):
            self._guard.__anext__().send(None)

    async def opened(self, until: float) -> Opened:
        """Return the client, once it is there: opened for all, so that a caller who is cancelled does not stop it."""
        if self._opened is not None and self._opened.running:
            return self._opened
        if self._opening is None or self._opening.done():
            self._opening = self.loop.create_task(self._open())
            self._opening.add_done_callback(_note)
        opening = self._opening
        await asyncio.wait((opening,), timeout=max(0.0, until - time.monotonic()))
        if not opening.done():
            raise not_in_time(self._place)
        error = asyncio.CancelledError() if opening.cancelled() else opening.exception()
        if error is not None:
            raise failed(error, None, self._place)
        return opening.result()

    async def close(self) -> None:
        """Close the client, whatever loop it is of."""
        if self.loop is asyncio.get_running_loop():
            await self._guard.aclose()
        else:
            with contextlib.suppress(RuntimeError):  # that loop may have ended a moment ago
                self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._guard.aclose()))

    async def end(self) -> None:
        """Close the client in its loop."""
        opening, opened = self._opening, self._opened
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait((opening,))
        if opened is not None:
            await close_awaiting(opened)

    async def _open(self) -> Opened:
        async with asyncio.timeout(max(PATIENCE, self._place.timeout)):
            self._opened = opened = await open_awaiting(self._place)
        return opened


async def _until_the_loop_ends(maps: "weakref.ref[AwaitingMaps]", home: _Home) -> AsyncGenerator[None]:
    """Wait in the list of generators that a loop closes when it is shut down, and close the client then.

    The loop does the same with a generator that is collected as garbage, so maps that are dropped close too.
    """
    try:
        yield
    finally:
        owner = maps()
        if owner is not None:
            owner.forget(home)
        await home.end()


def _give_up(task: "asyncio.Future[Any]") -> None:
    """Cancel a task; it may just be failing."""
    if task.done():
        _note(task)
    else:
        task.cancel()
        task.add_done_callback(_note)


def _note(task: "asyncio.Future[Any]") -> None:
    """Look at the result, so that asyncio does not complain where every waiter was cancelled."""
    if not task.cancelled():
        task.exception()


_all: "weakref.WeakSet[AwaitingMaps]" = weakref.WeakSet()
_abandoned: list[_Home] = []
"""Clients of a parent process: kept, so that nothing of them is closed here."""


def _after_fork() -> None:
    for maps in list(_all):
        maps.after_fork()


on_fork(in_child=_after_fork)
