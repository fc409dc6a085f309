"""Where keys are while a server does not answer, if they are not to wait for it (`?eject=yes`).

They go to the servers behind it on the ring, until it answers again. From time to time a call looks whether it does,
and has the answer that it would have had without this. Programs never agree on the moment. So two of them may use one
key at two places, and a server that comes back has what it had: nothing is promised of old values while a server is
away, and after.
"""

import logging
import time
from typing import Final

from nearcache._core.outage import Outage
from nearcache._core.ring import Ring
from nearcache.backends.memcached.servers import Nodes

log: Final = logging.getLogger("nearcache")


class Ejecting:
    """A ring without the servers that do not answer; says so once for each outage, in the name of a namespace."""

    def __init__(self, ring: Ring, nodes: Nodes, namespace: str) -> None:
        self.size: int = ring.size
        self._ring = ring
        self._nodes = nodes.all
        self._namespace = namespace
        self._told: dict[int, Outage] = {}

    def of(self, key: str) -> int:
        """Return the place of a key's server among those that answer, or are to be asked whether they do."""
        now = time.monotonic()
        away = [number for number in range(self.size) if self._is_away(number, now)]
        return self._ring.of(key, away if len(away) < self.size else ())

    def _is_away(self, number: int, now: float) -> bool:
        outage = self._nodes[number].outage
        if outage is None or not outage.spares(now):
            return False
        if self._told.get(number) is not outage:
            self._told[number] = outage
            log.warning(
                "%s: the keys of the Memcached server at %s go to the others until it answers; from now on values may "
                "be read that are older than an invalidation (eject=yes)",
                self._namespace,
                self._nodes[number].where,
            )
        return True
