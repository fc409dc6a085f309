"""The blocking way to a cluster's maps: one client for all threads of a process."""

import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from nearcache._core.fork import on_fork
from nearcache.backends.hazelcast.errors import failed, interrupt_in, not_in_time
from nearcache.backends.hazelcast.library import PATIENCE, Opened, open_blocking
from nearcache.backends.hazelcast.maps import Call, Place
from nearcache.errors import BackendError, BackendUnavailableError


class BlockingMaps:
    """The port, blocking: its methods never suspend."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._reset()
        _all.add(self)

    async def call(self, calls: Sequence[Call], until: float) -> list[Any]:
        """Send all, then wait for all."""
        try:
            opened = self.opened(until)
        except BackendError as error:
            return [error] * len(calls)
        begun = [self._begun(opened, call) for call in calls]
        return [self._result(each, call, until) for each, call in zip(begun, calls, strict=True)]

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let everybody go on at once: threads are few."""
        return nullcontext()

    def later(self, call: Call, until: float) -> "Later":
        """Send a call that may take as long as it likes; raises `BackendError` if that cannot be done by `until`."""
        return Later(self, call, self._begun(self.opened(until), call))

    async def open(self, until: float) -> None:
        """Connect ahead of the first use."""
        self.opened(until)

    def lent(self, ended: Callable[[], bool]) -> "BlockingMaps":
        """Return the same maps for a thread that is to open no client any more once `ended` says so."""
        return _LentMaps(self, self._place, ended)

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        with self._lock:
            _leave(self._openings)

    def after_fork(self) -> None:
        """Start empty in a forked child: the thread that would bring answers has stayed in the parent."""
        _abandoned.append(self._openings)
        self._end.detach()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._openings: list[_Opening] = []
        self._end = weakref.finalize(self, _leave, self._openings)
        self._end.atexit = False

    def opened(self, until: float, ended: Callable[[], bool] = bool) -> Opened:
        """Return the client; raises `BackendError` if it is not there by `until`, or not at all and `ended` says so."""
        opening = self._openings[-1] if self._openings else None
        if opening is None or opening.over:
            opening = self._another(ended)
        return opening.wait(until)

    def _another(self, ended: Callable[[], bool]) -> "_Opening":
        with self._lock:
            if not self._openings or self._openings[-1].over:
                if ended():
                    raise BackendUnavailableError("nothing is opened any more for who was told to end").undone()
                _leave(self._openings)
                self._openings.append(_Opening(self._place))
            return self._openings[-1]

    def _begun(self, opened: Opened, call: Call) -> "_Begun | BackendError":
        handled = sys.exception()
        try:
            return _Begun(opened.begin(call))
        except BaseException as error:  # noqa: BLE001 -- an interrupt is raised again
            interrupt = interrupt_in(error, handled)
            if interrupt is None:
                return failed(error, call, self._place)
            self._interrupted(opened)
            raise interrupt from None

    def _interrupted(self, opened: Opened) -> None:
        """Use another client from now on: an interrupt may have left a lock of this one that nobody gives back, and
        then nobody gets an answer any more.
        """
        for opening in list(self._openings):
            opening.doubt(opened)

    def _result(self, begun: "_Begun | BackendError", call: Call, until: float) -> Any:
        """Return what a call returned, or its error, by the time `until` (monotonic)."""
        if isinstance(begun, BackendError):
            return begun
        if not begun.waited(until):
            return failed(TimeoutError(), call, self._place)
        return self.told(begun.future, call)

    def told(self, future: Any, call: Call) -> Any:
        """Return what a call has returned, or its error; raises what a signal handler raised inside the client."""
        if future.is_success():
            return future.result()
        error = future.exception()
        if (interrupt := interrupt_in(error, sys.exception())) is not None:
            raise interrupt
        return failed(error, call, self._place)


class _Begun:
    """A call that was sent. Who waits takes no lock of the client, so that an interrupt leaves none behind."""

    def __init__(self, future: Any) -> None:
        self.future = future
        self._gate = threading.Lock()
        self._gate.acquire()
        future.add_done_callback(self._release)

    def waited(self, until: float) -> bool:
        """Wait for the answer; False if it was not in time."""
        return self._gate.acquire(timeout=max(0.0, until - time.monotonic()))

    def _release(self, _: object) -> None:
        self._gate.release()


