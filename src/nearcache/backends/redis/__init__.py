"""Redis and Valkey: `redis://`, `rediss://`, `unix://`, `redis+sentinel://` and `redis+cluster://`."""

import functools
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from nearcache._core.urls import scheme_of
from nearcache.backends.redis import dialect, replicas, topology
from nearcache.backends.redis.ask import at
from nearcache.backends.redis.backend import RedisBackend
from nearcache.backends.redis.cluster import AwaitingCluster, BlockingCluster
from nearcache.backends.redis.connect import Endpoint
from nearcache.backends.redis.leases import RedisLeases
from nearcache.backends.redis.line import Line
from nearcache.backends.redis.listener import Ears, Listener, Speaker
from nearcache.backends.redis.listeners import Listeners
from nearcache.backends.redis.names import marks_of
from nearcache.backends.redis.replicas import Arrivals, Lag, RedisReplicas
from nearcache.backends.redis.sentinel import SCHEME, Sentinels
from nearcache.backends.redis.tooling import ClusterAdmin, ClusterScan
from nearcache.backends.redis.topology import Topology
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.backends.transport.aio import AwaitingLink
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.dial import Route
from nearcache.backends.transport.dialect import Dialect
from nearcache.backends.transport.history import History, history
from nearcache.backends.transport.link import Link

__all__ = ["RedisBackend", "build", "heard", "link", "listener"]

_KINDS: Final[dict[Flavour, Callable[[Dialect, Route[Endpoint], BackendSpec, History], Link]]] = {
    "sync": BlockingLink,
    "async": AwaitingLink,
}

AnyBackend = TypeVar("AnyBackend", bound=RedisBackend)


def build(spec: BackendSpec, flavour: Flavour) -> RedisBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    url, replicated = replicas.asked_for(spec.url)
    spec = replace(spec, url=url)
    if replicated:
        return _replicated(spec, flavour)
    return _clustered(spec, flavour) if scheme_of(url) == topology.SCHEME else _single(spec, flavour)


def _single(spec: BackendSpec, flavour: Flavour) -> RedisBackend:
    return heard(RedisBackend(link(spec, flavour, _route(spec)), listener(spec, _route(spec)), spec))


def _replicated(spec: BackendSpec, flavour: Flavour) -> RedisBackend:
    replicas.check(spec)
    lag = spec.shared(Lag, lambda: Lag(spec.time.clock, spec.coherence.budget))
    history(spec, RedisBackend.name).watch(lag)
    backend = _single(spec, flavour)
    backend.replicas = RedisReplicas(backend, lag, functools.partial(_way_to, spec, flavour, lag))
    return backend


def _way_to(spec: BackendSpec, flavour: Flavour, lag: Lag, place: str) -> Link:
    """Make what speaks to the replica at a place."""
    url = _sentinels(spec).url(place) if scheme_of(spec.url) == SCHEME else at(spec.url, place)
    return _KINDS[flavour](dialect, Route(url, Endpoint), replicas.hasty(spec), Arrivals(lag, place))


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


def _route(spec: BackendSpec) -> Route[Endpoint]:
    if scheme_of(spec.url) != SCHEME:
        return Route(spec.url, Endpoint)
    sentinels = _sentinels(spec)
    return Route(sentinels.primary, functools.partial(Endpoint, refused=sentinels.doubt))


def _sentinels(spec: BackendSpec) -> Sentinels:
    return spec.shared(Sentinels, lambda: Sentinels(spec.url, spec.timeout / 2))


def link(spec: BackendSpec, flavour: Flavour, route: Route[Endpoint], name: str = RedisBackend.name) -> Link:
    """Make what speaks to a backend's engine, without opening anything."""
    return _KINDS[flavour](dialect, route, spec, history(spec, name))


def listener(
    spec: BackendSpec,
    route: Route[Endpoint],
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
