"""Limits are kept by all processes together, and several of them are consumed together or not at all."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearcache import Cache
from nearcache.backends.redis import backend as redis_backend
from nearcache.backends.redis import lua
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import limit_of
from nearcache.testing import FakeClock
from tests.limits_model import Model, first_broken
from tests.promises.conftest import NewCache
from tests.promises.helpers import LIBRARY, broken, noticed, noticed_within
from tests.promises.limiting import Admitted
from tests.servers import CHECKOUT, RedisServer, ask

KINDS = ("sliding", "fixed", "gcra")
LIMITS = ("40/second", "100/3s", "900/30d")
QUOTAS = ((40, 1_000_000), (100, 3_000_000), (900, 30 * 86_400_000_000))
SECONDS = 3.0
CREWS = [("sliding", 3), *(pytest.param(kind, 8, marks=pytest.mark.slow) for kind in KINDS)]


# Processes


def kept(url: str, kind: str, new_cache: NewCache, processes: int, defect: str = "") -> None:
    """Have processes hit as fast as they can, and judge what was admitted."""
    namespace = f"p{uuid.uuid4().hex[:10]}"
    order = {"url": url, "namespace": namespace, "kind": kind, "limits": LIMITS, "seconds": SECONDS, "defect": defect}
    said = admitted_by([{**order, "flavour": ("sync", "async")[n % 2]} for n in range(processes)])
    admitted = [(int(receipt.split("@")[1]), cost) for told, _ in said for receipt, cost, _, _ in told]
    units = sum(cost for _, cost in admitted)
    assert units >= 60, "the limits allow so many: what was consumed in the first second comes back"
    for quota in QUOTAS:
        assert first_broken(kind, quota, admitted) is None, f"more than {quota} was admitted"
    left = [
        standing.left
        for standing in new_cache(url, namespace=namespace).limiter("a", *LIMITS, kind=kind).peek("me")._standings
    ]
    assert left[2] == 900 - units, "the longest limit has counted something else than what was admitted"


def admitted_by(
    orders: list[dict[str, Any]], begin: Callable[[], object] = lambda: None
) -> list[tuple[list[Admitted], float]]:
    """Return what processes say that were admitted something, which begin together, after `begin`."""
    path = f"{Path(LIBRARY).parent}{os.pathsep}{CHECKOUT}"
    with ExitStack() as stack:
        crew = list[subprocess.Popen[str]]()
        for order in orders:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.promises.limiting", json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": path},
            )
            crew.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in crew:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        begin()
        for process in crew:
            print(file=process.stdin, flush=True)
        said = [process.communicate(timeout=60)[0] for process in crew]
    assert [process.returncode for process in crew] == [0] * len(crew)
    return [json.loads(text) for text in said]


@pytest.mark.parametrize(("kind", "processes"), CREWS)
def test_processes_at_full_speed_keep_every_limit(
    kind: str, processes: int, valkey_url: str, new_cache: NewCache
) -> None:
    kept(valkey_url, kind, new_cache, processes)


@pytest.mark.parametrize(("kind", "processes"), CREWS)
def test_one_that_looks_first_and_consumes_then_is_noticed(
    kind: str, processes: int, valkey_url: str, new_cache: NewCache
) -> None:
    noticed_within(4, lambda: kept(valkey_url, kind, new_cache, processes, "careless"), "was admitted")


@pytest.mark.parametrize(("kind", "processes"), CREWS)
def test_one_that_counts_what_it_refuses_is_noticed(
    kind: str, processes: int, valkey_url: str, new_cache: NewCache
) -> None:
    with noticed(r"so many|something else"):
        kept(valkey_url, kind, new_cache, processes, "counts what it refuses")


# Histories

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hit", "hit", "hit", "peek", "refund", "reset"]),
        st.integers(1, 3),
        st.sampled_from([0.001, 0.2, 0.5, 1.0, 3.0, 7.0, 10.0, 31.0]),
    ),
    max_size=40,
)
HISTORIES = st.tuples(st.sampled_from(KINDS), STEPS)
TOGETHER = ("5/10s", "8/30s")
TOGETHER_QUOTAS = ((5, 10_000_000), (8, 30_000_000))


class Hands:
    """A cache whose engine's time is moved by hand."""

    def __init__(self, cache: Cache, clock: FakeClock, address: Path | None) -> None:
        self.cache = cache
        self.clock = clock
        self._address = address
        self.now = 1_000_000_000_000

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.now += round(seconds * 1_000_000)
        self.clock.advance(seconds)
        if self._address is not None:
            ask(self._address, "MSET", "~test:s", self.now // 1_000_000, "~test:u", self.now % 1_000_000)


def as_the_model_says(hands: Hands, kind: str, steps: list[tuple[str, int, float]]) -> None:
    """Do what a history says, and compare each answer with the model's.

    A refund of GCRA gives back what has not come back since; that may be less than if the hit had never been.
    """
    limiter, who = hands.cache.limiter("a", *TOGETHER, kind=kind), uuid.uuid4().hex
    model, verdicts, exact = Model(kind, TOGETHER_QUOTAS), list[Any](), True
    for verb, cost, seconds in steps:
        hands.advance(0.001 + seconds)
        now = hands.now
        if verb == "reset":
            limiter.reset(who)
            model.admitted.clear()
            verdicts.clear()
            exact = True
        elif verb == "refund" and verdicts:
            verdict, admission = verdicts.pop(cost % len(verdicts))
            assert limiter.refund(verdict)
            assert not limiter.refund(verdict)
            model.admitted.remove(admission)
            exact = exact and kind != "gcra"
        elif verb != "refund":
            told, allowed = getattr(limiter, verb)(who, cost), model.allows(now, cost)
            assert allowed if told else not (allowed and exact), f"{verb} of {cost} at {now}: {told}, {model.admitted}"
            assert told.allowed == (told.retry_after == 0.0)
            if told and verb == "hit":
                model.admitted.append((now, cost))
                verdicts.append((told, (now, cost)))
            if exact and not told:
                again = now + round(told.retry_after * 1_000_000)
                assert model.allows(again, cost), "it is told to come too early"
                assert not model.allows(again - 2, cost), "it is told to come too late"
        left = [standing.left for standing in limiter.peek(who)._standings]
        assert all(mine <= its for mine, its in zip(left, model.left(now), strict=True))
        assert not exact or left == model.left(now)


@contextmanager
def engine_in_hand(url: str, server: RedisServer, defects: Mapping[str, str] = MappingProxyType({})) -> Iterator[Hands]:
    """Have scripts about limits read the time from a record."""
    real = "redis.call('TIME')"
    told = "redis.call('MGET', '~test:s', '~test:u')"

    def timed(name: str) -> lua.Script:
        text = script(name).text
        for before, after in {real: told, **defects}.items() if name.startswith("limit_") else ():
            assert before in text
            text = text.replace(before, after)
        return lua.made(text)

    with broken(redis_backend, "script", timed), Cache(url, near=None, namespace="hist", timeout=5.0) as cache:
        yield Hands(cache, FakeClock(), server.socket)


@given(HISTORIES)
@settings(max_examples=300, deadline=None)
def test_every_history_in_memory_is_that_of_the_model(history: Any) -> None:
    clock = FakeClock()
    as_the_model_says(Hands(Cache("memory://", clock=clock, observers=()), clock, None), *history)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES)
