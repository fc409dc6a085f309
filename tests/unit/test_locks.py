"""What becomes of a lock when its engine fails, its holder is interrupted, or its process forks."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from nearcache import AsyncCache, BackendError, Cache, LockLostError, LockNotAcquiredError
from nearcache._core.events import LockLost
from nearcache._engine.held import Possession
from nearcache._io.blocking import drive
from nearcache.backends.base import LostConnection
from nearcache.testing import FakeClock, Faults, faults
from tests.faces import Awaited
from tests.integration.redis.helpers import eventually, in_child, reap


class Ear:
    """Notes what was lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def on(self, event: object) -> None:
        if isinstance(event, LockLost):
            self.lost.append(event.entity)


@pytest.fixture(params=[Cache, AsyncCache])
async def face(request: pytest.FixtureRequest) -> Awaited:
    """A cache in memory of either flavour; what it tells is in `ear`."""
    ear = Ear()
    awaited = Awaited(request.param("memory://", observers=(ear,)))
    awaited.ear = ear  # type: ignore[attr-defined]
    return awaited


@pytest.fixture
def broken_engine(face: Awaited) -> Iterator[Faults]:
    """What goes wrong with its engine."""
    with faults(face.cache) as planned:
        yield planned


async def is_free(face: Awaited, name: str = "a") -> bool:
    try:
        async with face.lock(name, wait=0):
            return True
    except LockNotAcquiredError:
        return False


@contextmanager
def raises(kind: type[BaseException], why: str | None = None) -> Iterator[Any]:
    """Demand that a whole block ends with an error."""
    with pytest.raises(kind, match=why) as raised:
        yield raised


# An engine that fails


async def test_an_engine_that_does_not_answer_gives_no_lock(face: Awaited, broken_engine: Faults) -> None:
    broken_engine.down()
    with pytest.raises(BackendError):
        async with face.lock("a"):
            pytest.fail("there is no lock")


async def test_a_lock_whose_answer_was_lost_is_given_back(face: Awaited, broken_engine: Faults) -> None:
    broken_engine.fail("lock", done=True)
    with pytest.raises(BackendError):
        async with face.lock("a", wait=0):
            pytest.fail("nobody knows that it is held")
    broken_engine.noticed()
    assert await is_free(face)


async def test_a_block_that_has_done_its_work_does_not_fail_because_the_engine_does(
    face: Awaited, broken_engine: Faults
) -> None:
    async with face.lock("a"):
        broken_engine.down()
    broken_engine.up()
    assert not await is_free(face), "until its lease ends"
    assert face.ear.lost == []


async def test_a_lock_is_given_back_though_the_connection_was_lost(face: Awaited, broken_engine: Faults) -> None:
    for done in (False, True):
        async with face.lock("a"):
            broken_engine.fail("unlock", error=LostConnection("gone"), done=done)
        assert await is_free(face)
    assert face.ear.lost == []


async def test_who_cannot_know_whether_it_was_still_held_is_told(face: Awaited, broken_engine: Faults) -> None:
    with raises(LockLostError, "its lease of 60 s was not renewed in time"):
        async with face.lock("orders:7") as held:
            outlived(held)
            broken_engine.down()
    assert face.ear.lost == ["orders"]


def outlived(held: Any) -> None:
    """Make it look as if nothing was renewed for longer than the lease lives."""
    possession: Possession = held._possession
    possession.renewal.renewed = time.monotonic() - 60.0


# A loss


def test_a_lock_in_memory_whose_block_never_began_ends_after_its_life() -> None:
    clock = FakeClock()
    cache = Cache("memory://", clock=clock)
    locks = cache._engine.locks
    drive(locks.acquire(locks.terms(60, 0, False, None)("a")))  # an interrupt has come before the block
    gc.collect()
    clock.advance(59.9)
    with raises(LockNotAcquiredError), cache.lock("a", wait=0):
        pass
    clock.advance(0.2)
    with cache.lock("a", wait=0):
        pass


async def test_a_lock_that_was_late_and_still_stands_was_never_lost(face: Awaited) -> None:
    if face.is_async:
        return  # there the task is stopped
    async with face.lock("a") as held:
        outlived(held)
        with pytest.raises(LockLostError, match="stopped or very busy"):
            held.check()
    assert face.ear.lost == []


