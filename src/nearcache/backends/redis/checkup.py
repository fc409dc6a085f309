"""What a Redis or Valkey and the rights of its user offer beyond the ports that can be tried, and what it is set to.

Everything is found out by trying, with commands that change nothing, or on a record of its own that is removed. What is
tried follows what caches do: the scripts of marks, and the commands of `bus.Bus`.
"""

import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from nearcache.backends.base import Check
from nearcache.backends.redis import facts
from nearcache.backends.redis.errors import ADVICE, refused
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import bus_of, limit_of, lock_of, marks_of, session_of
from nearcache.backends.several import megabytes
from nearcache.backends.transport.dialect import Command
from nearcache.errors import BackendError

Single = Callable[[Command], Awaitable[Any]]
"""Sends one command and returns the reply; raises `BackendError`."""

Run = Callable[..., Coroutine[Any, Any, list[Any]]]
"""Sends commands and returns the replies, errors of the engine among them."""

LIFE: Final = "10000"
"""Milliseconds that what is tried out lives, should it not be removed."""

CLOCKS_APART: Final = 1.0
"""Seconds by which the clock of an engine may be off."""

JUST_STARTED: Final = 2.0
"""Seconds within which an engine that starts notes the time of a snapshot that it has not made."""

NOTHING: Final = "~nearcache-doctor"
"""A mark that is never made."""


async def rights(run: Run, namespace: str) -> list[Check]:
    """Find out what the user may do with marks, locks, sessions and limits, and in the stream of changes."""
    return [await tries(run, namespace) for tries in (_marks, _locks, _sessions, _limits, _stream)]


async def settings(single: Single, forgets: bool) -> list[Check]:
    """Judge what a server says about itself."""
    sent = time.time()
    seconds, micros = await single(("TIME",))
    clock = clock_of(int(seconds) + int(micros) / 1e6, sent, time.time())
    try:
        info = facts.read(await single(("INFO",)))
    except BackendError as error:
        return [clock, Check("settings", False, str(error))]
    return [clock, role(info), memory(info), persistence(info, snapshots(info, await _saves(single)), forgets)]


async def _saves(single: Single) -> Any:
    """Ask when snapshots are made; None if that is secret."""
    with suppress(BackendError):
        return await single(("CONFIG", "GET", "save"))


async def _marks(run: Run, namespace: str) -> Check:
    """Make marks in a record of its own, more than are kept, and give them back; ask the record of the namespace."""
    own, real = marks_of(f"{namespace}:nearcache-doctor:{uuid.uuid4().hex}"), marks_of(namespace)
    mark, restore = (("EVAL", script(name).text, "1", own, "0", "0", LIFE) for name in ("mark", "restore"))
    tried: list[Command] = [
        (*mark, "1", "t:one", "t:two"),
        (*restore, "1", "t:one"),
        ("PEXPIRE", own, LIFE),
        ("ZMSCORE", own, "~clear"),
        ("DEL", own),
        ("ZADD", real, "XX", "0", NOTHING),
        ("ZREVRANGEBYSCORE", real, "+inf", "0", "LIMIT", "0", "1"),
    ]
    return _tried("tags", await run(*tried), real, "tags, and everything, can be invalidated")


async def _locks(run: Run, namespace: str) -> Check:
    """Have one hold a lock of its own that another waits for, and give it back."""
    records = lock_of(f"{namespace}:nearcache-doctor:{uuid.uuid4().hex}")
    acquire, release = (("EVAL", script(f"lock_{name}").text, "4", *records) for name in ("acquire", "release"))
    one, other = (("1", LIFE, LIFE, LIFE, "1", "", "1"), ("1", LIFE, LIFE))
    tried: list[Command] = [
        (*acquire, "one", *one),
        (*acquire, "two", *one),
        (*release, "one", *other),
        (*release, "two", *other),
        ("DEL", *records),
    ]
    return _tried("locks", await run(*tried), records[0], "one at a time may hold a lock")


async def _sessions(run: Run, namespace: str) -> Check:
    """Begin a session of its own, change it and end it."""
    record = session_of(f"{namespace}:nearcache-doctor:{uuid.uuid4().hex}")
    create, save = (("EVAL", script(f"session_{name}").text, "1", record) for name in ("create", "save"))
    tried: list[Command] = [(*create, LIFE, LIFE, "a", "1"), (*save, "100", "", "1", "b", "2", "a"), ("DEL", record)]
    return _tried("sessions", await run(*tried), record, "visitors may have sessions")


