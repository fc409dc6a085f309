"""Values that are kept near and that other processes change, as each contender recommends it.

All of them have the server announce changes. A client of redis-py or coredis is told of the keys that it has read, one
of nearcache or cashews of all keys that begin with its namespace.
"""

import time
from contextlib import AsyncExitStack
from typing import Any

from bench.coherence import PATIENCE, Client
from bench.contenders.near import hits
from bench.subject import peer
from bench.work import TTL


def nearcache(url: str) -> Client:
    """`Cache`, with nothing but a namespace."""
    return _nearcache(url, "bench")


def nearcache_alone(url: str) -> Client:
    """The same in another namespace."""
    return _nearcache(url, "alone")


def _nearcache(url: str, namespace: str) -> Client:
    cache = peer("nearcache").Cache(url, namespace=namespace)
    _track(cache)
    return Client(cache.get, lambda key, number: cache.set(key, number, TTL), counters=lambda: hits(cache))


async def nearcache_async(url: str, stack: AsyncExitStack) -> Client:
    """`AsyncCache`."""
    cache = peer("nearcache").AsyncCache(url, namespace="asyncio")
    stack.push_async_callback(cache.aclose)
    _track(cache.sync)
    return Client(cache.get, lambda key, number: cache.set(key, number, TTL), counters=lambda: hits(cache))


def _track(cache: Any) -> None:
    """Keep something near, and wait until changes are announced: that begins in the background."""
    cache.set("others:first", 0, TTL)
    until = time.monotonic() + PATIENCE
    while not (health := cache.health()).coherent:
        if time.monotonic() > until:
            raise TimeoutError(health.incoherence)
        time.sleep(0.01)


def redis(url: str) -> Client:
    """redis-py with its client-side cache; what it returns is still to be decoded."""
    library = peer("redis")
    client = library.Redis.from_url(url, protocol=3, cache_config=peer("redis.cache").CacheConfig())
    return Client(client.get, lambda key, number: client.set(key, number, ex=TTL), int, "redis:")


async def cashews(url: str, stack: AsyncExitStack) -> Client:
    """Cashews with `client_side=True`, and with RESP2: with redis-py 8, which speaks RESP3, it hears of no change."""
    cache = peer("cashews").Cache()
    cache.setup(url, client_side=True, suppress=False, protocol=2)
    stack.push_async_callback(cache.close)
    await cache.init()
    return Client(cache.get, lambda key, number: cache.set(key, number, expire=TTL))


async def coredis(url: str, stack: AsyncExitStack) -> Client:
    """Coredis with a cache, which it makes a tracking one; what it returns is still to be decoded."""
    cache = peer("coredis.patterns.cache").LRUCache()
    client = await stack.enter_async_context(peer("coredis").Redis.from_url(url, cache=cache))
    return Client(client.get, lambda key, number: client.set(key, number, ex=TTL), int, "coredis:")
