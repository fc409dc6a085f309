"""Readers and invalidators over an engine without scripts, in every order of the steps of its single records.

What is a step here is one atomic command on one record, so what a call sends together is interleaved too. Records are
lost, and nodes restart, at any moment. In the world there is one key, whose value has a tag that was given and one that
comes from its result, and there is one bucket.
"""

import asyncio
import functools
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearcache import AsyncCache, Cache
from nearcache._engine.load import Loads
from nearcache._engine.plan import Lease
from nearcache.backends.registers import marks, records
from nearcache.backends.registers.base import Answer, Put, Swap
from nearcache.backends.registers.leases import RegisterLeases
from nearcache.backends.registers.marks import RegisterMarks
from nearcache.backends.registers.records import packed
from nearcache.backends.registers.stamps import Known, Stamps
from nearcache.codecs.envelope import EPOCH
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, dice, noticed
from tests.promises.schedules import Lucky, Schedule, evict, pause, waits
from tests.promises.test_schedules import CHANGES, STALENESS, Source, reader, write_through, writer
from tests.registers import Node, server_of

T = TypeVar("T")
Work = Callable[[Source, AsyncCache], Awaitable[Any]]
TAGS = ("static", "result:1")


class Died(BaseException):
    """The end of a process."""


_steps_left: ContextVar[list[int] | None] = ContextVar("steps_left", default=None)


async def _mortal(what: str) -> None:
    left = _steps_left.get()
    if left is not None:
        if not left[0]:
            raise Died
        left[0] -= 1
    await pause(what)


def dying(work: Work, steps: int) -> Work:
    """Make an actor that dies after so many steps of the engine."""

    async def die(source: Source, cache: AsyncCache) -> None:
        _steps_left.set([steps])
        await work(source, cache)

    return die


class Registers:
    """Four processes over an engine without scripts; the last one only looks afterwards."""

    def __init__(self, new_cache: NewCache, url: str, *, together: bool = False) -> None:
        first = new_cache(url, near=None, staleness=STALENESS)
        namespace = first._parts.core.options.namespace
        self.server = server_of(url)
        self.caches: list[Cache] = [
            first,
            *[new_cache(url, near=None, staleness=STALENESS, namespace=namespace) for _ in range(3)],
        ]
        if together:
            self.caches[1] = self.caches[0]
            self.server.lags = True
        self.names = {"head": f"{namespace}~m", "buckets": f"{namespace}~m:0", "values": f"{namespace}:keys:1"}
        self._dice = dice()

    async def meet(self) -> None:
        """Let every process look at the head."""
        for cache in self.caches:
            await cache.aio.open()

    async def prepare(self, source: Source, warm: str) -> None:
        """Begin with an empty engine; then with a value, whose marks may be forgotten by the head."""
        for node in self.server.nodes.values():
            node.restart()
        await self.meet()
        if warm == "cold":
            return
        cache: AsyncCache = self.caches[-1].aio
        await _load(source, cache)
        if warm != "cached":
            await self._forget_marks(source, cache)
        if warm == "young":
            await cache.delete(source.key)
            await _load(source, cache)
            self.server.nodes["buckets"].restart()
        await self.meet()
        if warm == "headless":
            self.server.nodes["head"].restart()

    async def _forget_marks(self, source: Source, cache: AsyncCache) -> None:
        """Let the head forget marks of the value's tags, one of which is older than the value."""
        for turn in range(2):
            for n in range(3):
                await cache.invalidate_tags(f"x{turn}{n}")
            if not turn:
                await cache.invalidate_tags(*TAGS)
                await _load(source, cache)

    async def play(self, schedule: Schedule, warm: str, actors: Sequence[Work]) -> Schedule:
        """Run one schedule; afterwards nobody may find what is older than the last acknowledged change."""
        source = Source("keys:1")
        await self.prepare(source, warm)
        for place, work in enumerate(actors):
            cache = self.caches[min(place, len(self.caches) - 1)].aio
            schedule.add(f"{place}", functools.partial(work, source, cache))
        outcomes = await schedule.run()
        trace = " ".join(schedule.trace)
        errors = [
            outcome for outcome in outcomes if isinstance(outcome, BaseException) and not isinstance(outcome, Died)
        ]
        assert not errors, f"{errors[0]!r} after {trace}"
        try:
            source.check()
            newest = max(version for _, version in source.acknowledged)
            for each in reversed(self.caches):
                last = await each.aio.get_or_load("keys:1", functools.partial(_value, source))
                assert last >= newest, f"version {last} is left, when {newest} had been acknowledged"
        except AssertionError as error:
            raise AssertionError(f"{error}: {trace}") from None
        return schedule

    def every(self, actors: Sequence[Work], warm: str, most: int = 400) -> int:
        """Run every schedule if there are not more than `most`, else so many of them by luck; return how many."""
        return asyncio.run(self.run(self._every(actors, warm, most)))

    def by_luck(self, actors: Sequence[Work], warm: str, most: int) -> int:
        """Run so many schedules by luck."""
        return asyncio.run(self.run(self._by_luck(actors, warm, most)))

    async def run(self, work: Awaitable[T]) -> T:
        """Do something with steps."""
        self.server.pause = _mortal
        try:
            with waits():
                await self.meet()
                return await work
        finally:
            self.server.pause = None
            for cache in self.caches:
                await cache.aio.aclose()

    async def _every(self, actors: Sequence[Work], warm: str, most: int) -> int:
        choices: list[int] = []
        for played in range(most):
            following = (await self.play(Schedule(choices), warm, actors)).following()
            if following is None:
                return played + 1
            choices = following
        return await self._by_luck(actors, warm, most)

    async def _by_luck(self, actors: Sequence[Work], warm: str, most: int) -> int:
        for _ in range(most):
            await self.play(Lucky(self._dice), warm, actors)
        return most


