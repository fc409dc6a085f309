"""What connections must know of the language an engine understands; a module of that engine's package tells them."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

Command = tuple[str | bytes, ...]
"""A command and its arguments."""

INCOMPLETE: Final = object()
"""What a reader returns when the next reply has not arrived completely."""


class Reader(Protocol):
    """A parser for the replies of one connection."""

    def feed(self, data: bytes, /) -> object:
        """Take in what has arrived."""
        ...

    def gets(self) -> Any:
        """Return the next reply, an exception where the engine answered with an error, or `INCOMPLETE`.

        What the engine says without being asked is passed over. Raises one of `Dialect.NONSENSE` for what is no reply.
        """
        ...

    def has_data(self) -> bool:
        """Tell whether something has arrived of which no reply was made yet."""
        ...


class Dialect(Protocol):
    """Commands to bytes, bytes to replies, and what commands mean to those who send them."""

    NONSENSE: tuple[type[Exception], ...]
    """What a reader raises for bytes that are no reply."""

    def reader(self) -> Reader:
        """Make a parser for the replies of one connection."""
        ...

    def pack(self, commands: Sequence[Command]) -> bytes:
        """Turn commands into the bytes to send; each is answered with one reply."""
        ...

    def repeatable(self, commands: Sequence[Command]) -> bool:
        """Return whether sending all of these twice does what sending them once does."""
        ...

    def subject(self, commands: Sequence[Command]) -> str:
        """Name the first command and its key, for messages."""
        ...
