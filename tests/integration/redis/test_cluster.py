"""A cluster: every key at its node, slots that move while they are used, primaries that appear and go."""

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest

from nearcache import MISS, Cache, Queued
from nearcache._core.outage import Outage
from nearcache._engine.commands import DEBTS_AT_ONCE
from nearcache._io.blocking import drive
from nearcache.backends.base import Ask, Facts, Fill, Item, NotServing
from nearcache.backends.redis import RedisBackend
from nearcache.backends.redis import errors as redis_errors
from nearcache.backends.redis import leases as redis_leases
from nearcache.backends.redis.bus import Bus
from nearcache.backends.redis.cluster import BlockingCluster, ClusterLink
from nearcache.backends.redis.errors import InPart, code_of
from nearcache.backends.redis.listeners import NodeTracking
from nearcache.backends.redis.names import lease_of, marks_of, waiters_of
from nearcache.backends.redis.slots import SLOTS, joined, key_of, slot_of, split
from nearcache.backends.redis.tooling import ClusterAdmin
from nearcache.backends.redis.topology import Topology
from nearcache.backends.registry import Flavour
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError, ConfigError
from tests.cluster import Cluster
from tests.cluster import cluster as a_cluster
from tests.faults.calls import face
from tests.frames import frames_of
from tests.integration.redis.conftest import NewCache
from tests.integration.redis.helpers import eventually, fake_server, made
from tests.promises.helpers import SignalAt, broken, interrupted, noticed, noticed_within
from tests.servers import KINDS, Kind, RedisServer

Lost = Callable[[RedisServer], AbstractContextManager[None]]
"""A way to lose a node for a block."""


@pytest.fixture
async def backend(cluster: Cluster, flavour: Flavour, namespace: str) -> Any:
    """A backend that knows where everything is."""
    backend = made(cluster.url, flavour, namespace)
    await backend.open()
    yield backend
    await backend.close()


# Slots


@pytest.mark.parametrize(
    "name", ["app:users:1", "{app:users:1}~l", "{app}~m", "a{}b", "a{b", "{}{x}", "{{x}}", "ü:{ü}"]
)
def test_a_slot_is_the_one_that_the_engine_takes(cluster: Cluster, name: str):
    assert slot_of(name) == cluster.slot(name)


def test_commands_about_several_keys_are_split_and_their_answers_joined():
    assert split(("MGET", "a", "b")) == [("GET", "a"), ("GET", "b")]
    assert split(("DEL", "a", "b")) == [("DEL", "a"), ("DEL", "b")]
    assert split(("SET", "a", "b")) == [("SET", "a", "b")]
    wrong, refused = Exception("WRONGTYPE no string"), Exception("NOPERM")
    assert joined(("MGET", "a", "b", "c"), [b"1", None, wrong]) == [b"1", None, None]
    for command, replies in ((("MGET", "a", "b"), [b"1", refused]), (("DEL", "a", "b"), [refused, 1])):
        told = joined(command, replies)
        assert isinstance(told, InPart)
        assert (told.replies, code_of(told)) == (replies, "NOPERM")
    assert joined(("DEL", "a", "b"), [1, 1]) == 2
    assert joined(("DEL", "a", "b"), [1, b"nonsense"]) == b"nonsense"
    assert joined(("DEL", "a"), [refused]) is refused
    assert joined(("TIME",), [wrong]) is wrong


def test_the_key_of_a_command_is_found():
    assert key_of(("GET", "k")) == "k"
    assert key_of(("EVALSHA", "sha", "2", "k", "l", "argument")) == "k"
    assert key_of(("TIME",)) is None


# URLs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://", "some nodes of a cluster"),
        ("redis+cluster://:secret@h1/3", "no database"),
        ("redis+cluster://:secret@h1:port", "the port"),
        ("redis+cluster://:secret@h1?nosuch=secret", "no option nosuch"),
        ("redis+cluster://:secret@h1?max_connections=3", "CACHE_POOL_MAX_SIZE"),
    ],
)
def test_a_wrong_url_is_named_and_without_credentials(url: str, said: str):
    with pytest.raises(ConfigError, match="CACHE_URL") as raised:
        Cache(url)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"*0\r\n", "knows of no slots"),
        (b"+OK\r\n", "does not answer as a node of a cluster does"),
        (b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\nh\r\n$1\r\nx\r\n", "does not answer as a node of a cluster does"),
        (b"-ERR This instance has cluster support disabled\r\n", "cluster support disabled"),
    ],
)
async def test_what_is_wrong_with_the_nodes_is_told(answer: bytes, said: str, flavour: Flavour, namespace: str):
    with fake_server(lambda command: answer) as wrong:
        url = f"redis+cluster://{wrong.url.removeprefix('redis://').removesuffix('/0')}"
        backend = made(url, flavour, namespace)
        with pytest.raises(BackendUnavailableError, match="no node tells the slots of the cluster") as raised:
            await backend.get("a:1")
        assert said in str(raised.value)
        await backend.close()


def test_a_node_without_a_name_is_where_the_answer_came_from():
    topology = Topology("redis+cluster://h1:7,h2:7", 1.0, lambda: None)
    topology.take([[0, SLOTS - 1, [b"", 9, b"id"]]], "h3")
    assert [node.endpoint.where for node in topology.primaries] == ["h3:9"]
    topology.take([[0, 99, [b"::1", 9]], [100, SLOTS - 1, [None, 9]]], "h4")
    assert {node.endpoint.where for node in topology.primaries} == {"::1:9", "h4:9"}


