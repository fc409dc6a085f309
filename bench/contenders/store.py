"""`get` of a key that is in this process."""

from typing import Any

from bench.contenders.near import SIZE, hits
from bench.subject import Subject, calls, item_reads, peer
from bench.work import TTL

KEY = "squares:7"
VALUE = 49


def nearcache() -> Subject:
    """`Cache.get` on `memory://`."""
    cache = peer("nearcache").Cache("memory://", namespace="bench")
    cache.set(KEY, VALUE, ttl=TTL)
    return _reading(cache.get, lambda: hits(cache))


def cachetools_get() -> Subject:
    """`TTLCache.get`."""
    return _reading(_cachetools().get)


def cachetools_item() -> Subject:
    """`TTLCache[...]`."""
    cache = _cachetools()
    return Subject(item_reads(cache, KEY), lambda: cache[KEY], VALUE)


def cachebox() -> Subject:
    """`VTTLCache.get`: each value has a TTL of its own, as in nearcache."""
    cache = peer("cachebox").VTTLCache(SIZE)
    cache.insert(KEY, VALUE, ttl=TTL)
    return _reading(cache.get)


def moka() -> Subject:
    """`Moka.get`."""
    cache = peer("moka_py").Moka(SIZE)
    cache.set(KEY, VALUE, ttl=float(TTL))
    return _reading(cache.get)


def cachelib() -> Subject:
    """`SimpleCache.get`."""
    cache = peer("cachelib").SimpleCache(threshold=SIZE, default_timeout=TTL)
    cache.set(KEY, VALUE)
    return _reading(cache.get)


def dogpile() -> Subject:
    """`CacheRegion.get` over a dict."""
    region = peer("dogpile.cache").make_region().configure("dogpile.cache.memory", expiration_time=TTL)
    region.set(KEY, VALUE)
    return _reading(region.get)


def _cachetools() -> Any:
    cache = peer("cachetools").TTLCache(SIZE, TTL)
    cache[KEY] = VALUE
    return cache


def _reading(get: Any, counters: Any = None) -> Subject:
    return Subject(calls(get, KEY), lambda: get(KEY), VALUE, counters)
