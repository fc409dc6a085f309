"""No more hold a semaphore than it has permits, by the engine's own log: also where holders are stopped, and die."""

import asyncio
import functools
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import Iterator, Sequence

import pytest

from nearcache import Cache, LockLostError
from nearcache.backends.redis.listener import Listener
from nearcache.backends.redis.names import lock_of
from tests.integration.redis.helpers import in_child
from tests.promises.conftest import NewCache, url_of
from tests.promises.fleet import in_time
from tests.promises.helpers import Crowd, broken, dice, noticed, values
from tests.promises.locking import LIFE, STOPPED
from tests.promises.test_locks import LOOSE, handed_on_by, loses, other_process, rewritten
from tests.servers import RedisServer

PERMITS = 2

LETS_ALL_IN = ("lock_acquire", "< math.min(most, allowed)", "< 99")
"""What lets in whoever asks."""


# Threads and tasks


class Hall:
    """Notes how many were in at the same time."""

    def __init__(self) -> None:
        self.inside = self.most = self.visits = 0

    def enter(self) -> None:
        """Go in."""
        self.inside += 1
        self.visits += 1
        self.most = max(self.most, self.inside)

    def leave(self) -> None:
        """Go out."""
        self.inside -= 1


def so_many_at_a_time(url: str, new_cache: NewCache, fair: bool = False) -> None:
    """Let threads and tasks of two caches take permits, and check how many met."""
    one = new_cache(url)
    other = new_cache(url, namespace=one._parts.core.options.namespace) if url != "memory://" else one
    hall, times = Hall(), 3

    def thread() -> None:
        for cache in (one, other) * times:
            with cache.semaphore("a", PERMITS, wait=30, fair=fair):
                hall.enter()
                time.sleep(0.005)
                hall.leave()

    async def task() -> None:
        for cache in (one.aio, other.aio) * times:
            async with cache.semaphore("a", PERMITS, wait=30, fair=fair):
                hall.enter()
                await asyncio.sleep(0.005)
                hall.leave()

    outcomes = Crowd().threads(3, thread).tasks(3, task).start().finish()
    assert hall.most <= PERMITS, "too many held it"
    values(outcomes)
    assert hall.visits == 6 * 2 * times
    assert hall.most == PERMITS, "nobody shared it"


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("engine", ["memory", "valkey", "redis", "embedded", "cluster", "hazelcast"])
def test_so_many_hold_a_semaphore_at_a_time(
    request: pytest.FixtureRequest, new_cache: NewCache, engine: str, fair: bool
) -> None:
    so_many_at_a_time(url_of(engine, request), new_cache, fair)


def test_a_semaphore_that_lets_everybody_in_is_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with rewritten(*LETS_ALL_IN), noticed("too many held it"):
        so_many_at_a_time(valkey_url, new_cache)


# Processes, by the engine's own log


