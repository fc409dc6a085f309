"""Reading: from the near tier, then from the engine; whatever is read is judged before it is served or kept near."""

import time
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Any

from nearcache._core.entry import Entry
from nearcache._core.events import Command, Failure, Miss
from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS, Missing
from nearcache._core.outcome import Outcome
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.found import COLD, DEAD, DO_NOT_STORE, EVICTED, FAILED, UNVOUCHED, Absence, Found, Lack, Old
from nearcache._engine.modes import Mode
from nearcache.backends.base import Backend, Replicas
from nearcache.codecs.codec import Record, SchemaMismatch
from nearcache.codecs.near import size_of
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError, CodecError
from nearcache.near.flights import Flight
from nearcache.near.slot import NEVER


class Reader:
    """Reads of one cache through one backend."""

    def __init__(self, core: Core, backend: Backend, commands: Commands) -> None:
        self._core = core
        self._backend = backend
        self._commands = commands
        self._view = core.view
        self._codec = core.codec

    # Verbs

    async def get(self, key: str, default: Any, schema: Schema | None) -> Any:
        """Return the value, or the default; an engine that fails counts as a miss.

        Without a schema, the caller has looked near, as far as it could.
        """
        core = self._core
        core.check(key)
        if core.mode() is not Mode.NORMAL:
            return self._missed(key, Absence.DISABLED, default)
        looked = schema is None and core.near.until != NEVER
        if not looked and (value := self.near(key, schema)) is not MISS:
            return value
        found = await self.fetch(key, schema)
        if isinstance(found, Found):
            core.near.hits.of(entity_of(key)).engine += 1
            return found.value
        return self._missed(key, found.reason, default)

    async def peek(self, key: str, schema: Schema | None) -> Any:
        """Return the value, near or far, or None."""
        value = self._core.near.lookup(key) if schema is None else MISS
        return value if value is not MISS else await self.get(key, None, schema)

    async def get_entry(self, key: str) -> Entry | Missing:
        """Return the value with what is known about it, always from the engine."""
        self._core.check(key)
        if self._core.mode() is not Mode.NORMAL:
            return MISS
        served_near = self.near(key, None) is not MISS
        found = await self.fetch(key, None)
        if isinstance(found, Found):
            return Entry(found.value, found.age, found.ttl, "near" if served_near else "engine", stale=False)
        record = found.record
        old = self.revived(key, found, record.hard - record.soft, None) if record else None
        if record is None or old is None:
            return MISS
        return Entry(old.outcome.get(), record.soft + found.past, 0.0, "engine", stale=True)

    async def get_many(self, keys: Iterable[str], schema: Schema | None = None) -> dict[str, Any]:
        """Return what there is, by key: near values, then one round trip for the rest."""
        wanted = self._core.check_all(keys)
        values, absent = await self.split(wanted, schema)
        for key, lack in absent.items():
            self._missed(key, lack.reason, None)
        return {key: values[key] for key in wanted if key in values}

    async def split(self, keys: Sequence[str], schema: Schema | None) -> tuple[dict[str, Any], dict[str, Lack]]:
        """Return what there is, and why the rest is absent; misses are for the caller to count."""
        if self._core.mode() is not Mode.NORMAL:
            return {}, dict.fromkeys(keys, Lack(Absence.DISABLED))
        values: dict[str, Any] = {}
        if self._core.keeps:
            values = {key: value for key in keys if (value := self.near(key, schema)) is not MISS}
        far = await self.fetch_many([key for key in keys if key not in values] if values else keys, schema)
        absent: dict[str, Lack] = {}
        for key, found in far.items():
            if type(found) is Found:
                values[key] = found.value
            elif isinstance(found, Lack):
                absent[key] = found
        for entity, hits in Counter(map(entity_of, far.keys() - absent.keys())).items():
            self._core.near.hits.of(entity).engine += hits
        return values, absent

    async def exists(self, key: str) -> bool:
        """Tell whether there is a fresh value; raises when the engine fails."""
        return await self.ttl(key) is not MISS

    async def ttl(self, key: str) -> float | Missing:
        """Return the seconds for which the value stays fresh; raises when the engine fails."""
        self._core.check(key)
        if self._core.mode() is not Mode.NORMAL:
            return MISS
        if not self._core.codec.enveloped:
            return await self._remaining(key)
        record = await self.record(key)
        return self._ages(record)[1] if isinstance(record, Record) else MISS

    # What the other verbs build on

    def near(self, key: str, schema: Schema | None) -> Any:
        """Return the near value if it has the declared type, else MISS; for code that runs in the normal mode."""
        near = self._core.near
        slot = None if schema is None else near.slot(key)
        value = near.lookup_suspended(key) if near.until == NEVER else near.lookup(key)
        if schema is None or value is MISS:
            return value
        try:
            schema.check(value)
        except SchemaMismatch:
            return MISS
        if slot is not None and slot.schema is None and near.slot(key) is slot:  # it was this very slot all the time
            slot.schema = schema  # need not be checked again
        return value

    async def record(self, key: str) -> Record | Lack:
        """Read the fresh record of one key; raises when the engine fails. Not for values without an envelope."""
        debts = self._core.debts
        owed = key in debts
        raw = await self._commands.run("get", self._backend.get, key)
        if raw is not None and (owed or key in debts):
            return FAILED
        record = self._fresh(key, raw)
        if isinstance(record, Lack) and record.tags:
            await self._ask(record.tags)
            record = self._fresh(key, raw)
        return record

    async def dead(self, key: str, why: Container[Absence] = DEAD) -> bytes:
        """Return the fill id of a record that the engine still holds although it may not be served, else b"".

        Of one that has no header it is the bytes that stand in its place.
        """
        if not self._core.codec.enveloped:
            return b""
        lack = await self.record(key)
        return lack.seen[1:] if isinstance(lack, Lack) and lack.reason in why else b""

    async def fetch(self, key: str, schema: Schema | None, *, refreshes: bool = False) -> Found | Lack:
        """Read one key from the engine and keep near what is fresh; a caller that `refreshes` is told what is due."""
        core, backend = self._core, self._backend
        if backend.replicas is not None and (copied := await self._copied(backend.replicas, (key,), schema, refreshes)):
            return copied[key]
        stamp, asked = (core.near.stamp(key), core.clock()) if core.keeps else (0, 0.0)
        unvouched = asked >= core.near.vouched and core.near.refused(key)
        owed = key in core.debts
        try:
            raw = await self._commands.run("get", backend.get, key)
            if raw is not None and (owed or key in core.debts):  # it may have been read before it was deleted
                return FAILED
            life = None if core.codec.enveloped else (await backend.remaining((key,)))[0]
            found = self._judge(key, raw, life, schema, backend.time.latest())
            if type(found) is Lack and found.tags:
                await self._ask(found.tags)
                found = self._judge(key, raw, life, schema, backend.time.latest())
        except BackendError as error:
            self._fail(error)
            return UNVOUCHED if unvouched or key in core.near.left else FAILED
        if refreshes and type(found) is Found:
            found.draw()
        if core.keeps:
            self._keep(key, found, schema, asked, stamp)
        return found

    async def fetch_many(self, keys: Sequence[str], schema: Schema | None) -> dict[str, Found | Lack]:
        """Read keys from the engine in one round trip and keep near what is fresh."""
        if len(keys) <= 1:
            return {key: await self.fetch(key, schema) for key in keys}
        if self._backend.replicas is None:
            return await self.ask_many(keys, schema)
        found = await self._copied(self._backend.replicas, keys, schema)
        rest = [key for key in keys if key not in found]
        return found | await self.ask_many(rest, schema) if rest else found

    async def ask_many(self, keys: Sequence[str], schema: Schema | None) -> dict[str, Found | Lack]:
        """Do as `fetch_many`, but ask no replica."""
        core, backend = self._core, self._backend
        stamps = [core.near.stamp(key) for key in keys] if core.keeps else []
        owed = core.debts.keys() & keys
        asked = core.clock()
        unvouched = self._doubtful(keys, asked)
        try:
            there, raws = await self._records(keys)
            lives = [None] * len(there) if core.codec.enveloped else await backend.remaining(there)
            found = self._judge_all(there, raws, lives, schema)
            if tags := {tag for each in found.values() if type(each) is Lack for tag in each.tags}:
                await self._ask(tags)
                found = self._judge_all(there, raws, lives, schema)
        except BackendError as error:
            self._fail(error)
            found = dict[str, Found | Lack]()
        if len(found) < len(keys):
            found |= {key: UNVOUCHED if key in unvouched else FAILED for key in keys if key not in found}
        if owed or core.debts:
            found |= dict.fromkeys(owed | (core.debts.keys() & keys), FAILED)
        if core.keeps:
            for key, stamp in zip(keys, stamps, strict=True):
                self._keep(key, found[key], schema, asked, stamp)
        return found

    async def _copied(
        self, replicas: Replicas, keys: Sequence[str], schema: Schema | None, refreshes: bool = False
    ) -> dict[str, Found | Lack]:
        """Read keys from a replica, and keep near what is fresh; for whatever is left out the engine itself has to be
        asked, unless it has just failed.
        """
        core = self._core
        stamps = [core.near.stamp(key) for key in keys] if core.keeps else []
        owed = core.debts.keys() & keys
        if replicas.due():
            unvouched = self._doubtful(keys, core.clock())
            try:
                await self._commands.run("replicas", replicas.look)
            except BackendError as error:
                self._fail(error)
                return {key: UNVOUCHED if key in unvouched else FAILED for key in keys}
        if core.view.due(asking=True):  # the marks to judge by are too old
            return {}
        asked, started = core.clock(), time.perf_counter()
        copied = await replicas.read(keys)
        if copied is None:
            return {}
        core.emit(Command("replica", time.perf_counter() - started, failed=False))
        told = copied.records
        judged = self._judge_all(list(told), list(told.values()), [None] * len(told), schema)
        owed |= core.debts.keys() & keys
        found = {key: each for key, each in judged.items() if type(each) is Found and key not in owed}
        for each in found.values():
            each.behind = max(0.0, asked - copied.since)
            if refreshes:
                each.draw()
        if core.keeps:
            for key, stamp in zip(keys, stamps, strict=True):
                if key in found:
                    self._keep(key, found[key], schema, asked, stamp)
        return {**found}

    async def _records(self, keys: Sequence[str]) -> tuple[Sequence[str], Sequence[bytes | None]]:
        """Ask for records; return those keys about which something was answered, and what."""
        try:
            return keys, await self._commands.run("get_many", self._backend.get_many, keys)
        except BackendError as error:
            if not error.answered:
                raise
            self._fail(error)
            return list(error.answered), list(error.answered.values())

    async def examine(self, key: str, raw: bytes, schema: Schema | None, asked: float, stamp: int) -> Found | Lack:
        """Judge a record that the engine gave instead of a lease, and keep it near if it is fresh."""
        core, backend = self._core, self._backend
        try:
            life = None if core.codec.enveloped else (await backend.remaining((key,)))[0]
            found = self._judge(key, raw, life, schema, backend.time.latest())
            if type(found) is Lack and found.tags:
                await self._ask(found.tags)
                found = self._judge(key, raw, life, schema, backend.time.latest())
        except BackendError as error:
            self._fail(error)
            return FAILED
        if core.keeps:
            self._keep(key, found, schema, asked, stamp)
        return found

    def surpass(self, flight: Flight) -> None:
        """Find nothing any more, wherever it is, that may be older than what a flight has loaded now."""
        self._core.view.surpass()  # first: who reads from then on asks for marks
        self._core.near.passed(flight.key)
        self._core.flights.outdate(flight.key, flight)
        if self._backend.replicas is not None:
            self._backend.replicas.meet((flight.key,))

    def revived(self, key: str, lack: Lack, kept: float, schema: Schema | None) -> "Old | None":
        """Return the value of a record that is not fresh any more, if it is kept so long, and can be decoded.

        While the engine fails, it is a near value for which nobody vouches.
        """
        if lack.reason is Absence.INCOHERENT and kept:
            return self._unvouched(key, schema)
        record = lack.record
        return None if record is None or lack.past > kept else self._old(key, record, lack.past, schema)

    def _old(
        self, key: str, record: Record, past: float, schema: Schema | None, *, unvouched: bool = False
    ) -> "Old | None":
        try:
            value = self._codec.decode(record, schema)
        except CodecError as error:
            if not isinstance(error, SchemaMismatch):
                self._undecodable(key, None, error)
            return None
        outcome = Outcome(value).shared_as(*self._core.form(value, record, schema))
        outcome.stale = True
        return Old(outcome, past, time.monotonic(), unvouched)

    def _unvouched(self, key: str, schema: Schema | None) -> "Old | None":
        slot = self._core.near.unvouched(key)
        if slot is None:
            return self._left(key, schema)
        if schema is not None and slot.schema is not schema:
            return None
        outcome = Outcome(slot.own()).shared_as(slot.value, slot.copy)
        outcome.stale = True
        return Old(outcome, 0.0, time.monotonic(), unvouched=True)

    def _left(self, key: str, schema: Schema | None) -> "Old | None":
        """Return what an earlier process left, unless an invalidation is known that is newer."""
        core = self._core
        if (left := core.near.left.get(key)) is None:
            return None
        record = core.codec.open(left.raw)
        if not self._view.holds(self._view.here(record.epoch), record.tags):
            return None
        return self._old(key, record, max(0.0, core.clock() - left.fresh), schema, unvouched=True)

    def _doubtful(self, keys: Sequence[str], now: float) -> set[str]:
        """Return the keys for which there are values that are not served only because nobody vouches for them."""
        near = self._core.near
        doubtful = {key for key in keys if key in near.left}
        return doubtful.union(key for key in keys if near.refused(key)) if now >= near.vouched else doubtful

    def _fail(self, error: BackendError) -> None:
        """Raise the error of the engine if reads are to fail with it, instead of being misses."""
        if self._core.options.policy.read == "closed":
            error.answered = {}  # records, which are nobody's business but the reader's
            raise error

    async def _ask(self, tags: Iterable[str]) -> None:
        await self._commands.run("marks", self._backend.marks.ask, tuple(tags))

    def _keep(self, key: str, found: Found | Lack, schema: Schema | None, asked: float, stamp: int) -> None:
        """Keep near what the engine answered, if it is fresh."""
        if isinstance(found, Found):
            core, record = self._core, found.record
            cost = 0.0 if found.due else record.cost  # nobody has to look again at what is being refreshed
            deadline = core.near_deadline(asked, found.ttl, self._backend.shared, cost, found.behind)
            state, copier = core.form(found.value, record, schema)
            size = size_of(state, len(record.payload))
            number = core.number(record.fill_id or record.payload)
            kept = core.near.keep(key, state, copier, deadline, size, stamp, schema, record.tags, number)
            if not kept and self._backend.shared:
                core.flights.detach((key,))  # what is under way may be older
            core.flights.outdate(key)
        elif found.reason is Absence.SCHEMA:
            self._core.near.left.pop(key, None)  # what another release has stored may be newer
        elif self._backend.shared and found.reason not in DO_NOT_STORE:
            self._core.near.passed(key)

    async def _remaining(self, key: str) -> float | Missing:
        remaining = (await self._commands.run("ttl", self._backend.remaining, [key]))[0]
        return MISS if remaining is None else remaining

    def _judge_all(
        self, keys: Sequence[str], raws: Sequence[bytes | None], lives: Sequence[float | None], schema: Schema | None
    ) -> dict[str, Found | Lack]:
        now, judge = self._backend.time.latest(), self._judge
        return {key: judge(key, raw, life, schema, now) for key, raw, life in zip(keys, raws, lives, strict=True)}

    def _judge(
        self, key: str, raw: bytes | None, life: float | None, schema: Schema | None, now: float
    ) -> Found | Lack:
        """Return the value of a record if it is valid and fresh `now` (engine's time); one without ages lives for
        `life`.
        """
        if raw is None:
            return self._absent(key)
        try:
            record = self._codec.open(raw)
            age, ttl = 0.0, life
            if ttl is None:
                if record.epoch < self._view.sure_from and not self._view.holds(record.epoch, record.tags):
                    return self._doubt(record, raw)
                age = now - record.born if now > record.born else 0.0
                ttl = record.soft - age
            if ttl <= 0:
                return Lack(Absence.EXPIRED, self._backend.leases.identity(raw), record=record, past=-ttl)
            return Found(self._codec.decode(record, schema), record, age, ttl)
        except SchemaMismatch:
            return self._lack(Absence.SCHEMA, raw)
        except CodecError as error:
            return self._undecodable(key, raw, error)

    def _absent(self, key: str) -> Lack:
        """Tell why there is no record; a shared engine does not say what it has evicted."""
        records = self._core.records
        return EVICTED if records is not None and records.evicted(key) else COLD

    def _fresh(self, key: str, raw: bytes | None) -> Record | Lack:
        """Return the record if it is valid and fresh; it has a header."""
        if raw is None:
            return self._absent(key)
        try:
            record = self._core.codec.open(raw)
        except CodecError as error:
            return self._undecodable(key, raw, error)
        if not self._view.holds(record.epoch, record.tags):
            return self._doubt(record, raw)
        return record if self._ages(record)[1] > 0 else self._lack(Absence.EXPIRED, raw)

    def _doubt(self, record: Record, raw: bytes) -> Lack:
        """Say why a record may not be served that does not hold: an invalidation is newer, or may be."""
        unknown = self._view.unknown(record.epoch, record.tags)
        return Lack(Absence.INVALIDATED, tags=tuple(unknown)) if unknown else self._lack(Absence.INVALIDATED, raw)

    def _lack(self, reason: Absence, raw: bytes | None) -> Lack:
        return Lack(reason, self._backend.leases.identity(raw))

    def _undecodable(self, key: str, raw: bytes | None, error: CodecError) -> Lack:
        self._core.emit(Failure("codec", entity_of(key), type(error).__name__))
        return self._lack(Absence.UNDECODABLE, raw)

    def _ages(self, record: Record) -> tuple[float, float]:
        """Return the record's age and the seconds it stays fresh."""
        age = max(0.0, self._backend.time.latest() - record.born)
        return age, record.soft - age

    def _missed(self, key: str, absence: Absence, default: Any) -> Any:
        self._core.emit(Miss(entity_of(key), absence.value, 1))
        return default
