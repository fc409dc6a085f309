"""What the maps and the ring of a Hazelcast cluster are set to, as far as a client can find out."""

import math
import uuid
from typing import Final

from nearcache.backends.base import Check, Facts
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.locks import LockAsk
from nearcache.backends.registers.locks import RegisterLocks
from nearcache.errors import BackendError

NOTHING: Final = Facts(None, None, None, None, None, None)
"""Members of the open-source edition tell a client nothing about themselves."""

ADVICE: Final = (
    "give the map a time-to-live-seconds, as docs/hazelcast.yaml does: a program that dies between two steps "
    "leaves records that nobody removes"
)

LIFE: Final = 10.0
"""Seconds that a lock lives which was left behind by a trial that failed."""

ROOM: Final = 1_000
"""Entries that a ring should take at least."""

SMALL: Final = (
    "give the ringbuffer the capacity that docs/hazelcast.yaml gives it: where more is changed before a process has "
    "read of it, that process forgets everything near"
)
ENDING: Final = (
    "give the ringbuffer a time-to-live-seconds of 0, as docs/hazelcast.yaml does: where the last entry has ended "
    "nobody knows whether another one has, and near values live for `staleness`"
)


class HazelcastAdmin:
    """The port of facts."""

    def __init__(self, registers: HazelcastRegisters, locks: RegisterLocks) -> None:
        self._registers = registers
        self._locks = locks

    async def facts(self) -> Facts:
        """Tell nothing."""
        return NOTHING

    async def examine(self, *, forgets: bool) -> list[Check]:
        """Try the ring and a lock, and find out whether the map has a default life, on records that are removed."""
        return [await self._lock(), await self._ring(), await self._default_life()]

    async def _lock(self) -> Check:
        """Have one hold a lock of its own that another waits for, and give it back."""
        locks, name = self._locks, f"nearcache-doctor:{uuid.uuid4().hex}"
        one, two = (LockAsk(name, owner, LIFE, fair=True, waits=True) for owner in ("one", "two"))
        try:
            held = [(await locks.acquire(ask)).token > 0 for ask in (one, two)]
            held += [await locks.release(name, "one", True), (await locks.acquire(two)).token > 0]
            await locks.forget(name)
        except BackendError as error:
            return Check("locks", False, str(error))
        works = held == [True, False, True, True]
        return Check("locks", works, "one at a time may hold a lock" if works else "not one of two was given a lock")

    async def _ring(self) -> Check:
        try:
            capacity, left = await self._registers.ring()
        except BackendError as error:
            return Check("ring", False, str(error))
        advice = ENDING if left < capacity else SMALL if capacity < ROOM else ""
        return Check("ring", True, f"changes are announced and read; it keeps the last {capacity:,}", advice)

    async def _default_life(self) -> Check:
        life = await self._registers.default_life()
        if life == math.inf:
            return Check("default life", None, "a record whose life was not told stays for ever", ADVICE)
        return Check("default life", True, f"a record whose life was not told stays for {life:g} seconds")