def test_who_keeps_a_slot_that_nobody_is_known_to_keep_is_asked_of_a_node_that_answers():
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: None)
    with pytest.raises(BackendUnavailableError, match="no node of the cluster is known"):
        topology.owner("app:users:1")
    topology.take([[0, 0, [b"h1", 9]], [1, 1, [b"h2", 9]]], "h")
    assert topology.owner("app:users:1").endpoint.where == "h1:9"
    topology.owner("app:users:1").outage = Outage(0.0, "", 1.0)
    assert topology.owner("app:users:1").endpoint.where == "h2:9"


def test_a_node_is_asked_for_a_key_of_its_own_if_it_keeps_but_one_slot():
    namespace, slot = "tb8fe9e16093b", 11_163  # the first name of a heartbeat in this slot is the 101,225th
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: None)
    topology.take([[0, slot - 1, [b"h1", 7]], [slot, slot, [b"h2", 7]], [slot + 1, SLOTS - 1, [b"h1", 7]]], "h")
    node = next(node for node in topology.primaries if node.endpoint.host == "h2")
    carrier: Any = NodeTracking(namespace, cast(Any, None), node, topology)
    assert [slot_of(key) for _, key in carrier.questions()[1:]] == [slot]
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h")
    assert [slot_of(key) for _, key in carrier.questions()[1:]] == [slot], "it keeps nothing any more"


def test_a_node_that_does_not_answer_is_asked_for_the_slots_last():
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: None)
    topology.take([[0, 0, [b"h1", 7]], [1, 1, [b"h2", 7]], [2, 2, [b"h3", 7]]], "h")
    silent_one = next(node for node in topology.primaries if node.endpoint.host == "h2")
    silent_one.outage = Outage(0.0, "", 1.0)
    turns = [topology._next() for _ in range(6)]
    assert all(turn[2] is silent_one for turn in turns)
    assert {turn[0].endpoint.host for turn in turns} == {"h1", "h3"}


# Where commands go


async def test_a_batch_is_one_trip_to_each_node(cluster: Cluster, backend: RedisBackend, monkeypatch: Any):
    keys = [f"users:{number}" for number in range(60)]
    await backend.set_many([Item(key, key.encode(), 60.0) for key in keys])
    link: Any = backend._link
    sent = list[int]()
    send = link._spread.send

    def counted(calls: Any, until: float) -> Awaitable[Any]:
        sent.append(len(calls))
        result: Awaitable[Any] = send(calls, until)
        return result

    monkeypatch.setattr(link._spread, "send", counted)
    assert await backend.get_many(keys) == [key.encode() for key in keys]
    assert await backend.delete(keys) == len(keys)
    assert sent == [3, 3]
    assert await backend.get_many(keys) == [None] * len(keys)


async def test_a_value_of_another_kind_reads_as_absent(cluster: Cluster, backend: RedisBackend, namespace: str):
    name = f"{namespace}:list:1"
    cluster.owner(name).command("RPUSH", name, "x")
    assert await backend.get_many(["list:1", "none:1"]) == [None, None]


async def test_keys_of_all_nodes_are_listed(backend: RedisBackend):
    keys = {f"users:{number}" for number in range(1_500)}
    await backend.set_many([Item(key, b"x", 60.0) for key in keys])
    assert backend.scan is not None
    found, cursor, pages = list[str](), "", 0
    while pages == 0 or cursor:
        cursor, some = await backend.scan.page(cursor, "users:")
        found, pages = [*found, *some], pages + 1
    assert set(found) == keys
    assert pages > 3
    assert await backend.scan.page("~ 0", "users:") == ("", []), "the node of the cursor is gone, and none comes after"


async def test_facts_are_sums(cluster: Cluster, backend: RedisBackend):
    assert backend.admin is not None
    facts = await backend.admin.facts()
    assert facts.used_bytes is not None
    assert facts.used_bytes > 3_000_000
    assert (facts.limit_bytes, facts.policy, facts.evictions) == (None, "noeviction", 0)
    assert facts.version == cluster.nodes[0].info("server")["redis_version"]


# Slots that move


async def steps(backend: RedisBackend, key: str) -> list[Any]:
    """Do everything that can be done to a key."""
    item = Item(key, b"\x01" * 40, 60.0)
    await backend.set(item)
    found: list[Any] = [await backend.get(key), await backend.get_many([key, "other:1"])]
    found += [await backend.touch(key, 60.0, b"", b""), (await backend.remaining([key]))[0] is not None]
    found += [await backend.delete([key]), await backend.add(item, b""), await backend.delete([key])]
    (grant,) = await backend.leases.acquire([Ask(key, "t", b"", 5.0)])
    found += [grant.leads, await backend.leases.fill([Fill(item, "t", b"")]), await backend.get(key)]
    return [*found, await backend.delete([key])]


def expected(key: str) -> list[Any]:
    """Return what `steps` should find."""
    raw = b"\x01" * 40
    return [raw, [raw, None], True, True, 1, True, 1, True, [True], raw, 1]


async def test_a_slot_that_has_moved_is_followed(cluster: Cluster, backend: RedisBackend, namespace: str):
    name = f"{namespace}:users:1"
    source = cluster.owner(name)
    for target in (*cluster.others(source), source):
        cluster.move(name, target)
        assert await steps(backend, "users:1") == expected("users:1")


