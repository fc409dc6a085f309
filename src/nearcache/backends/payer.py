"""A thread that repeats invalidations until the engine has acknowledged them, where nobody listens to that engine.

It starts when something is owed and ends when nothing is. Without it they wait for the next call.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from nearcache._core.weak import weakly
from nearcache._io.blocking import drive
from nearcache.backends.base import Backend
from nearcache.backends.errand import Errand
from nearcache.backends.registry import BackendSpec
from nearcache.errors import CacheError

PAUSE: Final = 1.0
"""Seconds between two tries, and before the first."""


class Payer(Errand):
    """The thread; where none can be started, the next call pays.

    `backend` makes what blocks while it speaks to the engine; it is told what says whether the thread is to end.
    """

    name: ClassVar[str] = "nearcache-payer"

    def __init__(self, spec: BackendSpec, backend: Callable[[Callable[[], bool]], Backend]) -> None:
        super().__init__()
        self._owed_longest = spec.owed_longest
        self._settling = spec.settling
        self._backend = backend
        spec.coherence.seek = spec.coherence.owing = weakly(self.start)

    @property
    def _needed(self) -> bool:
        return self._owed_longest() is not None

    def _work(self, ended: threading.Event) -> None:
        backend = self._backend(ended.is_set)
        settle = self._settling(backend)
        while (first := self._owed_longest()) is not None and not ended.wait(PAUSE):
            if self._owed_longest() is first:  # no call came by, which repeats it before it writes anything
                with suppress(CacheError):  # which the cache has told of already
                    drive(settle())
        drive(backend.close())
