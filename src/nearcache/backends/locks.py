"""The port of locks: what an engine is asked for, and what it answers."""

from typing import Final, Protocol

import msgspec

from nearcache.backends.renewal import Renewal
from nearcache.near.inbox import Mail


class LockAsk(msgspec.Struct, frozen=True, gc=False):
    """A request for a lock.

    `owner` names who asks, another one for each acquisition, and the same each time somebody who waits asks again.
    `life` is how many seconds the lock lives unless it is renewed. Who `waits` asks again within `LOCK_LOOK` seconds.
    At `most` so many may hold it at the same time, or fewer if whoever took it last said so. So many `replicas` are
    waited for to acknowledge that it was taken, for a moment.
    """

    name: str
    owner: str
    life: float
    fair: bool
    waits: bool
    most: int = 1
    replicas: int = 0


class LockGrant(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `LockAsk`: a token above 0, or how many seconds another holds it at least, who may renew it.

    `replicas` is how many of those that were asked for have acknowledged it.
    """

    token: int = 0
    left: float = 0.0
    replicas: int = 0


LOCK_LOOK: Final = 1.0
"""Seconds within which who waits for a lock asks again, whatever was heard."""

LOCK_PATIENCE: Final = 2.0
"""Seconds for which somebody counts as waiting for a lock who does not ask again."""

LOCK_CLAIM: Final = 1.0
"""Seconds for which a fair lock is kept for the one whose turn it is."""


class Locks(Protocol):
    """Locks with names: each has one owner at a time among all processes, and a token that grows with each acquisition.

    Those who ask may allow more owners at a time. A lock whose owner does not renew it is free after its life. Tokens
    grow also where the engine forgot the last one: they are at least its time in microseconds.
    """

    replicated: bool
    """Whether replicas can be waited for."""

    async def acquire(self, ask: LockAsk) -> LockGrant:
        """Take a lock that has room and is nobody else's turn; else join those who wait, if the asker `waits`."""
        ...

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        """Give a lock back, or wait no longer; tell whether the owner held it. Whoever waits longest is told.

        If it is `fair`, it is theirs from then on, for `LOCK_CLAIM` seconds in which they have to ask for it.
        """
        ...

    def keep(self, name: str, owner: str, life: float, sent: float) -> Renewal:
        """Renew a lock from now on that was asked for at the time `sent` (monotonic).

        If it turns out to be lost, what `expect` has returned for the owner is told.
        """
        ...

    def let_go(self, owner: str) -> None:
        """Renew a lock no longer."""
        ...

    def expect(self, owner: str) -> Mail:
        """Begin to listen for the owner's turn, or the loss of its lock; to be called before the lock is asked for."""
        ...