async def test_a_slot_that_moves_is_used_as_before_where_its_keys_are_new(
    cluster: Cluster, backend: RedisBackend, namespace: str
):
    name = f"{namespace}:users:1"
    source = cluster.owner(name)
    try:
        with cluster.moving(name, cluster.others(source)[0]):
            item = Item("users:1", b"\x01" * 40, 60.0)
            await backend.set(item)
            assert await backend.get("users:1") == item.raw
            assert await backend.delete(["users:1"]) == 1
            assert await backend.get("users:1") is None
    finally:
        cluster.move(name, source)


async def test_the_lease_goes_before_the_record_where_they_are_on_two_nodes(
    cluster: Cluster, backend: RedisBackend, namespace: str
):
    """Else what was loaded before could be stored between the two."""
    name = f"{namespace}:users:1"
    source = cluster.owner(name)
    target = cluster.others(source)[0]
    try:
        await backend.set(Item("users:1", b"old", 60.0))
        (grant,) = await backend.leases.acquire([Ask("users:1", "t", backend.leases.identity(b"old"), 60.0)])
        assert grant.leads
        with cluster.moving(name, target) as carry:
            carry(lease_of(name))
            assert await backend.delete(["users:1"]) == 1
        assert target.command("EXISTS", name, lease_of(name), waiters_of(name)) == 0
    finally:
        cluster.move(name, source)


async def test_a_script_whose_keys_are_on_two_nodes_is_refused_after_a_while(
    cluster: Cluster, backend: RedisBackend, namespace: str
):
    name = f"{namespace}:users:1"
    source = cluster.owner(name)
    try:
        await backend.set(Item("users:1", b"old", 60.0))
        await backend.leases.acquire([Ask("users:1", "t", backend.leases.identity(b"old"), 60.0)])
        with cluster.moving(name, cluster.others(source)[0]) as carry:
            carry(lease_of(name))
            with pytest.raises(BackendUnavailableError, match="TRYAGAIN"):
                await backend.leases.fill([Fill(Item("users:1", b"new", 60.0), "t", backend.leases.identity(b"old"))])
            assert await backend.get("users:1") == b"old"
    finally:
        cluster.move(name, source)


def test_a_script_is_sent_again_until_its_keys_are_together(cluster: Cluster, namespace: str):
    backend, name = made(cluster.url, "sync", namespace), f"{namespace}:users:1"
    source, pauses = cluster.owner(name), list[float]()
    try:
        drive(backend.set(Item("users:1", b"old", 60.0)))
        drive(backend.leases.acquire([Ask("users:1", "t", backend.leases.identity(b"old"), 60.0)]))
        with cluster.moving(name, cluster.others(source)[0]) as carry:
            carry(lease_of(name))

            async def pause(_link: object, seconds: float) -> None:
                pauses.append(seconds)
                carry(name)

            with broken(BlockingCluster, "_pause", pause):
                assert not drive(backend.add(Item("users:1", b"new", 60.0), b""))
        assert len(pauses) == 1
        assert drive(backend.get("users:1")) == b"old"
    finally:
        cluster.move(name, source)
        drive(backend.close())


def test_traffic_goes_on_while_a_slot_moves_to_and_fro(cluster: Cluster, new_cache: NewCache, namespace: str):
    one, other = new_cache(cluster.url), new_cache(cluster.url)
    name, key = f"{namespace}:users:1", "users:1"
    source = cluster.owner(name)

    async def by_a_task(number: int) -> None:
        await other.aio.set(key, number)
        assert await other.aio.get(key) == number

    for number, target in enumerate([*cluster.others(source), source] * 3):
        with cluster.moving(name, target):
            one.set(key, -number)
            assert one.get(key) == -number
            asyncio.run(by_a_task(number))
            eventually(functools.partial(_reads, one, key, number), "it hears of the change")
            other.delete(key)
        eventually(lambda: one.get(key) is None, "it hears of the deletion")
        assert one.get_or_load(key, functools.partial(int, 1000 + number)) == 1000 + number
        assert one.delete(key)
    asyncio.run(one.aio.aclose())
    asyncio.run(other.aio.aclose())


# Near values


def coherent(*caches: Cache) -> None:
    """Wait until these caches hear of every change."""
    for cache in caches:
        cache.set("warm:1", 1)
        eventually(functools.partial(_hears, cache), "it hears of changes")


def _reads(cache: Cache, key: str, value: object) -> bool:
    return bool(cache.get(key) == value)


def _hears(cache: Cache) -> bool | None:
    return cache.health().coherent


@pytest.mark.parametrize("bus", ["tracking", "stream"])
def test_changes_on_every_node_are_heard(cluster: Cluster, new_cache: NewCache, bus: str):
    one, other = new_cache(cluster.url, bus=bus), new_cache(cluster.url, bus=bus)
    keys = [f"users:{number}" for number in range(12)]
    one.set_many(dict.fromkeys(keys, "old"))
    coherent(one, other)
    assert other.get_many(keys) == one.get_many(keys) == dict.fromkeys(keys, "old")
    for key in keys:
        one.set(key, "new")
    eventually(lambda: other.get_many(keys) == dict.fromkeys(keys, "new"), "it is told")
    near = other.stats().near_hits
    assert other.get_many(keys) == dict.fromkeys(keys, "new")
    assert other.stats().near_hits == near + len(keys)


