"""Records on real servers, in both flavours."""

import math

import pytest

from nearcache.backends.base import Item
from nearcache.backends.redis import RedisBackend
from nearcache.backends.redis.errors import refused
from nearcache.backends.registry import Flavour
from nearcache.errors import BackendError, CodecError
from tests.integration.redis.helpers import made
from tests.servers import RedisServer

CODEC = b"\x05"


def header(fill: bytes, tags: bytes = b"\x90") -> bytes:
    """A record's header up to its payload: magic, flags, fill id, times, codec, schema, tags."""
    return b"\x01\x00" + fill * 8 + bytes(26) + CODEC + bytes(8) + len(tags).to_bytes(2, "big") + tags


async def test_a_record_comes_back_byte_for_byte(backend: RedisBackend):
    raw = bytes(range(256)) * 300
    await backend.set(Item("users:1", raw, 60))
    assert await backend.get("users:1") == raw
    assert await backend.get("users:2") is None


async def test_many_records_come_back_in_the_order_asked_for(backend: RedisBackend):
    await backend.set_many([Item(f"k:{i}", b"%d" % i, 60) for i in range(100)])
    keys = [f"k:{i}" for i in reversed(range(101))]
    assert await backend.get_many(keys) == [None, *(b"%d" % i for i in reversed(range(100)))]


async def test_no_keys_and_no_items_ask_nothing(backend: RedisBackend, any_server: RedisServer):
    before = any_server.info()["total_commands_processed"]
    assert await backend.get_many([]) == []
    assert await backend.remaining([]) == []
    assert await backend.delete([]) == 0
    await backend.set_many([])
    assert int(any_server.info()["total_commands_processed"]) == int(before) + 1


async def test_keys_stand_in_the_engine_as_namespace_and_key(
    backend: RedisBackend, any_server: RedisServer, namespace: str
):
    await backend.set(Item("users:ü", b"1", 60))
    assert any_server.command("GET", f"{namespace}:users:ü") == b"1"


async def test_life_is_at_most_the_ttl_to_the_millisecond(
    backend: RedisBackend, any_server: RedisServer, namespace: str
):
    await backend.set_many([Item("a", b"1", 60.0009), Item("b", b"1", 0.9999)])
    any_server.command("SET", f"{namespace}:c", "for ever")
    sixty, below_one, ever, absent = await backend.remaining(["a", "b", "c", "d"])
    assert sixty is not None
    assert 50 < sixty <= 60.0
    assert below_one is None or 0 < below_one <= 0.999
    assert (ever, absent) == (math.inf, None)


async def test_a_life_shorter_than_a_millisecond_is_no_error_and_ends(backend: RedisBackend):
    await backend.set(Item("a", b"1", 0.0001))
    left = (await backend.remaining(["a"]))[0]
    assert left is None or left <= 0.001


async def test_add_stores_only_where_nothing_is(backend: RedisBackend):
    assert await backend.add(Item("a", b"first", 60), b"")
    assert not await backend.add(Item("a", b"second", 60), b"")
    assert await backend.get("a") == b"first"


async def test_add_replaces_a_record_only_if_it_is_the_one_judged_dead(backend: RedisBackend):
    await backend.set(Item("a", header(b"A"), 60))
    assert not await backend.add(Item("a", b"new", 60), b"B" * 8)
    assert await backend.get("a") == header(b"A")
    assert await backend.add(Item("a", b"new", 30), b"A" * 8)
    assert await backend.get("a") == b"new"
    left = (await backend.remaining(["a"]))[0]
    assert left is not None
    assert left <= 30
    assert await backend.add(Item("b", b"new", 60), b"A" * 8)


async def test_delete_counts_the_records_there_were(backend: RedisBackend):
    await backend.set_many([Item("a", b"1", 60), Item("b", b"1", 60)])
    assert await backend.delete(["a", "b", "c"]) == 2
    assert await backend.get_many(["a", "b"]) == [None, None]


async def test_touch_changes_ages_and_life_of_the_judged_record_only(backend: RedisBackend):
    raw = header(b"A") + b"payload"
    await backend.set(Item("a", raw, 5))
    assert not await backend.touch("a", 60, b"B" * 8, b"agesages")
    assert not await backend.touch("absent", 60, b"A" * 8, b"agesages")
    assert await backend.get_many(["a", "absent"]) == [raw, None]
    assert await backend.touch("a", 60, b"A" * 8, b"agesages")
    assert await backend.get("a") == raw[:24] + b"agesages" + raw[32:]
    left = (await backend.remaining(["a"]))[0]
    assert left is not None
    assert 5 < left <= 60


