"""Reads from replicas: what they may serve, and what only the primary is asked for."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from nearcache import AsyncCache, Cache, ConfigError, UnsupportedError, loading
from nearcache._core.clock import EngineTime
from nearcache.backends.base import Ask, Copied, Fill, Item, Replicas
from nearcache.backends.redis import build
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.testing import FakeClock
from tests.faces import Awaited
from tests.integration.redis.helpers import steps
from tests.proxy import Proxy, proxied
from tests.sentinel import Group
from tests.servers import HASTY, KINDS, Kind, RedisServer, redis_server

STALENESS = 1.0
WITHIN = 10.0


READS = ("cmdstat_get", "cmdstat_mget")


def reads(server: RedisServer) -> int:
    """Return how many commands have read records from a server."""
    stats = server.info("commandstats")
    return sum(int(stats[name].split("calls=")[1].split(",")[0]) for name in READS if name in stats)


def until(there: Callable[[], Any]) -> None:
    """Wait for something that is on its way."""
    deadline = time.monotonic() + WITHIN
    while not there():
        assert time.monotonic() < deadline, f"not within {WITHIN:g} s"
        time.sleep(0.002)


@dataclass
class Pair:
    """A primary, and a replica that hears it through a proxy."""

    primary: RedisServer
    replica: RedisServer
    between: Proxy

    @property
    def url(self) -> str:
        """The address of the primary, with the option."""
        return f"{self.primary.url}?read_from_replicas=yes"

    def follows(self) -> bool:
        """Tell whether the replica has all that the primary has."""
        here, there = self.primary.info("replication"), self.replica.info("replication")
        return (there["master_link_status"], there.get("slave_repl_offset")) == ("up", here["master_repl_offset"])

    def hold(self) -> None:
        """Have the replica stay as it is from now on; its link to the primary stays up."""
        until(self.follows)
        self.between.hold()


@pytest.fixture(scope="module", params=KINDS, name="pair")
def _pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    kind = request.param
    with (
        redis_server(kind, *HASTY) as primary,
        proxied(primary.port) as between,
        redis_server(kind, *HASTY, "--replicaof", f"127.0.0.1 {between.port}") as replica,
    ):
        pair = Pair(primary, replica, between)
        until(lambda: primary.info("replication").get("connected_slaves") == "1")
        until(pair.follows)
        yield pair


Made = Callable[..., Awaited]


@pytest.fixture(params=["sync", "async"], name="made")
def _made(request: pytest.FixtureRequest, pair: Pair) -> Iterator[Made]:
    """Makes caches of one flavour over the pair; near tiers are off unless asked for."""
    kind: Any = Cache if request.param == "sync" else AsyncCache
    pair.primary.flush()
    yield lambda **options: Awaited(kind(pair.url, **{"near": None, "staleness": STALENESS, **options}))
    pair.between.release()
    until(pair.follows)


async def proven(cache: Awaited, pair: Pair, clock: FakeClock | None = None) -> None:
    """Read until a read comes from the replica; time passes on the clock, if there is one."""
    await cache.set("warm:1", 1)
    deadline = time.monotonic() + WITHIN
    while True:
        before = reads(pair.replica)
        assert await cache.get("warm:1") == 1
        if reads(pair.replica) > before and await _is_from_replica(cache, pair):
            return
        assert time.monotonic() < deadline, "nothing is read from the replica"
        if clock is not None:
            clock.advance(STALENESS / 2 + 0.001)
        await asyncio.sleep(0.002)


async def _is_from_replica(cache: Awaited, pair: Pair) -> bool:
    before = reads(pair.primary)
    await cache.get("warm:1")
    return reads(pair.primary) == before


@pytest.fixture(name="other")
def _other(pair: Pair) -> Iterator[Cache]:
    """Another process's cache, without replicas."""
    with Cache(pair.primary.url, near=None) as cache:
        yield cache


# What comes from a replica


