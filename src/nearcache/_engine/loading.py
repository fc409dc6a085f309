"""What a loader can say about the load it is part of: `nearcache.loading()`."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from nearcache._core.missing import MISS, Missing
from nearcache._core.ttl import TTL
from nearcache.errors import CacheError
from nearcache.near.flights import Flight


class Loading:
    """The load that the running loader is part of. A batch loader speaks for all its items.

    `ttl`: how long the result is fresh, instead of what was asked for. `tags`: names to add to those of the result.
    `stale`: the value that this load is to replace, or None.
    """

    __slots__ = ("_flights", "_old", "stored", "tags", "ttl")

    def __init__(self, flights: Sequence[Flight] = (), old: Any = MISS) -> None:
        self.ttl: TTL | None = None
        self.tags: set[str] = set()
        self.stored: bool = True
        self._flights: Sequence[Flight] = flights
        self._old = old

    @property
    def over(self) -> bool:
        """Whether the load has ended: an interrupt may have kept its caller from taking note of that."""
        return bool(self._flights) and all(flight.outcome is not None for flight in self._flights)

    @property
    def stale(self) -> Any:
        """The value that is no longer fresh, if it is kept, else None."""
        return None if isinstance(self._old, Missing) else self._old

    def not_modified(self) -> Any:
        """Return the stale value, for the loader to return: it is fresh again from now on.

        Raises `CacheError` if there is none.
        """
        if isinstance(self._old, Missing):
            raise CacheError("there is no stale value to return: nothing was cached, or stale and fail_safe are off")
        return self._old

    def do_not_store(self) -> None:
        """Return this load's result to those who wait for it, and store nothing."""
        self.stored = False


_loading: ContextVar[Loading | None] = ContextVar("nearcache_loading", default=None)


def loading() -> Loading:
    """Return what the running loader can say about its load.

    >>> from nearcache import Cache, loading
    >>> cache = Cache("memory://")
    >>> @cache.cached("rates:{currency}", ttl="1h")
    ... def rate(currency: str) -> float:
    ...     loading().tags.add("rates")
    ...     return 1.5
    >>> rate("EUR")
    1.5
    >>> cache.invalidate_tags("rates")

    Where the cache is turned off or bypassed, nobody listens to what the function says. Raises `CacheError` where no
    load runs: also in threads that have no copy of the loader's context.
    """
    load = _loading.get()
    if load is None or load.over:
        raise CacheError("loading() is for loaders: no load is running here, or not in this thread's context")
    return load


@contextmanager
def inside(load: Loading) -> Generator[Loading]:
    """Let the code that runs inside find this load."""
    token = _loading.set(load)
    try:
        yield load
    finally:
        with suppress(ValueError):  # a load that nobody finished is closed by the garbage collector, anywhere
            _loading.reset(token)
