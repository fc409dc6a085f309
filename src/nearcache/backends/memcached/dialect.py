"""The meta protocol of Memcached: commands to bytes, bytes to replies, and which commands may be repeated.

A command is a verb, the name of the record, and the bytes that are sent. The functions here make it, and they alone put
keys, numbers and values into it: a key that could be taken for something else is sent in base64, and a value with its
length in front of it.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

import msgspec

from nearcache.backends.registers.names import about
from nearcache.backends.transport.dialect import INCOMPLETE, Command
from nearcache.errors import BackendError, InvalidKeyError

LONGEST_KEY: Final = 250
"""Bytes of a key in the engine, in base64 if it is sent in that."""

LONGEST_LIFE: Final = 2_592_000
"""Seconds that a record lives at most (30 days): what is longer, the engine takes for a date."""

LONGEST_LINE: Final = 8_192
"""Bytes of a line; engines send far shorter ones."""

LARGEST_VALUE: Final = 1 << 30
"""Bytes of a value; no engine can be told to take larger ones."""

_PLAIN: Final = re.compile(r"[!-~]{1,250}").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,20}").fullmatch
_LIFE: Final = re.compile(rb"-1|[0-9]{1,10}").fullmatch
_FLAG: Final = re.compile(rb"[A-Za-z][!-~]*").fullmatch

REPEATABLE: Final = frozenset({"mg", "mn", "stats", "version"})
"""Commands that may be sent again when the first try was lost: they change nothing."""

_DONE: Final = frozenset({b"HD", b"EN", b"NF", b"NS", b"EX", b"MN"})
"""Codes of replies that are one line."""

_REFUSALS: Final = (b"ERROR", b"CLIENT_ERROR ", b"SERVER_ERROR ")


class Nonsense(ValueError):
    """What arrived is no reply that Memcached gives."""


NONSENSE: tuple[type[Exception], ...] = (Nonsense,)


class Refusal(Exception):
    """Stands among the replies for an error that the engine answered to one command."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer to a command about one record."""

    code: str
    """"VA" with a value, "HD" for done or found, "EN" and "NF" for absent, "NS" for not stored, "EX" for changed."""
    data: bytes | None = None
    number: bytes | None = None
    """The number of the record's last change."""
    left: float | None = None
    """How many whole seconds the record will live (infinity if it never expires)."""
    note: bytes | None = None
    """The number that whoever stored the record noted beside it."""


# Commands


def get(name: str) -> Command:
    """Ask for a record, its number and how long it will live."""
    return ("mg", name, b"mg %b v c t%b\r\n" % wire_key(name))


def read(name: str) -> Command:
    """Ask for a record alone."""
    return ("mg", name, b"mg %b v%b\r\n" % wire_key(name))


def get_number(name: str) -> Command:
    """Ask for the number of a record."""
    return ("mg", name, b"mg %b c%b\r\n" % wire_key(name))


def get_note(name: str) -> Command:
    """Ask for what was noted beside a record."""
    return ("mg", name, b"mg %b f%b\r\n" % wire_key(name))


def store(name: str, raw: bytes, ttl: float, note: int) -> Command:
    """Store a record for `ttl` seconds, whatever was there."""
    return _store(name, raw, ttl, note, b"")


def add(name: str, raw: bytes, ttl: float, note: int) -> Command:
    """Store a record if there is none."""
    return _store(name, raw, ttl, note, b" ME")


def swap(name: str, raw: bytes, ttl: float, note: int, number: bytes) -> Command:
    """Store a record in the place of the one with this number."""
    return _store(name, raw, ttl, note, b" C%b" % _number(number))


def count(name: str, by: int, number: bytes) -> Command:
    """Add to the number that a record is, which goes on living as long as it was to, if it has this `number`."""
    key, flag = wire_key(name)
    change = b"MI D%d" % by if by >= 0 else b"MD D%d" % -by
    return ("ma", name, b"ma %b %b c C%b%b\r\n" % (key, change, _number(number), flag))


def delete(name: str, number: bytes | None = None) -> Command:
    """Remove a record; with a `number`, only the one that has it."""
    condition = b"" if number is None else b" C%b" % _number(number)
    return ("md", name, b"md %b%b%b\r\n" % (*wire_key(name), condition))


def stats(about: str = "") -> Command:
    """Ask the engine about itself ("") or its "settings"."""
    return ("stats", about, {"": b"stats\r\n", "settings": b"stats settings\r\n"}[about])


PING: Final[Command] = ("mn", "", b"mn\r\n")
VERSION: Final[Command] = ("version", "", b"version\r\n")


def _store(name: str, raw: bytes, ttl: float, note: int, condition: bytes) -> Command:
    if len(raw) > LARGEST_VALUE:  # told a larger size, the engine would take the value itself for commands
        raise BackendError(f"{len(raw)} bytes are more than any Memcached takes (1 GiB)", name).undone()
    key, flag = wire_key(name)
    head = b"ms %b %d T%d F%d c%b%b\r\n" % (key, len(raw), lifetime(ttl), note, condition, flag)
    return ("ms", name, b"%b%b\r\n" % (head, raw))


def wire_key(name: str) -> tuple[bytes, bytes]:
    """Return a key as it is sent, and what stands among the flags if that is base64.

    Raises `InvalidKeyError` if it is longer than Memcached takes.
    """
    if _PLAIN(name):
        return name.encode(), b""
    in_base64 = base64.b64encode(name.encode())
    if not 0 < len(in_base64) <= LONGEST_KEY:
        size = len(in_base64) or "no"
        raise InvalidKeyError(
            f"key {name[:80]!r} has {size} bytes as Memcached gets it; at most {LONGEST_KEY} are allowed with the "
            "namespace, and every three bytes of a key that is not plain ASCII count as four: "
            "shorten long arguments by {name:hash}"
        )
    return in_base64, b" b"


