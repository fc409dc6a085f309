"""What cannot come back the same is refused when it is stored, and the message shows no value."""

import collections
import dataclasses
import enum
import threading
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from nearcache.codecs.codec import Codec
from nearcache.errors import CodecError
from tests.unit.codecs.models import (
    Account,
    Colour,
    Everything,
    Odd,
    Order,
    Point,
    Polygon,
    Position,
    SubUser,
    User,
    Vault,
)

HIDDEN = "hidden-content"


class Text(str):
    __slots__ = ()


class Count(int):
    pass


class Dates(datetime):
    pass


class Zone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def tzname(self, _: datetime | None) -> str:
        return HIDDEN

    def dst(self, _: datetime | None) -> None:
        return None


class Plain:
    pass


cyclic: list[Any] = [HIDDEN]
cyclic.append(cyclic)
deep: Any = HIDDEN
for _ in range(100_000):
    deep = [deep]

UNDECLARED = {
    "str subclass": Text(HIDDEN),
    "int subclass": Count(1),
    "datetime subclass": Dates(2024, 1, 1),
    "subclass inside": {"a": [Text(HIDDEN)]},
    "subclass as key": {Text(HIDDEN): 1},
    "OrderedDict": collections.OrderedDict(a=HIDDEN),
    "Counter": collections.Counter(a=1),
    "defaultdict": collections.defaultdict(int),
    "deque": collections.deque([1]),
    "bytearray": bytearray(b"a"),
    "memoryview": memoryview(b"a"),
    "complex": 1j,
    "range": range(3),
    "generator": (i for i in [1]),
    "function": len,
    "object": Plain(),
    "class": Plain,
    "undeclared dataclass": Point(1, 2),
    "undeclared Struct": Order(1),
    "undeclared NamedTuple": Position(1.0, 2.0),
    "undeclared Enum": Colour.RED,
    "undeclared model": Account(id=1, opened=datetime(2024, 1, 1)),
    "lone surrogate": HIDDEN + "\ud800",
    "lone surrogate inside": {(HIDDEN + "\ud800",): 1},
    "zone of another kind": datetime(2024, 1, 1, tzinfo=Zone()),
    "zone made twice": datetime(2024, 1, 1, tzinfo=ZoneInfo.no_cache("Europe/Paris")),
    "cycle": cyclic,
    "too deep": deep,
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_value_that_would_change_is_refused(name):
    with pytest.raises(CodecError) as caught:
        Codec().encode(UNDECLARED[name])
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("name", UNDECLARED)
def test_json_refuses_it_too(name):
    if name.startswith("lone"):
        pytest.skip("JSON escapes lone surrogates")
    with pytest.raises(CodecError) as caught:
        Codec("json").encode(UNDECLARED[name])
    assert HIDDEN not in str(caught.value)


def test_the_message_names_the_class_and_how_to_declare_it():
    with pytest.raises(CodecError, match=r"tests\.unit\.codecs\.models\.Point .*types=\[Point\]"):
        Codec().encode([Point(1, 2)])
    with pytest.raises(CodecError, match=r"convert it to str"):
        Codec().encode(Text("a"))


EVERYTHING = {"whole": 1, "number": Decimal(1), "key": None, "colour": Colour.RED, "pair": (1, "a"), "many": {1}}

WRONG = {
    "a subclass": (User, SubUser(1)),
    "text for an int": (User, User(HIDDEN)),  # type: ignore[arg-type]
    "int for a float": (User, User(1, score=2)),
    "bool for an int": (User, User(True)),
    "tuple for a list": (User, User(1, tags=("a",))),  # type: ignore[arg-type]
    "a str subclass": (User, User(1, Text(HIDDEN))),
    "a dict": (User, {"id": 1}),
    "text": (User, HIDDEN),
    "another class": (User, Point(1, 2)),
    "a tuple of users": (list[User], (User(1),)),
    "a subclass in a list": (list[User], [User(1), SubUser(2)]),
    "a list for points": (Polygon, Polygon((Point(1, 2),))),  # type: ignore[arg-type]
    "None for a point": (list[Point], [None]),
    "a secret": (Vault, Vault.model_validate({"secret": HIDDEN})),
    "a changed model": (Account, Account.model_construct(id=HIDDEN, opened=datetime(2024, 1, 1))),
    "an undeclared class in Any": (Account, Account(id=1, opened=datetime(2024, 1, 1), extra=Plain())),
    "no fields": (Everything, object.__new__(Everything)),
}


@pytest.mark.parametrize("codec", [Codec(), Codec("json")], ids=["msgpack", "json"])
@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_is_not_of_its_declared_type_is_refused(codec, name):
    annotation, value = WRONG[name]
    with pytest.raises(CodecError) as caught:
        codec.encode(value, codec.declare(annotation))
    assert HIDDEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_message_names_the_place():
    codec = Codec()
    with pytest.raises(CodecError, match=r"\[1\]\.score: int would come back as float"):
        codec.encode([User(1), User(1, score=2)], codec.declare(list[User]))


@pytest.mark.parametrize(
    "annotation",
    [Plain, list[Plain], dict[str, complex], User | Point, collections.OrderedDict[str, int], threading.Lock, "User"],
    ids=str,
)
def test_a_type_that_cannot_be_stored_is_refused_when_it_is_declared(annotation):
    with pytest.raises(CodecError):
        Codec().declare(annotation)


def test_an_enum_without_plain_values_cannot_be_a_field():
    @dataclasses.dataclass
    class Holder:
        odd: Odd

    with pytest.raises(CodecError, match="Holder"):
        Codec().declare(Holder)


@pytest.mark.parametrize("annotation", [tuple[Plain], set[complex], list[Odd]], ids=str)
def test_json_refuses_a_type_that_it_cannot_write_when_it_is_declared(annotation):
    with pytest.raises(CodecError):
        Codec("json").declare(annotation)


def test_a_dict_that_another_thread_changes_is_refused_or_stored_whole():
    codec = Codec()
    shared: dict[Any, Any] = {date(2024, 1, 1): 1}
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(200):
                shared[number] = datetime(2024, 1, 1, tzinfo=UTC)
            for number in range(200):
                del shared[number]

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(300):
            try:
                encoded = codec.encode(shared)
            except CodecError:
                continue
            assert date(2024, 1, 1) in codec.decode(encoded)
    finally:
        stop.set()
        thread.join()


def test_a_pickle_that_would_not_load_is_refused():
    class Local(enum.Enum):
        A = 1

    codec = Codec("pickle", secret="0123456789abcdef")
    for value in (lambda: None, Local.A, threading.Lock(), deep):
        with pytest.raises(CodecError):
            codec.encode(value)
