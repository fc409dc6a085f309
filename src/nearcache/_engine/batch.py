"""Loading many keys: one read of the engine, one question for the leases, one call of the loader, one store.

A batch leads a flight for each key that nobody in this process loads, and asks the engine for their leases together. It
loads and stores its own share before it waits for what others load, so that two batches with common keys never wait for
each other.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from nearcache._core.events import Load
from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.found import DO_NOT_STORE, Lack, Old
from nearcache._engine.load import Loads
from nearcache._engine.loading import Loading, inside
from nearcache._engine.modes import Mode
from nearcache._engine.plan import Job, Lease, Plan
from nearcache._engine.read import Reader
from nearcache._engine.write import Draft, Tagger, Writer
from nearcache._io.port import Io, Overdue, require_callable
from nearcache.backends.base import Ask, Backend, Fill, Grant
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError, BatchError, CacheError
from nearcache.near.flights import Flight, leading

LoadMany = Callable[[list[Any]], Any]
"""Loads items, and returns their values by item."""


class Batch:
    """What a batch loads: the item behind each key, the loader of many items, and how the results are stored.

    `tag` makes the tags of one item's value.
    """

    def __init__(self, items: Mapping[str, Any], loader: LoadMany, plan: Plan, tag: Callable[[Any], Tagger]) -> None:
        self.items: dict[str, Any] = dict(items)
        self.loader: LoadMany = loader
        self.plan: Plan = plan
        self.tag: Callable[[Any], Tagger] = tag

    def job(self, key: str, io: Io) -> Job:
        """Return the load of one key alone."""
        item = self.items[key]
        return Job(functools.partial(io.only, self.loader, item), self.plan, self.tag(item))


class Group:
    """The flights that one batch leads; its work is cancelled when nobody waits for any of them."""

    def __init__(self, flights: Iterable[Flight]) -> None:
        self._waited_for = {id(flight) for flight in flights}
        self.cancel: Callable[[], None] | None = None
        for flight in flights:
            flight.cancel = functools.partial(self._left, id(flight))

    def _left(self, flight: int) -> None:
        self._waited_for.discard(flight)
        if not self._waited_for and self.cancel is not None:
            self.cancel()


class Share:
    """The part of a batch that this process loads: a flight for each key, and the leases under which it may store."""

    def __init__(self, flights: Mapping[str, Flight], old: Mapping[str, Old]) -> None:
        self.flights: Mapping[str, Flight] = flights
        self.leases: dict[str, Lease] = {}
        self.old: Mapping[str, Old] = old
        """Values that are no longer fresh, to be served where somebody else refreshes them, or the load fails."""
        self.says: Loading = Loading(tuple(flights.values()))
        self.cost: float = 0.0
        self.others: list[str] = []
        """Keys that somebody else loads, or has loaded meanwhile."""

    @property
    def own(self) -> list[str]:
        """The keys to be loaded here."""
        return [key for key in self.flights if key not in self.others]


class Batches:
    """Loads of many keys of one cache through one backend."""

    def __init__(
        self,
        core: Core,
        io: Io,
        backend: Backend,
        commands: Commands,
        reader: Reader,
        writer: Writer,
        loads: Loads,
    ) -> None:
        self._core = core
        self._io = io
        self._leases = backend.leases
        self._commands = commands
        self._reader = reader
        self._writer = writer
        self._loads = loads

    async def get_or_load(self, batch: Batch) -> dict[str, Outcome[Any]]:
        """Return what came of each key; keys for which the loader returned nothing are left out."""
        core = self._core
        keys = [core.check(key) for key in batch.items]
        require_callable(batch.loader, "loader_many")
        mode = core.mode()
        values, lacks = await self._reader.split(keys, batch.plan.schema)
        asked, plan = time.monotonic(), batch.plan
        revived = {key: self._reader.revived(key, lack, plan.kept, plan.schema) for key, lack in lacks.items()}
        old = {key: each for key, each in revived.items() if each}
        led, followed, outcomes = self._enter(batch, lacks, old, alone=mode is not Mode.NORMAL)
        if led:
            await self._depart(batch, Share(led, old), lacks, mode)
        try:
            for key, flight in led.items():
                outcomes[key] = await self._loads.ending(flight, batch.plan, math.inf)
            for key, flight in followed.items():
                outcomes[key] = await self._loads.follow(flight, batch.job(key, self._io), asked)
        except BaseException:
            for flight in led.values():  # those it has not come to yet, too
                flight.leave(_nobody)
            raise
        return told(keys, values, outcomes)

    async def each(self, jobs: Mapping[str, Job], schema: Schema | None) -> dict[str, Outcome[Any]]:
        """Return what came of every key: one batch read, then one load for each key that is missing."""
        keys = list(map(self._core.check, jobs))
        values, missing = await self._reader.split(keys, schema)
        loaded = await self._io.each([self._one_of_many(key, jobs[key], missing[key]) for key in missing])
        outcomes = dict(zip(missing, loaded, strict=True))
        return {key: outcomes[key] if key in outcomes else Outcome(values[key]) for key in keys}

    async def _one_of_many(self, key: str, job: Job, lack: Lack) -> Outcome[Any]:
        outcome = await self._loads.get_or_load(key, job, lack)
        if outcome.error is not None and outcome.abandoned:
            raise outcome.error  # who presses Ctrl-C means all of them
        return outcome

    def _enter(
        self, batch: Batch, lacks: Mapping[str, Lack], old: Mapping[str, Old], alone: bool
    ) -> tuple[dict[str, Flight], dict[str, Flight], dict[str, Outcome[Any]]]:
        """Return the flights that this batch leads, those of others that it follows, and what is known already."""
        flights, now = self._core.flights, time.monotonic()
        led, followed, outcomes = dict[str, Flight](), dict[str, Flight](), dict[str, Outcome[Any]]()
        for key in lacks:
            if flights.led_here(key):
                outcomes[key] = self._loads.asked_itself(key)
                continue
            mine = flights.new(key, now + batch.plan.hard_timeout, self._io.home())
            mine.missed = lacks[key].reason.value
            if key in old and old[key].stale(batch.plan.stale):  # nobody waits for it but this batch
                if flights.renewing(mine):
                    led[key] = mine
                else:
                    outcomes[key] = self._loads.keep(mine, old[key])
                continue
            flight = mine if alone else flights.join(mine, now)
            if flight is mine:
                led[key] = mine
            else:
                followed[key] = flight
        return led, followed, outcomes

    async def _depart(self, batch: Batch, share: Share, lacks: Mapping[str, Lack], mode: Mode) -> None:
        """Load as leader: at once when blocking, as a task of its own in asyncio."""
        flights, group = self._core.flights, Group(share.flights.values())
        whole = flights.new("", math.inf, self._io.home())
        try:
            loader = batch.loader if batch.plan.apart else None
            await self._io.lead(whole, self._lead(whole, batch, share, lacks, mode), loader)
        except BaseException as error:
            for flight in share.flights.values():
                flights.land(flight, Outcome(error=error))
            raise
        group.cancel = whole.cancel

    async def _lead(self, whole: Flight, batch: Batch, share: Share, lacks: Mapping[str, Lack], mode: Mode) -> None:
        outcome: Outcome[Any] = Outcome(None)
        try:
            await self._take_leases(batch, share, lacks, mode)
            await self._load(batch, share)
            wait = functools.partial(self._wait, batch, share, lacks)
            await self._io.each([wait(key) for key in share.others])
        except BaseException as error:  # noqa: BLE001 -- whatever happens, those who wait must be told
            outcome = Outcome(error=error)
        for flight in (*share.flights.values(), whole):
            self._core.flights.land(flight, outcome)  # those that have landed keep what they have

    async def _take_leases(self, batch: Batch, share: Share, lacks: Mapping[str, Lack], mode: Mode) -> None:
        if mode in (Mode.DISABLED, Mode.OFF):
            return
        wanted = [key for key in share.flights if lacks[key].reason not in DO_NOT_STORE]
        claim, life = self._core.flights.claim, self._loads.life(batch.plan)
        asks = [Ask(key, claim(share.flights[key]), lacks[key].seen, life) for key in wanted]
        if mode is Mode.BYPASS:
            await self._steal(share, asks)
        elif asks:
            await self._acquire(share, asks)

    async def _acquire(self, share: Share, asks: list[Ask]) -> None:
        grants: Mapping[str, Grant]
        try:
            granted = await self._commands.run("acquire", self._leases.acquire, asks)
            grants = {ask.key: grant for ask, grant in zip(asks, granted, strict=True)}
        except BackendError as error:
            grants = error.answered
        for ask in asks:
            if (grant := grants.get(ask.key)) is None:
                continue
            if grant.leads:
                share.leases[ask.key] = Lease(ask.token, ask.seen, self._core.view.last)
            else:
                share.others.append(ask.key)

    async def _steal(self, share: Share, asks: list[Ask]) -> None:
        for ask, seen in zip(asks, await self._io.each([self._stolen(ask) for ask in asks]), strict=True):
            if seen is not None:
                share.leases[ask.key] = Lease(ask.token, seen, self._core.view.last, replaces=True)

    async def _stolen(self, ask: Ask) -> bytes | None:
        """Take one lease; None if the engine fails, or that part of it."""
        try:
            return await self._commands.run("steal", self._leases.steal, ask)
        except BackendError:
            return None

    async def _wait(self, batch: Batch, share: Share, lacks: Mapping[str, Lack], key: str) -> None:
        flight, lack, old = share.flights[key], lacks[key], share.old.get(key)
        if old and old.stale(batch.plan.stale):
            self._core.flights.land(flight, self._loads.keep(flight, old))
            return
        outcome = await self._loads.load_or_wait(flight, batch.job(flight.key, self._io), lack.seen, old)
        self._core.flights.land(flight, outcome)

    async def _load(self, batch: Batch, share: Share) -> None:
        """Load the keys that are to be loaded here with one call, store them on one trip, and land their flights."""
        own = share.own
        if not own:
            return
        until = time.monotonic() + batch.plan.hard_timeout
        for key, lease in share.leases.items():
            self._leases.hold(key, lease.token, until)
        try:
            outcomes = await self._call(batch, share, own, until)
            await self._store(batch, share, outcomes)
        finally:
            for lease in share.leases.values():
                self._leases.let_go(lease.token)

    async def _call(self, batch: Batch, share: Share, own: list[str], until: float) -> dict[str, Outcome[Any]]:
        flights, started = [share.flights[key] for key in own], time.perf_counter()
        for flight in flights:
            flight.begin(until, None if flight.key in share.leases else self._core.options.staleness)
        with self._core.loads.over(batch.loader, until), leading(*flights), inside(share.says):
            items = [batch.items[key] for key in own]
            outcome = await self._io.user(batch.loader, items, limit=batch.plan.hard_timeout)
        if isinstance(outcome.error, Overdue):
            outcome = self._loads.overdue(own[0], batch.plan)
        share.cost = seconds = time.perf_counter() - started
        error = None if outcome.error is None else type(outcome.error).__name__
        self._core.emit(Load(entity_of(own[0]), seconds, error))
        outcome = _about(outcome, items)
        return {key: _of(outcome, batch.items[key]) for key in own}

    async def _store(self, batch: Batch, share: Share, outcomes: dict[str, Outcome[Any]]) -> None:
        drafts: dict[str, Draft] = {}
        for key, outcome in outcomes.items():
            if outcome.error is not None:
                continue
            self._loads.loaded(share.flights[key])
            if (value := outcome.get()) is not MISS:
                try:
                    drafts[key] = self._loads.draft(
                        key, value, batch.plan, batch.tag(batch.items[key]), share.cost, share.says
                    )
                except CacheError as error:
                    outcomes[key] = Outcome(error=error)
        filled = await self._fill(share, drafts) if share.says.stored else set[str]()
        for key, outcome in outcomes.items():
            if key in drafts:
                draft = drafts[key]
                self._core.keep_meanwhile(share.flights[key], draft.ttl, draft.tags, share.says.stored)
                outcome.shared_as(*self._core.form(draft.value, draft.encoded, draft.schema))
            if key not in filled:
                await self._loads.give_up(key, share.leases.get(key), outcome.error, key in share.old)
            kept = self._loads.instead(share.flights[key], outcome, share.old.get(key), batch.plan)
            self._core.flights.land(share.flights[key], kept)

    async def _fill(self, share: Share, drafts: Mapping[str, Draft]) -> set[str]:
        """Store what may be stored; return the keys whose leases have ended by that."""
        core, writer, leases = self._core, self._writer, share.leases
        kept = [key for key in drafts if key in leases]
        if not kept:
            return set()
        items = [writer.seal(drafts[key], leases[key].epoch) for key in kept]
        stamps, asked, sent = [core.near.stamp(key) for key in kept], core.clock(), time.monotonic()
        held = [(item, leases[item.key]) for item in items]
        fills = [Fill(item, lease.token, lease.seen, lease.replaces) for item, lease in held]
        replaced = {key for key in kept if leases[key].replaces}
        stored: Mapping[str, bool]
        try:
            stored = dict(zip(kept, await self._commands.run("fill", self._leases.fill, fills), strict=True))
        except BackendError as error:
            stored = error.answered
        replaced -= {key for key, accepted in stored.items() if accepted}
        for item, stamp in zip(items, stamps, strict=True):
            accepted = stored.get(item.key, False)
            if accepted and writer.keep(drafts[item.key], item, asked, stamp, leases[item.key].epoch):
                share.flights[item.key].vouched = sent
        if replaced:
            with suppress(BackendError):
                await writer.delete(replaced)
        return set(kept)


def _nobody() -> None:
    """Stand for a waiter that has not begun to wait."""


def _about(outcome: Outcome[Any], items: list[Any]) -> Outcome[Any]:
    """Return an error if a batch loader answered, and not to what it was asked."""
    values: object = None if outcome.error is not None else outcome.get()
    if isinstance(values, dict) and values and not any(item in values for item in items):
        return Outcome(error=TypeError("the batch loader returned a dict that has none of the items it was asked for"))
    return outcome


def _of(outcome: Outcome[Any], item: Any) -> Outcome[Any]:
    """Return what a call of a batch loader says of one item; MISS if it says nothing."""
    error = outcome.error
    if isinstance(error, BatchError):
        if item in error.errors:
            return Outcome(error=error.errors[item])
        return _part(error.values, item) if item in error.values else Outcome(error=error)
    if error is not None:
        return Outcome(error=error)
    values: object = outcome.get()
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        return Outcome(error=TypeError(f"the batch loader returned a {kind}; it must return a dict of values by item"))
    return _part(values, item)  # pyright: ignore[reportUnknownArgumentType]  # whatever the keys, it is looked up


def _part(values: Mapping[Any, Any], item: Any) -> Outcome[Any]:
    return Outcome(values[item]) if item in values else Outcome[Any](MISS).unshared()


def told(
    keys: Iterable[str], values: Mapping[str, Any], outcomes: Mapping[str, Outcome[Any]]
) -> dict[str, Outcome[Any]]:
    """Put everything together in the order of the keys; an interrupt is meant for all of them."""
    for outcome in outcomes.values():
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            outcome.get()
    told = {key: outcomes[key] if key in outcomes else Outcome(values[key]) for key in keys}
    return {key: outcome for key, outcome in told.items() if outcome.error is not None or outcome.get() is not MISS}
