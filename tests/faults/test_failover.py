"""What keeps the data changes while it is used: a primary is killed and a replica takes over, or slots move.

Readers never get an error. What the dead primary acknowledged in its last moments is unknown to the replica here. The
cache that has invalidated reads nothing older all the same; another one may, until the new primary was told.
"""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from nearcache import BackendError, Cache
from nearcache._engine import core
from nearcache._engine.core import Core
from nearcache.backends.redis.names import marks_of
from tests.cluster import Cluster
from tests.cluster import cluster as a_cluster
from tests.faults.source import KEYS, SLOW, STALENESS, Source, crowd, let, stores
from tests.faults.table import Callers, seen
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, dice, eventually, noticed, noticed_within, outcome_of, values
from tests.sentinel import sentinel_group
from tests.servers import KINDS, Kind, RedisServer

pytestmark = pytest.mark.alone

BUDGET = 0.1
PACE = 0.003
"""Seconds between two steps: servers on the same machine have to get their turn."""


class Until:
    """Steps until somebody says that it is enough."""

    def __init__(self) -> None:
        self.enough = threading.Event()

    def __iter__(self) -> Iterator[int]:
        """Return itself: all who step share the end."""
        return self

    def __next__(self) -> int:
        """Take a step."""
        if self.enough.wait(PACE):
            raise StopIteration
        return 0


