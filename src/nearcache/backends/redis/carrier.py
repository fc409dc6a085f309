"""What carries the changes of others to this process, over the listener's connection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from nearcache.backends.redis.line import Line
from nearcache.backends.transport.dialect import Command

Call = tuple[str, tuple[str, ...]]
"""The name of a script, and what to call it with: the number of keys, the keys, the arguments."""


class Carrier(Protocol):
    """One way to let others know of every change in a namespace, and to hear of theirs."""

    def tell(self, keys: Iterable[str], /) -> Call | None:
        """Return what must be called after a change of these keys, so that others hear of it; "" stands for marks.

        None if nothing must.
        """
        ...

    def rename(self) -> None:
        """Take what was announced by this process up to now as said by somebody else."""
        ...

    def begin(self, line: Line) -> None:
        """Have every change announced on this connection from now on; raises `BackendError` if the engine refuses."""
        ...

    def questions(self) -> list[Command]:
        """Return what has to be asked for a proof."""
        ...

    def learn(self, replies: Sequence[Any]) -> None:
        """Take in the answers to `questions`; everything announced before they were sent has been heard then."""
        ...

    def listen(self, line: Line, until: float, enough: Callable[[], bool]) -> None:
        """Hear what is announced until the time `until` (monotonic), or a little less, or until it is `enough`."""
        ...

    def hear(self, names: list[bytes] | None) -> None:
        """Take in what the engine says of its own accord: names of records that have changed, None for all."""
        ...
