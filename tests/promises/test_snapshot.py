"""What one process leaves of its near tier for the next: read anew many keys at a time, and served only where both the
engine and the loader fail.
"""

import itertools
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nearcache import AsyncCache, BackendTimeoutError, BackendUnavailableError, Cache
from nearcache._engine import engine as engine_module
from nearcache._engine import restore as restore_module
from nearcache._engine.read import Reader
from nearcache._engine.snapshot import NO_FILL, Snapshot
from nearcache.codecs import ids
from nearcache.codecs.codec import Codec, Encoded
from nearcache.near.slot import Slot
from nearcache.near.snapshot import SnapshotFile
from nearcache.near.store import Store
from nearcache.near.view import View
from tests.faces import Awaited
from tests.promises.conftest import url_of
from tests.promises.forking import ended, forked
from tests.promises.helpers import (
    broken,
    eventually,
    eventually_in_loop,
    noticed,
    recorded,
    unannounced,
)
from tests.proxy import Line, proxied
from tests.servers import RedisServer

MANY = [f"many:{number}" for number in range(1_200)]


class Down(Exception):
    """The source does not answer."""


def down(*_: object) -> Any:
    """Load from a source that does not answer."""
    raise Down


@dataclass
class User:
    """A value of a declared type."""

    name: str


class World:
    """Caches of one flavour, one after the other, over one engine and with one path."""

    def __init__(self, kind: Any, line: Line, path: Path) -> None:
        self.kind, self.line, self.path = kind, line, path
        self.namespace = f"s{os.urandom(5).hex()}"
        self.faces: list[Awaited] = []

    def started(self, **options: Any) -> Awaited:
        """Make the cache of a process that has just started."""
        options = {"jitter": 0, "fail_safe": "1h", "near_snapshot": self.path, **options}
        options = {"namespace": self.namespace, "pool_min": 1, "observers": (), "timeout": 10, **options}
        options = {"staleness": 5, **options}
        self.faces.append(Awaited(self.kind(self.line.url, **options)))
        return self.faces[-1]

    async def heard(self, **options: Any) -> Awaited:
        """Make a cache that hears of changes."""
        face = self.started(**{"staleness": 0.5, **options})
        await face.open()
        parts_of(face).coherence.seek()
        await eventually_in_loop(lambda: parts_of(face).coherence.tracked, "changes are announced")
        return face

    async def left(self, *keys: str, ttl: Any = "1h", **options: Any) -> None:
        """Have a process leave values of these keys, "old" with the tag "t:1", and end."""
        face = await self.heard(**options)
        await face.get_or_load_many(keys, face.loader(lambda some: dict.fromkeys(some, "old")), ttl, ["t:1"])
        await own_writes_heard(face)
        await face.get_many(keys)
        await face.close()

    async def stale(self, face: Awaited, key: str = "a:1") -> Any:
        """Return what a load brings whose source does not answer, None if it raises."""
        try:
            return await face.get_or_load(key, face.loader(down))
        except Down:
            return None


def parts_of(face: Awaited) -> Any:
    """Return what is behind a face."""
    return face.cache._parts.core


async def own_writes_heard(face: Awaited) -> None:
    """Wait until what this cache has written was announced to itself: what is read from then on stays near."""
    core, written = parts_of(face), time.monotonic()
    await eventually_in_loop(lambda: core.coherence.proven > written, "own writes are heard")


@pytest.fixture
def line(valkey_server: RedisServer) -> Iterator[Line]:
    """A way to the server that can be cut."""
    with proxied(valkey_server.port) as proxy:
        yield Line(valkey_server, proxy)


@pytest.fixture(params=[Cache, AsyncCache])
async def world(request: pytest.FixtureRequest, line: Line, tmp_path: Path) -> Any:
    """A world of either flavour."""
    world = World(request.param, line, tmp_path / "snap")
    yield world
    for face in world.faces:
        await face.close()


# Warm after a start


async def warm(world: World) -> None:
    """Start anew over an engine that is there: three commands bring what 1,200 would have."""
    await world.left(*MANY)
    face = world.started()
    with recorded(face.cache) as recorder:
        await face.open()
        assert recorder.counts["get_many"] == 3  # 500 keys at a time
        found = [await face.get(key) for key in MANY]
        assert found == ["old"] * len(MANY)
        assert recorder.counts["get"] == 0
    assert parts_of(face).near.left == {}


async def test_after_a_start_the_near_tier_is_warm_in_a_few_round_trips(world):
    await warm(world)