class Later:
    """A call that nobody waits for yet."""

    def __init__(self, maps: BlockingMaps, call: Call, begun: _Begun | BackendError) -> None:
        self._maps = maps
        self._call = call
        self._begun = begun
        self._told: Callable[[], None] | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return isinstance(self._begun, BackendError) or bool(self._begun.future.done())

    def tell(self, ready: Callable[[], None]) -> None:
        """Have `ready` called when it has ended; only who asked last is told."""
        first, self._told = self._told is None, ready
        if isinstance(self._begun, BackendError) or self.done:
            ready()
        elif first:
            self._begun.future.add_done_callback(self._ready)

    def result(self) -> Any:
        """Return what it returned; raises `BackendError`."""
        result = (
            self._begun if isinstance(self._begun, BackendError) else self._maps.told(self._begun.future, self._call)
        )
        if isinstance(result, BackendError):
            raise result
        return result

    def _ready(self, _: object) -> None:
        if self._told is not None:
            self._told()


class _LentMaps(BlockingMaps):
    """The client of another."""

    def __init__(self, owner: BlockingMaps, place: Place, ended: Callable[[], bool]) -> None:
        super().__init__(place)
        self._owner = owner
        self._ended = ended

    def opened(self, until: float, ended: Callable[[], bool] = bool) -> Opened:
        """Return the owner's client."""
        return self._owner.opened(until, lambda: self._ended() or ended())


class _Opening:
    """A client that is opened in a thread of its own, since nobody can tell how long that takes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._began = time.monotonic()
        self._ready = False
        self._gate = threading.Lock()
        """Held until it is ready. No event, whose own lock an interrupt may leave behind."""
        self._gate.acquire()
        self._lock = threading.Lock()
        self._left = False
        self._doubted = False
        self._client: Any = None
        """What is being opened."""
        self._opened: Opened | None = None
        self._error: BackendError | None = None
        threading.Thread(target=self._open, name="nearcache-hazelcast", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether nothing is to be expected of it any more."""
        if self._opened is not None:
            return self._doubted or not self._opened.running
        return self._ready or time.monotonic() > self._began + max(PATIENCE, self._place.timeout)

    def wait(self, until: float) -> Opened:
        """Return the client once it is there; raises `BackendError` if it is not in time."""
        if not self._ready:
            if not self._gate.acquire(timeout=max(0.0, until - time.monotonic())):
                raise not_in_time(self._place)
            self._gate.release()
        if self._opened is None:
            raise failed(self._error or ConnectionError(), None, self._place)
        return self._opened

    def doubt(self, opened: Opened) -> None:
        """Have another client opened if this is the one that was opened here."""
        self._doubted = self._doubted or opened is self._opened

    def leave(self) -> None:
        """Close the client, now or when it is there. Nobody waits longer for it than for a call: it may hang."""
        with self._lock:
            self._left = True
            client, is_open = self._client, self._opened is not None
        if client is not None:
            closing = threading.Thread(target=self._close, args=(client,), name="nearcache-hazelcast", daemon=True)
            closing.start()
            closing.join(self._place.timeout if is_open and not self._doubted else 0.0)

    def _close(self, client: Any) -> None:
        if self._doubted:
            time.sleep(self._place.timeout)  # others may wait for answers
        client.shutdown()

    def _made(self, client: Any) -> None:
        self._client = client

    def _open(self) -> None:
        try:
            opened = open_blocking(self._place, self._made)
        except Exception as error:  # noqa: BLE001 -- it is told to whoever waits
            self._error = failed(error, None, self._place)
        else:
            with self._lock:
                self._opened = opened
                left = self._left
            if left:
                opened.client.shutdown()
        finally:
            self._ready = True
            self._gate.release()


def _leave(openings: list[_Opening]) -> None:
    while openings:
        openings.pop().leave()


_all: "weakref.WeakSet[BlockingMaps]" = weakref.WeakSet()
_abandoned: list[list[_Opening]] = []
"""Clients of a parent process: kept, so that nothing of them is closed here."""


def _after_fork() -> None:
    for maps in list(_all):
        maps.after_fork()


on_fork(in_child=_after_fork)
