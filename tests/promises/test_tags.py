"""Invalidating by tags and clearing: in all processes, and against loads that began before."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import BackendError, Cache, InvalidKeyError, Queued, UnsupportedError
from nearcache.backends.redis import leases
from nearcache.near import view as views
from nearcache.near.view import View
from nearcache.testing import FakeClock, faults
from tests.promises.conftest import NewCache
from tests.promises.helpers import Crowd, SlowSource, broken, eventually, noticed, recorded, unannounced, values

Key = Callable[[], str]


def test_what_has_a_tag_is_gone_by_every_verb(any_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(any_url)
    key, other = fresh_key(), fresh_key()
    for write in (lambda: cache.set(key, 1, tags=["a:1", "b"]), lambda: cache.set_many({key: 1}, tags=["a:1", "b"])):
        for tag in ("a:1", "b"):
            write()
            cache.set(other, 2, tags=["c"])
            cache.invalidate_tags(tag, "unknown")
            assert (cache.get(key), cache.get(other)) == (None, 2)
            assert cache.get_many([key, other]) == {other: 2}
            assert not cache.exists(key)
            assert not cache.touch(key, 60)
            assert not cache.get_entry(key)
            assert asyncio.run(cache.aio.get(key)) is None
            assert cache.add(key, 3), "it counts as absent"


def test_a_counter_that_was_invalidated_counts_from_nothing(any_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, key = new_cache(any_url), fresh_key()
    assert [cache.incr(key) for _ in range(3)] == [1, 2, 3]
    cache.clear()
    assert cache.incr(key) == 1
    cache.set(key, 41, tags=["t"])
    assert cache.incr(key) == 42
    cache.invalidate_tags("t")
    assert cache.incr(key) == 1


def test_tags_come_from_arguments_and_from_the_result(any_url: str, new_cache: NewCache) -> None:
    cache = new_cache(any_url)
    loads = list[int]()

    @cache.cached("users:{user_id}", tags=["users", "user:{user_id}", "team:{result.real}"])
    def user(user_id: int) -> int:
        loads.append(user_id)
        return user_id % 2

    for tag, again in (("user:3", [3]), ("team:0", [2, 4]), ("users", [1, 2, 3, 4])):
        for number in (1, 2, 3, 4):
            user(number)
        loads.clear()
        cache.invalidate_tags(tag)
        for number in (1, 2, 3, 4):
            user(number)
        assert loads == again


def test_a_none_result_has_no_tags_of_its_own(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, key = new_cache(url), fresh_key()
    assert cache.get_or_load(key, lambda: None, tags=["team:{result.real}", "all"]) is None
    cache.invalidate_tags("team:0")
    assert cache.exists(key)
    cache.invalidate_tags("all")
    assert not cache.exists(key)


def test_wrong_tags_are_refused(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    with pytest.raises(InvalidKeyError, match="tags are a list"):
        cache.set(fresh_key(), 1, tags="users")
    with pytest.raises(InvalidKeyError, match="tag"):
        cache.invalidate_tags("with space")
    with pytest.raises(InvalidKeyError, match="no attribute"):
        cache.get_or_load(fresh_key(), lambda: 1, tags=["{result.nothing}"])
    with pytest.raises(ValueError, match="placeholder"):
        cache.get_or_load(fresh_key(), lambda: 1, tags=["{user_id}"])
    json = new_cache(url, codec="json")
    for use in (lambda: json.set("a:1", 1, tags=["t"]), lambda: json.invalidate_tags("t"), json.clear):
        with pytest.raises(UnsupportedError, match="json"):
            use()


def invalidation_beats_a_load(cache: Cache, other: Cache, key: str, invalidate: Callable[[Cache], Any]) -> None:
    """Invalidate while an older load runs, whose result tells its tag."""
    source = SlowSource(lambda: 1)
    crowd = Crowd().threads(1, lambda: cache.get_or_load(key, source.load, tags=["t:{result.real}"])).start()
    eventually(lambda: source.loads, "the load has begun")
    invalidate(other)
    source.open()
    assert values(crowd.finish()) == [1]
    for each in (cache, other):
        assert each.get(key) is None, "what was loaded before is served after the invalidation"
        assert each.get_or_load(key, lambda: 2) == 2
        each.delete(key)


INVALIDATIONS: dict[str, Callable[[Cache], Any]] = {
    "tag": lambda cache: cache.invalidate_tags("t:1"),
    "clear": lambda cache: cache.clear(),
    "tag by a task": lambda cache: asyncio.run(cache.aio.invalidate_tags("t:1")),
    "clear by a task": lambda cache: asyncio.run(cache.aio.clear()),
}


@pytest.mark.parametrize("name", INVALIDATIONS)
def test_an_invalidation_beats_a_load_that_began_before(
    any_url: str, new_cache: NewCache, fresh_key: Key, name: str
) -> None:
    cache = new_cache(any_url)
    invalidation_beats_a_load(cache, cache, fresh_key(), INVALIDATIONS[name])
    if cache._engine.backend.shared:
        other = new_cache(any_url, namespace=cache._parts.core.options.namespace)
        invalidation_beats_a_load(cache, other, fresh_key(), INVALIDATIONS[name])


def test_a_reader_that_does_not_judge_by_marks_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    with broken(View, "holds", lambda *_: True), noticed():
        invalidation_beats_a_load(cache, cache, fresh_key(), INVALIDATIONS["tag"])


def test_a_reader_that_joins_after_an_invalidation_gets_nothing_older(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    cache, key = new_cache(url), fresh_key()
    old, new = SlowSource(lambda: 1), SlowSource(lambda: 2)
    first = Crowd().threads(1, lambda: cache.get_or_load(key, old.load, tags=["t"])).start()
    eventually(lambda: old.loads, "the load has begun")
    cache.invalidate_tags("t")
    later = Crowd().threads(2, lambda: cache.get_or_load(key, new.load, tags=["t"])).start()
    old.open()
    new.open()
    assert values(first.finish()) == [1]
    assert values(later.finish()) == [2, 2]


def other_processes_see_it(new_cache: NewCache, url: str, invalidate: Callable[[Cache], Any]) -> None:
    """Invalidate in one process; another one sees it within the staleness, also what it holds near."""
    clock = FakeClock()
    one = new_cache(url, clock=clock, timeout="1h")
    two = new_cache(url, clock=clock, timeout="1h", namespace=one._parts.core.options.namespace)
    one.set("a:1", "old", tags=["t:1"])
    assert two.get("a:1") == "old"
    invalidate(one)
    clock.advance(1.0)
    assert two.get("a:1") is None
    two.set("a:1", "new", tags=["t:1"])
    assert one.get("a:1") == "new"


@pytest.mark.parametrize("name", INVALIDATIONS)
def test_other_processes_see_an_invalidation(valkey_url: str, new_cache: NewCache, name: str) -> None:
    other_processes_see_it(new_cache, valkey_url, INVALIDATIONS[name])


def test_marks_that_are_never_asked_for_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with unannounced(), broken(View, "due", lambda view, asking: not view.known), noticed():
        other_processes_see_it(new_cache, valkey_url, INVALIDATIONS["tag"])


def load(cache: Cache, value: str, many: bool) -> str:
    """Return a value that has a tag; load this one if there is none."""
    if many:
        return cache.get_or_load_many(["a:1"], lambda keys: dict.fromkeys(keys, value), tags=["t:1"])["a:1"]
    return cache.get_or_load("a:1", lambda: value, tags=["t:1"])


def nobody_goes_back_in_time(new_cache: NewCache, url: str, invalidate: Callable[[Cache], Any], many: bool) -> None:
    """Load while the engine fails, after an invalidation that this process has not heard of; then read."""
    one = new_cache(url, staleness="1h")
    two = new_cache(url, staleness="1h", namespace=one._parts.core.options.namespace)
    assert load(two, "old", many) == load(one, "old", many) == "old"
    invalidate(one)
    two._parts.core.near.clear()
    with faults(two) as engine:
        engine.down()
        assert load(two, "new", many) == "new"
    assert two.get("a:1") is None
    assert load(two, "new", many) == "new"


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("name", INVALIDATIONS)
def test_who_loaded_without_the_engine_does_not_go_back_in_time(
    valkey_url: str, new_cache: NewCache, name: str, many: bool
) -> None:
    with unannounced():
        nobody_goes_back_in_time(new_cache, valkey_url, INVALIDATIONS[name], many)


def test_old_marks_that_are_enough_after_a_load_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with unannounced(), broken(View, "surpass", lambda _: None), noticed():
        nobody_goes_back_in_time(new_cache, valkey_url, INVALIDATIONS["tag"], False)


def test_a_write_after_a_clear_of_somebody_else_stays(valkey_url: str, new_cache: NewCache) -> None:
    """Also when the writer did not know of the clear."""
    one = new_cache(valkey_url)
    two = new_cache(valkey_url, namespace=one._parts.core.options.namespace)
    two.get("a:1")
    for write in (
        lambda: two.set("a:1", 1),
        lambda: two.set_many({"a:1": 1}),
        lambda: two.add("a:1", 1),
        lambda: two.write_through("a:1", 1, lambda value: None),
    ):
        one.clear()
        write()
        assert two.get("a:1") == 1
        assert one.get("a:1") == 1


def test_more_marks_than_are_read_at_once_hide_nothing(valkey_url: str, new_cache: NewCache) -> None:
    """A tag that was known, and is marked again behind more than a thousand newer ones."""
    with broken(leases, "AT_ONCE", 10):
        one = new_cache(valkey_url, staleness="1ms", near=None)
        two = new_cache(valkey_url, staleness="1ms", near=None, namespace=one._parts.core.options.namespace)
        one.invalidate_tags("known")
        two.set("a:1", "old", tags=["known"])
        assert two.get("a:1") == "old"
        one.invalidate_tags("known")
        for number in range(25):
            one.invalidate_tags(f"other:{number}")
        eventually(lambda: two.get("a:1") is None, "it is seen")
        two.set("a:1", "new", tags=["known"])
        assert two.get("a:1") == "new"


def test_a_process_that_forgets_tags_asks_again(url: str, new_cache: NewCache) -> None:
    with broken(views, "MOST_TAGS", 5):
        cache = new_cache(url, near=None)
        cache.set("a:1", "old", tags=["known", "other"])
        cache.set("b:1", "stays", tags=["stays"])
        cache.invalidate_tags("known")
        for number in range(20):
            cache.invalidate_tags(f"other:{number}")
        assert (cache.get("a:1"), cache.get("b:1")) == (None, "stays")


def test_forgotten_marks_cost_loads_and_no_old_values(valkey_url: str, new_cache: NewCache) -> None:
    with broken(leases, "MOST_MARKS", 5):
        one = new_cache(valkey_url, near=None)
        one.set_many({"a:1": "old", "b:1": "b"}, tags=["known"])
        one.invalidate_tags("known")
        for number in range(10):
            one.invalidate_tags(f"other:{number}")
        two = new_cache(valkey_url, near=None, namespace=one._parts.core.options.namespace)
        assert two.get("a:1") is None
        assert one._engine.backend.view.last > 0
        two.set("a:1", "new", tags=["known"])
        assert (one.get("a:1"), two.get("a:1")) == ("new", "new")


def test_an_invalidation_that_fails_is_repeated_first_of_all(url: str, new_cache: NewCache) -> None:
    for invalidate in INVALIDATIONS.values():
        cache = new_cache(url)
        cache.set("a:1", "old", tags=["t:1"])
        with recorded(cache, cache.aio) as engine:
            engine.fail("mark")
            assert isinstance(invalidate(cache), Queued)
            assert cache.get("a:1") is None
            if url.startswith("memory:"):  # elsewhere the listener may have been quicker
                assert engine.counts["mark"] == 2
        assert not cache._parts.core.view.owed


def test_an_engine_that_refuses_marks_serves_nothing_that_is_owed(valkey_url: str, new_cache: NewCache) -> None:
    cache = new_cache(valkey_url, near=None)
    cache.set("a:1", "old", tags=["t"])
    cache.set("b:1", "b")
    with faults(cache) as engine:
        engine.fail("mark", 5, error=BackendError("NOPERM").undone())
        with pytest.raises(BackendError):
            cache.invalidate_tags("t")
        assert (cache.get("a:1"), cache.get("b:1")) == (None, "b")


def test_thousands_of_tags_at_once_are_learned_once(valkey_url: str, new_cache: NewCache) -> None:
    one = new_cache(valkey_url, near=None)
    two = new_cache(valkey_url, namespace=one._parts.core.options.namespace)
    two.set("a:1", 1, tags=["tag:1234"])
    two.set("b:1", 1)
    one.invalidate_tags(*[f"tag:{number}" for number in range(2_500)])
    eventually(lambda: two.get("a:1") is None, "it is seen")
    view = two._engine.backend.view
    known = len(view.tags)
    two._engine.backend.view.proven = 0.0
    assert two.get("b:1") == 1
    assert two._parts.core.near.entries == 1
    view.proven = 0.0
    two.exists("b:1")
    assert two._parts.core.near.entries == 1, "what is known already empties nothing"
    assert len(view.tags) >= known > 0
