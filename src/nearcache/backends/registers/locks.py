"""Locks in an engine without scripts: one record for each lock, which is swapped for another.

Nobody tells those who wait in other processes that a lock is free: they ask. One whose holder died is free when
somebody has seen the same stamp of it for as long as it lives, on its own clock.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Final

from nearcache.backends.locks import LockAsk, LockGrant
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Registers, Swap, good
from nearcache.backends.registers.locked import Locked, locked_in
from nearcache.backends.registers.renewing import Renewer
from nearcache.backends.registers.turns import Turns
from nearcache.backends.renewal import Renewal
from nearcache.near.inbox import Inbox, Mail

ASK_AGAIN: Final = (0.02, 0.25)
"""Seconds after which those who wait ask again, at least and at most: half of how long they have seen no change."""

MOST: Final = 10_000
"""Locks whose stamps are remembered; of more, all are forgotten, and have to be watched anew."""


Unchanged = Callable[[str], float]


class RegisterLocks:
    """The port of locks."""

    replicated: bool = False

    def __init__(self, registers: Registers, namespace: str, turns: Turns, inbox: Inbox, renewer: Renewer) -> None:
        self._registers = registers
        self._table = locks_of(namespace)
        self._turns = turns
        self._inbox = inbox
        self._renewer = renewer
        self._watched: dict[str, dict[str, tuple[int, float]]] = {}
        """By lock and owner: the stamp that was seen last, and since when."""

    async def acquire(self, ask: LockAsk) -> LockGrant:
        """Take a lock, or wait for it; the same owner gets it again, with a newer token."""
        return await self._turns.until_done(self._named(ask.name), functools.partial(self._acquire, ask))

    async def _acquire(self, ask: LockAsk, _first: bool) -> LockGrant | None:
        answer, found, unchanged = await self._look(ask.name)
        lock = found.without_the_dead(unchanged, ask.owner)
        token = lock.take(ask)
        if not token and ask.waits and ask.fair:
            lock.line_up(ask, unchanged(ask.owner))
        if lock.last != found.last and not await self._stored(ask.name, answer, lock):
            return None
        return LockGrant(token) if token else LockGrant(left=_pause(lock, unchanged))

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        """Give a lock back, or wait no longer; a fair one is somebody else's in the same step."""
        held = False

        async def take(_first: bool) -> bool | None:
            nonlocal held
            answer, found, unchanged = await self._look(name)
            held = held or found.held_by(owner)  # what has crossed this step may be the same step, sent twice
            lock = found.without_the_dead(unchanged, owner)
            left = lock.leave(owner)
            told = lock.pass_on() if fair else []
            if (left or told) and not await self._stored(name, answer, lock):
                return None
            for waiter in told:  # in this process; the others ask
                self._inbox.deliver(waiter, waiter, "free")
            return held

        return await self._turns.until_done(self._named(name), take)

    async def forget(self, name: str) -> None:
        """Remove the record of a lock, whoever holds it, and with it the last token."""
        good(await self._registers.run(Drop(self._named(name))))

    def keep(self, name: str, owner: str, life: float, sent: float) -> Renewal:
        """Have a lock renewed."""
        return self._renewer.hold(owner, Renewal(self._named(name), life, math.inf, sent))

    def let_go(self, owner: str) -> None:
        """Renew a lock no longer."""
        self._renewer.let_go(owner)

    def expect(self, owner: str) -> Mail:
        """Begin to listen; only this process is heard."""
        return self._inbox.expect(owner)

    def _named(self, name: str) -> str:
        return f"{self._table}:{name}"

    async def _look(self, name: str) -> tuple[Answer, Locked, Unchanged]:
        """Return what is there, and what tells how many seconds the stamp of an owner was seen unchanged."""
        (answer,) = good(await self._registers.run(Look(self._named(name))))
        now, found, known = time.monotonic(), locked_in(answer.raw), self._watched.get(name, {})
        seen = {
            owner: known[owner] if owner in known and known[owner][0] == stamp else (stamp, now)
            for owner, stamp in found.stamps.items()
        }
        if len(self._watched) >= MOST:
            self._watched.clear()
        self._watched.pop(name, None)
        if seen:
            self._watched[name] = seen
        return answer, found, lambda owner: now - seen[owner][1] if owner in seen else 0.0

    async def _stored(self, name: str, seen: Answer, lock: Locked) -> bool:
        """Put a record in the place of what was seen; False if others have crossed that."""
        record, raw, life = self._named(name), lock.bytes(), lock.life
        step = Swap(record, seen, raw, life) if seen.done else Add(record, raw, life)
        (answer,) = good(await self._registers.run(step))
        return answer.done


def locks_of(namespace: str) -> str:
    """Return the name of the table with a namespace's locks."""
    return f"{namespace}~k"


def _pause(lock: Locked, unchanged: Unchanged) -> float:
    least, most = ASK_AGAIN
    quiet = min((unchanged(holder.owner) for holder in lock.holders), default=0.0)
    return min(most, max(least, quiet / 2))
