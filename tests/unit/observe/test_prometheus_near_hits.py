"""Near hits reach Prometheus although they touch nothing else."""

from prometheus_client import CollectorRegistry

from nearcache import Cache
from nearcache.observe.prometheus import Prometheus


def test_near_hits_are_told_after_every_1024_of_an_entity() -> None:
    cache = Cache("memory://", namespace="near1024", observers=())
    told: list[int] = []

    class Telling(Prometheus):
        def flush(self) -> None:
            told.append(cache.stats().near_hits)
            super().flush()

    core = cache._parts.core
    core.listen([Telling("near1024", core.near, CollectorRegistry())])
    cache.set("a:1", 1)
    for _ in range(2_100):
        cache.get("a:1")
    assert told == [1024, 2048]
