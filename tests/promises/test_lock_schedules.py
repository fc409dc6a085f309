"""Locks over an engine without scripts, in many orders of the steps of its single records, and of what the clock shows.

Each actor is a process of its own. Who holds the lock does so for certain until its lease ends on its own clock, which
all of them share here; whoever gets it before that is one too many.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from nearcache.backends.locks import LockAsk
from nearcache.backends.registers import locks, renewing
from nearcache.backends.registers.locked import Locked
from nearcache.backends.registers.locks import RegisterLocks
from nearcache.backends.registers.renewing import Renewer
from nearcache.backends.registers.turns import AwaitingTurns
from nearcache.backends.renewal import Renewal
from nearcache.near.inbox import Inbox
from tests.promises.helpers import broken, dice, noticed
from tests.promises.schedules import Lucky, here, pause, waits
from tests.registers import Forgetful, Node, Server

LIFE = 3.0
SAMPLES = 60
MANY = 30_000
"""The same where one of them has to fail."""
TIMES = 40
"""How often somebody asks for a lock before giving up."""


@dataclass
class Inside:
    """Somebody who holds the lock."""

    token: int
    renewal: Renewal


class World:
    """A lock, and a clock."""

    def __init__(self, most: int) -> None:
        self.server = Server(by_bytes=True)
        self.server.pause = pause
        self.now = 1_000.0
        self.most = most
        self.inside = dict[str, Inside]()
        self.tokens = list[int]()

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def time_ns(self) -> int:
        """Return another time."""
        return int(self.now * 1e9)

    async def pass_time(self) -> None:
        """Let time go on, so much at each step that leases end now and then."""
        for _ in range(16):
            await here("time passes")
            self.now += LIFE / 4

    def enter(self, owner: str, token: int, renewal: Renewal) -> None:
        """Go in, where nobody may be for certain."""
        certain = [each for each in self.inside.values() if self.now < each.renewal.renewed + LIFE]
        assert len(certain) < self.most, "too many held it"
        assert self.most > 1 or token > max(self.tokens, default=0), "a token did not grow"
        self.tokens.append(token)
        self.inside[owner] = Inside(token, renewal)


class Process:
    """One of those who take the lock."""

    def __init__(self, world: World, name: str, *, fair: bool, renews: bool) -> None:
        self.name = name
        self._world = world
        self._registers = Forgetful(world.server)
        self._fair = fair
        self._renews = renews
        inbox = Inbox()
        self._renewer = Renewer(lambda _: self._registers, inbox)
        self._locks = RegisterLocks(self._registers, "app", AwaitingTurns(1.0), inbox, self._renewer)

    async def take_turns(self) -> None:
        """Hold the lock twice, for some steps each time."""
        for turn in range(2):
            owner = f"{self.name}{turn}"
            ask = LockAsk("a", owner, LIFE, self._fair, waits=True, most=self._world.most)
            for _ in range(TIMES):
                sent = self._world.now
                if token := (await self._locks.acquire(ask)).token:
                    await self._hold(owner, token, Renewal("app~k:a", LIFE, 0.0, sent))
                    break
                await here("wait")
            await self._locks.release("a", owner, self._fair)

    async def _hold(self, owner: str, token: int, renewal: Renewal) -> None:
        if self._world.now >= renewal.renewed + LIFE:
            return  # it was slow, and does not hold it for certain
        self._world.enter(owner, token, renewal)
        self._renewer._held[owner] = renewal
        for _ in range(6):
            await here("hold")
            if self._renews and self._world.now < renewal.renewed + LIFE:
                await self._renewer.renew(self._registers)
        self._renewer.let_go(owner)
        del self._world.inside[owner]


async def play(luck: random.Random, most: int, *, fair: bool) -> int:
    """Run one schedule; return how often somebody got the lock."""
    world = World(most)
    schedule = Lucky(luck)
    with ExitStack() as stack:
        for module in (locks, renewing):
            stack.enter_context(broken(module, "time", world))
        for name, renews in (("one", True), ("two", True), ("three", False)):
            schedule.add(name, Process(world, name, fair=fair, renews=renews).take_turns)
        schedule.add("clock", world.pass_time)
        outcomes = await schedule.run()
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert not errors, f"{errors[0]}: {' '.join(schedule.trace)}"
    return len(world.tokens)


def by_luck(most: int, *, fair: bool, samples: int = SAMPLES) -> None:
    """Run so many schedules."""

    async def run() -> int:
        with waits():
            return sum([await play(luck, most, fair=fair) for _ in range(samples)])

    luck = dice()
    assert asyncio.run(run()) > samples, "hardly anybody got it"


@pytest.mark.parametrize("fair", [False, True], ids=["unfair", "fair"])
@pytest.mark.parametrize("most", [1, 2])
def test_no_more_hold_a_lock_than_may(most: int, fair: bool) -> None:
    by_luck(most, fair=fair)


@pytest.mark.slow
@pytest.mark.parametrize("fair", [False, True], ids=["unfair", "fair"])
@pytest.mark.parametrize("most", [1, 2])
def test_no_more_hold_a_lock_than_may_in_many_orders(most: int, fair: bool) -> None:
    by_luck(most, fair=fair, samples=10 * SAMPLES)


def test_a_swap_that_compares_nothing_is_noticed() -> None:
    with broken(Node, "matches", lambda _node, present, _seen: present.done), noticed("too many held it|did not grow"):
        by_luck(1, fair=False, samples=MANY)


def test_a_watch_that_looks_at_no_stamp_is_noticed() -> None:
    """Somebody who renews is taken for dead then."""
    real = Locked.stamps
    with (
        broken(Locked, "stamps", property(lambda lock: dict.fromkeys(real.__get__(lock), 0))),
        noticed("too many held it"),
    ):
        by_luck(1, fair=False, samples=MANY)


@contextmanager
def shorter(share: float) -> Iterator[None]:
    """Take somebody over before the end of its lease."""
    real: Callable[..., Locked] = Locked.without_the_dead

    def without(lock: Locked, unchanged: Callable[[str], float], asks: str) -> Locked:
        return real(lock, lambda owner: unchanged(owner) / share, asks)

    with broken(Locked, "without_the_dead", without):
        yield


def test_a_lease_that_is_not_watched_to_its_end_is_noticed() -> None:
    with shorter(0.5), noticed("too many held it"):
        by_luck(1, fair=False, samples=MANY)
