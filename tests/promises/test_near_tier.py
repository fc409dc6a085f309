"""The near tier is never older than it may be, never outlives a TTL, and nobody can change what it holds."""

import asyncio
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from nearcache import MISS, Cache
from nearcache._engine.core import Core
from nearcache._engine.read import Reader
from nearcache.near.flights import Flight
from nearcache.testing import FakeClock
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Crowd,
    broken,
    dice,
    eventually,
    noticed,
    noticed_within,
    recorded,
    unannounced,
    values,
    waiting,
)

pytestmark = pytest.mark.alone

Key = Callable[[], str]
STALENESS = 0.03
"""Seconds; the default is 1."""


def pair(new_cache: NewCache, url: str, **options: Any) -> tuple[Cache, Cache]:
    """Return a cache with a near tier, and one that stands for another process: they share the engine only.

    Both have asked the engine for its time, which a clock that is moved by hand would make them disagree about later.
    """
    near = new_cache(url, jitter=0, **options)
    options.pop("near", None)
    far = new_cache(url, jitter=0, namespace=near._parts.core.options.namespace, near=None, **options)
    near.open()
    far.open()
    asyncio.run(near.aio.open())
    return near, far


# Staleness, with a clock of our own


def old_for_one_staleness_at_most(new_cache: NewCache, url: str, key: str) -> None:
    """Let another process write, and read near ever later."""
    clock = FakeClock()
    near, far = pair(new_cache, url, clock=clock)
    far.set(key, "old")
    assert near.get(key) == "old"
    far.set(key, "new")
    clock.advance(0.999)
    assert near.get(key) in ("old", "new")
    clock.advance(0.001)
    assert near.get(key) == "new"


