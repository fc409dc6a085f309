"""Many read or one writes, and one who wants to write gets in, however many come to read."""

import asyncio
import functools
import os
import random
import signal
import threading
import time
import uuid
from contextlib import suppress

import pytest

from nearcache import Cache, LockLostError, LockNotAcquiredError
from nearcache._engine.locks import EVERYBODY
from tests.integration.redis.helpers import in_child
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import Crowd, dice, eventually, noticed, values
from tests.promises.locking import LIFE
from tests.promises.test_locks import rewritten
from tests.promises.test_semaphores import LETS_ALL_IN, Log, finished
from tests.servers import RedisServer


class Page:
    """Notes who met whom."""

    def __init__(self) -> None:
        self.readers = self.writers = self.most = 0
        self.met = False

    def enter(self, *, writes: bool) -> None:
        """Go in."""
        self.met = self.met or self.writers > 0 or (writes and self.readers > 0)
        self.readers, self.writers = self.readers + (not writes), self.writers + writes
        self.most = max(self.most, self.readers)

    def leave(self, *, writes: bool) -> None:
        """Go out."""
        self.readers, self.writers = self.readers - (not writes), self.writers - writes


def one_writes_or_many_read(url: str, new_cache: NewCache) -> None:
    """Let threads and tasks of two caches read and write, and check who met."""
    one = new_cache(url)
    other = new_cache(url, namespace=one._parts.core.options.namespace) if url != "memory://" else one
    page, turns = Page(), (False, False, True) * 2

    def thread() -> None:
        for cache in (one, other):
            for writes in turns:
                lock = cache.rwlock("a", wait=30)
                with lock.writing() if writes else lock.reading():
                    page.enter(writes=writes)
                    time.sleep(0.005)
                    page.leave(writes=writes)

    async def task() -> None:
        for cache in (one.aio, other.aio):
            for writes in turns:
                lock = cache.rwlock("a", wait=30)
                async with lock.writing() if writes else lock.reading():
                    page.enter(writes=writes)
                    await asyncio.sleep(0.005)
                    page.leave(writes=writes)

    outcomes = Crowd().threads(3, thread).tasks(3, task).start().finish()
    assert not page.met, "somebody met one who writes"
    values(outcomes)
    assert page.most > 1, "nobody read together"


@pytest.mark.parametrize("engine", ["memory", "valkey", "redis", "embedded", "cluster", "hazelcast"])
def test_one_writes_or_many_read(request: pytest.FixtureRequest, new_cache: NewCache, engine: str) -> None:
    one_writes_or_many_read(url_of(engine, request), new_cache)


def test_one_who_is_met_while_writing_is_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with rewritten(*LETS_ALL_IN), noticed("somebody met one who writes"):
        one_writes_or_many_read(valkey_url, new_cache)


# Processes, by the engine's own log


def stopped_holders_keep_nobody_company(server: RedisServer, processes: int = 4, rounds: int = 6) -> None:
    """Have processes read and write, each of which is stopped once for longer than its lease, and read the log."""
    namespace, seed = f"p{uuid.uuid4().hex[:10]}", dice().randrange(2**32)
    log = Log(server, f"{namespace}:a::rwlock")

    def work(number: int) -> None:
        choice = random.Random(seed + number)
        stops, lost = choice.randrange(rounds), 0
        with Cache(server.unix_url, namespace=namespace, observers=(), timeout=10.0) as cache:
            lock = cache.rwlock("a", ttl=LIFE, wait=60)
            for turn in range(rounds):
                try:
                    with lock.writing() if (turn + number) % 3 == 0 else lock.reading():
                        time.sleep(choice.random() / 50)
                        if turn == stops:
                            os.kill(os.getpid(), signal.SIGSTOP)
                except LockLostError:
                    lost += 1
        assert lost, "it was not told of its loss"

    finished([in_child(functools.partial(work, number)) for number in range(processes)])
    seen = list(log.holders())
    assert not any(len(holders) > 1 and 1 in holders.values() for holders in seen), "somebody met one who writes"
    assert len({owner for holders in seen for owner in holders}) >= processes * rounds
    assert {1, EVERYBODY} == {share for holders in seen for share in holders.values()}


@pytest.mark.slow
@pytest.mark.alone
def test_holders_that_were_stopped_keep_nobody_company(valkey_server: RedisServer) -> None:
    stopped_holders_keep_nobody_company(valkey_server)


@pytest.mark.slow
@pytest.mark.alone
def test_processes_that_meet_one_who_writes_are_noticed(valkey_server: RedisServer) -> None:
    with rewritten(*LETS_ALL_IN), noticed("somebody met one who writes"):
        stopped_holders_keep_nobody_company(valkey_server)


# Those who write get in


READERS = 3

PATIENCE = 1.5
"""Seconds for which one who writes waits: longer than anybody reads."""


def gets_in(cache: Cache) -> None:
    """Have readers come all the time, so that one at least is in until the writer was, and wait for the writer."""
    stop, came, got = threading.Event(), [0], list[bool]()
    changed = threading.Condition()

    def read() -> None:
        while not stop.is_set():
            with cache.rwlock("a", wait=20).reading(), changed:
                came[0] = mine = came[0] + 1
                changed.notify_all()
                changed.wait_for(lambda: came[0] > mine or stop.is_set(), timeout=0.5)  # noqa: B023 -- it waits now

    def write() -> None:
        eventually(lambda: came[0], "somebody reads")
        try:
            with suppress(LockNotAcquiredError), cache.rwlock("a", wait=PATIENCE).writing():
                got.append(True)
        finally:
            stop.set()

    values(Crowd().threads(READERS, read).threads(1, write).start().finish())
    assert got, "those who read kept out the one who writes"


@pytest.mark.parametrize("engine", ["memory", "valkey", "hazelcast"])
def test_one_who_writes_gets_in_while_others_come_to_read(
    request: pytest.FixtureRequest, new_cache: NewCache, engine: str
) -> None:
    gets_in(new_cache(url_of(engine, request)))


@pytest.mark.slow
def test_those_who_read_and_pass_one_who_waits_to_write_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with rewritten("lock_acquire", "and not (fair and first())", ""), noticed("kept out the one who writes"):
        gets_in(new_cache(valkey_url))
