"""Sessions over single records: what their schedules do not show."""

import itertools
import pickle
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from nearcache import BackendError, Cache, SessionLostError
from nearcache._io.blocking import drive
from nearcache.backends.registers import sessions as register_sessions
from nearcache.backends.registers.base import Answer, Drop, Look, Step, Swap
from nearcache.backends.registers.sessions import LISTED, MOVES, Listed, RegisterSessions, Stored
from nearcache.backends.registry import BackendSpec, build
from nearcache.backends.sessions import SessionChange, SessionRecord
from nearcache.errors import BackendUnavailableError
from nearcache.near.view import View
from tests.promises.helpers import broken, dice
from tests.registers import ForgetfulBackend, Node, Server, server_of

T = TypeVar("T")
_numbers = itertools.count()

NOTHING = SessionChange({}, [], 1_000)


class World:
    """Sessions over one engine, and a time that stands still."""

    def __init__(self, kind: str) -> None:
        self.url = f"forgetful://{kind}-of-sessions-{next(_numbers)}"
        self.server: Server = server_of(self.url)
        self.now = 1_000_000
        backend = build(BackendSpec(self.url, "app", view=View(time.monotonic, 600.0)), "sync")
        assert isinstance(backend.sessions, RegisterSessions)
        self.port: RegisterSessions = backend.sessions
        self.taken: list[Step] = []

    @property
    def node(self) -> Node:
        return self.server.nodes["values"]

    def done(self, work: Coroutine[Any, Any, T]) -> T:
        return drive(work)

    def create(self, name: str = "a", *, idle: float = 600.0, left: float = 6_000.0, **fields: bytes) -> None:
        named = {field.encode(): value for field, value in fields.items()}
        self.done(self.port.create(name, SessionRecord(idle, left, named)))

    def load(self, name: str = "a", *, used: bool = True) -> SessionRecord | None:
        (found,) = self.done(self.port.load([name], used=used))
        return found

    def save(self, name: str = "a", **fields: bytes) -> bool:
        named = {field.encode(): value for field, value in fields.items()}
        return self.done(self.port.save(name, SessionChange(named, [], 1_000)))

    def stored(self, name: str = "a") -> Stored:
        return msgspec.msgpack.decode(self.node.look(f"app~s:{name}").raw or b"", type=Stored)

    def listed(self, user: str = "u") -> dict[str, int]:
        return msgspec.msgpack.decode(self.node.look(f"app~s:u:{user}").raw or b"", type=Listed).names


