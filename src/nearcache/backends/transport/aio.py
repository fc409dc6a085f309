"""Awaiting connections: each event loop has its own, shared by all its tasks."""

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Final

from nearcache._core.fork import on_fork
from nearcache.backends.base import EngineReplaced
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.dial import Endpoint, Route
from nearcache.backends.transport.dialect import Command, Dialect
from nearcache.backends.transport.history import History
from nearcache.backends.transport.stream import Stream
from nearcache.errors import BackendError, BackendUnavailableError

CROWDED: Final = 256
"""How many calls may wait on every connection before another one is opened."""


class _Home:
    """The connections of one event loop, touched in that loop's thread only."""

    def __init__(
        self, link: "AwaitingLink", dialect: Dialect, route: Route[Endpoint], spec: BackendSpec, history: History
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._dialect = dialect
        self._route = route
        self._history = history
        self._spec = spec
        self._streams: list[Stream] = []
        self._current: Stream | None = None
        self._opening: asyncio.Task[Stream] | None = None
        self._ended = False
        self._guard = _until_the_loop_ends(weakref.ref(link), self)

    @property
    def streams(self) -> list[Stream]:
        """The open connections."""
        if any(stream.ended for stream in self._streams):
            self._streams = [stream for stream in self._streams if not stream.ended]
        return self._streams

    async def fill(self, count: int) -> None:
        """Open connections until there are `count`."""
        while len(self.streams) < count:
            with contextlib.suppress(EngineReplaced):
                await self._another()

    def call(self, commands: tuple[Command, ...], seconds: float, history: str = "") -> Awaitable[list[Any]]:
        """Send commands on the connection of this turn of the loop and return what to await for the replies, which may
        take so many seconds.
        """
        current = self._current
        stream = current if current is not None and current.filling else self._best()
        if stream is None:
            return self._first_call(commands, seconds, history)
        return stream.submit(commands, self.loop.time() + seconds, history)

    def watch_the_loop(self) -> None:
        """Have `end` called when the loop is shut down."""
        # Starting an asynchronous generator registers it with the loop; it does not suspend before its `yield`.
        with contextlib.suppress(StopIteration):
            self._guard.__anext__().send(None)

    def renew(self) -> None:
        """Send nothing more on the connections there are, and close them; may be called in any thread."""
        old, self._streams, self._current = self._streams, list[Stream](), None
        with contextlib.suppress(RuntimeError):  # the loop may have ended a moment ago
            self.loop.call_soon_threadsafe(_end_all, old)

    def end(self) -> None:
        """Close all connections."""
        self._ended = True
        for stream in self._streams:
            stream.end()

    async def aclose(self) -> None:
        """Close all connections and let go of the loop."""
        await self._guard.aclose()

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        for stream in self._streams:
            stream.abandon()

    async def _first_call(self, commands: tuple[Command, ...], seconds: float, history: str) -> list[Any]:
        started = self.loop.time()
        stream = await self._another()
        began = max(started, stream.begun) if self._route.starts else started
        return await stream.submit(commands, began + seconds, history)

    def _best(self) -> Stream | None:
        streams = self.streams
        if not streams:
            return None
        self._current = best = min(streams, key=_load)
        if best.load >= CROWDED and len(streams) < self._spec.pool_max:
            _ = self._ensure_opening()  # for later calls; this one does not wait for it
        return best

    async def _another(self) -> Stream:
        """Wait for the connection that is being opened: for all, so a cancelled caller does not stop it."""
        try:
            return await asyncio.shield(self._ensure_opening())
        except BackendError as error:
            raise _copied(error) from error.__cause__

    def _ensure_opening(self) -> asyncio.Future[Stream]:
        if self._opening is None or self._opening.done():
            self._opening = self.loop.create_task(self._open())
            self._opening.add_done_callback(_note)
        return self._opening

    async def _open(self) -> Stream:
        began = self.loop.time()
        endpoint = await _present_endpoint(self._route)
        try:
            async with asyncio.timeout_at((self.loop.time() if self._route.starts else began) + self._spec.timeout):
                stream = await self._greeted(endpoint)
        except BackendError:
            raise
        except OSError as error:
            raise endpoint.unreachable(error) from error
        self._add(stream)
        return stream

    async def _greeted(self, endpoint: Endpoint) -> Stream:
        stream = await _connected(self._dialect, endpoint, self._spec.timeout)
        try:
            if self._history.met(await stream.greet(endpoint)):
                raise EngineReplaced(f"another engine answers at {endpoint.where}").undone()
        except BaseException:
            stream.end()
            raise
        return stream

    def _add(self, stream: Stream) -> None:
        if self._ended or stream.ended:
            stream.end()
            raise BackendUnavailableError("the connection was closed while it was being opened").undone()
        self._streams.append(stream)


class AwaitingLink:
    """A way to the engine that awaits; connections belong to the loop that runs.

    Connecting takes at most `spec.timeout` seconds, and so does a call from its start to its last reply.
    """

    spreads: bool = False

    def __init__(self, dialect: Dialect, route: Route[Endpoint], spec: BackendSpec, history: History) -> None:
        self._dialect = dialect
        self._route = route
        self._spec = spec
        self._history = history
        history.watch(self)
        self._reset()
        _links.add(self)

    def lacks(self) -> bool:
        """There is one engine."""
        return False

    async def open(self) -> None:
        """Open connections for this loop until it has the minimum."""
        await self._home().fill(self._spec.pool_min)

    def execute(self, *commands: Command) -> Awaitable[list[Any]]:
        """Send commands together; await their replies in order, among which error answers are exceptions."""
        return self._home().call(commands, self._spec.timeout)

    def begin(self, *commands: Command, until: float, history: str = "") -> Awaitable[list[Any]]:
        """Do the same; the replies may come until the time `until` (monotonic).

        With a `history`, only to that one of the engine's data; `EngineReplaced` where another is found.
        """
        return self._home().call(commands, until - time.monotonic(), history)

    def renew(self) -> None:
        """Send nothing more on the connections there are, in any loop, and close them."""
        for home in list(self._homes.values()):
            home.renew()

    async def close(self) -> None:
        """Close the connections of all loops; a later call opens new ones."""
        with self._lock:
            homes = list(self._homes.values())
            self._homes.clear()
        for home in homes:
            await _close(home)

    def after_fork(self) -> None:
        """Start empty in a forked child."""
        # Kept: their transports must neither be finalised nor close anything in the parent's selector.
        _abandoned.extend(self._homes.values())
        for home in self._homes.values():
            home.abandon()
        self._reset()

    def forget(self, home: _Home) -> None:
        """Let go of the connections of a loop that ended."""
        with self._lock:
            if self._homes.get(home.loop) is home:
                del self._homes[home.loop]

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._homes: dict[asyncio.AbstractEventLoop, _Home] = {}

    def _home(self) -> _Home:
        loop = asyncio.get_running_loop()
        return self._homes.get(loop) or self._new_home(loop)

    def _new_home(self, loop: asyncio.AbstractEventLoop) -> _Home:
        home = _Home(self, self._dialect, self._route, self._spec, self._history)
        with self._lock:
            for closed in [other for other in self._homes if other.is_closed()]:
                del self._homes[closed]
            self._homes[loop] = home
        home.watch_the_loop()
        return home


async def _until_the_loop_ends(link: "weakref.ref[AwaitingLink]", home: _Home) -> AsyncGenerator[None]:
    """Wait in the list of generators that a loop closes when it is shut down, and close the connections then.

    The loop does the same with a generator that is collected as garbage, so a link that is dropped closes too.
    """
    try:
        yield
    finally:
        owner = link()
        if owner is not None:
            owner.forget(home)
        home.end()
        await asyncio.sleep(0)  # the turn in which the transports close their sockets


async def _close(home: _Home) -> None:
    if home.loop is asyncio.get_running_loop():
        await home.aclose()
    else:
        with contextlib.suppress(RuntimeError):  # that loop may have ended a moment ago
            home.loop.call_soon_threadsafe(home.end)


async def _present_endpoint(route: Route[Endpoint]) -> Endpoint:
    return route.endpoint() if route.fixed else await asyncio.to_thread(route.endpoint)


async def _connected(dialect: Dialect, endpoint: Endpoint, seconds: float) -> Stream:
    loop = asyncio.get_running_loop()
    if endpoint.path:
        _, stream = await loop.create_unix_connection(lambda: Stream(dialect, seconds), endpoint.path)
        return stream
    transport, stream = await loop.create_connection(
        lambda: Stream(dialect, seconds), endpoint.host, endpoint.port, ssl=endpoint.tls()
    )
    endpoint.tune(transport.get_extra_info("socket"))
    return stream


def _end_all(streams: list[Stream]) -> None:
    for stream in streams:
        stream.end()


def _load(stream: Stream) -> int:
    return stream.load


def _copied(error: BackendError) -> BackendError:
    """Return an equal error: each of several waiters raises its own, with its own traceback."""
    copy = type(error)(*error.args)
    copy.ambiguous = error.ambiguous
    return copy


def _note(task: asyncio.Task[Stream]) -> None:
    """Look at the result, so that asyncio does not complain where every waiter was cancelled."""
    if not task.cancelled():
        task.exception()


_links: weakref.WeakSet[AwaitingLink] = weakref.WeakSet()
_abandoned: list[_Home] = []


def _after_fork() -> None:
    for link in list(_links):
        link.after_fork()


on_fork(in_child=_after_fork)
