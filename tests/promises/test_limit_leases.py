"""Units that a process takes ahead are counted when they are taken, so that never more are handed out than a limit
allows; they are handed out within a tenth of the period, and of a fixed limit within its window.
"""

import threading
import uuid
from typing import Any

import pytest

from nearcache import AsyncCache, BackendError, Cache, ConfigError
from nearcache._engine import limits
from nearcache.near.stock import Stock
from nearcache.testing import FakeClock
from tests.faces import Awaited
from tests.limits_model import first_broken
from tests.promises.helpers import broken, noticed, recorded
from tests.promises.limiting import Admitted
from tests.promises.test_limits import admitted_by

COUNT, PERIOD = 300, 2_000_000
LIMIT = "300/2s"
PROCESSES = 3


# Processes


def kept(url: str, kind: str, defect: str = "") -> None:
    """Have processes hit as fast as they can, and judge what was handed out, and when."""
    order: dict[str, Any] = {
        "url": url,
        "namespace": f"p{uuid.uuid4().hex[:10]}",
        "kind": kind,
        "limits": [LIMIT],
        "seconds": 5.0,
        "lease": 20,
        "defect": defect,
    }
    said = admitted_by([{**order, "flavour": ("sync", "async")[n % 2]} for n in range(PROCESSES)])
    admitted = [each for told, _ in said for each in told]
    assert sum(cost for _, cost, _, _ in admitted) >= COUNT, "so many may be handed out at once"
    assert handed_out_too_many(kind, admitted) is None, "more was handed out than the limit allows"


