"""msgpack in which every value carries its type, so that it comes back the same without a declaration.

What msgpack tells apart by itself (None, bool, int, float, str, bytes, list, dict) is written as it is. Everything else
is a msgpack extension, whose code is its type. Types are matched exactly: a subclass would come back as its base, so it
is refused.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from nearcache.codecs import times
from nearcache.codecs.mismatch import SchemaMismatch
from nearcache.codecs.names import name_of
from nearcache.codecs.structure import is_structured
from nearcache.errors import CodecError

BIG_INT: Final = 1
TUPLE: Final = 2
SET: Final = 3
FROZENSET: Final = 4
MAP: Final = 5
DATETIME: Final = 6
ZONED_DATETIME: Final = 7
DATE: Final = 8
TIME: Final = 9
ZONED_TIME: Final = 10
TIMEDELTA: Final = 11
DECIMAL: Final = 12
UUID_: Final = 13
ENUM: Final = 14
DECLARED: Final = 15

ATOMS: Final = frozenset({NoneType, bool, int, float, str, bytes})
"""Types that msgpack keeps apart by itself (ints up to 64 bits)."""

_encode: Final = msgspec.msgpack.Encoder().encode
_MEMBER: Final = msgspec.msgpack.Decoder(tuple[str, str | int])
_THREE_INTS: Final = msgspec.msgpack.Decoder(tuple[int, int, int])

Wrap = Callable[[Any], object]
Unwrap = Callable[[memoryview], object]


def is_native(value: object) -> bool:
    """Whether msgpack keeps every type in the value by itself, ints above 64 bits aside."""
    kind = type(value)
    if kind is list:
        # Long lists are of one type more often than not.
        return ATOMS.issuperset(map(type, value)) or _are_native(value)  # type: ignore[call-overload]
    if kind is dict:
        return _are_atoms(value) and _are_native(value.values())  # type: ignore[attr-defined]
    return kind in ATOMS


# Loops, not `all`: this is the larger part of what a small value costs to encode.


def _are_atoms(values: Any) -> bool:
    for value in values:  # noqa: SIM110
        if type(value) not in ATOMS:
            return False
    return True


def _are_native(values: Any) -> bool:
    for value in values:  # noqa: SIM110
        if type(value) not in ATOMS and not is_native(value):
            return False
    return True


class SelfDescribing:
    """A writer and reader of self-describing values; classes can be added to the built-in types."""

    def __init__(self, *, enums: Iterable[type[Enum]] = (), read_declared: Unwrap | None = None) -> None:
        self._wraps: dict[type, Wrap] = {
            **_SCALARS,
            int: _int,
            list: lambda value: [self._wrap(item) for item in value],
            dict: self._dict,
            tuple: lambda value: Ext(TUPLE, self._items(value)),
            set: lambda value: Ext(SET, self._items(value)),
            frozenset: lambda value: Ext(FROZENSET, self._items(value)),
        }
        self._unwraps: dict[int, Unwrap] = {
            **_READERS,
            TUPLE: lambda data: tuple(self._list(data)),
            SET: lambda data: set(self._list(data)),
            FROZENSET: lambda data: frozenset(self._list(data)),
            MAP: self._map,
            ENUM: self._member,
        }
        if read_declared is not None:
            self._unwraps[DECLARED] = read_declared
        self._enums: dict[str, type[Enum]] = {}
        for kind in enums:
            self.add_enum(kind)
        self.decode: Final[Callable[[bytes | memoryview], Any]] = msgspec.msgpack.Decoder(ext_hook=self._unwrap).decode
        """Return the value that `encode` wrote. Bytes that it did not write raise anything."""

    def encode(self, value: object) -> bytes:
        """Return the value as bytes; raises `CodecError` naming a type that would not come back, or as msgspec does."""
        if is_native(value):
            try:
                return _encode(value)
            except OverflowError:
                pass  # an int above 64 bits is somewhere inside
        return _encode(self._wrap(value))

    def add_enum(self, kind: type[Enum]) -> None:
        """Write members of this class by name (flags by number)."""
        path = name_of(kind)
        self._enums[path] = kind
        attribute = "value" if issubclass(kind, Flag) else "name"
        self._wraps[kind] = lambda member: Ext(ENUM, _encode([path, getattr(member, attribute)]))

    def add_declared(self, kind: type, write: Callable[[Any], bytes]) -> None:
        """Write instances of exactly this class with `write`; the reader's `read_declared` gets those bytes."""
        self._wraps[kind] = lambda value: Ext(DECLARED, write(value))

    def _wrap(self, value: object) -> object:
        wrap = self._wraps.get(type(value))
        if wrap is None:
            raise refusal(type(value))
        return wrap(value)

    def _items(self, values: Any) -> bytes:
        return self.encode(list(values))

    def _dict(self, value: dict[object, object]) -> object:
        if ATOMS.issuperset(map(type, value)) and all(_fits(key) for key in value):
            return {key: self._wrap(item) for key, item in value.items()}
        return Ext(MAP, self._items([part for pair in value.items() for part in pair]))

    def _unwrap(self, code: int, data: memoryview) -> object:
        unwrap = self._unwraps.get(code)
        if unwrap is None:
            raise CodecError(f"type code {code} is unknown to this release")
        return unwrap(data)

    def _list(self, data: memoryview) -> list[Any]:
        items: list[Any] = self.decode(data)
        if not isinstance(items, list):  # pyright: ignore[reportUnnecessaryIsInstance] -- hostile bytes
            raise CodecError("a collection holds no array")
        return items

    def _map(self, data: memoryview) -> dict[object, object]:
        parts = iter(self._list(data))
        return dict(zip(parts, parts, strict=True))

    def _member(self, data: memoryview) -> Enum:
        path, member = _MEMBER.decode(data)
        kind = self._enums.get(path)
        if kind is None:
            raise SchemaMismatch(f"a stored value holds a member of {path}; name that class in types=[...]")
        try:
            return kind(member) if isinstance(member, int) else kind[member]
        except (KeyError, ValueError):
            raise SchemaMismatch(f"a stored value holds a member that {path} does not have here") from None


