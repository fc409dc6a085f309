"""The values whose stored bytes are pinned. Add to them; a sample that was released is never changed or removed."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from tests.wire.models import Account, Colour, Position, Price, Row, User

SECRET = "a secret that tests share"
NOON = datetime(2024, 5, 17, 12, 30, 15, 250)
BERLIN = ZoneInfo("Europe/Berlin")

VALUES: Mapping[str, Any] = {
    "None": None,
    "True": True,
    "counter": 42,
    "negative counter": -(2**63),
    "int of 64 bits": 2**64 - 1,
    "int of 71 bits": -(2**70),
    "float": 1.5,
    "infinity": float("-inf"),
    "text": "naïve ☃",
    "bytes": b"\x00\xff",
    "list": [1, "1", 1.0, None],
    "tuple": (1, ("a",)),
    "set": {1},
    "frozenset": frozenset({"a"}),
    "dict": {"a": {"b": []}},
    "int keys": {1: "a", 2: "b"},
    "tuple keys": {(1, "a"): 2},
    "naive datetime": NOON,
    "utc datetime": NOON.replace(tzinfo=UTC),
    "offset datetime": NOON.replace(tzinfo=timezone(timedelta(hours=-3))),
    "named offset": NOON.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
    "zone": NOON.replace(tzinfo=BERLIN),
    "fold": datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    "date": date(2024, 2, 29),
    "time": time(23, 59, 59, 999999),
    "time with zone": time(1, tzinfo=BERLIN),
    "timedelta": timedelta(days=-3, seconds=5, microseconds=7),
    "Decimal": Decimal("-1.50"),
    "UUID": UUID("12345678-1234-5678-1234-567812345678"),
    "Enum": Colour.BLUE,
    "declared inside": [User(1, "a")],
}

DECLARED: Mapping[str, tuple[Any, Any]] = {
    "dataclass": (User, User(1, "a", NOON.replace(tzinfo=UTC), ["x"], Colour.BLUE)),
    "dataclass, zone": (User, User(1, "a", NOON.replace(tzinfo=BERLIN))),
    "list of dataclasses": (list[User], [User(2**63, "b")]),
    "Struct": (Price, Price(Decimal("9.90"))),
    "NamedTuple": (Position, Position(1.5, -2.5)),
    "TypedDict": (Row, {"id": 7}),
    "union": (User | str, "gone"),
    "pydantic": (Account, Account(id=1)),
    "pydantic, zone": (Account, Account(id=1, opened=NOON.replace(tzinfo=BERLIN))),
}
