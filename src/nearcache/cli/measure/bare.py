"""The same work by redis-py alone, with `json`: what a program without a cache library would do."""

import json
import sys
from asyncio import Runner
from contextlib import ExitStack, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from nearcache.cli.measure.blocks import MeasureError, Work
from nearcache.cli.measure.ours import KEY, KEYS, ROWS, TTL, WRITTEN, calls, many_tasks, one_reader, writing

US: Final = "nearcache"
NAME: Final = "redis-py + json"
SCHEMES: Final = ("redis", "rediss", "unix")


def errors() -> tuple[type[Exception], ...]:
    """Return what redis-py raises when the engine fails; nothing where it is not installed."""
    return (import_module("redis").RedisError,) if find_spec("redis") is not None else ()


def works(url: str, namespace: str, runner: Runner, stack: ExitStack) -> dict[str, Work]:
    """Store what is read, and return what is timed; nothing if the engine is none that redis-py speaks to.

    The stack removes what was written and closes the clients. If redis-py does not accept the URL, one line says so.
    """
    if url.partition("://")[0].lower() not in SCHEMES or find_spec("redis") is None:
        return {}
    refusals: tuple[type[Exception], ...] = (*errors(), TypeError, ValueError)
    try:
        return prepared(url, namespace, runner, stack)
    except refusals as error:
        # Not the message: it might hold a part of the URL.
        print(f"{NAME} is not measured: it refuses the URL ({type(error).__name__})", file=sys.stderr)
        return {}


def prepared(url: str, namespace: str, runner: Runner, stack: ExitStack) -> dict[str, Work]:
    """Connect, store what is read, and return what is timed."""
    client = stack.enter_context(import_module("redis").Redis.from_url(url))
    aio = import_module("redis.asyncio").Redis.from_url(url)
    stack.callback(lambda: runner.run(aio.aclose()))
    names = {key: f"{namespace}:bare:{key}" for key in KEYS}
    stack.callback(removed, client, list(names.values()))  # before they are written: an interrupt may come in between
    for key, value in ROWS.items():
        client.set(names[key], json.dumps(value), ex=TTL)
    return blocking(client, names) | in_asyncio(aio, runner, names)


def removed(client: Any, names: list[str]) -> None:
    """Remove what was written, if the engine is still there."""
    with suppress(*errors()):
        client.delete(*names)


def decoded(reply: bytes | None) -> Any:
    """Return the value; a key that is gone cannot be measured."""
    if reply is None:
        raise MeasureError("the engine dropped a key of the bare client: is there room for some hundred small values?")
    return json.loads(reply)


def blocking(client: Any, names: dict[str, str]) -> dict[str, Work]:
    """Return the work of the blocking client."""

    def get(name: str) -> Any:
        return decoded(client.get(name))

    def many(wanted: list[str]) -> dict[str, Any]:
        return dict(zip(ROWS, map(decoded, client.mget(wanted)), strict=True))

    several = [names[key] for key in ROWS]
    write = written(client, names[WRITTEN])
    return {
        "remote-get": Work(calls(get, names[KEY]), lambda: get(names[KEY]), ROWS[KEY]),
        "remote-set": writing(write, lambda: get(names[WRITTEN])),
        "remote-many": Work(calls(many, several), lambda: many(several), ROWS),
    }


def written(client: Any, name: str) -> Any:
    """Return what writes the value."""
    return lambda: client.set(name, json.dumps(ROWS[KEY]), ex=TTL)


def in_asyncio(client: Any, runner: Runner, names: dict[str, str]) -> dict[str, Work]:
    """Return the work of the client for asyncio."""

    async def get(key: str) -> Any:
        return decoded(await client.get(names[key]))

    return {
        "async-one": one_reader(get, runner, KEY, ROWS[KEY]),
        "async-tasks": many_tasks(get, runner, ROWS),
    }
