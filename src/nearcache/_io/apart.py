"""Blocking loads in threads of their own: those that may have to be left, and those that outlive the call.

Each loader has a bulkhead: so many threads at most, and one that hangs takes them from nobody else. Threads end when
there is nothing to do. They are daemons: a loader that hangs does not keep the program from ending.
"""

import contextvars
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Final

from nearcache._core.fork import on_fork

MOST_THREADS: Final = 16
"""Threads of one loader."""

Work = Callable[[], object]


class _Bulkhead:
    """The threads of one loader, and what waits for one."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running: dict[int, float] = {}
        self.waiting: deque[tuple[Work, float]] = deque()


class Apart:
    """All bulkheads of this process, by loader. Safe to use from any thread."""

    def __init__(self) -> None:
        self._number: int = 0
        self._lock = threading.RLock()
        self._bulkheads: dict[Hashable, _Bulkhead] = {}

    def run(self, loader: Hashable, work: Work, until: float) -> None:
        """Do the work in a thread of this loader, with a copy of the caller's context variables.

        It waits for its turn if all threads are taken, and counts as stuck after the time `until` (monotonic).
        """
        context = contextvars.copy_context()
        with self._lock:
            bulkhead = self._bulkheads.setdefault(loader, _Bulkhead())
            bulkhead.waiting.append((lambda: context.run(work), until))
            if len(bulkhead.running) >= MOST_THREADS:
                return
            self._number += 1
            number = self._number
            bulkhead.running[number] = until
        thread = threading.Thread(
            target=self._work, args=(loader, bulkhead, number), name="nearcache-load", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            with self._lock:
                bulkhead.running.pop(number, None)
            raise

    def full(self, loader: Hashable) -> bool:
        """Whether all threads of this loader are taken."""
        bulkhead = self._bulkheads.get(loader)
        return bulkhead is not None and len(bulkhead.running) >= MOST_THREADS

    def stuck(self) -> "Counter[Hashable]":
        """Return how many threads of each loader have not ended in time."""
        now, found = time.monotonic(), Counter[Hashable]()
        with self._lock:
            for loader, bulkhead in self._bulkheads.items():
                if late := sum(until < now for until in bulkhead.running.values()):
                    found[loader] = late
        return found

    def after_fork(self) -> None:
        """Forget all threads: they stayed in the parent process."""
        self._lock = threading.RLock()
        self._bulkheads = {}

    def _work(self, loader: Hashable, bulkhead: _Bulkhead, number: int) -> None:
        while True:
            with self._lock:
                if not bulkhead.waiting:
                    del bulkhead.running[number]
                    if not bulkhead.running and self._bulkheads.get(loader) is bulkhead:
                        del self._bulkheads[loader]
                    return
                work, bulkhead.running[number] = bulkhead.waiting.popleft()
            work()


APART: Final = Apart()

on_fork(in_child=APART.after_fork)