def test_an_announcement_in_the_stream_comes_after_the_change(cluster: Cluster, namespace: str, monkeypatch: Any):
    """The stream is on one node, and the key may be on another one."""
    backend = made(cluster.url, "sync", namespace, bus="stream")
    stream = f"{{{namespace}}}~b"
    keys = [f"users:{number}" for number in range(30)]
    (key, *_) = [key for key in keys if cluster.owner(f"{namespace}:{key}") is not cluster.owner(stream)]
    order, link = list[set[str]](), cast(Any, backend._link)
    execute = link.execute

    def noted(*commands: Any) -> Any:
        order.append({str(command[0]) for command in commands} - {"ZREVRANGEBYSCORE", "TIME"})
        return execute(*commands)

    monkeypatch.setattr(link, "execute", noted)
    drive(backend.delete([key]))
    drive(backend.delete([key]))
    assert order[-2:] == [{"DEL"}, {"EVALSHA"}]
    drive(backend.close())


@pytest.mark.slow
def test_a_node_that_is_not_heard_stops_near_hits(new_cache: NewCache, namespace: str):
    with a_cluster() as own:
        cache = new_cache(own.url, staleness=0.3)
        keys = [f"users:{number}" for number in range(12)]
        cache.set_many(dict.fromkeys(keys, 1))
        coherent(cache)
        cache.get_many(keys)
        lost = own.owner(f"{namespace}:users:1")
        lost.kill()
        eventually(lambda: cache.health().coherent is False, "it is noticed")
        assert not cache.health().coherent
        lost.start()
        eventually(lambda: _answers(cache), "the node is back")
        coherent(cache)


def _answers(cache: Cache) -> bool:
    with contextlib.suppress(BackendError):
        cache.set("users:1", 2)
        return True
    return False


@pytest.mark.slow
def test_what_a_stranger_to_the_cluster_serves_is_not_kept_near(new_cache: NewCache, namespace: str):
    """A primary without a slot is not listened to: what it is given while a slot moves there changes unheard."""
    with a_cluster(spare=1) as own:
        cache, other = new_cache(own.url, staleness=30), new_cache(own.url)
        cache.set("users:1", "old")
        coherent(cache)
        name = f"{namespace}:users:1"
        with own.moving(name, own.nodes[3]) as carry:
            carry(name)
            for _ in range(3):
                assert cache.get("users:1") == "old"
            assert cache._parts.core.near.lookup("users:1") is MISS
            other.set("users:1", "new")
            assert cache.get("users:1") == "new"
        eventually(lambda: cache.get("users:1") and cache.health().coherent, "the new primary is heard")
        other.set("users:1", "newest")
        eventually(lambda: cache.get("users:1") == "newest", "it is told")


@pytest.mark.slow
def test_where_it_is_kept_near_all_the_same_old_values_are_served(new_cache: NewCache, namespace: str):
    with noticed(), broken(ClusterLink, "_not_near", lambda *_: None):
        test_what_a_stranger_to_the_cluster_serves_is_not_kept_near(new_cache, namespace)


@pytest.mark.parametrize("bus", ["tracking", "stream"])
def test_marks_that_move_are_found(cluster: Cluster, new_cache: NewCache, namespace: str, bus: str):
    one, other = new_cache(cluster.url, bus=bus), new_cache(cluster.url, bus=bus)
    source = cluster.owner(marks_of(namespace))
    for target in (*cluster.others(source), source):
        one.set("users:1", "old", tags=["staff"])
        coherent(one, other)
        assert other.get("users:1") == "old"
        cluster.move(marks_of(namespace), target)
        one.invalidate_tags("staff")
        eventually(lambda: other.get("users:1") is None, "it hears of the mark")
        assert other.get_or_load("users:1", lambda: "new", tags=["staff"]) == "new"
    coherent(one, other)


# Primaries that go


@pytest.mark.alone
async def test_a_node_that_is_silent_costs_a_call_its_time_and_others_none(flavour: Flavour, namespace: str):
    with a_cluster() as own:
        backend = made(own.url, flavour, namespace, timeout=0.5)
        await backend.open()
        silent = own.owner(f"{namespace}:users:1")
        keys = [f"users:{number}" for number in range(30)]
        heard = [key for key in keys if own.owner(f"{namespace}:{key}") is not silent]
        backend.view.fixed = True  # else the marks are asked for, and they may be on the silent node
        silent.pause()
        try:
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(BackendError):
                    await backend.get_many(keys)
                assert time.monotonic() - began < 1.0
                began = time.monotonic()
                assert await backend.get_many(heard) == [None] * len(heard)
                assert time.monotonic() - began < 0.5
        finally:
            silent.resume()
        await backend.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_primary_that_was_killed_is_replaced(kind: Kind, new_cache: NewCache, namespace: str):
    with a_cluster(kind, replicas=1) as own:
        one, other = new_cache(own.url), new_cache(own.url)
        one.set_many({f"users:{number}": "old" for number in range(30)})
        coherent(one, other)
        victim = own.owner(f"{namespace}:users:1")
        elsewhere = next(key for key in range(3, 30) if own.owner(f"{namespace}:users:{key}") is not victim)
        one.delete("users:2")
        victim.kill()
        began, failed = time.monotonic(), 0
        while time.monotonic() < began + 30.0:
            assert other.get_or_load(f"users:{elsewhere}", lambda: "old") == "old", "reads do not fail"
            assert other.get_or_load("users:1", lambda: "new") in ("old", "new"), "reads do not fail"
            try:
                one.set("users:1", "new")
                break
            except BackendError:
                failed += 1
                time.sleep(0.02)
        print(f"{kind}: writes worked {time.monotonic() - began:.1f} s after the primary was killed; {failed} failed")
        assert own.owner(f"{namespace}:users:1") is not victim
        eventually(lambda: other.get("users:1") == "new", "the other one reads it")
        assert other.get("users:2") is None
        coherent(one, other)
        one.set("users:1", "newer")
        eventually(lambda: other.get("users:1") == "newer", "it is told")


