"""Near values that other processes change: how fast they are read meanwhile, and when a change is seen.

The parent starts the processes of a contender, each of which has a client of its own, and tells each what to do:

    write FIRST COUNT BEGIN   store versions of one value, with pauses; answer when each was acknowledged
    watch LAST UNTIL BUSY     read that value, until a version is seen, while so many threads compute; answer when each
                              new version was seen first, and when the last read began that got an older one
    disturb BEGIN END RATE    store other values, so many a second; answer how many
    hit BEGIN END             read the value as often as possible; answer how often, and in how many seconds

Times are those of the monotonic clock, which the processes of a machine share. What a process does is written once, as
coroutines; those of a blocking client never suspend.
"""

import asyncio
import inspect
import json
import math
import random
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, TextIO, TypeVar

from bench.crowd import slowest
from bench.found import found, versions
from bench.row import Contender
from bench.subject import Loop, awaits, calls, decoded_awaits, decoded_calls

T = TypeVar("T")
Seen = tuple[int, float, float]
"""A version, when it was seen first, and when the last read began that got an older one."""

KEY = "rows:7"
OTHERS = 1_000
"""How many other values are stored, again and again."""

PAUSE = 0.01
"""Seconds between two writes of a version, on average."""

LOOK = 20e-6
"""Seconds that a reader sleeps between two reads."""

BATCH = 1_000
"""Near hits between two looks at the clock."""

BLOCK = 0.2
"""Seconds for which near hits are counted."""

PATIENCE = 10.0
"""Seconds after the last write within which it has to be seen."""

FIRST = 3
"""The first version that counts; those before are for the check."""

ASKED = 0.01
"""The share of near hits for which the server may be asked, at most."""

DISTURBED = 0.5
"""The share of the writes that have to be made at least, where others write meanwhile."""


class WorkerError(Exception):
    """A process could not do what it was told; its row says why."""


@dataclass
class Client:
    """An open client: how it reads and writes (awaited in asyncio), and what makes a number of what it reads."""

    get: Callable[[str], Any]
    set: Callable[[str, int], Any]
    decode: Callable[[Any], int] | None = None
    prefix: str = ""
    """What its keys begin with, so that contenders do not share them."""
    counters: Callable[[], Mapping[str, float]] | None = None
    """What it says of itself; each must grow by one with each hit."""

    @property
    def key(self) -> str:
        """The key of the value that is read."""
        return self.prefix + KEY

    def number(self, answer: Any) -> int:
        """Return the version in an answer; 0 if there is none."""
        if answer is None:
            return 0
        return int(answer) if self.decode is None else self.decode(answer)


# The worker's side


