"""Near values follow the engine: whoever changes a key there, this process hears of it, or knows that it does not.

The staleness of most caches here is an hour, so that nothing but an announcement can end a value.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import Cache, Health
from tests.integration.redis.helpers import eventually, in_child, reap
from tests.servers import HASTY, RedisServer, redis_server

NewCache = Callable[..., Cache]


@pytest.fixture
def new_cache(namespace: str) -> Iterator[NewCache]:
    """Make caches of one namespace."""
    made: list[Cache] = []

    def new(url: str, **options: Any) -> Cache:
        options = {"namespace": namespace, "observers": (), "pool_min": 1, "staleness": "1h", "jitter": 0, **options}
        made.append(Cache(url, **options))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


def hears(cache: Cache) -> Health:
    """Have a cache listen, and wait until every change is announced to it."""
    cache.set("warm:up", 1)
    eventually(lambda: cache.health().coherent, "changes are announced")
    return cache.health()


def served_near(cache: Cache, key: str) -> bool:
    """Read, and tell whether the engine was not asked."""
    before = cache.stats().near_hits
    cache.get(key)
    return cache.stats().near_hits > before


def kept_near(cache: Cache, key: str, value: Any, tags: tuple[str, ...] = ()) -> None:
    """Store a value, wait until that is announced, and read it until it is served near."""
    coherence, heard = cache._parts.core.coherence, set[str]()
    changed = coherence.changed

    def listen(keys: list[str]) -> None:
        changed(keys)
        heard.update(keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coherence, "changed", listen)
        cache.set(key, value, tags=tags)
        eventually(lambda: key in heard, "the store is announced")
    eventually(lambda: served_near(cache, key), "it is near")
    assert cache.get(key) == value


Change = Callable[[RedisServer, str], object]
CHANGES: dict[str, Change] = {
    "deleted": lambda server, name: server.command("DEL", name),
    "unlinked": lambda server, name: server.command("UNLINK", name),
    "overwritten": lambda server, name: server.command("SET", name, "another"),
    "renamed": lambda server, name: server.command("RENAME", name, f"{name}:away"),
    "expired": lambda server, name: server.command("PEXPIRE", name, 1),
    "flushed": lambda server, name: server.command("FLUSHDB"),
    "changed by a script": lambda server, name: server.command("EVAL", "redis.call('DEL', KEYS[1])", 1, name),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_what_others_change_is_not_served(kind: Any, change: Change, new_cache: NewCache, namespace: str) -> None:
    with redis_server(kind) as server:
        cache = new_cache(server.url)
        hears(cache)
        kept_near(cache, "users:1", "old")
        change(server, f"{namespace}:users:1")
        eventually(lambda: cache.get("users:1") is None, "it is gone")
        cache.close()


def test_what_was_evicted_is_not_served(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.url)
    hears(cache)
    kept_near(cache, "users:1", "old")
    own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    eventually(lambda: own_server.command("DBSIZE") == 0, "everything is evicted")
    eventually(lambda: cache.get("users:1") is None, "it is gone")


def test_what_another_process_writes_is_read(any_server: RedisServer, new_cache: NewCache) -> None:
    one, two = new_cache(any_server.unix_url), new_cache(any_server.unix_url)
    hears(one)
    kept_near(one, "users:1", "old")
    two.set("users:1", "new")
    eventually(lambda: one.get("users:1") == "new", "the new value is read")
    assert asyncio.run(one.aio.get("users:1")) == "new"


def test_what_another_process_invalidates_by_a_tag_is_not_served(any_server: RedisServer, new_cache: NewCache) -> None:
    one, two = new_cache(any_server.unix_url), new_cache(any_server.unix_url)
    hears(one)
    kept_near(one, "users:1", "value", ("team",))
    kept_near(one, "users:2", "value", ("other",))
    two.invalidate_tags("team")
    eventually(lambda: one.get("users:1") is None, "it is gone")
    assert served_near(one, "users:2")
    two.clear()
    eventually(lambda: one.get("users:2") is None, "it is gone")


def test_what_another_program_writes_is_read_in_json(any_server: RedisServer, new_cache: NewCache, namespace: str):
    cache = new_cache(any_server.unix_url, codec="json")
    hears(cache)
    kept_near(cache, "users:1", {"name": "old"})
    any_server.command("SET", f"{namespace}:users:1", '{"name": "new"}', "EX", 60)
    eventually(lambda: cache.get("users:1") == {"name": "new"}, "the new value is read")


def test_the_lag_is_measured(any_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(any_server.unix_url, staleness=0.1)
    hears(cache)

    def measured() -> bool:
        cache.set("users:1", 1)
        return cache.stats().lag is not None

    eventually(measured, "a lag is measured")
    lag = cache.stats().lag
    assert lag is not None
    assert 0.0 < lag.median <= lag.p99 <= lag.longest < 10.0


# Gaps


def test_what_was_changed_while_nobody_listened_is_not_served(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.url)
    since = hears(cache).coherent_seconds
    kept_near(cache, "users:1", "old")
    own_server.pause()
    ids = [line.split()[0] for line in _paused(own_server, "CLIENT", "LIST", "TYPE", "pubsub").splitlines()]
    assert ids
    own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
    eventually(lambda: cache.health().coherent and cache.health().coherent_seconds < since + 60, "it hears again")
    own_server.command("DEL", f"{cache._parts.core.options.namespace}:users:1")
    eventually(lambda: cache.get("users:1") is None, "it is gone")


def _paused(server: RedisServer, *words: str) -> Any:
    server.resume()
    return server.command(*words)


def test_without_an_answer_nothing_is_vouched_for(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.url, staleness=0.3, timeout=0.2)
    hears(cache)
    kept_near(cache, "users:1", "old")
    own_server.pause()
    assert cache.get("users:1") == "old", "the engine answered a moment ago"
    eventually(lambda: cache.get("users:1") is None, "nobody vouches for it any more")
    health, stats = cache.health(), cache.stats()
    assert (health.engine, health.coherent) == (False, False)
    assert stats.near_refused >= 1
    assert stats.misses_by_reason["incoherent"] >= 1
    assert cache.get_many(["users:1"]) == {}
    assert cache.get_or_load("users:1", lambda: "loaded") == "loaded"
    own_server.resume()
    eventually(lambda: cache.health().coherent, "it hears again")
    eventually(lambda: cache.get("users:1") == "old", "the engine is asked again")


def test_if_the_load_fails_too_what_was_near_may_be_served(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.url, staleness=0.3, timeout=0.2, fail_safe="1h")

    def fail(*_: Any) -> Any:
        raise ConnectionError

    async def afail() -> str:
        raise ConnectionError

    hears(cache)
    for key in ("users:1", "users:2"):
        kept_near(cache, key, "old")
    own_server.pause()
    cache._parts.core.changed("users:2")  # what this process knows to be invalid is not served
    eventually(lambda: cache.get("users:1") is None, "nobody vouches for it any more")
    assert cache.get_or_load("users:1", fail) == "old"
    assert asyncio.run(cache.aio.get_or_load("users:1", afail)) == "old"
    assert cache.get_or_load_many(["users:1"], fail) == {"users:1": "old"}
    assert cache.stats().stale_hits == 3
    with pytest.raises(ConnectionError):
        cache.get_or_load("users:1", fail, fail_safe=None)
    with pytest.raises(ConnectionError):
        cache.get_or_load("users:1", fail, fail_safe=None, stale=60)
    with pytest.raises(ConnectionError):
        cache.get_or_load("users:2", fail)
    assert cache.get_or_load("users:1", lambda: "loaded", stale=60) == "loaded", "the loader comes first"

    def fails() -> bool:
        try:
            assert cache.get_or_load("users:1", fail) == "loaded", "it is newer, and nobody goes back in time"
        except ConnectionError:
            return True
        return False

    eventually(fails, "what was loaded is kept for as long as a near value would be, and not longer")


# Who is not told


def test_a_replica_announces_nothing(own_server: RedisServer, new_cache: NewCache, namespace: str) -> None:
    own_server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with redis_server("valkey", *HASTY) as replica:
        new_cache(own_server.url).set("users:1", "value")
        replica.command("REPLICAOF", "127.0.0.1", own_server.port)
        eventually(lambda: replica.command("GET", f"{namespace}:users:1"), "it is copied")
        cache = new_cache(replica.url, staleness=0.1)
        assert cache.get("users:1") == "value"
        eventually(lambda: "replica" in (cache.health().incoherence or ""), "it says so")
        assert cache.health().coherent is False
        own_server.command("DEL", f"{namespace}:users:1")
        eventually(lambda: cache.get("users:1") is None, "the staleness has passed")
        replica.command("REPLICAOF", "NO", "ONE")
        replica.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert cache.get("users:1") is None
        hears(cache)
        cache.close()


def test_a_primary_that_becomes_a_replica_is_noticed(own_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(own_server.url, staleness=0.1)
    hears(cache)
    own_server.command("REPLICAOF", "127.0.0.1", "1")
    eventually(lambda: not cache.health().coherent and "replica" in (cache.health().incoherence or ""), "it says so")
    own_server.command("REPLICAOF", "NO", "ONE")
    own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
    hears(cache)


RIGHTS = {"CLIENT TRACKING": ["+@all", "-client|tracking"], "SUBSCRIBE": ["+@all", "-subscribe"]}


@pytest.mark.parametrize(("missing", "rights"), RIGHTS.items(), ids=list(RIGHTS))
def test_who_may_not_listen_keeps_values_for_the_staleness(
    own_server: RedisServer, new_cache: NewCache, missing: str, rights: list[str]
) -> None:
    own_server.command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", *rights)
    cache = new_cache(own_server.url.replace("//", "//deaf:secret@"), staleness=0.2)
    other = new_cache(own_server.url)
    cache.set("users:1", "old")
    eventually(lambda: missing in (cache.health().incoherence or ""), "it says why")
    assert cache.health().coherent is False
    assert "secret" not in repr(cache.health())
    eventually(lambda: served_near(cache, "users:1"), "it is near")
    other.set("users:1", "new")
    eventually(lambda: cache.get("users:1") == "new", "the staleness has passed")


def test_where_no_thread_can_be_started_values_are_kept_for_the_staleness(
    any_server: RedisServer, new_cache: NewCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    cache, other = new_cache(any_server.unix_url, staleness=0.2), new_cache(any_server.unix_url)
    cache.set("users:1", "old")
    assert (cache.health().coherent, cache.health().incoherence) == (
        False,
        "no thread could be started to listen: can't start new thread",
    )
    other.set("users:1", "new")
    eventually(lambda: cache.get("users:1") == "new", "the staleness has passed")


def test_who_keeps_nothing_near_need_not_be_told(any_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(any_server.unix_url, near=None)
    cache.delete("users:1")
    assert cache.health().coherent is None
    assert new_cache("memory://").health().coherent is None


# Ends and beginnings


def test_a_cache_that_was_closed_hears_again_when_it_is_used(any_server: RedisServer, new_cache: NewCache) -> None:
    cache, other = new_cache(any_server.unix_url), new_cache(any_server.unix_url)
    hears(cache)
    kept_near(cache, "users:1", "old")
    cache.close()
    assert not cache._parts.core.coherence.tracked, "nobody takes the old connection for a new one"
    other.set("users:1", "new")
    hears(cache)
    eventually(lambda: cache.get("users:1") == "new", "what it kept before is gone")


def test_a_child_listens_for_itself(any_server: RedisServer, new_cache: NewCache) -> None:
    cache, other = new_cache(any_server.unix_url), new_cache(any_server.unix_url)
    hears(cache)
    kept_near(cache, "users:1", "old")

    def child() -> None:
        assert not served_near(cache, "users:1"), "nobody tells the child of changes yet"
        hears(cache)
        kept_near(cache, "users:2", "old")
        other.set("users:2", "new")
        eventually(lambda: cache.get("users:2") == "new", "the new value is read")
        cache.close()
        other.close()

    assert reap(in_child(child)) == 0
    assert served_near(cache, "users:1"), "the parent's connection is its own"
    other.set("users:1", "new")
    eventually(lambda: cache.get("users:1") == "new", "the new value is read")
