"""From a URL to an engine: which module builds the backend of which scheme, imported on first use."""

import importlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, cast

from nearcache._core.clock import EngineTime
from nearcache._core.urls import scheme_of
from nearcache.backends.base import Backend
from nearcache.errors import ConfigError
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from nearcache.near.view import View
from nearcache.options import Bus

T = TypeVar("T")
Flavour = Literal["sync", "async"]
"""Whether a backend's methods block (and never suspend) or await."""


def _nothing_near() -> Coherence:
    return Coherence(Store(Limit(entries=0)), Flights(), time.monotonic, 1.0, wanted=False)


async def _nothing_owed() -> None:
    pass


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What a backend is built from; building opens nothing.

    `pool_timeout` is how many seconds a call may wait for a free connection, `timeout` how many it then has to connect,
    send and receive. `enveloped` says whether records start with the header of
    `codecs.envelope`.
    """

    url: str = field(repr=False)
    namespace: str
    pool_min: int = 5
    pool_max: int = 20
    pool_timeout: float = 5.0
    timeout: float = 1.0
    time: EngineTime = field(default_factory=EngineTime)
    """This process's clock, and what is known of the engine's: one for all backends of a cache, so that they agree."""
    enveloped: bool = True
    view: View = field(default_factory=lambda: View(time.monotonic, 1.0, fixed=True))
    """What this process knows of the namespace's marks; shared like `time`."""
    coherence: Coherence = field(default_factory=_nothing_near)
    """Who is told what changes in the engine; shared like `time`."""
    settling: Callable[[Backend], Callable[[], Coroutine[Any, Any, None]]] = lambda _: _nothing_owed
    """Makes what repeats, over a backend, the invalidations that the engine has not acknowledged or has forgotten."""
    owed_longest: Callable[[], object | None] = lambda: None
    """Returns what stands for the first of these, None if there are none."""
    bus: Bus = "tracking"
    """What announces changes: the engine, or whoever makes them, in a stream."""
    store: Store | None = field(default=None, repr=False)
    """The cache's own store, where it is the engine too (memory://)."""
    common: dict[type, Any] = field(default_factory=dict[type, Any], repr=False)

    def shared(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return what the backends of both flavours share, of a kind, made by the first that asks."""
        return cast(T, self.common[kind] if kind in self.common else self.common.setdefault(kind, make()))


Builder = Callable[[BackendSpec, Flavour], Backend]

SCHEMES: Final[dict[str, str]] = {
    "memory": "nearcache.backends.memory:build",
    "embedded": "nearcache.backends.embedded:build",
    "redis": "nearcache.backends.redis:build",
    "rediss": "nearcache.backends.redis:build",
    "unix": "nearcache.backends.redis:build",
    "redis+sentinel": "nearcache.backends.redis:build",
    "redis+cluster": "nearcache.backends.redis:build",
    "memcached": "nearcache.backends.memcached:build",
    "hazelcast": "nearcache.backends.hazelcast:build",
}
"""The builder of each scheme, as `module:function`."""

EXTRAS: Final[dict[str, str]] = {
    "embedded": "embedded",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "redis+sentinel": "redis",
    "redis+cluster": "redis",
    "hazelcast": "hazelcast",
}
"""The extra of the package that brings the client library of a scheme."""

IN_BASE64: Final = frozenset({"memcached"})
"""The schemes of engines that get keys in base64 which are not plain ASCII, so that these have to be shorter."""


def build(spec: BackendSpec, flavour: Flavour) -> Backend:
    """Build the backend that the URL names, without opening anything.

    Raises `ConfigError` for an unknown scheme or a missing client library.
    """
    return _builder(scheme_of(spec.url) or "")(spec, flavour)


def _builder(scheme: str) -> Builder:
    if scheme not in SCHEMES:
        raise ConfigError(f"url (CACHE_URL): unknown scheme {scheme!r}; it may be one of: {_known()}")
    module, _, function = SCHEMES[scheme].partition(":")
    return cast(Builder, getattr(_import(module, scheme), function))


def _import(module: str, scheme: str) -> object:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "nearcache":
            raise
        extra = EXTRAS.get(scheme, "all")
        raise ConfigError(f'{scheme}:// needs the package {error.name}: pip install "nearcache[{extra}]"') from error


def _known() -> str:
    return ", ".join(f"{scheme}://" for scheme in SCHEMES)
