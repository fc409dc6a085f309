"""What INFO says about an engine."""

from collections.abc import Sequence
from typing import TypeVar

from nearcache.backends.base import Facts

T = TypeVar("T")


def read(raw: object) -> dict[str, str]:
    """Return the fields of an answer to INFO."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines}


def facts(info: dict[str, str]) -> Facts:
    """Return what the fields say about size and settings."""
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
    return int(text) if text is not None and text.isdecimal() else None


def of_all(each: Sequence[Facts]) -> Facts:
    """Return the facts of several servers as those of one: sums of sizes, and settings where they agree."""
    return Facts(
        used_bytes=_sum([one.used_bytes for one in each]),
        limit_bytes=_sum([one.limit_bytes for one in each]),
        evictions=_sum([one.evictions for one in each]),
        policy=_common([one.policy for one in each]),
        persistent=_common([one.persistent for one in each]),
        version=_common([one.version for one in each]),
    )


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _common(settings: Sequence[T]) -> T | None:
    return settings[0] if len(set(settings)) == 1 else None
