"""Many readers of one key that expires again and again, in several processes: who loads, and how long readers wait.

The parent starts the processes and tells all the same beginning, by the clock that the processes of a machine share.
Each answers with when its loads began, how long each of its reads took, and how old the oldest value was that a reader
got. Before that, the first one shows that values are cached and expire.

Loads that begin within half a TTL of the first one belong to one expiry. The first of all, for which there was nothing
to expire, does not count.
"""

import asyncio
import inspect
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO, cast

from bench.found import found, versions
from bench.row import Contender, Row
from bench.work import BRIEF, LOAD, READERS, Runs, flat

READ = 7
CHECKED = 8
"""The keys of the readers, and of the check before them."""

PAUSE = 0.04
"""Seconds between two reads of a reader, on average."""

HEAD_START = 0.5
NEAR = 0.1
"""Seconds from an expiry within which a read begins that is said to be near it."""

RARE = 0.999
"""The share of reads that take no longer than the tail that is told."""

OLDEST = 2.0 * BRIEF
"""How old a value may be that a reader gets: whoever refreshes early or serves stale values keeps them a bit longer."""

Read = Callable[[int], Any]


@dataclass
class Log:
    """What became of the reads of one or more readers: when each of them began, and how long it took."""

    reads: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    wrong: int = 0
    oldest: float = 0.0

    def note(self, value: Any, started: float, begin: float) -> None:
        """Note one read."""
        took = time.monotonic() - started
        self.reads.append((round(started - begin, 6), round(took, 7)))
        self.wrong += not right(value, READ)
        self.oldest = max(self.oldest, started - value["loaded"])

    def add(self, other: "Log") -> None:
        """Add another reader's reads."""
        self.reads += other.reads
        self.wrong += other.wrong
        self.oldest = max(self.oldest, other.oldest)


# The worker's side


def live(out: TextIO, row: Row, contender: Contender, url: str) -> None:
    """Say hello, then do what each line of the input asks for."""
    _, builder = found(contender)
    print(json.dumps({"versions": versions(contender)}), file=out, flush=True)
    with asyncio.Runner() as runner:
        if inspect.iscoroutinefunction(builder):
            function = runner.run(builder(url))
            _obey(out, lambda begin, end: runner.run(_tasks(function, begin, end)), *_awaited(runner, function))
        else:
            function = builder(url)
            _obey(out, lambda begin, end: _threads(function, begin, end), function, time.sleep)


def _awaited(runner: asyncio.Runner, function: Read) -> tuple[Read, Callable[[float], object]]:
    return (lambda key: runner.run(function(key))), (lambda seconds: runner.run(asyncio.sleep(seconds)))


def _obey(out: TextIO, crowd: Callable[[float, float], Log], read: Read, pause: Callable[[float], object]) -> None:
    for line in sys.stdin:
        try:
            said = check(read, pause) if line == "check\n" else _crowded(crowd, *map(float, line.split()))
        except Exception as error:  # noqa: BLE001 -- whatever a peer raises, its row says so
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=out, flush=True)


def _crowded(crowd: Callable[[float, float], Log], begin: float, end: float) -> dict[str, Any]:
    log = crowd(begin, end)
    return asdict(log) | {"loads": [began for key, began in Runs.began if key == READ]}


def check(read: Read, pause: Callable[[float], object]) -> dict[str, Any]:
    """Read a key until it expires; raise unless the values are right and come from a cache with this TTL."""
    first, again = read(CHECKED), read(CHECKED)
    if not (right(first, CHECKED) and right(again, CHECKED)):
        raise ValueError(f"the answers are {first!r:.200} and {again!r:.200}")
    if first != again:
        raise ValueError("nothing was cached")
    while read(CHECKED) == first:
        if time.monotonic() > first["loaded"] + 2 * OLDEST:
            raise ValueError(f"nothing expires: the TTL is {BRIEF} s")
        pause(PAUSE / 2)
    lived = time.monotonic() - first["loaded"]
    if not BRIEF / 2 <= lived <= OLDEST:
        raise ValueError(f"a value lived for {lived:.2f} s with a TTL of {BRIEF} s")
    return {"lived": lived}


def right(value: Any, key: int) -> bool:
    """Tell whether a value is what the function returned for a key."""
    return isinstance(value, dict) and value == flat(key) | {"loaded": cast("dict[str, Any]", value).get("loaded")}


