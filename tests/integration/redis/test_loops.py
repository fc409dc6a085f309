"""Awaiting connections over the life of event loops: several of them, their end, and forks inside them."""

import asyncio
import gc
import random
import socket
import threading
import warnings
from collections.abc import Coroutine
from typing import Any

from tests.integration.redis.helpers import (
    KEYS,
    PATIENCE,
    check,
    clients,
    fill,
    in_child,
    made,
    reap,
    soon,
    steps,
    streams_of,
)
from tests.servers import RedisServer


def test_three_loops_one_after_the_other_leave_nothing_open(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", pool_min=3)

    async def use() -> None:
        await backend.open()
        await fill(backend)
        await asyncio.gather(*(check(backend, key) for key in KEYS))

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(use())
            gc.collect()
    assert [str(warning.message) for warning in seen] == []
    assert clients(own_server) == set()


def test_a_loop_that_is_shut_down_with_calls_under_way_leaves_nothing_open(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", timeout=PATIENCE)
    tasks: list[asyncio.Task[bytes | None]] = []

    async def use() -> None:
        await fill(backend)
        own_server.pause()
        tasks.extend(asyncio.create_task(backend.get(key)) for key in KEYS)
        await steps(3)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        asyncio.run(use())
        own_server.resume()
        assert all(task.cancelled() for task in tasks)
        gc.collect()
    assert [str(warning.message) for warning in seen] == []
    assert clients(own_server) == set()


def test_a_backend_dropped_without_closing_closes_its_connections(own_server: RedisServer):
    async def use() -> None:
        backend = made(own_server.unix_url, "async", "t")
        await fill(backend)
        del backend
        gc.collect()
        await soon(lambda: not clients(own_server), "its connections end")

    asyncio.run(use())


def run_in_threads(*works: Coroutine[Any, Any, None]) -> None:
    """Run each in a loop of its own in a thread of its own; the first failure fails the test."""
    failures: list[BaseException] = []

    def run(work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_two_loops_in_two_threads_share_one_backend(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", pool_min=2)

    async def use(seed: int) -> None:
        draw = random.Random(seed)
        await fill(backend)
        for _ in range(30):
            await asyncio.gather(*(check(backend, draw.choice(KEYS)) for _ in range(20)))

    run_in_threads(use(1), use(2))
    assert clients(own_server) == set()


def test_closing_in_one_loop_closes_the_connections_of_another(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t")
    ready, closed = threading.Event(), threading.Event()

    async def hold() -> None:
        await fill(backend)
        (mine,) = streams_of(backend)
        ready.set()
        await soon(lambda: mine.ended, "the other loop closed")
        closed.set()
        await check(backend, KEYS[0])

    async def close() -> None:
        assert await asyncio.to_thread(ready.wait, PATIENCE)
        await backend.close()
        assert await asyncio.to_thread(closed.wait, PATIENCE)

    run_in_threads(hold(), close())


async def test_a_fork_inside_a_running_loop_leaves_the_parents_connections_alone(own_server: RedisServer):
    backend = made(own_server.unix_url, "async", "t", pool_min=3)
    await backend.open()
    await fill(backend)
    before = clients(own_server)

    async def child() -> None:
        await asyncio.gather(*(check(backend, key) for key in KEYS))
        await backend.close()
        gc.collect()

    calls = [asyncio.create_task(check(backend, key)) for key in KEYS]
    await steps(1)
    pids = [in_child(lambda: asyncio.run(child())) for _ in range(3)]
    await asyncio.gather(*calls)
    for pid in pids:
        assert await asyncio.to_thread(reap, pid) == 0
    await asyncio.gather(*(check(backend, key) for key in KEYS))
    await soon(lambda: clients(own_server) == before, "only the parent's connections are left")
    await backend.close()


async def test_a_connection_the_parent_closed_is_closed_for_the_server_although_a_child_lives(
    own_server: RedisServer,
):
    backend = made(own_server.unix_url, "async", "t")
    await backend.open()
    ours, theirs = socket.socketpair()

    async def child() -> None:
        theirs.recv(1)

    pid = in_child(lambda: asyncio.run(child()))
    await backend.close()
    try:
        await soon(lambda: not clients(own_server), "the parent's connections end")
    finally:
        ours.send(b"x")
        assert await asyncio.to_thread(reap, pid) == 0
        ours.close()
        theirs.close()
