"""What is wrong with a cache, if anything: its engine, loads that hang, settings that nothing uses."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nearcache._io.port import name_of


@dataclass(frozen=True, slots=True)
class Health:
    """What a cache says of itself; `ok`, and true, if nothing is wrong.

    `engine`: whether the engine answers, with the `error` if it does not. `stuck_loaders`: how many loads of each
    loader run beyond their deadline in this process. `unused_ttl_classes`: classes of data that are set by a variable,
    and that no call has named yet.

    `coherent`: whether every change is announced to this process, so that near values are served until they expire or
    change; None where it keeps none that others may change. It has been so for `coherent_seconds`. If it is not, near
    values are served for `staleness` only, and `incoherence` says why.

    `silent`: for how many seconds no call of this process was answered by the engine; 0 if the last one was.

    `queued`: how many keys and tags the engine has still to be told of, because it did not answer or refused.
    """

    engine: bool
    error: str | None
    stuck_loaders: Mapping[str, int] = field(default_factory=dict[str, int])
    unused_ttl_classes: tuple[str, ...] = ()
    coherent: bool | None = None
    coherent_seconds: float = 0.0
    incoherence: str | None = None
    queued: int = 0
    silent: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the engine answers and no loader is stuck."""
        return self.engine and not self.stuck_loaders

    def __bool__(self) -> bool:
        return self.ok


class Watch:
    """The loads that run now, and until when each should have ended (monotonic)."""

    __slots__ = ("_loads", "_numbers")

    def __init__(self) -> None:
        self._loads: dict[int, tuple[str, float]] = {}
        self._numbers = itertools.count()

    @contextmanager
    def over(self, loader: Callable[..., Any], until: float) -> Generator[None]:
        """Watch the load that runs inside."""
        number = next(self._numbers)
        self._loads[number] = (name_of(loader), until)
        try:
            yield
        finally:
            self._loads.pop(number, None)

    def stuck(self) -> Mapping[str, int]:
        """Return how many loads of each loader are overdue."""
        now = time.monotonic()
        return dict(Counter(name for name, until in self._loads.copy().values() if until < now))

    def after_fork(self) -> None:
        """Forget the loads of the parent process."""
        self._loads = {}
