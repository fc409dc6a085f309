"""One function, cached for a second in a server that several processes share: what is recommended against stampedes."""

import threading
from typing import Any
from urllib.parse import urlsplit

from bench.crowd import Read
from bench.subject import peer
from bench.work import BRIEF, async_slow, slow

KEY = "rows:{row_id}"
EARLY = 0.7
"""The share of a TTL after which cashews refreshes early, as in its README."""

LEASE = 0.5
"""Seconds: aiocache's default is 2, for which readers of other processes would wait, longer than the value lives."""


def nearcache(url: str) -> Read:
    """`@cache.cached`, with nothing but a TTL."""
    cached: Read = peer("nearcache").Cache(url, namespace="bench").cached(KEY, ttl=BRIEF)(slow)
    return cached


async def nearcache_async(url: str) -> Read:
    """The same for asyncio."""
    cached: Read = peer("nearcache").AsyncCache(url, namespace="bench").cached(KEY, ttl=BRIEF)(async_slow)
    return cached


def nearcache_stale(url: str) -> Read:
    """`@cache.cached` with stale values served while one refresh runs."""
    cached: Read = peer("nearcache").Cache(url, namespace="bench").cached(KEY, ttl=BRIEF, stale=BRIEF)(slow)
    return cached


async def nearcache_stale_async(url: str) -> Read:
    """The same for asyncio."""
    cache = peer("nearcache").AsyncCache(url, namespace="bench")
    cached: Read = cache.cached(KEY, ttl=BRIEF, stale=BRIEF)(async_slow)
    return cached


async def cashews_early(url: str) -> Read:
    """`@cache.early`: from the TTL on, one reader refreshes, and the old value stays a bit longer."""
    cached: Read = _cashews(url).early(ttl=BRIEF / EARLY, early_ttl=BRIEF, key=KEY)(async_slow)
    return cached


async def cashews_lock(url: str) -> Read:
    """`@cache(lock=True)`."""
    cached: Read = _cashews(url)(ttl=BRIEF, key=KEY, lock=True)(async_slow)
    return cached


def _cashews(url: str) -> Any:
    cache = peer("cashews").Cache()
    cache.setup(url, suppress=False)
    return cache


def dogpile(url: str) -> Read:
    """`@region.cache_on_arguments` over Redis, with the lock for several processes."""
    region = peer("dogpile.cache").make_region()
    arguments = {
        "url": url,
        "redis_expiration_time": 2 * BRIEF,
        "distributed_lock": True,
        "thread_local_lock": False,
    }
    region.configure("dogpile.cache.redis", expiration_time=BRIEF, arguments=arguments)
    cached: Read = region.cache_on_arguments()(slow)
    return cached


async def aiocache(url: str) -> Read:
    """`@cached_stampede` over Redis."""
    library, parts = peer("aiocache"), urlsplit(url)
    cached: Read = library.cached_stampede(
        lease=LEASE,
        ttl=BRIEF,
        key_builder=_row_key,
        cache=library.Cache.REDIS,
        serializer=peer("aiocache.serializers").JsonSerializer(),
        endpoint=parts.hostname,
        port=parts.port,
    )(async_slow)
    return cached


def _row_key(_function: object, row_id: int) -> str:
    return f"rows:{row_id}"


def django(url: str) -> Read:
    """`cache.get_or_set` over Django's own backend for Redis."""
    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    peer("django.conf").settings.configure(CACHES={"default": backend})
    cache = peer("django.core.cache").cache

    def read(row_id: int) -> Any:
        return cache.get_or_set(f"rows:{row_id}", lambda: slow(row_id), timeout=BRIEF)

    return read


def cachetools(_url: str) -> Read:
    """`@cached` with a lock: it guards the dict, and is free while the function runs."""
    library = peer("cachetools")
    cached: Read = library.cached(library.TTLCache(64, BRIEF), lock=threading.Lock())(slow)
    return cached


def cachetools_condition(_url: str) -> Read:
    """`@cached` with a condition, which is for stampedes."""
    library = peer("cachetools")
    cached: Read = library.cached(library.TTLCache(64, BRIEF), condition=threading.Condition())(slow)
    return cached