STALENESS = 0.5


def who_is_cut_off_is_not_believed(new_cache: NewCache, namespace: str) -> None:
    """A primary and the others hear nothing of each other, while clients hear all of them; a replica takes over."""
    with a_cluster(replicas=1, parted=True) as own:
        reader, writer = (new_cache(own.url, staleness=STALENESS) for _ in range(2))
        marks = own.owner(marks_of(namespace))  # which would be missed where these are cut off
        key = next(key for key in map("users:{}".format, range(99)) if own.owner(f"{namespace}:{key}") is not marks)
        cut = own.owner(f"{namespace}:{key}")
        writer.set(key, 0)
        coherent(reader, writer)
        eventually(functools.partial(_reads, reader, key, 0), "it is there")
        own.cut_off(cut)
        written = [(time.monotonic(), 0)]
        """When each version was acknowledged."""
        deadline = time.monotonic() + 30.0
        while len(written) < 10:
            assert time.monotonic() < deadline, "nobody takes over"
            began = time.monotonic()
            found = reader.get(key)
            newest = max(version for since, version in written if since + STALENESS <= began or version == 0)
            assert found is None or found >= newest, f"it got {found}, when {newest} had been acknowledged long before"
            replaced = own.told(own.others(cut)[0], f"{namespace}:{key}") != cut.port
            if replaced and (found == len(written) - 1 or began > written[-1][0] + 2 * STALENESS):
                with contextlib.suppress(BackendError):
                    writer.set(key, len(written))
                    written.append((time.monotonic(), len(written)))
        coherent(reader, writer)


@pytest.mark.slow
def test_a_primary_that_is_cut_off_from_the_others_is_not_believed(new_cache: NewCache, namespace: str):
    who_is_cut_off_is_not_believed(new_cache, namespace)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_primary_that_is_believed_as_long_as_it_answers_serves_old_values(new_cache: NewCache, namespace: str):
    """In some rounds the reader learns of the new primary before it has read an old value."""
    with broken(NodeTracking, "learn", lambda *_: None):
        check = functools.partial(who_is_cut_off_is_not_believed, new_cache, namespace)
        noticed_within(6, check, "had been acknowledged")


@contextlib.contextmanager
def silent(node: RedisServer) -> Iterator[None]:
    """Freeze a node for the block."""
    node.pause()
    try:
        yield
    finally:
        node.resume()


class Halves:
    """A cache over a cluster, one node of which will be silent, but not the one that keeps the marks; and its keys."""

    def __init__(self, own: Cluster, new_cache: NewCache, namespace: str, **options: Any) -> None:
        self.cache = new_cache(own.url, timeout=0.5, staleness=30, **options)
        self.node = own.others(own.owner(marks_of(namespace)))[0]
        owners = {f"users:{number}": own.owner(f"{namespace}:users:{number}") for number in range(40)}
        self.silent = [key for key, owner in owners.items() if owner is self.node]
        self.heard = [key for key, owner in owners.items() if owner is not self.node]
        self.keys = list(owners)
        self.cache.set_many(dict.fromkeys(owners, "old"))
        if self.cache._parts.core.keeps:
            coherent(self.cache)

    def some(self, first: int) -> list[str]:
        """Return six keys, the later half of which the silent node keeps."""
        return [*self.heard[first : first + 3], *self.silent[first : first + 3]]

    def is_there(self, name: str) -> bool:
        """Tell whether the node has a record."""
        return bool(self.node.command("EXISTS", name))

    def loses_its_node(self) -> None:
        """Read until it is known that the node does not answer."""
        with contextlib.suppress(BackendError):
            self.cache.add(self.silent[0], 1)
        with contextlib.suppress(BackendError):
            self.cache.add(self.silent[0], 1)
        assert self.cache._engine.backend.lacks()


@pytest.mark.slow
def test_a_node_that_is_silent_is_spared_and_the_others_go_on(new_cache: NewCache, namespace: str):
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace)
        with silent(halves.node):
            halves.loses_its_node()
            cache, before = halves.cache, halves.cache.stats()
            for key in halves.heard:
                cache.set(key, "new")
                assert cache.get(key) == "new"
                assert cache.delete(key) is True
                assert isinstance(cache.delete(halves.silent[0]), Queued)
            assert cache.stats().spared == before.spared, "nothing is kept from the nodes that answer"
            assert cache.get(halves.silent[0]) is None, "what waits to be deleted is a miss"
        eventually(lambda: _answers_to(cache, halves.silent[1]), "the node is heard again")
        eventually(
            lambda: not own.owner(name := f"{namespace}:{halves.silent[0]}").command("EXISTS", name), "it is deleted"
        )
        eventually(lambda: cache.health().silent == 0.0, "the outage is over")


