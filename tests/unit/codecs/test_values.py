"""Every type of value comes back the same from every codec that takes it."""

import copy
from typing import Any

import pytest

from nearcache.codecs.codec import Codec, Encoded, Record
from nearcache.codecs.same import difference
from nearcache.errors import CodecError
from tests.unit.codecs.models import Colour, Level, Odd, Permission, User
from tests.unit.codecs.values import DECLARED, ENUMS, JSON_VALUES, VALUES

SECRET = "0123456789abcdef"
ENUM_TYPES = (Colour, Level, Odd, Permission)


def record_of(codec: Codec, encoded: Encoded) -> Record:
    """Send an encoded value through the bytes an engine would store."""
    raw = codec.seal(encoded, fill_id=b"12345678", epoch=7, born=1.5, soft=60.0, hard=90.0, cost=0.25)
    return codec.open(raw)


def there_and_back(codec: Codec, value: Any, annotation: Any = None) -> Any:
    schema = None if annotation is None else codec.declare(annotation)
    return codec.decode(record_of(codec, codec.encode(value, schema)), schema)


def by_name(table):
    return pytest.mark.parametrize("name", sorted(table))


@by_name(VALUES)
def test_a_value_describes_itself(name):
    assert difference(VALUES[name], there_and_back(Codec(), VALUES[name])) is None


@by_name(ENUMS)
def test_members_of_named_enums_describe_themselves(name):
    assert difference(ENUMS[name], there_and_back(Codec(types=ENUM_TYPES), ENUMS[name])) is None


@by_name(DECLARED)
def test_a_value_of_a_declared_type_comes_back(name):
    annotation, value = DECLARED[name]
    assert difference(value, there_and_back(Codec(), value, annotation)) is None


@by_name(DECLARED)
def test_what_one_codec_writes_another_process_reads_with_the_same_declaration(name):
    annotation, value = DECLARED[name]
    writer, reader = Codec(), Codec()
    encoded = writer.encode(value, writer.declare(annotation))
    assert difference(value, reader.decode(record_of(reader, encoded), reader.declare(annotation))) is None


@by_name(DECLARED)
def test_a_declared_value_can_be_read_without_asking_for_its_type(name):
    annotation, value = DECLARED[name]
    codec = Codec()
    encoded = codec.encode(value, codec.declare(annotation))
    assert difference(value, codec.decode(record_of(codec, encoded))) is None


@by_name({**VALUES, **ENUMS, **{name: value for name, (_, value) in DECLARED.items()}})
def test_pickle_gives_everything_back(name):
    value = {**VALUES, **ENUMS, **{name: value for name, (_, value) in DECLARED.items()}}[name]
    assert difference(value, there_and_back(Codec("pickle", secret=SECRET), value)) is None


@by_name(JSON_VALUES)
def test_json_gives_back_its_own_types(name):
    assert difference(JSON_VALUES[name], there_and_back(Codec("json"), JSON_VALUES[name])) is None


@by_name(VALUES.keys() - JSON_VALUES.keys())
def test_json_refuses_what_it_would_change(name):
    with pytest.raises(CodecError):
        Codec("json").encode(VALUES[name])


JSON_CANNOT = {
    "dataclass, zone",
    "dataclass, fold",
    "dataclass, nan",
    "list of dataclasses",
    "dict with other keys",
    "nested in itself",
    "pydantic, utc",
    "pydantic, zone",
    "pydantic, tuple in Any",
    "Enum of odd values",
}


@by_name(DECLARED.keys() - JSON_CANNOT)
def test_json_gives_back_declared_types(name):
    annotation, value = DECLARED[name]
    assert difference(value, there_and_back(Codec("json"), value, annotation)) is None


@by_name(JSON_CANNOT)
def test_json_refuses_declared_values_that_it_would_change(name):
    annotation, value = DECLARED[name]
    with pytest.raises(CodecError):
        there_and_back(Codec("json"), value, annotation)


@by_name([name for name, (annotation, _) in DECLARED.items() if isinstance(annotation, type)])
def test_a_declared_class_may_be_inside_a_value_that_describes_itself(name):
    annotation, value = DECLARED[name]
    codec = Codec()
    codec.declare(annotation)
    assert difference([{"a": (value,)}], there_and_back(codec, [{"a": (value,)}])) is None


@pytest.mark.parametrize("codec", [Codec(types=ENUM_TYPES), Codec("pickle", secret=SECRET)], ids=["msgpack", "pickle"])
@by_name({**VALUES, **ENUMS})
def test_a_near_copy_is_equal_and_independent(codec, name):
    original = {**VALUES, **ENUMS}[name]
    value = copy.deepcopy(original)
    check_near_form(codec, original, value, record_of(codec, codec.encode(value)), None)


@by_name(DECLARED)
def test_a_near_copy_of_a_declared_value_is_equal_and_independent(name):
    annotation, original = DECLARED[name]
    codec = Codec()
    schema = codec.declare(annotation)
    value = copy.deepcopy(original)
    check_near_form(codec, original, value, record_of(codec, codec.encode(value, schema)), schema)


def check_near_form(codec, original, value, record, schema):
    state, copier = codec.near_form(value, record, schema)
    if copier is None:
        assert state is value
        return
    first, second = copier(state), copier(state)
    assert first is not second
    spoil(first)
    spoil(value)
    assert difference(original, second) is None
    assert difference(original, copier(state)) is None


def spoil(value: Any) -> None:
    """Change everything that can be changed in a value."""
    if isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["spoiled"] = 1
    elif isinstance(value, list):
        for item in value:
            spoil(item)
        value.append("spoiled")
    elif isinstance(value, set):
        value.add("spoiled")
    elif isinstance(value, User):
        value.name = "spoiled"
        value.tags.append("spoiled")
    elif isinstance(value, tuple):
        for item in value:
            spoil(item)
