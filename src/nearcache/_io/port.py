"""The port through which the engine reaches the world: user code and waiting.

The engine's coroutines are written once. What differs between the flavours is here: `blocking.py` runs them to
their end in the calling thread, `aio.py` awaits them in an event loop. Backends bring their own `execute` for each
flavour.
"""

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from nearcache._core.outcome import Outcome
from nearcache.errors import BatchError
from nearcache.near.flights import Flight

T = TypeVar("T")
Flavour = Literal["sync", "async"]


@runtime_checkable
class Loop(Protocol):
    """An event loop, for code that does not import asyncio."""

    def is_closed(self) -> bool:
        """Whether it was closed."""
        ...


def is_closed(home: object) -> bool:
    """Whether this is an event loop that was closed."""
    return isinstance(home, Loop) and home.is_closed()


class Awaited(Protocol):
    """Something that happens once: a flight that lands, or a message that comes."""

    def watch(self, waker: Callable[[], None]) -> bool:
        """Have `waker` called when it happens; False if it already has."""
        ...

    def leave(self, waker: Callable[[], None]) -> None:
        """Stop waiting."""
        ...


class Holder(Protocol):
    """The task that holds something, and has to stop when it is lost."""

    def stop(self) -> None:
        """Cancel it."""
        ...

    def stopped(self, error: BaseException | None) -> bool:
        """Tell whether it ends because of `stop`; that it was cancelled is forgotten then. To be asked once."""
        ...


class Io(Protocol):
    """The effects that the engine needs besides its backend."""

    flavour: Flavour

    async def user(self, function: Callable[..., Any], *args: Any, limit: float | None = None) -> Outcome[Any]:
        """Run user code and return what came of it; no exception of its is raised here.

        In asyncio it is cancelled after `limit` seconds, with the error `Overdue`.
        """
        ...

    async def lead(self, flight: Flight, body: Coroutine[Any, Any, None], loader: Callable[..., Any] | None) -> None:
        """Run the body that lands the flight: at once when blocking, as a task of its own in asyncio.

        With a `loader`, also in a thread of that loader when blocking, so that the caller can leave it.
        """
        ...

    def later(self, body: Coroutine[Any, Any, None], loader: Callable[..., Any]) -> None:
        """Run the body while the caller goes on: in a thread of the loader, or as a task.

        Dropped if all threads of the loader are taken.
        """
        ...

    def beside(self, body: Coroutine[Any, Any, None]) -> None:
        """Run the body while the caller goes on: in a thread of its own, or as a task."""
        ...

    def holder(self) -> Holder | None:
        """Return the running task; None where nothing can stop the running code."""
        ...

    async def wait(self, event: Awaited, until: Callable[[], float]) -> bool:
        """Wait until it happens; False if it had not at the time `until` (monotonic), which may move meanwhile."""
        ...

    async def aside(self, function: Callable[[], None]) -> None:
        """Do what blocks for a while, in asyncio in a thread of its own."""
        ...

    async def each(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Finish all of them, one after the other when blocking, side by side in asyncio."""
        ...

    def only(self, function: Callable[[list[Any]], Any], item: Any) -> Any:
        """Call a batch loader for one item: its value, MISS if there is none, or what brings it in asyncio."""
        ...

    def home(self) -> object:
        """The event loop or thread this code runs in; a flight led from there lands only when that gets its turn."""
        ...

    def can_wait(self, flight: Flight) -> bool:
        """Whether waiting here would let the flight land."""
        ...

    def refuse(self, function: Callable[..., Any]) -> str | None:
        """Say why this function is of the wrong flavour, or None if it is right."""
        ...


class _Never:
    """What nobody ever wakes: waiting for it is waiting for a time."""

    def watch(self, waker: Callable[[], None]) -> bool:
        return True

    def leave(self, waker: Callable[[], None]) -> None:
        pass


async def pause(io: Io, until: float) -> None:
    """Wait until a time (monotonic)."""
    await io.wait(_Never(), lambda: until)


class Overdue(Exception):
    """A piece of user code did not end within its limit, and was cancelled."""


def unwrapped(function: Any) -> Any:
    """Return the function that is called in the end, without the arguments it may hold already."""
    while isinstance(function, functools.partial):
        function = function.args[0] if getattr(function.func, "__name__", "") == "only" else function.func
    return inspect.unwrap(function)


def loader_of(function: Any) -> Hashable:
    """Return what is the same for all calls of one loader: its code, whatever arguments or object it is bound to."""
    function = unwrapped(function)
    function = getattr(function, "__func__", function)
    code: Hashable = getattr(function, "__code__", None) or id(function)
    return code


def name_of(function: Callable[..., Any]) -> str:
    """Return what messages call a function."""
    plain = unwrapped(function)
    return str(getattr(plain, "__qualname__", type(plain).__name__))


def require_mapping(given: object, verb: str) -> None:
    """Raise `TypeError` for what is no mapping of keys to values."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{verb} takes a mapping of keys to values, such as a dict, not a {type(given).__name__}")


def require_callable(function: object, what: str) -> None:
    """Raise `TypeError` if what should be a function cannot be called."""
    if not callable(function):
        raise TypeError(f"{what} is of type {type(function).__name__}; it must be a function")


@contextmanager
def one_error(item: object) -> Generator[None]:
    """Raise the error of one item in the place of a `BatchError` that names it."""
    try:
        yield
    except BatchError as error:
        raise error.errors.get(item, error) from error
