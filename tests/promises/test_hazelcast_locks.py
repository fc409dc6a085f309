"""Locks over Hazelcast: they are renewed while they are held, taken over by those who watch, and their tokens grow."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
import uuid
from typing import Any

import pytest

from nearcache import AsyncCache, Cache, LockNotAcquiredError
from nearcache._io.blocking import drive
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.locks import LockAsk
from nearcache.backends.registers.base import Put, Swap
from nearcache.backends.registers.locked import Locked
from nearcache.backends.registers.locks import RegisterLocks
from nearcache.backends.registers.renewing import Renewer
from tests.hazelcast import Member, members
from tests.integration.redis.helpers import in_child
from tests.promises.conftest import NewCache
from tests.promises.fleet import in_time
from tests.promises.helpers import broken, eventually, noticed, noticed_within
from tests.promises.test_locks import (
    LOOSE,
    lives_on,
    loses,
    one_at_a_time,
    other_process,
    stopped_holders_do_no_harm,
)
from tests.promises.test_semaphores import finished
from tests.servers import RedisServer


def forget(cache: Cache, name: str = "a") -> None:
    """Remove the record of a lock."""
    drive(_locks(cache).forget(name))


def _locks(cache: Cache | AsyncCache) -> RegisterLocks:
    locks = cache._engine.backend.locks
    assert isinstance(locks, RegisterLocks)
    return locks


# One holder


def test_a_swap_that_compares_nothing_is_noticed(hazelcast: Member, new_cache: NewCache) -> None:
    def swap(steps: HazelcastRegisters, step: Swap) -> Any:
        return steps._put(Put(step.name, step.raw, 60.0))

    with broken(HazelcastRegisters, "_swap", swap):
        noticed_within(5, lambda: one_at_a_time(hazelcast.url, new_cache), "two held it")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(200)
def test_many_processes_and_stopped_holders_do_no_harm(hazelcast: Member, valkey_server: RedisServer) -> None:
    stopped_holders_do_no_harm(hazelcast.url, valkey_server.socket, processes=8, rounds=40, stops=2, patience=180.0)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(200)
def test_a_lock_without_a_fence_loses_writes(hazelcast: Member, valkey_server: RedisServer) -> None:
    noticed_within(
        6, lambda: stopped_holders_do_no_harm(hazelcast.url, valkey_server.socket, "unfenced"), "a write was lost"
    )


# Tokens


def tokens_grow_where_the_record_is_lost(url: str, new_cache: NewCache) -> None:
    cache, tokens = new_cache(url), list[int]()
    for _ in range(3):
        with cache.lock("a") as held:
            tokens.append(held.token)
        forget(cache)
    assert all(earlier < later for earlier, later in itertools.pairwise(tokens)), "a token did not grow"


def test_tokens_grow_where_the_record_is_lost(hazelcast: Member, new_cache: NewCache) -> None:
    tokens_grow_where_the_record_is_lost(hazelcast.url, new_cache)


def test_tokens_that_are_only_counted_are_noticed(hazelcast: Member, new_cache: NewCache) -> None:
    def stamped(lock: Locked) -> int:
        lock.last += 1
        return lock.last

    with broken(Locked, "stamped", stamped), noticed("a token did not grow"):
        tokens_grow_where_the_record_is_lost(hazelcast.url, new_cache)


# Time


@pytest.mark.alone
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_lock_is_renewed_while_it_is_held(hazelcast: Member, new_cache: NewCache, flavour: str) -> None:
    """Also without a near tier, where nothing else needs a thread."""
    if flavour == "sync":
        lives_on(hazelcast.url, new_cache)
    else:
        asyncio.run(_lives_on(hazelcast.url))


async def _lives_on(url: str) -> None:
    cache = AsyncCache(url, namespace=f"p{uuid.uuid4().hex[:10]}", observers=(), near=None, timeout=3.0)
    async with cache.lock("a", ttl=1) as held:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            held.check()
            await asyncio.sleep(0.01)
    await cache.aclose()


def test_a_lock_that_nobody_renews_is_noticed(hazelcast: Member, new_cache: NewCache) -> None:
    async def renew(*_: object) -> None:
        pass

    with broken(Renewer, "renew", renew), loses("was not renewed in time"):
        lives_on(hazelcast.url, new_cache)


@pytest.mark.alone
def test_the_permits_of_one_process_are_renewed_together(hazelcast: Member, new_cache: NewCache) -> None:
    cache = new_cache(hazelcast.url)
    with cache.semaphore("a", 3, ttl=3) as one, cache.semaphore("a", 3, ttl=3) as two:
        ends = time.monotonic() + 3.5
        while time.monotonic() < ends:
            one.check()
            two.check()
            time.sleep(0.01)


@pytest.mark.alone
def test_a_child_renews_locks_of_its_own(hazelcast: Member, new_cache: NewCache) -> None:
    namespace = f"p{uuid.uuid4().hex[:10]}"
    cache = new_cache(hazelcast.url, namespace=namespace)

    def child() -> None:
        with loses("forked"):
            held.check()
        with cache.lock("mine", ttl=3) as mine:
            ends = time.monotonic() + 3.5
            while time.monotonic() < ends:
                mine.check()
                time.sleep(0.01)

    with cache.lock("a", ttl=3) as held:
        finished([in_child(child)])
        held.check()


def test_a_thread_renews_only_while_something_is_held(hazelcast: Member, new_cache: NewCache) -> None:
    cache = new_cache(hazelcast.url)
    renewer = _locks(cache)._renewer
    with cache.lock("a"):
        assert renewer._ended is not None
    eventually(lambda: renewer._ended is None, "the thread ends")
    with cache.lock("a"):
        assert renewer._ended is not None


# Loss


def test_a_holder_is_told_that_the_record_was_lost(hazelcast: Member, new_cache: NewCache) -> None:
    cache, losses = new_cache(hazelcast.url), list[Exception]()
    with (
        loses("the engine gave it to another, or forgot it"),
        cache.lock("a", ttl=3, on_loss=losses.append) as held,
    ):
        ends = time.monotonic() + 3.0
        forget(cache)
        eventually(lambda: losses, "it is told")
        assert time.monotonic() < ends
        held.check()


async def test_a_task_whose_lock_was_lost_is_cancelled(hazelcast: Member) -> None:
    cache = AsyncCache(hazelcast.url, namespace=f"p{uuid.uuid4().hex[:10]}", observers=(), timeout=3.0)
    with loses("the engine gave it to another, or forgot it"):
        async with cache.lock("a", ttl=3):
            await _locks(cache).forget("a")
            await asyncio.sleep(30)
    await cache.aclose()


@pytest.mark.slow
@pytest.mark.alone
def test_a_running_holder_learns_of_a_silent_cluster_before_its_lease_ends(new_cache: NewCache) -> None:
    with members() as (member,):
        cache, life, told = new_cache(member.url), 3.0, list[float]()
        with loses("was not renewed in time"), cache.lock("a", life, on_loss=lambda _: told.append(time.monotonic())):
            member.pause()
            ends = time.monotonic() + life
            eventually(lambda: told, "it is told")
        member.resume()
        assert told[0] < ends


# The dead


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("fair", [False, True])
def test_a_dead_holder_holds_others_up_for_one_lease(hazelcast: Member, new_cache: NewCache, fair: bool) -> None:
    """From when somebody first asks."""
    cache, life = new_cache(hazelcast.url), 2.0

    def die_later(says: int) -> None:
        with cache.lock("a", ttl=life, fair=fair):
            os.write(says, b"!")
            time.sleep(60)

    def play() -> float:
        with other_process(die_later) as pid:
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            with cache.lock("a", wait=30, fair=fair):
                assert time.monotonic() - died > life / 2, "it was not watched for a lease"
                return time.monotonic() - (died + life + LOOSE)

    in_time(2, play)


def test_calls_that_do_not_wait_watch_a_dead_holder_together(hazelcast: Member, new_cache: NewCache) -> None:
    cache = new_cache(hazelcast.url)
    assert drive(_locks(cache).acquire(LockAsk("a", "dead", 1.0, fair=False, waits=False))).token

    def taken() -> bool:
        with contextlib.suppress(LockNotAcquiredError), cache.lock("a", wait=0):
            return True
        return False

    assert not taken()
    eventually(taken, "it is free")
