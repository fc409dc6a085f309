"""Limits in Redis and Valkey: what one limiter knows of one identity is one record, so that one script decides.

The record of the limiter `login` of the namespace `app` is `{app:login:<digest>}~r`. Times are the engine's.
"""

from typing import TYPE_CHECKING, Any

from nearcache._core.limits import KINDS, Kind
from nearcache._core.quotas import Standing
from nearcache._core.ttl import LONGEST_TTL
from nearcache.backends.limits import LimitAsk, LimitGrant
from nearcache.backends.redis.errors import MISSHAPEN, good, unexpected
from nearcache.backends.redis.names import limit_of, workers_of

if TYPE_CHECKING:
    from nearcache.backends.redis.backend import RedisBackend


class RedisLimits:
    """The port of limits."""

    kinds: tuple[Kind, ...] = KINDS
    longest: float = LONGEST_TTL

    def __init__(self, backend: "RedisBackend") -> None:
        self._backend = backend

    async def hit(self, ask: LimitAsk) -> LimitGrant:
        """Consume units."""
        return _granted(await self._evaluate("hit", ask), ask)

    async def peek(self, ask: LimitAsk) -> LimitGrant:
        """Consume nothing."""
        return _granted(await self._evaluate("peek", ask), ask)

    async def refund(self, ask: LimitAsk, receipt: str) -> None:
        """Give units back."""
        await self._evaluate("refund", ask, receipt)

    async def reset(self, ask: LimitAsk) -> None:
        """Forget."""
        (reply,) = await self._backend.run(("DEL", self._record(ask)))
        good(reply, ask.name)

    async def beat(self, worker: str, life: float) -> int:
        """Note that a worker lives, and count."""
        record = workers_of(self._backend.named(""))
        (reply,) = await self._backend.evaluate("workers", [((record,), (worker, f"{life * 1_000:.0f}"))], record)
        return reply if isinstance(reply, int) else unexpected(reply, record)

    async def _evaluate(self, verb: str, ask: LimitAsk, receipt: str = "") -> Any:
        quotas = [str(number) for quota in ask.quotas for number in quota]
        calls = [((self._record(ask),), (verb, str(ask.cost), receipt, *quotas))]
        (reply,) = await self._backend.evaluate(f"limit_{ask.kind}", calls, ask.name)
        return reply

    def _record(self, ask: LimitAsk) -> str:
        return limit_of(self._backend.named(f"{ask.name}:{ask.digest}"))


def _granted(reply: Any, ask: LimitAsk) -> LimitGrant:
    try:
        admitted, receipt, *numbers = reply
        told = zip(*[iter(map(int, numbers))] * 3, strict=True)
        standings = tuple(Standing(left, reset / 1e6, wait / 1e6) for left, reset, wait in told)
        if len(standings) == len(ask.quotas):
            return LimitGrant(admitted == 1, receipt.decode(), standings)
    except MISSHAPEN:
        pass
    return unexpected(reply, ask.name)
