"""What a limiter says of one call, and how a web service says it to its clients."""

import functools
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from nearcache._core.limits import Kind, Limit
from nearcache._core.quotas import Quota, Standing
from nearcache.backends.limits import LimitAsk, LimitGrant
from nearcache.errors import ConfigError
from nearcache.near.stock import Parts


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of one limiter."""

    name: str
    kind: Kind
    limits: tuple[Limit, ...]
    lease: int = field(default=0, compare=False)
    """How many units are taken from the engine at once, 0 for as many as are needed."""
    quotas: tuple[Quota, ...] = field(init=False, compare=False)
    tightest: Limit = field(init=False, compare=False)
    """The limit with the smallest count, which is the most that one call can consume."""
    text: str = field(init=False, compare=False)
    """What is counted together of one identity."""

    def __post_init__(self) -> None:
        """Work out once what every call needs."""
        limits, put = self.limits, functools.partial(object.__setattr__, self)
        put("quotas", tuple((limit.count, limit.micros) for limit in limits))
        put("tightest", min(limits, key=lambda limit: limit.count))
        put("text", f"{self.kind} {' '.join(limit.text for limit in limits)}")


class Spent(NamedTuple):
    """What a hit has consumed: in the engine by a `receipt`, or of what this process had consumed ahead."""

    ask: LimitAsk
    receipt: str
    parts: Parts


class Verdict:
    """What a limiter says of one call: true if it is allowed."""

    __slots__ = ("_spent", "_standings", "_terms", "allowed", "retry_after")

    def __init__(self, terms: Terms, ask: LimitAsk, grant: LimitGrant, parts: Parts = ()) -> None:
        self.allowed: bool = grant.admitted
        """Whether the call may go on. For `peek`: whether it might."""
        self.retry_after: float = max(standing.wait for standing in grant.standings)
        """Seconds after which the same call would be allowed if nobody else came; 0.0 if it is allowed."""
        self._terms = terms
        self._standings = grant.standings
        self._spent = [Spent(ask, grant.receipt, parts)] if grant.receipt or parts else []

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        told = "allowed" if self.allowed else f"refused, retry_after={self.retry_after:.3f}"
        return f"<verdict of {self._terms.name!r}: {told}, remaining={self.remaining}>"

    @property
    def remaining(self) -> int:
        """How many units are left now, of the limit of which the fewest are."""
        return self._tightest[1].left

    @property
    def refusing(self) -> Limit:
        """The limit that refuses for the longest time, or of which the fewest units are left."""
        return self._tightest[0]

    @property
    def _tightest(self) -> tuple[Limit, Standing]:
        pairs = zip(self._terms.limits, self._standings, strict=True)
        return min(pairs, key=lambda pair: (-pair[1].wait, pair[1].left, -pair[1].reset))

    def headers(self) -> dict[str, str]:
        """Return fields for an HTTP response: those of the IETF's draft for all limits, and the common ones for one.

        `RateLimit-Policy` and `RateLimit` name every limit as you wrote it. `X-RateLimit-Limit`, `-Remaining` and
        `-Reset` are about the limit that is nearest to refusing; `-Reset` is in seconds from now, after which all of it
        is there again. `Retry-After` is there for a call that is refused. Times are rounded up to whole seconds.
        """
        limits, (tightest, standing) = self._terms.limits, self._tightest
        pairs = zip(limits, self._standings, strict=True)
        told = {
            "RateLimit-Policy": ", ".join(f'"{each.text}";q={each.count};w={_seconds(each.period)}' for each in limits),
            "RateLimit": ", ".join(f'"{limit.text}";r={each.left};t={_seconds(each.reset)}' for limit, each in pairs),
            "X-RateLimit-Limit": str(tightest.count),
            "X-RateLimit-Remaining": str(standing.left),
            "X-RateLimit-Reset": _seconds(standing.reset),
        }
        return told if self.allowed else {**told, "Retry-After": _seconds(self.retry_after)}

    def spent(self, terms: Terms) -> Spent | None:
        """Return, once, what a limiter of these terms needs to give the units back; None where none were consumed."""
        if terms != self._terms:
            raise ConfigError(f"a verdict of {self._terms.name!r} can be refunded only by a limiter with its limits")
        with suppress(IndexError):
            return self._spent.pop()
        return None


def _seconds(seconds: float) -> str:
    return str(math.ceil(seconds))
