"""Values of every type that describes itself, and of declared types, for round trips."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from tests.unit.codecs.models import (
    Account,
    Cat,
    Colour,
    Dog,
    Everything,
    Level,
    Odd,
    Order,
    Page,
    Permission,
    Point,
    Polygon,
    Position,
    Price,
    Row,
    Secretive,
    User,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2024, 5, 17, 12, 0, 0, 123456)
POINT = Point(1, 2)

JSON_VALUES: Mapping[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "zero": 0,
    "one": 1,
    "negative": -17,
    "63 bits": 2**63 - 1,
    "64 bits negative": -(2**63),
    "64 bits": 2**64 - 1,
    "65 bits": 2**64,
    "huge": -(10**300),
    "float": 1.5,
    "whole float": 1.0,
    "negative zero": -0.0,
    "tiny float": 5e-324,
    "text": "naïve ☃ text",
    "empty text": "",
    "number as text": "1",
    "list": [1, "1", 1.0, True, None],
    "empty list": [],
    "nested": {"a": [{"b": {}}], "": [[]]},
    "empty dict": {},
}

VALUES: Mapping[str, Any] = {
    **JSON_VALUES,
    "nan": float("nan"),
    "infinity": float("inf"),
    "bytes": b"\x00\xff",
    "empty bytes": b"",
    "tuple": (1, "a", (2, [3])),
    "empty tuple": (),
    "set": {1, "1", (1, 2)},
    "empty set": set(),
    "frozenset": frozenset({1, frozenset()}),
    "set of nan": {float("nan"), 1.0, (float("nan"), float("nan"))},
    "int keys": {1: "a", -1: "b", 2**64: "c"},
    "mixed keys": {1: "a", "1": "b", 1.5: "c", None: "d", b"1": "e"},
    "bool key": {True: 1, False: 0},
    "tuple keys": {(1, "a"): {"b": (2,)}, (): 1},
    "date keys": {date(2024, 1, 1): 1, UUID(int=5): 2},
    "naive datetime": NOON,
    "utc datetime": NOON.replace(tzinfo=UTC),
    "offset datetime": NOON.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    "offset with seconds": NOON.replace(tzinfo=timezone(timedelta(seconds=3661, microseconds=5))),
    "named offset": NOON.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
    "zone": NOON.replace(tzinfo=BERLIN),
    "second of two hours": datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    "fold without zone": datetime(2024, 10, 27, 2, 30, fold=1),
    "first datetime": datetime.min,
    "last datetime": datetime.max,
    "date": date(2024, 2, 29),
    "time": time(23, 59, 59, 999999),
    "time with offset": time(1, tzinfo=timezone(timedelta(hours=2))),
    "time with zone": time(1, tzinfo=BERLIN, fold=1),
    "timedelta": timedelta(days=-3, seconds=5, microseconds=7),
    "longest timedelta": timedelta.max,
    "Decimal": Decimal("1.50"),
    "Decimal exponent": Decimal("-1E+30"),
    "Decimal nan": Decimal("NaN"),
    "Decimal signalling nan": Decimal("sNaN12"),
    "Decimal infinity": Decimal("-Infinity"),
    "Decimal negative zero": Decimal("-0.00"),
    "UUID": UUID("12345678-1234-5678-1234-567812345678"),
    "mixture": {"at": NOON, "ids": (UUID(int=1), {Decimal("1.0")}), "big": [2**80]},
}

ENUMS: Mapping[str, Any] = {
    "Enum": Colour.BLUE,
    "IntEnum": Level.HIGH,
    "Enum of odd values": Odd.SECOND,
    "Flag": Permission.READ,
    "Flag of two": Permission.READ | Permission.WRITE,
    "no Flag": Permission(0),
    "Enum inside": {"a": [Colour.RED, (Level.LOW,)], Colour.BLUE: 1},
}

EVERYTHING = Everything(
    1, Decimal("1.10"), UUID(int=3), Colour.RED, (1, "a"), {1, 2}, POINT, b"x", [], other={"a": [1.5]}
)
PARENT = Everything(2**70, Decimal(1), UUID(int=4), Colour.BLUE, (2, ""), set(), POINT, b"", [EVERYTHING], (1, 2))

DECLARED: Mapping[str, tuple[Any, Any]] = {
    "dataclass": (User, User(1, "a", tags=["x"])),
    "optional dataclass": (User | None, User(1)),
    "dataclass, utc": (User, User(1, seen=NOON.replace(tzinfo=UTC))),
    "dataclass, naive": (User, User(1, seen=NOON)),
    "dataclass, zone": (User, User(1, seen=NOON.replace(tzinfo=BERLIN))),
    "dataclass, fold": (User, User(1, seen=datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1))),
    "dataclass, big int": (User, User(2**70)),
    "dataclass, nan": (User, User(1, score=float("nan"))),
    "dataclass with a private field": (Secretive, Secretive(1, 2)),
    "list of dataclasses": (list[User], [User(1), User(2, seen=NOON.replace(tzinfo=BERLIN))]),
    "dict of dataclasses": (dict[str, User], {"a": User(1)}),
    "tuple of dataclasses": (tuple[User, ...], (User(1),)),
    "dict with other keys": (dict[tuple[int, int], User], {(1, 2): User(1)}),
    "frozen dataclass": (Point, POINT),
    "frozen with a list": (Polygon, Polygon([POINT])),
    "every field type": (Everything, EVERYTHING),
    "nested in itself": (Everything, PARENT),
    "Struct": (Order, Order(1, ["a"])),
    "frozen Struct": (Price, Price(Decimal("9.90"), "EUR")),
    "tagged union": (Cat | Dog, Dog(["sit"])),
    "list of a tagged union": (list[Cat | Dog], [Cat(9), Dog([])]),
    "union with a scalar": (User | str, User(1)),
    "union, its scalar": (User | str, "gone"),
    "union, its int": (User | int, 5),
    "NamedTuple": (Position, Position(1.5, -2.5)),
    "list of NamedTuples": (list[Position], [Position(0.0, 1.0)]),
    "TypedDict": (Row, {"id": 1}),
    "TypedDict, other order": (Row, {"name": "a", "id": 1}),
    "pydantic": (Account, Account(id=1, opened=NOON)),
    "pydantic, utc": (Account, Account(id=1, opened=NOON.replace(tzinfo=UTC), position=Position(1.0, 2.0))),
    "pydantic, zone": (Account, Account(id=1, opened=NOON.replace(tzinfo=BERLIN), colour=Colour.BLUE)),
    "pydantic, tuple in Any": (Account, Account(id=1, opened=NOON, extra=(1, {2}))),
    "pydantic, url and alias": (Page, Page.model_validate({"url": "https://example.org/a", "pageTitle": "A"})),
    "pydantic, list": (list[Page], [Page.model_validate({"url": "https://example.org/a"})]),
    "pydantic, optional": (Account | None, Account(id=1, opened=NOON)),
    "Enum": (Colour, Colour.RED),
    "Enum of odd values": (list[Odd], [Odd.FIRST]),
}
