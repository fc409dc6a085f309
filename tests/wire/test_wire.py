"""Stored bytes are pinned: this release reads what earlier ones wrote, and writes what they can read.

`pinned.json` holds every sample as it was first written. When a sample is added, run

    NEARCACHE_PIN=1 python -m pytest tests/wire

which writes the missing entries and never changes one. To change what is written, see docs/compatibility.md.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nearcache.codecs.codec import Codec, Schema
from nearcache.codecs.envelope import unpack
from nearcache.codecs.same import difference
from nearcache.errors import CodecError
from tests.wire.models import Colour, User
from tests.wire.samples import DECLARED, SECRET, VALUES

FILE = Path(__file__).with_name("pinned.json")
HEADER: dict[str, Any] = {"fill_id": b"fill-id.", "epoch": 1_700_000_000_000_001, "born": 1_700_000_000.25}
HEADER |= {"soft": 3600.0, "hard": 7200.5, "cost": 0.125}


def codec_for(name: str) -> Codec:
    if name.startswith("pickle"):
        return Codec("pickle", secret=SECRET)
    compress_above = 100 if name.startswith("compressed") else None
    return Codec(types=[User, Colour], compress_above=compress_above)


SAMPLES: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    **{name: (None, value, ()) for name, value in VALUES.items()},
    **{name: (annotation, value, ()) for name, (annotation, value) in DECLARED.items()},
    "tags": (None, "tagged", ("team:1", "ü")),
    "compressed": (None, "again and " * 100, ()),
    "pickle": (None, {"a": (1, 2)}, ()),
}


def write(name: str) -> bytes:
    annotation, value, tags = SAMPLES[name]
    codec = codec_for(name)
    return codec.seal(codec.encode(value, declared(codec, annotation)), **HEADER, tags=tags)


def declared(codec: Codec, annotation: Any) -> Schema | None:
    return None if annotation is None else codec.declare(annotation)


def load() -> dict[str, str]:
    pinned: dict[str, str] = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("NEARCACHE_PIN"):
        pinned = {**{name: write(name).hex() for name in SAMPLES}, **pinned}
        FILE.write_text(json.dumps(pinned, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return pinned


PINNED = load()


def test_every_sample_is_pinned():
    assert PINNED.keys() == SAMPLES.keys(), "run: NEARCACHE_PIN=1 python -m pytest tests/wire"


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_pinned_bytes_are_read(name):
    annotation, value, tags = SAMPLES[name]
    codec = codec_for(name)
    record = codec.open(bytes.fromhex(PINNED[name]))
    assert {field: getattr(record, field) for field in HEADER} == HEADER
    assert record.tags == tags
    assert difference(value, codec.decode(record, declared(codec, annotation))) is None


# What a library of its own writes may differ from one of its versions to the next.
WRITTEN_ELSEWHERE = {"compressed", "pickle"}


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - WRITTEN_ELSEWHERE))
def test_the_same_bytes_are_written(name):
    assert write(name).hex() == PINNED[name]


@pytest.mark.parametrize("change", ["version", "flags", "codec", "type code"])
def test_what_a_newer_release_may_write_is_a_miss_here(change):
    raw = bytearray.fromhex(PINNED["tuple"])
    offset, value = {"version": (0, 0xFF), "flags": (1, 0x40), "codec": (36, 99), "type code": (48, 120)}[change]
    raw[offset] = value
    codec = Codec()
    with pytest.raises(CodecError):
        codec.decode(codec.open(bytes(raw)))


def test_the_payload_follows_the_tags():
    record = unpack(bytes.fromhex(PINNED["tags"]))
    assert record.payload == b"\xa6tagged"
    assert record.codec == 1
