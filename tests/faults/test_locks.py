"""Locks that are held while the primary dies: behind sentinels, with a replica that knows of them and without."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from nearcache import BackendError, Cache, LockLostError, LockNotAcquiredError
from tests.faults.test_failover import leave_behind, offset
from tests.promises.conftest import NewCache
from tests.promises.helpers import eventually, noticed
from tests.promises.locking import Resource
from tests.promises.test_locks import loses, rewritten
from tests.sentinel import Group, sentinel_group
from tests.servers import KINDS, Kind, RedisServer

WITHIN = 30.0
"""Seconds within which another primary serves."""


def token_of_another(cache: Cache, name: str) -> int:
    """Take a lock as soon as an engine gives it; return its token."""
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            with cache.lock(name, ttl=5, wait=1) as held:
                return held.token
        except (BackendError, LockNotAcquiredError, LockLostError):
            assert time.monotonic() < deadline, "nobody gets the lock"


def replicated(primary: RedisServer, replicas: Sequence[RedisServer]) -> None:
    """Wait until replicas have what was written."""
    written = offset(primary, "master")
    eventually(lambda: all(offset(replica, "slave") >= written for replica in replicas), "they have it")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_a_replica_knows_of_is_held_over_a_fail_over(kind: Kind, new_cache: NewCache) -> None:
    with sentinel_group(kind) as group:
        one = new_cache(group.url)
        other = new_cache(group.url, namespace=one._parts.core.options.namespace)
        old = group.primary()
        with one.lock("payment:42", ttl=30) as held:
            token = held.token
            replicated(old, [server for server in group.servers if server is not old])
            old.kill()
            ends = time.monotonic() + 12.0  # longer than a renewal and the fail-over take
            while time.monotonic() < ends:
                held.check()
                with pytest.raises((BackendError, LockNotAcquiredError)), other.lock("payment:42", wait=0.1):
                    pass
            assert group.primary() is not old
        assert token_of_another(other, "payment:42") > token


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
