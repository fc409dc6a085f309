"""Limits: what is asked of an engine for one call, and how a caller waits until it is allowed."""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import msgspec

from nearcache._core.arguments import canonical
from nearcache._core.events import Limited
from nearcache._core.keys import entity_of
from nearcache._core.limits import parse_limits
from nearcache._core.quotas import MICROS
from nearcache._core.ttl import described, parse_duration
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.verdict import Terms, Verdict
from nearcache._io.port import Io, pause
from nearcache.backends.base import GONE, Backend, require
from nearcache.backends.limits import LimitAsk, LimitGrant, Limits
from nearcache.errors import BackendError, ConfigError, LimitExceededError, UnsupportedError
from nearcache.near.shares import LIFE
from nearcache.near.stock import Batch
from nearcache.options import Duration

ALL_KINDS = "memory, embedded, redis, hazelcast"
"""The engines that can keep limits of every kind."""

DAY = 86_400.0
"""Seconds."""

LEASE = 1.0
"""Seconds within which units are handed out that were consumed ahead, at most: no more than a tenth of a period."""

BREATH = 0.001
"""Seconds between two tries of one who waits, at least."""


class Limiting:
    """The limits of one cache through one backend."""

    def __init__(self, core: Core, io: Io, backend: Backend, commands: Commands) -> None:
        self._core = core
        self._io = io
        self._backend = backend
        self._commands = commands
        self._shares = core.options.policy.limit == "share"

    def terms(self, name: str, limits: Iterable[str], kind: str, lease: int | None = None) -> Terms:
        """Check what a limiter is made of."""
        terms = Terms(self._core.namespace.check_name(name), *parse_limits(limits, kind))
        if lease is not None:
            terms = replace(terms, lease=_checked_units("lease", lease, terms))
        port = self._port
        if terms.kind not in port.kinds:
            able, which = " and ".join(map(repr, port.kinds)), f"not {terms.kind!r}; engines that can: {ALL_KINDS}"
            raise UnsupportedError(f"{self._backend.name} can do rate limits of kind={able}, {which}")
        for limit in terms.limits:
            if limit.period > port.longest:
                raise UnsupportedError(
                    f"{self._backend.name} forgets records after {port.longest / DAY:g} days, so that it cannot keep "
                    f"{limit.text!r}; engines that can: {ALL_KINDS}"
                )
        return terms

    @property
    def _port(self) -> Limits:
        return require(self._backend.limits, self._backend, "rate limits", f"{ALL_KINDS}, memcached")

    async def hit(self, terms: Terms, identity: object, cost: int) -> Verdict:
        """Consume units of all limits, or of none."""
        if not (verdict := await self._try(terms, identity, cost)):
            self._refused(terms)
        return verdict

    async def peek(self, terms: Terms, identity: object, cost: int) -> Verdict:
        """Say what a hit would be told; consume nothing."""
        ask = _ask(terms, identity, cost)
        if terms.lease and (taken := self._core.stock.take(_whose(ask), cost, consume=False)):
            return Verdict(terms, ask, LimitGrant(True, "", taken.standings))
        return Verdict(terms, ask, await self._decide("limit_peek", self._port.peek, ask, cost))

    async def require(self, terms: Terms, identity: object, cost: int) -> Verdict:
        """Consume units, or raise."""
        verdict = await self.hit(terms, identity, cost)
        if not verdict:
            raise _exceeded(verdict, terms)
        return verdict

    async def wait(self, terms: Terms, identity: object, cost: int, timeout: Duration) -> Verdict:  # noqa: ASYNC109 -- it is the verb's
        """Consume units as soon as that is allowed; raises at once if it cannot be in time."""
        until = time.monotonic() + parse_duration(timeout, "timeout")
        while not (verdict := await self._try(terms, identity, cost)):
            again = time.monotonic() + max(BREATH, verdict.retry_after)
            if again > until:
                self._refused(terms)
                raise _exceeded(verdict, terms)
            await pause(self._io, again)
        return verdict

    async def refund(self, terms: Terms, verdict: Verdict) -> bool:
        """Give back what a hit has consumed; tell whether there was anything to give back."""
        if (spent := verdict.spent(terms)) is None:
            return False
        if spent.parts:
            return self._core.stock.give_back(_whose(spent.ask), spent.parts)
        await self._commands.run("limit_refund", self._port.refund, spent.ask, spent.receipt)
        return True

    async def reset(self, terms: Terms, identity: object) -> None:
        """Forget what was consumed."""
        ask = _ask(terms, identity, 1)
        self._core.shares.forget(_whose(ask))
        try:
            await self._commands.run("limit_reset", self._port.reset, ask)
        finally:  # not before: what others take until then is forgotten, too
            self._core.stock.drop(_whose(ask))

    async def _try(self, terms: Terms, identity: object, cost: int) -> Verdict:
        ask, stock = _ask(terms, identity, cost), self._core.stock
        if terms.lease:
            if taken := stock.take(_whose(ask), cost):
                return Verdict(terms, ask, LimitGrant(True, "", taken.standings), taken.parts)
            if terms.lease > cost and not stock.is_scarce(_whose(ask)):
                return await self._lease(terms, ask)
        return Verdict(terms, ask, await self._decide("limit_hit", self._port.hit, ask, cost))

    async def _lease(self, terms: Terms, ask: LimitAsk) -> Verdict:
        """Take more units than are needed, and keep the rest; only those that are needed where that is too much."""
        core, sent, drops = self._core, self._core.clock(), self._core.stock.drops
        seconds = min(LEASE, *(limit.period / 10 for limit in terms.limits))
        more = msgspec.structs.replace(ask, cost=terms.lease)
        grant = await self._decide("limit_hit", self._port.hit, more, ask.cost)
        if not grant.receipt:
            if grant.admitted:  # by the share of this process
                return Verdict(terms, ask, grant)
            core.stock.scarce(_whose(ask), seconds)
            return Verdict(terms, ask, await self._decide("limit_hit", self._port.hit, ask, ask.cost))
        if terms.kind == "fixed":
            ends = min(standing.reset for standing in grant.standings)
            seconds = min(seconds, ends - self._unsure())  # for another process the next window may begin so early
            if seconds <= 0:
                core.stock.scarce(_whose(ask), ends)
        batch = Batch(terms.lease - ask.cost, sent, sent + seconds, grant.standings, drops)
        standings = core.stock.put(_whose(ask), batch)
        return Verdict(terms, ask, LimitGrant(True, "", standings), [(batch, ask.cost)])

    def _refused(self, terms: Terms) -> None:
        self._core.emit(Limited(entity_of(terms.name)))

    async def _decide(
        self, operation: str, call: Callable[[LimitAsk], Awaitable[LimitGrant]], ask: LimitAsk, cost: int
    ) -> LimitGrant:
        """Ask the engine; while it does not answer, let the share of this process decide about the cost."""
        if not self._shares:
            return await self._commands.run(operation, call, ask)
        try:
            grant = await self._commands.run(operation, call, ask)
        except GONE:
            if not self._core.shares.workers:
                raise
            return self._shared(ask, cost, consume=operation == "limit_hit")
        self._core.shares.saw(_whose(ask), self._now(), grant.standings)
        if self._core.shares.beats():
            await self._beat()
        return grant

    def _shared(self, ask: LimitAsk, cost: int, *, consume: bool) -> LimitGrant:
        shares, whose = self._core.shares, _whose(ask)
        admitted, standings = shares.decide(whose, ask.kind, ask.quotas, cost, self._now(), consume=consume)
        return LimitGrant(admitted, "", standings)

    def _unsure(self) -> float:
        """Return how many seconds the engine's time may be ahead of its earliest."""
        return self._backend.time.latest() - self._backend.time.earliest()

    def _now(self) -> int:
        return round(self._backend.time.earliest() * MICROS)

    async def _beat(self) -> None:
        """Say that this process lives, and learn how many do; not worth an error."""
        shares = self._core.shares
        with suppress(BackendError):
            shares.workers = await self._commands.run("limit_beat", self._port.beat, shares.worker, LIFE)


def _whose(ask: LimitAsk) -> str:
    return f"{ask.name}:{ask.digest}"


def _checked_units(what: str, units: object, terms: Terms) -> int:
    most, text = terms.tightest.count, terms.tightest.text
    if isinstance(units, bool) or not isinstance(units, int) or not 1 <= units <= most:
        may_be = f"a whole number from 1 to {most}, since {text!r} of {terms.name!r} allows no more"
        raise ConfigError(f"{what} is {described(units)}; it must be {may_be}")
    return units


def _ask(terms: Terms, identity: object, cost: object) -> LimitAsk:
    units = _checked_units("cost", cost, terms)
    whose = f"{terms.text} {canonical(identity, 'identity')}"
    digest = hashlib.blake2b(whose.encode(), digest_size=16).hexdigest()
    return LimitAsk(terms.name, digest, terms.kind, terms.quotas, units)


def _exceeded(verdict: Verdict, terms: Terms) -> LimitExceededError:
    why = f"the limit {verdict.refusing.text!r} of {terms.name!r} is used up; try again in {verdict.retry_after:.3g} s"
    return LimitExceededError(why, verdict.retry_after, verdict.headers())
