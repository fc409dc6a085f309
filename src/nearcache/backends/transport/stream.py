"""One shared connection of an event loop: many calls travel on it together, and replies find their callers by order."""

import asyncio
import math
import os
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from nearcache.backends.base import LostConnection
from nearcache.backends.transport.dial import Endpoint
from nearcache.backends.transport.dialect import INCOMPLETE, Command, Dialect
from nearcache.backends.transport.history import replaced
from nearcache.backends.transport.link import soon
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError


class Landing(asyncio.Future[list[Any]]):
    """The replies to a write, which a cancelled caller waits for too, for at most their time budget.

    The write is on its way, and what is done about it on another connection must not overtake it. A task whose future
    cannot be cancelled is cancelled when the future is done.
    """

    def cancel(self, msg: object = None) -> bool:
        """Refuse."""
        return False


class _Call:
    """One caller's commands under way: complete when there are as many replies as commands."""

    __slots__ = ("commands", "deadline", "future", "replies")

    def __init__(self, commands: tuple[Command, ...], deadline: float, future: asyncio.Future[list[Any]]) -> None:
        self.commands = commands
        self.deadline = deadline
        self.future = future
        self.replies: list[Any] = []

    def fail(self, error: BackendError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # a caller that is gone is no reason for asyncio to complain


class Stream(asyncio.Protocol):
    """A connection whose calls are written once per turn of the loop, in the order of submission.

    A caller that was cancelled keeps its place in the line, so that its reply is read and dropped. When a reply is
    overdue, or something arrives that nobody asked for, all calls fail and the connection is closed: `ended` is true.
    """

    def __init__(self, dialect: Dialect, timeout: float) -> None:
        self._dialect = dialect
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._reader = dialect.reader()
        self._nonsense: tuple[type[Exception], ...] = (*dialect.NONSENSE, IndexError)
        self._calls: deque[_Call] = deque()
        self._outgoing: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = math.inf
        self._heard = False
        self._moved = False
        self._broken: Exception | None = None
        """What broke the connection, if it was not this side."""
        self.history: str = ""
        self.used: bool = False
        self.ended: bool = False
        self.begun: float = self._loop.time()

    @property
    def load(self) -> int:
        """How many calls wait for replies."""
        return len(self._calls)

    @property
    def filling(self) -> bool:
        """Whether commands were submitted in this turn of the loop and are still to be written."""
        return bool(self._outgoing)

    async def greet(self, endpoint: Endpoint) -> str:
        """Exchange the first commands and return the name of the history that the connection leads to; raises
        `BackendError`, after which the stream is of no use.
        """
        try:
            replies = await self.submit(tuple(endpoint.greeting()), self._loop.time() + self._timeout)
        except BackendUnavailableError as error:
            if self._broken is None:
                raise
            raise endpoint.not_greeted(self._broken) from error
        self.history = endpoint.check_greeting(replies)
        return self.history

    def submit(self, commands: tuple[Command, ...], deadline: float, history: str = "") -> asyncio.Future[list[Any]]:
        """Put commands in line and return the future of their replies; `deadline` is on the loop's clock.

        With a `history`, they fail where the connection leads to another one of the engine's data.
        """
        dialect, loop = self._dialect, self._loop
        request = dialect.pack(commands)
        future = loop.create_future() if dialect.repeatable(commands) else Landing(loop=loop)
        call = _Call(commands, deadline, future)
        if self.ended:
            call.fail(LostConnection("the connection is closed", dialect.subject(commands)).undone())
            return future
        if history and history != self.history:
            call.fail(replaced())
            return future
        self._heard = self._heard and bool(self._calls)
        self._calls.append(call)
        if not self._outgoing:
            loop.call_soon(self._flush)
        self._outgoing.append(request)
        if deadline < self._sweep_at:
            self._watch(deadline)
        return future

    def end(self) -> None:
        """Close the connection; calls under way fail."""
        self._fail(
            lambda call: BackendUnavailableError("the connection was closed", self._dialect.subject(call.commands))
        )

    def abandon(self) -> None:
        """In a forked child: put something harmless in the place of the descriptor, which is the parent's."""
        if self._transport is None:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._transport.get_extra_info("socket").fileno(), inheritable=False)
        os.close(nothing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport; asyncio calls this."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way; asyncio calls this."""
        if not self.ended:
            self._broken = exc or ConnectionResetError("the engine closed the connection")
        dead, now = self.used and not self._heard, self._loop.time()

        def error(call: _Call) -> BackendError:
            lost = dead and soon(call.deadline - now, self._timeout)
            kind = LostConnection if lost else BackendUnavailableError
            return kind("the connection broke", self._dialect.subject(call.commands))

        self._fail(error)

    def data_received(self, data: bytes) -> None:
        """Hand replies to their callers; asyncio calls this."""
        self._heard = self._moved = True
        calls, gets = self._calls, self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := gets()) is not INCOMPLETE:
                call = calls[0]
                call.replies.append(reply)
                if len(call.replies) == len(call.commands):
                    self.used = True
                    calls.popleft()
                    if not call.future.done():
                        call.future.set_result(call.replies)
        except self._nonsense as error:
            self._broken = error
            self._fail(
                lambda call: BackendUnavailableError("the engine talks nonsense", self._dialect.subject(call.commands))
            )

    def _flush(self) -> None:
        if self._transport is not None and not self.ended:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._sweep_at = self._loop.call_at(deadline, self._sweep), deadline

    def _sweep(self) -> None:
        """Look for an overdue call; while replies keep arriving after a pause of the whole loop they are read first."""
        self._timer, self._sweep_at = None, math.inf
        if not self._calls:
            return
        earliest = min(call.deadline for call in self._calls)
        late = earliest <= self._loop.time()
        if late and not self._moved:
            self._fail(self._overdue)
            return
        self._moved = self._moved and not late
        # As a timer, not by call_soon: timers run after what has arrived was read.
        self._watch(self._loop.time() if late else earliest)

    def _overdue(self, call: _Call) -> BackendError:
        return BackendTimeoutError(f"no answer within {self._timeout:g} s", self._dialect.subject(call.commands))

    def _fail(self, error: Callable[[_Call], BackendError]) -> None:
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        calls = list(self._calls)
        self._calls.clear()
        for call in calls:
            call.fail(error(call))