@pytest.mark.slow
def test_without_a_part_the_whole_would_be_spared(new_cache: NewCache, namespace: str):
    with noticed(), broken(ClusterLink, "lacks", lambda _: False):
        test_a_node_that_is_silent_is_spared_and_the_others_go_on(new_cache, namespace)


@contextlib.contextmanager
def dead(node: RedisServer) -> Iterator[None]:
    """Kill a node for the block; it begins anew with nothing."""
    node.kill()
    try:
        yield
    finally:
        node.start()


LOST = pytest.mark.parametrize("lost", [silent, dead])


@pytest.mark.slow
@LOST
async def test_to_set_one_value_at_a_lost_primary_fails_as_at_a_single_server(
    lost: Lost, flavour: Flavour, new_cache: NewCache, namespace: str, caplog: pytest.LogCaptureFixture
):
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, near=None)
        cache = face(halves.cache, flavour)
        await cache.set(halves.silent[0], "old")  # on a connection that then breaks, or says nothing
        with lost(halves.node):
            with pytest.raises((BackendUnavailableError, BackendTimeoutError)) as raised:
                await cache.set(halves.silent[0], "new")
            assert raised.value.ambiguous is (lost is silent), "who is silent may store it later"
            assert "the engine answered" not in str(raised.value)
        assert not [said for said in caplog.messages if "refuses" in said]


@pytest.mark.slow
async def test_what_was_deleted_in_part_counts_as_said_by_somebody_else(
    flavour: Flavour, new_cache: NewCache, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    """The lost primary may delete it later still, and then what this process has stored meanwhile is not near."""
    renamed, rename = list[Bus](), Bus.rename

    def noted(bus: Bus) -> None:
        renamed.append(bus)
        rename(bus)

    monkeypatch.setattr(Bus, "rename", noted)
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, bus="stream")
        cache = face(halves.cache, flavour)
        with silent(halves.node):
            renamed.clear()
            assert isinstance(await cache.delete_many(halves.some(0)), Queued)
            assert renamed


@LOST
async def test_only_what_a_lost_primary_keeps_is_a_miss(
    lost: Lost, flavour: Flavour, new_cache: NewCache, namespace: str
):
    with a_cluster(down_after=10_000) as own:
        halves, loads = Halves(own, new_cache, namespace, near=None), list[str]()
        cache = face(halves.cache, flavour)

        def load(keys: list[str]) -> dict[str, str]:
            loads.extend(keys)
            return dict.fromkeys(keys, "loaded")

        with lost(halves.node):
            for _ in range(3):  # in vain twice, then the node is spared
                loads.clear()
                found = await cache.get_or_load_many(halves.keys, cache.loader(load))
                assert found == dict.fromkeys(halves.heard, "old") | dict.fromkeys(halves.silent, "loaded")
                assert sorted(loads) == sorted(halves.silent)
                assert await cache.get_many(halves.keys) == dict.fromkeys(halves.heard, "old")
            assert halves.cache.stats().errors > 0


@pytest.mark.slow
@LOST
async def test_only_what_a_lost_primary_keeps_is_not_written(
    lost: Lost, flavour: Flavour, new_cache: NewCache, namespace: str
):
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, near=None)
        cache, doomed, written = face(halves.cache, flavour), halves.some(0), halves.some(3)
        with lost(halves.node):
            halves.loses_its_node()
            assert isinstance(await cache.delete_many(doomed), Queued)
            assert set(halves.cache._parts.core.debts) == set(doomed[3:]), "the others are deleted"
            with pytest.raises(BackendError) as raised:
                await cache.set_many(dict.fromkeys(written, "new"))
            assert raised.value.answered.keys() == set(written[:3])
            assert await cache.get_many([*doomed, *written]) == dict.fromkeys(written[:3], "new")
            core = halves.cache._parts.core
            assert set(core.debts) == set(doomed[3:]), "what was not sent is not owed"
            core.owe(halves.heard[9])
            eventually(
                lambda: halves.cache.get(halves.heard[9]) is None and set(core.debts) == set(doomed[3:]), "it is paid"
            )
        eventually(lambda: _answers_to(halves.cache, halves.silent[7]), "the node is heard again")
        eventually(lambda: not halves.cache._parts.core.debts, "they are deleted")
        assert not any(halves.is_there(f"{namespace}:{key}") for key in doomed[3:])


@pytest.mark.slow
@LOST
async def test_what_is_loaded_anew_of_others_than_a_lost_primary_replaces_what_there_was(
    lost: Lost, flavour: Flavour, new_cache: NewCache, namespace: str
):
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, near=None)
        cache = face(halves.cache, flavour)
        with lost(halves.node):
            with halves.cache.bypass():
                await cache.get_or_load_many(halves.keys, cache.loader(lambda keys: dict.fromkeys(keys, "new")))
            assert await cache.get_many(halves.keys) == dict.fromkeys(halves.heard, "new")


STARTS: dict[str, Callable[[Any, list[str]], Awaitable[Any]]] = {
    "open": lambda cache, _: cache.open(),
    "set": lambda cache, keys: cache.set(keys[0], "new"),
    "set_many": lambda cache, keys: cache.set_many(dict.fromkeys(keys, "new")),
    "add": lambda cache, keys: cache.add(keys[0], "new"),
}


