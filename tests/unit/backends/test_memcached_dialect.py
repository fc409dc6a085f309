"""The meta protocol: what is sent cannot be taken for anything else, and replies are found however they arrive."""

import base64
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.dialect import LONGEST_LINE, Nonsense, Reader, Refusal, Reply
from nearcache.backends.transport.dialect import INCOMPLETE
from nearcache.errors import BackendError, InvalidKeyError


def read(*pieces: bytes) -> list[Any]:
    """Return what a reader makes of bytes that arrive in pieces."""
    reader, replies = Reader(), list[Any]()
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.gets()) is not INCOMPLETE:
            replies.append(reply)
    return [str(reply) if isinstance(reply, Refusal) else reply for reply in replies]


# What is sent


def test_commands_are_those_of_the_protocol():
    commands = [
        dialect.get("app:k"),
        dialect.get_number("app:k"),
        dialect.get_note("app:k"),
        dialect.store("app:k", b"a\r\nb", 1.5, 0),
        dialect.add("app:k", b"", math.inf, 192),
        dialect.swap("app:k", b"v", 60.0, 0, b"17"),
        dialect.count("app:k", 5, b"17"),
        dialect.count("app:k", -5, b"17"),
        dialect.delete("app:k"),
        dialect.delete("app:k", b"17"),
        dialect.stats(),
        dialect.stats("settings"),
        dialect.PING,
        dialect.VERSION,
    ]
    assert dialect.pack(commands).split(b"\r\n") == [
        b"mg app:k v c t",
        b"mg app:k c",
        b"mg app:k f",
        b"ms app:k 4 T2 F0 c",
        b"a",
        b"b",
        b"ms app:k 0 T0 F192 c ME",
        b"",
        b"ms app:k 1 T60 F0 c C17",
        b"v",
        b"ma app:k MI D5 c C17",
        b"ma app:k MD D5 c C17",
        b"md app:k",
        b"md app:k C17",
        b"stats",
        b"stats settings",
        b"mn",
        b"version",
        b"",
    ]
    assert dialect.pack(commands[:1]) == b"mg app:k v c t\r\n"
    assert dialect.subject(commands) == "mg app:k"
    assert dialect.subject(commands[-1:]) == "version"


def test_only_what_changes_nothing_may_be_repeated():
    looks = [dialect.get("k"), dialect.get_number("k"), dialect.get_note("k"), dialect.stats(), dialect.PING]
    assert dialect.repeatable([*looks, dialect.VERSION])
    changes = (dialect.store("k", b"", 1, 0), dialect.add("k", b"", 1, 0), dialect.count("k", 1, b"1"))
    for change in (*changes, dialect.delete("k")):
        assert not dialect.repeatable([*looks, change])


@given(some.text(max_size=300))
def test_a_key_is_one_word_whatever_is_in_it(name: str):
    plain = name.isascii() and name.isprintable() and " " not in name
    sent = name.encode() if plain else base64.b64encode(name.encode())
    if not 0 < len(sent) <= 250:
        with pytest.raises(InvalidKeyError):
            dialect.wire_key(name)
        return
    assert all(0x21 <= byte <= 0x7E for byte in sent)
    assert dialect.wire_key(name) == (sent, b"" if plain else b" b")


@pytest.mark.parametrize("name", ["a b", "a\r\nflush_all\r\n", "a\0", "a\x7f", "größe", "a\u2028b"])
def test_what_could_be_taken_for_a_command_goes_in_base64(name: str):
    sent = base64.b64encode(name.encode())
    assert dialect.get(name) == ("mg", name, b"mg %b v c t b\r\n" % sent)
    assert dialect.delete(name, b"1") == ("md", name, b"md %b b C1\r\n" % sent)
    assert dialect.store(name, b"", 1.0, 0) == ("ms", name, b"ms %b 0 T1 F0 c b\r\n\r\n" % sent)


def test_a_key_may_have_250_bytes_as_it_is_sent():
    assert dialect.wire_key("k" * 250) == (b"k" * 250, b"")
    assert len(dialect.wire_key("ü" + "k" * 184)[0]) == 248
    for name in ("k" * 251, "ü" + "k" * 186, ""):
        with pytest.raises(InvalidKeyError, match="at most 250 are allowed"):
            dialect.wire_key(name)


@pytest.mark.parametrize("number", [b"", b"1 I", b"1\r\nflush_all", b"x", b"-1", b"1" * 21])
def test_a_number_is_digits(number: bytes):
    with pytest.raises(ValueError, match="number"):
        dialect.swap("k", b"", 1, 0, number)
    with pytest.raises(ValueError, match="number"):
        dialect.delete("k", number)


def test_a_value_of_a_size_that_the_engine_does_not_read_is_not_sent():
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 31

    with pytest.raises(BackendError, match="app:k: 2147483648 bytes") as caught:
        dialect.store("app:k", Huge(), 1, 0)
    assert not caught.value.ambiguous


@given(some.floats(min_value=-1e9, max_value=1e12, allow_nan=False))
def test_a_life_is_whole_seconds_never_for_ever_and_never_a_date(ttl: float):
    seconds = dialect.lifetime(ttl)
    assert 1 <= seconds <= 30 * 24 * 3600
    assert seconds >= min(ttl, 30 * 24 * 3600)
    assert seconds == 1 or seconds < ttl + 1


