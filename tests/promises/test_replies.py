"""Nobody ever gets the reply to somebody else's question, whoever is cancelled, timed out or interrupted."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from nearcache import BackendError, Cache
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.pool import Pool, Wire
from nearcache.backends.transport.stream import Stream
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Alarm,
    Crowd,
    SignalAt,
    at_once,
    broken,
    dice,
    eventually,
    interrupted,
    noticed,
    recorded,
    values,
)
from tests.servers import RedisServer

KEYS = [f"names:{number}" for number in range(50)]
"""Each holds its own name, so that a reply to another question shows."""


MIXED_UP = "asked for .* got"
"""What the checks say."""


def named(new_cache: NewCache, url: str, **options: Any) -> Cache:
    """Return a cache without a near tier whose keys hold their names."""
    cache = new_cache(url, near=None, **options)
    cache.set_many({key: key for key in KEYS})
    return cache


def check(key: str, got: object) -> None:
    """Compare what came with what was asked for; a read that failed brings the default."""
    assert got in (key, "default"), f"asked for {key}, got {got!r}"


def ask_for_many(cache: Cache, keys: list[str]) -> None:
    """Ask for one after the other."""
    for key in keys:
        check(key, cache.get(key, "default"))


def check_all(cache: Cache) -> None:
    """Ask for everything, by both faces."""
    for key in KEYS:
        check(key, cache.get(key))
    got = cache.get_many(KEYS)
    assert got == {key: key for key in KEYS}, f"asked for all, got {got}"


# Tasks


async def ask(cache: Cache, luck: random.Random) -> None:
    """Ask for something in some way, and look at the answer."""
    key = luck.choice(KEYS)
    way = luck.randrange(4)
    if way == 0:
        check(key, await cache.aio.get(key, "default"))
    elif way == 1:
        asked = luck.sample(KEYS, 5)
        for one, got in (await cache.aio.get_many(asked)).items():
            assert one in asked
            check(one, got)
    elif way == 2:
        # What a cancelled write has left in doubt is absent until it is deleted.
        assert await cache.aio.exists(key) or key in cache._parts.core.debts, f"asked for {key}, got none"
    else:
        await cache.aio.set(key, key)


async def storm(cache: Cache, luck: random.Random, tasks: int = 100) -> None:
    """Ask in many tasks and cancel some of them at some turn of the loop."""
    asking = [asyncio.ensure_future(ask(cache, luck)) for _ in range(tasks)]
    for _ in range(6):
        await asyncio.sleep(0)
        for task in luck.sample(asking, tasks // 20):
            task.cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    wrong = [one for one in outcomes if isinstance(one, BaseException) and not isinstance(one, asyncio.CancelledError)]
    assert not wrong, f"asked for a name, got {wrong[0]!r}"
    # Whoever was cancelled in the middle of a write left a debt: all keys are written anew.
    await cache.aio.set_many({key: key for key in KEYS})
    assert await asyncio.gather(*[cache.aio.get(key) for key in KEYS]) == KEYS


def storms(cache: Cache, rounds: int = ROUNDS) -> None:
    """Repeat that in one loop."""
    luck = dice()

    async def all_rounds() -> None:
        for _ in range(rounds):
            await storm(cache, luck)

    asyncio.run(all_rounds())


def test_cancelled_tasks_leave_their_replies_to_nobody(wired_url: str, new_cache: NewCache) -> None:
    storms(named(new_cache, wired_url))


@pytest.mark.slow
def test_cancelled_tasks_leave_their_replies_to_nobody_for_long(wired_url: str, new_cache: NewCache) -> None:
    storms(named(new_cache, wired_url), rounds=500)


def test_a_place_in_line_that_is_given_up_is_noticed(valkey_server: RedisServer, new_cache: NewCache) -> None:
    real = Stream.submit

    def submit(
        stream: Stream, commands: tuple[Command, ...], deadline: float, history: str = ""
    ) -> asyncio.Future[list[Any]]:
        future = real(stream, commands, deadline, history)
        call = stream._calls[-1]

        def give_up(ended: asyncio.Future[list[Any]]) -> None:
            if ended.cancelled() and call in stream._calls:
                stream._calls.remove(call)

        future.add_done_callback(give_up)
        return future

    cache = named(new_cache, valkey_server.unix_url)
    with broken(Stream, "submit", submit), noticed(MIXED_UP):
        storms(cache)


# Threads


def interrupted_at_any_place(cache: Cache) -> int:
    """Interrupt a read at every place there is; whoever uses the connection next gets its own reply."""
    for place in range(1, 2000):
        key = KEYS[place % len(KEYS)]
        where = at_once(partial(SignalAt(place).run, partial(cache.get, key)))
        for other in (KEYS[0], KEYS[1], key):
            check(other, cache.get(other, "default"))
        if not where:
            check_all(cache)
            return place
    raise AssertionError("the read never ended")


@interrupted
def test_an_interrupted_call_leaves_its_reply_to_nobody(wired_url: str, new_cache: NewCache) -> None:
    assert interrupted_at_any_place(named(new_cache, wired_url)) > 30


@interrupted
def test_a_connection_that_is_given_back_with_a_reply_outstanding_is_noticed(
    valkey_server: RedisServer, new_cache: NewCache
) -> None:
    cache = named(new_cache, valkey_server.unix_url, pool_max=1, pool_timeout=0.01)

    def drop(pool: Pool, wire: Wire) -> None:
        pool.give_back(wire)

    with broken(Pool, "drop", drop), broken(Wire, "fit", lambda wire: True), noticed(MIXED_UP):
        interrupted_at_any_place(cache)


@pytest.mark.timeout(60, method="thread")  # the other method needs the alarm for itself
@interrupted
def test_signals_leave_replies_to_nobody(valkey_server: RedisServer, new_cache: NewCache, alarm: Alarm) -> None:
    """With real signals in the main thread, while other threads use the same pool."""
    cache, luck, over = named(new_cache, valkey_server.unix_url, pool_max=3), dice(), list[bool]()

    def others() -> None:
        mine = random.Random(luck.random())
        while not over:
            key = mine.choice(KEYS)
            assert cache.get(key) == key

    def ours() -> None:
        for key in luck.sample(KEYS, 5):
            check(key, cache.get(key, "default"))

    crowd = Crowd().threads(2, others).start()
    try:
        for _ in range(300):
            alarm.during(luck.uniform(1e-5, 1e-3), ours)
    finally:
        over.append(True)
    values(crowd.finish())
    assert alarm.rung > 50
    check_all(cache)


# Time-outs


def frozen_engine_mixes_nothing(server: RedisServer, cache: Cache, luck: random.Random) -> None:
    """Freeze the engine for a moment while threads and tasks ask: each gets its own reply, or none."""

    def thread() -> None:
        for key in luck.sample(KEYS, 10):
            check(key, cache.get(key, "default"))

    async def task() -> None:
        for key in luck.sample(KEYS, 10):
            check(key, await cache.aio.get(key, "default"))

    crowd = Crowd().threads(3, thread).tasks(5, task, loops=1)
    server.pause()
    try:
        crowd.start()
        with suppress(BackendError):
            cache.exists(KEYS[0])  # as long as a time-out lasts
    finally:
        server.resume()
    values(crowd.finish())
    eventually(lambda: all_are_there(cache), "everything is answered in time")


def hasty(new_cache: NewCache, url: str, **options: Any) -> Cache:
    """Return a cache like `named` that is connected, and whose calls take no longer than a moment."""
    namespace = named(new_cache, url)._parts.core.options.namespace
    cache = new_cache(url, near=None, namespace=namespace, timeout=0.05, **options)
    eventually(lambda: all_are_there(cache), "everything is answered in time")
    return cache


def all_are_there(cache: Cache) -> bool:
    """Ask for everything; tell whether it came. On a busy machine some of it may be late, but none may be mixed up."""
    with suppress(BackendError):
        cache.open()
    one_by_one = {key: cache.get(key, "default") for key in KEYS}
    for key, got in one_by_one.items():
        check(key, got)
    together = cache.get_many(KEYS)
    for key, got in together.items():
        check(key, got)
    return one_by_one == together == {key: key for key in KEYS}


def test_calls_that_timed_out_leave_their_replies_to_nobody(own_server: RedisServer, new_cache: NewCache) -> None:
    cache, luck = hasty(new_cache, own_server.unix_url, pool_max=3), dice()
    for _ in range(ROUNDS):
        frozen_engine_mixes_nothing(own_server, cache, luck)
    assert cache.stats().errors > 0


def test_a_timed_out_connection_that_is_kept_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    def exchange(link: BlockingLink, *commands: Command) -> Any:
        wire = link._pool.take()
        try:
            return link._call(wire, b"".join(map(packed, commands)), commands)
        finally:
            link._pool.give_back(wire)

    cache, luck = hasty(new_cache, own_server.unix_url, pool_max=1), dice()
    with (
        broken(BlockingLink, "execute", exchange),
        broken(Wire, "fit", lambda wire: True),
        noticed(MIXED_UP),
    ):
        for _ in range(ROUNDS):
            frozen_engine_mixes_nothing(own_server, cache, luck)


def packed(command: Command) -> bytes:
    """Write a command as the engine reads it."""
    words = [word.encode() if isinstance(word, str) else word for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def test_an_engine_that_dies_mixes_nothing(new_cache: NewCache, own_server: RedisServer) -> None:
    cache, luck = named(new_cache, own_server.unix_url, timeout=0.5, pool_max=3), dice()
    for _ in range(3):
        crowd = Crowd().threads(3, partial(ask_for_many, cache, luck.sample(KEYS, 20)))
        crowd.start()
        own_server.kill()
        values(crowd.finish())
        own_server.start()
        cache.open()
        cache.set_many({key: key for key in KEYS})
        check_all(cache)


# Whose is the number


def every_caller_gets_a_number_of_its_own(cache: Cache, key: str) -> None:
    """Count in threads and tasks, some of which are cancelled: no number comes twice."""
    got = list[int]()

    def thread() -> None:
        got.extend([cache.incr(key) for _ in range(10)])

    async def task() -> None:
        counting = asyncio.ensure_future(cache.aio.incr(key))
        if key[-1] in "02468":
            await asyncio.sleep(0)
            counting.cancel()
        with suppress(asyncio.CancelledError):
            got.append(await counting)

    values(Crowd().threads(3, thread).tasks(20, task, loops=1).start().finish())
    assert len(got) >= 30
    assert len(set(got)) == len(got), "two callers got the same number"


def test_numbers_come_to_those_who_counted(wired_url: str, new_cache: NewCache, fresh_key: Callable[[], str]) -> None:
    cache = new_cache(wired_url)
    cache.incr("warm:up")
    for _ in range(ROUNDS):
        key = fresh_key()
        with recorded(cache, cache.aio):
            every_caller_gets_a_number_of_its_own(cache, key)
