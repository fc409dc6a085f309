"""How much of the cache the running code wants: everything, no reads, or nothing. Kept per task and thread."""

import enum
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar


class Mode(enum.Enum):
    """What the cache may do for the code that runs now."""

    NORMAL = "normal"
    BYPASS = "bypass"
    """Read nothing; writes and the results of loads are still stored."""
    DISABLED = "disabled"
    """Read nothing and store nothing; invalidations still reach the engine, or it would serve old values afterwards."""
    OFF = "off"
    """Caching is turned off by configuration: as if there were no engine."""


_modes: ContextVar[Mapping[int, Mode]] = ContextVar("nearcache_modes")


class Modes:
    """The mode of one cache."""

    __slots__ = ("default",)

    def __init__(self, enabled: bool) -> None:
        self.default: Mode = Mode.NORMAL if enabled else Mode.OFF
        """The mode outside of every block."""

    def now(self) -> Mode:
        """Return the mode of the running code."""
        return _modes.get({}).get(id(self), self.default) if self.default is Mode.NORMAL else Mode.OFF

    @contextmanager
    def using(self, mode: Mode, enter: Callable[[], None], leave: Callable[[], None]) -> Generator[None]:
        """Run the code inside in another mode; an inner mode never gives back what an outer one took away."""
        inner = Mode.DISABLED if self.now() is Mode.DISABLED else mode
        token = _modes.set({**_modes.get({}), id(self): inner})
        enter()
        try:
            yield
        finally:
            leave()
            _modes.reset(token)
