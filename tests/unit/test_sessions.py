"""What becomes of a session when time passes, its engine fails, or its record is somebody else's."""

import hashlib
import logging
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import AsyncCache, BackendError, Cache, CodecError, ConfigError, Session, SessionLostError
from nearcache._core.events import Command, Failure
from nearcache._engine.sessions import _user_of
from nearcache.backends import memory_sessions
from nearcache.backends.memory_sessions import MemorySessions
from nearcache.codecs import field
from nearcache.codecs.codec import Codec
from nearcache.testing import FakeClock, faults
from tests.integration.redis.helpers import in_child, reap

DAY = 86_400.0


class Ear:
    """Notes all that is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on(self, event: object) -> None:
        self.events.append(event)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def cache(clock: FakeClock, ear: Ear) -> Iterator[Cache]:
    """A cache in memory."""
    with Cache("memory://", clock=clock, observers=(ear,)) as cache:
        yield cache


def port(cache: Cache) -> MemorySessions:
    sessions = cache._engine.backend.sessions
    assert isinstance(sessions, MemorySessions)
    return sessions


def fields(cache: Cache, id: str) -> dict[str, Any]:
    return dict(cache.sessions.load(id) or {})


# Time


def test_a_session_lives_for_a_day_after_it_was_used_last(cache: Cache, clock: FakeClock) -> None:
    session = cache.sessions.create({"a": 1})
    for use in (cache.sessions.load, lambda _: cache.sessions.save(session), lambda _: cache.sessions.rotate(session)):
        clock.advance(DAY - 1)
        use(session.id)
    clock.advance(DAY - 1)
    cache.sessions.of(7)
    assert fields(cache, session.id) == {"a": 1}
    clock.advance(DAY)
    assert cache.sessions.load(session.id) is None
    with pytest.raises(SessionLostError):
        cache.sessions.save(session)


@pytest.mark.parametrize(("options", "days"), [({}, 30), ({"absolute": "5d"}, 5), ({"ttl": "40d"}, 40)])
def test_a_session_ends_however_often_it_is_used(
    cache: Cache, clock: FakeClock, options: dict[str, Any], days: int
) -> None:
    session = cache.sessions.create(**options)
    for day in range(days):
        assert cache.sessions.load(session.id) is not None, day
        cache.sessions.rotate(session)
        clock.advance(DAY - 0.001)
    assert cache.sessions.load(session.id) is not None
    clock.advance(0.1)
    assert cache.sessions.load(session.id) is None


def test_a_rotation_that_takes_its_time_does_not_let_a_session_live_longer(
    cache: Cache, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = cache.sessions.create(absolute="1h")
    move = port(cache).move

    async def slowly(*args: Any) -> Any:
        record = await move(*args)
        clock.advance("10m")
        return record

    monkeypatch.setattr(port(cache), "move", slowly)
    cache.sessions.rotate(session)
    assert session.left == 3_000.0
    clock.advance(2_999.9)
    assert cache.sessions.load(session.id) is not None
    clock.advance(0.2)
    assert cache.sessions.load(session.id) is None


def test_to_list_sessions_is_not_to_use_them(cache: Cache, clock: FakeClock) -> None:
    cache.sessions.create({"user_id": 7})
    for _ in range(24):
        clock.advance("1h")
        cache.sessions.of(7)
    assert cache.sessions.of(7) == []


def test_the_class_of_sessions_says_how_long_they_live(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    monkeypatch.setenv("CACHE_TTL_SESSION", "60")
    monkeypatch.setenv("CACHE_TTL_MAX", "100")
    cache = Cache("memory://", clock=clock, jitter=0.9)
    session = cache.sessions.create()
    clock.advance(59.9)
    assert cache.sessions.load(session.id) is not None
    clock.advance(40)
    assert cache.sessions.load(session.id) is not None
    clock.advance(0.2)
    assert cache.sessions.load(session.id) is None


def test_sessions_that_have_ended_take_no_room(cache: Cache, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_sessions, "FEW", 10)
    port(cache)._many = 10
    for number in range(300):
        cache.sessions.create({"user_id": number}, ttl=10, absolute=10)
        clock.advance(1)
    assert len(port(cache)._sessions) <= 40
    assert len(port(cache)._users) <= 40


# Ids


def test_ids_are_random_and_shown_nowhere(cache: Cache, ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ids = set[str]()
    for _ in range(100):
        session = cache.sessions.create({"user_id": 7, "secret": "hidden"})
        ids.add(session.id)
        ids.add(cache.sessions.rotate(session).id)
        assert repr(session) == "<session with 2 fields>"
    assert len(ids) == 200
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", each) for each in ids)
    held = repr((port(cache)._sessions, port(cache)._users, ear.events, caplog.text))
    assert not any(each in held for each in ids)


def test_errors_name_neither_ids_nor_values(cache: Cache) -> None:
    session = cache.sessions.create({"secret": "hidden"})
    session["wrong"] = object()
    session["secret"] = "hidden, too"
    errors = list[str]()
    for verb in (cache.sessions.save, cache.sessions.rotate, cache.sessions.create):
        with pytest.raises(CodecError) as raised:
            verb(session)
        errors.append(repr((raised.value, raised.value.__cause__)))
    del session["wrong"]
    with faults(cache) as engine:
        engine.down()
        for call in (cache.sessions.save, cache.sessions.rotate):
            with pytest.raises(BackendError) as failed:
                call(session)
            errors.append(str(failed.value))
        engine.up()
    cache.sessions.destroy(session.id)
    with pytest.raises(SessionLostError) as lost:
        cache.sessions.save(session)
    errors.append(str(lost.value))
    assert not any(session.id in error or "hidden, too" in error for error in errors)


# Engines that fail


@pytest.mark.parametrize("kind", [Cache, AsyncCache])
async def test_an_engine_that_does_not_answer_has_no_sessions(kind: Any) -> None:
    cache: Any = kind("memory://", observers=())

    async def done(result: Any) -> Any:
        return await result if kind is AsyncCache else result

    session = await done(cache.sessions.create({"user_id": 7}))
    session["a"] = 1
    with faults(cache) as engine:
        verbs = cache.sessions
        for call in (
            lambda: verbs.load(session.id),
            lambda: verbs.save(session),
            lambda: verbs.rotate(session),
            lambda: verbs.destroy(session.id),
            lambda: verbs.of(7),
            lambda: verbs.destroy_all(7),
            verbs.create,
        ):
            engine.down()
            with pytest.raises(BackendError):
                await done(call())
            engine.up()
    assert await done(cache.sessions.load(session.id)) == {"user_id": 7}
    await done(cache.sessions.save(session))
    assert await done(cache.sessions.load(session.id)) == {"user_id": 7, "a": 1}


def test_a_rotation_that_fails_half_way_leaves_no_id_that_works(cache: Cache) -> None:
    for step in ("session_create", "session_enlist", "session_leave"):
        for done in (False, True):
            session = cache.sessions.create({"user_id": 7})
            before = session.id
            with faults(cache) as engine:
                engine.fail(step, done=done)
                with pytest.raises(BackendError):
                    cache.sessions.rotate(session)
            assert session.id == before
            assert cache.sessions.load(before) is None
            cache.sessions.destroy_all(7)
            assert cache.sessions.of(7) == []


def test_sessions_are_listed_where_those_that_have_ended_cannot_be_struck(cache: Cache) -> None:
    mine = [cache.sessions.create({"user_id": 7}) for _ in range(2)]
    cache.sessions.destroy(mine[0].id)
    for step in ("session_absent", "session_strike"):
        with faults(cache) as engine:
            engine.fail(step)
            assert cache.sessions.of(7) == [{"user_id": 7}]
        assert len(port(cache)._users[_user_of(7)]) == 2
    assert cache.sessions.of(7) == [{"user_id": 7}]
    assert len(port(cache)._users[_user_of(7)]) == 1


def test_each_verb_is_told(cache: Cache, ear: Ear) -> None:
    session = cache.sessions.create()
    cache.sessions.load(session.id)
    cache.sessions.save(session)
    cache.sessions.rotate(session)
    told = [event.operation for event in ear.events if isinstance(event, Command)]
    assert told[1:] == [f"session_{each}" for each in ("create", "load", "save", "move", "create", "leave")]


# Records


def test_a_record_that_cannot_be_read_is_none(cache: Cache, ear: Ear) -> None:
    good = field.pack(Codec(), Codec().encode("x"))
    hostile: list[tuple[bytes, bytes]] = [
        (b"a", b""),
        (b"a", good[:9]),
        (b"a", b"\xff" + good[1:]),
        (b"a", good[:1] + b"\x80" + good[2:]),
        (b"a", good[:-1]),
        (b"\xff", good),
    ]
    for name, raw in hostile:
        session = cache.sessions.create({"user_id": 7})
        (record,) = port(cache)._sessions.values()
        record.fields[name] = raw
        assert cache.sessions.load(session.id) is None, (name, raw)
        assert cache.sessions.of(7) == []
        with pytest.raises(SessionLostError):
            cache.sessions.rotate(session)
        port(cache)._sessions.clear()
    assert {event.error for event in ear.events if isinstance(event, Failure)} == {"CodecError"}


def test_other_languages_read_the_fields_of_json(clock: FakeClock) -> None:
    cache = Cache("memory://", codec="json", clock=clock)
    session = cache.sessions.create({"cart": ["tea"], "user_id": 7})
    (record,) = port(cache)._sessions.values()
    assert record.fields == {b"cart": b'["tea"]', b"user_id": b"7"}
    assert cache.sessions.load(session.id) == session


# Encryption

KEY, OLD, OTHER = secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_bytes(32)


@pytest.fixture
def world(ear: Ear) -> Iterator[Callable[..., Cache]]:
    """Make caches with keys of their own; all of them have the same records."""
    first = Cache("memory://", session_keys=[KEY], observers=(ear,))

    def like(*keys: str | bytes) -> Cache:
        cache = Cache("memory://", session_keys=keys, observers=(ear,))
        cache._engine.backend.sessions = first._engine.backend.sessions
        return cache

    yield like
    first.close()


def stored(cache: Cache, session: Session) -> dict[bytes, bytes]:
    return port(cache)._sessions[hashlib.sha256(session.id.encode()).hexdigest()].fields


def test_nothing_of_a_value_can_be_seen_in_the_engine(world: Callable[..., Cache]) -> None:
    cache = world(KEY)
    session = cache.sessions.create({"name": "Ada Lovelace", "same": "Ada Lovelace"})
    first = dict(stored(cache, session))
    session["name"] = "Ada Byron"
    cache.sessions.save(session)
    second = dict(stored(cache, session))
    cache.sessions.rotate(session)
    for fields in (first, second, stored(cache, session)):
        assert fields.keys() == {b"name", b"same"}
        assert not any(word in raw for raw in fields.values() for word in (b"Ada", b"Lovelace", b"Byron"))
        assert fields[b"name"][4:] != fields[b"same"][4:]
    assert first[b"same"] == second[b"same"], "only what has changed is written"
    assert first[b"name"] != second[b"name"]
    assert cache.sessions.load(session.id) == session == {"name": "Ada Byron", "same": "Ada Lovelace"}


def test_keys_are_replaced_one_after_the_other(world: Callable[..., Cache], ear: Ear) -> None:
    before, between, after = world(OLD), world(KEY, OLD), world(KEY)
    session = before.sessions.create({"a": 1, "b": 1, "user_id": 7})
    loaded = between.sessions.load(session.id)
    assert loaded == session
    loaded["a"] = 2
    between.sessions.save(loaded)
    assert fields(between, session.id) == {"a": 2, "b": 1, "user_id": 7} == between.sessions.of(7)[0]
    assert after.sessions.load(session.id) is None, "one field has the old key"
    assert before.sessions.load(session.id) is None
    assert after.sessions.of(7) == []
    assert fields(after, between.sessions.rotate(loaded).id) == {"a": 2, "b": 1, "user_id": 7}
    assert {event.error for event in ear.events if isinstance(event, Failure)} == {"CodecError"}


def test_fields_of_another_session_and_of_another_name_are_not_believed(world: Callable[..., Cache]) -> None:
    cache = world(KEY)
    mine, yours = (cache.sessions.create({"admin": who, "guest": not who}) for who in (False, True))
    mine_stored, yours_stored = stored(cache, mine), dict(stored(cache, yours))
    before = dict(mine_stored)
    for changed in (
        {b"admin": yours_stored[b"admin"]},
        {b"admin": before[b"guest"]},
        {b"other": before[b"guest"]},
        {b"admin": before[b"admin"][:-1] + bytes([before[b"admin"][-1] ^ 1])},
        *({b"admin": before[b"admin"][:length]} for length in (0, 3, 4, 10, 16, 31)),
    ):
        mine_stored.update(changed)
        assert cache.sessions.load(mine.id) is None
        mine_stored.clear()
        mine_stored.update(before)
        assert fields(cache, mine.id) == {"admin": False, "guest": True}


@pytest.mark.parametrize(("writers", "readers"), [([KEY], []), ([], [KEY]), ([KEY], [OTHER])])
def test_who_has_not_the_keys_finds_no_session(
    world: Callable[..., Cache], writers: list[str], readers: list[str]
) -> None:
    session = world(*writers).sessions.create({"a": 1})
    cache = world(*readers)
    assert cache.sessions.load(session.id) is None
    session["b"] = 1
    with pytest.raises(SessionLostError):
        cache.sessions.rotate(session)


def test_encrypted_fields_count_as_they_are_stored(world: Callable[..., Cache]) -> None:
    cache, most = world(KEY), 65_536
    over = most - sum(len(name) + len(raw) for name, raw in stored(cache, cache.sessions.create({"a": b""})).items())
    assert cache.sessions.create({"a": b"x" * (over - 8)})
    session = cache.sessions.create({"b": 1})
    for call in (cache.sessions.save, cache.sessions.rotate):
        session["a"] = b"x" * over
        with pytest.raises(CodecError, match="65,536 bytes"):
            call(session)
    with pytest.raises(CodecError, match="65,536 bytes"):
        cache.sessions.create({"a": b"x" * over})
    assert fields(cache, session.id) == {"b": 1}


def test_without_the_library_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigError, match=r"pip install \"nearcache\[encryption\]\""):
        Cache("memory://", session_keys=[KEY])


# Processes


def test_a_forked_child_has_copies(cache: Cache) -> None:
    session = cache.sessions.create({"a": 1})
    with port(cache)._mutex:  # as if another thread was at it
        child = in_child(lambda: _in_the_child(cache, session.id))
        reap(child)
    assert fields(cache, session.id) == {"a": 1}


def _in_the_child(cache: Cache, id: str) -> None:
    def work() -> None:
        assert fields(cache, id) == {"a": 1}
        assert cache.sessions.destroy(id)
        done.append(True)

    done = list[bool]()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert done
