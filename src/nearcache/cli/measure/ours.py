"""What `nearcache bench` times of nearcache, with its defaults; `far` is a cache without a near tier."""

import asyncio
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any, Final

from nearcache import Cache
from nearcache.cli.measure.blocks import Loop, Work

TTL: Final = 600
MANY: Final = 100
TASKS: Final = 100

RUN: Final = token_hex(4)
"""A part of every key, so that two runs at the same time do not meet."""

Value = dict[str, Any]
ROWS: Final[dict[str, Value]] = {
    f"rows:{RUN}:{number}": {
        "id": number,
        "name": "Augusta Ada King, Countess of Lovelace",
        "email": "ada.lovelace@analytical-engine.example.com",
        "bio": "Wrote the first program, for a machine that was never built.",
        "score": 0.5,
    }
    for number in range(MANY)
}
KEY: Final = f"rows:{RUN}:7"
WRITTEN: Final = f"written:{RUN}"
KEYS: Final = (*ROWS, WRITTEN)
"""Everything that is written."""

TITLES: Final = {
    "near-decorated": "near hit, decorated function",
    "near-get": "near hit, get",
    "remote-get": "hit in the engine, get",
    "remote-set": "set",
    "remote-many": f"get_many of {MANY} in the engine",
    "async-one": "hit in the engine, asyncio",
    "async-tasks": f"the same by {TASKS} tasks at once",
}


def works(near: Cache, far: Cache, runner: asyncio.Runner) -> dict[str, Work]:
    """Store what is read, and return what is timed, by its name in `TITLES`."""
    for cache in (near, far):  # on memory:// each of them has values of its own
        cache.set_many(ROWS, TTL)
    hits = counter(far)
    return {
        "near-decorated": decorated(near),
        "near-get": Work(calls(near.get, KEY), lambda: near.get(KEY), ROWS[KEY], counter(near)),
        "remote-get": Work(calls(far.get, KEY), lambda: far.get(KEY), ROWS[KEY], hits),
        "remote-set": writing(lambda: far.set(WRITTEN, ROWS[KEY], TTL), lambda: far.get(WRITTEN)),
        "remote-many": Work(calls(far.get_many, [*ROWS]), lambda: far.get_many(ROWS), ROWS, hits, per_call=MANY),
        "async-one": one_reader(far.aio.get, runner, KEY, ROWS[KEY], hits),
        "async-tasks": many_tasks(far.aio.get, runner, ROWS, hits),
    }


def counter(cache: Cache) -> Callable[[], int]:
    """Return what counts the hits of a cache."""
    return lambda: cache.stats().hits


def decorated(cache: Cache) -> Work:
    """Time a decorated function; its hits are counted, so that a call that loads is found."""

    @cache.cached(f"rows:{RUN}:{{number}}", ttl=TTL)
    def row(number: int) -> Value:
        return ROWS[f"rows:{RUN}:{number}"]

    return Work(calls(row, 7), lambda: row(7), ROWS[KEY], counter(cache))


def calls(function: Callable[[Any], object], argument: object) -> Loop:
    """Return the loop over a function of one argument."""

    def loop(n: int) -> None:
        for _ in range(n):
            function(argument)

    return loop


def writing(write: Callable[[], object], read: Callable[[], object]) -> Work:
    """Time a write of the value, which must be what is read afterwards."""

    def loop(n: int) -> None:
        for _ in range(n):
            write()

    def once() -> object:
        write()
        return read()

    return Work(loop, once, ROWS[KEY])


Get = Callable[[str], Awaitable[Any]]


def one_reader(
    get: Get, runner: asyncio.Runner, key: str, expected: object, hits: Callable[[], int] | None = None
) -> Work:
    """Time one task that reads a key again and again."""

    async def read(n: int) -> object:
        answer: object = None
        for _ in range(n):
            answer = await get(key)
        return answer

    return Work(lambda n: runner.run(read(n)), lambda: runner.run(read(1)), expected, hits)


def many_tasks(
    get: Get, runner: asyncio.Runner, expected: dict[str, Value], hits: Callable[[], int] | None = None
) -> Work:
    """Time as many tasks as there are keys, each of which reads its own."""

    async def read(key: str, n: int) -> object:
        answer: object = None
        for _ in range(n):
            answer = await get(key)
        return answer

    async def all_read(n: int) -> dict[str, object]:
        answers = await asyncio.gather(*(read(key, n) for key in expected))
        return dict(zip(expected, answers, strict=True))

    return Work(lambda n: runner.run(all_read(n // TASKS)), lambda: runner.run(all_read(1)), expected, hits, step=TASKS)
