"""Arguments for tests of keys: every type that may stand in a key, and what makes two of them the same."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from nearcache._core.arguments import canonical


class Color(enum.Enum):
    RED = 1
    GREEN = "1"
    BLUE = None
    PAIR = (1, "a")


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class State(enum.StrEnum):
    ONE = "1"
    OPEN = "open"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Outer:
    class Size(enum.IntEnum):
        SMALL = 1


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any


@dataclass(frozen=True)
class Pair:
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Tagged(Point):
    tag: Any = ""


MEMBERS: list[enum.Enum] = [*Color, *Size, *State, *Access, Access.READ | Access.WRITE, *Outer.Size]

# Few characters, so that different arguments often come near each other.
texts = st.text("1a:%!{}(),='\"_- \n\x00\x7f\u00a0\u200dé\ud800", max_size=4) | st.text(max_size=3)
zones: st.SearchStrategy[Any] = st.none() | st.sampled_from(
    [UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/Paris"), timezone(timedelta(hours=1))]
)
instants = st.datetimes(datetime(2020, 10, 25), datetime(2020, 10, 26), timezones=zones)
scalars = (
    st.sampled_from([None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, "1", "None", "True", "", b"", b"1"])
    | st.integers()
    | texts
    | st.floats()
    | st.binary(max_size=3)
    | st.decimals()
    | st.sampled_from([Decimal(1), Decimal("1.0"), Decimal("1E+2"), Decimal(100), Decimal("-0")])
    | st.uuids()
    | st.builds(lambda n: UUID(int=n), st.integers(0, 2))
    | st.dates(date(2020, 10, 25), date(2020, 10, 27))
    | instants
    | st.sampled_from(MEMBERS)
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=3)
    return (
        lists
        | lists.map(tuple)
        | st.dictionaries(texts | st.integers(0, 2) | st.booleans() | st.none(), inner, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(Tagged, inner, inner, inner)
    )


genuine = st.recursive(scalars, _containers, max_leaves=4)
# A str that is spelt like the text of something else is the way to forge a key.
forged = genuine.map(lambda value: canonical(value, "value"))
arguments = genuine | forged | forged.map(lambda text: (text,))


def neighbours(value: Any) -> list[Any]:
    """Return the value and others that are easily mistaken for it."""
    return [value, str(value), repr(value), canonical(value, "value"), [value], (value,), *_twins(value)]


def _twins(value: Any) -> Iterator[Any]:
    if isinstance(value, enum.Enum):
        yield from [value.value, *(member for member in MEMBERS if member.value == value.value)]
    elif isinstance(value, str):
        yield from _spellings(value)
    elif isinstance(value, bytes):
        yield from [value + b"1", value[:-1], b"1" + value, value.hex()]
    elif isinstance(value, datetime):
        yield from [value.replace(fold=1 - value.fold), value.date(), value.replace(tzinfo=None)]
        yield from [value.replace(tzinfo=ZoneInfo(f"Europe/{city}")) for city in ("Berlin", "Paris")]
    elif isinstance(value, Point | Pair):
        yield from [Point(value.x, value.y), Pair(value.x, value.y), {"x": value.x, "y": value.y}]
        yield from [Point(x, value.y) for x in neighbours(value.x)]
    elif isinstance(value, dict):
        yield from [dict(reversed(value.items())), list(value.items()), list(value), {**value, 1: 1}, {**value, "1": 1}]
    elif isinstance(value, list | tuple):
        yield from [list(value), tuple(value), [*value, ""], [*value, value], ["','".join(map(str, value))]]
        yield from [
            [*value[:at], other, *value[at + 1 :]] for at in range(len(value)) for other in neighbours(value[at])
        ]


def _spellings(text: str) -> Iterator[str]:
    yield from [f"{text}1", f"1{text}", text[:-1], text.lower(), text.upper(), "','".join(text)]
    yield from [quote(text, errors="surrogatepass"), unquote(text, errors="surrogatepass")]
    yield from [text.replace(mark, f"%{ord(mark):02X}") for mark in "%:{}!' "]
    yield from [text.replace(f"%{ord(mark):02X}", mark) for mark in "%:{}!' "]


def identity(value: Any) -> Any:
    """Something equal for two arguments exactly if they are the same, types included (`0.0` is not `-0.0`)."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, enum.Enum):
        return kind, value.name
    if isinstance(value, Point | Pair):
        return kind, [(name, identity(getattr(value, name))) for name in type(value).__dataclass_fields__]
    if isinstance(value, tuple | list):
        return kind, [identity(item) for item in value]
    if isinstance(value, dict):
        return kind, sorted(((repr(key), identity(item)) for key, item in value.items()), key=repr)
    if isinstance(value, datetime):
        return kind, value.replace(tzinfo=None).isoformat(), value.fold, value.utcoffset(), _zone(value)
    return kind, repr(value)


def _zone(value: datetime) -> str:
    return "" if value.tzinfo is None or value.tzname() == "UTC" else repr(value.tzinfo)


def shared_identity(value: Any) -> Any:
    """As `identity`, but an int and its text are the same, as they are in keys."""
    return ("builtins.str", repr(str(value))) if type(value) is int else identity(value)
