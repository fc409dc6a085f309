"""How Redis and Valkey are spoken to: commands to bytes, bytes to replies, and which commands may be repeated."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from nearcache.backends.redis import lua
from nearcache.backends.transport.dialect import INCOMPLETE, Command, Reader

NONSENSE: tuple[type[Exception], ...] = (hiredis.ProtocolError, TypeError, ValueError, MemoryError)
"""What parsing raises for bytes that are no reply; a map whose key is a list is one that Python cannot build, a list of
billions neither.
"""

REPEATABLE: Final = frozenset(
    {"GET", "MGET", "PTTL", "TIME", "PING", "SCAN", "INFO", "DEL", "WAIT", "ZMSCORE", "ZREVRANGEBYSCORE"}
)
"""Commands that may be sent again when the first try was lost: they leave the engine as one try would."""

SCRIPTS: Final = frozenset({"EVALSHA", "EVAL"})


# The stub of hiredis says that a command is one word. No word may be a number: a signal that comes while hiredis 3.5
# writes one crashes the process.
_pack = cast(Callable[[Command], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


_gets = hiredis.Reader.gets
_Message = hiredis.PushNotification


class _Replies(hiredis.Reader):
    """A parser that passes over messages: nobody has asked for any on a connection that is shared or lent."""

    __slots__ = ()

    # Once for each reply, so no more is done than must be; nobody uses the argument that there would be.
    def gets(self) -> Any:  # type: ignore[override]
        while type(reply := _gets(self)) is _Message:
            pass
        return reply


def reader() -> Reader:
    """Make a parser for the replies of one connection."""
    return _Replies(notEnoughData=INCOMPLETE)


def pack(commands: Sequence[Command]) -> bytes:
    """Turn commands into the bytes to send."""
    if len(commands) == 1:
        return _pack(commands[0])
    return b"".join(map(_pack, commands))


def repeatable(commands: Sequence[Command]) -> bool:
    """Return whether sending all of these twice does what sending them once does."""
    if len(commands) == 1:
        return commands[0][0] in REPEATABLE or _is_repeatable_script(commands[0])
    return all(command[0] in REPEATABLE or _is_repeatable_script(command) for command in commands)


def _is_repeatable_script(command: Command) -> bool:
    return command[0] == "EVALSHA" and command[1] in lua.repeatable()


def subject(commands: Sequence[Command]) -> str:
    """Name the first command and its key, for messages."""
    first = commands[0]
    place = 3 if first[0] in SCRIPTS else 1
    name = "a script on" if first[0] in SCRIPTS else str(first[0])
    return f"{name} {first[place]!s}" if len(first) > place else name
