"""A lock has one holder at a time while its leases are honoured; where one is not, tokens tell the holders apart."""

import asyncio
import functools
import gc
import itertools
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nearcache import AsyncCache, Cache, Held, LockLostError
from nearcache._io.blocking import drive
from nearcache.backends.locks import LOCK_CLAIM, LOCK_LOOK, LOCK_PATIENCE, LockAsk
from nearcache.backends.memory_locks import MemoryLocks
from nearcache.backends.redis import backend as redis_backend
from nearcache.backends.redis import lua
from nearcache.backends.redis.listener import Listener
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import lock_of
from nearcache.backends.registers.locks import RegisterLocks
from tests.promises.conftest import NewCache, url_of
from tests.promises.fleet import in_time
from tests.promises.helpers import Crowd, broken, dice, eventually, noticed, noticed_within, values
from tests.promises.locking import Crew, Resource
from tests.servers import RedisServer, ask

LOOSE = 1.0
"""Seconds that somebody may be late, on a busy machine."""


@pytest.fixture(params=["memory", "valkey", "redis", "embedded", "cluster", "hazelcast"])
def locked_url(request: pytest.FixtureRequest) -> str:
    """Every engine that has locks."""
    return url_of(request.param, request)


def holder_of(cache: Cache, name: str) -> str:
    """Return what the engine calls the record of who holds a lock."""
    return lock_of(cache.engine_key(name))[0]


@contextmanager
def loses(why: str | None = None) -> Iterator[None]:
    """Demand that the block ends because its lock was lost."""
    with pytest.raises(LockLostError, match=why):
        yield


# One holder


class Room:
    """What only one may enter; notes who was there when, by their tokens."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.tokens: list[int] = []

    def enter(self, token: int) -> None:
        """Go in, and stay so long that others would meet it."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.tokens.append(token)

    def leave(self) -> None:
        """Go out."""
        self.inside -= 1


def one_at_a_time(url: str, new_cache: NewCache, fair: bool = False) -> None:
    """Let threads and tasks of two caches take one lock, and check that they never met."""
    one = new_cache(url)
    other = new_cache(url, namespace=one._parts.core.options.namespace) if url != "memory://" else one
    room, times = Room(), 5

    def thread() -> None:
        for cache in (one, other) * times:
            with cache.lock("a", wait=30, fair=fair) as held:
                room.enter(held.token)
                time.sleep(0.001)
                room.leave()

    async def task() -> None:
        for cache in (one.aio, other.aio) * times:
            async with cache.lock("a", wait=30, fair=fair) as held:
                room.enter(held.token)
                await asyncio.sleep(0.001)
                room.leave()

    outcomes = Crowd().threads(3, thread).tasks(3, task).start().finish()
    assert room.most == 1, "two held it"
    values(outcomes)
    assert len(room.tokens) == 6 * 2 * times
    assert all(earlier < later for earlier, later in itertools.pairwise(room.tokens)), "a token did not grow"


@pytest.mark.parametrize("fair", [False, True])
def test_one_holds_the_lock_at_a_time(locked_url: str, new_cache: NewCache, fair: bool) -> None:
    one_at_a_time(locked_url, new_cache, fair)


def test_a_lock_that_lets_everybody_in_is_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with (
        rewritten("lock_acquire", "holds(owner) or (fits(most) and not (fair and first()))", "true"),
        noticed("two held it"),
    ):
        one_at_a_time(valkey_url, new_cache)


@contextmanager
def rewritten(name: str, text: str, replacement: str) -> Iterator[None]:
    """Take a mechanism out of a script."""
    real = script(name).text
    assert text in real
    made = lua.made(real.replace(text, replacement))
    with broken(redis_backend, "script", lambda asked: made if asked == name else script(asked)):
        yield


# Tokens


def tokens_grow_where_the_engine_forgets(url: str, address: Path, new_cache: NewCache) -> None:
    """Take a lock again and again while the engine loses what it knows of it."""
    cache, tokens = new_cache(url), list[int]()
    records = lock_of(cache.engine_key("a"))
    for lost in ((), records[:1], records[1:2], records):
        with cache.lock("a") as held:
            tokens.append(held.token)
        ask(address, "DEL", "~nothing", *lost)
    assert tokens == sorted(set(tokens)), "a token did not grow"


def test_tokens_grow_where_the_engine_forgets(valkey_url: str, valkey_server: RedisServer, new_cache: NewCache) -> None:
    tokens_grow_where_the_engine_forgets(valkey_url, valkey_server.socket, new_cache)


