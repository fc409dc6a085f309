"""The rule of docs/rights.md suffices for everything, and nothing in it can be left out."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from nearcache import Cache
from nearcache._core.limits import KINDS as LIMITS
from nearcache.backends.base import Ask, Fill, Item
from nearcache.backends.limits import LimitAsk
from nearcache.backends.locks import LockAsk
from nearcache.backends.redis import RedisBackend, leases
from nearcache.backends.registry import Flavour
from nearcache.backends.sessions import SessionChange, SessionRecord
from nearcache.codecs.envelope import NO_SCHEMA, Record, pack, pack_ages
from nearcache.errors import BackendError
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from nearcache.near.view import View
from tests.cluster import Cluster
from tests.integration.redis.helpers import PATIENCE, drive, made
from tests.rights import PAGE, of_namespace, permissions, user
from tests.sentinel import GROUP, Group
from tests.servers import KINDS, VERSIONS, Kind, RedisServer, packaged_program, redis_server

SECOND = 1.0


class Broken(AssertionError):
    """Something does not work as it should, though nobody said so."""


def until(true: Callable[[], object], what: str, patience: float) -> None:
    """Poll until `true` returns something true."""
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            raise Broken(what)
        time.sleep(0.002)


def built(url: str, namespace: str, flavour: Flavour = "sync", **options: Any) -> RedisBackend:
    """Build a backend that keeps marks, as that of a cache does."""
    return made(url, flavour, namespace, view=View(time.monotonic, 1.0), timeout=5.0, **options)


def item(payload: bytes) -> Item:
    """Return a record of a key."""
    return Item("a:1", pack(Record(0, b"fill--id", 0, 1.0, 60.0, 60.0, 0.0, 5, NO_SCHEMA, payload=payload)), 60.0)


async def values(backend: RedisBackend) -> None:
    """Use every verb for records, and the ports for counters, lists of keys and facts."""
    await backend.open()
    await backend.set(item(b"1"))
    await backend.set_many([item(b"1")])
    assert not await backend.add(item(b"2"), b"")
    assert await backend.get("a:1") is not None
    assert await backend.get_many(["a:1", "a:2"]) == [item(b"1").raw, None]
    assert await backend.touch("a:1", 60.0, b"fill--id", pack_ages(60.0, 70.0))
    assert await backend.touch("a:1", 60.0, b"", b"")
    assert (await backend.remaining(["a:1"]))[0]
    assert backend.counters is not None
    assert await backend.counters.incr("a:1", 1, item(b"").raw, 60.0, b"") == 2
    assert "a:1" in await listed(backend)
    assert backend.admin is not None
    assert (await backend.admin.facts()).version
    assert await backend.delete(["a:1"]) == 1
    assert await backend.add(item(b"1"), b"")


async def listed(backend: RedisBackend) -> list[str]:
    """Return the keys of the namespace."""
    assert backend.scan is not None
    cursor, found = await backend.scan.page("", "")
    while cursor:
        cursor, more = await backend.scan.page(cursor, "")
        found += more
    return found


async def loads(one: RedisBackend, other: RedisBackend, heard: Coherence, patience: float) -> None:
    """Load in one process while another waits, which is woken by a message."""
    until(lambda: other.listener.channel() or "NOPERM" in heard.why, "the inbox is listened to", patience)
    if not other.listener.channel():
        raise Broken(heard.why)
    await one.delete(["a:1"])
    (mine,) = await one.leases.acquire([Ask("a:1", "one", b"", 5.0)])
    mail = other.leases.expect("a:1")
    (theirs,) = await other.leases.acquire([Ask("a:1", "two", b"", 5.0)])
    assert (mine.leads, theirs.leads) == (True, False)
    one.leases.hold("a:1", "one", time.monotonic() + 60)
    assert await one.leases.fill([Fill(item(b"1"), "one", b"")]) == [True]
    until(lambda: mail.heard, "who waits was not woken", patience)
    seen = await one.leases.steal(Ask("a:1", "three", b"", 5.0))
    assert seen == one.leases.identity(item(b"1").raw)
    assert await one.leases.commit(item(b"2"), "three")
    await one.leases.acquire([Ask("a:2", "four", b"", 5.0)])
    await one.leases.release("a:2", "four", "retry", 1.0)


async def locks(one: RedisBackend, other: RedisBackend, patience: float) -> None:
    """Hold a lock in one process while another waits, which is woken by a message."""
    assert one.locks is not None
    assert other.locks is not None
    assert (await one.locks.acquire(LockAsk("a", "one", 5.0, fair=True, waits=True))).token
    mail = other.locks.expect("two")
    asks = LockAsk("a", "two", 5.0, fair=True, waits=True)
    assert not (await other.locks.acquire(asks)).token
    assert await one.locks.release("a", "one", fair=True)
    until(lambda: mail.heard == ("two", "free"), "who waits for a lock was not woken", patience)
    assert (await other.locks.acquire(asks)).token
    assert await other.locks.release("a", "two", fair=True)


async def sessions(one: RedisBackend) -> None:
    """Begin a session, change it, give it another name and end it; so for a user who has one that has ended."""
    port = one.sessions
    assert port is not None
    await port.create("a", SessionRecord(60.0, 60.0, {b"one": b"1", b"two": b"2"}))
    await port.enlist("user", "ended", 0.001)
    await port.enlist("user", "a", 60.0, "before")
    assert await port.save("a", SessionChange({b"one": b"2"}, [b"two"], 100))
    assert await port.move("a", SessionChange({}, [], 100), "b")
    assert await port.leave("a", "b")
    assert await port.load(["a"], used=True) == [None]
    assert "a" in await port.names_of("user")
    assert await port.absent(["a"]) == ["a"]
    await port.strike("user", ["a"])
    assert not await port.destroy(["a"])


async def limits(backend: RedisBackend) -> None:
    """Consume units of each kind of limit, and give them back."""
    assert backend.limits is not None
    for kind in LIMITS:
        ask = LimitAsk("a", kind, kind, ((5, 365 * 86_400_000_000),), 2)
        await backend.limits.hit(ask)
        grant = await backend.limits.hit(ask)
        assert (await backend.limits.peek(ask)).standings[0].left == 1
        await backend.limits.refund(ask, grant.receipt)
        await backend.limits.reset(ask)
    assert await backend.limits.beat("worker", 15.0) == 1


async def marks(one: RedisBackend, other: RedisBackend) -> None:
    """Invalidate tags, more of them than the engine keeps, and everything; give back what was lost."""
    await one.marks.mark(["t1", "t2", "t3", "t4", "t5"], everything=False)
    await other.marks.ask(["t1"])
    await one.marks.mark([], everything=True)
    await one.marks.restore()


async def everything(
    url: str, namespace: str, patience: float, bus: Any = "tracking", flavour: Flavour = "sync"
) -> None:
    """Do whatever a cache does over the URL; raises if something does not work."""
    heard = Coherence(Store(Limit(entries=0)), Flights(), time.monotonic, SECOND, wanted=False)
    one, other = (built(url, namespace, flavour, bus=bus, coherence=heard) for _ in range(2))
    try:
        await values(one)
        await marks(one, other)
        await loads(one, other, heard, patience)
        await locks(one, other, patience)
        await sessions(one)
        await limits(one)
        coherent(url, namespace, patience, bus)
    finally:
        await one.close()
        await other.close()


def coherent(url: str, namespace: str, patience: float, bus: Any) -> None:
    """Have a change by one process heard by another."""
    options: Any = {"namespace": namespace, "bus": bus, "timeout": 5.0, "observers": ()}
    with closing(Cache(url, **options)) as here, closing(Cache(url, **options)) as elsewhere:
        elsewhere.set("a:1", "old")
        assert here.get("a:1") == "old"
        until(lambda: here.health().coherent or refusal(here), "changes are announced", patience)
        if not here.health().coherent:
            raise Broken(here.health().incoherence)
        elsewhere.set("a:1", "new")
        until(lambda: here.get("a:1") == "new", "the change is heard", patience)


def refusal(cache: Cache) -> bool:
    """Tell whether the engine refused to announce changes."""
    return "NOPERM" in (cache.health().incoherence or "")


@pytest.fixture(autouse=True)
def few_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine keep so few marks that some are dropped."""
    monkeypatch.setattr(leases, "MOST_MARKS", 3)


