"""Locks that replicas have to know of: granted where they acknowledge, given back and refused where they do not."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from nearcache import AsyncCache, Cache, ConfigError, LockNotAcquiredError, UnsupportedError
from nearcache.backends.redis.names import lock_of
from tests.cluster import Cluster
from tests.cluster import cluster as cluster_of
from tests.faces import Awaited
from tests.integration.redis.helpers import eventually
from tests.promises.helpers import outcome_of
from tests.rights import permissions, user
from tests.sentinel import Group
from tests.servers import HASTY, RedisServer, redis_server

TIMEOUT = 2.0


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.slow)], name="pair")
def _pair(request: pytest.FixtureRequest) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    with (
        redis_server(request.param, *HASTY) as primary,
        redis_server(request.param, *HASTY, "--replicaof", f"127.0.0.1 {primary.port}") as replica,
    ):
        eventually(lambda: primary.command("WAIT", "1", "100") == 1, "it follows")
        yield primary, replica


@pytest.fixture(params=[Cache, AsyncCache])
async def face(request: pytest.FixtureRequest, pair: tuple[RedisServer, RedisServer]) -> Awaited:
    """A cache of either flavour on the primary."""
    return Awaited(request.param(pair[0].url, namespace=f"r{uuid.uuid4().hex[:8]}", observers=(), timeout=TIMEOUT))


async def test_a_lock_that_a_replica_acknowledges_is_granted(
    face: Awaited, pair: tuple[RedisServer, RedisServer]
) -> None:
    """The replica has the record as soon as the block begins, also where the engine has forgotten the script."""
    primary, replica = pair
    record = lock_of(face.cache.engine_key("a"))[0]
    tokens = list[int]()
    for _ in range(20):
        primary.command("SCRIPT", "FLUSH")
        async with face.lock("a", replicas=1) as held:
            assert replica.command("EXISTS", record) == 1
            held.check()
            tokens.append(held.token)
    assert tokens == sorted(set(tokens))
    await face.close()


async def test_a_lock_that_no_replica_acknowledges_is_given_back(
    face: Awaited, pair: tuple[RedisServer, RedisServer]
) -> None:
    primary, replica = pair
    replica.pause()
    try:
        for wait in (0, 0.2):
            with pytest.raises(LockNotAcquiredError, match=r"'a' was acknowledged by 0 of 1 replicas, .* given back"):
                async with face.lock("a", replicas=1, wait=wait):
                    pass
            assert primary.command("EXISTS", *lock_of(face.cache.engine_key("a"))[:1]) == 0
        async with face.lock("a", wait=0):  # nobody asks for one
            pass
    finally:
        replica.resume()
    async with face.lock("a", replicas=1):
        pass
    with pytest.raises(LockNotAcquiredError, match="1 of 2 replicas"):
        async with face.lock("a", replicas=2, wait=0):
            pass
    await face.close()


def test_it_waits_for_a_replica_that_comes_back(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, replica = pair
    cache = Cache(primary.url, namespace=f"r{uuid.uuid4().hex[:8]}", observers=(), timeout=1.0)
    replica.pause()
    try:
        with pytest.raises(LockNotAcquiredError), cache.lock("a", replicas=1, wait=0):
            pass
    finally:
        replica.resume()
    with cache.lock("a", replicas=1, wait=10):
        assert replica.command("EXISTS", lock_of(cache.engine_key("a"))[0]) == 1
    cache.close()


async def test_who_shares_the_connection_waits_for_a_share_of_the_time_of_a_call(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    """Nobody's call fails because another one's lock waits for a replica."""
    primary, replica = pair
    cache = AsyncCache(primary.url, namespace=f"r{uuid.uuid4().hex[:8]}", near=None, observers=(), timeout=2.0)
    await cache.set("a:1", 1)
    replica.pause()
    try:
        refused = asyncio.ensure_future(_refused(cache))
        while not refused.done():
            assert await cache.get("a:1") == 1
        await refused
    finally:
        replica.resume()
    await cache.aclose()


async def _refused(cache: AsyncCache) -> None:
    with pytest.raises(LockNotAcquiredError):
        async with cache.lock("a", replicas=1, wait=1):
            pass


def test_a_user_has_to_have_the_right_to_wait(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, _ = pair
    namespace = f"r{uuid.uuid4().hex[:8]}"
    for rights in ([], ["+wait"]):
        with (
            user(primary, namespace, [*permissions(namespace), *rights]) as url,
            Cache(url, namespace=namespace, observers=(), timeout=TIMEOUT) as cache,
        ):
            outcome = outcome_of(lambda: token_of(cache))
            assert (outcome.error is None) == bool(rights)
            assert rights or "'wait'" in str(outcome.error)


def token_of(cache: Cache) -> int:
    with cache.lock("a", replicas=1, wait=1) as held:
        return held.token


def test_behind_sentinels(watched: Group) -> None:
    with Cache(watched.url, namespace=f"r{uuid.uuid4().hex[:8]}", timeout=TIMEOUT) as cache:
        with cache.lock("a", replicas=1) as held:
            held.check()
        with pytest.raises(LockNotAcquiredError, match="1 of 2"), cache.lock("a", replicas=2, wait=0):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_on_a_cluster_the_replica_of_the_same_slot_is_waited_for(flavour: str) -> None:
    with cluster_of(replicas=1) as cluster:
        kind = Cache if flavour == "sync" else AsyncCache
        face = Awaited(kind(cluster.url, namespace="app", observers=(), timeout=TIMEOUT))
        for number in range(30):
            async with face.lock(f"a:{number}", replicas=1):
                assert _kept(cluster, lock_of(f"app:a:{number}")[0])
        paused = cluster.replicas[0]
        paused.pause()
        refused = 0
        for number in range(30):
            try:
                async with face.lock(f"a:{number}", replicas=1, wait=0):
                    pass
            except LockNotAcquiredError:
                refused += 1
        paused.resume()
        assert 0 < refused < 30
        await face.close()


def _kept(cluster: Cluster, record: str) -> bool:
    """Tell whether a replica has a record."""
    return any(record.encode() in replica.command("KEYS", "*") for replica in cluster.replicas)


def test_wrong_numbers_are_refused(pair: tuple[RedisServer, RedisServer]) -> None:
    cache = Cache(pair[0].url)
    for number in (-1, True, 1.5, None):
        with pytest.raises(ConfigError, match="replicas is"):
            cache.lock("a", replicas=number)  # type: ignore[arg-type]

        with pytest.raises(ConfigError, match="replicas is"):
            cache.exclusive("a", replicas=number)  # type: ignore[arg-type]


def test_engines_without_replicas_say_so() -> None:
    for url in ("memory://", "embedded://", "hazelcast://host/dev"):
        cache = Cache(url)
        with pytest.raises(UnsupportedError, match="locks that replicas acknowledge; engines that can: redis"):
            cache.lock("a", replicas=1)
        cache.lock("a", replicas=0)
