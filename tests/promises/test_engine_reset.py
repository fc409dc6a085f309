"""An engine that is restarted or replaced may have forgotten what it acknowledged: those who know tell it again."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from nearcache import Cache
from nearcache._engine.core import Core
from nearcache.backends.redis import leases
from nearcache.backends.redis.leases import RedisMarks
from nearcache.backends.redis.listener import Listener
from nearcache.backends.redis.lua import script
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.history import History
from nearcache.near import recent
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, eventually, impatient, noticed
from tests.proxy import Proxy, proxied
from tests.servers import HASTY, KINDS, Kind, RedisServer, redis_server

pytestmark = pytest.mark.alone

NAMESPACE = "reset"


class Pair:
    """A primary, a replica that lags as the test wants, and a proxy to the one that serves."""

    def __init__(self, primary: RedisServer, replica: RedisServer, proxy: Proxy) -> None:
        self.primary = primary
        self.replica = replica
        self.proxy = proxy
        self.url = f"redis://127.0.0.1:{proxy.port}"
        self.follow()

    def follow(self) -> None:
        """Let the replica have everything that the primary has."""
        self.replica.command("REPLICAOF", "127.0.0.1", self.primary.port)
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until the replica has what was written."""
        self.primary.command("SET", "~here", "now")
        self.primary.command("SET", "~here", offset := self.primary.info("replication")["master_repl_offset"])
        eventually(lambda: self.replica.command("GET", "~here") == offset.encode(), "the replica has everything")

    def lag(self) -> None:
        """Let the replica have nothing from now on."""
        self.replica.command("REPLICAOF", "127.0.0.1", "1")

    def fail_over(self) -> None:
        """Let the replica take the place of the primary, which is gone."""
        self.primary.kill()
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.proxy.target = ("127.0.0.1", self.replica.port)
        self.proxy.cut()


@contextmanager
def pair(kind: Kind) -> Iterator[Pair]:
    """Start two servers and a proxy."""
    with redis_server(kind, *HASTY) as primary, redis_server(kind, *HASTY) as replica, proxied(primary.port) as proxy:
        yield Pair(primary, replica, proxy)


def hears(cache: Cache) -> None:
    """Wait until a cache is told of every change."""
    cache.set("warm:up", 1)
    eventually(lambda: cache.health().coherent, "changes are announced")


Invalidate = Callable[[Cache], Any]
INVALIDATIONS: dict[str, Invalidate] = {
    "delete": lambda cache: cache.delete("users:1"),
    "delete by a task": lambda cache: asyncio.run(cache.aio.delete("users:1")),
    "write_through": lambda cache: cache.write_through("users:1", "new", lambda value: value),
    "invalidate_tags": lambda cache: cache.invalidate_tags("team"),
    "clear": lambda cache: cache.clear(),
}


def nothing_is_forgotten(
    new_cache: NewCache, kind: Kind, invalidate: Invalidate, patience: AbstractContextManager[None] | None = None
) -> None:
    """Lose an invalidation in a fail-over, and read in another process, which does not know of it."""
    with pair(kind) as engines:
        author, other = [new_cache(engines.url, namespace=NAMESPACE) for _ in range(2)]
        for cache in (author, other):
            hears(cache)
        author.set("users:1", "old", tags=["team"])
        author.set("users:2", "kept")
        assert other.get("users:1") == "old"
        author.invalidate_tags("unrelated")  # so that what follows is no first mark
        assert other.get("users:2") == "kept"
        engines.catch_up()
        engines.lag()
        invalidate(author)
        engines.fail_over()
        eventually(lambda: author.health().engine and author.health().coherent, "it is connected to the replica")
        eventually(lambda: other.health().coherent, "the other one is, too")
        with patience or nullcontext():
            eventually(lambda: other.get("users:1") != "old", "the invalidation is repeated")
        assert other.get_or_load("users:1", lambda: "new") == "new"
        assert author.get("users:1") == "new"
        for cache in (author, other):
            cache.close()


