"""What both kinds of connection share: commands to bytes, bytes to replies, and which commands may be repeated."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, cast

import hiredis

from nearcache.backends.redis import lua
from nearcache.backends.redis.connect import Command

INCOMPLETE: Final = object()
"""What a reader returns when the next reply has not arrived completely."""

SOON: Final = 0.1
"""The share of a call's time in which a connection that was dead before turns out to be."""

NONSENSE: Final = (hiredis.ProtocolError, TypeError, ValueError, MemoryError)
"""What parsing raises for bytes that are no reply; a map whose key is a list is one that Python cannot build, a list of
billions neither.
"""

REPEATABLE: Final = frozenset(
    {"GET", "MGET", "PTTL", "TIME", "PING", "SCAN", "INFO", "DEL", "ZMSCORE", "ZREVRANGEBYSCORE"}
)
"""Commands that may be sent again when the first try was lost: they leave the engine as one try would."""

SCRIPTS: Final = frozenset({"EVALSHA", "EVAL"})


# The stub of hiredis says that a command is one word.
_pack = cast(Callable[[Command], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


class Link(Protocol):
    """A way to an engine; errors that it answers to single commands are among the replies, as exceptions."""

    spreads: bool
    """Whether commands that are sent together may reach several engines, in no order."""

    def lacks(self) -> bool:
        """Tell whether some of several engines does not answer, and is spared calls."""
        ...

    async def open(self) -> None:
        """Connect ahead of the first use."""
        ...

    def execute(self, *commands: Command) -> list[Any] | Awaitable[list[Any]]:
        """Send commands together and return their replies in order, or what to await for them.

        Either raises `BackendError` if that did not work.
        """
        ...

    def renew(self) -> None:
        """Begin nothing any more on a connection that is open now; may be called in any thread."""
        ...

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        ...


def soon(left: float, timeout: float) -> bool:
    """Tell whether so much of a call's time is left that a second call takes hardly longer than one."""
    return left >= (1 - SOON) * timeout


def reader() -> hiredis.Reader:
    """Make a parser for the replies of one connection."""
    return hiredis.Reader(notEnoughData=INCOMPLETE)


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
