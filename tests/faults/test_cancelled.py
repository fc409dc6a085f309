"""Calls that are cancelled at every place where they wait, and calls that a signal interrupts anywhere.

Each key's value is its own name, so a reply that reaches another caller shows. Afterwards all connections are there and
idle, nobody leads a load, and no lease is left in the engine.
"""

import asyncio
import gc
import itertools
import random
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from nearcache import BatchError, Cache, CodecError
from nearcache.backends.redis import dialect
from nearcache.backends.registers.base import Look
from nearcache.backends.registers.records import stub_in
from nearcache.backends.transport import pool as pool_module
from nearcache.backends.transport.aio import AwaitingLink
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.pool import Pool, Wire
from nearcache.backends.transport.stream import Stream
from tests.faults.calls import face
from tests.faults.table import Callers, seen
from tests.integration.redis.helpers import drive
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import (
    Alarm,
    Crowd,
    broken,
    dice,
    eventually,
    eventually_in_loop,
    interrupted,
    noticed,
    values,
)
from tests.servers import RedisServer

pytestmark = pytest.mark.alone

KEYS = [f"names:{number}" for number in range(20)]
LIFE = 0.5
"""Seconds that a lease lives."""
MOST = 3
"""Connections for threads, and for the tasks of a loop."""

FEW = 50
"""Leases on engines without scripts that thousands of interrupts may leave noted; of over 10,000, all are forgotten."""

Verb = Callable[[Any, str], Coroutine[Any, Any, Any]]


def named(key: str) -> str:
    return key


VERBS: dict[str, Verb] = {
    "get": lambda cache, key: cache.get(key),
    "get_many": lambda cache, key: cache.get_many([key, *KEYS[:3]]),
    "get_entry": lambda cache, key: cache.get_entry(key),
    "get_or_load": lambda cache, key: cache.get_or_load(key, cache.loader(lambda: key), tags=["t:1"]),
    "load": lambda cache, key: _loaded(cache, key),
    "get_or_load_many": lambda cache, key: cache.get_or_load_many(
        [key, *KEYS[:3]], cache.loader(lambda keys: {one: one for one in keys})
    ),
    "set": lambda cache, key: cache.set(key, key, tags=["t:1"]),
    "set_many": lambda cache, key: cache.set_many({one: one for one in (key, *KEYS[:3])}),
    "add": lambda cache, key: cache.add(key, key),
    "incr": lambda cache, key: cache.incr("n:1"),
    "touch": lambda cache, key: cache.touch(key, 600),
    "exists": lambda cache, key: cache.exists(key),
    "ttl": lambda cache, key: cache.ttl(key),
    "delete": lambda cache, key: cache.delete(key),
    "delete_many": lambda cache, key: cache.delete_many([key, *KEYS[:3]]),
    "invalidate_tags": lambda cache, key: cache.invalidate_tags("t:1"),
    "clear": lambda cache, key: cache.clear(),
    "write_through": lambda cache, key: cache.write_through(key, key, cache.loader(lambda value: None)),
}


async def _loaded(cache: Any, key: str) -> Any:
    """Load what was deleted just before."""
    await cache.delete(key)
    return await cache.get_or_load(key, cache.loader(lambda: key))


def check(callers: Callers, verb: str, key: str, got: Any) -> None:
    """Compare what came with what was asked for; what was deleted brings None."""
    match verb:
        case "get":
            right = got in (key, None)
        case "get_many":
            right = all(one == value for one, value in got.items())
        case "get_or_load" | "load" | "write_through":
            right = got == key
        case "get_or_load_many":
            right = got == {one: one for one in (key, *KEYS[:3])}
        case "get_entry":
            right = not got or got.value == key
        case "incr":
            right = type(got) is int
        case "add" | "touch" | "exists" | "delete":
            right = type(got) is bool
        case _:
            right = True
    callers.judge(right)
    assert right, f"asked for {key} by {verb}, got {got!r}"


class Redis:
    """What is looked at over a Redis or Valkey."""

    name = ""

    def __init__(self, server: RedisServer) -> None:
        self.url = server.unix_url
        self._server = server

    def links(self, cache: Any) -> list[Any]:
        """Return the ways to the engine, of one flavour."""
        return [cache._engine.backend._link]

    def no_lease_is_left(self, cache: Any) -> None:
        """Check that nobody renews a lease, and that none is left after its life."""
        listener = cache._engine.backend.listener
        eventually(lambda: not listener._held, "no lease is renewed")
        pattern = f"{{{cache._parts.core.options.namespace}:*}}~l"
        left = [self._server.command("PTTL", name) for name in self._server.command("KEYS", pattern)]
        assert all(each <= 1000 * LIFE for each in left), left
        eventually(lambda: not self._server.command("KEYS", pattern), "all leases have ended")


