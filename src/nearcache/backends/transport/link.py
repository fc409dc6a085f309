"""What a way to an engine does, whatever it is made of."""

from collections.abc import Awaitable
from typing import Any, Final, Protocol

from nearcache.backends.transport.dialect import Command

SOON: Final = 0.1
"""The share of a call's time in which a connection that was dead before turns out to be."""


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
