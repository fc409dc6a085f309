"""Which blocks the running code is in, and how much of the cache it wants: everything, no reads, or nothing.

Kept per task and thread.
"""

import enum
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Mode(enum.Enum):
    """What the cache may do for the code that runs now."""

    NORMAL = "normal"
    BYPASS = "bypass"
    """Read nothing; writes and the results of loads are still stored."""
    DISABLED = "disabled"
    """Read nothing and store nothing; invalidations still reach the engine, or it would serve old values afterwards."""
    OFF = "off"
    """Caching is turned off by configuration: as if there were no engine."""


_open: ContextVar[Mapping[int, Any]] = ContextVar("nearcache_blocks")


class Blocks(Generic[T]):
    """The blocks of one kind, of one cache."""

    __slots__ = ()

    def now(self) -> T | None:
        """Return what was given for the innermost block that the running code is in."""
        return _open.get({}).get(id(self))

    @contextmanager
    def using(self, block: T, enter: Callable[[], None], leave: Callable[[], None]) -> Generator[None]:
        """Run the code inside in a block; `enter` and `leave` are called around it."""
        before = _open.get({})
        enter()
        try:
            _open.set({**before, id(self): block})
            yield
        finally:
            _open.set(before)  # first, and without a call that an interrupt could keep from beginning
            leave()


class Modes:
    """The mode of one cache."""

    __slots__ = ("_blocks", "default")

    def __init__(self, enabled: bool) -> None:
        self.default: Mode = Mode.NORMAL if enabled else Mode.OFF
        """The mode outside of every block."""
        self._blocks: Blocks[Mode] = Blocks()

    def now(self) -> Mode:
        """Return the mode of the running code."""
        return (self._blocks.now() or self.default) if self.default is Mode.NORMAL else Mode.OFF

    def using(self, mode: Mode, enter: Callable[[], None], leave: Callable[[], None]) -> AbstractContextManager[None]:
        """Run the code inside in another mode; an inner mode never gives back what an outer one took away."""
        inner = Mode.DISABLED if self.now() is Mode.DISABLED else mode
        return self._blocks.using(inner, enter, leave)
