"""Values in a server, read in asyncio: near tiers off, each client over the same kind of socket."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from bench.contenders.near import hits
from bench.contenders.remote import KEY, KEYS, ROWS
from bench.subject import Loop, Subject, awaits, decoded_awaits, peer
from bench.work import KEYS_OF_A_TASK, TASKS, TTL, flat

Get = Callable[[str], Awaitable[Any]]
Set = Callable[[str, Any], Awaitable[Any]]
Decode = Callable[[Any], Any]


class Opened:
    """An open client: how it reads and writes, and what decodes its answers (None: they are decoded)."""

    def __init__(self, get: Get, store: Set, decode: Decode | None = None, **more: Any) -> None:
        self.get = get
        self.set = store
        self.decode = decode
        self.get_many: Any = more.get("get_many")
        self.counters: Any = more.get("counters")


Opener = Callable[[str, AsyncExitStack], Awaitable[Opened]]


async def nearcache(url: str, stack: AsyncExitStack) -> Opened:
    """`AsyncCache` with the near tier off."""
    cache = peer("nearcache").AsyncCache(url, namespace="bench", near=None)
    stack.push_async_callback(cache.aclose)
    return Opened(cache.get, lambda k, v: cache.set(k, v, TTL), get_many=cache.get_many, counters=lambda: hits(cache))


async def redis(url: str, stack: AsyncExitStack) -> Opened:
    """redis-py with `json`."""
    client = peer("redis.asyncio").Redis.from_url(url)
    stack.push_async_callback(client.aclose)

    async def get_many(keys: list[str]) -> dict[str, Any]:
        return {key: json.loads(raw) for key, raw in zip(keys, await client.mget(keys), strict=True)}

    return Opened(client.get, lambda k, v: client.set(k, json.dumps(v), ex=TTL), json.loads, get_many=get_many)


async def coredis(url: str, stack: AsyncExitStack) -> Opened:
    """Coredis with `json`."""
    client = await stack.enter_async_context(peer("coredis").Redis.from_url(url))
    return Opened(client.get, lambda k, v: client.set(k, json.dumps(v), ex=TTL), json.loads)


async def glide(url: str, stack: AsyncExitStack) -> Opened:
    """valkey-glide with `json`."""
    library, parts = peer("glide"), urlsplit(url)
    address = library.NodeAddress(parts.hostname, parts.port)
    configuration = library.GlideClientConfiguration([address], request_timeout=5_000)
    client = await library.GlideClient.create(configuration)
    stack.push_async_callback(client.close)
    return Opened(client.get, lambda k, v: client.set(k, json.dumps(v)), json.loads)


async def cashews(url: str, stack: AsyncExitStack) -> Opened:
    """Cashews on Redis, with the pickle it comes with; errors are raised, not hidden."""
    cache = peer("cashews").Cache()
    cache.setup(url, suppress=False)
    stack.push_async_callback(cache.close)
    return Opened(cache.get, lambda k, v: cache.set(k, v, expire=TTL))


async def aiocache(url: str, stack: AsyncExitStack) -> Opened:
    """Aiocache on Redis, with its JSON serializer."""
    library, parts = peer("aiocache"), urlsplit(url)
    serializer = peer("aiocache.serializers").JsonSerializer()
    cache = library.Cache(library.Cache.REDIS, endpoint=parts.hostname, port=parts.port, serializer=serializer)
    stack.push_async_callback(cache.close)
    return Opened(cache.get, lambda k, v: cache.set(k, v, ttl=TTL))


async def one(opener: Opener, url: str, stack: AsyncExitStack) -> Subject:
    """Return a subject that reads one key, one call after the other."""
    client = await opener(url, stack)
    await client.set(KEY, ROWS[KEY])
    get, decode = client.get, client.decode

    async def once() -> Any:
        answer = await get(KEY)
        return answer if decode is None else decode(answer)

    loop = awaits(get, KEY) if decode is None else decoded_awaits(get, KEY, decode)
    return Subject(loop, once, ROWS[KEY], client.counters)


async def many(opener: Opener, url: str, stack: AsyncExitStack) -> Subject:
    """Return a subject that reads a hundred keys at once."""
    client = await opener(url, stack)
    for key, value in ROWS.items():
        await client.set(key, value)
    return Subject(awaits(client.get_many, KEYS), lambda: client.get_many(KEYS), ROWS, client.counters, len(KEYS))


async def tasks(opener: Opener, url: str, stack: AsyncExitStack) -> Subject:
    """Return a subject that reads with 100 tasks, all of them different keys."""
    client = await opener(url, stack)
    for number in range(TASKS * KEYS_OF_A_TASK):
        await client.set(f"tasks:{number}", flat(number))
    reader = _reader(client.get) if client.decode is None else _decoding_reader(client.get, client.decode)
    expected = [flat(number) for number in range(TASKS * KEYS_OF_A_TASK)]
    return Subject(_spread(reader), lambda: _answers(client), expected, client.counters)


def _reader(get: Get) -> Callable[[list[str]], Awaitable[None]]:
    async def read(keys: list[str]) -> None:
        for key in keys:
            await get(key)

    return read


def _decoding_reader(get: Get, decode: Decode) -> Callable[[list[str]], Awaitable[None]]:
    async def read(keys: list[str]) -> None:
        for key in keys:
            decode(await get(key))

    return read


def _spread(reader: Callable[[list[str]], Awaitable[None]]) -> Loop:
    """Return the loop that shares its calls out to the tasks."""

    async def loop(n: int) -> None:
        share = n // TASKS
        lists = [[f"tasks:{task * KEYS_OF_A_TASK + place}" for place in range(share)] for task in range(TASKS)]
        await asyncio.gather(*(reader(keys) for keys in lists))

    return loop


async def _answers(client: Opened) -> list[Any]:
    """Read every key, all tasks at once, and return the values in the order of the keys."""

    async def read(task: int) -> list[Any]:
        raw = [await client.get(f"tasks:{task * KEYS_OF_A_TASK + place}") for place in range(KEYS_OF_A_TASK)]
        return raw if client.decode is None else [client.decode(value) for value in raw]

    return [value for values in await asyncio.gather(*map(read, range(TASKS))) for value in values]