async def test_it_is_not_warm_unless_something_was_left_and_read_anew(world):
    async def nothing(*_: object) -> None:
        pass

    with broken(Snapshot, "write", lambda _: None), noticed():
        await warm(world)
    with broken(engine_module, "restore", nothing), noticed():
        await warm(world)


@pytest.mark.parametrize("bus", ["tracking", "stream"])
@pytest.mark.parametrize("engine", ["valkey", "redis", "embedded", "cluster"])
def test_it_is_warm_over_every_engine(engine, bus, request, new_cache, tmp_path):
    options: dict[str, Any] = {"namespace": f"s{os.urandom(5).hex()}", "near_snapshot": tmp_path / "snap", "bus": bus}
    options["timeout"] = 10
    cache = new_cache(url_of(engine, request), **options)
    keys = [f"keys:{number}" for number in range(50)]
    cache.set_many({key: ["a", "value"] for key in keys})
    cache.get_many(keys)
    core, written = cache._parts.core, time.monotonic()
    eventually(lambda: core.coherence.proven > written, "own writes are heard")
    cache.get_many(keys)
    cache.close()

    cache = new_cache(url_of(engine, request), **options)
    with recorded(cache) as recorder:
        cache.open()
        assert [cache.get(key) for key in keys] == [["a", "value"]] * 50
        assert (recorder.counts["get_many"], recorder.counts["get"]) == (1, 0)


async def test_the_most_useful_comes_first(world):
    face = await world.heard()
    for number in range(20):
        await face.get_or_load(f"a:{number}", face.loader(lambda: "old"))
    await own_writes_heard(face)
    for number in range(20):
        await face.get(f"a:{number}")
    for _ in range(9):
        assert await face.get("a:7") == await face.get("a:13") == "old"
    await face.close()
    next_one = world.started()
    await next_one.get("first:1")
    assert set(itertools.islice(parts_of(next_one).near.left, 2)) == {"a:7", "a:13"}


async def test_declared_types_are_warm_too(world):
    async def functions(face: Awaited) -> Any:
        def user(number: int) -> User:
            loads.append(number)
            return User(f"user {number}")

        return face.awaited(face.cached("users:{number}")(face.loader(user)))

    loads: list[int] = []
    face = await world.heard()
    user = await functions(face)
    assert [await user(number) for number in (1, 2)] == [User("user 1"), User("user 2")]
    await own_writes_heard(face)
    assert [await user(number) for number in (1, 2)] == [User("user 1"), User("user 2")]
    await face.close()

    face = world.started()
    user = await functions(face)
    with recorded(face.cache) as recorder:
        await face.open()
        assert [await user(number) for number in (1, 2)] == [User("user 1"), User("user 2")]
        assert (recorder.counts["get_many"], recorder.counts["get"]) == (1, 0)
    assert sorted(loads) == [1, 2]


# What changed meanwhile

Change = Callable[[Awaited], Awaitable[Any]]

CHANGES: dict[str, tuple[Change, Any]] = {
    "set": (lambda face: face.set("a:1", "new"), "new"),
    "delete": (lambda face: face.delete("a:1"), None),
    "tag": (lambda face: face.invalidate_tags("t:1"), None),
    "clear": (lambda face: face.clear(), None),
}


@pytest.fixture(params=list(CHANGES))
def change(request: pytest.FixtureRequest) -> tuple[Change, Any]:
    """A change, and what is read afterwards."""
    return CHANGES[request.param]


async def changed_meanwhile(world: World, change: Change, new: Any) -> None:
    """Change a value while nobody has it near."""
    await world.left("a:1", "a:2")
    await change(world.started(near_snapshot=None))
    face = world.started()
    await face.open()
    assert await face.get("a:1") == new
    world.line.cut()
    assert await world.stale(face) in (None, new)
    world.line.mend()


async def test_what_changed_meanwhile_is_never_served(world, change):
    await changed_meanwhile(world, *change)


async def test_who_trusts_what_was_left_serves_what_changed(world, change):
    async def trust(reader: Reader, keys: list[str]) -> bool:
        core = reader._core
        for key in keys:
            value = core.codec.decode(core.codec.open(core.near.left[key].raw))
            core.near.keep(key, value, None, core.clock() + 60, 10, core.near.stamp(key))
        return True

    with broken(restore_module, "_read", trust), noticed():
        await changed_meanwhile(world, *change)


# Without the engine


