"""The other codecs: signed pickles, compressed payloads, JSON without an envelope."""

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import ids
from nearcache.codecs.codec import Codec, Encoded, Record, SchemaMismatch
from nearcache.codecs.envelope import COMPRESSED, NO_SCHEMA
from nearcache.errors import CodecError, ConfigError
from tests.unit.codecs.models import Account, User

SECRET = "0123456789abcdef"


def raw(codec_id: int, payload: bytes, flags: int = 0) -> Encoded:
    return Encoded(codec_id, NO_SCHEMA, flags, payload)


def typed(codec: Codec, value: object, annotation: Any) -> Encoded:
    return codec.encode(value, codec.declare(annotation))


def test_a_pickle_is_loaded_only_by_name_and_with_the_right_signature():
    writer = Codec("pickle", secret=SECRET)
    record = writer.encode({"a": Plain(1)})
    assert writer.decode(record) == {"a": Plain(1)}
    for reader in (Codec(), Codec("json"), Codec("pickle", secret=SECRET + "x")):
        with pytest.raises(CodecError):
            reader.decode(record)
    with pytest.raises(CodecError):
        writer.decode(raw(ids.PICKLE, record.payload[:-1]))


@dataclass
class Plain:
    id: int


class Bomb:
    exploded = False

    def __reduce__(self) -> Any:
        return (setattr, (Bomb, "exploded", True))


@given(st.binary(max_size=40))
def test_an_unsigned_pickle_is_never_loaded(signature):
    codec = Codec("pickle", secret=SECRET)
    with pytest.raises(CodecError):
        codec.decode(raw(ids.PICKLE, signature + pickle.dumps(Bomb())))
    assert not Bomb.exploded


def test_a_pickle_of_another_declared_type_is_a_mismatch_and_is_not_loaded():
    codec = Codec("pickle", secret=SECRET)
    record = typed(codec, Plain(1), Plain)
    assert codec.decode(record, codec.schema(Plain)) == Plain(1)
    with pytest.raises(SchemaMismatch):
        codec.decode(record, codec.schema(User))


def test_pickle_needs_a_secret_that_cannot_be_guessed():
    for secret in (None, "", b"", "short"):
        with pytest.raises(ConfigError, match="secret"):
            Codec("pickle", secret=secret)


def test_a_secret_is_never_printed():
    codec = Codec("pickle", secret=SECRET)
    assert SECRET not in repr(vars(codec))


def test_an_unknown_codec_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="msgpack, json, pickle"):
        Codec("yaml")  # type: ignore[arg-type]


def test_a_large_payload_is_compressed_and_comes_back():
    codec = Codec(compress_above=100)
    value = {"text": "again and " * 100}
    encoded = codec.encode(value)
    assert encoded.flags == COMPRESSED
    assert len(encoded.payload) < 200
    assert Codec().decode(encoded) == value
    state, copier = codec.near_form([value], codec.encode([value]))
    assert copier is not None
    assert copier(state) == [value]


def test_what_does_not_get_smaller_is_not_compressed():
    assert Codec(compress_above=0).encode(b"x").flags == 0
    assert Codec("json", compress_above=0).encode("a" * 1000).flags == 0


def test_a_compressed_value_that_asks_for_all_memory_is_corrupt():
    huge = b"\x28\xb5\x2f\xfd\xe0" + (2**60).to_bytes(8, "little") + b"\x01\x00\x00"
    unsized = b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00"
    for packed in (huge, unsized, b"", b"abc"):
        with pytest.raises(CodecError):
            Codec().decode(raw(ids.VALUE, packed, flags=COMPRESSED))


def test_without_the_library_compression_is_refused_and_a_compressed_value_is_a_miss(monkeypatch):
    encoded = Codec(compress_above=0).encode("a" * 1000)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"nearcache\[zstd\]"):
        Codec(compress_above=0)
    with pytest.raises(CodecError, match=r"nearcache\[zstd\]"):
        Codec().decode(encoded)


def test_json_reads_what_other_programs_write():
    codec = Codec("json")
    record = codec.open('{"a": [1, 2.5, "ü", null, true]}'.encode())
    assert codec.decode(record) == {"a": [1, 2.5, "ü", None, True]}
    assert codec.decode(codec.open(b' { "id" : 5, "name":"a" } '), codec.schema(User)) == User(5, "a")
    assert codec.decode(codec.open(b"null"), codec.schema(User)) is None


def test_json_writes_what_json_dumps_writes():
    assert Codec("json").encode({"a": ["ü", 1.0]}).payload == b'{"a": ["\\u00fc", 1.0]}'


def test_json_of_another_type_is_a_mismatch_and_other_bytes_are_corrupt():
    codec = Codec("json")
    for annotation in (User, Account, list[str], tuple[int, int]):
        with pytest.raises(SchemaMismatch):
            codec.decode(codec.open(b'{"other": 1}'), codec.schema(annotation))
        with pytest.raises(CodecError) as caught:
            codec.decode(codec.open(b'{"other'), codec.schema(annotation))
        assert not isinstance(caught.value, SchemaMismatch)


def test_json_has_no_header():
    codec = Codec("json")
    stored = codec.seal(codec.encode("a"), fill_id=b"", epoch=0, born=0, soft=1, hard=1, cost=0)
    assert stored == b'"a"'
    assert codec.open(stored) == Record(0, b"", 0, 0.0, 0.0, 0.0, 0.0, ids.JSON, NO_SCHEMA, payload=b'"a"')
    assert not codec.enveloped
    assert Codec().enveloped


def test_a_codec_of_a_newer_release_is_refused_when_opened():
    codec = Codec()
    stored = bytearray(codec.seal(codec.encode("a"), fill_id=b"12345678", epoch=0, born=0, soft=1, hard=1, cost=0))
    stored[36] = 200
    with pytest.raises(CodecError):
        codec.open(bytes(stored))


def test_optional_libraries_are_not_imported():
    program = (
        "import sys; from nearcache.codecs.codec import Codec; Codec().encode((1, [2]));"
        "print(sorted({'pydantic', 'zstandard'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


class Chameleon:
    def __reduce__(self) -> Any:
        return (list, ())


def test_a_pickle_that_would_load_as_another_type_is_refused():
    with pytest.raises(CodecError, match="unpickled as list"):
        Codec("pickle", secret=SECRET).encode(Chameleon())


def test_a_pickle_whose_class_is_gone_is_a_mismatch(monkeypatch):
    codec = Codec("pickle", secret=SECRET)
    record = codec.encode(Plain(1))
    monkeypatch.delitem(globals(), "Plain")
    with pytest.raises(SchemaMismatch):
        codec.decode(record)
