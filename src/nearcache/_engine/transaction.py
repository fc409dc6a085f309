"""Blocks whose changes reach the cache after the transaction of the database: `cache.transaction()`.

Inside, invalidations and sets are collected. They are sent when the outermost block has ended without an exception, and
dropped otherwise. Loads may see rows that are not committed yet: their results are returned, and neither stored nor
shared with other readers, nor do they wait for loads of others, whose results may be older than what the block wrote.

The classes here are what code uses that runs in such a block, or has a memo. Each looks whether the block is still
open, because tasks may outlive it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from msgspec.structs import replace

from nearcache._core.entry import Entry
from nearcache._core.events import Miss
from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS, Missing
from nearcache._core.outcome import Outcome
from nearcache._core.queued import Queued
from nearcache._core.ttl import TTL
from nearcache._engine.batch import Batch, Share, told
from nearcache._engine.core import Core
from nearcache._engine.found import Absence, Lack
from nearcache._engine.memo import MemoBatches, MemoLoads, MemoReader, MemoWriter
from nearcache._engine.modes import Mode
from nearcache._engine.plan import Job
from nearcache._engine.write import Draft, Tagger, Writer
from nearcache._io.port import Io, require_callable
from nearcache.codecs.codec import SchemaMismatch
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError

CHANGED: Final = Lack(Absence.INVALIDATED)


class Transaction:
    """What one block wants changed."""

    def __init__(self, core: Core, outer: "Transaction | None") -> None:
        self._core = core
        self._outer = outer
        self.held: dict[str, Draft | None] = {}
        """By key, what is to be stored in the end; None for what is to be deleted."""
        self.written: set[str] = set()
        """Keys whose source was written inside: whatever becomes of the block, what is cached may be older."""
        self.tags: set[str] = set()
        self.everything: bool = False
        self._succeeded = False
        self.closed: bool = False

    @property
    def outer(self) -> "Transaction | None":
        """The block around this one that has not ended."""
        outer = self._outer
        while outer is not None and outer.closed:
            outer = outer.outer
        return outer

    # Collecting

    @contextmanager
    def collecting(self) -> Generator[None]:
        """Run the block: the changes that the running code asks for are collected."""
        with self._core.inside(self._core.transactions, self):
            try:
                yield
                self._succeeded = True
            finally:
                self.closed = True  # what tasks that were started inside do from now on is no part of it

    def hold(self, drafts: Iterable[Draft]) -> None:
        """Store these in the end; as they are now, whatever becomes of the objects."""
        for draft in drafts:
            self.held[draft.key] = replace(draft, value=own_value(self._core, draft))

    def drop(self, keys: Iterable[str]) -> None:
        """Delete these in the end."""
        self.held.update(dict.fromkeys(keys))

    def wrote(self, keys: Iterable[str]) -> None:
        """Delete these in the end, however that may be."""
        for key in keys:
            self.held[key] = None
            self.written.add(key)

    def mark(self, tags: Iterable[str], everything: bool) -> None:
        """Invalidate these tags, or everything, in the end; also what was to be stored."""
        marked = set(tags)
        for key, draft in list(self.held.items()):
            if draft is not None and (everything or not marked.isdisjoint(draft.tags)):
                self.held[key] = None
        self.tags |= marked
        self.everything |= everything

    # Reading

    def find(self, key: str) -> Draft | Missing | None:
        """Return what this block holds back for a key, None if it changed it, MISS if not.

        After an invalidation of tags or of everything each key counts as changed: the tags of a value are known only
        when it was read.
        """
        tags, everything = set[str](), False
        for block in self._chain():
            if key in block.held:
                draft = block.held[key]
                return None if draft is None or everything or not tags.isdisjoint(draft.tags) else draft
            tags, everything = tags | block.tags, everything or block.everything
        return None if tags or everything else MISS

    def _chain(self) -> "Iterator[Transaction]":
        block: Transaction | None = self
        while block is not None:
            yield block
            block = block.outer

    # The end

    async def end(self, writer: Writer) -> None:
        """Send everything if the block has succeeded; an inner block leaves that to the one around it."""
        if (outer := self.outer) is not None:
            self._join(outer)
        elif self._succeeded:
            await self._send(writer)
        else:
            with suppress(BackendError):  # there is an error already, and the keys are debts
                await writer.delete(self.written)

    def interrupted(self, error: BaseException) -> None:
        """Note as debts what may not have been sent because something interrupted the end."""
        if isinstance(error, Exception) or self.outer is not None:
            return
        core = self._core
        core.owe(*(self.held if self._succeeded else self.written))
        if self._succeeded and (self.tags or self.everything):
            core.owe_marks(self.tags, self.everything)
            core.marked(self.tags, self.everything)

    def _join(self, outer: "Transaction") -> None:
        if not self._succeeded:
            outer.wrote(self.written)
            return
        outer.mark(self.tags, self.everything)
        outer.held |= self.held
        outer.written |= self.written

    async def _send(self, writer: Writer) -> None:
        """Send invalidations first. Whatever fails, the rest is sent, or noted as a debt."""
        drafts = [draft for draft in self.held.values() if draft is not None]
        try:
            if self.tags or self.everything:
                await writer.invalidate(self.tags, self.everything)
        finally:
            try:
                await writer.delete([key for key, draft in self.held.items() if draft is None])
            finally:
                await (writer.put(drafts[0]) if len(drafts) == 1 else writer.put_many(drafts))


def open_in(core: Core) -> Transaction | None:
    """Return the innermost block that the running code is in and that has not ended."""
    block = core.transactions.now()
    return block.outer if block is not None and block.closed else block


def own_value(core: Core, draft: Draft) -> Any:
    """Return the value of a draft for one reader."""
    state, copier = core.form(draft.value, draft.encoded, draft.schema)
    return state if copier is None else copier(state)


class TransactionReader(MemoReader):
    """Reads back what the block holds, and nothing that it changed."""

    async def get(self, key: str, default: Any, schema: Schema | None) -> Any:
        """Do as `Reader.get`."""
        if self._find(self._core.check(key)) is MISS:
            return await super().get(key, default, schema)
        return (await self.get_many((key,), schema)).get(key, default)

    async def split(self, keys: Sequence[str], schema: Schema | None) -> tuple[dict[str, Any], dict[str, Lack]]:
        """Do as `Reader.split`."""
        changed = {key: draft for key in keys if not isinstance(draft := self._find(key), Missing)}
        values, absent = await super().split([key for key in keys if key not in changed] if changed else keys, schema)
        for key, draft in changed.items():
            if (value := self._own(draft, schema)) is MISS:
                absent[key] = CHANGED
            else:
                values[key] = value
        return values, absent

    async def get_entry(self, key: str) -> Entry | Missing:
        """Do as `Reader.get_entry`."""
        draft = self._find(self._core.check(key))
        if isinstance(draft, Missing):
            return await super().get_entry(key)
        return MISS if draft is None else Entry(self._own(draft, None), 0.0, draft.ttl, "near", stale=False)

    async def ttl(self, key: str) -> float | Missing:
        """Do as `Reader.ttl`."""
        draft = self._find(self._core.check(key))
        if isinstance(draft, Missing):
            return await super().ttl(key)
        return MISS if draft is None else draft.ttl

    def lacks(self, key: str) -> bool:
        """Do as `MemoReader.lacks`."""
        return self._find(key) is MISS and super().lacks(key)

    def _find(self, key: str) -> Draft | Missing | None:
        block = open_in(self._core) if self._core.mode() is Mode.NORMAL else None
        return MISS if block is None else block.find(key)

    def _own(self, draft: Draft | None, schema: Schema | None) -> Any:
        if draft is None:
            return MISS
        value = own_value(self._core, draft)
        try:
            return value if schema is None else schema.check(value)
        except SchemaMismatch:
            return MISS


class TransactionLoads(MemoLoads):
    """Loads for nobody else, and stores nothing."""

    async def get_or_load(self, key: str, job: Job, lack: Lack | None = None) -> Outcome[Any]:
        """Do as `Loads.get_or_load`."""
        core = self._core
        if open_in(core) is None:
            return await super().get_or_load(key, job, lack)
        core.check(key)
        require_callable(job.loader, "loader")
        values, absent = ({}, {key: lack}) if lack else await self._reader.split([key], job.plan.schema)
        if key in values:
            return Outcome(values[key])
        return self.asked_itself(key) if core.flights.led_here(key) else await self._alone(key, job, absent[key])

    async def refresh(self, key: str, job: Job) -> Outcome[Any]:
        """Do as `Loads.refresh`."""
        core = self._core
        if open_in(core) is None:
            return await super().refresh(key, job)
        if core.flights.led_here(core.check(key)):
            return self.asked_itself(key)
        return await self.load(core.flights.new(key, 0.0, None), job, None)


class TransactionBatches(MemoBatches):
    """Loads for nobody else, and stores nothing."""

    async def get_or_load(self, batch: Batch) -> dict[str, Outcome[Any]]:
        """Do as `Batches.get_or_load`."""
        if open_in(self._core) is None:
            return await super().get_or_load(batch)
        core, keys = self._core, list(map(self._core.check, batch.items))
        require_callable(batch.loader, "loader_many")
        values, lacks = await self._reader.split(keys, batch.plan.schema)
        for key, lack in lacks.items():
            core.emit(Miss(entity_of(key), lack.reason.value, 1))
        share = Share({key: core.flights.new(key, 0.0, None) for key in lacks if not core.flights.led_here(key)}, {})
        await self._load(batch, share)  # without a lease, so that nothing is stored
        outcomes = {key: share.flights[key].outcome if key in share.flights else None for key in lacks}
        return told(keys, values, {key: outcome or self._loads.asked_itself(key) for key, outcome in outcomes.items()})


class TransactionWriter(MemoWriter):
    """Collects instead of sending; `add`, `touch` and `incr` act at once, for their result is asked for now."""

    async def put(self, draft: Draft) -> None:
        """Do as `Writer.put`."""
        await self.put_many((draft,)) if open_in(self._core) else await super().put(draft)

    async def put_many(self, drafts: Sequence[Draft]) -> None:
        """Do as `Writer.put_many`."""
        block = open_in(self._core)
        if block is None:
            await super().put_many(drafts)
        elif self._stores():
            block.hold(drafts)

    async def delete(self, keys: Iterable[str]) -> int | Queued:
        """Do as `Writer.delete`; nothing is known yet, so that it returns 0."""
        block = open_in(self._core)
        if block is None:
            return await super().delete(keys)
        block.drop(self._core.check_all(keys))
        return 0

    async def invalidate(self, tags: Iterable[str], everything: bool) -> Queued | None:
        """Do as `Writer.invalidate`."""
        block, core = open_in(self._core), self._core
        if block is None:
            return await super().invalidate(tags, everything)
        names = core.check_tags(tags)
        core.require_marks("clear" if everything else "tags", everything or bool(names))
        block.mark(names, everything)
        return None

    async def write_through(
        self,
        io: Io,
        key: str,
        source: Callable[[], Any],
        value: Any,
        ttl: TTL,
        schema: Schema | None,
        tag: Tagger,
    ) -> Outcome[Any]:
        """Write the source now, and invalidate the key in the end, whatever becomes of the block.

        The value may be rolled back, so it is not cached; the source may be no part of what is rolled back.
        """
        if open_in(self._core) is None:
            return await super().write_through(io, key, source, value, ttl, schema, tag)
        self._core.check(key)
        self._core.jittered(ttl)
        try:
            written = await io.user(source)
        except BaseException:
            await self._wrote(key)
            raise
        if written.error is None or written.abandoned:
            await self._wrote(key)
        if written.error is not None:
            return written
        cached = value if (result := written.get()) is None else result
        return Outcome(None if cached is MISS else cached)

    async def _wrote(self, key: str) -> None:
        block = open_in(self._core)
        if block is None:  # it has ended meanwhile
            await super().delete((key,))
        else:
            block.wrote((key,))
