"""Caches that a trace is played through: each used as its documentation shows, with room for so many entries or bytes.

By bytes, a value is its own size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bench.subject import peer
from bench.work import TTL


@dataclass(frozen=True)
class Kept:
    """A cache: `get` gives `missing` for what is not there, and `held` what it holds, in entries or bytes."""

    get: Callable[[str], Any]
    put: Callable[[str, int], Any]
    held: Callable[[], int]
    missing: object = None


def nearcache(capacity: int, by_bytes: bool) -> Kept:
    """Nearcache's near tier, as it stands in front of every engine; sizes are those of the trace, without overhead."""
    near, missing = peer("nearcache.near.store"), peer("nearcache").MISS
    store = near.Store(near.Limit(bytes=capacity) if by_bytes else near.Limit(entries=capacity))
    overhead = near.ENTRY_OVERHEAD

    def put(key: str, value: int) -> None:
        size = value - overhead - len(key) if by_bytes else 0
        store.keep(key, value, None, math.inf, size, store.stamp(key))

    return Kept(store.lookup, put, lambda: store.size_bytes if by_bytes else store.entries, missing)


def public_nearcache(capacity: int, by_bytes: bool) -> Kept:
    """Nearcache on `memory://`, by the verbs of its users."""
    cache = peer("nearcache").Cache("memory://", near=capacity)
    return Kept(cache.get, cache.set, lambda: cache.stats().near_entries)


def cachetools_lru(capacity: int, by_bytes: bool) -> Kept:
    """`LRUCache` of cachetools."""
    return _cachetools(peer("cachetools").LRUCache, capacity, by_bytes)


def cachetools_lfu(capacity: int, by_bytes: bool) -> Kept:
    """`LFUCache` of cachetools."""
    return _cachetools(peer("cachetools").LFUCache, capacity, by_bytes)


def cachebox(capacity: int, by_bytes: bool) -> Kept:
    """`TTLCache` of cachebox, the bounded cache with a TTL that it recommends."""
    cache = peer("cachebox").TTLCache(capacity, TTL)
    return Kept(cache.get, cache.insert, lambda: len(cache))


def moka(capacity: int, by_bytes: bool) -> Kept:
    """`Moka` with its default policy."""
    weigh = {"weigher": _weight} if by_bytes else {}
    cache = peer("moka_py").Moka(capacity, ttl=float(TTL), **weigh)

    def held() -> int:
        cache.run_pending_tasks()
        weight: int = cache.weighted_size()
        return weight

    return Kept(cache.get, cache.set, held)


def theine(capacity: int, by_bytes: bool) -> Kept:
    """`Cache` of theine, which has one policy."""
    cache, ttl = peer("theine").Cache(capacity), timedelta(seconds=TTL)

    def get(key: str) -> Any:
        value, found = cache.get(key)
        return value if found else None

    return Kept(get, lambda key, value: cache.set(key, value, ttl), lambda: len(cache))


def _cachetools(kind: Any, capacity: int, by_bytes: bool) -> Kept:
    cache = kind(capacity, getsizeof=_size if by_bytes else None)
    return Kept(cache.get, cache.__setitem__, lambda: cache.currsize)


def _size(value: int) -> int:
    return value


def _weight(key: str, value: int) -> int:
    return value
