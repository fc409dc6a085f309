"""Limits are kept as well where an engine has no scripts, and a record is read and then swapped.

Where the engine's time is known between bounds only, no unit of a sliding limit comes back too early, and windows begin
late by no more than the bounds are apart.
"""

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings

from nearcache import Cache
from nearcache._core.limits import Kind
from nearcache._core.quotas import Consumed, Quota, consumed
from nearcache._engine.limits import Limiting
from nearcache.backends.registers import limits as register_limits
from nearcache.testing import FakeClock
from tests.limits_model import first_broken
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import broken, noticed, noticed_within
from tests.promises.limiting import Admitted
from tests.promises.test_limits import HISTORIES, LIMITS, QUOTAS, Hands, admitted_by, as_the_model_says
from tests.registers import Forgetful, server_of

SECONDS = 5.0
OFF = 1.0
"""Seconds that the clock of a server may be off that of its machine: Memcached adds whole seconds to a whole second."""

QUICK = [("memcached", "fixed", 3), ("hazelcast", "sliding", 3)]
CREWS = [
    *QUICK,
    *(pytest.param("hazelcast", kind, 8, marks=pytest.mark.slow) for kind in ("fixed", "gcra")),
    pytest.param("memcached", "fixed", 8, marks=pytest.mark.slow),
]


# Processes


def kept(url: str, kind: str, new_cache: NewCache, processes: int, defect: str = "") -> None:
    """Have processes hit as fast as they can, and judge what was admitted."""
    namespace = f"p{uuid.uuid4().hex[:10]}"
    order = {"url": url, "namespace": namespace, "kind": kind, "limits": LIMITS, "seconds": SECONDS, "defect": defect}
    said = admitted_by([{**order, "flavour": ("sync", "async")[n % 2]} for n in range(processes)])
    admitted, error = [each for told, _ in said for each in told], max(error for _, error in said)
    assert sum(cost for _, cost, _, _ in admitted) >= 60, "the limits allow so many in so many seconds"
    judged = {"fixed": in_windows, "sliding": in_any_period, "gcra": as_they_come_back}[kind]
    for at, quota in enumerate(QUOTAS):
        judged(at, quota, admitted, error)
    units = sum(cost for _, cost, _, _ in admitted)
    last = new_cache(url, namespace=namespace).limiter("a", *LIMITS, kind=kind).peek("me")._standings[2]
    assert last.left == 900 - units, "the longest limit has counted something else than what was admitted"


def in_windows(at: int, quota: tuple[int, int], admitted: list[Admitted], error: float) -> None:
    """No more than the count in each window, and none has begun early, or ended later than it is known to have."""
    count, period = quota
    windows = dict[int, int]()
    for receipt, cost, asked, answered in admitted:
        began = int(receipt.split()[at])
        windows[began] = windows.get(began, 0) + cost
        assert began / 1e6 <= answered + OFF, "a window has begun early"
        assert asked < (began + period) / 1e6 + error + OFF, "a window has ended late"
    assert max(windows.values()) <= count, f"more than {quota} was admitted"


def in_any_period(_at: int, quota: tuple[int, int], admitted: list[Admitted], _error: float) -> None:
    """No more than the count in any period, by the engine's time and by that of this machine."""
    count, period = quota
    stamped = [(int(receipt), cost) for receipt, cost, _, _ in admitted]
    assert first_broken("sliding", quota, stamped) is None, f"more than {quota} was admitted"
    for _, _, begin, _ in admitted:
        inside = (cost for _, cost, asked, answered in admitted if begin <= asked and answered < begin + period / 1e6)
        assert sum(inside) <= count, f"more than {quota} was admitted in truth"


def as_they_come_back(_at: int, quota: tuple[int, int], admitted: list[Admitted], _error: float) -> None:
    """No more than the count and what has come back."""
    noted = [(int(receipt.split()[0]), cost) for receipt, cost, _, _ in admitted]
    assert first_broken("gcra", quota, noted) is None, f"more than {quota} was admitted"


@pytest.mark.parametrize(("engine", "kind", "processes"), CREWS)
def test_processes_at_full_speed_keep_every_limit(
    engine: str, kind: str, processes: int, request: pytest.FixtureRequest, new_cache: NewCache
) -> None:
    kept(url_of(engine, request), kind, new_cache, processes)


@pytest.mark.parametrize(("engine", "kind", "processes"), QUICK)
def test_one_that_stores_whatever_others_have_done_is_noticed(
    engine: str, kind: str, processes: int, request: pytest.FixtureRequest, new_cache: NewCache
) -> None:
    url = url_of(engine, request)
    noticed_within(4, lambda: kept(url, kind, new_cache, processes, "swaps blindly"), "")


# Histories