async def test_a_renewal_that_comes_after_the_lock_was_given_back_tells_of_no_loss(
    face: Awaited, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = face.cache._engine.backend.locks
    release = locks.release

    async def crossed(*args: Any) -> bool:
        stood: bool = await release(*args)
        held._possession.renewal.lost = True
        return stood

    monkeypatch.setattr(locks, "release", crossed)
    async with face.lock("a") as held:
        pass
    assert face.ear.lost == []


async def test_the_end_of_a_block_tells_that_the_engine_forgot_the_lock(face: Awaited) -> None:
    with raises(LockLostError, "the engine gave it to another, or forgot it"):
        async with face.lock("orders:7"):
            forget_all(face)
    assert face.ear.lost == ["orders"]


async def test_an_error_of_the_block_is_not_replaced(face: Awaited) -> None:
    with raises(KeyError):
        async with face.lock("orders:7"):
            forget_all(face)
            fail()
    assert face.ear.lost == ["orders"]


def fail() -> None:
    raise KeyError("mine")


def forget_all(face: Awaited) -> None:
    """Have the engine forget its locks, but not who waits."""
    face.cache._engine.backend.locks._locks.clear()


@contextmanager
def noted() -> Iterator[tuple[list[LockLostError], Callable[[LockLostError], None]]]:
    errors: list[LockLostError] = []

    def note(error: LockLostError) -> None:
        errors.append(error)
        raise ValueError("a defect of the program")

    yield errors, note


def lose(held: Any, cache: Any) -> None:
    """Have the engine say that the lock is lost, as a renewal does."""
    held._possession.renewal.lost = True
    cache._engine.backend.locks._inbox.deliver(held._possession.owner, "", "lost")


def test_a_thread_is_told_of_a_loss_at_once() -> None:
    cache = Cache("memory://")
    with noted() as (errors, note), raises(LockLostError), cache.lock("a", on_loss=note) as held:
        lose(held, cache)
        eventually(lambda: errors, "the loss is told")
        with pytest.raises(LockLostError, match="gave it to another"):
            held.check()
    assert len(errors) == 1
    eventually(lambda: "nearcache-beside" not in {thread.name for thread in threading.enumerate()}, "nobody watches")


def test_nobody_watches_over_a_lock_that_was_given_back() -> None:
    cache = Cache("memory://")
    with noted() as (errors, note), cache.lock("a", on_loss=note):
        assert "nearcache-beside" in {thread.name for thread in threading.enumerate()}
    eventually(lambda: "nearcache-beside" not in {thread.name for thread in threading.enumerate()}, "nobody watches")
    assert errors == []


async def test_the_task_that_holds_a_lost_lock_is_cancelled() -> None:
    cache, ends = AsyncCache("memory://"), list[str]()
    with noted() as (errors, note), raises(LockLostError, "gave it to another") as raised:
        async with cache.lock("a", on_loss=note) as held:
            lose(held, cache)
            try:
                await asyncio.sleep(30)
            finally:
                ends.append("cancelled")
    assert (ends, len(errors)) == (["cancelled"], 1)
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    await asyncio.sleep(0)


async def test_a_task_that_swallows_the_cancellation_is_told_all_the_same() -> None:
    cache = AsyncCache("memory://")
    with raises(LockLostError):
        async with cache.lock("a") as held:
            lose(held, cache)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_task_that_is_cancelled_by_others_ends_as_cancelled() -> None:
    cache = AsyncCache("memory://")

    async def hold() -> None:
        async with cache.lock("a"):
            await asyncio.sleep(30)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with cache.lock("a", wait=0):
        pass


async def test_a_task_that_is_cancelled_while_it_gives_a_lock_back_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = AsyncCache("memory://")
    locks = cache._engine.backend.locks
    assert locks is not None
    release, begun = locks.release, asyncio.Event()

    async def hangs_once(*args: Any) -> bool:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return await release(*args)

    async def hold() -> None:
        async with cache.lock("a"):
            pass

    monkeypatch.setattr(locks, "release", hangs_once)
    task = asyncio.create_task(hold())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with cache.lock("a", wait=5):
        pass


async def test_a_timeout_around_the_block_is_a_timeout() -> None:
    cache = AsyncCache("memory://")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), cache.lock("a"):
            await asyncio.sleep(30)


# Waiting


@pytest.mark.alone
@pytest.mark.parametrize("fair", [False, True])
async def test_a_task_that_is_cancelled_while_it_waits_holds_nobody_up(fair: bool) -> None:
    cache = AsyncCache("memory://")

    async def hold() -> None:
        async with cache.lock("a", fair=fair):
            pass

    async with cache.lock("a", fair=fair):
        gone, stays = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        started = time.monotonic()
    await stays
    assert time.monotonic() - started < 0.9, "it had to look by itself"


async def test_both_flavours_share_the_locks() -> None:
    cache = Cache("memory://")
    async with cache.aio.lock("a"):
        with pytest.raises(LockNotAcquiredError), cache.lock("a", wait=0):
            pass


def test_locks_work_where_values_are_not_cached() -> None:
    cache = Cache("memory://", near=None)
    with cache.disabled(), cache.lock("a"), pytest.raises(LockNotAcquiredError), cache.lock("a", wait=0):
        pass


# Forks


def test_a_fork_does_not_hold_the_locks_of_its_parent() -> None:
    cache = Cache("memory://")

    def child() -> None:
        with pytest.raises(LockLostError, match="the process from which this one was forked"):
            held.check()
        block.__exit__(None, None, None)
        with cache.lock("a", wait=0):
            os._exit(0)

    block = cache.lock("a")
    held = block.__enter__()
    assert reap(in_child(child)) == 0
    held.check()
    block.__exit__(None, None, None)
