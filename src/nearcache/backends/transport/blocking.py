"""A way to the engine that blocks: each call has a connection to itself."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nearcache.backends.base import EngineReplaced, LostConnection
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.dial import Endpoint, Route
from nearcache.backends.transport.dialect import Command, Dialect
from nearcache.backends.transport.history import History, replaced
from nearcache.backends.transport.link import soon
from nearcache.backends.transport.pool import Pool, Wire, connect
from nearcache.errors import BackendTimeoutError, BackendUnavailableError

T = TypeVar("T")


class BlockingLink:
    """A way to the engine that blocks: its methods are coroutines that never suspend.

    A call waits at most `spec.pool_timeout` seconds for a connection, then at most `spec.timeout` seconds for all the
    rest together: finding out where the engine is, connecting, sending, and all the replies.
    """

    spreads: bool = False

    def __init__(self, dialect: Dialect, route: Route[Endpoint], spec: BackendSpec, history: History) -> None:
        self._dialect = dialect
        self._route = route
        self._history = history
        self._minimum = spec.pool_min
        self._timeout = spec.timeout
        self._pool = Pool(dialect, spec.pool_max, spec.pool_timeout)
        history.watch(self)

    def lacks(self) -> bool:
        """There is one engine."""
        return False

    async def open(self) -> None:
        """Open connections until the pool holds its minimum."""
        while (wire := self._pool.reserve(self._minimum)) is not None:
            try:
                with contextlib.suppress(EngineReplaced):  # there is nothing to be sent again
                    self._connect(wire)
            except BaseException:
                self._pool.drop(wire)
                raise
            self._pool.give_back(wire)

    def renew(self) -> None:
        """Close the connections as soon as they are idle."""
        self._pool.close()

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self._pool.close()

    def execute(self, *commands: Command) -> list[Any]:
        """Send commands together and return their replies in order; error answers are among them, as exceptions."""
        request = self._dialect.pack(commands)
        wire = self._pool.take()
        try:
            replies = self._call(wire, request, commands)
        except BaseException as error:
            self._give_up(wire, error)
            raise
        self._pool.give_back(wire)
        return replies

    def begin(self, *commands: Command, until: float, history: str = "") -> Callable[[float], list[Any]]:
        """Send commands together, until the time `until` (monotonic); what is returned must be called, with the time
        until which the replies may come, and returns them.

        With a `history`, only to that one of the engine's data; raises `EngineReplaced` where another is found.
        """
        wire = self._pool.take()
        try:
            deadline = self._ready(wire, until)
            if history and wire.history != history:
                raise replaced()
            self._step(wire, commands, deadline, wire.send, self._dialect.pack(commands))
        except BaseException as error:
            self._give_up(wire, error)
            raise
        return functools.partial(self._finish, wire, commands)

    def _finish(self, wire: Wire, commands: tuple[Command, ...], deadline: float) -> list[Any]:
        try:
            replies = self._step(wire, commands, deadline, wire.receive, len(commands))
        except BaseException as error:
            self._give_up(wire, error)
            raise
        self._pool.give_back(wire)
        return replies

    def _call(self, wire: Wire, request: bytes, commands: tuple[Command, ...]) -> list[Any]:
        return self._step(wire, commands, self._ready(wire), wire.call, request, len(commands))

    def _step(
        self, wire: Wire, commands: tuple[Command, ...], deadline: float, step: Callable[..., T], *arguments: Any
    ) -> T:
        try:
            return step(*arguments, deadline)
        except TimeoutError as error:
            raise BackendTimeoutError(
                f"no answer within {self._timeout:g} s", self._dialect.subject(commands)
            ) from error
        except wire.breaks as error:
            lost = wire.lost_before_answer() and soon(deadline - time.monotonic(), self._timeout)
            kind = LostConnection if lost else BackendUnavailableError
            raise kind(f"the connection broke ({type(error).__name__})", self._dialect.subject(commands)) from error

    def _give_up(self, wire: Wire, error: BaseException) -> None:
        # Replies may be outstanding: nobody else may ever read from this connection.
        self._pool.drop(wire)
        if isinstance(error, LostConnection):
            self._pool.close()  # the other idle ones are as old

    def _ready(self, wire: Wire, until: float = math.inf) -> float:
        """Return the time until which a call may last, at most `until`, on a wire that is connected by then."""
        return min(until, time.monotonic() + self._timeout) if wire.connected else self._connect(wire, until)

    def _connect(self, wire: Wire, until: float = math.inf) -> float:
        began = time.monotonic()
        endpoint = self._route.endpoint()
        deadline = min(until, (time.monotonic() if self._route.starts else began) + self._timeout)
        if self._history.met(connect(wire, endpoint, deadline)):
            raise EngineReplaced(f"another engine answers at {endpoint.where}").undone()
        return deadline
