"""One view for one request: what was read once inside `cache.memo()` is not asked for again.

The memo stands before the near tier. It holds values in the same form, so that every reader gets one of its own, for as
long as the block lasts, whatever becomes of them elsewhere. What the block itself writes or invalidates leaves it.

The classes here are what code uses that runs in such a block, or in a transaction. Each looks whether the block is
still open, because tasks may outlive it.
"""

from collections import OrderedDict
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS
from nearcache._core.outcome import Form, Outcome
from nearcache._core.queued import Queued
from nearcache._core.ttl import TTL
from nearcache._engine.batch import Batch, Batches
from nearcache._engine.core import Core
from nearcache._engine.found import DEAD, Absence, Found, Lack
from nearcache._engine.load import Loads
from nearcache._engine.modes import Mode
from nearcache._engine.plan import Job
from nearcache._engine.read import Reader
from nearcache._engine.write import Draft, Tagger, Writer
from nearcache._io.port import Io
from nearcache.codecs.codec import SchemaMismatch
from nearcache.codecs.schema import Schema

MOST: Final = 1_000
"""Keys that a memo holds; the oldest leaves first."""

STORING: Final = (Mode.NORMAL, Mode.BYPASS)


class Memo:
    """What one block has seen, by key and declared type: the forms of values; none where there was no value."""

    __slots__ = ("_seen", "changes", "closed")

    def __init__(self) -> None:
        self._seen: OrderedDict[str, dict[Schema | None, Form]] = OrderedDict()
        self.changes: int = 0
        """How often something left because it was changed: what was asked for before may be older."""
        self.closed: bool = False

    def read(self, key: str, schema: Schema | None) -> Any:
        """Return the value that was seen, if it has the declared type, else MISS."""
        for state, copier in tuple(self._seen.get(key, {}).values()):
            value = state if copier is None else copier(state)
            with suppress(SchemaMismatch):
                return value if schema is None else schema.check(value)
        return MISS

    def lacks(self, key: str) -> bool:
        """Whether it was seen that there is no value."""
        return self._seen.get(key) == {}

    def keep(self, key: str, schema: Schema | None, form: Form, changes: int) -> None:
        """Remember a value that was asked for when there had been so many changes; one seen before stays."""
        self._place(key, changes).setdefault(schema, form)

    def keep_outcome(self, key: str, schema: Schema | None, outcome: Outcome[Any], changes: int) -> None:
        """Remember what a load brought, if it brought a value."""
        if outcome.error is None and outcome.form is not None:
            self.keep(key, schema, outcome.form, changes)

    def keep_found(self, key: str, schema: Schema | None, found: Found | Lack, core: Core, changes: int) -> None:
        """Remember what the engine said; nothing if it failed, or what it has cannot be decoded."""
        if isinstance(found, Found):
            self.keep(key, schema, core.form(found.value, found.record, schema), changes)
        elif found.reason in (Absence.COLD, Absence.EVICTED, *DEAD):
            self._place(key, changes)

    def drop(self, *keys: str) -> None:
        """Forget keys that were changed."""
        self.changes += 1
        for key in keys:
            self._seen.pop(key, None)

    def drop_all(self) -> None:
        """Forget everything: which tags the values have is not known here."""
        self.changes += 1
        self._seen.clear()

    def _place(self, key: str, changes: int) -> dict[Schema | None, Form]:
        if changes != self.changes:
            return {}
        place = self._seen.setdefault(key, {})
        if len(self._seen) > MOST:
            with suppress(KeyError):  # another thread was quicker
                self._seen.popitem(last=False)
        return place


@contextmanager
def viewing(core: Core) -> Generator[None]:
    """Run a block with a memo, that of the block around it if there is one."""
    if memo_of(core) is not None:
        yield
        return
    memo = Memo()
    with core.inside(core.memos, memo):
        try:
            yield
        finally:
            memo.closed = True  # tasks that were started inside may go on for long


def memo_of(core: Core) -> Memo | None:
    """Return the memo of the running code."""
    memo = core.memos.now()
    return None if memo is None or memo.closed else memo


def readable(core: Core) -> Memo | None:
    """Return the memo of the running code if that may read at all."""
    return memo_of(core) if core.mode() is Mode.NORMAL else None


@contextmanager
def changing(core: Core, *keys: str) -> Generator[None]:
    """Change keys: afterwards the memo of the running code knows nothing of them."""
    try:
        yield
    finally:
        if (memo := memo_of(core)) is not None:
            memo.drop(*keys)


