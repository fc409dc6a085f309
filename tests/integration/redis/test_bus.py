"""With `bus="stream"` changes are announced by whoever makes them, and what was missed is noticed."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import BackendError, Cache
from nearcache.backends.base import Fill, Item
from nearcache.backends.redis import RedisBackend, speaker
from nearcache.backends.redis.bus import Bus
from nearcache.backends.redis.connect import Endpoint
from nearcache.backends.redis.leases import RedisLeases
from nearcache.backends.redis.listener import Listener
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import bus_of, lease_of
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.dial import Route
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.history import History
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from tests.integration.redis.helpers import drive, eventually, in_child, lease, made, reap
from tests.servers import RedisServer

KEY = "users:1"
LONG = "1h"
"""A staleness that hides nothing: whoever does not hear of a change serves the old value for the whole test."""

Caches = Callable[..., Cache]


@pytest.fixture
def caches(namespace: str) -> Iterator[Caches]:
    """Makes caches of one namespace that hear of changes already; each stands for a process."""
    opened = list[Cache]()

    def cache(url: str, **options: Any) -> Cache:
        options = {"bus": "stream", "staleness": LONG, "namespace": namespace, "jitter": 0, "pool_min": 1, **options}
        opened.append(Cache(url, observers=(), **options))
        listening(opened[-1])
        return opened[-1]

    yield cache
    for each in opened:
        each.close()


@pytest.fixture
def alert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have who listens look several times a second whether anything was missed, however long the staleness is."""
    monkeypatch.setattr(RedisLeases, "life", 0.6)


def listening(cache: Cache) -> None:
    """Wait until a cache hears of every change."""
    cache.set("warm:1", 1)
    eventually(lambda: cache.health().coherent is not False, "it hears of changes, if it keeps values near")


def near(cache: Cache, key: str = KEY) -> Any:
    """Read twice, so that the value is near, and return it."""
    cache.get(key)
    return cache.get(key)


def sees(cache: Cache, value: object) -> None:
    """Wait until a cache serves a value."""
    eventually(lambda: near(cache) == value, f"{value!r} is seen")


def asked(cache: Cache) -> int:
    """Return how many commands a cache has sent."""
    return cache.stats().commands


def heard_of(cache: Cache, server: RedisServer) -> None:
    """Wait until whatever was announced before this call was heard by a cache."""
    carrier = cache._parts._spec.common[Listener].carrier
    last = newest(server, bus_of(cache._parts.core.options.namespace))
    eventually(lambda: carrier._last == last, "it has heard of everything")


# What others hear of


CHANGES: dict[str, tuple[Callable[[Cache], object], Any]] = {
    "set": (lambda cache: cache.set(KEY, 2), 2),
    "set_many": (lambda cache: cache.set_many({"users:0": 0, KEY: 2}), 2),
    "set by a task": (lambda cache: asyncio.run(cache.aio.set(KEY, 2)), 2),
    "delete": (lambda cache: cache.delete(KEY), None),
    "delete_many": (lambda cache: cache.delete_many(["users:0", KEY]), None),
    "add": (lambda cache: (cache.delete(KEY), cache.add(KEY, 2)), 2),
    "incr": (lambda cache: cache.incr(KEY, 1), 2),
    "write_through": (lambda cache: cache.write_through(KEY, 2, lambda value: value), 2),
    "invalidate_tags": (lambda cache: cache.invalidate_tags("tag"), None),
    "clear": (lambda cache: cache.clear(), None),
    "refresh": (lambda cache: cache.cached("users:{number}")(two).refresh(1), 2),
    "bypass": (lambda cache: bypassing(cache), 2),
}


def two(number: int) -> int:
    """A loader."""
    return 2 * number


def bypassing(cache: Cache) -> None:
    """Replace what is cached by what is loaded."""
    with cache.bypass():
        cache.get_or_load(KEY, lambda: 2)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_by_others(caches: Caches, any_server: RedisServer, change: str):
    here, there = caches(any_server.unix_url), caches(any_server.unix_url)
    do, after = CHANGES[change]
    if change == "incr":
        there.incr(KEY)
    else:
        there.set(KEY, 1, tags=["tag"])
    heard_of(here, any_server)
    assert near(here) == 1
    do(there)
    sees(here, after)
    assert near(there) == after


