"""Checks of the port of locks: who holds one, in which order it is handed on, and what its token is."""

import itertools
import time

from nearcache.backends.base import Backend
from nearcache.backends.locks import LOCK_CLAIM, LockAsk, Locks
from nearcache.near.inbox import Mail
from nearcache.testing.suite import Suite, both

WITHIN = 10.0
"""Seconds after which something that has to happen is taken for never happening."""

LONG = 60.0
"""Seconds that a lock lives: longer than any check."""


class LockChecks(Suite):
    """What the port `locks` of every backend that has it must do."""

    @both
    async def test_one_of_those_who_ask_holds_the_lock(self, backend: Backend) -> None:
        """Others are told how long it lives unless it is renewed; another name is another lock."""
        if (locks := backend.locks) is None:
            return
        assert (await locks.acquire(_ask("one"))).token > 0
        other = await locks.acquire(_ask("two"))
        assert other.token == 0
        assert 0 < other.left <= LONG
        assert (await locks.acquire(_ask("two", name="another"))).token
        assert await locks.release("another", "two", False)
        assert await locks.release("a", "one", False)
        assert (await locks.acquire(_ask("two"))).token
        assert await locks.release("a", "two", False)

    @both
    async def test_each_token_is_larger_than_the_one_before(self, backend: Backend) -> None:
        """Also for the same owner, whose first answer may have been lost; it is of the order of the time."""
        if (locks := backend.locks) is None:
            return
        tokens = list[int]()
        for owner in ("one", "one", "two", "one"):
            tokens.append((await locks.acquire(_ask(owner))).token)
            if owner != "one" or len(tokens) > 1:
                assert await locks.release("a", owner, False)
        assert tokens == sorted(set(tokens))
        assert abs(tokens[0] / 1_000_000 - time.time()) < LONG

    @both
    async def test_only_its_owner_gives_a_lock_back(self, backend: Backend) -> None:
        """Somebody else, and one who has given it back already, change nothing."""
        if (locks := backend.locks) is None:
            return
        await locks.acquire(_ask("one"))
        assert not await locks.release("a", "two", False)
        assert not (await locks.acquire(_ask("three"))).token
        assert await locks.release("a", "one", False)
        assert not await locks.release("a", "one", False)

    @both
    async def test_a_lock_that_nobody_renews_is_free_after_its_life(self, backend: Backend) -> None:
        """And not before. Its owner cannot give it back any more, nor what the next one has."""
        if (locks := backend.locks) is None:
            return
        asked = time.monotonic()
        first = await locks.acquire(_ask("one", life=0.1))
        second = await _acquired(locks, _ask("two"))
        assert time.monotonic() - asked >= 0.1
        assert second > first.token
        assert not await locks.release("a", "one", False)
        assert await locks.release("a", "two", False)

    @both
    async def test_a_lock_that_is_kept_outlives_its_life(self, backend: Backend) -> None:
        """Until it is let go, and given back."""
        if (locks := backend.locks) is None:
            return
        sent = time.monotonic()
        assert (await locks.acquire(_ask("one", life=1.0))).token
        renewal = locks.keep("a", "one", 1.0, sent)
        while time.monotonic() < sent + 1.2:
            assert not (await locks.acquire(_ask("two"))).token
            time.sleep(0.01)
        assert renewal.renewed > sent
        assert not renewal.lost
        locks.let_go("one")
        assert await locks.release("a", "one", False)

    @both
    async def test_who_waits_is_told_that_the_lock_is_free(self, backend: Backend) -> None:
        """Whoever came first is, and may be overtaken; one who has left is not."""
        if (locks := backend.locks) is None:
            return
        await _hearing(backend, locks)
        await locks.acquire(_ask("one"))
        await _waiting(locks, "left", fair=False)
        await locks.release("a", "left", False)
        mail = await _waiting(locks, "two", fair=False)
        later = await _waiting(locks, "three", fair=False)
        assert await locks.release("a", "one", False)
        await _heard(backend, mail)
        assert later.heard is None
        assert (await locks.acquire(_ask("three"))).token
        assert await locks.release("a", "three", False)
        assert (await locks.acquire(_ask("two"))).token
        assert await locks.release("a", "two", False)

    @both
    async def test_one_who_is_told_and_leaves_passes_it_on(self, backend: Backend) -> None:
        """Or the others would not know until they look again."""
        if (locks := backend.locks) is None:
            return
        await _hearing(backend, locks)
        for fair in (False, True):
            await locks.acquire(_ask("one"))
            mail = await _waiting(locks, "two", fair=fair)
            later = await _waiting(locks, "three", fair=fair)
            await locks.release("a", "one", fair)
            await _heard(backend, mail)
            await locks.release("a", "two", fair)
            await _heard(backend, later)
            assert (await locks.acquire(_ask("three", fair=fair))).token
            assert await locks.release("a", "three", fair)

    @both
    async def test_a_fair_lock_goes_to_those_who_wait_in_the_order_in_which_they_came(self, backend: Backend) -> None:
        """Nobody overtakes them, and asking again does not cost them their place."""
        if (locks := backend.locks) is None:
            return
        await _hearing(backend, locks)
        owners = ["one", "two", "three", "four"]
        await locks.acquire(_ask(owners[0], fair=True))
        mails = {owner: await _waiting(locks, owner, fair=True) for owner in owners[1:]}
        await _waiting(locks, "two", fair=True)
        for place, (owner, successor) in enumerate(itertools.pairwise(owners)):
            assert await locks.release("a", owner, True)
            await _heard(backend, mails[successor])
            assert not (await locks.acquire(_ask("one in a hurry"))).token
            for other in ("stranger", *owners[place + 2 :]):
                assert not (await locks.acquire(_ask(other, fair=True, waits=other in mails))).token
            assert (await locks.acquire(_ask(successor, fair=True))).token
        assert await locks.release("a", "four", True)

    @both
    async def test_one_who_does_not_come_for_a_fair_lock_loses_the_turn(self, backend: Backend) -> None:
        """So that those who died cost the others little; a lock whose holder died goes to those who wait, too."""
        if (locks := backend.locks) is None:
            return
        await locks.acquire(_ask("one", fair=True, life=0.2))
        await _waiting(locks, "dead", fair=True)
        started = time.monotonic()
        token = await _acquired(locks, _ask("three", fair=True, waits=True))
        assert token
        assert time.monotonic() - started > LOCK_CLAIM
        assert await locks.release("a", "three", True)

    @both
    async def test_as_many_hold_a_lock_as_all_of_them_allow(self, backend: Backend) -> None:
        """Each for a life of its own; each token is larger than the one before."""
        if (locks := backend.locks) is None:
            return
        tokens = [(await locks.acquire(_ask(owner, most=3))).token for owner in ("one", "two", "three")]
        assert tokens == sorted(set(tokens))
        assert tokens[0] > 0
        assert not (await locks.acquire(_ask("four", most=3))).token
        assert await locks.release("a", "two", False)
        for most in (1, 2):
            assert not (await locks.acquire(_ask("four", most=most))).token
        assert (await locks.acquire(_ask("four", most=3))).token > tokens[-1]
        for owner in ("one", "three", "four"):
            assert await locks.release("a", owner, False)
        assert (await locks.acquire(_ask("alone"))).token
        assert not (await locks.acquire(_ask("four", most=3))).token
        assert await locks.release("a", "alone", False)

    @both
    async def test_a_place_that_nobody_renews_is_free_after_its_life(self, backend: Backend) -> None:
        """The others are held all the while."""
        if (locks := backend.locks) is None:
            return
        await locks.acquire(_ask("one", most=2))
        await locks.acquire(_ask("two", most=2, life=0.1))
        assert await _acquired(locks, _ask("three", most=2))
        assert not await locks.release("a", "two", False)
        assert await locks.release("a", "one", False)
        assert await locks.release("a", "three", False)

    @both
    async def test_all_who_find_room_are_told(self, backend: Backend) -> None:
        """A fair lock tells them together; one that is not, the next as soon as the first has come."""
        if (locks := backend.locks) is None:
            return
        await _hearing(backend, locks)
        for fair in (False, True):
            owners = [f"{name}-{fair}" for name in ("two", "three", "four")]  # what the others are told may come late
            await locks.acquire(_ask("one"))
            mails = [await _waiting(locks, owner, fair=fair, most=2) for owner in owners]
            await locks.release("a", "one", fair)
            for owner, mail in zip(owners[:2], mails[:2], strict=True):
                await _heard(backend, mail)
                assert (await locks.acquire(_ask(owner, fair=fair, most=2))).token
            assert mails[2].heard is None
            assert not (await locks.acquire(_ask(owners[2], fair=fair, most=2))).token
            for owner in owners:
                await locks.release("a", owner, fair)

    @both
    async def test_those_who_would_share_a_fair_lock_do_not_pass_one_who_would_not(self, backend: Backend) -> None:
        """However many come; when the one has had it, all who waited behind have it together."""
        if (locks := backend.locks) is None:
            return
        await _hearing(backend, locks)
        await locks.acquire(_ask("reader", fair=True, most=9))
        alone = await _waiting(locks, "writer", fair=True)
        mails = {name: await _waiting(locks, name, fair=True, most=9) for name in ("two", "three", "four")}
        assert not (await locks.acquire(_ask("stranger", fair=True, most=9))).token
        await locks.release("a", "reader", True)
        await _heard(backend, alone)
        assert not (await locks.acquire(_ask("two", fair=True, most=9, waits=True))).token
        assert (await locks.acquire(_ask("writer", fair=True))).token
        await locks.release("a", "writer", True)
        for owner, mail in mails.items():
            await _heard(backend, mail)
            assert (await locks.acquire(_ask(owner, fair=True, most=9))).token
        for owner in mails:
            assert await locks.release("a", owner, True)

    @both
    async def test_a_lock_is_no_record(self, backend: Backend) -> None:
        """A key of the same name is something else."""
        if (locks := backend.locks) is None:
            return
        await locks.acquire(_ask("one", name="t:0"))
        assert await backend.get("t:0") is None
        await backend.set(self.item(0))
        await backend.delete(["t:0"])
        assert await locks.release("t:0", "one", False)