def test_tokens_that_are_only_counted_are_noticed(
    valkey_url: str, valkey_server: RedisServer, new_cache: NewCache
) -> None:
    with rewritten("lock_acquire", "micros) + 1", "0) + 1"), noticed("a token did not grow"):
        tokens_grow_where_the_engine_forgets(valkey_url, valkey_server.socket, new_cache)


def test_tokens_grow_over_a_restart_that_loses_everything(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.unix_url, timeout=5.0)
    with cache.lock("a") as held:
        before = held.token
    own_server.kill()
    own_server.start()
    eventually(lambda: cache.health().ok, "the engine is back")
    with cache.lock("a") as held:
        assert held.token > before


def test_tokens_of_memory_grow_though_its_last_one_is_forgotten() -> None:
    with Cache("memory://").lock("a") as held:
        before = held.token
    with Cache("memory://").lock("a") as held:
        assert held.token > before


# Stopped holders


def stopped_holders_do_no_harm(
    url: str,
    address: Path,
    kind: str = "fenced",
    processes: int = 4,
    rounds: int = 4,
    stops: int = 1,
    patience: float = 45.0,
) -> None:
    """Have processes change a resource under one lock while some of them are stopped for longer than its lease."""
    seed, namespace = dice().randrange(2**32), f"p{uuid.uuid4().hex[:10]}"
    common = {"url": url, "namespace": namespace, "address": str(address), "kind": kind, "rounds": rounds}
    common["patience"] = patience
    crew = Crew(
        [
            {**common, "stops": stops, "seed": seed + n, "flavour": ("sync", "async")[n % 2], "fair": n % 4 > 1}
            for n in range(processes)
        ]
    )
    try:
        did = crew.finish()
    finally:
        crew.kill()
    resource = Resource(address, namespace)
    state, tokens = resource.state(), resource.tokens()
    print(dict(did), state)
    assert state["accepted"] == did["written"]
    assert state["number"] == state["accepted"], "a write was lost"
    if kind == "fenced":
        assert all(earlier < later for earlier, later in itertools.pairwise(tokens)), "a token did not grow"
        assert did["told of the loss"], "nobody lost the lock: this round says nothing"


@pytest.mark.alone
@pytest.mark.parametrize(
    "engine", ["valkey", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "hazelcast"))]
)
def test_a_holder_that_was_stopped_beyond_its_lease_does_no_harm(
    request: pytest.FixtureRequest, valkey_server: RedisServer, engine: str
) -> None:
    stopped_holders_do_no_harm(url_of(engine, request), valkey_server.socket)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sixteen_processes_and_thousands_of_acquisitions(valkey_server: RedisServer) -> None:
    stopped_holders_do_no_harm(
        valkey_server.unix_url, valkey_server.socket, processes=16, rounds=200, stops=2, patience=280.0
    )


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["plain", "unfenced"])
def test_a_lock_without_a_fence_loses_writes(valkey_server: RedisServer, kind: str) -> None:
    """The plain lock lets others in as soon as one who was stopped deletes it; and no lock stops a late write."""
    noticed_within(
        6, lambda: stopped_holders_do_no_harm(valkey_server.unix_url, valkey_server.socket, kind), "a write was lost"
    )


# Time


def test_a_lock_that_is_held_does_not_end(valkey_url: str, valkey_server: RedisServer, new_cache: NewCache) -> None:
    """However long the block takes; also without a near tier, where the listener has less to do."""
    cache = new_cache(valkey_url, near=None)
    with cache.lock("a", ttl=1) as held:
        ends = time.monotonic() + 3.0
        while time.monotonic() < ends:
            held.check()
            assert valkey_server.command("PTTL", holder_of(cache, "a")) > 0
            time.sleep(0.01)


def lives_on(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)
    with cache.lock("a", ttl=1) as held:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            held.check()
            time.sleep(0.01)


def test_a_lock_that_nobody_renews_is_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with (
        broken(Listener, "_renew", lambda *_: None),
        loses("was not renewed in time"),
    ):
        lives_on(valkey_url, new_cache)


def handed_on(url: str, new_cache: NewCache, fair: bool) -> float:
    """Have one thread wait for the lock of another; return by how much it got it later than a message takes."""
    return handed_on_by(url, new_cache, lambda cache: cache.lock("a", wait=20, fair=fair))