async def test_touch_without_header_changes_the_life_alone(backend: RedisBackend):
    await backend.set(Item("a", b"1", 5))
    assert await backend.touch("a", 60, b"", b"")
    assert not await backend.touch("absent", 60, b"", b"")
    left = (await backend.remaining(["a"]))[0]
    assert left is not None
    assert 5 < left <= 60
    assert await backend.get("a") == b"1"


async def test_a_counter_is_created_with_its_life_and_keeps_it(backend: RedisBackend):
    assert backend.counters is not None
    assert await backend.counters.incr("c", 5, header(b"A"), 60, b"") == 5
    assert await backend.counters.incr("c", -7, header(b"B"), 999, b"") == -2
    assert await backend.get("c") == header(b"B") + b"-2"
    left = (await backend.remaining(["c"]))[0]
    assert left is not None
    assert left <= 60


async def test_a_counter_keeps_its_own_header_but_for_the_fill_id(backend: RedisBackend):
    assert backend.counters is not None
    tagged = header(b"A", b"\x91\xa5" + b"a" * 700)
    await backend.set(Item("c", tagged + b"41", 60))
    assert await backend.counters.incr("c", 1, header(b"B"), 60, b"") == 42
    assert await backend.get("c") == tagged.replace(b"A" * 8, b"B" * 8) + b"42"


async def test_a_counter_judged_dead_begins_again(backend: RedisBackend):
    assert backend.counters is not None
    await backend.counters.incr("c", 5, header(b"A"), 60, b"")
    assert await backend.counters.incr("c", 1, header(b"B"), 30, b"A" * 8) == 1
    assert await backend.get("c") == header(b"B") + b"1"


@pytest.mark.parametrize("start", [2**53, 2**63 - 2, -(2**63)])
async def test_counters_are_exact_over_64_bits(backend: RedisBackend, start: int):
    assert backend.counters is not None
    assert await backend.counters.incr("c", start, header(b"A"), 60, b"") == start
    assert await backend.counters.incr("c", 1, header(b"A"), 60, b"") == start + 1


@pytest.mark.parametrize("by", [1, 2**63, -(2**64)])
async def test_a_sum_outside_64_bits_is_refused_and_changes_nothing(backend: RedisBackend, by: int):
    assert backend.counters is not None
    await backend.counters.incr("c", 2**63 - 1, header(b"A"), 60, b"")
    with pytest.raises(CodecError, match=r"c: .*64 bits"):
        await backend.counters.incr("c", by, header(b"B"), 60, b"")
    assert await backend.get("c") == header(b"A") + b"9223372036854775807"
    left = (await backend.remaining(["c"]))[0]
    assert left is not None
    assert left <= 60


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"5",
        b"hello",
        header(b"A") + b"abc",
        header(b"A") + b"007",
        header(b"A") + b"1.5",
        header(b"A"),
        header(b"A")[:40],
        header(b"A").replace(CODEC, b"\x01") + b"5",
        b"\x02" + header(b"A")[1:] + b"5",
    ],
)
async def test_counting_on_a_record_that_holds_no_integer_is_refused_and_changes_nothing(
    backend: RedisBackend, raw: bytes
):
    assert backend.counters is not None
    await backend.set(Item("c", raw, 60))
    with pytest.raises(CodecError, match="c: the record holds no integer"):
        await backend.counters.incr("c", 1, header(b"B"), 60, b"")
    assert await backend.get("c") == raw


async def test_counters_without_header_are_plain_numbers_as_other_programs_write_them(
    backend: RedisBackend, any_server: RedisServer, namespace: str
):
    assert backend.counters is not None
    assert await backend.counters.incr("c", 2, b"", 60, b"") == 2
    any_server.command("INCRBY", f"{namespace}:c", 40)
    assert await backend.counters.incr("c", 2**53, b"", 60, b"") == 2**53 + 42
    assert await backend.get("c") == b"%d" % (2**53 + 42)


async def test_what_another_program_stored_is_returned_as_it_is(
    backend: RedisBackend, any_server: RedisServer, namespace: str
):
    any_server.command("SET", f"{namespace}:a", b'{"id": 1}')
    assert await backend.get("a") == b'{"id": 1}'


async def test_a_value_that_is_no_string_reads_as_absent_and_is_left_alone(
    backend: RedisBackend, any_server: RedisServer, namespace: str
):
    assert backend.counters is not None
    any_server.command("RPUSH", f"{namespace}:a", "x")
    assert await backend.get("a") is None
    assert await backend.get_many(["a"]) == [None]
    assert not await backend.touch("a", 60, b"A" * 8, b"agesages")
    assert not await backend.add(Item("a", b"1", 60), b"A" * 8)
    with pytest.raises(CodecError):
        await backend.counters.incr("a", 1, header(b"A"), 60, b"")
    assert any_server.command("LRANGE", f"{namespace}:a", 0, -1) == [b"x"]
    await backend.set(Item("a", b"1", 60))
    assert await backend.get("a") == b"1"