def test_only_infinity_is_for_ever():
    assert dialect.lifetime(math.inf) == 0
    assert dialect.lifetime(0.0) == dialect.lifetime(0.001) == 1


# What arrives

TALK = (
    b"VA 6 c12 t55\r\na\r\nb\r\n\r\nEN\r\nHD c13\r\nHD  t-1 f192\r\nNS\r\nEX\r\nNF\r\nMN\r\nVA 0 W s0\r\n\r\n"
    b"STAT pid 17\r\nSTAT version 1.6.18\r\nSTAT empty \r\nSTAT two words here\r\nEND\r\nEND\r\nVERSION 1.6.18\r\n"
    b"ERROR\r\nCLIENT_ERROR bad command line format\r\nSERVER_ERROR object too large for cache\r\nVA 3\r\nEN\r\r\n"
)
REPLIES = [
    Reply("VA", b"a\r\nb\r\n", b"12", 55.0),
    Reply("EN"),
    Reply("HD", number=b"13"),
    Reply("HD", left=math.inf, note=b"192"),
    Reply("NS"),
    Reply("EX"),
    Reply("NF"),
    Reply("MN"),
    Reply("VA", b""),
    {"pid": "17", "version": "1.6.18", "empty": "", "two": "words here"},
    {},
    "1.6.18",
    "ERROR",
    "CLIENT_ERROR bad command line format",
    "SERVER_ERROR object too large for cache",
    Reply("VA", b"EN\r"),
]


@given(some.lists(some.integers(0, len(TALK)), max_size=20))
def test_replies_are_the_same_however_they_arrive(cuts: list[int]):
    edges = [0, *sorted(cuts), len(TALK)]
    assert read(*[TALK[start:end] for start, end in itertools.pairwise(edges)]) == REPLIES


def test_replies_are_the_same_byte_by_byte():
    assert read(*[bytes([byte]) for byte in TALK]) == REPLIES


@given(some.lists(some.binary(max_size=200), max_size=10), some.data())
def test_values_come_back_however_they_arrive(values: list[bytes], data: some.DataObject):
    talk = b"".join(b"VA %d c%d\r\n%b\r\n" % (len(value), at, value) for at, value in enumerate(values))
    cuts = sorted(data.draw(some.lists(some.integers(0, len(talk)), max_size=10)))
    edges = [0, *cuts, len(talk)]
    replies = read(*[talk[start:end] for start, end in itertools.pairwise(edges)])
    assert replies == [Reply("VA", value, b"%d" % at) for at, value in enumerate(values)]


def test_a_reader_tells_whether_something_is_left():
    reader = Reader()
    assert not reader.has_data()
    for piece in (b"VA 2 c1\r\na", b"b\r", b"\nSTAT a b\r\n"):
        reader.feed(piece)
        assert reader.has_data()
    assert reader.gets() == Reply("VA", b"ab", b"1")
    assert reader.gets() is INCOMPLETE
    assert reader.has_data(), "statistics have begun"
    reader.feed(b"END\r\n")
    assert reader.gets() == {"a": "b"}
    assert not reader.has_data()


def test_a_large_value_is_not_joined_again_and_again():
    reader, piece, joins = Reader(), b"x" * 65_536, 0
    reader.feed(b"VA %d\r\n" % (64 * len(piece)))
    for _ in range(64):
        assert reader.gets() is INCOMPLETE
        joins += not reader._pieces
        reader.feed(piece)
    reader.feed(b"\r\n")
    assert reader.gets() == Reply("VA", 64 * piece)
    assert joins <= 2


@pytest.mark.parametrize(
    "talk",
    [
        b"+OK\r\n",
        b"VA\r\n",
        b"VA \r\n",
        b"VA x\r\n",
        b"VA -1\r\n",
        b"VA 1e3\r\n",
        b"VA 99999999999999999999\r\n",
        b"VA 1\r\nab\r\n",
        b"HD c\r\n",
        b"HD c1x\r\n",
        b"HD c-1\r\n",
        b"HD tx\r\n",
        b"HD t-2\r\n",
        b"HD fx\r\n",
        b"HD \xff\r\n",
        b"HD 1\r\n",
        b"hd\r\n",
        b"VALUE k 0 1\r\n",
        b"ERROR of another kind\r\n",
        b"SERVER_ERROR \xff\r\n",
        b"STAT a b\r\nEN\r\n",
        b"STAT a b\r\nVA 1\r\na\r\n",
        b"STAT \xff b\r\n",
        b"\r\n",
        b"x" * (LONGEST_LINE + 1),
        b"VERSION " + b"x" * LONGEST_LINE + b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"-ERR unknown command\r\n",
    ],
)
def test_what_is_no_reply_is_nonsense(talk: bytes):
    with pytest.raises(Nonsense):
        read(talk)
    with pytest.raises(Nonsense):
        read(*[bytes([byte]) for byte in talk])
    assert issubclass(Nonsense, dialect.NONSENSE)


@given(
    some.lists(some.binary(max_size=60) | some.sampled_from([*TALK.split(b" "), b"\r\n", b" ", b"VA 3"]), max_size=30)
)
def test_whatever_arrives_is_a_reply_or_nonsense(pieces: list[bytes]):
    try:
        whole = read(*pieces)
    except Nonsense:
        with pytest.raises(Nonsense):
            read(b"".join(pieces))
        return
    assert whole == read(b"".join(pieces))
