"""Locks: how one is waited for, watched over while it is held, and given back."""

import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nearcache._core.events import Failure, LockLost
from nearcache._core.keys import entity_of
from nearcache._core.ttl import TTL, described, parse_duration
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core, new_token
from nearcache._engine.held import LOCK, RWLOCK, SEMAPHORE, Claim, OnLoss, Possession
from nearcache._io.port import Io, require_callable
from nearcache.backends.base import Backend, LostConnection, require
from nearcache.backends.locks import LOCK_LOOK, LockAsk, LockGrant, Locks
from nearcache.errors import BackendError, ConfigError, LockNotAcquiredError
from nearcache.options import Duration

SHORTEST_LEASE: Final = 1.0
"""Seconds that a lock lives at least, so that it can be renewed in time."""

EVERYBODY: Final = 2**31
"""How many may read at a time."""

BREATH: Final = 0.005
"""Seconds between two looks at a lock at least."""


class Locking:
    """The locks of one cache through one backend."""

    def __init__(self, core: Core, io: Io, backend: Backend, commands: Commands) -> None:
        self._core = core
        self._io = io
        self._backend = backend
        self._commands = commands

    def terms(
        self,
        ttl: TTL,
        wait: Duration,
        fair: bool,
        on_loss: OnLoss | None,
        *,
        kind: str = LOCK,
        most: int = 1,
        replicas: int = 0,
    ) -> Callable[[str], Claim]:
        """Check what is asked for, whatever the lock; return what claims the lock of a name."""
        port = self._port
        if _number(replicas, "replicas", 0) and not port.replicated:
            require(None, self._backend, "locks that replicas acknowledge", "redis")
        life = self._core.exact(ttl)
        if life < SHORTEST_LEASE:
            raise ConfigError(f"ttl is {described(ttl)}; that of a {kind} must be at least {SHORTEST_LEASE:g} second")
        if on_loss is not None:
            require_callable(on_loss, "on_loss")
        seconds = _seconds_of(wait)
        check = self._core.namespace.check_name
        return lambda name: Claim(kind, check(name), life, seconds, fair, on_loss, most, replicas)

    def permits(
        self, ttl: TTL, wait: Duration, fair: bool, on_loss: OnLoss | None, number: int
    ) -> Callable[[str], Claim]:
        """Do the same for one of so many permits of a semaphore."""
        return self.terms(ttl, wait, fair, on_loss, kind=SEMAPHORE, most=_number(number, "permits", 1))

    def sides(self, name: str, ttl: TTL, wait: Duration, on_loss: OnLoss | None) -> tuple[Claim, Claim]:
        """Return what claims the lock of a name to read, with others, and what claims it to write, alone.

        Both wait in one queue, so that those who read cannot keep out one who writes.
        """
        read, write = (self.terms(ttl, wait, True, on_loss, kind=RWLOCK, most=most) for most in (EVERYBODY, 1))
        return read(name), write(name)

    @property
    def _port(self) -> Locks:
        return require(self._backend.locks, self._backend, "locks", "memory, embedded, redis, hazelcast")

    async def acquire(self, claim: Claim) -> Possession:
        """Wait for the lock, and begin to keep it; raises `LockNotAcquiredError` after `claim.wait` seconds."""
        owner = new_token()
        try:
            token, sent = await self._turn(claim, owner)
            renewal = self._port.keep(claim.lock, owner, claim.life, sent)
            had = Possession(claim, owner, token, renewal, self._io.holder())
            weakref.finalize(had, self._port.let_go, owner).atexit = False  # an interrupt may lose it before its block
            if had.holder is not None or claim.on_loss is not None:
                self._io.beside(self._watch(had))
        except BaseException as error:
            if claim.wait or claim.replicas or not isinstance(error, LockNotAcquiredError):
                await self._release(claim, owner)
            raise
        return had

    async def _turn(self, claim: Claim, owner: str) -> tuple[int, float]:
        """Ask until it is the owner's turn; return the token, and when it was asked for."""
        ask = LockAsk(claim.lock, owner, claim.life, claim.fair, claim.wait > 0, claim.most, claim.replicas)
        until, port = time.monotonic() + claim.wait, self._port
        while True:
            mail = port.expect(owner)
            try:
                sent = time.monotonic()
                grant = await self._commands.run("lock", port.acquire, ask)
                if grant.token and grant.replicas >= claim.replicas:
                    return grant.token, sent
                now = time.monotonic()
                if now >= until:
                    raise LockNotAcquiredError(_refusal(claim, grant))
                left = LOCK_LOOK if grant.token else grant.left
                look = min(until, now + max(BREATH, min(left, LOCK_LOOK)))
                await self._io.wait(mail, lambda: look)  # noqa: B023 -- it waits now
            finally:
                mail.close()

    async def give_back(self, had: Possession, error: BaseException | None) -> None:
        """End the block, which has raised `error`, if any; raises `LockLostError` if the lock was lost meanwhile.

        The block's own error is not replaced, unless the task was cancelled because of the loss.
        """
        if had.inherited:
            return
        late, gone, had.ended = had.late, had.renewal.lost, True
        if had.mail is not None:
            had.mail.deliver("", "")
        stood = await self._release(had.claim, had.owner)
        had.renewal.lost = gone or stood is False  # a renewal that came behind the release says nothing
        lost = had.reported or had.renewal.lost or (stood is None and late)
        if lost and not had.reported:
            self._report(had)
        stopped = had.holder is not None and had.holder.stopped(error)
        if lost and (error is None or stopped):
            raise had.loss() from error

    async def _release(self, claim: Claim, owner: str) -> bool | None:
        """Give a lock back; tell whether the engine agrees that the owner held it, None if it does not answer.

        Then the lock is free when its lease ends.
        """
        self._port.let_go(owner)
        try:
            return await self._commands.run("unlock", self._port.release, claim.lock, owner, claim.fair)
        except LostConnection:  # it may have been done, so that a second answer says nothing
            await self._release_again(claim, owner)
        except BackendError:
            pass
        except GeneratorExit:
            raise
        except BaseException:
            if self._io.holder() is not None:  # the task was cancelled in here, which is no reason to keep others out
                self._io.beside(self._release_again(claim, owner))
            raise
        return None

    async def _release_again(self, claim: Claim, owner: str) -> None:
        with suppress(BackendError):
            await self._commands.run("unlock", self._port.release, claim.lock, owner, claim.fair)

    async def _watch(self, had: Possession) -> None:
        """Wait until the lock is given back, or lost; then report that, and stop the task that holds it."""
        while not (had.ended or had.renewal.lost or had.late):
            had.mail = self._port.expect(had.owner)
            try:
                if not _over(had):
                    await self._io.wait(had.mail, lambda: had.until)
            finally:
                had.mail.close()
        if not had.ended:
            self._report(had)
            if had.holder is not None:
                had.holder.stop()

    def _report(self, had: Possession) -> None:
        had.reported, entity = True, entity_of(had.claim.name)
        self._core.emit(LockLost(entity))
        if had.claim.on_loss is not None:
            try:
                had.claim.on_loss(had.loss())
            except Exception as error:  # noqa: BLE001 -- somebody else's code
                self._core.emit(Failure("observer", entity, type(error).__name__))


def _over(had: Possession) -> bool:
    """Tell whether it ended, or was lost, before anybody listened for that."""
    return had.ended or had.renewal.lost


def _number(given: object, name: str, least: int) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and given >= least:
        return given
    raise ConfigError(f"{name} is {given!r}; it must be an int of at least {least}")


def _seconds_of(wait: Duration) -> float:
    """Return how many seconds to wait; 0 is allowed."""
    no_wait = isinstance(wait, (int, float)) and not isinstance(wait, bool) and wait == 0
    return 0.0 if no_wait else parse_duration(wait, "wait")


def _refusal(claim: Claim, grant: LockGrant) -> str:
    waited = f"after {claim.wait:g} s" if claim.wait else "and wait is 0"
    if grant.token:
        known = f"acknowledged by {grant.replicas} of {claim.replicas} replicas"
        return f"the {claim} was {known}, {waited}; it was given back: are so many connected, and keep up?"
    held = {
        LOCK: "is held by somebody else",
        SEMAPHORE: f"has all of its {claim.most} permits taken",
        RWLOCK: "is held by others, or awaited by one who came before",
    }
    return f"the {claim} {held[claim.kind]}, {waited}; {claim.kind}s are not re-entrant"
