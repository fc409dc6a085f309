"""What is owed to an engine to which nobody listens, by a process that calls nothing more: Memcached, and Hazelcast
without a near tier. The servers here are frozen, killed and started again.
"""

import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import AsyncCache, BackendTimeoutError, Cache, Queued
from nearcache._engine.core import Core
from nearcache.backends.payer import Payer
from tests.faces import Awaited
from tests.hazelcast import Member, members
from tests.integration.redis.helpers import in_child, reap
from tests.promises import helpers
from tests.promises.helpers import broken, eventually, impatient, noticed
from tests.servers import MemcachedServer

Engine = Member | MemcachedServer


@pytest.fixture(scope="module")
def own_member() -> Iterator[Member]:
    """A member that tests of this module may freeze, and kill if they start it again."""
    with members() as (member,):
        yield member


@pytest.fixture(params=["memcached", "hazelcast"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """An engine that may be frozen, and killed and started again."""
    name = {"memcached": "own_memcached", "hazelcast": "own_member"}[request.param]
    found: Engine = request.getfixturevalue(name)
    return found


def url_of(engine: Engine) -> str:
    return engine.url if isinstance(engine, Member) else f"memcached://{engine.where}"


@pytest.fixture(params=["sync", "async"])
async def face(request: pytest.FixtureRequest, engine: Engine) -> AsyncIterator[Awaited]:
    """A cache of either flavour in a namespace of its own."""
    kind: Any = Cache if request.param == "sync" else AsyncCache
    namespace = f"u{os.urandom(5).hex()}"
    made = Awaited(kind(url_of(engine), namespace=namespace, near=None, timeout=1.0, pool_min=1, observers=()))
    deadline = time.monotonic() + helpers.PATIENCE
    while not await made.health():  # the first connection to a member that has just started may take longer than a call
        assert time.monotonic() < deadline, "the engine is there"
    yield made
    await made.close()
    eventually(lambda: not payers(), "nobody is at work any more")


def payers() -> list[threading.Thread]:
    """Return the threads that repeat invalidations."""
    return [thread for thread in threading.enumerate() if thread.name == "nearcache-payer"]


def core_of(face: Awaited) -> Core:
    core: Core = face.cache._parts.core
    return core


@contextmanager
def frozen(engine: Engine) -> Iterator[None]:
    """Freeze the engine for the `with` block."""
    engine.pause()
    try:
        yield
    finally:
        engine.resume()


@contextmanager
def gone(engine: Engine) -> Iterator[None]:
    """Do without the engine for the `with` block."""
    engine.kill()
    try:
        yield
    finally:
        engine.start()


async def everybody_is_told(face: Awaited, engine: Engine) -> None:
    """Invalidate while the engine is frozen, and call nothing more: soon nobody reads what was invalidated."""
    await face.set_many({"a:1": "old", "a:2": "new"}, ttl=600)
    await face.set("a:3", "old", ttl=600, tags=["t:1"])
    namespace = core_of(face).options.namespace
    with Cache(url_of(engine), namespace=namespace, near=None, timeout=5.0, observers=()) as other:
        assert len(other.get_many(["a:1", "a:2", "a:3"])) == 3
        with frozen(engine):
            assert isinstance(await face.delete("a:1"), Queued)
            assert isinstance(await face.invalidate_tags("t:1"), Queued)
        eventually(lambda: other.get_many(["a:1", "a:2", "a:3"]) == {"a:2": "new"}, "the engine is told")
    eventually(lambda: not core_of(face).owed, "nothing waits any more")
    eventually(lambda: not payers(), "nobody is at work any more")


async def test_an_invalidation_is_repeated_although_nobody_calls(face: Awaited, engine: Engine) -> None:
    await everybody_is_told(face, engine)
    assert await face.get("a:2") == "new"


async def test_what_is_repeated_with_the_next_call_only_is_noticed(face: Awaited, engine: Engine) -> None:
    with broken(Payer, "_start", lambda _: None), impatient(), noticed("the engine is told"):
        await everybody_is_told(face, engine)
    assert await face.get("a:1") is None


@pytest.mark.slow
async def test_an_engine_that_was_killed_is_told_when_it_is_there_again(face: Awaited, engine: Engine) -> None:
    await face.set("a:1", "old", ttl=600)
    with gone(engine):
        assert isinstance(await face.delete("a:1"), Queued)
        assert isinstance(await face.clear(), Queued)
        assert len(payers()) == 1
    eventually(lambda: not core_of(face).owed, "the engine is told")
    assert core_of(face).outage is None


@pytest.mark.slow
async def test_a_key_whose_write_had_no_answer_is_deleted_although_nobody_calls(face: Awaited, engine: Engine) -> None:
    await face.set("a:1", "old", ttl=600)
    with frozen(engine):
        with pytest.raises(BackendTimeoutError):
            await face.set("a:1", "new", ttl=600)
        assert core_of(face).owed == 1
    eventually(lambda: not core_of(face).owed, "the engine is told")
    assert await face.get("a:1") is None


@pytest.mark.slow
async def test_it_ends_with_the_cache(face: Awaited, engine: Engine) -> None:
    await face.set("a:1", "old", ttl=600)
    with frozen(engine):
        for number in (1, 2):
            assert isinstance(await face.delete(f"a:{number}"), Queued)
            assert len(payers()) == 1
        await face.close()
        eventually(lambda: not payers(), "it ends although it has not done its work")
    assert core_of(face).owed == 2
    deadline = time.monotonic() + helpers.PATIENCE
    while core_of(face).owed:
        assert await face.get("a:1") is None, "the next call that is answered repeats it first"
        assert time.monotonic() < deadline


async def test_nobody_is_at_work_while_nothing_is_owed(face: Awaited) -> None:
    await face.set("a:1", "value", ttl=600)
    await face.delete("a:1")
    await face.invalidate_tags("t:1")
    assert not payers()


async def what_comes_late_is_paid_too(face: Awaited) -> None:
    """Owe something when the thread has found that nothing is owed any more."""
    core, repeat, late = core_of(face), Payer._work, ["a:2"]

    def repeated(payer: Payer, ended: threading.Event) -> None:
        repeat(payer, ended)
        while late:
            core.owe(late.pop())

    with broken(Payer, "_work", repeated):
        core.owe("a:1")
        eventually(lambda: not core.owed and not late, "both are paid")


@pytest.mark.parametrize("engine", ["memcached"], indirect=True)
async def test_what_comes_to_be_owed_while_it_ends_is_repeated_too(face: Awaited) -> None:
    await what_comes_late_is_paid_too(face)


@pytest.mark.parametrize("engine", ["memcached"], indirect=True)
async def test_a_thread_that_does_not_look_again_is_noticed(face: Awaited) -> None:
    def run(payer: Payer, ended: threading.Event) -> None:
        payer._work(ended)
        payer._ended = None

    with broken(Payer, "_run", run), impatient(), noticed("both are paid"):
        await what_comes_late_is_paid_too(face)


@pytest.mark.parametrize("engine", ["memcached"], indirect=True)
async def test_a_forked_child_repeats_for_itself(face: Awaited, engine: Engine) -> None:
    core = core_of(face)
    await face.set("a:1", "old", ttl=600)
    with frozen(engine):
        assert isinstance(await face.delete("a:1"), Queued)

        def child() -> None:
            assert not payers()
            core.owe("a:2")
            assert len(payers()) == 1
            eventually(lambda: not core.owed, "the engine is told")

        pid = in_child(child)
    assert reap(pid) == 0
    eventually(lambda: not core.owed, "the engine is told")
