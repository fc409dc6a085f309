"""Declared types whose stored bytes are pinned. Never change them: their fingerprints are in the pinned bytes."""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, TypedDict

import msgspec
import pydantic


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class User:
    id: int
    name: str
    seen: datetime | None = None
    tags: list[str] = field(default_factory=list)
    colour: Colour = Colour.RED


class Price(msgspec.Struct, frozen=True):
    amount: Decimal
    currency: str = "EUR"


class Position(NamedTuple):
    lat: float
    lon: float


class Row(TypedDict):
    id: int


class Account(pydantic.BaseModel):
    id: int
    opened: datetime | None = None
