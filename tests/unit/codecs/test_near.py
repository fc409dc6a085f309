"""What near copies share and what they copy."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest

from nearcache.codecs.codec import Codec
from tests.unit.codecs.models import Account, Colour, Level, Point, Polygon, Position, Price, User
from tests.unit.codecs.values import DECLARED, NOON, VALUES

TYPES = (Account, Colour, Level, Point, Polygon, Position, Price, User)

SHARED = {
    "None": None,
    "text": "a",
    "datetime": NOON,
    "tuple": (1, ("a", frozenset({b"x"}))),
    "frozen dataclass": Point(1, 2),
    "frozen Struct": DECLARED["frozen Struct"][1],
    "NamedTuple": Position(1.0, 2.0),
    "Enum": Colour.RED,
    "tuple of frozen": (Point(1, 2), Level.LOW),
}

COPIED = {
    "list": [1],
    "set": {1},
    "dict": {"a": 1},
    "nested list": [[1]],
    "dict of lists": {"a": [1]},
    "list in a tuple": ([1],),
    "list in a frozen dataclass": Polygon([Point(1, 2)]),
    "dataclass": User(1),
    "model": DECLARED["pydantic"][1],
}


@pytest.mark.parametrize("name", SHARED)
def test_what_cannot_be_changed_is_shared(name):
    codec = Codec(types=TYPES)
    assert codec.near_form(SHARED[name], codec.encode(SHARED[name])) == (SHARED[name], None)


@pytest.mark.parametrize("name", COPIED)
def test_what_can_be_changed_is_copied(name):
    codec = Codec(types=TYPES)
    value = COPIED[name]
    state, copier = codec.near_form(value, codec.encode(value))
    assert copier is not None
    assert copier(state) == value
    assert copier(state) is not value
    assert copier(state) is not copier(state)


@pytest.mark.parametrize("value", [[1, 2], {1, 2}, {"a": (1, 2)}], ids=str)
def test_the_state_of_a_flat_copy_is_not_the_callers_object(value):
    codec = Codec()
    before = type(value)(value)
    state, copier = codec.near_form(value, codec.encode(value))
    value.clear()
    assert copier is not None
    assert copier(state) == before


@dataclass(frozen=True)
class Lazy:
    x: int

    @cached_property
    def parts(self) -> list[int]:
        return [self.x]


class Loose(Point):
    """Not frozen, though its base is."""

    notes: Any = None


@dataclass(frozen=True)
class Holder:
    inner: Any = field(default_factory=list)


def test_a_frozen_instance_that_holds_more_than_its_fields_is_copied():
    codec = Codec(types=[Lazy])
    value = Lazy(1)
    assert codec.near_form(value, codec.encode(value))[1] is None
    value.parts.append(2)
    assert codec.near_form(value, codec.encode(value))[1] is not None


@pytest.mark.parametrize("value", [Loose(1, 2), Holder(), Holder(bytearray()), (Loose(1, 2),)], ids=repr)
def test_what_is_not_known_to_be_immutable_is_copied(value):
    codec = Codec("pickle", secret="0123456789abcdef")
    state, copier = codec.near_form(value, codec.encode(value))
    assert copier is not None
    assert copier(state) == value


def test_a_json_value_is_copied_by_its_schema():
    codec = Codec("json")
    schema = codec.declare(User)
    user = User(1, tags=["a"])
    record = codec.open(codec.encode(user, schema).payload)
    state, copier = codec.near_form(user, record, schema)
    assert copier is not None
    assert copier(state) == user


def test_a_record_can_be_kept_as_it_was_read():
    codec = Codec()
    value = VALUES["mixture"]
    stored = codec.seal(codec.encode(value), fill_id=b"12345678", epoch=0, born=0, soft=1, hard=1, cost=0, tags=["t"])
    record = codec.open(stored)
    state, copier = codec.near_form(codec.decode(record), record)
    assert copier is not None
    assert copier(state) == value
