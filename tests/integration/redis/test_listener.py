"""The listener of a process hears what others say and keeps leases alive, through restarts, forks and refusals."""

import functools
import gc
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache.backends.base import Ask, Fill, Item
from nearcache.backends.redis import speaker
from nearcache.backends.redis.connect import Endpoint
from nearcache.backends.redis.listener import Listener
from nearcache.backends.redis.names import lease_of
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.dial import Route
from nearcache.backends.transport.history import History
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from tests.integration.redis.helpers import drive, eventually, in_child, lease, made, reap
from tests.promises.helpers import SignalAt, interrupted
from tests.servers import RedisServer

# The package has a function of that name.
MODULE = importlib.import_module("nearcache.backends.listening")
LINE = importlib.import_module("nearcache.backends.redis.line")

LIFE = 0.9
"""Seconds that a lease lives; it is renewed every third of them, which leaves time for a slow machine."""

SHORT = 0.15
KEY = "app:a b"

Make = Callable[..., Listener]


@pytest.fixture
def make(namespace: str) -> Iterator[Make]:
    """Makes listeners that are stopped afterwards; none of their threads stays."""
    listeners = list[Listener]()
    gc.collect()  # caches of other tests
    eventually(lambda: not threads(), "all threads of other tests have ended")

    def made_(url: str, life: float = LIFE, stopped: Callable[[], None] = lambda: None, near: bool = False) -> Listener:
        coherence = Coherence(Store(Limit()), Flights(), time.monotonic, 1.0, wanted=near)
        spec = BackendSpec(url, namespace, coherence=coherence)
        speak, found = functools.partial(speaker, spec), History(lambda: coherence.forgot("redis"))
        listeners.append(Listener(Route(url, Endpoint), spec, found, speak, life, stopped))
        return listeners[-1]

    yield made_
    for listener in listeners:
        listener.stop()
    eventually(lambda: not threads(), "all threads have ended")


def threads() -> list[threading.Thread]:
    """Return the threads of all listeners."""
    return [thread for thread in threading.enumerate() if thread.name == "nearcache-listener"]


def listens(listener: Listener) -> str:
    """Wait until somebody listens, and return the channel."""
    eventually(listener.channel, "somebody listens")
    return listener.channel()


def hears(listener: Listener, server: RedisServer) -> bool:
    """Whether a message on the channel arrives."""
    channel, token, mail = listens(listener), os.urandom(4).hex(), listener.inbox.expect(KEY)
    try:
        assert server.command("PUBLISH", channel, f"filled {token} {KEY}") == 1
        eventually(lambda: mail.heard == (token, "filled"), "the message arrives")
    finally:
        mail.close()
    return True


# Hearing


def test_nothing_is_opened_before_it_is_needed(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)
    assert threads() == []
    channel = listens(listener)
    assert [thread.daemon for thread in threads()] == [True]
    assert channel.encode() in any_server.command("PUBSUB", "CHANNELS")
    assert listener.channel() == channel


def test_a_message_reaches_those_who_wait_for_its_key(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)
    other = listener.inbox.expect("app:other")
    assert hears(listener, any_server)
    assert other.heard in (None, ("", ""))


def test_those_who_waited_before_it_listened_look_again(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)
    mail = listener.inbox.expect(KEY)
    listener.channel()
    eventually(lambda: mail.heard == ("", ""), "who waits looks again")


def test_those_who_wait_look_again_when_the_engine_was_emptied(make: Make, own_server: RedisServer):
    listener = make(own_server.unix_url, near=True)
    assert hears(listener, own_server)
    mail = listener.inbox.expect(KEY)
    own_server.flush()  # the list of those who wait is gone, too
    eventually(lambda: mail.heard == ("", ""), "who waits looks again")


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"two words"])
def test_a_message_that_is_none_costs_the_connection_and_no_more(make: Make, any_server: RedisServer, payload: bytes):
    listener = make(any_server.unix_url)
    any_server.command("PUBLISH", listens(listener), payload)
    eventually(lambda: not listener.channel(), "the connection is given up")
    assert hears(listener, any_server)