async def test_where_engine_and_loader_fail_what_was_left_is_served_as_stale(world):
    await world.left("a:1", "a:2")
    world.line.cut()
    face = world.started()
    assert await face.get("a:1") is None  # never a hit
    assert await face.get_many(["a:1", "a:2"]) == {}
    assert await world.stale(face) == "old"
    told = await face.get_or_load_many(["a:1", "a:2"], face.loader(down))
    assert told == {"a:1": "old", "a:2": "old"}
    assert (face.stats().stale_hits, face.stats().near_hits) == (3, 0)
    assert await world.stale(world.started(near_snapshot=None)) is None  # it is this that makes the difference


async def test_without_fail_safe_the_loader_s_error_is_raised(world):
    await world.left("a:1")
    world.line.cut()
    assert await world.stale(world.started(fail_safe=None)) is None
    assert await world.stale(world.started(fail_safe=None, stale="1h")) is None


async def test_a_loader_that_answers_is_asked_and_what_is_older_is_gone(world):
    await world.left("a:1")
    world.line.cut()
    face = world.started(staleness=0.001)
    assert await face.get_or_load("a:1", face.loader(lambda: "new")) == "new"
    assert await world.stale(face) != "old"  # nobody goes back in time


async def test_what_the_source_has_no_more_is_gone(world):
    await world.left("a:1", "a:2")
    world.line.cut()
    face = world.started(staleness=0.001)
    assert await face.get_or_load_many(["a:1"], face.loader(lambda _: {})) == {}
    assert (await world.stale(face), await world.stale(face, "a:2")) == (None, "old")


async def test_a_start_without_the_engine_loses_nothing(world):
    await world.left("a:1", "a:2")
    world.line.cut()
    face = world.started()
    with pytest.raises(BackendUnavailableError):
        await face.open()
    await face.delete("a:2")
    await face.close()
    face = world.started()
    assert (await world.stale(face), await world.stale(face, "a:2")) == ("old", None)


@pytest.mark.parametrize(("later", "found"), [(50, "old"), (170, "old"), (190, None), (-1_000, None)])
async def test_it_is_as_old_as_the_time_of_day_says(world, later, found):
    await world.left("a:1", ttl=60)
    world.line.cut()
    face = world.started(fail_safe=120)
    parts_of(face).snapshot._wall = lambda: time.time() + later
    assert await world.stale(face) == found


async def test_it_grows_older_while_the_process_runs(world):
    await world.left("a:1", ttl=1)
    world.line.cut()
    face = world.started(fail_safe=0.5)
    assert await world.stale(face) == "old"
    deadline = time.monotonic() + 20
    while await world.stale(face) is not None:
        assert time.monotonic() < deadline


async def known(world: World, change: Change, then_answers: bool) -> None:
    """Invalidate what was left, without the engine or before it is lost."""
    await world.left("a:1", "a:2")
    face = world.started()
    if not then_answers:
        world.line.cut()
    await change(face)
    world.line.cut()
    assert await world.stale(face) is None


KNOWN = [CHANGES["delete"][0], CHANGES["tag"][0], CHANGES["clear"][0]]


@pytest.mark.parametrize("then_answers", [True, False])
@pytest.mark.parametrize("change", KNOWN)
async def test_an_invalidation_that_this_process_made_is_not_ignored(world, change, then_answers):
    await known(world, change, then_answers)


async def known_before(world: World, change: Change, engine_answers: bool) -> None:
    """Invalidate what was left, end, and start anew without the engine."""
    await world.left("a:1", "a:2")
    if not engine_answers:
        world.line.cut()
    face = world.started()
    await change(face)
    await face.close()
    world.line.cut()
    assert await world.stale(world.started()) is None


@pytest.mark.parametrize("engine_answers", [True, False])
@pytest.mark.parametrize("change", KNOWN)
async def test_an_invalidation_that_the_process_before_made_is_not_ignored(world, change, engine_answers):
    await known_before(world, change, engine_answers)


async def test_it_would_be_left_once_more_otherwise(world):
    with broken(View, "holds", lambda *_: True), noticed():
        await known_before(world, CHANGES["tag"][0], True)


async def test_it_would_be_ignored_otherwise(world):
    with broken(Store, "_changed", lambda *_: None), noticed():
        await known(world, CHANGES["delete"][0], False)
    world.line.mend()
    await eventually_in_loop(lambda: not any(parts_of(face).debts for face in world.faces), "it was deleted")
    with broken(View, "holds", lambda *_: True), noticed():
        await known(world, CHANGES["tag"][0], False)


