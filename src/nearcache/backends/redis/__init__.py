"""Redis and Valkey: `redis://`, `rediss://`, `unix://`, `redis+sentinel://` and `redis+cluster://`."""

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from nearcache._core.urls import scheme_of
from nearcache.backends.redis import topology
from nearcache.backends.redis.aio import AwaitingLink
from nearcache.backends.redis.backend import RedisBackend
from nearcache.backends.redis.blocking import BlockingLink
from nearcache.backends.redis.cluster import AwaitingCluster, BlockingCluster
from nearcache.backends.redis.connect import Route
from nearcache.backends.redis.history import history
from nearcache.backends.redis.leases import RedisLeases
from nearcache.backends.redis.line import Line
from nearcache.backends.redis.listener import Ears, Listener, Speaker
from nearcache.backends.redis.listeners import Listeners
from nearcache.backends.redis.names import marks_of
from nearcache.backends.redis.sentinel import SCHEME, Sentinels
from nearcache.backends.redis.tooling import ClusterAdmin, ClusterScan
from nearcache.backends.redis.topology import Topology
from nearcache.backends.redis.wire import Link
from nearcache.backends.registry import BackendSpec, Flavour

__all__ = ["RedisBackend", "build", "heard", "link", "listener"]

AnyBackend = TypeVar("AnyBackend", bound=RedisBackend)


def build(spec: BackendSpec, flavour: Flavour) -> RedisBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    if scheme_of(spec.url) == topology.SCHEME:
        return _clustered(spec, flavour)
    return heard(RedisBackend(link(spec, flavour, _route(spec)), listener(spec, _route(spec)), spec))


def _clustered(spec: BackendSpec, flavour: Flavour) -> RedisBackend:
    slots = spec.shared(
        Topology, lambda: Topology(spec.url, spec.timeout / 2, lambda: spec.coherence.forgot(RedisBackend.name))
    )
    home = marks_of(spec.namespace)
    settling = BlockingCluster(slots, spec, home)

    def speak(line: Line, ears: Ears) -> Speaker:
        backend = RedisBackend(settling, ears, spec)
        return Speaker(RedisBackend(line, ears, spec).run, backend.together, spec.settling(backend))

    ears = spec.shared(Listeners, lambda: Listeners(slots, spec, speak))
    kind = BlockingCluster if flavour == "sync" else AwaitingCluster
    way = kind(slots, spec, home)
    backend = heard(RedisBackend(way, ears, spec))
    backend.scan = ClusterScan(way, f"{spec.namespace}:")
    backend.admin = ClusterAdmin(way, backend.together, spec.namespace)
    return backend


def _route(spec: BackendSpec) -> Route:
    if scheme_of(spec.url) != SCHEME:
        return Route(spec.url)
    sentinels = spec.shared(Sentinels, lambda: Sentinels(spec.url, spec.timeout / 2))
    return Route(sentinels.primary, sentinels.doubt)


def link(spec: BackendSpec, flavour: Flavour, route: Route, name: str = RedisBackend.name) -> Link:
    """Make what speaks to a backend's engine, without opening anything."""
    kind = BlockingLink if flavour == "sync" else AwaitingLink
    return kind(route, spec, history(spec, name))


def listener(
    spec: BackendSpec,
    route: Route,
    name: str = RedisBackend.name,
    stopped: Callable[[], None] = lambda: None,
) -> Listener:
    """Return what hears of other processes, the same for both flavours; `stopped` is called when it hangs up."""
    speak, found = functools.partial(speaker, spec), history(spec, name)
    return spec.shared(Listener, lambda: Listener(route, spec, found, speak, RedisLeases.life, stopped))


def speaker(spec: BackendSpec, line: Line, ears: Ears) -> Speaker:
    """Return what speaks to the engine over the line of a listener."""
    backend = RedisBackend(line, ears, spec)
    return Speaker(backend.run, backend.together, spec.settling(backend))


def heard(backend: AnyBackend) -> AnyBackend:
    """Have the listener stop when a backend is dropped; return the backend."""
    # not at exit: a process that ends takes its connections with it
    weakref.finalize(backend, backend.listener.stop).atexit = False
    return backend
