"""Checks of the port of sessions: what is kept, what is changed alone, and what never comes back."""

import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from nearcache.backends.base import Backend
from nearcache.backends.sessions import SessionChange, SessionRecord, Sessions
from nearcache.errors import CodecError
from nearcache.testing.suite import HOUR, Suite, both

WITHIN = 10.0
"""Seconds after which something that has to happen is taken for never happening."""

IDLE = 0.2
"""Seconds that a session lives unused, where its end is waited for."""

ODD = bytes(range(256))
"""Bytes of every kind, for names and values."""


class SessionChecks(Suite):
    """What the port `sessions` of every backend that has it must do."""

    @both
    async def test_a_session_comes_back_as_it_is(self, backend: Backend) -> None:
        """Any bytes are kept, in names and values; and so is how long it lives."""
        if (sessions := backend.sessions) is None:
            return
        name, fields = _name(), {ODD: ODD, b"": b"", b"idle": b"1", b"moved": b"x"}
        await sessions.create(name, SessionRecord(60.0, HOUR, fields))
        found = await _found(sessions, name)
        assert found.fields == fields
        assert found.idle == 60.0
        assert HOUR - WITHIN < found.left <= HOUR
        before, again, after = await sessions.load([_name(), name, _name()], used=True)
        assert (before, again and again.fields, after) == (None, fields, None)
        assert await sessions.load([], used=True) == []

    @both
    async def test_a_save_changes_its_fields_alone(self, backend: Backend) -> None:
        """The others stay as somebody else has saved them."""
        if (sessions := backend.sessions) is None:
            return
        name = await _created(sessions, {b"a": b"1", b"b": b"1", b"c": b"1"})
        assert await sessions.save(name, _change({b"a": b"2"}))
        assert await sessions.save(name, _change({b"d": b"2"}, [b"b", b"unknown"]))
        assert await sessions.save(name, _change())
        assert (await _found(sessions, name)).fields == {b"a": b"2", b"c": b"1", b"d": b"2"}

    @both
    async def test_a_session_that_is_destroyed_does_not_come_back(self, backend: Backend) -> None:
        """Whoever saves it is told, and nothing is stored."""
        if (sessions := backend.sessions) is None:
            return
        name, other = await _created(sessions), await _created(sessions)
        assert await sessions.destroy([name, _name()]) == 1
        assert await sessions.destroy([name]) == 0
        assert await sessions.destroy([]) == 0
        for never in (name, _name()):
            assert not await sessions.save(never, _change({b"a": b"2"}))
            assert await sessions.move(never, _change(), _name()) is None
            assert await sessions.load([never], used=True) == [None]
        assert await sessions.save(other, _change())

    @both
    async def test_what_is_absent_is_told(self, backend: Backend) -> None:
        """A session that moves is not."""
        if (sessions := backend.sessions) is None:
            return
        there, moves, gone = [await _created(sessions) for _ in range(3)]
        await sessions.move(moves, _change(), _name())
        await sessions.destroy([gone])
        never = _name()
        assert await sessions.absent([there, moves, gone, never]) == [gone, never]
        assert await sessions.absent([]) == []

    @both
    async def test_a_session_that_would_be_too_large_is_not_changed(self, backend: Backend) -> None:
        """What counts is all of it, whoever has saved it, and without what is gone."""
        if (sessions := backend.sessions) is None:
            return
        name = await _created(sessions, {b"a": b"1234", b"b": b"1234"})
        for change in (_change({b"c": b"1"}, most=11), _change({b"a": b"12345"}, [b"unknown"], most=10)):
            for save in (sessions.save(name, change), sessions.move(name, change, _name())):
                with suppress(CodecError):
                    await save
                    raise AssertionError("a session became too large")
        assert (await _found(sessions, name)).fields == {b"a": b"1234", b"b": b"1234"}
        assert await sessions.save(name, _change({b"c": b"1234"}, [b"b"], most=10))

    @both
    async def test_a_session_lives_on_when_it_is_used(self, backend: Backend) -> None:
        """Loaded or saved; but not when somebody only looks at it."""
        if (sessions := backend.sessions) is None:
            return
        loaded = await _kept(sessions, lambda name: _has(sessions, name, used=True))
        await _kept(sessions, lambda name: sessions.save(name, _change()))
        await _gone(sessions, loaded)

    @both
    async def test_a_session_ends_when_it_is_old_however_often_it_is_used(self, backend: Backend) -> None:
        """And not before."""
        if (sessions := backend.sessions) is None:
            return
        began = time.monotonic()
        name = await _created(sessions, idle=HOUR, left=0.3)
        while await _has(sessions, name, used=True):
            assert time.monotonic() < began + WITHIN
        assert time.monotonic() - began >= 0.29
        assert not await sessions.save(name, _change())

    @both
    async def test_a_session_that_moves_is_found_by_nobody(self, backend: Backend) -> None:
        """It is changed for the last time; whoever moves it may ask again, and learns whether it was destroyed."""
        if (sessions := backend.sessions) is None:
            return
        name, to = await _created(sessions, {b"a": b"1", b"b": b"1"}), _name()
        moved = await sessions.move(name, _change({b"a": b"2"}, [b"b"]), to)
        assert moved is not None
        assert moved.fields == {b"a": b"2"}
        assert HOUR - WITHIN < moved.left <= HOUR
        assert not await _has(sessions, name, used=True)
        assert not await sessions.save(name, _change())
        assert await sessions.move(name, _change(), _name()) is None
        assert not await sessions.leave(name, _name())
        assert await sessions.leave(name, to)
        assert not await sessions.leave(name, to)
        other = await _created(sessions)
        assert not await sessions.leave(other, to)
        assert await sessions.move(other, _change(), to)
        assert await sessions.destroy([other]) == 1
        assert not await sessions.leave(other, to)

    @both
    async def test_a_user_has_the_sessions_that_were_added(self, backend: Backend) -> None:
        """Each once, one in the place of another, until they are taken away."""
        if (sessions := backend.sessions) is None:
            return
        user = _name()
        assert await sessions.names_of(user) == []
        for name in ("one", "two", "one"):
            await sessions.enlist(user, name, HOUR)
        assert sorted(await sessions.names_of(user)) == ["one", "two"]
        await sessions.enlist(user, "three", HOUR, "one")
        await sessions.enlist(user, "four", HOUR, "unknown")
        assert sorted(await sessions.names_of(user)) == ["four", "three", "two"]
        await sessions.strike(user, ["two", "unknown"])
        await sessions.strike(user, [])
        assert sorted(await sessions.names_of(user)) == ["four", "three"]
        assert await sessions.names_of(_name()) == []


