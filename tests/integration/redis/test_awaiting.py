"""Awaiting connections: many calls on few sockets, cancellation, time budgets, loops and forks."""

import asyncio
import os
import random
import signal
import threading
import time
from typing import Any

import pytest

from nearcache.backends.base import EngineReplaced, Item
from nearcache.backends.redis import dialect
from nearcache.backends.transport import stream as stream_module
from nearcache.backends.transport.link import Link
from nearcache.backends.transport.stream import Stream
from nearcache.errors import BackendTimeoutError, BackendUnavailableError
from tests.integration.redis.helpers import (
    KEYS,
    PATIENCE,
    bulk,
    check,
    clients,
    dripping,
    fake_server,
    fill,
    made,
    soon,
    steps,
    streams_of,
)
from tests.servers import RedisServer


async def test_a_thousand_calls_at_once_get_their_own_answers_on_one_trip(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t")
    await backend.set_many([Item(f"n:{i}", b"%d" % i, 600) for i in range(1000)])
    reads = int(own_server.info()["total_reads_processed"])
    answers = await asyncio.gather(*(backend.get(f"n:{i}") for i in range(1000)))
    assert answers == [b"%d" % i for i in range(1000)]
    assert int(own_server.info()["total_reads_processed"]) - reads < 100
    assert len(clients(own_server)) <= 2
    await backend.close()


async def test_calls_of_one_turn_take_effect_in_the_order_of_submission(valkey_server: RedisServer, namespace: str):
    backend = made(valkey_server.unix_url, "async", namespace, pool_min=3)
    await backend.open()
    for _ in range(50):
        _, first, _, second, deleted, third = await asyncio.gather(
            backend.set(Item("a", b"1", 60)),
            backend.get("a"),
            backend.set(Item("a", b"2", 60)),
            backend.get("a"),
            backend.delete(["a"]),
            backend.get("a"),
        )
        assert (first, second, deleted, third) == (b"1", b"2", 1, None)
    await backend.close()


async def test_open_connects_the_minimum_and_close_may_be_called_twice(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", pool_min=4)
    await backend.open()
    await backend.open()
    assert len(clients(own_server)) == 4
    await backend.close()
    await backend.close()
    await soon(lambda: not clients(own_server), "connections end")
    assert await backend.get("a") is None
    await backend.close()


async def test_crowded_connections_get_company_up_to_the_maximum():
    let_go = threading.Event()

    def answer(command: list[bytes]) -> bytes:
        let_go.wait(PATIENCE)
        return bulk(command[-1])

    with fake_server(answer) as server:
        backend = made(server.url, "async", "t", pool_max=3, timeout=PATIENCE)
        tasks: list[asyncio.Task[bytes | None]] = []
        for _ in range(40):
            tasks += [asyncio.create_task(backend.get("a")) for _ in range(100)]
            await asyncio.sleep(0.005)
        await soon(lambda: server.accepted == 3, "two more connections")
        let_go.set()
        assert set(await asyncio.gather(*tasks)) == {b"t:a"}
        assert server.accepted == 3
        await backend.close()


async def test_a_cancelled_call_never_leaves_its_reply_to_another(valkey_server: RedisServer, namespace: str):
    backend = made(valkey_server.unix_url, "async", namespace)
    await fill(backend)
    draw = random.Random(11)
    cancelled = 0
    for turn in range(600):
        victims = [asyncio.create_task(check(backend, draw.choice(KEYS))) for _ in range(3)]
        others = [asyncio.create_task(check(backend, draw.choice(KEYS))) for _ in range(3)]
        await steps(turn % 12)
        for victim in victims:
            victim.cancel()
        outcomes = await asyncio.gather(*victims, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        cancelled += sum(outcome is not None for outcome in outcomes)
        await asyncio.gather(*others)
    assert cancelled > 600
    await asyncio.gather(*(check(backend, key) for key in KEYS))
    assert len(streams_of(backend)) == 1
    await backend.close()


async def test_a_call_cancelled_while_connecting_costs_the_others_nothing(valkey_server: RedisServer, namespace: str):
    first = made(valkey_server.unix_url, "async", namespace)
    await fill(first)
    await first.close()
    cancelled = 0
    for turn in range(60):
        backend = made(valkey_server.unix_url, "async", namespace)
        victim = asyncio.create_task(check(backend, KEYS[0]))
        other = asyncio.create_task(check(backend, KEYS[1]))
        await steps(turn % 20)
        cancelled += victim.cancel()
        await asyncio.gather(victim, return_exceptions=True)
        await other
        assert len(streams_of(backend)) == 1
        await backend.close()
    assert cancelled > 10


@pytest.mark.alone
async def test_a_silent_engine_costs_the_time_budget_and_the_connection(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", timeout=0.2)
    await fill(backend)
    before = clients(own_server)
    own_server.pause()
    began = time.monotonic()
    outcomes = await asyncio.gather(*(backend.get(key) for key in KEYS), return_exceptions=True)
    assert 0.19 <= time.monotonic() - began < 2
    assert {type(outcome) for outcome in outcomes} == {BackendTimeoutError}
    assert str(outcomes[7]) == "GET t:k:7: no answer within 0.2 s"
    own_server.resume()
    await asyncio.gather(*(check(backend, key) for key in KEYS))
    assert not clients(own_server) & before
    await backend.close()


@pytest.mark.alone
async def test_a_dripping_engine_cannot_stretch_the_time_budget():
    with fake_server(lambda command: bulk(b"x" * 1000), dripping) as server:
        backend = made(server.url, "async", "t", timeout=0.3)
        began = time.monotonic()
        with pytest.raises(BackendTimeoutError):
            await backend.get("a")
        assert 0.29 <= time.monotonic() - began < 2
        await backend.close()


async def test_a_cancelled_call_whose_reply_never_comes_ends_the_connection(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", timeout=0.2)
    await fill(backend)
    own_server.pause()
    task = asyncio.create_task(backend.get(KEYS[0]))
    await steps(3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await soon(lambda: not streams_of(backend), "the connection is given up")
    own_server.resume()
    await check(backend, KEYS[0])
    await backend.close()


async def test_replies_that_came_while_the_loop_was_busy_are_not_late(valkey_server: RedisServer, namespace: str):
    backend = made(valkey_server.unix_url, "async", namespace, timeout=0.05)
    await fill(backend)
    tasks = [asyncio.create_task(backend.get(key)) for key in KEYS]
    await steps(3)
    time.sleep(0.2)
    assert await asyncio.gather(*tasks) == [key.encode() for key in KEYS]
    await backend.close()


class NoTransport(asyncio.Transport):
    """Leads nowhere."""

    def abort(self) -> None:
        """Do nothing."""


async def test_no_call_is_late_while_more_replies_arrive_after_a_pause_of_the_loop():
    loop = asyncio.get_running_loop()
    stream = Stream(dialect, 0.01)
    stream.connection_made(NoTransport())
    first, second = (stream.submit((("GET", key),), loop.time() + 0.01) for key in "ab")
    stream._outgoing.clear()
    time.sleep(0.05)
    loop.call_soon(stream.data_received, bulk(b"1"))
    loop.call_soon(loop.call_soon, stream.data_received, bulk(b"2"))
    assert (await first, await second) == ([b"1"], [b"2"])


@pytest.mark.alone
async def test_a_server_that_does_not_greet_costs_the_time_budget_and_nothing_was_sent(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", timeout=0.2)
    own_server.pause()
    began = time.monotonic()
    outcomes = await asyncio.gather(*(backend.get(key) for key in KEYS), return_exceptions=True)
    assert 0.19 <= time.monotonic() - began < 2
    assert {(type(outcome), getattr(outcome, "ambiguous", None)) for outcome in outcomes} == {
        (BackendTimeoutError, False)
    }
    assert len({id(outcome) for outcome in outcomes}) == len(KEYS)
    own_server.resume()
    assert await backend.get("a") is None
    await backend.close()


async def test_something_that_is_no_engine_is_an_error_that_says_so():
    with fake_server(lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        backend = made(server.url, "async", "t")
        with pytest.raises(BackendUnavailableError, match="GET t:a: the engine talks nonsense"):
            await backend.get("a")
        await backend.close()


async def replies_of(link: Link, command: tuple[str, ...]) -> list[Any]:
    """Send one command."""
    replies = link.execute(command)
    assert not isinstance(replies, list)
    return await replies


async def test_an_unasked_word_ends_the_connection_and_is_nobodys_reply():
    with fake_server(lambda command: bulk(command[-1]) + bulk(b"unasked")) as server:
        backend = made(server.url, "async", "t")
        link = backend._link
        for key in ("a", "b", "c"):
            assert await replies_of(link, ("GET", key)) == [key.encode()]
            await soon(lambda: not streams_of(backend), "the connection is given up")
        assert server.accepted == 3
        await backend.close()


async def test_a_restarted_engine_is_found_again_and_told_of_before_anything_is_sent(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", pool_min=5)
    await backend.open()
    own_server.kill()
    own_server.start()
    with pytest.raises(EngineReplaced):
        await backend.get("a")
    assert await backend.get("a") is None
    await backend.set(Item("a", b"1", 60))
    assert await backend.get("a") == b"1"
    await backend.close()


async def test_calls_under_way_when_the_engine_dies_fail_and_later_ones_name_the_address(own_server: RedisServer):
    own_server.command("CONFIG", "SET", "requirepass", "secret")
    backend = made(own_server.url.replace("redis://", "redis://:secret@"), "async", "t")
    await fill(backend)
    own_server.pause()
    tasks = [asyncio.create_task(backend.set(Item(key, b"1", 60))) for key in KEYS]
    await steps(3)
    os.kill(own_server.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, BackendUnavailableError) and outcome.ambiguous for outcome in outcomes)
    own_server.kill()
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1.*CACHE_URL") as raised:
        await backend.get("a")
    assert raised.value.ambiguous is False
    assert "secret" not in repr(raised.value)
    await backend.close()


async def test_a_connection_that_broke_late_is_not_replaced(monkeypatch):
    """A second try would take the whole time once more."""
    monkeypatch.setattr(stream_module, "soon", lambda *_: False)
    answers: list[bytes | None] = [bulk(b"1"), None]
    with fake_server(lambda command: answers.pop(0)) as server:
        backend = made(server.url, "async", "t")
        assert await backend.get("a") == b"1"
        with pytest.raises(BackendUnavailableError, match="the connection broke"):
            await backend.get("a")
        assert len(server.commands) == 2
        await backend.close()


async def test_a_connection_that_broke_before_any_reply_is_replaced_once_where_that_is_safe():
    answers: list[bytes | None] = [bulk(b"1"), None, bulk(b"2"), None, b":0\r\n", b"+OK\r\n", None, None]
    with fake_server(lambda command: answers.pop(0)) as server:
        backend = made(server.url, "async", "t")
        assert await backend.get("a") == b"1"
        assert await backend.get("a") == b"2"
        with pytest.raises(BackendUnavailableError) as raised:
            await backend.set(Item("a", b"3", 60))
        assert raised.value.ambiguous
        await backend.set(Item("a", b"4", 60))
        with pytest.raises(BackendUnavailableError):
            await backend.get("a")
        written = [b"DEL", b"DEL", b"SET"]
        assert [command[0] for command in server.commands] == [b"GET"] * 3 + written + [b"GET"] * 2
        await backend.close()


async def test_closing_fails_the_calls_under_way(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", timeout=PATIENCE)
    await fill(backend)
    own_server.pause()
    task = asyncio.create_task(backend.get("a"))
    await steps(3)
    await backend.close()
    with pytest.raises(BackendUnavailableError, match="closed"):
        await task


async def test_an_address_that_is_asked_for_is_asked_in_a_thread_and_before_each_connection(own_server: RedisServer):
    from nearcache.backends.redis import link
    from nearcache.backends.redis.connect import Endpoint
    from nearcache.backends.registry import BackendSpec
    from nearcache.backends.transport.dial import Route

    asked: list[int] = []

    def address() -> str:
        asked.append(threading.get_ident())
        return own_server.unix_url

    way = link(BackendSpec("embedded://", "t"), "async", Route(address, Endpoint))
    assert asked == []
    await replies_of(way, ("PING",))
    await replies_of(way, ("PING",))
    assert len(asked) == 1
    assert asked[0] != threading.get_ident()
    await way.close()
    await replies_of(way, ("PING",))
    assert len(asked) == 2
    await way.close()


@pytest.mark.parametrize("reply", [b":5\r\n", b"%1\r\n*0\r\n+a\r\n", b"*0\r\n"])
async def test_a_reply_of_a_kind_that_no_engine_gives_is_an_engine_that_fails(reply: bytes):
    with fake_server(lambda command: reply) as server:
        backend = made(server.url, "async", "t")
        for work in (backend.get("a"), backend.get_many(["a"])):
            with pytest.raises(BackendUnavailableError):
                await work
        await backend.close()
