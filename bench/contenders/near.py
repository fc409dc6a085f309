"""Functions cached in this process, by decorators; the same classes serve functions for asyncio."""

import functools
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from bench.subject import Subject, awaits, calls, method_calls, peer
from bench.work import TTL, Case, Function, cases

SIZE = 1024
ENTRIES = 1_000_000
"""How many results the row of memory keeps."""


class Peer:
    """One way to cache a function; `size` is the most results to keep."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size

    def function(self, function: Function, template: str) -> Any:
        """Return the function, cached."""
        raise NotImplementedError

    def method(self, function: Function, template: str) -> Any:
        """Return what a class would hold under the method's name."""
        return self.function(function, template)

    def counters(self) -> Mapping[str, float]:
        """Return counters that grow by one with each hit, if there are any."""
        return {}


class Nearcache(Peer):
    """nearcache on `memory://`, with its metrics for Prometheus, as it is by default."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        # The default, 64 MB, is enough for a few values; a million are counted by entries, as the peers count.
        near: dict[str, Any] = {} if size == SIZE else {"near": size}
        self.cache = peer("nearcache").Cache("memory://", namespace="bench", **near)

    def function(self, function: Function, template: str) -> Any:
        return self.cache.cached(template, ttl=TTL)(function)

    def method(self, function: Function, template: str) -> Any:
        return self.cache.cached(template, ttl=TTL, ignore=("self",))(function)

    def counters(self) -> Mapping[str, float]:
        return hits(self.cache)


class AsyncNearcache(Nearcache):
    """The same for asyncio."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.cache = self.cache.aio


class LruCache(Peer):
    """The standard library's cache, which has no TTL."""

    def function(self, function: Function, template: str) -> Any:
        return functools.lru_cache(maxsize=self.size)(function)


class Cachebox(Peer):
    """cachebox with the cache that has one TTL for all."""

    def function(self, function: Function, template: str) -> Any:
        cachebox = peer("cachebox")
        return cachebox.cached(cachebox.TTLCache(self.size, TTL))(function)

    def method(self, function: Function, template: str) -> Any:
        cachebox = peer("cachebox")
        cache = cachebox.TTLCache(self.size, TTL)
        return cachebox.cached(_same(cache))(function)


class Moka(Peer):
    """moka-py."""

    def function(self, function: Function, template: str) -> Any:
        return peer("moka_py").cached(maxsize=self.size, ttl=TTL)(function)


class Cachetools(Peer):
    """cachetools without a lock: for programs of one thread."""

    lock: Any = None

    def function(self, function: Function, template: str) -> Any:
        cachetools = peer("cachetools")
        return cachetools.cached(cachetools.TTLCache(self.size, TTL), lock=self.lock)(function)

    def method(self, function: Function, template: str) -> Any:
        cachetools = peer("cachetools")
        cache, lock = cachetools.TTLCache(self.size, TTL), self.lock
        locked = {"lock": _same(lock)} if lock else {}
        return cachetools.cachedmethod(_same(cache), **locked)(function)


class LockedCachetools(Cachetools):
    """cachetools as its documentation wants it where there are threads."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.lock = threading.Lock()


class Theine(Peer):
    """theine with a key function, which it recommends."""

    def function(self, function: Function, template: str) -> Any:
        entity = template.partition(":")[0]

        def key(argument: object) -> str:
            return f"{entity}:{argument}"

        return self._keyed(function, key)

    def method(self, function: Function, template: str) -> Any:
        entity = template.partition(":")[0]

        def key(owner: object, argument: object) -> str:
            return f"{entity}:{argument}"

        return self._keyed(function, key)

    def _keyed(self, function: Function, key: Callable[..., str]) -> Any:
        cached = peer("theine").Memoize(self.size, timedelta(seconds=TTL))(function)
        cached.key(key)
        return cached


class Dogpile(Peer):
    """dogpile.cache over a dict; it has no bound."""

    backend = "dogpile.cache.memory"

    def function(self, function: Function, template: str) -> Any:
        region = peer("dogpile.cache").make_region().configure(self.backend, expiration_time=TTL)
        return region.cache_on_arguments()(function)


class PickledDogpile(Dogpile):
    """dogpile.cache over a dict of pickles, so that nobody changes what others get."""

    backend = "dogpile.cache.memory_pickle"


class AsyncLru(Peer):
    """async_lru with a TTL."""

    def function(self, function: Function, template: str) -> Any:
        return peer("async_lru").alru_cache(maxsize=self.size, ttl=TTL)(function)


class Cashews(Peer):
    """cashews on `mem://`."""

    def function(self, function: Function, template: str) -> Any:
        cache = peer("cashews").Cache()
        cache.setup("mem://", size=self.size)
        return cache(ttl=TTL, key=template)(function)


class Aiocache(Peer):
    """aiocache in memory; it has no bound."""

    def function(self, function: Function, template: str) -> Any:
        return peer("aiocache").cached(ttl=TTL)(function)


def hits(cache: Any) -> Mapping[str, float]:
    """Return what nearcache's statistics and Prometheus say about hits."""
    registry = peer("prometheus_client").REGISTRY
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    scraped = sum(sample.value for sample in samples if sample.name == "cache_hits_total")
    return {"stats().hits": cache.stats().hits, "cache_hits_total": scraped}


def _same(shared: object) -> Callable[[object], object]:
    """Return a function that gives every instance the same cache or lock, as a function's instances share one."""
    return lambda owner: shared


def build(kind: type[Peer], case: Case) -> Subject:
    """Return a subject that calls a cached function."""
    cached = kind()
    if case.method:
        owner: Any = type("Owner", (), {"get": cached.method(case.function, case.template)})()
        return Subject(
            method_calls(owner, case.argument),
            lambda: owner.get(case.argument),
            case.expected,
            cached.counters,
            loads=1,
        )
    function = cached.function(case.function, case.template)
    return Subject(
        calls(function, case.argument), lambda: function(case.argument), case.expected, cached.counters, loads=1
    )


def build_async(kind: type[Peer], case: Case) -> Subject:
    """Return a subject that awaits a cached function."""
    cached = kind()
    function = cached.function(case.function, case.template)
    return Subject(
        awaits(function, case.argument), lambda: function(case.argument), case.expected, cached.counters, loads=1
    )


def build_filling(kind: type[Peer]) -> Subject:
    """Return a subject whose loop fills the cache with results, and sees that all are still there."""
    case = cases()["memory"]
    function = kind(ENTRIES * 2).function(case.function, case.template)

    def loop(n: int) -> None:
        for number in range(n):
            function(number)
        for number in range(0, n, 997):
            assert function(number)["id"] == number
        subject.loads = n

    subject = Subject(loop, lambda: function(case.argument), case.expected)
    return subject
