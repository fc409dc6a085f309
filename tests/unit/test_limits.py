"""What a limiter refuses to be, what it says, and what becomes of it when its engine fails."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import parse
from limits.storage import MemoryStorage
from limits.storage import memory as their_storage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from nearcache import AsyncCache, BackendError, Cache, ConfigError, InvalidKeyError, LimitExceededError
from nearcache._core.events import Limited
from nearcache.backends import memory_limits
from nearcache.testing import FakeClock, faults
from tests.faces import Awaited

KINDS = ("sliding", "fixed", "gcra")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000_000.0)


@pytest.fixture
def cache(clock: FakeClock) -> Cache:
    return Cache("memory://", clock=clock, observers=())


# What it is made of


@pytest.mark.parametrize(
    ("limits", "kind", "why"),
    [
        ((), "sliding", "needs at least one limit"),
        (("5/minute",), "leaky", "kind is 'leaky'; it must be 'sliding' or 'fixed' or 'gcra'"),
        (("5 per minute",), "sliding", "limit is '5 per minute'; it must be a count and a period"),
        ((5,), "sliding", "limit is 5; it must be"),
        (("0/minute",), "fixed", "its count must be from 1 to 1,000,000,000"),
        (("1000000001/minute",), "fixed", "its count must be from 1"),
        (("5/fortnight",), "fixed", "the period of '5/fortnight' is 'fortnight'"),
        (("5/500ms",), "fixed", "its period must be from 1 second to 365 days"),
        (("5/366d",), "fixed", "its period must be from 1 second to 365 days"),
        (("5/minute", "9/60s"), "fixed", "'9/60s' is the second limit with its period"),
        (("1001/day",), "sliding", 'more than 1,000 units; take kind="gcra" or kind="fixed"'),
    ],
)
def test_what_is_no_limit_is_told(cache: Cache, limits: Any, kind: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        cache.limiter("a", *limits, kind=kind)


def test_a_wrong_name_identity_or_cost_is_told(cache: Cache) -> None:
    with pytest.raises(InvalidKeyError):
        cache.limiter("two words", "5/minute")
    limiter = cache.limiter("a", "5/minute", "9/hour")
    with pytest.raises(InvalidKeyError, match="'identity'"):
        limiter.hit(object())
    for cost in (0, 6, True, 1.0, "1"):
        with pytest.raises(ConfigError, match="a whole number from 1 to 5, since '5/minute' of 'a' allows no more"):
            limiter.hit("me", cost)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timeout is 0"):
        limiter.wait("me", timeout=0)


def test_the_largest_limits_can_be_had(cache: Cache) -> None:
    assert cache.limiter("a", "1000/365d").hit("me", 1000).remaining == 0
    for kind in ("fixed", "gcra"):
        assert cache.limiter("a", "1000000000/365d", kind=kind).hit("me", 999_999_999).remaining == 1


def test_no_identity_is_mistaken_for_another(cache: Cache) -> None:
    limiter, others = cache.limiter("a", "1/day"), ["a", "a:b", ("a", "b"), "('a','b')", "{a}", "}~r", "é", b"a", None]
    assert all(limiter.hit(identity) for identity in others)
    assert not any(limiter.hit(identity) for identity in others)
    assert cache.limiter("a:a", "1/day").hit("a")
    assert cache.limiter("a", "1/day", kind="fixed").hit("a")
    assert cache.limiter("a", "2/day").hit("a")
    assert not cache.limiter("a", "1/day").hit("a"), "it is the same limiter"


# What it says


def test_a_verdict_tells_http_clients(cache: Cache, clock: FakeClock) -> None:
    limiter = cache.limiter("login", "5/minute", "100/day")
    allowed = limiter.hit("me", 2)
    assert (allowed.remaining, allowed.retry_after, bool(allowed)) == (3, 0.0, True)
    assert allowed.headers() == {
        "RateLimit-Policy": '"5/minute";q=5;w=60, "100/day";q=100;w=86400',
        "RateLimit": '"5/minute";r=3;t=60, "100/day";r=98;t=86400',
        "X-RateLimit-Limit": "5",
        "X-RateLimit-Remaining": "3",
        "X-RateLimit-Reset": "60",
    }
    clock.advance(10.5)
    refused = limiter.hit("me", 4)
    assert (refused.remaining, refused.retry_after, bool(refused)) == (3, 49.5, False)
    assert refused.headers() == {
        **allowed.headers(),
        "RateLimit": '"5/minute";r=3;t=50, "100/day";r=98;t=86390',
        "X-RateLimit-Reset": "50",
        "Retry-After": "50",
    }
    assert repr(refused) == "<verdict of 'login': refused, retry_after=49.500, remaining=3>"
    assert repr(limiter) == "<limiter 'login': '5/minute', '100/day', sliding>"


def test_a_fixed_window_ends_when_the_minute_does(cache: Cache, clock: FakeClock) -> None:
    limiter = cache.limiter("a", "1/minute", kind="fixed")
    assert limiter.hit("me")
    assert limiter.hit("me").retry_after == 60.0 - clock() % 60.0
    clock.advance(limiter.peek("me").retry_after)
    assert limiter.hit("me")


def test_gcra_admits_nine_of_five_in_its_first_minute(cache: Cache, clock: FakeClock) -> None:
    limiter, admitted = cache.limiter("a", "5/minute", kind="gcra"), 0
    for _ in range(60):
        admitted += bool(limiter.hit("me"))
        admitted += sum(bool(limiter.hit("me")) for _ in range(5))
        clock.advance(0.999)
    assert admitted == 9


def test_a_refusal_that_is_an_error_names_limit_and_limiter_but_not_who(cache: Cache) -> None:
    limiter = cache.limiter("login", "1/minute", "5/day")
    assert limiter.require("10.0.0.1")
    with pytest.raises(LimitExceededError) as raised:
        limiter.require("10.0.0.1")
    assert str(raised.value) == "the limit '1/minute' of 'login' is used up; try again in 60 s"
    assert (raised.value.retry_after, raised.value.headers["Retry-After"]) == (60.0, "60")


class Ear:
    """Notes what was refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def on(self, event: object) -> None:
        if isinstance(event, Limited):
            self.refused.append(event.limit)


