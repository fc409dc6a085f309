"""A lock, or a permit, while it is held: until when that is certain, and why it is not any more.

The engine says who holds a lock, by a lease that is renewed while the block runs. The holder knows until when the lease
lives at least: it began when the last renewal that the engine agreed to was sent, on the holder's own clock. Past that,
less a margin to learn of it in time, the lock counts as lost, whatever the reason.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nearcache._io.port import Holder
from nearcache.backends.renewal import Renewal
from nearcache.errors import LockLostError
from nearcache.near.inbox import Mail

LARGEST_MARGIN: Final = 1.0
"""Seconds before the end of its lease at which a lock counts as lost: a tenth of the lease, but no more than this."""

STOP: Final = "stop what you do under it"
FENCE: Final = ", and have what you write to refuse tokens older than the last it has seen"

OnLoss = Callable[[LockLostError], object]


LOCK: Final = "lock"
SEMAPHORE: Final = "semaphore"
RWLOCK: Final = "rwlock"


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody wants of a lock that `most` may hold at a time; `life` and `wait` in seconds.

    So many `replicas` have to know of it.
    """

    kind: str
    name: str
    life: float
    wait: float
    fair: bool
    on_loss: OnLoss | None
    most: int
    replicas: int = 0

    @property
    def lock(self) -> str:
        """Return what the lock is called in the port; no name has an empty part, so that kinds do not meet."""
        return self.name if self.kind == LOCK else f"{self.name}::{self.kind}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Possession:
    """One acquisition of a lock, from then until its block ends."""

    def __init__(self, claim: Claim, owner: str, token: int, renewal: Renewal, holder: Holder | None) -> None:
        self.claim: Claim = claim
        self.owner: str = owner
        self.token: int = token
        self.renewal: Renewal = renewal
        self.holder: Holder | None = holder
        """The task that is cancelled when the lock is lost."""
        self.mail: Mail | None = None
        """What wakes who watches over it."""
        self.ended: bool = False
        """Whether the block has ended."""
        self.reported: bool = False
        """Whether its loss was reported."""
        self._pid = os.getpid()

    @property
    def until(self) -> float:
        """When it counts as lost (monotonic), unless it is renewed."""
        life = self.renewal.life
        return self.renewal.renewed + life - min(LARGEST_MARGIN, life / 10)

    @property
    def late(self) -> bool:
        """Whether it was not renewed in time."""
        return time.monotonic() >= self.until

    @property
    def inherited(self) -> bool:
        """Whether this process is a fork of the one that has it."""
        return self._pid != os.getpid()

    def trouble(self) -> LockLostError | None:
        """Return why the lock is not certainly held now, None if it is."""
        if self.inherited:
            return self._error("it is held by the process from which this one was forked")
        if self.ended:
            return self._error("its block has ended")
        return self.loss() if self.reported or self.renewal.lost or self.late else None

    def loss(self) -> LockLostError:
        """Return the error for a lock that was lost."""
        if self.renewal.lost:
            return self._error("the engine gave it to another, or forgot it")
        why = "this process was stopped or very busy, or the engine did not answer"
        return self._error(f"its lease of {self.renewal.life:g} s was not renewed in time: {why}")

    def _error(self, why: str) -> LockLostError:
        advice = STOP + (FENCE if self.claim.most == 1 else "")  # of those who share it, the older ones are right too
        return LockLostError(f"the {self.claim} is not held any more: {why}; {advice}")


class Held:
    """A lock, or a permit, while it is held: what the block of `cache.lock`, `semaphore` or `rwlock` works with."""

    def __init__(self, possession: Possession) -> None:
        self._possession = possession

    def __repr__(self) -> str:
        return f"<{self._possession.claim}>"

    @property
    def token(self) -> int:
        """The fencing token: larger than those of all acquisitions of this lock before.

        Raises `LockLostError` as `check` does.
        """
        self.check()
        return self._possession.token

    def check(self) -> None:
        """Raise `LockLostError` unless the lock is certainly still held.

        Asks nobody: the process knows until when the lease of the lock lives at least.
        """
        if (error := self._possession.trouble()) is not None:
            raise error
