"""Blocking connections: each call has one to itself, from a pool that survives forks and interrupts."""

import contextlib
import gc
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from nearcache._core.fork import on_fork
from nearcache.backends.base import NoConnection
from nearcache.backends.transport import probe
from nearcache.backends.transport.dial import Endpoint, dial, time_left
from nearcache.backends.transport.dialect import INCOMPLETE, Dialect
from nearcache.errors import BackendError, ConfigError

CHUNK: Final = 65_536
RECHECK: Final = 0.05
"""How many seconds a waiter sleeps at most before it looks for itself: a lost wake-up costs no more."""


COLLECT_EVERY: Final = 60.0
"""Seconds between two collections of garbage because a pool looks exhausted."""


class Wire:
    """One exclusive connection: a socket and the parser of what arrives on it.

    It belongs to whoever took it from the pool. Dropped anywhere, also by an exception between two lines, it is closed
    and its place in the pool becomes free.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_descriptor",
        "_dialect",
        "_readable",
        "_reader",
        "_sock",
        "generation",
        "history",
        "used",
    )

    def __init__(self, dialect: Dialect, generation: int) -> None:
        self._dialect = dialect
        self.generation: int = generation
        self.history: str = ""
        self.used: bool = False
        self._sock: socket.socket | None = None
        self._readable: Callable[[], object] = bool
        self._descriptor: int | None = None
        self._reader = dialect.reader()
        self._answered = False

    def __del__(self) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether this connection was opened."""
        return self._sock is not None

    @property
    def breaks(self) -> tuple[type[Exception], ...]:
        """What is raised where the connection breaks, or where it tells nonsense."""
        return (OSError, *self._dialect.NONSENSE)

    def connect(self, endpoint: Endpoint, deadline: float) -> str:
        """Open the connection and exchange the first commands; return the name of the history that it leads to."""
        self._sock = dial(endpoint, deadline)
        self._readable = probe.readable(self._sock)
        self._descriptor = probe.descriptor(self._sock)
        greeting = endpoint.greeting()
        self.history = endpoint.check_greeting(self.call(self._dialect.pack(greeting), len(greeting), deadline))
        return self.history

    def fit(self) -> bool:
        """Return whether nothing is left or has come since the last reply, not even the end; one cheap system call."""
        if self._reader.has_data():
            return False
        return not self._readable() or not probe.spoken(self._open_socket())

    def call(self, request: bytes, expected: int, deadline: float) -> list[Any]:
        """Send the request and return its replies; after an exception the wire is of no use."""
        self.send(request, deadline)
        return self.receive(expected, deadline)

    def send(self, request: bytes, deadline: float) -> None:
        """Send the request; after an exception the wire is of no use."""
        self._answered = False
        sock = self._open_socket()
        if self._descriptor is not None:
            try:
                written = os.write(self._descriptor, request)
            except BlockingIOError:
                written = 0
            request = request[written:]
        if request:
            _allow(sock, deadline)
            sock.sendall(request)

    def receive(self, expected: int, deadline: float) -> list[Any]:
        """Return the replies to what was sent; after an exception the wire is of no use."""
        replies: list[Any] = []
        while len(replies) < expected:
            self._receive(deadline)
            while len(replies) < expected and (reply := self._reader.gets()) is not INCOMPLETE:
                replies.append(reply)
        return replies

    def lost_before_answer(self) -> bool:
        """Return whether the last call ran on a connection from an earlier one and no byte came back."""
        return self.used and not self._answered

    def close(self) -> None:
        """Close the socket, if any."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def abandon(self) -> None:
        """Close the descriptor only: in a forked child nothing may be said on a connection of the parent."""
        sock, self._sock = self._sock, None
        if sock is not None:
            os.close(sock.detach())

    def _receive(self, deadline: float) -> None:
        sock = self._open_socket()
        _allow(sock, deadline)
        chunk = sock.recv(CHUNK)
        if not chunk:
            raise ConnectionResetError("the engine closed the connection")
        self._answered = True
        self._reader.feed(chunk)

    def _open_socket(self) -> socket.socket:
        if self._sock is None:
            raise ConnectionResetError("the connection is closed")
        return self._sock


def _allow(sock: socket.socket, deadline: float) -> None:
    """Let the next operation last until `deadline`; where the old limit is near enough a system call is saved."""
    left = time_left(deadline)
    limit = sock.gettimeout()
    if limit is None or abs(limit - left) > 0.001:
        sock.settimeout(left)


class _Waiter:
    """Somebody who waits for a connection: released when `wire` was filled in."""

    __slots__ = ("_bell", "wire")

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait(self, seconds: float) -> None:
        self._bell.acquire(timeout=seconds)

    def hand(self, wire: Wire) -> None:
        self.wire = wire
        self._bell.release()


class Pool:
    """At most `size` wires, the most recently used first; waiters are served in order.

    The count of wires is the count of living objects, so that a wire lost to an interrupt cannot be counted for ever.
    """

    def __init__(self, dialect: Dialect, size: int, timeout: float) -> None:
        self._dialect = dialect
        self._size = size
        self._timeout = timeout
        self._generation = 0
        self._collect_from = 0.0
        self._reset()
        _pools.add(self)

    def __len__(self) -> int:
        """The number of wires, idle or in use.

        They are counted one by one: a wire that is gone stays in the set if an interrupt came while that let go of it.
        """
        while True:
            with contextlib.suppress(RuntimeError):  # another thread, or a signal handler in here, has changed the set
                return sum(1 for _ in self._alive)

    def take(self) -> Wire:
        """Return a wire for one call, connected or not; wait for one if all are in use.

        Raises `BackendTimeoutError` when none became free in time.
        """
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                wire = self._claim()
            if wire.fit():
                return wire
            self.drop(wire)

    def give_back(self, wire: Wire) -> None:
        """Take a wire back whose replies were all read."""
        wire.used = True
        with self._lock:
            current = wire.generation == self._generation
            if current:
                self._pass_on(wire)
        if not current:
            self.drop(wire)

    def drop(self, wire: Wire) -> None:
        """Close a wire and let somebody else open one."""
        wire.close()
        with self._lock:
            self._alive.discard(wire)
            if self._waiters and self._has_room():
                self._waiters.popleft().hand(self._admit())

    def reserve(self, count: int) -> Wire | None:
        """Return a wire to be connected and given back, None if there are `count` already."""
        with self._lock:
            return self._admit() if len(self) < count and self._has_room() else None

    def close(self) -> None:
        """Close idle wires now, and those in use when they come back."""
        with self._lock:
            self._generation += 1
        # One at a time: `take` takes them without the lock, and what it took must not be closed under it. One that
        # comes back from now on is of an older generation, so that the list only shrinks or gets new ones.
        for _ in range(len(self._idle)):
            try:
                wire = self._idle.pop(0)
            except IndexError:
                break
            self.drop(wire)

    def after_fork(self) -> None:
        """Start empty in a forked child, and close its copies of the parent's descriptors."""
        inherited = list(self._alive)
        self._generation += 1
        self._reset()
        for wire in inherited:
            wire.abandon()

    def _reset(self) -> None:
        # Re-entrant because a finalizer or a signal handler that runs inside may use the cache too. It may come between
        # any two steps here, so what is empty is found out by taking from it.
        self._lock = threading.RLock()
        self._idle: list[Wire] = []
        self._alive: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._waiters: deque[_Waiter] = deque()

    def _claim(self) -> Wire:
        with self._lock:
            wire = self._available()
            if wire is not None:
                return wire
            waiter = _Waiter()
            self._waiters.append(waiter)
        return self._wait(waiter, time.monotonic() + self._timeout)

    def _wait(self, waiter: _Waiter, deadline: float) -> Wire:
        while (left := deadline - time.monotonic()) > 0:
            waiter.wait(min(left, RECHECK))
            wire = self._look(waiter)
            if wire is not None:
                return wire
        return self._leave(waiter)

    def _look(self, waiter: _Waiter) -> Wire | None:
        with self._lock:
            if waiter.wire is None and (wire := self._available()) is not None:
                self._forget(waiter)
                waiter.wire = wire
            return waiter.wire

    def _leave(self, waiter: _Waiter) -> Wire:
        self._collect()
        if (wire := self._look(waiter)) is not None:
            return wire
        with self._lock:
            self._forget(waiter)
        raise NoConnection(
            f"all {self._size} connections stayed in use for {self._timeout:g} s; "
            "raise CACHE_POOL_MAX_SIZE (connections) or CACHE_POOL_TIMEOUT (milliseconds)"
        ).undone()

    def _collect(self) -> None:
        """Have Python look for wires that nobody can reach: an interrupt's traceback may hold one, and itself."""
        if (now := time.monotonic()) >= self._collect_from:
            self._collect_from = now + COLLECT_EVERY
            gc.collect()

    def _available(self) -> Wire | None:
        try:
            return self._idle.pop()
        except IndexError:
            return self._admit() if self._has_room() else None

    def _forget(self, waiter: _Waiter) -> None:
        # It is not in line any more if an interrupt came between its turn and the handing over.
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def _pass_on(self, wire: Wire) -> None:
        if self._waiters:
            with contextlib.suppress(IndexError):
                self._waiters.popleft().hand(wire)
                return
        self._idle.append(wire)

    def _has_room(self) -> bool:
        return len(self._alive) < self._size or len(self) < self._size

    def _admit(self) -> Wire:
        wire = Wire(self._dialect, self._generation)
        self._alive.add(wire)
        return wire


def connect(wire: Wire, endpoint: Endpoint, deadline: float) -> str:
    """Open a connection until the time `deadline` (monotonic), and return the name of the history that it leads to."""
    try:
        return wire.connect(endpoint, deadline)
    except (BackendError, ConfigError):
        raise
    except wire.breaks as error:
        raise endpoint.not_greeted(error) from error


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


on_fork(in_child=_after_fork)