@pytest.mark.parametrize("flavour", [Cache, AsyncCache])
async def test_each_call_that_is_refused_is_counted_once(flavour: type[Cache | AsyncCache]) -> None:
    face = Awaited(flavour("memory://", observers=(ear := Ear(),)))
    hit, peek, require, wait = (
        face.awaited(getattr(face.limiter("login:web", "1/second", "2/hour"), verb))
        for verb in ("hit", "peek", "require", "wait")
    )
    assert await hit("me")
    assert not await peek("me")
    assert await wait("me"), "it was refused at first, and admitted then"
    assert ear.refused == []
    assert not await hit("me")
    for call in (require, wait):
        with pytest.raises(LimitExceededError):
            await call("me")
    assert ear.refused == ["login"] * 3


def test_only_what_was_consumed_can_be_refunded_and_only_once(cache: Cache) -> None:
    limiter = cache.limiter("a", "1/minute")
    looked, verdict = limiter.peek("me"), limiter.hit("me")
    assert not limiter.refund(looked)
    assert not limiter.refund(limiter.hit("me"))
    with pytest.raises(ConfigError, match="only by a limiter with its limits"):
        cache.limiter("b", "1/minute").refund(verdict)
    assert limiter.refund(verdict)
    again = limiter.hit("me")
    assert not limiter.refund(verdict)
    assert not limiter.peek("me")
    assert cache.limiter("a", "1/minute").refund(again)


# Waiting


