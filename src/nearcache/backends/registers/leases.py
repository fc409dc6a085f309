"""Leases in an engine without scripts: the record of a key is its lease, a stub that names who loads.

Every write and deletion of the key replaces the stub, and so revokes the lease in the same step. A stub that was lost
refuses as well. A lease ends when the same stub was seen for as long as it says, on the clock of who waits: no clocks
are compared, and a stub that carries a record may live as long as that has to.
"""

import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from nearcache.backends.base import BACK_OFF, Ask, Fill, Grant, Item, identity_of, in_part
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Step, Swap, each_good
from nearcache.backends.registers.records import Stub, stub, stub_in
from nearcache.codecs.envelope import FILL_ID
from nearcache.errors import BackendError
from nearcache.near.inbox import Inbox, Mail

if TYPE_CHECKING:
    from nearcache.backends.registers.backend import RegisterBackend

LEASE_LIFE: Final = 30.0
"""Seconds until the lease of a loader that died is free; nobody renews it."""

KEPT: Final = 2.0
"""Seconds that the engine keeps a stub beyond its life, since it may round seconds down."""

ASK_AGAIN: Final = (0.02, 0.25)
"""Seconds after which those who wait ask again, at first and at most; doubled each time."""

TRIES: Final = 20
"""How often a step is taken again that others have crossed."""

NOT_ASKED: Final = Answer(False)
"""Stands for the answer to a step that was not worth taking."""

MOST: Final = 10_000
"""Leases that are remembered; of more, all are forgotten, and have to be looked at again."""


class Mine(NamedTuple):
    """A lease of this process: its stub's state in the engine, and the identity of the record that it carries."""

    answer: Answer
    seen: bytes


class Watched(NamedTuple):
    """Somebody else's stub: since when it was seen, and how often."""

    salt: bytes
    since: float
    times: int