async def _value(source: Source) -> int:
    return source.version


async def _load(source: Source, cache: AsyncCache) -> None:
    await cache.get_or_load(source.key, functools.partial(_value, source), tags=["static", "result:{result.real}"])


def losing(world: Registers, node: str) -> Work:
    """An actor that makes a node lose its record."""

    async def lose() -> None:
        world.server.nodes[node].lose(world.names[node])

    return lambda source, cache: evict(lose)


def restarting(world: Registers, node: str) -> Work:
    """An actor that restarts a node."""

    async def restart() -> None:
        world.server.nodes[node].restart()

    return lambda source, cache: evict(restart)


def marking(*tags: str) -> Work:
    """An actor that marks tags which the value has not."""
    return lambda source, cache: cache.invalidate_tags(*tags)


def forgotten(world: Registers, *, lost: bool = False) -> Work:
    """An actor that marks a tag of the value, and others until the head has forgotten that; then the bucket is lost."""

    async def forget(source: Source, cache: AsyncCache) -> None:
        await INVALIDATIONS["static tag"](source, cache)
        for n in range(4):
            await cache.invalidate_tags(f"y{n}")
        if lost:
            await losing(world, "buckets")(source, cache)

    return forget


NAMES = ("delete", "static tag", "tag of the result", "clear")
INVALIDATIONS = {name: writer(CHANGES[name]) for name in NAMES}


@pytest.fixture
def together(new_cache: NewCache) -> Iterator[Registers]:
    """The same, where the first two actors are tasks of one process."""
    with _limits(before=True):
        yield Registers(new_cache, "forgetful://together", together=True)


LONG = "a-tag-that-takes-much-room"
"""Whoever marks it has to make room first."""

SAMPLES = 24
WARM = ("cold", "cached", "old")


@contextmanager
def _limits(*, before: bool) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in (
            (records, "BUCKETS", 1),
            (marks, "HARD", 26 if before else 10_000),
            (marks, "SOFT", 10_000 if before else 14),
            (marks, "TRIM_EVERY", 1),
        ):
            stack.enter_context(broken(owner, name, value))
        yield


@pytest.fixture(params=["before", "after", "bytes"])
def world(request: pytest.FixtureRequest, new_cache: NewCache) -> Iterator[Registers]:
    """Heads that keep one or two marks: they make room before a mark that does not fit, or after each mark. The last
    engine compares bytes.
    """
    with _limits(before=request.param != "after"):
        yield Registers(new_cache, f"forgetful://{request.param}-of-schedules")


