"""Sessions in every order of the steps of those who use them: no change is lost, and none that was ended comes back.

Over a shared engine each actor has a cache of its own, as a process has. `memory://` belongs to one process, so its
actors share one.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from nearcache import AsyncCache, Cache, Session, SessionLostError
from nearcache._engine.sessions import SessionVerbs, _user_of
from nearcache.backends import memory_sessions
from nearcache.backends.memory_sessions import MemorySessions
from nearcache.backends.redis import backend as redis_backend
from nearcache.backends.redis import lua
from nearcache.backends.registers import sessions as register_sessions
from nearcache.backends.registers.base import Answer, Put
from nearcache.backends.registers.sessions import RegisterSessions, Stored
from nearcache.backends.sessions import SessionChange, SessionRecord, Sessions
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import broken, dice, noticed
from tests.promises.schedules import Lucky, Schedule, pause, stepwise, waits
from tests.registers import server_of

Act = Callable[[AsyncCache, "Story"], Awaitable[Any]]
Check = Callable[[AsyncCache, "Story"], Awaitable[None]]

USER = 7


class Story:
    """One session, and what became of it: the ids and fields that were acknowledged, and whether it was ended."""

    def __init__(self, session: Session) -> None:
        self.first = session.id
        self.ids = [session.id]
        self.fields = dict(session)
        self.ended = False
        self.lost = 0
        self.seen: list[str] = []

    async def now(self, cache: AsyncCache) -> list[Session]:
        """Return what can be loaded under the ids that were told."""
        found = [await cache.sessions.load(each) for each in self.ids]
        return [session for session in found if session is not None]


class World:
    """The caches of the actors, over one engine; a step is an operation of its port."""

    most = 10_000
    """Schedules that are played; if there are more, so many of them by luck."""

    def __init__(self, new_cache: NewCache, url: str) -> None:
        first = new_cache(url, near=None)
        namespace = first._parts.core.options.namespace
        shared = url != "memory://"
        others = [new_cache(url, near=None, namespace=namespace) if shared else first for _ in range(3)]
        self.caches: list[Cache] = [first, *others]
        self.dice = dice()

    def every(self, check: Check, *acts: Act) -> int:
        """Run every schedule of some actors, and check what is left after each; return how many there were."""
        return cast(int, asyncio.run(self._run(self._every, check, acts)))

    def by_luck(self, number: int, check: Check, *acts: Act) -> None:
        """Run so many schedules by luck."""
        asyncio.run(self._run(functools.partial(self._by_luck, number), check, acts))

    @contextmanager
    def stepwise(self) -> Iterator[None]:
        """Make steps of what the actors do."""
        with stepwise(*{id(cache): cache.aio for cache in self.caches}.values()):
            yield

    async def _run(self, play: Callable[..., Awaitable[Any]], check: Check, acts: tuple[Act, ...]) -> Any:
        for cache in self.caches:
            await cache.aio.open()
        with self.stepwise():
            played = await play(check, acts)
        for cache in self.caches:
            await cache.aio.aclose()
        return played

    async def _every(self, check: Check, acts: tuple[Act, ...]) -> int:
        choices: list[int] | None = []
        played = 0
        while choices is not None:
            if played == self.most:
                await self._by_luck(self.most, check, acts)
                break
            schedule = Schedule(choices)
            await self._play(schedule, check, acts)
            choices, played = schedule.following(), played + 1
        return played

    async def _by_luck(self, number: int, check: Check, acts: tuple[Act, ...]) -> None:
        for _ in range(number):
            await self._play(Lucky(self.dice), check, acts)

    async def _play(self, schedule: Schedule, check: Check, acts: tuple[Act, ...]) -> None:
        last, *others = [cache.aio for cache in self.caches]
        story = Story(await last.sessions.create({"user_id": USER, "mine": 0, "yours": 0}))
        for number, (act, cache) in enumerate(zip(acts, others, strict=False)):
            schedule.add(str(number), functools.partial(act, cache, story))
        outcomes = await schedule.run()
        trace = " ".join(schedule.trace)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert not errors, f"{errors[0]!r} after {trace}"
        try:
            await check(last, story)
        except AssertionError as error:
            raise AssertionError(f"{error}: {trace}") from None
        await last.sessions.destroy_all(USER)


class Registers(World):
    """The same over an engine without scripts, where a step is one on a single record. Every use is written."""

    most = 120

    def __init__(self, new_cache: NewCache, url: str) -> None:
        super().__init__(new_cache, url)
        self._server = server_of(url)

    @contextmanager
    def stepwise(self) -> Iterator[None]:
        """Make steps of those of the engine, and of each wait for others that have crossed a call."""
        with broken(self._server, "pause", pause), broken(register_sessions, "MOST_SLACK", -1_000), waits():
            yield


REAL = ("memory", "valkey", "redis", "cluster", "memcached", pytest.param("hazelcast", marks=pytest.mark.slow))
SINGLE = ("forgetful://sessions", "forgetful://bytes-of-sessions")
"""Engines without scripts: one that numbers its records, and one that compares them."""


@pytest.fixture(params=[*REAL, *SINGLE])
def world(request: pytest.FixtureRequest, new_cache: NewCache) -> World:
    """Caches over each engine."""
    if request.param in SINGLE:
        return Registers(new_cache, request.param)
    return World(new_cache, url_of(request.param, request))


@pytest.fixture(params=SINGLE)
def registers(request: pytest.FixtureRequest, new_cache: NewCache) -> Registers:
    """Caches over engines without scripts."""
    return Registers(new_cache, request.param)


# What actors do


def saving(field: str) -> Act:
    """Change one field of the session."""

    async def act(cache: AsyncCache, story: Story) -> None:
        session = await cache.sessions.load(story.first)
        if session is None:
            story.lost += 1
            return
        session[field] += 1
        try:
            await cache.sessions.save(session)
        except SessionLostError:
            story.lost += 1
        else:
            story.fields[field] = session[field]

    return act


async def destroying(cache: AsyncCache, story: Story) -> None:
    """End the session by the id that it began with."""
    story.ended = await cache.sessions.destroy(story.first)


async def destroying_all(cache: AsyncCache, story: Story) -> None:
    """End all sessions of the user."""
    await cache.sessions.destroy_all(USER)
    story.ended = True


async def rotating(cache: AsyncCache, story: Story) -> None:
    """Give the session another id."""
    session = await cache.sessions.load(story.first)
    if session is None:
        return
    session["rotated"] = True
    try:
        await cache.sessions.rotate(session)
    except SessionLostError:
        return
    story.ids.append(session.id)
    story.fields["rotated"] = True


async def listing(cache: AsyncCache, _story: Story) -> None:
    """Look at all sessions of the user, which strikes those that have ended."""
    await cache.sessions.of(USER)


async def loading(cache: AsyncCache, story: Story) -> None:
    """Look twice at the session under the id that it began with."""
    for _ in range(2):
        session = await cache.sessions.load(story.first)
        story.seen.append("gone" if session is None else "there")
        assert session is None or session["mine"] == 0


# What has to be true afterwards


async def nothing_is_lost(cache: AsyncCache, story: Story) -> None:
    """Each change that was acknowledged is there, under one id."""
    (left,) = await story.now(cache)
    assert left == story.fields, f"{dict(left)} is left of {story.fields}"


async def what_was_ended_is_gone(cache: AsyncCache, story: Story) -> None:
    """It is loaded under no id, and nobody lists it."""
    if story.ended:
        assert not await story.now(cache), "a destroyed session is back"
        assert not await cache.sessions.of(USER), "a destroyed session is listed"
    else:
        await nothing_is_lost(cache, story)


async def it_has_one_id(cache: AsyncCache, story: Story) -> None:
    """The old id is nobody's once there is a new one, and was so ever since somebody found nothing."""
    await nothing_is_lost(cache, story)
    assert [found.id for found in await story.now(cache)] == story.ids[-1:]
    assert "gone there" not in " ".join(story.seen)
    assert len(await cache.sessions.of(USER)) == 1


