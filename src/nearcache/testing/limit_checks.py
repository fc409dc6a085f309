"""Checks of the port of limits: what is admitted, what is told of the rest, and what is given back."""

import functools
import time
import uuid
from typing import Final, Protocol

from nearcache._core.limits import Kind
from nearcache._core.quotas import Quota
from nearcache.backends.base import Backend
from nearcache.backends.limits import LimitAsk, LimitGrant
from nearcache.testing.suite import Suite, both

DAY: Final = 86_400_000_000

LONG: Final = 30 * DAY
"""Microseconds: no fixed window of it ends within a check, but on one midnight in as many days."""

PERIOD: Final = 400_000
"""Microseconds, where the end of one is waited for."""

ERROR: Final = 10.0
"""Seconds: what is known of an engine's time is known better than that."""

WITHIN: Final = 10.0
"""Seconds after which something that has to happen is taken for never happening."""


class LimitChecks(Suite):
    """What the port `limits` of every backend that has it must do."""

    @both
    async def test_as_many_units_are_admitted_as_a_limit_allows(self, backend: Backend) -> None:
        """The others are told when to come again, and are not counted; nor is who only looks."""
        if (limits := backend.limits) is None:
            return
        asked = _fresh()
        for kind in limits.kinds:
            ask = asked(kind, (3, LONG))
            assert _told(await limits.peek(ask)) == (True, [3])
            assert [_told(await limits.hit(ask)) for _ in range(3)] == [(True, [left]) for left in (2, 1, 0)]
            for decide in (limits.hit, limits.peek, limits.hit):
                refused = await decide(ask)
                assert _told(refused) == (False, [0])
                assert not refused.receipt
                assert 0 < refused.standings[0].wait <= LONG / 1e6 + ERROR
                assert refused.standings[0].wait <= refused.standings[0].reset
            assert _told(await limits.hit(asked(kind, (3, LONG), digest="another"))) == (True, [2])
            assert _told(await limits.hit(asked(kind, (3, LONG), name="another"))) == (True, [2])

    @both
    async def test_all_limits_are_consumed_together_or_none_is(self, backend: Backend) -> None:
        """Whichever of them refuses."""
        if (limits := backend.limits) is None:
            return
        asked = _fresh()
        for kind in limits.kinds:
            for at, quotas in enumerate((((2, LONG // 2), (9, LONG)), ((9, LONG // 2), (2, LONG)))):
                asks = asked(kind, *quotas, digest=f"{at}")
                for _ in range(2):
                    assert (await limits.hit(asks)).admitted
                for _ in range(3):
                    refused = await limits.hit(asks)
                    assert _told(refused) == (False, [0, 7] if at == 0 else [7, 0])
                    assert [standing.wait > 0 for standing in refused.standings] == [at == 0, at == 1]

    @both
    async def test_a_call_may_cost_several_units(self, backend: Backend) -> None:
        """It gets all of them or none."""
        if (limits := backend.limits) is None:
            return
        asked = _fresh()
        for kind in limits.kinds:
            dear = asked(kind, (5, LONG), cost=3)
            assert _told(await limits.hit(dear)) == (True, [2])
            assert _told(await limits.hit(dear)) == (False, [2])
            assert _told(await limits.hit(asked(kind, (5, LONG), cost=2))) == (True, [0])

    @both
    async def test_units_that_were_given_back_can_be_consumed_again(self, backend: Backend) -> None:
        """Those of that hit, and all of them after a reset."""
        if (limits := backend.limits) is None:
            return
        asked = _fresh()
        for kind in limits.kinds:
            one, dear = asked(kind, (5, LONG)), asked(kind, (5, LONG), cost=3)
            receipts = [(await limits.hit(ask)).receipt for ask in (one, dear, one)]
            await limits.refund(dear, receipts[1])
            assert _told(await limits.peek(one)) == (True, [3])
            await limits.refund(one, receipts[0])
            assert _told(await limits.peek(one)) == (True, [4])
            await limits.reset(one)
            assert _told(await limits.peek(one)) == (True, [5])
            await limits.reset(one)

    @both
    async def test_units_come_back_with_time(self, backend: Backend) -> None:
        """When it was said, and not before."""
        if (limits := backend.limits) is None:
            return
        asked = _fresh()
        asks = [asked(kind, (2, PERIOD), cost=2) for kind in limits.kinds]
        for ask in asks:
            assert (await _admitted(backend, ask)).admitted
            again = await limits.hit(ask)
            if ask.kind == "fixed":  # the window may have ended
                assert again.admitted or again.standings[0].wait <= PERIOD / 1e6
            else:
                assert not again.admitted
                assert 0.0 < again.standings[0].wait <= PERIOD / 1e6 + ERROR
        for ask in asks:
            assert (await _admitted(backend, ask)).admitted

    @both
    async def test_workers_are_counted_that_have_said_lately_that_they_live(self, backend: Backend) -> None:
        """Each once."""
        if (limits := backend.limits) is None:
            return
        one, other = uuid.uuid4().hex[:16], uuid.uuid4().hex[:16]
        before = await limits.beat(one, 60.0)
        assert [await limits.beat(worker, 60.0) for worker in (one, other, one)] == [before, before + 1, before + 1]


class _Asked(Protocol):
    """Asks a limiter."""

    def __call__(self, kind: Kind, *quotas: Quota, cost: int = 1, name: str = "a", digest: str = "one") -> LimitAsk: ...


def _fresh() -> _Asked:
    """Return what asks limiters that nobody has asked before."""
    return functools.partial(_ask, uuid.uuid4().hex)


def _ask(run: str, kind: Kind, *quotas: Quota, cost: int = 1, name: str = "a", digest: str = "one") -> LimitAsk:
    return LimitAsk(f"{name}:{run}", f"{kind}-{digest}", kind, quotas, cost)


async def _admitted(backend: Backend, ask: LimitAsk) -> LimitGrant:
    assert backend.limits is not None
    deadline = time.monotonic() + WITHIN
    while not (grant := await backend.limits.hit(ask)).admitted:
        assert time.monotonic() < deadline, "it is never admitted"
    return grant


def _told(grant: LimitGrant) -> tuple[bool, list[int]]:
    return grant.admitted, [standing.left for standing in grant.standings]
