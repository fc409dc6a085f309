"""The ways a declared type is written: by msgspec, by pydantic, or taken apart into self-describing values."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from nearcache.codecs import ids
from nearcache.codecs.selfdescribing import SelfDescribing

Write = Callable[[Any], bytes]
Read = Callable[[bytes | memoryview], Any]

_KEPT: Final = (bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID)
"""Types that are kept as they are when a value is taken apart: the self-describing form knows them."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write values of one declared type."""

    codec: int
    write: Write
    read: Read


def msgspec_forms(annotation: Any) -> tuple[Form, ...]:
    """Return the fast form, and one for field values that msgspec alone would change (zones, ints above 64 bits)."""
    decoder = msgspec.msgpack.Decoder(annotation)
    parts = SelfDescribing()

    def take_apart(value: Any) -> bytes:
        return parts.encode(msgspec.to_builtins(value, builtin_types=_KEPT))

    def put_together(payload: bytes | memoryview) -> Any:
        return msgspec.convert(parts.decode(payload), annotation, builtin_types=_KEPT)

    native = Form(ids.TYPED, msgspec.msgpack.Encoder().encode, decoder.decode)
    return native, Form(ids.TYPED_WIDE, take_apart, put_together)


def pydantic_forms(annotation: Any, enums: Iterable[type[Enum]]) -> tuple[Form, ...]:
    """Return the JSON form, and one for field values that JSON would change (zones, tuples in untyped fields)."""
    adapter = _adapter(annotation)
    parts = SelfDescribing(enums=enums)

    def take_apart(value: Any) -> bytes:
        return parts.encode(adapter.dump_python(value, by_alias=True, round_trip=True, warnings="error"))

    def put_together(payload: bytes | memoryview) -> Any:
        return adapter.validate_python(parts.decode(payload))

    json = _pydantic_json(adapter, ids.PYDANTIC)
    return json, Form(ids.PYDANTIC_WIDE, take_apart, put_together)


def json_form(annotation: Any, pydantic: bool) -> Form:
    """Return the form for JSON without an envelope."""
    if pydantic:
        return _pydantic_json(_adapter(annotation), ids.JSON)
    return Form(ids.JSON, msgspec.json.Encoder().encode, msgspec.json.Decoder(annotation).decode)


def _pydantic_json(adapter: Any, codec: int) -> Form:
    def write(value: Any) -> bytes:
        dumped: bytes = adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
        return dumped

    return Form(codec, write, lambda payload: adapter.validate_json(bytes(payload)))


def _adapter(annotation: Any) -> Any:
    # Optional: whoever declares a model has it installed.
    return importlib.import_module("pydantic").TypeAdapter(annotation)
