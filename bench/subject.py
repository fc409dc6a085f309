"""What a worker times: one contender, ready to answer.

The loops are the same code for all contenders of a row, and call the contender's own callable: no function stands
around it. Where a peer's answer needs a second call (`json.loads` after redis-py's `get`), its loop makes both.
"""

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Loop = Callable[[int], Any]


@dataclass
class Subject:
    """A contender: `loop(n)` makes n calls, `once()` returns one answer; both are awaited in rows of asyncio."""

    loop: Loop
    once: Callable[[], Any]
    expected: Any
    counters: Callable[[], Mapping[str, float]] | None = None
    """What it says of itself; each must grow by `per_call` with each call."""
    per_call: int = 1
    loads: int | None = None
    """How often the cached function may have run in the end."""
    prepare: Callable[[], None] | None = None
    """What has to be done before each block, and is not timed; of blocking rows only."""


def peer(name: str) -> Any:
    """Import another library; types are not looked at, so that it need not be there when they are checked."""
    return importlib.import_module(name)


def calls(function: Callable[[Any], Any], argument: Any) -> Loop:
    """Return the loop over a function of one argument."""

    def loop(n: int) -> None:
        for _ in range(n):
            function(argument)

    return loop


def method_calls(owner: Any, argument: Any) -> Loop:
    """Return the loop over the method `get`, looked up at each call as in a program."""

    def loop(n: int) -> None:
        for _ in range(n):
            owner.get(argument)

    return loop


def item_reads(mapping: Any, key: Any) -> Loop:
    """Return the loop over `mapping[key]`."""

    def loop(n: int) -> None:
        for _ in range(n):
            mapping[key]

    return loop


def decoded_calls(function: Callable[[Any], Any], argument: Any, decode: Callable[[Any], Any]) -> Loop:
    """Return the loop over a function whose answers are still to be decoded."""

    def loop(n: int) -> None:
        for _ in range(n):
            decode(function(argument))

    return loop


def awaits(function: Callable[[Any], Awaitable[Any]], argument: Any) -> Loop:
    """Return the loop over a coroutine function of one argument."""

    async def loop(n: int) -> None:
        for _ in range(n):
            await function(argument)

    return loop


def decoded_awaits(function: Callable[[Any], Awaitable[Any]], argument: Any, decode: Callable[[Any], Any]) -> Loop:
    """Return the loop over a coroutine function whose answers are still to be decoded."""

    async def loop(n: int) -> None:
        for _ in range(n):
            decode(await function(argument))

    return loop
