"""What cannot be decoded is a miss and counted; it is never an exception to who reads, and never run as code."""

import dataclasses
import hmac
import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nearcache import MISS, Cache
from nearcache._engine.found import COLD, Lack
from nearcache._engine.load import Loads
from nearcache._engine.plan import Lease
from nearcache._engine.read import Reader
from nearcache.backends.base import Ask
from nearcache.codecs.envelope import AGES, SIZE, fill_id_of, pack_ages
from nearcache.codecs.ids import PICKLE
from nearcache.errors import CodecError
from nearcache.testing import FakeClock
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, dice, noticed
from tests.servers import RedisServer

Key = Callable[[], str]


@dataclasses.dataclass(frozen=True)
class User:
    """What this release stores."""

    name: str


@dataclasses.dataclass(frozen=True)
class Member:
    """What the next release stores under the same keys."""

    name: str
    age: int


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._trace),)


def put_raw(cache: Cache, key: str, raw: bytes) -> None:
    """Put bytes where the engine keeps the record of a key."""
    records = cache._parts.core.records
    if records is None:
        server_of(cache).command("SET", cache.engine_key(key), raw)
    else:
        records.put(key, raw, time.monotonic() + 1000)


def raw_of(cache: Cache, key: str) -> bytes | None:
    """Return the bytes that the engine holds for a key."""
    records = cache._parts.core.records
    if records is not None:
        return records.raw(key)
    raw: bytes | None = server_of(cache).command("GET", cache.engine_key(key))
    return raw


_servers: dict[str, RedisServer] = {}


def server_of(cache: Cache) -> RedisServer:
    """Return the server behind a cache."""
    return _servers[cache._parts.core.options.url]


@pytest.fixture(autouse=True)
def _know_the_server(valkey_server: RedisServer) -> None:
    _servers[valkey_server.unix_url] = valkey_server


def hostile(cache: Cache, trace: Path) -> list[bytes]:
    """Return records that nobody should have stored."""
    cache.set("honest:1", {"some": ["value", 1, 2.5]})
    good = raw_of(cache, "honest:1") or b""
    bomb = pickle.dumps(Bomb(trace))
    return [
        b"",
        b"\x00",
        b"plain text",
        json.dumps({"from": "another language"}).encode(),
        bomb,
        good[:SIZE] + bomb,
        good[:36] + bytes([PICKLE]) + good[37:SIZE] + bytes(32) + bomb,  # says that it is a signed pickle
        b"\xc2" + good[1:],  # a layout of a later release
        good[:1] + b"\xff" + good[2:],  # flags of a later release
        good[:36] + b"\xfe" + good[37:],  # a codec of a later release
        good[: AGES.start] + pack_ages(2.0, 1.0) + good[AGES.stop :],  # kept for less than it is fresh
        good[: AGES.start] + pack_ages(1.0, 1e30) + good[AGES.stop :],  # kept for longer than the world will stand
        good[:45] + b"\xff\xff" + good[47:],  # tags longer than the record
        good[:SIZE] + b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        good[:SIZE] + b"\x91" * 5000,  # nested too deep
        good[:SIZE] + b"\xc1",
        good[:1] + b"\x01" + good[2:],  # says that it is compressed
        good + b"trailing",
        *[good[:length] for length in range(1, len(good))],
    ]


def reads_are_misses(cache: Cache, key: str, raw: bytes) -> None:
    """Read bytes of somebody else by every verb."""
    put_raw(cache, key, raw)
    assert cache.get(key, MISS) is MISS
    assert cache.get_many([key]) == {}
    assert cache.get_entry(key) is MISS
    # These read the header only, which may be in order.
    assert cache.exists(key) == (cache.ttl(key) is not MISS) == cache.touch(key, "1m")
    assert not cache.exists(key) or len(raw) >= SIZE
    misses = cache.stats().misses_by_reason
    assert misses.get("undecodable", 0) >= 1
    assert cache.stats().errors >= 1
    assert cache.get_or_load(key, lambda: 7) == 7, "it is loaded"
    assert cache.get(key) == 7, "and replaced"
    put_raw(cache, key, raw)
    cache._parts.core.near.changed((key,))
    cache.set(key, 8)
    assert cache.get(key) == 8