def _ask(
    owner: str, *, name: str = "a", life: float = LONG, fair: bool = False, waits: bool = False, most: int = 1
) -> LockAsk:
    return LockAsk(name, owner, life, fair, waits, most)


async def _waiting(locks: Locks, owner: str, *, name: str = "a", fair: bool = False, most: int = 1) -> Mail:
    """Have an owner wait for its turn; return what is heard."""
    mail = locks.expect(owner)
    assert not (await locks.acquire(_ask(owner, name=name, fair=fair, waits=True, most=most))).token
    return mail


async def _hearing(backend: Backend, locks: Locks) -> None:
    """Wait until messages are heard: until then, who waits only looks now and then, as always where none are sent."""
    if not backend.hears:
        return
    deadline = time.monotonic() + WITHIN
    while True:
        await locks.acquire(_ask("one", name="first"))
        mail = await _waiting(locks, "two", name="first")
        await locks.release("first", "one", False)
        if _hears(mail, 0.1):
            break
        assert time.monotonic() < deadline, "nobody can hear"
        mail.close()
        await locks.release("first", "two", False)
    mail.close()
    await locks.release("first", "two", False)


def _hears(mail: Mail, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while mail.heard != (mail.key, "free") and time.monotonic() < deadline:
        time.sleep(0.001)
    return mail.heard == (mail.key, "free")


async def _heard(backend: Backend, mail: Mail) -> None:
    assert not backend.hears or _hears(mail, WITHIN), "who waits was not told"
    mail.close()


async def _acquired(locks: Locks, ask: LockAsk) -> int:
    deadline = time.monotonic() + WITHIN
    while not (grant := await locks.acquire(ask)).token:
        assert time.monotonic() < deadline, "the lock is never free"
    return grant.token
