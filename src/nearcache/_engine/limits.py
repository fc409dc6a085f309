"""Limits: what is asked of an engine for one call, and how a caller waits until it is allowed."""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable

from nearcache._core.arguments import canonical
from nearcache._core.events import Limited
from nearcache._core.keys import entity_of
from nearcache._core.limits import parse_limits
from nearcache._core.ttl import described, parse_duration
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.verdict import Terms, Verdict
from nearcache._io.port import Io, pause
from nearcache.backends.base import Backend, require
from nearcache.backends.limits import LimitAsk, LimitGrant, Limits
from nearcache.errors import ConfigError, LimitExceededError, UnsupportedError
from nearcache.options import Duration

ALL_KINDS = "memory, embedded, redis, hazelcast"
"""The engines that can keep limits of every kind."""

DAY = 86_400.0
"""Seconds."""

BREATH = 0.001
"""Seconds between two tries of one who waits, at least."""


class Limiting:
    """The limits of one cache through one backend."""

    def __init__(self, core: Core, io: Io, backend: Backend, commands: Commands) -> None:
        self._core = core
        self._io = io
        self._backend = backend
        self._commands = commands

    def terms(self, name: str, limits: Iterable[str], kind: str) -> Terms:
        """Check what a limiter is made of."""
        terms = Terms(self._core.namespace.check_name(name), *parse_limits(limits, kind))
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
        return await self._decide("limit_peek", self._port.peek, terms, identity, cost)

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
        await self._commands.run("limit_refund", self._port.refund, *spent)
        return True

    async def reset(self, terms: Terms, identity: object) -> None:
        """Forget what was consumed."""
        await self._commands.run("limit_reset", self._port.reset, _ask(terms, identity, 1))

    async def _try(self, terms: Terms, identity: object, cost: int) -> Verdict:
        return await self._decide("limit_hit", self._port.hit, terms, identity, cost)

    def _refused(self, terms: Terms) -> None:
        self._core.emit(Limited(entity_of(terms.name)))

    async def _decide(
        self,
        operation: str,
        call: Callable[[LimitAsk], Awaitable[LimitGrant]],
        terms: Terms,
        identity: object,
        cost: int,
    ) -> Verdict:
        ask = _ask(terms, identity, cost)
        return Verdict(terms, ask, await self._commands.run(operation, call, ask))


def _ask(terms: Terms, identity: object, cost: object) -> LimitAsk:
    smallest = min(terms.limits, key=lambda limit: limit.count)
    if isinstance(cost, bool) or not isinstance(cost, int) or not 1 <= cost <= smallest.count:
        may_be = f"a whole number from 1 to {smallest.count}, since {smallest.text!r} of {terms.name!r} allows no more"
        raise ConfigError(f"cost is {described(cost)}; it must be {may_be}")
    whose = f"{terms.kind} {' '.join(limit.text for limit in terms.limits)} {canonical(identity, 'identity')}"
    digest = hashlib.blake2b(whose.encode(), digest_size=16).hexdigest()
    quotas = tuple((limit.count, limit.micros) for limit in terms.limits)
    return LimitAsk(terms.name, digest, terms.kind, quotas, cost)


def _exceeded(verdict: Verdict, terms: Terms) -> LimitExceededError:
    why = f"the limit {verdict.refusing.text!r} of {terms.name!r} is used up; try again in {verdict.retry_after:.3g} s"
    return LimitExceededError(why, verdict.retry_after, verdict.headers())
