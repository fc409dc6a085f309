"""One cache object, made when a module is imported, serves every event loop, and every process forked from this one."""

import asyncio
import gc
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.transport.aio import AwaitingLink
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import LIBRARY, ROUNDS, Crowd, broken, eventually, eventually_in_loop, values
from tests.servers import CHECKOUT, RedisServer

Key = Callable[[], str]


# Forks


def run(url: str, scenario: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program that forks, in a process of its own; not under coverage, whose lock hangs after such forks."""
    words = [sys.executable, "-m", "tests.promises.forking", scenario]
    settings = {"CACHE_URL": url, "CACHE_NAMESPACE": f"fork{uuid.uuid4().hex[:8]}"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment = {**inherited, **settings, "PYTHONPATH": f"{Path(LIBRARY).parent}{os.pathsep}{CHECKOUT}"}
    return subprocess.run(
        [*words, *([without] if without else [])],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=CHECKOUT,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    "engine", ["memory", "valkey", "embedded", "hazelcast", pytest.param("redis", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "scenario",
    [
        "preload",
        "used_before",
        "from_a_busy_process",
        "inside_a_loop",
        "during_a_load",
        "sees_what_others_write",
    ],
)
def test_one_object_serves_every_forked_process(request: pytest.FixtureRequest, engine: str, scenario: str) -> None:
    ran = run(url_of(engine, request), scenario)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


def test_connections_shared_by_two_processes_are_noticed(valkey_url: str) -> None:
    assert run(valkey_url, "used_before", without="connections").returncode != 0


def test_loads_that_a_child_waits_for_in_vain_are_noticed(valkey_url: str) -> None:
    assert run(valkey_url, "during_a_load", without="flights").returncode != 0


# Loops


async def names(cache: Cache, count: int) -> list[str]:
    """Load and read in tasks."""

    async def load(number: int) -> str:
        return f"name {number}"

    async def one(number: int) -> str:
        key = f"names:{number}"
        got = await cache.aio.get_or_load(key, lambda: load(number))
        assert await cache.aio.get(key) == got
        return got

    return await asyncio.gather(*[one(number) for number in range(count)])


def loops_in_a_row(cache: Cache) -> None:
    """Run three loops, one after the other, on one object."""
    for count in (5, 10, 20):
        assert asyncio.run(names(cache, count)) == [f"name {number}" for number in range(count)]


def test_three_loops_in_a_row_use_one_object(any_url: str, new_cache: NewCache) -> None:
    for _ in range(ROUNDS // 4):
        loops_in_a_row(new_cache(any_url, near=None))
    gc.collect()  # what a loop leaves behind would complain here


@pytest.mark.filterwarnings("ignore")
def test_connections_that_outlive_their_loop_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    first: dict[AwaitingLink, Any] = {}
    real = AwaitingLink._home

    def home(link: AwaitingLink) -> Any:
        if link not in first:
            first[link] = real(link)
        return first[link]

    cache = new_cache(valkey_url, near=None)
    with broken(AwaitingLink, "_home", home), pytest.raises((AssertionError, RuntimeError)):
        loops_in_a_row(cache)
    first.clear()
    gc.collect()


def test_two_loops_in_two_threads_use_one_object(any_url: str, new_cache: NewCache) -> None:
    cache = new_cache(any_url, near=None)

    async def many() -> list[str]:
        return await names(cache, 20)

    for _ in range(ROUNDS // 4):
        crowd = Crowd().tasks(1, many, loops=2).threads(2, lambda: cache.get_many(["names:1", "names:2"]))
        got = [value for value in values(crowd.start().finish()) if isinstance(value, list)]
        assert got == [[f"name {number}" for number in range(20)]] * 2
        cache.delete_many([f"names:{number}" for number in range(20)])


def test_a_loop_that_ends_closes_its_connections(new_cache: NewCache, own_server: RedisServer) -> None:
    """Without a word from anybody, and without a warning."""
    cache = new_cache(own_server.unix_url)
    for _ in range(3):
        asyncio.run(names(cache, 5))
        eventually(lambda: not connections(own_server), "they are closed")


def connections(server: RedisServer) -> list[bytes]:
    """Return what the server says of the connections for commands: those that listen belong to no loop."""
    clients: list[bytes] = server.command("CLIENT", "LIST").splitlines()
    return [client for client in clients if b"name=nearcache" in client and b" sub=0 " in client]


def test_the_blocking_face_works_inside_a_running_loop(any_url: str, new_cache: NewCache) -> None:
    """As in a notebook."""
    cache = new_cache(any_url)

    async def cell() -> None:
        cache.set("a:1", 1)
        assert cache.get_or_load("a:2", lambda: 2) == 2
        assert await cache.aio.get("a:1") == 1
        assert cache.get("a:2") == 2

    asyncio.run(cell())


def test_a_closed_cache_can_be_used_again(any_url: str, new_cache: NewCache) -> None:
    cache = new_cache(any_url)

    async def use() -> None:
        await cache.aio.set("a:1", 1)
        await cache.aio.aclose()
        await cache.aio.aclose()
        await cache.aio.set("a:2", 2)

    for _ in range(3):
        asyncio.run(use())
        cache.close()
        cache.close()
        assert cache.get("a:2") == 2


def test_closing_in_one_loop_leaves_the_others_alone(valkey_url: str, new_cache: NewCache) -> None:
    """Calls under way in another loop may fail, but its next ones connect again."""
    cache = new_cache(valkey_url, near=None)
    cache.set("a:1", 1)
    closed = list[bool]()

    async def stays() -> int:
        await eventually_in_loop(lambda: closed, "the other loop has closed the cache")
        got = list[int]()
        for _ in range(10):
            got.append(await cache.aio.get("a:1", 1))
        return sum(got)

    async def closes() -> None:
        assert await cache.aio.get("a:1") == 1
        await cache.aio.aclose()
        closed.append(True)

    for _ in range(ROUNDS):
        crowd = Crowd().tasks(1, stays).tasks(1, closes).start()
        values(crowd.finish())
        closed.clear()
