"""The envelope: its layout, its limits, and what it refuses."""

import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from nearcache.codecs import envelope
from nearcache.codecs.envelope import Record, fill_id_of, pack, pack_ages, toward_zero, unpack
from nearcache.codecs.ids import IN_ENVELOPES
from nearcache.errors import CodecError

HEADER = Record(
    flags=1,
    fill_id=b"abcdefgh",
    epoch=2**63,
    born=1_700_000_000.123,
    soft=59.5,
    hard=120.0,
    cost=0.25,
    codec=3,
    schema=b"SCHEMA..",
    tags=("team:1", "ü"),
)
f32 = st.floats(min_value=0, max_value=2.0**100, width=32)
ages = st.floats(min_value=0, max_value=2.0**39, width=32)
headers = st.builds(
    Record,
    flags=st.sampled_from([0, envelope.COMPRESSED]),
    fill_id=st.binary(min_size=8, max_size=8),
    epoch=st.integers(0, 2**64 - 1),
    born=st.integers(0, 2**48 - 1).map(lambda ms: ms / 1000),
    soft=ages,
    hard=ages,
    cost=f32,
    codec=st.sampled_from(sorted(IN_ENVELOPES)),
    schema=st.binary(min_size=8, max_size=8),
    tags=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5).map(tuple),
)


@given(headers, st.binary(max_size=50))
def test_a_header_comes_back_with_its_payload(header, payload):
    header = replace(header, hard=max(header.soft, header.hard))
    back = unpack(pack(replace(header, payload=payload)))
    assert back.payload == payload
    # whole milliseconds, of which a float may miss the last one downwards
    assert 0 <= header.born - back.born <= 0.0011
    assert replace(back, born=header.born, payload=b"") == header


def test_each_field_has_its_offset():
    raw = pack(HEADER)
    assert raw[0] == 0xC1
    assert raw[1] == 1
    assert raw[2:10] == b"abcdefgh" == fill_id_of(raw)
    assert int.from_bytes(raw[10:18], "big") == 2**63
    assert int.from_bytes(raw[18:24], "big") == 1_700_000_000_123
    assert struct.unpack(">fff", raw[24:36]) == (59.5, 120.0, 0.25)
    assert raw[36] == 3
    assert raw[37:45] == b"SCHEMA.."
    assert int.from_bytes(raw[45:47], "big") == len(raw) - 47


def test_ages_can_be_patched_in_place():
    raw = bytearray(pack(HEADER))
    raw[envelope.AGES] = pack_ages(5.0, 7.0)
    header = unpack(bytes(raw))
    assert header == replace(HEADER, soft=5.0, hard=7.0)


@given(st.floats(min_value=0, max_value=1e9))
@example(3600 * 0.95)
@example(0.1)
@example(5e-324)
def test_an_age_is_never_rounded_up(seconds):
    stored = toward_zero(seconds)
    assert stored <= seconds
    assert seconds - stored <= seconds * 2**-23 + 1e-44
    assert struct.unpack(">ff", pack_ages(seconds, seconds)) == (stored, stored)


@pytest.mark.parametrize(
    "change",
    [
        {"soft": math.inf},
        {"hard": math.nan},
        {"cost": -1.0},
        {"soft": 1e39},
        {"epoch": -1},
        {"epoch": 2**64},
        {"born": -1.0},
        {"born": math.inf},
        {"fill_id": b"short"},
        {"schema": b"123456789"},
        {"codec": 256},
        {"flags": -1},
        {"tags": ("\ud800",)},
        {"tags": ("x" * 70_000,)},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change):
    with pytest.raises(CodecError):
        pack(replace(HEADER, **change))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        pack(HEADER)[:46],
        pack(HEADER)[:50],
        b"\xc2" + pack(HEADER)[1:],
        b"\xc1\x02" + pack(HEADER)[2:],
        b"\xc1\x80" + pack(HEADER)[2:],
        pack(replace(HEADER, tags=()))[:45] + b"\x00\x01\xc3",
        pack(replace(HEADER, tags=()))[:45] + b"\x00\x03\x91\xa1\xff",
        b'{"id": 1, "name": "written by another program", "more": []}',
    ],
    ids=[
        "empty",
        "one byte",
        "short",
        "cut in the tags",
        "version",
        "flag 2",
        "flag 128",
        "no tags",
        "no text",
        "JSON",
    ],
)
def test_bytes_of_another_layout_are_refused(raw):
    with pytest.raises(CodecError):
        unpack(raw)


@pytest.mark.parametrize("offset", [24, 28, 32])
@pytest.mark.parametrize(
    "bits", [b"\x7f\x80\x00\x00", b"\x7f\xc0\x00\x00", b"\xbf\x80\x00\x00"], ids=["inf", "nan", "-1"]
)
def test_impossible_ages_are_refused(offset, bits):
    raw = bytearray(pack(HEADER))
    raw[offset : offset + 4] = bits
    with pytest.raises(CodecError):
        unpack(bytes(raw))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_header_or_refused(raw):
    for candidate in (raw, b"\xc1\x00" + raw):
        try:
            record = unpack(candidate)
        except CodecError:
            continue
        assert isinstance(record, Record)
