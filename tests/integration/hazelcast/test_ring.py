"""Near values over Hazelcast, and the ring in which changes are announced."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.hazelcast.feed import Entry
from nearcache.backends.hazelcast.listener import _Reading
from tests.hazelcast import Member
from tests.promises.helpers import PATIENCE, broken, eventually

NewCache = Callable[..., Cache]


@pytest.fixture
def new_cache(hazelcast: Member, request: pytest.FixtureRequest) -> Iterator[NewCache]:
    """Make caches over the member, of one namespace unless it is said."""
    made = list[Cache]()
    namespace = f"t{abs(hash(request.node.name)) % 10**9}"

    def new(**options: Any) -> Cache:
        made.append(Cache(hazelcast.url, **{"namespace": namespace, "observers": (), "staleness": 30.0, **options}))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


def is_coherent(cache: Cache) -> bool:
    return bool(cache.health().coherent)


def coherent(*caches: Cache) -> None:
    """Wait until these caches hear of every change."""
    for cache in caches:
        cache.set("warm:1", 1)
        cache.get("warm:1")
        eventually(functools.partial(is_coherent, cache), "it hears of changes")


def test_a_change_is_told_long_before_the_staleness(new_cache: NewCache):
    one, other = new_cache(), new_cache()
    one.set("users:1", "old")
    coherent(one, other)
    assert other.get("users:1") == "old"
    near = other.stats().near_hits
    assert other.get("users:1") == "old"
    assert other.stats().near_hits == near + 1
    one.set("users:1", "new")
    eventually(lambda: other.get("users:1") == "new", "it is told")
    one.delete("users:1")
    eventually(lambda: other.get("users:1") is None, "it is told")


def test_tags_that_are_invalidated_elsewhere_are_told(new_cache: NewCache):
    one, other = new_cache(), new_cache()
    one.set("users:1", "old", tags=["staff"])
    coherent(one, other)
    for invalidate in (lambda: one.invalidate_tags("staff"), one.clear):
        one.set("users:1", "old", tags=["staff"])
        eventually(lambda: other.get("users:1") == "old", "it is told")
        assert other.get("users:1") == "old"
        invalidate()
        eventually(lambda: other.get("users:1") is None, "it is told")


async def test_both_flavours_tell_and_are_told(new_cache: NewCache):
    one, other = new_cache(), new_cache()
    coherent(one, other)
    await one.aio.set("users:1", "old")
    assert await other.aio.get("users:1") == "old"
    await one.aio.set("users:1", "new")
    eventually(lambda: other.get("users:1") == "new", "it is told")
    assert await other.aio.get_or_load("users:2", loaded) == "loaded"
    assert await one.aio.get("users:2") == "loaded"
    await other.aio.delete("users:2")
    eventually(lambda: one.get("users:2") is None, "it is told")
    for cache in (one, other):
        await cache.aio.aclose()


async def loaded() -> str:
    return "loaded"


def test_what_this_process_stores_stays_near(new_cache: NewCache):
    """Its own announcements do not make it forget."""
    cache = new_cache()
    coherent(cache)
    for number in range(20):
        assert cache.get_or_load(f"users:{number}", lambda: "loaded") == "loaded"
    cache.set("last:1", 1)
    other = new_cache()
    other.set("told:1", 1)
    before = cache.stats()
    assert cache.get_many([f"users:{number}" for number in range(20)]) == dict.fromkeys(
        (f"users:{number}" for number in range(20)), "loaded"
    )
    assert cache.stats().near_hits == before.near_hits + 20


def test_the_lag_is_measured(new_cache: NewCache):
    cache = new_cache(staleness=0.3)
    coherent(cache)

    def measured() -> bool:
        cache.set("users:1", 1)
        return cache.stats().lag is not None

    eventually(measured, "a change of its own was heard")


def ring_of(cache: Cache) -> Any:
    """Return the ring, as the cache's own client sees it."""
    heard: Any = cache._engine.backend
    opened = heard._heard.maps._openings[-1]._opened
    return opened.client.get_ringbuffer(heard._heard.feed.ring).blocking()


def test_what_cannot_be_read_in_the_ring_is_any_change(new_cache: NewCache):
    one, other = new_cache(), new_cache()
    one.set("users:1", "old")
    coherent(one, other)
    assert other.get("users:1") == "old"
    name = f"{one._parts.core.options.namespace}:users:1"
    heard: Any = one._engine.backend
    stranger = heard._heard.maps._openings[-1]._opened.client.get_map(one._parts.core.options.namespace).blocking()
    stranger.delete(name)
    assert other.get("users:1") == "old", "nobody has told"
    for hostile in ("no bytes", bytearray(b"one-word"), bytearray(b"\xff\xfe 1"), 7):
        ring_of(one).add(hostile)
    eventually(lambda: other.get("users:1") is None, "it is told")
    one.set("users:2", "new")
    eventually(lambda: other.get("users:2") == "new", "it goes on")


def test_a_ring_that_is_overwritten_or_lost_makes_everything_near_forgotten(new_cache: NewCache):
    one, other = new_cache(), new_cache(staleness=3.0)
    coherent(one, other)
    for lose in (overwritten, destroyed):
        one.set("users:1", "old")
        eventually(lambda: other.get("users:1") == "old", "it is told")
        heard: Any = one._engine.backend
        ring = ring_of(one)
        stranger = heard._heard.maps._openings[-1]._opened.client.get_map(one._parts.core.options.namespace).blocking()
        stranger.delete(f"{one._parts.core.options.namespace}:users:1")
        with held():
            lose(ring)
        eventually(lambda: other.get("users:1") is None, "it is noticed")
        coherent(other)


@contextmanager
def held() -> Iterator[None]:
    """Let nobody read on in the ring, or a reader might keep up with it."""
    go_on, hear = threading.Event(), _Reading._hear

    def wait(reading: _Reading, entry: Entry | None) -> None:
        assert go_on.wait(PATIENCE)
        hear(reading, entry)

    with broken(_Reading, "_hear", wait):
        try:
            yield
        finally:
            go_on.set()


def overwritten(ring: Any) -> None:
    """Add more than the ring takes, and more than is read at once."""
    for _ in range(12):
        ring.add_all([bytearray(b"a 1 others:1")] * 999, 0)


def destroyed(ring: Any) -> None:
    """Lose the ring; another one is there at once, which is longer."""
    last = ring.tail_sequence()
    ring.destroy()
    while ring.add(bytearray(b"a 1 others:1")) <= last + 5 and last < 1_000:
        pass
