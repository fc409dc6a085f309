"""Payloads that other programs read: decimal counters, and JSON as `json.dumps` writes it."""

import json
import re
from types import NoneType
from typing import Any, Final, TypeGuard, cast

from nearcache.codecs.names import name_of
from nearcache.errors import CodecError

_DECIMAL: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_LOWEST: Final = -(1 << 63)
_HIGHEST: Final = (1 << 63) - 1
_JSON_ATOMS: Final = frozenset({NoneType, bool, int, float, str})


def is_counter(value: object) -> TypeGuard[int]:
    """Whether the value is an int (no bool, no subclass) on which an engine can count."""
    return type(value) is int and _LOWEST <= value <= _HIGHEST


def read_counter(payload: bytes | memoryview) -> int:
    """Return the int of a counter's payload; raises `CodecError` for anything but a decimal within 64 bits."""
    if not _DECIMAL.fullmatch(payload) or not _LOWEST <= (number := int(bytes(payload))) <= _HIGHEST:
        raise CodecError("a stored counter is not a decimal number within 64 bits")
    return number


def write_json(value: object) -> bytes:
    """Return the value as JSON; raises `CodecError` naming a type that JSON would give back as another one."""
    _check_json(value)
    return json.dumps(value, allow_nan=False).encode()


def read_json(payload: bytes | memoryview) -> Any:
    """Return the value of a JSON text in UTF-8; raises ValueError for anything else."""
    return json.loads(str(payload, "utf-8"))


def _check_json(value: Any) -> None:
    kind = type(cast("object", value))
    if kind is list:
        _check_all(value)
    elif kind is dict:
        if not all(type(key) is str for key in value):
            raise CodecError("JSON would turn the keys of a dict into text: use str keys, or declare the type")
        _check_all(value.values())
    elif kind not in _JSON_ATOMS:
        raise CodecError(f"JSON would not give back a {name_of(kind)}: declare a return type, or convert the value")


def _check_all(values: Any) -> None:
    if not _JSON_ATOMS.issuperset(map(type, values)):
        for value in values:
            _check_json(value)
