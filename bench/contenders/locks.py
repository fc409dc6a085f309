"""A lock in a server, taken and given back as each library recommends; none of them renews it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any

from bench.subject import Subject, peer

NAME = "jobs:7"
LIFE = 30
"""Seconds that the lock lives."""

Make = Callable[[], AbstractContextManager[Any]]
AsyncMake = Callable[[], AbstractAsyncContextManager[Any]]


def nearcache(url: str) -> Make:
    """`cache.lock`."""
    cache = peer("nearcache").Cache(url, namespace="bench")
    return lambda: cache.lock(NAME, ttl=LIFE)


async def nearcache_async(url: str, stack: AsyncExitStack) -> AsyncMake:
    """The same for asyncio."""
    cache = peer("nearcache").AsyncCache(url, namespace="asyncio")
    stack.push_async_callback(cache.aclose)
    return lambda: cache.lock(NAME, ttl=LIFE)


def redis(url: str) -> Make:
    """`Redis.lock`, whose waiters ask every 100 ms."""
    client = peer("redis").Redis.from_url(url)
    return lambda: client.lock(f"redis:{NAME}", timeout=LIFE)


async def redis_async(url: str, stack: AsyncExitStack) -> AsyncMake:
    """The same for asyncio."""
    client = peer("redis.asyncio").Redis.from_url(url)
    stack.push_async_callback(client.aclose)
    return lambda: client.lock(f"asyncio:{NAME}", timeout=LIFE)


def redis_lock(url: str) -> Make:
    """python-redis-lock, whose waiters are told by a list."""
    client, library = peer("redis").Redis.from_url(url), peer("redis_lock")
    return lambda: library.Lock(client, NAME, expire=LIFE)


def nearcache_pairs(url: str) -> Subject:
    """Lock and unlock."""
    return pairs(nearcache(url))


def redis_pairs(url: str) -> Subject:
    """Lock and unlock."""
    return pairs(redis(url))


def redis_lock_pairs(url: str) -> Subject:
    """Lock and unlock."""
    return pairs(redis_lock(url))


def pairs(make: Make) -> Subject:
    """Return the subject that takes a lock and gives it back."""

    def loop(n: int) -> None:
        for _ in range(n):
            with make():
                pass

    def once() -> bool:
        with make():
            return True

    return Subject(loop, once, True)