def test_two_who_save_different_fields_keep_both(world: World) -> None:
    async def check(cache: AsyncCache, story: Story) -> None:
        await nothing_is_lost(cache, story)
        assert story.fields["mine"] == story.fields["yours"] == 1

    assert world.every(check, saving("mine"), saving("yours")) >= 20


def test_a_save_does_not_bring_a_destroyed_session_back(world: World) -> None:
    async def check(cache: AsyncCache, story: Story) -> None:
        assert not await story.now(cache), "a destroyed session is back"

    assert world.every(check, saving("mine"), destroying) >= 10


def test_who_loads_while_an_id_is_replaced_finds_one_session_or_none(world: World) -> None:
    assert world.every(it_has_one_id, rotating, loading) >= 50


def test_what_is_saved_while_an_id_is_replaced_is_kept_or_refused(world: World) -> None:
    assert world.every(nothing_is_lost, rotating, saving("mine")) >= 50


def test_a_session_that_is_destroyed_while_it_gets_another_id_is_gone(world: World) -> None:
    assert world.every(what_was_ended_is_gone, rotating, destroying) >= 10


@pytest.mark.slow
def test_all_sessions_of_a_user_are_destroyed_also_such_as_get_another_id(world: World) -> None:
    assert world.every(what_was_ended_is_gone, rotating, destroying_all) >= 50


