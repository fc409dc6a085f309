"""Sessions mean the same in both flavours and on every engine."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from nearcache import CodecError, ConfigError, InvalidKeyError, Session, SessionLostError
from nearcache._engine.sessions import _user_of
from nearcache._io.blocking import drive
from tests.faces import Awaited


@dataclass(frozen=True)
class Cart:
    """What somebody wants to buy."""

    items: tuple[str, ...]


@pytest.fixture
async def sessions(face: Awaited) -> Any:
    """The sessions of a cache."""

    class Verbs:
        def __getattr__(self, name: str) -> Any:
            return face.awaited(getattr(face.cache.sessions, name))

    return Verbs()


async def test_a_session_is_a_mapping_that_is_found_by_its_id(sessions: Any) -> None:
    created = await sessions.create({"user_id": 7, "cart": ["tea"]})
    assert isinstance(created, Session)
    assert created == {"user_id": 7, "cart": ["tea"]}
    loaded = await sessions.load(created.id)
    assert loaded == created
    assert loaded.id == created.id
    assert len(created.id) == 43
    assert (await sessions.create()).id != created.id
    assert await sessions.load((await sessions.create()).id) == {}


async def test_what_is_changed_is_saved(sessions: Any) -> None:
    session = await sessions.create({"cart": ["tea"], "name": "Ada", "theme": "dark"})
    session["cart"].append("milk")  # inside a value, too
    session["theme"] = "light"
    session["seen"] = {"a", "b"}
    del session["name"]
    assert session.get("name") is None
    await sessions.save(session)
    expected = {"cart": ["tea", "milk"], "theme": "light", "seen": {"a", "b"}}
    assert await sessions.load(session.id) == expected
    await sessions.save(session)
    assert await sessions.load(session.id) == expected


async def test_those_who_save_change_only_what_they_have_changed(sessions: Any) -> None:
    one = await sessions.create({"cart": ["tea"], "theme": "dark", "seen": set("abcdefgh"), "old": 1})
    other = await sessions.load(one.id)
    one["cart"] = ["milk"]
    other["theme"] = "light"
    del other["old"]
    await sessions.save(one)
    await sessions.save(other)
    one["seen"].add("i")
    await sessions.save(one)
    await sessions.save(other)  # whose sets are as they were, however they are written
    assert await sessions.load(one.id) == {"cart": ["milk"], "theme": "light", "seen": set("abcdefghi")}


async def test_a_destroyed_session_does_not_come_back(sessions: Any) -> None:
    session = await sessions.create({"user_id": 7})
    assert await sessions.destroy(session.id)
    assert not await sessions.destroy(session.id)
    assert await sessions.load(session.id) is None
    for verb in (sessions.save, sessions.rotate):
        with pytest.raises(SessionLostError, match="the session was destroyed, has expired, or has got another id"):
            await verb(session)
    assert await sessions.load(session.id) is None
    assert await sessions.of(7) == []


async def test_what_is_no_id_is_nobodys(sessions: Any) -> None:
    for strange in (None, "", "x", "x" * 43, "é" * 43, "{a}" * 20, 7, b"x" * 43):
        assert await sessions.load(strange) is None
        assert not await sessions.destroy(strange)


async def test_a_session_that_gets_another_id_keeps_its_fields(sessions: Any) -> None:
    session = await sessions.create({"cart": ["tea"], "step": 1})
    other = await sessions.load(session.id)
    other["theme"] = "dark"
    await sessions.save(other)
    before = session.id
    session["user_id"] = 7
    del session["step"]
    assert await sessions.rotate(session) is session
    assert session.id != before
    assert await sessions.load(before) is None
    expected = {"cart": ["tea"], "theme": "dark", "user_id": 7}
    assert await sessions.load(session.id) == expected
    with pytest.raises(SessionLostError):
        await sessions.save(other)
    session["step"] = 2
    await sessions.save(session)
    assert await sessions.of(7) == [{**expected, "step": 2}]
    assert not await sessions.destroy(before)


async def test_all_sessions_of_a_user(sessions: Any) -> None:
    mine = [await sessions.create({"user_id": 7, "device": device}) for device in ("phone", "tablet")]
    hers = await sessions.create({"user_id": 8})
    nobodys = await sessions.create({"user_id": None})
    nobodys["user_id"] = "7"  # as it stands in a URL
    nobodys["device"] = "car"
    await sessions.save(nobodys)
    listed = await sessions.of(7)
    assert sorted(fields["device"] for fields in listed) == ["car", "phone", "tablet"]
    assert await sessions.destroy_all(7, but=mine[0]) == 2
    assert [await sessions.load(each.id) for each in (*mine, nobodys)] == [mine[0], None, None]
    assert await sessions.of(7) == [mine[0]]
    assert await sessions.destroy_all(7) == 1
    assert await sessions.destroy_all(7) == 0
    assert await sessions.of(7) == []
    assert await sessions.load(hers.id) == hers
    hers["user_id"] = 9
    await sessions.save(hers)
    assert await sessions.of(8) == []
    assert await sessions.of(9) == [hers]


async def test_what_has_ended_is_listed_no_more(face: Awaited, sessions: Any) -> None:
    port = face.cache._engine.backend.sessions
    user = _user_of(7)

    async def listed() -> int:
        names = port.names_of(user)
        return len(await names if face.is_async else drive(names))

    mine = [await sessions.create({"user_id": 7}) for _ in range(3)]
    for session in mine[1:]:
        await sessions.destroy(session.id)
    assert await listed() == 3
    assert await sessions.of(7) == [mine[0]]
    assert await listed() == 1
    assert await sessions.destroy_all(7) == 1
    assert await listed() == 0


async def test_sessions_are_no_values(face: Awaited, sessions: Any) -> None:
    session = await sessions.create({"user_id": 7})
    await face.set("users:7", "Ada")
    with contextlib.suppress(NotImplementedError):
        await face.clear()
    with face.cache.disabled():
        session["step"] = 1
        await sessions.save(session)
        assert await sessions.load(session.id) == session
    if face.cache._engine.backend.scan is not None:
        assert await face.scanned() in ([], ["users:7"])


async def test_what_cannot_be_stored_is_refused(sessions: Any) -> None:
    session = await sessions.create({"name": "Ada"})
    for wrong in (object(), Cart(("tea",))):
        session["cart"] = wrong
        for verb in (sessions.save, sessions.rotate):
            with refused(CodecError, "the session's field 'cart'"):
                await verb(session)
        with refused(CodecError, "the session's field 'cart'"):
            await sessions.create(session)
    for strange in (7, "\ud800"):
        with refused(CodecError, "session's field"):
            await sessions.create({strange: 1})
    with refused(InvalidKeyError, "user_id"):
        await sessions.create({"user_id": {1, 2}})
    assert await sessions.load(session.id) == {"name": "Ada"}


async def test_a_session_has_a_largest_size(sessions: Any) -> None:
    session = await sessions.create({"a": b"x" * 40_000})
    other = await sessions.load(session.id)
    for too_large in (b"x" * 65_536, b"x" * 65_510):
        with refused(CodecError, "at most 65,536 bytes"):
            await sessions.create({"a": too_large, "field": 12345})
    session["b"] = other["c"] = b"x" * 15_000
    await sessions.save(session)
    with refused(CodecError, "at most 65,536 bytes"):
        await sessions.save(other)
    with refused(CodecError, "at most 65,536 bytes"):
        await sessions.rotate(other)
    assert set(await sessions.load(session.id)) == {"a", "b"}


async def test_wrong_times_are_refused(sessions: Any) -> None:
    for options in ({"ttl": 0}, {"ttl": None}, {"absolute": -1}, {"absolute": "400d"}, {"absolute": "never"}):
        with refused(ConfigError, next(iter(options))):
            await sessions.create({}, **options)


@contextlib.contextmanager
def refused(kind: type[Exception], why: str) -> Iterator[None]:
    """Demand an error that says why."""
    with pytest.raises(kind, match=why):
        yield


@pytest.mark.options(session_keys=["k" * 43, "l" * 43])
async def test_encrypted_sessions_are_used_like_others(sessions: Any) -> None:
    session = await sessions.create({"user_id": 7, "cart": ["tea"]})
    other = await sessions.load(session.id)
    session["cart"].append("milk")
    other["theme"] = "dark"
    await sessions.save(session)
    await sessions.save(other)
    moved = await sessions.rotate(other)
    assert await sessions.load(moved.id) == {"user_id": 7, "cart": ["tea", "milk"], "theme": "dark"}
    assert await sessions.of(7) == [{"user_id": 7, "cart": ["tea", "milk"], "theme": "dark"}]
    assert await sessions.destroy_all(7) == 1
