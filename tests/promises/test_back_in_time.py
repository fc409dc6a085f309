"""Whoever has read a value that was acknowledged reads nothing older later, whatever crossed in between.

Nothing is announced here. A near value may be old until a change is announced, but nobody may get it after a newer one.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.base import NotServing
from nearcache.near.flights import Flights
from nearcache.near.stamps import Stamps
from nearcache.near.store import Store
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    PATIENCE,
    Crowd,
    broken,
    eventually,
    noticed,
    recorded,
    unannounced,
    values,
    waiting,
)

KEY = "users:1"


def pair(new_cache: NewCache, url: str, **options: Any) -> tuple[Cache, Cache]:
    """Return a cache, and one that stands for another process."""
    one = new_cache(url, staleness="1h", **options)
    return one, new_cache(url, namespace=one._parts.core.options.namespace, near=None)


def elsewhere(read: Callable[[], Any]) -> Any:
    """Read in another thread."""
    (value,) = values(Crowd().threads(1, read).start().finish())
    return value


# Behind the engine's answer to a write of this process


WRITES: dict[str, tuple[str, Callable[[Cache], Any]]] = {
    "set": ("set", lambda cache: cache.set(KEY, "older")),
    "set by a task": ("set", lambda cache: asyncio.run(cache.aio.set(KEY, "older"))),
    "write_through": ("commit", lambda cache: cache.write_through(KEY, "older", lambda value: value)),
    "load": ("fill", lambda cache: cache.get_or_load(KEY, lambda: "older")),
    "batch": (
        "fill",
        lambda cache: cache.get_or_load_many([KEY, "users:2"], lambda keys: dict.fromkeys(keys, "older")),
    ),
}


def a_late_write_is_not_kept(new_cache: NewCache, url: str, write: str) -> None:
    """Let others write, and a thread read, before a write of this process goes on."""
    cache, other = pair(new_cache, url)
    operation, do = WRITES[write]
    seen = list[Any]()

    def after(done: str) -> None:
        if done == operation and not seen:
            other.set(KEY, "newer")
            seen.append(elsewhere(lambda: cache.get(KEY)))

    with recorded(cache, cache.aio) as engine:
        engine.after = after
        do(cache)
    assert seen == ["newer"]
    assert elsewhere(lambda: cache.get(KEY)) == "newer"


@pytest.mark.parametrize("write", WRITES)
def test_a_late_write_puts_nothing_older_near(shared_url: str, new_cache: NewCache, write: str) -> None:
    with unannounced():
        a_late_write_is_not_kept(new_cache, shared_url, write)


def test_a_late_write_that_does_not_look_is_noticed(shared_url: str, new_cache: NewCache) -> None:
    with unannounced(), broken(Store, "_served", lambda *_: 0), noticed():
        a_late_write_is_not_kept(new_cache, shared_url, "set")


# Behind a read that was slower


@contextmanager
def slow(cache: Cache, read: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Begin a read in a thread whose answer is on its way while the block runs; yields what lets it arrive."""
    answered, go_on = threading.Event(), threading.Event()
    outcome = list[Any]()

    def after(operation: str) -> None:
        if operation == "get" and threading.current_thread().name == "slow":
            answered.set()
            assert go_on.wait(PATIENCE)

    def arrive() -> Any:
        go_on.set()
        thread.join(PATIENCE)
        return outcome[0]

    with recorded(cache) as engine:
        engine.after = after
        thread = threading.Thread(target=lambda: outcome.append(read()), name="slow")
        thread.start()
        assert answered.wait(PATIENCE)
        try:
            yield arrive
        finally:
            arrive()


def a_slow_read_is_not_kept(new_cache: NewCache, url: str, near: int | str, newer: str) -> None:
    """Read what does not stay near while an older answer is on its way."""
    cache, other = pair(new_cache, url, near=near)
    other.set_many({KEY: "older", "users:2": "x"})
    with slow(cache, lambda: cache.get(KEY)) as arrive:
        other.set(KEY, newer)
        assert cache.get(KEY) == newer
        cache.get("users:2")
        cache.get("users:2")
        assert arrive() == "older"
        assert cache.get(KEY) == newer


@pytest.mark.parametrize(("near", "newer"), [("20KB", "x" * 30_000), (1, "newer")], ids=["too large", "pushed out"])
def test_an_older_answer_is_not_kept_after_a_newer_one_that_is_not_near(
    shared_url: str, new_cache: NewCache, near: int | str, newer: str
) -> None:
    with unannounced():
        a_slow_read_is_not_kept(new_cache, shared_url, near, newer)


@pytest.mark.parametrize(("near", "newer"), [("20KB", "x" * 30_000), (1, "newer")], ids=["too large", "pushed out"])
def test_values_that_leave_without_a_trace_are_noticed(
    shared_url: str, new_cache: NewCache, near: int | str, newer: str
) -> None:
    with unannounced(), broken(Stamps, "change", lambda *_: None), noticed():
        a_slow_read_is_not_kept(new_cache, shared_url, near, newer)