# Renewing


def test_a_held_lease_lives_up_to_its_deadline_and_no_longer(make: Make, any_server: RedisServer, namespace: str):
    listener, key = make(any_server.unix_url), f"{namespace}:a"
    listens(listener)
    any_server.command("SET", lease_of(key), "mine", "PX", int(LIFE * 1000))
    until = time.monotonic() + 2 * LIFE
    listener.hold("mine", lease(key, until))
    while time.monotonic() < until - 0.1:
        assert any_server.command("GET", lease_of(key)) == b"mine"
        time.sleep(0.01)
    eventually(lambda: any_server.command("GET", lease_of(key)) is None, "the lease ends")
    eventually(lambda: listener._held == {}, "it is forgotten")


def test_a_lease_that_was_let_go_is_not_renewed(make: Make, any_server: RedisServer, namespace: str):
    listener, key = make(any_server.unix_url, SHORT), f"{namespace}:a"
    listens(listener)
    any_server.command("SET", lease_of(key), "mine", "PX", 200)
    listener.hold("mine", lease(key, time.monotonic() + 60, SHORT))
    listener.let_go("mine")
    eventually(lambda: any_server.command("GET", lease_of(key)) is None, "the lease ends")


def test_a_lease_is_renewed_though_nobody_listened_before(make: Make, any_server: RedisServer, namespace: str):
    listener, key = make(any_server.unix_url, SHORT), f"{namespace}:a"
    any_server.command("SET", lease_of(key), "mine", "PX", 60_000)
    listener.hold("mine", lease(key, time.monotonic() + 60, SHORT))
    eventually(lambda: 0 < any_server.command("PTTL", lease_of(key)) <= SHORT * 1000, "the lease gets its usual life")
    listener.let_go("mine")


def test_a_lease_of_somebody_else_is_not_renewed(make: Make, any_server: RedisServer, namespace: str):
    listener, key = make(any_server.unix_url, SHORT), f"{namespace}:a"
    listens(listener)
    any_server.command("SET", lease_of(key), "foreign", "PX", 200)
    listener.hold("mine", lease(key, time.monotonic() + 60, SHORT))
    eventually(lambda: any_server.command("GET", lease_of(key)) is None, "the lease ends")
    listener.let_go("mine")


# When the connection breaks


def test_it_hears_again_after_the_server_was_restarted(make: Make, own_server: RedisServer):
    listener = make(own_server.unix_url)
    assert hears(listener, own_server)
    own_server.kill()
    eventually(lambda: not listener.channel(), "nobody listens")
    own_server.start()
    assert hears(listener, own_server)
    assert len(threads()) == 1


