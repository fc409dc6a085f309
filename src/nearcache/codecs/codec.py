"""From a value to the bytes an engine stores, and back, with the same types."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from nearcache.codecs import compression, ids, signing, text
from nearcache.codecs.envelope import COMPRESSED, NO_SCHEMA, Record, pack, unpack
from nearcache.codecs.ids import COUNTER
from nearcache.codecs.mismatch import SchemaMismatch
from nearcache.codecs.names import name_of
from nearcache.codecs.near import Copier, flat_copier, is_immutable
from nearcache.codecs.schema import Dialect, Schema
from nearcache.codecs.selfdescribing import SelfDescribing
from nearcache.errors import CodecError, ConfigError

__all__ = ["COUNTER", "Codec", "CodecName", "Copier", "Encoded", "Record", "Schema", "SchemaMismatch"]

CodecName = Literal["msgpack", "json", "pickle"]
Payload = bytes | memoryview

_DIALECTS: Final[dict[CodecName, Dialect]] = {"msgpack": "envelope", "json": "json", "pickle": "pickle"}


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A value as bytes: which codec wrote them, fingerprint of the declared type, envelope flags, payload."""

    codec: int
    schema: bytes
    flags: int
    payload: bytes


class Codec:
    """Turns values into stored bytes and back; safe to use from several threads.

    `types` are classes whose instances may be stored without a declaration at the call, `secret` signs pickles, and
    payloads of more than `compress_above` bytes are compressed. Raises `ConfigError` for an unknown name, for pickle
    without a secret of 16 bytes or more, and for compression without its library; `CodecError` for a class that cannot
    be stored.

    >>> codec = Codec()
    >>> encoded = codec.encode({"seen": (1, 2)})
    >>> codec.decode(encoded)
    {'seen': (1, 2)}
    """

    def __init__(
        self,
        name: CodecName = "msgpack",
        *,
        types: Iterable[type] = (),
        secret: str | bytes | None = None,
        compress_above: int | None = None,
    ) -> None:
        if name not in _DIALECTS:
            raise ConfigError(f"codec={name!r} is unknown; it may be {', '.join(get_args(CodecName))}")
        if compress_above is not None:
            compression.require()
        self.name: Final = name
        self.enveloped: Final = name != "json"
        """Whether stored bytes begin with a header."""
        self.open: Final = unpack if self.enveloped else _bare
        """Splits a stored record; raises `CodecError` if it is not the library's, or has a newer layout."""
        self._pickle: Final = signing.SignedPickle(secret) if name == "pickle" else None
        self._compress_above: Final = compress_above
        self._values: Final = SelfDescribing(read_declared=self._read_declared)
        self._schemas: Final[dict[object, Schema]] = {}
        self._by_fingerprint: Final[dict[bytes, Schema]] = {}
        self._by_class: Final[dict[type, Schema]] = {}
        for kind in types:
            self.declare(kind)

    def declare(self, annotation: object) -> Schema | None:
        """Note a declared type, and return its schema; None when its values describe themselves.

        Members of an Enum do too, but those of another class of that name are not wanted: its schema tells.
        Raises `CodecError` naming the type if its values cannot be stored.
        """
        schema = self.schema(annotation)
        return None if schema.plain and not schema.enums else schema

    def schema(self, annotation: object) -> Schema:
        """Return the schema of a type, to write or check values with; the type is noted as by `declare`."""
        try:
            known = self._schemas.get(annotation)
        except TypeError:  # metadata that cannot be hashed
            return self._note(Schema(annotation, _DIALECTS[self.name]))
        if known is None:
            known = self._schemas[annotation] = self._note(Schema(annotation, _DIALECTS[self.name]))
        return known

    def _note(self, schema: Schema) -> Schema:
        for kind in schema.enums:
            self._values.add_enum(kind)
        if schema.forms and self.enveloped:
            self._by_fingerprint[schema.fingerprint] = schema
            self._note_class(schema)
        return schema

    def _note_class(self, schema: Schema) -> None:
        kind = schema.annotation
        # A TypedDict's instances are plain dicts.
        if isinstance(kind, type) and not hasattr(kind, "__total__"):
            self._by_class[kind] = schema
            self._values.add_declared(kind, lambda value: _nested(schema, value))

    def encode(self, value: object, schema: Schema | None = None) -> Encoded:
        """Return the value as bytes; raises `CodecError` unless they give back the same value with the same types.

        Takes time linear in the value's size. None and ints within 64 bits are written the same way under every schema.
        """
        try:
            return self._compressed(*self._write(value, schema))
        except CodecError:
            raise
        except Exception as error:  # noqa: BLE001 -- libraries and user code; not chained, for their messages quote values
            raise CodecError(f"a {name_of(type(value))} cannot be stored ({type(error).__name__})") from None

    def _write(self, value: object, schema: Schema | None) -> tuple[int, bytes, bytes]:
        typed = None if schema is None or schema.plain else schema
        if not self.enveloped:
            return _write_json(value, typed)
        if text.is_counter(value):
            return COUNTER, NO_SCHEMA, str(value).encode()
        if self._pickle is not None and value is not None:
            return ids.PICKLE, typed.fingerprint if typed else NO_SCHEMA, self._pickle.write(value)
        return self._write_msgpack(value, typed or self._by_class.get(type(value)))

    def _write_msgpack(self, value: object, typed: Schema | None) -> tuple[int, bytes, bytes]:
        if typed is None or value is None:
            return ids.VALUE, NO_SCHEMA, self._values.encode(value)
        codec, payload = typed.encode(value)
        return codec, typed.fingerprint, payload

    def _compressed(self, codec: int, schema: bytes, payload: bytes) -> Encoded:
        if self._compress_above is None or len(payload) <= self._compress_above or not self.enveloped:
            return Encoded(codec, schema, 0, payload)
        packed = compression.compress(payload)
        shorter = len(packed) < len(payload)
        return Encoded(codec, schema, COMPRESSED if shorter else 0, packed if shorter else payload)

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
        """Return the record to store: header and payload, for JSON the payload alone.

        `born` is in seconds of the engine's clock; `soft`, `hard` and `cost` are seconds. `fill_id` is 8 random bytes.
        """
        if not self.enveloped:
            return encoded.payload
        codec, schema, flags = encoded.codec, encoded.schema, encoded.flags
        payload = encoded.payload
        return pack(Record(flags, fill_id, epoch, born, soft, hard, cost, codec, schema, tuple(tags), payload))

    def decode(self, record: Record | Encoded, schema: Schema | None = None) -> Any:
        """Return the value, of the type the schema asks for if one is given.

        Raises `SchemaMismatch` if it is intact but of another type than asked for, or of one that was not declared
        here; `CodecError` if it is corrupt or not to be trusted; nothing else, whatever the bytes.
        """
        try:
            if record.codec == ids.VALUE and not record.flags:
                value = self._values.decode(record.payload)
            else:
                value = self._reader(record, schema)(_payload(record))
            return value if schema is None or _is_exactly(record, schema) else schema.check(value)
        except CodecError:
            raise
        except Exception as error:  # noqa: BLE001 -- libraries and user code; not chained, for their messages quote values
            raise CodecError(f"a stored value cannot be decoded ({type(error).__name__})") from None

    def _reader(self, record: Record | Encoded, schema: Schema | None) -> Callable[[Payload], Any]:
        if record.codec == ids.VALUE:
            return self._values.decode
        if record.codec == COUNTER:
            return text.read_counter
        if record.codec == ids.JSON:
            return text.read_json if schema is None or schema.plain else _json_reader(schema)
        if record.codec == ids.PICKLE:
            return self._pickle_reader(record, schema)
        return self._schema_of(record.schema, schema).reader(record.codec)

    def _pickle_reader(self, record: Record | Encoded, schema: Schema | None) -> Callable[[Payload], Any]:
        if self._pickle is None:
            raise CodecError("a stored value is a pickle, which only codec='pickle' loads")
        if schema is not None and not schema.plain and record.schema not in (NO_SCHEMA, schema.fingerprint):
            raise SchemaMismatch(f"a stored pickle was not declared as {schema.name}")
        return self._pickle.read

    def _schema_of(self, fingerprint: bytes, asked: Schema | None) -> Schema:
        if asked is not None and asked.forms and asked.fingerprint == fingerprint:
            return asked
        known = self._by_fingerprint.get(fingerprint)
        if known is None:
            raise SchemaMismatch(f"a stored value has a declared type ({fingerprint.hex()}) that is not declared here")
        return known

    def _read_declared(self, data: memoryview) -> Any:
        return self._schema_of(bytes(data[:8]), None).decode(data[8], data[9:])

    def near_form(
        self, value: object, record: Record | Encoded, schema: Schema | None = None
    ) -> tuple[object, Copier | None]:
        """Return (value, None) if nobody can change the value, else (state, copier).

        `copier(state)` returns a fresh equal value each time. `record` is what the value was decoded from or encoded
        to, `schema` the one that was used for that.
        """
        if is_immutable(value):
            return value, None
        copier = flat_copier(value)
        if copier is not None:
            return copier(value), copier
        if record.codec == ids.PICKLE and self._pickle is not None:
            return self._pickle.verify(_payload(record)), signing.load
        return _payload(record), self._reader(record, schema)