async def test_hits_come_from_the_replica_and_the_primary_is_asked_twice_a_budget(made: Made, pair: Pair):
    clock = FakeClock()
    cache = made(clock=clock)
    users = {f"users:{number}": number for number in range(10)}
    await cache.set_many(users)
    clock.advance(0.001)
    await proven(cache, pair, clock)
    asked, there, far = int(pair.primary.info()["total_commands_processed"]), reads(pair.primary), reads(pair.replica)
    for _ in range(20):
        assert await cache.get("users:1") == 1
        assert await cache.get_many(users) == users
    assert (reads(pair.primary) - there, reads(pair.replica) - far) == (0, 40)
    assert int(pair.primary.info()["total_commands_processed"]) - asked < 20, "no more than these questions of the test"
    clock.advance(STALENESS / 2 + 0.001)
    looks = _looks(pair.primary)
    for _ in range(5):
        await cache.get("users:1")
    assert _looks(pair.primary) - looks == 1 + 1, "one of the cache, one of this test"
    await cache.close()


def _looks(server: RedisServer) -> int:
    return int(server.info("commandstats")["cmdstat_info"].split("calls=")[1].split(",")[0])


async def test_what_the_replica_does_not_have_yet_is_read_from_the_primary(made: Made, pair: Pair, other: Cache):
    clock = FakeClock()
    cache = made(clock=clock)
    await proven(cache, pair, clock)
    pair.hold()
    other.set("users:1", "new")
    assert await cache.get("users:1") == "new"
    assert await cache.get_many(["warm:1", "users:1", "users:2"]) == {"warm:1": 1, "users:1": "new"}
    assert await cache.get_or_load("users:1", cache.loader(lambda: pytest.fail("loaded"))) == "new"
    await cache.close()


# What a replica must not tell


@pytest.mark.parametrize("change", ["delete", "set", "tag", "clear"])
async def test_a_replica_that_is_behind_is_not_read_for_longer_than_the_staleness(
    made: Made, pair: Pair, other: Cache, change: str
):
    clock = FakeClock()
    cache = made(clock=clock)
    await cache.set("users:1", "old", tags=["team:1"])
    clock.advance(0.001)
    await proven(cache, pair, clock)
    pair.hold()
    assert await cache.get("users:1") == "old"
    _make(other, change)
    assert await cache.get("users:1") == "old", "the replica does not know of it, which is what this test needs"
    for _ in range(3):
        clock.advance(STALENESS / 4)
        await cache.get("users:1")
    clock.advance(STALENESS / 4)
    assert await cache.get("users:1") == ("new" if change == "set" else None)
    await cache.close()


def _make(cache: Any, change: str) -> Any:
    match change:
        case "delete":
            return cache.delete("users:1")
        case "set":
            return cache.set("users:1", "new")
        case "tag":
            return cache.invalidate_tags("team:1")
        case _:
            return cache.clear()


@pytest.mark.parametrize("change", ["delete", "set", "tag", "clear", "touch", "incr", "add", "write_through"])
async def test_a_process_sees_its_own_changes_at_once(made: Made, pair: Pair, change: str):
    clock = FakeClock()
    cache = made(clock=clock)
    if change != "add":
        await cache.set("users:1", "old", tags=["team:1"])
        await cache.incr("users:2")
    clock.advance(0.001)
    await proven(cache, pair, clock)
    pair.hold()
    match change:
        case "touch":
            assert await cache.touch("users:1", 60)
            assert (await cache.get_entry("users:1")).ttl <= 60
        case "incr":
            assert await cache.incr("users:2") == 2
            assert await cache.get("users:2") == 2
        case "add":
            assert await cache.add("users:1", "new")
            assert await cache.get("users:1") == "new"
        case "write_through":
            await cache.write_through("users:1", "new", cache.loader(lambda value: None))
            assert await cache.get("users:1") == "new"
        case _:
            await _make(cache, change)
            assert await cache.get("users:1") == ("new" if change == "set" else None)
    await cache.close()