def refusal(kind: type) -> CodecError:
    """Return the error for a type that is neither self-describing nor declared."""
    base = next((base for base in kind.__mro__[1:] if base in _SCALARS or base in _CONTAINERS), None)
    declarable = is_structured(kind) or issubclass(kind, Enum)
    advice = [
        *([f"declare it (types=[{kind.__name__}] or a return annotation)"] if declarable else ()),
        *([f"convert it to {base.__name__}"] if base is not None else ()),
        "store its parts",
    ]
    return CodecError(f"a value of type {name_of(kind)} would not come back as that type: {', or '.join(advice)}")


def _fits(key: object) -> bool:
    return type(key) is not int or -(1 << 63) <= key < 1 << 64


def _int(value: int) -> object:
    if -(1 << 63) <= value < 1 << 64:
        return value
    return Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _same(value: object) -> object:
    return value


def _datetime(value: datetime) -> Ext:
    if times.is_simple(value):
        return Ext(DATETIME, value.isoformat().encode())
    return Ext(ZONED_DATETIME, _encode(times.take_apart(value)))


def _time(value: time) -> Ext:
    if times.is_simple(value):
        return Ext(TIME, value.isoformat().encode())
    return Ext(ZONED_TIME, _encode(times.take_apart(value)))


_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})
_SCALARS: Final[Mapping[type, Wrap]] = {
    NoneType: _same,
    bool: _same,
    int: _int,
    float: _same,
    str: _same,
    bytes: _same,
    datetime: _datetime,
    date: lambda value: Ext(DATE, value.isoformat().encode()),
    time: _time,
    timedelta: lambda value: Ext(TIMEDELTA, _encode([value.days, value.seconds, value.microseconds])),
    Decimal: lambda value: Ext(DECIMAL, str(value).encode()),
    UUID: lambda value: Ext(UUID_, value.bytes),
}
_READERS: Final[Mapping[int, Unwrap]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    DATETIME: lambda data: datetime.fromisoformat(str(data, "ascii")),
    ZONED_DATETIME: lambda data: times.put_together(datetime, bytes(data)),
    DATE: lambda data: date.fromisoformat(str(data, "ascii")),
    TIME: lambda data: time.fromisoformat(str(data, "ascii")),
    ZONED_TIME: lambda data: times.put_together(time, bytes(data)),
    TIMEDELTA: lambda data: timedelta(*_THREE_INTS.decode(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
    UUID_: lambda data: UUID(bytes=bytes(data)),
}