def _threads(read: Read, begin: float, end: float) -> Log:
    logs, errors = [Log() for _ in range(READERS)], list[Exception]()

    def reader(log: Log) -> None:
        try:
            for pause in _pauses(begin, end):
                time.sleep(pause)
                started = time.monotonic()
                log.note(read(READ), started, begin)
        except Exception as error:  # noqa: BLE001 -- raised below
            errors.append(error)

    threads = [threading.Thread(target=reader, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return _sum(logs)


async def _tasks(read: Read, begin: float, end: float) -> Log:
    logs = [Log() for _ in range(READERS)]

    async def reader(log: Log) -> None:
        for pause in _pauses(begin, end):
            await asyncio.sleep(pause)
            started = time.monotonic()
            log.note(await read(READ), started, begin)

    await asyncio.gather(*map(reader, logs))
    return _sum(logs)


def _pauses(begin: float, end: float) -> Iterable[float]:
    """Return the pauses before a reader's reads: at first until all begin, none of them at the same moment."""
    yield max(0.0, begin - time.monotonic()) + PAUSE * random.random()  # noqa: S311
    while time.monotonic() < end:
        yield PAUSE * (0.5 + random.random())  # noqa: S311


def _sum(logs: Iterable[Log]) -> Log:
    total = Log()
    for log in logs:
        total.add(log)
    return total


# The parent's side: pure functions


def end_of(begin: float, rounds: int) -> float:
    """Return until when readers read, so that so many expiries come after the first load."""
    return begin + (rounds + 1) * (BRIEF + LOAD) * 1.2


def result(said: Sequence[Mapping[str, Any]], begin: float, rounds: int) -> dict[str, Any]:
    """Return what is told of each expiry and of the slowest reads, or what was wrong."""
    loads = sorted(began for one in said for began in one.get("loads", ()))
    groups = [group for group in expiries(loads)[1:] if group[0] + BRIEF / 2 <= end_of(begin, rounds)]
    if problem := unfit(said, len(groups), rounds):
        return {"error": problem}
    reads: list[tuple[float, float]] = [read for one in said for read in one["reads"]]
    moments = [group[0] - begin for group in groups]
    after = [took for began, took in reads if began > BRIEF / 2 and close(began, moments)]
    other = [took for began, took in reads if began > BRIEF / 2 and not close(began, moments)]
    return {
        "loads": [float(len(group)) for group in groups[:rounds]],
        "wait": [longest(reads, moment) for moment in moments[:rounds]],
        "tail": [tail(after) / tail(other)],
        "tail_near": [tail(after)],
        "tail_else": [tail(other)],
    }


def unfit(said: Sequence[Mapping[str, Any]], groups: int, rounds: int) -> str | None:
    """Say what was wrong with the reads, if anything was."""
    if errors := [one["error"] for one in said if "error" in one]:
        return str(errors[0])
    if wrong := sum(one["wrong"] for one in said):
        return f"{wrong} of {sum(len(one['reads']) for one in said)} answers were wrong"
    if (oldest := max(one["oldest"] for one in said)) > OLDEST:
        return f"a value was {oldest:.2f} s old, with a TTL of {BRIEF} s"
    if groups < rounds:
        return f"it was loaded anew {groups} times, not {rounds}"
    return None


def expiries(loads: Iterable[float]) -> list[list[float]]:
    """Put loads into groups, one for each expiry; they are in the order of their beginnings.

    >>> expiries([0.0, 0.04, 1.05, 1.06, 2.2])
    [[0.0, 0.04], [1.05, 1.06], [2.2]]
    """
    groups: list[list[float]] = []
    for began in loads:
        if groups and began - groups[-1][0] <= BRIEF / 2:
            groups[-1].append(began)
        else:
            groups.append([began])
    return groups


def longest(reads: Iterable[tuple[float, float]], moment: float) -> float:
    """Return the longest of the reads that began within half a TTL of an expiry."""
    return max((took for began, took in reads if abs(began - moment) <= BRIEF / 2), default=0.0)


def close(began: float, moments: Iterable[float]) -> bool:
    """Tell whether a read began near one of these moments."""
    return any(abs(began - moment) <= NEAR for moment in moments)


def tail(took: Sequence[float]) -> float:
    """Return what all but the slowest of a thousand reads take at most.

    >>> tail([1.0, 9.0] + 998 * [0.5]), tail([2.0, 1.0])
    (1.0, 2.0)
    """
    return slowest(took, RARE)


def slowest(took: Sequence[float], share: float) -> float:
    """Return what this share of them takes at most.

    >>> slowest([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    return sorted(took)[math.ceil(len(took) * share) - 1]
