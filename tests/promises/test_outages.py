"""An engine that cannot be reached: what is queued, what is answered at once, and how often the source is asked."""

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from nearcache import (
    MISS,
    AsyncCache,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    Cache,
    Queued,
    loading,
)
from nearcache._core.outage import LONGEST_PAUSE, Outage
from nearcache._engine import core as core_module
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache.backends.base import LostConnection, NoConnection, NotServing, is_silence
from nearcache.backends.redis.errors import DOWN, refused
from nearcache.backends.redis.listener import Listener
from nearcache.near import flights as flights_module
from nearcache.near import view as view_module
from nearcache.near.flights import Flights
from nearcache.testing import FakeClock, FaultyBackend
from tests.faces import Awaited
from tests.promises import helpers
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Crowd,
    Recorder,
    broken,
    eventually,
    eventually_in_loop,
    impatient,
    noticed,
    recorded,
    unannounced,
    values,
)
from tests.proxy import Line, proxied
from tests.servers import RedisServer

pytestmark = pytest.mark.alone

Verb = Callable[[Awaited], Awaitable[Any]]

INVALIDATIONS: dict[str, Verb] = {
    "delete": lambda face: face.delete("a:1"),
    "delete_many": lambda face: face.delete_many(["a:1", "a:2"]),
    "invalidate_tags": lambda face: face.invalidate_tags("t:1"),
    "clear": lambda face: face.clear(),
    "invalidate": lambda face: face.awaited(function_of(face).invalidate)(1),
}


def function_of(face: Awaited) -> Any:
    """Return a decorated function whose first key is a:1."""

    def load(number: int) -> str:
        return f"loaded {number}"

    return face.cached("a:{number}")(face.loader(load))


@pytest.fixture
def line(valkey_server: RedisServer) -> Iterator[Line]:
    """A way to the server that can be cut."""
    with proxied(valkey_server.port) as proxy:
        yield Line(valkey_server, proxy)


@pytest.fixture(params=["sync", "async"])
async def made(request: pytest.FixtureRequest) -> Any:
    """Make faces of one flavour, which are closed at the end."""
    kinds: dict[str, Any] = {"sync": Cache, "async": AsyncCache}
    faces: list[Awaited] = []

    def make(url: str, **options: Any) -> Awaited:
        options.setdefault("namespace", f"o{os.urandom(5).hex()}")
        faces.append(Awaited(kinds[request.param](url, **{"pool_min": 1, "observers": (), "timeout": 0.3, **options})))
        return faces[-1]

    yield make
    for face in faces:
        await face.close()


Make = Callable[..., Awaited]
OUTAGES = {"cut": Line.cut, "hangs": Line.hang}


# What is queued


async def nothing_of_it_is_lost(line: Line, made: Make, invalidate: Verb, outage: Callable[[Line], None]) -> None:
    """Invalidate while the engine cannot be reached; it comes to pass when it can, whatever this process does then."""
    face = made(line.url)
    other = made(line.server.url, namespace=face.cache._parts.core.options.namespace, near=None, timeout=1.0)
    await face.set_many({"a:1": "old", "a:2": "old"}, tags=["t:1"])
    assert await face.get("a:1") == await other.get("a:1") == "old"
    eventually(lambda: core_of(face).coherence.tracked, "it listens: a connection that is being made is not cut")
    outage(line)
    told = await invalidate(face)
    assert isinstance(told, Queued), told
    assert not told
    assert repr(told) == "Queued()"
    assert await face.get("a:1", MISS) is MISS, "a miss for who invalidated it"
    assert await other.get("a:1") == "old", "not acknowledged"
    assert (await face.health()).queued > 0
    line.mend()
    eventually(lambda: other_sees(line, face) is None, "the engine is told, although nobody calls this process")
    assert await face.get("a:1", MISS) is MISS
    eventually(lambda: face.cache._parts.core.owed == 0, "nothing waits any more")


