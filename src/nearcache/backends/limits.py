"""The port of limits: what an engine is asked for one call of a limiter, and what it answers."""

from typing import Protocol

import msgspec

from nearcache._core.limits import Kind
from nearcache._core.quotas import Quota, Standing


class LimitAsk(msgspec.Struct, frozen=True, gc=False):
    """A request to a limiter: `name` is its own, `digest` that of its limits and of an identity. `cost` is in units."""

    name: str
    digest: str
    kind: Kind
    quotas: tuple[Quota, ...]
    cost: int


class LimitGrant(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `LimitAsk`, with the `standings` of all limits; `receipt` is what a refund needs, "" for none."""

    admitted: bool
    receipt: str
    standings: tuple[Standing, ...]


class Limits(Protocol):
    """Limits of how many units may be consumed in a time, for one identity among all processes.

    All quotas of a request are consumed in one atomic step, or none is. Of units that are consumed at the times t:

    - "sliding": no more than the count in any period. Quotas of this kind have small counts.
    - "fixed": no more than the count in each window; windows begin at multiples of the period, in UTC.
    - "gcra": no more than count + count / period * t in any time span t.

    Times are those of the engine. Where a process knows them only between bounds that are `e` apart: units of "sliding"
    come back up to `e` late, windows begin up to `e` late, and of "gcra" no more than count + count / period * (t + e).
    What was consumed is forgotten when it counts no longer.
    """

    kinds: tuple[Kind, ...]
    """The kinds that the engine can keep."""
    longest: float
    """The longest period that it can keep, in seconds."""

    async def hit(self, ask: LimitAsk) -> LimitGrant:
        """Consume the cost if every quota allows it."""
        ...

    async def peek(self, ask: LimitAsk) -> LimitGrant:
        """Answer as `hit` would, and consume nothing."""
        ...

    async def refund(self, ask: LimitAsk, receipt: str) -> None:
        """Give back what a hit has consumed, as far as it still counts."""
        ...

    async def reset(self, ask: LimitAsk) -> None:
        """Forget what was consumed."""
        ...

    async def beat(self, worker: str, life: float) -> int:
        """Note that a process lives which uses limiters; return how many have done so within `life` seconds."""
        ...