def _name() -> str:
    return uuid.uuid4().hex


def _change(fields: dict[bytes, bytes] | None = None, gone: Sequence[bytes] = (), most: int = 1_000) -> SessionChange:
    return SessionChange(fields or {}, list(gone), most)


async def _created(
    sessions: Sessions, fields: dict[bytes, bytes] | None = None, *, idle: float = HOUR, left: float = HOUR
) -> str:
    name = _name()
    await sessions.create(name, SessionRecord(idle, left, fields or {}))
    return name


async def _found(sessions: Sessions, name: str) -> SessionRecord:
    (found,) = await sessions.load([name], used=True)
    assert found is not None, "the session is not there"
    return found


async def _has(sessions: Sessions, name: str, *, used: bool) -> bool:
    return await sessions.load([name], used=used) != [None]


async def _kept(sessions: Sessions, use: Callable[[str], Awaitable[bool]]) -> str:
    """Use a session for longer than it would live unused; begin again where the machine was too busy for that."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        began = last = sent = time.monotonic()
        name = await _created(sessions, idle=IDLE)
        while await use(name):
            last, sent = sent, time.monotonic()
            if sent > began + 1.5 * IDLE:
                return name
        assert time.monotonic() - last >= IDLE - 0.01, "a session that is used has ended"
    raise AssertionError("the machine is too busy")


async def _gone(sessions: Sessions, name: str) -> None:
    """Look at a session, which is not to use it, until it is gone."""
    deadline = time.monotonic() + WITHIN
    while await _has(sessions, name, used=False):
        assert time.monotonic() < deadline, "the session never ends"
