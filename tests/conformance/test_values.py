"""A value has the same type from every tier and engine: all kinds of values, both flavours, near and far."""

import dataclasses
import enum
from typing import Any

import pytest

from nearcache import CodecError
from nearcache.codecs.same import difference
from tests.faces import Awaited
from tests.unit.codecs.models import Colour, Level, Odd, Permission
from tests.unit.codecs.values import DECLARED, ENUMS, JSON_VALUES, VALUES


@pytest.mark.options(types=(Colour, Level, Odd, Permission))
async def test_members_of_named_enums_describe_themselves(face: Awaited) -> None:
    for number, value in enumerate(ENUMS.values()):
        await face.set(f"e:{number}", value)
        await check(face, value, lambda number=number: face.get(f"e:{number}"))


async def check(face: Awaited, expected: Any, read: Any) -> None:
    """Read twice: the first may come from the engine, the second from near; both must be exactly the value."""
    for _ in range(2):
        assert difference(await read(), expected) is None


async def test_values_describe_themselves(face: Awaited) -> None:
    for number, value in enumerate(VALUES.values()):
        key = f"v:{number}"
        await face.set(key, value)
        await check(face, value, lambda key=key: face.get(key))
    many = await face.get_many([f"v:{number}" for number in range(len(VALUES))])
    assert difference(list(many.values()), list(VALUES.values())) is None


async def test_values_of_declared_types_come_back(face: Awaited) -> None:
    for number, (annotation, value) in enumerate(DECLARED.values()):

        @face.cached(f"d:{number}:{{n}}", returns=annotation, ignore=("value",))
        @face.loader
        def load(n: int, value: Any = value) -> Any:
            return value

        call = face.awaited(load)
        await check(face, value, lambda call=call: call(1))


@pytest.mark.options(codec="json")
async def test_json_gives_back_what_json_can(face: Awaited) -> None:
    for number, value in enumerate(JSON_VALUES.values()):
        await face.set(f"j:{number}", value)
        await check(face, value, lambda number=number: face.get(f"j:{number}"))
    for refused in ((1, 2), b"x", {1: "a"}, float("nan"), {1}):
        with pytest.raises(CodecError):
            await face.set("j:refused", refused)
    assert await face.incr("j:count", 5) == 5
    assert await face.incr("j:count", -1) == 4
    assert await face.get("j:count") == 4


@pytest.mark.options(codec="pickle", secret="a secret for these tests only")
async def test_pickles_come_back_when_they_were_asked_for(face: Awaited) -> None:
    await face.set("p:1", {"a": (1, {2}), "b": complex(1, 2)})
    await check(face, {"a": (1, {2}), "b": complex(1, 2)}, lambda: face.get("p:1"))


class Shade(enum.Enum):
    """Not declared to any cache."""

    DARK = 1


class Text(str):
    """A text of another type."""

    __slots__ = ()


@dataclasses.dataclass
class Undeclared:
    """Not declared to any cache."""

    x: int


async def test_what_would_come_back_changed_is_refused_and_nothing_is_stored(face: Awaited) -> None:
    await face.set("r:1", "before")
    for value in (
        object(),
        Undeclared(1),
        Shade.DARK,
        Text("a"),
        [Text("a")],
        {"a": Shade.DARK},
        complex(1, 2),
        range(3),
        iter(()),
    ):
        for work in (face.set("r:1", value), face.set_many({"r:1": value}), face.add("r:2", value)):
            with pytest.raises(CodecError, match="r:"):
                await work
        with pytest.raises(CodecError):
            await face.get_or_load("r:3", face.loader(lambda value=value: value))
    assert await face.get("r:1") == "before"
    assert await face.get_many(["r:2", "r:3"]) == {}