@pytest.fixture(scope="module", params=[*KINDS, *(pytest.param(name, marks=pytest.mark.soak) for name in VERSIONS)])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server whose users and scripts are those of these tests."""
    kind: Kind = request.param if request.param in KINDS else "redis"
    with redis_server(kind, program=packaged_program(request.param) if request.param in VERSIONS else None) as made:
        yield made


@pytest.mark.parametrize("bus", ["tracking", "stream"])
async def test_the_rule_suffices_for_everything(server: RedisServer, flavour: Flavour, namespace: str, bus):
    server.command("SCRIPT", "FLUSH")
    with user(server, "least", permissions(namespace, stream=bus == "stream")) as url:
        await everything(url, namespace, PATIENCE, bus, flavour)


ADDED = [right for right in permissions(stream=True) if right not in permissions()]


@pytest.mark.parametrize("left_out", [*permissions(), *ADDED])
def test_nothing_in_the_rule_can_be_left_out_and_what_is_missing_is_named(
    server: RedisServer, namespace: str, left_out: str
):
    bus = "stream" if left_out in ADDED else "tracking"
    missing = of_namespace(left_out, namespace)
    rights = [right for right in permissions(namespace, stream=bus == "stream") if right != missing]
    server.command("SCRIPT", "FLUSH")
    with user(server, "least", rights) as url, pytest.raises((BackendError, Broken)) as raised:
        drive(everything(url, namespace, SECOND, bus))
    if left_out != "+publish":
        assert re.search(NAMED.get(left_out, re.escape(missing[1:])), str(raised.value), re.IGNORECASE)


NAMED = {
    "~app:*": "a:1: .*keys?",
    "~{app:*": "a:1: .*keys?",
    "&app~i:*": "SUBSCRIBE: .*channel",
    "+client|setname": r"connection to.*'client(\|setname)?' command",
    "+client|tracking": "CLIENT TRACKING: .*NOPERM",
}
"""What is said where a pattern is missing: the key, for the engine does not say which of its records it is. The oldest
engine does not name subcommands.
"""


CLUSTER = re.findall(r"^ACL SETUSER cache (\+cluster.*)$", PAGE.read_text(), re.MULTILINE)[0].split()


@contextmanager
def least(cluster: Cluster, rights: list[str]) -> Iterator[str]:
    """Have a user with these rights on every node for the block, which gets their URL."""
    with ExitStack() as stack:
        for node in cluster.nodes:
            node.command("SCRIPT", "FLUSH")
            stack.enter_context(user(node, "least", rights))
        yield cluster.url.replace("://", "://least:open-sesame@")


@pytest.mark.parametrize("bus", ["tracking", "stream"])
@pytest.mark.parametrize("left_out", [None, *CLUSTER])
async def test_a_cluster_needs_some_more(
    cluster: Cluster, flavour: Flavour, namespace: str, left_out: str | None, bus: str
):
    unneeded = [left_out, *(["+client|tracking"] if bus == "stream" else [])]
    rights = [*permissions(namespace, stream=bus == "stream"), *CLUSTER]
    with least(cluster, [right for right in rights if right not in unneeded]) as url:
        if left_out == "+cluster|slots":
            with pytest.raises(BackendError, match=r"cluster\|slots"):
                await everything(url, namespace, SECOND, bus, flavour)
        else:
            await everything(url, namespace, PATIENCE, bus, flavour)
            assert {may_ask(node) for node in cluster.nodes} == {left_out is None}


@pytest.mark.parametrize("left_out", ADDED)
def test_a_stream_on_a_cluster_needs_what_it_needs_on_one_server(cluster: Cluster, namespace: str, left_out: str):
    missing = of_namespace(left_out, namespace)
    rights = [right for right in permissions(namespace, stream=True) if right != missing]
    with least(cluster, [*rights, *CLUSTER]) as url, pytest.raises((BackendError, Broken)) as raised:
        drive(everything(url, namespace, SECOND, "stream"))
    assert re.search(re.escape(missing[1:]), str(raised.value), re.IGNORECASE)


def may_ask(node: RedisServer) -> bool:
    """Tell whether the user may ask for a key of a slot that is about to move to a node."""
    (reply,) = drive(made(node.url.replace("://", "://least:open-sesame@"), "sync", "t").together(("ASKING",)))
    return "NOPERM" not in str(reply)


def test_a_sentinel_needs_two_rights(watched: Group, namespace: str):
    (line,) = re.findall(r"`on >password (.*sentinel\|.*)`", PAGE.read_text())
    rights = line.split()
    sentinel = watched.sentinels[0]
    for left_out in (None, *rights):
        with user(sentinel, namespace, [right for right in rights if right != left_out]):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{GROUP}/0?sentinel_username={namespace}"
            backend = built(f"{url}&sentinel_password=open-sesame", namespace)
            if left_out is None:
                drive(backend.ping())
            else:
                with pytest.raises(BackendError, match=re.escape(left_out[1:])):
                    drive(backend.ping())
            drive(backend.close())