def other_sees(line: Line, face: Awaited) -> Any:
    """Return what a process reads that knows nothing."""
    with Cache(line.server.url, namespace=face.cache._parts.core.options.namespace, observers=(), pool_min=1) as cache:
        return cache.get("a:1")


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("name", INVALIDATIONS)
async def test_an_invalidation_that_the_engine_cannot_be_told_of_is_queued(
    line: Line, made: Make, name: str, outage: str
) -> None:
    await nothing_of_it_is_lost(line, made, INVALIDATIONS[name], OUTAGES[outage])


async def nothing(_self: Commands) -> None:
    """Repeat nothing."""


async def test_a_queue_that_nobody_drains_is_noticed(line: Line, made: Make) -> None:
    with broken(Commands, "settle", nothing), impatient(), noticed("the engine is told"):
        await nothing_of_it_is_lost(line, made, INVALIDATIONS["delete"], Line.cut)


async def test_a_forgotten_queue_is_noticed(line: Line, made: Make) -> None:
    with broken(Core, "owe", lambda core, *keys: None), noticed(), impatient():
        await nothing_of_it_is_lost(line, made, INVALIDATIONS["delete"], Line.hang)


async def test_an_engine_that_answers_and_refuses_is_no_outage(made: Make) -> None:
    face = made("memory://")
    await face.set("a:1", "old", tags=["t:1"])
    for operation, invalidate in (("delete", "delete"), ("mark", "invalidate_tags"), ("mark", "clear")):
        with recorded(face.cache) as engine:
            engine.fail(operation, times=2, error=BackendError("READONLY").undone())
            with pytest.raises(BackendError, match="READONLY"):
                await INVALIDATIONS[invalidate](face)


async def test_who_wants_an_error_gets_one(made: Make) -> None:
    face = made("memory://", policy={"invalidate": "closed"})
    await face.set("a:1", "old", tags=["t:1"])
    with recorded(face.cache) as engine:
        engine.down()
        for invalidate in INVALIDATIONS.values():
            with pytest.raises(BackendUnavailableError):
                await invalidate(face)
        engine.up()
    assert await face.get("a:1", MISS) is MISS, "it is repeated all the same"


