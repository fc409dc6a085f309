"""A slow reader has read the old mayor when a writer deletes the cached city; it stores what it has read afterwards.

First with plain `get` and `set`, as everybody writes it; then with `get_or_load`. The steps are the same.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

from nearcache import Cache
from nearcache.demo import guide
from nearcache.demo.atlas import City
from nearcache.demo.stage import Stage

PATIENCE = 30.0
Read = Callable[[int, Callable[[], City]], City]
"""Reads a city through the cache; the function reads it from SQLite."""


def play(stage: Stage) -> None:
    """Compare what the next reader gets."""
    first, second = guide.atlas.largest(2, skip=4_000)
    with Cache(os.environ["CACHE_URL"], namespace="race", observers=()) as cache:
        plain = _mayor_after(cache, partial(_plainly, cache), first)
        stage.report("plain get and set: the next reader gets", plain)
        leased = _mayor_after(cache, partial(_by_lease, cache), second)
        stage.report("get_or_load: the next reader gets", leased, leased == "the new mayor")


def _plainly(cache: Cache, city_id: int, load: Callable[[], City]) -> City:
    found = cache.get(f"city:{city_id}", type=City)
    if found is None:
        found = load()
        cache.set(f"city:{city_id}", found, ttl="10m")
    return found


def _by_lease(cache: Cache, city_id: int, load: Callable[[], City]) -> City:
    return cache.get_or_load(f"city:{city_id}", load, ttl="10m")


def _mayor_after(cache: Cache, read: Read, city_id: int) -> str:
    """Let a writer come between a reader's query and its store; say whose name the next reader gets."""
    has_read, may_store = Event(), Event()
    guide.atlas.update_mayor(city_id, "the old mayor")

    def slowly() -> City:
        city = guide.atlas.city(city_id)
        has_read.set()
        may_store.wait(PATIENCE)
        return city

    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(read, city_id, slowly)
        has_read.wait(PATIENCE)
        guide.atlas.update_mayor(city_id, "the new mayor")
        cache.delete(f"city:{city_id}")
        may_store.set()
        reader.result(PATIENCE)
    return read(city_id, lambda: guide.atlas.city(city_id)).mayor
