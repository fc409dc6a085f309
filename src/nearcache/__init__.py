"""nearcache: a distributed cache with a coherent in-process tier, for threads and asyncio."""

from nearcache._core.entry import Entry
from nearcache._core.events import Observer
from nearcache._core.missing import MISS
from nearcache._core.queued import Queued
from nearcache._engine.health import Health
from nearcache._engine.held import Held
from nearcache._engine.loading import loading
from nearcache._engine.session import Session
from nearcache._engine.verdict import Verdict
from nearcache._engine.warm import Warmed
from nearcache.cache import AsyncCache, Cache
from nearcache.decorate import AsyncCachedFunction, CachedFunction
from nearcache.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    BatchError,
    CacheError,
    CodecError,
    ConfigError,
    InvalidKeyError,
    LimitExceededError,
    LoaderTimeoutError,
    LoadFailedError,
    LockLostError,
    LockNotAcquiredError,
    SessionLostError,
    UnsupportedError,
)
from nearcache.limits import AsyncLimiter, Limiter
from nearcache.observe.stats import StatsView

__all__ = [  # noqa: RUF022 -- by topic
    # caches
    "AsyncCache",
    "Cache",
    # what they return
    "MISS",
    "AsyncCachedFunction",
    "AsyncLimiter",
    "CachedFunction",
    "Entry",
    "Health",
    "Held",
    "Limiter",
    "Queued",
    "Session",
    "StatsView",
    "Verdict",
    "Warmed",
    # for loaders
    "loading",
    # errors
    "BackendError",
    "BackendTimeoutError",
    "BackendUnavailableError",
    "BatchError",
    "CacheError",
    "CodecError",
    "ConfigError",
    "InvalidKeyError",
    "LimitExceededError",
    "LoadFailedError",
    "LoaderTimeoutError",
    "LockLostError",
    "LockNotAcquiredError",
    "SessionLostError",
    "UnsupportedError",
    # for extensions
    "Observer",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("nearcache")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