def test_every_history_in_an_engine_is_that_of_the_model(
    history: Any, valkey_url: str, valkey_server: RedisServer
) -> None:
    with engine_in_hand(valkey_url, valkey_server) as hands:
        as_the_model_says(hands, *history)


def test_a_history_in_which_a_unit_comes_back_too_early_is_noticed(valkey_url: str, valkey_server: RedisServer) -> None:
    steps = [("hit", 3, 0.0), ("hit", 2, 0.0), ("peek", 1, 9.9)]
    for kind, sound, defect in (
        ("sliding", "now - quota.period", "now - quota.period + 200000"),
        ("fixed", "math.fmod(now, quota.period)", "0"),
        ("gcra", "(now - last) * quota.count", "(now - last) * quota.count * 2"),
    ):
        with engine_in_hand(valkey_url, valkey_server) as hands:
            as_the_model_says(hands, kind, steps)
        with engine_in_hand(valkey_url, valkey_server, {sound: defect}) as hands, noticed():
            as_the_model_says(hands, kind, steps)


# What is left in the engine


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_has_an_end(kind: str, valkey_url: str, valkey_server: RedisServer, new_cache: NewCache) -> None:
    cache = new_cache(valkey_url)
    limiter = cache.limiter("login", "5/minute", "9/hour", kind=kind)
    verdict = limiter.hit("1.2.3.4", 2)
    limiter.hit("1.2.3.4")
    for _ in range(2):
        (record,) = ask(valkey_server.socket, "KEYS", limit_of(cache.engine_key("login:*")))
        assert 0 < ask(valkey_server.socket, "PTTL", record) <= 3_601_000
        assert b"1.2.3.4" not in record
        limiter.refund(verdict)
    limiter.reset("1.2.3.4")
    assert ask(valkey_server.socket, "KEYS", limit_of(cache.engine_key("login:*"))) == []