def handed_on_by(url: str, new_cache: NewCache, block: Callable[[Cache], AbstractContextManager[Held]]) -> float:
    """Have one thread wait for what another holds; return by how much it got it later than a message takes."""
    one = new_cache(url)
    other = new_cache(url, namespace=one._parts.core.options.namespace) if url != "memory://" else one
    got = list[float]()

    def wait() -> None:
        with block(other):
            got.append(time.monotonic())

    with block(one):
        crowd = Crowd().threads(1, wait).start()
        time.sleep(
            1.2
        )  # it has looked again by itself meanwhile, and has most of a second to go until it does so again
        released = time.monotonic()
    values(crowd.finish())
    return got[0] - released - LOOK_IS_LATE


LOOK_IS_LATE = 0.5
"""Seconds after which who waits has not been woken by a message: it has looked by itself."""


@pytest.mark.alone
@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("engine", ["memory", "valkey", "redis", "cluster"])
def test_who_waits_is_woken_by_a_message(
    request: pytest.FixtureRequest, new_cache: NewCache, engine: str, fair: bool
) -> None:
    in_time(1, lambda: handed_on(url_of(engine, request), new_cache, fair))


@pytest.mark.alone
def test_waiters_that_hear_nothing_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    def late() -> None:
        assert handed_on(valkey_url, new_cache, fair=False) <= 0.0, "it looked by itself"

    with broken(Listener, "_hear", lambda *_: None):
        noticed_within(5, late, "it looked by itself")


def test_a_lock_whose_holder_got_lost_is_not_renewed(valkey_url: str, new_cache: NewCache) -> None:
    """As when an interrupt comes after the lock was taken and before the block begins."""
    cache: Any = new_cache(valkey_url)
    locks, listener = cache._engine.locks, cache._engine.backend.listener
    had = drive(locks.acquire(locks.terms(1, 0, False, None)("a")))
    assert had.owner in listener._held
    del had
    gc.collect()
    assert not listener._held
    with cache.lock("a", wait=10):
        pass


# The dead


@contextmanager
def other_process(work: Callable[[int], None]) -> Iterator[int]:
    """Fork a process that does something and then says so through a pipe; killed at the end."""
    heard, says = os.pipe()
    if not (pid := os.fork()):
        try:
            work(says)
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(says)
    try:
        assert os.read(heard, 1) == b"!", "it never began"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(heard)


@pytest.mark.alone
@pytest.mark.parametrize("fair", [False, True])
def test_a_dead_holder_holds_others_up_for_one_lease(valkey_url: str, new_cache: NewCache, fair: bool) -> None:
    cache, life = new_cache(valkey_url), 2.0

    def die_later(says: int) -> None:
        with cache.lock("a", ttl=life, fair=fair):
            os.write(says, b"!")
            time.sleep(60)

    def play() -> float:
        with other_process(die_later) as pid:
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            with cache.lock("a", wait=30, fair=fair):
                return time.monotonic() - (died + life + LOOSE)

    in_time(2, play)


@pytest.mark.alone
def test_a_dead_waiter_costs_those_behind_it_two_seconds(
    valkey_url: str, valkey_server: RedisServer, new_cache: NewCache
) -> None:
    cache = new_cache(valkey_url)
    queue = lock_of(cache.engine_key("a"))[2]

    def wait(says: int) -> None:
        def tell() -> None:
            eventually(lambda: waiting() > 0, "it waits")
            os.write(says, b"!")

        threading.Thread(target=tell).start()
        with cache.lock("a", wait=30, fair=True):
            pass

    def waiting() -> int:
        return int(valkey_server.command("ZCARD", queue))

    def play() -> float:
        got = list[float]()

        def live() -> None:
            with cache.lock("a", wait=30, fair=True):
                got.append(time.monotonic())

        with cache.lock("a", fair=True), other_process(wait) as pid:
            crowd = Crowd().threads(1, live).start()
            eventually(lambda: waiting() == 2, "both wait")
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
        values(crowd.finish())
        return got[0] - died - (LOCK_CLAIM + LOCK_LOOK + LOOSE)

    in_time(2, play)


def the_silent_are_passed_over(cache: Cache, fair: bool) -> None:
    """Have one wait who never asks again before another who does, and let the lock go."""
    locks = cache._engine.backend.locks
    assert locks is not None
    asks = {name: LockAsk("a", name, 60.0, fair, waits=True) for name in ("holder", "dead", "alive")}
    assert drive(locks.acquire(asks["holder"])).token
    drive(locks.acquire(asks["dead"]))
    asked = time.monotonic()
    while time.monotonic() < asked + LOCK_PATIENCE + 0.1:
        drive(locks.acquire(asks["alive"]))
        time.sleep(0.1)
    mail = locks.expect("alive")
    drive(locks.release("a", "holder", fair))
    eventually(lambda: mail.heard == ("alive", "free"), "the next one is told")
    assert drive(locks.acquire(asks["alive"])).token
    drive(locks.release("a", "alive", fair))