class RegisterLeases:
    """The port of leases."""

    life: float = LEASE_LIFE

    def __init__(self, backend: "RegisterBackend", inbox: Inbox, enveloped: bool) -> None:
        self._backend = backend
        self._inbox = inbox
        self._enveloped = enveloped
        self._mine: dict[str, dict[str, Mine]] = {}
        self._watched: dict[str, Watched] = {}

    def identity(self, raw: bytes | None) -> bytes:
        """Return the fill id of a record, or the digest of one without a header."""
        if raw is None:
            return b""
        return identity_of(raw[FILL_ID] if self._enveloped else hashlib.sha1(raw, usedforsecurity=False).digest())

    async def acquire(self, asks: Sequence[Ask]) -> list[Grant]:
        """Ask for leases: one trip where there are no records yet, two where some have to be replaced."""
        told = dict[int, Grant | BackendError]()
        for turn in range(TRIES):
            told |= await self._ask({at: ask for at, ask in enumerate(asks) if at not in told}, fresh=not turn)
            if len(told) == len(asks):
                break
        grants = {at: each for at, each in told.items() if isinstance(each, Grant)}
        if errors := [each for each in told.values() if isinstance(each, BackendError)]:
            raise in_part(errors, {asks[at].key: grant for at, grant in grants.items()})
        return [grants.get(at, Grant(left=ASK_AGAIN[1])) for at in range(len(asks))]

    async def _ask(self, asks: Mapping[int, Ask], *, fresh: bool) -> dict[int, Grant | BackendError]:
        """Try to get leases once; return what came of it, but for those that others have crossed."""
        answers = await self._backend.run(*map(self._add, asks.values()), fresh=fresh)
        decided = {at: self._decide(ask, answer) for (at, ask), answer in zip(asks.items(), answers, strict=True)}
        told = {at: each for at, each in decided.items() if isinstance(each, (Grant, BackendError))}
        swaps = {at: each for at, each in decided.items() if isinstance(each, Swap)}
        for at, answer in zip(swaps, await self._backend.run(*swaps.values()) if swaps else (), strict=True):
            if answer.error is not None:
                told[at] = answer.error
            elif answer.done:
                told[at] = self._lead(asks[at], answer, swaps[at].raw)
        return told

    def _decide(self, ask: Ask, answer: Answer) -> Grant | BackendError | Swap | None:
        """Say what comes of an ask where this is found, or what that has to be swapped for; None if it was lost."""
        raw = answer.raw
        if raw is None:
            return answer.error
        found = stub_in(raw)
        old = raw if found is None else found.old
        if old is not None and self.identity(old) != ask.seen:
            return Grant(raw=self._backend.inward(old))
        if found is not None:
            if found.token == ask.token:
                return self._lead(ask, answer, raw)
            if (left := self._left(ask.key, found)) > 0:
                return Grant(left=left, holder=found.token)
        return self._swap(ask, answer, old)

    def _lead(self, ask: Ask, answer: Answer, raw: bytes) -> Grant:
        """Note a lease of this process, whose stub these bytes are."""
        found = stub_in(raw)
        if len(self._mine) >= MOST:
            self._mine.clear()
        mine = Mine(Answer(True, None, answer.number), self.identity(found.old if found else None))
        self._mine.setdefault(ask.token, {})[ask.key] = mine
        self._watched.pop(ask.key, None)
        return Grant(leads=True)

    def _left(self, key: str, found: Stub) -> float:
        """Return in how many seconds somebody else's lease is to be asked for again; not more than 0 if it is over."""
        now, watched = time.monotonic(), self._watched.get(key)
        if watched is None or watched.salt != found.salt:
            watched = Watched(found.salt, now, 0)
        if len(self._watched) >= MOST:
            self._watched.clear()
        self._watched[key] = watched._replace(times=watched.times + 1)
        first, most = ASK_AGAIN
        return min(watched.since + found.life - now, most, first * (1 << min(watched.times, 8)))

    def _add(self, ask: Ask) -> Add:
        return Add(self._backend.named(ask.key), stub(ask.token, ask.life, None).bytes(), ask.life + KEPT)

    def _swap(self, ask: Ask, answer: Answer, old: bytes | None) -> Swap:
        """Return the step that puts a stub over what is there."""
        life = ask.life + KEPT if old is None else None
        return Swap(self._backend.named(ask.key), answer, stub(ask.token, ask.life, old).bytes(), life)

    async def steal(self, ask: Ask) -> bytes:
        """Take the lease, and ask for the marks."""
        return await self._backend.turns.until_done(self._backend.named(ask.key), functools.partial(self._steal, ask))

    async def _steal(self, ask: Ask, first: bool) -> bytes | None:
        """Try to; return the identity of the present record, None if others have crossed it."""
        (answer,) = await self._backend.take(self._add(ask), fresh=first)
        if answer.raw is None:
            return None
        found, raw = stub_in(answer.raw), answer.raw
        old = raw if found is None else found.old
        if found is None or found.token != ask.token:
            swap = self._swap(ask, answer, old)
            (answer,) = await self._backend.take(swap)
            raw = swap.raw
            if not answer.done:
                return None
        self._lead(ask, answer, raw)
        return self.identity(old)

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Store what the leases still allow, and ask for the marks on the same trip."""
        mine = await self._standing([(fill.item.key, fill.token) for fill in fills])
        swaps, unwanted = dict[int, Swap](), list[Fill]()
        for at, (fill, lease) in enumerate(zip(fills, mine, strict=True)):
            if lease is not None and lease.seen in (b"", fill.seen):
                swaps[at] = self._store(fill.item, lease)
            elif lease is not None:
                unwanted.append(fill)
        swapped = dict(zip(swaps, await self._backend.run(*swaps.values(), fresh=True), strict=True))
        answers = [swapped.get(at, NOT_ASKED) for at in range(len(fills))]
        stored = [answer.done for answer in answers]
        for fill in unwanted:
            await self.release(fill.item.key, fill.token, "retry")
        for fill, done in zip(fills, stored, strict=True):
            self._inbox.deliver(self._backend.named(fill.item.key), fill.token, "filled" if done else "retry")
        each_good([fill.item.key for fill in fills], answers, stored)
        return stored

    def _store(self, item: Item, lease: Mine) -> Swap:
        return Swap(self._backend.named(item.key), lease.answer, self._backend.outward(item.raw), item.ttl)

    async def commit(self, item: Item, token: str) -> bool:
        """Store under a lease; without it remove the record and any lease."""
        (lease,) = await self._standing([(item.key, token)])
        stored = False
        if lease is not None:
            (answer,) = await self._backend.take(self._store(item, lease), fresh=True)
            stored = answer.done
        if not stored:
            await self._backend.take(Drop(self._backend.named(item.key)))
        self._inbox.deliver(self._backend.named(item.key), token, "filled" if stored else "retry")
        return stored

    async def release(self, key: str, token: str, outcome: str, back_off: float = 0.0) -> None:
        """End a lease without storing; leave what it was to replace, for a while under a stub that nobody has."""
        name = self._backend.named(key)
        (answer,) = await self._backend.take(Look(name))
        found = None if answer.raw is None else stub_in(answer.raw)
        if found is not None and found.token == token:
            await self._backend.take(_ending(name, answer, found.old, back_off))
        self._forget(key, token)
        self._inbox.deliver(name, token, outcome)

    def hold(self, key: str, token: str, until: float) -> None:
        """Renew nothing: a lease lives as long as it was asked for."""

    def let_go(self, token: str) -> None:
        """Forget a lease."""
        self._mine.pop(token, None)

    def expect(self, key: str) -> Mail:
        """Begin to listen for the end of a key's lease; only this process is heard."""
        return self._inbox.expect(self._backend.named(key))

    async def _standing(self, leases: Sequence[tuple[str, str]]) -> list[Mine | None]:
        """Return leases that may still stand, and remember them no longer; look for those that are not remembered.

        One that cannot be found does not stand.
        """
        mine = [self._forget(key, token) for key, token in leases]
        lost = [at for at, lease in enumerate(mine) if lease is None]
        if lost:
            looks = [Look(self._backend.named(leases[at][0])) for at in lost]
            for at, answer in zip(lost, await self._backend.run(*looks), strict=True):
                found = None if answer.raw is None else stub_in(answer.raw)
                if found is not None and found.token == leases[at][1]:
                    mine[at] = Mine(answer, self.identity(found.old))
        return mine

    def _forget(self, key: str, token: str) -> Mine | None:
        leases = self._mine.get(token, {})
        lease = leases.pop(key, None)
        if not leases:
            self._mine.pop(token, None)
        return lease


def _ending(name: str, answer: Answer, old: bytes | None, back_off: float) -> Step:
    """Return the step that ends a lease."""
    if back_off:
        return Swap(name, answer, stub(BACK_OFF, back_off, old).bytes(), back_off + KEPT if old is None else None)
    return Drop(name, answer) if old is None else Swap(name, answer, old, None)
