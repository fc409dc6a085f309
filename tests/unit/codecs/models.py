"""Types as users declare them, shared by the codec's tests."""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pydantic


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Odd(enum.Enum):
    """Its values are nothing that a serializer knows."""

    FIRST = (1, object)
    SECOND = frozenset({2})


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class User:
    id: int
    name: str = "nobody"
    seen: datetime | None = None
    tags: list[str] = field(default_factory=list)
    score: float = 1.0


@dataclass
class SubUser(User):
    pass


@dataclass(frozen=True)
class Point:
    x: int
    y: int


@dataclass(frozen=True)
class Polygon:
    """Frozen, but what it holds can be changed."""

    points: list[Point]


@dataclass(slots=True)
class Everything:
    whole: int
    number: Decimal
    key: UUID
    colour: Colour
    pair: tuple[int, str]
    many: set[int]
    point: Point
    raw: bytes
    children: "list[Everything]"
    other: Any = None


@dataclass
class Secretive:
    id: int
    _hidden: int = 0


class Order(msgspec.Struct):
    id: int
    lines: list[str] = []


class Price(msgspec.Struct, frozen=True):
    amount: Decimal
    currency: str


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Position(NamedTuple):
    lat: float
    lon: float


class Row(TypedDict):
    id: int
    name: NotRequired[str]


class Account(pydantic.BaseModel):
    id: int
    opened: datetime
    colour: Colour = Colour.RED
    position: Position | None = None
    extra: Any = None


class Page(pydantic.BaseModel):
    url: pydantic.HttpUrl
    title: str = pydantic.Field(default="", alias="pageTitle")


class Vault(pydantic.BaseModel):
    secret: pydantic.SecretStr