def nobody_joins_an_older_read(new_cache: NewCache, url: str) -> None:
    """Read something newer, which is not kept, and ask for it again while an older answer is on its way."""
    cache, other = pair(new_cache, url, near="20KB")
    other.set(KEY, "older")
    newer = "x" * 30_000
    with slow(cache, lambda: cache.get_or_load(KEY, lambda: "loaded")) as arrive:
        other.set(KEY, newer)
        assert cache.get(KEY) == newer
        later = Crowd().threads(1, lambda: cache.get_or_load(KEY, lambda: "loaded")).start()
        eventually(lambda: later.done or waiting(cache, KEY) > 1, "it has read, or has joined the other one")
        arrive()
        assert values(later.finish()) == [newer]


def nobody_joins_an_older_load(new_cache: NewCache, url: str, *, landed: bool) -> None:
    """Read something newer after a load, or during one, that began because the engine could not serve."""
    cache, other = pair(new_cache, url, near=1)
    loads, go_on = threading.Event(), threading.Event()

    def load() -> str:
        loads.set()
        assert go_on.wait(PATIENCE)
        return "older"

    def refuse(operation: str) -> None:
        if not loads.is_set():
            raise NotServing(f"{operation}: not now")

    if landed:
        go_on.set()
    with recorded(cache) as engine:
        engine.before = refuse
        crowd = Crowd().threads(1, lambda: cache.get_or_load(KEY, load)).start()
        assert loads.wait(PATIENCE)
        eventually(lambda: crowd.done or not landed, "it has loaded")
        other.set_many({KEY: "newer", "users:2": "x"})
        assert cache.get(KEY) == "newer"
        cache.get("users:2")
        cache.get("users:2")  # which takes the only place near
        later = Crowd().threads(1, lambda: cache.get_or_load(KEY, lambda: "loaded")).start()
        eventually(lambda: later.done or waiting(cache, KEY) > 1, "it has read, or has joined the other one")
        go_on.set()
        assert values(crowd.finish()) == ["older"]
        assert values(later.finish()) == ["newer"]


def nobody_joins_a_load_that_is_older_than_a_refresh(new_cache: NewCache, url: str) -> None:
    """Refresh a value in the background while it is loaded anew, because the engine could not serve for a moment."""
    cache, other = pair(new_cache, url, near=1)
    refreshing, go_on, refusing = threading.Event(), threading.Event(), threading.Event()

    def refresh() -> str:
        refreshing.set()
        assert go_on.wait(PATIENCE)
        return "newer"

    def refuse(operation: str) -> None:
        if refusing.is_set():
            raise NotServing(f"{operation}: not now")

    other.set("users:2", "x")
    cache.get_or_load(KEY, lambda: "first", ttl=0.05, stale="1h")
    eventually(lambda: cache.get(KEY) is None, "it is stale")
    with recorded(cache) as engine:
        engine.before = refuse
        assert cache.get_or_load(KEY, refresh, stale="1h", background=True) == "first"
        assert refreshing.wait(PATIENCE)
        refusing.set()
        assert elsewhere(lambda: cache.get_or_load(KEY, lambda: "older")) == "older"
        refusing.clear()
        go_on.set()
        eventually(lambda: cache._parts.core.near.lookup(KEY) == "newer", "it is refreshed")
        cache.get("users:2")
        cache.get("users:2")  # which takes the only place near
        assert elsewhere(lambda: cache.get_or_load(KEY, lambda: "loaded")) == "newer"


def test_nobody_joins_a_load_that_is_older_than_a_refresh(shared_url: str, new_cache: NewCache) -> None:
    with unannounced():
        nobody_joins_a_load_that_is_older_than_a_refresh(new_cache, shared_url)


def test_a_refresh_that_outdates_no_load_is_noticed(shared_url: str, new_cache: NewCache) -> None:
    with unannounced(), broken(Flights, "outdate", lambda *_: None), noticed():
        nobody_joins_a_load_that_is_older_than_a_refresh(new_cache, shared_url)


@pytest.mark.parametrize("landed", [True, False], ids=["landed", "under way"])
def test_nobody_joins_an_older_load(shared_url: str, new_cache: NewCache, landed: bool) -> None:
    with unannounced():
        nobody_joins_an_older_load(new_cache, shared_url, landed=landed)


@pytest.mark.parametrize("landed", [True, False], ids=["landed", "under way"])
def test_readers_that_join_an_older_load_are_noticed(shared_url: str, new_cache: NewCache, landed: bool) -> None:
    with unannounced(), broken(Flights, "outdate", lambda *_: None), noticed():
        nobody_joins_an_older_load(new_cache, shared_url, landed=landed)


def test_nobody_joins_an_older_read(shared_url: str, new_cache: NewCache) -> None:
    with unannounced():
        nobody_joins_an_older_read(new_cache, shared_url)


def test_readers_that_join_an_older_read_are_noticed(shared_url: str, new_cache: NewCache) -> None:
    with unannounced(), broken(Flights, "detach", lambda *_: None), noticed():
        nobody_joins_an_older_read(new_cache, shared_url)
