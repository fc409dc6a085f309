"""Loading many keys at once keeps every promise of a single load, with one read, one load and one store."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from nearcache import BatchError, Cache, CacheError, ConfigError, InvalidKeyError, loading
from nearcache._engine.batch import Batches
from tests.promises.conftest import NewCache
from tests.promises.helpers import Crowd, SlowSource, at_once, broken, eventually, noticed, recorded, values, waiting

Key = Callable[[], str]


class Upper:
    """A source of both flavours that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def load(self, keys: list[str]) -> dict[str, str]:
        """Return every key in capitals, but for those that begin with "nothing"."""
        self.asked.append(keys)
        return {key: key.upper() for key in keys if not key.startswith("nothing")}

    async def aload(self, keys: list[str]) -> dict[str, str]:
        """Return every key in capitals."""
        return self.load(keys)


def test_a_batch_reads_loads_and_stores_once(any_url: str, new_cache: NewCache) -> None:
    cache, source = new_cache(any_url), Upper()
    cache.set("a:1", "near")
    other = new_cache(any_url, namespace=cache._parts.core.options.namespace)
    if cache._engine.backend.shared:
        other.set("a:2", "far")
    else:
        cache.set("a:2", "far")
    with recorded(cache) as recorder:
        got = cache.get_or_load_many(["a:1", "a:2", "a:3", "a:4", "nothing:1"], source.load)
    assert got == {"a:1": "near", "a:2": "far", "a:3": "A:3", "a:4": "A:4"}
    assert source.asked == [["a:3", "a:4", "nothing:1"]]
    wanted = {"get_many": 1, "acquire": 1, "fill": 1, "release": 1}
    assert {name: recorder.counts[name] for name in wanted} == wanted
    assert cache.get_many(list(got)) == got
    assert asyncio.run(cache.aio.get_or_load_many(["a:3", "a:5"], source.aload)) == {"a:3": "A:3", "a:5": "A:5"}
    assert source.asked[1:] == [["a:5"]]


def test_none_is_a_value_and_what_is_left_out_is_not(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)
    assert cache.get_or_load_many(["a:1", "a:2"], lambda _: {"a:1": None}) == {"a:1": None}
    assert cache.get_or_load_many(["a:1", "a:2"], lambda keys: dict.fromkeys(keys, 7)) == {"a:1": None, "a:2": 7}