async def test_scan_lists_each_key_of_the_prefix_and_no_internal_record(
    backend: RedisBackend, any_server: RedisServer, namespace: str
):
    assert backend.scan is not None
    wanted = {f"users:{i}" for i in range(1200)}
    await backend.set_many([Item(key, b"1", 60) for key in [*wanted, "orders:1", "user"]])
    for internal in (f"{{{namespace}:users:1}}~l", f"{{{namespace}}}~m", f"{namespace}~x", f"{namespace}2:users:9"):
        any_server.command("SET", internal, "1", "EX", 60)
    found: list[str] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        cursor, keys = await backend.scan.page(cursor, "users:")
        found += keys
        pages += 1
    assert set(found) == wanted
    assert pages > 1


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]", "a\\", "^a"])
async def test_scan_takes_the_prefix_literally(backend: RedisBackend, prefix: str):
    assert backend.scan is not None
    await backend.set_many([Item(f"{prefix}x", b"1", 60), Item("ab", b"1", 60), Item("b", b"1", 60)])
    cursor, keys = await backend.scan.page("", prefix)
    while cursor:
        cursor, more = await backend.scan.page(cursor, prefix)
        keys += more
    assert keys == [f"{prefix}x"]


async def test_scan_passes_over_names_that_are_no_text(backend: RedisBackend, any_server: RedisServer, namespace: str):
    assert backend.scan is not None
    any_server.command("SET", namespace.encode() + b":\xff", "1", "EX", 60)
    cursor, keys = await backend.scan.page("", "")
    while cursor:
        cursor, more = await backend.scan.page(cursor, "")
        keys += more
    assert keys == []


async def test_facts_are_what_info_says(backend: RedisBackend, any_server: RedisServer):
    assert backend.admin is not None
    facts = await backend.admin.facts()
    info = any_server.info()
    assert facts.version == info.get("valkey_version", info["redis_version"])
    assert facts.used_bytes is not None
    assert facts.used_bytes > 100_000
    assert (facts.limit_bytes, facts.policy, facts.evictions) == (None, "noeviction", 0)
    assert facts.persistent is False


async def test_the_engines_time_is_known_after_open_and_lies_within_the_bounds(
    backend: RedisBackend, any_server: RedisServer
):
    earliest = backend.time.earliest()
    seconds, micros = any_server.command("TIME")
    now = int(seconds) + int(micros) / 1e6
    assert backend.time.known
    assert earliest <= now <= backend.time.latest()
    assert backend.time.latest() - backend.time.earliest() < 1


async def test_a_first_call_without_open_learns_the_time_on_the_same_trip(any_server: RedisServer, flavour: Flavour):
    backend = made(any_server.unix_url, flavour, "t")
    assert await backend.get("nothing") is None
    assert backend.time.known
    await backend.close()


async def test_scripts_work_again_after_the_engine_forgot_them(backend: RedisBackend, any_server: RedisServer):
    assert backend.counters is not None
    await backend.counters.incr("c", 1, header(b"A"), 60, b"")
    any_server.command("SCRIPT", "FLUSH")
    assert await backend.counters.incr("c", 1, header(b"A"), 60, b"") == 2


async def test_tcp_with_a_database_serves_that_database(own_server: RedisServer, flavour: Flavour):
    backend = made(own_server.url.removesuffix("/0") + "/3", flavour, "t")
    await backend.set(Item("a", b"1", 60))
    assert own_server.info("keyspace").keys() == {"db3"}
    assert (await backend.get("a"), backend.name, backend.shared) == (b"1", "redis", True)
    await backend.close()


async def test_an_answer_that_quotes_arguments_is_cut_before_them(backend: RedisBackend):
    (reply,) = await backend.run(("NOSUCH", "secret value"))
    assert "secret" in str(reply)
    error = refused(reply, "users:1")
    assert "users:1" in str(error)
    assert "unknown command" in str(error)
    assert "secret" not in str(error)


async def test_a_full_engine_says_what_to_do(own_server: RedisServer, flavour: Flavour):
    backend = made(own_server.unix_url, flavour, "t")
    await backend.set(Item("a", header(b"A"), 60))
    own_server.command("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(BackendError, match="maxmemory-policy") as raised:
        await backend.set(Item("users:1", b"value", 60))
    assert "users:1" in str(raised.value)
    assert "value" not in str(raised.value).replace("maxmemory", "")
    assert await backend.get("a") == header(b"A")
    await backend.close()
