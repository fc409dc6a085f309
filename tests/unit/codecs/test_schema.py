"""Declared types: what is described how, and fingerprints that tell two versions of a type apart."""

import enum
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar, Union

import msgspec
import pydantic
import pytest

from nearcache.codecs.annotations import conforms, without_none
from nearcache.codecs.codec import Codec
from nearcache.codecs.same import difference
from nearcache.codecs.schema import Schema
from nearcache.errors import CodecError
from tests.unit.codecs.models import Colour, Everything, Odd, Order, Point, User

T = TypeVar("T")


class Box(msgspec.Struct, Generic[T]):
    item: T


def thing(*fields: Any, name: str = "Thing", **options: Any) -> type:
    return make_dataclass(name, fields, **options)


def struct(*fields: Any, **options: Any) -> type:
    return msgspec.defstruct("Thing", fields, **options)


def model(**fields: Any) -> Any:
    return pydantic.create_model("Thing", **fields)


class Total(TypedDict):
    a: int


class Partial(TypedDict):
    a: NotRequired[int]


Partial.__qualname__ = "Total"
A, B = enum.Enum("E", "A"), enum.Enum("E", "A B")
CHANGES = {
    "field added": (thing(("a", int)), thing(("a", int), ("b", int))),
    "field renamed": (thing(("a", int)), thing(("b", int))),
    "field retyped": (thing(("a", int)), thing(("a", str))),
    "field made optional": (thing(("a", int)), thing(("a", int | None))),
    "default added": (thing(("a", int)), thing(("a", int, 1))),
    "default factory added": (thing(("a", list)), thing(("a", list, field(default_factory=list)))),
    "order": (thing(("a", int), ("b", int)), thing(("b", int), ("a", int))),
    "name of the class": (thing(("a", int)), thing(("a", int), name="Other")),
    "container": (list[Point], tuple[Point, ...]),
    "length of a tuple": (tuple[Point], tuple[Point, Point]),
    "element": (list[Point], list[User]),
    "inner field": (thing(("a", thing(("x", int)))), thing(("a", thing(("y", int))))),
    "Enum member added": (thing(("a", A)), thing(("a", B))),
    "Literal": (thing(("a", Literal[1])), thing(("a", Literal[1, 2]))),
    "Literal of another type": (thing(("a", Literal[1])), thing(("a", Literal["1"]))),
    "Struct field": (struct(("a", int)), struct(("a", str))),
    "Struct tag": (struct(("a", int), tag="a"), struct(("a", int), tag="b")),
    "Struct rename": (struct(("a", int)), struct(("a", int), rename="upper")),
    "Struct as array": (struct(("a", int)), struct(("a", int), array_like=True)),
    "NamedTuple": (NamedTuple("N", [("a", int)]), NamedTuple("N", [("a", str)])),
    "TypedDict": (Total, Partial),
    "model field": (model(a=(int, ...)), model(a=(str, ...))),
    "model default": (model(a=(int, ...)), model(a=(int, 1))),
    "model alias": (model(a=(int, ...)), model(a=(int, pydantic.Field(alias="b")))),
    "argument of a generic": (Box[int], Box[str]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_type_has_another_fingerprint(name):
    before, after = CHANGES[name]
    assert Schema(before).fingerprint != Schema(after).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (User, User | None),
        (User, Optional[User]),  # noqa: UP045 -- the old spelling is tested
        (User | str, str | User),
        (User | str, Union[None, str, User]),  # noqa: UP007 -- the old spelling is tested
        (User, Annotated[User, "a note"]),
        (thing(("a", int)), thing(("a", int))),
        (thing(("a", int)), thing(("a", Annotated[int, msgspec.Meta(gt=0)]))),
    ],
    ids=str,
)
def test_the_same_type_has_the_same_fingerprint(one, other):
    assert Schema(one).fingerprint == Schema(other).fingerprint


def test_a_fingerprint_is_the_same_in_every_process():
    program = (
        "from nearcache.codecs.schema import Schema; from tests.unit.codecs.models import *;"
        "print(*(Schema(t).fingerprint.hex() for t in (User, Everything, Cat | Dog, Account)))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    assert len(runs.pop().split()) == 4


@pytest.mark.parametrize(
    "annotation", [int, None, list[int], Any, Colour, list[Odd], Sequence[int], Mapping[str, set[int]], T], ids=str
)
def test_what_describes_itself_has_no_fingerprint(annotation):
    schema = Schema(annotation)
    assert schema.plain
    assert schema.fingerprint == bytes(8)


def test_a_type_that_contains_itself_has_a_finite_description():
    assert Schema(Everything).fingerprint == Schema(Everything).fingerprint


def test_a_generic_class_is_stored():
    schema = Schema(Box[list[int]])
    codec, payload = schema.encode(Box([1]))
    assert schema.decode(codec, payload) == Box([1])
    with pytest.raises(CodecError):
        schema.encode(Box(["a"]))


def test_a_name_that_cannot_be_resolved_is_named():
    broken = thing(("a", "Nowhere"))
    with pytest.raises(CodecError, match="Thing cannot be resolved"):
        Schema(broken)


def test_none_is_left_out_of_a_union():
    assert without_none(None) is None
    assert without_none(int | None) is int
    assert without_none(int | str) == int | str
    assert without_none(int | str | None) == int | str


def test_a_schema_is_printed_with_its_type():
    assert repr(Schema(list[Order])) == "Schema(list[tests.unit.codecs.models.Order])"


def test_conformity_of_abstract_collections():
    assert conforms([1], Sequence[int])
    assert conforms("ab", Sequence[str])
    assert not conforms({1}, Sequence[int])
    assert conforms({"a": 1}, Mapping[str, int])
    assert not conforms({"a": "b"}, Mapping[str, int])
    assert conforms([1], Annotated[list[int], "note"])
    assert not conforms([1], Total)
    assert conforms({"a": 1}, Total)


def test_a_difference_is_found_wherever_it_is():
    for before, after in [
        (1, True),
        (1, 1.0),
        ([1], [1, 2]),
        ([1], (1,)),
        ({"a": 1}, {"a": True}),
        ({1: 1}, {True: 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1}, {True}),
        ({1, 2}, {1, 3}),
        ({float("nan")}, {1.0}),
        ({float("nan"), 2.0}, {2.0}),
        ({(1, float("nan"))}, {(2, float("nan"))}),
        ({(1, float("nan")), (1, float("nan"))}, {(1, float("nan")), 1}),
        ({(1,)}, {(True,)}),
        (User(1), User(1, tags=["x"])),
        (Order(1), Order(2)),
        (float("nan"), 1.0),
    ]:
        assert difference(before, after) is not None
        assert difference(before, before) is None


def test_metadata_that_cannot_be_hashed_does_no_harm():
    codec = Codec()
    annotation = Annotated[User, []]
    record = codec.encode(User(1), codec.declare(annotation))
    assert codec.decode(record, codec.schema(annotation)) == User(1)
