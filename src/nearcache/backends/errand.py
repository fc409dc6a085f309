"""A thread of the background that lives while there is something to do, and begins anew after a fork."""

import threading
import weakref
from abc import ABC, abstractmethod
from typing import ClassVar

from nearcache._core.fork import on_fork


class Errand(ABC):
    """The thread, the same for both flavours; it is started by whoever has something for it."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ended: threading.Event | None = None
        """What ends the thread that runs."""
        _all.add(self)

    @property
    @abstractmethod
    def _needed(self) -> bool:
        """Whether there is something to do."""

    @abstractmethod
    def _work(self, ended: threading.Event) -> None:
        """Do it until there is no more, or the thread is to end."""

    def start(self) -> None:
        """Start to work, unless somebody does, or there is nothing to do."""
        if self._needed:
            with self._lock:
                if self._ended is None:
                    self._start()

    def _start(self) -> None:
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,), name=self.name, daemon=True)
        try:
            self._ended = ended
            thread.start()
        except BaseException as error:
            self.stop()  # if it was interrupted, nobody knows whether it has started
            if not isinstance(error, RuntimeError):  # the interpreter is ending, or there are too many threads
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

    def _run(self, ended: threading.Event) -> None:
        try:
            self._work(ended)
        finally:
            with self._lock:
                if self._ended is ended:
                    self._ended = None
                    self.start()  # something may have come since it was looked


_all: "weakref.WeakSet[Errand]" = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each.after_fork()


on_fork(in_child=_after_fork)