class MemoReader(Reader):
    """Reads the memo first, and lets it see the rest."""

    async def get(self, key: str, default: Any, schema: Schema | None) -> Any:
        """Do as `Reader.get`; that there is no value is remembered, too."""
        if self.lacks(self._core.check(key)):
            return self._missed(key, Absence.COLD, default)
        return await super().get(key, default, schema)

    async def get_many(self, keys: Iterable[str], schema: Schema | None = None) -> dict[str, Any]:
        """Do as `Reader.get_many`; that there is no value is remembered, too."""
        wanted: list[str] = []
        for key in self._core.check_all(keys):
            if self.lacks(key):
                self._missed(key, Absence.COLD, None)
            else:
                wanted.append(key)
        return await super().get_many(wanted, schema)

    def lacks(self, key: str) -> bool:
        """Whether the running code has seen that there is no value."""
        memo = readable(self._core)
        return memo is not None and memo.lacks(key)

    def near(self, key: str, schema: Schema | None) -> Any:
        """Return the value of the memo, or the near one, if it has the declared type, else MISS."""
        memo = readable(self._core)
        if memo is None:
            return super().near(key, schema)
        if (value := self._seen(memo, key, schema)) is not MISS:
            return value
        slot = self._core.near.slot(key)
        if (value := super().near(key, schema)) is not MISS and slot is not None:
            memo.keep(key, schema, (slot.value, slot.copy), memo.changes)
        return value

    async def split(self, keys: Sequence[str], schema: Schema | None) -> tuple[dict[str, Any], dict[str, Lack]]:
        """Do as `Reader.split`."""
        memo = readable(self._core)
        if memo is None:
            return await super().split(keys, schema)
        seen = {key: value for key in keys if (value := self._seen(memo, key, schema)) is not MISS}
        values, absent = await super().split([key for key in keys if key not in seen], schema)
        return seen | values, absent

    def _seen(self, memo: Memo, key: str, schema: Schema | None) -> Any:
        value = memo.read(key, schema)
        if value is not MISS:
            self._core.near.hits.of(entity_of(key)).turn()
        return value

    async def fetch(self, key: str, schema: Schema | None, *, refreshes: bool = False) -> Found | Lack:
        """Do as `Reader.fetch`."""
        memo = readable(self._core)
        if memo is None:
            return await super().fetch(key, schema, refreshes=refreshes)
        changes, found = memo.changes, await super().fetch(key, schema, refreshes=refreshes)
        memo.keep_found(key, schema, found, self._core, changes)
        return found

    async def fetch_many(self, keys: Sequence[str], schema: Schema | None) -> dict[str, Found | Lack]:
        """Do as `Reader.fetch_many`."""
        memo = readable(self._core)
        if memo is None or len(keys) <= 1:
            return await super().fetch_many(keys, schema)
        changes, found = memo.changes, await super().fetch_many(keys, schema)
        for key, each in found.items():
            memo.keep_found(key, schema, each, self._core, changes)
        return found


class MemoLoads(Loads):
    """Loads what is not in the memo, and lets it see the results."""

    async def get_or_load(self, key: str, job: Job, lack: Lack | None = None) -> Outcome[Any]:
        """Do as `Loads.get_or_load`."""
        memo = readable(self._core)
        if memo is None:
            return await super().get_or_load(key, job, lack)
        if (value := self._reader.near(self._core.check(key), job.plan.schema)) is not MISS:
            return Outcome(value)
        changes, outcome = memo.changes, await super().get_or_load(key, job, lack)
        memo.keep_outcome(key, job.plan.schema, outcome, changes)
        return outcome

    async def refresh(self, key: str, job: Job) -> Outcome[Any]:
        """Do as `Loads.refresh`."""
        outcome, memo = await super().refresh(key, job), memo_of(self._core)
        if memo is not None and outcome.error is None:
            memo.drop(key)
            memo.keep_outcome(key, job.plan.schema, outcome, memo.changes)
        return outcome


class MemoBatches(Batches):
    """Loads what is not in the memo, and lets it see the results."""

    async def get_or_load(self, batch: Batch) -> dict[str, Outcome[Any]]:
        """Do as `Batches.get_or_load`."""
        memo = memo_of(self._core) if self._core.mode() in STORING else None
        if memo is None:
            return await super().get_or_load(batch)
        if self._core.mode() is Mode.BYPASS:
            memo.drop(*batch.items)
        changes, outcomes = memo.changes, await super().get_or_load(batch)
        for key, outcome in outcomes.items():
            memo.keep_outcome(key, batch.plan.schema, outcome, changes)
        return outcomes


class MemoWriter(Writer):
    """Has what it writes leave the memo: afterwards, so that nobody who read meanwhile puts the old value back."""

    async def put(self, draft: Draft) -> None:
        """Do as `Writer.put`."""
        with changing(self._core, draft.key):
            await super().put(draft)

    async def put_many(self, drafts: Sequence[Draft]) -> None:
        """Do as `Writer.put_many`."""
        with changing(self._core, *[draft.key for draft in drafts]):
            await super().put_many(drafts)

    async def add(self, key: str, value: Any, ttl: TTL) -> bool:
        """Do as `Writer.add`."""
        with changing(self._core, key):
            return await super().add(key, value, ttl)

    async def incr(self, key: str, by: int, ttl: TTL) -> int:
        """Do as `Writer.incr`."""
        with changing(self._core, key):
            return await super().incr(key, by, ttl)

    async def touch(self, key: str, ttl: TTL) -> bool:
        """Do as `Writer.touch`."""
        with changing(self._core, key):
            return await super().touch(key, ttl)

    async def delete(self, keys: Iterable[str]) -> int | Queued:
        """Do as `Writer.delete`."""
        doomed = self._core.check_all(keys)
        with changing(self._core, *doomed):
            return await super().delete(doomed)

    async def invalidate(self, tags: Iterable[str], everything: bool) -> Queued | None:
        """Do as `Writer.invalidate`."""
        try:
            return await super().invalidate(tags, everything)
        finally:
            if (memo := memo_of(self._core)) is not None:
                memo.drop_all()

    async def write_through(
        self, io: Io, key: str, source: Any, value: Any, ttl: TTL, schema: Schema | None, tag: Tagger
    ) -> Outcome[Any]:
        """Do as `Writer.write_through`."""
        with changing(self._core, key):
            return await super().write_through(io, key, source, value, ttl, schema, tag)
