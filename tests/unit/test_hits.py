"""The near hit of decorated functions: what it costs, and what it must never serve."""

import asyncio
import dis
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, cast

import pytest

from nearcache import AsyncCache, Cache
from nearcache.testing import FakeClock
from tests.frames import frames_of


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Cache:
    return Cache("memory://", observers=(), clock=clock, jitter=0)


@pytest.fixture
def square(cache: Cache) -> Any:
    @cache.cached("squares:{n}", ttl="1m")
    def square(n: Any = 7) -> str:
        return f"{type(n).__name__} {n}"

    for _ in range(3):
        square(7)
    return square


def test_a_hit_of_one_argument_is_one_frame(square):
    assert frames_of(lambda: square(7)) == [square.__qualname__]
    assert frames_of(lambda: square(n=7)) == [square.__qualname__]
    assert frames_of(lambda: square()) == [square.__qualname__]


def test_what_was_read_without_its_type_is_checked_once(cache):
    @cache.cached("events:{n}")
    def event(n: int) -> tuple[int, str] | None:
        return n, "a name"

    event(7)
    assert cache.get_entry(event.key(7)).value == event(7) == event(7)
    assert frames_of(lambda: event(7)) == [event.__qualname__]


def test_a_hit_of_get_is_two_frames(cache):
    cache.set("users:1", "Ada")
    assert frames_of(lambda: cache.get("users:1")) == ["Cache.get", "Store.lookup"]


def test_a_hit_of_two_arguments_is_one_frame(cache):
    @cache.cached("products:{n}:{m}")
    def product(n: int, m: str = "3") -> str:
        return str(n) * int(m)

    assert [product(2) for _ in range(3)] == ["222"] * 3
    assert frames_of(lambda: product(2)) == [product.__qualname__]
    assert frames_of(lambda: product(m="3", n=2)) == [product.__qualname__]
    assert product(2, "1") == "2"


def test_a_hit_of_a_method_binds_it_and_is_one_frame(cache):
    class Users:
        @cache.cached("users:{user_id}", ignore=("self",))
        def get(self, user_id: int) -> int:
            return user_id

    users, get = Users(), Users().get
    assert [users.get(1), users.get(1), users.get(1)] == [1, 1, 1]
    assert frames_of(lambda: get(1)) == [Users.get.__qualname__]
    assert len(frames_of(lambda: users.get(1))) <= 3


async def test_an_awaited_hit_of_one_argument_is_one_frame():
    cache = AsyncCache("memory://", observers=())

    @cache.cached("squares:{n}")
    async def square(n: int) -> int:
        return n * n

    for _ in range(3):
        assert await square(7) == 49
    hit = square(7)

    def step() -> None:
        with pytest.raises(StopIteration):
            hit.send(None)

    assert frames_of(step).count(cast(Any, square).__qualname__) == 1


def test_a_hit_reads_the_clock_once_and_calls_nothing_else(square):
    code: CodeType = square.__code__
    before = next(at for at, each in enumerate(dis.get_instructions(code)) if each.argval == "seek")
    hit = list(dis.get_instructions(code))[:before]
    assert [each.argval for each in hit].count("clock") == 1
    assert len(hit) <= 74
    calls = [each.opname for each in hit].count("CALL")
    assert calls == 3, "type(), the clock, and what makes a copy where a value can be changed"


def test_equal_arguments_of_other_types_are_other_calls(square):
    assert square(7) == "int 7"
    assert [square(each) for each in (7.0, True, 1, "1", 1.0)] == [
        "float 7.0",
        "bool True",
        "int 1",
        "int 1",
        "float 1.0",
    ]
    assert square(7) == "int 7"


def test_a_pair_is_remembered_only_with_its_types(cache):
    @cache.cached("pairs:{a}:{b}")
    def pair(a: Any, b: Any) -> str:
        return f"{a!r} {b!r}"

    for _ in range(3):
        assert pair(1, 1) == "1 1"
    assert [pair(1, True), pair(True, 1), pair(1.0, 1)] == ["1 True", "True 1", "1.0 1"]


def test_arguments_that_cannot_be_hashed_go_by_their_key(square):
    assert square([1]) == square([1]) == "list [1]"


def test_a_hit_ends_with_its_time_to_live(square, clock):
    loads = square.many
    clock.advance("59s")
    assert frames_of(lambda: square(7)) == [square.__qualname__]
    clock.advance("1s")
    assert len(frames_of(lambda: square(7))) > 5
    assert loads([7]) == {7: "int 7"}


def test_a_hit_is_gone_when_its_value_is(cache, square):
    served = {
        "invalidated": lambda: square.invalidate(7),
        "deleted": lambda: cache.delete("squares:7"),
        "written": lambda: cache.set("squares:7", "written"),
        "written by the function": lambda: square.set("set", 7),
        "dropped": lambda: cache._parts.core.near.clear(),
    }
    for what, change in served.items():
        for _ in range(3):
            square(7)
        assert len(frames_of(lambda: square(7))) == 1
        change()
        assert len(frames_of(lambda: square(7))) > 1, what
        cache.delete("squares:7")


