"""Values in a Memcached server: pymemcache in threads, aiomcache in asyncio."""

import json
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from bench.contenders.remote import KEY, KEYS, ROWS, json_reading, writing
from bench.contenders.remote_async import Opened
from bench.subject import Subject, peer
from bench.work import THREADS, TTL


def pymemcache_get(url: str) -> Subject:
    """`get` and `json.loads`."""
    client = _pymemcache(url)
    client.set(f"pymemcache:{KEY}", json.dumps(ROWS[KEY]), expire=TTL)
    return json_reading(client.get, f"pymemcache:{KEY}")


def pymemcache_set(url: str) -> Subject:
    """`json.dumps` and `set`, whose answer is waited for."""
    client = _pymemcache(url)

    def loop(n: int) -> None:
        store, encode, value = client.set, json.dumps, ROWS[KEY]
        for _ in range(n):
            store(f"pymemcache:{KEY}", encode(value), expire=TTL, noreply=False)

    return writing(loop, lambda: json.loads(client.get(f"pymemcache:{KEY}")))


def pymemcache_many(url: str) -> Subject:
    """`get_many`, and `json.loads` for each value."""
    client = _pymemcache(url)
    client.set_many({key: json.dumps(value) for key, value in ROWS.items()}, expire=TTL)

    def read() -> dict[str, Any]:
        return {key: json.loads(raw) for key, raw in client.get_many(KEYS).items()}

    def loop(n: int) -> None:
        read, decode = client.get_many, json.loads
        for _ in range(n):
            {key: decode(raw) for key, raw in read(KEYS).items()}

    return Subject(loop, read, ROWS)


async def aiomcache(url: str, stack: AsyncExitStack) -> Opened:
    """Aiomcache with `json`."""
    return await _aiomcache(url, stack)


async def aiomcache_many(url: str, stack: AsyncExitStack) -> Opened:
    """The same, with a connection for each task."""
    return await _aiomcache(url, stack, pool_size=100)


def _pymemcache(url: str) -> Any:
    parts = urlsplit(url)
    client = peer("pymemcache.client.base").PooledClient
    return client((parts.hostname, parts.port), max_pool_size=THREADS, no_delay=True)


async def _aiomcache(url: str, stack: AsyncExitStack, **options: Any) -> Opened:
    parts = urlsplit(url)
    client = peer("aiomcache").Client(parts.hostname, parts.port, **options)
    stack.push_async_callback(client.close)
    return Opened(
        lambda key: client.get(key.encode()),
        lambda key, value: client.set(key.encode(), json.dumps(value).encode(), exptime=TTL),
        json.loads,
    )