def batches_share_their_loads(cache: Cache) -> None:
    """Let two batches overlap, and a single reader ask for a common key."""
    slow, asked = SlowSource(lambda: None), list[list[str]]()

    def load(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        slow.load()
        return {key: key.upper() for key in keys}

    first = Crowd().threads(1, lambda: cache.get_or_load_many(["a:1", "a:2"], load)).start()
    eventually(lambda: len(asked) == 1, "the first loads")
    second = Crowd().threads(1, lambda: cache.get_or_load_many(["a:2", "a:3"], load)).start()
    eventually(lambda: len(asked) == 2, "the second loads its own")
    single = Crowd().threads(1, lambda: cache.get_or_load("a:2", lambda: "never")).start()
    eventually(lambda: waiting(cache, "a:2") == 2, "the reader follows")
    slow.open()
    assert values(first.finish()) == [{"a:1": "A:1", "a:2": "A:2"}]
    assert values(second.finish()) == [{"a:2": "A:2", "a:3": "A:3"}]
    assert values(single.finish()) == ["A:2"]
    assert asked == [["a:1", "a:2"], ["a:3"]]


def test_batches_and_readers_share_their_loads(url: str, new_cache: NewCache) -> None:
    batches_share_their_loads(new_cache(url))


def test_two_processes_with_common_keys_never_wait_for_each_other(valkey_url: str, new_cache: NewCache) -> None:
    """Each loads and stores its own before it waits for the other's."""
    one = new_cache(valkey_url)
    two = new_cache(valkey_url, namespace=one._parts.core.options.namespace)
    slow, asked = SlowSource(lambda: None), list[list[str]]()

    def load(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        slow.load()
        return {key: key.upper() for key in keys}

    first = Crowd().threads(1, lambda: one.get_or_load_many(["a:1", "a:2"], load)).start()
    eventually(lambda: len(asked) == 1, "the first loads")
    second = Crowd().threads(1, lambda: two.get_or_load_many(["a:2", "a:3"], load)).start()
    eventually(lambda: len(asked) == 2, "the second loads what the first does not")
    slow.open()
    assert values(first.finish()) == [{"a:1": "A:1", "a:2": "A:2"}]
    assert values(second.finish()) == [{"a:2": "A:2", "a:3": "A:3"}]
    assert asked == [["a:1", "a:2"], ["a:3"]]


def test_failures_are_told_by_key(url: str, new_cache: NewCache) -> None:
    cache, wrong = new_cache(url), ValueError("wrong")

    def some(keys: list[str]) -> Mapping[str, int]:
        raise BatchError("some failed", {"a:1": 1}, {"a:2": wrong})

    def none(keys: list[str]) -> Mapping[str, int]:
        raise wrong

    with pytest.raises(BatchError, match="a:2") as caught:
        cache.get_or_load_many(["a:1", "a:2"], some)
    assert (caught.value.values, caught.value.errors) == ({"a:1": 1}, {"a:2": wrong})
    with pytest.raises(BatchError, match="2 of 3") as caught:
        cache.get_or_load_many(["a:1", "a:2", "a:3"], none)
    assert (caught.value.values, set(caught.value.errors)) == ({"a:1": 1}, {"a:2", "a:3"})
    with pytest.raises(BatchError) as caught:
        cache.get_or_load_many(["b:1", "b:2"], lambda keys: {"b:1": 1, "b:2": object()})
    assert (caught.value.values, set(caught.value.errors)) == ({"b:1": 1}, {"b:2"})
    lists: Any = list
    with pytest.raises(BatchError, match="TypeError"):
        cache.get_or_load_many(["c:1"], lists)
    assert cache.get_or_load_many(["a:2", "b:2", "c:1"], lambda keys: dict.fromkeys(keys, 9)) == dict.fromkeys(
        ["a:2", "b:2", "c:1"], 9
    )


def test_an_invalidation_beats_a_batch_that_began_before(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)
    invalidations: list[Callable[[], Any]] = [
        lambda: cache.delete("a:1"),
        lambda: cache.invalidate_tags("t"),
        cache.clear,
    ]
    for invalidate in invalidations:
        slow = SlowSource(lambda: {"a:1": "old", "a:2": "old"})
        crowd = Crowd().threads(1, lambda: cache.get_or_load_many(["a:1", "a:2"], lambda _: slow.load(), tags=["t"]))  # noqa: B023
        crowd.start()
        eventually(lambda: slow.loads, "it loads")  # noqa: B023
        invalidate()
        slow.open()
        assert values(crowd.finish()) == [{"a:1": "old", "a:2": "old"}]
        assert cache.get("a:1") is None
        cache.clear()


def test_a_batch_that_stores_without_its_leases_is_noticed(url: str, new_cache: NewCache) -> None:
    async def fill(batches: Batches, share: Any, drafts: Mapping[str, Any]) -> set[str]:
        for draft in drafts.values():
            await batches._writer.put(draft)
        return set(drafts)

    with broken(Batches, "_fill", fill), noticed():
        test_an_invalidation_beats_a_batch_that_began_before(url, new_cache)


def test_a_batch_loader_that_asks_for_its_own_keys_is_told_so(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)

    def load(keys: list[str]) -> dict[str, int]:
        return {key: cache.get_or_load(key, lambda: 1) for key in keys}

    with pytest.raises(BatchError) as caught:
        at_once(lambda: cache.get_or_load_many(["a:1", "a:2"], load))
    assert all(isinstance(error, CacheError) for error in caught.value.errors.values())


def test_an_engine_that_is_gone_costs_one_load(valkey_url: str, new_cache: NewCache) -> None:
    cache, source = new_cache(valkey_url), Upper()
    with recorded(cache) as engine:
        engine.down()
        assert cache.get_or_load_many(["a:1", "a:2"], source.load) == {"a:1": "A:1", "a:2": "A:2"}
    assert source.asked == [["a:1", "a:2"]]


def test_a_batch_outside_the_cache_loads_everything(url: str, new_cache: NewCache) -> None:
    cache, source = new_cache(url), Upper()
    cache.set("a:1", "cached")
    with cache.disabled():
        assert cache.get_or_load_many(["a:1", "a:2"], source.load) == {"a:1": "A:1", "a:2": "A:2"}
    assert cache.get_many(["a:1", "a:2"]) == {"a:1": "cached"}
    with cache.bypass():
        assert cache.get_or_load_many(["a:1", "a:2"], source.load) == {"a:1": "A:1", "a:2": "A:2"}
    assert cache.get_many(["a:1", "a:2"]) == {"a:1": "A:1", "a:2": "A:2"}
    assert source.asked == [["a:1", "a:2"]] * 2


def test_a_cancelled_batch_takes_its_load_with_it_unless_others_wait(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)

    async def check(followers: int) -> int:
        slow, key = SlowSource(lambda: {"a:1": 1, "a:2": 2}), "a:1"

        async def load(_: list[str]) -> dict[str, int]:
            return dict(await slow.aload())

        batch = asyncio.ensure_future(cache.aio.get_or_load_many(["a:1", "a:2"], load))
        while not slow.loads:
            await asyncio.sleep(0)
        single = [asyncio.ensure_future(cache.aio.get_or_load(key, slow.aload)) for _ in range(followers)]
        while waiting(cache, key) < 1 + followers:
            await asyncio.sleep(0)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        slow.open()
        assert await asyncio.gather(*single) == [1] * followers
        for _ in range(20):
            await asyncio.sleep(0)
        return slow.cancelled

    assert asyncio.run(check(0)) == 1
    assert asyncio.run(check(2)) == 0


# Decorated


def test_a_batch_function_shares_its_keys_with_the_single_one(any_url: str, new_cache: NewCache) -> None:
    cache, asked = new_cache(any_url), list[Any]()

    @cache.cached("users:{user_id}:{part}", tags=["user:{user_id}"])
    def user(user_id: int, part: str) -> str:
        asked.append(user_id)
        return f"{part} {user_id}"

    @cache.cached_many("users:{user_id}:{part}", each="user_ids", ttl="1h", tags=["user:{user_id}", "is:{result}"])
    def users(user_ids: list[int], part: str = "name") -> dict[int, str]:
        """Load them."""
        asked.append(user_ids)
        return {user_id: f"{part} {user_id}" for user_id in user_ids if user_id < 9}

    assert user(1, "name") == "name 1"
    assert users([1, 2, 9]) == {1: "name 1", 2: "name 2"}
    assert users(user_ids=[2, 3], part="name") == {2: "name 2", 3: "name 3"}
    assert user(3, part="name") == "name 3"
    assert asked == [1, [2, 9], [3]]
    cache.invalidate_tags("user:1", "user:2")
    assert users([1, 2, 3]) == {1: "name 1", 2: "name 2", 3: "name 3"}
    assert asked[3:] == [[1, 2]]
    assert (users.__name__, users.__doc__) == ("users", "Load them.")


def test_a_batch_coroutine_function_too(any_url: str, new_cache: NewCache) -> None:
    cache, asked = new_cache(any_url), list[Any]()

    class Users:
        @cache.aio.cached_many("users:{user_id}", each="user_ids", ignore=("self",))
        async def load(self, user_ids: list[int]) -> dict[int, int]:
            asked.append(user_ids)
            loading().tags.add("loaded")
            return {user_id: user_id + 1 for user_id in user_ids}

    async def check() -> None:
        assert await Users().load([1, 2]) == {1: 2, 2: 3}
        assert await Users().load([2, 3]) == {2: 3, 3: 4}
        await cache.aio.invalidate_tags("loaded")
        assert await Users().load([1]) == {1: 2}

    asyncio.run(check())
    assert asked == [[1, 2], [3], [1]]


def test_a_batch_function_that_cannot_be_cached_is_refused(new_cache: NewCache) -> None:
    cache = new_cache("memory://")

    def load(user_ids: list[int], other: int = 0) -> dict[int, int]:
        raise AssertionError

    for template, each, message in (
        ("users:{user_id}", "ids", "no parameter 'ids'"),
        ("users:{user_ids}", "user_ids", "one placeholder"),
        ("users:{user_id}:{more}", "user_ids", "one placeholder"),
        ("users:{user_id}", "user_ids", "other"),
    ):
        with pytest.raises(ConfigError, match=message):
            cache.cached_many(template, each=each)(load)


def test_equal_items_with_different_keys_are_refused(new_cache: NewCache) -> None:
    cache = new_cache("memory://")

    @cache.cached_many("users:{user_id}", each="user_ids")
    def users(user_ids: list[float]) -> dict[float, int]:
        raise AssertionError

    with pytest.raises(InvalidKeyError, match="one by one"):
        users([1, 1.0])


def test_batch_functions_have_threads_of_their_own(new_cache: NewCache) -> None:
    cache, slow = new_cache("memory://"), SlowSource(dict)

    @cache.cached_many("users:{user_id}", each="user_ids", hard_timeout=30)
    def users(user_ids: list[int]) -> dict[int, int]:
        return dict(slow.load())

    @cache.cached_many("teams:{team_id}", each="team_ids", hard_timeout=30)
    def teams(team_ids: list[int]) -> dict[int, int]:
        return dict.fromkeys(team_ids, 1)

    hanging = Crowd()
    for number in range(20):
        hanging.threads(1, partial(users, [number]))
    hanging.start()
    eventually(lambda: slow.loads == 16, "all threads of the one are taken")
    assert at_once(lambda: teams([1])) == {1: 1}
    slow.open()
    assert values(hanging.finish()) == [{}] * 20


def test_mistakes_in_batches_are_told(new_cache: NewCache) -> None:
    cache = new_cache("memory://")

    @cache.cached_many("users:{user_id}", each="user_ids")
    def users(user_ids: list[Any]) -> dict[Any, int]:
        return {str(user_id): 1 for user_id in user_ids}

    with pytest.raises(BatchError) as caught:
        users([1, 2])
    assert "none of the items" in str(caught.value.errors[1])
    wrong: Any
    for wrong in ("abc", 5):
        with pytest.raises(TypeError, match="user_ids"):
            users(wrong)