@pytest.mark.parametrize("warm", WARM)
@pytest.mark.parametrize("name", CHANGES)
def test_a_reader_and_a_writer(world: Registers, name: str, warm: str) -> None:
    world.by_luck([reader, writer(CHANGES[name])], warm, SAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("warm", ["cold", "cached"])
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_and_a_writer_in_every_order(world: Registers, name: str, warm: str) -> None:
    world.every([reader, INVALIDATIONS[name]], warm, 1_000)


LOSSES = list(itertools.product((losing, restarting), ("head", "buckets", "values")))


@pytest.mark.parametrize(("loss", "node"), LOSSES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_lost_at_any_moment_costs_loads_and_no_old_values(
    world: Registers, name: str, loss: Callable[[Registers, str], Work], node: str
) -> None:
    for warm in ("cold", "old"):
        world.by_luck([reader, INVALIDATIONS[name], loss(world, node)], warm, SAMPLES // 4)


@pytest.mark.slow
@pytest.mark.parametrize("warm", ["old", "young", "headless"])
def test_a_mark_survives_others_that_drive_it_out_of_the_head(world: Registers, warm: str) -> None:
    for other in (marking(LONG), reader, INVALIDATIONS["tag of the result"]):
        for lost in (False, True):
            world.by_luck([other, forgotten(world, lost=lost)], warm, SAMPLES // 2)


@pytest.mark.parametrize("warm", ["cold", "cached", "old", "headless"])
@pytest.mark.parametrize("name", NAMES)
def test_two_tasks_of_one_process(together: Registers, name: str, warm: str) -> None:
    for first in (reader, INVALIDATIONS["clear"], marking(LONG)):
        together.by_luck([first, reader, INVALIDATIONS[name], losing(together, "head")], warm, SAMPLES // 3)


@pytest.mark.parametrize("steps", range(1, 12, 2))
def test_an_invalidator_that_dies_leaves_nothing_half_done(world: Registers, steps: int) -> None:
    dead = dying(INVALIDATIONS["static tag"], steps)
    world.by_luck([reader, dead, INVALIDATIONS["tag of the result"]], "old", SAMPLES)


def test_two_write_throughs_leave_the_newest_or_nothing(world: Registers) -> None:
    world.by_luck([write_through, write_through, reader], "cached", SAMPLES)
    world.by_luck([write_through, write_through, losing(world, "values")], "cached", SAMPLES)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    warm=st.sampled_from(["cold", "cached", "old", "young", "headless"]),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
    losses=st.lists(st.sampled_from(LOSSES), max_size=3),
    choices=st.lists(st.integers(0, 5), max_size=80),
)
def test_any_losses_at_any_steps(
    world: Registers, warm: str, names: list[str], losses: list[Any], choices: list[int]
) -> None:
    actors = [reader, *[INVALIDATIONS[name] for name in names], *[loss(world, node) for loss, node in losses]]
    asyncio.run(world.run(world.play(Schedule(choices), warm, actors)))


MANY = 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_losses_marks_and_two_readers_in_many_orders(world: Registers, name: str) -> None:
    change = INVALIDATIONS[name]
    for warm in ("cold", "cached", "old", "young", "headless"):
        for loss, node in LOSSES:
            world.by_luck([reader, change, loss(world, node)], warm, MANY // 10)
            world.by_luck([reader, change, marking(LONG), loss(world, node)], warm, MANY // 10)
        world.by_luck([reader, change, reader], warm, MANY)
        world.by_luck([reader, change, forgotten(world, lost=True)], warm, MANY // 2)
        world.by_luck([marking(LONG), change, forgotten(world)], warm, MANY // 2)


# Mechanisms that are taken away


@pytest.fixture
def tight(new_cache: NewCache) -> Iterator[Registers]:
    """A head that makes room before it is marked."""
    with _limits(before=True):
        yield Registers(new_cache, "forgetful://tight")


def unguarded(leases: RegisterLeases, item: Any, _lease: Any) -> Put:
    """Return the step that stores a value, whoever has the lease."""
    return Put(leases._backend.named(item.key), leases._backend.outward(item.raw), item.ttl)


def test_a_store_that_looks_at_no_token_is_noticed(tight: Registers) -> None:
    with broken(RegisterLeases, "_store", unguarded), noticed("is left|got version"):
        tight.every([reader, INVALIDATIONS["delete"]], "cold", 2_000)


def test_an_epoch_that_is_taken_after_the_load_is_noticed(tight: Registers) -> None:
    real = Loads._store

    async def store(loads: Loads, flight: Any, draft: Any, lease: Lease) -> None:
        await loads._commands._backend.marks.restore()  # which asks for the marks
        await real(loads, flight, draft, replace(lease, epoch=loads._core.view.last))

    with broken(Loads, "_store", store), noticed("is left|got version"):
        tight.every([reader, INVALIDATIONS["clear"]], "cold", 500)


def test_stamps_that_name_no_incarnation_are_noticed(tight: Registers) -> None:
    outward, inward = Stamps.outward, Stamps.inward

    def out(stamps: Stamps, raw: bytes) -> bytes:
        known = stamps.known
        return outward(stamps, raw) if known is None else _moved(outward(stamps, raw), -known.head.first)

    def into(stamps: Stamps, raw: bytes) -> bytes:
        known = stamps.known
        return raw if known is None else inward(stamps, _moved(raw, known.head.first))

    with broken(Stamps, "outward", out), broken(Stamps, "inward", into), noticed("is left|got version"):
        tight.every([reader, INVALIDATIONS["clear"]], "cached", 2_000)


def test_an_absent_head_that_means_never_is_noticed(tight: Registers) -> None:
    real = RegisterMarks._taken_in

    async def taken_in(self: RegisterMarks, answer: Answer, sent: float, asked: int) -> Known | None:
        if answer.raw is None and self._stamps.known is not None:
            self._stamps.view.confirm(sent)
            return self._stamps.known
        return await real(self, answer, sent, asked)

    with broken(RegisterMarks, "_taken_in", taken_in), noticed():
        tight.by_luck([reader, INVALIDATIONS["static tag"], losing(tight, "head")], "cached", 2_000)


def test_stamps_that_begin_anew_in_the_process_are_noticed(tight: Registers) -> None:
    real = Stamps._begin

    def begin(stamps: Stamps, met: Known, sent: float) -> Known:
        return real(stamps, met._replace(base=0), sent)

    with broken(Stamps, "_begin", begin), noticed("is left|got version"):
        tight.by_luck([reader, INVALIDATIONS["static tag"]], "headless", 2_000)


@pytest.mark.slow
def test_buckets_that_are_not_compared_are_noticed(tight: Registers) -> None:
    tight.server.nodes["buckets"].matches = lambda present, seen: present.done  # type: ignore[method-assign]
    with noticed("is left|got version"):
        tight.by_luck([marking(LONG), forgotten(tight)], "old", 10_000)


def test_a_head_that_forgets_before_the_bucket_knows_is_noticed(tight: Registers) -> None:
    async def trim(self: RegisterMarks, held: Known) -> None:
        head, moved = held.head.halved()
        raw = packed(head)
        if moved and await self._write(Swap(self.name, held.answer, raw, math.inf), raw, head):
            await self._spilled(moved, head.first)

    with broken(RegisterMarks, "_trim", trim), noticed("is left|got version"):
        tight.by_luck([reader, forgotten(tight)], "old", 10_000)


def test_a_floor_that_is_read_before_the_stub_is_noticed(tight: Registers) -> None:
    real = RegisterMarks._opened

    async def opened(self: RegisterMarks, numbers: Sequence[int], first: int) -> Any:
        early = await self.refresh()

        async def refresh() -> Known:
            return early

        with broken(self, "refresh", refresh):
            return await real(self, numbers, first)

    with broken(RegisterMarks, "_opened", opened), noticed("is left|got version"):
        tight.by_luck([marking(LONG), forgotten(tight, lost=True)], "young", 1_000)


def test_numbers_of_another_life_that_are_believed_are_noticed(tight: Registers) -> None:
    def matches(node: Node, present: Answer, seen: Answer) -> bool:
        return present.done and present.number[1] == seen.number[1]

    with broken(Node, "matches", matches), noticed("is left|got version"):
        tight.by_luck([reader, reader, INVALIDATIONS["delete"], restarting(tight, "values")], "cold", 10_000)


def _moved(raw: bytes, by: int) -> bytes:
    return raw[: EPOCH.start] + max(0, int.from_bytes(raw[EPOCH]) + by).to_bytes(8) + raw[EPOCH.stop :]