async def test_the_end_of_a_transaction_queues_too(made: Make) -> None:
    face = made("memory://")
    await face.set("a:1", "old")
    with recorded(face.cache) as engine:
        engine.down()
        async with face.transaction():
            await face.delete("a:1")
        engine.up()
        assert await face.get("a:1", MISS) is MISS


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Let fewer invalidations wait."""
    with broken(core_module, "MOST_OWED", most), broken(view_module, "MOST_OWED", most):
        yield


async def the_queue_is_bounded(make: Make) -> None:
    """More invalidations than fit become one of everything; whoever else is there sees that they are made."""
    with bounded(10):
        face = make("memory://")
        await face.set_many({f"a:{number}": "old" for number in range(30)})
        with recorded(face.cache) as engine:
            engine.down()
            for number in range(25):
                assert isinstance(await face.delete(f"a:{number}"), Queued)
                assert face.cache._parts.core.owed <= 11
            engine.up()
            engine.counts.clear()
            assert await face.get_many([f"a:{number}" for number in range(25)]) == {}
            assert engine.counts["mark"] == 1, "one clear"


async def test_what_does_not_fit_into_the_queue_becomes_one_clear(made: Make) -> None:
    await the_queue_is_bounded(made)


async def test_a_queue_without_a_bound_is_noticed(made: Make) -> None:
    with broken(Core, "owe", lambda core, *keys: core.debts.update(dict.fromkeys(keys, object()))), noticed():
        await the_queue_is_bounded(made)


async def test_too_many_tags_become_one_clear(made: Make) -> None:
    with bounded(10):
        face = made("memory://")
        await face.set("a:1", "old", tags=["t:1"])
        await face.set("b:1", "old")
        with recorded(face.cache) as engine:
            engine.down()
            for number in range(25):
                assert isinstance(await face.invalidate_tags(f"t:{number}"), Queued)
                assert face.cache._parts.core.owed <= 11
            engine.up()
            assert await face.exists("another:key") is False
            assert await face.get_many(["a:1", "b:1"]) == {}


async def test_values_without_a_header_wait_one_by_one(made: Make) -> None:
    """Everything cannot be invalidated there."""
    with bounded(10):
        face = made("memory://", codec="json")
        with recorded(face.cache) as engine:
            engine.down()
            for number in range(25):
                await face.delete(f"a:{number}")
            assert face.cache._parts.core.owed == 25


async def test_a_key_waits_once_and_in_its_turn(made: Make) -> None:
    face, deleted = made("memory://"), list[str]()
    with recorded(face.cache) as engine:
        engine.down()
        for key in ("a:3", "a:1", "a:2", "a:1"):
            await face.delete(key)
        assert list(face.cache._parts.core.debts) == ["a:3", "a:1", "a:2"]
        engine.up()
        inner = face.cache._engine.backend._inner
        with broken(type(inner), "delete", noting(deleted, type(inner).delete)):
            await face.get("b:1")
    assert deleted == ["a:3", "a:1", "a:2"]


def noting(deleted: list[str], delete: Any) -> Any:
    """Return a deletion that notes what is deleted."""

    async def note(self: Any, keys: Any) -> int:
        deleted.extend(keys)
        removed: int = await delete(self, keys)
        return removed

    return note


def test_who_listens_pays_nothing_while_the_engine_is_planned_to_be_down(valkey_url: str, new_cache: NewCache) -> None:
    cache = new_cache(valkey_url, staleness=0.1)
    core = cache._parts.core
    cache.set("a:1", "old")
    with recorded(cache) as engine:
        engine.down()
        assert isinstance(cache.delete("a:1"), Queued)
        for _ in range(2):  # debts are paid before a proof is asked for
            now = core.clock()
            eventually(lambda: core.coherence.proven > now, "it listens")  # noqa: B023 -- called at once
        assert core.owed == 1
    eventually(lambda: core.owed == 0, "who listens pays")
    assert cache.get("a:1") is None


def test_who_listens_does_not_start_anew_when_the_cache_is_closed_while_it_pays(
    valkey_url: str, new_cache: NewCache
) -> None:
    cache = new_cache(valkey_url, staleness=0.1)
    core, spec = cache._parts.core, cache._parts._spec
    cache.set("a:1", "old")
    eventually(lambda: core.coherence.tracked, "it listens")
    real = core.paid

    def paid(debts: Any) -> None:
        cache.close()
        real(debts)

    with broken(Core, "paid", lambda _, debts: paid(debts)):
        core.owe("a:1")
        eventually(lambda: core.owed == 0, "who listens pays")
    assert spec.common[Listener]._life is None


# What reads get


async def test_reads_are_misses_unless_they_are_to_fail(made: Make) -> None:
    for policy in ({}, {"read": "open"}):
        face = made("memory://", near=None, policy=policy)
        with recorded(face.cache) as engine:
            engine.down()
            assert await face.get("a:1") is None
            assert await face.get_many(["a:1", "a:2"]) == {}
            assert await face.get_or_load("a:1", face.loader(lambda: "source")) == "source"


async def test_reads_fail_where_they_are_to(made: Make) -> None:
    face, loads = made("memory://", near=None, policy={"read": "closed"}), itertools.count()
    with recorded(face.cache) as engine:
        engine.down()
        for read in (
            lambda: face.get("a:1"),
            lambda: face.get_entry("a:1"),
            lambda: face.get_many(["a:1", "a:2"]),
            lambda: face.get_or_load("a:1", face.loader(lambda: next(loads))),
            lambda: face.get_or_load_many(["a:1", "a:2"], face.loader(lambda keys: dict.fromkeys(keys, next(loads)))),
            lambda: face.awaited(function_of(face))(1),
        ):
            with pytest.raises(BackendUnavailableError):
                await read()
        assert next(loads) == 0, "nothing is loaded"


def test_a_full_pool_queues_an_invalidation(own_server: RedisServer, new_cache: NewCache) -> None:
    """It says nothing of the engine, and the engine was not told."""
    cache = new_cache(own_server.unix_url, pool_max=1, pool_timeout=0.05, timeout=5.0)
    cache.set("a:1", "old")
    wire = cache._engine.backend._link._pool.take()  # type: ignore[attr-defined]  # the only one
    try:
        assert isinstance(cache.delete("a:1"), Queued)
        with pytest.raises(BackendTimeoutError):
            cache.set("a:2", "new")
        assert cache._parts.core.outage is None
    finally:
        cache._engine.backend._link._pool.drop(wire)  # type: ignore[attr-defined]
    assert cache.get("a:1") is None


# What is answered at once


def core_of(face: Awaited) -> Core:
    """Return what both flavours share."""
    core: Core = face.cache._parts.core
    return core


async def an_outage_costs_single_calls(make: Make) -> None:
    """Ask a hundred times without an answer: the engine is asked twice, and then once after each pause."""
    clock = FakeClock()
    face = make("memory://", near=None, clock=clock)
    with recorded(face.cache) as engine:
        engine.down()
        for _ in range(100):
            assert await face.get("a:1") is None
        assert engine.counts["get"] == 2
        for asked in range(3, 10):
            clock.advance(LONGEST_PAUSE)
            for _ in range(10):
                assert await face.get("a:1") is None
            assert engine.counts["get"] == asked
        assert face.stats().spared == 98 + 7 * 9
        assert isinstance(await face.delete("a:1"), Queued)
        assert engine.counts["delete"] == 0, "the debt is not even tried"


async def test_an_outage_costs_single_calls(made: Make) -> None:
    await an_outage_costs_single_calls(made)


async def test_calls_that_are_all_let_through_are_noticed(made: Make) -> None:
    with broken(Outage, "lets_through", lambda *_: True), noticed():
        await an_outage_costs_single_calls(made)


async def test_the_error_says_since_when_and_when_the_engine_is_asked_next(made: Make) -> None:
    clock = FakeClock()
    face = made("memory://", clock=clock)
    with recorded(face.cache) as engine:
        engine.down()
        await face.get("a:1")
        await face.get("a:1")
        clock.advance(0.01)
        said = r"faulty engine: no answer for 0\.0 s \(the engine is down \(planned\)\); it is asked again in 0\.\d s"
        with pytest.raises(BackendUnavailableError, match=said) as raised:
            await face.set("a:1", 1)
        assert not raised.value.ambiguous, "nothing was sent"


async def test_the_first_answer_ends_it_for_both_flavours(made: Make) -> None:
    clock = FakeClock()
    face = made("memory://", near=None, clock=clock)
    await face.set("a:1", "value")
    twin = Awaited(face.cache.sync if face.is_async else face.cache.aio)
    with recorded(face.cache, twin.cache) as engine:
        engine.down()
        assert [await each.get("a:1") for each in (face, twin, face, twin)] == [None] * 4
        assert engine.counts["get"] == 2, "what one knows the other knows"
        clock.advance(1.5)
        found = await face.health()
        assert (found.engine, found.silent) == (False, 1.5)
        engine.noticed = bool
        engine.up()
        assert await twin.get("a:1") == "value", "the pause is over"
        found = await face.health()
        assert (found.engine, found.silent, core_of(face).outage) == (True, 0.0, None)
        assert [await each.get("a:1") for each in (face, twin)] == ["value"] * 2


async def test_health_and_open_ask_whatever_is_known(made: Make) -> None:
    face = made("memory://", clock=FakeClock())
    with recorded(face.cache) as engine:
        engine.down()
        for _ in range(5):
            assert not await face.health()
        assert engine.counts["ping"] == 5
        for _ in range(5):
            with pytest.raises(BackendUnavailableError, match="planned"):
                await face.open()
        assert engine.counts["open"] == 5
        engine.noticed = bool
        engine.up()
        await face.open()
        assert core_of(face).outage is None


NO_SILENCE = {
    "the pool is empty": NoConnection("all connections stayed in use").undone(),
    "it is still loading": NotServing("LOADING").undone(),
    "an old connection was dead": LostConnection("the connection broke"),
    "it refuses": BackendError("NOPERM").undone(),
}


@pytest.mark.parametrize("what", NO_SILENCE)
async def test_what_does_not_tell_of_silence_begins_no_outage(made: Make, what: str) -> None:
    face = made("memory://", near=None)
    with recorded(face.cache) as engine:
        engine.fail("get", 10, error=NO_SILENCE[what])
        for _ in range(10):
            assert await face.get("a:1") is None
        assert engine.counts["get"] == 10
        assert face.stats().spared == 0


@pytest.mark.parametrize("code", sorted(DOWN))
def test_an_engine_that_says_it_cannot_serve_yet_is_not_silent(code: str) -> None:
    error = refused(Exception(f"{code} come back later"), "GET a:1")
    assert isinstance(error, BackendUnavailableError)
    assert not is_silence(error)


async def test_neither_log_nor_health_names_the_key_of_a_call_that_failed(
    line: Line, made: Make, caplog: pytest.LogCaptureFixture
) -> None:
    face = made(line.url, observers=None)
    await face.set("session:abc", "x")
    with caplog.at_level(logging.DEBUG, "nearcache"):
        line.hang()
        with pytest.raises(BackendError, match="session:abc"):
            await face.add("session:abc", 1)
        with pytest.raises(BackendError) as of_another:
            await face.add("session:other", 1)
        health = await face.health()
    assert "abc" not in str(of_another.value)
    assert any("does not answer" in message for message in caplog.messages)
    assert "abc" not in caplog.text
    assert not health.ok
    assert "abc" not in repr(health)


async def test_any_answer_ends_it(made: Make) -> None:
    face = made("memory://", near=None)
    with recorded(face.cache) as engine:
        engine.fail("get")
        engine.fail("get", error=BackendError("NOPERM").undone())
        await face.get("a:1")
        assert core_of(face).outage is not None
        await face.get("a:1")
        assert core_of(face).outage is None


class Held(Recorder):
    """Lets those who ask an engine that is down wait, until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.gate = threading.Event()
        self.waits = False

    async def around(self, operation: str, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Wait, then do the operation."""
        if self.waits:
            self.held += 1
            if self.awaits:
                await eventually_in_loop(self.gate.is_set, "the engine is released")
            else:
                assert self.gate.wait(helpers.PATIENCE), "the test never released the engine"
        return await super().around(operation, call, *args, **kwargs)

    awaits = False


@contextmanager
def holding(cache: Any) -> Iterator[Held]:
    """Let a cache ask an engine that holds whoever asks, and gives no answer."""
    engine, held = cache._engine, Held()
    held.awaits = isinstance(cache, AsyncCache)
    with engine.replaced(FaultyBackend(engine.backend, held)):
        try:
            held.down()
            yield held
        finally:
            held.gate.set()


def one_thread_asks(make: NewCache) -> None:
    """While one thread looks whether the engine is back, all others have their answer."""
    cache = make("memory://", near=None)
    with holding(cache) as engine:
        assert cache.get("a:1") is None
        engine.waits = True
        crowd = Crowd().threads(8, lambda: cache.get("a:1")).start()
        eventually(lambda: cache.stats().spared >= 7, "seven of eight have their answer")
        assert engine.held == 1
        engine.gate.set()
        assert values(crowd.finish()) == [None] * 8


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_one_thread_asks_for_all(new_cache: NewCache, _round: int) -> None:
    one_thread_asks(new_cache)


def test_threads_that_all_ask_are_noticed(new_cache: NewCache) -> None:
    with broken(Outage, "lets_through", lambda *_: True), impatient(), noticed():
        one_thread_asks(new_cache)


async def test_one_task_asks_for_all() -> None:
    cache = AsyncCache("memory://", near=None, observers=())
    with holding(cache) as engine:
        assert await cache.get("a:1") is None
        engine.waits = True
        tasks = [asyncio.ensure_future(cache.get("a:1")) for _ in range(20)]
        await eventually_in_loop(lambda: sum(task.done() for task in tasks) == 19, "all others have their answer")
        assert engine.held == 1
        engine.gate.set()
        assert await asyncio.gather(*tasks) == [None] * 20


async def test_a_task_that_is_cancelled_while_it_asks_makes_room_for_another() -> None:
    cache = AsyncCache("memory://", near=None, observers=())
    with holding(cache) as engine:
        assert await cache.get("a:1") is None
        engine.waits = True
        task = asyncio.ensure_future(cache.get("a:1"))
        await eventually_in_loop(lambda: engine.held == 1, "it asks")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        engine.waits = False
        engine.up()
        assert await cache.get("a:1") is None
        assert cache._parts.core.outage is None, "it was asked, and answered"


async def test_who_listens_ends_it_although_nobody_calls(line: Line, made: Make) -> None:
    face = made(line.url)
    await face.set("a:1", "value")
    eventually(lambda: core_of(face).coherence.tracked, "changes are announced")
    line.cut()
    while core_of(face).outage is None:
        await face.get_entry("a:1")
    line.mend()
    eventually(lambda: core_of(face).outage is None, "the engine is found again")


async def test_a_frozen_engine_costs_few_callers_their_patience(own_server: RedisServer, made: Make) -> None:
    face = made(own_server.unix_url, near=None, timeout=0.1)
    await face.set("a:1", "value")
    own_server.pause()
    try:
        asked = face.stats().errors
        for _ in range(200):
            assert await face.get("a:1") is None
        told = face.stats()
        assert told.errors - asked + told.spared == 200
        assert told.errors - asked < 20
    finally:
        own_server.resume()
    deadline = time.monotonic() + helpers.PATIENCE
    while await face.get("a:1") is None:
        assert time.monotonic() < deadline, "the engine is never found again"


def test_a_forked_child_begins_without_an_outage(new_cache: NewCache) -> None:
    cache = new_cache("memory://", near=None)
    with recorded(cache) as engine:
        engine.down()
        cache.get("a:1")
        assert cache._parts.core.outage is not None
        cache._parts.core.after_fork()
        assert cache._parts.core.outage is None


# How often the source is asked


class Source:
    """A source that counts how often it is asked, and by how many at the same time; of either flavour."""

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self.most = 0
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def load(self, key: str) -> str:
        """Load, blocking."""
        with self._lock:
            self.loads[key] += 1
            self._now[key] += 1
            self.most = max(self.most, self._now[key])
        time.sleep(0)  # others get their turn
        with self._lock:
            self._now[key] -= 1
        return f"{key} of load {self.loads[key]}"

    async def aload(self, key: str) -> str:
        """Load, awaiting."""
        await asyncio.sleep(0)
        return self.load(key)

    def load_many(self, keys: list[str]) -> dict[str, str]:
        """Load many, blocking."""
        return {key: self.load(key) for key in keys}


BUDGET = 0.1
"""The staleness of the caches here, in seconds."""

Ask = Callable[[Cache, Source], Any]
ASKS: dict[str, Ask] = {
    "one": lambda cache, source: cache.get_or_load("a:1", lambda: source.load("a:1")),
    "many": lambda cache, source: cache.get_or_load_many(["a:1", "a:2"], source.load_many)["a:1"],
}


def loads_are_bounded(make: NewCache, url: str, ask: Ask) -> None:
    """Let 50 threads ask again and again for five budgets while the engine is away."""
    cache, source = make(url, staleness=BUDGET), Source()
    with recorded(cache) as engine:
        engine.down()
        began = time.monotonic()
        asked = Counter[str]()

        def ask_on() -> None:
            while True:
                got = ask(cache, source)
                assert got.startswith("a:1 of load")
                asked["times"] += 1
                if time.monotonic() > began + 5 * BUDGET:
                    return

        values(Crowd().threads(50, ask_on).start().finish())
        budgets = (time.monotonic() - began) / BUDGET
    assert source.most == 1, "one load of a key at a time"
    # Nobody who asks gets what was loaded more than a budget ago, so that there has to be another load.
    assert source.loads["a:1"] <= budgets + 2, f"{source.loads} loads in {budgets} budgets, {asked['times']} calls"


@pytest.mark.parametrize("ask", ASKS)
def test_while_the_engine_is_away_a_key_is_loaded_about_once_per_budget(
    url: str, new_cache: NewCache, ask: str
) -> None:
    loads_are_bounded(new_cache, url, ASKS[ask])


def test_one_load_after_the_other_is_noticed(url: str, new_cache: NewCache) -> None:
    with broken(Flights, "_keep", lambda *_: False), noticed("loads in"):
        loads_are_bounded(new_cache, url, ASKS["one"])


async def test_tasks_are_bounded_too(valkey_url: str) -> None:
    cache, source = (
        AsyncCache(valkey_url, staleness=BUDGET, observers=(), namespace=f"o{os.urandom(5).hex()}"),
        Source(),
    )
    with recorded(cache) as engine:
        engine.down()
        began = time.monotonic()

        async def ask_on() -> None:
            while True:
                await cache.get_or_load("a:1", lambda: source.aload("a:1"))
                await asyncio.sleep(0)
                if time.monotonic() > began + 5 * BUDGET:
                    return

        await asyncio.gather(*[ask_on() for _ in range(50)])
        budgets = (time.monotonic() - began) / BUDGET
    await cache.aclose()
    assert source.most == 1
    assert source.loads["a:1"] <= budgets + 2


def kept_for_an_hour(make: NewCache, url: str, **options: Any) -> Cache:
    """Return a cache that keeps what is loaded in an outage for so long that no test sees its end."""
    return make(url, staleness="1h", **options)


def test_a_kept_result_ends_with_the_outage(valkey_url: str, new_cache: NewCache) -> None:
    """What others have written since is seen again."""
    cache = kept_for_an_hour(new_cache, valkey_url)
    other = new_cache(valkey_url, namespace=cache._parts.core.options.namespace)
    with unannounced(), recorded(cache) as engine:
        engine.down()
        assert [cache.get_or_load("a:1", partial(int, n)) for n in range(3)] == [0, 0, 0]
        other.set("a:1", "new")
        engine.up()
        assert cache.get_or_load("b:1", lambda: "answered") == "answered"
        assert cache.get_or_load("a:1", lambda: "loaded again") == "new"
    assert not cache._parts.core.flights._kept


@pytest.mark.parametrize("name", ["delete", "invalidate_tags", "clear"])
def test_a_kept_result_ends_with_an_invalidation_and_nothing_is_kept_after_it(
    url: str, new_cache: NewCache, name: str
) -> None:
    """What waits for the engine is a miss, however often it is asked for."""
    invalidations: dict[str, Callable[[Cache], Any]] = {
        "delete": lambda cache: cache.delete("a:1"),
        "invalidate_tags": lambda cache: cache.invalidate_tags("t:1"),
        "clear": lambda cache: cache.clear(),
    }
    cache, numbers = kept_for_an_hour(new_cache, url), itertools.count()

    def load() -> int:
        return cache.get_or_load("a:1", lambda: next(numbers), tags=["t:1"])

    with recorded(cache) as engine:
        engine.down()
        assert [load(), load()] == [0, 0]
        assert isinstance(invalidations[name](cache), Queued)
        assert [load(), load()] == [1, 2]


def test_what_the_loader_does_not_want_stored_is_not_kept(url: str, new_cache: NewCache) -> None:
    cache, numbers = kept_for_an_hour(new_cache, url), itertools.count()

    def load() -> int:
        loading().do_not_store()
        return next(numbers)

    with recorded(cache) as engine:
        engine.down()
        assert [cache.get_or_load("a:1", load) for _ in range(3)] == [0, 1, 2]


def test_without_a_near_tier_nothing_is_kept(url: str, new_cache: NewCache) -> None:
    cache, numbers = kept_for_an_hour(new_cache, url, near=None), itertools.count()
    with recorded(cache) as engine:
        engine.down()
        assert [cache.get_or_load("a:1", lambda: next(numbers)) for _ in range(3)] == [0, 1, 2]


def test_what_a_batch_brings_is_kept_once(url: str, new_cache: NewCache) -> None:
    cache, source = kept_for_an_hour(new_cache, url), Source()
    with recorded(cache) as engine:
        engine.down()
        for _ in range(3):
            cache.get_or_load_many(["a:1", "a:2"], source.load_many)
        assert source.loads == {"a:1": 1, "a:2": 1}
        assert len(cache._parts.core.flights._kept) == 2


def test_a_failed_load_is_not_kept(url: str, new_cache: NewCache) -> None:
    cache, numbers = kept_for_an_hour(new_cache, url), itertools.count()

    def load() -> int:
        if (number := next(numbers)) == 0:
            raise ValueError("planned")
        return number

    with recorded(cache) as engine:
        engine.down()
        with pytest.raises(ValueError, match="planned"):
            cache.get_or_load("a:1", load)
        assert [cache.get_or_load("a:1", load) for _ in range(3)] == [1, 1, 1]


def test_a_load_that_takes_longer_than_its_result_is_for_others_is_not_kept(url: str, new_cache: NewCache) -> None:
    cache, numbers = new_cache(url, staleness="1ms"), itertools.count()

    def load() -> int:
        began = time.monotonic()
        while time.monotonic() < began + 0.002:
            pass
        return next(numbers)

    with recorded(cache) as engine:
        engine.down()
        assert [cache.get_or_load("a:1", load) for _ in range(3)] == [0, 1, 2]
        assert not cache._parts.core.flights._kept


def test_everybody_gets_a_copy_of_what_is_kept(url: str, new_cache: NewCache) -> None:
    cache = kept_for_an_hour(new_cache, url)
    with recorded(cache, cache.aio) as engine:
        engine.down()
        for _ in range(3):
            got = cache.get_or_load("a:1", lambda: ["a", "value"])
            assert got == ["a", "value"]
            got.append("spoilt")


def test_not_more_than_so_many_results_are_kept(url: str, new_cache: NewCache) -> None:
    with broken(flights_module, "MOST_KEPT", 10):
        cache, loads = kept_for_an_hour(new_cache, url), Counter[int]()
        flights = cache._parts.core.flights

        def load(number: int) -> int:
            loads[number] += 1
            return number

        with recorded(cache) as engine:
            engine.down()
            for number in [*range(25), 24, 0]:
                assert cache.get_or_load(f"a:{number}", partial(load, number)) == number
            assert len(flights._kept) == len(flights._by_key) == 10
            assert (loads[24], loads[0]) == (1, 2), "the oldest are forgotten first"


def test_a_value_that_nobody_vouches_for_is_served_only_if_the_loader_fails(
    valkey_url: str, new_cache: NewCache
) -> None:
    clock = FakeClock()
    cache = new_cache(valkey_url, clock=clock, fail_safe="1h", staleness="1s")
    new_cache(valkey_url, namespace=cache._parts.core.options.namespace).set(
        "a:1", "near"
    )  # announced before it listens
    cache.get("b:1")
    cache._parts.core.coherence.seek()
    eventually(lambda: cache._parts.core.coherence.tracked, "changes are announced")
    assert cache.get("a:1") == "near"
    with recorded(cache) as engine:
        engine.down()
        # No more proofs, and nobody finds out that only this cache cannot reach the engine.
        with broken(Listener, "_ask", lambda *_: None), broken(Commands, "settle", nothing):
            clock.advance(10)
            assert cache.get("a:1") is None

            def fail() -> str:
                raise ValueError("planned")

            before = cache.stats().stale_hits
            assert cache.get_or_load("a:1", fail) == "near"
            assert cache.stats().stale_hits == before + 1
            assert cache.get_or_load("a:1", lambda: "source") == "source"
            assert cache.get_or_load("a:1", fail) == "source", "kept for one budget"
