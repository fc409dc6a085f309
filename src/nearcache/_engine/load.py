"""Loading: one read of the engine and at most one load per key in this process, whoever and however many ask for it."""

import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from nearcache._core.events import Hit, Load, Miss
from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._core.ttl import TTL
from nearcache._engine.core import Core
from nearcache._engine.modes import Mode
from nearcache._engine.read import Absence, Found, Reader
from nearcache._engine.write import Draft, Writer
from nearcache._io.port import Io, require_callable
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError, CacheError, LoaderTimeoutError
from nearcache.near.flights import Flight, leading

Work = Callable[[Flight], Coroutine[Any, Any, Outcome[Any]]]
"""What the leader of a flight does."""

DO_NOT_STORE = (Absence.SCHEMA, Absence.ERROR)
"""A value of another release's type is left alone; an engine that just failed is not asked again by the same call."""

WAIT_MARGIN = 1.0
"""Seconds that a follower waits beyond the bound of the load, so that the leader can report its own end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the results of one loader are stored: their TTL, that of None results (None: the cache's), and their type."""

    ttl: TTL = "default"
    none_ttl: TTL | None = None
    schema: Schema | None = None
    hard_timeout: float | None = None


class Loads:
    """Loads of one cache through one backend."""

    def __init__(self, core: Core, io: Io, reader: Reader, writer: Writer) -> None:
        self._core = core
        self._io = io
        self._reader = reader
        self._writer = writer

    async def get_or_load(
        self, key: str, loader: Callable[[], Any], plan: Plan, absence: Absence | None = None
    ) -> Outcome[Any]:
        """Return the cached value, or what the loader returns, which is then cached; the caller has looked near.

        With `absence`, the engine was just read, and why it had no value is known.
        """
        core = self._core
        core.check(key)
        core.exact(plan.ttl)
        require_callable(loader, "loader")
        mode = core.mode()
        if mode is Mode.NORMAL:
            return await self._share(key, loader, plan, absence)
        core.emit(Miss(entity_of(key), Absence.DISABLED.value, 1))
        return await (self.refresh(key, loader, plan) if mode is Mode.BYPASS else self._io.user(loader))

    async def put(self, key: str, value: Any, plan: Plan) -> None:
        """Store a value as if a load with this plan had returned it."""
        self._core.check(key)
        draft = self._writer.draft(key, value, self._lifetime(value, plan), plan.schema)
        await self._writer.put(draft)

    async def each(self, loaders: Mapping[str, Callable[[], Any]], plan: Plan) -> dict[str, Outcome[Any]]:
        """Return what came of every key: one batch read, then one load for each key that is missing."""
        keys = list(map(self._core.check, loaders))
        values, missing = await self._reader.split(keys, plan.schema)
        loaded = await self._io.each([self._one_of_many(key, loaders[key], plan, missing[key]) for key in missing])
        outcomes = dict(zip(missing, loaded, strict=True))
        return {key: outcomes[key] if key in outcomes else Outcome(values[key]) for key in keys}

    async def _one_of_many(self, key: str, loader: Callable[[], Any], plan: Plan, absence: Absence) -> Outcome[Any]:
        # without a near tier, only the engine can tell that somebody else has loaded the key since the batch was read
        outcome = await self.get_or_load(key, loader, plan, absence if self._core.options.near else None)
        if outcome.error is not None and outcome.abandoned:
            raise outcome.error  # who presses Ctrl-C means all of them
        return outcome

    async def refresh(self, key: str, loader: Callable[[], Any], plan: Plan) -> Outcome[Any]:
        """Load now, whatever is cached and whoever is loading, and replace it."""
        self._core.check(key)
        if self._core.flights.led_here(key):
            return self._asked_itself(key)
        work = functools.partial(self._load, loader=loader, plan=plan)
        flight, _ = await self._depart(key, plan, work, self._core.flights.replace)
        await self._io.wait(flight, self._bound(plan))
        return flight.outcome or self._overdue(key, plan)

    async def _share(self, key: str, loader: Callable[[], Any], plan: Plan, absence: Absence | None) -> Outcome[Any]:
        work = functools.partial(self._read_or_load, loader=loader, plan=plan, absence=absence)
        deadline = time.monotonic() + self._bound(plan) + WAIT_MARGIN
        while (left := deadline - time.monotonic()) > 0:
            if self._core.flights.led_here(key):
                return self._asked_itself(key)
            flight, leads = await self._depart(key, plan, work, self._core.flights.join)
            if not leads and not self._io.can_wait(flight):
                return await work(self._core.flights.solo(key))
            if not await self._io.wait(flight, left):
                break
            outcome = flight.outcome
            if outcome is not None and (leads or not outcome.abandoned):
                return outcome if leads else self._followed(key, outcome)
        return self._overdue(key, plan)

    async def _depart(
        self, key: str, plan: Plan, work: Work, enter: Callable[[Flight, float], Flight]
    ) -> tuple[Flight, bool]:
        """Enter a flight for the key: follow somebody else's, or lead one that does the work; tell whether it leads."""
        flights, now = self._core.flights, time.monotonic()
        mine = flights.new(key, now + self._bound(plan), self._io.home())
        try:
            flight = enter(mine, now)
            if flight is mine:
                await self._io.lead(mine, self._lead(mine, work))
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

    async def _read_or_load(
        self, flight: Flight, loader: Callable[[], Any], plan: Plan, absence: Absence | None
    ) -> Outcome[Any]:
        value = self._reader.near(flight.key, plan.schema)
        if value is not MISS:  # an earlier flight has landed since the caller looked
            return Outcome(value).unshared()
        found = absence or await self._reader.fetch(flight.key, plan.schema)
        if isinstance(found, Found):
            self._core.near.tally(entity_of(flight.key)).engine += 1
            return Outcome(found.value).shared_as(*self._core.form(found.value, found.record, plan.schema))
        self._core.emit(Miss(entity_of(flight.key), found.value, 1))
        return await self._load(flight, loader, plan, store=found not in DO_NOT_STORE)

    async def _load(self, flight: Flight, loader: Callable[[], Any], plan: Plan, store: bool = True) -> Outcome[Any]:
        started = time.perf_counter()
        with leading(flight):
            outcome = await self._io.user(loader)
        cost = time.perf_counter() - started
        error = None if outcome.error is None else type(outcome.error).__name__
        self._core.emit(Load(entity_of(flight.key), cost, error))
        if outcome.error is not None:
            return outcome
        return await self._fill(flight, outcome.get(), plan, cost, store)

    async def _fill(self, flight: Flight, value: Any, plan: Plan, cost: float, store: bool) -> Outcome[Any]:
        draft = self._writer.draft(flight.key, value, self._lifetime(value, plan), plan.schema, cost)
        if store:
            await self._store(flight, draft)
        return Outcome(value).shared_as(*self._core.form(value, draft.encoded, plan.schema))

    async def _store(self, flight: Flight, draft: Draft) -> None:
        """Store what a flight loaded, unless this process wrote the key since; if it does so meanwhile, delete it."""
        core = self._core
        stamp = core.near.stamp(flight.key)
        if not core.flights.may_store(flight):
            return
        try:
            with contextlib.suppress(BackendError):
                await self._writer.store(draft, stamp)
        finally:
            if core.flights.crossed(flight):
                core.owe(flight.key)
                core.flights.settle(flight)

    def _lifetime(self, value: Any, plan: Plan) -> float:
        if value is not None:
            return self._core.jittered(plan.ttl)
        if plan.none_ttl is not None:
            return self._core.jittered(plan.none_ttl)
        return min(self._core.jittered(plan.ttl), self._core.jittered(self._core.options.none_ttl))

    def _followed(self, key: str, outcome: Outcome[Any]) -> Outcome[Any]:
        if outcome.error is None:
            self._core.emit(Hit(entity_of(key), "flight", 1))
        return outcome.copied()

    def _asked_itself(self, key: str) -> Outcome[Any]:
        return Outcome(error=CacheError(f"the loader of {key!r} asked for {key!r} itself and would wait for ever"))

    def _bound(self, plan: Plan) -> float:
        return self._core.options.hard_timeout if plan.hard_timeout is None else plan.hard_timeout

    def _overdue(self, key: str, plan: Plan) -> Outcome[Any]:
        bound = self._bound(plan)
        return Outcome(error=LoaderTimeoutError(f"the load of {key!r} did not end within {bound:g} s (hard_timeout)"))
