"""The backend of embedded:// in both flavours, while its server and its users die."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from nearcache.backends.base import Backend, EngineReplaced, Item
from nearcache.backends.registry import BackendSpec, Flavour, build
from nearcache.errors import BackendError
from tests.embedded_world import Child, World, kill_server


def backend(world: World, url: str = "embedded://", flavour: Flavour = "sync") -> Backend:
    return build(BackendSpec(url, "app", pool_min=2, timeout=5.0), flavour)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Finish a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspended")


def item(text: str) -> Item:
    return Item("users:1", text.encode(), 60.0)


def kill(world: World) -> None:
    (socket,) = world.sockets()
    kill_server(socket)


def test_building_starts_nothing_and_using_starts_the_server(world: World) -> None:
    one = backend(world)
    assert world.sockets() == []
    run(one.set(item("Ada")))
    assert run(one.get("users:1")) == b"Ada"
    assert one.name == "embedded"
    run(one.close())
    world.wait_until_gone()
    run(one.close())


def test_opening_connects_ahead_and_learns_the_time(world: World) -> None:
    one = backend(world)
    run(one.open())
    assert one.time.known
    assert one.admin is not None
    facts = run(one.admin.facts())
    assert facts.limit_bytes == 256 * 1024 * 1024
    assert facts.policy == "allkeys-lfu"
    assert facts.persistent is False
    run(one.close())


def test_two_backends_share_the_data_and_the_last_to_close_stops_the_server(world: World) -> None:
    first, second = backend(world), backend(world)
    run(first.set(item("Ada")))
    assert run(second.get("users:1")) == b"Ada"
    run(first.close())
    assert run(second.get("users:1")) == b"Ada"
    run(second.close())
    world.wait_until_gone()


def test_a_closed_backend_connects_again_when_it_is_used(world: World) -> None:
    one = backend(world)
    run(one.set(item("Ada")))
    run(one.close())
    world.wait_until_gone()
    with pytest.raises(EngineReplaced):  # the cache has to tell it what it may have forgotten
        run(one.get("users:1"))
    assert run(one.get("users:1")) is None
    run(one.close())
    world.wait_until_gone()


def test_data_in_a_directory_outlives_a_killed_server(world: World) -> None:
    one = backend(world, world.data())
    run(one.set(item("Ada")))
    kill(world)
    assert answer_soon(one) == b"Ada"
    run(one.close())


@pytest.mark.parametrize("attempt", range(5))
def test_after_the_server_was_killed_the_next_call_starts_it_again(world: World, attempt: int) -> None:
    one = backend(world)
    run(one.set(item("Ada")))
    kill(world)
    assert answer_soon(one) is None
    run(one.set(item("Grace")))
    assert run(one.get("users:1")) == b"Grace"
    run(one.close())


def answer_soon(one: Backend) -> Any:
    """Read; a call on a connection of the killed server may fail, the next one may not."""
    try:
        return run(one.get("users:1"))
    except BackendError:
        return run(one.get("users:1"))


def test_a_forked_child_uses_the_same_server_over_connections_of_its_own(world: World) -> None:
    one = backend(world)
    run(one.set(item("Ada")))
    child = Child(lambda: (run(one.get("users:1")) or b"").decode())
    assert child.said() == "Ada"
    child.end()
    assert run(one.get("users:1")) == b"Ada"
    run(one.close())


def test_three_event_loops_in_a_row_use_the_same_server(world: World) -> None:
    one = backend(world, flavour="async")

    async def use() -> bytes | None:
        await one.open()
        before = await one.get("users:1")
        await one.set(item("Ada"))
        return before

    assert [asyncio.run(use()) for _ in range(3)] == [None, b"Ada", b"Ada"]
    asyncio.run(one.close())
    world.wait_until_gone()


async def test_many_tasks_at_once_start_one_server(world: World) -> None:
    one = backend(world, flavour="async")
    await asyncio.gather(*(one.set(Item(f"users:{n}", b"x", 60.0)) for n in range(200)))
    assert len(await one.get_many([f"users:{n}" for n in range(200)])) == 200
    assert len(world.sockets()) == 1
    await one.close()
    world.wait_until_gone()


async def test_in_asyncio_a_killed_server_is_started_again(world: World) -> None:
    one = backend(world, flavour="async")
    await one.set(item("Ada"))
    kill(world)
    for _ in range(3):
        try:
            await one.set(item("Grace"))
            break
        except BackendError:
            continue
    assert await one.get("users:1") == b"Grace"
    await one.close()


def test_the_data_of_another_user_is_not_reachable(world: World) -> None:
    one = backend(world)
    run(one.open())
    (socket,) = world.sockets()
    assert socket.stat().st_mode & 0o077 == 0
    assert socket.parent.stat().st_mode & 0o077 == 0
    assert socket.stat().st_uid == os.geteuid()
    run(one.close())
