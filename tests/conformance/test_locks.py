"""Locks mean the same in both flavours and on every engine that has them; the others say so when one is asked for."""

import contextlib
import time

import pytest

from nearcache import ConfigError, InvalidKeyError, LockLostError, LockNotAcquiredError, UnsupportedError
from tests.faces import Awaited

ENGINES = "cannot do locks; engines that can: memory, embedded, redis, hazelcast"

LOOSE = 1.0
"""Seconds that somebody may be late, on a busy machine."""


@pytest.fixture
async def locked(face: Awaited) -> Awaited:
    """A cache whose engine has locks."""
    if face.cache._engine.backend.locks is None:
        pytest.skip("this engine has no locks")
    return face


async def test_an_engine_without_locks_says_so_before_the_block(face: Awaited) -> None:
    if face.cache._engine.backend.locks is None:
        with pytest.raises(
            UnsupportedError, match="cannot do locks; engines that can: memory, embedded, redis, hazelcast"
        ):
            face.cache.lock("a")
        with pytest.raises(
            UnsupportedError, match="cannot do locks; engines that can: memory, embedded, redis, hazelcast"
        ):
            face.cache.semaphore("a", 3)
        with pytest.raises(
            UnsupportedError, match="cannot do locks; engines that can: memory, embedded, redis, hazelcast"
        ):
            face.cache.rwlock("a")


async def test_a_block_holds_its_lock_and_no_longer(locked: Awaited) -> None:
    async with locked.lock("payment:42", ttl=30) as held:
        held.check()
        token = held.token
        with pytest.raises(LockNotAcquiredError, match="'payment:42'"):
            async with locked.lock("payment:42", wait=0):
                pass
        async with locked.lock("payment:43", wait=0):
            pass
    with pytest.raises(LockLostError, match="'payment:42' is not held any more: its block has ended"):
        held.check()
    with pytest.raises(LockLostError):
        _ = held.token
    async with locked.lock("payment:42", wait=0) as held:
        assert held.token > token
    assert repr(held) == "<lock 'payment:42'>"


async def test_a_block_that_raises_gives_its_lock_back(locked: Awaited) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with locked.lock("a"):
            raise KeyError("mine")
    async with locked.lock("a", wait=0):
        pass


@pytest.mark.parametrize("fair", [False, True])
async def test_who_waits_in_vain_waits_as_long_as_was_said(locked: Awaited, fair: bool) -> None:
    async with locked.lock("a", fair=fair):
        started = time.monotonic()
        with pytest.raises(LockNotAcquiredError, match=r"after 0\.3 s"):
            async with locked.lock("a", wait="300ms", fair=fair):
                pass
        waited = time.monotonic() - started
    assert 0.3 <= waited <= 0.3 + LOOSE
    async with locked.lock("a", wait=0, fair=fair):  # and is not waited for
        pass


async def test_a_lock_is_no_value(locked: Awaited) -> None:
    async with locked.lock("users:1") as held:
        await locked.set("users:1", "Ada")
        assert await locked.delete("users:1")
        with contextlib.suppress(NotImplementedError):
            await locked.clear()
        held.check()
        if locked.cache._engine.backend.scan is not None:
            assert await locked.scanned() == []
    assert await locked.get("users:1") is None


async def test_names_cannot_be_other_names(locked: Awaited) -> None:
    for name in ("a b", "{a}", "a}~k", "", ":", "a\n", 7):
        with pytest.raises(InvalidKeyError):
            locked.cache.lock(name)


async def test_wrong_times_are_refused(locked: Awaited) -> None:
    for options in ({"ttl": 0.5}, {"ttl": 0}, {"ttl": None}, {"wait": -1}, {"wait": None}, {"wait": True}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            locked.cache.lock("a", **options)
    with pytest.raises(TypeError, match="on_loss"):
        locked.cache.lock("a", on_loss="me")


# Semaphores


async def test_a_semaphore_has_so_many_permits(locked: Awaited) -> None:
    async with locked.semaphore("exports", 2, ttl=30) as one, locked.semaphore("exports", 2, wait=0) as two:
        assert two.token > one.token
        with pytest.raises(LockNotAcquiredError, match="semaphore 'exports' has all of its 2 permits taken"):
            async with locked.semaphore("exports", 2, wait=0):
                pass
        async with locked.lock("exports", wait=0), locked.semaphore("imports", 2, wait=0):
            one.check()
        token = two.token
    with pytest.raises(LockLostError, match="the semaphore 'exports' is not held any more: its block has ended; stop"):
        two.check()
    async with locked.semaphore("exports", 2, wait=0) as three, locked.semaphore("exports", 2, wait=0, fair=True):
        assert three.token > token
    assert repr(three) == "<semaphore 'exports'>"


async def test_wrong_numbers_of_permits_are_refused(locked: Awaited) -> None:
    for number in (0, -1, True, 2.0, None, "3"):
        with pytest.raises(ConfigError, match="permits is"):
            locked.cache.semaphore("a", number)
    with pytest.raises(ConfigError, match="that of a semaphore"):
        locked.cache.semaphore("a", 3, ttl=0.5)


# One who writes, or many who read


async def test_many_read_or_one_writes(locked: Awaited) -> None:
    async def refused(side: str) -> None:
        with pytest.raises(LockNotAcquiredError, match="the rwlock 'catalogue' is held by others"):
            async with locked.rwlock(side, "catalogue", wait=0):
                pass

    async with locked.rwlock("reading", "catalogue") as one, locked.rwlock("reading", "catalogue", wait=0) as two:
        tokens = [one.token, two.token]
        await refused("writing")
        async with locked.lock("catalogue", wait=0), locked.semaphore("catalogue", 1, wait=0):
            one.check()
    async with locked.rwlock("writing", "catalogue", wait=0) as held:
        tokens.append(held.token)
        await refused("reading")
        await refused("writing")
    with pytest.raises(LockLostError, match="the rwlock 'catalogue' is not held any more: its block has ended; stop"):
        held.check()
    async with locked.rwlock("reading", "catalogue", wait=0):
        pass
    assert tokens == sorted(set(tokens))
    assert repr(held) == repr(locked.cache.rwlock("catalogue")) == "<rwlock 'catalogue'>"
