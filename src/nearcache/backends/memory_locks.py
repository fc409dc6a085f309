"""Locks of memory://: the same decisions as the scripts of an engine, for the threads and tasks of one process."""

import math
import threading
import time
import weakref
from dataclasses import dataclass, field

from nearcache._core.clock import Clock
from nearcache._core.fork import on_fork
from nearcache.backends.base import LOCK_CLAIM, LOCK_PATIENCE, LockAsk, LockGrant, Renewal
from nearcache.near.inbox import Inbox, Mail


@dataclass(slots=True)
class _Lock:
    """One lock that somebody holds or waits for."""

    holder: str = ""
    until: float = 0.0
    waiting: dict[str, float] = field(default_factory=dict[str, float])
    """When those who wait last asked (monotonic), in the order in which they came."""

    def first(self) -> str:
        """Return who waits longest, "" if nobody does; those who have not asked for too long are gone."""
        now = time.monotonic()
        for owner, asked in list(self.waiting.items()):
            if now - asked <= LOCK_PATIENCE:
                return owner
            del self.waiting[owner]
        return ""


class MemoryLocks:
    """The port of locks, which both flavours share."""

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
            told = ""
            if not lock.holder and ask.fair and lock.first() not in ("", ask.owner):
                told = self._pass_on(ask.name, lock, fair=True)
            grant = self._take(ask, lock) if lock.holder in ("", ask.owner) else self._wait(ask, lock)
        self._tell(told)
        return grant

    def _take(self, ask: LockAsk, lock: _Lock) -> LockGrant:
        self._last = max(self._last, time.time_ns() // 1000) + 1
        lock.holder, lock.until = ask.owner, self._clock() + ask.life
        lock.waiting.pop(ask.owner, None)
        return LockGrant(self._last)

    def _wait(self, ask: LockAsk, lock: _Lock) -> LockGrant:
        if ask.waits:
            lock.waiting[ask.owner] = time.monotonic()
        return LockGrant(left=max(0.0, lock.until - self._clock()))

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        """Give a lock back."""
        with self._mutex:
            lock = self._present(name)
            lock.waiting.pop(owner, None)
            held = lock.holder == owner
            told = self._pass_on(name, lock, fair) if lock.holder in ("", owner) else ""
        self._tell(told)
        return held

    def keep(self, name: str, owner: str, life: float, sent: float) -> Renewal:
        """Let a lock live as long as it is held: who holds it and does not live any more has taken all this along."""
        with self._mutex:
            lock = self._present(name)
            if lock.holder == owner:
                lock.until = math.inf
        return Renewal(name, life, math.inf, math.inf)

    def let_go(self, owner: str) -> None:
        """There is nothing to renew."""

    def expect(self, owner: str) -> Mail:
        """Begin to listen."""
        return self._inbox.expect(owner)

    def after_fork(self) -> None:
        """Make a forked child's copy its own: those who hold locks or wait for them stayed in the parent."""
        self._mutex = threading.RLock()
        self._locks: dict[str, _Lock] = {}
        self._inbox.after_fork()

    def _present(self, name: str) -> _Lock:
        """Return the state of a lock as it is now; under the mutex."""
        lock = self._locks.setdefault(name, _Lock())
        if lock.holder and lock.until <= self._clock():
            lock.holder = ""
        return lock

    def _pass_on(self, name: str, lock: _Lock, fair: bool) -> str:
        """Let the lock go, and return who is to be told; under the mutex."""
        waiter = lock.first()
        lock.holder = waiter if fair else ""
        if waiter and fair:
            lock.until = self._clock() + LOCK_CLAIM
            del lock.waiting[waiter]
        elif not waiter:
            del self._locks[name]
        return waiter

    def _tell(self, waiter: str) -> None:
        if waiter:
            self._inbox.deliver(waiter, waiter, "free")


_all: "weakref.WeakSet[MemoryLocks]" = weakref.WeakSet()


def _after_fork() -> None:
    for locks in list(_all):
        locks.after_fork()


on_fork(in_child=_after_fork)
