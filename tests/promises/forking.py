"""A program with one cache, made when it is imported, that forks; `test_forks_and_loops.py` starts it.

    CACHE_URL=... CACHE_NAMESPACE=... python -m tests.promises.forking <scenario> [<mechanism to take away>]

It exits with 0 if every process found what it should have found.
"""

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from nearcache import Cache
from nearcache._engine.core import Core
from nearcache.backends.transport.pool import Pool
from tests.promises.helpers import Crowd, SlowSource, at_once, eventually, values

cache = Cache(observers=(), pool_min=1, pool_max=3, staleness=0.001)
KEYS = [f"names:{number}" for number in range(20)]
CHILD_ENDS_WITHIN = 15.0


@cache.cached("{entity}:{number}")
def name(entity: str, number: int) -> str:
    """Load a name, which is that of its key."""
    return f"{entity}:{number}"


@cache.aio.cached("{entity}:{number}")
async def aname(entity: str, number: int) -> str:
    """Load a name, which is that of its key."""
    return f"{entity}:{number}"


# What every process must be able to do


def by_threads() -> None:
    """Ask for every name, in every way that blocks."""
    for number, key in enumerate(KEYS):
        assert name("names", number) == key
        assert cache.get(key, key) == key
    for key, got in cache.get_many(KEYS).items():
        assert got == key


async def by_tasks() -> None:
    """Ask for every name in many tasks, and block in between."""
    assert await asyncio.gather(*[aname("names", number) for number in range(len(KEYS))]) == KEYS
    assert await asyncio.gather(*[cache.aio.get(key, key) for key in KEYS]) == KEYS
    by_threads()


def everything() -> None:
    """Use both faces: threads, three loops in a row, and two loops at the same time."""
    by_threads()
    for _ in range(3):
        asyncio.run(by_tasks())
    values(Crowd().threads(2, by_threads).tasks(2, by_tasks, loops=2).start().finish())
    own = f"own:{os.getpid()}"
    cache.set(own, os.getpid())
    assert cache.get(own) == os.getpid()


# Processes


def forked(do: Callable[[], object]) -> int:
    """Do it in a child process; return the child's id."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        live(do)
    return child


def live(do: Callable[[], object]) -> NoReturn:
    """Be a child process."""
    try:
        at_once(do, within=CHILD_ENDS_WITHIN)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(*children: int) -> None:
    """Wait for child processes; all must have found everything in order."""
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "a child found something wrong"


def live_on() -> None:
    """Use everything, and wait to be killed."""
    everything()
    time.sleep(60)


def parent_of_another() -> None:
    """Use everything, and fork once more."""
    everything()
    ended(forked(everything))


# Scenarios


def preload() -> None:
    """Fork workers from a master that never used the cache; replace one that is killed."""
    workers = [forked(everything) for _ in range(3)]
    doomed = forked(live_on)
    eventually(lambda: cache.engine_key("own:1"), "the master goes on")
    os.kill(doomed, signal.SIGKILL)
    os.waitpid(doomed, 0)
    ended(*workers, forked(everything))


def used_before() -> None:
    """Use everything, fork, and use everything in all processes at the same time, grandchildren too."""
    everything()
    children = [forked(parent_of_another) for _ in range(2)]
    everything()
    ended(*children)
    everything()


def from_a_busy_process() -> None:
    """Fork while threads and loops are in the middle of something."""
    everything()  # imports what connecting needs: a module that is being imported stays half a module in a child
    over = threading.Event()

    def thread() -> None:
        while not over.is_set():
            by_threads()

    async def task() -> None:
        while not over.is_set():
            await by_tasks()

    crowd = Crowd().threads(2, thread).tasks(3, task, loops=1).start()
    try:
        for _ in range(5):
            ended(forked(everything))
    finally:
        over.set()
    values(crowd.finish())
    everything()


def inside_a_loop() -> None:
    """Fork in a coroutine: the child closes everything, and the parent's loop goes on as if nothing had happened."""

    def child() -> None:
        everything()
        asyncio.run(cache.aio.aclose())
        cache.close()
        cache.close()

    async def parent() -> None:
        await by_tasks()
        for _ in range(3):
            ended(forked(child))
            await by_tasks()

    asyncio.run(parent())


def during_a_load() -> None:
    """Fork while a load is under way: its leader stays behind. The child waits for it where the engine is shared, and
    loads for itself in memory.
    """
    shared = cache._engine.backend.shared
    source = SlowSource(lambda: "by the parent")
    crowd = Crowd().threads(1, lambda: cache.get_or_load("slow:1", source.load)).start()
    eventually(lambda: source.loads, "the parent loads")

    def child() -> None:
        expected = "by the parent" if shared else "by the child"
        assert cache.get_or_load("slow:1", lambda: "by the child") == expected
        assert asyncio.run(aname("slow", 2)) == "slow:2"

    forks = forked(child)
    source.open()
    ended(forks)
    assert values(crowd.finish()) == ["by the parent"]


def sees_what_others_write() -> None:
    """Write in a child: on a shared engine the parent reads it, in memory it does not."""
    shared = cache._engine.backend.shared
    cache.set("shared:1", "parent")

    def child() -> None:
        assert (cache.stats().near_entries == 0) == shared, "what others may change is not kept over a fork"
        assert cache.get("shared:1") == "parent"
        cache.set("shared:1", "child")

    ended(forked(child))
    eventually(lambda: cache.get("shared:1") == ("child" if shared else "parent"), "the parent sees it")


SCENARIOS: dict[str, Callable[[], object]] = {
    scenario.__name__: scenario
    for scenario in (preload, used_before, from_a_busy_process, inside_a_loop, during_a_load, sees_what_others_write)
}


# Mechanisms to take away


def nothing(*_: object) -> None:
    """Stand in place of a mechanism."""


def take_away(mechanism: str) -> None:
    """Break the library on purpose."""
    global CHILD_ENDS_WITHIN
    CHILD_ENDS_WITHIN = 3.0
    if mechanism == "connections":
        Pool.after_fork = nothing  # type: ignore[assignment]
        Pool.take = Pool._claim  # type: ignore[method-assign]
    else:
        Core.after_fork = nothing  # type: ignore[assignment]


def main(scenario: str, without: str = "") -> None:
    """Run a scenario."""
    if without:
        take_away(without)
    SCENARIOS[scenario]()


if __name__ == "__main__":
    main(*sys.argv[1:])