def test_hostile_bytes_are_misses_and_replaced(url: str, new_cache: NewCache, fresh_key: Key, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    honest = new_cache(url)
    for raw in hostile(honest, trace):
        reads_are_misses(new_cache(url, namespace=honest._parts.core.options.namespace), fresh_key(), raw)
    assert not trace.exists(), "somebody else's bytes were run as code"


def test_hostile_bytes_are_misses_for_signed_pickles_too(
    url: str, new_cache: NewCache, fresh_key: Key, tmp_path: Path
) -> None:
    trace, secret = tmp_path / "trace", "sixteen or more bytes"
    others, bomb = b"sixteen bytes of somebody else", pickle.dumps(Bomb(trace))
    signed_by_others = new_cache(url, codec="pickle", secret=others)
    signed_by_others.set("a:1", {"honest": (1, 2)})
    honest = raw_of(signed_by_others, "a:1") or b""
    forged = honest[:SIZE] + hmac.digest(others, bomb, "sha256") + bomb
    for raw in [honest, forged, *hostile(new_cache(url), trace)[:12]]:
        cache, key = new_cache(url, codec="pickle", secret=secret), fresh_key()
        put_raw(cache, key, raw)
        assert cache.get_or_load(key, lambda: 7) == 7
        assert cache.get(key) == 7
    assert not trace.exists()


def test_any_flipped_bit_is_survived(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, luck = new_cache(url), dice()
    cache.set("honest:1", {"some": ["value", 1, 2.5, None, (1, 2)]})
    good = raw_of(cache, "honest:1") or b""
    for _ in range(1000):
        key, place = fresh_key(), luck.randrange(len(good) * 8)
        raw = bytearray(good)
        raw[place // 8] ^= 1 << place % 8
        put_raw(cache, key, bytes(raw))
        cache.get(key)
        cache.get(key, type=dict)
        cache.get_or_load(key, lambda: 7)


def test_a_key_of_another_kind_is_a_miss(valkey_url: str, new_cache: NewCache) -> None:
    cache = new_cache(valkey_url)
    server_of(cache).command("RPUSH", cache.engine_key("a:1"), "one", "two")
    assert cache.get("a:1", MISS) is MISS
    assert cache.get_or_load("a:1", lambda: 7) == 7
    assert cache.get("a:1") == 7


def test_an_exception_that_escapes_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    def undecodable(reader: Reader, key: str, raw: bytes | None, error: CodecError) -> Lack:
        raise error

    with broken(Reader, "_undecodable", undecodable), pytest.raises(CodecError):
        reads_are_misses(new_cache(url), fresh_key(), b"plain text")


def test_a_miss_that_is_not_counted_is_noticed(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Reader, "_undecodable", lambda reader, key, raw, error: COLD), noticed():
        reads_are_misses(new_cache(url), fresh_key(), b"plain text")


# Another schema: two releases side by side


def releases_do_not_fight(url: str, new_cache: NewCache) -> None:
    """Let two releases, which declare different types, use the same keys."""
    clock = FakeClock()
    old, new = (new_cache(url, clock=clock, namespace="releases", jitter=0) for _ in range(2))
    if old._parts.core.records is not None:
        new._parts.core.near = old._parts.core.near  # only within one process can two releases share memory://
    loads = list[str]()

    @old.cached("users:{user_id}", ttl="1h")
    def user(user_id: int) -> User:
        loads.append("old")
        return User("Ada")

    @new.cached("users:{user_id}", ttl="1h")
    def member(user_id: int) -> Member:
        loads.append("new")
        return Member("Ada", 36)

    old.delete("users:1")
    assert user(1) == User("Ada")
    stored = raw_of(old, "users:1") or b""
    for _ in range(3):
        assert member(1) == Member("Ada", 36)
        clock.advance("2s")
        assert user(1) == User("Ada")
        assert raw_of(old, "users:1") == stored, "the releases overwrite each other"
    assert loads == ["old", "new", "new", "new"]
    clock.advance("1h")
    assert member(1) == Member("Ada", 36)
    after = raw_of(old, "users:1") or b""
    assert fill_id_of(after) != fill_id_of(stored), "past its age it is replaced"
    assert loads == ["old"] + ["new"] * 4
    assert new.stats().misses_by_reason.get("schema", 0) == 3
    assert user(1) == User("Ada")
    assert raw_of(old, "users:1") == after


def test_a_value_of_another_schema_is_loaded_around_until_it_expires(valkey_url: str, new_cache: NewCache) -> None:
    releases_do_not_fight(valkey_url, new_cache)


def test_releases_that_overwrite_each_other_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    real = Loads.load

    async def load(loads: Loads, flight: Any, job: Any, lease: Any, old: Any = None) -> Any:
        seen = await loads._leases.steal(Ask(flight.key, flight.token, b"", 5.0))
        return await real(loads, flight, job, lease or Lease(flight.token, seen, loads._core.view.last))

    with broken(Loads, "load", load), noticed():
        releases_do_not_fight(valkey_url, new_cache)


def test_a_value_of_another_schema_is_absent_for_a_typed_read(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url, types=[User])
    cache.set("users:1", User("Ada"))
    assert cache.get("users:1", type=Member) is None
    assert cache.get("users:1", MISS, type=int) is MISS
    assert cache.get("users:1", type=User) == User("Ada")


def test_a_loader_of_the_wrong_type_is_told_so(url: str, new_cache: NewCache) -> None:
    cache = new_cache(url)

    @cache.cached("users:{user_id}")
    def user(user_id: int) -> User:
        return Member("Ada", 36)  # type: ignore[return-value]  # the point

    def never() -> NoReturn:
        raise AssertionError

    with pytest.raises(CodecError, match="users:1"):
        user(1)
    with pytest.raises(AssertionError):
        cache.get_or_load("users:1", never)
