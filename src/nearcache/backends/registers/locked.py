"""The record of a lock in an engine without scripts, and what changes in it; all of it is in one record.

Each change is stamped by a number that grows, which is the fencing token of an acquisition. Stamps also tell who lives:
who holds the lock or waits for it changes its own stamp now and then, and one that was seen unchanged for too long is
gone. So nobody's clock is compared with another's to say who holds a lock.
"""

import time
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from nearcache._core.ttl import LONGEST_TTL
from nearcache.backends.locks import LOCK_CLAIM, LOCK_PATIENCE, LockAsk

REFRESH: Final = LOCK_PATIENCE / 4
"""Seconds after which who waits changes its stamp, when it asks again."""

KEEP: Final = 2_592_000.0
"""Seconds (30 days) for which the last token is remembered."""

Stamp = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Life = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_TTL)]
Most = Annotated[int, msgspec.Meta(ge=1)]


class Holder(msgspec.Struct, frozen=True, array_like=True):
    """Somebody who holds the lock, or whose turn it is: until its stamp was seen for `life` seconds."""

    owner: str
    stamp: Stamp
    life: Life


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """Somebody who waits for its turn, and how many may hold the lock with it."""

    owner: str
    stamp: Stamp
    most: Most


class Locked(msgspec.Struct, array_like=True):
    """Who hold a lock, who wait for it in the order in which they came, and the last stamp.

    `most` is how many may hold it at a time, as the last who took it said.
    """

    last: Stamp = 0
    most: Most = 1
    holders: list[Holder] = []  # msgspec copies it for each
    waiting: list[Waiting] = []

    # What it says

    @property
    def stamps(self) -> dict[str, int]:
        """Return the stamps of all who are named."""
        return {holder.owner: holder.stamp for holder in self.holders} | {
            each.owner: each.stamp for each in self.waiting
        }

    @property
    def life(self) -> float:
        """How many seconds the engine has to keep it."""
        return max([KEEP, *(2 * holder.life for holder in self.holders)])

    def without_the_dead(self, unchanged: Callable[[str], float], asks: str) -> "Locked":
        """Return it without those who were unchanged for too long, but for the one who asks."""
        holders = [each for each in self.holders if each.owner == asks or unchanged(each.owner) < each.life]
        waiting = [each for each in self.waiting if each.owner == asks or unchanged(each.owner) < LOCK_PATIENCE]
        return Locked(self.last, self.most, holders, waiting)

    def held_by(self, owner: str) -> bool:
        """Tell whether somebody holds it."""
        return any(holder.owner == owner for holder in self.holders)

    def fits(self, most: int) -> bool:
        """Tell whether one who lets so many hold it at a time can join those who do."""
        return not self.holders or len(self.holders) < min(most, self.most)

    # What changes it

    def stamped(self) -> int:
        """Return a new stamp, larger than every one before: also where the record was lost, by the wall clock."""
        self.last = max(self.last, time.time_ns() // 1_000) + 1
        return self.last

    def take(self, ask: LockAsk) -> int:
        """Give it to the one who asks, if it is its turn and there is room; return the token, else 0."""
        if ask.fair and not self.held_by(ask.owner):
            self.pass_on()
        if not (self.held_by(ask.owner) or (self.fits(ask.most) and not (ask.fair and self.waiting))):
            return 0
        self._seat(ask.owner, ask.life, ask.most)
        return self.last

    def line_up(self, ask: LockAsk, unchanged: float) -> None:
        """Have somebody wait, or wait on, whose stamp was unchanged for so long."""
        places = [at for at, each in enumerate(self.waiting) if each.owner == ask.owner]
        if not places:
            self.waiting.append(Waiting(ask.owner, self.stamped(), ask.most))
        elif unchanged >= REFRESH:
            self.waiting[places[0]] = Waiting(ask.owner, self.stamped(), ask.most)

    def leave(self, owner: str) -> bool:
        """Have somebody hold it no longer, and wait no longer; tell whether that changed anything."""
        named = owner in self.stamps
        self.holders = [each for each in self.holders if each.owner != owner]
        self.waiting = [each for each in self.waiting if each.owner != owner]
        return named

    def pass_on(self) -> list[str]:
        """Give it to those who wait, as far as there is room, until they come for it or `LOCK_CLAIM` is over."""
        told = list[str]()
        while self.waiting and self.fits(self.waiting[0].most):
            first = self.waiting[0]
            self._seat(first.owner, LOCK_CLAIM, first.most)
            told.append(first.owner)
        return told

    def renew(self, owners: dict[str, float]) -> None:
        """Let owners live on, each for so many seconds."""
        self.holders = [
            Holder(each.owner, self.stamped(), owners[each.owner]) if each.owner in owners else each
            for each in self.holders
        ]

    def bytes(self) -> bytes:
        """Return what is stored."""
        return _out.encode(self)

    def _seat(self, owner: str, life: float, most: int) -> None:
        self.leave(owner)
        self.holders.append(Holder(owner, self.stamped(), life))
        self.most = most


_out = msgspec.msgpack.Encoder()
_in = msgspec.msgpack.Decoder(Locked)


def locked_in(raw: bytes | None) -> Locked:
    """Return the record that these bytes are; that of a lock which nobody holds if they are none."""
    try:
        return Locked() if raw is None else _in.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Locked()
