"""Redis and Valkey as a store of bytes: written once, over a link that blocks or awaits."""

import math
import re
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar, Final, NoReturn

from nearcache._core.clock import EngineTime
from nearcache.backends.base import Admin, Backend, Counters, Facts, Item, Scan
from nearcache.backends.redis.connect import Command
from nearcache.backends.redis.errors import code_of, refused
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.wire import Link, LostConnection, repeatable
from nearcache.backends.registry import BackendSpec
from nearcache.errors import BackendUnavailableError, CodecError

PAGE: Final = "500"
"""How many keys the engine looks at for one page of a scan."""

_RECORDS: Final = frozenset({bytes, type(None)})

INT64: Final = range(-(2**63), 2**63)


class RedisBackend(Backend):
    """One namespace of a Redis or Valkey server.

    A key whose value is no string (a list or a hash of somebody else) reads as absent and is not touched, except that
    storing replaces it.
    """

    name: ClassVar[str] = "redis"

    def __init__(self, link: Link, spec: BackendSpec) -> None:
        self._link = link
        self._clock = spec.time.clock
        self._prefix = f"{spec.namespace}:"
        self._asking = False
        self.time: EngineTime = spec.time
        self.counters: Counters | None = _Counters(self)
        self.scan: Scan | None = _Scan(self, self._prefix)
        self.admin: Admin | None = _Admin(self)

    async def open(self) -> None:
        """Connect, and learn the engine's time."""
        await self._link.open()
        await self.ping()

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        await self._link.close()

    async def get(self, key: str) -> bytes | None:
        """Ask for one record."""
        (reply,) = await self.run(key, ("GET", self._prefix + key))
        if reply is None or type(reply) is bytes:
            return reply
        return None if code_of(reply) == "WRONGTYPE" else _unexpected(_good(reply, key), key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Ask for records with one command."""
        if not keys:
            return []
        prefix = self._prefix
        (reply,) = await self.run(keys[0], ("MGET", *[prefix + key for key in keys]))
        records: list[bytes | None] = _good(reply, keys[0])
        if type(reply) is not list or len(records) != len(keys) or not _RECORDS.issuperset(map(type, records)):
            _unexpected(reply, keys[0])
        return records

    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Ask how many seconds records will live, to the millisecond."""
        if not keys:
            return []
        replies = await self.run(keys[0], *(("PTTL", self.named(key)) for key in keys))
        return [_life(_good(reply, key)) for reply, key in zip(replies, keys, strict=True)]

    async def set(self, item: Item) -> None:
        """Store one record."""
        key = item.key
        (reply,) = await self.run(key, ("SET", self._prefix + key, item.raw, "PX", _ms(item.ttl)))
        _good(reply, key)

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store records on one trip; not atomic."""
        if not items:
            return
        replies = await self.run(items[0].key, *(("SET", self.named(i.key), i.raw, "PX", _ms(i.ttl)) for i in items))
        for reply, item in zip(replies, items, strict=True):
            _good(reply, item.key)

    async def add(self, item: Item, dead: bytes) -> bool:
        """Store a record where there is none, or only a dead one, in one atomic step."""
        if dead:
            return await self._add_over(item, dead)
        command = ("SET", self.named(item.key), item.raw, "PX", _ms(item.ttl), "NX")
        (reply,) = await self.run(item.key, command)
        return _good(reply, item.key) is not None

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records with one command."""
        if not keys:
            return 0
        (reply,) = await self.run(keys[0], ("DEL", *map(self.named, keys)))
        return int(_good(reply, keys[0]))

    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record a new life, in one atomic step."""
        if fill_id:
            reply = await self.evaluate("touch", key, fill_id, _ms(ttl), ages)
        else:
            (reply,) = await self.run(key, ("PEXPIRE", self.named(key), _ms(ttl)))
        return code_of(reply) != "WRONGTYPE" and bool(_good(reply, key))

    async def ping(self) -> None:
        """Ask the engine whether it is there."""
        (reply,) = await self.run("", ("PING",))
        _good(reply, "PING")

    def named(self, key: str) -> str:
        """Return the engine's name of a key."""
        return self._prefix + key

    def run(self, _key: str, *commands: Command) -> Coroutine[Any, Any, list[Any]]:
        """Send commands about a key together and return the replies; errors of the engine are among them.

        When the engine's time is due it is asked for on the same trip.
        """
        asks = self.time.due() and not (self._asking and self.time.known)
        return self._run_with_time(commands) if asks else self._execute(commands)

    async def evaluate(self, name: str, key: str, *arguments: str | bytes) -> Any:
        """Run the script `name` on a key and return its reply, which may be an exception of the engine."""
        code, rest = script(name), ("1", self.named(key), *arguments)
        (reply,) = await self.run(key, ("EVALSHA", code.sha, *rest))
        if code_of(reply) == "NOSCRIPT":
            (reply,) = await self.run(key, ("EVAL", code.text, *rest))
        return reply

    async def _execute(self, commands: tuple[Command, ...]) -> list[Any]:
        try:
            replies = self._link.execute(*commands)
            return replies if isinstance(replies, list) else await replies
        except LostConnection:
            if not repeatable(commands):
                raise
        again = self._link.execute(*commands)
        return again if isinstance(again, list) else await again

    async def _run_with_time(self, commands: tuple[Command, ...]) -> list[Any]:
        self._asking, sent = True, self._clock()
        try:
            *replies, time = await self._execute((*commands, ("TIME",)))
        finally:
            self._asking = False
        received = self._clock()
        answer = _good(time, "TIME")
        try:
            seconds, micros = answer
            self.time.observe(sent, received, int(seconds) + int(micros) / 1_000_000)
        except (TypeError, ValueError):
            _unexpected(answer, "TIME")
        return replies

    async def _add_over(self, item: Item, dead: bytes) -> bool:
        reply = await self.evaluate("add", item.key, dead, _ms(item.ttl), item.raw)
        return code_of(reply) != "WRONGTYPE" and bool(_good(reply, item.key))


class _Counters:
    """Counters as records whose payload the engine adds to."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        """Add `by` and return the sum; see `Counters.incr`."""
        if by not in INT64:
            raise CodecError(f"{key}: a step of a counter must fit into 64 bits")
        reply = await self._backend.evaluate("incr", key, str(by), _ms(ttl), fresh, dead)
        if code_of(reply) in ("COUNTER", "WRONGTYPE"):
            raise CodecError(f"{key}: the record holds no integer, or the sum does not fit into 64 bits")
        return int(_good(reply, key))


class _Scan:
    """Keys of the namespace by SCAN; internal records have other names and are never listed."""

    def __init__(self, backend: RedisBackend, prefix: str) -> None:
        self._backend = backend
        self._prefix = prefix

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        """Return the next cursor and some keys; a key may come twice."""
        command = ("SCAN", cursor or "0", "MATCH", _literally(self._prefix + prefix) + "*", "COUNT", PAGE)
        (reply,) = await self._backend.run(prefix, command)
        following, names = _good(reply, "SCAN")
        return _next(following.decode()), [text for name in names if (text := self._key(name)) is not None]

    def _key(self, name: bytes) -> str | None:
        try:
            return name.decode().removeprefix(self._prefix)
        except UnicodeDecodeError:
            return None  # not a name that this library gives


class _Admin:
    """Facts from INFO."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    async def facts(self) -> Facts:
        """Ask for INFO; what a restricted server leaves out is None."""
        (reply,) = await self._backend.run("", ("INFO",))
        return _facts(_info(_good(reply, "INFO")))


def _good(reply: Any, subject: str) -> Any:
    if isinstance(reply, Exception):
        raise refused(reply, subject) from reply
    return reply


def _unexpected(reply: Any, subject: str) -> NoReturn:
    raise BackendUnavailableError(
        f"{subject}: the engine answered with a {type(reply).__name__} where none belongs; is it a Redis or Valkey?"
    )


def _ms(seconds: float) -> str:
    return str(max(1, math.floor(seconds * 1000)))


def _life(pttl: int) -> float | None:
    if pttl == -2:
        return None
    return math.inf if pttl < 0 else pttl / 1000


def _literally(text: str) -> str:
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def _next(cursor: str) -> str:
    return "" if cursor == "0" else cursor


def _info(raw: Any) -> dict[str, str]:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines}


def _facts(info: dict[str, str]) -> Facts:
    persistent = info.get("aof_enabled")
    return Facts(
        used_bytes=_number(info.get("used_memory")),
        limit_bytes=_number(info.get("maxmemory")) or None,
        evictions=_number(info.get("evicted_keys")),
        policy=info.get("maxmemory_policy"),
        persistent=None if persistent is None else persistent == "1",
        version=info.get("valkey_version") or info.get("redis_version"),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
