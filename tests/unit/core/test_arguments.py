"""The text of arguments in keys."""

import datetime as dt
import decimal
import enum
import subprocess
import sys
import types
import uuid
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._core.arguments import canonical, escape
from nearcache._core.keys import check_key
from nearcache.errors import InvalidKeyError
from tests.unit.core.argument_values import (
    Color,
    Point,
    Size,
    State,
    Tagged,
    arguments,
    identity,
    neighbours,
    shared_identity,
    texts,
)

HERE = "tests.unit.core.argument_values"

# These texts are in engines: a change makes every release before it miss, and miss invalidations.
TEXTS: list[tuple[Any, str]] = [
    (1, "1"),
    ("1", "1"),
    (-7, "-7"),
    (2**70, "1180591620717411303424"),
    ("", "!str()"),
    ("a b:c%{d}!e", "a%20b%3Ac%25%7Bd%7D%21e"),
    ("zoë+x@example.org", "zoë+x@example.org"),
    ("\u200d\ud800\x00", "%E2%80%8D%ED%A0%80%00"),
    (None, "!None"),
    ("None", "None"),
    (True, "!True"),
    (False, "!False"),
    (1.0, "!float(1.0)"),
    (float("nan"), "!float(nan)"),
    (-0.0, "!float(-0.0)"),
    (b"1", "!bytes(31)"),
    (b"\x00\x01\xfe\xff", "!bytes(0001feff)"),
    (decimal.Decimal("1.50"), "!decimal(1.50)"),
    (decimal.Decimal("1E+3"), "!decimal(1E+3)"),
    (uuid.UUID(int=1), "!uuid(00000000-0000-0000-0000-000000000001)"),
    (dt.date(2026, 2, 3), "!date(2026-02-03)"),
    (dt.datetime(2026, 2, 3, 4, 5, 6), "!datetime(2026-02-03T040506)"),
    (dt.datetime(2026, 2, 3, 4, 5, 6, 7, dt.UTC), "!datetime(2026-02-03T040506.000007+0000)"),
    (dt.datetime(2026, 2, 3, tzinfo=ZoneInfo("Europe/Berlin")), "!datetime(2026-02-03T000000+0100,'Europe/Berlin')"),
    (dt.datetime(2026, 2, 3, fold=1), "!datetime(2026-02-03T000000,fold)"),
    (Color.RED, f"!enum('{HERE}.Color',1)"),
    (Size.SMALL, f"!enum('{HERE}.Size',1)"),
    (State.ONE, f"!enum('{HERE}.State','1')"),
    ((), "!tuple()"),
    (("",), "!tuple('')"),
    ((1, "1", "it's"), "!tuple(1,'1','it%27s')"),
    ([1, [2]], "!list(1,!list(2))"),
    ({"b": 1, "a": None}, "!dict('a'=!None,'b'=1)"),
    (Point(1, "y"), f"!dataclass('{HERE}.Point',x=1,y='y')"),
    (Tagged(1, 2), f"!dataclass('{HERE}.Tagged',x=1,y=2,tag='')"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_the_text_of_an_argument_is_fixed_for_ever(value, text):
    assert canonical(value, "value") == text


def texts_and_identities(values, wrap, identity_of):
    """Return the pairs of text and identity among the values and their neighbours."""
    pool = [wrap(each) for value in values for each in neighbours(value)]
    return {(canonical(each, "value"), repr(identity_of(each))) for each in pool}


def assert_one_to_one(pairs):
    for side in (0, 1):
        assert [same for same, count in Counter(pair[side] for pair in pairs).items() if count > 1] == []


@settings(deadline=None)
@given(st.lists(arguments, min_size=1, max_size=4))
def test_different_arguments_never_share_a_text_except_an_int_and_its_own_text(values):
    assert_one_to_one(texts_and_identities(values, lambda value: value, shared_identity))


@settings(deadline=None)
@given(st.lists(arguments, min_size=1, max_size=4))
def test_inside_a_container_an_int_and_its_text_differ_too(values):
    assert_one_to_one(texts_and_identities(values, lambda value: [value], identity))


@settings(deadline=None)
@given(arguments)
def test_a_text_is_one_valid_part_of_a_key(value):
    text = canonical(value, "value")
    assert text
    assert not set(text) & set(":{} \n\x00")
    if len(text.encode()) <= 190:
        assert check_key(f"entity:{text}") == f"entity:{text}"


@settings(deadline=None)
@given(texts)
def test_no_str_looks_like_a_typed_text(text):
    assert "!" not in escape(text)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=2), st.integers(), min_size=2, max_size=5))