async def test_a_debt_that_was_paid_is_an_own_change(made: Made, pair: Pair):
    """The deletion is repeated on another connection, by whoever comes first."""
    clock = FakeClock()
    cache = made(clock=clock, timeout=0.2)
    await cache.set("users:1", "old")
    clock.advance(0.001)
    await proven(cache, pair, clock)
    pair.hold()
    pair.primary.pause()
    try:
        assert not await cache.delete("users:1")
    finally:
        pair.primary.resume()
    clock.advance(0.01)  # not yet the time at which a proof is too old
    until_paid = time.monotonic() + WITHIN
    while (await cache.health()).queued:
        assert time.monotonic() < until_paid
        clock.advance(0.001)
    assert await cache.get("users:1") is None
    await cache.close()


async def test_who_has_read_at_the_primary_reads_nothing_older(made: Made, pair: Pair, other: Cache):
    clock = FakeClock()
    cache = made(clock=clock)
    other.set("users:1", "old")
    other.set("users:2", "old")
    await proven(cache, pair, clock)
    pair.hold()
    for key in ("users:1", "users:2"):
        assert await cache.get(key) == "old"
        other.set(key, "new")
        assert await cache.get(key) == "old", "the replica does not know of it, which is what this test needs"
    assert await cache.exists("users:1")
    assert await cache.get("users:1") == "new"
    assert await cache.get_many(["users:1", "users:2", "warm:1"]) == {"users:1": "new", "users:2": "old", "warm:1": 1}
    await cache.close()


async def test_near_values_from_a_replica_live_no_longer_than_the_staleness(made: Made, pair: Pair, other: Cache):
    """Their change may have been announced before they were read."""
    cache, seen, deadline = made(near=100), list[float](), time.monotonic() + 3 * WITHIN
    while not seen:  # a machine that stood still for long enough reads nothing from the replica
        assert time.monotonic() < deadline, "the replica has told nothing old"
        pair.between.release()
        other.set("users:1", "old")
        await _coherent(cache)
        await _proven_near(cache, pair, other)
        pair.hold()
        other.delete("users:1")
        deleted = time.monotonic()
        while (began := time.monotonic()) < deleted + 2 * STALENESS:
            if await cache.get("users:1") == "old":
                seen.append(began - deleted)
    assert max(seen) <= STALENESS
    await cache.close()


async def _proven_near(cache: Awaited, pair: Pair, other: Cache) -> None:
    """Read what is not near until it comes from the replica."""
    deadline = time.monotonic() + WITHIN
    for number in range(1_000_000):
        key, before = f"warm:{number}", reads(pair.primary)
        other.set(key, 1)
        until(pair.follows)
        await cache.get(key)
        if reads(pair.primary) == before:
            return
        assert time.monotonic() < deadline, "nothing is read from the replica"


