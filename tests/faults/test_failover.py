"""What holds the data changes while it is used: a primary is killed and a replica takes over, or slots move.

Readers never get an error. What the dead primary acknowledged in its last moments may be unknown to the replica: whoever
invalidated it reads nothing older all the same; others may, until that process has told the new primary. So "wrong" is
what comes before that to the one, and after that to anybody.
"""

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.redis.names import marks_of
from tests.cluster import Cluster
from tests.cluster import cluster as a_cluster
from tests.faults.source import KEYS, STALENESS, Source, crowd, let, stores
from tests.faults.table import Callers, seen
from tests.promises.conftest import NewCache
from tests.promises.helpers import Crowd, dice, eventually, values
from tests.sentinel import sentinel_group
from tests.servers import KINDS, Kind

BUDGET = 0.1
PACE = 0.003
"""Seconds between two steps: servers on the same machine have to get their turn."""

LAG = 1.0
"""Seconds by which a replica is behind at most."""


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
    """Two caches that a crowd reads and changes, and a third one, with keys of its own, that is only read."""

    def __init__(self, url: str, new_cache: NewCache, callers: Callers, namespace: str) -> None:
        self.callers = callers
        self.source = Source(callers)
        options: dict[str, Any] = {"staleness": STALENESS, "timeout": BUDGET}
        self.caches = [new_cache(url, near=near, namespace=namespace, **options) for near in ("1MB", None)]
        self._calm = new_cache(url, namespace=f"{namespace}-calm", **options)
        self._luck = dice()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Use the caches before, in and after the `with` block."""
        let(crowd(self.caches, self.source, self._luck, 30))
        steps = Until()
        people = crowd(self.caches, self.source, self._luck, steps).threads(1, partial(self._read_calmly, steps)).start()
        try:
            yield
        finally:
            steps.enough.set()
            outcomes = people.finish()
        values(outcomes)
        let(crowd(self.caches, self.source, self._luck, 30))

    def normal(self) -> bool:
        """Tell whether all caches store, and have repeated what they invalidated."""
        return all(stores(cache) for cache in (*self.caches, self._calm))

    def answered(self) -> int:
        """Return how many writes had no error."""
        return self.callers.writes - self.callers.write_errors

    def _read_calmly(self, steps: Until) -> None:
        for _ in steps:
            with self.callers.read():
                self.callers.judge(self._calm.get_or_load("calm:1", self._load) == "calm")

    def _load(self) -> str:
        self.callers.load("calm:1")
        return "calm"


def killed(load: Load, kill: Callable[[], None]) -> None:
    """Kill a primary under load, and wait until another one is told everything."""
    began = time.monotonic()
    with load.under_way():
        load.source.doubt(LAG)
        kill()
        load.callers.normal_again(load.normal)
        load.source.trust()
        seconds = time.monotonic() - began
    loads = load.callers.loads["calm:1"]
    assert loads <= 3 + math.ceil(seconds / STALENESS), f"{loads} loads in {seconds:.1f} s of what nobody changes"
    assert load.callers.read_errors == load.callers.wrong == 0, load.callers.errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_readers_get_the_source_until_sentinels_have_appointed_another_primary(
    kind: Kind, new_cache: NewCache, namespace: str
) -> None:
    with sentinel_group(kind) as group, seen(f"the primary behind Sentinel is killed, under load ({kind})") as callers:
        old = group.primary()
        killed(Load(group.url, new_cache, callers, namespace), old.kill)
        assert group.primary() is not old


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "what"), [("redis", "that keeps the tags "), ("valkey", "")])
def test_readers_get_the_source_until_a_replica_takes_over_in_a_cluster(
    kind: Kind, what: str, new_cache: NewCache, namespace: str
) -> None:
    with a_cluster(kind, replicas=1) as own, seen(f"a primary of a cluster {what}is killed, under load") as callers:
        keeper = own.owner(marks_of(namespace))
        old = keeper if what else own.others(keeper)[0]
        killed(Load(own.url, new_cache, callers, namespace), old.kill)


@pytest.mark.slow
def test_readers_notice_nothing_of_slots_that_move(cluster: Cluster, new_cache: NewCache, namespace: str) -> None:
    names = [marks_of(namespace), *(f"{namespace}:{key}" for key in KEYS)]
    with seen("slots of a cluster move, under load") as callers:
        load = Load(cluster.url, new_cache, callers, namespace)
        with load.under_way():
            for name in names:
                to_and_fro(cluster, name)
            callers.normal_again(load.normal)
        assert callers.read_errors == callers.wrong == 0, callers.errors
        assert callers.loads["calm:1"] <= 3


def to_and_fro(cluster: Cluster, name: str) -> None:
    """Move a slot to both other nodes and back."""
    source = cluster.owner(name)
    for target in (*cluster.others(source), source):
        cluster.move(name, target)