@pytest.mark.parametrize("invalidate", INVALIDATIONS.values(), ids=INVALIDATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_invalidation_that_a_fail_over_lost_is_repeated(
    new_cache: NewCache, kind: Kind, invalidate: Invalidate
) -> None:
    nothing_is_forgotten(new_cache, kind, invalidate)


def test_without_a_memory_for_invalidations_they_are_lost(new_cache: NewCache) -> None:
    with broken(Core, "invalidated", lambda *_: None), noticed("the invalidation is repeated"):
        nothing_is_forgotten(new_cache, "valkey", INVALIDATIONS["delete"], impatient())


def test_without_a_look_at_who_answers_they_are_lost(new_cache: NewCache) -> None:
    with broken(Core, "_forgot", lambda *_: None), noticed("the invalidation is repeated"):
        nothing_is_forgotten(new_cache, "valkey", INVALIDATIONS["delete"], impatient())


def restored_marks_reach_everybody(
    new_cache: NewCache, verb: str, at_last: AbstractContextManager[None] | None = None
) -> None:
    """Somebody new marks something before the author has noticed that its mark was lost; `at_last` goes around the last
    wait.
    """
    with pair("valkey") as engines, proxied(engines.primary.port) as late:
        author = new_cache(f"redis://127.0.0.1:{late.port}", namespace=NAMESPACE)
        author.invalidate_tags("first")
        hears(author)
        author.set("users:1", "old", tags=["team"])
        engines.catch_up()
        engines.lag()
        INVALIDATIONS[verb](author)
        engines.fail_over()
        other = new_cache(engines.url, namespace=NAMESPACE)
        hears(other)
        other.invalidate_tags("elsewhere")
        late.target = ("127.0.0.1", engines.replica.port)
        late.cut()
        eventually(lambda: author.get("users:1") is None and author.health().coherent, "it is connected")
        with at_last or nullcontext():
            eventually(lambda: other.get("users:1") is None, "the mark is restored")
        for cache in (author, other):
            cache.close()


@pytest.mark.parametrize("verb", ["invalidate_tags", "clear"])
def test_marks_that_are_restored_reach_those_who_know_newer_ones(new_cache: NewCache, verb: str) -> None:
    restored_marks_reach_everybody(new_cache, verb)


def test_marks_that_are_restored_under_their_old_stamps_are_noticed(new_cache: NewCache) -> None:
    real = script("restore").text
    old = real.replace("redis.call('ZADD', meta, stamp, member)", "redis.call('ZADD', meta, ARGV[i], member)")
    assert old != real
    with broken(leases, "script", lambda _: SimpleNamespace(text=old)), noticed("the mark is restored"):
        restored_marks_reach_everybody(new_cache, "invalidate_tags", impatient())


def test_a_mark_below_the_newest_that_is_known_is_learnt(new_cache: NewCache) -> None:
    """The clock of the replica that takes over is behind."""
    with pair("valkey") as engines:
        ahead = new_cache(engines.url, namespace=NAMESPACE)
        other = new_cache(engines.url, namespace=NAMESPACE, near=None)  # hears of nothing, and asks when it is used
        for cache in (ahead, other):
            cache.invalidate_tags("first")
        hears(ahead)
        ahead.set("users:1", "old", tags=["team"])
        engines.catch_up()
        engines.lag()
        newest = max(marks(engines.primary).values())
        engines.primary.command("ZADD", f"{{{NAMESPACE}}}~m", newest + 5_000_000, "t:ahead")
        eventually(lambda: ahead._parts.core.view.last > newest, "one of them knows a mark of the clock ahead")
        assert ahead.get("users:1") == "old"
        assert other._parts.core.view.last <= newest
        engines.fail_over()
        other.invalidate_tags("team")
        eventually(lambda: ahead.get("users:1") is None, "it has learnt the mark")
        for cache in (ahead, other):
            cache.close()


def deleted_values_do_not_come_back(new_cache: NewCache, flavour: str) -> None:
    """Read the first thing after a fail-over, before the listener has noticed anything."""
    with pair("valkey") as engines, broken(Listener, "_listen", _not_connected):
        cache = new_cache(engines.url, namespace=NAMESPACE)
        cache.set("users:1", "old")
        engines.catch_up()
        engines.lag()
        cache.delete("users:1")
        engines.fail_over()
        first = cache.get("users:1") if flavour == "sync" else asyncio.run(cache.aio.get("users:1"))
        assert first is None, "a deleted value is back"
        assert cache.get("users:1") is None
        cache.close()


def _not_connected(*_: object) -> None:
    raise ConnectionError


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_who_deleted_a_value_never_reads_it_again(new_cache: NewCache, flavour: str) -> None:
    deleted_values_do_not_come_back(new_cache, flavour)


def test_connections_that_do_not_look_whose_data_it_is_are_noticed(new_cache: NewCache) -> None:
    with broken(History, "met", lambda *_: False), noticed("a deleted value is back"):
        deleted_values_do_not_come_back(new_cache, "sync")


def nothing_is_read_from_the_old_engine(new_cache: NewCache, flavour: str) -> None:
    """Only the connection that listens has broken; the others still lead to what was the primary."""
    with pair("valkey") as engines:
        cache = new_cache(engines.url, namespace=NAMESPACE)
        hears(cache)
        cache.set("users:1", "old")

        def fail_over() -> None:
            engines.catch_up()
            engines.lag()
            engines.replica.command("REPLICAOF", "NO", "ONE")
            engines.proxy.target = ("127.0.0.1", engines.replica.port)
            engines.primary.command("CLIENT", "KILL", "TYPE", "pubsub")
            eventually(lambda: engines.replica.info("clients")["pubsub_clients"] != "0", "it listens to the new one")
            eventually(lambda: cache._parts.core.coherence.tracked, "it has looked whose data it is")
            engines.replica.command("SET", f"{NAMESPACE}:users:1", "none of ours")

        async def read() -> object:
            await cache.aio.get("users:2")
            await asyncio.to_thread(fail_over)
            return await cache.aio.get("users:1")

        if flavour == "async":
            assert asyncio.run(read()) is None
        else:
            cache.get("users:2")
            fail_over()
            assert cache.get("users:1") is None, "it is read from the old one"
        cache.close()


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_nothing_is_read_from_the_old_engine_any_more(new_cache: NewCache, flavour: str) -> None:
    nothing_is_read_from_the_old_engine(new_cache, flavour)


def test_connections_to_the_old_engine_that_are_kept_are_noticed(new_cache: NewCache) -> None:
    with broken(BlockingLink, "renew", lambda *_: None), noticed("it is read from the old one"):
        nothing_is_read_from_the_old_engine(new_cache, "sync")


def test_with_json_the_newest_deletions_are_repeated(
    new_cache: NewCache, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MOST", 10)
    cache = new_cache(own_server.url, namespace=NAMESPACE, codec="json")
    cache.set("users:1", "old")
    own_server.command("SAVE")
    cache.delete_many(f"others:{number}" for number in range(11))
    cache.delete("users:1")
    restarted(own_server)
    assert cache.get("users:1") is None


def test_everything_is_cleared_also_where_nobody_listens(new_cache: NewCache, own_server: RedisServer) -> None:
    cache = new_cache(own_server.url, namespace=NAMESPACE, near=None, on_reset="clear")
    cache.set("users:1", "kept")
    own_server.command("SAVE")
    restarted(own_server)
    assert cache.get("users:1") is None


def test_what_was_not_invalidated_survives(new_cache: NewCache) -> None:
    """Also values of tags that were marked before, and of those whose marks are restored."""
    with pair("valkey") as engines:
        cache, other = [new_cache(engines.url, namespace=NAMESPACE) for _ in range(2)]
        for each in (cache, other):
            hears(each)
        cache.invalidate_tags("one", "two")
        cache.set_many({"users:1": 1, "users:2": 2}, tags=["one"])
        cache.set("users:3", 3, tags=["three"])
        engines.catch_up()
        engines.lag()
        cache.invalidate_tags("three")
        engines.fail_over()
        eventually(lambda: other.get("users:3") is None, "the mark is restored")
        assert other.get_many(["users:1", "users:2"]) == {"users:1": 1, "users:2": 2}
        cache.invalidate_tags("one")
        eventually(lambda: other.get("users:1") is None, "it is invalid")
        for each in (cache, other):
            each.close()


def test_a_mark_is_made_after_those_that_were_lost_are_restored(new_cache: NewCache, own_server: RedisServer) -> None:
    """The next invalidation may come before anybody has noticed anything."""
    cache = new_cache(own_server.url, namespace=NAMESPACE)
    cache.set_many({"users:1": 1, "users:2": 2}, tags=["one"])
    cache.set("users:3", 3, tags=["three"])
    cache.invalidate_tags("three")
    own_server.command("ZREM", f"{{{NAMESPACE}}}~m", "t:three")
    cache.invalidate_tags("two")
    marks = own_server.command("ZRANGE", f"{{{NAMESPACE}}}~m", 0, -1)
    assert marks == [b"~clear", b"t:three", b"t:two"]
    stranger = new_cache(own_server.url, namespace=NAMESPACE)
    assert stranger.get_many(["users:1", "users:2", "users:3"]) == {"users:1": 1, "users:2": 2}


def test_marks_that_nobody_knows_completely_count_as_a_clear(new_cache: NewCache, own_server: RedisServer) -> None:
    cache = new_cache(own_server.url, namespace=NAMESPACE, near=None)
    cache.set("users:1", 1, tags=["one"])
    cache.invalidate_tags("two")
    cache._parts.core.view.known_from = cache._parts.core.view.last
    own_server.command("ZREM", f"{{{NAMESPACE}}}~m", "t:two")
    cache._parts.core.view.proven = 0.0
    assert cache.get("users:1") is None


@pytest.mark.parametrize("number", [1, 400, 2_800])
def test_however_many_marks_are_known_they_are_restored(
    new_cache: NewCache, own_server: RedisServer, number: int
) -> None:
    cache = new_cache(own_server.url, namespace=NAMESPACE)
    hears(cache)
    cache.set("users:1", 1)
    record, before = f"{{{NAMESPACE}}}~m", own_server.command("DUMP", f"{{{NAMESPACE}}}~m")
    for start in range(0, number, 400):
        cache.invalidate_tags(*(f"tag:{n}" for n in range(start, min(start + 400, number))))
    everything = marks(own_server)
    own_server.command("RESTORE", record, 0, before, "REPLACE")
    cache._parts.core.view.owe((" ",), False)
    assert cache.get_many(["users:1"]) == {"users:1": 1}
    restored = marks(own_server)
    assert restored.keys() == everything.keys()
    assert all(restored[member] > stamp or member == b"~clear" for member, stamp in everything.items())


def marks(server: RedisServer) -> dict[bytes, float]:
    """Return the members of the record of marks with their stamps."""
    members = server.command("ZRANGE", f"{{{NAMESPACE}}}~m", 0, -1, "WITHSCORES")
    return dict(zip(members[::2], map(float, members[1::2]), strict=True))


def restarted(server: RedisServer) -> None:
    """Restart from the snapshot that was saved last."""
    server.kill()
    server.start()


@pytest.mark.parametrize("on_reset", ["repeat", "clear"])
def test_after_a_restart_from_a_snapshot_everything_can_be_cleared(
    new_cache: NewCache, own_server: RedisServer, on_reset: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = new_cache(own_server.url, namespace=NAMESPACE, on_reset=on_reset, observers=None)
    hears(cache)
    cache.set("users:1", "kept")
    own_server.command("SAVE")
    with caplog.at_level(logging.WARNING, "nearcache"):
        restarted(own_server)
        told = "recent invalidations are repeated" if on_reset == "repeat" else "everything is invalidated"
        eventually(lambda: f"was reset; {told}" in caplog.text, "it is told")
        eventually(lambda: cache.health().coherent, "it is connected")
    assert cache.get("users:1") == ("kept" if on_reset == "repeat" else None)


def test_what_is_too_much_to_remember_becomes_a_clear(
    new_cache: NewCache, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MOST", 10)
    cache = new_cache(own_server.url, namespace=NAMESPACE)
    hears(cache)
    cache.set("users:1", "kept")
    own_server.command("SAVE")
    cache.delete_many(f"others:{number}" for number in range(11))
    restarted(own_server)
    eventually(lambda: cache.get("users:1") is None, "everything is invalid")


def test_a_connection_that_is_lost_is_no_reset(new_cache: NewCache, own_server: RedisServer) -> None:
    cache = new_cache(own_server.url, namespace=NAMESPACE)
    hears(cache)
    cache.delete("users:1")
    cache.set("users:1", "new")
    session = cache._parts.core.coherence._session
    own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
    eventually(lambda: cache._parts.core.coherence._session not in (None, session), "it is connected again")
    assert cache.get("users:1") == "new"


def test_an_engine_that_does_not_say_who_it_is_may_be_another(new_cache: NewCache, own_server: RedisServer) -> None:
    own_server.command("ACL", "SETUSER", "blind", "on", ">secret", "~*", "&*", "+@all", "-info")
    cache = new_cache(own_server.url.replace("//", "//blind:secret@"), namespace=NAMESPACE)
    hears(cache)
    cache.set("users:1", "old")
    cache.delete("users:1")
    own_server.command("SET", f"{NAMESPACE}:users:1", "what a replica had")
    own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
    eventually(lambda: not own_server.command("EXISTS", f"{NAMESPACE}:users:1"), "the deletion is repeated")


def test_marks_that_the_engine_refuses_to_restore_are_owed(new_cache: NewCache, own_server: RedisServer) -> None:
    cache = new_cache(own_server.url, namespace=NAMESPACE)
    hears(cache)
    cache.invalidate_tags("team")

    async def refuse(_: RedisMarks) -> None:
        raise ConnectionError

    view = cache._parts.core.view
    with broken(RedisMarks, "restore", refuse):
        cache._parts.core._forgot("valkey")
        with pytest.raises(ConnectionError):
            cache.get("users:1")
        assert view.owed
    cache.get("users:1")
    assert not view.owed
