"""Blocking loads in threads of their own: those that may have to be left, and those that outlive the call.

Each loader has a bulkhead: so many threads at most, and one that hangs takes them from nobody else. Threads end when
there is nothing to do. They are daemons: a loader that hangs does not keep the program from ending.
"""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from nearcache._core.fork import on_fork

MOST_THREADS: Final = 16
"""Threads of one loader."""

Work = Callable[[], object]


class _Bulkhead:
    """The threads of one loader, and what waits for one."""

    __slots__ = ("threads", "waiting")

    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()
        self.waiting: deque[Work] = deque()


class Apart:
    """All bulkheads of this process, by loader. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bulkheads: dict[Hashable, _Bulkhead] = {}

    def run(self, loader: Hashable, work: Work) -> None:
        """Do the work in a thread of this loader, with a copy of the caller's context variables.

        It waits for its turn if all threads are taken.
        """
        context = contextvars.copy_context()
        with self._lock:
            bulkhead = self._bulkheads.setdefault(loader, _Bulkhead())
            bulkhead.waiting.append(lambda: context.run(work))
            if len(bulkhead.threads) < MOST_THREADS:
                self._start(loader, bulkhead)

    def full(self, loader: Hashable) -> bool:
        """Whether all threads of this loader are taken."""
        bulkhead = self._bulkheads.get(loader)
        return bulkhead is not None and len(bulkhead.threads) >= MOST_THREADS

    def after_fork(self) -> None:
        """Forget all threads: they stayed in the parent process."""
        self._lock = threading.RLock()
        self._bulkheads = {}

    def _start(self, loader: Hashable, bulkhead: _Bulkhead) -> None:
        thread = threading.Thread(target=self._work, args=(loader, bulkhead), name="nearcache-load", daemon=True)
        try:
            bulkhead.threads.add(thread)
            thread.start()
        except BaseException:
            bulkhead.threads.discard(thread)  # one whose start was only interrupted notes itself
            raise

    def _work(self, loader: Hashable, bulkhead: _Bulkhead) -> None:
        me = threading.current_thread()
        with self._lock:
            bulkhead.threads.add(me)
        while True:
            with self._lock:
                if not bulkhead.waiting:
                    bulkhead.threads.discard(me)
                    if not bulkhead.threads and self._bulkheads.get(loader) is bulkhead:
                        del self._bulkheads[loader]
                    return
                work = bulkhead.waiting.popleft()
            work()


APART: Final = Apart()

on_fork(in_child=APART.after_fork)