@pytest.mark.slow
@LOST
async def test_a_process_that_starts_while_a_primary_is_lost_works_with_the_others(
    lost: Lost, flavour: Flavour, new_cache: NewCache, namespace: str
):
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, near=None)
        with lost(halves.node):
            for start in STARTS.values():
                cache = face(new_cache(own.url, timeout=0.5, near=None), flavour)
                await start(cache, halves.heard[:5])
                assert await cache.get(halves.heard[9]) == "old"
                await cache.close()


@pytest.mark.slow
async def test_what_is_loaded_because_a_primary_is_silent_is_kept_for_others(
    flavour: Flavour, new_cache: NewCache, namespace: str
):
    """Else everybody who reads many keys would load those of the silent node again."""
    with a_cluster(down_after=10_000) as own:
        halves, loads = Halves(own, new_cache, namespace), list[str]()
        reader = new_cache(own.url, timeout=0.5, staleness=30)
        coherent(reader)
        cache = face(reader, flavour)

        def load(keys: list[str]) -> dict[str, str]:
            loads.extend(keys)
            return dict.fromkeys(keys, "loaded")

        with silent(halves.node):
            for _ in range(3):
                found = await cache.get_or_load_many(halves.keys, cache.loader(load))
                assert found == dict.fromkeys(halves.heard, "old") | dict.fromkeys(halves.silent, "loaded")
            assert sorted(loads) == sorted(halves.silent)


@pytest.mark.slow
def test_what_others_have_deleted_is_announced_in_the_stream(new_cache: NewCache, namespace: str):
    """Although what one node keeps was not deleted."""
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, bus="stream")
        other = new_cache(own.url, staleness=30, bus="stream")
        coherent(other)
        assert len(other.get_many(halves.keys)) == len(halves.keys)
        with silent(halves.node):
            halves.loses_its_node()
            assert isinstance(halves.cache.delete_many(halves.some(0)), Queued)
            assert set(halves.cache._parts.core.debts) == set(halves.some(0)[3:])
            eventually(lambda: not other.get_many(halves.heard[:3]), "it is told")


@contextlib.contextmanager
def unkept(cluster: Cluster, name: str) -> Iterator[None]:
    """Let no node keep the slot of a key of the engine for the block; the others go on."""
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        node.command("CLUSTER", "DELSLOTS", cluster.slot(name))
    try:
        yield
    finally:
        cluster.nodes[0].command("CLUSTER", "ADDSLOTS", cluster.slot(name))


@pytest.mark.slow
async def test_a_slot_that_nobody_keeps_is_no_obstacle_to_others(flavour: Flavour, new_cache: NewCache, namespace: str):
    with a_cluster() as own:
        halves = Halves(own, new_cache, namespace, near=None)
        (lost, *_), heard = halves.silent, halves.heard
        cache, core = face(halves.cache, flavour), halves.cache._parts.core
        core.pays_ahead = False  # who listens would delete the owed keys too, perhaps after they are written anew
        with unkept(own, f"{namespace}:{lost}"):
            assert isinstance(await cache.delete(lost), Queued)
            for _ in range(2):  # what is owed cannot be paid, or cannot yet be tried again
                core.owe(*heard[:2])
                core.pay_from = 0.0
                assert await cache.get_many([lost, *heard[2:5]]) == dict.fromkeys(heard[2:5], "old")
                assert set(core.debts) == {lost}
                with pytest.raises(NotServing, match="Hash slot not served") as raised:
                    await cache.set_many({lost: "new", heard[0]: "new"})
                assert raised.value.answered.keys() == {heard[0]}
                assert await cache.get(heard[0]) == "new"
            core.owe(*heard[:2])
            core.pay_from = 0.0
            await cache.set(heard[0], "new")  # by a call that pays first
            assert await cache.get(heard[0]) == "new"
            assert halves.cache.stats().spared == 0
        eventually(lambda: _answers_to(halves.cache, lost) and not core.debts, "it is deleted")


@pytest.mark.slow
async def test_what_is_owed_to_a_lost_primary_does_not_keep_others_waiting(
    flavour: Flavour, new_cache: NewCache, namespace: str
):
    with a_cluster(down_after=10_000) as own:
        halves = Halves(own, new_cache, namespace, near=None)
        cache, core = face(halves.cache, flavour), halves.cache._parts.core
        with silent(halves.node):
            halves.loses_its_node()
            keys = (f"others:{number}" for number in itertools.count())
            backend: Any = halves.cache._engine.backend
            owner = backend._link._topology.owner
            theirs = (key for key in keys if owner(f"{namespace}:{key}").endpoint.port == halves.node.port)
            core.owe(*itertools.islice(theirs, 2 * DEBTS_AT_ONCE), halves.heard[0])
            core.pay_from = 0.0
            assert await cache.get(halves.heard[1]) == "old"
            assert len(core.debts) >= 2 * DEBTS_AT_ONCE
            assert halves.heard[0] not in core.debts