async def _coherent(cache: Awaited) -> None:
    deadline = time.monotonic() + WITHIN
    while not (await cache.health()).coherent:
        await cache.get("users:1")
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_under_load_no_read_is_older_than_the_staleness(made: Made, pair: Pair, other: Cache):
    """A replica that is held up again and again, one that writes, and readers with and without a near tier."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    caches, read = [made(), made(near=100)], list[tuple[float, int]]()
    with _written(other, pair, random.Random(seed)) as written:
        end = time.monotonic() + 10.0
        while (began := time.monotonic()) < end:
            for cache in caches:
                read.append((began, await cache.get("numbers:1")))
            await asyncio.sleep(0)
    for cache in caches:
        await cache.close()
    late = _late(read, written)
    assert not late, f"{len(late)} of {len(read)} reads are too old, the first by {late[0]:.3f} s"
    assert reads(pair.replica) > 100


@contextmanager
def _written(cache: Cache, pair: Pair, draw: random.Random) -> Iterator[list[tuple[float, int]]]:
    """Write a number after the other; yield which was written when. The replica is behind again and again."""
    cache.set("numbers:1", 0)
    ended, written = threading.Event(), [(time.monotonic(), 0)]

    def write() -> None:
        while not ended.wait(0.005):
            cache.set("numbers:1", len(written))
            written.append((time.monotonic(), len(written)))

    def hold_up() -> None:
        while not ended.wait(draw.uniform(0.0, 2.0)):
            pair.between.hold()
            ended.wait(draw.uniform(0.0, 2.0))
            pair.between.release()

    threads = [threading.Thread(target=each) for each in (write, hold_up)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _late(read: list[tuple[float, int]], written: list[tuple[float, int]]) -> list[float]:
    """Return by how much reads were older than the staleness: the number after theirs was written so long before."""
    when = {number: at for at, number in written}
    ages = [began - when[number + 1] for began, number in read if number + 1 in when]
    return [age - STALENESS for age in ages if age > STALENESS]


async def test_no_value_is_judged_by_marks_that_are_older_than_the_staleness(made: Made, pair: Pair, other: Cache):
    clock = FakeClock()
    cache = made(clock=clock, timeout=0.2)
    await cache.set("users:1", "old", tags=["team:1"])
    clock.advance(0.001)
    await proven(cache, pair, clock)
    clock.advance(STALENESS * 0.3)
    await cache.set("users:2", 1)  # asks for the marks, so that the next question to the primary does not
    other.invalidate_tags("team:1")
    clock.advance(STALENESS * 0.201)
    assert await cache.get("users:1") == "old", "nobody has asked for the marks, which is what this test needs"
    clock.advance(STALENESS * 0.501)
    pair.primary.pause()
    try:
        assert await cache.get("users:1") is None
        clock.advance(STALENESS * 0.3)
        assert await cache.get("users:1") is None
    finally:
        pair.primary.resume()
    await cache.close()


@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_what_a_load_has_stored_is_an_own_change(pair: Pair, flavour: Flavour):
    clock, key = FakeClock(), f"users:{random.randrange(10**9)}"
    backend = build(BackendSpec(pair.url, "app", time=EngineTime(clock)), flavour)
    replicas = backend.replicas
    assert replicas is not None
    await backend.leases.acquire([Ask(key, "token", b"", 5.0)])
    deadline = time.monotonic() + WITHIN
    while (copied := await _read(replicas, [key])) is None or key not in copied.records:
        assert time.monotonic() < deadline, "nothing is read from the replica"
        clock.advance(0.501)
        until(pair.follows)
    pair.hold()
    assert await backend.leases.fill([Fill(Item(key, b"x" * 64, 60.0), "token", b"")]) == [True]
    assert key not in (await _read(replicas, [key]) or Copied({}, 0.0)).records
    pair.between.release()
    await backend.close()


@pytest.mark.parametrize("stored", [True, False])
def test_nothing_is_read_that_is_older_than_what_was_loaded(pair: Pair, other: Cache, stored: bool):
    """While it is loaded, others store and delete the value, and the replica does not hear of the deletion."""
    pair.primary.flush()
    clock = FakeClock()
    cache = Cache(pair.url, near=None, staleness=STALENESS, clock=clock)
    cache.set("warm:1", 1)

    def load() -> str:
        if not stored:
            loading().do_not_store()
        other.set("users:1", "older")
        deadline, before = time.monotonic() + WITHIN, reads(pair.replica)
        while reads(pair.replica) < before + 3:
            assert time.monotonic() < deadline, "nothing is read from the replica"
            until(pair.follows)
            clock.advance(STALENESS / 2 + 0.001)
            assert cache.get("warm:1") == 1
        pair.hold()
        other.delete("users:1")
        return "newer"

    assert cache.get_or_load("users:1", load) == "newer"
    assert cache.get("users:1") is None
    pair.between.release()
    cache.close()


async def _read(replicas: Replicas, keys: list[str]) -> Copied | None:
    if replicas.due():
        await replicas.look()
    return await replicas.read(keys)


async def test_who_asks_together_is_answered_together(pair: Pair):
    pair.between.release()
    clock = FakeClock()
    cache = AsyncCache(pair.url, near=None, staleness=STALENESS, clock=clock)
    await proven(Awaited(cache), pair, clock)
    clock.advance(STALENESS * 0.4)

    async def load() -> int:
        pytest.fail("loaded")

    before = reads(pair.replica)
    assert await asyncio.gather(*(cache.get_or_load("warm:1", load) for _ in range(50))) == [1] * 50
    assert reads(pair.replica) - before == 1
    await cache.aclose()


# Replicas and primaries that do not answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flavour", [Cache, AsyncCache])
async def test_a_replica_that_was_restarted_with_older_data_is_not_believed(kind: Kind, flavour: Any):
    """It has them from its disk; its primary cannot be reached."""
    clock = FakeClock()
    with (
        redis_server(kind, "--repl-diskless-sync-delay", "0") as primary,
        proxied(primary.port) as between,
        redis_server(kind, "--replicaof", f"127.0.0.1 {between.port}") as replica,
    ):
        pair = Pair(primary, replica, between)
        until(pair.follows)
        cache = Awaited(flavour(pair.url, near=None, staleness=STALENESS, clock=clock))
        await cache.set("users:1", "old")
        until(pair.follows)
        replica.command("SAVE")
        await cache.set("users:1", "new")
        clock.advance(0.001)
        await proven(cache, pair, clock)
        before = reads(replica)
        assert await cache.get("users:1") == "new"
        assert reads(replica) == before + 1, "it comes from the replica, which this test needs"
        pair.hold()
        replica.kill()
        replica.start()
        await steps(10)  # in which a loop notices that its connection has ended
        for _ in range(3):
            assert await cache.get("users:1") == "new"
        await cache.close()


@pytest.mark.alone
async def test_a_silent_primary_costs_the_time_of_one_call(made: Made, pair: Pair):
    clock = FakeClock()
    cache = made(clock=clock, timeout=0.5)
    await proven(cache, pair, clock)
    clock.advance(STALENESS / 2 + 0.001)
    pair.primary.pause()
    try:
        began = time.monotonic()
        assert await cache.get_many(["warm:1", "users:1"]) == {}
        assert time.monotonic() - began < 1.5 * 0.5
    finally:
        pair.primary.resume()
    await cache.close()


@pytest.mark.alone
async def test_a_replica_that_does_not_answer_costs_a_tenth_of_the_time_and_is_spared(made: Made, pair: Pair):
    clock = FakeClock()
    cache = made(clock=clock, timeout=5.0)
    await cache.set("users:1", 1)
    clock.advance(0.001)
    await proven(cache, pair, clock)
    pair.replica.pause()
    try:
        began = time.monotonic()
        for _ in range(20):
            assert await cache.get("users:1") == 1
        assert time.monotonic() - began < 2 * 0.1 * 5.0, "one wait of a tenth of the time"
    finally:
        pair.replica.resume()
    await proven(cache, pair, clock)
    await cache.close()


async def test_a_replica_whose_primary_is_silent_is_believed_for_the_staleness_only(made: Made, pair: Pair):
    clock = FakeClock()
    cache = made(clock=clock, timeout=0.2)
    await cache.set("users:1", 1)
    clock.advance(0.001)
    await proven(cache, pair, clock)
    pair.primary.pause()
    try:
        assert await cache.get("users:1") == 1
        clock.advance(STALENESS + 0.001)
        assert await cache.get("users:1") is None
        assert not (await cache.health()).engine
    finally:
        pair.primary.resume()
    clock.advance(10.0)  # it is asked again
    assert await cache.get("users:1") == 1
    await cache.close()


async def test_a_replica_with_another_history_is_not_read(made: Made, pair: Pair):
    clock = FakeClock()
    cache = made(clock=clock)
    await proven(cache, pair, clock)
    pair.replica.command("REPLICAOF", "NO", "ONE")
    try:
        clock.advance(STALENESS / 2 + 0.001)
        pair.replica.command("SET", "app:warm:1", b"not what the primary has")
        assert await cache.get("warm:1") == 1
        until(lambda: pair.primary.info("replication")["connected_slaves"] == "0")
        before = reads(pair.replica)
        for _ in range(5):
            clock.advance(STALENESS / 2 + 0.001)
            assert await cache.get("warm:1") == 1
        assert reads(pair.replica) == before, "whoever is no replica is not asked while it is not in the list"
    finally:
        pair.replica.command("REPLICAOF", "127.0.0.1", str(pair.between.port))
        until(pair.follows)
    await cache.close()


# Users and URLs


@pytest.fixture(name="users")
def _users(pair: Pair) -> Iterator[None]:
    """A user on both servers, and one who may not ask them about themselves."""
    for server in (pair.primary, pair.replica):
        server.command("ACL", "SETUSER", "cache", "on", ">s:e/cret", "~*", "&*", "+@all")
        server.command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-info")
    yield
    for server in (pair.primary, pair.replica):
        server.command("ACL", "DELUSER", "cache", "mute")


@pytest.mark.usefixtures("users")
async def test_login_and_database_are_those_of_the_primary(made: Made, pair: Pair):
    clock = FakeClock()
    kind = type(made().cache)
    url = f"redis://cache:s%3Ae%2Fcret@127.0.0.1:{pair.primary.port}/3?read_from_replicas=yes"
    cache = Awaited(kind(url, near=None, staleness=STALENESS, clock=clock))
    await proven(cache, pair, clock)
    await cache.close()


@pytest.mark.usefixtures("users")
async def test_without_the_right_to_ask_everything_is_read_at_the_primary(
    made: Made, pair: Pair, caplog: pytest.LogCaptureFixture
):
    clock = FakeClock()
    kind = type(made().cache)
    url = f"redis://mute:secret@127.0.0.1:{pair.primary.port}/0?read_from_replicas=yes"
    cache = Awaited(kind(url, near=None, staleness=STALENESS, clock=clock))
    await cache.set("users:1", 1)
    before = reads(pair.replica)
    for _ in range(5):
        clock.advance(STALENESS / 2 + 0.001)
        assert await cache.get("users:1") == 1
    assert reads(pair.replica) == before
    assert "INFO replication" not in caplog.text
    await cache.close()


@pytest.mark.parametrize("kind", [Cache, AsyncCache])
async def test_replicas_behind_sentinels_are_read(watched: Group, kind: Any):
    cache = Awaited(kind(f"{watched.url}?read_from_replicas=true", namespace=f"r{random.randrange(10**9)}", near=None))
    replica = next(server for server in watched.servers if server is not watched.primary())
    await cache.set("users:1", 1)
    before, deadline = reads(replica), time.monotonic() + WITHIN
    while reads(replica) < before + 5:
        assert await cache.get("users:1") == 1
        assert time.monotonic() < deadline
    await cache.close()


@pytest.mark.parametrize(
    ("url", "options", "error", "says"),
    [
        (
            "redis://h?read_from_replicas=perhaps",
            {},
            ConfigError,
            "read_from_replicas= is 'perhaps'; it may be yes or no",
        ),
        (
            "redis://h?read_from_replicas=yes",
            {"codec": "json"},
            UnsupportedError,
            "codec='json' cannot read from replicas",
        ),
        (
            "redis+cluster://h?read_from_replicas=yes",
            {},
            UnsupportedError,
            "engines that can: redis, rediss, redis.sentinel",
        ),
        ("unix:///s?read_from_replicas=yes", {}, UnsupportedError, "unix:// cannot read from replicas"),
    ],
)
def test_where_replicas_cannot_be_read_is_told_at_once(url: str, options: Any, error: Any, says: str):
    with pytest.raises(error, match=says):
        Cache(url.format("read_from_replicas"), **options)


@pytest.mark.parametrize("answer", ["no", "false", "0"])
def test_the_option_may_say_no(answer: str):
    Cache(f"redis://h:1/0?read_from_replicas={answer}&client_name=x")
