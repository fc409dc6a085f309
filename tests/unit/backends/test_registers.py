"""Leases and marks over single records: what their schedules do not show."""

import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from nearcache import Cache
from nearcache._io.blocking import drive
from nearcache.backends.base import BACK_OFF, Ask, Fill, Item
from nearcache.backends.registers import leases as registers_leases
from nearcache.backends.registers import marks
from nearcache.backends.registers.leases import KEPT, RegisterLeases
from nearcache.backends.registers.marks import RegisterMarks
from nearcache.backends.registers.records import new_head, packed, record_in, stub_in
from nearcache.backends.registry import BackendSpec, build
from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import NO_SCHEMA, Record, pack
from nearcache.errors import BackendUnavailableError
from nearcache.near.view import View
from tests.promises.helpers import broken, eventually
from tests.registers import ForgetfulBackend, Server, server_of

T = TypeVar("T")
_numbers = itertools.count()


class World:
    """Processes over one engine."""

    def __init__(self) -> None:
        self.url = f"forgetful://unit-{next(_numbers)}"
        self.server: Server = server_of(self.url)

    def process(self) -> ForgetfulBackend:
        """Return the backend of another process."""
        view = View(time.monotonic, 600.0)  # so that nothing is asked that need not be
        backend = build(BackendSpec(self.url, "app", view=view), "sync")
        assert isinstance(backend, ForgetfulBackend)
        done(backend.open())
        return backend

    def raw(self, key: str = "t:1") -> bytes | None:
        """Return what the engine holds."""
        return self.server.nodes["values"].look(f"app:{key}").raw

    def left(self) -> float:
        """Return how long it will hold it."""
        return self.server.nodes["values"].look("app:t:1").left or 0.0


@pytest.fixture
def world() -> World:
    return World()


def done(work: Coroutine[Any, Any, T]) -> T:
    return drive(work)


def item(
    backend: ForgetfulBackend, payload: bytes = b"1", fill_id: bytes = b"fill--id", tags: tuple[str, ...] = ()
) -> Item:
    raw = pack(Record(0, fill_id, backend.view.last, 1.0, 60.0, 60.0, 0.0, COUNTER, NO_SCHEMA, tags, payload))
    return Item("t:1", raw, 60.0)


def ask(token: str, seen: bytes = b"", life: float = 5.0) -> Ask:
    return Ask("t:1", token, seen, life)


# Leases


def test_a_stub_carries_the_record_that_is_to_be_replaced_and_lives_as_long(world: World):
    one, other = world.process(), world.process()
    old = item(one)
    done(one.set(old))
    seen = one.leases.identity(old.raw)
    (grant,) = done(one.leases.acquire([ask("one", seen, life=0.5)]))
    assert grant.leads
    found = stub_in(world.raw() or b"")
    assert found is not None
    assert found.token == "one"
    assert world.left() > 50
    assert done(other.get("t:1")) == old.raw
    (grant,) = done(other.leases.acquire([ask("two")]))
    assert grant.raw == old.raw, "it may be good enough for another"
    (grant,) = done(other.leases.acquire([ask("two", seen)]))
    assert (grant.leads, grant.holder) == (False, "one")
    done(one.leases.release("t:1", "one", "retry"))
    assert stub_in(world.raw() or b"") is None
    assert done(other.get("t:1")) == old.raw
    assert world.left() > 50


def test_a_stub_of_nothing_is_no_record(world: World):
    one = world.process()
    done(one.leases.acquire([ask("one")]))
    assert world.left() <= 5.0 + KEPT
    assert done(one.get("t:1")) is None
    assert done(one.get_many(["t:1"])) == [None]
    assert done(one.remaining(["t:1"])) == [None]
    assert not done(one.touch("t:1", 60.0, b"", b""))
    assert done(one.delete(["t:1"])) == 0
    assert done(one.leases.fill([Fill(item(one), "one", b"")])) == [False]


