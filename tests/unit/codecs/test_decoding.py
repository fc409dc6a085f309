"""Reading: the type that is asked for, and values of other schemas."""

from dataclasses import dataclass, make_dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NewType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import ids, text
from nearcache.codecs.codec import COUNTER, Codec, Encoded, SchemaMismatch
from nearcache.codecs.envelope import NO_SCHEMA
from nearcache.codecs.same import difference
from nearcache.errors import CodecError
from tests.unit.codecs.models import Account, Cat, Colour, Dog, Point, Row, SubUser, User

SECRET = "0123456789abcdef"
UserId = NewType("UserId", int)


def raw(codec_id: int, payload: bytes, schema: bytes = NO_SCHEMA, flags: int = 0) -> Encoded:
    return Encoded(codec_id, schema, flags, payload)


def typed(codec: Codec, value: object, annotation: Any) -> Encoded:
    return codec.encode(value, codec.declare(annotation))


ASKED = {
    "int": (5, int, True),
    "int for float": (5, float, True),
    "bool for int": (True, int, False),
    "int for bool": (1, bool, False),
    "text for int": ("5", int, False),
    "NewType": (5, UserId, True),
    "anything": ([1], Any, True),
    "object": ([1], object, True),
    "None": (None, int, True),
    "optional": ("a", str | None, True),
    "union": ("a", int | str, True),
    "outside a union": (1.5, int | str, False),
    "literal": ("a", Literal["a", "b"], True),
    "other literal": ("c", Literal["a", "b"], False),
    "literal of another type": (True, Literal[1], False),
    "list": ([1, 2], list[int], True),
    "bare list": ([1, "a"], list, True),
    "list of others": ([1, "a"], list[int], False),
    "tuple for list": ((1,), list[int], False),
    "tuple": ((1, "a"), tuple[int, str], True),
    "long tuple": ((1, "a", 2), tuple[int, str], False),
    "any tuple": ((1, 2, 3), tuple[int, ...], True),
    "empty tuple": ((), tuple[()], True),
    "dict": ({"a": 1}, dict[str, int], True),
    "dict of others": ({"a": "b"}, dict[str, int], False),
    "dict with other keys": ({1: 1}, dict[str, int], False),
    "set": ({1}, set[int], True),
    "frozenset for set": (frozenset({1}), set[int], False),
    "datetime for date": (datetime(2024, 1, 1, tzinfo=UTC), UUID, False),
    "TypedDict": ({"id": 1}, Row, True),
    "TypedDict without a field": ({"name": "a"}, Row, False),
    "TypedDict with another field": ({"id": 1, "age": 3}, Row, False),
    "dict for a dataclass": ({"id": 1, "name": "a"}, User, False),
    "text for an Enum": ("red", Colour, False),
}


@pytest.mark.parametrize("codec", [Codec(), Codec("pickle", secret=SECRET)], ids=["msgpack", "pickle"])
@pytest.mark.parametrize("name", ASKED)
def test_a_value_without_a_schema_is_given_only_as_the_type_asked_for(codec, name):
    value, annotation, fits = ASKED[name]
    record = codec.encode(value)
    if fits:
        assert difference(value, codec.decode(record, codec.schema(annotation))) is None
        return
    with pytest.raises(SchemaMismatch):
        codec.decode(record, codec.schema(annotation))


@pytest.mark.parametrize("value", [None, 5, -(2**63)])
@pytest.mark.parametrize("annotation", [User, int | User, User | None, Account])
def test_none_and_ints_are_stored_the_same_way_under_every_schema(value, annotation):
    codec = Codec()
    encoded = typed(codec, value, annotation)
    assert encoded == codec.encode(value)
    assert codec.decode(encoded) == value


def test_an_int_is_stored_as_decimal_text_for_the_engine_to_count_on():
    assert Codec().encode(-42) == Encoded(COUNTER, NO_SCHEMA, 0, b"-42")
    assert Codec("pickle", secret=SECRET).encode(42).payload == b"42"
    assert Codec("json").encode(42).payload == b"42"
    assert Codec(compress_above=0).encode(2**62).flags == 0
    assert Codec().encode(True).codec == ids.VALUE
    assert Codec().encode(2**63).codec == ids.VALUE


@pytest.mark.parametrize(
    "payload", [b"", b"-", b"-0", b"01", b"+1", b" 1", b"1\n", b"1_0", b"1.0", b"9" * 19, b"9" * 5000, b"\xd9\xa1"]
)
def test_a_counter_that_is_not_a_decimal_within_64_bits_is_corrupt(payload):
    with pytest.raises(CodecError):
        Codec().decode(raw(COUNTER, payload))


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_counter_comes_back(number):
    assert text.read_counter(str(number).encode()) == number


def test_a_value_of_an_undeclared_type_is_a_mismatch_and_not_corrupt():
    writer = Codec(types=[User, Colour])
    for value in (User(1), [User(1)], (Colour.RED,), Colour.RED):
        with pytest.raises(SchemaMismatch):
            Codec().decode(writer.encode(value))


def test_a_member_or_class_that_is_gone_is_a_mismatch():
    payload = Codec(types=[Colour]).encode(Colour.RED).payload.replace(b"RED", b"TAN")
    with pytest.raises(SchemaMismatch):
        Codec(types=[Colour]).decode(raw(ids.VALUE, payload))


def test_another_type_than_the_stored_one_is_a_mismatch():
    codec = Codec()
    record = typed(codec, User(1), User)
    for annotation in (Point, Account, int, list[User], dict[str, int]):
        with pytest.raises(SchemaMismatch):
            codec.decode(record, codec.schema(annotation))


def test_a_type_that_includes_the_stored_one_is_given():
    codec = Codec(types=[User, SubUser, Cat])
    assert codec.decode(codec.encode(SubUser(1)), codec.schema(User)) == SubUser(1)
    assert codec.decode(codec.encode(User(1)), codec.schema(User | None)) == User(1)
    assert codec.decode(codec.encode(Cat(9)), codec.schema(Cat | Dog)) == Cat(9)
    assert codec.decode(codec.encode([User(1)]), codec.schema(list[User])) == [User(1)]
    with pytest.raises(SchemaMismatch):
        codec.decode(codec.encode(User(1)), codec.schema(SubUser))


def test_two_releases_do_not_read_each_others_fields():
    old = make_dataclass("Thing", [("id", int)])
    new = make_dataclass("Thing", [("id", int), ("name", str, "x")])
    writer, reader = Codec(types=[old]), Codec(types=[new])
    record = writer.encode(old(1))
    with pytest.raises(SchemaMismatch):
        reader.decode(record)
    with pytest.raises(SchemaMismatch):
        reader.decode(record, reader.schema(new))


def test_a_class_defined_again_takes_over():
    codec = Codec()
    for _ in range(2):

        @dataclass
        class Cell:
            id: int

        record = typed(codec, Cell(1), Cell)
        assert type(codec.decode(record)) is Cell


def test_an_instance_of_a_declared_class_needs_no_schema():
    codec = Codec(types=[User])
    assert codec.encode(User(1)) == typed(codec, User(1), User)


def test_what_describes_itself_needs_no_schema():
    codec = Codec()
    for annotation in (
        None,
        int,
        list[int],
        dict[str, tuple[int, ...]],
        Any,
        "int | None" and int | None,
    ):
        assert codec.declare(annotation) is None
    for enum in (Colour, list[Colour]):
        assert codec.declare(enum) is not None, "another class of that name has other members"
    assert Codec("json").declare(list[dict[str, int]]) is None
    assert Codec("json").declare(tuple[int, int]) is not None
