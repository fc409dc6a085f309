"""What every verb does, written once: both flavours, every engine, with and without a near tier."""

import dataclasses
import math
from typing import Any

import pytest

from nearcache import MISS, CodecError, ConfigError, Entry, InvalidKeyError, UnsupportedError
from nearcache._io.blocking import drive
from nearcache.backends.base import Item
from tests.faces import Awaited


async def test_a_value_that_was_set_is_read_back_until_it_is_deleted(face: Awaited) -> None:
    await face.set("users:1", {"name": "Ada"})
    assert await face.get("users:1") == {"name": "Ada"}
    assert await face.exists("users:1")
    assert await face.delete("users:1") is True
    assert await face.delete("users:1") is False
    assert await face.get("users:1") is None
    assert not await face.exists("users:1")


async def test_an_absent_value_is_the_default(face: Awaited) -> None:
    assert await face.get("users:1") is None
    assert await face.get("users:1", 7) == 7
    assert await face.get_entry("users:1") is MISS
    assert await face.ttl("users:1") is MISS


async def test_none_false_and_zero_are_values(face: Awaited) -> None:
    for key, value in (("v:1", None), ("v:2", False), ("v:3", 0), ("v:4", "")):
        await face.set(key, value)
        assert await face.get(key, "absent") is value or (value != "" and await face.get(key, "absent") == value)
        assert await face.exists(key)


async def test_many_values_go_and_come_together(face: Awaited) -> None:
    await face.set_many({f"n:{n}": n for n in range(5)})
    assert await face.get_many(["n:3", "n:9", "n:1", "n:3"]) == {"n:3": 3, "n:1": 1}
    assert await face.delete_many(["n:0", "n:1", "n:9"]) == 2
    assert await face.get_many([]) == {}
    await face.set_many({})
    assert await face.delete_many([]) == 0


async def test_an_add_stores_only_what_is_absent(face: Awaited) -> None:
    assert await face.add("a:1", "first") is True
    assert await face.add("a:1", "second") is False
    assert await face.get("a:1") == "first"
    await face.delete("a:1")
    assert await face.add("a:1", "third") is True
    assert await face.get("a:1") == "third"


@pytest.mark.parametrize("raw", [b"hello", b"\x00\x01 of somebody else", b"\xc1\xff of a later release", b"\xc0stub"])
async def test_an_add_replaces_what_is_no_record(face: Awaited, raw: bytes) -> None:
    await face.get("a:1")  # the engine's marks are known
    stored = face.cache._engine.backend.set(Item("a:1", raw, 60.0))
    await stored if face.is_async else drive(stored)
    assert await face.exists("a:1") is False
    assert await face.add("a:1", "second") is True
    assert await face.get("a:1") == "second"
    assert await face.add("a:1", "third") is False


async def test_an_entry_tells_value_age_ttl_and_tier(face: Awaited) -> None:
    await face.set("e:1", "x", ttl=100)
    entry = await face.get_entry("e:1")
    assert isinstance(entry, Entry)
    assert entry.value == "x"
    assert 0 <= entry.age < 30
    assert 60 < entry.ttl <= 100
    assert entry.tier in ("near", "engine")
    assert entry.stale is False


async def test_a_ttl_can_be_changed_without_the_value(face: Awaited) -> None:
    await face.set("t:1", "x", ttl="1h")
    assert 3000 < await face.ttl("t:1") <= 3600
    assert await face.touch("t:1", "1m") is True
    assert 30 < await face.ttl("t:1") <= 60
    assert await face.get("t:1") == "x"
    assert await face.touch("t:2", "1m") is False


async def test_a_ttl_is_at_most_what_was_asked_for(face: Awaited) -> None:
    for n in range(20):
        await face.set(f"j:{n}", n, ttl=1000)
        assert 870 < await face.ttl(f"j:{n}") <= 1000


@pytest.mark.parametrize("ttl", [0, -1, None, math.inf, math.nan, True, "soon", "0s", 366 * 86_400, "unknown"])
async def test_there_is_no_way_to_cache_for_ever_or_not_at_all(face: Awaited, ttl: Any) -> None:
    for work in (
        face.set("t:1", 1, ttl),
        face.set_many({"t:1": 1}, ttl),
        face.add("t:1", 1, ttl),
        face.incr("t:1", 1, ttl),
    ):
        with pytest.raises(ConfigError):
            await work
    await face.set("t:2", 1)
    with pytest.raises(ConfigError):
        await face.touch("t:2", ttl)
    with pytest.raises(ConfigError):
        await face.get_or_load("t:1", face.loader(lambda: 1), ttl)
    assert await face.get("t:1") is None