@pytest.mark.slow
def test_while_a_node_is_silent_nobody_waits_for_what_the_nodes_say_of_themselves(new_cache: NewCache, namespace: str):
    with a_cluster(down_after=10_000) as own:
        halves, asked = Halves(own, new_cache, namespace, near=None), list[bool]()
        cache = halves.cache

        async def facts(admin: ClusterAdmin) -> Facts:
            asked.append(True)
            return Facts(None, None, None, None, None, None)

        with broken(ClusterAdmin, "facts", facts):
            with silent(halves.node):
                halves.loses_its_node()
                cache._parts.core.facts_due = 0.0
                assert cache.get(halves.heard[0]) == "old"
                assert not asked
            eventually(lambda: _answers_to(cache, halves.silent[0]) and asked, "it is asked later")


async def load_while_a_slot_moves(cache: Cache, other: Cache, flavour: Flavour, own: Cluster, name: str) -> None:
    """Load many keys, the record and the lease of one of which are on two nodes at that moment."""
    cache.set("users:1", "old", ttl=0.001)
    eventually(lambda: not cache.exists("users:1"), "it expires")
    keys = [f"users:{number}" for number in range(1, 7)]
    flavoured = face(cache, flavour)
    with own.moving(name, own.others(own.owner(name))[0]):
        found = await flavoured.get_or_load_many(keys, flavoured.loader(lambda some: dict.fromkeys(some, "new")))
    assert found == dict.fromkeys(keys, "new")
    assert other.get_many(keys) == dict.fromkeys(keys[1:], "new"), "the others are stored"
    assert not any(
        own.owner(lease := lease_of(f"{name[:-1]}{number}")).command("EXISTS", lease) for number in range(2, 7)
    )


async def test_while_a_slot_moves_what_is_loaded_of_others_is_stored(
    cluster: Cluster, flavour: Flavour, new_cache: NewCache, namespace: str
):
    cache, other = new_cache(cluster.url, fail_safe="1h", near=None), new_cache(cluster.url, near=None)
    name = f"{namespace}:users:1"
    home = cluster.owner(name)
    try:
        await load_while_a_slot_moves(cache, other, flavour, cluster, name)
    finally:
        cluster.move(name, home)


async def test_without_a_part_nothing_that_was_loaded_would_be_stored(
    cluster: Cluster, flavour: Flavour, new_cache: NewCache, namespace: str
):
    def as_one(keys: list[str], told: list[Any]) -> BackendError:
        return redis_errors.refused(next(each for each in told if isinstance(each, Exception)), keys[0])

    with noticed("the others are stored"), broken(redis_leases, "in_part", as_one):
        await test_while_a_slot_moves_what_is_loaded_of_others_is_stored(cluster, flavour, new_cache, namespace)


def about_all(reply: Any, count: int) -> list[Any]:
    """Take an answer that is an error in part for one about all keys."""
    if isinstance(reply, InPart):
        reply = next(each for each in reply.replies if isinstance(each, Exception))
    return [reply] * count


@pytest.mark.slow
@pytest.mark.parametrize("lost", [silent])
@pytest.mark.parametrize(
    "test", [test_only_what_a_lost_primary_keeps_is_a_miss, test_only_what_a_lost_primary_keeps_is_not_written]
)
async def test_where_a_batch_fails_as_one_others_are_lost_too(
    test: Callable[..., Awaitable[None]], lost: Lost, flavour: Flavour, new_cache: NewCache, namespace: str
):
    with noticed(), broken(redis_errors, "_about_each", about_all):
        await test(lost, flavour, new_cache, namespace)


def _answers_to(cache: Cache, key: str) -> bool:
    with contextlib.suppress(BackendError):
        cache.set(key, 2)
        return True
    return False


@pytest.mark.slow
def test_a_primary_that_appears_may_have_forgotten(new_cache: NewCache, namespace: str):
    """What was invalidated shortly before is invalidated once more, before anything else is sent."""
    with a_cluster(spare=1) as own:
        cache = new_cache(own.url, near=None)  # nobody listens, who could find it first
        cache.set("users:1", "old")
        assert cache.delete("users:1")
        name, spare = f"{namespace}:users:1", own.nodes[3]
        own.move(name, spare)
        spare.command("SET", name, "what a replica that lags would have")
        assert cache.get("users:1") is None
        assert not spare.command("EXISTS", name)


# What a call costs


def test_a_read_of_one_key_enters_few_functions_more_than_on_one_server(
    cluster: Cluster, redis_server: RedisServer, namespace: str
):
    entered = list[list[str]]()
    for url in (redis_server.unix_url, cluster.url):
        backend = made(url, "sync", namespace)
        drive(backend.open())
        backend.view.fixed = True  # nothing else is asked for on the same trip
        drive(backend.get("users:1"))
        read = backend.get("users:1")
        entered.append(frames_of(lambda: drive(read)))  # noqa: B023
        drive(backend.close())
    assert len(entered[1]) - len(entered[0]) <= 7, entered[1]


# Listeners


@interrupted
def test_a_start_to_listen_that_was_interrupted_anywhere_is_made_up_by_the_next(cluster: Cluster, new_cache: NewCache):
    cache = new_cache(cluster.url)
    cache.set("a:1", 1)
    backend: Any = cache._engine.backend
    listeners, coherence = backend.listener, cache._parts.core.coherence
    for place in range(1, 1000):
        listeners.stop()
        assert not coherence.tracked
        if not (where := SignalAt(place, threads=True).run(listeners.start)):
            assert place > 20
            return
        listeners.start()
        eventually(lambda: coherence.tracked, f"all nodes are heard though the start was interrupted at {where}")
    raise AssertionError("the start never ended")