def lifetime(ttl: float) -> int:
    """Return the whole seconds that stand for a life of `ttl` seconds: rounded up and at least 1, since 0 is for ever,
    at most 30 days; infinity is for ever.
    """
    if ttl == math.inf:
        return 0
    return min(max(1, math.ceil(ttl)), LONGEST_LIFE)


def _number(number: bytes) -> bytes:
    """Return a number as it was read; one that could be anything else is a mistake of this library."""
    if not _DIGITS(number):
        raise ValueError("not the number of a record")
    return number


# What links need


def reader() -> "Reader":
    """Make a parser for the replies of one connection."""
    return Reader()


def pack(commands: Sequence[Command]) -> bytes:
    """Turn commands into the bytes to send."""
    if len(commands) == 1:
        return cast(bytes, commands[0][2])
    return b"".join([cast(bytes, command[2]) for command in commands])


def repeatable(commands: Sequence[Command]) -> bool:
    """Return whether sending all of these twice does what sending them once does."""
    return all(command[0] in REPEATABLE for command in commands)


def subject(commands: Sequence[Command]) -> str:
    """Name the first command and its record, for messages."""
    verb, name, _ = commands[0]
    return f"{verb!s} {about(str(name))}" if name else str(verb)


class Reader:
    """Turns what arrives into replies, however it was cut into pieces.

    A reply is a `Reply`, a `Refusal`, a str (the version) or a mapping (what `stats` tells). Raises `Nonsense` for
    anything else; then the reader is of no use any more.
    """

    __slots__ = ("_buffer", "_pieces", "_position", "_stats", "_wanted")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._pieces: list[bytes] = []
        self._wanted = 0
        self._stats: dict[str, str] | None = None

    def has_data(self) -> bool:
        """Tell whether something has arrived that was not returned."""
        return bool(self._pieces) or self._position < len(self._buffer) or self._stats is not None

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        self._pieces.append(data)
        self._wanted -= len(data)

    def gets(self) -> Reply | Refusal | str | Mapping[str, str] | object:
        """Return the next reply, or `INCOMPLETE`."""
        if self._wanted > 0:
            return INCOMPLETE
        if self._pieces:
            self._join()
        while True:
            end = self._buffer.find(b"\r\n", self._position)
            if end < 0 or end - self._position > LONGEST_LINE:
                return self._wait_for_line()
            line = self._buffer[self._position : end]
            if line.startswith(b"VA "):
                return self._value(line, end + 2)
            self._position = end + 2
            if not line.startswith(b"STAT "):
                return self._line(line)
            self._note(line)

    def _join(self) -> None:
        """Put what has arrived behind what is left, once there may be enough of it: large values are joined once."""
        rest = self._buffer[self._position :]
        self._buffer = b"".join([rest, *self._pieces]) if rest or len(self._pieces) > 1 else self._pieces[0]
        self._position = 0
        self._pieces.clear()

    def _wait_for_line(self) -> object:
        if len(self._buffer) - self._position > LONGEST_LINE:
            raise Nonsense("a line without an end")
        self._wanted = 1
        return INCOMPLETE

    def _value(self, line: bytes, start: int) -> Reply | object:
        size, _, flags = line[3:].partition(b" ")
        if self._stats is not None or not _DIGITS(size) or (length := int(size)) > LARGEST_VALUE:
            raise Nonsense("a value of no size")
        end = start + length
        missing = end + 2 - len(self._buffer)
        if missing > 0:
            self._wanted = missing
            return INCOMPLETE
        if self._buffer[end : end + 2] != b"\r\n":
            raise Nonsense("a value of another size")
        self._position = end + 2
        data = self._buffer[start:end]
        return _reply("VA", flags.split(b" "), data) if flags else Reply("VA", data)

    def _line(self, line: bytes) -> Reply | Refusal | str | Mapping[str, str]:
        """Return the reply that a line is."""
        noted, self._stats = self._stats, None
        code, *flags = line.split(b" ")
        if line == b"END":
            return noted or {}
        if line.startswith(_REFUSALS) and (code != b"ERROR" or line == code):
            return Refusal(_text(line))
        if noted is not None:
            raise Nonsense("statistics without an end")
        if code in _DONE:
            return _reply(code.decode(), flags, None)
        if code == b"VERSION":
            return _text(line).partition(" ")[2]
        raise Nonsense("no reply of the meta protocol")

    def _note(self, line: bytes) -> None:
        _, name, value = f"{_text(line)} ".split(" ", 2)
        if self._stats is None:
            self._stats = {}
        self._stats[name] = value.rstrip(" ")


def _reply(code: str, flags: Sequence[bytes], data: bytes | None) -> Reply:
    found: dict[str, bytes] = {}
    for flag in flags:
        if not flag:  # two spaces, as some versions write them
            continue
        if not _FLAG(flag):
            raise Nonsense("a flag without a name")
        found[chr(flag[0])] = flag[1:]
    number, left, note = found.get("c"), found.get("t"), found.get("f")
    if not (_fits(number, _DIGITS) and _fits(left, _LIFE) and _fits(note, _DIGITS)):
        raise Nonsense("a flag of another kind")
    seconds = None if left is None else math.inf if left == b"-1" else float(left)
    return Reply(code, data, number, seconds, note)


def _fits(flag: bytes | None, kind: Callable[[bytes], object]) -> bool:
    return flag is None or bool(kind(flag))


def _text(line: bytes) -> str:
    try:
        return line.decode("ascii")
    except UnicodeDecodeError:
        raise Nonsense("a line that is not ASCII") from None