def test_the_order_of_a_dict_does_not_matter(value):
    backwards = dict(reversed(value.items()))
    assert canonical(backwards, "value") == canonical(value, "value")


def test_the_spelling_of_a_decimal_does_not_depend_on_the_threads_context():
    with decimal.localcontext(decimal.Context(capitals=0, prec=2)):
        assert canonical(decimal.Decimal("1.23456E+9"), "value") == "!decimal(1.23456E+9)"


def test_utc_is_one_zone_whoever_made_it():
    moment = dt.datetime(2026, 2, 3)
    assert canonical(moment.replace(tzinfo=ZoneInfo("UTC")), "at") == canonical(moment.replace(tzinfo=dt.UTC), "at")


def test_two_zones_of_the_same_offset_are_different():
    moment = dt.datetime(2026, 2, 3)
    berlin, paris = (moment.replace(tzinfo=ZoneInfo(f"Europe/{city}")) for city in ("Berlin", "Paris"))
    assert canonical(berlin, "at") != canonical(paris, "at")


class Markup(str):
    def __str__(self) -> str:
        return "something else"


class Id(int):
    def __str__(self) -> str:
        return "something else"


class DriverUuid(uuid.UUID):
    def __str__(self) -> str:
        return "something else"


def test_a_str_int_or_uuid_of_a_subclass_is_its_plain_value():
    assert canonical(Markup("<b>"), "value") == "<b>"
    assert canonical(Id(7), "value") == "7"
    assert canonical([Markup("a"), Id(7)], "value") == "!list('a',7)"
    assert canonical(DriverUuid(int=1), "value") == canonical(uuid.UUID(int=1), "value")


@dataclass
class Unfrozen:
    x: int


class Undeclared(Point):
    """Not a dataclass itself: it may hold more than the fields of its base."""


class Named(NamedTuple):
    x: int


class Instant(dt.datetime):
    pass


class ByObject(enum.Enum):
    ONE = object()


LOOP: list[Any] = []
LOOP.append(LOOP)

REFUSED: list[Any] = [
    object(),
    object,
    len,
    lambda: None,
    types,
    {1},
    frozenset({1}),
    1j,
    dt.time(1),
    dt.timedelta(1),
    Unfrozen(1),
    Undeclared(1, 2),
    Named(1),
    Instant(2026, 2, 3),
    ByObject.ONE,
    OrderedDict(a=1),
    bytearray(b"1"),
    range(3),
    LOOP,
    10**700,
    Point(1, object()),
    [1, (2, {"a": object()})],
    {object(): 1},
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_has_no_stable_text_is_refused_naming_the_parameter(value):
    with pytest.raises(InvalidKeyError, match="argument 'user' cannot be part of a key: "):
        canonical(value, "user")


def test_a_refusal_says_the_type_and_what_to_do_but_not_the_value():
    class Secret:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(InvalidKeyError, match=r"Secret has no text .* such as an id") as error:
        canonical([Secret()], "user")
    assert "hunter2" not in str(error.value)


def test_a_program_and_its_importers_agree_on_its_classes(tmp_path):
    (tmp_path / "colors.py").write_text(
        "import enum\n"
        "from nearcache._core.arguments import canonical\n"
        "class Color(enum.Enum):\n"
        "    RED = 1\n"
        "print(canonical(Color.RED, 'color'))\n"
    )
    run = [sys.executable, "-W", "error", "-m", "colors"], [sys.executable, "-W", "error", "-c", "import colors"]
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    texts = [subprocess.check_output(command, cwd=tmp_path, env={"PYTHONPATH": path}, text=True) for command in run]
    assert texts == ["!enum('colors.Color',1)\n"] * 2