def test_who_waits_asks_again_more_and_more_seldom_and_sees_the_lease_end(world: World):
    one, other = world.process(), world.process()
    old = item(one)
    done(one.set(old))
    seen = one.leases.identity(old.raw)
    done(one.leases.acquire([ask("one", seen, life=1.0)]))
    lefts = [done(other.leases.acquire([ask("two", seen)]))[0].left for _ in range(6)]
    assert lefts[:3] == [0.02, 0.04, 0.08]
    assert lefts[-1] == 0.25
    assert all(left <= 0.25 for left in lefts)
    eventually(lambda: done(other.leases.acquire([ask("two", seen)]))[0].leads, "the lease ends")
    assert world.left() > 30, "the engine would have kept the stub as long as the record"
    assert done(one.leases.fill([Fill(item(one), "one", seen)])) == [False]


def test_a_pause_after_an_error_ends_by_whoever_gives_it_back(world: World):
    one, other = world.process(), world.process()
    old = item(one)
    done(one.set(old))
    seen = one.leases.identity(old.raw)
    done(one.leases.acquire([ask("one", seen)]))
    done(one.leases.release("t:1", "one", "fail:ValueError", 60.0))
    (grant,) = done(other.leases.acquire([ask("two", seen)]))
    assert grant.holder == BACK_OFF
    assert done(other.get("t:1")) == old.raw
    done(other.leases.release("t:1", BACK_OFF, "retry"))
    assert done(other.leases.acquire([ask("two", seen)]))[0].leads


def test_a_lease_that_is_not_remembered_is_looked_at(world: World):
    one = world.process()
    done(one.leases.acquire([ask("one")]))
    one.leases.let_go("one")
    assert done(one.leases.fill([Fill(item(one), "one", b"")])) == [True]
    done(one.leases.steal(ask("one")))
    one.leases.let_go("one")
    assert done(one.leases.commit(item(one, b"2"), "one"))


def test_a_record_that_was_stored_by_others_is_not_lost_with_the_lease_that_may_not_replace_it(world: World):
    one = world.process()
    other = item(one, b"7", b"another!")
    done(one.set(other))
    done(one.leases.steal(ask("one")))
    assert done(one.leases.fill([Fill(item(one), "one", b"")])) == [False]
    assert record_in(world.raw()) == world.raw(), "no lease is left"
    assert done(one.get("t:1")) == other.raw


def test_leases_are_not_remembered_without_end(world: World):
    one = world.process()
    leases = one.leases
    assert isinstance(leases, RegisterLeases)
    with broken(registers_leases, "MOST", 10):
        for n in range(50):
            done(leases.acquire([Ask(f"t:{n}", f"{n}", b"", 5.0)]))
            done(leases.acquire([Ask(f"t:{n}", "other", b"", 5.0)]))
    assert len(leases._mine) <= 10
    assert len(leases._watched) <= 10
    assert done(leases.fill([Fill(item(one), "1", b"")])) == [True]


# Marks


def invalid(backend: ForgetfulBackend, epoch: int, tag: str) -> bool:
    done(backend.marks.restore())
    if backend.view.unknown(epoch, [tag]):
        done(backend.marks.ask([tag]))
    return not backend.view.holds(epoch, [tag])


def test_very_many_tags_are_marked_and_found_marked(world: World):
    one, other = world.process(), world.process()
    epoch = one.view.last
    tags = [f"tags:{n}" for n in range(3_000)]
    done(one.marks.mark(tags, False))
    head = world.server.nodes["head"].look("app~m").raw or b""
    assert len(head) <= marks.HARD
    assert len(world.server.nodes["buckets"].names()) > 10
    for backend in (one, other, world.process()):
        assert all(invalid(backend, epoch, tag) for tag in tags[::100])
    assert not invalid(world.process(), one.view.last, "tags:0")