def handed_out_too_many(kind: str, admitted: list[Admitted]) -> object:
    """Return what broke the promise, None if nothing did; each was handed out when its call had begun."""
    if kind == "sliding":  # in any time span that is a tenth shorter than the period; a call may begin before it counts
        shorter = PERIOD * 9 / 10 / 1e6
        for _, _, begin, _ in admitted:
            inside = (cost for _, cost, asked, done in admitted if begin <= asked and done < begin + shorter)
            if sum(inside) > COUNT:
                return begin
        return None
    if kind == "gcra":  # what comes back in a tenth of the period is a tenth of the count
        ended = [(int(answered * 1e6), cost) for _, cost, _, answered in admitted]
        return first_broken("gcra", (COUNT + COUNT // 10 + 20, PERIOD), ended)
    windows = dict[int, int]()
    for _, cost, asked, answered in admitted:
        if (window := int(asked * 1e6) // PERIOD) == int(answered * 1e6) // PERIOD:
            windows[window] = windows.get(window, 0) + cost
    return next((window for window, units in windows.items() if units > COUNT), None)


KINDS = ["sliding", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("fixed", "gcra"))]


@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_take_units_ahead_hand_out_no_more_than_the_limit(kind: str, valkey_url: str) -> None:
    kept(valkey_url, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_hand_out_what_they_have_not_taken_are_noticed(kind: str, valkey_url: str) -> None:
    with noticed("more was handed out"):
        kept(valkey_url, kind, "hands out twice")


# One process


class Leased:
    """A limiter in memory that takes units ahead, and its clock; what reaches the engine is counted."""

    def __init__(self, *texts: str, lease: int, kind: Any = "sliding") -> None:
        self.clock = FakeClock(1_000_000_020.0)
        self.cache = Cache("memory://", clock=self.clock, observers=())
        self.limiter = self.cache.limiter("a", *texts, kind=kind, lease=lease)
        self.plain = self.cache.limiter("a", *texts, kind=kind)


@pytest.mark.parametrize("kind", ["sliding", "fixed", "gcra"])
def test_one_command_takes_many_units_which_are_told_as_left(kind: str) -> None:
    world = Leased("100/minute", "500/hour", lease=10, kind=kind)
    with recorded(world.cache) as engine:
        verdicts = [world.limiter.hit("me") for _ in range(25)]
        assert engine.counts["limit_hit"] == 3
        assert [verdict.remaining for verdict in verdicts] == list(range(99, 74, -1))
        assert world.limiter.peek("me").remaining == 75
        assert engine.counts["limit_peek"] == 0
        assert world.plain.peek("me").remaining == 70, "the others are consumed already"
        assert verdicts[-1].headers()["RateLimit"].startswith('"100/minute";r=75;t=')
        assert world.limiter.hit("me", 7).remaining == 68
        assert engine.counts["limit_hit"] == 4, "two were not enough"
        assert world.limiter.hit("me", 30).remaining == 30, "of those that nobody has taken"
        assert engine.counts["limit_hit"] == 5, "it costs more than is taken ahead"


def test_units_that_were_not_handed_out_in_time_are_lost() -> None:
    world = Leased("100/minute", lease=10)
    assert world.limiter.hit("me")
    world.clock.advance(1.0)
    assert world.limiter.hit("me").remaining == 89
    assert world.plain.peek("me").remaining == 80


def test_units_of_a_window_are_not_handed_out_in_the_next() -> None:
    world = Leased("100/minute", lease=10, kind="fixed")
    world.clock.advance(59.5)
    assert world.limiter.hit("me")
    world.clock.advance(0.6)
    assert world.limiter.hit("me").remaining == 99
    assert world.plain.peek("me").remaining == 90, "ten of this window are taken, and none of the last one handed out"


def test_where_less_is_left_than_is_taken_ahead_what_is_needed_is_taken() -> None:
    world = Leased("25/minute", lease=10)
    with recorded(world.cache) as engine:
        assert all(world.limiter.hit("me") for _ in range(25))
        asked = engine.counts["limit_hit"]
        assert asked == 2 + 1 + 5, "two leases, one that is refused, and one by one then"
        refused = world.limiter.hit("me")
        assert not refused
        assert 59.0 < refused.retry_after <= 60.0
        assert engine.counts["limit_hit"] == asked + 1


def test_a_unit_that_is_refunded_is_handed_out_again_as_long_as_it_may_be() -> None:
    world = Leased("10/minute", lease=10)
    first = [world.limiter.hit("me") for _ in range(10)]
    assert not world.limiter.hit("me")
    assert world.limiter.refund(first[0])
    assert not world.limiter.refund(first[0])
    assert world.limiter.hit("me")
    assert not world.limiter.hit("me")
    world.clock.advance(1.0)
    assert not world.limiter.refund(first[1]), "it may not be handed out any more"
    world.limiter.reset("me")
    assert all(world.limiter.hit("me") for _ in range(10))
    assert not world.limiter.hit("me")


def test_after_a_reset_nothing_is_handed_out_or_given_back_that_was_taken_before() -> None:
    world = Leased("10/minute", lease=5)
    verdict = world.limiter.hit("me")
    world.limiter.reset("me")
    assert not world.limiter.refund(verdict)
    assert world.limiter.hit("me").remaining == 9
    assert world.plain.peek("me").remaining == 5


def test_after_a_reset_nothing_is_handed_out_that_was_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Leased("10/minute", lease=5)
    port = world.cache._engine.backend.limits
    assert port is not None
    hit = port.hit

    async def crossed(ask: Any) -> Any:
        grant = await hit(ask)
        monkeypatch.undo()
        world.limiter.reset("me")
        return grant

    monkeypatch.setattr(port, "hit", crossed)
    verdict = world.limiter.hit("me")
    assert verdict
    assert not world.limiter.refund(verdict)
    assert sum(bool(world.limiter.hit("me")) for _ in range(20)) == 10


def test_after_a_reset_nothing_is_handed_out_that_was_taken_before_the_engine_knew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Leased("10/minute", lease=5)
    port = world.cache._engine.backend.limits
    assert port is not None
    reset = port.reset

    async def crossed(ask: Any) -> None:
        monkeypatch.undo()
        assert world.limiter.hit("me")
        await reset(ask)

    monkeypatch.setattr(port, "reset", crossed)
    world.limiter.reset("me")
    assert sum(bool(world.limiter.hit("me")) for _ in range(20)) == 10


def test_what_was_taken_is_handed_out_while_the_engine_does_not_answer() -> None:
    world = Leased("10/minute", lease=5)
    assert world.limiter.hit("me")
    with recorded(world.cache) as engine:
        engine.down()
        assert all(world.limiter.hit("me") for _ in range(4))
        world.cache._engine.core.shares.workers = 0
        with pytest.raises(BackendError):
            world.limiter.hit("me")
        world.cache._engine.core.shares.workers = 1
        assert [bool(world.limiter.hit("me")) for _ in range(6)] == [True] * 5 + [False], "the share of what was left"


def test_threads_hand_out_each_unit_once() -> None:
    world = Leased("500/hour", lease=50)
    allowed, begin = list[bool](), threading.Barrier(8)

    def work() -> None:
        begin.wait()
        for _ in range(100):
            allowed.append(bool(world.limiter.hit("me")))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 500


@pytest.mark.parametrize("flavour", [Cache, AsyncCache])
async def test_both_flavours_take_ahead(flavour: type[Cache | AsyncCache]) -> None:
    face = Awaited(flavour("memory://", observers=()))
    limiter = face.cache.limiter("a", "9/hour", lease=3)
    with recorded(face.cache) as engine:
        for left in range(8, -1, -1):
            assert (await face.awaited(limiter.hit)("me")).remaining == left
        assert engine.counts["limit_hit"] == 3


def test_a_forked_child_hands_out_nothing_of_its_parents() -> None:
    world = Leased("100/minute", lease=10)
    assert world.limiter.hit("me")
    world.cache._engine.core.after_fork()
    assert world.limiter.hit("me")
    assert world.plain.peek("me").remaining == 80


def test_many_identities_are_forgotten_when_their_units_may_not_be_handed_out_any_more() -> None:
    world = Leased("2/minute", lease=2)
    for _ in range(4):
        for n in range(600):
            world.limiter.hit(n)
        world.clock.advance(10.0)
    stock = world.cache._engine.core.stock
    assert len(stock._batches) + len(stock._scarce) <= 1_200


@pytest.mark.parametrize("lease", [0, -1, 6, True, 1.5, "5"])
def test_a_wrong_lease_is_told(lease: Any) -> None:
    with pytest.raises(ConfigError, match=r"lease is .*a whole number from 1 to 5, since '5/minute' of 'a'"):
        Cache("memory://").limiter("a", "5/minute", lease=lease)


def test_one_that_keeps_units_for_too_long_is_noticed() -> None:
    world = Leased("10/second", lease=10)
    with broken(limits, "LEASE", 0.1):
        assert world.limiter.hit("me")
        world.clock.advance(0.2)
        assert not world.limiter.hit("me")
    lasting = Leased("10/second", lease=10)
    with broken(Stock, "_alive", lambda self, whose, _: list(self._batches.get(whose, ()))):
        assert lasting.limiter.hit("me")
        lasting.clock.advance(0.2)
        assert lasting.limiter.hit("me"), "the check above would fail"