async def test_a_counter_counts_and_keeps_its_first_ttl(face: Awaited) -> None:
    assert await face.incr("c:1", ttl=60) == 1
    assert await face.incr("c:1", 5, ttl="1h") == 6
    assert await face.incr("c:1", -10) == -4
    assert 30 < await face.ttl("c:1") <= 60
    assert await face.get("c:1") == -4
    await face.set("c:1", 40)
    assert await face.get("c:1") == 40
    assert await face.incr("c:1", 2) == 42
    assert await face.get("c:1") == 42


async def test_only_integers_of_64_bits_can_be_counted(face: Awaited) -> None:
    for value in ("text", 1.5, None, 2**70, True):
        await face.set("c:2", value)
        with pytest.raises(CodecError):
            await face.incr("c:2")
        assert await face.get("c:2") == value
    await face.set("c:3", 2**63 - 1)
    with pytest.raises(CodecError):
        await face.incr("c:3")
    assert await face.get("c:3") == 2**63 - 1


async def test_a_scan_lists_the_keys_of_the_namespace(face: Awaited) -> None:
    if face.cache._engine.backend.scan is None:
        with pytest.raises(UnsupportedError, match="listing of keys"):
            await face.scanned()
        return
    await face.set_many({"s:1": 1, "s:2": 2, "x:1": 3})
    assert await face.scanned("s:") == ["s:1", "s:2"]
    assert await face.scanned() == ["s:1", "s:2", "x:1"]
    assert await face.scanned("none") == []


async def test_a_load_happens_once_and_is_kept(face: Awaited) -> None:
    calls: list[int] = []

    def load() -> str:
        calls.append(1)
        return "loaded"

    for _ in range(3):
        assert await face.get_or_load("l:1", face.loader(load), "1h") == "loaded"
    assert len(calls) == 1
    assert await face.get("l:1") == "loaded"


async def test_a_failed_load_stores_nothing_and_raises_its_own_error(face: Awaited) -> None:
    def fail() -> str:
        raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        await face.get_or_load("l:2", face.loader(fail))
    assert not await face.exists("l:2")
    assert await face.get_or_load("l:2", face.loader(lambda: "now")) == "now"


async def test_a_write_through_writes_the_source_first(face: Awaited) -> None:
    source: dict[str, Any] = {}

    def store(value: str) -> None:
        source["row"] = value

    assert await face.write_through("w:1", "new", face.loader(store)) == "new"
    assert (source["row"], await face.get("w:1")) == ("new", "new")
    assert await face.write_through("w:1", "raw", face.loader(lambda value: value.upper())) == "RAW"
    assert await face.get("w:1") == "RAW"