async def known_from_the_engine(world: World, *, announced: bool) -> None:
    """Learn of a deletion by another process: by an announcement, or because the engine has no value any more."""
    await world.left("a:1", "a:2")
    face, other = world.started(), world.started(near_snapshot=None)
    await face.set("b:1", "kept near")
    await face.get("b:1")
    await eventually_in_loop(lambda: parts_of(face).coherence.tracked, "changes are announced")
    assert "a:1" in parts_of(face).near.left
    await other.delete("a:1")
    if announced:
        await eventually_in_loop(lambda: "a:1" not in parts_of(face).near.left, "the deletion is heard")
    else:
        assert await face.get("a:1") is None
    world.line.cut()
    assert (await world.stale(face), await world.stale(face, "a:2")) == (None, "old")


@pytest.mark.parametrize("announced", [True, False])
async def test_what_the_engine_says_meanwhile_counts(world, announced):
    await known_from_the_engine(world, announced=announced)


async def test_what_the_engine_says_would_not_count_otherwise(world):
    with unannounced_deletions(), broken(Store, "_pass", lambda *_: None), noticed():
        await known_from_the_engine(world, announced=False)


def unannounced_deletions() -> Any:
    """Let nobody hear of single keys."""
    return broken(Store, "changed", lambda *_: None)


async def test_what_the_engine_has_answered_is_newer_even_if_it_is_not_near_any_more(world):
    await world.left("a:1", "a:2")
    face = world.started(near=1)
    await world.started(near_snapshot=None).set("a:1", "new")
    assert await face.get("a:1") == "new"
    assert await face.get("a:2") == "old"  # takes the place
    world.line.cut()
    assert await world.stale(face) is None


async def test_what_another_release_has_stored_may_be_newer(world):
    await world.left("a:1")
    await world.started(near_snapshot=None).set("a:1", 5)
    face = world.started()
    assert await face.get("a:1", type=str) is None
    world.line.cut()
    assert await world.stale(face) is None


async def test_an_invalidation_before_it_was_loaded_does_not_matter(world):
    await world.started(near_snapshot=None).invalidate_tags("t:1")
    await world.left("a:1")
    face = world.started()
    await face.get("b:1")
    assert "t:1" in parts_of(face).view.tags
    world.line.cut()
    assert await world.stale(face) == "old"


async def test_where_the_engine_stops_to_answer_open_gives_up(world):
    await world.left(*MANY)
    face = world.started()

    def fail(operation: str) -> None:
        if operation == "get_many":
            raise BackendTimeoutError("it is hanging")

    with recorded(face.cache) as recorder:
        recorder.before = fail
        await face.open()
        assert recorder.counts["get_many"] == 1
    assert len(parts_of(face).near.left) == len(MANY)
    assert await face.get(MANY[0]) == "old"  # by a read of its own


async def test_where_the_engine_is_slow_open_gives_up(world):
    await world.left(*MANY)
    face = world.started()
    with recorded(face.cache) as recorder, broken(restore_module, "WITHIN", 0.0):
        await face.open()
        assert recorder.counts["get_many"] == 0


async def test_where_changes_are_not_announced_nothing_is_read_ahead(world):
    await world.left(*MANY)
    face = world.started()
    with unannounced(), broken(restore_module, "ANNOUNCED_WITHIN", 0.05), recorded(face.cache) as recorder:
        await face.open()
        assert recorder.counts["get_many"] == 0
    assert len(parts_of(face).near.left) == len(MANY)


# What may be in a file


async def test_a_value_of_another_type_is_not_served(world):
    await world.left("users:1")
    world.line.cut()
    face = world.started()

    def user(number: int) -> User:
        raise Down

    with pytest.raises(Down):
        await face.awaited(face.cached("users:{number}")(face.loader(user)))(1)


class Explosive:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


