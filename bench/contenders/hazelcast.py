"""Values in a map of a Hazelcast cluster, by its own client library, as text."""

import json
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from bench.contenders.remote import KEY, KEYS, ROWS, json_reading, writing
from bench.contenders.remote_async import Opened
from bench.subject import Subject, peer
from bench.work import TTL


def client_get(url: str) -> Subject:
    """`get` and `json.loads`."""
    table = _map(url)
    table.set(KEY, json.dumps(ROWS[KEY]), TTL)
    return json_reading(table.get, KEY)


def client_set(url: str) -> Subject:
    """`json.dumps` and `set`."""
    table = _map(url)

    def loop(n: int) -> None:
        store, encode, value = table.set, json.dumps, ROWS[KEY]
        for _ in range(n):
            store(KEY, encode(value), TTL)

    return writing(loop, lambda: json.loads(table.get(KEY)))


def client_many(url: str) -> Subject:
    """`get_all`, and `json.loads` for each value."""
    table = _map(url)
    for key, value in ROWS.items():
        table.set(key, json.dumps(value), TTL)

    def read() -> dict[str, Any]:
        found = table.get_all(KEYS)
        return {key: json.loads(found[key]) for key in KEYS}

    def loop(n: int) -> None:
        for _ in range(n):
            read()

    return Subject(loop, read, ROWS)


async def client_async(url: str, stack: AsyncExitStack) -> Opened:
    """The client for asyncio, with `json`."""
    client = await peer("hazelcast.asyncio").HazelcastClient.create_and_start(**_place(url))
    stack.push_async_callback(client.shutdown)
    table = await client.get_map("client")
    return Opened(table.get, lambda key, value: table.set(key, json.dumps(value), TTL), json.loads)


def _map(url: str) -> Any:
    return peer("hazelcast").HazelcastClient(**_place(url)).get_map("client").blocking()


def _place(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"cluster_name": parts.path.strip("/"), "cluster_members": [parts.netloc]}
