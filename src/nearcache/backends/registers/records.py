"""The records that registers hold beside the cache's own: stubs of leases, the head of a namespace, and buckets.

A *stub* stands where a record is being loaded. It names who loads, and carries the record that is to be replaced, which
is served meanwhile to those who can use it. Its first byte is never that of a record of the cache: those begin with
0xC1 or, where they have no header, with UTF-8 text.

The *head* holds the newest marks of a namespace, *buckets* hold older ones.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, TypeVar

import msgspec

BARE: Final = b"\xc0"
"""The first byte of a stub that carries no record: nothing is stored under this key."""
CARRIES: Final = b"\xbf"
"""The first byte of a stub that carries a record."""

BUCKETS: Final = 64
BUCKET_BYTES: Final = 8_192
"""Bytes of a bucket beyond which its older half becomes its floor."""

_STUBS: Final = BARE + CARRIES
_STUB: Final = struct.Struct(">c8sIB")
_MS: Final = 1_000


class Stub(msgspec.Struct, frozen=True, gc=False):
    """The lease `token` of a key for `life` seconds, and the record that was there. No two have the same `salt`."""

    token: str
    life: float
    old: bytes | None
    salt: bytes

    def bytes(self) -> bytes:
        """Return what is stored."""
        token = self.token.encode()
        kind, old = (BARE, b"") if self.old is None else (CARRIES, self.old)
        return _STUB.pack(kind, self.salt, round(self.life * _MS), len(token)) + token + old


def stub(token: str, life: float, old: bytes | None) -> Stub:
    """Make a stub."""
    return Stub(token, life, old, os.urandom(8))


def stub_in(raw: bytes) -> Stub | None:
    """Return the stub that these bytes are, None if they are none."""
    if raw[:1] not in (BARE, CARRIES):
        return None
    try:
        kind, salt, life, size = _STUB.unpack_from(raw)
        token = raw[_STUB.size : _STUB.size + size].decode("ascii")
    except (struct.error, UnicodeDecodeError):
        return None
    return Stub(token, life / _MS, raw[_STUB.size + size :] if kind == CARRIES else None, salt)


def record_in(raw: bytes | None) -> bytes | None:
    """Return the record itself, or the one that a stub carries."""
    if not raw or raw[0] not in _STUBS:
        return raw
    found = stub_in(raw)
    return raw if found is None else found.old


# Marks

_First = Annotated[int, msgspec.Meta(ge=1 << 32, lt=1 << 62)]
_Stamp = Annotated[int, msgspec.Meta(ge=1, lt=1 << 48)]
"""More than are ever made, and so few that those of a process do not run out, whatever heads somebody makes up."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The newest marks of one incarnation of a namespace, as stamps from 1 on; every mark above `above` is in `log`.

    `first` names the incarnation. It is random: whoever finds another one knows that marks were lost, or that
    everything was invalidated.
    """

    first: _First
    last: _Stamp
    above: _Stamp
    log: dict[str, _Stamp]

    def marked(self, tags: Iterable[str]) -> "Head":
        """Return the head after a mark of these tags."""
        marks = dict.fromkeys(tags, self.last + 1)
        return Head(self.first, self.last + 1, self.above, self.log | marks)

    def halved(self) -> "tuple[Head, dict[str, int]]":
        """Return the head without the older half of its log, and that half; of the newest mark, one tag stays."""
        by_age = sorted(self.log.items(), key=lambda mark: mark[1])
        moved = dict(by_age[: len(by_age) // 2])
        above = max([self.above, *moved.values()])
        return Head(self.first, self.last, above, dict(by_age[len(moved) :])), moved


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """Marks of one incarnation that the head has forgotten; tags without an entry were last marked at `floor`, or
    before. No two that are opened have the same `salt`.
    """

    first: _First
    salt: bytes
    floor: _Stamp
    marks: dict[str, _Stamp]

    def stamp(self, tag: str) -> int:
        """Return the stamp at which the tag was marked at the latest."""
        return max(self.floor, self.marks.get(tag, 0))

    def merged(self, moved: Mapping[str, int]) -> "Bucket":
        """Return the bucket with these marks in it."""
        marks, floor = dict(self.marks), self.floor
        marks |= {tag: stamp for tag, stamp in moved.items() if stamp > self.stamp(tag)}
        bucket = Bucket(self.first, self.salt, floor, marks)
        while len(packed(bucket)) > BUCKET_BYTES:
            by_age = sorted(marks.items(), key=lambda mark: mark[1])
            gone, marks = by_age[: len(by_age) // 2 + 1], dict(by_age[len(by_age) // 2 + 1 :])
            floor = max(floor, gone[-1][1])
            bucket = Bucket(self.first, self.salt, floor, marks)
        return bucket


def new_head() -> Head:
    """Return the head of a new incarnation; with its stamps added, its random number still fits into 63 bits."""
    return Head(1 << 32 | int.from_bytes(os.urandom(8)) >> 2, 1, 1, {})


def opened(first: int, floor: int) -> Bucket:
    """Return a bucket without marks."""
    return Bucket(first, os.urandom(8), floor, {})


def bucket_of(tag: str) -> int:
    """Return the number of the bucket that a tag's marks go to."""
    return zlib.crc32(tag.encode()) % BUCKETS


_out = msgspec.msgpack.Encoder()
_head = msgspec.msgpack.Decoder(Head)
_bucket = msgspec.msgpack.Decoder(Bucket)
_Kind = TypeVar("_Kind", Head, Bucket)


def packed(record: Head | Bucket) -> bytes:
    """Return what is stored."""
    return _out.encode(record)


def head_in(raw: bytes) -> Head | None:
    """Return the head that these bytes are, None if they are none."""
    head = _read(_head, raw)
    return head if head is not None and max([head.above, *head.log.values()]) <= head.last else None


def bucket_in(raw: bytes) -> Bucket | None:
    """Return the bucket that these bytes are, None if they are none."""
    return _read(_bucket, raw)


def _read(decoder: "msgspec.msgpack.Decoder[_Kind]", raw: bytes) -> "_Kind | None":
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
