"""Asking several nodes of an engine at once: all are sent to before the first is heard, and one that does not answer is
spared, but for single calls that look whether it is there again.
"""

import asyncio
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from nearcache._core.outage import Outage
from nearcache.backends.base import NoConnection, is_silence
from nearcache.backends.registry import BackendSpec
from nearcache.errors import BackendError, BackendUnavailableError

T = TypeVar("T")

LEFT_TO_OTHERS: Final = 0.2
"""The share of a call's time that a node which says nothing leaves to those that are asked and heard after it."""

Answers = list[Any] | BackendError
"""What became of the commands that were sent to one node."""

CUT_OFF: Final = NoConnection("the call was cancelled")
"""Stands for what was not heard to the end."""


class Node(Protocol):
    """One node; `outage` is what is known of it while it does not answer."""

    outage: Outage | None

    @property
    def where(self) -> str:
        """Its address, for messages."""
        ...


Begin = Callable[..., Any]
"""A link's `begin` with commands; it still needs `until`."""


class Spread(ABC):
    """How nodes are asked at once."""

    def __init__(self, spec: BackendSpec) -> None:
        self._timeout = spec.timeout
        self._patience = spec.pool_timeout + 2 * spec.timeout

    def spared(self, node: Node) -> BackendError | None:
        """Return why a node is not to be asked now; None if it may be, and then what came of it must be noted."""
        outage, now = node.outage, time.monotonic()
        if outage is None or outage.lets_through(now):
            return None
        return BackendUnavailableError(f"the node at {node.where}: {outage.described(now)}").undone()

    async def ask(self, nodes: Sequence[Node], calls: Sequence[Begin], until: float) -> list[Answers]:
        """Send to nodes until the time `until` (monotonic), and note which of them answer."""
        found: list[Answers] = [CUT_OFF] * len(nodes)
        try:
            found = await self.send(calls, until)
        finally:
            for node, answers in zip(nodes, found, strict=True):
                self.note(node, answers)
        return found

    def note(self, node: Node, answers: Answers) -> None:
        """Note whether a node answers."""
        now = time.monotonic()
        if not isinstance(answers, BackendError):
            node.outage = None
        elif not is_silence(answers):
            if node.outage is not None:
                node.outage.abandoned(now)
        elif node.outage is None:
            node.outage = Outage(now, answers.why, self._patience)
        else:
            node.outage.failed(now)

    @abstractmethod
    async def send(self, calls: Sequence[Begin], until: float) -> list[Answers]:
        """Send to all, then hear them all, until the time `until` (monotonic)."""


class BlockingSpread(Spread):
    """One after the other, in the caller's thread; it never suspends."""

    async def send(self, calls: Sequence[Begin], until: float) -> list[Answers]:
        """Send to all, then hear them all."""
        # Each leaves a share of the time to those behind it, which may have answered long ago, and has one for itself,
        # however late it is by then.
        count, share = len(calls), LEFT_TO_OTHERS * self._timeout / max(1, len(calls))

        def by(behind: int) -> float:
            return max(until - behind * share, time.monotonic() + share)

        begun = [_tried(functools.partial(begin, until=by(2 * count - turn))) for turn, begin in enumerate(calls, 2)]
        return [
            start if isinstance(start, BackendError) else _tried(functools.partial(start, by(count - turn)))
            for turn, start in enumerate(begun, 1)
        ]


class AwaitingSpread(Spread):
    """All at the same time."""

    async def send(self, calls: Sequence[Begin], until: float) -> list[Answers]:
        """Send to all, then hear them all."""
        # All begin before the first is waited for; and all are waited for, also when the caller is cancelled: what is
        # done about a write that is on its way must not overtake it.
        begun = [asyncio.ensure_future(begin(until=until)) for begin in calls]
        answers: list[Answers] = []
        cancelled = None
        for future in begun:
            try:
                answers.append(await future)
            except BackendError as error:
                answers.append(error)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return answers


def _tried(call: Callable[[], T]) -> T | BackendError:
    try:
        return call()
    except BackendError as error:
        return error
