"""Locks of memory://: the same decisions as the scripts of an engine, for the threads and tasks of one process."""

import math
import threading
import time
import weakref
from dataclasses import dataclass, field

from nearcache._core.clock import Clock
from nearcache._core.fork import on_fork
from nearcache.backends.locks import LOCK_CLAIM, LOCK_PATIENCE, LockAsk, LockGrant
from nearcache.backends.renewal import Renewal
from nearcache.near.inbox import Inbox, Mail


@dataclass(slots=True)
class _Lock:
    """One lock that somebody holds or waits for."""

    holders: dict[str, float] = field(default_factory=dict[str, float])
    """When the lease of each of those who hold it ends."""
    most: int = 1
    """How many may hold it at a time, as the last who took it said."""
    waiting: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])
    """When those who wait last asked (monotonic), and how many may hold it with them, in the order in which they came.
    """

    def first(self) -> str:
        """Return who waits longest, "" if nobody does; those who have not asked for too long are gone."""
        now = time.monotonic()
        for owner, (asked, _) in list(self.waiting.items()):
            if now - asked <= LOCK_PATIENCE:
                return owner
            del self.waiting[owner]
        return ""

    def fits(self, most: int) -> bool:
        """Tell whether one who lets so many hold it at a time can join those who do."""
        return not self.holders or len(self.holders) < min(most, self.most)

    def seat(self, owner: str, until: float, most: int) -> None:
        """Have somebody hold it."""
        self.holders[owner], self.most = until, most
        self.waiting.pop(owner, None)


class MemoryLocks:
    """The port of locks, which both flavours share."""

    replicated: bool = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inbox = Inbox()
        self._last = 0
        self.after_fork()
        _all.add(self)

    async def acquire(self, ask: LockAsk) -> LockGrant:
        """Ask for a lock."""
        with self._mutex:
            lock = self._present(ask.name)
            told = self._pass_on(lock, fair=True) if ask.fair and ask.owner not in lock.holders else []
            if ask.owner in lock.holders or (lock.fits(ask.most) and not (ask.fair and lock.first())):
                grant = self._take(ask, lock)
                told += self._pass_on(lock, ask.fair)
            else:
                grant = self._wait(ask, lock)
        self._tell(told)
        return grant

    def _take(self, ask: LockAsk, lock: _Lock) -> LockGrant:
        self._last = max(self._last, time.time_ns() // 1000) + 1
        lock.seat(ask.owner, self._clock() + ask.life, ask.most)
        return LockGrant(self._last)

    def _wait(self, ask: LockAsk, lock: _Lock) -> LockGrant:
        if ask.waits:
            lock.waiting[ask.owner] = time.monotonic(), ask.most
        return LockGrant(left=max(0.0, min(lock.holders.values()) - self._clock()))

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        """Give a lock back."""
        with self._mutex:
            lock = self._present(name)
            lock.waiting.pop(owner, None)
            held = lock.holders.pop(owner, None) is not None
            told = self._pass_on(lock, fair)
            if not (lock.holders or lock.waiting):
                del self._locks[name]
        self._tell(told)
        return held

    def keep(self, name: str, owner: str, life: float, sent: float) -> Renewal:
        """Let a lock live as long as it is held: who holds it and does not live any more has taken all this along."""
        with self._mutex:
            lock = self._present(name)
            if owner in lock.holders:
                lock.holders[owner] = math.inf
                self._kept[owner] = lock, life
        return Renewal(name, life, math.inf, math.inf)

    def let_go(self, owner: str) -> None:
        """Let a lock end after its life, unless it is given back: an interrupt may have come before its block."""
        with self._mutex:
            lock, life = self._kept.pop(owner, (_Lock(), 0.0))
            if owner in lock.holders:
                lock.holders[owner] = self._clock() + life

    def expect(self, owner: str) -> Mail:
        """Begin to listen."""
        return self._inbox.expect(owner)

    def after_fork(self) -> None:
        """Make a forked child's copy its own: those who hold locks or wait for them stayed in the parent."""
        self._mutex = threading.RLock()
        self._locks: dict[str, _Lock] = {}
        self._kept: dict[str, tuple[_Lock, float]] = {}
        """By owner: a lock that is held, and how many seconds it lives once nobody keeps it."""
        self._inbox.after_fork()

    def _present(self, name: str) -> _Lock:
        """Return the state of a lock as it is now; under the mutex."""
        lock, now = self._locks.setdefault(name, _Lock()), self._clock()
        for owner in [owner for owner, until in lock.holders.items() if until <= now]:
            del lock.holders[owner]
        return lock

    def _pass_on(self, lock: _Lock, fair: bool) -> list[str]:
        """Give a lock that has room to those who wait, if it is `fair`; return who is to be told; under the mutex."""
        told = list[str]()
        while (waiter := lock.first()) and lock.fits(most := lock.waiting[waiter][1]):
            told.append(waiter)
            if not fair:
                break
            lock.seat(waiter, self._clock() + LOCK_CLAIM, most)
        return told

    def _tell(self, waiters: list[str]) -> None:
        for waiter in waiters:
            self._inbox.deliver(waiter, waiter, "free")


_all: "weakref.WeakSet[MemoryLocks]" = weakref.WeakSet()


def _after_fork() -> None:
    for locks in list(_all):
        locks.after_fork()


on_fork(in_child=_after_fork)
