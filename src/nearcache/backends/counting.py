"""Counters where no engine counts: what becomes of a record that is added to."""

from typing import Final

from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import FILL_ID, payload_at, unpack
from nearcache.errors import CodecError

SIGNED_LIMIT: Final = 1 << 63


def counted(key: str, raw: bytes | None, by: int, fresh: bytes) -> tuple[int, bytes]:
    """Return the sum of a record (None counts as 0) and a number, and the record that holds it.

    `fresh` is the header of a new record; that of an old one is kept, but for the fill id. b"": there are no headers.
    Raises `CodecError` if the record holds no integer, or the sum does not fit into 64 bits.
    """
    total = by if raw is None else by + _integer(key, raw, enveloped=fresh != b"")
    if not -SIGNED_LIMIT <= total < SIGNED_LIMIT:
        raise CodecError(f"the sum for {key!r} does not fit into 64 bits")
    header = fresh if raw is None or not fresh else patched(raw[: payload_at(raw)], FILL_ID, fresh[FILL_ID])
    return total, header + b"%d" % total


def _integer(key: str, raw: bytes, *, enveloped: bool) -> int:
    try:
        if enveloped:
            record = unpack(raw)
            raw = record.payload if record.codec == COUNTER and not record.flags else b""
        return int(raw)
    except ValueError:  # a CodecError is one
        raise CodecError(f"{key!r} holds no integer to add to") from None


def patched(raw: bytes, where: slice, patch: bytes) -> bytes:
    """Return a record with other bytes in one place; b"" changes nothing."""
    return raw[: where.start] + patch + raw[where.stop :] if patch else raw
