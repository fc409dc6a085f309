"""Locks that are held while the primary dies: behind sentinels, with a replica that knows of them and without."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nearcache import BackendError, Cache, Held, LockLostError, LockNotAcquiredError
from tests.faults.test_failover import leave_behind, offset
from tests.promises.conftest import NewCache
from tests.promises.helpers import eventually, noticed
from tests.promises.locking import Resource
from tests.promises.test_locks import loses, rewritten
from tests.sentinel import Group, sentinel_group
from tests.servers import KINDS, Kind, RedisServer

Block = Callable[[], AbstractContextManager[Held]]

WITHIN = 30.0
"""Seconds within which another primary serves."""


def token_of_another(cache: Cache, name: str) -> int:
    """Take a lock as soon as an engine gives it; return its token."""
    return token_of(lambda: cache.lock(name, ttl=5, wait=1))


def token_of(block: Block) -> int:
    """Enter a block as soon as an engine lets somebody in; return the token."""
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            with block() as held:
                return held.token
        except (BackendError, LockNotAcquiredError, LockLostError):
            assert time.monotonic() < deadline, "nobody gets the lock"


def replicated(primary: RedisServer, replicas: Sequence[RedisServer]) -> None:
    """Wait until replicas have what was written."""
    written = offset(primary, "master")
    eventually(lambda: all(offset(replica, "slave") >= written for replica in replicas), "they have it")


def over_a_fail_over(group: Group, held: Sequence[Held], block: Block) -> None:
    """Kill the primary when its replicas have what was written; meanwhile all is held, and nobody enters a block."""
    old = group.primary()
    replicated(old, [server for server in group.servers if server is not old])
    old.kill()
    ends = time.monotonic() + 12.0  # longer than a renewal and the fail-over take
    while time.monotonic() < ends:
        for each in held:
            each.check()
        with pytest.raises((BackendError, LockNotAcquiredError)), block():
            pass
    assert group.primary() is not old


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_a_replica_knows_of_is_held_over_a_fail_over(kind: Kind, new_cache: NewCache) -> None:
    with sentinel_group(kind) as group:
        one = new_cache(group.url)
        other = new_cache(group.url, namespace=one._parts.core.options.namespace)
        with one.lock("payment:42", ttl=30) as held:
            token = held.token
            over_a_fail_over(group, (held,), lambda: other.lock("payment:42", wait=0.1))
        assert token_of_another(other, "payment:42") > token


@pytest.mark.slow
def test_permits_that_a_replica_knows_of_are_held_over_a_fail_over(new_cache: NewCache) -> None:
    """All of them: nobody gets another one, and when one is given back somebody does."""
    with sentinel_group("valkey") as group:
        one = new_cache(group.url)
        other = new_cache(group.url, namespace=one._parts.core.options.namespace)
        with one.semaphore("exports", 2, ttl=30) as kept:
            with one.semaphore("exports", 2, ttl=30) as given_back:
                over_a_fail_over(group, (kept, given_back), lambda: other.semaphore("exports", 2, wait=0.1))
                token = given_back.token
            assert token_of(lambda: other.semaphore("exports", 2, ttl=5, wait=1)) > token
            kept.check()
            with (
                other.semaphore("exports", 2, wait=1),
                pytest.raises(LockNotAcquiredError),
                other.semaphore("exports", 2, wait=0),
            ):
                pass


@pytest.mark.slow
def test_an_rwlock_that_a_replica_knows_of_is_held_over_a_fail_over(new_cache: NewCache) -> None:
    """Those who read keep out one who writes, and let in others who read."""
    with sentinel_group("valkey") as group:
        one = new_cache(group.url)
        other = new_cache(group.url, namespace=one._parts.core.options.namespace)
        lock, waiting = one.rwlock("catalogue", ttl=30), other.rwlock("catalogue", ttl=5, wait=0.1)
        with lock.reading() as first, lock.reading() as second:
            over_a_fail_over(group, (first, second), waiting.writing)
            token = second.token
            assert token_of(waiting.reading) > token
            first.check()
        assert token_of(waiting.writing) > token


def written_once(group: Group, new_cache: NewCache, address: Path) -> None:
    """Hold a lock that is lost with the primary, have another change what it protects, and then change it as well."""
    one = new_cache(group.url)
    namespace = one._parts.core.options.namespace
    other, resource, old = new_cache(group.url, namespace=namespace), Resource(address, namespace), group.primary()
    leave_behind(old, [server for server in group.servers if server is not old])
    losses = list[LockLostError]()
    with (
        loses("the engine gave it to another, or forgot it"),
        one.lock("payment:42", ttl=30, on_loss=losses.append) as held,
    ):
        mine = held.token
        number = resource.read(mine)
        old.kill()
        token = token_of_another(other, "payment:42")
        assert resource.write(token, resource.read(token) + 1), "a token did not grow"
        resource.write(mine, number + 1)  # it does not know yet
        assert resource.state() == {"number": 1, "accepted": 1, "refused": 1}
        eventually(lambda: losses, "it is told, long before its lease ends")
        held.check()


@pytest.mark.slow
def test_a_lock_that_is_lost_with_the_primary_is_told_and_its_token_is_refused(
    new_cache: NewCache, valkey_server: RedisServer
) -> None:
    """Two hold it for a while, as no lock can prevent; their tokens tell who came later."""
    with sentinel_group("valkey") as group:
        written_once(group, new_cache, valkey_server.socket)


@pytest.mark.slow
def test_tokens_that_are_only_counted_do_not_grow_over_a_fail_over(
    new_cache: NewCache, valkey_server: RedisServer
) -> None:
    with (
        rewritten("lock_acquire", "micros) + 1", "0) + 1"),
        sentinel_group("valkey") as group,
        noticed("a token did not grow|accepted"),
    ):
        written_once(group, new_cache, valkey_server.socket)
