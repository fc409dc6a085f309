"""The envelope: a header of fixed layout in front of every payload that is stored in an engine.

Big-endian, so that a server-side script can read and patch it by offset:

    offset  bytes  field
    0       1      layout version (0xC1: never the first byte of UTF-8 text, msgpack, JSON or a pickle)
    1       1      flags
    2       8      fill id: random, another one with every store
    10      8      epoch: the namespace's stamp when the load began
    18      6      born: milliseconds of the engine's clock, rounded down
    24      4      soft age in seconds (f32): fresh until then
    28      4      hard age in seconds (f32): kept until then
    32      4      cost of the load in seconds (f32)
    36      1      codec id
    37      8      fingerprint of the declared type, zeros for self-describing values
    45      2      length of the tags
    47      n      tags: a msgpack array of str; nothing if there are none
    47+n           payload

Everything else is refused: what another release wrote in another layout is a miss, never a guess.
"""

import math
import struct
from typing import Final, NoReturn

import msgspec

from nearcache.codecs.ids import IN_ENVELOPES
from nearcache.errors import CodecError

VERSION: Final = 0xC1
COMPRESSED: Final = 0x01
"""Flag: the payload is compressed with Zstandard."""
KNOWN_FLAGS: Final = COMPRESSED

FILL_ID: Final = slice(2, 10)
EPOCH: Final = slice(10, 18)
AGES: Final = slice(24, 32)
NO_SCHEMA: Final = bytes(8)
SIZE: Final = 47
"""Bytes of a header without tags."""
TOO_LONG: Final = 1e12
"""Seconds that no engine keeps anything."""

_LAYOUT: Final = struct.Struct(">BB8sQHIfffB8sH")
_AGES: Final = struct.Struct(">ff")
_F32: Final = struct.Struct(">f")
_F32_BITS: Final = struct.Struct(">I")
_MAX_TAGS: Final = 0xFFFF
_tags_out = msgspec.msgpack.Encoder()
_tags_in = msgspec.msgpack.Decoder(tuple[str, ...])


# A Struct, for one is made with every remote hit: a frozen dataclass takes ten times as long.
class Record(msgspec.Struct, frozen=True, gc=False):
    """A stored value and what is known about it: all times in seconds, `born` on the engine's clock."""

    flags: int
    fill_id: bytes
    epoch: int
    born: float
    soft: float
    hard: float
    cost: float
    codec: int
    schema: bytes
    tags: tuple[str, ...] = ()
    payload: bytes = b""


def pack(record: Record) -> bytes:
    """Return the record's bytes; raises `CodecError` for what does not fit."""
    try:
        if not record.tags:
            return _fixed(record, 0) + record.payload
        tags = _tags_out.encode(record.tags)
        if len(tags) > _MAX_TAGS:
            raise ValueError(f"the tags take {len(tags)} bytes, at most {_MAX_TAGS} fit; use fewer or shorter tags")
        return _fixed(record, len(tags)) + tags + record.payload
    except (struct.error, OverflowError, ValueError) as error:
        raise CodecError(f"the header does not fit its layout: {error}") from error


def _fixed(record: Record, tags: int) -> bytes:
    if len(record.fill_id) != 8 or len(record.schema) != 8:
        # struct would pad or cut them silently
        raise ValueError("fill id and schema fingerprint take 8 bytes each")
    born, soft = int(record.born * 1000), toward_zero(record.soft)
    hard = soft if record.hard == record.soft else toward_zero(record.hard)
    cost = toward_zero(record.cost) if record.cost else 0.0
    return _LAYOUT.pack(
        VERSION, record.flags, record.fill_id, record.epoch, born >> 32, born & 0xFFFFFFFF,
        soft, hard, cost, record.codec, record.schema, tags,
    )  # fmt: skip


def unpack(raw: bytes) -> Record:
    """Split a stored record; raises `CodecError` for bytes that are not in this layout."""
    try:
        version, flags, fill_id, epoch, high, low, soft, hard, cost, codec, schema, size = _LAYOUT.unpack_from(raw)
    except struct.error:
        raise CodecError(f"{len(raw)} bytes are too short for a header") from None
    # False for nan too. Nearly every record passes here, so that what is wrong with it is found out elsewhere.
    sound = version == VERSION and 0 <= soft <= hard < TOO_LONG and 0 <= cost < math.inf
    if not sound or flags & ~KNOWN_FLAGS or codec not in IN_ENVELOPES:
        _refuse(version, flags, codec)
    born = (high << 32 | low) / 1000
    if not size:
        return Record(flags, fill_id, epoch, born, soft, hard, cost, codec, schema, (), raw[SIZE:])
    tags = _tags(raw, size)
    return Record(flags, fill_id, epoch, born, soft, hard, cost, codec, schema, tags, raw[SIZE + size :])


def _refuse(version: int, flags: int, codec: int) -> NoReturn:
    if version != VERSION:
        raise CodecError(f"layout version {version:#04x} is unknown to this release (or is foreign)")
    if flags & ~KNOWN_FLAGS:
        raise CodecError(f"flags {flags:#04x} are unknown to this release")
    if codec not in IN_ENVELOPES:
        raise CodecError(f"codec {codec} is unknown to this release")
    raise CodecError("the ages in the header are impossible")


def _tags(raw: bytes, size: int) -> tuple[str, ...]:
    if len(raw) < SIZE + size:
        raise CodecError("the header ends within the tags")
    try:
        return _tags_in.decode(raw[SIZE : SIZE + size])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise CodecError("the tags in the header are not a list of texts") from None


def pack_ages(soft: float, hard: float) -> bytes:
    """Return the 8 bytes at offset 24: soft and hard age in seconds."""
    return _AGES.pack(toward_zero(soft), toward_zero(hard))


def number_of(identity: bytes) -> int:
    """Return a number, not 0, that tells these bytes from others in this process."""
    return hash(identity) & 0x3FFFFFFF or 1  # as large as an int may be that takes 28 bytes


def fill_id_of(raw: bytes) -> bytes:
    """Return the fill id of a stored record, without looking at the rest."""
    return raw[FILL_ID]


def payload_at(raw: bytes) -> int:
    """Return where the payload of a stored record begins."""
    return SIZE + int.from_bytes(raw[SIZE - 2 : SIZE])


def toward_zero(seconds: float) -> float:
    """Return the largest f32 that is not above `seconds`: a time to live is a promise of "at most"."""
    if not 0 <= seconds < math.inf:
        raise ValueError(f"an age must be finite and not negative, not {seconds}")
    packed = _F32.pack(seconds)
    (nearest,) = _F32.unpack(packed)
    if nearest <= seconds:
        return float(nearest)
    below: float = _F32.unpack(_F32_BITS.pack(_F32_BITS.unpack(packed)[0] - 1))[0]
    return below