def test_a_new_time_to_live_is_seen_by_others(caches: Caches, any_server: RedisServer):
    here, there = caches(any_server.unix_url), caches(any_server.unix_url)
    there.set(KEY, 1, ttl="1h")
    heard_of(here, any_server)
    assert near(here) == 1
    assert there.touch(KEY, "1ms")
    eventually(lambda: here.get(KEY) is None, "the value is gone")


def test_what_nobody_announces_is_not_seen(caches: Caches, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    here, there = caches(redis_server.unix_url), caches(redis_server.unix_url)
    there.set(KEY, 1)
    heard_of(here, redis_server)
    assert near(here) == 1
    monkeypatch.setattr(Bus, "tell", lambda *_: None)
    there.set(KEY, 2)
    time.sleep(0.5)
    assert (here.get(KEY), there.get(KEY)) == (1, 2)


def test_a_fill_is_not_announced(caches: Caches, any_server: RedisServer, namespace: str):
    cache = caches(any_server.unix_url)
    before = any_server.command("XLEN", bus_of(namespace))
    assert cache.get_or_load("loaded:1", lambda: 1) == 1
    assert any_server.command("XLEN", bus_of(namespace)) == before


def test_an_entry_names_the_one_before_it(caches: Caches, any_server: RedisServer, namespace: str):
    cache = caches(any_server.unix_url)
    cache.set_many({KEY: 1, "users:2": 2})
    cache.invalidate_tags("tag")
    *_, (first, _), (second, (_, several)), (_, (_, marks)) = any_server.command("XRANGE", bus_of(namespace), "-", "+")
    name = several.partition(b" ")[0]
    assert several == b"%b %b users:1 users:2" % (name, first)
    assert marks == b"%b %b " % (name, second)


# Its own changes


def test_what_a_process_wrote_itself_stays_near(caches: Caches, any_server: RedisServer):
    cache = caches(any_server.unix_url, staleness=1)
    for number in range(5):
        cache.set(KEY, number)
        heard_of(cache, any_server)
        before = asked(cache)
        assert cache.get(KEY) == number
        assert asked(cache) == before


def test_how_long_it_takes_is_measured_by_its_own_entries(caches: Caches, any_server: RedisServer):
    cache = caches(any_server.unix_url, staleness=1)
    proofs = cache._parts.core.coherence
    begun = proofs.proven
    eventually(lambda: proofs.proven > begun, "there was a proof, from which on a change is measured")
    cache.set(KEY, 1)
    eventually(lambda: cache.stats().lag, "a change of its own was heard")
    lag = cache.stats().lag
    assert lag is not None
    assert 0 < lag.median < 1


def test_a_forked_child_has_another_name(caches: Caches, any_server: RedisServer):
    parent = caches(any_server.unix_url)
    parent.set(KEY, 1)
    assert near(parent) == 1
    assert reap(in_child(lambda: parent.set(KEY, 2))) == 0
    sees(parent, 2)


def test_two_who_write_one_key_see_what_the_engine_has(caches: Caches, any_server: RedisServer):
    writers = [caches(any_server.unix_url) for _ in range(2)]

    def write(cache: Cache, number: int) -> None:
        for step in range(200):
            cache.set(KEY, [number, step])
            cache.get(KEY)

    for _ in range(3):
        threads = [threading.Thread(target=write, args=(cache, number)) for number, cache in enumerate(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with_none_near = Cache(any_server.unix_url, namespace=writers[0]._parts.core.options.namespace, near=None)
        last = with_none_near.get(KEY)
        with_none_near.close()
        for cache in writers:
            sees(cache, last)


def test_a_sum_never_goes_back(caches: Caches, any_server: RedisServer):
    adders, reader, seen = [caches(any_server.unix_url) for _ in range(2)], caches(any_server.unix_url), list[int]()
    threads = [threading.Thread(target=lambda c=c: [c.incr(KEY) for _ in range(300)]) for c in adders]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(reader.get(KEY, 0))
        time.sleep(0.0001)  # others get their turn
    assert seen == sorted(seen)
    sees(reader, 600)


# What was missed


LOSSES: dict[str, Callable[[RedisServer, str], object]] = {
    "trimmed": lambda server, stream: server.command("XTRIM", stream, "MAXLEN", 0),
    "deleted": lambda server, stream: server.command("DEL", stream),
    "put back": lambda server, stream: server.command("XDEL", stream, newest(server, stream)),
    "an entry between": lambda server, stream: server.command("XADD", stream, "*", "c", "stranger 1-1 a:1"),
    "begun anew": lambda server, stream: (
        server.command("DEL", stream),
        server.command("EVAL", script("bus").text, 1, stream, "0123456789abcdef", "a:1"),
    ),
}


def newest(server: RedisServer, stream: str) -> bytes:
    """Return the id of the newest entry."""
    found: bytes = server.command("XREVRANGE", stream, "+", "-", "COUNT", 1)[0][0]
    return found


@pytest.mark.usefixtures("alert")
@pytest.mark.parametrize("loss", LOSSES)
def test_entries_that_are_missing_are_noticed(caches: Caches, any_server: RedisServer, namespace: str, loss: str):
    cache = caches(any_server.unix_url)
    cache.set(KEY, 1)
    heard_of(cache, any_server)
    any_server.command("DEL", f"{namespace}:{KEY}")  # not announced
    assert cache.get(KEY) == 1
    LOSSES[loss](any_server, bus_of(namespace))
    eventually(lambda: cache.get(KEY) is None, "it asks the engine again")
    cache.set(KEY, 2)
    other = caches(any_server.unix_url)
    other.set(KEY, 3)
    sees(cache, 3)


def test_a_stream_that_is_begun_anew_has_other_ids(any_server: RedisServer, namespace: str):
    backend, stream = made(any_server.unix_url, "sync", namespace), bus_of(namespace)
    append = ("EVAL", script("bus").text, "1", stream, "0123456789abcdef", "a:1")
    replies = drive(backend.run(*[append, append, ("DEL", stream)] * 20))
    drive(backend.close())
    ids = [reply for reply in replies if isinstance(reply, bytes)]
    assert len(set(ids)) == len(ids) == 40


@pytest.mark.usefixtures("alert")
@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_an_emptied_engine_is_noticed(caches: Caches, own_server: RedisServer, codec: str):
    """With codec="json" there are no marks that would be gone too, and nothing was ever written but by a load."""
    cache = Cache(own_server.unix_url, bus="stream", staleness=LONG, codec=codec, observers=(), pool_min=1)
    try:
        loads = iter(range(100))
        cache.get_or_load(KEY, lambda: next(loads))
        eventually(lambda: cache.health().coherent, "it hears of changes")
        first = cache.get_or_load(KEY, lambda: next(loads))
        assert cache.get_or_load(KEY, lambda: next(loads)) == first
        own_server.flush()
        eventually(lambda: cache.get_or_load(KEY, lambda: next(loads)) > first, "it loads again")
    finally:
        cache.close()


@pytest.mark.usefixtures("alert")
@pytest.mark.parametrize("loss", [("DEL",), ("XTRIM", "MAXLEN", "0")], ids=["deleted", "trimmed"])
def test_what_is_lost_between_two_losses_is_noticed(
    caches: Caches, own_server: RedisServer, namespace: str, loss: tuple[str, ...]
):
    """Each first entry of an empty stream names the same one before it."""
    command, *options = loss
    here, there = caches(own_server.unix_url), caches(own_server.unix_url, near=None)
    there.set(KEY, 1)
    for number in (2, 3):
        sees(here, number - 1)
        own_server.pause()
        own_server.resume()
        own_server.command(command, bus_of(namespace), *options)
        eventually(lambda: own_server.command("XLEN", bus_of(namespace)), "it is begun anew")
        eventually(lambda: here.health().coherent, "it hears of changes")
        with held_up(here):
            there.set(KEY, number)
            own_server.command(command, bus_of(namespace), *options)
            there.set("users:2", number)
    sees(here, 3)


@contextmanager
def held_up(cache: Cache) -> Iterator[None]:
    """Let a cache hear nothing for a while, and then go on."""
    bus = cache._engine.backend.listener.carrier  # type: ignore[attr-defined]
    go_on, held = threading.Event(), threading.Event()
    questions = bus.questions

    def wait_first() -> Any:
        held.set()
        assert go_on.wait(10.0)
        return questions()

    bus.listen = lambda line, until, enough: None
    bus.questions = wait_first
    try:
        assert held.wait(10.0)
        yield
    finally:
        del bus.listen, bus.questions
        go_on.set()


def test_an_engine_that_refused_for_a_moment_is_asked_again(
    caches: Caches, own_server: RedisServer, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(RedisLeases, "life", 0.3)
    cache = caches(own_server.unix_url, staleness="1s")
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    own_server.command("DEL", bus_of(namespace))
    own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
    eventually(lambda: "OOM" in (cache.health().incoherence or ""), "it says why not")
    own_server.command("CONFIG", "SET", "maxmemory", "0")
    eventually(lambda: cache.health().coherent, "it hears of changes again")


def test_what_changed_while_its_connection_was_cut_is_seen(caches: Caches, own_server: RedisServer):
    here, there = caches(own_server.unix_url), caches(own_server.unix_url, near=None)
    for number in range(5):
        there.set(KEY, number)
        sees(here, number)
        own_server.command("CLIENT", "KILL", "TYPE", "pubsub")


def test_it_goes_on_after_the_engine_was_restarted(caches: Caches, own_server: RedisServer):
    here, there = caches(own_server.unix_url), caches(own_server.unix_url)
    there.set(KEY, 1)
    assert near(here) == 1
    own_server.kill()
    own_server.start()
    eventually(lambda: here.get(KEY) is None, "the value is gone")
    for cache in (here, there):
        listening(cache)
    there.set(KEY, 2)
    assert near(here) == 2
    there.set(KEY, 3)
    sees(here, 3)


def test_nothing_is_served_for_longer_than_the_staleness(
    caches: Caches, any_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    staleness = 0.3
    here, there = caches(any_server.unix_url, staleness=staleness), caches(any_server.unix_url, near=None)
    for number in range(5):
        there.set(KEY, number)
        sees(here, number)
    monkeypatch.setattr(Bus, "learn", lambda *_: time.sleep(10 * staleness))  # the listener is held up
    monkeypatch.setattr(Bus, "listen", lambda *_: None)
    there.set(KEY, "new")
    time.sleep(staleness)
    assert here.get(KEY) == "new"


@pytest.mark.parametrize("staleness", [0.15, 1.0])
def test_quiet_values_are_served_near(caches: Caches, any_server: RedisServer, staleness: float):
    cache = caches(any_server.unix_url, staleness=staleness)
    cache.set(KEY, 1)
    before, until = cache.stats(), time.monotonic() + 1.5
    while time.monotonic() < until:
        assert cache.get(KEY) == 1
        time.sleep(0.001)
    after = cache.stats()
    assert after.near_hits - before.near_hits > 0.9 * (after.hits - before.hits)


# The listener while the engine lets it wait


@pytest.fixture
def listener(any_server: RedisServer, namespace: str) -> Iterator[Listener]:
    """A listener that waits for entries."""
    coherence = Coherence(Store(Limit(entries=9)), Flights(), time.monotonic, 60.0, wanted=True)
    spec = BackendSpec(any_server.unix_url, namespace, bus="stream", coherence=coherence)
    speak, found = functools.partial(speaker, spec), History(lambda: coherence.forgot("redis"))
    ears = Listener(Route(spec.url, Endpoint), spec, found, speak, 0.9, lambda: None)
    ears.start()
    eventually(lambda: coherence.tracked, "it hears of changes")
    yield ears
    ears.stop()
    eventually(lambda: not [thread for thread in threading.enumerate() if "listener" in thread.name], "it has ended")


def waiting(server: RedisServer) -> bool:
    """Whether the engine lets somebody wait."""
    return int(server.info("clients")["blocked_clients"]) > 0


def test_leases_are_renewed_while_it_waits(listener: Listener, any_server: RedisServer, namespace: str):
    key, until = f"{namespace}:a", time.monotonic() + 2.5
    any_server.command("SET", lease_of(key), "mine", "PX", 900)
    listener.hold("mine", lease(key, until))
    waited = 0
    while time.monotonic() < until - 0.1:
        waited += waiting(any_server)
        assert any_server.command("GET", lease_of(key)) == b"mine"
        time.sleep(0.01)
    assert waited > 10


def test_messages_are_heard_while_it_waits(listener: Listener, any_server: RedisServer):
    slowest, mail = 0.0, listener.inbox.expect("app:a")
    for number in range(5):
        mail.heard = None
        eventually(functools.partial(waiting, any_server), "it waits")
        sent = time.monotonic()
        any_server.command("PUBLISH", listener.channel(), f"filled {number} app:a")
        eventually(lambda: mail.heard is not None, "the message is heard")
        slowest = max(slowest, time.monotonic() - sent)
        assert mail.heard == (str(number), "filled")
    assert slowest < 0.2  # seconds; it would wait for 0.2 to 0.3
    mail.close()


def test_a_stop_ends_the_waiting(listener: Listener, any_server: RedisServer):
    eventually(functools.partial(waiting, any_server), "it waits")
    (thread,) = [thread for thread in threading.enumerate() if "listener" in thread.name]
    listener.stop()
    thread.join(0.15)
    assert not thread.is_alive()


# Users with restricted rights


@pytest.fixture
def mute(own_server: RedisServer) -> RedisServer:
    """A server with a user who may do everything but append to streams."""
    own_server.command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-xadd")
    return own_server


def mute_url(server: RedisServer) -> str:
    """Return the URL of that user."""
    return f"redis://mute:secret@127.0.0.1:{server.port}/0"


def test_who_may_not_announce_may_not_change(mute: RedisServer, caches: Caches, namespace: str):
    here = caches(mute.unix_url)
    here.set(KEY, 1)
    here.set("kept:1", 1)
    cache = Cache(mute_url(mute), bus="stream", namespace=namespace, observers=(), pool_min=1)
    try:
        assert cache.get("kept:1") == 1
        for change in (lambda: cache.set(KEY, 2), lambda: cache.delete(KEY), lambda: cache.incr("n:1")):
            with pytest.raises(BackendError, match=r"~b, .*\(bus='stream'\): the engine answered .*(xadd|NOPERM)"):
                change()
        assert cache.get("kept:1") == 1
        mute.command("ACL", "SETUSER", "mute", "+xadd")
        time.sleep(1.1)  # what is owed is not tried more often
        cache.get(KEY)
        eventually(lambda: here.get(KEY) is None, "what failed is made good and announced")
    finally:
        cache.close()


def test_who_cannot_begin_the_stream_is_told_why(mute: RedisServer):
    cache = Cache(mute_url(mute), bus="stream", observers=(), pool_min=1)
    try:
        cache.get_or_load(KEY, lambda: 1)
        eventually(lambda: "~b: the engine answered" in (cache.health().incoherence or ""), "health says why")
        assert cache.get(KEY) == 1
    finally:
        cache.close()


# The other bus, and other engines


def sent(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, bus: Any) -> list[list[Command]]:
    """Return the commands of every kind of change, the scripts of which the engine has forgotten."""
    backend: RedisBackend = made(url, "sync", namespace, bus=bus)
    recorded, execute = list[Command](), backend._link.execute

    def recording(*commands: Command) -> Any:
        recorded.extend(commands)
        return execute(*commands)

    item, counters, changes = Item("a", b"1" * 60, 60.0), backend.counters, list[list[Command]]()
    assert counters is not None
    monkeypatch.setattr(backend._link, "execute", recording)
    for change in (
        lambda: backend.set(item),
        lambda: backend.set_many([item]),
        lambda: backend.touch("a", 60.0, b"", b""),
        lambda: backend.touch("a", 60.0, b"1" * 8, b"2" * 8),
        lambda: backend.delete(["a"]),
        lambda: backend.add(item, b""),
        lambda: backend.leases.commit(item, "token"),
        lambda: backend.leases.fill([Fill(item, "token", b"", replaces=True)]),
        lambda: backend.marks.mark(["tag"], everything=False),
        lambda: counters.incr("n", 1, b"", 60.0, b""),
    ):
        recorded.clear()
        drive(backend.single(("SCRIPT", "FLUSH")))
        drive(change())
        changes.append(recorded[1:])
    drive(backend.close())
    return changes


def test_a_change_is_announced_after_it_and_not_one_command_more_is_sent_without_the_stream(
    any_server: RedisServer, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    stream, questions = bus_of(f"{namespace}s"), {"TIME", "ZREVRANGEBYSCORE", "PEXPIRE"}
    streaming = sent(any_server.unix_url, f"{namespace}s", monkeypatch, "stream")
    tracking = sent(any_server.unix_url, namespace, monkeypatch, "tracking")
    for with_it, without in zip(streaming, tracking, strict=True):
        kinds = [command[0] for command in with_it if stream not in command and command[0] not in questions]
        assert kinds == [command[0] for command in without if command[0] not in questions]
        assert [stream in command for command in with_it if command[0] not in questions][-1]
        assert not any(bus_of(namespace) in command for command in without)
    assert any_server.command("EXISTS", bus_of(namespace)) == 0


def test_an_embedded_server_has_it_too(embedded_directory: str, caches: Caches):
    url = f"embedded://{embedded_directory}"
    here, there = caches(url), caches(url)
    there.set(KEY, 1)
    assert near(here) == 1
    there.set(KEY, 2)
    sees(here, 2)