async def _limits(run: Run, namespace: str) -> Check:
    """Consume a unit of a limit of its own, of the kind that takes rights which values do not, and give it back."""
    record = limit_of(f"{namespace}:nearcache-doctor:{uuid.uuid4().hex}")
    decide, quota = ("EVAL", script("limit_sliding").text, "1", record), ("5", f"{LIFE}000")
    tried: list[Command] = [(*decide, "hit", "1", "", *quota), (*decide, "refund", "1", "0", *quota), ("DEL", record)]
    return _tried("limits", await run(*tried), record, "what is done can be counted, and given back")


async def _stream(run: Run, namespace: str) -> Check:
    """Ask for what `bus="stream"` needs; an entry with this id is refused by whoever may append."""
    name = bus_of(namespace)
    reading: list[Command] = [("EXISTS", name), ("XREVRANGE", name, "+", "-", "COUNT", "1")]
    reading.append(("XREAD", "COUNT", "1", "STREAMS", name, "$"))
    added, *others = await run(("XADD", name, "0-0", "c", ""), *reading)
    replies = others if "0-0" in str(added) else [added, *others]
    return _tried("stream", replies, name, 'changes are announced by caches that have bus="stream"')


def _tried(name: str, replies: Sequence[Any], subject: str, found: str) -> Check:
    for reply in replies:
        if isinstance(reply, Exception):
            return Check(name, False, str(refused(reply, subject)))
    return Check(name, True, found)


def clock_of(engine: float, sent: float, received: float) -> Check:
    """Judge what the engine said of its time, somewhen between two times of this machine."""
    early, late = engine - received, engine - sent
    off = early if early > 0 else min(late, 0.0)
    found = f"{abs(off):.3f} s {'ahead of' if off > 0 else 'behind'} this machine's" if off else "as this machine's"
    return Check("clock", True, found, APART if abs(off) > CLOCKS_APART else "")


APART: Final = "have the clocks of your machines set: after a fail-over another engine's clock tells how old values are"


def role(info: dict[str, str]) -> Check:
    """Judge whether the engine is what caches write to."""
    kind = "Valkey" if "valkey_version" in info else "Redis"
    name = f"{kind} {info.get('valkey_version') or info.get('redis_version', 'of an unknown version')}"
    if info.get("role") == "slave":
        source = f"{info.get('master_host')}:{info.get('master_port')}"
        return Check("role", False, f"{name}, a replica of {source}", ADVICE["READONLY"])
    replicas = info.get("connected_slaves", "0")
    return Check("role", True, f"{name}, a primary with {replicas} replica{'s' * (replicas != '1')}")


def memory(info: dict[str, str]) -> Check:
    """Judge what happens when the engine is full."""
    told = facts.facts(info)
    used = "an unknown size" if told.used_bytes is None else megabytes(told.used_bytes)
    if told.limit_bytes is None:
        return Check("memory", True, f"{used} used, without a limit", NO_LIMIT)
    found = f"{used} of {megabytes(told.limit_bytes)} used, maxmemory-policy {told.policy}"
    return Check("memory", True, found, REFUSES if told.policy == "noeviction" else "")


REFUSES: Final = "it refuses writes when it is full; set a maxmemory-policy that evicts, such as allkeys-lru"

NO_LIMIT: Final = "set maxmemory, and a maxmemory-policy that evicts, such as allkeys-lru"


def persistence(info: dict[str, str], snapped: bool | None, forgets: bool) -> Check:
    """Judge what a restart brings back."""
    if info.get("aof_enabled") == "1":
        return Check("persistence", True, "an append-only file")
    if snapped is None:
        return Check("persistence", None, "no append-only file; whether there are snapshots the engine does not tell")
    if not snapped:
        return Check("persistence", True, "none: a restart begins empty")
    return Check("persistence", True, "snapshots without an append-only file", "" if forgets else BACK_IN_TIME)


BACK_IN_TIME: Final = (
    "a restart brings back what was deleted since the last one, except in the last minute: use "
    'Cache(on_reset="clear"), an append-only file, or no snapshots (save "")'
)


def snapshots(info: dict[str, str], saves: Any) -> bool | None:
    """Tell whether the engine makes snapshots: by its settings, or where they are secret because it has made one."""
    if saves is not None:
        return bool(cast(dict[bytes, bytes], saves).get(b"save") if isinstance(saves, dict) else saves[1])
    try:
        made, now = int(info["rdb_last_save_time"]), int(info["server_time_usec"]) / 1e6
        started = now - int(info["uptime_in_seconds"])
    except (KeyError, ValueError):
        return None
    return True if made > started + JUST_STARTED else None
