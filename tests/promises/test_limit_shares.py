"""While the engine does not answer, each process consumes its share of a limit, and all together no more than it."""

import functools
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nearcache import BackendError, Cache, ConfigError
from nearcache._io.blocking import drive
from nearcache.near.shares import LIFE
from nearcache.testing import FakeClock
from tests.promises.conftest import NewCache
from tests.promises.helpers import eventually, noticed, recorded
from tests.promises.test_limits import admitted_by
from tests.servers import MemcachedServer, RedisServer

WORKERS = 3
LIMIT = 60
BEFORE = 4
"""Units that each worker consumes while the engine answers."""


def shared_out(server: RedisServer | MemcachedServer, kind: str, how: str, defect: str = "") -> None:
    """Have processes hit as fast as they can after their engine has gone, and judge how much they let through."""
    url = server.url if isinstance(server, RedisServer) else f"memcached://{server.where}"
    order: dict[str, Any] = {
        "url": url,
        "namespace": f"p{uuid.uuid4().hex[:10]}",
        "kind": kind,
        "limits": [f"{LIMIT}/30d"],
        "seconds": 2.0,
        "timeout": 0.5,
        "defect": defect,
        "before": BEFORE,
        "beat": 0.05,
        "workers": WORKERS,
    }
    orders = [{**order, "flavour": ("sync", "async")[n % 2]} for n in range(WORKERS)]
    said = admitted_by(orders, begin=server.kill if how == "killed" else server.pause)
    counts = [sum(cost for _, cost, _, _ in told) for told, _ in said]
    assert all((LIMIT - WORKERS * BEFORE) // WORKERS - 1 <= count <= LIMIT // WORKERS for count in counts), counts
    assert sum(counts) <= LIMIT


CASES = [
    ("own_server", "sliding", "killed"),
    ("own_memcached", "fixed", "killed"),
    *(
        pytest.param(server, kind, how, marks=pytest.mark.slow)
        for server, kind, how in (
            ("own_server", "fixed", "paused"),
            ("own_server", "gcra", "killed"),
            ("own_memcached", "fixed", "paused"),
        )
    ),
]


@pytest.mark.parametrize(("server", "kind", "how"), CASES)
def test_processes_together_let_through_no_more_than_a_limit_in_an_outage(
    server: str, kind: str, how: str, request: pytest.FixtureRequest
) -> None:
    shared_out(request.getfixturevalue(server), kind, how)


def test_processes_that_do_not_know_of_each_other_are_noticed(own_server: RedisServer) -> None:
    with noticed():
        shared_out(own_server, "sliding", "killed", "knows of nobody else")


# Who is counted


def test_workers_that_say_nothing_are_not_counted_any_more(valkey_url: str, new_cache: NewCache) -> None:
    for url in (valkey_url, f"forgetful://{uuid.uuid4().hex}"):
        limits = new_cache(url)._engine.backend.limits
        assert limits is not None
        beat = functools.partial(limits.beat, "one")
        assert [drive(limits.beat(worker, 60.0)) for worker in ("one", "two", "one")] == [1, 2, 2]
        eventually(functools.partial(_is_one, beat), "who has fallen silent is forgotten")


def _is_one(beat: Callable[[float], Coroutine[Any, Any, int]]) -> bool:
    return drive(beat(0.5)) == 1


# One process


def known(workers: int, *limits: str, kind: str = "sliding", **options: Any) -> tuple[Cache, FakeClock, Any]:
    """Return a cache in memory that knows of so many workers, its clock, and a limiter of which nobody has used any."""
    clock = FakeClock(1_000_000_020.0)
    cache = Cache("memory://", clock=clock, observers=(), **options)
    limiter = cache.limiter("a", *limits, kind=kind)
    limiter.peek("somebody")
    assert cache._engine.core.shares.workers == int(options.get("policy") is None)
    cache._engine.core.shares.workers = workers
    return cache, clock, limiter


def let_through(limiter: Any, who: str = "me", cost: int = 1) -> int:
    """Return how many calls are allowed before one is refused."""
    calls = 0
    while limiter.hit(who, cost):
        calls += 1
    return calls


@pytest.mark.parametrize("kind", ["sliding", "fixed", "gcra"])
def test_a_share_is_that_of_what_was_left_and_of_the_whole_after_a_period(kind: str) -> None:
    cache, clock, limiter = known(3, "30/minute", "300/hour", kind=kind)
    assert limiter.hit("me", 12)
    with recorded(cache) as engine:
        engine.down()
        assert limiter.peek("me").remaining == 6, "18 units are left for three"
        verdict = limiter.hit("me", 2)
        assert (bool(verdict), verdict.remaining) == (True, 4)
        assert not limiter.refund(verdict), "nothing was consumed in the engine"
        assert let_through(limiter, cost=2) == 2
        refused = limiter.hit("me")
        assert 0.0 < refused.retry_after <= 60.0
        assert let_through(limiter, "who was never met") == 10
        clock.advance(61.0)
        assert let_through(limiter) == 10
        engine.up()
        assert limiter.peek("me").remaining == 30, "the engine has not heard of it"
        engine.down()
        assert let_through(limiter) == 0, "it is the same share"


def test_a_share_of_nothing_lets_nobody_through_nor_does_one_that_is_smaller_than_the_cost() -> None:
    cache, _, limiter = known(4, "3/minute", "9/hour")
    with recorded(cache) as engine:
        engine.down()
        assert (limiter.hit("me").retry_after, limiter.hit("me").remaining) == (60.0, 0)
    cache, _, limiter = known(4, "10/minute")
    with recorded(cache) as engine:
        engine.down()
        assert not limiter.hit("me", 3)
        assert let_through(limiter) == 2


def test_who_does_not_know_how_many_there_are_raises_and_so_does_who_has_to() -> None:
    cache = Cache("memory://", observers=())
    limiter = cache.limiter("a", "9/minute")
    with recorded(cache) as engine:
        engine.down()
        with pytest.raises(BackendError):
            limiter.hit("me")
    cache, _, limiter = known(1, "9/minute", policy={"limit": "closed"})
    with recorded(cache) as engine:
        engine.down()
        for call in (limiter.hit, limiter.peek, limiter.reset):
            with pytest.raises(BackendError):
                call("me")
    with pytest.raises(ConfigError, match=r"policy\['limit'\] is 'open'; it must be 'share' or 'closed'"):
        known(1, "9/minute", policy={"limit": "open"})


def test_what_was_reset_is_taken_for_whole() -> None:
    cache, _, limiter = known(2, "8/minute")
    limiter.hit("me", 8)
    limiter.reset("me")
    with recorded(cache) as engine:
        engine.down()
        assert let_through(limiter) == 4


def test_a_hit_is_one_command_but_now_and_then_when_workers_are_counted() -> None:
    cache, clock, limiter = known(1, "900/minute")
    with recorded(cache) as engine:
        for _ in range(100):
            assert limiter.hit("me")
            clock.advance(0.1)
        assert engine.counts["limit_hit"] == 100
        assert engine.counts["limit_beat"] <= 2
        engine.fail("limit_beat")
        clock.advance(LIFE)
        assert limiter.hit("me"), "counting workers is not worth an error"


def test_many_identities_in_an_outage_are_forgotten_when_their_shares_are_whole() -> None:
    cache, clock, limiter = known(1, "2/second")
    with recorded(cache) as engine:
        engine.down()
        for _ in range(5):
            for n in range(500):
                assert limiter.hit(n)
            clock.advance(2.0)
    assert len(cache._engine.core.shares._shares) <= 1_000