def test_who_lists_sessions_hides_none_from_those_who_destroy_them(world: World) -> None:
    world.by_luck(40, what_was_ended_is_gone, rotating, destroying_all, listing)


async def test_a_session_that_becomes_a_users_is_destroyed_or_not_saved(new_cache: NewCache) -> None:
    """Who saves it knows that it is the user's; from then on whoever ends all of the user's ends it."""

    async def logging_in(cache: AsyncCache, story: Story) -> None:
        session = await cache.sessions.create({"mine": 1})
        session["user_id"] = USER
        try:
            await cache.sessions.save(session)
        except SessionLostError:
            return
        story.ids.append(session.id)

    async def check(cache: AsyncCache, story: Story) -> None:
        known = await story.now(cache)
        assert len(await cache.sessions.of(USER)) == len(known), "a session that is left is not listed"

    world = World(new_cache, "memory://")
    assert await asyncio.to_thread(world.every, check, logging_in, destroying_all) >= 20


@pytest.mark.slow
def test_more_of_the_orders_of_single_steps(registers: Registers) -> None:
    for act in (loading, saving("mine"), destroying, destroying_all):
        registers.by_luck(500, it_has_one_id if act is loading else what_was_ended_is_gone, rotating, act)
    registers.by_luck(500, what_was_ended_is_gone, rotating, saving("mine"), destroying)
    registers.by_luck(500, what_was_ended_is_gone, rotating, destroying_all, listing)


# Mechanisms that are taken away


def test_storing_all_fields_at_once_is_noticed(world: World) -> None:
    """As it is done where a session is one value."""

    def as_a_value(field: str) -> Act:
        async def act(cache: AsyncCache, story: Story) -> None:
            fields = await cache.get("session:1")
            fields[field] += 1
            await cache.set("session:1", fields)

        return act

    async def begin(cache: AsyncCache, _: Story) -> None:
        await cache.set("session:1", {"mine": 0, "yours": 0})

    async def check(cache: AsyncCache, story: Story) -> None:
        found = await cache.get("session:1")
        await begin(cache, story)
        assert found == {"mine": 1, "yours": 1}, f"{found} is left"

    asyncio.run(_began(world, begin))
    with noticed("is left"):
        world.every(check, as_a_value("mine"), as_a_value("yours"))


async def _began(world: World, begin: Act) -> None:
    cache = world.caches[0].aio
    await begin(cache, Story(Session("", {}, {}, 0.0)))
    await cache.aclose()


