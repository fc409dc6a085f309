"""Refreshing a value that is still served: by one reader, in the background or after the others have the old value."""

import functools
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from nearcache._core.outcome import Outcome
from nearcache._engine.core import Core
from nearcache._engine.found import Old
from nearcache._engine.plan import Job, Lease
from nearcache._io.port import Io
from nearcache.backends.base import Grant
from nearcache.errors import CacheError
from nearcache.near.flights import Flight

Acquire = Callable[[Flight, Job, bytes], Awaitable[Grant | None]]
"""Asks for the lease of a flight's key, with the identity of the record that it is to replace."""

Load = Callable[[Flight, Job, Lease | None, Old | None], Awaitable[Outcome[Any]]]


class Renewals:
    """Renewals of one cache through one backend."""

    def __init__(self, core: Core, io: Io, acquire: Acquire, load: Load) -> None:
        self._core = core
        self._io = io
        self._acquire = acquire
        self._load = load

    def renew(self, flight: Flight, job: Job, old: Old, seen: bytes) -> None:
        """See to it that one reader refreshes a value that is served now."""
        renewal = functools.partial(self._renewal, flight.key, job, old, seen)
        if job.plan.background:
            self._io.later(self._quietly(renewal()), job.loader)
        else:
            flight.renew = renewal

    async def _quietly(self, renewal: Coroutine[Any, Any, Outcome[Any]]) -> None:
        with suppress(CacheError):  # counted already, and nobody waits for it
            await renewal

    async def _renewal(self, key: str, job: Job, old: Old, seen: bytes) -> Outcome[Any]:
        """Load and replace a value that is still served, unless somebody else does; return the new or the old one."""
        flights, plan = self._core.flights, job.plan
        flight = flights.new(key, time.monotonic() + plan.hard_timeout, self._io.home())
        outcome: Outcome[Any] = old.outcome
        if not flights.renewing(flight):
            return outcome
        try:
            grant = await self._acquire(flight, job, seen)
            if grant is not None and grant.leads:
                loaded = await self._load(flight, job, Lease(flight.token, seen, self._core.view.last), old)
                outcome = outcome if isinstance(loaded.error, Exception) else loaded
        except BaseException as error:
            outcome = Outcome(error=error)
            raise
        finally:
            flights.land(flight, outcome)
        return outcome
