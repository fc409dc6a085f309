"""Loading: one read of the engine and at most one load per key, whoever and however many ask for it.

In this process one flight per key reads and loads for all. Among processes the key's lease in the engine decides who
loads; the others wait for a message from whoever has it, and look again when the lease may have ended. What is loaded
is stored only as long as the lease stands: a write or an invalidation of the key revokes it.
"""

import functools
import math
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from nearcache._core.events import Hit, Load, Miss
from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.found import DO_NOT_STORE, Absence, Found, Lack, Old
from nearcache._engine.loading import Loading, inside
from nearcache._engine.modes import Mode
from nearcache._engine.plan import Job, Lease, Plan
from nearcache._engine.read import Reader
from nearcache._engine.renew import Renewals
from nearcache._engine.write import Draft, Tagger, Writer
from nearcache._io.port import Io, Overdue, require_callable
from nearcache.backends.base import BACK_OFF, Ask, Backend, Fill, Grant, identity_of
from nearcache.errors import BackendError, CacheError, LoaderTimeoutError, LoadFailedError
from nearcache.near.flights import Flight, leading
from nearcache.near.inbox import Mail

Work = Callable[[Flight], Coroutine[Any, Any, Outcome[Any]]]
"""What the leader of a flight does."""

WAIT_MARGIN: Final = 1.0
"""Seconds that a follower waits beyond the bound of the load, so that the leader can report its own end."""

LOOK_AGAIN: Final = 0.1
"""Seconds after the end of somebody else's lease within which those who wait look again, each at a random moment."""

FAILED: Final = "fail:"

BACK_OFF_SECONDS: Final = 5.0
"""How long nobody tries again after a load failed that was to replace a value which is still kept."""