async def test_a_source_that_fails_changes_nothing_in_the_cache(face: Awaited) -> None:
    await face.set("w:2", "old")

    def fail(value: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await face.write_through("w:2", "new", face.loader(fail))
    assert await face.get("w:2") == "old"


async def test_in_a_bypass_nothing_is_read_but_loads_are_stored(face: Awaited) -> None:
    await face.set("b:1", "old")
    with face.bypass():
        assert await face.get("b:1") is None
        assert await face.get_many(["b:1"]) == {}
        assert await face.get_or_load("b:1", face.loader(lambda: "new")) == "new"
    assert await face.get("b:1") == "new"


async def test_while_disabled_nothing_is_read_or_stored_but_deletes_work(face: Awaited) -> None:
    await face.set_many({"d:1": "old", "d:2": "old"})
    with face.disabled():
        assert await face.get("d:1") is None
        assert await face.get_or_load("d:1", face.loader(lambda: "new")) == "new"
        await face.set("d:3", 1)
        assert await face.add("d:4", 1) is False
        with face.bypass():
            assert await face.get_or_load("d:1", face.loader(lambda: "newer")) == "newer"
        await face.delete("d:2")
    assert await face.get_many(["d:1", "d:2", "d:3", "d:4"]) == {"d:1": "old"}


async def test_a_write_through_while_disabled_does_not_leave_the_old_value(face: Awaited) -> None:
    await face.set("d:5", "old")
    with face.disabled():
        assert await face.write_through("d:5", "new", face.loader(lambda value: None)) == "new"
    assert await face.get("d:5") is None


@pytest.mark.parametrize(
    "key", ["", "a b", "a::b", ":a", "a:", "a\nb", "{a}:1", "a:" + "x" * 200, 7, None, b"a", "a:b:c:d:e:f:g:h"]
)
async def test_a_key_that_breaks_the_rules_is_refused_by_every_verb(face: Awaited, key: Any) -> None:
    load, store = face.loader(lambda: 1), face.loader(lambda value: None)
    verbs = [
        *(face.get(key), face.get_entry(key), face.get_many([key]), face.exists(key), face.ttl(key)),
        *(face.set(key, 1), face.set_many({key: 1}), face.add(key, 1), face.touch(key, 1), face.incr(key)),
        *(face.delete(key), face.delete_many([key]), face.get_or_load(key, load), face.write_through(key, 1, store)),
    ]
    for verb in verbs:
        with pytest.raises(InvalidKeyError):
            await verb


async def test_a_typed_read_takes_only_its_type(face: Awaited) -> None:
    await face.set("t:1", 5)
    for _ in range(2):
        assert await face.get("t:1", type=int) == 5
        assert await face.get("t:1", "no", type=str) == "no"
    await face.set("t:2", [1, 2])
    assert await face.get("t:2", type=list[int]) == [1, 2]
    assert await face.get("t:2", "no", type=list[str]) == "no"


@dataclasses.dataclass
class Point:
    """Something with a type."""

    x: int
    y: int


async def test_declared_types_come_back_and_undeclared_ones_are_refused(face: Awaited) -> None:
    with pytest.raises(CodecError, match="types="):
        await face.set("p:1", Point(1, 2))
    assert await face.get("p:1", type=Point) is None

    @face.cached("p:{n}", returns=Point)
    @face.loader
    def point(n: int) -> Point:
        return Point(n, n)

    assert await face.awaited(point)(1) == Point(1, 1)
    await face.set("p:2", Point(3, 4))
    for _ in range(2):
        assert await face.get("p:1", type=Point) == Point(1, 1)
        assert await face.get("p:2") == Point(3, 4)


async def test_what_readers_do_to_a_value_reaches_nobody_else(face: Awaited) -> None:
    mine = {"list": [1]}
    await face.set("m:1", mine)
    mine["list"].append(2)
    for _ in range(3):
        got = await face.get("m:1")
        assert got == {"list": [1]}
        got["list"].append(3)
    loaded = await face.get_or_load("m:2", face.loader(lambda: {"list": [1]}))
    loaded["list"].append(4)
    assert await face.get("m:2") == {"list": [1]}


@pytest.mark.options(near_copy="share")
async def test_near_copies_can_be_shared_on_request(face: Awaited) -> None:
    value = {"a": 1}
    await face.set("m:3", value)
    assert await face.get("m:3") == {"a": 1}


@pytest.mark.options(namespace="shop")
async def test_keys_are_named_in_the_engine_by_namespace(face: Awaited) -> None:
    assert face.engine_key("users:123") == "shop:users:123"
    assert face.key("users:{email}:profile", email="a b@c:d") == "users:a%20b@c%3Ad:profile"


async def test_what_happened_is_counted(face: Awaited) -> None:
    await face.set("st:1", 1)
    for _ in range(4):
        await face.get("st:1")
    await face.get("st:2")
    seen = face.stats()
    assert (seen.hits, seen.misses, seen.hit_ratio) == (4, 1, 0.8)
    assert seen.near_hits + seen.engine_hits == 4
    assert seen.misses_by_reason == {"cold": 1}


async def test_a_load_looks_near_before_it_asks_the_engine(face: Awaited) -> None:
    loader = face.loader(lambda: "loaded")
    await face.get_or_load("near:1", loader)
    rounds = list[tuple[int, int]]()
    for _ in range(5):  # at first the load is announced, and a connection that announces changes may just have opened
        before = face.stats()
        for _ in range(20):
            assert await face.get_or_load("near:1", loader) == "loaded"
        after = face.stats()
        hits = after.near_hits - before.near_hits if face.is_near else after.engine_hits - before.engine_hits
        rounds.append((hits, after.commands - before.commands))
    assert ((20, 0) if face.is_near else (20, 20)) in rounds, rounds


async def test_many_reads_the_engine_once_and_loads_what_is_missing(face: Awaited) -> None:
    @face.cached("batch:{n}")
    @face.loader
    def load(n: int) -> int:
        return n

    await face.awaited(load.many)(range(3))
    before = face.stats()
    assert await face.awaited(load.many)(range(10)) == {n: n for n in range(10)}
    after = face.stats()
    assert after.loads - before.loads == 7
    assert after.misses - before.misses == 7
    assert after.commands - before.commands == 1 + 2 * 7, "one batch read, then a lease and a store for each load"
