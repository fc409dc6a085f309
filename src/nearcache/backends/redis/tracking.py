"""Changes announced by the engine itself, by RESP3 broadcast tracking: whoever makes them, and however.

The connection is subscribed to an inbox too, so the engine cuts it off when it does not read, instead of keeping for it
whatever it has to say.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nearcache.backends.redis.errors import refused
from nearcache.backends.redis.line import Line
from nearcache.backends.redis.names import marks_of
from nearcache.backends.transport.dialect import Command
from nearcache.near.announced import Announced


class Tracking:
    """Hears what the engine says of the records of a namespace; a `Carrier`."""

    def __init__(self, namespace: str, announced: Announced) -> None:
        self._announced = announced
        self._prefix = f"{namespace}:".encode()
        self._marks = marks_of(namespace).encode()

    def tell(self, _keys: Iterable[str], /) -> None:
        """The engine tells."""

    def rename(self) -> None:
        """Nobody asks whose change it was: this process's own are announced to it too, and heard."""

    def begin(self, line: Line) -> None:
        """Have the engine announce every change of the namespace."""
        prefixes = [word for prefix in (self._prefix, self._marks) for word in ("PREFIX", prefix)]
        (reply,) = line.execute(("CLIENT", "TRACKING", "ON", "BCAST", *prefixes))
        if isinstance(reply, Exception):
            raise refused(reply, "CLIENT TRACKING")

    def questions(self) -> list[Command]:
        """Ask nothing: behind the answer to any question everything was heard that was announced before it."""
        return []

    def learn(self, replies: Sequence[Any]) -> None:
        """There is nothing to learn."""

    def listen(self, line: Line, until: float, enough: Callable[[], bool]) -> None:
        """Hear what the engine says."""
        line.listen(until, enough)

    def hear(self, names: list[bytes] | None) -> None:
        """Take in which records have changed."""
        announced = self._announced
        if names is None:
            announced.changed_all()
            return
        announced.marked = announced.marked or self._marks in names
        start, prefix = len(self._prefix), self._prefix
        announced.changed([name[start:].decode("utf-8", "replace") for name in names if name.startswith(prefix)])
