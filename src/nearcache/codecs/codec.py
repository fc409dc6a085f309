"""From a value to the bytes an engine stores, and back, with the same types."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nearcache.codecs.envelope import NO_SCHEMA, Header
from nearcache.codecs.mismatch import SchemaMismatch
from nearcache.codecs.schema import Schema

__all__ = ["COUNTER", "Codec", "CodecName", "Encoded", "Record", "SchemaMismatch"]

CodecName = Literal["msgpack", "json", "pickle"]
Copier = Callable[[object], object]

VALUE: Final = 1
COUNTER: Final = 2


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as bytes: which codec wrote them, the fingerprint of the declared type, envelope flags, payload."""

    codec: int
    schema: bytes
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """An opened record; `header` is None where there is no envelope (JSON)."""

    header: Header | None
    codec: int
    schema: bytes
    flags: int
    payload: bytes


class Codec:
    """Turns values into stored bytes and back."""

    def __init__(
        self,
        name: CodecName = "msgpack",
        *,
        types: Iterable[type] = (),
        secret: str | bytes | None = None,
        compress_above: int | None = None,
    ) -> None:
        raise NotImplementedError

    enveloped: bool
    """Whether stored bytes begin with a header; False for JSON."""

    def declare(self, annotation: object) -> Schema | None:
        """Note a declared type; return its schema, or None when values describe themselves."""
        raise NotImplementedError

    def schema(self, annotation: object) -> Schema:
        """Return the schema of any supported annotation, for reads that ask for a type."""
        raise NotImplementedError

    def encode(self, value: object, schema: Schema | None = None) -> Encoded:
        """Return the value as bytes; raises `CodecError` unless they decode to the same value of the same types."""
        raise NotImplementedError

    def seal(
        self,
        encoded: Encoded,
        *,
        fill_id: bytes,
        epoch: int,
        born: float,
        soft: float,
        hard: float,
        cost: float,
        tags: Sequence[str] = (),
    ) -> bytes:
        """Return the record to store: header and payload (JSON: the payload alone)."""
        raise NotImplementedError

    def open(self, raw: bytes) -> Record:
        """Split a stored record; raises `CodecError` if it is not ours or not of this release."""
        raise NotImplementedError

    def decode(self, record: Record | Encoded, schema: Schema | None = None) -> object:
        """Return the value; raises `SchemaMismatch` if it is intact but of another type, `CodecError` if it is corrupt."""
        raise NotImplementedError

    def near_form(
        self, value: object, record: Record | Encoded, schema: Schema | None = None
    ) -> tuple[object, Copier | None]:
        """Return (value, None) if it can be shared, else (state, copier): copier(state) is a fresh equal value."""
        raise NotImplementedError