def test_a_server_that_says_nothing_any_more_is_left(
    make: Make, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(LINE, "PATIENCE", SHORT)
    listener = make(own_server.unix_url, SHORT)
    listens(listener)
    own_server.pause()
    eventually(lambda: not listener.channel(), "the connection counts as broken")
    own_server.resume()
    assert hears(listener, own_server)


def test_it_comes_back_at_once_however_often_it_was_cut_off(
    make: Make, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(MODULE, "LONGEST_PAUSE", 1000.0)
    listener = make(own_server.unix_url)
    for _ in range(8):
        listens(listener)
        own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        eventually(lambda: not listener.channel(), "nobody listens")
    assert hears(listener, own_server)


# Stopping and forking


def test_a_stop_ends_the_thread_and_a_later_channel_starts_anew(make: Make, any_server: RedisServer):
    stops = list[None]()
    listener = make(any_server.unix_url, stopped=lambda: stops.append(None))
    channel, mail = listens(listener), listener.inbox.expect(KEY)
    listener.stop()
    listener.stop()
    assert (stops, mail.heard) == ([None], ("", ""))
    eventually(lambda: not threads(), "the thread has ended")
    eventually(lambda: channel.encode() not in any_server.command("PUBSUB", "CHANNELS"), "the connection is closed")
    assert listens(listener) == channel
    assert hears(listener, any_server)


def test_many_may_start_and_stop_it_at_once(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)

    def work() -> None:
        for number in range(30):
            listener.channel()
            if number % 3 == 0:
                listener.stop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert hears(listener, any_server)
    eventually(lambda: len(threads()) == 1, "one thread listens")


@interrupted
def test_a_start_that_was_interrupted_anywhere_is_made_up_by_the_next(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)
    for place in range(1, 1000):
        if not (where := SignalAt(place, threads=True).run(listener.start)):
            assert place > 5
            return
        eventually(listener.channel, f"somebody listens though the start was interrupted at {where}")
        listener.stop()
    raise AssertionError("the start never ended")


def test_a_fork_has_another_channel_and_no_thread(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)
    channel = listens(listener)
    listener.hold("the parent's", lease(KEY, time.monotonic() + 60))

    def child() -> None:
        assert threads() == []
        assert listener._held == {}
        assert listens(listener) != channel
        assert hears(listener, any_server)
        listener.stop()

    assert reap(in_child(child)) == 0
    assert listener.channel() == channel
    assert hears(listener, any_server)
    listener.let_go("the parent's")


def test_a_stop_in_a_fork_leaves_the_parent_listening(make: Make, any_server: RedisServer):
    listener = make(any_server.unix_url)
    listens(listener)
    assert reap(in_child(listener.stop)) == 0
    assert hears(listener, any_server)


# When the engine refuses


@pytest.fixture
def mute_url(own_server: RedisServer) -> str:
    """The URL of a user who may do everything but listen and publish."""
    own_server.command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "+@all", "resetchannels")
    return f"redis://mute:secret@127.0.0.1:{own_server.port}/0"


def denials(server: RedisServer) -> list[Any]:
    """Return what the server's users were denied."""
    log: list[Any] = server.command("ACL", "LOG")
    return log


def test_who_may_not_subscribe_only_does_not_listen(make: Make, own_server: RedisServer, mute_url: str, namespace: str):
    listener = make(mute_url)
    assert listener.channel() == ""
    eventually(lambda: denials(own_server), "the engine refuses")
    assert listener.channel() == ""
    backend = made(mute_url, "sync", namespace)
    try:
        leases = backend.leases
        assert drive(leases.acquire([Ask("a", "one", b"", 60.0)]))[0].leads
        assert drive(leases.acquire([Ask("a", "two", b"", 60.0)]))[0].holder == "one"
        assert drive(leases.fill([Fill(Item("a", b"1" * 60, 60.0), "one", b"")])) == [True]
        assert drive(backend.get("a")) == b"1" * 60
    finally:
        drive(backend.close())


def test_a_fill_by_a_user_who_may_not_publish_is_stored(own_server: RedisServer, mute_url: str, namespace: str):
    backend, waiting = made(mute_url, "sync", namespace), made(own_server.unix_url, "sync", namespace)
    try:
        eventually(waiting.listener.channel, "somebody listens")
        assert drive(backend.leases.acquire([Ask("a", "one", b"", 60.0)]))[0].leads
        assert drive(waiting.leases.acquire([Ask("a", "two", b"", 60.0)]))[0].holder == "one"
        assert drive(backend.leases.fill([Fill(Item("a", b"1" * 60, 60.0), "one", b"")])) == [True]
        assert drive(waiting.get("a")) == b"1" * 60
    finally:
        drive(waiting.close())
        drive(backend.close())


def test_it_listens_as_soon_as_it_may(
    make: Make, own_server: RedisServer, mute_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(MODULE, "LONGEST_PAUSE", 0.1)
    listener = make(mute_url)
    listener.channel()
    eventually(lambda: denials(own_server), "the engine refuses")
    own_server.command("ACL", "SETUSER", "mute", "allchannels")
    assert hears(listener, own_server)