def _bare(payload: bytes) -> Record:
    """Return a record of which nothing is known but the payload: ages are 0."""
    return Record(0, b"", 0, 0.0, 0.0, 0.0, 0.0, ids.JSON, NO_SCHEMA, (), payload)


def _nested(schema: Schema, value: object) -> bytes:
    codec, payload = schema.encode(value)
    return schema.fingerprint + bytes([codec]) + payload


def _write_json(value: object, typed: Schema | None) -> tuple[int, bytes, bytes]:
    if typed is None or value is None:
        return ids.JSON, NO_SCHEMA, text.write_json(value)
    return ids.JSON, typed.fingerprint, typed.encode(value)[1]


def _json_reader(schema: Schema) -> Callable[[Payload], Any]:
    read = schema.reader(ids.JSON)

    def read_typed(payload: Payload) -> Any:
        if payload == b"null":
            return None
        try:
            return read(payload)
        except Exception:  # noqa: BLE001 -- pydantic's validators are user code
            text.read_json(payload)  # raises if it is not even JSON
            raise SchemaMismatch(f"a stored JSON text does not have the type {schema.name}") from None

    return read_typed


def _payload(record: Record | Encoded) -> Payload:
    return compression.decompress(record.payload) if record.flags & COMPRESSED else record.payload


def _is_exactly(record: Record | Encoded, schema: Schema) -> bool:
    """Whether the payload was read by this very schema, so that the value need not be checked."""
    return bool(schema.forms) and (record.codec == ids.JSON or record.schema == schema.fingerprint)