@pytest.mark.parametrize("fair", [False, True])
def test_those_who_are_silent_cost_no_turn(url: str, new_cache: NewCache, fair: bool) -> None:
    """However many died together, nobody waits a turn for each of them."""
    cache = new_cache(url)
    with cache.lock("other"):
        heard_by(cache)
        the_silent_are_passed_over(cache, fair)


def heard_by(cache: Cache) -> None:
    """Wait until messages reach this process."""
    backend: Any = cache._engine.backend
    if not isinstance(backend.locks, MemoryLocks):
        eventually(backend.listener.channel, "somebody listens")


# Order


def served_in_order(url: str, new_cache: NewCache) -> None:
    """Have several wait for a fair lock, one after the other, and check in which order they got it."""
    cache, got = new_cache(url), list[int]()

    def take(number: int) -> None:
        with cache.lock("a", wait=30, fair=True):
            got.append(number)

    crowds = list[Crowd]()
    with cache.lock("a", fair=True):
        for number in range(8):
            crowds.append(Crowd().threads(1, functools.partial(take, number)).start())
            eventually(lambda: waiting_in(cache) == len(crowds), "it waits")
    for crowd in crowds:
        values(crowd.finish())
    assert got == sorted(got), f"they were served in another order: {got}"


def waiting_in(cache: Cache) -> int:
    """Return how many wait for the lock."""
    backend: Any = cache._engine.backend
    if isinstance(backend.locks, MemoryLocks):
        return len(backend.locks._locks["a"].waiting)
    if isinstance(backend.locks, RegisterLocks):
        return len(drive(backend.locks._look("a"))[1].waiting)
    return int(drive(backend.single(("ZCARD", lock_of(cache.engine_key("a"))[2]))))


def test_a_fair_lock_is_handed_on_in_the_order_in_which_they_came(locked_url: str, new_cache: NewCache) -> None:
    served_in_order(locked_url, new_cache)


def test_an_order_that_is_left_to_luck_is_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with rewritten("lock_release", "'ZRANGE', queue", "'ZREVRANGE', queue"), noticed("in another order"):
        served_in_order(valkey_url, new_cache)


# Loss


@pytest.mark.alone
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_running_holder_learns_of_a_loss_before_its_lease_ends(
    own_server: RedisServer, new_cache: NewCache, flavour: str
) -> None:
    cache, life = new_cache(own_server.unix_url), 3.0
    record = holder_of(cache, "a")

    def cut_off() -> float:
        """Stop the engine; return when the lease ends."""
        sent = time.monotonic()
        left = own_server.command("PTTL", record) / 1000
        own_server.pause()
        return sent + float(left)

    def play() -> float:
        told, ends = list[float](), list[float]()

        def thread() -> None:
            with loses(), cache.lock("a", life, on_loss=lambda _: told.append(time.monotonic())):
                ends.append(cut_off())
                eventually(lambda: told, "it is told")

        async def task() -> None:
            with loses():
                async with cache.aio.lock("a", life):
                    ends.append(cut_off())
                    try:
                        await asyncio.sleep(30)
                    finally:
                        told.append(time.monotonic())

        try:
            thread() if flavour == "sync" else asyncio.run(task())
        finally:
            own_server.resume()
            eventually(lambda: cache.health().ok, "the engine is back")
        return told[0] - ends[0]

    in_time(1, play)


@pytest.mark.alone
async def test_a_task_whose_lock_was_taken_away_is_cancelled(valkey_url: str, valkey_server: RedisServer) -> None:
    cache = AsyncCache(valkey_url, namespace=f"p{uuid.uuid4().hex[:10]}", observers=())
    started = time.monotonic()
    with loses("the engine gave it to another, or forgot it"):
        async with cache.lock("a", ttl=3):
            valkey_server.command("DEL", holder_of(cache.sync, "a"))
            valkey_server.command("ZADD", holder_of(cache.sync, "a"), "inf", "another")
            await asyncio.sleep(30)
    assert time.monotonic() - started < 3.0
    assert valkey_server.command("ZRANGE", holder_of(cache.sync, "a"), 0, -1) == [b"another"], "it was another's"
    valkey_server.command("DEL", holder_of(cache.sync, "a"))
    await cache.aclose()
