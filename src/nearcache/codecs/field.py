"""How one value stands in a record of several: with what has to be known to read it, and no more."""

from typing import Final

from nearcache.codecs import ids
from nearcache.codecs.codec import Codec, Encoded
from nearcache.codecs.envelope import COMPRESSED, NO_SCHEMA
from nearcache.errors import CodecError

_FLAGS: Final = frozenset({0, COMPRESSED})
_PAYLOAD: Final = 10
"""Where the payload begins: after the codec, the flags, and eight bytes of the declared type."""


def pack(codec: Codec, encoded: Encoded) -> bytes:
    """Return a value as it is stored; of JSON the text alone."""
    if not codec.enveloped:
        return encoded.payload
    return bytes((encoded.codec, encoded.flags)) + encoded.schema + encoded.payload


def unpack(codec: Codec, raw: bytes) -> Encoded:
    """Return what `pack` was given; raises `CodecError` for bytes that it never returns."""
    if not codec.enveloped:
        return Encoded(ids.JSON, NO_SCHEMA, 0, raw)
    if len(raw) < _PAYLOAD or raw[0] not in ids.IN_ENVELOPES or raw[1] not in _FLAGS:
        raise CodecError("a stored field was not written by this library, or by a newer release")
    return Encoded(raw[0], raw[2:_PAYLOAD], raw[1], raw[_PAYLOAD:])
