"""Limiters: how often somebody may do something, counted for all processes together."""

from nearcache._engine.engine import Engine
from nearcache._engine.verdict import Terms, Verdict
from nearcache._io.blocking import drive
from nearcache.options import Duration


class _Limiter:
    """What limiters of both flavours have in common."""

    def __init__(self, engine: Engine, terms: Terms) -> None:
        self._engine = engine
        self._terms = terms

    def __repr__(self) -> str:
        limits = ", ".join(repr(limit.text) for limit in self._terms.limits)
        return f"<limiter {self._terms.name!r}: {limits}, {self._terms.kind}>"


class Limiter(_Limiter):
    """The limits of one action, for any number of identities: users, addresses, API keys.

    An identity is anything that can be an argument in a key: a text, a number, a UUID, a tuple of those. `cost` is how
    many units a call takes, from 1 to the smallest count of the limits. Each verb is one round trip (two on Memcached
    and Hazelcast), which decides all limits at once. While the engine does not answer, `hit`, `require`, `wait` and
    `peek` decide by the share of this process (`policy=`). All raise `BackendError` when the engine refuses, or does
    not answer where that is not enough, `InvalidKeyError` for an identity that has no stable text, and `ConfigError`
    for a wrong cost.
    """

    def hit(self, identity: object, cost: int = 1) -> Verdict:
        """Consume units of every limit if all allow it, else of none, and say which.

        The verdict is true if the call is allowed.
        """
        return drive(self._engine.limits.hit(self._terms, identity, cost))

    def require(self, identity: object, cost: int = 1) -> Verdict:
        """Do as `hit`, but raise `LimitExceededError` where the call is refused."""
        return drive(self._engine.limits.require(self._terms, identity, cost))

    def wait(self, identity: object, cost: int = 1, *, timeout: Duration = 10) -> Verdict:
        """Do as `hit` as soon as the call is allowed.

        Raises `LimitExceededError` when it would not be allowed within `timeout`, as soon as that is known. Those who
        wait are served in no order.
        """
        return drive(self._engine.limits.wait(self._terms, identity, cost, timeout))

    def peek(self, identity: object, cost: int = 1) -> Verdict:
        """Say what `hit` would say, and consume nothing."""
        return drive(self._engine.limits.peek(self._terms, identity, cost))

    def refund(self, verdict: Verdict) -> bool:
        """Give back what a hit has consumed, as far as it still counts, and tell whether there was anything.

        A verdict can be refunded once; a copy of it, as pickle makes one, counts as another. One that consumed nothing
        is not refunded; that of a limiter with another name, kind or limits raises `ConfigError`.
        """
        return drive(self._engine.limits.refund(self._terms, verdict))

    def reset(self, identity: object) -> None:
        """Forget what an identity has consumed."""
        drive(self._engine.limits.reset(self._terms, identity))


class AsyncLimiter(_Limiter):
    """The limits of one action, for asyncio: the twin of `Limiter`, with the same names, arguments and meaning."""

    async def hit(self, identity: object, cost: int = 1) -> Verdict:
        """Consume units of every limit if all allow it, else of none, and say which."""
        return await self._engine.limits.hit(self._terms, identity, cost)

    async def require(self, identity: object, cost: int = 1) -> Verdict:
        """Do as `hit`, but raise `LimitExceededError` where the call is refused."""
        return await self._engine.limits.require(self._terms, identity, cost)

    async def wait(self, identity: object, cost: int = 1, *, timeout: Duration = 10) -> Verdict:  # noqa: ASYNC109 -- as in the twin
        """Do as `hit` as soon as the call is allowed."""
        return await self._engine.limits.wait(self._terms, identity, cost, timeout)

    async def peek(self, identity: object, cost: int = 1) -> Verdict:
        """Say what `hit` would say, and consume nothing."""
        return await self._engine.limits.peek(self._terms, identity, cost)

    async def refund(self, verdict: Verdict) -> bool:
        """Give back what a hit has consumed, as far as it still counts, and tell whether there was anything."""
        return await self._engine.limits.refund(self._terms, verdict)

    async def reset(self, identity: object) -> None:
        """Forget what an identity has consumed."""
        await self._engine.limits.reset(self._terms, identity)
