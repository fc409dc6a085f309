"""Blocking connections: the pool, time budgets, interrupts, forks, and engines that go away."""

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from nearcache.backends.base import EngineReplaced, Item
from nearcache.backends.redis import RedisBackend
from nearcache.backends.transport import blocking
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.pool import Wire
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError
from tests.integration.redis.helpers import (
    KEYS,
    FakeServer,
    bulk,
    check,
    clients,
    dripping,
    drive,
    eventually,
    fake_server,
    fill,
    made,
    run_threads,
)
from tests.servers import RedisServer


def link_of(backend: RedisBackend) -> BlockingLink:
    """The connections behind a backend."""
    link = backend._link
    assert isinstance(link, BlockingLink)
    return link


def test_open_connects_the_minimum_ahead_and_close_may_be_called_twice(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_min=4)
    assert clients(own_server) == set()
    drive(backend.open())
    assert len(clients(own_server)) == 4
    drive(backend.open())
    assert len(clients(own_server)) == 4
    drive(backend.close())
    drive(backend.close())
    eventually(lambda: not clients(own_server), "connections end")
    assert drive(backend.get("a")) is None
    drive(backend.close())


def test_calls_one_after_the_other_share_the_most_recent_connection(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_min=3)
    drive(backend.open())
    before = clients(own_server)
    for _ in range(50):
        drive(backend.get("a"))
    assert clients(own_server) == before
    drive(backend.close())


def test_never_more_connections_than_the_maximum_however_many_threads(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_max=4)
    drive(fill(backend))
    most = [0]

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(150):
            drive(check(backend, draw.choice(KEYS)))
            most[0] = max(most[0], len(link_of(backend)._pool))

    run_threads(work, 16)
    assert most[0] == 4
    assert len(clients(own_server)) == 4
    drive(backend.close())


@pytest.fixture
def held() -> Iterator[tuple[FakeServer, threading.Event]]:
    """A server that answers only once the event is set."""
    let_go = threading.Event()

    def answer(command: list[bytes]) -> bytes:
        let_go.wait(10)
        return bulk(command[-1])

    with fake_server(answer) as server:
        yield server, let_go
        let_go.set()


@pytest.mark.alone
def test_waiting_too_long_for_a_connection_says_so_and_names_the_settings(held: tuple[FakeServer, threading.Event]):
    server, let_go = held
    backend = made(server.url, "sync", "t", pool_max=1, pool_timeout=0.05, timeout=5.0)
    holder = threading.Thread(target=lambda: drive(backend.get("a")))
    holder.start()
    eventually(lambda: server.commands, "the only connection is in use")
    began = time.monotonic()
    with pytest.raises(BackendTimeoutError, match=r"CACHE_POOL_MAX_SIZE.*CACHE_POOL_TIMEOUT") as raised:
        drive(backend.get("b"))
    assert 0.05 <= time.monotonic() - began < 2
    assert raised.value.ambiguous is False
    let_go.set()
    holder.join(10)
    assert drive(backend.get("b")) == b"t:b"
    assert server.accepted == 1
    drive(backend.close())


def test_a_waiter_gets_the_connection_that_is_given_back(held: tuple[FakeServer, threading.Event]):
    server, let_go = held
    backend = made(server.url, "sync", "t", pool_max=1, timeout=10.0)
    answers: dict[str, bytes | None] = {}

    def ask(key: str) -> None:
        answers[key] = drive(backend.get(key))

    threads = [threading.Thread(target=ask, args=(f"k{i}",)) for i in range(5)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(link_of(backend)._pool._waiters) == 4, "four wait")
    let_go.set()
    for thread in threads:
        thread.join(10)
    assert answers == {f"k{i}": f"t:k{i}".encode() for i in range(5)}
    assert server.accepted == 1
    drive(backend.close())


