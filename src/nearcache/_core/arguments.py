"""The text an argument has in a key: stable, and different for different values.

Only `1` and `"1"` share a text, because ids come from URLs. A str is percent-encoded where it could end a part, open a
brace or not be printed; every other type is written as `!type(...)`, and since `!` is always encoded in a str, no str
can look like one. Inside the parentheses a str stands in quotes, which are encoded in it: a list of two can never look
like one of three, and there `1` and `"1"` differ.
"""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from nearcache.errors import InvalidKeyError

# Written out, because what `str.isprintable` says changes with Python's Unicode tables: two processes with different
# versions of Python must agree on every key. White space, control and format characters, surrogates, private use.
UNPRINTABLE: Final = (
    r"\x00-\x20\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ud800-\uf8ff\ufeff\ufff0-\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
)

_ENCODED: Final = re.compile(rf"[%:{{}}!{UNPRINTABLE}]")
_ENCODED_IN_QUOTES: Final = re.compile(rf"[%:{{}}!'{UNPRINTABLE}]")
SMALL: Final = 1 << 63
"""An int of a smaller amount is its text in a key, whatever Python's limit to the printing of ints."""
_LONGEST_INT: Final = 2_000
"""Bits; Python may refuse to print an int of more than 640 digits, depending on a setting of the process."""


class _UnstableError(Exception):
    """Something has no stable text; the message says what."""


def canonical(value: object, parameter: str) -> str:
    """Return the text of an argument in a key; `InvalidKeyError`, naming the parameter, if its text is not stable."""
    if type(value) is int and -SMALL < value < SMALL:
        return str(value)
    try:
        return _at_top(value)
    except _UnstableError as error:
        raise InvalidKeyError(f"argument {parameter!r} cannot be part of a key: {error}") from None
    except RecursionError:
        raise InvalidKeyError(f"argument {parameter!r} cannot be part of a key: it is nested too deeply") from None


def escape(text: str) -> str:
    """Return a text with everything percent-encoded that could end a part of a key, or be mistaken for a typed text."""
    return _ENCODED.sub(_percent, text)


def _percent(match: re.Match[str]) -> str:
    return percent_encoded(match.group())


def percent_encoded(text: str) -> str:
    """Return a text with every byte of its UTF-8 form written as %XX."""
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _at_top(value: object) -> str:
    value = _as_base(value)
    if type(value) is str:
        return escape(value) or "!str()"
    return _typed(value)


def _nested(value: object) -> str:
    return _typed(_as_base(value))


def _quoted(text: str) -> str:
    return f"'{_ENCODED_IN_QUOTES.sub(_percent, text)}'"


def _as_base(value: object) -> object:
    """A str or int of a subclass is its plain value, but Enum members and dataclasses have a text of their own."""
    if type(value) in _WRITERS or isinstance(value, Enum) or _is_frozen_dataclass(value):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else value


def _typed(value: object) -> str:
    writer = _WRITERS.get(type(value))
    if writer is not None:
        return writer(value)
    if isinstance(value, Enum):
        return f"!enum({_class_name(value)},{_nested(value._value_)})"
    if isinstance(value, UUID):  # drivers have their own subclasses, equal to the plain one
        return _uuid(value)
    if _is_frozen_dataclass(value):
        return _dataclass(value)
    raise _UnstableError(_refusal(type(value)))


def _refusal(kind: type) -> str:
    return (
        f"a {kind.__module__}.{kind.__qualname__} has no text known to be the same in every process; pass something "
        "that has one, such as an id, or name such an attribute in the template: {name.attribute}"
    )


def _int(value: int) -> str:
    if value.bit_length() > _LONGEST_INT:
        raise _UnstableError(f"an int of more than {_LONGEST_INT} bits is too long; pass a str of it")
    return str(value)


def _float(value: float) -> str:
    return f"!float({value!r})"


def _bytes(value: bytes) -> str:
    return f"!bytes({value.hex()})"


def _decimal(value: Decimal) -> str:
    # How Decimal spells its exponent depends on the thread's context.
    return f"!decimal({str(value).upper()})"


def _uuid(value: UUID) -> str:
    return f"!uuid({UUID.__str__(value)})"


def _date(value: date) -> str:
    return f"!date({value.isoformat()})"


def _datetime(value: datetime) -> str:
    fold = ",fold" if value.fold else ""
    return f"!datetime({value.isoformat().replace(':', '')}{_zone(value)}{fold})"


def _zone(value: datetime) -> str:
    """The zone's name, since the offset alone does not tell what tomorrow is; UTC has one meaning, whoever made it."""
    zone = value.tzinfo
    if zone is None or isinstance(zone, timezone):
        return ""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None) or value.tzname()
    return "" if name == "UTC" else f",{_quoted(str(name))}"


def _tuple(value: Iterable[object]) -> str:
    return f"!tuple({_joined(value)})"


def _list(value: Iterable[object]) -> str:
    return f"!list({_joined(value)})"


def _joined(values: Iterable[object]) -> str:
    return ",".join(map(_nested, values))


def _dict(value: dict[object, object]) -> str:
    items = sorted((_nested(key), _nested(item)) for key, item in value.items())
    return f"!dict({','.join(f'{key}={item}' for key, item in items)})"


def _dataclass(value: Any) -> str:
    pairs = "".join(f",{field.name}={_nested(getattr(value, field.name))}" for field in fields(value))
    return f"!dataclass({_class_name(value)}{pairs})"


def _is_frozen_dataclass(value: object) -> bool:
    # A subclass that is no dataclass itself may hold more than its fields tell.
    own = vars(type(value)).get("__dataclass_params__")
    return own is not None and own.frozen and is_dataclass(value)


def _class_name(value: object) -> str:
    kind = type(value)
    return _quoted(f"{_module_name(kind.__module__)}.{kind.__qualname__}")


def _module_name(name: str) -> str:
    """The name under which other processes import the module, also if this one was started by it (`python -m name`)."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec.name if name == "__main__" and spec is not None else name


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "!None",
    bool: lambda value: f"!{value}",
    int: _int,
    str: _quoted,
    float: _float,
    bytes: _bytes,
    Decimal: _decimal,
    UUID: _uuid,
    date: _date,
    datetime: _datetime,
    tuple: _tuple,
    list: _list,
    dict: _dict,
}
