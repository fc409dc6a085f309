"""What INFO says about an engine."""

from nearcache.backends.base import Facts


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