def test_a_block_without_the_cache_has_no_hits(cache, square):
    for block in (cache.bypass, cache.disabled):
        with block():
            assert len(frames_of(lambda: square(7))) > 1
        square(7)
        square(7)
        assert len(frames_of(lambda: square(7))) == 1


def test_what_was_evicted_is_forgotten():
    cache = Cache("memory://", observers=(), near=100)

    @cache.cached("squares:{n}")
    def square(n: int) -> int:
        return n * n

    for n in range(1_000):
        for _ in range(3):
            assert square(n) == n * n
    (memo,) = [cell.cell_contents for cell in cast(Any, square).__closure__ if hasattr(cell.cell_contents, "kind")]
    assert 0 < len(memo.slots) <= 100


def test_two_functions_may_share_a_key(cache):
    @cache.cached("numbers:{n}")
    def one(n: int) -> int:
        return n

    @cache.cached("numbers:{n}")
    def other(n: int) -> int:
        return -n

    assert [one(1), other(1), one(1), other(1)] == [1, 1, 1, 1]
    assert one.invalidate(1)
    assert [other(1), one(1), other(1), one(1)] == [-1, -1, -1, -1]


def test_every_hit_is_counted(cache, square):
    before = cache.stats().hits
    for _ in range(5_000):
        square(7)
    assert cache.stats().hits == before + 5_000


def test_every_hit_counts_for_who_stays(cache, square):
    class Users:
        @cache.cached("users:{user_id}", ignore=("self",))
        def get(self, user_id: int) -> int:
            return user_id

    @cache.cached("pairs:{a}:{b}")
    def pair(a: int, b: int) -> int:
        return a + b

    near = cache._parts.core.near
    calls: dict[str, Callable[[], object]] = {
        "squares:7": lambda: square(7),
        "users:1": lambda: Users().get(1),
        "pairs:1:2": lambda: pair(1, 2),
        "rows:1": lambda: cache.get("rows:1"),
    }
    cache.set("rows:1", "row")
    for key, call in calls.items():
        for _ in range(3):
            call()
        before = near._slots[key].freq
        for _ in range(100):
            call()
        assert near._slots[key].freq == before + 100, key


async def test_every_awaited_hit_counts_for_who_stays():
    cache = AsyncCache("memory://", observers=())

    @cache.cached("squares:{n}")
    async def square(n: int) -> int:
        return n * n

    for _ in range(3):
        await square(7)
    slots = cache._parts.core.near._slots
    before = slots["squares:7"].freq
    for _ in range(100):
        await square(7)
    assert slots["squares:7"].freq == before + 100


def test_a_value_that_can_be_changed_is_ones_own(cache):
    @cache.cached("rows:{n}")
    def row(n: int) -> dict[str, int]:
        return {"n": n}

    for _ in range(3):
        row(1)["n"] = 99
    assert row(1) == {"n": 1}


def test_parameters_may_have_the_names_that_a_hit_uses(cache):
    @cache.cached("one:{slot}")
    def one(slot: int) -> int:
        return slot

    @cache.cached("two:{near}:{clock}")
    def two(near: int, clock: int = 5) -> int:
        return near * clock

    for _ in range(3):
        assert one(slot=3) == 3
        assert two(2) == two(near=2) == two(clock=5, near=2) == 10
    with pytest.raises(TypeError, match=r"two\(\) missing 1 required positional argument: 'near'"):
        two()


def test_a_loaders_error_has_no_other_behind_it(cache):
    @cache.cached("failing:{n}")
    def failing(n: int) -> int:
        raise ValueError(n)

    with pytest.raises(ValueError, match="1") as caught:
        failing(1)
    assert caught.value.__context__ is None


def test_an_awaited_hit_is_counted_too():
    cache = AsyncCache("memory://", observers=())

    @cache.cached("squares:{n}")
    async def square(n: int) -> int:
        return n * n

    async def main() -> None:
        for _ in range(3_000):
            assert await square(n=3) == 9

    asyncio.run(main())
    assert (cache.stats().hits, cache.stats().loads) == (2_999, 1)


def test_a_block_without_the_cache_takes_near_hits_from_nobody_else(cache, square):
    cache.set("users:1", "Ada")
    inside, leave = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with cache.disabled():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        assert inside.wait(10)
        before = cache.stats().near_hits
        assert (cache.get("users:1"), cache.get_many(["users:1"]), square(7)) == ("Ada", {"users:1": "Ada"}, "int 7")
        assert cache.stats().near_hits == before + 3
    finally:
        leave.set()
        thread.join()