class Hazelcast:
    """What is looked at over a member of Hazelcast, whose client has a connection for all and no pool."""

    name = " (Hazelcast)"

    def __init__(self, url: str) -> None:
        self.url = url

    def links(self, _cache: Any) -> list[Any]:
        """Return no pools."""
        return []

    def no_lease_is_left(self, cache: Any) -> None:
        """Check that no lease is remembered, and that what is left of one is free after its life.

        An interrupt may come just after one was noted; such are few, and there is room for so many only.
        """
        backend = cache._engine.backend
        assert len(backend.leases._mine) <= FEW
        assert not cache.aio._engine.backend.leases._mine
        looks = [Look(backend.named(key)) for key in (*KEYS, "n:1")]
        stubs = [stub_in(answer.raw) for answer in drive(backend.take(*looks)) if answer.raw is not None]
        assert all(stub is None or stub.life <= LIFE for stub in stubs), stubs


class Memcached(Hazelcast):
    """What is looked at over Memcached servers."""

    name = " (Memcached)"

    def links(self, cache: Any) -> list[Any]:
        """Return the ways to the servers, of one flavour."""
        links: list[Any] = cache._engine.backend._registers._servers._links
        return links


Engine = Redis | Hazelcast


@pytest.fixture(params=["valkey", "memcached", "hazelcast"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """An engine of each kind of connections."""
    if request.param == "memcached":
        return Memcached(url_of(request.param, request))
    if request.param == "hazelcast":
        return Hazelcast(url_of(request.param, request))
    return Redis(request.getfixturevalue("valkey_server"))


def new(engine: Engine, new_cache: NewCache, **options: Any) -> Cache:
    """Return a cache whose keys hold their names."""
    options = {"pool_max": MOST, "pool_timeout": 2.0, "hard_timeout": LIFE, "timeout": 5.0, **options}
    cache = new_cache(engine.url, near=None, **options)
    cache.set_many({key: key for key in KEYS})
    return cache


# Tasks


class CancelledAt:
    """Awaits something, and cancels the task when it waits for the n-th time: at once, or as the answer arrives."""

    def __init__(self, work: Coroutine[Any, Any, Any], place: int, late: bool) -> None:
        self._work = work
        self._place = place
        self._late = late
        self.waited = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        work = self._work.__await__()
        answer: Callable[[], Any] = partial(next, work)
        while True:
            try:
                future = answer()
            except StopIteration as stop:
                return stop.value
            self.waited += 1
            if self.waited == self._place:
                if self._late and future is not None:
                    future.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                yield future
            except BaseException as error:
                answer = partial(work.throw, error)
            else:
                answer = partial(next, work)


async def cancelled_at(work: Coroutine[Any, Any, Any], place: int, late: bool) -> tuple[Any, bool]:
    """Return what comes of it, and whether it was cancelled."""
    wrapped = CancelledAt(work, place, late)

    async def run() -> Any:
        return await wrapped

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    return (None, True) if task.cancelled() else (task.result(), wrapped.waited >= place)


async def cancelled_after(work: Coroutine[Any, Any, Any], turns: int) -> tuple[Any, bool]:
    """Cancel it after so many turns of the loop; return what comes of it, and whether it was cancelled."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        if task.done():
            return task.result(), False
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return (None, True) if task.cancelled() else (task.result(), turns < 100)


Way = Callable[[Coroutine[Any, Any, Any], int], Awaitable[tuple[Any, bool]]]

WAYS: Sequence[Way] = (
    lambda work, place: cancelled_at(work, place + 1, late=False),
    lambda work, place: cancelled_at(work, place + 1, late=True),
    cancelled_after,
)


async def cancel_everywhere(cache: Cache, callers: Callers, least: int, luck: random.Random) -> int:
    """Cancel every verb at every place in every way, again and again; return how often."""
    front, cancelled = face(cache, "async"), 0
    while cancelled < least:
        for (name, verb), way in itertools.product(VERBS.items(), WAYS):
            for place in range(60):
                key, (one, other) = luck.choice(KEYS), luck.sample(KEYS, 2)
                neighbours = [asyncio.ensure_future(front.get(each)) for each in (one, other)]
                with callers.read():
                    got, was_cancelled = await way(verb(front, key), place)
                    if got is not None:
                        check(callers, name, key, got)
                for each, neighbour in zip((one, other), neighbours, strict=True):
                    check(callers, "get", each, await neighbour)
                cancelled += was_cancelled
                if not was_cancelled:
                    break
    return cancelled


async def all_is_given_back(cache: Cache, engine: Engine) -> None:
    """Check that connections are idle and few, that nobody leads or holds, and that leases end."""
    front = face(cache, "async")
    await front.set_many({key: key for key in KEYS})
    assert await asyncio.gather(*[front.get(key) for key in KEYS]) == KEYS
    for link in engine.links(cache.aio):
        assert isinstance(link, AwaitingLink)
        home = link._homes.get(asyncio.get_running_loop())
        streams = home.streams if home else []
        await eventually_in_loop(partial(idle, streams), "all replies are read")
        assert len(streams) <= MOST
    nobody_leads(cache, engine)


def idle(streams: Sequence[Stream]) -> bool:
    return not any(stream.load for stream in streams)


def nobody_leads(cache: Cache, engine: Engine) -> None:
    """Check that nobody in this process leads a load, and that no lease is left after its life."""
    eventually(lambda: not cache._parts.core.flights._by_key, "every load has landed")
    engine.no_lease_is_left(cache)


def cancellations(engine: Engine, new_cache: NewCache, callers: Callers, least: int) -> None:
    cache, luck = new(engine, new_cache), dice()

    async def work() -> None:
        assert await cancel_everywhere(cache, callers, least, luck) >= least
        await all_is_given_back(cache, engine)

    asyncio.run(work())


def test_a_call_cancelled_wherever_it_waits_leaves_nothing_behind(engine: Engine, new_cache: NewCache) -> None:
    cancellations(engine, new_cache, Callers(), 500)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_ten_thousand_cancelled_calls_leave_nothing_behind(engine: Engine, new_cache: NewCache) -> None:
    with seen(f"10,000 tasks are cancelled, at every place{engine.name}") as callers:
        cancellations(engine, new_cache, callers, 10_000)
        assert callers.wrong == callers.read_errors == 0, callers.errors


def test_a_reply_of_a_cancelled_call_that_the_next_one_gets_is_noticed(
    valkey_server: RedisServer, new_cache: NewCache
) -> None:
    real = Stream.submit

    def submit(stream: Stream, commands: Any, deadline: float, history: str = "") -> Any:
        future = real(stream, commands, deadline, history)
        call = stream._calls[-1]

        def give_up(ended: asyncio.Future[Any]) -> None:
            with suppress(ValueError):
                if ended.cancelled():
                    stream._calls.remove(call)

        future.add_done_callback(give_up)
        return future

    with broken(Stream, "submit", submit), noticed("asked for"):
        cancellations(Redis(valkey_server), new_cache, Callers(), 5_000)


# Threads


WIRED = ("valkey", "memcached")
"""Engines whose connections are this library's own."""


class SoftTimeLimit(Exception):
    """What task queues raise in a task that has run for too long: no interrupt of Python's, and a plain Exception."""


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of errors that Python can raise nowhere: pytest would keep their tracebacks, and what these hold."""
    with broken(sys, "unraisablehook", lambda _: None):
        yield


@quiet()
def interruptions(engine: Engine, new_cache: NewCache, alarm: Alarm, callers: Callers, least: int) -> None:
    """Interrupt every verb in the main thread while other threads use the same pool."""
    cache, luck, over = new(engine, new_cache), dice(), list[bool]()
    pools = [link._pool for link in engine.links(cache)]
    crowd = Crowd().threads(2, partial(others, cache, random.Random(luck.random()), over)).start()
    try:
        # Thousands of interrupts in seconds leave garbage more often than a pool looks for it.
        with broken(pool_module, "COLLECT_EVERY", 0.0):
            while alarm.rung < least:
                for name, verb in VERBS.items():
                    alarm.error = luck.choice([KeyboardInterrupt, SoftTimeLimit])
                    asking = partial(ask, cache, name, verb, luck.choice(KEYS), callers)
                    alarm.during(luck.uniform(1e-5, 1e-3), asking)
                    assert all(len(pool) <= MOST for pool in pools)
    finally:
        over.append(True)
    values(crowd.finish())
    assert callers.read_errors == 0, f"asked for something, got {callers.errors}"
    gc.collect()  # what an interrupt left between two lines
    eventually(lambda: not cache._parts.core.owed and not payers(), "what was owed is paid")
    cache.set_many({key: key for key in KEYS})
    assert cache.get_many(KEYS) == {key: key for key in KEYS}
    for pool in pools:
        taken = [pool.take() for _ in range(MOST)]
        assert len(pool) == MOST
        for wire in taken:
            pool.drop(wire)
    nobody_leads(cache, engine)


def ask(cache: Cache, name: str, verb: Verb, key: str, callers: Callers) -> None:
    with callers.read():
        try:
            got = drive(verb(face(cache, "sync"), key))
        except (BatchError, CodecError) as failed:
            errors = failed.errors.values() if isinstance(failed, BatchError) else [failed]
            if all("SoftTimeLimit" in repr(error) for error in errors):
                return  # it came in a loader or an encoder, and is its error like any other
            raise
        if got is not None:
            check(callers, name, key, got)


def others(cache: Cache, luck: random.Random, over: list[bool]) -> None:
    while not over:
        key = luck.choice(KEYS)
        check(Callers(), "get", key, cache.get(key))


@pytest.mark.timeout(60, method="thread")  # the other method needs the alarm for itself
@pytest.mark.parametrize("engine", WIRED, indirect=True)
@interrupted
def test_a_call_interrupted_anywhere_leaves_nothing_behind(engine: Engine, new_cache: NewCache, alarm: Alarm) -> None:
    interruptions(engine, new_cache, alarm, Callers(), 300)


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("engine", ["hazelcast"], indirect=True)
@interrupted
def test_an_interrupt_inside_the_client_of_another_maker_costs_a_client_at_most(
    engine: Engine, new_cache: NewCache, alarm: Alarm
) -> None:
    """It may leave a lock that nobody gives back, and the thread that brings all answers waits for that for ever."""
    interruptions(engine, new_cache, alarm, Callers(), 100)


@pytest.mark.slow
@pytest.mark.timeout(200, method="thread")
@pytest.mark.parametrize("engine", WIRED, indirect=True)
@interrupted
def test_thousands_of_interrupted_calls_leave_nothing_behind(engine: Engine, new_cache: NewCache, alarm: Alarm) -> None:
    with seen(f"5,000 calls are interrupted by signals{engine.name}") as callers:
        interruptions(engine, new_cache, alarm, callers, 5_000)
        assert callers.wrong == callers.read_errors == 0, callers.errors


def payers() -> list[threading.Thread]:
    """Return the threads that repeat invalidations: they may delete what was just written."""
    return [thread for thread in threading.enumerate() if thread.name == "nearcache-payer"]


def new_pool(server: RedisServer, new_cache: NewCache) -> tuple[Cache, Pool]:
    """Return a cache and its pool of one connection."""
    engine = Redis(server)
    cache = new(engine, new_cache, pool_max=1, pool_timeout=0.1)
    (link,) = engine.links(cache)
    assert isinstance(link, BlockingLink)
    return cache, link._pool


def test_a_connection_whose_end_was_interrupted_does_not_count_for_ever(
    valkey_server: RedisServer, new_cache: NewCache
) -> None:
    """Python drops an interrupt that comes while a set lets go of an object that is gone: it stays in the set."""
    _, pool = new_pool(valkey_server, new_cache)
    pool.drop(pool.take())
    wire = Wire(dialect, 0)
    gone = weakref.ref(wire)
    pool._alive.data.add(gone)  # type: ignore[attr-defined]  # of Python's WeakSet
    del wire
    assert gone() is None
    pool.drop(pool.take())
    assert len(pool) == 0


def test_a_connection_that_only_a_traceback_holds_is_found(valkey_server: RedisServer, new_cache: NewCache) -> None:
    cache, pool = new_pool(valkey_server, new_cache)
    gc.disable()
    try:
        held: list[Any] = [pool.take()]
        held.append(held)
        del held
        assert cache.exists(KEYS[0])
    finally:
        gc.enable()


@pytest.mark.timeout(60, method="thread")
@interrupted
def test_an_interrupted_call_whose_connection_is_kept_is_noticed(
    valkey_server: RedisServer, new_cache: NewCache, alarm: Alarm
) -> None:
    def drop(pool: Pool, wire: Wire) -> None:
        pool.give_back(wire)

    with broken(Pool, "drop", drop), broken(Wire, "fit", lambda wire: True), noticed("asked for"):
        interruptions(Redis(valkey_server), new_cache, alarm, Callers(), 3_000)