def test_a_waiter_gets_a_new_connection_in_the_place_of_a_broken_one(held: tuple[FakeServer, threading.Event]):
    server, let_go = held
    backend = made(server.url, "sync", "t", pool_max=1, timeout=10.0)
    failed: list[BaseException] = []
    answers: list[bytes | None] = []

    def first() -> None:
        try:
            drive(backend.get("a"))
        except BackendError as error:
            failed.append(error)

    holder = threading.Thread(target=first)
    holder.start()
    eventually(lambda: server.commands, "the only connection is in use")
    waiter = threading.Thread(target=lambda: answers.append(drive(backend.get("b"))))
    waiter.start()
    eventually(lambda: link_of(backend)._pool._waiters, "somebody waits")
    server.hang_up()
    holder.join(10)
    let_go.set()
    waiter.join(10)
    assert isinstance(failed[0], BackendUnavailableError)
    assert answers == [b"t:b"]
    drive(backend.close())


@pytest.mark.alone
def test_a_silent_engine_costs_the_time_budget_and_the_connection(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", timeout=0.2)
    drive(fill(backend))
    before = clients(own_server)
    own_server.pause()
    began = time.monotonic()
    with pytest.raises(BackendTimeoutError, match=r"GET t:k:1: no answer within 0\.2 s") as raised:
        drive(backend.get("k:1"))
    assert 0.19 <= time.monotonic() - began < 2
    assert raised.value.ambiguous
    own_server.resume()
    drive(check(backend, "k:2"))
    assert not clients(own_server) & before
    drive(backend.close())


@pytest.mark.alone
def test_a_dripping_engine_cannot_stretch_the_time_budget():
    with fake_server(lambda command: bulk(b"x" * 1000), dripping) as server:
        backend = made(server.url, "sync", "t", timeout=0.3)
        began = time.monotonic()
        with pytest.raises(BackendTimeoutError):
            drive(backend.get("a"))
        assert 0.29 <= time.monotonic() - began < 2
        drive(backend.close())


def test_a_server_that_does_not_greet_costs_the_time_budget_and_nothing_was_sent(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", timeout=0.2)
    own_server.pause()
    with pytest.raises(BackendTimeoutError, match="did not greet") as raised:
        drive(backend.set(Item("a", b"1", 60)))
    assert raised.value.ambiguous is False
    own_server.resume()
    assert drive(backend.get("a")) is None
    drive(backend.close())


def test_something_that_is_no_engine_is_an_error_that_says_so():
    with fake_server(lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        backend = made(server.url, "sync", "t")
        with pytest.raises(BackendUnavailableError, match="GET t:a: the connection broke"):
            drive(backend.get("a"))
        drive(backend.close())


def test_a_restarted_engine_is_found_again_and_told_of_before_anything_is_sent(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_min=5)
    drive(backend.open())
    own_server.kill()
    own_server.start()
    with pytest.raises(EngineReplaced) as raised:
        drive(backend.set(Item("a", b"1", 60)))
    assert raised.value.ambiguous is False
    assert drive(backend.get("a")) is None
    drive(backend.set(Item("a", b"1", 60)))
    assert drive(backend.get("a")) == b"1"
    drive(backend.close())


def test_a_missing_engine_is_named_without_credentials(own_server: RedisServer):
    backend = made(own_server.url.replace("redis://", "redis://user:secret@"), "sync", "t")
    own_server.kill()
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1:\d+ .*CACHE_URL") as raised:
        drive(backend.get("a"))
    assert raised.value.ambiguous is False
    assert "secret" not in repr(raised.value) + repr(raised.value.__cause__)
    with pytest.raises(BackendUnavailableError):
        drive(backend.open())
    assert len(link_of(backend)._pool) == 0


def test_a_connection_that_broke_before_any_reply_is_replaced_once_where_that_is_safe():
    answers: list[bytes | None] = [bulk(b"1"), None, bulk(b"2"), None, b":0\r\n", b"+OK\r\n", None, None]
    with fake_server(lambda command: answers.pop(0)) as server:
        backend = made(server.url, "sync", "t")
        assert drive(backend.get("a")) == b"1"
        assert drive(backend.get("a")) == b"2"
        with pytest.raises(BackendUnavailableError) as raised:
            drive(backend.set(Item("a", b"3", 60)))
        assert raised.value.ambiguous
        drive(backend.set(Item("a", b"4", 60)))
        with pytest.raises(BackendUnavailableError):
            drive(backend.get("a"))
        written = [b"DEL", b"DEL", b"SET"]
        assert [command[0] for command in server.commands] == [b"GET"] * 3 + written + [b"GET"] * 2
        drive(backend.close())


def test_a_connection_that_broke_late_is_not_replaced(monkeypatch):
    """A second try would take the whole time once more."""
    monkeypatch.setattr(blocking, "soon", lambda *_: False)
    answers: list[bytes | None] = [bulk(b"1"), None]
    with fake_server(lambda command: answers.pop(0)) as server:
        backend = made(server.url, "sync", "t")
        assert drive(backend.get("a")) == b"1"
        with pytest.raises(BackendUnavailableError, match="the connection broke"):
            drive(backend.get("a"))
        assert len(server.commands) == 2
        drive(backend.close())


def test_a_connection_that_broke_after_a_part_of_the_reply_is_not_retried():
    def answer(command: list[bytes]) -> bytes:
        return bulk(b"whole") if command[1] == b"t:a" else b"$5\r\nhal"

    def send_and_hang_up(connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        if not data.endswith(b"\r\n"):
            connection.close()

    with fake_server(answer, send_and_hang_up) as server:
        backend = made(server.url, "sync", "t")
        assert drive(backend.get("a")) == b"whole"
        with pytest.raises(BackendUnavailableError):
            drive(backend.get("b"))
        assert len(server.commands) == 2
        drive(backend.close())


@pytest.mark.parametrize("later", [False, True])
def test_an_unasked_word_on_an_idle_connection_is_never_taken_for_a_reply(later: bool):
    def send_more(connection: socket.socket, data: bytes) -> None:
        if later:
            connection.sendall(data)
            time.sleep(0.01)
            connection.sendall(bulk(b"unasked"))
        else:
            connection.sendall(data + bulk(b"unasked"))

    with fake_server(lambda command: bulk(command[-1]), send_more) as server:
        link = link_of(made(server.url, "sync", "t"))
        for key in ("a", "b", "c"):
            assert link.execute(("GET", key)) == [key.encode()]
            eventually(lambda: not link._pool._idle[-1].fit(), "the word arrives")
        assert server.accepted == 3
        drive(link.close())


NONSENSE = {
    "a number": b":5\r\n",
    "a truth": b"#t\r\n",
    "an empty list": b"*0\r\n",
    "a map that cannot be": b"%1\r\n*0\r\n+a\r\n",
    "a word about the reply": b"|1\r\n+a\r\n+b\r\n$1\r\nx\r\n",
    "no list": b"*-1\r\n",
    "a list of numbers": b"*1\r\n:5\r\n",
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
def test_a_reply_of_a_kind_that_no_engine_gives_is_an_engine_that_fails(reply: bytes):
    with fake_server(lambda command: reply) as server:
        backend = made(server.url, "sync", "t")
        for work in (backend.get_many(["a"]), backend.get_many(["a", "b"])):
            with pytest.raises(BackendUnavailableError):
                drive(work)
        if reply == NONSENSE["no list"]:
            assert drive(backend.get("a")) is None, "no list is no record either"
        else:
            with pytest.raises(BackendUnavailableError):
                drive(backend.get("a"))
        drive(backend.close())


def test_a_connection_taken_while_the_pool_is_closed_is_not_closed_under_its_user(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_min=2)
    drive(backend.open())
    pool = link_of(backend)._pool
    taken = pool.take()
    pool._idle.append(taken)
    drop = pool.drop

    def taking(wire: Wire) -> None:
        if taken in pool._idle:
            pool._idle.remove(taken)  # another thread takes it
        drop(wire)

    pool.drop = taking  # type: ignore[method-assign]
    pool.close()
    assert taken.connected
    pool.give_back(taken)
    assert len(pool) == 0
    drive(backend.close())
