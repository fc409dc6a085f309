"""The asyncio flavour: the same coroutines, awaited in an event loop."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._io.port import Awaited, Flavour, Holder, Overdue, is_closed, name_of, one_error
from nearcache.near.flights import Flight

T = TypeVar("T")


class AsyncIo:
    """Effects of the asyncio flavour."""

    flavour: Flavour = "async"

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def user(self, function: Callable[..., Any], *args: Any, limit: float | None = None) -> Outcome[Any]:
        """Await the coroutine that the function returns, and cancel it after `limit` seconds."""
        scope = asyncio.timeout(limit)
        try:
            result = function(*args)
            if not inspect.isawaitable(result):
                # it has done its work all the same: nobody can go on as if nothing had happened
                return Outcome[Any](error=_not_awaitable(function)).unshared()
            async with scope:
                result = await result
            return Outcome(result)
        except TimeoutError as error:
            return Outcome(error=Overdue() if scope.expired() else error)
        except BaseException as error:  # noqa: BLE001 -- the engine has to know even of cancellation
            return Outcome(error=error)

    async def lead(self, flight: Flight, body: Coroutine[Any, Any, None], loader: Callable[..., Any] | None) -> None:
        """Run the body as a task, which outlives a caller that is cancelled as long as anybody waits for it."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(body)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, flight))
        flight.cancel = lambda: _soon(loop, task.cancel)

    def later(self, body: Coroutine[Any, Any, None], loader: Callable[..., Any]) -> None:
        """Run the body as a task of its own."""
        self.beside(body)

    def beside(self, body: Coroutine[Any, Any, None]) -> None:
        """Run the body as a task of its own."""
        task = asyncio.get_running_loop().create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def holder(self) -> Holder | None:
        """Return what can cancel the running task."""
        task = asyncio.current_task()
        return None if task is None else _Holder(task)

    def _ended(self, task: "asyncio.Task[None]", flight: Flight) -> None:
        """Let go of a leader; one that was cancelled before its first step could not land its flight."""
        self._tasks.discard(task)
        if task.cancelled():
            flight.table.land(flight, Outcome(error=asyncio.CancelledError()))

    async def wait(self, event: Awaited, until: Callable[[], float]) -> bool:
        """Suspend the task until it happens."""
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            _soon(loop, _settle, landed)

        if not event.watch(wake):
            return True
        try:
            while not landed.done() and (left := until() - time.monotonic()) > 0:
                await asyncio.wait((landed,), timeout=left)
        finally:
            if not landed.done():
                event.leave(wake)
        return landed.done()

    async def aside(self, function: Callable[[], None]) -> None:
        """Do it in a thread, while the event loop goes on."""
        await asyncio.to_thread(function)

    async def each(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Finish them side by side."""
        return await asyncio.gather(*works)

    async def only(self, function: Callable[[list[Any]], Any], item: Any) -> Any:
        """Await a batch loader for one item."""
        with one_error(item):
            return (await function([item])).get(item, MISS)

    def home(self) -> object:
        """The leader lives in the running loop."""
        return asyncio.get_running_loop()

    def can_wait(self, flight: Flight) -> bool:
        """A suspended task blocks nobody; but a leader whose loop was closed never lands."""
        return not is_closed(flight.home)

    def refuse(self, function: Callable[..., Any]) -> str | None:
        """Plain functions belong to `Cache`."""
        if not inspect.iscoroutinefunction(function):
            return "is not a coroutine function: use Cache, or cache.sync"
        return None


class _Holder:
    """A task that is cancelled from inside the library, as `asyncio.timeout` does it."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self._before = task.cancelling()
        self._stopping = False

    def stop(self) -> None:
        """Cancel the task."""
        self._stopping = True
        self._task.cancel()

    def stopped(self, error: BaseException | None) -> bool:
        """Tell whether it ends because of `stop`: not if somebody else has cancelled it, too."""
        if not self._stopping:
            return False
        return self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)


def _not_awaitable(function: Callable[..., Any]) -> TypeError:
    return TypeError(f"{name_of(function)} did not return an awaitable to an async cache: use Cache, or cache.sync")


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> None:
    """Call in the loop's own thread; a loop that is closed has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
