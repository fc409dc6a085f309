"""What both flavours of a cache have in common: how they are made, and what asks no engine."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from nearcache._core.clock import Clock
from nearcache._core.events import Observer
from nearcache._core.template import template as parsed_template
from nearcache._core.ttl import TTL
from nearcache._core.urls import redacted
from nearcache._engine.engine import Engine
from nearcache._engine.memo import viewing
from nearcache._engine.modes import Mode
from nearcache._io.port import Flavour
from nearcache._parts import Parts, warn_of_workers
from nearcache.codecs.schema import Schema
from nearcache.observe.stats import StatsView
from nearcache.options import UNSET, Duration, Policy, Unset, resolve

T = TypeVar("T")


class BaseCache:
    """What both flavours have in common."""

    _flavour: Flavour
    _other: "BaseCache | None" = None

    def __init__(
        self,
        url: str | Unset = UNSET,
        *,
        namespace: str | Unset = UNSET,
        ttl: TTL | Unset = UNSET,
        near: str | int | Unset | None = UNSET,
        near_copy: str | Unset = UNSET,
        near_snapshot: str | Path | Unset | None = UNSET,
        codec: str | Unset = UNSET,
        secret: str | bytes | Unset | None = UNSET,
        session_keys: Iterable[str | bytes] | Unset = UNSET,
        types: Iterable[type] | Unset = UNSET,
        jitter: float | Unset = UNSET,
        none_ttl: TTL | Unset = UNSET,
        staleness: Duration | Unset = UNSET,
        bus: str | Unset = UNSET,
        stale: Duration | Unset | None = UNSET,
        fail_safe: Duration | Unset | None = UNSET,
        soft_timeout: Duration | Unset | None = UNSET,
        hard_timeout: Duration | Unset = UNSET,
        background: bool | Unset | None = UNSET,
        on_reset: str | Unset = UNSET,
        policy: Policy | Unset = UNSET,
        timeout: Duration | Unset = UNSET,
        pool_min: int | Unset = UNSET,
        pool_max: int | Unset = UNSET,
        pool_timeout: Duration | Unset = UNSET,
        observers: Iterable[Observer] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Make a cache; nothing is opened before the first use.

        An argument beats its `CACHE_*` variable, which beats the default.

        Args:
            url: where the data lives: `memory://` (default), `embedded://`, `redis://`, `rediss://`, `unix://`,
            `redis+sentinel://`, `redis+cluster://`, `memcached://` or `hazelcast://`.
            namespace: the first part of every key in the engine; letters, digits, `_`, `.` and `-`. Default "app".
            ttl: how long values are fresh when a call does not say; seconds, a text such as "5m", or a class of data.
            near: the bound of the in-process tier: a size such as "64MB" (default), a number of entries, or None
            for none.
            near_copy: "copy" (default) gives every reader a mutable value of its own, "share" the same object.
            near_snapshot: the path of a file in which closing leaves what is near for the next process, which reads it
            anew from the engine in batches when it opens the cache. Default None: none. Not on memory://.
            codec: "msgpack" (default), "json" (no envelope, shared with other languages) or "pickle" (signed, needs
            `secret`); "msgpack+zstd" and "pickle+zstd" compress payloads above 1,024 bytes.
            secret: the key that signs pickles.
            session_keys: keys of 32 bytes, or texts made by `secrets.token_urlsafe(32)`, with which the fields of
            sessions are encrypted in the engine: with the first; all of them decrypt. Default: not encrypted.
            types: classes whose instances may be stored without a declaration where they are read.
            jitter: the share by which a TTL may be shortened at random, from 0 to less than 1. Default 0.1.
            none_ttl: how long None results of loaders are kept. Default "1m", and never longer than other results.
            staleness: how old a near value over a shared engine may become, in seconds. Default 1.
            bus: what announces changes to the near tiers over a shared engine: "tracking" (default), the engine itself,
            or "stream", whoever makes them. All caches of a namespace must have the same.
            stale: how long a value is served after it is no longer fresh, while one reader refreshes it. Default None:
            not at all.
            fail_safe: how long a value is kept after it is no longer fresh, to be served when loads fail. Default None.
            soft_timeout: how long readers wait for a load before they get the value that `fail_safe` keeps, if there is
            one. Default None: as long as the load takes.
            hard_timeout: how long anybody waits for a load. Default 30 seconds.
            background: whether a value may be refreshed after the call that noticed its age has returned. Default None:
            for decorated functions whose parameters are all in their key.
            on_reset: what is done when the engine was restarted or replaced and may have forgotten what it had
            acknowledged: "repeat" (default) repeats this process's invalidations of the last minute, "clear"
            invalidates everything, which is for engines that restart from snapshots.
            policy: what is done while the engine cannot be reached. `{"read": "open"}` (default) takes everything for
            absent, so that loaders answer; with "closed" whatever has to read from the engine raises `BackendError`.
            `{"invalidate": "queue"}` (default) repeats invalidations as soon as it answers, and returns `Queued`; with
            "closed" the call raises, and they are repeated all the same. Loaded values that cannot be stored never
            raise, all other writes always do.
            timeout: the time budget of one command to the engine. Default 1 second.
            pool_min: connections opened ahead. Default 5.
            pool_max: the most connections for commands. Default 20.
            pool_timeout: how many seconds a call waits for a free connection. Default 5.
            observers: who is told of events, instead of Prometheus metrics and the log.
            clock: returns seconds and never goes back; for tests.

        Raises:
            ConfigError: an option or variable is wrong; the message names it and what it may be.
            UnsupportedError: this release or platform has no such engine.

        """
        options = resolve(
            url,
            environ=os.environ,
            namespace=namespace,
            ttl=ttl,
            near=near,
            near_copy=near_copy,
            near_snapshot=near_snapshot,
            codec=codec,
            secret=secret,
            session_keys=session_keys,
            types=types,
            jitter=jitter,
            none_ttl=none_ttl,
            staleness=staleness,
            bus=bus,
            stale=stale,
            fail_safe=fail_safe,
            soft_timeout=soft_timeout,
            hard_timeout=hard_timeout,
            background=background,
            on_reset=on_reset,
            policy=policy,
            timeout=timeout,
            pool_min=pool_min,
            pool_max=pool_max,
            pool_timeout=pool_timeout,
        )
        warn_of_workers(options, os.environ)
        self._attach(Parts(options, observers, clock))

    def _attach(self, parts: Parts) -> None:
        self._parts: Parts = parts
        self._engine: Engine = parts.engine(self._flavour)
        self._lookup: Callable[[str], Any] = self._engine.near_lookup(None)

    def _twin(self, kind: type[T]) -> T:
        """Return the cache of the other flavour over the same parts."""
        if self._other is None:
            twin = cast(Any, kind.__new__(kind))
            twin._attach(self._parts)  # noqa: SLF001 -- its own class
            self._other, twin._other = twin, self  # noqa: SLF001 -- its own class
        return cast(T, self._other)

    def _schema(self, annotation: Any) -> Schema | None:
        return None if annotation is None else self._parts.core.codec.schema(annotation)

    @classmethod
    def from_env(cls) -> Self:
        """Make a cache from the `CACHE_*` variables alone; with none set it lives in this process's memory."""
        return cls()

    def __reduce__(self) -> str:
        raise TypeError(
            "a cache belongs to its process: make one at module level and import it, instead of pickling or copying it"
        )

    def __repr__(self) -> str:
        options = self._parts.core.options
        return f"{type(self).__name__}({redacted(options.url)!r}, namespace={options.namespace!r})"

    def key(self, template: str, /, **arguments: object) -> str:
        """Return the key for a template such as "users:{email}:profile"; arguments are escaped and can add no part."""
        return self._parts.core.check(parsed_template(template).format(arguments))

    def engine_key(self, key: str) -> str:
        """Return the name under which the engine holds a key: the namespace and the key."""
        core = self._parts.core
        return core.namespace.engine_key(core.check(key))

    def stats(self) -> StatsView:
        """Return what this cache did in this process: hits, misses, loads, sizes."""
        return self._parts.stats.snapshot()

    def disabled(self) -> AbstractContextManager[None]:
        """Turn caching off inside the block: nothing is read or stored, loaders run each time; invalidations still
        work.

        The block is that of the running thread or task; threads started inside it use the cache.
        """
        return self._parts.core.using(Mode.DISABLED)

    def bypass(self) -> AbstractContextManager[None]:
        """Read nothing inside the block: loaders run each time and their results replace what is cached.

        The block is that of the running thread or task.
        """
        return self._parts.core.using(Mode.BYPASS)

    def memo(self) -> AbstractContextManager[None]:
        """Give the block one view: a key that was read once has the same value until the block ends.

        That holds for `get`, `get_many`, loads and decorated functions, and for 1,000 keys; the oldest are forgotten
        first. Neither the near tier nor the engine is asked again, whatever becomes of the value there. What the block
        itself writes or invalidates is read anew. For `get` and `get_many` absence is part of the view, too.

        The block is that of the running thread or task, and of the tasks started inside; inner blocks join the
        outermost. While such a block is open anywhere in this process, near hits take longer for everybody.
        """
        return viewing(self._parts.core)