def test_marks_of_many_threads_are_all_found(world: World):
    epoch = world.process().view.last
    with broken(marks, "HARD", 400), broken(marks, "SOFT", 200):
        threads = [threading.Thread(target=_mark_some, args=(world.process(), n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    last = world.process()
    assert all(invalid(last, epoch, f"t{n}:{m}") for n in range(4) for m in range(30))


def _mark_some(backend: ForgetfulBackend, n: int) -> None:
    for m in range(30):
        done(backend.marks.mark([f"t{n}:{m}"], False))


def test_buckets_that_cannot_be_had_make_everything_invalid_and_marks_go_on(world: World):
    one, other = world.process(), world.process()
    epoch = one.view.last
    world.server.nodes["buckets"].down = True
    with broken(marks, "HARD", 100):
        for n in range(20):
            done(one.marks.mark([f"tags:{n}"], False))
    assert invalid(other, epoch, "tags:19")
    assert invalid(other, epoch, "another"), "of tags that were never marked too"
    epoch = other.view.last
    done(one.marks.mark(["more"], False))
    assert invalid(other, epoch, "more")


def test_an_old_mark_that_cannot_be_asked_for_is_an_error_and_no_answer(world: World):
    one = world.process()
    epoch = one.view.last
    with broken(marks, "SOFT", 10), broken(marks, "TRIM_EVERY", 1):
        for n in range(5):
            done(one.marks.mark([f"tags:{n}"], False))
    other = world.process()
    assert other.view.unknown(epoch, ["tags:0"])
    world.server.nodes["buckets"].down = True
    with pytest.raises(BackendUnavailableError):
        done(other.marks.ask(["tags:0"]))
    assert other.view.unknown(epoch, ["tags:0"])


def test_a_bucket_that_is_lost_whenever_it_is_opened_counts_as_marked(world: World):
    one = world.process()
    epoch = one.view.last
    with broken(marks, "SOFT", 10), broken(marks, "TRIM_EVERY", 1):
        for n in range(5):
            done(one.marks.mark([f"tags:{n}"], False))

    async def nothing(*_: object) -> dict[int, Any]:
        return {}

    world.server.nodes["buckets"].restart()
    with broken(RegisterMarks, "_opened", nothing):
        assert invalid(world.process(), epoch, "tags:0")


WRITES: dict[str, Callable[[ForgetfulBackend], Coroutine[Any, Any, Any]]] = {
    "set": lambda one: one.set(item(one)),
    "set_many": lambda one: one.set_many([item(one)]),
    "add": lambda one: one.add(item(one), b""),
    "incr": lambda one: one.incr("t:1", 1, item(one, b"").raw, 60.0, b""),
    "acquire": lambda one: one.leases.acquire([ask("one")]),
    "steal": lambda one: one.leases.steal(ask("one")),
    "fill": lambda one: one.leases.fill([Fill(item(one), "one", b"")]),
    "commit": lambda one: one.leases.commit(item(one), "one"),
}


@pytest.mark.parametrize("name", WRITES)
def test_whoever_stores_or_is_about_to_load_learns_what_was_marked_before(world: World, name: str):
    one, other = world.process(), world.process()
    if name in ("fill", "commit"):
        done(one.leases.acquire([ask("one")]))
    epoch = one.view.last
    done(other.marks.mark(["t:1"], False))
    assert one.view.holds(epoch, ["t:1"])
    done(WRITES[name](one))
    assert not one.view.holds(epoch, ["t:1"])


def test_a_head_of_somebody_else_is_replaced(world: World):
    one = world.process()
    epoch = one.view.last
    world.server.nodes["head"].put("app~m", b"foreign", 60.0)
    assert invalid(one, epoch, "a:1")
    done(one.marks.mark(["a:1"], False))
    assert invalid(world.process(), 1, "a:1")


def test_an_engine_that_goes_back_invalidates_everything(world: World):
    one, other = world.process(), world.process()
    node = world.server.nodes["head"]
    before = node.look("app~m").raw or b""
    done(one.marks.mark([], True))
    after = one.view.last
    node.put("app~m", before, 60.0)
    assert invalid(one, after, "a:1")
    assert node.look("app~m").raw != before
    assert invalid(other, 1, "a:1")


def test_a_value_that_was_stored_before_a_clear_is_invalid_everywhere_after_it(world: World):
    one, other = world.process(), world.process()
    done(one.set(item(one)))
    done(other.marks.mark([], True))
    assert done(one.get("t:1")) is not None
    done(one.marks.restore())
    for backend in (one, other, world.process()):
        raw = done(backend.get("t:1")) or b""
        assert not backend.view.holds(int.from_bytes(raw[10:18]), [])


class Down(Exception):
    """The source does not answer."""


def down() -> str:
    raise Down


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda cache: cache.set("b:1", 1), "old"),
        (lambda cache: cache.invalidate_tags("t:2"), "old"),
        (lambda cache: cache.invalidate_tags("t:1"), None),
        (lambda cache: cache.clear(), None),
    ],
)
def test_what_a_process_left_is_judged_by_what_was_invalidated_since(
    world: World, tmp_path: Path, change: Callable[[Cache], Any], found: str | None
):
    def started(snapshot: Path | None) -> Cache:
        return Cache(world.url, namespace="app", observers=(), staleness=60, fail_safe="1h", near_snapshot=snapshot)

    with closing(started(tmp_path / "near")) as one:
        one.clear()  # so that its stamps are not those of the next process
        assert one.get_or_load("a:1", lambda: "old", tags=["t:1"]) == "old"
        assert one.get("a:1") == "old"
    with closing(started(None)) as other:
        change(other)
    with closing(started(tmp_path / "near")) as new:
        assert new.get("c:1") is None
        for node in world.server.nodes.values():
            node.down = True
        try:
            served = new.get_or_load("a:1", down)
        except Down:
            served = None
        assert served == found


