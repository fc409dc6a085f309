"""The parts of one cache, put together from its options: what both flavours share, and one engine for each."""

import logging
import weakref
from collections.abc import Iterable, Mapping
from typing import cast

from nearcache._core.clock import Clock, EngineTime
from nearcache._core.events import Observer
from nearcache._core.fork import on_fork
from nearcache._core.urls import scheme_of
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.engine import Engine
from nearcache._io.blocking import BlockingIo
from nearcache._io.port import Flavour, Io
from nearcache.backends.registry import IN_BASE64, BackendSpec, build
from nearcache.errors import ConfigError
from nearcache.observe.logging import Logging
from nearcache.observe.prometheus import Prometheus
from nearcache.observe.stats import Stats
from nearcache.options import Options

logger = logging.getLogger("nearcache")

_all: "weakref.WeakSet[Parts]" = weakref.WeakSet()


class Parts:
    """What a `Cache` and its async twin share."""

    def __init__(self, options: Options, observers: Iterable[Observer] | None, clock: Clock) -> None:
        _check_parts(observers, clock)
        scheme = scheme_of(options.url)
        self.core: Core = Core(options, clock, in_memory=scheme == "memory", in_base64=scheme in IN_BASE64)
        self.stats: Stats = Stats(self.core.near)
        self.core.listen((self.stats, *(self._usual_observers() if observers is None else observers)))
        core = self.core
        self._spec = BackendSpec(
            url=options.url,
            namespace=options.namespace,
            pool_min=options.pool_min,
            pool_max=options.pool_max,
            pool_timeout=options.pool_timeout,
            timeout=options.timeout,
            time=EngineTime(clock),
            enveloped=self.core.codec.enveloped,
            view=self.core.view,
            coherence=self.core.coherence,
            settling=lambda backend: Commands(core, backend, spares=False).settle,
            owed_longest=core.owed_longest,
            bus=options.bus,
            store=self.core.records,
        )
        self._engines: dict[Flavour, Engine] = {}
        _all.add(self)

    def engine(self, flavour: Flavour) -> Engine:
        """Return the engine of a flavour; both are over the same near tier. Opens nothing."""
        if flavour not in self._engines:
            self._engines.setdefault(flavour, Engine(self.core, _io(flavour), build(self._spec, flavour)))
        return self._engines[flavour]

    def _usual_observers(self) -> tuple[Observer, ...]:
        core, namespace = self.core, self.core.options.namespace
        return Prometheus(namespace, core.near, loads=core.loads, proofs=core.coherence), Logging(namespace)


def _io(flavour: Flavour) -> Io:
    if flavour == "sync":
        return BlockingIo()
    from nearcache._io.aio import AsyncIo  # here, so that blocking programs need not import asyncio

    return AsyncIo()


def _check_parts(observers: object, clock: object) -> None:
    if observers is not None and not isinstance(observers, Iterable):
        raise ConfigError(f"observers is of type {type(observers).__name__}; it must be a list of observers, or ()")
    for each in cast(Iterable[object], observers or ()):
        if not callable(getattr(each, "on", None)):
            raise ConfigError(f"observers has one of type {type(each).__name__}; an observer has a method on(event)")
    if not callable(clock):
        raise ConfigError(f"clock is of type {type(clock).__name__}; it must be a function that returns seconds")


_warned = False


def warn_of_workers(options: Options, environ: Mapping[str, str]) -> None:
    """Say once what several workers will not share, if the cache is in memory only because nobody said otherwise."""
    workers = environ.get("WEB_CONCURRENCY", "")
    if options.defaulted and workers.isdigit() and int(workers) > 1:
        _warn(f"WEB_CONCURRENCY is {workers}")


def _warn(why: str) -> None:
    global _warned  # noqa: PLW0603 -- once per process is the point
    if not _warned:
        _warned = True
        logger.warning(
            "%s, and no CACHE_URL is set, so each process caches in its own memory: what one invalidates, the others "
            "go on serving. Set CACHE_URL (embedded:// needs no server), or set it to memory:// on purpose.",
            why,
        )


def _after_fork_in_child() -> None:
    for parts in list(_all):
        parts.core.after_fork()


def _before_fork() -> None:
    if any(parts.core.options.defaulted for parts in list(_all)):
        _warn("this process forks")


on_fork(in_child=_after_fork_in_child, before=_before_fork)