class Side:
    """A blocking client, as coroutines that never suspend."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._loop = self.looped()

    def looped(self) -> Loop:
        """Return the loop over what a program calls."""
        get, key, decode = self.client.get, self.client.key, self.client.decode
        return calls(get, key) if decode is None else decoded_calls(get, key, decode)

    async def read(self) -> int:
        """Return the version that is there."""
        return self.client.number(self.client.get(self.client.key))

    async def store(self, key: str, number: int) -> None:
        """Store a number."""
        self.client.set(self.client.prefix + key, number)

    async def hits(self, n: int) -> None:
        """Read n times."""
        self._loop(n)

    async def pause(self, seconds: float) -> None:
        """Do nothing for some seconds."""
        time.sleep(max(0.0, seconds))  # noqa: ASYNC251 -- nobody else runs in this thread

    async def turn(self) -> None:
        """Let others of this process run, where they need to be let."""

    async def look(self) -> None:
        """Sleep between two reads, in asyncio too: as a loop that waits, only for less than its own timers can."""
        time.sleep(LOOK)  # noqa: ASYNC251 -- on purpose
        await self.turn()

    async def hear(self) -> str:
        """Return the next line of the input."""
        return sys.stdin.readline()


class AsyncSide(Side):
    """A client of asyncio."""

    def looped(self) -> Loop:
        """Return the loop over what a program awaits."""
        get, key, decode = self.client.get, self.client.key, self.client.decode
        return awaits(get, key) if decode is None else decoded_awaits(get, key, decode)

    async def read(self) -> int:
        """Return the version that is there."""
        return self.client.number(await self.client.get(self.client.key))

    async def store(self, key: str, number: int) -> None:
        """Store a number."""
        await self.client.set(self.client.prefix + key, number)

    async def hits(self, n: int) -> None:
        """Read n times."""
        await self._loop(n)

    async def pause(self, seconds: float) -> None:
        """Do nothing for some seconds."""
        await asyncio.sleep(max(0.0, seconds))

    async def turn(self) -> None:
        """Let the tasks run that hear what others say."""
        await asyncio.sleep(0)

    async def hear(self) -> str:
        """Return the next line of the input; tasks run meanwhile."""
        return await asyncio.to_thread(sys.stdin.readline)


def live(out: TextIO, contender: Contender, url: str) -> None:
    """Say hello, then do what each line of the input asks for."""
    _, builder = found(contender)
    hello = json.dumps({"versions": versions(contender)})
    if inspect.iscoroutinefunction(builder):
        asyncio.run(_live_in_asyncio(out, lambda stack: builder(url, stack), hello))
    else:
        drive(_obey(out, Side(builder(url)), hello))


async def _live_in_asyncio(out: TextIO, opened: Callable[[AsyncExitStack], Awaitable[Client]], hello: str) -> None:
    async with AsyncExitStack() as stack:
        await _obey(out, AsyncSide(await opened(stack)), hello)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError("a blocking client suspended")


async def _obey(out: TextIO, side: Side, hello: str) -> None:
    print(hello, file=out, flush=True)
    while line := await side.hear():
        verb, *numbers = line.split()
        try:
            said = await VERBS[verb](side, *map(float, numbers))
        except Exception as error:  # noqa: BLE001 -- whatever a peer raises, its row says so
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=out, flush=True)


async def write(side: Side, first: float, count: float, begin: float) -> dict[str, Any]:
    """Store versions of the value, with pauses; tell when each was acknowledged."""
    acknowledged: list[float] = []
    await side.pause(begin - time.monotonic())
    for version in range(int(first), int(first + count)):
        await side.pause(PAUSE * (0.5 + random.random()))  # noqa: S311
        await side.store(KEY, version)
        acknowledged.append(time.monotonic())
    return {"acknowledged": acknowledged}


async def watch(side: Side, last: float, until: float, busy: float) -> dict[str, Any]:
    """Read the value until a version is there, or time is up; tell of each new version when it was seen first."""
    with computing(int(busy)):
        return {"seen": [seen async for seen in _seen(side, last, until)]}


async def _seen(side: Side, last: float, until: float) -> AsyncGenerator[Seen]:
    newest, before = 0, -math.inf
    while newest < last and (began := time.monotonic()) < until:
        version = await side.read()
        if version < newest:
            raise ValueError(f"the reader went back from version {newest} to {version}")
        if version > newest:
            yield version, time.monotonic(), before
        newest, before = version, began
        await side.look()


async def disturb(side: Side, begin: float, end: float, rate: float) -> dict[str, Any]:
    """Store other values, so many a second; tell how many."""
    writes = 0
    while rate and (due := begin + writes / rate) < end:
        await side.pause(due - time.monotonic())
        if time.monotonic() >= end:
            break
        await side.store(f"others:{writes % OTHERS}", writes)
        writes += 1
    return {"writes": writes}


async def hit(side: Side, begin: float, end: float) -> dict[str, Any]:
    """Read the value as often as possible; tell how often, and in how many seconds.

    Those before it was let begin count too, where there are more processes than processors.
    """
    before, hits = _counted(side.client), 0
    await side.pause(begin - time.monotonic())
    while (now := time.monotonic()) < end:
        await side.hits(BATCH)
        await side.turn()
        hits += BATCH
    for name, number in _counted(side.client).items():
        if number - before[name] != hits:
            raise ValueError(f"{name} grew by {number - before[name]:g} with {hits} hits")
    return {"hits": hits, "took": now - begin}


VERBS: Mapping[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "write": write,
    "watch": watch,
    "disturb": disturb,
    "hit": hit,
}


def _counted(client: Client) -> Mapping[str, float]:
    return client.counters() if client.counters else {}


@contextmanager
def computing(threads: int) -> Generator[None]:
    """Have so many threads compute in Python meanwhile."""
    done = threading.Event()
    running = [threading.Thread(target=_compute, args=(done,), daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in running:
            thread.join()


def _compute(done: threading.Event) -> None:
    while not done.is_set():
        sum(number * number for number in range(10_000))


# The parent's side: pure functions


def last_write(begin: float, count: int) -> float:
    """Return when so many versions are written, at the latest."""
    return begin + 1.5 * PAUSE * count


def told(acknowledged: Sequence[float], seen: Sequence[Seen], first: int) -> dict[str, Any]:
    """Return what is told of the times until versions were seen; raise unless all were."""
    waited = [moment for moment, _ in waits(acknowledged, seen, first)]
    if missing := len(acknowledged) - len(waited):
        raise WorkerError(f"{missing} of {len(acknowledged)} versions were not seen within {PATIENCE:g} s")
    oldest = max(before for _, before in waits(acknowledged, seen, first))
    shares = {"p50": [median(waited)], "p99": [slowest(waited, 0.99)], "longest": [max(waited)]}
    return {"visible": waited} | shares | {"stale": [oldest]}


def waits(acknowledged: Sequence[float], seen: Sequence[Seen], first: int) -> list[tuple[float, float]]:
    """Return how long after its acknowledgement each version, or a newer one, was seen, and how long after it the last
    read began that got an older one; 0 if it was before, and nothing of a version that was never seen.

    >>> waits([1.0, 2.0, 3.0], [(3, 1.5, 1.25), (5, 2.75, 2.5)], 3)
    [(0.5, 0.25), (0.75, 0.5), (0.0, 0.0)]
    """
    found: list[tuple[float, float]] = []
    for version, moment in enumerate(acknowledged, first):
        at = next(((when, before) for newer, when, before in seen if newer >= version), None)
        found += [(max(0.0, at[0] - moment), max(0.0, at[1] - moment))] if at else []
    return found


def per_hit(said: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds for each hit of several processes at once.

    >>> per_hit([{"hits": 1_000, "took": 0.5}, {"hits": 1_000, "took": 0.25}])
    0.00016666666666666666
    """
    rates: list[float] = [one["hits"] / one["took"] for one in said]
    return 1 / sum(rates)


def disturbed(writes: int, rate: int) -> bool:
    """Tell whether others wrote as much during a block as they were to."""
    return writes >= DISTURBED * rate * BLOCK


def near(asked: int, hits: int) -> bool:
    """Tell whether these were near hits, the server having been asked so often."""
    return asked <= ASKED * hits


def counting(told: Sequence[float | None]) -> list[float]:
    """Return the times of the blocks that count; raise unless most do."""
    found = [one for one in told if one is not None]
    if 2 * len(found) < len(told):
        raise WorkerError(
            f"in {len(told) - len(found)} of {len(told)} blocks the server was asked, or others wrote less"
        )
    return found