def test_a_healthy_head_is_not_read_again(world: World):
    one = world.process()
    done(one.marks.restore())
    known, proven = one._stamps.known, one.view.proven
    done(one.marks.restore())
    assert one._stamps.known is known
    assert one.view.proven > proven
    world.server.nodes["head"].put("app~m", packed(new_head()), 60.0)
    done(one.marks.restore())
    assert one._stamps.known is not known


def test_keys_whose_node_does_not_answer_fail_alone(world: World):
    one, keys = world.process(), ["t:1", "other:1"]
    raw = item(one).raw
    done(one.set_many([Item(key, raw, 60.0) for key in keys]))
    world.server.nodes["others"].down = True
    assert answered(one.get_many(keys)) == {"t:1": raw}
    assert answered(one.remaining(keys)).keys() == {"t:1"}
    assert answered(one.delete(keys)) == {"t:1": 1}
    assert answered(one.set_many([Item(key, raw, 60.0) for key in keys])) == {"t:1": None}
    seen = one.leases.identity(raw)
    assert answered(one.leases.acquire([Ask(key, "one", seen, 5.0) for key in keys]))["t:1"].leads
    assert done(one.leases.fill([Fill(Item(key, raw, 60.0), "one", seen) for key in keys])) == [True, False]
    with pytest.raises(BackendUnavailableError):
        done(one.get("other:1"))
    assert done(one.get("t:1")) == raw


def answered(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what was answered about some keys, when others failed."""
    with pytest.raises(BackendUnavailableError) as raised:
        done(work)
    return raised.value.answered


@pytest.fixture
def caches(world: World) -> Iterator[tuple[Cache, Cache]]:
    one, other = [Cache(world.url, namespace="app", observers=(), near=None) for _ in range(2)]
    yield one, other
    one.close()
    other.close()


def test_processes_wait_for_one_load(caches: tuple[Cache, Cache]):
    one, other = caches
    loads: list[int] = []
    begun, end = threading.Event(), threading.Event()

    def load() -> int:
        loads.append(1)
        begun.set()
        assert end.wait(20)
        return 7

    results: list[int] = []
    threads = [
        threading.Thread(target=lambda cache=cache: results.append(cache.get_or_load("t:1", load))) for cache in caches
    ]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    leases = other._engine.backend.leases
    assert isinstance(leases, RegisterLeases)
    eventually(lambda: leases._watched, "the second process waits")
    end.set()
    for thread in threads:
        thread.join(20)
    assert (results, len(loads)) == ([7, 7], 1)
    assert one.stats().loads + other.stats().loads == 1