def test_a_value_that_another_process_wrote_is_seen_within_a_second(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    old_for_one_staleness_at_most(new_cache, valkey_url, fresh_key())


def test_a_near_tier_that_never_asks_again_is_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    def near_deadline(
        core: Core, asked: float, remaining: float, shared: bool, cost: float, behind: float | None
    ) -> float:
        return core.clock() + remaining

    with unannounced(), broken(Core, "near_deadline", near_deadline), noticed():
        old_for_one_staleness_at_most(new_cache, valkey_url, fresh_key())


READS: dict[str, Callable[[Cache, str], Any]] = {
    "get": lambda cache, key: cache.get(key),
    "get by a task": lambda cache, key: asyncio.run(cache.aio.get(key)),
    "get_many": lambda cache, key: cache.get_many([key, f"{key}:b"]).get(key),
    "get_or_load": lambda cache, key: cache.get_or_load(key, lambda: "loaded"),
}


def age_counts_from_the_question(new_cache: NewCache, url: str, key: str, read: Callable[[Cache, str], Any]) -> None:
    """Let the engine's answer travel for long: the time counts from when it was asked for."""
    clock = FakeClock()
    near, far = pair(new_cache, url, clock=clock, timeout="1h")
    far.set(key, "old")

    def slow_answer(operation: str) -> None:
        if operation in ("get", "get_many"):
            clock.advance(0.9)

    with recorded(near, near.aio) as recorder:
        recorder.after = slow_answer
        assert read(near, key) == "old"
    far.set(key, "new")
    clock.advance(0.1)
    assert read(near, key) == "new"


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_the_age_of_a_near_value_counts_from_the_start_of_its_read(
    valkey_url: str, new_cache: NewCache, fresh_key: Key, read: Callable[[Cache, str], Any]
) -> None:
    age_counts_from_the_question(new_cache, valkey_url, fresh_key(), read)


def test_an_age_that_counts_from_the_answer_is_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    real = Core.near_deadline

    def near_deadline(
        core: Core, asked: float, remaining: float, shared: bool, cost: float, behind: float | None
    ) -> float:
        core.view.proven = core.clock()
        return real(core, core.clock(), remaining, shared, cost, behind)

    with unannounced(), broken(Core, "near_deadline", near_deadline), noticed():
        age_counts_from_the_question(new_cache, valkey_url, fresh_key(), READS["get"])


def test_what_this_process_wrote_ages_from_before_it_was_sent(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    clock, key = FakeClock(), fresh_key()
    near, far = pair(new_cache, valkey_url, clock=clock)
    near.set("warm:up", 1)
    with recorded(near) as recorder:
        recorder.after = lambda operation: clock.advance(0.9)
        near.set(key, "old")
    far.set(key, "new")
    clock.advance(0.1)
    assert near.get(key) == "new"


def late_comers_do_not_get_what_is_old(new_cache: NewCache, url: str, key: str) -> None:
    """Hold up a reader who has the engine's answer, until that is old; then let another one come."""
    near, far = pair(new_cache, url, staleness=STALENESS)
    far.set(key, "old")
    late = Crowd().threads(1, lambda: near.get_or_load(key, lambda: "loaded"))

    def hold_up(operation: str) -> None:
        if operation == "get" and not late_began:
            far.set(key, "new")
            late_began.append(time.monotonic() + STALENESS)
            eventually(lambda: time.monotonic() > late_began[0], "the answer is old")
            late.start()
            eventually(lambda: waiting(near, key) == 2 or late.done, "the other one waits")

    late_began: list[float] = []
    with recorded(near) as recorder:
        recorder.after = hold_up
        assert near.get_or_load(key, lambda: "loaded") == "old"
        assert values(late.finish()) == ["new"]


def test_late_comers_do_not_get_what_is_old(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    late_comers_do_not_get_what_is_old(new_cache, valkey_url, fresh_key())


def test_late_comers_who_get_anything_are_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Flight, "serves", lambda *_: True), noticed():
        late_comers_do_not_get_what_is_old(new_cache, valkey_url, fresh_key())


# Staleness, measured


class Race:
    """Another process writes ever larger numbers; what is read near is compared with when they were acknowledged."""

    def __init__(self, near: Cache, far: Cache, key: str) -> None:
        self.near = near
        self.far = far
        self.key = key
        self.acknowledged = deque[tuple[float, int]]([(0.0, 0)])
        self.reads = deque[tuple[float, int]]()
        self.over = threading.Event()
        far.set(key, 0)

    def write(self) -> None:
        """Write for a while."""
        end = time.monotonic() + 4 * STALENESS
        number = 0
        while time.monotonic() < end:
            number += 1
            self.far.set(self.key, number)
            self.acknowledged.append((time.monotonic(), number))
        self.over.set()

    def read(self) -> None:
        """Read, and note when each read began."""
        while not self.over.is_set():
            started = time.monotonic()
            self.reads.append((started, self.near.get(self.key)))

    async def aread(self) -> None:
        """Read, and note when each read began."""
        while not self.over.is_set():
            started = time.monotonic()
            self.reads.append((started, await self.near.aio.get_or_load(self.key, self.never)))
            await asyncio.sleep(0)

    async def never(self) -> int:
        """Load: there is always a value."""
        return -1

    def check(self) -> int:
        """Compare every read with what had been acknowledged one staleness before it began; count the reads."""
        written = list(self.acknowledged)
        place = 0
        for started, number in sorted(self.reads):
            while place + 1 < len(written) and written[place + 1][0] <= started - STALENESS:
                place += 1
            behind = started - written[place][0]
            assert number >= written[place][1], f"read {number}, but {written[place][1]} was written {behind:.3f} s ago"
        return len(self.reads)


def no_read_is_too_old(new_cache: NewCache, url: str, key: str) -> None:
    """Let threads and tasks read near while another process writes."""
    race = Race(*pair(new_cache, url, staleness=STALENESS), key)
    readers = Crowd().threads(2, race.read).tasks(2, race.aread).start()
    race.write()
    values(readers.finish())
    assert race.check() > 10
    assert race.near.stats().near_hits > 0


def test_no_read_is_older_than_the_staleness(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for _ in range(ROUNDS):
        no_read_is_too_old(new_cache, valkey_url, fresh_key())


def test_reads_that_are_twice_too_old_are_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    def near_deadline(
        core: Core, asked: float, remaining: float, shared: bool, cost: float, behind: float | None
    ) -> float:
        return min(asked + 2 * STALENESS, core.clock() + remaining)

    with broken(Core, "near_deadline", near_deadline):
        noticed_within(ROUNDS, lambda: no_read_is_too_old(new_cache, valkey_url, fresh_key()))


# Time to live


def no_value_outlives_its_ttl(new_cache: NewCache, url: str, fresh_key: Key) -> None:
    """Write values with random lives, read them near at random times, and never find one after its time."""
    luck, clock = dice(), FakeClock()
    near, far = pair(new_cache, url, clock=clock, staleness="1d")
    writer = near if near._parts.core.records is not None else far
    for _ in range(100):
        key, life, age = fresh_key(), luck.uniform(1.0, 100.0), 0.0
        writer.set(key, "x", ttl=life)
        for _ in range(4):
            step = luck.uniform(0.01, life / 2)
            clock.advance(step)
            age += step
            got = near.get(key, MISS)
            assert got is MISS or age < life, f"served {age - life:.2f} s after its end"
            assert got == "x" or age > life * 0.999 - 0.01, f"gone {life - age:.2f} s before its end"


def test_no_value_is_served_near_after_its_ttl(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    no_value_outlives_its_ttl(new_cache, url, fresh_key)


def test_near_values_without_an_end_are_noticed(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    def near_deadline(
        core: Core, asked: float, remaining: float, shared: bool, cost: float, behind: float | None
    ) -> float:
        return asked + core.options.staleness

    with unannounced(), broken(Core, "near_deadline", near_deadline), noticed():
        no_value_outlives_its_ttl(new_cache, valkey_url, fresh_key)


def test_a_slow_answer_is_judged_by_its_age_on_arrival(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    clock, key = FakeClock(), fresh_key()
    near, far = pair(new_cache, valkey_url, clock=clock, staleness="1d")
    far.set(key, "x", ttl=10)
    near.exists(key)
    with recorded(near) as recorder:
        recorder.after = lambda operation: clock.advance(11)
        assert near.get(key, MISS) is MISS
    assert near.get(key, MISS) is MISS


def test_a_reader_that_is_stopped_before_it_keeps_a_value_prolongs_nothing(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    clock, key, real = FakeClock(), fresh_key(), Core.near_deadline
    cache = new_cache(url, clock=clock, jitter=0, staleness="1d")
    cache.set(key, "x", ttl=10)
    cache._parts.core.near.changed((key,))

    def near_deadline(
        core: Core, asked: float, remaining: float, shared: bool, cost: float, behind: float | None
    ) -> float:
        clock.advance(9)
        return real(core, asked, remaining, shared, cost, behind)

    with broken(Core, "near_deadline", near_deadline):
        assert cache.get(key) == "x"
    clock.advance(1.1)
    assert cache.get(key, MISS) is MISS


def test_a_value_that_came_instead_of_a_lease_ages_from_the_question(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    clock, key = FakeClock(), fresh_key()

    def meanwhile(operation: str) -> None:
        if operation == "get":
            far.set(key, "old")
        elif operation == "acquire":  # the answer travels for long, and another thread asks for the marks meanwhile
            clock.advance(0.9)
            near._parts.core.view.confirm(clock())

    with unannounced():
        near, far = pair(new_cache, valkey_url, clock=clock, timeout="1h")
        with recorded(near) as recorder:
            recorder.after = meanwhile
            assert near.get_or_load(key, lambda: "loaded") == "old"
        far.set(key, "new")
        clock.advance(0.2)
        assert near.get(key) == "new"


def test_without_a_near_tier_nobody_gets_what_was_asked_for_before_the_call(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    key, asked, told = fresh_key(), threading.Event(), threading.Event()
    here = new_cache(valkey_url, near=None)
    far = new_cache(valkey_url, near=None, namespace=here._parts.core.options.namespace)
    far.set(key, "old")

    def hold_up(operation: str) -> None:
        if operation == "get" and not asked.is_set():
            asked.set()
            told.wait()

    with recorded(here) as recorder:
        recorder.after = hold_up
        early = Crowd().threads(1, lambda: here.get_or_load(key, lambda: "loaded")).start()
        asked.wait()
        far.set(key, "new")
        late = Crowd().threads(1, lambda: here.get_or_load(key, lambda: "loaded")).start()
        eventually(lambda: late.done or waiting(here, key) == 2, "it waits for the other one")
        told.set()
        assert values(early.finish()) == ["old"]
        assert values(late.finish()) == ["new"]


def test_jitter_only_shortens(any_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(any_url, jitter=0.5)
    for _ in range(50):
        key = fresh_key()
        cache.set(key, "x", ttl=1000)
        left = cache.ttl(key)
        assert left is not MISS
        assert 400 < float(left) <= 1000


def test_a_shorter_ttl_reaches_what_is_near(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    clock, key = FakeClock(), fresh_key()
    cache = new_cache(url, clock=clock, jitter=0, staleness="1d")
    cache.set(key, "x", ttl="1h")
    assert cache.get(key) == "x"
    cache.touch(key, 5)
    clock.advance(4)
    assert cache.get(key) == "x"
    clock.advance(1.1)
    assert cache.get(key, MISS) is MISS


# Nobody can change what is near


@dataclasses.dataclass
class Basket:
    """Something that can be changed."""

    items: list[str]
    price: Decimal


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Something that looks as if it could not be changed."""

    items: list[str]


MUTABLE: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "list": (lambda: [1, 2], lambda value: value.append(3)),
    "dict": (lambda: {"a": 1}, lambda value: value.clear()),
    "set": (lambda: {1, 2}, lambda value: value.add(3)),
    "list in a dict": (lambda: {"a": [1]}, lambda value: value["a"].append(2)),
    "list in a tuple": (lambda: (1, [2]), lambda value: value[1].append(3)),
    "dict in a list": (lambda: [{"a": {"b": 1}}], lambda value: value[0]["a"].update(b=2)),
    "dataclass": (lambda: Basket(["apple"], Decimal("1.50")), lambda value: setattr(value, "price", Decimal(0))),
    "list in a dataclass": (lambda: Basket(["apple"], Decimal("1.50")), lambda value: value.items.clear()),
    "list in a frozen dataclass": (lambda: Frozen(["apple"]), lambda value: value.items.append("pear")),
}
mutable = pytest.mark.parametrize(("make", "spoil"), MUTABLE.values(), ids=MUTABLE)


def nobody_can_spoil_it(cache: Cache, key: str, make: Callable[[], Any], spoil: Callable[[Any], None]) -> None:
    """Store, load and read by every verb, and spoil whatever was handed in or out."""
    handed_in = make()
    cache.set(key, handed_in)
    spoil(handed_in)
    loaded = make()
    assert cache.get_or_load(f"{key}:b", lambda: loaded) == make()
    spoil(loaded)
    for one in (key, f"{key}:b"):
        for verb in VERBS:
            got = verb(cache, one, make)
            assert got == make(), "somebody changed it"
            assert type(got) is type(make())
            spoil(got)


async def _reload(make: Callable[[], Any]) -> Any:
    return make()


VERBS: list[Callable[[Cache, str, Callable[[], Any]], Any]] = [
    lambda cache, key, make: cache.get(key),
    lambda cache, key, make: cache.get(key),
    lambda cache, key, make: cache.get_many([key])[key],
    lambda cache, key, make: cache.get_or_load(key, make),
    lambda cache, key, make: getattr(cache.get_entry(key), "value", None),
    lambda cache, key, make: asyncio.run(cache.aio.get(key)),
    lambda cache, key, make: asyncio.run(cache.aio.get_or_load(key, lambda: _reload(make))),
    lambda cache, key, make: cache.get(key),
]


@pytest.mark.parametrize("codec", ["msgpack", "pickle"])
@mutable
def test_nobody_can_change_what_others_get(
    url: str, new_cache: NewCache, fresh_key: Key, make: Any, spoil: Any, codec: str
) -> None:
    cache = new_cache(url, types=[Basket, Frozen], codec=codec, secret="sixteen or more bytes")
    nobody_can_spoil_it(cache, fresh_key(), make, spoil)


def test_one_object_shared_by_all_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    for make, spoil in MUTABLE.values():
        cache = new_cache(url, types=[Basket, Frozen], near_copy="share")
        with noticed():
            nobody_can_spoil_it(cache, fresh_key(), make, spoil)


@mutable
def test_results_of_decorated_functions_are_ones_own(url: str, new_cache: NewCache, make: Any, spoil: Any) -> None:
    cache = new_cache(url)

    @cache.cached("baskets:{number}", returns=type(make()))
    def basket(number: int) -> Any:
        return make()

    for _ in range(3):
        for got in (basket(1), basket.many([1])[1], basket.peek(1)):
            assert got == make()
            spoil(got)


def gets_the_same(cache: Cache, key: str) -> bool:
    """Read twice."""
    return cache.get(key) is cache.get(key)


def test_what_cannot_be_changed_is_not_copied(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for value in ("text", (1, "a", None), frozenset({1}), Decimal("1.5"), 2**80):
        key = fresh_key()
        cache.set(key, value)
        eventually(partial(gets_the_same, cache, key), "both get the same object")


def test_a_read_that_trusts_the_near_tier_for_another_type_is_not_served(url: str, new_cache: NewCache) -> None:
    """A value that was kept for one declared type is judged anew for another."""
    cache = new_cache(url, types=[Basket, Frozen])
    cache.set("b:1", Basket([], Decimal(1)))
    assert cache.get("b:1") == Basket([], Decimal(1))
    assert cache.get("b:1", type=Frozen) is None
    assert cache.get("b:1", type=Basket) == Basket([], Decimal(1))
    with broken(Reader, "near", lambda reader, key, schema: reader._core.near.lookup(key)), noticed():
        assert cache.get("b:1", type=Frozen) is None
