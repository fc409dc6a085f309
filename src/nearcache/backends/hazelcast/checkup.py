"""What the maps of a Hazelcast cluster are set to, as far as a client can find out."""

import math
from typing import Final

from nearcache.backends.base import Check, Facts
from nearcache.backends.hazelcast.registers import HazelcastRegisters

NOTHING: Final = Facts(None, None, None, None, None, None)
"""Members of the open-source edition tell a client nothing about themselves."""

ADVICE: Final = (
    "give the map a time-to-live-seconds, as docs/hazelcast.yaml does: a program that dies between two steps "
    "leaves records that nobody removes"
)


class HazelcastAdmin:
    """The port of facts."""

    def __init__(self, registers: HazelcastRegisters) -> None:
        self._registers = registers

    async def facts(self) -> Facts:
        """Tell nothing."""
        return NOTHING

    async def examine(self, *, forgets: bool) -> list[Check]:
        """Find out whether the map has a default life, on a record of its own that is removed."""
        life = await self._registers.default_life()
        if life == math.inf:
            return [Check("default life", None, "a record whose life was not told stays for ever", ADVICE)]
        return [Check("default life", True, f"a record whose life was not told stays for {life:g} seconds")]
