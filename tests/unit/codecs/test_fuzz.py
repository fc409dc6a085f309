"""Any value comes back, and any bytes are a value or a `CodecError`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import ids
from nearcache.codecs.codec import Codec, Encoded
from nearcache.codecs.envelope import COMPRESSED, NO_SCHEMA
from nearcache.codecs.same import difference
from nearcache.errors import CodecError
from tests.unit.codecs.models import Account, Colour, Order, Position, User
from tests.unit.codecs.values import DECLARED, VALUES

SECRET = "0123456789abcdef"


def ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data))


def zoned(*parts: object) -> bytes:
    return ext(7, msgspec.msgpack.encode(["2024-01-01T00:00:00", *parts]))


READERS = {
    "msgpack": Codec(types=[User, Order, Colour, Account, Position]),
    "json": Codec("json"),
    "pickle": Codec("pickle", secret=SECRET),
}
WRITER = READERS["msgpack"]
SAMPLES = [
    WRITER.encode(value, WRITER.declare(annotation))
    for annotation, value in [*((None, value) for value in VALUES.values()), *DECLARED.values()]
]
ANNOTATIONS = [None, int, list[int], User, list[User], Account, Colour, dict[str, Order], User | str]


def try_to_read(reader: Codec, record: Encoded, annotation: Any) -> None:
    """Only `CodecError` may come out, whatever goes in."""
    try:
        value = reader.decode(record, None if annotation is None else reader.schema(annotation))
        reader.near_form(value, record, None if annotation is None else reader.schema(annotation))
    except CodecError:
        return


readers = st.sampled_from(sorted(READERS)).map(READERS.__getitem__)
annotations = st.sampled_from(ANNOTATIONS)
codec_ids = st.integers(0, 9)
fingerprints = st.sampled_from([NO_SCHEMA, *(sample.schema for sample in SAMPLES)])


@given(readers, codec_ids, fingerprints, st.sampled_from([0, COMPRESSED]), st.binary(max_size=200), annotations)
def test_arbitrary_bytes_never_raise_anything_else(reader, codec_id, schema, flags, payload, annotation):
    try_to_read(reader, Encoded(codec_id, schema, flags, payload), annotation)


@st.composite
def damaged(draw) -> Encoded:
    """Draw a real payload with bytes changed, cut, repeated or inserted."""
    sample = draw(st.sampled_from(SAMPLES))
    payload = bytearray(sample.payload)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        gone = draw(st.integers(0, 3))
        payload[at : at + gone] = draw(st.binary(max_size=4))
    return Encoded(sample.codec, sample.schema, sample.flags, bytes(payload))


@given(readers, damaged(), annotations)
def test_damaged_values_never_raise_anything_else(reader, record, annotation):
    try_to_read(reader, record, annotation)


@given(readers, st.binary(max_size=100))
def test_arbitrary_records_never_raise_anything_else(reader, stored):
    for candidate in (stored, b"\xc1\x00" + stored):
        try:
            try_to_read(reader, reader.open(candidate), None)
        except CodecError:
            continue


HOSTILE = {
    "deep lists": b"\x91" * 200_000,
    "deep tuples": None,
    "a list of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "text of 4 GB": b"\xdb\xff\xff\xff\xff",
    "an extension of 4 GB": b"\xc9\xff\xff\xff\xff\x02",
    "an unknown extension": ext(99, b""),
    "a set of lists": ext(3, msgspec.msgpack.encode([[1]])),
    "a tuple that is none": ext(2, b"\x01"),
    "a map with a key too many": ext(5, b"\x91\x01"),
    "a datetime in year 0": ext(6, b"0000-01-01T00:00"),
    "a datetime that is not ASCII": ext(6, b"\xff"),
    "a zone that leads out": zoned(0, "../../../etc/passwd"),
    "a zone that is unknown": zoned(0, "Mars/Base"),
    "an offset of years": zoned(0, [10**18, None]),
    "a fold of 7": zoned(7, None),
    "a timedelta of ages": ext(11, msgspec.msgpack.encode([2**62, 0, 0])),
    "no Decimal": ext(12, b"1,5"),
    "a short UUID": ext(13, b"1"),
    "a declared value without a schema": ext(15, b""),
}


def nested_tuples(depth: int) -> bytes:
    payload = b"\x90"
    for _ in range(depth):
        payload = b"\x91" + msgspec.msgpack.encode(msgspec.msgpack.Ext(2, payload))
    return payload


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payloads_are_corrupt(name):
    payload = HOSTILE[name] or nested_tuples(5_000)
    with pytest.raises(CodecError):
        Codec(types=[User]).decode(Encoded(ids.VALUE, NO_SCHEMA, 0, payload))


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)  # a signalling NaN cannot be hashed
    | st.uuids()
    | st.sampled_from(Colour)
)
hashable = st.recursive(atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashable, max_size=3)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.builds(User, st.integers(), tags=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_made_of_supported_types_comes_back(value):
    encoded = WRITER.encode(value)
    back = WRITER.decode(encoded)
    assert difference(value, back) is None
    state, copier = WRITER.near_form(value, encoded)
    assert difference(value, state if copier is None else copier(state)) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(json_values)
def test_any_json_value_comes_back(value):
    codec = READERS["json"]
    assert difference(value, codec.decode(codec.encode(value))) is None


users = st.builds(
    User,
    id=st.integers(),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    seen=st.none() | st.datetimes(timezones=st.none() | st.timezones()),
    score=st.floats(),
)


@given(users)
def test_any_user_comes_back(user):
    assert difference(user, WRITER.decode(WRITER.encode(user))) is None


accounts = st.builds(Account, id=st.integers(), opened=st.datetimes(timezones=st.none() | st.timezones()), extra=values)


@given(accounts)
def test_any_model_comes_back_or_is_refused(account):
    try:
        encoded = WRITER.encode(account)
    except CodecError:
        return
    assert difference(account, WRITER.decode(encoded)) is None


def test_one_codec_serves_many_threads():
    samples = [(annotation, value) for annotation, value in DECLARED.values()] * 5
    codec = Codec(types=[User])

    def there_and_back(sample: tuple[Any, Any]) -> str | None:
        annotation, value = sample
        schema = codec.declare(annotation)
        return difference(value, codec.decode(codec.encode(value, schema), schema))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(there_and_back, samples)) == [None] * len(samples)