@contextmanager
def in_hand(coarse: float = 0.0, ahead: float = 0.0) -> Iterator[Hands]:
    """Registers whose time is moved by hand, and known exactly or rounded down: it is so far ahead of what is told."""
    clock = FakeClock(1_000_000.0 + ahead)

    async def told(_: Forgetful) -> float:
        return math.floor(clock() / coarse) * coarse if coarse else clock()

    with ExitStack() as stack:
        stack.enter_context(broken(Forgetful, "coarse", coarse))
        stack.enter_context(broken(Forgetful, "time", told))
        url = f"forgetful://{uuid.uuid4().hex}"
        yield Hands(stack.enter_context(Cache(url, clock=clock, near=None, observers=())), clock, None)


@given(HISTORIES)
@settings(max_examples=200, deadline=None)
def test_every_history_is_that_of_the_model(history: Any) -> None:
    with in_hand() as hands:
        as_the_model_says(hands, *history)


def test_a_history_in_which_a_unit_comes_back_too_early_is_noticed() -> None:
    steps = [("hit", 3, 0.0), ("hit", 2, 0.0), ("peek", 1, 9.9)]
    real = consumed

    def shorter(kind: Kind, quotas: Sequence[Quota], numbers: Sequence[int]) -> Consumed:
        return real(kind, [(count, period * 9 // 10) for count, period in quotas], numbers)

    for kind in ("sliding", "gcra"):
        with in_hand() as hands:
            as_the_model_says(hands, kind, steps)
        with in_hand() as hands, broken(register_limits, "consumed", shorter), noticed():
            as_the_model_says(hands, kind, steps)


def test_no_unit_comes_back_too_early_for_a_process_that_knows_the_time_badly() -> None:
    with in_hand(2.0) as hands:
        limiter, late = hands.cache.limiter("a", "1/10s"), 0.0
        for _ in range(20):
            hands.advance(0.3)
            assert limiter.hit("me")
            since = 0.0
            while not limiter.peek("me"):
                hands.advance(0.1)
                since += 0.1
            assert since >= 9.999
            late = max(late, since - 10.0)
        assert 0.0 < late <= 2.2


def handed_out_in_their_window() -> None:
    """Take units ahead at any time of windows, and look whether they can still be had when their window has ended."""
    with in_hand(2.0, ahead=1.7) as hands:
        limiter, stock = hands.cache.limiter("a", "90/10s", kind="fixed", lease=3), hands.cache._engine.core.stock
        looks, ends = 0, 0.0
        for _ in range(400):
            hands.advance(0.17)
            if any(stock.take(whose, 1, consume=False) for whose in stock._batches):
                assert hands.clock() < ends, "handed out in the next window"
                looks += 1
            else:
                ends = 10.0 * (hands.clock() // 10.0 + 1)
                assert limiter.hit("me")
        assert looks >= 50


def test_units_that_were_taken_ahead_are_not_handed_out_when_others_may_know_that_their_window_has_ended() -> None:
    handed_out_in_their_window()
    with broken(Limiting, "_unsure", lambda _: 0.0), noticed("handed out in the next window"):
        handed_out_in_their_window()


# What is left in the engine


@pytest.mark.parametrize("kind", ["sliding", "fixed", "gcra"])
def test_every_record_has_an_end(kind: str) -> None:
    url = f"forgetful://{uuid.uuid4().hex}"
    with Cache(url, namespace="p", observers=()) as cache:
        limiter = cache.limiter("login", "5/minute", "9/hour", kind=kind)
        verdict, node = limiter.hit("1.2.3.4", 2), server_of(url).nodes["values"]
        limiter.hit("1.2.3.4")
        for _ in range(2):
            (name,) = [name for name in node.names() if name.startswith("{p:login:")]
            assert "1.2.3.4" not in name
            assert 0.0 < (node.look(name).left or math.inf) <= 3_603.0
            limiter.refund(verdict)
        limiter.reset("1.2.3.4")
        assert not [name for name in node.names() if name.startswith("{p:login:")]


@pytest.mark.parametrize("kind", ["sliding", "fixed", "gcra"])
def test_what_no_limiter_has_stored_counts_as_nothing(kind: str) -> None:
    url = f"forgetful://{uuid.uuid4().hex}"
    with Cache(url, namespace="p", observers=()) as cache:
        limiter, node = cache.limiter("a", "5/minute", kind=kind), server_of(url).nodes["values"]
        limiter.hit("me")
        (name,) = [name for name in node.names() if name.startswith("{p:a:")]
        for raw in (
            b"",
            b"\x80\x04N.",
            b"-1 -1",
            b"1 2 3 4 x",
            b"9" * 10_000,
            b"1e9 1",
            b"1 " * 5_000,
            b"\xff" * 9,
            b"{}",
        ):
            node.put(name, raw, 60.0)
            assert limiter.peek("me").remaining == 5
            assert limiter.hit("me").remaining == 4
        node.put(name, b"%d %d" % (time.time_ns(), 10**23), 60.0)
        assert not limiter.hit("me") or kind == "sliding"
