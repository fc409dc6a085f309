"""Caches that nobody uses any more leave nothing behind, and listeners that fail change nothing."""

import dataclasses
import gc
import weakref

import pytest

from nearcache import AsyncCache, Cache


@pytest.mark.parametrize("kind", [Cache, AsyncCache])
def test_a_cache_that_is_dropped_leaves_memory_although_metrics_listened_to_it(kind: type[Cache | AsyncCache]) -> None:
    cache = kind("memory://", namespace="dropped")
    face = cache if isinstance(cache, Cache) else cache.sync
    face.set("a:1", "value")
    assert face.get("a:1") == "value"
    core, near = weakref.ref(cache._parts.core), weakref.ref(cache._parts.stats)
    del cache, face
    gc.collect()
    assert core() is None
    assert near() is None


@dataclasses.dataclass
class Row:
    """A value that can be watched."""

    id: int


def test_the_near_tier_of_a_dropped_cache_goes_when_another_one_is_used() -> None:
    cache = Cache("memory://", namespace="dropped", near_copy="share", types=[Row])
    cache.set("a:1", Row(1))
    row = weakref.ref(cache.get("a:1"))
    assert row() is not None
    del cache
    gc.collect()
    Cache("memory://", namespace="next").set("a:1", 1)
    assert row() is None


class FailsToFlush:
    """A listener with a defect."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def on(self, event: object) -> None:
        """Note it."""
        self.events.append(event)

    def flush(self) -> None:
        """Fail."""
        raise ValueError("a defect")


def test_a_listener_that_fails_to_flush_is_counted_and_reads_go_on() -> None:
    cache = Cache("memory://", namespace="flushed", observers=[FailsToFlush()])
    cache.set("a:1", 1)
    assert all(cache.get("a:1") == 1 for _ in range(2_100))
    assert cache.stats().errors == 2