async def test_nothing_in_a_file_is_run_or_breaks_anything(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ages: dict[str, Any] = {
        "fill_id": NO_FILL,
        "epoch": 0,
        "born": time.time(),
        "soft": 60.0,
        "hard": 60.0,
        "cost": 0.0,
    }
    bomb = Codec().seal(Encoded(ids.PICKLE, bytes(8), 0, bytes(32) + pickle.dumps(Explosive())), **ages)
    garbled = Codec().seal(Encoded(ids.VALUE, bytes(8), 0, b"\xc1\xff\xff"), **ages)
    entries = [("a:1", bomb), ("a:2", garbled), ("a:3", b"short"), ("a b", bomb), ("", bomb)]
    origin = f"{world.namespace} {world.line.url}"
    SnapshotFile(world.path, origin).write(entries, time.time())
    world.line.cut()
    for options in ({}, {"codec": "pickle", "secret": "0123456789abcdef"}):
        face = world.started(**options)
        assert [await world.stale(face, f"a:{number}") for number in (1, 2, 3)] == [None] * 3
        assert parts_of(face).near.left.keys() == {"a:1", "a:2"}
    assert not (tmp_path / "exploded").exists()


async def test_signed_pickles_stay_signed(world):
    options = {"codec": "pickle", "secret": "0123456789abcdef"}
    await world.left("a:1", **options)
    world.line.cut()
    assert await world.stale(world.started(**options)) == "old"
    assert await world.stale(world.started(codec="pickle", secret="another secret, as long")) is None
    assert await world.stale(world.started()) is None


async def test_a_file_that_cannot_be_used_is_one_line_in_the_log(world, caplog):
    world.path.mkdir()
    face = world.started(observers=None)
    with caplog.at_level(logging.WARNING, logger="nearcache"):
        await face.open()
        await face.set("a:1", "kept")
        assert await face.get("a:1") == "kept"
        await face.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    start = f"{world.namespace}: the near snapshot {world.path} is not"
    assert [line.removeprefix(start).partition(":")[0] for line in lines] == [" read", " written"]
    assert all("it is no regular file; remove it, or name another path" in line for line in lines)


async def test_a_value_that_cannot_be_encoded_is_left_out(world):
    face = await world.heard(near_copy="share")
    await face.get_or_load("a:1", face.loader(lambda: ["fine"]))
    await face.get_or_load("a:2", face.loader(lambda: "old"))
    await own_writes_heard(face)
    found = await face.get_many(["a:1", "a:2"])
    found["a:1"].append(object())
    await face.close()
    world.line.cut()
    face = world.started()
    assert (await world.stale(face), await world.stale(face, "a:2")) == (None, "old")


# Processes


async def test_with_caching_off_nothing_is_read_or_written(world, monkeypatch):
    monkeypatch.setenv("CACHE_ENABLED", "false")
    face = world.started()
    await face.open()
    await face.close()
    assert not world.path.exists()


async def test_a_cache_that_was_never_used_leaves_the_file_alone(world):
    await world.left("a:1")
    before = world.path.stat()
    await world.started().close()
    assert world.path.stat() == before


def test_only_the_process_that_has_read_it_writes_it(line, tmp_path):
    path = tmp_path / "snap"
    options = {"near_snapshot": path, "timeout": 10.0, "fail_safe": "1h", "observers": ()}
    cache = Cache(line.url, namespace=f"s{os.urandom(5).hex()}", **options)

    def child_first() -> None:
        with cache:
            cache.set("a:1", "from the child")
            eventually(lambda: cache.get("a:1") and cache.health().coherent, "changes are announced")
            eventually(lambda: cache.get("a:1") and parts_of_near(cache), "something is near")

    def use_and_close() -> None:
        cache.get("a:1")
        cache.close()

    ended(forked(child_first))
    assert path.exists()
    with cache:
        eventually(lambda: cache.get("a:1") and cache.health().coherent, "changes are announced")
        before = path.stat()
        ended(forked(use_and_close))
        assert path.stat() == before
    assert path.stat() != before


def parts_of_near(cache: Cache) -> list[Slot]:
    """Return what is near."""
    return cache._parts.core.near.slots()


PROCESS = """
import sys, time
from nearcache import Cache
def load():
    if sys.argv[4] == "down":
        raise OSError
    return sys.argv[4]
cache = Cache(sys.argv[1], namespace=sys.argv[2], near_snapshot=sys.argv[3], observers=(), fail_safe="1h", ttl=600)
try:
    cache.open()
    cache.set("first:1", 1)
    assert cache.get("first:1")
    deadline = time.monotonic() + 20
    while not cache.health().coherent:
        assert time.monotonic() < deadline
        time.sleep(0.001)
except Exception as error:
    print(type(error).__name__, end=" ")
for _ in range(3):
    value = cache.get_or_load("a:1", load)
print(value, "a:1" in cache._parts.core.near.left)
cache.close()
"""


def test_two_real_processes_one_after_the_other(line, tmp_path):
    namespace = f"s{os.urandom(5).hex()}"

    def process(source: str) -> str:
        arguments = [line.url, namespace, str(tmp_path / "snap"), source]
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert process("old") == "old False"
    assert process("new") == "old False"  # from the engine
    line.cut()
    assert process("down") == "BackendUnavailableError old True"
    assert process("newer") == "BackendUnavailableError newer False"
