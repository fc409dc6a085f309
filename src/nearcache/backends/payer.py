"""A thread that repeats invalidations until the engine has acknowledged them, where nobody listens to that engine.

It starts when something is owed and ends when nothing is. Without it they wait for the next call.
"""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nearcache._core.fork import on_fork
from nearcache._core.weak import weakly
from nearcache._io.blocking import drive
from nearcache.backends.base import Backend
from nearcache.backends.registry import BackendSpec
from nearcache.errors import BackendError

PAUSE: Final = 1.0
"""Seconds between two tries, and before the first."""


class Payer:
    """The thread, the same for both flavours.

    `backend` makes what blocks while it speaks to the engine; it is told what says whether the thread is to end.
    """

    def __init__(self, spec: BackendSpec, backend: Callable[[Callable[[], bool]], Backend]) -> None:
        self._owed_longest = spec.owed_longest
        self._settling = spec.settling
        self._backend = backend
        self._lock = threading.RLock()
        self._ended: threading.Event | None = None
        """What ends the thread that runs."""
        _all.add(self)
        spec.coherence.seek = spec.coherence.owing = weakly(self.start)

    def start(self) -> None:
        """Start to repeat what is owed, in the background, unless somebody does, or nothing is."""
        if self._owed_longest() is not None:
            with self._lock:
                if self._ended is None:
                    self._start()

    def _start(self) -> None:
        self._ended = ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,), name="nearcache-payer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads: the next call pays
            self._ended = None
        except BaseException:
            self.stop()  # interrupted: nobody knows whether it has started
            raise

    def stop(self) -> None:
        """End the thread; the next `start` begins anew."""
        with self._lock:
            ended, self._ended = self._ended, None
        if ended is not None:
            ended.set()

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has no thread."""
        self._lock, self._ended = threading.RLock(), None

    # In the thread

    def _run(self, ended: threading.Event) -> None:
        try:
            self._repeat(ended)
        finally:
            with self._lock:
                if self._ended is ended:
                    self._ended = None
                    self.start()  # something may have come to be owed since it was looked

    def _repeat(self, ended: threading.Event) -> None:
        backend = self._backend(ended.is_set)
        settle = self._settling(backend)
        while (first := self._owed_longest()) is not None and not ended.wait(PAUSE):
            if self._owed_longest() is first:  # no call came by, which repeats it before it writes anything
                with suppress(BackendError):  # which the cache has told of already
                    drive(settle())
        drive(backend.close())


_all: "weakref.WeakSet[Payer]" = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each.after_fork()


on_fork(in_child=_after_fork)
