"""Caches that nobody uses any more leave nothing behind, and listeners that fail change nothing."""

import dataclasses
import gc
import os
import threading
import weakref
from contextlib import ExitStack

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


class FailsToStart:
    def __init__(self) -> None:
        self.events = 0

    def start(self) -> None:
        raise OSError("no such collector")

    def on(self, event: object) -> None:
        self.events += 1


def test_an_observer_that_fails_to_start_does_not_stop_the_cache():
    observer = FailsToStart()
    cache = Cache("memory://", namespace="unstarted", observers=[observer])
    cache.set("users:1", "Ada")
    assert cache.get("users:1") == "Ada"
    assert cache.stats().errors == 1
    assert observer.events > 0


def test_a_cache_shows_where_it_is_and_no_more():
    cache = Cache("redis://user:secret@h:6379/0", namespace="shop")
    assert repr(cache) == "Cache('redis://h:6379', namespace='shop')"
    assert repr(cache.aio) == "AsyncCache('redis://h:6379', namespace='shop')"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no os.fork")
@pytest.mark.parametrize("whose", ["another thread's", "its own"])
def test_a_forked_child_reads_near_again_after_a_bypass(whose):
    cache = Cache("memory://", namespace="forked", observers=())
    cache.set("users:1", "Ada")
    inside, leave = threading.Event(), threading.Event()

    def bypassing() -> None:
        with cache.bypass():
            inside.set()
            leave.wait(10)

    with ExitStack() as stack:
        if whose == "its own":
            stack.enter_context(cache.bypass())
        else:
            thread = threading.Thread(target=bypassing)
            thread.start()
            stack.callback(thread.join)
            stack.callback(leave.set)
            assert inside.wait(10)
        child = os.fork()
        if child == 0:
            if whose == "its own":
                mine = cache.get("users:1") is None
                stack.close()
            else:
                mine = True
            before = cache.stats().near_hits
            near = cache.get("users:1") == "Ada" and cache.stats().near_hits == before + 1
            os._exit(0 if mine and near else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_both_flavours_of_a_cache_know_one_time_of_the_engine():
    cache = Cache("redis://h:6379/0", namespace="times")
    assert cache._engine.backend.time is cache.aio._engine.backend.time