def test_a_save_that_looks_at_nothing_is_noticed(world: World) -> None:
    async def check(cache: AsyncCache, story: Story) -> None:
        assert not await story.now(cache), "a destroyed session is back"

    with careless(), noticed("is back"):
        world.every(check, saving("mine"), destroying)


@contextmanager
def careless() -> Iterator[None]:
    """Have sessions saved that are not there."""
    real, real_changed = lua.script, MemorySessions._changed
    anew = "if not is_there(to) then\n  idle, left = 60000, 60000\n"
    anew += "  redis.call('HSET', session, 'idle', idle, 'end', now + left)\nend\nif false then"

    def script(name: str) -> lua.Script:
        return lua.made(real(name).text.replace("if not is_there(to) then", anew))

    def changed(sessions: MemorySessions, name: str, change: SessionChange) -> Any:
        ends = sessions._clock() + 60.0
        sessions._sessions.setdefault(name, memory_sessions._Session(60.0, ends, ends, {}))
        return real_changed(sessions, name, change)

    with broken(redis_backend, "script", script), broken(MemorySessions, "_changed", changed), blind():
        yield


@contextmanager
def blind() -> Iterator[None]:
    """Have sessions of engines without scripts stored over whatever is there."""
    real_present = register_sessions._present

    def present(answer: Answer, now: int, to: str = "") -> Stored:
        return real_present(answer, now, to) or Stored(b"", 60_000, now + 60_000, now + 60_000, "", {})

    async def kept(sessions: RegisterSessions, record: str, _seen: Answer, stored: Stored, now: int) -> Any:
        await sessions._take(Put(record, register_sessions._packed(stored), 60.0))
        return (stored.told(now),)

    with broken(register_sessions, "_present", present), broken(RegisterSessions, "_kept", kept):
        yield


def test_a_swap_that_compares_nothing_is_noticed(registers: Registers) -> None:
    with blind(), noticed("is left of"):
        registers.every(nothing_is_lost, saving("mine"), saving("yours"))


def port_of(world: World) -> Any:
    """Return the class of the port of its engine."""
    return type(world.caches[0]._engine.backend.sessions)


def test_an_id_that_is_replaced_without_a_mark_is_noticed(world: World) -> None:
    port = port_of(world)

    async def move(sessions: Sessions, name: str, change: SessionChange, to: str) -> SessionRecord | None:
        (record,) = await sessions.load([name], used=True)
        return record and SessionRecord(record.idle, record.left, record.fields | change.fields)

    async def leave(sessions: Sessions, name: str, to: str) -> bool:
        return await sessions.destroy([name]) == 1

    with broken(port, "move", move), broken(port, "leave", leave), noticed("is left of"):
        world.every(nothing_is_lost, rotating, saving("mine"))


def test_an_end_that_nobody_looks_at_when_the_id_is_replaced_is_noticed(world: World) -> None:
    port = port_of(world)
    real = port.leave

    async def leave(sessions: Sessions, name: str, to: str) -> bool:
        await real(sessions, name, to)
        return True

    with broken(port, "leave", leave), noticed("is back"):
        world.every(what_was_ended_is_gone, rotating, destroying)


def test_taking_sessions_that_move_for_absent_is_noticed(world: World) -> None:
    async def absent(sessions: Sessions, names: list[str]) -> list[str]:
        found = await sessions.load(names, used=False)
        return [name for name, record in zip(names, found, strict=True) if record is None]

    with broken(port_of(world), "absent", absent), noticed("is back|is left"):
        world.by_luck(3_000, what_was_ended_is_gone, rotating, destroying_all, listing)


def test_who_looks_once_for_all_sessions_of_a_user_is_noticed(world: World) -> None:
    async def destroy_all(verbs: SessionVerbs, user_id: object, but: Session | None) -> int:
        return await verbs._destroy(await verbs._names_of(_user_of(user_id)))

    with broken(SessionVerbs, "destroy_all", destroy_all), noticed("is back"):
        world.every(what_was_ended_is_gone, rotating, destroying_all)
