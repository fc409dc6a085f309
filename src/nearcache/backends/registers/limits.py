"""Limits on engines without scripts: what one limiter knows of one identity is one record, which is read and swapped.

Its bytes are the numbers that `nearcache._core.quotas` decides by, as decimal digits. They may come back to a record
that had them before, which does no harm: the same bytes are the same state. Whatever else is found there counts as
nothing. The record of the limiter `login` of the namespace `app` is `{app:login:<digest>}~r`.
"""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from nearcache._core.limits import LONGEST_LOG, Kind
from nearcache._core.quotas import MICROS, Consumed, consumed
from nearcache.backends.limits import LimitAsk, LimitGrant
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Step, Swap

if TYPE_CHECKING:
    from nearcache.backends.registers.backend import RegisterBackend

SPARE: Final = 2.0
"""Seconds that a record is kept for longer than it counts: engines that tell whole seconds let it go early."""

_NUMBERS: Final = re.compile(rb"[0-9]{1,24}(?: [0-9]{1,24}){0,%d}" % LONGEST_LOG)

_WORKER: Final = re.compile(rb"([0-9a-z]{1,32}):([0-9]{1,24})(?: |$)")


class RegisterLimits:
    """The port of limits; the engine's own class says which `kinds` it can keep, and for how long."""

    def __init__(self, backend: "RegisterBackend", kinds: tuple[Kind, ...], longest: float) -> None:
        self._backend = backend
        self.kinds: tuple[Kind, ...] = kinds
        self.longest: float = longest

    async def hit(self, ask: LimitAsk) -> LimitGrant:
        """Consume units."""
        name = self._record(ask)

        async def take(_first: bool) -> LimitGrant | None:
            (answer,) = await self._backend.take(Look(name))
            now, state = self._now(), _state(ask, answer)
            standings = state.look(now, ask.cost)
            if any(standing.wait for standing in standings):
                return LimitGrant(False, "", standings)
            receipt = state.consume(self._noted(ask.kind), ask.cost)
            standings = state.look(now, 0)
            return LimitGrant(True, receipt, standings) if await self._stored(name, ask, answer, state, now) else None

        return await self._backend.turns.until_done(name, take)

    async def peek(self, ask: LimitAsk) -> LimitGrant:
        """Consume nothing."""
        (answer,) = await self._backend.take(Look(self._record(ask)))
        standings = _state(ask, answer).look(self._now(), ask.cost)
        return LimitGrant(not any(standing.wait for standing in standings), "", standings)

    async def refund(self, ask: LimitAsk, receipt: str) -> None:
        """Give units back."""
        name = self._record(ask)

        async def take(_first: bool) -> bool | None:
            (answer,) = await self._backend.take(Look(name))
            if not answer.done:
                return True
            now, state = self._now(), _state(ask, answer)
            state.refund(now, ask.cost, receipt)
            return await self._stored(name, ask, answer, state, now) or None

        await self._backend.turns.until_done(name, take)

    async def reset(self, ask: LimitAsk) -> None:
        """Forget."""
        await self._backend.take(Drop(self._record(ask)))

    async def beat(self, worker: str, life: float) -> int:
        """Note that a worker lives, and count."""
        name = f"{{{self._backend.named('')}}}~w"

        async def take(_first: bool) -> int | None:
            (answer,) = await self._backend.take(Look(name))
            now = self._now()
            living = {each: at for each, at in _workers(answer) if abs(now - at) < life * MICROS} | {worker: now}
            return len(living) if await self._swapped(name, answer, _listed(living), life + SPARE) else None

        return await self._backend.turns.until_done(name, take)

    async def _stored(self, name: str, ask: LimitAsk, seen: Answer, state: Consumed, now: int) -> bool:
        """Store a state in the place of the one that was seen; tell whether nobody has come in between."""
        longest = max(period for _, period in ask.quotas)
        ttl = math.ceil(min(max(0, state.until - now), longest) / MICROS) + SPARE
        return await self._swapped(name, seen, b" ".join(b"%d" % number for number in state.numbers()), ttl)

    async def _swapped(self, name: str, seen: Answer, raw: bytes, ttl: float) -> bool:
        step: Step = Add(name, raw, ttl) if seen.raw is None else Swap(name, seen, raw, ttl)
        (answer,) = await self._backend.take(step)
        return answer.done

    def _record(self, ask: LimitAsk) -> str:
        return f"{{{self._backend.named(f'{ask.name}:{ask.digest}')}}}~r"

    def _now(self) -> int:
        """Return the earliest that the engine's time may be."""
        return round(self._backend.time.earliest() * MICROS)

    def _noted(self, kind: Kind) -> int:
        """Return when something is said to be consumed that is consumed now."""
        return round(self._backend.time.latest() * MICROS) if kind == "sliding" else self._now()


def _listed(living: Mapping[str, int]) -> bytes:
    return b" ".join(b"%s:%d" % (worker.encode(), at) for worker, at in living.items())


def _workers(answer: Answer) -> list[tuple[str, int]]:
    return [(each[1].decode(), int(each[2])) for each in _WORKER.finditer(answer.raw or b"")]


def _state(ask: LimitAsk, answer: Answer) -> Consumed:
    raw = answer.raw or b""
    return consumed(ask.kind, ask.quotas, [*map(int, raw.split())] if _NUMBERS.fullmatch(raw) else ())
