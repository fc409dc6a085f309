"""A thread that renews the locks of a process; it lives while there are some."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from nearcache._io.blocking import drive
from nearcache.backends.errand import Errand
from nearcache.backends.registers.base import Answer, Look, Registers, Swap
from nearcache.backends.registers.locked import locked_in
from nearcache.backends.renewal import Renewal
from nearcache.errors import BackendError
from nearcache.near.inbox import Inbox

BEATS: Final = 3
"""Renewals within the life of a lock."""

LONGEST_WAIT: Final = 0.25
"""Seconds after which the thread looks whether something has to be renewed, or whether it may end."""

TRIES: Final = 20
"""How often renewals are repeated at once that others have crossed."""


class Renewer(Errand):
    """Renews locks, of both flavours.

    `registers` makes what speaks to the engine and blocks; it is told what says that nothing is to be opened any more.
    """

    name: ClassVar[str] = "nearcache-renewer"

    def __init__(self, registers: Callable[[Callable[[], bool]], Registers], inbox: Inbox) -> None:
        super().__init__()
        self._registers = registers
        self._inbox = inbox
        self._held: dict[str, Renewal] = {}

    def hold(self, owner: str, renewal: Renewal) -> Renewal:
        """Renew a lock from now on, and return what that comes to; if it is lost, the mail of the owner is told."""
        self._held[owner] = renewal
        self.start()
        return renewal

    def let_go(self, owner: str) -> None:
        """Renew a lock no longer."""
        self._held.pop(owner, None)

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has neither the thread nor the locks of its parent."""
        super().after_fork()
        self._held = {}

    @property
    def _needed(self) -> bool:
        return bool(self._held)

    def _work(self, ended: threading.Event) -> None:
        registers = self._registers(ended.is_set)
        with suppress(BackendError):  # else the first renewal tries again
            drive(registers.open())
        while not ended.wait(LONGEST_WAIT) and self._held:
            with suppress(BackendError):
                drive(self.renew(registers))

    async def renew(self, registers: Registers) -> None:
        """Renew what is due; what fails is tried again soon."""
        for _ in range(TRIES):
            now, due = time.monotonic(), dict[str, dict[str, Renewal]]()
            for owner, renewal in list(self._held.items()):
                if now >= renewal.renewed + renewal.life / BEATS:
                    due.setdefault(renewal.record, {})[owner] = renewal
            if not due or not await self._crossed(registers, due, now):
                return

    async def _crossed(self, registers: Registers, due: dict[str, dict[str, Renewal]], sent: float) -> bool:
        """Renew locks, by their records; tell whether others have crossed that."""
        looks = await registers.run(*map(Look, due))
        found = [each for each in zip(due, looks, strict=True) if each[1].error is None]
        swaps = [swap for name, answer in found if (swap := self._swap(name, answer, due[name])) is not None]
        answers = await registers.run(*swaps)
        for swap, answer in zip(swaps, answers, strict=True):
            for renewal in due[swap.name].values() if answer.done else ():
                renewal.renewed = sent
        return any(not answer.done and answer.error is None for answer in answers)

    def _swap(self, name: str, answer: Answer, due: dict[str, Renewal]) -> Swap | None:
        """Return the step that renews those who still hold a lock, None if nobody does; the others are told."""
        lock = locked_in(answer.raw)
        for owner in [owner for owner in due if not lock.held_by(owner)]:
            due.pop(owner).lost = True
            self.let_go(owner)
            self._inbox.deliver(owner, owner, "lost")
        if not due:
            return None
        lock.renew({owner: renewal.life for owner, renewal in due.items()})
        return Swap(name, answer, lock.bytes(), lock.life)
