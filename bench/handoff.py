"""How long a lock takes to pass from one process to another that waits for it.

The parent starts two processes of a contender, and tells them by turns:

    take   wait for the lock, and answer when it was taken
    give   give it back, and answer when that began

Times are those of the monotonic clock, which the processes of a machine share.
"""

import asyncio
import inspect
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from statistics import median
from types import TracebackType
from typing import Any, TextIO

from bench.coherence import WorkerError, drive
from bench.crowd import slowest
from bench.found import found, versions
from bench.row import Contender
from bench.team import Speaker

SETTLED = 0.05
WAITS = 0.15
"""Seconds that a process waits for the lock before it is given back, at least and at most: longer than others sleep."""


class _Awaited:
    """A blocking lock for those who await; it never suspends."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        self._lock.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)


def live(out: TextIO, contender: Contender, url: str) -> None:
    """Say hello, then take and give a lock as told."""
    _, builder = found(contender)
    hello = json.dumps({"versions": versions(contender)})
    if inspect.iscoroutinefunction(builder):
        asyncio.run(_live_in_asyncio(out, lambda stack: builder(url, stack), hello))
        return

    async def hear() -> str:
        return sys.stdin.readline()

    make = builder(url)
    drive(_obey(out, lambda: _Awaited(make()), hear, hello))


async def _live_in_asyncio(out: TextIO, opened: Callable[[AsyncExitStack], Awaitable[Any]], hello: str) -> None:
    async with AsyncExitStack() as stack:
        make = await opened(stack)
        await _obey(out, make, lambda: asyncio.to_thread(sys.stdin.readline), hello)


async def _obey(
    out: TextIO,
    make: Callable[[], AbstractAsyncContextManager[Any] | _Awaited],
    hear: Callable[[], Awaitable[str]],
    hello: str,
) -> None:
    print(hello, file=out, flush=True)
    lock = make()
    while line := await hear():
        try:
            if line.strip() == "take":
                lock = make()
                await lock.__aenter__()
                at = time.monotonic()
            else:
                at = time.monotonic()
                await lock.__aexit__(None, None, None)
            said: dict[str, Any] = {"at": at}
        except Exception as error:  # noqa: BLE001 -- whatever a peer raises, its row says so
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=out, flush=True)


# The parent's side


def passes(pair: Sequence[Speaker], rounds: int) -> dict[str, list[float]]:
    """Have two processes pass a lock to each other so often; return what is kept of how long that took."""
    holder, waiter = pair
    holder.tell("take")
    _at(holder)
    waited: list[float] = []
    for turn in range(rounds + 1):
        waiter.tell("take")
        time.sleep(random.uniform(SETTLED, WAITS))  # noqa: S311
        holder.tell("give")
        given, taken = _at(holder), _at(waiter)
        if taken < given:
            raise WorkerError("two processes held the lock at the same time")
        waited += [taken - given] if turn else []  # the first warms up
        holder, waiter = waiter, holder
    return {"handoff": waited, "p50": [median(waited)], "p99": [slowest(waited, 0.99)], "longest": [max(waited)]}


def _at(worker: Speaker) -> float:
    said = worker.hear()
    if "error" in said:
        raise WorkerError(said["error"])
    moment: float = said["at"]
    return moment