@pytest.mark.parametrize("flavour", [Cache, AsyncCache])
async def test_who_waits_is_admitted_as_soon_as_it_is_allowed(flavour: type[Cache | AsyncCache]) -> None:
    face = Awaited(flavour("memory://", observers=()))
    wait, started = face.awaited(face.limiter("a", "2/second").wait), time.monotonic()
    for _ in range(4):
        assert await wait("me", timeout=30)
    assert time.monotonic() - started >= 1.0


def test_who_would_wait_for_too_long_is_told_at_once(cache: Cache) -> None:
    limiter, started = cache.limiter("a", "1/day"), time.monotonic()
    assert limiter.wait("me")
    with pytest.raises(LimitExceededError):
        limiter.wait("me", timeout=30)
    assert time.monotonic() - started < 10.0
    assert limiter.peek("me").remaining == 0


# An engine that fails


def test_an_engine_that_does_not_answer_decides_nothing_where_that_is_said() -> None:
    cache = Cache("memory://", policy={"limit": "closed"}, observers=())
    limiter = cache.limiter("a", "1/minute")
    verdict = limiter.hit("me")
    with faults(cache) as engine:
        engine.down()
        for call in (limiter.hit, limiter.peek, limiter.require, limiter.wait, limiter.reset):
            with pytest.raises(BackendError):
                call("me")
        with pytest.raises(BackendError):
            limiter.refund(verdict)
        engine.up()
        assert not limiter.hit("me")


def test_a_hit_whose_answer_was_lost_counts(cache: Cache) -> None:
    limiter = cache.limiter("a", "1/minute")
    with faults(cache) as engine:
        engine.fail("limit_hit", done=True)
        with pytest.raises(BackendError):
            limiter.hit("me")
        engine.noticed()
        assert not limiter.hit("me")


def test_limits_work_where_values_are_not_cached(cache: Cache) -> None:
    with cache.disabled(), cache.memo():
        limiter = cache.limiter("a", "1/minute")
        assert limiter.hit("me")
        assert not limiter.hit("me")


# In memory


async def test_both_flavours_count_together(cache: Cache) -> None:
    assert cache.limiter("a", "1/minute").hit("me")
    assert not await cache.aio.limiter("a", "1/minute").hit("me")


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_not_come_for_long_is_forgotten(cache: Cache, clock: FakeClock, kind: str) -> None:
    limiter, kept = cache.limiter("a", "1/second", kind=kind), cache.limiter("a", "1/day", kind=kind)
    assert kept.hit("me")
    for second in range(3):
        for n in range(memory_limits.SWEEP_AT):
            assert limiter.hit((second, n))
        clock.advance(2)
    records = cache._engine.backend.limits._records  # type: ignore[union-attr]
    assert len(records) <= 2 * memory_limits.SWEEP_AT
    assert not kept.hit("me")


# Another library's limits


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 6),
    windows=st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), max_size=6), max_size=5),
)
def test_decisions_are_those_of_the_library_limits(count: int, windows: list[list[tuple[int, int]]]) -> None:
    clock = FakeClock(1_000_000_000.0)
    cache = Cache("memory://", clock=clock, observers=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(their_storage, "time", SimpleNamespace(time=clock))
        for kind, theirs in (("fixed", FixedWindowRateLimiter), ("sliding", MovingWindowRateLimiter)):
            clock.advance(60.0 - clock() % 60.0)
            limiter, strategy = cache.limiter("a", f"{count}/minute", kind=kind), theirs(MemoryStorage())
            item = parse(f"{count}/minute")
            for number, hits in enumerate(windows, 1):
                # Their fixed window begins with its first hit, and their sliding one includes its end.
                for cost, seconds in [(1, number / 1000), *hits]:
                    clock.advance(seconds)
                    if cost <= count:
                        peeked, test = bool(limiter.peek("me", cost)), strategy.test(item, "me", cost=cost)
                        assert peeked == test
                        # Theirs counts what it refuses in a fixed window, so that nothing refused is sent to it.
                        assert not test or bool(limiter.hit("me", cost)) == strategy.hit(item, "me", cost=cost)
                clock.advance(60.0 - clock() % 60.0)
