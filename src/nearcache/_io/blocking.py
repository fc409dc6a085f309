"""The blocking flavour: coroutines that never suspend, finished by `drive` in the calling thread."""

import contextvars
import inspect
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from threading import Lock, local
from typing import Any, TypeVar

from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._io.apart import APART
from nearcache._io.port import Awaited, Flavour, Holder, is_closed, loader_of, name_of, one_error
from nearcache.near.flights import Flight

T = TypeVar("T")


class UserCall:
    """A request to the driver: call this while the coroutine is suspended."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args

    def __await__(self) -> Generator["UserCall", Outcome[Any], Outcome[Any]]:
        return (yield self)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in this thread.

    The coroutine suspends only to have user code called, so that no frame of the engine lies under a loader: recursion
    depth and thread-local state are the caller's own. Any other suspension is a defect of the library: RuntimeError.
    """
    try:
        call = work.send(None)
        while isinstance(call, UserCall):
            try:
                outcome: Outcome[Any] = Outcome(call.function(*call.args))
            except BaseException as error:  # noqa: BLE001 -- the engine has to know even of interrupts
                outcome = Outcome(error=error)
            call = work.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except BaseException:
        work.close()  # interrupted in here, the coroutine would not know as long as the traceback lives
        raise
    work.close()
    raise RuntimeError(f"a blocking call suspended on {call!r}")


_tokens = local()


def _this_thread() -> object:
    """Return an object that stands for the running thread; the number of a thread that ended is given to another."""
    token: object = vars(_tokens).setdefault("token", object())
    return token


class BlockingIo:
    """Effects of the blocking flavour."""

    flavour: Flavour = "sync"

    async def user(self, function: Callable[..., Any], *args: Any, limit: float | None = None) -> Outcome[Any]:
        """Have the driver call the function in the caller's thread; nobody can stop it there."""
        outcome = await UserCall(function, args)
        if inspect.isawaitable(outcome_value(outcome)):
            return Outcome(error=_discard(outcome, function))
        return outcome

    async def lead(self, flight: Flight, body: Coroutine[Any, Any, None], loader: Callable[..., Any] | None) -> None:
        """Run the body at once, in the caller's thread, or in one of the loader."""
        if loader is None:
            await body
            return
        flight.home = None  # it needs nobody's turn
        APART.run(loader_of(loader), partial(drive, body))

    def later(self, body: Coroutine[Any, Any, None], loader: Callable[..., Any]) -> None:
        """Run the body in a thread of the loader."""
        if APART.full(loader_of(loader)):
            body.close()
        else:
            APART.run(loader_of(loader), partial(drive, body))

    def beside(self, body: Coroutine[Any, Any, None]) -> None:
        """Run the body in a thread of its own, with a copy of the caller's context variables."""
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(drive, body), name="nearcache-beside", daemon=True).start()

    def holder(self) -> Holder | None:
        """Nothing can stop a thread."""
        return None

    async def wait(self, event: Awaited, until: Callable[[], float]) -> bool:
        """Block the thread until it happens."""
        gate = Lock()
        gate.acquire()
        if not event.watch(gate.release):
            return True
        landed = False
        try:
            while not landed and (left := until() - time.monotonic()) > 0:
                landed = gate.acquire(timeout=min(left, threading.TIMEOUT_MAX))
        finally:
            if not landed:
                event.leave(gate.release)
        return landed

    async def aside(self, function: Callable[[], None]) -> None:
        """Do it in the caller's thread, which waits for it anyway."""
        function()

    async def each(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Finish one after the other."""
        try:
            return [await work for work in works]
        finally:
            for work in works:
                work.close()  # those that an interrupt kept from starting; the others have ended

    def only(self, function: Callable[[list[Any]], Any], item: Any) -> Any:
        """Call a batch loader for one item."""
        with one_error(item):
            return function([item]).get(item, MISS)

    def home(self) -> object:
        """The leader lives in this thread."""
        return _this_thread()

    def can_wait(self, flight: Flight) -> bool:
        """A leader lands neither while its thread or event loop waits for it, nor after the loop was closed.

        In its own thread it is a signal handler or a finalizer that asks.
        """
        home = flight.home
        return home is None or not (home is _this_thread() or home is _running_loop() or is_closed(home))

    def refuse(self, function: Callable[..., Any]) -> str | None:
        """Coroutine functions belong to `AsyncCache`."""
        if inspect.iscoroutinefunction(function):
            return "is a coroutine function: use AsyncCache, or cache.aio"
        return None


def _running_loop() -> object:
    # Programs without an event loop need not wait for the import of asyncio.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def outcome_value(outcome: Outcome[Any]) -> Any:
    """The value of an outcome, None if it is an error."""
    return None if outcome.error is not None else outcome.get()


def _discard(outcome: Outcome[Any], function: Callable[..., Any]) -> TypeError:
    value = outcome.get()
    if inspect.iscoroutine(value):
        value.close()
    return TypeError(f"{name_of(function)} returned an awaitable to a blocking cache: use AsyncCache, or cache.aio")
