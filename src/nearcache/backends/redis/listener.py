"""One thread and one connection per process and engine that hear what others say, and keep leases alive meanwhile.

The connection subscribes to the process's inbox, where those who end a lease tell those who wait for it. It speaks
RESP3, so that ordinary commands can be sent on it too. Both flavours share it: a wake-up reaches a thread through its
lock and a task through its event loop. Without it everything works, only slower: who waits looks again once per lease,
and a load that outlives its lease is not stored.
"""

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from nearcache._core.fork import on_fork
from nearcache.backends.redis.connect import Command, Route, dial
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.wire import INCOMPLETE, NONSENSE, pack, reader
from nearcache.errors import BackendUnavailableError, CacheError
from nearcache.near.inbox import Inbox

CHUNK: Final = 65_536
SILENCES: Final = 3
"""Ticks without a word from the engine after which the connection counts as broken."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to connect: doubled up to the longest."""


class _Life:
    """One run of the thread, from its start until it is told to end."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.sock: socket.socket | None = None
        self.heard = False
        """Whether the engine has let the present connection subscribe."""

    def end(self) -> None:
        self.ended.set()
        if (sock := self.sock) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread


class Listener:
    """The inbox of a process on one engine, and the leases it keeps alive; opens nothing before it is needed.

    `life` is how many seconds a lease lives; it is renewed every third of that. `stopped` is called when the connection
    is given up.
    """

    def __init__(self, route: Route, namespace: str, timeout: float, life: float, stopped: Callable[[], None]) -> None:
        self.inbox: Inbox = Inbox()
        self._route = route
        self._namespace = namespace
        self._timeout = timeout
        self._lease = life
        self._stopped = stopped
        self._life: _Life | None = None
        self._listening = False
        self._begin()
        _listeners.add(self)

    def channel(self) -> str:
        """Return the channel of this process, "" while nobody listens on it; starts to listen."""
        if not self._listening and self._life is None:
            self._start()
        return self._channel if self._listening else ""

    def hold(self, key: str, token: str, until: float) -> None:
        """Renew the lease of an engine key until the time `until` (monotonic) at most; starts to listen."""
        self._held[token] = (key, until)
        if self._life is None:
            self._start()

    def let_go(self, token: str) -> None:
        """Renew a lease no longer."""
        self._held.pop(token, None)

    def stop(self) -> None:
        """End the thread and its connection; the next `channel` starts anew."""
        with self._lock:
            life = self._life
            self._life, self._listening = None, False
        if life is not None:
            life.end()
            self.inbox.stir()
            self._stopped()

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has no thread and must not speak on its parent's connection."""
        if self._life is not None and self._life.sock is not None:
            self._life.sock.close()
        self._life, self._listening = None, False
        self.inbox.after_fork()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._channel = f"{self._namespace}~i:{self.inbox.name}"
        self._held: dict[str, tuple[str, float]] = {}

    def _start(self) -> None:
        with self._lock:
            if self._life is not None:
                return
            self._life = life = _Life()
        thread = threading.Thread(target=self._run, args=(life,), name="nearcache-listener", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._life = None

    # In the thread

    def _run(self, life: _Life) -> None:
        pause = FIRST_PAUSE
        while not life.ended.is_set():
            with contextlib.suppress(CacheError, OSError, *NONSENSE):
                self._listen(life)
            pause = FIRST_PAUSE if life.heard else min(2 * pause, LONGEST_PAUSE)
            life.heard = False
            if self._life is life:
                self._listening = False
            life.ended.wait(pause)

    def _listen(self, life: _Life) -> None:
        endpoint = self._route.endpoint()
        life.sock = sock = dial(endpoint, time.monotonic() + self._timeout)
        try:
            if life.ended.is_set():
                self._stopped()  # a route may have started the engine for a listener that is not wanted any more
                return
            greeting = endpoint.greeting(protocol=3)
            self._converse(life, _Line(sock), [*greeting, ("SUBSCRIBE", self._channel)])
        finally:
            sock.close()

    def _converse(self, life: _Life, line: "_Line", greeting: list[Command]) -> None:
        line.send(greeting)
        tick, silences = self._lease / 3, 0
        due = time.monotonic() + tick
        while not life.ended.is_set():
            replies = line.receive(due)
            for reply in replies:
                self._hear(life, reply)
            silences = 0 if replies else silences
            if time.monotonic() >= due:
                due, silences = time.monotonic() + tick, silences + 1
                if silences > SILENCES:
                    return
                line.send([*self._renewals(), ("PING",)])

    def _hear(self, life: _Life, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise BackendUnavailableError(f"the engine refused to be listened to: {str(reply).partition(' ')[0]}")
        if not isinstance(reply, hiredis.PushNotification):
            return
        kind, *rest = cast(list[bytes], list(reply))
        if kind == b"subscribe":
            life.heard = True
            self._listening = self._life is life
            self.inbox.stir()
        elif kind == b"message":
            outcome, token, key = rest[1].decode("utf-8", "replace").split(" ", 2)
            self.inbox.deliver(key, token, outcome)

    def _renewals(self) -> list[Command]:
        now, text = time.monotonic(), script("renew").text
        for token, (_, until) in list(self._held.items()):
            if until <= now:
                self.let_go(token)
        return [
            ("EVAL", text, "2", key, lease_of(key), token, self._renewed_for(until - now))
            for token, (key, until) in list(self._held.items())
        ]

    def _renewed_for(self, left: float) -> str:
        """Return for how long a lease is renewed: never beyond its deadline, or a load that hangs would hold others up
        for a whole lease more.
        """
        return str(max(1, int(min(self._lease, left) * 1000)))


class _Line:
    """A blocking connection on which replies and messages arrive in any order."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = reader()

    def send(self, commands: list[Command]) -> None:
        self._sock.settimeout(None)
        self._sock.sendall(pack(commands))

    def receive(self, until: float) -> list[Any]:
        """Return what arrives first, or nothing at the time `until`."""
        self._sock.settimeout(max(0.001, until - time.monotonic()))
        try:
            data = self._sock.recv(CHUNK)
        except TimeoutError:
            return []
        if not data:
            raise ConnectionResetError("the engine closed the connection")
        self._reader.feed(data)
        replies: list[Any] = []
        while (reply := self._reader.gets()) is not INCOMPLETE:
            replies.append(reply)
        return replies


def lease_of(key: str) -> str:
    """Return the name of the lease of an engine key: in the key's own slot of a cluster."""
    return f"{{{key}}}~l"


def waiters_of(key: str) -> str:
    """Return the name of the set of those who wait for an engine key's lease."""
    return f"{{{key}}}~w"


_listeners: "weakref.WeakSet[Listener]" = weakref.WeakSet()


def _after_fork() -> None:
    for listener in list(_listeners):
        listener.after_fork()


on_fork(in_child=_after_fork)