class Load:
    """Two caches that a crowd reads and changes, and one in a namespace of its own, where hardly anything changes."""

    def __init__(
        self, url: str, new_cache: NewCache, callers: Callers, namespace: str, season: str = "season:1"
    ) -> None:
        self.callers = callers
        self.source = Source(callers)
        options: dict[str, Any] = {"staleness": STALENESS, "timeout": BUDGET}
        self.caches = [new_cache(url, near=near, namespace=namespace, **options) for near in ("1MB", None)]
        self._calm = new_cache(url, namespace=f"{namespace}-calm", **options)
        self._key, self._season, self._known = season, 0, 0
        self.most = 0
        """How many have loaded the calm key at the same time."""
        self._loading = 0
        self._luck = dice()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Use the caches before, in and after the `with` block."""
        let(crowd(self.caches, self.source, self._luck, 30))
        steps = Until()
        people = (
            crowd(self.caches, self.source, self._luck, steps).threads(3, partial(self._read_calmly, steps)).start()
        )
        try:
            yield
        finally:
            steps.enough.set()
            outcomes = people.finish()
        values(outcomes)
        let(crowd(self.caches, self.source, self._luck, 30))

    def normal(self) -> bool:
        """Tell whether all caches reach the server that has the season, store, and have nothing to repeat."""
        return all(_reaches(cache, self._key) and stores(cache) for cache in (*self.caches, self._calm))

    def has_season(self) -> bool:
        """Tell whether the engine has the season."""
        with suppress(BackendError):
            return self._calm.exists(self._key)
        return False

    def change_season(self) -> None:
        """Change and invalidate what nobody changes or invalidates again."""
        self._season = 1
        with self.callers.write():
            assert self._calm.delete(self._key), "the engine has it"
        self._known = 1

    def _read_calmly(self, steps: Until) -> None:
        for _ in steps:
            known = self._known
            with self.callers.read():
                self.callers.judge(self._get(self._key) >= known)
            with self.callers.read():
                self._calm.get_or_load("calm:1", self._load)

    def _get(self, key: str) -> int:
        return self._calm.get_or_load(key, lambda: self._season)

    def _load(self) -> str:
        self.callers.load("calm:1")
        self._loading += 1
        self.most = max(self.most, self._loading)
        time.sleep(SLOW)
        self._loading -= 1
        return "calm"


def _reaches(cache: Cache, key: str) -> bool:
    return outcome_of(lambda: cache.exists(key)).error is None


def killed(load: Load, primary: RedisServer, replicas: Sequence[RedisServer]) -> float:
    """Kill a primary under load, shortly after its replicas have lost it; wait until another one is told everything.

    Returns how many seconds that took.
    """
    began = time.monotonic()
    with load.under_way():
        eventually(lambda: load.callers.loads["calm:1"] and load.has_season(), "all is read")
        written = offset(primary, "master")
        eventually(lambda: all(offset(replica, "slave") >= written for replica in replicas), "they have it")
        load.source.doubt()
        leave_behind(primary, replicas)
        load.change_season()
        primary.kill()
        load.callers.normal_again(load.normal)
        load.source.trust()
        seconds = time.monotonic() - began
    assert load.most == 1, "several load the same at the same time"
    assert load.callers.read_errors == 0, load.callers.errors
    assert load.callers.wrong == 0, f"{load.callers.wrong} values were older than an invalidation"
    return seconds


def offset(server: RedisServer, role: str) -> int:
    """Return how much of what was written a server has."""
    return int(server.info("replication")[f"{role}_repl_offset"])


def leave_behind(primary: RedisServer, replicas: Sequence[RedisServer]) -> None:
    """Let replicas hear nothing more of their primary: it does not know the password that they have from now on."""
    for replica in replicas:
        replica.command("CONFIG", "SET", "masterauth", "wrong")
    primary.command("CLIENT", "KILL", "TYPE", "replica")


def behind_sentinel(kind: Kind, new_cache: NewCache, callers: Callers, namespace: str) -> None:
    """Kill the primary of a group."""
    with sentinel_group(kind) as group:
        old = group.primary()
        replicas = [server for server in group.servers if server is not old]
        seconds = killed(Load(group.url, new_cache, callers, namespace), old, replicas)
        assert group.primary() is not old
    loaded_now_and_then(callers, seconds)


def loaded_now_and_then(callers: Callers, seconds: float) -> None:
    """Check that what nobody changes is loaded about once in each `STALENESS`; otherwise it would be hundreds."""
    assert callers.loads["calm:1"] <= 3 + 2 * seconds / STALENESS, f"{callers.loads['calm:1']} loads in {seconds:.1f} s"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_readers_get_the_source_until_sentinels_have_appointed_another_primary(
    kind: Kind, new_cache: NewCache, namespace: str
) -> None:
    with seen(f"the primary behind Sentinel is killed, under load ({kind})") as callers:
        behind_sentinel(kind, new_cache, callers, namespace)


@pytest.mark.slow
def test_where_nothing_is_repeated_old_values_are_read(new_cache: NewCache, namespace: str) -> None:
    """It depends on luck: a caller whose store the kill cut off deletes the old value from the new primary itself."""
    with broken(Core, "_forgot", lambda *_: None):
        noticed_within(
            3, lambda: behind_sentinel("valkey", new_cache, Callers(), namespace), "older than an invalidation"
        )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "what"), [("redis", "that keeps the tags "), ("valkey", "")])
def test_readers_get_the_source_until_a_replica_takes_over_in_a_cluster(
    kind: Kind, what: str, new_cache: NewCache, namespace: str
) -> None:
    with a_cluster(kind, replicas=1) as own, seen(f"a primary of a cluster {what}is killed, under load") as callers:
        keeper = own.owner(marks_of(namespace))
        old = keeper if what else own.others(keeper)[0]
        season = kept_by(old, own, namespace, f"{namespace}-calm")
        load = Load(own.url, new_cache, callers, namespace, season)
        loaded_now_and_then(callers, killed(load, old, [own.replicas[own.nodes.index(old)]]))


def kept_by(node: RedisServer, own: Cluster, *namespaces: str) -> str:
    """Return a key that a node keeps, in each of some namespaces."""
    # Of different lengths: among keys of one length, the slots in two namespaces differ by the same bits.
    keys = (f"season:{number}{'0' * zeros}" for zeros, number in itertools.product(range(60), range(10)))
    return next(key for key in keys if all(own.owner(f"{space}:{key}") is node for space in namespaces))


@pytest.mark.slow
def test_readers_notice_nothing_of_slots_that_move(cluster: Cluster, new_cache: NewCache, namespace: str) -> None:
    names = [marks_of(namespace), f"{namespace}-calm:calm:1", *(f"{namespace}:{key}" for key in KEYS)] * 3
    with seen("slots of a cluster move, under load") as callers:
        load = Load(cluster.url, new_cache, callers, namespace)
        with load.under_way():
            for name in names:
                to_and_fro(cluster, name)
            callers.normal_again(load.normal)
        assert callers.read_errors == callers.wrong == 0, callers.errors
        assert callers.loads["calm:1"] <= 3, "nobody changes it"


def to_and_fro(cluster: Cluster, name: str) -> None:
    """Move a slot to both other nodes and back."""
    source = cluster.owner(name)
    for target in (*cluster.others(source), source):
        cluster.move(name, target)


@contextmanager
def refusing(node: RedisServer) -> Iterator[None]:
    """Let a node say CLUSTERDOWN for the block: it believes that nobody keeps one of its slots."""
    first = next(first for first, _, (_, port, *_), *_ in node.command("CLUSTER", "SLOTS") if port == node.port)
    node.command("CLUSTER", "DELSLOTS", first)
    try:
        yield
    finally:
        node.command("CLUSTER", "ADDSLOTS", first)


def test_what_one_node_cannot_serve_is_loaded_now_and_then(new_cache: NewCache, namespace: str) -> None:
    """Although the others answer, so that there is no outage."""
    callers = Callers()
    with a_cluster() as own:
        cache = new_cache(own.url, namespace=namespace, staleness=STALENESS)
        down, up = own.others(own.owner(marks_of(namespace)))
        one, other = kept_by(down, own, namespace), kept_by(up, own, namespace)
        cache.set_many({one: 1, other: 2})
        with refusing(down):
            began = time.monotonic()
            while time.monotonic() < began + 5 * STALENESS:
                assert cache.get_or_load(one, lambda: callers.load("calm:1")) in (None, 1)
                assert cache.get_or_load(other, int) == 2
            assert callers.loads["calm:1"], "it cannot be read"
            loaded_now_and_then(callers, time.monotonic() - began)
        eventually(lambda: cache.get(one) == 1, "it serves again")


def test_where_nothing_is_kept_without_an_outage_it_is_loaded_each_time(new_cache: NewCache, namespace: str) -> None:
    with broken(core, "UNSERVED", ()), noticed("loads in"):
        test_what_one_node_cannot_serve_is_loaded_now_and_then(new_cache, namespace)