@pytest.fixture(params=["numbers", "bytes"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Sessions over each kind of engine without scripts."""
    world = World(request.param)
    run = world.server.run

    async def now(_sessions: RegisterSessions) -> int:
        return world.now

    async def noted(step: Step) -> Answer:
        world.taken.append(step)
        return await run(step)

    with broken(RegisterSessions, "_now", now), broken(world.server, "run", noted):
        yield world


# Time


def test_a_session_ends_when_it_was_not_used_and_when_it_is_old(world: World) -> None:
    """Never earlier; later than its idle life by a sixtieth of it at most, which is a minute at most."""
    luck = dice()
    for idle, slack in ((600, 10), (90_000, 60)):
        for _ in range(20):
            began = used = world.now
            old = began + 5 * idle * 1_000
            world.create(idle=idle, left=5 * idle)
            while True:
                world.now += luck.choice([1, slack * 1_000, idle * 300, idle * 999, idle * 1_000 - 1, idle * 1_001])
                found = world.load()
                if found is None:
                    break
                assert world.now < min(used + (idle + slack) * 1_000, old)
                used = world.now
                assert found.left == (old - world.now) / 1_000
            assert world.now >= min(used + idle * 1_000, old)
            assert not world.save()


def test_a_use_is_written_only_where_it_matters(world: World) -> None:
    world.create(idle=600)
    world.taken.clear()
    for _ in range(1_000):
        assert world.load()
        world.now += 1_000
    swaps = [step for step in world.taken if isinstance(step, Swap)]
    assert 80 <= len(swaps) <= 100
    assert len(world.taken) == 1_000 + len(swaps)


def test_a_life_is_never_shortened_by_who_knows_an_earlier_time(world: World) -> None:
    world.create(idle=600)
    until = world.stored().until
    world.now -= 5_000
    assert world.save(b=b"1")
    assert world.stored().until == until


def test_the_engine_keeps_a_record_for_longer_than_its_session_lives(world: World) -> None:
    day = 86_400
    for idle, left, least, most in (
        (0.001, 5, 1, 4),
        (600, 6_000, 610, 615),
        (600, 60, 60, 65),
        (40 * day, 50 * day, float("inf"), float("inf")),
    ):
        world.create(idle=idle, left=left)
        assert least <= (world.node.look("app~s:a").left or 0) <= most
    assert world.done(world.port.move("a", NOTHING, "b"))
    assert (world.stored().until - world.now) == MOVES


def test_the_list_of_a_user_is_kept_for_all_changes_alike(world: World) -> None:
    with broken(world.port._registers, "longest", float("inf")):
        for name, left in (("one", 5.0), ("two", 50.0)):
            world.done(world.port.enlist("u", name, left))
            assert world.node.look("app~s:u:u").left == pytest.approx(LISTED, abs=5)
        world.done(world.port.enlist("u", "three", 2 * LISTED))
        assert world.node.look("app~s:u:u").left == pytest.approx(2 * LISTED, abs=5)


def test_sessions_are_used_while_the_node_that_tells_the_time_is_away() -> None:
    cache = Cache(f"forgetful://clockless-{next(_numbers)}", observers=(), near=None)
    backend = cache._engine.backend
    assert isinstance(backend, ForgetfulBackend)

    async def learn_time() -> None:
        raise BackendUnavailableError("it is down (planned)")

    with broken(backend, "learn_time", learn_time):
        with pytest.raises(BackendError, match="planned"):
            cache.sessions.create()
        assert not backend.time.known
    session = cache.sessions.create()
    with broken(backend, "learn_time", learn_time), broken(backend.time, "_due", 0.0):
        assert backend.time.due()
        assert cache.sessions.load(session.id) is not None
    cache.close()


# Lists


def test_a_list_forgets_what_has_to_have_ended(world: World) -> None:
    world.done(world.port.enlist("u", "one", 5.0))
    world.now += 5_500
    world.done(world.port.enlist("u", "two", 5.0))
    assert set(world.listed()) == {"one", "two"}, "other processes may know an earlier time"
    world.now += 2_000
    world.done(world.port.enlist("u", "three", 5.0))
    assert set(world.listed()) == {"two", "three"}
    world.done(world.port.strike("u", ["two", "three"]))
    assert not world.node.look("app~s:u:u").done, "nothing is left"


def test_a_list_that_is_full_forgets_what_is_no_more_or_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_sessions, "MOST_LISTED", 4)
    monkeypatch.setattr(register_sessions, "BATCH", 2)
    for name in "abcd":
        world.create(name)
        world.done(world.port.enlist("u", name, 60.0))
    world.create("e")
    with pytest.raises(BackendError, match="a user has at most 4 sessions on this engine; end some") as raised:
        world.done(world.port.enlist("u", "e", 60.0))
    assert not raised.value.ambiguous
    assert "".join(world.listed()) == "abcd"
    world.done(world.port.enlist("u", "d", 60.0))  # is there already
    world.done(world.port.destroy(["c"]))
    world.done(world.port.enlist("u", "e", 60.0))
    assert "".join(world.listed()) == "abde"


def test_the_longest_list_fits_into_a_record() -> None:
    names = {f"{number:064x}": (1 << 53) - 1 for number in range(register_sessions.MOST_LISTED)}
    assert len(register_sessions._packed(Listed(b"", names))) < 500_000


# Answers that say less than was done


def test_a_change_that_was_made_without_anybody_being_told_is_made_once_more(world: World) -> None:
    """As by a client library that sends again what it has no answer to."""
    world.create(a=b"1")
    with untold(world.server, Swap, Answer(False)):
        assert world.save(b=b"1")
    assert (world.load() or NONE).fields == {b"a": b"1", b"b": b"1"}
    with untold(world.server, Swap, Answer(False)):
        moved = world.done(world.port.move("a", SessionChange({b"c": b"1"}, [b"a"], 100), "b"))
    assert moved is not None
    assert moved.fields == {b"b": b"1", b"c": b"1"}
    with untold(world.server, Drop, Answer(False)):
        assert not world.done(world.port.leave("a", "b")), "somebody may have destroyed it"
    for _ in range(2):
        with untold(world.server, Swap, Answer(False)):
            world.done(world.port.enlist("u", "a", 60.0))
    assert list(world.listed()) == ["a"]


def test_a_save_without_an_answer_can_be_repeated_and_brings_nothing_back(world: World) -> None:
    down = BackendUnavailableError("no answer (planned)")
    cache = Cache(world.url, observers=(), near=None)
    session = cache.sessions.create({"a": 1})
    session["b"] = 2
    with untold(world.server, Swap, Answer(False, error=down)), pytest.raises(BackendError):
        cache.sessions.save(session)
    other = cache.sessions.load(session.id)
    assert other is not None
    assert dict(other) == {"a": 1, "b": 2}
    other["a"] = 2
    cache.sessions.save(other)
    cache.sessions.save(session)
    assert dict(cache.sessions.load(session.id) or {}) == {"a": 2, "b": 2}
    session["b"] = 3
    with untold(world.server, Drop, Answer(False, error=down)), pytest.raises(BackendError):
        cache.sessions.destroy(session.id)
    with pytest.raises(SessionLostError):
        cache.sessions.save(session)
    assert cache.sessions.load(session.id) is None
    cache.close()


NONE = SessionRecord(0.0, 0.0, {})


@contextmanager
def untold(server: Server, kind: type[Step], answer: Answer) -> Iterator[None]:
    """Answer the first step of a kind with this, though it was taken."""
    run, left = server.run, [True]

    async def take(step: Step) -> Answer:
        taken = await run(step)
        if isinstance(step, kind) and left:
            left.clear()
            return answer
        return taken

    with broken(server, "run", take):
        yield


# Records that somebody else has written


class Bomb:
    """What makes a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def hostile(path: Path, good: list[Any]) -> Iterator[bytes]:
    """Make records that are no session, nor a list."""
    pack = msgspec.msgpack.encode
    yield from (b"", b"\x00", b"\xc0", b"{}", b"\xff" * 100, b"\x91" * 100_000, pickle.dumps(Bomb(path)), pack(None))
    yield pack(good)[:-1]
    yield pack(good) + b"\x00"
    yield pack([*good, 1])
    yield pack(good[:-1])
    for at in range(len(good)):
        for wrong in (None, -1, 1.5, float("nan"), 1 << 60, "\ud7ff", {"a": 1}, [b"a"], {b"a": "1"}):
            if type(wrong) is not type(good[at]):
                yield pack([*good[:at], wrong, *good[at + 1 :]])


def test_a_record_that_is_no_session_counts_as_absent_and_runs_nothing(world: World, tmp_path: Path) -> None:
    path = tmp_path / "made"
    for raw in hostile(path, [b"salt", 1_000, 2_000_000, 2_000_000, "", {b"a": b"1"}]):
        world.node.put("app~s:a", raw, 60.0)
        assert world.load() is None, raw
        assert world.load(used=False) is None
        assert not world.save(b=b"1")
        assert world.done(world.port.move("a", NOTHING, "b")) is None
        assert not world.done(world.port.leave("a", "b"))
        assert world.done(world.port.destroy(["a"])) == 0
    assert not path.exists()


def test_a_record_that_is_no_list_is_replaced(world: World, tmp_path: Path) -> None:
    for raw in hostile(tmp_path / "made", [b"salt", {"a": 2_000_000}]):
        world.node.put("app~s:u:u", raw, 60.0)
        assert world.done(world.port.names_of("u")) == [], raw
        world.done(world.port.strike("u", ["a"]))
        world.done(world.port.enlist("u", "b", 60.0))
        assert list(world.listed()) == ["b"]
    assert not (tmp_path / "made").exists()


def test_no_state_of_a_record_comes_back(world: World) -> None:
    world.create(a=b"1")
    seen = {world.node.look("app~s:a").raw}
    for value in (b"2", b"1", b"2", b"1"):
        assert world.save(a=value)
        seen.add(world.node.look("app~s:a").raw)
    assert len(seen) == 5
    assert isinstance(world.taken[-2], Look)