class Log:
    """What the engine did with the holders of one lock, as it tells whoever monitors it."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(10.0)
        self._line.connect(str(server.socket))
        self._line.sendall(b"MONITOR\r\n")
        assert self._line.recv(5) == b"+OK\r\n"
        self._server = server
        self._holders, self._last, *_ = lock_of(name)

    def holders(self) -> Iterator[dict[str, int]]:
        """Return who held it after each change, and with how many each would share it, without those whose lease had
        ended by then.
        """
        mark = f"end-{uuid.uuid4().hex}"
        self._server.command("ECHO", mark)
        text = b""
        while mark.encode() not in text:
            text += self._line.recv(1 << 20)
        self._line.close()
        until, shares, latest = dict[str, float](), dict[str, int](), ""
        for line in text.decode("utf-8", "replace").splitlines():
            when, _, command = line.removeprefix("+").partition(" [")
            words = command.partition("] ")[2].replace('"', "").split(" ")
            if words[:2] == ["ZADD", self._holders]:
                latest = words[3]
                until[latest] = float(words[2])
            elif words[:2] == ["ZREM", self._holders]:
                until.pop(words[2], None)
            elif words[:2] == ["SET", self._last]:
                shares[latest] = int(words[3])
            now = float(when) * 1_000_000
            yield {owner: shares[owner] for owner, ends in until.items() if ends > now and owner in shares}


def stopped_holders_keep_no_permits(server: RedisServer, processes: int = 4, rounds: int = 6) -> None:
    """Have processes take permits, each of which is stopped once for longer than its lease, and read the log."""
    namespace, seed = f"p{uuid.uuid4().hex[:10]}", dice().randrange(2**32)
    log = Log(server, f"{namespace}:a::semaphore")

    def work(number: int) -> None:
        choice = random.Random(seed + number)
        stops, lost = choice.randrange(rounds), 0
        with Cache(server.unix_url, namespace=namespace, observers=(), timeout=10.0) as cache:
            for turn in range(rounds):
                try:
                    with cache.semaphore("a", PERMITS, ttl=LIFE, wait=60, fair=number % 2 > 0):
                        time.sleep(choice.random() / 50)
                        if turn == stops:
                            os.kill(os.getpid(), signal.SIGSTOP)
                except LockLostError:
                    lost += 1
        assert lost, "it was not told of its loss"

    finished([in_child(functools.partial(work, number)) for number in range(processes)])
    seen = list(log.holders())
    assert max(map(len, seen)) <= PERMITS, "too many held it"
    assert len({owner for holders in seen for owner in holders}) >= processes * rounds


def finished(pids: Sequence[int]) -> None:
    """Wait until processes end well; let those go on some time after they stopped."""
    running, goes_on, deadline = set(pids), dict[int, float](), time.monotonic() + 45.0
    try:
        while running:
            assert time.monotonic() < deadline, "they never end"
            for pid in list(running):
                found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
                if found and os.WIFSTOPPED(status):
                    goes_on[pid] = time.monotonic() + STOPPED
                elif found:
                    running.remove(pid)
                    assert os.waitstatus_to_exitcode(status) == 0
                elif goes_on.get(pid, deadline) <= time.monotonic():
                    del goes_on[pid]
                    os.kill(pid, signal.SIGCONT)
            time.sleep(0.002)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.slow
@pytest.mark.alone
def test_holders_that_were_stopped_keep_no_permits(valkey_server: RedisServer) -> None:
    stopped_holders_keep_no_permits(valkey_server)


@pytest.mark.slow
@pytest.mark.alone
def test_processes_that_are_all_let_in_are_noticed(valkey_server: RedisServer) -> None:
    with rewritten(*LETS_ALL_IN), noticed("too many held it"):
        stopped_holders_keep_no_permits(valkey_server)


# The dead, and those who wait


@pytest.mark.slow
@pytest.mark.alone
def test_the_permit_of_a_dead_process_returns_after_its_lease(valkey_url: str, new_cache: NewCache) -> None:
    cache, life = new_cache(valkey_url), 2.0

    def die_later(says: int) -> None:
        with cache.semaphore("a", PERMITS, ttl=life):
            os.write(says, b"!")
            time.sleep(60)

    def play() -> float:
        with cache.semaphore("a", PERMITS), other_process(die_later) as pid:
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            with cache.semaphore("a", PERMITS, wait=30):
                return time.monotonic() - (died + life + LOOSE)

    in_time(2, play)


@pytest.mark.alone
@pytest.mark.parametrize("engine", ["memory", "valkey"])
def test_who_waits_for_a_permit_is_woken_by_a_message(
    request: pytest.FixtureRequest, new_cache: NewCache, engine: str
) -> None:
    in_time(1, lambda: handed_on_by(url_of(engine, request), new_cache, lambda cache: cache.semaphore("a", 1, wait=20)))


def lives_on(server: RedisServer, new_cache: NewCache) -> None:
    """Hold a permit for longer than its lease."""
    cache = new_cache(server.unix_url)
    with cache.semaphore("a", PERMITS, ttl=1) as held:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            held.check()
            time.sleep(0.01)


def test_a_permit_is_renewed_while_it_is_held(valkey_server: RedisServer, new_cache: NewCache) -> None:
    lives_on(valkey_server, new_cache)


def test_a_permit_that_nobody_renews_is_noticed(valkey_server: RedisServer, new_cache: NewCache) -> None:
    with broken(Listener, "_renew", lambda *_: None), loses("was not renewed in time"):
        lives_on(valkey_server, new_cache)