class Loads:
    """Loads of one cache through one backend."""

    def __init__(
        self, core: Core, io: Io, backend: Backend, commands: Commands, reader: Reader, writer: Writer
    ) -> None:
        self._core = core
        self._io = io
        self._leases = backend.leases
        self._shared = backend.shared
        self._renewals = Renewals(core, io, self.lease, self.load)
        self._takeover = backend.leases.life if backend.leases.life < math.inf else 0.0
        self._commands = commands
        self._reader = reader
        self._writer = writer

    async def get_or_load(self, key: str, job: Job, lack: Lack | None = None) -> Outcome[Any]:
        """Return the cached value, or what the loader returns, which is then cached; the caller has looked near.

        With `lack`, the engine was just read, and why it had no value is known.
        """
        core = self._core
        core.check(key)
        require_callable(job.loader, "loader")
        mode = core.mode()
        if mode is Mode.NORMAL:
            return await self._share(key, job, lack)
        core.emit(Miss(entity_of(key), Absence.DISABLED.value, 1))
        return await (self.refresh(key, job) if mode is Mode.BYPASS else self._unheard(job))

    async def _unheard(self, job: Job) -> Outcome[Any]:
        """Load without the cache: nobody listens to what the loader says."""
        with inside(Loading()):
            return await self._io.user(job.loader)

    async def put(self, key: str, value: Any, plan: Plan, tag: Tagger) -> None:
        """Store a value as if a load with this plan had returned it."""
        self._core.check(key)
        await self._writer.put(self.draft(key, value, plan, tag))

    def draft(
        self, key: str, value: Any, plan: Plan, tag: Tagger, cost: float = 0.0, says: Loading | None = None
    ) -> Draft:
        """Encode a result to be stored as the plan says, and as the loader said."""
        lifetime, tags = self._lifetime(value, plan), tag(value)
        if says is not None:
            lifetime = lifetime if says.ttl is None else self._core.jittered(says.ttl)
            tags = self._core.check_tags((*tags, *says.tags)) if says.tags else tags
        return self._writer.draft(key, value, lifetime, plan.schema, cost, tags, plan.kept)

    async def refresh(self, key: str, job: Job) -> Outcome[Any]:
        """Load now, whatever is cached and whoever is loading, and replace it."""
        self._core.check(key)
        if self._core.mode() in (Mode.DISABLED, Mode.OFF):
            return await self._unheard(job)
        if self._core.flights.led_here(key):
            return self.asked_itself(key)
        work = functools.partial(self._reload, job=job)
        flight, _ = await self._depart(key, job, work, self._core.flights.replace)
        return await self.ending(flight, job.plan, math.inf)

    # Flights

    async def _share(self, key: str, job: Job, lack: Lack | None) -> Outcome[Any]:
        return await self._share_since(time.monotonic(), key, job, lack)

    async def follow(self, flight: Flight, job: Job, asked: float) -> Outcome[Any]:
        """Wait for somebody else's flight, as a reader whose call began at `asked`, or look for oneself."""
        if self._io.can_wait(flight) and await self._ends(flight, self._deadline(asked, job.plan), job.plan):
            outcome = flight.outcome
            if outcome is not None and self._is_for(asked, flight, outcome):
                return self._followed(flight.key, outcome)
        return await self._share_since(asked, flight.key, job, None)

    async def _share_since(self, asked: float, key: str, job: Job, lack: Lack | None) -> Outcome[Any]:
        work = functools.partial(self._read_or_load, job=job, lack=lack)
        deadline = self._deadline(asked, job.plan)
        while deadline > time.monotonic():
            if self._core.flights.led_here(key):
                return self.asked_itself(key)
            flight, leads = await self._depart(key, job, work, self._core.flights.join)
            if not leads and not self._io.can_wait(flight):
                return await self._alone(key, job, lack)
            if not await self._ends(flight, deadline, job.plan):
                return self._left(flight, job.plan)
            outcome = flight.outcome
            if outcome is not None and leads:
                return outcome if flight.renew is None else await flight.renew()
            # What is not for this reader is older than its call: it looks for itself, now that there is a new value.
            if outcome is not None and self._is_for(asked, flight, outcome):
                return self._followed(key, outcome)
        return self.overdue(key, job.plan)

    async def ending(self, flight: Flight, plan: Plan, deadline: float) -> Outcome[Any]:
        """Return what comes of a flight that the caller leads."""
        await self._ends(flight, deadline, plan)
        return self._left(flight, plan)

    @staticmethod
    def _is_for(asked: float, flight: Flight, outcome: Outcome[Any]) -> bool:
        return not outcome.abandoned and (outcome.error is not None or flight.serves(asked))

    def _deadline(self, asked: float, plan: Plan) -> float:
        return asked + plan.hard_timeout + self._takeover + WAIT_MARGIN

    async def _ends(self, flight: Flight, deadline: float, plan: Plan) -> bool:
        """Wait until a flight has landed, at most until it is overdue or has something to fall back to, and at most
        until the deadline.
        """
        soft = plan.soft_timeout
        # A blocking load in a thread of its own cannot be stopped, so that there is no end it could report.
        margin = 0.0 if plan.apart and self._io.flavour == "sync" else WAIT_MARGIN

        def until() -> float:
            latest = min(deadline, flight.until + margin)
            # What it falls back to is found while others wait: they look now and then.
            return latest if soft is None else min(latest, flight.soft, time.monotonic() + soft)

        return await self._io.wait(flight, until)

    def _left(self, flight: Flight, plan: Plan) -> Outcome[Any]:
        """Return what a reader gets who waits no longer."""
        if flight.outcome is not None:
            return flight.outcome
        if flight.fallback is None:
            return self.overdue(flight.key, plan)
        self._core.emit(Hit(entity_of(flight.key), "stale", 1))
        flight.missed = None  # its reader has an answer
        return flight.fallback.copied()

    async def _depart(
        self, key: str, job: Job, work: Work, enter: Callable[[Flight, float], Flight]
    ) -> tuple[Flight, bool]:
        """Enter a flight for the key: follow somebody else's, or lead one that does the work; tell whether it leads."""
        flights, now = self._core.flights, time.monotonic()
        mine = flights.new(key, now + job.plan.hard_timeout, self._io.home())
        try:
            flight = enter(mine, now)
            if flight is mine:
                await self._io.lead(mine, self._lead(mine, work), job.loader if job.plan.apart else None)
        except BaseException as error:
            flights.land(mine, Outcome(error=error))  # interrupted before the load itself could tell how it ended
            raise
        return flight, flight is mine

    async def _lead(self, flight: Flight, work: Work) -> None:
        try:
            outcome: Outcome[Any] = await work(flight)
        except BaseException as error:  # noqa: BLE001 -- whatever happens, those who wait must be told
            outcome = Outcome(error=error)
        self._core.flights.land(flight, outcome)

    # What a leader does

    async def _read_or_load(self, flight: Flight, job: Job, lack: Lack | None) -> Outcome[Any]:
        asked, plan = time.monotonic(), job.plan
        value = self._reader.near(flight.key, plan.schema)
        if value is not MISS:  # an earlier flight has landed since the caller looked
            flight.vouched = asked
            return Outcome(value).unshared()
        found = lack or await self._reader.fetch(flight.key, plan.schema, refreshes=True)
        if isinstance(found, Found):
            since = asked - (found.behind or 0.0)
            outcome = self._served(flight, found, job, max(asked, self._core.vouched(since, self._shared)))
            if found.due:
                self._renewals.renew(flight, job, Old(outcome, 0.0, since), identity_of(found.record.fill_id))
            return outcome
        old = self._reader.revived(flight.key, found, plan.kept, plan.schema)
        if old and old.stale(plan.stale):
            flight.vouched = self._core.vouched(asked, self._shared)
            self._core.emit(Hit(entity_of(flight.key), "stale", 1))
            self._renewals.renew(flight, job, old, found.seen)
            return old.outcome
        flight.missed = found.reason.value
        if found.reason in DO_NOT_STORE:
            return await self.load(flight, job, None, old)
        return await self.load_or_wait(flight, job, found.seen, old)

    async def _alone(self, key: str, job: Job, lack: Lack | None) -> Outcome[Any]:
        """Read or load without those who load already: they cannot go on before this call has ended."""
        found = lack or await self._reader.fetch(key, job.plan.schema)
        flight = self._core.flights.new(key, 0.0, None)
        if isinstance(found, Found):
            return self._served(flight, found, job, 0.0)
        flight.missed = found.reason.value
        return await self.load(flight, job, None)

    async def _reload(self, flight: Flight, job: Job) -> Outcome[Any]:
        token = self._core.flights.claim(flight)
        try:
            ask = Ask(flight.key, token, b"", self.life(job.plan))
            seen = await self._commands.run("steal", self._leases.steal, ask)
        except BackendError:
            return await self.load(flight, job, None)
        return await self.load(flight, job, Lease(token, seen, self._core.view.last, replaces=True))

    async def load_or_wait(self, flight: Flight, job: Job, seen: bytes, old: Old | None) -> Outcome[Any]:
        """Load under the key's lease; while somebody else has it, wait for what they store."""
        self._fall_back(flight, job.plan, old)
        flight.until += self._takeover  # as long as somebody else may load, and a dead one keep the lease
        while flight.until > time.monotonic():
            mail = self._leases.expect(flight.key)
            try:
                asked, sent, stamp = time.monotonic(), self._core.clock(), self._core.near.stamp(flight.key)
                grant = await self.lease(flight, job, seen)
                if grant is None or grant.leads:
                    lease = Lease(flight.token, seen, self._core.view.last) if grant else None
                    return await self.load(flight, job, lease, old)
                if old and grant.holder == BACK_OFF and self._good_enough(old, job.plan):
                    return self.keep(flight, old)
                if grant.raw is None:
                    if failed := await self._wait(flight, mail, grant):
                        return self.instead(flight, failed, old, job.plan)
                    continue
                found = await self._reader.examine(flight.key, grant.raw, job.plan.schema, sent, stamp)
            finally:
                mail.close()
            if isinstance(found, Found):
                return self._served(flight, found, job, asked)
            if found.reason in DO_NOT_STORE:
                return await self.load(flight, job, None)
            seen = found.seen
        return self.instead(flight, self.overdue(flight.key, job.plan), old, job.plan)

    async def lease(self, flight: Flight, job: Job, seen: bytes) -> Grant | None:
        """Ask for the lease; None if the engine fails."""
        ask = Ask(flight.key, self._core.flights.claim(flight), seen, self.life(job.plan))
        try:
            (grant,) = await self._commands.run("acquire", self._leases.acquire, [ask])
        except BackendError:
            return None
        return grant

    async def _wait(self, flight: Flight, mail: Mail, grant: Grant) -> Outcome[Any] | None:
        """Wait until the lease of somebody else may have ended; return their error if they told of one."""
        if grant.holder == BACK_OFF or self._core.flights.orphaned(grant.holder):  # nobody is served by waiting
            with suppress(BackendError):
                await self._commands.run("release", self._leases.release, flight.key, grant.holder, "retry")
                return None
        left = max(0.001, grant.left) + LOOK_AGAIN * random.random()  # noqa: S311
        until = min(time.monotonic() + left, flight.until)
        await self._io.wait(mail, lambda: until)
        token, outcome = mail.heard or ("", "")
        if token != grant.holder or not outcome.startswith(FAILED):
            return None
        kind = outcome.removeprefix(FAILED)
        return Outcome(error=LoadFailedError(f"the load of {flight.key!r} failed in another process with {kind}"))

    def _fall_back(self, flight: Flight, plan: Plan, old: Old | None) -> None:
        """Let those who wait for a flight have the old value after the soft timeout."""
        if old and self._good_enough(old, plan):
            flight.fallback = old.outcome
            if self._shared:  # somebody else may have invalidated it since: who comes later looks for themselves
                flight.closes = flight.made + self._core.options.staleness
            if plan.soft_timeout is not None:
                flight.soft = min(flight.soft, time.monotonic() + plan.soft_timeout)

    @staticmethod
    def _good_enough(old: Old, plan: Plan) -> bool:
        """Whether an old value may be served because the load fails."""
        return old.past + time.monotonic() - old.read <= plan.fail_safe

    def keep(self, flight: Flight, old: Old) -> Outcome[Any]:
        """Return an old value as the outcome of a flight."""
        self._core.emit(Hit(entity_of(flight.key), "stale", 1))
        known = math.inf if self._core.outage else self._core.vouched(old.read, self._shared)
        flight.vouched = min(flight.began if flight.began > -math.inf else time.monotonic(), known)
        flight.began = flight.vouched  # the load that began later has brought nothing
        return old.outcome

    async def load(self, flight: Flight, job: Job, lease: Lease | None, old: Old | None = None) -> Outcome[Any]:
        """Load, and store the result under the lease if there is one; an old value may stand in for an error."""
        if lease:
            self._leases.hold(flight.key, lease.token, time.monotonic() + job.plan.hard_timeout)
        try:
            outcome = await self._run(flight, job, lease, old)
        finally:
            if lease:
                self._leases.let_go(lease.token)
        return self.instead(flight, outcome, old, job.plan)

    def instead(self, flight: Flight, outcome: Outcome[Any], old: Old | None, plan: Plan) -> Outcome[Any]:
        """Return the old value in the place of an error, if it is still good enough; else it was a miss."""
        if old and isinstance(outcome.error, Exception) and self._good_enough(old, plan):
            return self.keep(flight, old)
        self._miss(flight)
        return outcome

    async def _run(self, flight: Flight, job: Job, lease: Lease | None, old: Old | None) -> Outcome[Any]:
        started, limit = time.perf_counter(), job.plan.hard_timeout
        flight.begin(time.monotonic() + limit, None if lease else self._core.options.staleness)
        says = Loading((flight,), old.outcome.copied().get() if old else MISS)
        with self._core.loads.over(job.loader, flight.until), leading(flight), inside(says):
            outcome = await self._io.user(job.loader, limit=limit)
        if isinstance(outcome.error, Overdue):
            outcome = self.overdue(flight.key, job.plan)
        cost, error = time.perf_counter() - started, outcome.error
        self._core.emit(Load(entity_of(flight.key), cost, None if error is None else type(error).__name__))
        try:
            if error is None:
                self.loaded(flight)
                return await self._fill(flight, outcome.get(), job, cost, lease, says)
        except BaseException as wrong:
            await self.give_up(flight.key, lease, wrong, old is not None)
            raise
        await self.give_up(flight.key, lease, error, old is not None)
        return outcome

    async def _fill(
        self, flight: Flight, value: Any, job: Job, cost: float, lease: Lease | None, says: Loading
    ) -> Outcome[Any]:
        if value is MISS:  # a batch loader said nothing of this key
            await self.give_up(flight.key, lease, None)
            return Outcome(value).unshared()
        draft = self.draft(flight.key, value, job.plan, job.tag, cost, says)
        if lease and says.stored:
            await self._store(flight, draft, lease)
        else:
            await self.give_up(flight.key, lease, None)
        self._core.keep_meanwhile(flight, draft.ttl, draft.tags, says.stored)
        return Outcome(value).shared_as(*self._core.form(value, draft.encoded, job.plan.schema))

    async def _store(self, flight: Flight, draft: Draft, lease: Lease) -> None:
        """Store what was loaded, if the lease still stands."""
        item, stamp = self._writer.seal(draft, lease.epoch), self._core.near.stamp(flight.key)
        asked, sent, stored = self._core.clock(), time.monotonic(), False
        with suppress(BackendError):
            fills = [Fill(item, lease.token, lease.seen, lease.replaces)]
            (stored,) = await self._commands.run("fill", self._leases.fill, fills)
            if stored and self._writer.keep(draft, item, asked, stamp, lease.epoch):
                flight.vouched = sent
        if lease.replaces and not stored:
            with suppress(BackendError):
                await self._writer.delete((flight.key,))

    def loaded(self, flight: Flight) -> None:
        """Serve no value any more that may be older than what was loaded, near or from the engine: it may not be
        stored.
        """
        if self._shared and flight.missed != Absence.SCHEMA.value:
            self._reader.surpass(flight)

    async def give_up(self, key: str, lease: Lease | None, error: BaseException | None, kept: bool = False) -> None:
        """End a lease without storing anything, and tell those who wait why; where an old value is kept, nobody tries
        again for a while after an error.
        """
        if lease:
            why = f"{FAILED}{type(error).__name__}" if isinstance(error, Exception) else "retry"
            with suppress(BackendError):
                pause = BACK_OFF_SECONDS if kept and isinstance(error, Exception) else 0.0
                await self._commands.run("release", self._leases.release, key, lease.token, why, pause)

    # Outcomes

    def _miss(self, flight: Flight) -> None:
        """Tell that the reader of a flight found nothing: what another process has loaded meanwhile is no miss."""
        if flight.missed:
            self._core.emit(Miss(entity_of(flight.key), flight.missed, 1))
            flight.missed = None

    def _served(self, flight: Flight, found: Found, job: Job, vouched: float) -> Outcome[Any]:
        flight.vouched = vouched
        self._core.near.hits.of(entity_of(flight.key)).engine += 1
        return Outcome(found.value).shared_as(*self._core.form(found.value, found.record, job.plan.schema))

    def _lifetime(self, value: Any, plan: Plan) -> float:
        if value is not None:
            return self._core.jittered(plan.ttl)
        if plan.none_ttl is not None:
            return self._core.jittered(plan.none_ttl)
        return min(self._core.jittered(plan.ttl), self._core.jittered(self._core.options.none_ttl))

    def _followed(self, key: str, outcome: Outcome[Any]) -> Outcome[Any]:
        if outcome.error is None:
            self._core.emit(Hit(entity_of(key), "stale" if outcome.stale else "flight", 1))
        return outcome.copied()

    def asked_itself(self, key: str) -> Outcome[Any]:
        """Return what a loader gets that asks for its own key."""
        return Outcome(error=CacheError(f"the loader of {key!r} asked for {key!r} itself and would wait for ever"))

    def life(self, plan: Plan) -> float:
        """Return how long a lease lives that is not renewed."""
        return min(self._leases.life, plan.hard_timeout)

    def overdue(self, key: str, plan: Plan) -> Outcome[Any]:
        """Return what those get whose load does not end in time."""
        what = f"the load of {key!r} did not end within {plan.hard_timeout:g} s (hard_timeout)"
        return Outcome(error=LoaderTimeoutError(what))
